"""Tests of rtpush.client.outbox."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.errors import ClientClosed, NotDelivered, OutboxFull
from rtpush.client.outbox import Command, Outbox
from rtpush.client.wire import Frame, read
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.position import Position

DONE = read(b'{"publish": {"epoch": "k3f9", "offset": 7}}', Frame)


class OutboxTests(SynchronousTestCase):
    """Commands until their answer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock, 60.0, 3)

    def add(self, name: str = "publish", *, again: bool = True) -> Command:
        """Add a command."""
        return self.outbox.add(name, b"{}", channel="a", again=again)

    def test_sent_once(self) -> None:
        """What was sent on this connection is not sent again on it."""
        first = self.add()
        self.assertEqual(self.outbox.unsent(), [first])
        second = self.add()
        self.assertEqual(self.outbox.unsent(), [second])

    def test_answer(self) -> None:
        """An answer is the result, and the last one leaves no timer."""
        command = self.add()
        self.outbox.answered(command, DONE)
        self.assertEqual(self.successResultOf(command.result), Position("k3f9", 7))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.outbox.answered(command, DONE)

    def test_refusal(self) -> None:
        """An error of the server fails the command."""
        command = self.add()
        self.outbox.answered(command, read(b'{"error": {"code": 102, "message": "no"}}', Frame))
        error = self.failureResultOf(command.result, RtpushError).value
        self.assertEqual((error.kind, error.message), (ErrorCode.PERMISSION_DENIED, "no"))

    def test_cut(self) -> None:
        """After a cut all without an answer go again, in their order, before what came since."""
        commands = [self.add(), self.add()]
        self.outbox.unsent()
        self.outbox.answered(commands[0], DONE)
        self.outbox.cut()
        later = self.add()
        self.assertEqual(self.outbox.unsent(), [commands[1], later])

    def test_cut_once(self) -> None:
        """What must not go twice fails at a cut if it was sent, and waits if it was not."""
        sent = self.add(again=False)
        self.outbox.unsent()
        waiting = self.add(again=False)
        self.outbox.cut()
        self.failureResultOf(sent.result, NotDelivered)
        self.assertEqual(self.outbox.unsent(), [waiting])

    def test_timeout(self) -> None:
        """Each command is given up after its own time, sent or not."""
        first = self.add()
        self.clock.advance(30)
        second = self.add()
        self.clock.advance(30)
        self.failureResultOf(first.result, NotDelivered)
        self.assertNoResult(second.result)
        self.clock.advance(30)
        self.failureResultOf(second.result, NotDelivered)
        self.assertEqual(len(self.outbox), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """It holds no more than its size, until one is answered."""
        first, *_ = self.add(), self.add(), self.add()
        self.assertRaises(OutboxFull, self.add)
        self.outbox.answered(first, DONE)
        self.add()

    def test_cancelled(self) -> None:
        """A command whose result is cancelled is forgotten, and a late answer to it is ignored."""
        command = self.add()
        command.result.cancel()
        self.failureResultOf(command.result)
        self.assertEqual(self.outbox.unsent(), [])
        self.outbox.answered(command, DONE)

    def test_close(self) -> None:
        """In the end all fail, and no timer is left."""
        commands = [self.add(), self.add()]
        self.outbox.close(lambda: ClientClosed("closed"))
        for command in commands:
            self.failureResultOf(command.result, ClientClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_added_by_an_answer(self) -> None:
        """What hears of a failure may add a command at once."""
        command = self.add()
        command.result.addErrback(lambda _: self.add())
        self.clock.advance(60)
        self.assertEqual(len(self.outbox), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
