"""Tests of rtpush.api.admin: the dashboard, without a browser."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from rtpush.api import admin
from rtpush.errors import ErrorCode, RtpushError
from rtpush.service.assemble import reconfigure
from rtpush.service.config import parse
from tests.api.test_cluster import ClusterTestCase
from tests.transports.serving import CONFIG, Answer, Client, ServedTestCase

KEY = "key-of-the-dashboard"
OWN = {"Origin": "http://node.example"}
FEED = f"/admin/feed?channel={admin.CHANNEL}&since=earliest"


class AdminTestCase(ServedTestCase):
    """A node with a key, at which pages of any origin may connect, but not log in."""

    sections = f"[api]\nkeys = {KEY}\n"

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        """Make a POST as the dashboard's page does, with other headers, or without those that are empty."""
        given = {**OWN, **{name.replace("_", "-"): value for name, value in headers.items()}}
        given = {name: value for name, value in given.items() if value}
        return self.ask(f"/admin/{path}", method="POST", headers=given, body=json.dumps(body or {}).encode())

    def log_in(self, key: str = KEY, **headers: str) -> Answer:
        """Try to log in."""
        return self.post("login", {"key": key}, **headers)

    def cookie(self) -> str:
        """Log in; return the cookie."""
        answer = self.log_in()
        self.assertEqual(answer.status, 200, answer.body)
        return answer.headers["set-cookie"].partition(";")[0]

    def watch(self, cookie: str, path: str = FEED, **headers: str) -> Client:
        """Open the stream."""
        client = self.client()
        client.request(path, headers={"Cookie": cookie, **headers})
        return client


class SessionTests(AdminTestCase):
    """Who is let in."""

    def test_log_in(self) -> None:
        """A key opens a session: in a cookie that scripts and other sites do not get, and that holds no key."""
        self.assertEqual(self.ask("/admin/session").json["result"], {"open": False, "closed": False, "left": None})
        cookie = self.log_in().headers["set-cookie"]
        self.assertRegex(cookie, r"^rtpush_admin=[^;]+; Max-Age=28800; HttpOnly; SameSite=Strict$")
        self.assertNotIn(KEY, cookie)
        session = self.ask("/admin/session", headers={"Cookie": f"other=1; {cookie.partition(';')[0]}; more=2"})
        self.assertAlmostEqual(session.json["result"]["left"], admin.LIFETIME, delta=1)

    def test_over_tls(self) -> None:
        """Where a proxy says that the browser speaks TLS, the cookie is for TLS alone."""
        self.assertIn("; Secure", self.log_in(X_Forwarded_Proto="https").headers["set-cookie"])

    def test_wrong_key(self) -> None:
        """A wrong key opens nothing, and is not repeated in the answer."""
        for key in ("", "x" * 20, KEY[:-1], KEY + " "):
            answer = self.log_in(key)
            self.assertEqual((answer.status, answer.json["error"]["name"]), (401, "unauthorized"))
            self.assertNotIn("set-cookie", answer.headers)
        for body in (b"", b"[]", b"{}", b'{"key": 1}', b'{"key": "a", "more": 1}', b"\xff"):
            self.assertEqual(self.ask("/admin/login", method="POST", headers=OWN, body=body).status, 400, body)
        self.assertEqual(self.ask(f"/admin/login?key={KEY}").status, 405)

    def test_limit(self) -> None:
        """Only so many may try, whatever key they have; then some more each second."""
        statuses = [self.log_in("x" * 20).status for _ in range(admin.LOGIN_BURST + 1)]
        self.assertEqual(statuses, [401] * admin.LOGIN_BURST + [429])
        self.assertEqual(self.log_in().status, 429)
        self.clock.advance(1.01)
        self.assertEqual([self.log_in().status for _ in range(4)], [200, 200, 200, 429])

    def test_ends(self) -> None:
        """After its time a session is none."""
        cookie = self.cookie()
        self.assertEqual(self.post("api/channels", Cookie=cookie).status, 200)
        self.clock.advance(admin.LIFETIME + 1)
        self.assertEqual(self.post("api/channels", Cookie=cookie).status, 401)
        self.assertIsNone(self.ask("/admin/session", headers={"Cookie": cookie}).json["result"]["left"])

    def test_log_out(self) -> None:
        """To log out has the browser forget the session."""
        answer = self.post("logout", Cookie=self.cookie())
        self.assertRegex(answer.headers["set-cookie"], r"^rtpush_admin=; Max-Age=0; HttpOnly; SameSite=Strict")

    def test_other_sites(self) -> None:
        """Pages of other origins get nowhere, even with a cookie, and even where they may connect as clients."""
        cookie = self.cookie()
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": ""},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Sec_Fetch_Site": "none"},
            {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
        ):
            for path, body in (
                ("login", {"key": KEY}),
                ("logout", {}),
                ("api/publish", {"channel": "demo:a", "data": 1}),
                ("api/disconnect", {"channel": "demo:a"}),
            ):
                answer = self.post(path, body, Cookie=cookie, **headers)
                self.assertEqual((answer.status, answer.json["error"]["name"]), (403, "origin_not_allowed"), headers)
                self.assertNotIn("set-cookie", answer.headers)
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
            self.assertEqual(self.watch(cookie, **headers).answer().status, 403)
        own = {"Origin": "", "Sec_Fetch_Site": "same-origin", "Cookie": cookie}
        self.assertEqual(self.post("api/publish", {"channel": "demo:a", "data": 1}, **own).status, 200)

    def test_calls(self) -> None:
        """The calls that the page makes need a session; others are not there, nor does the API take the cookie."""
        cookie = self.cookie()
        for name in ("publish", "history", "presence", "channels", "connections", "disconnect"):
            self.assertEqual(self.post(f"api/{name}").status, 401, name)
            self.assertEqual(self.post(f"api/{name}", Cookie=cookie + "x").status, 401, name)
            self.assertEqual(self.post(f"api/{name}", X_API_Key=KEY).status, 401, name)
            self.assertNotEqual(self.post(f"api/{name}", Cookie=cookie).status, 401, name)
        for name in ("broadcast", "snapshot", "info", ""):
            self.assertEqual(self.post(f"api/{name}", Cookie=cookie).status, 404, name)
        answer = self.ask("/api/v1/info", method="POST", headers={**OWN, "Cookie": cookie}, body=b"{}")
        self.assertEqual(answer.status, 401)
        snapshot = self.ask("/api/v1/snapshot", method="POST", headers={"X-API-Key": KEY}, body=b"{}")
        self.assertEqual(snapshot.status, 404)

    def test_closed(self) -> None:
        """Without a key nobody gets in, and the page can say why."""
        self.serve(server=self.server)
        self.assertEqual(self.ask("/admin/session").json["result"], {"open": False, "closed": True, "left": None})
        for key in ("", "None", KEY):
            answer = self.log_in(key)
            self.assertEqual((answer.status, "set-cookie" in answer.headers), (401, False))
        self.assertEqual(self.watch("rtpush_admin=").answer().status, 401)

    def test_open(self) -> None:
        """Where the API is open, no session is needed; pages of other origins stay outside."""
        self.serve(server=self.server, sections="[api]\nopen = yes")
        self.assertTrue(self.ask("/admin/session").json["result"]["open"])
        self.assertEqual(self.post("api/channels").status, 200)
        self.assertEqual(self.post("api/channels", Origin="https://evil.example").status, 403)

    def test_off(self) -> None:
        """It can be switched off."""
        self.serve(server=f"{self.server}\ndashboard = no", sections=self.sections)
        for path in ("/admin", "/admin/", "/admin/session", FEED):
            self.assertEqual(self.ask(path).status, 404, path)

    def test_key_taken_out(self) -> None:
        """A key that is taken out of the configuration ends the sessions that it opened."""
        cookie = self.cookie()
        config = parse(CONFIG.format(echo="", server="", limits="", sections="[api]\nkeys = quite-another-key-1\n"))
        reconfigure(config, self.node, self.site)
        self.assertEqual(self.post("api/channels", Cookie=cookie).status, 401)


class FeedTests(AdminTestCase):
    """The stream of snapshots."""

    def test_needs_a_session(self) -> None:
        """Without a session there is no stream, and nothing is made."""
        for cookie in ("", "rtpush_admin=", "rtpush_admin=1.2.3"):
            self.assertEqual(self.watch(cookie).answer().status, 401)
        self.assertEqual(self._turning(), 1)

    def test_snapshots(self) -> None:
        """A viewer gets one at once and one each second, with an id to go on from; it shows what is there."""
        client = self.watch(self.cookie())
        answer = client.answer()
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/event-stream"))
        self.node.counts.refused(ErrorCode.BAD_CURSOR)
        follower = self.client()
        follower.request("/sse?channel=demo:a,demo:b")
        other = self.client()
        other.request("/sse?channel=demo:b")
        self.ask("/api/v1/publish", method="POST", headers={"X-API-Key": KEY}, body=b'{"channel": "demo:b", "data": 1}')
        client.take()
        self.pump(1.1)
        (event,) = client.events()
        self.assertRegex(event.id, r"^\w+:2$")
        snapshot = event.json
        (node,) = snapshot["nodes"]
        self.assertEqual((node["node"], node["connections"], node["published"]), ("test-node", 2, 1))
        self.assertEqual(node["transports"]["sse"], {"connections": 2, "accepted": 2, "delivered": 2})
        self.assertEqual(node["errors"]["bad_cursor"], 1)
        self.assertEqual(node["broker"], {"engine": "memory", "problem": None, "links": []})
        top = [(each["channel"], each["subscribers"], each["offset"]) for each in snapshot["top"]]
        self.assertEqual(top, [("demo:b", 2, 1), ("demo:a", 1, 0)])
        self.pump(3.0)
        self.assertEqual([event.id[-1] for event in client.events()], ["3", "4", "5"])

    def test_goes_on(self) -> None:
        """A viewer that was away goes on from where it was; a new one gets what there was before it."""
        cookie = self.cookie()
        first = self.watch(cookie)
        self.pump(2.1)
        seen = re.findall(rb"id: (\w+:\d+)\n", first.take())[-1].decode()
        first.lose()
        self.pump(2.0)
        again = self.watch(cookie, **{"Last-Event-ID": seen})
        self.assertEqual(re.findall(rb"id: \w+:(\d+)\ndata: {\"time", again.take()), [b"4", b"5"])
        new = self.watch(cookie)
        self.assertEqual(len(re.findall(rb"data: {\"time", new.take())), 5)

    def test_nobody_looks(self) -> None:
        """When nobody looks, nothing is made any more, and nothing of it is left."""
        client = self.watch(self.cookie())
        self.pump(2.0)
        self.assertEqual(self._turning(), 3)
        client.lose()
        self.pump(admin.LINGER - 1.0)
        self.assertEqual(self._turning(), 3)
        self.pump(2.5)
        self.assertEqual(self._turning(), 1)
        # It can begin again.
        self.assertEqual(self.watch(self.cookie()).answer().status, 200)

    def _turning(self) -> int:
        """Return how much is done again and again: by nodes, and for viewers."""
        return sum("Node._turn" in str(call) or "_Stream._make" in str(call) for call in self.clock.getDelayedCalls())

    def test_not_seen(self) -> None:
        """Viewers are not among the connections that they look at, nor is their channel one of the node's."""
        cookie = self.cookie()
        self.watch(cookie)
        self.pump(1.0)
        self.assertEqual(self.post("api/connections", Cookie=cookie).json["result"]["total"], 0)
        self.assertEqual(self.post("api/channels", Cookie=cookie).json["result"]["channels"], {})
        self.assertEqual(self.node.counts.transports, {})
        # A channel of that name is another one.
        outside = self.client()
        outside.request(f"/sse?channel={admin.CHANNEL}&since=earliest")
        self.pump(2.0)
        self.assertNotIn(b'data: {"time', outside.take())

    def test_turn(self) -> None:
        """A viewer has to come again now and then; with a session that is over it stays outside."""
        cookie = self.cookie()
        client = self.watch(cookie)
        self.pump(admin.TURN + 2.0, 0.5)
        self.assertIn(b"event: disconnect\n", client.take())
        self.assertTrue(client.ask("/admin/session").json["result"]["left"] is None)
        self.clock.advance(admin.LIFETIME)
        self.assertEqual(self.watch(cookie).answer().status, 401)

    def test_leaving(self) -> None:
        """A node that leaves sends its viewers away."""
        cookie = self.cookie()
        client = self.watch(cookie)
        self.node.leaving = True
        self.pump(1.1)
        ending = client.take()
        self.assertIn(b"event: disconnect\n", ending)
        self.assertTrue(ending.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.watch(cookie).answer().status, 503)

    def test_other_channel(self) -> None:
        """There is the one channel, and a viewer follows no more than that many."""
        cookie = self.cookie()
        self.assertEqual(self.watch(cookie, "/admin/feed?channel=demo:a").answer().status, 404)
        self.assertEqual(self.watch(cookie, "/admin/feed?channel=a,b").answer().status, 429)


class ClusterTests(ClusterTestCase):
    """The snapshot of two nodes."""

    def test_both(self) -> None:
        """It has both nodes, and channels with the subscribers of both."""
        self.follow(self.site, "demo:x")
        self.follow(self.other_site, "demo:x", "demo:y")
        client = self.client()
        client.request(FEED)
        self.clock.pump([0.1] * 12)
        snapshot = json.loads(re.findall(rb"data: (\{\"time.*)\n", client.take())[-1])
        self.assertEqual([(node["node"], node["connections"]) for node in snapshot["nodes"]], [("a", 1), ("b", 1)])
        top = [(each["channel"], each["subscribers"]) for each in snapshot["top"]]
        self.assertEqual((top, snapshot.get("missing")), ([("demo:x", 2), ("demo:y", 1)], None))

    def test_missing(self) -> None:
        """A node that does not answer is named; where the others cannot be asked, that is told."""
        self.node.broker.deaf = {"b.1"}
        client = self.client()
        client.request(FEED)
        self.assertIn(b'"missing":["b.1"]', client.take())
        away = RtpushError(ErrorCode.UNAVAILABLE, "the broker is away")
        self.patch(self.node.cluster, "ask", lambda question: fail(away))
        self.clock.pump([0.1] * 12)
        self.assertIn(b'"missing":["*"]', client.take())


class PageTests(SynchronousTestCase):
    """The files of the page."""

    def test_nothing_foreign(self) -> None:
        """They name nothing that is elsewhere, and hold no script, style or event of their own in the page."""
        folder = files("rtpush.static") / "admin"
        for file in folder.iterdir():
            text = re.sub(r"http://www\.w3\.org/2000/svg", "", file.read_text())
            self.assertNotRegex(text, r"(https?:)?//[a-z0-9-]+\.[a-z]|@import|url\(|innerHTML|eval\(", file.name)
        page = (folder / "index.html").read_text()
        self.assertNotRegex(page, r"<style|style=|\son\w+=|<script[^>]*>[^<]")
        for name in re.findall(r'(?:src|href)="([^"#]+)"', page):
            self.assertTrue((folder / name).is_file(), name)


class HeaderTests(AdminTestCase):
    """What all answers say."""

    def test_pages(self) -> None:
        """The page and its files come with a strict policy, for this origin alone."""
        for path in ("/admin/", "/admin/admin.js", "/admin/admin.css", "/admin/icon.svg"):
            answer = self.ask(path, method="HEAD")
            self.assertEqual(answer.status, 200, path)
            self.assertIn("default-src 'self'", answer.headers["content-security-policy"])
            self.assertIn("frame-ancestors 'none'", answer.headers["content-security-policy"])
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertNotIn("access-control-allow-origin", answer.headers)
        self.assertEqual(self.ask("/admin/nothing.js").status, 404)
        self.assertEqual(self.ask("/admin/..%2fdemo%2fdemo.js").status, 404)

    def test_redirect(self) -> None:
        """Without the slash the browser is sent to where addresses are right."""
        answer = self.ask("/admin")
        self.assertEqual((answer.status, answer.headers["location"]), (308, "admin/"))
