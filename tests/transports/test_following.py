"""What a request follows, and from where: cursors in all their forms, on every transport."""

from __future__ import annotations

from typing import Any

from tests.transports.serving import events_of, target
from tests.transports.sockets import HANDSHAKE, SocketTestCase

CHANNELS = ["demo:a", "demo:b", "c"]


class CursorTests(SocketTestCase):
    """The forms in which a position is given back."""

    def setUp(self) -> None:
        super().setUp()
        self.positions = [self.publish("demo:a", n) for n in range(1, 6)]
        self.epoch = self.positions[0].partition(":")[0]

    def begins_at(self, query: dict[str, Any], header: str | None = None) -> int | str:
        """Return the offset at which polls and streams both begin, or the error that both give."""
        headers = {} if header is None else {"Last-Event-ID": header}
        poll = self.ask(target("/poll", channel="demo:a", timeout=0, **query), headers=headers)
        stream = self.client()
        stream.request(target("/sse", channel="demo:a", **query), headers=headers)
        answer = stream.answer()
        stream.lose()
        self.assertEqual(answer.status, poll.status)
        if poll.status != 200:
            self.assertEqual(answer.error, poll.error)
            return poll.error
        messages = poll.json["messages"]
        first = messages[0]["offset"] - 1 if messages else 5
        self.assertIn(b"event: open\n", answer.body)
        self.assertTrue(
            answer.body.partition(b"\n")[2].startswith(f"id: {self.epoch}:{first}\n".encode()), (answer.body, first)
        )
        return int(first)

    def test_names(self) -> None:
        """A cursor may come under four names."""
        for name in ("cursor", "last_event_id", "lastEventID"):
            self.assertEqual(self.begins_at({name: self.positions[1]}), 2, name)
        self.assertEqual(self.begins_at({}, self.positions[1]), 2)

    def test_header_wins(self) -> None:
        """The header is newer than the query when a browser reconnects by itself."""
        for name in ("cursor", "last_event_id", "lastEventID"):
            self.assertEqual(self.begins_at({name: self.positions[0]}, self.positions[3]), 4, name)

    def test_empty_header(self) -> None:
        """An empty header, and an empty parameter, say nothing."""
        self.assertEqual(self.begins_at({"cursor": self.positions[2]}, ""), 3)
        self.assertEqual(self.begins_at({"cursor": ""}), 5)

    def test_two_names(self) -> None:
        """Two cursors in one query are a mistake."""
        self.assertEqual(
            self.begins_at({"cursor": self.positions[0], "last_event_id": self.positions[0]}), "bad_request"
        )

    def test_without(self) -> None:
        """Without a cursor, or with "from now", it begins at now; with ``since=earliest`` at the oldest kept."""
        self.assertEqual(self.begins_at({}), 5)
        self.assertEqual(self.begins_at({"cursor": "-"}), 5)
        self.assertEqual(self.begins_at({"since": "now"}), 5)
        self.assertEqual(self.begins_at({"since": "earliest"}), 0)

    def test_cursor_before_since(self) -> None:
        """A cursor says more than ``since``."""
        self.assertEqual(self.begins_at({"cursor": self.positions[2], "since": "earliest"}), 3)
        self.assertEqual(self.begins_at({"cursor": "-", "since": "earliest"}), 5)

    def test_ends(self) -> None:
        """Before the first message, and after the last."""
        self.assertEqual(self.begins_at({"cursor": f"{self.epoch}:0"}), 0)
        self.assertEqual(self.begins_at({"cursor": f"{self.epoch}:5"}), 5)

    def test_malformed(self) -> None:
        """What is no cursor, or one of another number of channels, is refused."""
        for cursor in (
            "x",
            ":",
            ":1",
            "k:",
            "k:-1",
            "k:+1",
            "k:01",
            "k:1.0",
            "k:1e3",
            "k: 1",
            " k:1",
            "k:1 ",
            "k:1:2",
            "k:99999999999999999999",
            "k:9007199254740992",
            "k:1,k:2",
            "k:1,",
            ",k:1",
            "-,-",
            "--",
            "k-:1",
            "é:1",
            "k:١",
            "k\0:1",
            "k" * 33 + ":1",
            "k:1," * 1500,
        ):
            self.assertEqual(self.begins_at({"cursor": cursor}), "bad_cursor", cursor)
        for header in ("x", "k:1,k:2", "\xe9:1"):
            self.assertEqual(self.begins_at({}, header), "bad_cursor", header)

    def test_count(self) -> None:
        """There is one position for each channel, in the order of the channels."""
        at = self.positions[2]
        for cursor, status in ((f"{at}", 400), (f"{at},-", 200), (f"-,{at}", 200), (f"{at},-,-", 400)):
            answer = self.ask(target("/poll", channel="demo:a,b", timeout=0, cursor=cursor))
            self.assertEqual(answer.status, status, cursor)

    def test_websocket(self) -> None:
        """The query of a WebSocket takes the same, and is refused with the same errors."""
        for query, offset in (
            ({}, 5),
            ({"cursor": self.positions[1]}, 2),
            ({"since": "earliest"}, 0),
            ({"cursor": "-"}, 5),
        ):
            socket = self.socket(target("/ws", channel="demo:a", **query))
            subscribed, *messages = socket.heard()
            self.assertEqual(subscribed["subscribed"]["offset"], offset, query)
            self.assertEqual([each["message"]["offset"] for each in messages], list(range(offset + 1, 6)))
            socket.lose()
        for query in ({"cursor": "x"}, {"cursor": "k:1,k:2"}):
            answer = self.ask(target("/ws", channel="demo:a", **query), headers=HANDSHAKE)
            self.assertEqual((answer.status, answer.error), (400, "bad_cursor"))
        for channel, error in (("unknown:a", "unknown_channel"), ("private:a", "permission_denied")):
            answer = self.ask(target("/ws", channel=channel), headers=HANDSHAKE)
            self.assertEqual(answer.error, error)
        self.assert_nobody()

    def test_subscribe(self) -> None:
        """The command takes a single position, "from now", or ``since``."""
        for fields, offset in (
            ({}, 5),
            ({"cursor": "-"}, 5),
            ({"cursor": self.positions[1]}, 2),
            ({"since": "earliest"}, 0),
            ({"since": "now"}, 5),
            ({"cursor": self.positions[1], "since": "earliest"}, 2),
        ):
            socket = self.socket()
            socket.say({"id": 1, "subscribe": {"channel": "demo:a", **fields}})
            reply, *messages = socket.heard()
            self.assertEqual(reply["subscribe"]["offset"], offset, fields)
            self.assertEqual([each["message"]["offset"] for each in messages], list(range(offset + 1, 6)))
            socket.lose()
        socket = self.socket()
        for fields, error in (
            ({"cursor": "x"}, "bad_cursor"),
            ({"cursor": ""}, "bad_cursor"),
            ({"cursor": "k:1,k:2"}, "bad_cursor"),
            ({"cursor": 1}, "bad_request"),
            ({"since": "later"}, "bad_request"),
            ({"cursors": "k:1"}, "bad_request"),
        ):
            self.assertEqual(socket.do("subscribe", channel="demo:a", **fields), error, fields)
        self.assertEqual(socket.do("subscribe", channel="demo:a")["offset"], 5)


class CompositeTests(SocketTestCase):
    """Several channels in one connection."""

    def setUp(self) -> None:
        super().setUp()
        self.start = ",".join(self.now(channel) for channel in CHANNELS)

    def talk(self) -> None:
        """Publish to all channels in turn, some in the same turn of the reactor."""
        for n in range(12):
            channel = CHANNELS[n * n % 3 if n < 8 else (n * 7) % 3]
            self.call("publish", channel=channel, data=n)
            if n % 3:
                self.clock.advance(0)
        self.clock.advance(0)

    def polled(self, cursor: str) -> list[dict[str, Any]]:
        """Return all messages after a cursor, by polls until nothing comes."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.ask(target("/poll", channel=CHANNELS, cursor=cursor, timeout=0)).json
            self.assertTrue(answer["recovered"])
            cursor = answer["cursor"]
            if not answer["messages"]:
                return found
            found += answer["messages"]

    def streamed(self, cursor: str) -> list[dict[str, Any]]:
        """Return the same by a stream."""
        stream = self.client()
        body = stream.ask(target("/sse", channel=",".join(CHANNELS), cursor=cursor, envelope=1)).body
        stream.lose()
        opening, *events = events_of(body)
        self.assertEqual((opening.name, opening.id, opening.json["cursor"]), ("open", cursor, cursor))
        self.assertTrue(opening.json["recovered"])
        return [event.json for event in events]

    def socketed(self, cursor: str) -> list[dict[str, Any]]:
        """Return the same by a WebSocket."""
        socket = self.socket(target("/ws", channel=CHANNELS, cursor=cursor))
        heard = socket.heard()
        socket.lose()
        for channel, position in zip(CHANNELS, cursor.split(","), strict=True):
            epoch, _, offset = position.partition(":")
            self.assertIn(
                {
                    "subscribed": {
                        "channel": channel,
                        "epoch": epoch,
                        "offset": int(offset),
                        "recovered": True,
                    }
                },
                heard,
            )
        return [each["message"] for each in heard if "message" in each]

    def assert_rest(self, found: list[dict[str, Any]], everything: list[dict[str, Any]], cursor: str) -> None:
        """The messages are those after a cursor, each once, in order in each channel."""
        for channel, position in zip(CHANNELS, cursor.split(","), strict=True):
            offset = int(position.partition(":")[2])
            expected = [each for each in everything if each["channel"] == channel and each["offset"] > offset]
            self.assertEqual([each for each in found if each["channel"] == channel], expected, cursor)

    def test_every_prefix(self) -> None:
        """A client that saw any part of a stream resumes from its last id, on any transport, with exactly the rest."""
        stream = self.client()
        stream.request(target("/sse", channel=CHANNELS, envelope=1))
        stream.answer()
        self.talk()
        events = stream.events()
        everything = [event.json for event in events]
        self.assertEqual(len(everything), 12)
        self.assertEqual({each["channel"] for each in everything}, set(CHANNELS))
        cursors = [self.start, *(event.id for event in events)]
        self.assertEqual(len(set(cursors)), 13)
        for cursor in cursors:
            for way in (self.polled, self.streamed, self.socketed):
                self.assert_rest(way(cursor), everything, cursor)
        stream.lose()
        self.assert_nobody()

    def test_every_prefix_of_a_recovery(self) -> None:
        """The ids of a stream that recovers are as good: a cut in the middle of it loses nothing."""
        self.talk()
        stream = self.client()
        body = stream.ask(target("/sse", channel=CHANNELS, cursor=self.start, envelope=1)).body
        opening, *events = events_of(body)
        everything = [event.json for event in events]
        self.assertEqual(len(everything), 12)
        for cursor in [opening.id, *(event.id for event in events)]:
            for way in (self.polled, self.streamed, self.socketed):
                self.assert_rest(way(cursor), everything, cursor)

    def test_from_now_for_one(self) -> None:
        """A channel can begin at now while another goes on from a position."""
        self.talk()
        first, *_ = self.start.split(",")
        found = self.ask(target("/poll", channel=CHANNELS, cursor=f"{first},-,-", timeout=0)).json["messages"]
        self.assertEqual({each["channel"] for each in found}, {"demo:a"})
        self.assertEqual(found[0]["offset"], 1)

    def test_live_polls(self) -> None:
        """A client that only polls, and waits in between, sees everything once."""
        found: list[dict[str, Any]] = []
        cursor = self.start
        client = self.client()
        for n in range(9):
            client.request(target("/poll", channel=CHANNELS, cursor=cursor))
            for each in CHANNELS[: n % 3 + 1]:
                self.call("publish", channel=each, data=n)
            self.clock.advance(0)
            answer = client.answer().json
            found += answer["messages"]
            cursor = answer["cursor"]
        found += self.polled(cursor)
        everything = self.polled(self.start)
        self.assertEqual(len(everything), 18)
        self.assert_rest(found, everything, self.start)

    def test_from_a_websocket(self) -> None:
        """A WebSocket client makes a cursor of the envelopes it saw, and goes on elsewhere."""
        socket = self.socket(target("/ws", channel=CHANNELS))
        self.talk()
        positions = dict(zip(CHANNELS, self.start.split(","), strict=True))
        everything = [each["message"] for each in socket.heard() if "message" in each]
        self.assertEqual(len(everything), 12)
        for message in everything:
            positions[message["channel"]] = f"{message['epoch']}:{message['offset']}"
            cursor = ",".join(positions.values())
            self.assert_rest(self.streamed(cursor), everything, cursor)

    def test_gap_in_one(self) -> None:
        """One bad position is told as the gap of its channel; the others go on from theirs."""
        self.talk()
        first, second, third = self.start.split(",")
        bogus = f"{first},zzz:3,{third}"
        answer = self.ask(target("/poll", channel=CHANNELS, cursor=bogus, timeout=0)).json
        self.assertFalse(answer["recovered"])
        [gap] = answer["gaps"]
        self.assertEqual((gap["channel"], gap["reason"]), ("demo:b", "epoch_changed"))
        found = self.polled(answer["cursor"])
        self.assertEqual({each["channel"] for each in found}, {"demo:a", "c"})
        self.assertEqual(found[0]["offset"], 1)
