"""The benchmark: its counting is right, and all of it runs, tiny, against the plain servers. No time is asserted."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import mass
from benchmarks.catalogue import ALL_SCENARIOS, ALL_TARGETS
from benchmarks.errors import BenchmarkError
from benchmarks.foreign import Nchan
from benchmarks.frames import FrameCounter, client_frame, pong_frame, split_frame
from benchmarks.install import python_with
from benchmarks.load import Client, Opening, Publisher, Sending, closes, http_get, response_body
from benchmarks.nodes import BareRedis, TwoNodes
from benchmarks.pairs import Pairs
from benchmarks.plain import Autobahn, LimitC, LimitJoined, LimitPython
from benchmarks.proc import cpu_seconds, pss_bytes
from benchmarks.scenario import Sample, Scale, Scenario, payloads
from benchmarks.scenarios import SCENARIOS
from benchmarks.stream import Stream
from benchmarks.target import Ability, Target
from benchmarks.workers import RtpushWorkers

_ROOT = Path(__file__).resolve().parent.parent


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """Return a server's frame."""
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    return bytes((first, 126)) + len(payload).to_bytes(2, "big") + payload


class FrameCounterTests(SynchronousTestCase):
    """`FrameCounter` counts messages however the stream is cut."""

    def setUp(self) -> None:
        """Make a counter that keeps the pings that it sees."""
        self.pings: list[tuple[int, bytes]] = []
        self.counter = FrameCounter(lambda fd, payload: self.pings.append((fd, payload)))

    def read(self, fd: int, data: bytes) -> int:
        """Let the counter take ``data`` as if it had been read from a socket."""
        self.counter.buffer[: len(data)] = data
        return self.counter.take(fd, len(data))

    @given(
        st.lists(
            st.sampled_from([frame(1, b"a" * 10), frame(1, b"b" * 200), frame(2, b""), frame(9, b"ping")]), max_size=20
        ),
        st.data(),
    )
    def test_any_cut(self, frames: list[bytes], data: st.DataObject) -> None:
        """Data frames are counted once and pings are reported, wherever reads begin and end."""
        self.setUp()
        stream = b"".join(frames)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)) | {0, len(stream)})
        counted = sum(self.read(5, stream[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
        pings = frames.count(frame(9, b"ping"))
        self.assertEqual(counted, len(frames) - pings)
        self.assertEqual(self.pings, [(5, b"ping")] * pings)

    def test_sockets_apart(self) -> None:
        """Half a frame on one socket is not completed by another's bytes, though both end on the usual size."""
        whole = frame(1, b"x" * 128)
        self.assertEqual(self.read(1, whole), 1)
        self.assertEqual(self.read(1, whole[:40]), 0)
        self.assertEqual(self.read(2, whole * 3), 3)
        self.assertEqual(self.read(1, whole[40:] + whole), 2)

    def test_fragments_are_one_message(self) -> None:
        """Only the last fragment counts."""
        self.assertEqual(self.read(1, frame(1, b"a", fin=False) + frame(0, b"b", fin=False) + frame(0, b"c")), 1)

    def test_close_is_an_error(self) -> None:
        """A close frame is reported with code and reason."""
        error = self.assertRaises(BenchmarkError, self.read, 1, frame(8, (4000).to_bytes(2, "big") + b"slow_reader"))
        self.assertIn("4000 slow_reader", str(error))

    def test_masked_is_an_error(self) -> None:
        """A server must not mask."""
        self.assertRaises(BenchmarkError, split_frame, b"\x81\x80\0\0\0\0", 0, 6)

    def test_pong(self) -> None:
        """A pong is masked, as a client's frame must be, and carries the payload of the ping."""
        self.assertEqual(pong_frame(b"abc"), b"\x8a\x83\0\0\0\0abc")

    def test_client_frame(self) -> None:
        """A client's frame is masked, and says its length in 7, 16 or 64 bits."""
        heads = {125: b"\xfd", 126: b"\xfe\0\x7e", 65535: b"\xfe\xff\xff", 65536: b"\xff\0\0\0\0\0\1\0\0"}
        for size, head in heads.items():
            self.assertEqual(client_frame(b"a" * size), b"\x81" + head + bytes(4) + b"a" * size)


class ResponseTests(SynchronousTestCase):
    """`response_body` finds the end of a response."""

    def test_every_prefix_is_incomplete(self) -> None:
        """The body is there when its last byte is, and not before."""
        whole = b"HTTP/1.1 200 OK\r\nX: y\r\ncontent-length:  5\r\n\r\nhello"
        self.assertEqual([response_body(whole[:end]) for end in range(len(whole))], [None] * len(whole))
        self.assertEqual(response_body(whole), b"hello")

    def test_refused(self) -> None:
        """A status that is no success is an error that says which."""
        error = self.assertRaises(BenchmarkError, response_body, b"HTTP/1.1 401 Unauthorized\r\n\r\nno key")
        self.assertIn("401", str(error))

    def test_no_length(self) -> None:
        """A response that is not delimited cannot be counted."""
        self.assertRaises(BenchmarkError, response_body, b"HTTP/1.1 200 OK\r\n\r\n")


class ClientTests(SynchronousTestCase):
    """What `Client` does with connections that are open and idle."""

    def setUp(self) -> None:
        """Connect a client to a socket of ours."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = Client()
            self.addCleanup(self.client.close)
            self.client.connect(listener.getsockname(), b"hello")
            self.peer = listener.accept()[0]
        self.addCleanup(self.peer.close)
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(100), b"hello")

    def stay(self) -> None:
        """Wait until something came, then let the client see to it."""
        self.assertTrue(self.client.epoll.poll(10))
        self.client.stay()

    def test_ping_is_answered(self) -> None:
        """A server that pings while others connect hears from the client, so that it does not drop it."""
        self.peer.sendall(frame(9, b"?"))
        self.stay()
        self.assertEqual(self.peer.recv(100), pong_frame(b"?"))

    def test_comment_is_not_answered(self) -> None:
        """A heartbeat of an event stream needs nothing."""
        self.peer.sendall(b":\n\n")
        self.stay()
        self.client.stay()

    def test_answered_poll(self) -> None:
        """A poll that was to wait, but was answered, would make the memory of a waiting one look smaller."""
        self.peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertRaises(BenchmarkError, self.stay)

    def test_closed(self) -> None:
        """So would a connection that is closed."""
        self.peer.close()
        self.assertRaises(BenchmarkError, self.stay)


class Conversation:
    """A server's side of connections, in a thread: answers each request by what ``respond`` makes of it."""

    def __init__(self, respond: Callable[[bytes], bytes | None]) -> None:
        """``respond(data)`` returns what is sent, or None to close."""
        self._respond = respond
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                self.connections += 1
                with connection:
                    while (data := connection.recv(4096)) and (answer := self._respond(data)) is not None:
                        connection.sendall(answer)


class OpeningTests(SynchronousTestCase):
    """Connections that begin with more than a request and an answer."""

    def test_replies(self) -> None:
        """What is awaited is replied to, and what follows the last answer is handed over."""
        answers = {b"hello": b"HTTP/1.1 101 Yes\r\n\r\nwho?", b"me": b"welcome: first"}
        with Conversation(answers.__getitem__) as server, Client() as client:
            opening = Opening(server.address, b"hello", b"welcome: ", replies=((b"who?", b"me"),))
            self.assertEqual(list(client.open(opening, 1).values()), [b"first"])

    def test_refused(self) -> None:
        """An answer that is no success is an error that shows it, even where what is awaited is in it."""
        for awaited in (b"welcome", b"\r\n\r\n"):
            with Conversation(lambda data: b"HTTP/1.1 503 Later\r\n\r\n") as server, Client() as client:
                error = self.assertRaises(BenchmarkError, client.open, Opening(server.address, b"hello", awaited), 1)
                self.assertIn("503 Later", str(error))

    def test_put_off(self) -> None:
        """Those that are to come later are handed back, if the caller cares; the others stay."""
        answers = iter([b"HTTP/1.1 503 Later\r\n\r\n", b"HTTP/1.1 101 Yes\r\n\r\nwelcome"])
        with Conversation(lambda data: next(answers)) as server, Client() as client:
            openings = [Opening(server.address, b"hello", b"welcome")] * 2
            put_off: list[Opening] = []
            self.assertEqual(list(client.open_each(openings, 1, put_off).values()), [b""])
            self.assertEqual(put_off, openings[:1])

    def test_closing_server(self) -> None:
        """A publisher connects again where the server closes a connection after its answer."""
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        self.assertTrue(closes(answer))
        with Conversation(lambda data: answer if data else None) as server, Publisher(server.address, 1) as publisher:
            for _ in range(3):
                publisher.send(http_get("/"))
                publisher.finish()
            self.assertGreaterEqual(server.connections, 3)


class ProcTests(SynchronousTestCase):
    """What is read from /proc about a process."""

    def test_own_process(self) -> None:
        """This process has used CPU and memory."""
        self.assertGreater(sum(cpu_seconds(os.getpid())), 0)
        self.assertGreater(pss_bytes(os.getpid()), 1_000_000)


class TargetTests(SynchronousTestCase):
    """Servers are started and always ended."""

    def test_ended_when_the_measurement_fails(self) -> None:
        """An exception in the block ends the server."""
        target = LimitPython()

        def fail() -> None:
            with target.running(None):
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, fail)
        self.assertFalse(Path(f"/proc/{target.pid}").exists())

    def test_does_not_start(self) -> None:
        """A server that ends at once is reported with what it said last."""

        class Broken(LimitPython):
            def command(self, directory: Path) -> list[str]:
                return [sys.executable, "-c", "raise SystemExit('no such thing')"]

        def start() -> None:
            with Broken().running(None):
                self.fail("it cannot be running")

        error = self.assertRaises(BenchmarkError, start)
        self.assertIn("no such thing", str(error))


class StreamTests(SynchronousTestCase):
    """`Stream` publishes at a steady rate, and sees what comes out."""

    def run_stream(self, request: Callable[[str, str], bytes], target: LimitPython) -> list[float]:
        """Publish 20 messages with these requests to a server with one channel."""
        with target.running(None), Client() as client:
            sending = Sending(Opening(target.http, b"", None), request, target.whole)
            return Stream(client, [target.websocket()], sending, ["a"]).run(payloads(Scale()), 0.1, 200)

    def test_each_is_seen_once(self) -> None:
        """There is a time for every message."""
        target = LimitPython()
        latencies = self.run_stream(lambda channel, payload: target.publish(payload), target)
        self.assertEqual(len(latencies), 20)
        self.assertTrue(all(latency > 0 for latency in latencies))

    def test_doubled(self) -> None:
        """A message that comes twice is an error."""
        target = LimitPython()
        error = self.assertRaises(
            BenchmarkError, self.run_stream, lambda channel, payload: target.publish("<0000000000>"), target
        )
        self.assertIn("message 0 came after message 0", str(error))


class PairsTests(SynchronousTestCase):
    """`Pairs` publishes to many channels, and counts what comes out of each."""

    def pairs(self, channels: Sequence[int], publish: Sequence[int]) -> int:
        """Follow channels and publish to others for a moment; return the messages."""
        target = LimitPython()
        with target.running(None), Client() as client, Publisher(target.publishing, 2) as publisher:
            requests = [target.publish("hello", channel) for channel in publish]
            return Pairs(client, client.open_each(map(target.websocket, channels)), publisher).run(requests, 0.05)

    def test_each_to_its_own(self) -> None:
        """Whole rounds are published, and all of it comes."""
        messages = self.pairs(range(5), range(5))
        self.assertGreater(messages, 0)
        self.assertEqual(messages % 5, 0)

    def test_to_another(self) -> None:
        """A message on another's channel is an error, though the sum is right."""
        error = self.assertRaises(BenchmarkError, self.pairs, [0, 1], [0, 0])
        self.assertIn("another channel's subscriber", str(error))


class PeerTests(SynchronousTestCase):
    """Other projects' servers: those that are here serve what they say they can."""

    def test_each_that_is_here(self) -> None:
        """A message comes to the WebSocket of its channel, and to no other; polls and streams are accepted."""
        # Debian's Pushpin loses a message now and then ("message out of sequence"): that is not ours to test.
        peers = [kind for kind in ALL_TARGETS if kind.peer and kind.name != "pushpin" and kind.missing() is None]
        if not peers:
            raise SkipTest("no peer is installed: python -m benchmarks --install-peers")
        for kind in peers:
            target = kind()
            with target.running(None), Client() as client, Publisher(target.publishing, 1) as publisher:
                requests = [target.publish("hello", channel) for channel in (3, 4)]
                pairs = Pairs(client, client.open_each(map(target.websocket, (3, 4))), publisher)
                self.assertGreater(pairs.run(requests, 0.02), 0, kind.name)
                if Ability.SSE in kind.abilities:
                    client.open(target.sse(), 2)
                if Ability.POLL in kind.abilities:
                    client.open(target.poll(b""), 2)
            self.assertTrue(kind.settings and target.versions(), kind.name)

    def test_names(self) -> None:
        """No two servers and no two scenarios have the same name, and no two figures the same key."""
        for names in (
            [kind.name for kind in ALL_TARGETS],
            [scenario.name for scenario in ALL_SCENARIOS],
            [figure.key for scenario in ALL_SCENARIOS for figure in scenario.figures],
        ):
            self.assertEqual(len(set(names)), len(names))

    def test_cursor_of_nchan(self) -> None:
        """Its cursor is in the head of the answer, and goes back in the head of the next poll."""
        target = Nchan()
        cursor = target.cursor(b"HTTP/1.1 200 OK\r\nLast-Modified: yesterday\r\nEtag: 7\r\n\r\nhello")
        request = target.poll(cursor).request
        self.assertIn(b"\r\nIf-Modified-Since: yesterday\r\nIf-None-Match: 7\r\n\r\n", request)

    def test_missing_package(self) -> None:
        """A package that is not installed is not there."""
        self.assertIsNone(python_with(("surely-not-installed",)))


class MassTests(SynchronousTestCase):
    """Crowds of load processes, against workers."""

    def setUp(self) -> None:
        """See whether there is Redis, and hurry."""
        if RtpushWorkers.missing():
            raise SkipTest("there is no redis-server")
        self.patch(RtpushWorkers, "heartbeat", 1.0)
        self.patch(mass, "_PERIOD", 1.0)
        self.target = RtpushWorkers()

    def measure(self, scenario: Scenario) -> Sample:
        """Measure a scenario, tiny."""
        scale = Scale(many=40, minutes=0.0, returning=30)
        scenario.prepare(self.target, scale)
        with self.target.running(None):
            return scenario.measure(self.target, scale)

    def test_many(self) -> None:
        """Connections of all transports stay through heartbeats, and each gets its message."""
        sample = self.measure(mass.Many())
        self.assertEqual(sample.values["many-held"], 40)
        self.assertEqual(sample.values["many-dropped"], 0)
        self.assertEqual(sample.values["many-delivered"], 1)
        self.assertGreater(sample.details["heartbeats"], 0)

    def test_return(self) -> None:
        """All come back, and get what was published while the server was away."""
        sample = self.measure(mass.Return())
        for key in ("return-asked", "return-at-once"):
            self.assertLessEqual(sample.values[f"{key}-p50"], sample.values[key])
            self.assertGreaterEqual(sample.details[f"{key} attempts"], 30)


class CommandTests(SynchronousTestCase):
    """``python -m benchmarks`` as a user runs it."""

    def run_command(self, *arguments: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments],
            cwd=_ROOT,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def check_figures(self, targets: Sequence[type[Target]], scenarios: Sequence[Scenario]) -> None:
        """Run scenarios against targets, tiny, and see that each gives every figure."""
        path = Path(self.mktemp()).resolve()
        done = self.run_command(
            "--servers", ",".join(kind.name for kind in targets),
            "--scenarios", ",".join(scenario.name for scenario in scenarios),
            "--connections", "20", "--subscribers", "10", "--handshakes", "300",
            "--channels", "10", "--seconds", "0.1", "--rounds", "1", "--output", str(path),
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(path.with_name(path.name + ".json").read_text())
        self.assertEqual(result["errors"], [])
        for scenario in scenarios:
            able = {kind.name for kind in targets if scenario.needs <= kind.abilities}
            for figure in scenario.figures:
                self.assertEqual(set(result["figures"][figure.key]), able, figure.key)
                self.assertIn(figure.title, done.stdout)

    def test_every_scenario(self) -> None:
        """Each runs against the loop in Python, but the one that this cannot do; nothing is lost on the way."""
        able = [scenario for scenario in SCENARIOS if scenario.needs <= LimitPython.abilities]
        self.assertEqual({each.name for each in SCENARIOS} - {each.name for each in able}, {"publish-batch"})
        self.check_figures([LimitPython], able)

    def test_every_plain_server(self) -> None:
        """Each serves WebSockets, event streams and polls."""
        names = ("memory-sse", "fanout-loaded", "one-to-one", "polls")
        targets = [kind for kind in (LimitC, LimitJoined, Autobahn) if kind.missing() is None]
        self.check_figures(targets, [scenario for scenario in SCENARIOS if scenario.name in names])

    def test_across_nodes(self) -> None:
        """Two nodes on one Redis, beside Redis alone: what is published at one comes out at the other."""
        if TwoNodes.missing():
            raise SkipTest("there is no redis-server")
        path = Path(self.mktemp()).resolve()
        ways = ("nodes-http", "nodes-websocket", "nodes-redis")
        done = self.run_command(
            "--nodes", "--servers", "rtpush-redis,redis",
            "--scenarios", ",".join((*ways, "nodes-publish-batch", "nodes-publish-redis", "nodes-subscribe")),
            "--storm", "1000", "--seconds", "0.2", "--rounds", "1", "--output", str(path),
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(path.with_name(path.name + ".json").read_text())
        self.assertEqual(result["errors"], [])
        figures = result["figures"]
        for server in (TwoNodes.name, BareRedis.name):
            for way in ways:
                self.assertLess(0, figures[f"{way}-p50"][server])
                self.assertLessEqual(figures[f"{way}-p50"][server], figures[f"{way}-p99"][server])
            for flood in ("nodes-publish-batch", "nodes-publish-redis", "subscriptions"):
                self.assertGreater(figures[flood][server], 0)
        # Channels are followed in batches: not a round trip for each.
        self.assertGreater(figures["subscribe-calls"][TwoNodes.name], 0)
        self.assertLess(figures["subscribe-calls"][TwoNodes.name], 0.1)
        self.assertIn("rtpush, 2 nodes : Redis alone", done.stdout)

    def test_without_redis(self) -> None:
        """Where there is no redis-server, what needs it is left out, and that is said."""
        path = Path(self.mktemp()).resolve()
        done = self.run_command("--nodes", "--servers", "rtpush-redis,redis", "--output", str(path), path="/nowhere")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for name in ("rtpush-redis", "redis"):
            self.assertIn(f"{name}: left out, this machine has no redis-server\n", done.stderr)

    def test_unknown_server(self) -> None:
        """A name that is not known is refused with those that are."""
        done = self.run_command("--servers", "apache")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'apache' is not one of rtpush", done.stderr)
