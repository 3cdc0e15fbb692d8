"""Tests of admission: how many clients are let in at once, and what becomes of the others."""

from __future__ import annotations

import random
from typing import Any

from tests.transports.serving import Answer, Client, ServedTestCase, target
from tests.transports.sockets import HANDSHAKE

#: What asks for something that stays: a WebSocket, an event stream, a long poll.
_STAYING = [
    ("/ws?channel=demo:a", HANDSHAKE),
    ("/ws", HANDSHAKE),
    ("/echo", HANDSHAKE),
    ("/sse?channel=demo:a", {}),
    ("/poll?channel=demo:a", {}),
    ("/poll?channel=demo:a&since=earliest", {}),
    ("/poll?channel=demo:a&cursor=-", {}),
]


class AdmissionTests(ServedTestCase):
    """Five at once, then ten a second."""

    limits = "connect_rate = 10\nconnect_burst = 5"

    def come(self, path: str = "/sse?channel=demo:a", headers: dict[str, str] | None = None) -> tuple[Client, int]:
        """Have a client come; return it, and after how many seconds it is to come again: 0 if it was let in."""
        client = self.client()
        client.request(path, headers=headers)
        if not client.wire.sent.startswith(b"HTTP/1.1 503"):
            return client, 0
        return client, self.told(client.answer())

    def told(self, answer: Answer) -> int:
        """Check a refusal; return after how many seconds the client is to come again."""
        self.assertEqual(answer.status, 503)
        error = answer.json["error"]
        self.assertEqual((error["code"], error["name"], error["temporary"]), (112, "unavailable", True))
        self.assertEqual(answer.headers["cache-control"], "no-store")
        return int(answer.headers["retry-after"])

    def use_up(self) -> None:
        """Have as many come as are let in."""
        for _ in range(5):
            self.assertEqual(self.come()[1], 0)

    def test_all_kinds(self) -> None:
        """Whoever comes to stay is refused when there are too many, and nothing is done for it."""
        for path, headers in _STAYING:
            self.serve(limits=self.limits, echo="echo = yes")
            for _ in range(5):
                self.assertEqual(self.come(path, headers)[1], 0, path)
            present = dict(self.node.connections)
            for _ in range(3):
                self.assertGreater(self.come(path, headers)[1], 0, path)
            self.assertEqual(self.node.connections, present)
            self.assertEqual(self.node.counts.turned_away, 3)
            self.assertEqual(len(self.node.channels.get("demo:a", ())), 5 if "demo" in path else 0)

    def test_others(self) -> None:
        """What continues, or is answered at once, is always let in; so is who asks how to connect."""
        position = self.publish("demo:a", 1)
        self.use_up()
        self.assertGreater(self.come()[1], 0)
        for path in (
            target("/poll", channel="demo:a", cursor=position),
            target("/poll", channel="demo:a", timeout=0),
            target("/poll", channel="demo:a", timeout=0, since="earliest"),
        ):
            self.assertEqual(self.come(path)[1], 0, path)
        self.assertEqual(self.ask("/negotiate").status, 200)
        self.assertEqual(self.ask("/healthz").status, 200)
        self.publish("demo:a", 2)
        emit = b'{"id": 1, "publish": {"channel": "demo:a", "data": 3}}'
        self.assertEqual(self.ask("/emit", method="POST", body=emit).status, 200)

    def test_mistakes_are_free(self) -> None:
        """What is no WebSocket handshake takes nobody's place."""
        for _ in range(20):
            self.assertEqual(self.ask("/ws").status, 426)
        self.use_up()

    def test_connection_is_kept(self) -> None:
        """The connection is there for the next try: to make another one, with TLS, would cost both sides more."""
        self.use_up()
        client = self.client()
        answer = client.ask("/sse?channel=demo:a")
        self.assertNotIn("connection", answer.headers)
        self.pump(self.told(answer))
        client.take()
        client.request("/sse?channel=demo:a")
        self.assertTrue(client.take().startswith(b"HTTP/1.1 200"))

    def test_pages_can_read_it(self) -> None:
        """A page of an allowed origin can read when to come back."""
        self.use_up()
        answer = self.ask("/sse?channel=demo:a", headers={"Origin": "https://page.example"})
        self.assertGreater(self.told(answer), 0)
        self.assertEqual(answer.headers["access-control-allow-origin"], "https://page.example")
        self.assertIn("Retry-After", answer.headers["access-control-expose-headers"])

    def test_no_limit(self) -> None:
        """A rate of 0 lets all in."""
        self.serve(limits="connect_rate = 0\nconnect_burst = 1")
        self.assertEqual([self.come()[1] for _ in range(50)], [0] * 50)

    def test_storm(self) -> None:
        """
        Of very many that come at once, each is told its turn: they come back at the rate, and nearly all just once.

        The last one is let in when the rate allows it, or a little later for the sake of chance.
        """
        self.serve(limits="connect_rate = 10\nconnect_burst = 20")
        dice = random.Random(7)
        self.node.chance = dice.random
        count = 300
        due = dict.fromkeys(range(count), 0)
        tries: list[Any] = [0] * count
        second = 0
        arrivals = []
        while due:
            coming = [number for number, when in due.items() if when <= second]
            arrivals.append(len(coming))
            for number in coming:
                tries[number] += 1
                client, after = self.come()
                if after:
                    due[number] = second + after
                    client.lose()
                else:
                    del due[number]
            self.pump(1.0)
            second += 1
        self.assertLess(second, 45)
        self.assertLess(max(arrivals[1:]), 40)
        self.assertLess(sum(tries) / count, 4)
