"""A real nginx in front of a server, whose behaviour a test can change while connections are open."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from tests.support.processes import Process, program
from tests.support.waiting import soon, until

__all__ = ["NETWORKS", "Nginx"]

_UPGRADE = """
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
"""

# HTTP/1.0 is what nginx speaks to a server if it is not told otherwise. In HTTP/1.1 it would pass on each chunk.
_BUFFERS = """
    proxy_http_version 1.0;
    proxy_buffering on;
    proxy_ignore_headers X-Accel-Buffering;
    proxy_buffer_size 64k;
    proxy_buffers 16 256k;
    proxy_busy_buffers_size 512k;
"""

#: What the network may do to those who go through it.
NETWORKS = {
    "good": _UPGRADE + "proxy_buffering off; proxy_read_timeout 1h;",
    # Upgrade and Connection are hop-by-hop headers, which nginx does not pass on by itself.
    "no websocket": "proxy_buffering off; proxy_read_timeout 1h;",
    "no websocket, buffers": _BUFFERS + "proxy_read_timeout 1h;",
    "cuts after 5 s": _UPGRADE + "proxy_buffering off; proxy_read_timeout 5s;",
}

_CONFIG = """
daemon off;
worker_processes 1;
{user}
pid {directory}/nginx.pid;
error_log stderr notice;
worker_shutdown_timeout 50ms;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    types {{ text/html html; }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port} backlog=512;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        # The worker tells who it is, so that it can be seen when a new one has taken over.
        location = /worker {{ return 200 "$pid"; }}
        location = /empty.html {{ default_type text/html; return 200 "<!doctype html><title>empty</title>"; }}
        # The page comes through whatever happens; what it talks to is behind /net/.
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location /net/ {{
            proxy_pass http://127.0.0.1:{upstream}/;
            {network}
        }}
    }}
}}
"""


class Nginx:
    """
    An nginx before a server.

    :ivar url: The server as it is reached without harm.
    :ivar network_url: The server as the network lets it be seen, which is one of :data:`NETWORKS`.
    """

    def __init__(self, test: TestCase, upstream: int) -> None:
        self._test = test
        self._command = program("nginx")
        self._upstream = upstream
        self._directory = Path(tempfile.mkdtemp(prefix="rtpush-nginx-"))
        test.addCleanup(shutil.rmtree, self._directory, ignore_errors=True)
        self._process: Process | None = None
        self._agent = Agent(reactor)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.network_url = f"{self.url}net/"

    @classmethod
    async def start(cls, test: TestCase, upstream: int, network: str = "good") -> Nginx:
        """Start one before the server on a port of 127.0.0.1."""
        nginx = cls(test, upstream)
        nginx._configure(network)
        nginx._process = Process(
            test, [nginx._command, "-e", "stderr", "-p", str(nginx._directory), "-c", str(nginx._file)]
        )
        await until(nginx._listens, "nginx to listen", seen=lambda: str(nginx._process))
        return nginx

    async def switch(self, network: str) -> None:
        """Change the network: what was open before is cut when this has a result."""
        before = await self._worker()
        self._configure(network)
        reload = Process(
            self._test,
            [self._command, "-e", "stderr", "-p", str(self._directory), "-c", str(self._file), "-s", "reload"],
        )
        code = await soon(reload.ended())
        if code != 0:
            raise AssertionError(f"nginx does not reload: {reload}")
        await until(
            lambda: not os.path.exists(f"/proc/{before}"),
            "the old worker of nginx to end",
            seen=lambda: str(self._process),
        )

    @property
    def _file(self) -> Path:
        return self._directory / "nginx.conf"

    def _configure(self, network: str) -> None:
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        self._file.write_text(
            _CONFIG.format(
                user=user,
                directory=self._directory,
                port=self.port,
                upstream=self._upstream,
                network=NETWORKS[network],
            )
        )

    async def _listens(self) -> bool:
        if self._process is not None and self._process.code is not None:
            raise AssertionError(f"nginx has ended: {self._process}")
        try:
            return await self._worker() > 0
        except ConnectError:
            return False

    async def _worker(self) -> int:
        response = await soon(self._agent.request(b"GET", f"{self.url}worker".encode()))
        return int(await soon(readBody(response)))


def _free_port() -> int:
    # nginx cannot be asked which port it took, so one is chosen for it.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
