"""The client of the ``websockets`` package."""

from __future__ import annotations

import json
import os
import ssl
import tempfile
from typing import Any

from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from tests.transports.loopback import LoopbackTestCase
from tests.transports.serving import CONFIG

#: What conformance suites send at most.
LARGE = 16 * 1024 * 1024


class WebsocketsTestCase(LoopbackTestCase):
    """Its blocking client, in a thread."""

    def open(self, path: str = "/echo", **options: Any) -> ClientConnection:
        """Connect."""
        settings: dict[str, Any] = {"compression": None, "max_size": None, "open_timeout": 20, "close_timeout": 20}
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, **(settings | options))


class EchoTests(WebsocketsTestCase):
    """Messages."""

    config = (
        CONFIG.replace("message_bytes = 65536", f"message_bytes = {LARGE}")
        .replace("request_bytes = 262144", f"request_bytes = {2 * LARGE}")
        .replace("queue_bytes = 1048576", f"queue_bytes = {4 * LARGE}")
    )

    def _sizes(self, sizes: tuple[int, ...]) -> None:
        with self.open() as client:
            for size in sizes:
                payload = os.urandom(size)
                client.send(payload)
                self.assertEqual(client.recv(), payload)
                client.send("é" * (size // 2))
                self.assertEqual(client.recv(), "é" * (size // 2))

    async def test_sizes(self) -> None:
        """Messages of all sizes come back."""
        await self.in_thread(self._sizes, (0, 1, 125, 126, 127, 65535, 65536, 65537, 1_000_000))
        await self.nobody()

    async def test_largest(self) -> None:
        """The largest that are allowed too."""
        await self.in_thread(self._sizes, (LARGE,))
        await self.nobody()

    def _fragments(self) -> None:
        with self.open() as client:
            client.send(["κόσμε"[:2], "κόσμε"[2:], "", "😀"])
            self.assertEqual(client.recv(), "κόσμε😀")
            client.send([os.urandom(0), b"a" * 70_000, b"b"])
            self.assertEqual(client.recv(), b"a" * 70_000 + b"b")

            def with_pings() -> Any:
                for n in range(5):
                    self.assertTrue(client.ping(bytes((n,))).wait(20))
                    yield str(n)

            client.send(with_pings())
            self.assertEqual(client.recv(), "01234")

    async def test_fragments(self) -> None:
        """Fragments, with pings between, which are answered before the message is whole."""
        await self.in_thread(self._fragments)
        await self.nobody()

    def _pings(self) -> None:
        with self.open() as client:
            waiting = [client.ping(payload) for payload in (b"", b"x", b"y" * 125)]
            for pong in waiting:
                self.assertTrue(pong.wait(20))
            client.pong(b"unasked")
            client.send("still there")
            self.assertEqual(client.recv(), "still there")

    async def test_pings(self) -> None:
        """Pings are answered with their payload."""
        await self.in_thread(self._pings)

    def _many(self) -> None:
        with self.open() as client:
            for n in range(2000):
                client.send(f"message {n}")
            for n in range(2000):
                self.assertEqual(client.recv(), f"message {n}")

    async def test_many(self) -> None:
        """Many messages without waiting come back in their order."""
        await self.in_thread(self._many)


class CloseTests(WebsocketsTestCase):
    """Closing."""

    def _by_the_client(self) -> None:
        for code, reason in ((1000, ""), (1001, "going"), (3000, "é" * 61), (4999, "x" * 123)):
            client = self.open()
            client.close(code, reason)
            self.assertIsNotNone(client.close_code)
            self.assertIn(client.close_code, (code, 1000))

    async def test_by_the_client(self) -> None:
        """A close of the client is answered."""
        await self.in_thread(self._by_the_client)
        await self.nobody()

    def _receive_to_the_end(self, path: str, first: Any = None) -> ConnectionClosed:
        with self.open(path) as client:
            if first is not None:
                client.send(first)
            with self.assertRaises(ConnectionClosed) as caught:
                while True:
                    client.recv(20)
        error: ConnectionClosed = caught.exception
        return error

    async def test_by_the_server(self) -> None:
        """A disconnect of the server API arrives as a clean close, with code and reason."""
        closing = self.in_thread(self._receive_to_the_end, "/ws?channel=demo:a")
        await self.settle(lambda: bool(self.node.channels))
        connection = next(iter(self.node.connections.values()))
        await self.in_thread(self._disconnect, connection.id)
        error = await closing
        self.assertEqual((error.rcvd.code, error.rcvd.reason), (4123, "moved é"))
        self.assertTrue(error.rcvd_then_sent)
        await self.nobody()

    def _disconnect(self, connection: str) -> None:
        import http.client

        api = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"connection": connection, "code": 4123, "reason": "moved é"})
        api.request("POST", "/api/v1/disconnect", body)
        self.assertEqual(json.loads(api.getresponse().read()), {"result": {"disconnected": 1}})
        api.close()

    async def test_too_large(self) -> None:
        """A message over the limit is refused with 1009, which the client can read though it sent on."""
        for size in (65537, 300_000, 5_000_000):
            error = await self.in_thread(self._receive_to_the_end, "/echo", b"x" * size)
            self.assertIsInstance(error, ConnectionClosedError)
            self.assertEqual(error.rcvd.code, CloseCode.MESSAGE_TOO_BIG, size)
        await self.nobody()

    def _drop(self) -> None:
        client = self.open()
        client.socket.close()

    async def test_dropped(self) -> None:
        """A client that drops the connection leaves nothing."""
        for _ in range(5):
            await self.in_thread(self._drop)
        await self.nobody()


class HandshakeTests(WebsocketsTestCase):
    """Opening."""

    server = "allowed_origins = https://friend.example"

    def _refused(self, path: str, **options: Any) -> int:
        with self.assertRaises(InvalidStatus) as caught:
            self.open(path, **options)
        status: int = caught.exception.response.status_code
        return status

    async def test_refused(self) -> None:
        """A handshake that is refused has a status that says why."""
        for path, options, status in (
            ("/nothing", {}, 404),
            ("/ws?channel=unknown:a", {}, 404),
            ("/ws?channel=private:a", {}, 403),
            ("/ws", {"origin": "https://foe.example"}, 403),
            ("/ws", {"subprotocols": ["rtpush.raw"]}, 400),
        ):
            self.assertEqual(
                await self.in_thread(lambda path=path, options=options: self._refused(path, **options)), status
            )
        await self.nobody()

    def _subprotocol(self, *offered: str) -> str | None:
        with self.open("/ws?channel=demo:a", subprotocols=offered, origin="https://friend.example") as client:
            return client.subprotocol

    async def test_subprotocols(self) -> None:
        """The subprotocol is agreed on; one that the node does not know is not."""
        self.assertEqual(await self.in_thread(self._subprotocol, "rtpush.raw", "rtpush.v1"), "rtpush.v1")
        self.assertEqual(await self.in_thread(self._subprotocol, "rtpush.raw"), "rtpush.raw")
        self.assertIsNone(await self.in_thread(self._subprotocol, "chat"))

    def _talk(self) -> None:
        with self.open("/ws", subprotocols=["rtpush.v1"]) as client:
            client.send(json.dumps({"id": 1, "subscribe": {"channel": "demo:a"}}))
            self.assertEqual(json.loads(client.recv(20))["id"], 1)
            client.send(json.dumps({"id": 2, "publish": {"channel": "demo:a", "data": "é"}}))
            heard = [json.loads(client.recv(20)) for _ in range(2)]
            self.assertEqual(heard[0]["id"], 2)
            self.assertEqual(heard[1]["message"]["data"], "é")

    async def test_talk(self) -> None:
        """It talks with the node."""
        await self.in_thread(self._talk)
        await self.nobody()


class CompressionTests(WebsocketsTestCase):
    """Its permessage-deflate."""

    sections = "[api]\nopen = yes\n[websocket]\ncompression = yes"

    def _compressed(self) -> None:
        with self.open(compression="deflate") as client:
            self.assertIn("permessage-deflate", client.response.headers["Sec-WebSocket-Extensions"])
            for size in (0, 1, 100, 60_000):
                for message in ("x" * size, os.urandom(size)):
                    client.send(message)
                    self.assertEqual(client.recv(20), message)
            client.send(["a" * 1000, "b" * 1000, "c"])
            self.assertEqual(client.recv(20), "a" * 1000 + "b" * 1000 + "c")
            with self.assertRaises(ConnectionClosedError) as caught:
                client.send("x" * 10_000_000)
                client.recv(20)
            self.assertEqual(caught.exception.rcvd.code, 1009)

    async def test_compressed(self) -> None:
        """Compressed messages, whole and in fragments, and one that would be too large."""
        await self.in_thread(self._compressed)
        await self.nobody()

    def _uncompressed(self) -> None:
        with self.open(compression=None) as client:
            self.assertNotIn("Sec-WebSocket-Extensions", client.response.headers)
            client.send("x" * 1000)
            self.assertEqual(client.recv(20), "x" * 1000)

    async def test_uncompressed(self) -> None:
        """A client that does not want it goes without."""
        await self.in_thread(self._uncompressed)


class TlsTests(WebsocketsTestCase):
    """The same behind TLS."""

    def setUp(self) -> Any:
        self.certificate = _certificate()
        self.addCleanup(os.unlink, self.certificate)
        self.endpoint = f"ssl:0:interface=127.0.0.1:privateKey={self.certificate}:certKey={self.certificate}"
        return super().setUp()

    def _secure(self, path: str, **options: Any) -> ClientConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return connect(
            f"wss://127.0.0.1:{self.port}{path}", proxy=None, ssl=context, compression=None, max_size=None, **options
        )

    def _talk(self) -> None:
        with self._secure("/echo") as client:
            for size in (0, 1, 126, 65536):
                client.send(b"x" * size)
                self.assertEqual(client.recv(20), b"x" * size)
        with self._secure("/echo") as client:
            with self.assertRaises(ConnectionClosedError) as caught:
                client.send(b"x" * 100_000)
                client.recv(20)
            self.assertEqual(caught.exception.rcvd.code, 1009)
        with self._secure("/ws?channel=demo:a", subprotocols=["rtpush.v1"]) as client:
            self.assertIn("subscribed", json.loads(client.recv(20)))

    async def test_talk(self) -> None:
        """Messages, a failure that the client can read, and commands."""
        await self.in_thread(self._talk)
        await self.nobody()

    def _plain(self) -> None:
        with self.assertRaises((InvalidHandshake, OSError, EOFError)):
            self.open("/ws")

    async def test_plain(self) -> None:
        """A client without TLS is let down, without harm."""
        await self.in_thread(self._plain)
        await self.nobody()


def _certificate() -> str:
    """Write a certificate for this machine with its key into a file; return its path."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    handle, path = tempfile.mkstemp(suffix=".pem")
    with os.fdopen(handle, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    return path
