"""TLS of a running server: who needs a certificate, and what a reload does to those who are there."""

from __future__ import annotations

import json
import os
import signal
import ssl
from pathlib import Path

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.certificates import Issued, issue
from tests.support.http2 import Http2Client
from tests.support.processes import Process, program
from tests.support.server import Server, write_config
from tests.support.waiting import soon, until

_KEY = "key-0123456789abcdef"


class BackendTests(TestCase):
    """The certificates of backends."""

    timeout = 60

    async def _ask(self, url: str, *arguments: str) -> bytes:
        curl = Process(self, [program("curl"), "-sk", "-m", "10", "--write-out", "%{http_code}", *arguments, url])
        await soon(curl.ended())
        return curl.out[-3:]

    async def test_needed(self) -> None:
        """With ``client_ca``, the server API is for those with a certificate and a key; all else is for all."""
        root, shown = issue(self, "Root", authority=True), issue(self, "localhost")
        address = f"ssl:0:interface=127.0.0.1:privateKey={shown.key}:certKey={shown.certificate}"
        path = write_config(
            self,
            {
                "server": {"listen": f"tcp:0:interface=127.0.0.1\n  {address}"},
                "api": {"open": "no", "keys": _KEY, "listen": address + ":backlog=100"},
                "tls": {"client_ca": root.certificate},
            },
        )
        server = await Server.start_with(self, path)
        api = int((await server.process.says(rb"listening on ssl:[^\n]*backlog=100[^\n]* port=(\d+)"))[1])
        public = int((await server.process.says(rb"listening on ssl:[^\n]*pem \(\S+ [^\n]* port=(\d+)"))[1])
        self.assertEqual(await self._ask(f"https://127.0.0.1:{public}/healthz"), b"200")
        own, strange = issue(self, "backend", by=root), issue(self, "backend")
        call = f"https://127.0.0.1:{api}/api/v1/info"
        key = ("-H", f"X-API-Key: {_KEY}", "-d", "{}")

        def with_(issued: Issued) -> tuple[str, ...]:
            return ("--cert", issued.certificate, "--key", issued.key)

        self.assertEqual(await self._ask(call, *key), b"000")
        self.assertEqual(await self._ask(call, *key, *with_(strange)), b"000")
        self.assertEqual(await self._ask(call, *with_(own), "-d", "{}"), b"401")
        self.assertEqual(await self._ask(call, *key, *with_(own)), b"200")
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)


class ReloadTests(TestCase):
    """Other certificates while clients are there."""

    timeout = 60

    async def test_under_load(self) -> None:
        """While certificates are changed again and again, nobody is dropped, and nobody who comes is refused."""
        files = [issue(self, name) for name in ("old.example", "new.example")]
        both = Path(self.mktemp()).absolute()

        def put(issued: Issued) -> None:
            fresh = both.with_suffix(".new")
            fresh.write_text(issued.pem + Path(issued.key).read_text())
            os.replace(fresh, both)

        put(files[0])
        path = write_config(
            self,
            {
                "server": {"listen": "tcp:0:interface=127.0.0.1\n  ssl:0:interface=127.0.0.1"},
                "tls": {"certificates": f"{both} {both}"},
            },
        )
        server = await Server.start_with(self, path)
        port = int((await server.process.says(rb"listening on ssl:[^\n]* port=(\d+)"))[1])
        stream = await (await Http2Client.connect(self, port)).follow("/sse?channel=demo:a")
        is_over = False
        answered = 0

        async def load() -> None:
            nonlocal answered
            body = json.dumps({"channel": "demo:a", "data": 1}).encode()
            while not is_over:
                client = await Http2Client.connect(self, port)
                for _ in range(3):
                    answer = await client.get("/api/v1/publish", body)
                    self.assertEqual(answer.status, 200)
                    answered += 1
                client.close()

        loading = [ensureDeferred(load()) for _ in range(4)]
        again = b"the configuration was read again"
        for number in range(1, 7):
            put(files[number % 2])
            server.process.signal(signal.SIGHUP)
            await until(lambda: server.process.out.count(again) == number, "the reload")  # noqa: B023
            some = answered + 8
            await until(lambda: answered > some, "requests")  # noqa: B023
        is_over = True
        await gatherResults(loading)
        await until(lambda: len(stream.data) == answered, "all messages")
        shown = await self._shown(port)
        self.assertEqual(shown, files[0].pem)
        self.assertNotIn(b"Traceback", server.process.out + server.process.err)

    async def _shown(self, port: int) -> str:
        return str(await deferToThread(ssl.get_server_certificate, ("127.0.0.1", port)))
