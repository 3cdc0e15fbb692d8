"""Real nginxes in front of servers: one that does harm, as a test likes, and one as it is shipped."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from tests.support.ports import reserved_port
from tests.support.processes import Process, children_of, program
from tests.support.shipped import shipped
from tests.support.waiting import soon, until

__all__ = ["NETWORKS", "BalancingNginx", "Nginx"]

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


#: Where the nodes are in the shipped one.
_NODES = """\
        server 127.0.0.1:8081 max_fails=3 fail_timeout=3s;
        server 127.0.0.1:8082 max_fails=3 fail_timeout=3s;
"""


class _Nginx:
    """
    An nginx with a directory and a port of its own.

    :ivar port: Where it listens, on 127.0.0.1.
    :ivar url: The same as a URL.
    """

    def __init__(self, test: TestCase) -> None:
        self._test = test
        self._command = program("nginx")
        self._directory = Path(tempfile.mkdtemp(prefix="rtpush-nginx-"))
        test.addCleanup(shutil.rmtree, self._directory, ignore_errors=True)
        self._file = self._directory / "nginx.conf"
        self._process: Process | None = None
        self._agent = Agent(reactor)
        self.port = reserved_port(test)
        self.url = f"http://127.0.0.1:{self.port}/"

    def _run(self, *arguments: str) -> Process:
        return Process(
            self._test,
            [self._command, "-e", "stderr", "-p", str(self._directory), "-c", str(self._file), *arguments],
        )

    async def _begin(self) -> None:
        self._process = self._run()
        await until(self._listens, "nginx to listen", seen=lambda: str(self._process))

    async def _reload(self) -> None:
        reload = self._run("-s", "reload")
        code = await soon(reload.ended())
        if code != 0:
            raise AssertionError(f"nginx does not reload: {reload}")

    async def _get(self, path: str) -> bytes:
        response = await soon(self._agent.request(b"GET", f"{self.url}{path}".encode()))
        body: bytes = await soon(readBody(response))
        return body

    async def _listens(self) -> bool:
        if self._process is not None and self._process.code is not None:
            raise AssertionError(f"nginx has ended: {self._process}")
        try:
            await self._get("")
        except ConnectError:
            return False
        return True


class Nginx(_Nginx):
    """
    An nginx before a server.

    :ivar url: The server as it is reached without harm.
    :ivar network_url: The server as the network lets it be seen, which is one of :data:`NETWORKS`.
    """

    def __init__(self, test: TestCase, upstream: int) -> None:
        super().__init__(test)
        self._upstream = upstream
        self.network_url = f"{self.url}net/"

    @classmethod
    async def start(cls, test: TestCase, upstream: int, network: str = "good") -> Nginx:
        """Start one before the server on a port of 127.0.0.1."""
        nginx = cls(test, upstream)
        nginx._configure(network)
        await nginx._begin()
        return nginx

    async def switch(self, network: str) -> None:
        """Change the network: what was open before is cut when this has a result."""
        before = int(await self._get("worker"))
        self._configure(network)
        await self._reload()
        await until(
            lambda: not os.path.exists(f"/proc/{before}"),
            "the old worker of nginx to end",
            seen=lambda: str(self._process),
        )

    def _configure(self, network: str) -> None:
        self._file.write_text(
            _CONFIG.format(
                user=_user(),
                directory=self._directory,
                port=self.port,
                upstream=self._upstream,
                network=NETWORKS[network],
            )
        )


class BalancingNginx(_Nginx):
    """
    An nginx before nodes.

    It differs from the one that is shipped only in where it is and who runs it.
    """

    def __init__(self, test: TestCase, ports: Sequence[int]) -> None:
        super().__init__(test)
        self._ports = ports

    @classmethod
    async def start(cls, test: TestCase, ports: Sequence[int]) -> BalancingNginx:
        """Start one before the nodes on ports of 127.0.0.1; they need not be there yet."""
        nginx = cls(test, ports)
        nginx._configure(())
        await nginx._begin()
        return nginx

    async def check(self) -> str:
        """Let nginx check its configuration; return what it says."""
        check = self._run("-t")
        code = await soon(check.ended())
        if code != 0:
            raise AssertionError(f"nginx refuses its configuration: {check}")
        return check.err.decode()

    async def take_out(self, *down: int) -> None:
        """Mark the nodes on some ports as down, and reload: what is open stays open in the old workers."""
        if self._process is None:
            raise AssertionError("nginx does not run")
        before = children_of(self._process.pid)
        self._configure(down)
        await self._reload()
        await until(
            lambda: not any(map(_takes_new, before)),
            "the old workers of nginx to take no new connections",
            seen=lambda: str(self._process),
        )

    def _configure(self, down: Collection[int]) -> None:
        nodes = "".join(
            f"        server 127.0.0.1:{port} {'down' if port in down else 'max_fails=3 fail_timeout=3s'};\n"
            for port in self._ports
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        directories = "".join(f"    {kind}_temp_path {self._directory}/{kind};\n" for kind in kinds)
        self._file.write_text(
            shipped(
                "nginx.conf",
                {
                    "user www-data;\n": f"daemon off;\n{_user()}\n",
                    "/run/nginx.pid": f"{self._directory}/nginx.pid",
                    "/var/log/nginx/error.log": "stderr",
                    "http {\n": f"http {{\n{directories}",
                    "listen 8000 ": f"listen 127.0.0.1:{self.port} ",
                    _NODES: nodes,
                },
            )
        )


def _user() -> str:
    """Return the line that lets workers run as root where root runs the tests: the directory is only its own."""
    return f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""


def _takes_new(worker: int) -> bool:
    """Tell whether a worker accepts connections: one that does not any more says so in its title, or is gone."""
    try:
        return b"shutting down" not in Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
