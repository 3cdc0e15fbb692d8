"""What happens on every transport alike: each test goes through all of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from rtpush.errors import Disconnect
from tests.transports.serving import Client, events_of, target
from tests.transports.sockets import BINARY, CLOSE, PING, TEXT, SocketTestCase, WebSocket, frame


class Peer:
    """
    A client on some transport, as all of them are alike: it says what it heard.

    :ivar messages: ``(event name, data, position)`` of each, the data as it was published if it was a text.
    :ivar told: What it was told besides: ``(name, content)``.
    :ivar cursor: Where it is.
    """

    def __init__(self, test: SocketTestCase, channel: str, query: dict[str, Any]) -> None:
        self.test = test
        self.channel = channel
        self.query = query
        self.messages: list[tuple[str | None, Any, str | None]] = []
        self.told: list[tuple[str, Any]] = []
        self.cursor = ""
        self.over = False
        self.open()
        self.listen()

    name = ""
    #: Whether a message can be told apart from others by its event name.
    has_events = True

    def open(self) -> None:
        """Connect."""
        raise NotImplementedError

    def listen(self) -> None:
        """Take what came."""
        raise NotImplementedError

    def leave(self) -> None:
        """Go away."""
        raise NotImplementedError

    def envelope(self, envelope: dict[str, Any]) -> None:
        """Take a message."""
        position = f"{envelope['epoch']}:{envelope['offset']}" if "offset" in envelope else None
        self.test.assertEqual(envelope["channel"], self.channel)
        self.messages.append((envelope.get("event"), envelope["data"], position))
        self.cursor = position or self.cursor

    def names(self) -> list[str]:
        """Return the names of what it was told."""
        return [name for name, _ in self.told]


class Commands(Peer):
    """``rtpush.v1``."""

    name = "websocket"

    def open(self) -> None:
        self.socket = self.test.socket(target("/ws", channel=self.channel, **self.query), protocol="rtpush.v1")

    def decode(self, opcode: int, payload: bytes) -> Any:
        """Read a frame."""
        self.test.assertEqual(opcode, TEXT)
        return json.loads(payload)

    def listen(self) -> None:
        for each in self.socket.frames():
            if each.opcode == PING:
                continue
            if each.opcode == CLOSE:
                self.told.append(("close", (each.code, each.reason)))
                self.over = True
                continue
            [(name, content)] = self.decode(each.opcode, each.payload).items()
            if name == "message":
                self.envelope(content)
                continue
            if name in ("subscribed", "gap"):
                self.cursor = f"{content['epoch']}:{content['offset']}"
            if name != "subscribed":
                self.told.append((name, content))

    def leave(self) -> None:
        self.socket.lose()


class Packed(Commands):
    """``rtpush.v1.msgpack``."""

    def open(self) -> None:
        self.socket = self.test.socket(target("/ws", channel=self.channel, **self.query), protocol="rtpush.v1.msgpack")

    def decode(self, opcode: int, payload: bytes) -> Any:
        self.test.assertEqual(opcode, BINARY)
        return msgspec.msgpack.decode(payload)


class Raw(Peer):
    """``rtpush.raw``."""

    name = "websocket"
    has_events = False

    def open(self) -> None:
        self.socket = self.test.socket(target("/ws", channel=self.channel, **self.query), protocol="rtpush.raw")

    def listen(self) -> None:
        for each in self.socket.frames():
            if each.opcode == CLOSE:
                self.told.append(("close", (each.code, each.reason)))
                self.over = True
            elif each.opcode in (TEXT, BINARY):
                self.messages.append((None, each.payload.decode(), None))

    def leave(self) -> None:
        self.socket.lose()


class Stream(Peer):
    """A bare stream."""

    name = "sse"
    more: dict[str, Any] = {}

    def open(self) -> None:
        self.client = self.test.client()
        self.client.request(target("/sse", channel=self.channel, **self.more, **self.query))
        self.heard = self.client.answer().body

    def take(self, name: str, last_id: str, data: str) -> None:
        """Take an event that is none of ours."""
        fresh = last_id if last_id != self.cursor else None
        self.messages.append((None if name == "message" else name, data, fresh))

    def listen(self) -> None:
        raw, self.heard = self.heard + self.client.chunks(), b""
        for event in events_of(raw):
            if event.name in ("gap", "unsubscribed", "disconnect", "join", "leave"):
                self.told.append((event.name, event.json))
            elif event.name != "open":
                self.take(event.name, event.id or self.cursor, event.data)
            self.cursor = event.id or self.cursor
        self.over = self.client.take() != b"" or self.client.wire.sent.endswith(b"0\r\n\r\n")

    def leave(self) -> None:
        self.client.lose()


class Enveloped(Stream):
    """A stream of envelopes."""

    more = {"envelope": 1}

    def take(self, name: str, last_id: str, data: str) -> None:
        self.test.assertEqual(name, "message")
        self.envelope(json.loads(data))


class Polling(Peer):
    """One poll after the other."""

    name = "longpoll"

    def open(self) -> None:
        self.client: Client = self.test.client()
        self.ask(self.query)

    def ask(self, query: dict[str, Any]) -> None:
        """Poll."""
        self.client.request(target("/poll", channel=self.channel, **query))

    def listen(self) -> None:
        while self.client.wire.sent[self.client._read :]:
            answer = self.client.answer().json
            for message in answer["messages"]:
                self.envelope(message)
            self.told += [("gap", gap) for gap in answer.get("gaps", ())]
            self.told += [(name, answer[name]) for name in ("unsubscribed", "disconnect") if name in answer]
            self.test.assertEqual(answer["recovered"], "gaps" not in answer)
            self.cursor = answer["cursor"]
            if "disconnect" in answer or "unsubscribed" in answer:
                self.over = True
            else:
                self.ask({"cursor": self.cursor})

    def leave(self) -> None:
        self.client.lose()


PEERS: tuple[type[Peer], ...] = (Commands, Packed, Raw, Stream, Enveloped, Polling)


class EveryTransportTests(SocketTestCase):
    """The same on all."""

    def peers(self, channel: str = "a", **query: Any) -> list[Peer]:
        """Return one on each."""
        return [peer(self, channel, query) for peer in PEERS]

    def test_messages(self) -> None:
        """Each message arrives once, in order, with its event name and position."""
        peers = self.peers()
        expected = []
        for n in range(12):
            event = "tick" if n % 3 == 0 else None
            self.call("publish", channel="a", data=f"m{n}", **({"event": event} if event else {}))
            if n % 4:
                self.clock.advance(0)
            expected.append((event, f"m{n}"))
        self.clock.advance(0)
        epoch = self.now("a").partition(":")[0]
        for peer in peers:
            peer.listen()
            self.assertEqual(
                [data for _, data, _ in peer.messages], [data for _, data in expected], type(peer).__name__
            )
            if peer.has_events:
                self.assertEqual([(event, data) for event, data, _ in peer.messages], expected, type(peer).__name__)
                self.assertEqual([position for *_, position in peer.messages], [f"{epoch}:{n}" for n in range(1, 13)])
            self.assertEqual(peer.names(), [])
            peer.leave()
        self.assert_nobody()

    def test_recovery(self) -> None:
        """From a position, each gets what came after it, then what comes."""
        positions = [self.publish("a", f"m{n}") for n in range(6)]
        peers = self.peers(cursor=positions[2])
        self.publish("a", "m6")
        for peer in peers:
            peer.listen()
            self.assertEqual([data for _, data, _ in peer.messages], ["m3", "m4", "m5", "m6"], type(peer).__name__)

    def test_without_history(self) -> None:
        """What is published without history comes without a position, at most once, between the others, never again."""
        peers = self.peers()
        published = []
        for data, more in (("kept", {}), ("typing", {"history": False, "event": "typing"}), ("kept too", {})):
            published.append(self.publish("a", data, **more))
            for peer in peers:
                peer.listen()
        first, none, second = published
        self.assertEqual((none, second.partition(":")[2]), ("", "2"))
        for peer in peers:
            self.assertEqual(
                [data for _, data, _ in peer.messages], ["kept", "typing", "kept too"], type(peer).__name__
            )
            if peer.has_events:
                self.assertEqual(peer.messages[1], ("typing", "typing", None), type(peer).__name__)
                self.assertEqual([peer.messages[0][2], peer.messages[2][2]], [first, second])
                self.assertEqual(peer.cursor, second)
        for peer in self.peers(cursor=first):
            self.assertEqual([data for _, data, _ in peer.messages], ["kept too"], type(peer).__name__)
        self.assertEqual(len(self.call("history", channel="a")["messages"]), 2)

    def test_without_history_alone(self) -> None:
        """In a channel that has nothing else, too; a short poll cannot have it."""
        peers = self.peers("none:a")
        start = self.ask("/poll?channel=none:a&timeout=0").json
        self.call("publish", channel="none:a", data="typing", history=False)
        self.clock.advance(0)
        for peer in peers:
            peer.listen()
            self.assertEqual([data for _, data, _ in peer.messages], ["typing"], type(peer).__name__)
        self.assertEqual(self.ask(target("/poll", channel="none:a", timeout=0, cursor=start["cursor"])).json, start)

    def test_text(self) -> None:
        """Texts of all kinds arrive as they were; only a stream without envelopes changes line ends."""
        texts = ["", " ", "\n", "a\r\nb\rc", "é😀\u2028", '"\\', "\0\x01\x7f", "x" * 60_000]
        peers = self.peers()
        for text in texts:
            self.publish("a", text)
        for peer in peers:
            peer.listen()
            expected = texts
            if type(peer) is Stream:
                expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
            self.assertEqual([data for _, data, _ in peer.messages], expected, type(peer).__name__)

    def test_gap(self) -> None:
        """A position of another time is told as a gap, and each goes on from now."""
        now = self.publish("a", "old")
        epoch = now.partition(":")[0]
        for cursor, reason in (("zzz:7", "epoch_changed"), (f"{epoch}:9", "position_ahead")):
            before = self.now("a")
            peers = self.peers(cursor=cursor)
            for peer in peers:
                self.assertEqual(peer.messages, [], type(peer).__name__)
                if isinstance(peer, Raw):
                    # Its frames have no room for it: the reason is the cursor at which the stream goes on.
                    self.assertEqual(peer.told, [("close", (Disconnect.GAP.code, before))])
                    peer.leave()
                    peer.over, peer.query = False, {"cursor": before}
                    peer.open()
                else:
                    self.assertEqual(
                        peer.told,
                        [
                            (
                                "gap",
                                {
                                    "channel": "a",
                                    "epoch": epoch,
                                    "offset": int(before.partition(":")[2]),
                                    "reason": reason,
                                },
                            )
                        ],
                        type(peer).__name__,
                    )
                    self.assertEqual(peer.cursor, before)
            self.publish("a", "new")
            for peer in peers:
                peer.listen()
                self.assertEqual([data for _, data, _ in peer.messages], ["new"], type(peer).__name__)
                peer.leave()
        self.assert_nobody()

    def test_recovered(self) -> None:
        """Whether recovery was possible is said where a stream begins."""
        for cursor, recovered in ((self.now("a"), True), ("zzz:7", False)):
            client = self.client()
            client.request(target("/sse", channel="a", cursor=cursor))
            opening, *_ = events_of(client.answer().body)
            self.assertIs(opening.json["recovered"], recovered)
            self.assertEqual(opening.json["cursor"], self.now("a"))
            [subscribed, *_] = self.socket(target("/ws", channel="a", cursor=cursor)).heard()
            self.assertIs(subscribed["subscribed"]["recovered"], recovered)

    def test_unsubscribe(self) -> None:
        """When a backend ends a subscription, each is told, and hears nothing more of the channel."""
        peers = self.peers()
        self.assertEqual(self.call("unsubscribe", channel="a", reason="not yours"), {"unsubscribed": len(peers)})
        self.publish("a", "secret")
        for peer in peers:
            peer.listen()
            self.assertEqual(peer.messages, [], type(peer).__name__)
            told = {"channel": "a", "code": 4501, "reason": "not yours"}
            if isinstance(peer, Raw):
                self.assertEqual(peer.told, [("close", (4501, "not yours"))])
            else:
                self.assertEqual(peer.told[0], ("unsubscribed", told), type(peer).__name__)
            # A WebSocket may ask for something else; for the others nothing is left that could come.
            self.assertEqual(peer.over, not isinstance(peer, Commands), type(peer).__name__)
            if isinstance(peer, Stream):
                self.assertEqual(peer.told[1][0], "disconnect")
                self.assertEqual(peer.told[1][1]["reconnect"], False)

    def test_unsubscribe_one(self) -> None:
        """A single connection can be meant."""
        peers = self.peers()
        listed = {each["transport"]: each["connection"] for each in self.call("connections")["connections"]}
        result = self.call("unsubscribe", channel="a", connection=listed["sse"])
        self.assertEqual(result, {"unsubscribed": 1})
        self.assertEqual(self.call("unsubscribe", channel="a", connection="nobody"), {"unsubscribed": 0})
        for peer in peers:
            peer.listen()
        self.assertEqual(sum("unsubscribed" in peer.names() for peer in peers), 1)

    def test_unsubscribe_one_of_several(self) -> None:
        """What a stream or poll follows besides goes on, with a cursor of as many positions as before."""
        stream = self.client()
        stream.request(target("/sse", channel="a,b", envelope=1))
        stream.answer()
        socket = self.socket(target("/ws", channel="a,b"))
        socket.heard()
        self.assertEqual(self.call("unsubscribe", channel="a"), {"unsubscribed": 2})
        self.publish("a", "secret")
        position = self.publish("b", "more")
        told, message = stream.events()
        self.assertEqual((told.name, told.json["channel"]), ("unsubscribed", "a"))
        self.assertEqual((message.json["data"], message.id.split(",")[1]), ("more", position))
        self.assertEqual(len(message.id.split(",")), 2)
        self.assertEqual([next(iter(each)) for each in socket.heard()], ["unsubscribed", "message"])
        self.assertEqual(socket.do("subscribe", channel="a")["channel"], "a")

    def test_unsubscribe_reason(self) -> None:
        """A reason of any length and any characters does no harm, also where a close frame has to carry it."""
        for reason in ("é" * 100, "x" + "é" * 100, "😀" * 50, "x" * 1000, "\u2028\0\n"):
            peers = self.peers()
            self.call("unsubscribe", channel="a", reason=reason)
            for peer in peers:
                peer.listen()
                if isinstance(peer, Raw):
                    [(_, (code, said))] = peer.told
                    self.assertEqual(code, 4501)
                    self.assertTrue(reason.startswith(said))
                    self.assertGreater(len(said.encode()), min(119, len(reason.encode()) - 1))
                else:
                    self.assertEqual(peer.told[0][1]["reason"], reason)
                peer.leave()
        self.assert_nobody()

    def test_disconnect(self) -> None:
        """When a backend ends connections, each is told why and whether to come back, then ended."""
        for body, code, reason, comes_back in (
            ({}, 4500, "disconnected", False),
            ({"reconnect": True}, 4003, "reconnect", True),
            ({"code": 4123, "reason": "moved"}, 4123, "moved", True),
            ({"code": 4999, "reason": "é" * 60}, 4999, "é" * 60, False),
            ({"reason": "x" * 120}, 4500, "x" * 120, False),
        ):
            peers = self.peers()
            self.assertEqual(self.call("disconnect", channel="a", **body), {"disconnected": len(peers)})
            self.publish("a", "late")
            for peer in peers:
                peer.listen()
                self.assertEqual(peer.messages, [], type(peer).__name__)
                self.assertTrue(peer.over, type(peer).__name__)
                told = {"code": code, "reason": reason, "reconnect": comes_back}
                expected: list[tuple[str, Any]] = [("disconnect", told)] if not isinstance(peer, Raw) else []
                if isinstance(peer, Commands | Raw):
                    expected.append(("close", (code, reason)))
                self.assertEqual(peer.told, expected, type(peer).__name__)
                peer.leave()
            self.assert_nobody()

    def test_disconnect_and_resume(self) -> None:
        """Who comes back with its cursor after that misses nothing."""
        peers = self.peers()
        self.publish("a", "m1")
        self.call("disconnect", channel="a", reconnect=True)
        self.publish("a", "m2")
        for peer in peers:
            peer.listen()
            if peer.has_events:
                peer.leave()
                again = type(peer)(self, "a", {"cursor": peer.cursor})
                found = [data for _, data, _ in peer.messages + again.messages]
                self.assertEqual(found, ["m1", "m2"], type(peer).__name__)

    def test_leaving(self) -> None:
        """A node that leaves tells everyone to come back, after a while that chance spreads."""
        peers = self.peers()
        self.node.leave_all()
        for peer in peers:
            peer.listen()
            self.assertTrue(peer.over, type(peer).__name__)
            if isinstance(peer, Commands | Raw):
                self.assertEqual(peer.told[-1], ("close", (1012, "service_restart")))
            if not isinstance(peer, Raw):
                name, told = peer.told[0]
                self.assertEqual(name, "disconnect")
                self.assertEqual((told["code"], told["reconnect"], told["after"]), (1012, True, 1.5))
            peer.leave()
        self.assert_nobody()

    def test_presence(self) -> None:
        """Each is listed with its transport, until it goes."""
        peers = self.peers("demo:a")
        listed = self.call("presence", channel="demo:a")["connections"]
        self.assertEqual(sorted(each["transport"] for each in listed), sorted(peer.name for peer in peers))
        self.assertEqual(
            {each["connection"] for each in listed},
            {each["connection"] for each in self.call("connections")["connections"]},
        )
        for peer in peers:
            peer.leave()
        self.assertEqual(self.call("presence", channel="demo:a"), {"connections": []})

    def test_presence_info(self) -> None:
        """What a client says of itself is shown with it."""
        info = json.dumps({"name": "é", "n": [1, None]})
        for path in ("/sse", "/poll", "/ws"):
            client = self.client()
            if path == "/ws":
                WebSocket(client, target(path, channel="demo:a", info=info))
            else:
                client.request(target(path, channel="demo:a", info=info))
            [entry] = self.call("presence", channel="demo:a")["connections"]
            self.assertEqual(entry["info"], json.loads(info), path)
            client.lose()

    def test_strange_info(self) -> None:
        """Numbers that nobody can hold do no harm to those who hear of them."""
        watcher = self.socket("/ws?channel=demo:a")
        watcher.heard()
        for info in (
            "1" * 400,
            "-" + "9" * 25,
            "18446744073709551616",
            "1e400",
            "-0.0",
            "[" * 150 + "]" * 150,
            '{"a":1,"a":2}',
            '"\\u0000"',
        ):
            for path in ("/sse", "/poll"):
                client = self.client()
                client.request(target(path, channel="demo:a", info=info))
                if client.wire.sent:
                    answer = client.answer()
                    self.assertIn(answer.status, (200, 400), info)
                self.call("presence", channel="demo:a")
                client.lose()
            socket = self.socket("/ws")
            socket.send(frame(TEXT, b'{"connect":{"info":%b}}' % info.encode()))
            [reply] = socket.heard()
            self.assertIn(next(iter(reply)), ("connect", "error"), info)
            socket.do("subscribe", channel="demo:a")
            socket.do("presence", channel="demo:a")
            socket.lose()
        watcher.heard()
        self.assertEqual(watcher.do("ping"), {})
        self.call("presence", channel="demo:a")

    def test_join_leave(self) -> None:
        """Those who come and go are told to the others that can hear of it; polls come and go too often to tell."""
        watchers = {peer: peer(self, "demo:a", {}) for peer in PEERS}
        for watcher in watchers.values():
            watcher.listen()
            watcher.told.clear()
        info = json.dumps({"name": "é"})
        comers = [Commands(self, "demo:a", {}), Stream(self, "demo:a", {"info": info}), Polling(self, "demo:a", {})]
        for comer in comers:
            comer.leave()
        for peer, watcher in watchers.items():
            watcher.listen()
            self.assertEqual(watcher.messages, [])
            self.assertFalse(watcher.over)
            if peer in (Commands, Packed, Enveloped):
                self.assertEqual(watcher.names(), ["join", "join", "leave", "leave"], peer.__name__)
                first, second, third, fourth = (content for _, content in watcher.told)
                self.assertEqual((first["channel"], first["transport"]), ("demo:a", "websocket"))
                self.assertNotIn("info", first)
                self.assertEqual((second["transport"], second["info"]), ("sse", {"name": "é"}))
                self.assertEqual((third, fourth), (first, second))
            else:
                self.assertEqual(watcher.told, [], peer.__name__)

    def test_not_told_of_oneself(self) -> None:
        """One that joins is not told of itself, and nobody where the namespace does not want it."""
        for channel in ("demo:b", "c"):
            peers = [peer(self, channel, {}) for peer in (Commands, Commands)]
            for peer in peers:
                peer.listen()
            self.assertEqual(peers[1].told, [])
            self.assertEqual(len(peers[0].told), 1 if channel == "demo:b" else 0)

    def test_permissions(self) -> None:
        """What is for the server alone is refused everywhere, and so is what there is not."""
        for channel, error, status in (("private:a", "permission_denied", 403), ("unknown:a", "unknown_channel", 404)):
            for path in ("/sse", "/poll"):
                answer = self.ask(target(path, channel=channel))
                self.assertEqual((answer.status, answer.error), (status, error))
            socket = self.socket()
            for command in ("subscribe", "history", "presence"):
                self.assertEqual(socket.do(command, channel=channel), error)
            self.assertEqual(socket.do("publish", channel=channel, data=1), error)
        self.assertEqual(socket.do("publish", channel="c", data=1), "permission_denied")
        self.assert_nobody_but(socket)

    def assert_nobody_but(self, socket: WebSocket) -> None:
        """Only WebSockets without subscriptions are left."""
        for each in self.call("connections")["connections"]:
            self.assertEqual((each["transport"], each["channels"]), ("websocket", []))
