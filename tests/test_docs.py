"""Tests of the documentation: it can be built, nothing is missing, and what it shows is right."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import textwrap
from html import unescape
from pathlib import Path
from unittest import TestResult

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rtpush.api.calls import CALLS
from rtpush.service.schema import NAMESPACE, SECTIONS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def _blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", page.read_text(), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def _commands() -> list[tuple[str, str]]:
    """Return the commands that the pages show, each with the name of its page."""
    pages = [*sorted(DOCS.glob("*.rst")), ROOT / "README.rst"]
    return [
        (page.name, line[2:].strip())
        for page in pages
        for block in _blocks(page, "console")
        for line in block.splitlines()
        if line.startswith(("$ ", "# "))
    ]


class BuildTests(SynchronousTestCase):
    """The pages as Sphinx builds them."""

    def test_build(self) -> None:
        """They are built without a warning, have all keys and calls, and can be read without a network."""
        if importlib.util.find_spec("sphinx") is None or importlib.util.find_spec("furo") is None:
            raise SkipTest("Sphinx or its theme is missing: pip install -e '.[docs]'")
        home = Path(self.mktemp()).resolve()
        result = subprocess.run(
            [*(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"), "-b", "html"]
            + ["-d", str(home / "trees"), str(DOCS), str(home / "html")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stderr)
        self._has_all_keys((home / "html" / "configuration.html").read_text())
        self._has_all_calls((home / "html" / "api.html").read_text())
        for page in (home / "html").glob("*.html"):
            loaded = re.findall(r'<(?:script|img|link)\b[^>]*(?:src|href)="((?:https?:)?//[^"]+)"', page.read_text())
            self.assertEqual(loaded, [], page.name)
            # A link to a source is one that was not turned into one to a page.
            self.assertEqual(re.findall(r'href="[^":]*\.rst[#"]', page.read_text()), [], page.name)

    def _has_all_keys(self, html: str) -> None:
        sections = re.split(r'<section id="config-', html)[1:]
        self.assertEqual(len(sections), len(SECTIONS) + 1)
        for section, built in zip((*SECTIONS, NAMESPACE), sections, strict=True):
            text = unescape(re.sub(r"<[^>]+>", "", built))
            self.assertIn(f"[{section.name}]", text)
            for key in section.keys:
                self.assertIn(key.doc, text)
                self.assertIn(f'<span class="pre">{key.name}</span>', built)

    def _has_all_calls(self, html: str) -> None:
        for name, call in CALLS.items():
            self.assertIn(f'<section id="api-{name}"', html)
            for field in call.body.__struct_fields__:
                self.assertIn(f'<span class="pre">{field}</span>', html.partition(f'<section id="api-{name}"')[2])


class PageTests(SynchronousTestCase):
    """What the pages show."""

    def test_links(self) -> None:
        """What README and the examples link to is there."""
        for page in (ROOT / "README.rst", ROOT / "examples" / "README.rst", *DOCS.glob("*.rst")):
            for target in re.findall(r"<([^<>:\s]+\.rst)>`_", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")

    def test_make(self) -> None:
        """Each target of make that is shown is one."""
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        shown = {(page, match[1]) for page, line in _commands() if (match := re.match(r"make ([a-z-]+)", line))}
        self.assertEqual({(page, target) for page, target in shown if target not in targets}, set())
        self.assertTrue(shown)

    def test_rtpush(self) -> None:
        """Each command of ``rtpush`` that is shown is one."""
        commands = set(re.findall(r"^``(\w+)`` +\w", (DOCS / "cli.rst").read_text(), re.MULTILINE))
        pattern = re.compile(r"(?:^|[| /])(?:rtpush) ([a-z]+)\b")
        shown = {
            (page, match)
            for page, line in _commands()
            for match in pattern.findall(line.partition("#")[0])
            if not re.search(r"twistd|docker|systemctl|journalctl|git", line)
        }
        self.assertEqual({(page, command) for page, command in shown if command not in commands}, set())
        self.assertTrue(shown)

    def test_python(self) -> None:
        """The examples in Python can be compiled."""
        for page in [*DOCS.glob("*.rst"), ROOT / "README.rst"]:
            for block in _blocks(page, "python"):
                # Some are the inner part of a coroutine.
                compile(f"async def _():\n{textwrap.indent(block, '    ')}", page.name, "exec")

    def test_example_of_a_test(self) -> None:
        """The test that shows how to test passes."""
        (block,) = (block for block in _blocks(DOCS / "clients-python.rst", "python") if "InMemoryServer" in block)
        names: dict[str, type[SynchronousTestCase]] = {}
        exec(compile(block, "clients-python.rst", "exec"), names)
        result = TestResult()
        names["PriceTests"]("test_cut").run(result)
        self.assertEqual((result.testsRun, [text for _, text in (*result.errors, *result.failures)]), (1, []))
