"""The tables of threats in docs/security.rst: each threat has something that stops it, and a test that is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"

#: A name in a cell, and what is between it and the one before.
_NAMED = re.compile(r"([^`]*)``([^`]+)``")

_TABLE = re.compile(r"^(=+(?: +=+)+)\n(threat .*)\n\1\n((?:.+\n)+?)\1\n", re.MULTILINE)


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Return the rows of all tables of threats: the threat, what stops it, and the tests."""
    for table in _TABLE.finditer(text):
        starts = [match.start() for match in re.finditer("=+", table[1])]
        row: list[str] = []
        for line in table[3].splitlines():
            cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
            if row and not _begins(row, cells):
                row = [f"{before} {cell}".strip() for before, cell in zip(row, cells, strict=True)]
                continue
            if row:
                yield row[0], row[1], row[2]
            row = cells
        yield row[0], row[1], row[2]


def _begins(row: list[str], cells: list[str]) -> bool:
    """Tell whether a line begins a row: a threat that is not the rest of the one before."""
    return bool(cells[0]) and bool(cells[1]) and bool(cells[2]) and not cells[0].startswith(("(", "as "))


class Known:
    """What there is under ``tests``: modules, their classes, and the tests in them."""

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {}
        self.classes: dict[str, set[str]] = {}
        for path in TESTS.rglob("test_*.py"):
            names = self.modules.setdefault(str(path.relative_to(TESTS))[:-3], set())
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
                    inside = {each.name for each in node.body if isinstance(each, functions)}
                    self.classes.setdefault(node.name, set()).update(inside)
                    names |= {node.name, *inside}

    def inside(self, name: str) -> set[str] | None:
        """Return what is in a module, a class or a test; nothing if there is none of this name."""
        if name.startswith("python -m "):
            return set() if find_spec(name.removeprefix("python -m ")) else None
        for module, names in self.modules.items():
            if name in (module, module.rpartition("/")[2]):
                return names
        if name in self.classes:
            return self.classes[name]
        return set() if any(name in names for names in self.modules.values()) else None


class ThreatTests(SynchronousTestCase):
    """docs/security.rst."""

    def mistakes(self, text: str) -> list[str]:
        """Return what is wrong with the tables of a page."""
        known, found = Known(), []
        for threat, _, tests in rows(text):
            if "``" not in tests:
                found.append(f"{threat}: no test shows it")
            within: set[str] | None = None
            for between, name in _NAMED.findall(tests):
                inside = known.inside(name)
                if inside is None:
                    found.append(f"{threat}: there is no {name}")
                elif between.strip() == "" and within and name not in within:
                    found.append(f"{threat}: {name} is not in what stands before it")
                within = inside
        return found

    def test_named(self) -> None:
        """Each threat has something that stops it, and names tests that there are."""
        text = (ROOT / "docs" / "security.rst").read_text()
        self.assertGreater(len(list(rows(text))), 50)
        self.assertEqual(self.mistakes(text), [])

    def test_finds(self) -> None:
        """A name that is not there is found, and so is one that is somewhere else."""
        line = "====== ====== ============================================"
        table = "\n".join(
            [
                line,
                "threat stops  test",
                line,
                "one    this   ``test_security`` ``ThreatTests`` ``test_finds``",
                "two    this   ``NoSuchTests``, ``transports/test_nothing``",
                "three  this   ``ThreatTests`` ``test_bad``",
                "four   this   none",
                line,
                "",
            ]
        )
        self.assertEqual(
            self.mistakes(table),
            [
                "two: there is no NoSuchTests",
                "two: there is no transports/test_nothing",
                "three: test_bad is not in what stands before it",
                "four: no test shows it",
            ],
        )
