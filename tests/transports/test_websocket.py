"""WebSocket: commands, replies and pushes, heartbeats, and readers that do not keep up."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from rtpush.errors import Disconnect
from tests.transports.serving import target
from tests.transports.sockets import BINARY, CLOSE, PING, PONG, TEXT, SocketTestCase, WebSocket, close_frame, frame


class CommandTests(SocketTestCase):
    """``rtpush.v1``: what a client may say, and what comes back."""

    def setUp(self) -> None:
        super().setUp()
        self.ws = self.socket()

    def told(self, command: Any) -> Any:
        """Say something, and return the one answer."""
        self.ws.say(command)
        [answer] = self.ws.heard()
        return answer

    def test_connect(self) -> None:
        """``connect`` is answered always, with or without an id; later clients may say more."""
        [listed] = self.call("connections")["connections"]
        content = self.told({"connect": {}})["connect"]
        self.assertEqual(set(content), {"connection", "node", "heartbeat", "version"})
        self.assertEqual(
            (content["connection"], content["node"], content["heartbeat"]), (listed["connection"], "test-node", 30)
        )
        self.assertEqual(self.told({"id": 4, "connect": {"info": 1, "from_the_future": [2]}})["id"], 4)
        self.assertEqual(self.told({"id": 4, "connect": {"token": "x"}})["error"]["name"], "unauthorized")
        self.assertEqual(self.told({"id": 4, "connect": {"token": 1}})["error"]["name"], "bad_request")
        self.assertEqual(self.told({"connect": {"info": "x" * 4095}})["error"]["name"], "bad_request")
        self.assertIn("connect", self.told({"connect": {"info": "x" * 4094}}))

    def test_replies(self) -> None:
        """Each command's reply has its id and name, and the fields of the protocol."""
        self.assertEqual(self.told({"id": 1, "ping": {}}), {"id": 1, "ping": {}})
        position = self.now("demo:a")
        epoch = position.partition(":")[0]
        self.assertEqual(
            self.told({"id": 2, "subscribe": {"channel": "demo:a"}}),
            {"id": 2, "subscribe": {"channel": "demo:a", "epoch": epoch, "offset": 0, "recovered": True}},
        )
        self.ws.say({"id": 3, "publish": {"channel": "demo:a", "data": [1], "event": "e"}})
        reply, message = self.ws.heard()
        self.assertEqual(reply, {"id": 3, "publish": {"epoch": epoch, "offset": 1}})
        envelope = {"channel": "demo:a", "offset": 1, "epoch": epoch, "event": "e", "data": [1]}
        self.assertEqual(message, {"message": envelope})
        self.assertEqual(
            self.told({"id": 4, "history": {"channel": "demo:a"}}),
            {"id": 4, "history": {"messages": [envelope], "epoch": epoch, "offset": 1}},
        )
        [listed] = self.call("connections")["connections"]
        self.assertEqual(
            self.told({"id": 5, "presence": {"channel": "demo:a"}}),
            {
                "id": 5,
                "presence": {"connections": [{"connection": listed["connection"], "transport": "websocket"}]},
            },
        )
        self.assertEqual(
            self.told({"id": 6, "unsubscribe": {"channel": "demo:a"}}), {"id": 6, "unsubscribe": {"channel": "demo:a"}}
        )
        self.ws.say({"id": 7, "publish": {"channel": "demo:a", "data": 1, "history": False}})
        self.assertEqual(self.ws.heard(), [{"id": 7, "publish": {}}])

    def test_errors(self) -> None:
        """An error has the id and the object of the table."""
        self.assertEqual(
            {name: type(value) for name, value in self.told({"id": 9, "refresh": {"token": "x"}})["error"].items()},
            {"code": int, "name": str, "message": str, "temporary": bool},
        )
        for command, name in (
            ({"refresh": {"token": "x"}}, "not_available"),
            ({"subscribe": {"channel": "unknown:a"}}, "unknown_channel"),
            ({"subscribe": {"channel": "a b"}}, "bad_channel"),
            ({"subscribe": {"channel": ""}}, "bad_channel"),
            ({"subscribe": {}}, "bad_request"),
            ({"subscribe": {"channel": 1}}, "bad_request"),
            ({"subscribe": "demo:a"}, "bad_request"),
            ({"subscribe": None}, "bad_request"),
            ({"unsubscribe": {"channel": "demo:a"}}, "not_subscribed"),
            ({"unsubscribe": {"channel": "a b"}}, "not_subscribed"),
            ({"publish": {"channel": "demo:a"}}, "bad_request"),
            ({"publish": {"channel": "demo:a", "data": 1, "data_b64": ""}}, "bad_request"),
            ({"publish": {"channel": "demo:a", "data_b64": "x"}}, "bad_request"),
            ({"publish": {"channel": "demo:a", "data_b64": "\u00e9"}}, "bad_request"),
            ({"publish": {"channel": "demo:a", "data": 1, "idempotency_key": ""}}, "bad_request"),
            ({"publish": {"channel": "demo:a", "data": "x" * 65537}}, "message_too_large"),
            ({"publish": {"channel": "a", "data": 1}}, "permission_denied"),
            ({"history": {"channel": "none:a"}}, "not_available"),
            ({"history": {"channel": "demo:a", "limit": -1}}, "bad_request"),
            ({"history": {"channel": "demo:a", "limit": 10001}}, "bad_request"),
            ({"history": {"channel": "demo:a", "since": "x"}}, "bad_cursor"),
            ({"history": {"channel": "demo:a", "since": "zzz:1"}}, "bad_cursor"),
            ({"presence": {"channel": "a"}}, "not_available"),
            ({"ping": {"x": 1}}, "bad_request"),
            ({"ping": []}, "bad_request"),
            ({"pong": {}}, "bad_request"),
            ({}, "bad_request"),
            ({"ping": {}, "presence": {"channel": "demo:a"}}, "bad_request"),
        ):
            answer = self.told({"id": 9, **command})
            self.assertEqual((answer["id"], answer["error"]["name"]), (9, name), command)
            self.assertEqual(self.told(command)["error"]["name"], name, "without an id")
        self.assertEqual(self.told({"id": 1, "ping": {}}), {"id": 1, "ping": {}})

    def test_silent_success(self) -> None:
        """A success without an id has no reply, but its effect."""
        self.ws.say([{"ping": {}}, {"subscribe": {"channel": "demo:a"}}, {"history": {"channel": "demo:a"}}])
        self.assertEqual(self.ws.heard(), [])
        self.ws.say({"publish": {"channel": "demo:a", "data": 1}})
        [pushed] = self.ws.heard()
        self.assertEqual(pushed["message"]["data"], 1)

    def test_ids(self) -> None:
        """An id is a positive integer, of any size; another is an error."""
        for id_ in (1, 2**53, 2**63, 10**30):
            self.assertEqual(self.told({"id": id_, "ping": {}}), {"id": id_, "ping": {}})
        for id_ in (0, -1, 1.5, "1", True, [1], {}):
            answer = self.told({"id": id_, "ping": {}})
            self.assertEqual(answer["error"]["name"], "bad_request", id_)

    def test_array(self) -> None:
        """An array of commands is answered one by one, in order; a bad one spoils no other."""
        self.ws.say(
            [
                {"id": 1, "ping": {}},
                {"id": 2, "subscribe": {"channel": "unknown:a"}},
                {"id": 3, "nonsense": {}},
                17,
                {"id": 4, "subscribe": {"channel": "demo:a"}},
                {"id": 5, "publish": {"channel": "demo:a", "data": 1}},
                [{"id": 6, "ping": {}}],
                {"id": 7, "ping": {}},
            ]
        )
        heard = self.ws.heard()
        replies = [each for each in heard if "message" not in each]
        self.assertEqual([each.get("id") for each in replies], [1, 2, 3, None, 4, 5, None, 7])
        self.assertEqual([each for each in heard if "message" in each][0]["message"]["data"], 1)
        self.assertEqual(self.told([{"id": 1, "ping": {}}]), {"id": 1, "ping": {}})
        self.ws.say([])
        self.assertEqual(self.ws.heard(), [])

    def test_unreadable(self) -> None:
        """What cannot be read is answered so, and the connection stays."""
        for data in (
            b"",
            b" ",
            b"{",
            b"nonsense",
            b"17",
            b"null",
            b"[1",
            b'{"id":1,"ping":{}}{"id":2,"ping":{}}',
            b'{"id":1,"ping":{},"ping":',
            b'{"publish":{"channel":"demo:a","data":"\\ud800"}}',
            b'{"publish":{"channel":"demo:a","data":' + b"[" * 5000 + b"]" * 5000 + b"}}",
            b"[" * 40_000,
            b'{"a":' * 40_000,
            b'{"publish":{"channel":"demo:a","data":NaN}}',
            b'{"publish":{"channel":"demo:a","data":01}}',
        ):
            self.ws.send(frame(TEXT, data))
            [answer] = self.ws.heard()
            self.assertEqual(answer["error"]["name"], "bad_request", data[:60])
            self.assertLess(len(answer["error"]["message"]), 1000)
        self.ws.send(frame(BINARY, b'{"id":1,"ping":{}}'))
        self.assertEqual(self.ws.heard()[0]["error"]["name"], "bad_request")
        self.assertEqual(self.told({"id": 1, "ping": {}}), {"id": 1, "ping": {}})

    def test_many_bad_commands(self) -> None:
        """A frame of nothing but mistakes is no way to make the node write without end."""
        self.ws.client.wire.stick()
        self.ws.send(frame(TEXT, b"[" + b"0," * 100_000 + b"0]"))
        self.assertLess(len(self.ws.client.wire.sent), 2_000_000)

    def test_subscriptions(self) -> None:
        """A channel is followed once, and only so many of them; what was left can be followed again."""
        self.assertIn("epoch", self.ws.do("subscribe", channel="demo:a"))
        self.assertEqual(self.ws.do("subscribe", channel="demo:a"), "already_subscribed")
        self.assertEqual(self.ws.do("unsubscribe", channel="demo:a"), {"channel": "demo:a"})
        self.assertEqual(self.ws.do("unsubscribe", channel="demo:a"), "not_subscribed")
        for n in range(20):
            self.assertIn("epoch", self.ws.do("subscribe", channel=f"c{n}"))
        self.assertEqual(self.ws.do("subscribe", channel="c20"), "limit_exceeded")
        self.ws.do("unsubscribe", channel="c7")
        self.assertIn("epoch", self.ws.do("subscribe", channel="c20"))
        self.publish("c7", "gone")
        self.publish("c20", "here")
        self.assertEqual([each["message"]["data"] for each in self.ws.heard()], ["here"])

    def test_order_of_recovery(self) -> None:
        """The reply comes first, then a gap if there is one, then messages."""
        self.publish("demo:a", 1)
        position = self.publish("demo:a", 2)
        self.ws.say({"id": 1, "subscribe": {"channel": "demo:a", "since": "earliest"}})
        self.assertEqual([next(iter(each)) for each in self.ws.heard()], ["id", "message", "message"])
        self.ws.do("unsubscribe", channel="demo:a")
        self.ws.say({"id": 1, "subscribe": {"channel": "demo:a", "cursor": "zzz:1"}})
        reply, gap = self.ws.heard()
        self.assertEqual(
            (reply["subscribe"]["recovered"], f"{reply['subscribe']['epoch']}:{reply['subscribe']['offset']}"),
            (False, position),
        )
        self.assertEqual(gap["gap"]["reason"], "epoch_changed")

    def test_history(self) -> None:
        """History goes forward from a position or the oldest, or back from a position or the newest."""
        positions = [self.publish("demo:a", n) for n in range(6)]
        for fields, expected in (
            ({}, [0, 1, 2, 3, 4, 5]),
            ({"limit": 2}, [0, 1]),
            ({"limit": 0}, []),
            ({"since": positions[2]}, [3, 4, 5]),
            ({"since": positions[2], "limit": 1}, [3]),
            ({"since": positions[5]}, []),
            ({"reverse": True}, [5, 4, 3, 2, 1, 0]),
            ({"reverse": True, "limit": 2}, [5, 4]),
            ({"reverse": True, "since": positions[2]}, [1, 0]),
            ({"reverse": True, "since": positions[0]}, []),
        ):
            result = self.ws.do("history", channel="demo:a", **fields)
            self.assertEqual([each["data"] for each in result["messages"]], expected, fields)
            self.assertEqual(f"{result['epoch']}:{result['offset']}", positions[-1])

    def test_idempotency(self) -> None:
        """A publish that is repeated with its key is done once."""
        self.ws.do("subscribe", channel="demo:a")
        first = self.ws.do("publish", channel="demo:a", data=1, idempotency_key="k")
        self.assertEqual(self.ws.do("publish", channel="demo:a", data=2, idempotency_key="k"), first)
        self.clock.advance(0)
        self.assertEqual(self.now("demo:a"), f"{first['epoch']}:1")


class PackedTests(SocketTestCase):
    """``rtpush.v1.msgpack``: the same, in msgpack."""

    def setUp(self) -> None:
        super().setUp()
        self.ws = self.socket(protocol="rtpush.v1.msgpack")

    def told(self, command: Any) -> list[Any]:
        """Say something, and return what came back."""
        self.ws.send(frame(BINARY, msgspec.msgpack.encode(command)))
        return self.ws.unpacked()

    def test_commands(self) -> None:
        """Commands, single or in an array, and their replies."""
        self.assertEqual(self.told({"id": 1, "ping": {}}), [{"id": 1, "ping": {}}])
        replies = self.told(
            [{"id": 1, "subscribe": {"channel": "demo:a"}}, {"id": 2, "nonsense": 1}, {"id": 3, "ping": {}}]
        )
        self.assertEqual([each["id"] for each in replies], [1, 2, 3])
        self.assertEqual(replies[1]["error"]["name"], "bad_request")
        self.assertIn("connect", self.told({"connect": {"info": {"a": b"x"}}})[0])

    def test_payloads(self) -> None:
        """Payloads keep their kind: text, JSON, and binary as bytes."""
        self.told({"subscribe": {"channel": "none:a"}})
        other = self.socket("/ws?channel=none:a")
        other.heard()
        for data, in_json in (
            ("hello", {"data": "hello"}),
            (b"\x00\xff", {"data_b64": "AP8="}),
            (b"", {"data_b64": ""}),
            ({"a": [1, 2.5, None, True, "é"]}, {"data": {"a": [1, 2.5, None, True, "é"]}}),
            (2**63, {"data": 2**63}),
            (-(2**63), {"data": -(2**63)}),
            (None, {"data": None}),
        ):
            reply, message = self.told({"id": 1, "publish": {"channel": "none:a", "data": data}})
            self.assertEqual(message["message"]["data"], data)
            [pushed] = other.heard()
            self.assertEqual(
                {name: value for name, value in pushed["message"].items() if name.startswith("data")}, in_json
            )

    def test_from_json(self) -> None:
        """What others publish in JSON arrives as msgpack has it, also numbers that it cannot hold."""
        self.told({"subscribe": {"channel": "demo:a"}})
        for text, value in (("1", 1), ("18446744073709551616", 18446744073709551616.0), ("[1e300]", [1e300])):
            body = b'{"channel":"demo:a","data":' + text.encode() + b"}"
            self.assertEqual(self.ask("/api/v1/publish", method="POST", body=body).status, 200)
            self.clock.advance(0)
            self.assertEqual(self.ws.unpacked()[0]["message"]["data"], value)

    def test_unreadable(self) -> None:
        """What cannot be read is answered so, and the connection stays."""
        for data in (
            b"",
            b"\xc1",
            b"\x81",
            b"\x91\x81",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\x91" * 50_000,
            b'{"id":1}',
            b"\x81\xa4ping\x80\x00",
            b"\x81\xa7publish\x82\xa7channel\xa6demo:a\xa4data\xa2\xff\xfe",
            b"\x81\xa7publish\x82\xa7channel\xa6demo:a\xa4data\xd6\xff\x00\x00\x00\x00",
            b"\x81\xa7publish\x82\xa7channel\xa6demo:a\xa4data\xd4\x05\x00",
            b"\x81\xa7publish\x82\xa7channel\xa6demo:a\xa4data\x81\x01\x02",
            b"\x81\xa7publish\x82\xa7channel\xa6demo:a\xa4data\x91\xc4\x01x",
            b"\x81\xa7publish\x82\xa7channel\xa6demo:a\xa4data\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
        ):
            self.ws.send(frame(BINARY, data))
            for answer in self.ws.unpacked():
                self.assertIn(next(iter(answer)), ("error",), data[:60])
            self.assertFalse(self.ws.closed, data[:60])
        self.ws.send(frame(TEXT, b'{"id":1,"ping":{}}'))
        self.assertEqual(self.ws.unpacked()[0]["error"]["name"], "bad_request")
        self.assertEqual(self.told({"id": 1, "ping": {}}), [{"id": 1, "ping": {}}])


class RawTests(SocketTestCase):
    """``rtpush.raw``: payloads alone."""

    def raw(self, channel: str = "demo:a", **query: Any) -> WebSocket:
        """Open one."""
        return self.socket(target("/ws", channel=channel, **query), protocol="rtpush.raw")

    def test_wire(self) -> None:
        """A frame is the payload: "hello" takes 7 bytes."""
        ws = self.raw()
        self.publish("demo:a", "hello")
        self.assertEqual(ws.client.take(), b"\x81\x05hello")
        self.publish("demo:a", {"a": 1})
        self.call("publish", channel="demo:a", data_b64="AP8=")
        self.clock.advance(0)
        frames = ws.frames()
        self.assertEqual([(each.opcode, json.loads(each.payload)) for each in frames[:1]], [(TEXT, {"a": 1})])
        self.assertEqual((frames[1].opcode, frames[1].payload), (BINARY, b"\0\xff"))

    def test_publishes(self) -> None:
        """What a client sends is published, text as text and binary as binary, and comes back to it too."""
        ws, other = self.raw(), self.socket("/ws?channel=demo:a")
        other.heard()
        for opcode, payload, data in (
            (TEXT, b"hello", {"data": "hello"}),
            (TEXT, b"", {"data": ""}),
            (TEXT, b'{"a":1}', {"data": '{"a":1}'}),
            (BINARY, b"\0\xff", {"data_b64": "AP8="}),
            (BINARY, b"", {"data_b64": ""}),
        ):
            ws.send(frame(opcode, payload))
            [echo] = ws.frames()
            self.assertEqual((echo.opcode, echo.payload), (opcode, payload))
            [pushed] = other.heard()
            self.assertEqual({name: pushed["message"][name] for name in data}, data)

    def test_not_allowed(self) -> None:
        """Where clients may not publish, one that does is closed with the error's name."""
        ws = self.raw("a")
        self.publish("a", "one")
        ws.send(frame(TEXT, b"two"))
        *messages, closing = ws.frames()
        self.assertEqual([each.payload for each in messages], [b"one"])
        self.assertEqual((closing.opcode, closing.code, closing.reason), (CLOSE, 1008, "permission_denied"))
        ws.send(close_frame(1008))
        self.assertTrue(ws.closed)
        self.assert_nobody()

    def test_recovery(self) -> None:
        """It resumes by cursor like the others."""
        positions = [self.publish("demo:a", f"m{n}") for n in range(4)]
        ws = self.raw(cursor=positions[1])
        self.assertEqual([each.payload for each in ws.frames()], [b"m2", b"m3"])
        ws = self.raw(since="earliest")
        self.assertEqual(len(ws.frames()), 4)

    def test_gap_closes(self) -> None:
        """A gap closes it, with the cursor at which to go on as the reason."""
        position = self.publish("demo:a", "m")
        ws = self.raw(cursor="zzz:1")
        self.assertEqual(self.closing(ws), (Disconnect.GAP.code, position))


class HeartbeatTests(SocketTestCase):
    """Both sides must be heard from."""

    def live(self, ws: WebSocket, seconds: int) -> int:
        """Let time pass while the client answers pings; return how many there were."""
        pings = 0
        for _ in range(seconds):
            self.clock.advance(1)
            for each in ws.frames():
                self.assertEqual((each.opcode, each.payload), (PING, b""))
                ws.send(frame(PONG))
                pings += 1
        return pings

    def test_pings(self) -> None:
        """A ping comes in every interval, the first one earlier by chance; a peer that answers stays."""
        for chance in (0.0, 0.5, 0.999):
            self.chance = chance
            ws = self.socket()
            self.assertEqual(self.live(ws, 14), 0)
            self.assertEqual(self.live(ws, 17), 1)
            self.assertIn(self.live(ws, 300), (10, 11))
            self.assertFalse(ws.closed)
            ws.lose()

    def test_dead_peer(self) -> None:
        """A peer that is silent for an interval and the grace is closed with 4001, and cut off when it stays silent."""
        ws = self.socket("/ws?channel=demo:a")
        self.pump(23)
        self.assertEqual([each.opcode for each in ws.frames()][-1], PING)
        self.pump(16)
        self.assertEqual(ws.frames(), [])
        self.pump(1.5)
        *told, closing = ws.frames()
        self.assertEqual((closing.opcode, closing.code, closing.reason), (CLOSE, 4001, "no_heartbeat"))
        pushed = json.loads(told[-1].payload)["disconnect"]
        self.assertEqual(pushed, {"code": 4001, "reason": "no_heartbeat", "reconnect": True})
        self.assertEqual(self.call("presence", channel="demo:a"), {"connections": []})
        self.assertFalse(ws.closed)
        self.pump(5.5)
        self.assertTrue(ws.client.wire.aborted)
        self.assert_nobody()

    def test_client_that_speaks_by_itself(self) -> None:
        """A client that answers no ping, but says something in every interval, stays."""
        for chance in (0.0, 0.5, 0.999):
            self.chance = chance
            ws = self.socket()
            for _ in range(5):
                self.pump(30)
                ws.send(frame(TEXT, b'{"ping": {}}'))
                self.assertFalse(ws.closed)
                self.assertEqual({each.opcode for each in ws.frames()} - {PING}, set())
            ws.lose()

    def test_seen_in_time(self) -> None:
        """Whenever a peer dies, that is seen within an interval and the grace."""
        for chance in (0.0, 0.5, 0.999):
            for phase in (0, 7, 15, 24):
                self.chance = chance
                ws = self.socket()
                self.live(ws, phase)
                died = self.clock.seconds()
                while not any(each.opcode == CLOSE for each in ws.frames()):
                    self.clock.advance(0.5)
                self.assertLessEqual(self.clock.seconds() - died, 40.5, (chance, phase))
                ws.lose()

    def test_anything_is_heard(self) -> None:
        """Whatever comes is a sign of life: a pong, a ping, a command, part of a frame."""
        for data in (frame(PONG), frame(PING, b"x"), frame(TEXT, b'{"ping":{}}')):
            ws = self.socket()
            for _ in range(20):
                self.pump(9.5)
                ws.send(data)
            self.assertNotIn(CLOSE, [each.opcode for each in ws.frames()])
            ws.lose()
        ws = self.socket()
        ws.send(b"\x81\xfe\x01\x00\0\0\0\0")
        for _ in range(20):
            self.pump(9.5)
            ws.send(b"x")
        self.assertNotIn(CLOSE, [each.opcode for each in ws.frames()])

    def test_pongs_everywhere(self) -> None:
        """A pong may come between the frames of a message; what looks like one within a frame is a part of that."""
        pong, ping = frame(PONG), frame(TEXT, b'{"id":1,"ping":{}}')
        self.assertEqual(len(pong), 6)
        for pieces in (
            [frame(TEXT, b'{"id":1,', fin=False), pong, frame(0, b'"ping":{}}')],
            [pong, ping, pong],
            [ping[:3], ping[3:], pong],
            [pong[:1], pong[1:], ping],
        ):
            ws = self.socket()
            for piece in pieces:
                ws.send(piece)
            self.assertEqual([json.loads(each.payload) for each in ws.frames()], [{"id": 1, "ping": {}}], pieces)
        payload = b"xx" + pong + b"y"
        # With this mask the payload goes over the wire as it is.
        whole = bytes((0x80 | BINARY, 0x80 | len(payload))) + b"\0\0\0\0" + payload
        raw = self.socket("/ws?channel=none:a", protocol="rtpush.raw")
        for piece in (whole[:8], whole[8:14], whole[14:]):
            raw.send(piece)
        self.assertEqual([each.payload for each in raw.frames() if each.opcode == BINARY], [payload])

    def test_pings_need_no_pause(self) -> None:
        """Traffic from the server is no sign of life of the client."""
        ws = self.socket("/ws?channel=demo:a")
        for _ in range(50):
            self.pump(1, 1)
            self.publish("demo:a", 1)
        self.pump(35, 1)
        self.assertEqual(self.closing(ws)[0], 4001)

    def test_closing_is_cut_off(self) -> None:
        """A peer that does not answer a close is cut off after a while; one that does is let go at once."""
        for answers in (True, False):
            ws = self.socket()
            [listed] = self.call("connections")["connections"]
            self.call("disconnect", connection=listed["connection"])
            self.assertEqual(self.closing(ws)[0], 4500)
            if answers:
                ws.send(close_frame(4500))
            else:
                self.assertFalse(ws.closed)
                self.pump(5.5)
            self.assertTrue(ws.closed)
            self.assertEqual(ws.client.wire.aborted, not answers)
            self.assert_nobody()


class SlowReaderTests(SocketTestCase):
    """Clients that do not read."""

    sections = "[api]\nopen = yes\n[namespace:strict]\nhistory_size = 1000\nslow_reader = disconnect"

    def test_catches_up(self) -> None:
        """One that stops to read keeps its place, and gets everything that history keeps, once, in order."""
        ws, other = self.socket("/ws?channel=demo:a"), self.socket("/ws?channel=demo:a")
        for n in range(80):
            if n == 3:
                ws.client.wire.stick()
            self.publish("demo:a", f"{n:02}" + "x" * 50_000)
        self.assertLess(len(ws.client.wire.sent), 400_000)
        self.assertEqual(len([each for each in other.heard() if "message" in each]), 80)
        found = []
        for _ in range(400):
            ws.client.wire.drain()
            ws.client.wire.stick()
            self.clock.advance(0)
            found += [each["message"]["data"][:2] for each in ws.heard() if "message" in each]
        self.assertEqual(found, [f"{n:02}" for n in range(80)])

    def test_gap(self) -> None:
        """One that history has left behind is told so, and goes on."""
        ws = self.socket("/ws?channel=a")
        ws.heard()
        ws.client.wire.stick()
        for n in range(250):
            self.publish("a", f"{n}" + "x" * 20_000)
        ws.client.wire.drain()
        for _ in range(50):
            self.clock.advance(0)
        heard = ws.heard()
        names = [next(iter(each)) for each in heard]
        self.assertEqual(names.count("gap"), 1)
        gap = heard[names.index("gap")]["gap"]
        self.assertEqual((gap["reason"], gap["offset"]), ("history_lost", 250))
        self.publish("a", "new")
        self.assertEqual([each["message"]["data"] for each in ws.heard()], ["new"])

    def test_strict(self) -> None:
        """Where the namespace says so, one whose queue is full is disconnected with the reason."""
        ws = self.socket("/ws?channel=strict:a")
        ws.client.wire.stick()
        for n in range(40):
            self.publish("strict:a", f"{n}" + "x" * 50_000)
        ws.client.wire.drain()
        self.assertEqual(self.closing(ws), (4000, "slow_reader"))

    def test_does_not_read_at_all(self) -> None:
        """One that reads nothing for an interval is disconnected, then cut off."""
        ws = self.socket("/ws?channel=demo:a")
        ws.client.wire.stick()
        self.publish("demo:a", "x")
        self.pump(100, 0.5)
        self.assertTrue(ws.client.wire.aborted)
        self.assert_nobody()

    def test_replies_to_one_that_does_not_read(self) -> None:
        """The node stops to read from one that does not read its answers, so that they cannot pile up."""
        ws = self.socket()
        ws.client.wire.stick()
        command = frame(TEXT, b'{"id":1,"ping":{}}')
        for _ in range(30):
            ws.send(command * 100)
        self.assertFalse(ws.client.wire.reads)
        self.assertLess(len(ws.client.wire.sent), 20_000)
        ws.client.wire.drain()
        for _ in range(100):
            self.clock.advance(0)
        self.assertEqual(len(ws.heard()), 30 * 100)

    def test_ping_flood(self) -> None:
        """The same for pings."""
        ws = self.socket()
        ws.client.wire.stick()
        for _ in range(30):
            ws.send(frame(PING, b"x" * 100) * 100)
        self.assertFalse(ws.client.wire.reads)
        self.assertLess(len(ws.client.wire.sent), 50_000)
        ws.client.wire.drain()
        for _ in range(100):
            self.clock.advance(0)
        frames = ws.frames()
        self.assertEqual(len(frames), 30 * 100)
        self.assertEqual({(each.opcode, each.payload) for each in frames}, {(PONG, b"x" * 100)})

    def test_large_history(self) -> None:
        """A reply to one who asks for much holds what fits into its queue; the rest comes for those who ask again."""
        for n in range(60):
            self.publish("demo:a", f"{n:02}" + "x" * 50_000)
        ws = self.socket()
        found, since = [], {}
        for count in (20, 20, 20, 0):
            ws.say({"id": 1, "history": {"channel": "demo:a", **since}})
            (reply,) = ws.heard()
            messages = reply["history"]["messages"]
            self.assertEqual((len(messages), reply["history"]["offset"]), (count, 60))
            found += [each["data"][:2] for each in messages]
            if messages:
                since = {"since": f"{messages[-1]['epoch']}:{messages[-1]['offset']}"}
        self.assertEqual(found, [f"{n:02}" for n in range(60)])

    def test_history_flood(self) -> None:
        """One that asks for more than it reads is disconnected, with bounded memory."""
        for n in range(20):
            self.publish("demo:a", f"{n}" + "x" * 50_000)
        ws = self.socket()
        ws.client.wire.stick()
        ws.say([{"id": n, "history": {"channel": "demo:a"}} for n in range(1, 100)])
        self.assertLess(len(ws.client.wire.sent), 4_000_000)
