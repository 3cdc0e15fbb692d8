"""Tests of rtpush.protocol.lifecycle."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from rtpush.protocol.lifecycle import TRANSITIONS, Event, IllegalTransition, State, next_state


class LifecycleTests(SynchronousTestCase):
    """The table of states."""

    def test_every_pair(self) -> None:
        """Each event in each state either has its row in the table or is illegal, and says which it was."""
        for state, event in product(State, Event):
            if (state, event) in TRANSITIONS:
                self.assertIs(next_state(state, event), TRANSITIONS[state, event])
            else:
                error = self.assertRaises(IllegalTransition, next_state, state, event)
                self.assertEqual(str(error), f"{event.name} in state {state.name}")

    def test_nothing_leaves_closed(self) -> None:
        """CLOSED is the end."""
        for event in Event:
            self.assertRaises(IllegalTransition, next_state, State.CLOSED, event)

    def test_always_to_an_end(self) -> None:
        """From each other state the connection can be lost, and then it is CLOSED."""
        for state in set(State) - {State.CLOSED}:
            self.assertIs(next_state(state, Event.LOST), State.CLOSED)

    def test_never_back(self) -> None:
        """No transition goes to an earlier state; the only one that stays is to close what closes."""
        order = list(State)
        for (state, event), following in TRANSITIONS.items():
            if (state, event) == (State.CLOSING, Event.CLOSE):
                self.assertIs(following, State.CLOSING)
            else:
                self.assertGreater(order.index(following), order.index(state))

    def test_open_once(self) -> None:
        """A connection can be accepted from CONNECTING alone."""
        accepted = [state for state in State if (state, Event.ACCEPTED) in TRANSITIONS]
        self.assertEqual(accepted, [State.CONNECTING])
