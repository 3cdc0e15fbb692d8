"""The demo's network, and its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.resources import files
from typing import Any
from unittest import skipUnless

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from rtpush.api import demo
from rtpush.auth.origin import Origins
from rtpush.protocol.wheel import TimerWheel
from rtpush.registry.counts import Counts
from rtpush.transports.site import PushSite

SESSION = "viewer-0001"
OTHER = "viewer-0002"

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Held(Resource):
    """A real route that begins its answer and keeps it open."""

    isLeaf = True

    def render(self, request: Request) -> int:
        """Write the first bytes."""
        request.write(b"first bytes")
        return NOT_DONE_YET


class Said(Resource):
    """A real route that answers at once with its name and what was sent."""

    isLeaf = True

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.name = name

    def render(self, request: Request) -> bytes:
        """Answer."""
        return self.name + b" " + request.uri + b" " + request.content.read()


class Greeting(Protocol):
    """What is behind a real WebSocket."""

    def connectionMade(self) -> None:
        """Say so."""
        self.transport.write(b"a real socket")


class Socket(Resource):
    """A real WebSocket route, which takes the connection away from HTTP."""

    isLeaf = True

    def render(self, request: Request) -> int:
        """Take the connection."""
        request.channel.upgrade(Greeting(), b"")
        return NOT_DONE_YET


class Connection:
    """A client's connection to the site, in memory."""

    def __init__(self, site: PushSite) -> None:
        self.transport = StringTransport()
        self.transport.protocol = site.buildProtocol(self.transport.getPeer())
        self.transport.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Send bytes to whatever reads this connection now."""
        self.transport.protocol.dataReceived(data)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
        """Send a request, and return what came back up to now."""
        self.transport.clear()
        lines = [f"{method} {path} HTTP/1.1", "Host: demo", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.transport.value()

    def lose(self) -> None:
        """Go away."""
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))

    @property
    def aborted(self) -> bool:
        """Whether the server cut the connection."""
        return self.transport.disconnected


def status_of(answer: bytes) -> int:
    """Return the status of an HTTP answer."""
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> Any:
    """Return the JSON of a chunked or plain HTTP answer."""
    return json.loads(re.search(rb"\{.*\}", answer, re.DOTALL)[0])


class DemoNetworkTests(SynchronousTestCase):
    """What the switches do to the routes of one viewer."""

    def setUp(self) -> None:
        """Make a site with the demo at ``/demo``."""
        real = {
            "negotiate": Said(b"negotiate"),
            "emit": Said(b"emit"),
            "ws": Socket(),
            "echo": Socket(),
            "sse": Held(),
            "poll": Held(),
        }
        pages = Resource()
        pages.putChild(b"", Said(b"page"))
        pages.putChild(b"demo.css", Said(b"css"))
        root = Resource()
        root.putChild(b"demo", demo.DemoNetwork(Origins([]), pages, real))
        self.site = PushSite(
            root,
            Clock(),
            wheel=TimerWheel(1, 0),
            counts=Counts(),
            request_bytes=4096,
            timeout=20,
            retry_after=lambda: 1,
            others=[b"demo"],
        )

    def connect(self) -> Connection:
        """Return a new connection."""
        return Connection(self.site)

    def switch(self, session: str = SESSION, **change: Any) -> bytes:
        """Set switches over a connection of its own; return the whole answer."""
        return self.connect().ask("POST", "/demo/network", json.dumps({"session": session, **change}).encode())

    def open(self, route: str, session: str = SESSION) -> Connection:
        """Return a connection on which a request for a route was made."""
        connection = self.connect()
        headers = UPGRADE if route in ("ws", "echo") else {}
        connection.ask("GET", f"/demo/net/{session}/{route}", headers=headers)
        return connection

    def test_harmless(self) -> None:
        """Without switches every route is the real one."""
        base = f"/demo/net/{SESSION}"
        answer = self.connect().ask("GET", f"{base}/negotiate?direction=push")
        self.assertIn(b"negotiate /demo/net/viewer-0001/negotiate?direction=push", answer)
        answer = self.connect().ask("POST", f"{base}/emit", b'{"ping":{}}')
        self.assertIn(b'emit /demo/net/viewer-0001/emit {"ping":{}}', answer)
        for route in ("ws", "echo"):
            self.assertIn(b"a real socket", self.open(route).transport.value())
        for route in ("sse", "poll"):
            self.assertIn(b"first bytes", self.open(route).transport.value())

    def test_pages(self) -> None:
        """Other paths are the pages', and the demo without its slash redirects, relatively, to where they are."""
        self.assertIn(b"page", self.connect().ask("GET", "/demo/?channel=demo:a"))
        self.assertIn(b"css", self.connect().ask("GET", "/demo/demo.css"))
        answer = self.connect().ask("GET", "/demo")
        self.assertEqual(status_of(answer), 308)
        self.assertIn(b"location: demo/\r\n", answer.lower())
        self.assertIn(b"location: demo/?channel=demo:a\r\n", self.connect().ask("GET", "/demo?channel=demo:a").lower())

    def test_unknown_path(self) -> None:
        """A route that is not mirrored, and a session that is not one, are not found."""
        no_route = [f"{SESSION}/api", f"{SESSION}/ws/x", SESSION, f"{SESSION}/", ""]
        no_session = ["short/ws", "a" * 65 + "/ws", "viewer%2E0001/ws", "viewer-%FF001/ws", "viewer-0001%0A/ws"]
        for path in no_route + no_session:
            answer = self.connect().ask("GET", f"/demo/net/{path}")
            self.assertEqual(status_of(answer), 404, path)
            self.assertEqual(body_of(answer)["error"]["name"], "not_found")

    def test_block_websocket(self) -> None:
        """A blocked WebSocket is refused with 403, an open one is cut, and nothing else is touched."""
        socket, stream = self.open("ws"), self.open("sse")
        self.switch(block=["websocket"])
        self.assertTrue(socket.aborted)
        self.assertFalse(stream.aborted)
        for route in ("ws", "echo"):
            answer = self.open(route).transport.value()
            self.assertEqual(status_of(answer), 403)
            # As by a proxy, not by rtpush: its permission_denied would end the subscription.
            self.assertNotIn(b"error", answer)
        self.assertIn(b"first bytes", self.open("sse").transport.value())

    def test_block_sse(self) -> None:
        """A blocked SSE stream is refused with 403, an open one is cut, and nothing else is touched."""
        socket, stream, poll = self.open("ws"), self.open("sse"), self.open("poll")
        self.switch(block=["sse"])
        self.assertEqual([socket.aborted, stream.aborted, poll.aborted], [False, True, False])
        self.assertEqual(status_of(self.open("sse").transport.value()), 403)

    def test_unblock(self) -> None:
        """An empty list takes a switch back; what is open of other transports stays."""
        self.switch(block=["websocket", "sse"])
        poll = self.open("poll")
        self.switch(block=[])
        self.assertFalse(poll.aborted)
        self.assertIn(b"a real socket", self.open("ws").transport.value())
        self.assertIn(b"first bytes", self.open("sse").transport.value())

    def test_mute_websocket(self) -> None:
        """A muted WebSocket opens by RFC 6455, with a subprotocol that was offered, and nothing comes after that."""
        before = self.open("ws")
        self.switch(mute=["websocket"])
        self.assertTrue(before.aborted)
        muted = self.connect()
        headers = UPGRADE | {"Sec-WebSocket-Protocol": "rtpush.v1, rtpush.raw"}
        answer = muted.ask("GET", f"/demo/net/{SESSION}/ws", headers=headers)
        head, rest = answer.split(b"\r\n\r\n")
        self.assertEqual(head.split(b"\r\n")[0], b"HTTP/1.1 101 Switching Protocols")
        lines = {line.lower() for line in head.split(b"\r\n")}
        # The example of RFC 6455 section 1.3.
        self.assertIn(b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", lines)
        self.assertIn(b"sec-websocket-protocol: rtpush.v1", lines)
        self.assertIn(b"upgrade: websocket", lines)
        self.assertEqual(rest, b"")
        muted.transport.clear()
        muted.send(b"\x81\x80\0\0\0\0" * 1000)
        self.assertEqual(muted.transport.value(), b"")
        self.assertFalse(muted.aborted)
        self.switch(mute=[])
        self.assertTrue(muted.aborted)
        self.assertIn(b"a real socket", self.open("ws").transport.value())

    def test_mute_without_subprotocol(self) -> None:
        """A client that offers no subprotocol gets none."""
        self.switch(mute=["websocket"])
        self.assertNotIn(b"protocol:", self.open("ws").transport.value().lower())

    def test_mute_is_for_handshakes(self) -> None:
        """What is not a WebSocket handshake is refused as the real route does it."""
        self.switch(mute=["websocket"])
        self.assertEqual(status_of(self.connect().ask("GET", f"/demo/net/{SESSION}/ws")), 426)

    def test_buffer_sse(self) -> None:
        """A buffered SSE stream is accepted, and nothing comes; it is cut when the buffering ends."""
        before = self.open("sse")
        self.switch(buffer=["sse"])
        self.assertTrue(before.aborted)
        buffered = self.open("sse")
        self.assertEqual(buffered.transport.value(), b"")
        self.assertFalse(buffered.aborted)
        self.switch(buffer=[])
        self.assertTrue(buffered.aborted)

    def test_refusing_goes_first(self) -> None:
        """A transport that is blocked and buffered is refused; without the block it is buffered again."""
        self.switch(block=["sse"], buffer=["sse"])
        self.assertEqual(status_of(self.open("sse").transport.value()), 403)
        self.switch(block=[])
        self.assertEqual(self.open("sse").transport.value(), b"")

    def test_no_change(self) -> None:
        """Setting switches to what they are cuts nothing."""
        socket, stream = self.open("ws"), self.open("sse")
        self.switch(block=[], mute=[], buffer=[])
        self.assertEqual([socket.aborted, stream.aborted], [False, False])

    def test_cut(self) -> None:
        """A cut ends what is open, leaves the switches as they were, and lets the next request through."""
        self.switch(block=["sse"])
        opened = [self.open("ws"), self.open("echo"), self.open("poll")]
        answer = self.switch(cut=True)
        self.assertEqual([connection.aborted for connection in opened], [True, True, True])
        self.assertEqual(body_of(answer), {"result": {"block": ["sse"], "mute": [], "buffer": []}})
        self.assertIn(b"a real socket", self.open("ws").transport.value())

    def test_each_viewer_alone(self) -> None:
        """The switches of one session do nothing to another."""
        other = self.open("ws", OTHER)
        self.switch(block=["websocket", "sse"], cut=True)
        self.assertFalse(other.aborted)
        self.assertIn(b"first bytes", self.open("sse", OTHER).transport.value())

    def test_finished_requests_are_forgotten(self) -> None:
        """A connection that served a request which is over, or that went away, is not cut."""
        lost = self.open("sse")
        lost.lose()
        self.switch(cut=True)
        self.assertFalse(lost.aborted)

    def test_bad_changes(self) -> None:
        """What is not a change of switches is told why, and changes nothing."""
        for body in (
            b"",
            b"[]",
            b"{",
            b'{"block": ["sse"]}',
            b'{"session": "short"}',
            b'{"session": "with a space"}',
            b'{"session": "viewer-0001\\n"}',
            b'{"session": "viewer-0001", "block": ["longpoll"]}',
            b'{"session": "viewer-0001", "block": "sse"}',
            b'{"session": "viewer-0001", "mute": ["sse"]}',
            b'{"session": "viewer-0001", "cut": 1}',
            b'{"session": "viewer-0001", "blocks": ["sse"]}',
            b'{"session": "\xff\xff\xff\xff\xff\xff\xff\xff"}',
        ):
            answer = self.connect().ask("POST", "/demo/network", body)
            self.assertEqual((status_of(answer), body_of(answer)["error"]["name"]), (400, "bad_request"), body)
        self.assertIn(b"first bytes", self.open("sse").transport.value())

    def test_long_change(self) -> None:
        """A body that is longer than the site allows is refused."""
        answer = self.connect().ask("POST", "/demo/network", b" " * (4097))
        self.assertEqual(status_of(answer), 413)

    def test_method(self) -> None:
        """The switches are set by POST only."""
        answer = self.connect().ask("GET", "/demo/network")
        self.assertEqual(status_of(answer), 405)

    def test_other_origin(self) -> None:
        """A page of another site may not set switches."""
        body = json.dumps({"session": SESSION, "block": ["sse"]}).encode()
        answer = self.connect().ask("POST", "/demo/network", body, {"Origin": "https://elsewhere.example"})
        self.assertEqual(body_of(answer)["error"]["name"], "origin_not_allowed")
        self.assertEqual(status_of(self.open("sse").transport.value()), 200)

    def test_bounded_sessions(self) -> None:
        """Beyond the limit the session that was used longest ago is forgotten, and only that one."""
        self.patch(demo, "MAX_SESSIONS", 3)
        for number in range(3):
            self.switch(f"viewer-100{number}", block=["sse"])
        self.open("poll", "viewer-1000")
        self.switch("viewer-1003", block=["sse"])
        for number in (0, 2, 3):
            self.assertEqual(status_of(self.open("sse", f"viewer-100{number}").transport.value()), 403)
        self.assertEqual(status_of(self.open("sse", "viewer-1001").transport.value()), 200)


class PageTests(SynchronousTestCase):
    """The files of the page."""

    def setUp(self) -> None:
        """Read them."""
        self.files = {path.name: path.read_text("utf-8") for path in (files("rtpush") / "static" / "demo").iterdir()}

    def test_ids(self) -> None:
        """What the browser tests and the scripts look up by id is there, once."""
        ids = re.findall(r'\bid="([^"]+)"', self.files["index.html"])
        self.assertEqual(len(ids), len(set(ids)))
        wanted = {"transport", "state", "messages", "publish-form", "publish-many", "publish-progress", "cut"}
        wanted |= {"received", "lost", "doubled", "misordered", "gaps", "changes"}
        wanted |= {"block-websocket", "block-sse", "buffer-sse", "mute-websocket"}
        for name, text in self.files.items():
            if name.endswith(".js"):
                wanted.update(re.findall(r'(?:byId|getElementById)\("([^"]+)"\)', text))
        self.assertEqual(wanted - set(ids), set())

    def test_nothing_from_elsewhere(self) -> None:
        """The page loads nothing from another host, and has no script or style that a strict content policy refuses."""
        for name, text in self.files.items():
            self.assertNotRegex(text.replace('xmlns="http://www.w3.org/2000/svg"', ""), r"https?:", name)
        self.assertNotRegex(self.files["index.html"], r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)")

    def test_everything_is_there(self) -> None:
        """What the page and its scripts name is there."""
        named = set(re.findall(r'(?:src|href)="([^"/:#]+)"', self.files["index.html"]))
        for name, text in self.files.items():
            if name.endswith(".js"):
                named.update(re.findall(r'from "\./([^"]+)"', text))
        self.assertLessEqual({"demo.js", "demo.css", "feed.js"}, named)
        self.assertEqual(named - set(self.files), set())


@skipUnless(shutil.which("node"), "needs node")
class TallyTests(SynchronousTestCase):
    """What the page's counters make of the offsets that come."""

    def tally(self, *steps: str) -> tuple[list[str], list[int]]:
        """
        Return the verdict on each message, and received, lost, doubled, out of order, gaps.

        :param steps: ``3`` is the message at offset 3 of epoch ``a``; ``b:3`` of epoch ``b``; ``live`` one without
            history; ``begin 3`` and ``gap b:3`` what the server tells.
        """
        code = """
        const { Tally } = await import(process.argv[1]);
        const position = (text) => {
          const [epoch, offset] = text.includes(":") ? text.split(":") : ["a", text];
          return { epoch, offset: Number(offset) };
        };
        const tally = new Tally();
        const verdicts = [];
        for (const step of process.argv.slice(2)) {
          const [first, second] = step.split(" ");
          if (second) tally[first](position(second));
          else verdicts.push(tally.take(first === "live" ? {} : position(first)));
        }
        const { received, lost, doubled, misordered, gaps } = tally;
        console.log(JSON.stringify([verdicts, [received, lost, doubled, misordered, gaps]]));
        """
        module = files("rtpush") / "static" / "demo" / "tally.js"
        command = ["node", "--no-warnings", "--input-type=module", "--eval", code, "--", f"file://{module}", *steps]
        verdicts, counters = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
        return verdicts, counters

    def test_in_order(self) -> None:
        """One after another, each once: nothing is wrong. A position that is told again changes nothing."""
        self.assertEqual(self.tally("begin 6", "7", "8", "begin 8", "9"), (["ok"] * 3, [3, 0, 0, 0, 0]))

    def test_hole(self) -> None:
        """What was passed over is lost, also between where delivery began and the first message."""
        self.assertEqual(self.tally("begin 6", "8", "12"), (["hole", "hole"], [2, 4, 0, 0, 0]))

    def test_late(self) -> None:
        """One that comes after a later one is out of order and no longer lost; the ends of a hole are part of it."""
        verdicts, counters = self.tally("begin 0", "1", "6", "3", "2", "5", "4", "7")
        self.assertEqual(verdicts, ["ok", "hole", "late", "late", "late", "late", "ok"])
        self.assertEqual(counters, [7, 0, 0, 4, 0])

    def test_doubled(self) -> None:
        """One that was there already is doubled, whether it came in order or late."""
        verdicts, counters = self.tally("begin 0", "1", "1", "4", "3", "3", "0")
        self.assertEqual(verdicts, ["ok", "doubled", "hole", "late", "doubled", "doubled"])
        self.assertEqual(counters, [6, 1, 3, 1, 0])

    def test_told_gap(self) -> None:
        """A gap that is told is counted as one; the stream goes on after it, in another epoch too."""
        self.assertEqual(self.tally("begin 6", "7", "gap 20", "21"), (["ok", "ok"], [2, 0, 0, 0, 1]))
        self.assertEqual(self.tally("begin 6", "7", "gap b:0", "b:1"), (["ok", "ok"], [2, 0, 0, 0, 1]))

    def test_untold_epoch(self) -> None:
        """Another epoch that nobody announced is out of order; the first message of all is not."""
        self.assertEqual(self.tally("5", "b:1", "b:2"), (["ok", "late", "ok"], [3, 0, 0, 1, 0]))

    def test_without_history(self) -> None:
        """A message without a position is received, and moves nothing."""
        self.assertEqual(self.tally("begin 6", "7", "live", "8"), (["ok", "unnumbered", "ok"], [3, 0, 0, 0, 0]))
