"""Requests that came before: what is remembered of them changes no answer, and is forgotten when it must be."""

from __future__ import annotations

from typing import Any

from rtpush.service.assemble import reconfigure
from rtpush.service.config import parse
from rtpush.transports.poll import PollResource
from tests.auth.makers import SECRET
from tests.transports.serving import CONFIG, Answer, Client, ServedTestCase, request_bytes, target
from tests.transports.test_tokens import TokenTestCase

#: What may differ between two answers to the same request.
_OF_THE_MOMENT = {"date"}

_TOKENS = "[api]\nopen = yes\n[auth]\nkeys =\n    hs HS256 " + SECRET.decode()


class KnownTests(ServedTestCase):
    """The same requests, again and again."""

    server = "allowed_origins = https://friend.example"

    def same(self, path: str, times: int = 3, **request: Any) -> Answer:
        """Ask some times, on one connection and on others; the answers must be the same. Return one."""
        client = self.client()
        answers = [client.ask(path, **request) for _ in range(times)] + [self.ask(path, **request)]
        seen = [
            (each.status, {name: each.headers[name] for name in each.headers if name not in _OF_THE_MOMENT}, each.body)
            for each in answers
        ]
        self.assertEqual(seen[1:], seen[:1] * times)
        return answers[0]

    def reload(self, *, limits: str = "", sections: str = "[api]\nopen = yes", old: str = "", new: str = "") -> None:
        """Have another configuration; in its text something old can be replaced by something new."""
        text = CONFIG.format(echo="", server=self.server, limits=limits, sections=sections)
        self.assertIn(old, text)
        reconfigure(parse(text.replace(old, new)), self.node, self.site)

    def resource(self) -> PollResource:
        """Return what answers polls now."""
        resource: Any = self.site.resource.getStaticEntity(b"poll")
        self.assertIsInstance(resource, PollResource)
        return resource

    def path(self, **query: Any) -> str:
        """Return the target of a poll that is answered at once."""
        before = self.now("demo:a")
        self.publish("demo:a", 1)
        return target("/poll", channel="demo:a", cursor=before, **query)

    def test_polls(self) -> None:
        """A poll that came before is answered as it was the first time, long or short, and is counted out."""
        for query in ({}, {"timeout": 0}):
            path = self.path(**query)
            answer = self.same(path)
            self.assertEqual([each["data"] for each in answer.json["messages"]], [1])
            self.assertEqual(answer.headers["vary"], "Origin")
        self.assert_nobody()
        for counts in self.node.counts.transports.values():
            self.assertEqual((counts.connecting, counts.open, counts.closing), (0, 0, 0))

    def test_what_one_answer_has_others_have_not(self) -> None:
        """The head of an answer is its own: its tag, its status, and that the connection ends."""
        path = self.path(timeout=0)
        tag = self.same(path).headers["etag"]
        not_modified = self.same(path, headers={"If-None-Match": tag})
        self.assertEqual((not_modified.status, not_modified.headers["etag"]), (304, tag))
        last = self.ask(path, headers={"Connection": "close"})
        self.assertEqual(last.headers["connection"], "close")
        again = self.same(path)
        self.assertEqual((again.status, again.headers.get("connection")), (200, None))
        self.assertEqual(self.ask(path, headers={"Connection": "close"}).headers["connection"], "close")

    def test_methods(self) -> None:
        """Another method of the same target and fields is another request."""
        path = self.path(timeout=0)
        length = self.same(path).headers["content-length"]
        head = self.same(path, method="HEAD")
        self.assertEqual((head.body, head.headers["content-length"]), (b"", length))
        self.assertEqual(self.same(path, method="OPTIONS").status, 204)
        self.assertEqual(self.same(path, method="POST").status, 405)
        self.assertEqual(self.same(path).headers["content-length"], length)

    def test_origins(self) -> None:
        """Pages of different origins and hosts have different answers to the same target."""
        path = self.path(timeout=0)
        for _ in range(2):
            for origin, status, allowed in (
                (None, 200, None),
                ("https://friend.example", 200, "https://friend.example"),
                ("https://stranger.example", 403, None),
                ("http://node.example", 200, "http://node.example"),
            ):
                answer = self.same(path, headers={} if origin is None else {"Origin": origin})
                self.assertEqual(
                    (answer.status, answer.headers.get("access-control-allow-origin")), (status, allowed), origin
                )

    def test_gap(self) -> None:
        """A poll that came before and has lost messages since is told so, as often as it asks."""
        path = target("/poll", channel="short:a", cursor=self.now("short:a"))
        for number in range(3):
            self.publish("short:a", number)
        self.assertTrue(self.same(path).json["recovered"])
        self.publish("short:a", 3)
        # What was read is kept for a while.
        self.pump(11)
        self.assertFalse(self.same(path).json["recovered"])
        self.assertFalse(self.same(path + "&timeout=0").json["recovered"])

    def test_again_in_the_fan_out(self) -> None:
        """Who polls again in the same segment, behind the poll that is answered, gets each message once."""
        path, gone = (target("/poll", channel=each, timeout=60) for each in (["demo:b", "demo:a"], "demo:a"))
        client, other = self.client(), self.client()
        client.send(request_bytes(path) * 3)
        other.send(request_bytes(gone) * 3)
        for number in range(3):
            self.publish("demo:a", number)
            for each in (client, other):
                self.assertEqual([each["data"] for each in each.answer().json["messages"]], [number])
        self.assertEqual((client.take(), other.take()), (b"", b""))

    def test_timeouts(self) -> None:
        """A connection has its time anew after such a request, and no more than that; so has a head after it."""
        client, half = self.client(), self.client()
        for _ in range(3):
            self.clock.advance(15)
            for each in (client, half):
                self.assertEqual(each.ask("/healthz").status, 200)
        half.send(request_bytes("/healthz")[:-1])
        self.clock.advance(19)
        self.assertEqual([each.closed for each in (client, half)], [False, False])
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual([each.closed for each in (client, half)], [True, True])
        self.assertEqual(self.node.counts.limited["header_timeout"], 1)

    def test_timeout_after_a_wait(self) -> None:
        """So has one whose poll was answered after a while."""
        client = self.client()
        for _ in range(2):
            client.request(target("/poll", channel="demo:a", timeout=60))
            self.clock.advance(25)
            self.publish("demo:a", 1)
            self.assertEqual(client.answer().status, 200)
            self.clock.advance(19)
            self.assertFalse(client.closed)
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertTrue(client.closed)

    def test_tokens_that_count_for_nothing(self) -> None:
        """A token that comes along where none is checked is not kept either."""
        path = self.path(timeout=0)
        for name in ("token", "channel_token"):
            self.same(f"{path}&{name}=secret")
        self.same(path, headers={"Authorization": "Bearer secret"})
        self.same(path)
        kept = repr([*self.site.known_requests, *self.site._known, *self.resource()._known])
        self.assertIn(path, kept)
        self.assertNotIn("secret", kept)

    def test_leaving(self) -> None:
        """Who leaves says so in answers to such requests, too."""
        path = self.path()
        self.same(path)
        client = self.client()
        self.site.leaving = True
        self.assertEqual(client.ask(path).headers["connection"], "close")
        self.clock.advance(0)
        self.assertTrue(client.closed)

    def test_bounds(self) -> None:
        """Of however many requests that never come again, what is remembered has a bound."""
        client, start = self.client(), self.path()
        for number in range(2500):
            client.ask(f"{start}&x={number}", headers={"X": str(number)})
        site = self.site
        for known in (site.known_requests, site._known, site._known_lines, self.resource()._known):
            self.assertLessEqual(len(known), 1000)
        for number in range(20):
            client.ask(f"/healthz?{number}{'x' * 3000}")
            client.ask(f"/healthz?{number}", headers={"X": "x" * 3000})
        self.assertLess(max(map(len, (*site.known_requests, *site._known, *site._known_lines))), 2049)

    def test_reload(self) -> None:
        """After a reload nothing is answered by what held before."""
        long = {"X": "x" * 1500}
        path = self.path(timeout=0, x="x" * 300)
        friend = {"Origin": "https://friend.example"}
        client = self.client()

        def statuses(client: Client) -> list[int]:
            return [client.ask(path, headers=headers).status for headers in ({}, friend, long)]

        for change, expected in (
            ({"old": "friend.example", "new": "other.example"}, [200, 403, 200]),
            ({"old": "[namespace:demo]", "new": "[namespace:other]"}, [404, 404, 404]),
            ({"old": "[namespace:demo]", "new": "[namespace:demo]\nsubscribe = server"}, [403, 403, 403]),
            ({"limits": "url_bytes = 256"}, [414, 414, 414]),
            ({"limits": "header_bytes = 1024"}, [200, 200, 431]),
            ({"sections": _TOKENS}, [401, 401, 401]),
        ):
            for _ in range(2):
                self.reload()
                self.assertEqual(statuses(client), [200, 200, 200])
            self.reload(**change)
            for _ in range(2):
                last = self.client()
                self.assertEqual(statuses(last), expected, change)
        self.reload()
        self.assertEqual(statuses(client), [200, 200, 200])

    def test_limits(self) -> None:
        """So many requests of an address, however often they came before."""
        headers = {"X-Forwarded-For": "203.0.113.7"}
        self.server += "\ntrusted_proxies = 127.0.0.1"
        self.reload()
        path = self.path(timeout=0)
        self.same(path, headers=headers)
        self.reload(limits="command_rate_per_ip = 1")
        self.assertIn(429, [self.ask(path, headers=headers).status for _ in range(10)])
        self.reload(limits="connections_per_ip = 2")
        waiting = target("/poll", channel="demo:c")
        clients = [self.client() for _ in range(3)]
        for _ in range(3):
            for client in clients:
                client.request(waiting, headers=headers)
            self.assertEqual(clients[2].answer().status, 429)
            self.publish("demo:c", 1)
            self.assertEqual([client.answer().status for client in clients[:2]], [200, 200])


class OwnTests(TokenTestCase):
    """What is a client's own is not remembered."""

    def kept(self) -> str:
        """Return all that is remembered of requests."""
        site = self.site
        resource = site.resource.getStaticEntity(b"poll")
        return repr(
            [*site.known_requests, *site._known, *site._known_lines, *[uri for uri, _ in resource._known]]
        )

    def test_not_kept(self) -> None:
        """Nothing that shows who somebody is is kept; the same request without it is."""
        path = target("/poll", channel="free:a", timeout=0)
        token = self.token()
        for _ in range(2):
            for headers in (
                {"Authorization": f"Bearer {token}"},
                {"Cookie": f"session={token}"},
                {"X-API-Key": "secret-0123456789"},
            ):
                self.assertEqual(self.ask(path, headers=headers).status, 200)
            for name in ("token", "channel_token"):
                self.ask(f"{path}&{name}={token}")
        self.assertNotIn(token, self.kept())
        self.assertNotIn("secret-", self.kept())
        self.assertEqual(self.ask(path).status, 200)
        self.assertIn(path, self.kept())

    def test_spellings(self) -> None:
        """However a token is spelled, it counts each time; and without one it is another request."""
        path = target("/poll", channel="rights:a", timeout=0)
        good, bad = self.rights("subscribe"), "x"
        for _ in range(3):
            for name in ("token", "%74oken", "t%6Fken", "toke%6e"):
                answer = self.ask(f"{path}&{name}={good}")
                self.assertEqual((answer.status, answer.headers["cache-control"]), (200, "private, max-age=7"))
                self.assertEqual(self.ask(f"{path}&{name}={bad}").status, 401)
            for name in ("channel_token", "channel%5Ftoken", "%63hannel_%74oken"):
                self.assertEqual(self.ask(f"{path}&{name}={bad}").status, 401)
            self.assertEqual(self.ask(path).status, 401)
