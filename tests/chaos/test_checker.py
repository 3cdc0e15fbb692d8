"""Tests of tests.chaos.checker: it must find fault with every history that has one, and with no other."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.position import Position
from tests.chaos.checker import violations_of
from tests.chaos.history import Acknowledged, Began, Entry, Gap, Got, Loss, View

#: All of a channel that began with message 0 at ``a:1``.
_ALL = "a:2=1 a:3=2 a:4=3 a:5=4"
_ACKNOWLEDGED = f"a:1=0 {_ALL}"

#: What a failover may leave: messages 3 and 4 were lost and sent again.
_MOVED = "a:1=0 a:2=1 a:3=2 b:1=3 b:2=4"


def _view(text: str, who: str = "client", start: str = "a:1") -> View:
    """
    Read what a client saw, at 1 s, 2 s and so on.

    ``a:2=1`` is message 1 at ``a:2``, ``a:2!`` a gap to there, ``a:2?`` a beginning there, ``a:2-`` one after a loss.
    """
    entries: list[Entry] = []
    for time, word in enumerate(text.split(), 1):
        if "=" in word:
            place, _, number = word.partition("=")
            entries.append(Got(float(time), Position.parse(place), int(number)))
            continue
        position = Position.parse(word[:-1])
        if word[-1] == "!":
            entries.append(Gap(float(time), position, "history_lost"))
        else:
            entries.append(Began(float(time), position, word[-1] == "?"))
    return View(who, "c", Position.parse(start) if start else None, entries)


def _acknowledged(text: str, publishers: Sequence[str] = ("p",)) -> list[Acknowledged]:
    entries = [entry for entry in _view(text).entries if isinstance(entry, Got)]
    return [
        Acknowledged(entry.time, publishers[index % len(publishers)], entry.number, entry.position)
        for index, entry in enumerate(entries)
    ]


class CheckerTests(SynchronousTestCase):
    """Histories of one channel."""

    def _found(
        self,
        *texts: str,
        acknowledged: str = _ACKNOWLEDGED,
        losses: Sequence[Loss] = (),
        start: str = "a:1",
        publishers: Sequence[str] = ("p",),
        kept: int | None = None,
    ) -> list[str]:
        views = [_view(text, f"client {index}", start) for index, text in enumerate(texts)]
        found = violations_of(views, {"c": _acknowledged(acknowledged, publishers)}, losses, 99.0, kept and {"c": kept})
        return [each.what for each in found]

    def _assert_found(self, what: str, *texts: str, **others: object) -> None:
        found = self._found(*texts, **others)  # type: ignore[arg-type]
        self.assertTrue(any(what in each for each in found), f"{what!r} is not in {found}")

    def test_good(self) -> None:
        """Everything once and in order is good, over any number of connections."""
        self.assertEqual(self._found(_ALL, f"a:1? {_ALL}", "a:2=1 a:2? a:3=2 a:3? a:3? a:4=3 a:5=4"), [])

    def test_unknown_start(self) -> None:
        """Who did not say where it begins, begins where it was told, or with the first that it got."""
        self.assertEqual(self._found("a:3=2 a:4=3 a:5=4", "a:3? a:4=3 a:5=4", start=""), [])
        self._assert_found("a loss", "a:3=2 a:5=4", start="")

    def test_loss(self) -> None:
        """A message that is left out is found, as a step and as what did not come."""
        text = "a:2=1 a:4=3 a:5=4"
        self._assert_found("message 3 at a:4 after a:2: a loss, and no gap is told", text)
        self._assert_found("message 2, acknowledged at a:3, did not come, nor was a gap told", text)

    def test_loss_at_beginning(self) -> None:
        """A stream that goes on beyond, and says that it is recovered, is found."""
        self._assert_found("begins at a:3, not at a:2: no gap is told", "a:2=1 a:3? a:4=3 a:5=4")

    def test_doubling(self) -> None:
        """A message that comes twice is found: in its place, and as another one."""
        self._assert_found("message 2 at a:3 after a:3: again, or out of order", "a:2=1 a:3=2 a:3=2 a:4=3 a:5=4")
        self._assert_found("message 1 twice, again at a:3", "a:2=1 a:3=1 a:4=3 a:5=4")

    def test_doubled_publish(self) -> None:
        """A message that counts twice though its key is the same is found."""
        places = f"{_ACKNOWLEDGED} a:7=6"
        self._assert_found("message 4 twice, again at a:6", f"{_ALL} a:6=4 a:7=6", acknowledged=places)

    def test_swap(self) -> None:
        """Two messages in the wrong order are found: by their positions, or by where they are said to be."""
        self._assert_found("again, or out of order", "a:2=1 a:4=3 a:3=2 a:5=4")
        self._assert_found("message 3 at a:3, where p has 2", "a:2=1 a:3=3 a:4=2 a:5=4")

    def test_disagreement(self) -> None:
        """Two clients that see different messages in a place are found, also if no publisher knows of it."""
        places = "a:1=0 a:3=2"
        self._assert_found("message 7 at a:2, where client 0 has 1", "a:2=1 a:3=2", "a:2=7 a:3=2", acknowledged=places)

    def test_missing_gap(self) -> None:
        """Another epoch without a gap is found, also where something was lost."""
        text = "a:2=1 a:3=2 b:1=3 b:2=4"
        self._assert_found("another epoch, and no gap is told", text, acknowledged=_MOVED, losses=[Loss(0, 99)])

    def test_unexcused_gap(self) -> None:
        """A gap where nothing could be lost is found, in a stream and at its beginning."""
        self._assert_found("a gap to a:3 that nothing excuses", "a:2=1 a:3! a:4=3 a:5=4")
        self._assert_found("a gap to a:3 that nothing excuses", "a:2=1 a:3- a:4=3 a:5=4")

    def test_gap_at_another_time(self) -> None:
        """A gap is excused by a loss since the client heard something last, not by one before or after."""
        text = "a:2=1 a:3=2 b:0! b:1=3 b:2=4"
        for loss in (Loss(2.5, 2.8), Loss(1.0, 2.0), Loss(3.0, 9.0)):
            self.assertEqual(self._found(text, acknowledged=_MOVED, losses=[loss]), [])
        for loss in (Loss(0.0, 1.9), Loss(3.1, 9.0)):
            self._assert_found("a gap to b:0 that nothing excuses", text, acknowledged=_MOVED, losses=[loss])

    def test_told_loss(self) -> None:
        """What was lost and told is no fault: also twice, at the beginning of a stream and in it."""
        losses = [Loss(0, 99)]
        for text in ("a:2=1 b:0! b:1=3 b:2=4", "a:2=1 b:0- b:0! b:1=3 b:2=4", "b:2!", "a:2=1 b:1- b:1! b:1? b:2=4"):
            with self.subTest(text=text):
                self.assertEqual(self._found(text, acknowledged=_MOVED, losses=losses), [])

    def test_short_history(self) -> None:
        """Who misses more than is kept is told of a gap; one who did not miss so much must not be."""
        for text in ("a:5!", "a:4! a:5=4", "a:2=1 a:5-"):
            self.assertEqual(self._found(text, kept=2), [])
        self._assert_found("a gap to a:4 that nothing excuses", "a:2=1 a:4! a:5=4", kept=2)
        self._assert_found("a loss, and no gap is told", "a:5=4", kept=2)

    def test_lost_silently(self) -> None:
        """An acknowledged message in whose place another one came is found, unless a gap ends their epoch."""
        text = "a:2=7 a:3=2"
        for losses in ([], [Loss(0, 99)]):
            self._assert_found(
                "message 1, acknowledged at a:2, did not come", text, acknowledged="a:1=0 a:2=1 a:3=2", losses=losses
            )
        self.assertEqual(self._found(f"{text} b:0! b:1=3 b:2=4", acknowledged=_MOVED, losses=[Loss(0, 99)]), [])

    def test_not_up_to_date(self) -> None:
        """Who does not get to the last message is found, though all that it got is good."""
        self._assert_found("at a:4 in the end, not at a:5", "a:2=1 a:3=2 a:4=3")
        self._assert_found("at a:1 in the end, not at a:5", "")
        self._assert_found("at None in the end, not at a:5; the last that came is message None", "", start="")

    def test_order_of_publisher(self) -> None:
        """What a publisher sent later must be later; that of two publishers need not."""
        swapped = "a:1=0 a:3=1 a:2=2"
        text = "a:2=2 a:3=1"
        self._assert_found("message 2 is at a:2, but the one before it is at a:3", text, acknowledged=swapped)
        found = self._found(text, acknowledged=swapped, publishers=("p", "p", "q"))
        self.assertEqual(found, ["at a:3 in the end, not at a:2; the last that came is message 1"])
