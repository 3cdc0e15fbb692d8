"""Tests of rtpush.protocol.wheel."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.wheel import TimerWheel

_items = st.integers(0, 9)


class WheelAgainstModel(RuleBasedStateMachine):
    """A wheel, and next to it a dict of deadlines in slots. All times are exact in binary."""

    @initialize(resolution=st.sampled_from([0.25, 1.0, 8.0]), now=st.integers(0, 100).map(lambda n: n / 16))
    def begin(self, resolution: float, now: float) -> None:
        """Choose the resolution."""
        self.resolution = resolution
        self.now = now
        self.slot = math.floor(now / resolution)
        self.due: dict[int, int] = {}
        self.wheel: TimerWheel[int] = TimerWheel(resolution, now)

    @rule(item=_items, sixteenths=st.integers(-50, 2000))
    def set(self, item: int, sixteenths: int) -> None:
        """Set or move a deadline, to the past too."""
        when = self.now + sixteenths / 16
        self.wheel.set(item, when)
        self.due.pop(item, None)
        self.due[item] = max(math.ceil(when / self.resolution), self.slot + 1)

    @rule(item=_items)
    def cancel(self, item: int) -> None:
        """Cancel a deadline, whether it is there or not."""
        self.wheel.cancel(item)
        self.due.pop(item, None)

    @rule(sixteenths=st.integers(-20, 100) | st.just(100_000))
    def expire(self, sixteenths: int) -> None:
        """Let time pass; a clock that goes back expires nothing."""
        self.now = max(self.now + sixteenths / 16, 0.0)
        slot = math.floor(self.now / self.resolution)
        expected = [item for item, due in self.due.items() if due <= slot]
        expired = self.wheel.expire(self.now)
        assert sorted(expired) == sorted(expected)
        assert [self.due[item] for item in expired] == sorted(self.due[item] for item in expected)
        for item in expected:
            del self.due[item]
        self.slot = max(self.slot, slot)

    @invariant()
    def same(self) -> None:
        """Both have deadlines for the same items, and the wheel holds no empty slot."""
        assert len(self.wheel) == len(self.due)
        assert all((item in self.wheel) is (item in self.due) for item in range(10))
        assert all(self.wheel._slots.values())


class WheelTests(SynchronousTestCase):
    """The timer wheel."""

    def test_against_model(self) -> None:
        """Any sequence of operations gives what a plain dict gives."""
        run_state_machine_as_test(WheelAgainstModel, settings=settings(max_examples=60, stateful_step_count=25))

    @given(st.floats(0, 1e9), st.floats(0, 1e5), st.sampled_from([0.1, 1.0, 0.3]))
    def test_on_time(self, now: float, seconds: float, resolution: float) -> None:
        """With any times a deadline expires not before it, and at most two slots after it."""
        wheel: TimerWheel[str] = TimerWheel(resolution, now)
        when = now + seconds
        wheel.set("it", when)
        if when - resolution / 1000 > now:
            self.assertEqual(wheel.expire(when - resolution / 1000), [])
        self.assertEqual(wheel.expire(when + 2 * resolution), ["it"])

    def test_set_again_while_expired(self) -> None:
        """An item that was just taken out can be set again, and comes once more."""
        wheel: TimerWheel[str] = TimerWheel(1, 0)
        wheel.set("it", 1)
        self.assertEqual(wheel.expire(1), ["it"])
        wheel.set("it", 1)
        self.assertEqual(wheel.expire(1), [])
        self.assertEqual(wheel.expire(2), ["it"])
        self.assertEqual(len(wheel), 0)

    def test_long_sleep(self) -> None:
        """After a very long time all that is due comes at once, in order, and is found without counting every slot."""
        wheel: TimerWheel[int] = TimerWheel(0.1, 0)
        for item in (3, 1, 2):
            wheel.set(item, item * 1e6)
        self.assertEqual(wheel.expire(1e12), [1, 2, 3])
