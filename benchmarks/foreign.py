"""Servers from elsewhere that speak their own HTTP: nginx with nchan, and Pushpin."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.launch import await_answer, await_listening, free_port, launched
from benchmarks.load import Opening, http_post
from benchmarks.target import Ability, Target

__all__ = ["FOREIGN_TARGETS", "Nchan", "Pushpin"]

_NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
_LAST_MODIFIED = re.compile(rb"\r\nLast-Modified: *([^\r]+)", re.IGNORECASE)
_ETAG = re.compile(rb"\r\nEtag: *([^\r]+)", re.IGNORECASE)

_NGINX_CONF = """
{user}daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
load_module {module};
worker_processes 1;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; multi_accept on; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 600;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    nchan_shared_memory_size 512M;
    nchan_message_buffer_length 100;
    nchan_message_timeout 300;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200; }}
        location ~ ^/publish/(\\w+)$ {{ nchan_publisher http; nchan_channel_id $1; nchan_channel_group bench; }}
        location ~ ^/ws/(\\w+)$ {{
            nchan_subscriber websocket; nchan_channel_id $1; nchan_channel_group bench;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/sse/(\\w+)$ {{
            nchan_subscriber eventsource; nchan_channel_id $1; nchan_channel_group bench;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/poll/(\\w+)$ {{
            nchan_subscriber longpoll; nchan_channel_id $1; nchan_channel_group bench;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


class Nchan(Target):
    """nginx with the module nchan."""

    name = "nchan"
    title = "nginx+nchan"
    settings = (
        "one worker, memory store of 512 MB, 100 messages for 300 s as rtpush, keep-alive without end, no access log "
        "(nchan.io, nginx's documentation on keepalive_requests and multi_accept)"
    )
    abilities = frozenset(
        {Ability.WEBSOCKET, Ability.FANOUT, Ability.SSE, Ability.POLL, Ability.CYCLE, Ability.PUBLISH}
    )
    peer = True

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("nginx", path=_PATH) and _NCHAN.exists() else "libnginx-mod-nchan of Debian"

    def versions(self) -> str:
        return f"{_debian('nginx')}, {_debian('libnginx-mod-nchan')}"

    def command(self, directory: Path) -> Sequence[str]:
        config = directory / "nginx.conf"
        config.write_text(
            _NGINX_CONF.format(
                # Root's worker would be somebody who may not read this directory.
                user="" if os.geteuid() else "user root;\n",
                directory=directory,
                module=_NCHAN,
                files=os.sysconf("SC_OPEN_MAX"),
                port=self.port,
            )
        )
        nginx = shutil.which("nginx", path=_PATH)
        assert nginx is not None
        return nginx, "-e", "stderr", "-p", str(directory), "-c", str(config)

    def publish(self, payload: str, channel: int = 0) -> bytes:
        return http_post(f"/publish/{channel}", payload.encode(), "text/plain")

    def poll(self, cursor: bytes) -> Opening:
        opening = super().poll(b"")
        if not cursor:
            return opening
        modified, etag = cursor.split(b"\n")
        head = opening.request[:-2] + b"If-Modified-Since: %b\r\nIf-None-Match: %b\r\n\r\n" % (modified, etag)
        return Opening(opening.address, head, None)

    def cursor(self, response: bytes) -> bytes:
        found = _LAST_MODIFIED.search(response), _ETAG.search(response)
        return b"\n".join(each[1] for each in found if each is not None)


_PUSHPIN_CONF = """
[global]
include=/usr/lib/pushpin/internal.conf
rundir={directory}
ipc_prefix=pushpin-
port_offset=0
[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={directory}
log_level=1
client_buffer_size=8192
client_maxconn={connections}
[proxy]
routesfile={directory}/routes
zurl_out_specs=ipc://{directory}/pushpin-zurl-in
zurl_out_stream_specs=ipc://{directory}/pushpin-zurl-in-stream
zurl_in_specs=ipc://{directory}/pushpin-zurl-out
updates_check=off
[handler]
push_in_spec=ipc://{directory}/push
push_in_sub_specs=ipc://{directory}/sub
push_in_http_addr=127.0.0.1
push_in_http_port={publishing}
push_in_http_max_headers_size=10000
push_in_http_max_body_size=1000000
command_spec=ipc://{directory}/command
message_rate=1000000000
message_hwm=1000000000
message_wait=0
connection_subscription_max=20
"""


class Pushpin(Target):
    """Pushpin before a backend that only says what is followed."""

    name = "pushpin"
    title = "Pushpin"
    settings = (
        "message_rate without a limit, message_wait=0, logs off; WebSocket-over-HTTP; all its processes count and "
        "share the server's core; its backend (pushpin_backend.py) is on the client's core and is not counted; it "
        "closes a connection after each publish"
    )
    # A poll that is on its way back goes by the backend, which would have to keep what is published meanwhile.
    abilities = frozenset(
        {Ability.WEBSOCKET, Ability.FANOUT, Ability.SSE, Ability.POLL, Ability.PUBLISH, Ability.BATCH}
    )
    peer = True
    # With more it loses some now and then ("received message out of sequence, canceling").
    window = 4

    def __init__(self) -> None:
        super().__init__()
        self._backend_port = self._control_port = 0

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("pushpin") else "pushpin of Debian"

    def versions(self) -> str:
        return _debian("pushpin")

    @contextmanager
    def running(self, core: int | None) -> Iterator[None]:
        self._backend_port, self._control_port = free_port(), free_port()
        program = str(Path(__file__).resolve().parent / "peers" / "pushpin_backend.py")
        command = (sys.executable, program, str(self._backend_port))
        beside = frozenset(os.sched_getaffinity(0))
        with tempfile.TemporaryDirectory(prefix="rtpush-benchmark-") as name:
            with launched("backend", command, self._backend_port, Path(name), beside), super().running(core):
                # Its processes find each other later.
                await_listening(self._control_port, lambda: True, lambda: "pushpin-handler did not start")
                await_answer(self.port, "/")
                yield

    def command(self, directory: Path) -> Sequence[str]:
        (directory / "routes").write_text(f"* 127.0.0.1:{self._backend_port},over_http\n")
        config = directory / "pushpin.conf"
        config.write_text(
            _PUSHPIN_CONF.format(
                directory=directory,
                port=self.port,
                publishing=self._control_port,
                connections=os.sysconf("SC_OPEN_MAX") - 500,
            )
        )
        return "pushpin", "--merge-output", f"--config={config}"

    @property
    def publishing(self) -> tuple[str, int]:
        return "127.0.0.1", self._control_port

    def publish(self, payload: str, channel: int = 0) -> bytes:
        return _items([_item(channel, "ws-message", "content", payload)])

    def answer(self, payload: str) -> bytes:
        return _items([_item(0, "http-response", "body", payload)])

    def batch(self, payloads: Sequence[str]) -> bytes:
        return _items([_item(0, "ws-message", "content", payload) for payload in payloads])


def _item(channel: int, kind: str, key: str, payload: str) -> dict[str, object]:
    return {"channel": str(channel), "formats": {kind: {key: payload}}}


def _items(items: list[dict[str, object]]) -> bytes:
    return http_post("/publish/", json.dumps({"items": items}).encode())


def _debian(package: str) -> str:
    asked = ["dpkg-query", "--show", "--showformat=${Package} ${Version}", package]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout or package


FOREIGN_TARGETS: tuple[type[Target], ...] = (Nchan, Pushpin)
