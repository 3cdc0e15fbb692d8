"""Tests of rtpush.registry.incoming."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.registry.counts import Counts
from rtpush.registry.incoming import FREE_BYTES, Incoming


class _Sender:
    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.gave_up = 0

    def give_up(self) -> None:
        self.gave_up += 1
        self.incoming.drop(self)


class IncomingTests(SynchronousTestCase):
    """What is not complete has a bound for all together."""

    def setUp(self) -> None:
        self.counts = Counts()
        self.incoming = Incoming(100_000, self.counts)
        self.senders = [_Sender(self.incoming) for _ in range(4)]

    def test_silent(self) -> None:
        """Beyond the bound the one ends on which nothing has come for the longest time."""
        first, second, third, fourth = self.senders
        for sender in (first, second, third):
            self.incoming.hold(sender, 30_000)
        self.incoming.hold(first, 31_000)
        self.assertEqual(self.incoming.total, 91_000)
        self.incoming.hold(fourth, 30_000)
        self.assertEqual([each.gave_up for each in self.senders], [0, 1, 0, 0])
        self.assertEqual((self.incoming.total, self.counts.limited["incoming_bytes"]), (91_000, 1))

    def test_small(self) -> None:
        """What most have is not counted; nor what is complete."""
        for sender in self.senders:
            self.incoming.hold(sender, FREE_BYTES)
        self.assertEqual(self.incoming.total, 0)
        self.incoming.hold(self.senders[0], 90_000)
        self.incoming.hold(self.senders[0], 0)
        self.incoming.drop(self.senders[1])
        self.assertEqual(self.incoming.total, 0)

    def test_alone(self) -> None:
        """One that has too much alone ends too."""
        self.incoming.hold(self.senders[0], 100_001)
        self.assertEqual((self.senders[0].gave_up, self.incoming.total), (1, 0))

    def test_less_room(self) -> None:
        """A smaller bound counts from the next time when something comes."""
        for sender in self.senders:
            self.incoming.hold(sender, 25_000)
        self.incoming.most = 50_000
        self.incoming.hold(self.senders[3], 25_000)
        self.assertEqual([each.gave_up for each in self.senders], [1, 1, 0, 0])

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60_000)), max_size=50))
    def test_bound(self, steps: list[tuple[int, int]]) -> None:
        """Whatever comes, the bound holds, and the total is that of those who hold something."""
        incoming = Incoming(100_000, self.counts)
        senders = [_Sender(incoming) for _ in range(4)]
        held = dict.fromkeys(senders, 0)
        for who, size in steps:
            gone = [each.gave_up for each in senders]
            held[senders[who]] = size if size > FREE_BYTES else 0
            incoming.hold(senders[who], size)
            for sender, before in zip(senders, gone, strict=True):
                if sender.gave_up > before:
                    held[sender] = 0
            self.assertLessEqual(incoming.total, 100_000)
            self.assertEqual(incoming.total, sum(held.values()))
