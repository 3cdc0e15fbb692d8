"""Tests of rtpush.errors, and that the protocol's page shows the same tables."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import Disconnect, ErrorCode, RtpushError, reconnects

PAGE = Path(__file__).parents[1] / "docs" / "protocol.rst"


def table(name: str) -> list[list[str]]:
    """Return the rows of a table of the page, without its head."""
    _, _, rest = PAGE.read_text().partition(f".. {name}-table-begins")
    lines, _, _ = rest.partition(f".. {name}-table-ends")
    rows = [line.split() for line in lines.splitlines() if line.strip() and not line.startswith("=")]
    return rows[1:]


class TableTests(SynchronousTestCase):
    """The tables of the page."""

    def test_errors(self) -> None:
        """Every error has its row, in the same order."""
        rows = [
            [str(kind.code), kind.name.lower(), str(kind.status), "yes" if kind.temporary else "no"]
            for kind in ErrorCode
        ]
        self.assertEqual(table("error"), rows)

    def test_disconnects(self) -> None:
        """Every disconnect has its row, in the same order."""
        rows = [[str(each.code), each.reason, "yes" if each.reconnect else "no"] for each in Disconnect]
        self.assertEqual(table("disconnect"), rows)

    def test_codes_are_unique(self) -> None:
        """No two errors have the same code, and no two disconnects."""
        for rows in (ErrorCode, Disconnect):
            codes = [row.code for row in rows]
            self.assertEqual(len(set(codes)), len(codes))


class ErrorTests(SynchronousTestCase):
    """An error as it is told."""

    def test_as_dict(self) -> None:
        """The object has the code, name and message, and says whether to try again."""
        error = RtpushError(ErrorCode.UNKNOWN_CHANNEL, "no such channel")
        self.assertEqual(
            error.as_dict(),
            {"code": 104, "name": "unknown_channel", "message": "no such channel", "temporary": False},
        )
        self.assertEqual(str(error), "no such channel")
        self.assertIs(RtpushError(ErrorCode.UNAVAILABLE, "x").as_dict()["temporary"], True)

    def test_statuses(self) -> None:
        """Statuses are those of errors; what is temporary is the server's fault or a limit."""
        for kind in ErrorCode:
            self.assertTrue(400 <= kind.status <= 599)
            self.assertEqual(kind.temporary, kind.status >= 500 or kind.status == 429)


class ReconnectTests(SynchronousTestCase):
    """Whether a client comes back."""

    def test_own_codes(self) -> None:
        """The code of each disconnect says by its range what its row says."""
        for each in Disconnect:
            self.assertEqual(reconnects(each.code), each.reconnect, each)

    def test_ranges(self) -> None:
        """4000 to 4499 mean come back, 4500 to 4999 do not."""
        self.assertTrue(all(reconnects(code) for code in range(4000, 4500)))
        self.assertFalse(any(reconnects(code) for code in range(4500, 5000)))
        self.assertTrue(reconnects(3999))

    def test_codes_of_the_rfc(self) -> None:
        """Of the codes of RFC 6455, those of a server that goes or stumbles mean come back."""
        for code in (1000, 1001, 1005, 1006, 1011, 1012, 1013):
            self.assertTrue(reconnects(code), code)
        for code in (1002, 1003, 1007, 1008, 1009, 1010):
            self.assertFalse(reconnects(code), code)
