"""Tests of rtpush.planning.figures."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from rtpush.planning.figures import SHIPPED, TRANSPORTS, BadFigures, dump, load


class FiguresTests(SynchronousTestCase):
    """Figures in a file."""

    def test_there_and_back(self) -> None:
        """What is written can be read."""
        self.assertEqual(load(dump(SHIPPED)), SHIPPED)

    def test_shipped(self) -> None:
        """Those that are shipped have all transports, say of which machine they are, and are no measurement of this."""
        self.assertEqual(tuple(SHIPPED.costs), TRANSPORTS)
        self.assertIn("not this machine", SHIPPED.machine)

    def test_bad(self) -> None:
        """Anything else is refused in one line."""
        good = json.loads(dump(SHIPPED))
        for bad in (
            [],
            {},
            {**good, "format": 2},
            {**good, "publish": "much"},
            {**good, "publish": -1},
            {**good, "costs": {"websocket": good["costs"]["websocket"]}},
            {**good, "costs": {**good["costs"], "sse": {"memory": 1}}},
            {**good, "more": 1},
        ):
            with self.subTest(bad=bad):
                error = self.assertRaises(BadFigures, load, json.dumps(bad).encode())
                self.assertEqual(len(str(error).splitlines()), 1)
        self.assertRaises(BadFigures, load, b"{")
