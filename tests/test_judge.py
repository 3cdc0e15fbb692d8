"""Tests of tests.support.judge: it must be able to find fault."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.position import Position
from tests.support.followers import Gap, Got
from tests.support.judge import faults_of

_ALL = "a:2=1 a:3=2 a:4=3"


def _log(text: str) -> list[Got | Gap]:
    """Read a log. ``a:2=1 a:3 a:4=3`` is message 1 at ``a:2``, a gap at ``a:3``, message 3 at ``a:4``."""
    log: list[Got | Gap] = []
    for word in text.split():
        place, equals, number = word.partition("=")
        position = Position.parse(place)
        log.append(Got(position, int(number)) if equals else Gap(position, "history_lost"))
    return log


class JudgeTests(SynchronousTestCase):
    """What clients got that begin after ``a:1``, of messages 1 to 3."""

    def _faults(self, *texts: str, lossless: bool, places: str = "a:1=0 " + _ALL) -> list[str]:
        acknowledged = {entry.number: entry.position for entry in _log(places) if isinstance(entry, Got)}
        logs = {f"client {index}": _log(text) for index, text in enumerate(texts)}
        return faults_of(acknowledged, logs, lossless=lossless)

    def test_good(self) -> None:
        """Everything once and in order is good; so is a loss that is told, where there may be one."""
        self.assertEqual(self._faults(_ALL, _ALL, lossless=True), [])
        self.assertEqual(self._faults(_ALL, "a:3 a:4=3", "a:2=1 a:4", lossless=False), [])
        moved = "a:1=0 b:1=1 b:2=2 b:3=3"
        self.assertEqual(self._faults("b:0 b:1=1 b:2=2 b:3=3", "b:3", lossless=False, places=moved), [])
        # What the old epoch had and the new one has again is a new message to it.
        self.assertEqual(self._faults("a:2=1 a:3=2 b:1 b:2=2 b:3=3", lossless=False, places=moved), [])

    def test_bad(self) -> None:
        """Every other log has one fault that is named, also where losses that are told are no fault."""
        for text, fault in (
            ("a:2=1 a:4=3", "a:4 after a:2"),
            ("a:2=1 a:3=2 a:3=2 a:4=3", "a:3 after a:3"),
            ("a:2=1 a:3=1 a:4=3", "message 1 twice, again at a:3"),
            ("a:2=2 a:3=1 a:4=3", "message 2 at a:2, not 1"),
            ("a:2=1 b:3=2 b:4=3", "b:3 after a:2"),
            ("a:2=1 a:3=2", "at a:3 in the end, not at a:4"),
            ("", "at a:1 in the end, not at a:4"),
            ("a:2=1 a:3=2 b:1", "at b:1 in the end, not at a:4"),
        ):
            with self.subTest(text=text):
                for lossless in (False, True):
                    self.assertIn(f"client 1: {fault}", self._faults(_ALL, text, lossless=lossless))

    def test_loss(self) -> None:
        """Without loss a gap is a fault, and so is what is missing."""
        self.assertEqual(
            self._faults("a:3 a:4=3", lossless=True),
            ["client 0: a gap at a:3: history_lost", "client 0: without 2 messages: [1, 2]"],
        )

    def test_disagreement(self) -> None:
        """Two subscribers must see the same message in a place, also if no publisher knows where it is."""
        faults = self._faults("a:2=1 a:3=2", "a:2=7 a:3=2", lossless=False, places="a:1=0 a:3=2")
        self.assertEqual(faults, ["client 1: message 7 at a:2, not 1"])
