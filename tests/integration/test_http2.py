"""HTTP/2, as real clients speak it; and as those do who mean no good."""

from __future__ import annotations

import json
import signal
import ssl
import time
from collections.abc import Mapping
from typing import Any

from h2.errors import ErrorCodes
from hyperframe.frame import PingFrame, SettingsFrame
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.auth.makers import SECRET, hs, oct_token
from tests.support.browser import Browser
from tests.support.certificates import issue
from tests.support.http2 import Http2Client
from tests.support.processes import Process, program
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until

_STREAMS = 100

#: A page that follows a channel by WebSocket and by as many event streams as no browser opens over HTTP/1.1.
_FOLLOW = """
    const [path, count] = arguments;
    window.heard = { sockets: [], events: 0, protocols: [] };
    const socket = new WebSocket(`wss://${location.host}/ws?${path}`, "rtpush.raw");
    socket.onmessage = ({ data }) => window.heard.sockets.push(data);
    for (let index = 0; index < count; index += 1) {
        const source = new EventSource(`/sse?${path}`);
        source.onmessage = () => { window.heard.events += 1; };
    }
"""

_PROTOCOLS = """
    return performance.getEntriesByType("navigation").concat(performance.getEntriesByType("resource"))
        .map(({ nextHopProtocol }) => nextHopProtocol);
"""


class _Http2TestCase(TestCase):
    """A server with an address that speaks TLS."""

    timeout = 90

    async def start(self, changes: Mapping[str, Mapping[str, object]] | None = None) -> tuple[Server, int]:
        """Start it; return it, and the port of that address."""
        issued = issue(self, "localhost")
        listen = (
            "tcp:0:interface=127.0.0.1\n"
            f"  ssl:0:interface=127.0.0.1:privateKey={issued.key}:certKey={issued.certificate}"
        )
        changes = dict(changes or {})
        changes["server"] = {"listen": listen, **changes.get("server", {})}
        server = await Server.start_with(self, write_config(self, changes))
        said = await server.process.says(rb"listening on ssl:[^\n]* port=(\d+)")
        self.server = server
        return server, int(said[1])

    def is_quiet(self) -> None:
        """Check that nothing went wrong in the server, as it would say."""
        self.assertNotIn(b"Traceback", self.server.process.out + self.server.process.err)


class EndpointTests(_Http2TestCase):
    """What is served."""

    async def test_everything(self) -> None:
        """Each endpoint answers, and says nothing of connections."""
        server, port = await self.start()
        client = await Http2Client.connect(self, port)
        await server.publish("demo:a", ["one"])
        publish = json.dumps({"channel": "demo:a", "data": "two"}).encode()
        for path, body, status, part in (
            ("/healthz", None, 200, b'"ok":true'),
            ("/readyz", None, 200, b"ok"),
            ("/negotiate", None, 200, b"longpoll"),
            ("/api/v1/publish", publish, 200, b'"offset":2'),
            ("/emit", b'{"id":1,"publish":%b}' % publish, 200, b'"offset":3'),
            ("/metrics", None, 200, b"rtpush_"),
            ("/poll?channel=demo:a&since=earliest&timeout=20", None, 200, b"one"),
            ("/poll?channel=demo:a&timeout=0", None, 200, b"cursor"),
            ("/client/rtpush.js", None, 200, b"export"),
            ("/demo/", None, 200, b"<html"),
            ("/demo/..%2f", None, 404, b"nothing at"),
            ("/ws?channel=demo:a", None, 426, b"upgrade_required"),
            ("/nothing", None, 404, b"nothing at"),
            ("/sse?channel=nowhere:a", None, 404, b"unknown_channel"),
            ("/api/v1/publish", b"{", 400, b"error"),
        ):
            answer = await client.get(path, body)
            self.assertEqual(answer.status, status, path)
            self.assertIn(part, answer.body, path)
            self.assertEqual({"connection", "transfer-encoding", "keep-alive", "upgrade"} & set(answer.fields), set())
            self.assertEqual(int(answer.fields.get("content-length", len(answer.body))), len(answer.body), path)
        for path in ("/healthz", "/client/rtpush.js"):
            head = await client.get(path, method="HEAD")
            self.assertEqual((head.status, head.body), (200, b""))
        refused = await client.get("*", method="OPTIONS")
        self.assertEqual(refused.status, 400)
        self.is_quiet()

    async def test_tokens(self) -> None:
        """Bad tokens are refused on a stream as elsewhere, and the connection goes on; a good one is not."""
        rights = {"subscribe": "token", "publish": "token", "read_history": "token", "history_size": 10}
        _, port = await self.start({"auth": {"keys": f"hs HS256 {SECRET.decode()}"}, "namespace:rights": rights})
        client = await Http2Client.connect(self, port)
        later = time.time() + 100
        may = {"rights:a": ["subscribe", "history"]}
        good = hs(exp=later, channels=may)
        history = b'{"history":{"channel":"rights:a"}}'
        for token, status, name in (
            (hs(exp=later - 200), 401, b"token_expired"),
            (hs(exp=later, nbf=later), 401, b"invalid_token"),
            (hs(exp=later, aud="them"), 401, b"invalid_token"),
            (oct_token({"alg": "none"}, {"exp": later}), 401, b"invalid_token"),
            (oct_token({"alg": "HS256", "kid": "other"}, {"exp": later}), 401, b"invalid_token"),
            (good[:-10], 401, b"invalid_token"),
            (hs(exp=later, channels={"rights:b": ["subscribe"]}), 403, b"permission_denied"),
            (None, 401, b"unauthorized"),
        ):
            fields = [] if token is None else [("authorization", f"Bearer {token.decode()}")]
            for path, body in (
                ("/sse?channel=rights:a", None),
                ("/poll?channel=rights:a", None),
                ("/poll?channel=rights:a&timeout=0", None),
                ("/emit", history),
            ):
                answer = await client.get(path, body, fields=fields)
                self.assertEqual(answer.status, status, (token, path))
                self.assertIn(name, answer.body)
        fields = [("authorization", f"Bearer {good.decode()}")]
        self.assertEqual((await client.get("/poll?channel=rights:a&timeout=0", fields=fields)).status, 200)
        self.assertEqual((await client.get("/emit", history, fields=fields)).status, 200)
        await client.follow("/sse?channel=rights:a", fields=fields)
        self.is_quiet()

    async def test_curl(self) -> None:
        """So it is with curl: a poll, and an event stream as it comes."""
        server, port = await self.start()
        curl = program("curl")
        common = [curl, "--http2", "-sk", "--no-buffer", "--include"]
        stream = Process(self, [*common, f"https://127.0.0.1:{port}/sse?channel=demo:a"])
        await stream.says(rb"event: open")
        await server.publish("demo:a", [1, 2])
        await stream.says(rb"data: 1\n(.|\n)*data: 2\n")
        self.assertTrue(stream.out.startswith(b"HTTP/2 200"))
        poll = Process(self, [*common, f"https://127.0.0.1:{port}/poll?channel=demo:a&since=earliest"])
        self.assertEqual(await soon(poll.ended()), 0)
        self.assertIn(b'"data":2', poll.out)
        await stream.stop()

    async def test_httpx(self) -> None:
        """And with httpx, many requests at once."""
        _, port = await self.start()
        await deferToThread(self._by_httpx, port)

    def _by_httpx(self, port: int) -> None:
        import httpx

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with httpx.Client(http2=True, verify=context, base_url=f"https://127.0.0.1:{port}") as client:
            for number in range(50):
                answer = client.post("/api/v1/publish", json={"channel": "demo:a", "data": number})
                self.assertEqual((answer.status_code, answer.http_version), (200, "HTTP/2"))
            history = client.post("/api/v1/history", json={"channel": "demo:a", "limit": 100}).json()
        self.assertEqual([each["data"] for each in history["result"]["messages"]], list(range(50)))

    async def test_off(self) -> None:
        """``http2 = no`` leaves HTTP/1.1."""
        _, port = await self.start({"server": {"http2": "no"}})
        curl = Process(self, [program("curl"), "--http2", "-sk", "--include", f"https://127.0.0.1:{port}/healthz"])
        self.assertEqual(await soon(curl.ended()), 0)
        self.assertTrue(curl.out.startswith(b"HTTP/1.1 200"))

    async def test_browser(self) -> None:
        """A browser opens its WebSocket over HTTP/1.1, and more event streams than six over HTTP/2."""
        server, port = await self.start()
        browser = await Browser.start(self, insecure=True)
        await browser.open(f"https://127.0.0.1:{port}/demo/#none")
        await browser.run(_FOLLOW, "channel=demo:page", 20)

        async def all_follow() -> bool:
            return await server.subscribers("demo:page") == 21

        await until(all_follow, "the page to follow")
        await server.publish("demo:page", ["hello"])

        async def heard() -> Any:
            found = await browser.run("return window.heard")
            return found if found["events"] >= 20 and found["sockets"] else None

        found = await until(heard, "the message")
        self.assertEqual((found["events"], found["sockets"]), (20, ["hello"]))
        self.assertIn("h2", await browser.run(_PROTOCOLS))
        self.is_quiet()


class StreamTests(_Http2TestCase):
    """Many streams on one connection."""

    async def test_many(self) -> None:
        """Each gets its messages; one that is cancelled ends alone."""
        server, port = await self.start()
        client = await Http2Client.connect(self, port)
        streams = [await client.follow(f"/sse?channel=demo:{number}") for number in range(_STREAMS)]
        for round_ in range(3):
            for number in range(_STREAMS):
                await server.publish(f"demo:{number}", [[number, round_]])
        expected = [[[number, round_] for round_ in range(3)] for number in range(_STREAMS)]
        await until(lambda: [stream.data for stream in streams] == expected, "all messages")
        info = await server.call("info")
        self.assertEqual(info["nodes"][0]["connections"], _STREAMS)
        client.reset(streams[7])

        async def one_less() -> bool:
            return (await server.call("info"))["nodes"][0]["connections"] == _STREAMS - 1

        await until(one_less, "it to be gone")
        self.assertEqual(await server.subscribers("demo:7"), 0)
        await server.publish("demo:8", [["still there"]])
        await until(lambda: streams[8].data[-1] == ["still there"], "the message")
        client.close()

        async def none() -> bool:
            return (await server.call("info"))["nodes"][0]["connections"] == 0

        await until(none, "the others to be gone")
        self.is_quiet()

    async def test_heartbeats(self) -> None:
        """A stream that is idle has its heartbeats, and lives longer than a request may take to come."""
        _, port = await self.start(
            {"server": {"heartbeat": 0.3, "heartbeat_grace": 0.1}, "limits": {"header_timeout": 0.5}}
        )
        client = await Http2Client.connect(self, port)
        stream = await client.follow("/sse?channel=demo:a")
        await until(lambda: stream.body.count(b"\n:") + stream.body.count(b"\n\n:") >= 5, "heartbeats")
        self.assertFalse(client.gone or stream.ended)

    async def test_slow_stream(self) -> None:
        """A stream whose client takes nothing does not stop others on the connection, and misses nothing later."""
        server, port = await self.start({"limits": {"queue_bytes": 200_000}})
        client = await Http2Client.connect(self, port)
        slow = await client.follow("/sse?channel=demo:a", takes=False)
        quick = await client.follow("/sse?channel=demo:a")
        messages = [[number, "x" * 20_000] for number in range(60)]
        for message in messages:
            await server.publish("demo:a", [message])
        await until(lambda: quick.data == messages, "all messages", seen=lambda: str(len(quick.data)))
        self.assertLessEqual(len(slow.body), 65_535)
        self.assertLess(len(slow.data), 4)
        client.take(slow)
        await until(lambda: slow.data == messages, "all messages", seen=lambda: str(len(slow.data)))
        self.is_quiet()

    async def test_leaving(self) -> None:
        """When the server ends, streams end in good order, and the client hears that there are no more requests."""
        server, port = await self.start({"server": {"drain_window": 4}})
        client, idle = [await Http2Client.connect(self, port) for _ in range(2)]
        streams = [await client.follow(f"/sse?channel=demo:{number}") for number in range(3)]
        server.process.signal(signal.SIGTERM)
        await until(lambda: client.gone and idle.gone, "the connections to end")
        for stream in streams:
            self.assertTrue(stream.ended)
            self.assertIn(b"event: disconnect", stream.body)
        self.assertEqual((client.goaway, idle.goaway), (ErrorCodes.NO_ERROR, ErrorCodes.NO_ERROR))
        await soon(server.process.ended())
        self.is_quiet()


class BoundTests(_Http2TestCase):
    """What a client may do, and how long it may take."""

    async def test_bodies(self) -> None:
        """A body that is too large is refused, and so are many that come together."""
        _, port = await self.start({"limits": {"message_bytes": 1000, "request_bytes": 10_000}})
        client = await Http2Client.connect(self, port)
        answer = await client.get("/api/v1/publish", b"x" * 10_001)
        self.assertEqual(answer.status, 413)
        begun = [client.ask("/api/v1/publish", b"x" * 9_000, is_all=False) for _ in range(5)]
        await until(lambda: any(each.reset is not None for each in begun), "one to be refused")
        self.assertEqual([each.reset for each in begun], [None] * 4 + [ErrorCodes.ENHANCE_YOUR_CALM])
        self.assertEqual((await client.get("/healthz")).status, 200)
        self.is_quiet()

    async def test_heads(self) -> None:
        """A head that is too large ends the connection."""
        _, port = await self.start()
        client = await Http2Client.connect(self, port)
        client.ask("/healthz", fields=[(f"x-{number}", "y" * 1000) for number in range(20)])
        await until(lambda: client.gone, "the end")
        self.assertNotIn(client.goaway, (None, ErrorCodes.NO_ERROR))
        self.is_quiet()

    async def test_time(self) -> None:
        """A connection without requests goes; a request that does not come to its end is cancelled alone."""
        _, port = await self.start({"limits": {"header_timeout": 0.5}})
        idle, client = [await Http2Client.connect(self, port) for _ in range(2)]
        stream = await client.follow("/sse?channel=demo:a")
        half = client.ask("/api/v1/publish", b"{", is_all=False)
        await until(lambda: idle.gone and half.reset is not None, "the end of both")
        self.assertEqual(idle.goaway, ErrorCodes.NO_ERROR)
        self.assertFalse(stream.ended or client.gone)
        self.is_quiet()

    async def test_floods(self) -> None:
        """Who makes work and asks for nothing is cut off; others do not notice."""
        _, port = await self.start()
        other = await Http2Client.connect(self, port)
        ping, settings = PingFrame(opaque_data=b"12345678").serialize(), SettingsFrame().serialize()
        for frames in (ping * 3000, settings * 3000):
            client = await Http2Client.connect(self, port)
            await client.get("/healthz")
            client.transport.write(frames)
            await until(lambda: client.gone, "the end")  # noqa: B023
            self.assertEqual(client.goaway, ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual((await other.get("/healthz")).status, 200)
        self.is_quiet()

    async def test_rapid_reset(self) -> None:
        """So is who cancels each request as soon as it is sent."""
        _, port = await self.start()
        other = await Http2Client.connect(self, port)
        client = await Http2Client.connect(self, port)
        for _ in range(2000):
            if client.gone:
                break
            id_ = client.machine.get_next_available_stream_id()
            head = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/sse?channel=demo:a")]
            client.machine.send_headers(id_, head, end_stream=True)
            client.machine.reset_stream(id_, 8)
        client.flush()
        await until(lambda: client.gone, "the end")
        self.assertEqual(client.goaway, ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual((await other.get("/healthz")).status, 200)
        info = await self.server.call("info")
        self.assertEqual(info["nodes"][0]["connections"], 0)
        self.is_quiet()
