"""A broker that is away, or slow: what clients of each transport are told, and what waits for it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

from rtpush.errors import ErrorCode, RtpushError, reconnects
from rtpush.registry import connection as connection_module
from tests.transports.serving import events_of, target
from tests.transports.sockets import CLOSE, TEXT, SocketTestCase, frame


class Gate:
    """
    A broker behind something that can fail or be slow.

    :ivar is_away: Whether calls fail.
    :ivar is_slow: Whether they wait.
    :ivar waiting: Those that do.
    """

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.is_away = False
        self.is_slow = False
        self.waiting: deque[tuple[Deferred[Any], Callable[[], Deferred[Any]]]] = deque()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.broker, name)
        if name not in ("publish", "history", "history_before", "subscribe"):
            return method

        def call(*arguments: Any) -> Deferred[Any]:
            if self.is_away:
                return fail(RtpushError(ErrorCode.UNAVAILABLE, "the broker is away"))
            if not self.is_slow:
                return method(*arguments)
            waiting: Deferred[Any] = Deferred()
            self.waiting.append((waiting, lambda: method(*arguments)))
            return waiting

        return call

    def answer(self, count: int = 1_000_000) -> None:
        """Answer so many calls, in their order."""
        for _ in range(min(count, len(self.waiting))):
            waiting, run = self.waiting.popleft()
            run().addBoth(waiting.callback)


class GateTestCase(SocketTestCase):
    """A node whose broker is behind a gate."""

    def setUp(self) -> None:
        super().setUp()
        self.gate = self.node.broker = Gate(self.node.broker)


class AwayTests(GateTestCase):
    """It is away."""

    def test_refused(self) -> None:
        """Whatever asks over HTTP gets 503, and when to come back: in whole seconds, by chance."""
        self.gate.is_away = True
        self.gate.broker.problem = lambda: "the broker is away"
        publish = json.dumps({"channel": "demo:a", "data": 1}).encode()
        for path, request in (
            ("/sse?channel=demo:a", {}),
            ("/poll?channel=demo:a", {}),
            ("/poll?channel=demo:a&timeout=0", {}),
            ("/readyz", {}),
            ("/emit", {"method": "POST", "body": b'{"publish":' + publish + b"}"}),
            ("/api/v1/publish", {"method": "POST", "body": publish}),
            ("/api/v1/history", {"method": "POST", "body": b'{"channel":"demo:a"}'}),
        ):
            for chance, after in ((0.0, "1"), (0.5, "3"), (0.999, "5")):
                self.chance = chance
                answer = self.ask(path, **request)
                self.assertEqual((answer.status, answer.error), (503, "unavailable"), path)
                self.assertEqual(answer.headers["retry-after"], after, path)
                self.assertTrue(answer.json["error"]["temporary"])
        self.assert_nobody()

    def test_backoff_is_kept(self) -> None:
        """Nobody is asked to come back sooner than the backoff begins, nor at once."""
        for base, after in (("0.1", "1"), ("2.5", "3"), ("10", "10")):
            self.serve(server=self.server, sections=f"[api]\nopen = yes\n[backoff]\nbase = {base}")
            self.chance = 0.0
            self.node.leave_all()
            self.assertEqual(self.ask("/readyz").headers["retry-after"], after)

    def test_other_errors(self) -> None:
        """Where coming back is of no use, nothing is said of it."""
        for path in ("/sse?channel=unknown:a", "/poll?channel=", "/nowhere"):
            self.assertNotIn("retry-after", self.ask(path).headers)

    def test_query_of_a_socket(self) -> None:
        """A WebSocket whose channel cannot be followed is closed by a code that means come back."""
        self.gate.is_away = True
        for protocol in ("rtpush.v1", "rtpush.v1.msgpack", "rtpush.raw"):
            ws = self.socket("/ws?channel=demo:a", protocol=protocol)
            self.assertEqual(self.closing(ws), (1013, "unavailable"))
            ws.lose()
        self.assertTrue(reconnects(1013))
        self.assert_nobody()

    def test_subscribe(self) -> None:
        """By a command it is an error, and the connection stays: it may ask again."""
        ws = self.socket()
        self.gate.is_away = True
        self.assertEqual(ws.do("subscribe", channel="demo:a"), "unavailable")
        self.assertEqual(ws.do("publish", channel="demo:a", data=1), "unavailable")
        self.assertEqual(ws.do("history", channel="demo:a"), "unavailable")
        self.gate.is_away = False
        self.assertEqual(ws.do("subscribe", channel="demo:a")["channel"], "demo:a")

    def test_raw_publish(self) -> None:
        """A payload that cannot be published closes ``rtpush.raw``, and the client comes back."""
        ws = self.socket("/ws?channel=demo:a", protocol="rtpush.raw")
        self.gate.is_away = True
        ws.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
        [closing] = ws.frames()
        self.assertEqual((closing.opcode, closing.code, closing.reason), (CLOSE, 1013, "unavailable"))

    def test_those_who_are_there(self) -> None:
        """Those who follow a channel stay, whatever they are on, and get what they missed."""
        for n in range(4):
            self.publish("demo:a", n)
        ws, stream = self.socket("/ws?channel=demo:a"), self.client()
        stream.request("/sse?channel=demo:a")
        for client in (ws, stream):
            (client.client if client is ws else client).take()
        # What was published while this node heard nothing of it.
        receiver, self.gate.broker._receiver = self.gate.broker._receiver, None
        self.publish("demo:a", "missed")
        self.gate.broker._receiver = receiver
        self.gate.is_away = True
        top = self.result(self.gate.broker.subscribe("demo:a"))
        for _ in range(3):
            self.node.compared("demo:a", top)
            self.pump(1)
        self.gate.is_away = False
        self.node.compared("demo:a", top)
        self.clock.advance(0)
        self.assertEqual([each["message"]["data"] for each in ws.heard()], ["missed"])
        self.assertEqual([event.data for event in events_of(stream.take())], ["missed"])


class SlowTests(GateTestCase):
    """It takes its time."""

    LIMIT = connection_module._MAX_COMMANDS

    def commands(self, *numbers: int) -> list[bytes]:
        """Return frames of commands that publish."""
        return [
            frame(TEXT, json.dumps({"id": n, "publish": {"channel": "demo:a", "data": n}}).encode()) for n in numbers
        ]

    def test_bounded(self) -> None:
        """Of one that sends faster than the broker answers no more is read, and what was read waits."""
        ws = self.socket()
        self.gate.is_slow = True
        for n in range(1, 1001, 100):
            ws.send(b"".join(self.commands(*range(n, n + 100))))
        self.assertEqual(len(self.gate.waiting), self.LIMIT)
        self.assertFalse(ws.client.wire.reads)
        done = 0
        while self.gate.waiting:
            self.gate.answer(1)
            self.clock.advance(0)
            done += 1
            self.assertEqual(len(self.gate.waiting), min(self.LIMIT, 1000 - done))
        self.assertTrue(ws.client.wire.reads)
        self.assertEqual([each["id"] for each in ws.heard()], list(range(1, 1001)))
        self.assertEqual([m["data"] for m in self.call_history()], list(range(1, 1001)))

    def call_history(self) -> list[Any]:
        """Return what the channel keeps."""
        self.gate.is_slow = False
        messages: list[Any] = self.call("history", channel="demo:a", limit=1000)["messages"]
        return messages

    def test_array(self) -> None:
        """An array of commands is no way around it."""
        ws = self.socket()
        self.gate.is_slow = True
        ws.say([{"id": n, "publish": {"channel": "demo:a", "data": n}} for n in range(1, 501)])
        ws.say({"id": 501, "ping": {}})
        self.assertEqual(len(self.gate.waiting), self.LIMIT)
        while self.gate.waiting:
            self.gate.answer(7)
            self.clock.advance(0)
        replies = [each["id"] for each in ws.heard()]
        # What needs no broker is answered as soon as it is its turn.
        replies.remove(501)
        self.assertEqual(replies, list(range(1, 501)))

    def test_order_of_replies(self) -> None:
        """What needs no broker is not held up by what does, until too much is; then it keeps its place."""
        ws = self.socket()
        self.gate.is_slow = True
        ws.send(b"".join(self.commands(*range(1, self.LIMIT))))
        self.assertEqual(ws.do("ping"), {})
        ws.send(b"".join(self.commands(self.LIMIT)))
        ws.say({"id": 999, "ping": {}})
        self.assertEqual(ws.heard(), [])
        self.gate.answer(1)
        self.clock.advance(0)
        self.assertEqual([each["id"] for each in ws.heard()], [1, 999])

    def test_other_commands(self) -> None:
        """The same for what subscribes and asks."""
        for command in ("subscribe", "history"):
            ws = self.socket()
            self.gate.is_slow = True
            for n in range(1, 101):
                ws.say({"id": n, command: {"channel": "demo:a" if command == "history" else f"demo:{n % 15}"}})
                if command == "subscribe":
                    ws.say({"unsubscribe": {"channel": f"demo:{n % 15}"}})
            self.assertLessEqual(len(self.gate.waiting), self.LIMIT)
            self.assertFalse(ws.client.wire.reads)
            while self.gate.waiting:
                self.gate.answer(5)
                self.clock.advance(0)
            self.assertTrue(ws.client.wire.reads)
            ws.lose()
            self.gate.answer()

    def test_raw(self) -> None:
        """The same for ``rtpush.raw``, whose messages keep their order."""
        ws = self.socket("/ws?channel=demo:a", protocol="rtpush.raw")
        self.gate.is_slow = True
        for _ in range(3):
            ws.send(b"".join(frame(TEXT, b"%d" % n) for n in range(100)))
        self.assertEqual(len(self.gate.waiting), self.LIMIT)
        while self.gate.waiting:
            self.gate.answer(10)
            self.clock.advance(0)
        self.assertEqual([int(each.payload) for each in ws.frames()], [*range(100)] * 3)

    def test_failures_count(self) -> None:
        """A command that fails has its answer too."""
        ws = self.socket()
        self.gate.is_slow = True
        ws.send(b"".join(self.commands(*range(1, 101))))
        while self.gate.waiting:
            waiting, _ = self.gate.waiting.popleft()
            waiting.errback(RtpushError(ErrorCode.UNAVAILABLE, "the broker is away"))
        self.assertEqual([each["error"]["code"] for each in ws.heard()], [112] * 100)
        self.assertTrue(ws.client.wire.reads)

    def test_slow_on_both_sides(self) -> None:
        """One that does not read its answers either is read from when it does and the broker has answered."""
        ws = self.socket()
        self.gate.is_slow = True
        ws.send(b"".join(self.commands(*range(1, 101))))
        ws.client.wire.stick()
        self.gate.answer(1)
        self.gate.answer(len(self.gate.waiting))
        self.assertEqual(len(self.gate.waiting), 0)
        self.assertFalse(ws.client.wire.reads)
        ws.client.wire.drain()
        self.clock.advance(0)
        self.assertTrue(self.gate.waiting)
        while self.gate.waiting:
            self.gate.answer(10)
            self.clock.advance(0)
        self.assertTrue(ws.client.wire.reads)
        self.assertEqual([each["id"] for each in ws.heard()], list(range(1, 101)))

    def test_not_taken_for_dead(self) -> None:
        """One that is not read from is not asked for signs of life."""
        ws = self.socket()
        self.gate.is_slow = True
        ws.send(b"".join(self.commands(*range(1, 101))))
        self.pump(200, 0.5)
        self.assertFalse(ws.closed)
        self.gate.answer()
        self.gate.is_slow = False
        self.gate.answer()
        self.pump(1)
        self.assertFalse(ws.closed)
        self.pump(100, 0.5)
        self.assertTrue(ws.closed)

    def test_ends_meanwhile(self) -> None:
        """One that is ended while its commands wait is closed in good order; those not begun are not done."""
        ws = self.socket()
        self.gate.is_slow = True
        ws.send(b"".join(self.commands(*range(1, 101))))
        name = next(iter(self.node.connections))
        self.assertEqual(self.call("disconnect", connection=name), {"disconnected": 1})
        self.assertTrue(ws.client.wire.reads)
        self.assertEqual(self.closing(ws)[0], 4500)
        self.gate.answer()
        self.assertEqual(len(self.gate.waiting), 0)
        ws.lose()
        self.assertEqual(len(self.call_history()), self.LIMIT)
        self.assert_nobody()

    def test_goes_meanwhile(self) -> None:
        """One that goes while its commands wait is gone."""
        ws = self.socket(target("/ws", channel="demo:a"))
        self.gate.is_slow = True
        ws.send(b"".join(self.commands(*range(1, 101))))
        ws.lose()
        self.gate.answer()
        self.assertEqual(len(self.call_history()), self.LIMIT)
        self.assert_nobody()


class LeavingTests(GateTestCase):
    """The node ends while it still finds out where a client's delivery begins: nothing of that counts as told."""

    def leave(self, path: str) -> tuple[Any, str]:
        """Ask for something; let the node end before the broker has answered. Return the client, and its answer."""
        self.gate.is_slow = True
        client = self.client()
        client.request(path)
        self.node.leave_all()
        answer = client.answer()
        return answer, answer.body.decode()

    def test_poll(self) -> None:
        """A poll is answered with the cursor that it came with, be its channels known to the node or not."""
        first, *_ = [self.publish("demo:a", n) for n in range(3)]
        for asked in (f"{first},-", f"{first},k3f9:7"):
            answer, _ = self.leave(target("/poll", channel="demo:a,demo:b", cursor=asked))
            self.assertEqual((answer.json["cursor"], answer.json["disconnect"]["code"]), (asked, 1012))
            self.gate.is_slow = False
            self.gate.answer()

    def test_poll_from_history(self) -> None:
        """While history is read it is where the client was, not where the channel is."""
        first, *_ = [self.publish("demo:a", n) for n in range(3)]
        self.client().request("/poll?channel=demo:a")
        answer, _ = self.leave(target("/poll", channel="demo:a", cursor=first))
        self.assertEqual(answer.json["cursor"], first)

    def test_poll_that_knows_nothing(self) -> None:
        """One that came without a cursor has none yet: what it asks for next is what it asked for."""
        for since, cursor in (("now", "-"), ("earliest", "")):
            answer, _ = self.leave(target("/poll", channel="demo:a", since=since))
            self.assertEqual(answer.json["cursor"], cursor)

    def test_gap(self) -> None:
        """A gap that is found in one channel while another is not known yet is told when the client comes back."""
        self.publish("demo:a", 1)
        self.gate.is_slow = True
        client = self.client()
        client.request(target("/poll", channel="demo:a,demo:b", cursor="k3f9:7,-"))
        # It follows the first channel, and reads its history: there is no such position.
        self.gate.answer(1)
        self.gate.waiting.rotate(1)
        self.gate.answer(1)
        self.node.leave_all()
        self.assertEqual(client.answer().json["cursor"], "k3f9:7,-")

    def test_sse(self) -> None:
        """An event stream that has not begun does not move the client's last event id."""
        first, *_ = [self.publish("demo:a", n) for n in range(3)]
        _, body = self.leave(target("/sse", channel="demo:a", cursor=first))
        self.assertIn(f"id: {first}\nevent: disconnect\n", body)
