"""Tests of rtpush.planning.charts."""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from rtpush.planning.charts import Series, bars, svg

_SVG = "{http://www.w3.org/2000/svg}"


class BarsTests(SynchronousTestCase):
    """Bars for a terminal."""

    def test_scale(self) -> None:
        """The largest value has the full width, half of it half of that; each row tells its value."""
        text = bars([Series("x", [10, 5, 0], "good")], rows=10, width=4)
        self.assertEqual(
            text.splitlines(),
            ["x (a full bar is 10/s)", "     0 s ████ 10", "     1 s ██   5", "     2 s      0"],
        )

    def test_rows(self) -> None:
        """Many seconds share a row, which shows the most of them."""
        lines = bars([Series("x", [1, 9, 2, 3], "good")], rows=2, width=4).splitlines()
        self.assertEqual([line.split()[-1] for line in lines[1:]], ["9", "3"])
        self.assertEqual(lines[2].split()[0], "2")

    def test_nothing(self) -> None:
        """Nothing at all can be shown too."""
        self.assertIn("a full bar is 0/s", bars([Series("x", [0], "good")]))


class SvgTests(SynchronousTestCase):
    """The drawing."""

    def test_drawing(self) -> None:
        """It is XML with a bar for each second in which somebody came, as high as their number."""
        drawing = svg("a <title>", "facts", [Series("x", [0, 50, 100], "good"), Series("y", [1], "bad")], limit=60)
        root = ElementTree.fromstring(drawing)
        heights = [float(each.attrib["height"]) for each in root.iter(f"{_SVG}rect") if each.get("class") == "good"]
        self.assertEqual(len(heights), 2)
        self.assertApproximates(heights[0] * 2, heights[1], 0.02)
        self.assertIn("a <title>", [each.text for each in root.iter(f"{_SVG}text")])
        # The limit fits into the first panel alone.
        self.assertEqual(len([each for each in root.iter(f"{_SVG}line") if each.get("class") == "limit"]), 1)

    def test_nothing(self) -> None:
        """Nothing at all can be drawn too."""
        ElementTree.fromstring(svg("t", "", [Series("x", [], "good")]))
