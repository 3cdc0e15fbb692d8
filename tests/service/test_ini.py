"""Tests of rtpush.service.ini."""

from __future__ import annotations

import configparser
import string

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service import ini

_NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8)
_WORDS = st.text(string.ascii_letters + string.digits + "%=:[]/\\$*é-", min_size=1, max_size=12).filter(
    lambda word: not word.startswith("[")
)
_VALUES = st.lists(_WORDS, max_size=4)
_FILES = st.dictionaries(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=4), max_size=4)
_COMMENTS = st.lists(st.sampled_from(["# a comment", "        ; another"]), max_size=2)


def _pieces(sections: list[ini.Section]) -> dict[str, dict[str, list[str]]]:
    return {
        section.name: {entry.name: [line.text for line in entry.lines] for entry in section.entries.values()}
        for section in sections
    }


class ReadTests(SynchronousTestCase):
    """Reading INI text."""

    @given(_FILES, st.data())
    def test_like_configparser(self, content: dict[str, dict[str, list[str]]], data: st.DataObject) -> None:
        """What we read is what was written, and what the standard library's parser reads."""
        lines: list[str] = []
        for section, entries in content.items():
            lines += [*data.draw(_COMMENTS), f"[{section}]"]
            for name, values in entries.items():
                lines += [*data.draw(_COMMENTS), f"{name} = {''.join(values[:1])}"]
                for value in values[1:]:
                    lines += [*data.draw(_COMMENTS), f"    {value}  # why"]
        text = "\n".join(lines)
        self.assertEqual(_pieces(ini.read(text)), content)
        parser = configparser.RawConfigParser(delimiters=("=",), inline_comment_prefixes=("#", ";"), default_section="")
        parser.read_string(text)
        theirs = {
            section: {name: parser[section][name].split() for name in parser[section]} for section in parser if section
        }
        self.assertEqual(theirs, content)

    def test_lines(self) -> None:
        """Each section, key and piece of a value knows its line, whatever ends the lines."""
        for end in ("\n", "\r\n", "\r"):
            text = end.join(["# top", "[a]", "", "k = 1", "  # within", "  2", "j =", "\t3", "[b]"])
            first, second = ini.read(text)
            self.assertEqual((first.line, second.line), (2, 9))
            self.assertEqual((first.entries["k"].line, first.entries["j"].line), (4, 7))
            self.assertEqual(first.entries["k"].lines, [ini.Line(4, "1"), ini.Line(6, "2")])
            self.assertEqual(first.entries["j"].lines, [ini.Line(8, "3")])

    def test_comments(self) -> None:
        """A comment ends a line only after white space, so that values may hold the characters that begin one."""
        (section,) = ini.read("[a] # why\nk = a#b;c ; why\nj=#\n i = # only a comment\n")
        self.assertEqual(_pieces([section]), {"a": {"k": ["a#b;c"], "j": ["#", "i ="]}})

    def test_mistakes(self) -> None:
        """Each mistake is told with its line."""
        for text, line in (
            ("k = 1", 1),
            ("\n[a", 2),
            ("[a]]", 1),
            ("[a] k = 1", 1),
            ("[a]\nword", 2),
            ("[a]\n= 1", 2),
            ("[a]\nk = 1\nk = 2", 3),
            ("[a]\n[b]\n[a]", 3),
        ):
            with self.subTest(text=text):
                self.assertEqual(self.assertRaises(ini.Mistake, ini.read, text).line, line)
