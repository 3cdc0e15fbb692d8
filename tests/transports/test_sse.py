"""Server-sent events."""

from __future__ import annotations

import base64
import json

from tests.transports.serving import Client, ServedTestCase, events_of, target


class StreamTestCase(ServedTestCase):
    """A node with streams."""

    def stream(self, **query: object) -> Client:
        """Open a stream, and take what it begins with."""
        client = self.client()
        client.request(target("/sse", **query))
        self.opening = client.answer()
        self.assertEqual(self.opening.status, 200, self.opening.body)
        return client


class StreamTests(StreamTestCase):
    """What a stream is made of."""

    def test_headers(self) -> None:
        """Nothing on the way may keep it, hold it back or change it."""
        self.stream(channel="demo:a")
        headers = self.opening.headers
        self.assertEqual(headers["content-type"], "text/event-stream")
        self.assertEqual(headers["cache-control"], "no-store")
        self.assertEqual(headers["x-accel-buffering"], "no")
        self.assertEqual(headers["transfer-encoding"], "chunked")

    def test_opening(self) -> None:
        """It begins with a retry, spread by chance, and ``open``, which names where it begins."""
        self.publish("demo:a", 0)
        for chance, retry in ((0.0, 1000), (0.5, 1500), (0.999, 1999)):
            self.chance = chance
            client = self.stream(channel="demo:a")
            position = self.now("demo:a")
            connection = self.call("connections")["connections"][0]["connection"]
            opening = json.dumps(
                {"connection": connection, "cursor": position, "recovered": True}, separators=(",", ":")
            )
            expected = f"retry: {retry}\nid: {position}\nevent: open\ndata: {opening}\n\n"
            self.assertEqual(self.opening.body, expected.encode())
            client.lose()

    def test_opening_before_recovery(self) -> None:
        """``open`` names the place before what is recovered: a cut right after it loses nothing."""
        positions = [self.publish("demo:a", n) for n in range(3)]
        self.stream(channel="demo:a", cursor=positions[0])
        opening, *events = events_of(self.opening.body)
        self.assertEqual(opening.id, positions[0])
        self.assertEqual([(event.id, event.data) for event in events], [(positions[1], "1"), (positions[2], "2")])

    def test_payloads(self) -> None:
        """Any payload arrives, with its event name, in a stream without envelopes."""
        client = self.stream(channel="demo:a")
        for data, expected in (
            ("hello", "hello"),
            ("", ""),
            (" two  spaces ", " two  spaces "),
            ("a\nb", "a\nb"),
            ("a\r\nb\rc\n\nd\n", "a\nb\nc\n\nd\n"),
            ("\n", "\n"),
            ("\r", "\n"),
            ("id: 7", "id: 7"),
            ("x\nevent: open\ndata: forged\n\nid: 9:9", "x\nevent: open\ndata: forged\n\nid: 9:9"),
            (": comment", ": comment"),
            ("\u2028\u0085 é 😀", "\u2028\u0085 é 😀"),
            ("\ufeffbom", "\ufeffbom"),
            (1.5, "1.5"),
            (None, "null"),
            ([1, "ü"], '[1,"ü"]'),
            ({"a": {"b": []}}, '{"a":{"b":[]}}'),
        ):
            body = json.dumps({"channel": "demo:a", "data": data}, separators=(",", ":"), ensure_ascii=False)
            answer = self.ask("/api/v1/publish", method="POST", body=body.encode())
            self.clock.advance(0)
            [event] = client.events()
            self.assertEqual((event.name, event.data), ("message", expected))
            self.assertEqual(event.id, f"{answer.json['result']['epoch']}:{answer.json['result']['offset']}")

    def test_json_as_written(self) -> None:
        """JSON that was written over several lines is still that JSON."""
        client = self.stream(channel="demo:a")
        body = b'{"channel": "demo:a", "data": {\r\n"a":\r1,\n"b": 12345678901234567890123456789.50\n}}'
        self.assertEqual(self.ask("/api/v1/publish", method="POST", body=body).status, 200)
        self.clock.advance(0)
        [event] = client.events()
        self.assertEqual(event.data, '{\n"a":\n1,\n"b": 12345678901234567890123456789.50\n}')

    def test_binary(self) -> None:
        """A binary payload is base64, of any length."""
        plain, wrapped = self.stream(channel="demo:a"), self.stream(channel="demo:a", envelope=1)
        for payload in (b"", b"\0", b"\xff\xfe\r\n", bytes(range(256)) * 20):
            encoded = base64.b64encode(payload).decode()
            self.call("publish", channel="demo:a", data_b64=encoded)
            self.clock.advance(0)
            self.assertEqual([event.data for event in plain.events()], [encoded])
            [event] = wrapped.events()
            self.assertEqual(event.json["data_b64"], encoded)
            self.assertNotIn("data", event.json)

    def test_event_names(self) -> None:
        """A message's event name is that of the event; within an envelope it is there."""
        plain, wrapped = self.stream(channel="demo:a"), self.stream(channel="demo:a", envelope=1)
        for name in ("price", "error", "é 😀", " led by a space", "message", "a:b", "join", "x" * 128):
            self.publish("demo:a", 1, event=name)
            self.assertEqual([event.name for event in plain.events()], [name])
            [event] = wrapped.events()
            self.assertEqual((event.name, event.json["event"]), ("message", name))

    def test_bad_event_names(self) -> None:
        """Names of ours, and such as would break the stream, are refused."""
        for name in (
            "open",
            "gap",
            "unsubscribed",
            "disconnect",
            "",
            "a\nb",
            "a\rb",
            "a\0b",
            "\x85",
            "\u2028",
            "x" * 129,
        ):
            for path, body in (
                ("/api/v1/publish", {"channel": "demo:a", "data": 1, "event": name}),
                ("/emit", {"publish": {"channel": "demo:a", "data": 1, "event": name}}),
            ):
                answer = self.ask(path, method="POST", body=json.dumps(body).encode())
                self.assertEqual((answer.status, answer.error), (400, "bad_request"), (path, name))

    def test_envelope(self) -> None:
        """``envelope=1`` gives envelopes; any other value does not."""
        for value, enveloped in (("1", True), ("0", False), ("", False), ("true", False)):
            client = self.stream(channel="demo:a", envelope=value)
            position = self.publish("demo:a", "x", event="e")
            epoch, _, offset = position.partition(":")
            [event] = client.events()
            if enveloped:
                self.assertEqual(
                    event.json,
                    {"channel": "demo:a", "offset": int(offset), "epoch": epoch, "event": "e", "data": "x"},
                )
            else:
                self.assertEqual((event.name, event.data), ("e", "x"))
            client.lose()

    def test_heartbeat(self) -> None:
        """A comment comes at every interval, the first by chance earlier, and none after the end."""
        client = self.stream(channel="demo:a")
        for pause in (21.5, 29, 29):
            self.pump(pause)
            self.assertEqual(client.chunks(), b"")
            self.pump(1.3)
            self.assertEqual(client.chunks(), b":\n\n")
        client.lose()
        self.pump(60, 1)
        self.assertEqual(client.take(), b"")

    def test_never_read(self) -> None:
        """A reader that takes nothing for longer than an interval is cut off; its memory was bounded."""
        client = self.stream(channel="demo:a")
        client.wire.stick()
        for n in range(40):
            self.publish("demo:a", f"{n}" + "x" * 60_000)
        self.assertLess(len(client.wire.sent), 200_000)
        queued = self.call("connections")["connections"][0]["queued"]
        self.assertLessEqual(queued, 1048576)
        # Its stream ends, and with it the connection, which it does not read either.
        self.pump(130, 0.5)
        self.assertTrue(client.wire.aborted)
        self.assert_nobody()

    def test_slow_reader(self) -> None:
        """A reader that stops for a while misses nothing that history keeps, in order, with good ids."""
        client = self.stream(channel="demo:a")
        found = []
        for n in range(60):
            if n == 5:
                client.wire.stick()
            self.publish("demo:a", f"{n:04}" + "x" * 50_000)
        found += client.events()
        for _ in range(200):
            client.wire.drain()
            client.wire.stick()
            self.clock.advance(0)
            found += client.events()
        client.wire.drain()
        self.clock.advance(0)
        found += client.events()
        self.assertEqual([event.data[:4] for event in found], [f"{n:04}" for n in range(60)])
        self.assertEqual([int(event.id.partition(":")[2]) for event in found], list(range(1, 61)))

    def test_drain(self) -> None:
        """A node that leaves tells each stream when to come back, and ends it."""
        client = self.stream(channel="demo:a")
        self.node.leave_all()
        raw = client.chunks()
        self.assertRegex(raw, rb"^retry: \d+\n")
        [event] = events_of(raw)
        self.assertEqual((event.name, event.json["code"], event.json["reconnect"]), ("disconnect", 1012, True))
        self.assertEqual(event.id, self.now("demo:a"))
        self.assert_nobody()
