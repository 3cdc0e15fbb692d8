"""Long and short polling."""

from __future__ import annotations

import json

from tests.transports.serving import ServedTestCase, target


class LongPollTests(ServedTestCase):
    """A poll that waits."""

    def test_shape(self) -> None:
        """The answer is what the protocol says, and nothing keeps it."""
        client = self.client()
        client.request("/poll?channel=demo:a")
        self.assertEqual(client.take(), b"")
        position = self.publish("demo:a", {"n": [1.50, None]}, event="price")
        answer = client.answer()
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(int(answer.headers["content-length"]), len(answer.body))
        self.assertNotIn("etag", answer.headers)
        epoch = position.partition(":")[0]
        self.assertEqual(
            answer.json,
            {
                "messages": [
                    {"channel": "demo:a", "offset": 1, "epoch": epoch, "event": "price", "data": {"n": [1.5, None]}}
                ],
                "cursor": position,
                "recovered": True,
            },
        )

    def test_at_once(self) -> None:
        """What is there already is answered at once, in pages."""
        positions = [self.publish("demo:a", n) for n in range(5)]
        answer = self.ask(target("/poll", channel="demo:a", cursor=positions[1])).json
        self.assertEqual([each["data"] for each in answer["messages"]], [2, 3, 4])
        self.assertEqual(answer["cursor"], positions[4])
        self.assert_nobody()

    def test_pages(self) -> None:
        """An answer holds so many messages at most, and the next goes on after them."""
        self.serve(sections=self.sections, server=self.server, limits="page_messages = 4")
        for n in range(10):
            self.publish("demo:a", n)
        cursor, found = "", []
        for size in (4, 4, 2):
            answer = self.ask(target("/poll", channel="demo:a", cursor=cursor, since="earliest")).json
            self.assertEqual(len(answer["messages"]), size)
            cursor = answer["cursor"]
            found += [each["data"] for each in answer["messages"]]
        self.assertEqual(found, list(range(10)))

    def test_one_turn(self) -> None:
        """What was published in one turn comes in one answer."""
        client = self.client()
        client.request("/poll?channel=demo:a")
        for n in range(3):
            self.client().wire.come(
                b"POST /emit HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\n\r\n"
                + b'{"publish": {"channel": "demo:a","data": %d}}' % n
            )
        self.clock.advance(0)
        self.assertEqual([each["data"] for each in client.answer().json["messages"]], [0, 1, 2])

    def test_timeout(self) -> None:
        """
        A poll that gets nothing ends a little before its timeout, by chance earlier, but never later; the longest is
        what the node allows.
        """
        for asked, least, most in (
            ("0.5", 0.1, 0.5),
            ("1", 0.6, 1),
            ("5", 4, 5),
            (None, 22, 25),
            ("25.5", 22, 25.5),
            ("60", 53, 60),
            ("61", 53, 60),
            ("1e300", 53, 60),
        ):
            for chance in (0.0, 0.3, 0.999999):
                for phase in (0.0, 0.03, 0.0999):
                    self.chance = chance
                    self.clock.advance(phase)
                    client = self.client()
                    client.request("/poll?channel=demo:a" + (f"&timeout={asked}" if asked else ""))
                    started = self.clock.seconds()
                    while not client.wire.sent:
                        self.clock.advance(0.02)
                    held = self.clock.seconds() - started
                    self.assertGreater(held, least, (asked, chance))
                    self.assertLessEqual(held, most + 1e-6, (asked, chance))
                    answer = client.answer().json
                    self.assertEqual(answer, {"messages": [], "cursor": self.now("demo:a"), "recovered": True})
        self.assert_nobody()

    def test_spread(self) -> None:
        """Chance spreads the ends of polls that began together."""
        clients = []
        for n in range(10):
            self.chance = n / 10
            clients.append(self.client())
            clients[-1].request("/poll?channel=demo:a&timeout=30")
        ended = set()
        for _ in range(310):
            self.clock.advance(0.1)
            ended.add(sum(bool(client.wire.sent) for client in clients))
        self.assertEqual(ended, set(range(11)))

    def test_slow_client(self) -> None:
        """A client that does not take its answer has it waiting, and is in nobody's way."""
        self.publish("demo:a", "x" * 60000)
        client, other = self.client(), self.client()
        client.wire.stick()
        client.request("/poll?channel=demo:a&since=earliest")
        other.request("/poll?channel=demo:a")
        self.assertEqual(self.call("connections")["total"], 1)
        self.publish("demo:a", 1)
        self.assertEqual(other.answer().status, 200)
        client.wire.drain()
        self.assertEqual(len(client.answer().json["messages"]), 1)

    def test_without_history(self) -> None:
        """In a namespace that keeps nothing, polls that wait get what comes, and a poll after it learns of the gap."""
        client = self.client()
        client.request("/poll?channel=none:a")
        self.publish("none:a", 1)
        first = client.answer().json
        self.assertEqual([each["data"] for each in first["messages"]], [1])
        self.publish("none:a", 2)
        second = client.ask(target("/poll", channel="none:a", cursor=first["cursor"])).json
        self.assertEqual((second["messages"], second["recovered"]), ([], False))
        self.assertEqual(second["gaps"][0]["reason"], "history_lost")

    def test_gap(self) -> None:
        """A position that cannot be honoured is answered at once, with where it goes on, for each reason."""
        position = self.publish("short:a", 0)
        epoch = position.partition(":")[0]
        for n in range(1, 5):
            self.publish("short:a", n)
        for cursor, reason in (
            ("zzz:1", "epoch_changed"),
            (f"{epoch}:1", "history_lost"),
            (f"{epoch}:6", "position_ahead"),
        ):
            for timeout in ({}, {"timeout": 0}):
                answer = self.ask(target("/poll", channel="short:a", cursor=cursor, **timeout)).json
                self.assertEqual(
                    answer,
                    {
                        "messages": [],
                        "cursor": f"{epoch}:5",
                        "recovered": False,
                        "gaps": [{"channel": "short:a", "epoch": epoch, "offset": 5, "reason": reason}],
                    },
                )
        answer = self.ask(target("/poll", channel="short:a", cursor=f"{epoch}:2")).json
        self.assertEqual([each["data"] for each in answer["messages"]], [2, 3, 4])


class ShortPollTests(ServedTestCase):
    """A poll that does not wait, and that caches may answer."""

    def test_answer(self) -> None:
        """It is answered at once, with a tag for what it says."""
        position = self.publish("demo:a", 1)
        answer = self.ask("/poll?channel=demo:a&timeout=0")
        self.assertEqual(answer.json, {"messages": [], "cursor": position, "recovered": True})
        self.assertEqual(answer.headers["etag"], f'"{position}"')
        answer = self.ask("/poll?channel=demo:a&timeout=0&since=earliest")
        self.assertEqual([each["data"] for each in answer.json["messages"]], [1])
        self.assertEqual(self.call("info")["nodes"][0]["connections"], 0)

    def test_cache_control(self) -> None:
        """How long it may be kept is what the namespace says; of several, the least."""
        for channel, expected in (
            ("short:a", "public, max-age=7"),
            ("demo:a", "no-cache"),
            ("short:a,short:b", "public, max-age=7"),
            ("short:a,demo:a", "no-cache"),
        ):
            path = target("/poll", channel=channel, timeout=0)
            self.assertEqual(self.ask(path).headers["cache-control"], expected)
            tag = self.ask(path).headers["etag"]
            again = self.ask(path, headers={"If-None-Match": tag})
            self.assertEqual((again.status, again.headers["cache-control"]), (304, expected))
        # Waiting answers are for one client alone, and errors for none to keep.
        self.assertEqual(self.ask("/poll?channel=short:a&timeout=0&cursor=x").headers["cache-control"], "no-store")

    def test_not_modified(self) -> None:
        """304 has no body, says the tag again, and leaves the connection as it was."""
        client = self.client()
        tag = client.ask("/poll?channel=demo:a&timeout=0").headers["etag"]
        client.request("/poll?channel=demo:a&timeout=0", headers={"If-None-Match": tag})
        raw = client.take()
        self.assertTrue(raw.startswith(b"HTTP/1.1 304 "))
        self.assertTrue(raw.endswith(b"\r\n\r\n"))
        self.assertEqual(raw.count(b"\r\n\r\n"), 1)
        self.assertIn(b"ETag: " + tag.encode(), raw)
        self.assertNotIn(b"ransfer-", raw)
        self.assertEqual(client.ask("/healthz").status, 200)
        self.publish("demo:a", 1)
        self.assertEqual(client.ask("/poll?channel=demo:a&timeout=0", headers={"If-None-Match": tag}).status, 200)
        self.assert_nobody()

    def test_if_none_match(self) -> None:
        """The tag may be among others, weak, or any (RFC 9110 section 13.1.2)."""
        path = "/poll?channel=demo:a&timeout=0"
        tag = self.ask(path).headers["etag"]
        for value, status in (
            (tag, 304),
            (f"W/{tag}", 304),
            (f'"a", {tag}', 304),
            (f'{tag},"b"', 304),
            (f'"a",W/"b" , W/{tag}', 304),
            ("*", 304),
            (" * ", 304),
            ("", 200),
            ('""', 200),
            ('"*"', 200),
            ('"a"', 200),
            (tag.strip('"'), 200),
            (tag[:-2] + '"', 200),
            (f'"x{tag[1:]}', 200),
            (f'"a{tag}b"', 200),
        ):
            answer = self.ask(path, headers={"If-None-Match": value})
            self.assertEqual(answer.status, status, value)

    def test_if_none_match_waits_not(self) -> None:
        """A long poll has no tag, and none is compared."""
        tag = self.ask("/poll?channel=demo:a&timeout=0").headers["etag"]
        client = self.client()
        client.request("/poll?channel=demo:a", headers={"If-None-Match": tag})
        self.publish("demo:a", 1)
        self.assertEqual(client.answer().status, 200)

    def test_head(self) -> None:
        """HEAD tells the tag, and honours it."""
        path = "/poll?channel=demo:a&timeout=0"
        tag = self.ask(path, method="HEAD").headers["etag"]
        self.assertEqual(self.ask(path, method="HEAD", headers={"If-None-Match": tag}).status, 304)

    def test_several_channels(self) -> None:
        """One answer holds what one of the channels has; the cursor keeps the places of all."""
        start = ",".join(self.now(channel) for channel in ("demo:a", "demo:b"))
        for n in range(3):
            self.publish("demo:a", n)
            self.publish("demo:b", -n)
        found, cursor = [], start
        for _ in range(3):
            answer = self.ask(target("/poll", channel="demo:a,demo:b", timeout=0, cursor=cursor)).json
            found += [each["data"] for each in answer["messages"]]
            cursor = answer["cursor"]
        self.assertEqual(sorted(found), sorted([0, 1, 2, 0, -1, -2]))
        self.assertEqual(answer["messages"], [])
        self.assertEqual(cursor, ",".join(self.now(channel) for channel in ("demo:a", "demo:b")))

    def test_loop(self) -> None:
        """A client that polls now and then, with its cursor, sees everything that history keeps."""
        client = self.client()
        cursor, found = "", []
        for n in range(20):
            answer = client.ask(target("/poll", channel="demo:a", timeout=0, cursor=cursor or "-")).json
            found += [each["data"] for each in answer["messages"]]
            cursor = answer["cursor"]
            for _ in range(n % 3):
                self.publish("demo:a", json.dumps(n))
        self.assertEqual(len(found), sum(n % 3 for n in range(19)))
