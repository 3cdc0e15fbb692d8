"""What ``docs/protocol.rst`` says of the server API, against the code."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from rtpush.api.calls import CALLS
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.message import RESERVED_EVENTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.rst").read_text()


def documented_calls() -> dict[str, tuple[str, str]]:
    """Return the text of body and result for each call, from the table of the page."""
    table = PAGE.partition("\nServer API\n")[2].split("\n===")[2]
    widths = [len(column) for column in re.search(r"^=+( +=+)+$", PAGE.partition("\nServer API\n")[2], re.M)[0].split()]
    calls: dict[str, tuple[str, str]] = {}
    name = ""
    for line in table.splitlines()[1:]:
        first, second = widths[0] + 1, widths[0] + widths[1] + 2
        name = line[:first].strip().strip("`") or name
        body, result = calls.get(name, ("", ""))
        calls[name] = (f"{body} {line[first:second].strip()}", f"{result} {line[second:].strip()}")
    return calls


class PageTests(SynchronousTestCase):
    """The page and the code."""

    def test_calls(self) -> None:
        """The page has every call, and no other."""
        self.assertEqual(list(documented_calls()), list(CALLS))

    def test_bodies(self) -> None:
        """Every field that the page shows is one; those without a question mark are required."""
        for name, (body, _) in documented_calls().items():
            if "as in publish" in body and name == "publish_batch":
                body = "``messages``"
            fields = {field.name: field for field in msgspec.structs.fields(CALLS[name].body)}
            shown = re.findall(r"``([a-z_0-9]+)``(\??)( \|)?", body)
            self.assertTrue(shown or not fields, name)
            for index, (field, optional, either) in enumerate(shown):
                self.assertIn(field, fields, name)
                one_of_two = bool(either) or (index > 0 and bool(shown[index - 1][2]))
                if not one_of_two:
                    self.assertIs(fields[field].required, not optional, (name, field))

    def test_results(self) -> None:
        """Every field that the page shows in a result is described as one."""
        for name, (_, result) in documented_calls().items():
            described = set(re.findall(r"'([a-z_0-9]+)': \{", str(CALLS[name].result)))
            for field in re.findall(r"``([a-z_0-9]+)``", result):
                self.assertTrue(field in described or field in ("messages", "error"), (name, field))

    def test_error(self) -> None:
        """An error goes over the wire as the page shows it."""
        example = re.search(r'``\{"error": (\{.*?\})\}``', PAGE)
        assert example is not None
        self.assertEqual(
            list(RtpushError(ErrorCode.UNKNOWN_CHANNEL, "x").as_dict()), re.findall(r'"(\w+)":', example[1])
        )

    def test_reserved_events(self) -> None:
        """The event names that are not allowed are those that the page names."""
        sentence = re.search(r"``event: gap``.*?are not allowed", PAGE, re.DOTALL)
        assert sentence is not None
        named = {name.removeprefix("event: ") for name in re.findall(r"``((?:event: )?\w+)``", sentence[0])}
        self.assertEqual(named & {"open", "gap", "unsubscribed", "token_expiring", "disconnect"}, RESERVED_EVENTS)
