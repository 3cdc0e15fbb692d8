"""
The dashboard, at ``/admin/``: its pages, its sessions, and the stream that feeds it.

The stream is rtpush's own. While somebody watches there is a second, small node in this process, which nobody else can
reach: each second a snapshot is published to its one channel, and a viewer follows that as any client follows any
channel, with history and a cursor. What the dashboard shows is not changed by who looks at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource

from rtpush.api.cluster import perform
from rtpush.api.resources import ApiCall
from rtpush.api.snapshot import Look
from rtpush.auth.origin import Origins
from rtpush.auth.sessions import Sessions
from rtpush.errors import Disconnect, ErrorCode, RtpushError
from rtpush.protocol.bucket import TokenBucket
from rtpush.protocol.channel import Access
from rtpush.protocol.codecs import JSON
from rtpush.protocol.commands import Publication
from rtpush.protocol.message import Kind, Payload
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint, NotFound
from rtpush.transports.http import Request, answer_json, read_body
from rtpush.transports.sse import SseResource

__all__ = ["CHANNEL", "Dashboard"]

#: The channel of the stream.
CHANNEL = "snapshots"

#: Seconds that a session lasts.
LIFETIME = 8 * 3600.0

#: Seconds after which a viewer has to come again: so that a session which is over ends its stream too.
TURN = 60.0

#: Seconds for which snapshots are made after the last viewer has gone: a page that is loaded again finds them.
LINGER = 5.0

#: Logins a second in the long run, and at once.
LOGIN_RATE, LOGIN_BURST = 3.0, 10

_COOKIE = "rtpush_admin"

#: What of the server API the dashboard uses.
_CALLS = ("publish", "history", "presence", "channels", "connections", "disconnect")

_HEADERS = {
    b"content-security-policy": b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}

_log = Logger()


class _Login(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST login``."""

    key: str


class Dashboard(Resource):
    """
    Everything below ``/admin``.

    :param pages: What is served for every path that is not one of ours.
    :param sessions: Who may.
    :param open_: Whether everybody may who reaches this server.
    :param make_viewers: Makes the node of the stream; it has no broker but its own, and a namespace for channels
        without a colon.
    """

    def __init__(
        self, node: Node, pages: IResource, sessions: Sessions, *, open_: bool, make_viewers: Callable[[], Node]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pages = pages
        # Pages of other origins have no business here, whatever they may do elsewhere.
        origins = Origins(())
        gate = _Gate(node, sessions, open_=open_)
        self.putChild(b"session", _Session(origins, gate))
        self.putChild(b"login", _LogIn(origins, gate))
        self.putChild(b"logout", _LogOut(origins, gate))
        self.putChild(b"feed", _Feed(origins, gate, _Stream(node, make_viewers)))
        calls = NotFound(origins)
        self.putChild(b"api", calls)
        for name in _CALLS:
            calls.putChild(name.encode(), ApiCall(node, origins, gate, name))

    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        """Return what a path names, with the headers that all of it has."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        child: IResource = super().getChildWithDefault(path, request)  # type: ignore[no-untyped-call]
        return child

    def getChild(self, path: bytes, request: Any) -> IResource:
        """Return the page."""
        page: IResource = self._pages.getChildWithDefault(path, request)
        return page

    def render(self, request: Any) -> bytes:
        """Redirect to where the page's relative addresses are right, whatever prefix a proxy has cut off."""
        path, mark, query = request.uri.partition(b"?")
        request.setResponseCode(308)
        request.setHeader(b"location", path.rpartition(b"/")[2] + b"/" + mark + query)
        return b""


class _Gate:
    """Lets requests in that have a session, and opens sessions."""

    def __init__(self, node: Node, sessions: Sessions, *, open_: bool) -> None:
        self._clock = node.clock
        self._sessions = sessions
        self._logins = TokenBucket(LOGIN_RATE, LOGIN_BURST, node.clock.seconds())
        self.is_open = open_

    @property
    def is_closed(self) -> bool:
        """Whether nobody can be let in."""
        return not self.is_open and not self._sessions.can_open

    def check(self, request: Request) -> None:
        """
        Let a request pass that has a session.

        :raises RtpushError: ``unauthorized`` if it has none, ``origin_not_allowed`` if another site's page made it.
        """
        self.check_origin(request)
        if not self.is_open and self.left(request) is None:
            raise RtpushError(ErrorCode.UNAUTHORIZED, "there is no session, or it is over: log in with an API key")

    @staticmethod
    def check_origin(request: Request) -> None:
        """
        Let a request pass that a page of this server made.

        :raises RtpushError: ``origin_not_allowed``.
        """
        # Where there is an Origin, it was compared already. A browser sends it with every POST, and over TLS or to
        # this machine it says Sec-Fetch-Site with everything.
        site = request.getHeader(b"sec-fetch-site")
        anonymous = request.method == b"POST" and request.getHeader(b"origin") is None
        if site not in (None, b"same-origin") or (site is None and anonymous):
            raise RtpushError(ErrorCode.ORIGIN_NOT_ALLOWED, "only the dashboard's own page may do this")

    def left(self, request: Request) -> float | None:
        """Return the seconds that are left of a request's session; nothing if it has none."""
        now = self._clock.seconds()
        cookies = (request.getHeader(b"cookie") or b"").decode("latin-1")
        for each in cookies.split(";"):
            name, _, value = each.strip().partition("=")
            if name == _COOKIE and (end := self._sessions.end(value, now)) is not None:
                return end - now
        return None

    def open(self, key: str) -> str:
        """
        Open a session.

        :raises RtpushError: ``limit_exceeded`` if too many try; ``unauthorized`` if the key is wrong.
        """
        now = self._clock.seconds()
        if self.is_closed:
            raise RtpushError(ErrorCode.UNAUTHORIZED, "the dashboard is closed: the config has no key in [api] keys")
        if not self._logins.take(now):
            raise RtpushError(ErrorCode.LIMIT_EXCEEDED, "too many logins: try again in a few seconds")
        session = self._sessions.open(key, now)
        if session is None:
            raise RtpushError(ErrorCode.UNAUTHORIZED, "this API key is not known")
        return session

    def keep(self, request: Any, session: str) -> None:
        """Have the browser keep a session, or forget the one that it has."""
        forwarded = request.getHeader(b"x-forwarded-proto") or b""
        secure = "; Secure" if request.isSecure() or forwarded.strip().lower() == b"https" else ""
        age = int(self._sessions.lifetime) if session else 0
        # Without a Path it is for the folder of this request: the dashboard's own, whatever a proxy puts before it.
        cookie = f"{_COOKIE}={session}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"
        request.setHeader(b"set-cookie", cookie.encode())


class _Session(Endpoint):
    """``GET session``: how it is with the browser that asks."""

    def __init__(self, origins: Origins, gate: _Gate) -> None:
        super().__init__(origins)
        self._gate = gate

    def answer(self, request: Request) -> bytes:
        """Tell whether it may go on, and how."""
        left = self._gate.left(request)
        state = {"open": self._gate.is_open, "closed": self._gate.is_closed, "left": left}
        return answer_json(request, {"result": state})


class _LogIn(Endpoint):
    """``POST login``."""

    methods: ClassVar[tuple[bytes, ...]] = (b"POST",)

    def __init__(self, origins: Origins, gate: _Gate) -> None:
        super().__init__(origins)
        self._gate = gate

    def answer(self, request: Request) -> bytes:
        """Open a session for who has a key."""
        self._gate.check_origin(request)
        session = self._gate.open(JSON.decode(read_body(request), _Login).key)
        self._gate.keep(request, session)
        return answer_json(request, {"result": {}})


class _LogOut(Endpoint):
    """``POST logout``."""

    methods: ClassVar[tuple[bytes, ...]] = (b"POST",)

    def __init__(self, origins: Origins, gate: _Gate) -> None:
        super().__init__(origins)
        self._gate = gate

    def answer(self, request: Request) -> bytes:
        """Have the browser forget its session."""
        self._gate.check_origin(request)
        self._gate.keep(request, "")
        return answer_json(request, {"result": {}})


class _Stream:
    """
    The snapshots, which are made while there are viewers.

    :param node: What they are made of.
    """

    def __init__(self, node: Node, make_viewers: Callable[[], Node]) -> None:
        self._node = node
        self._make_viewers = make_viewers
        self._viewers: Node | None = None
        self._idle = 0.0
        self._making = LoopingCall(self._make)
        self._making.clock = node.clock

    def viewers(self) -> Node:
        """
        Return the node to follow the snapshots at.

        :raises RtpushError: ``unavailable`` if this node is leaving.
        """
        if self._node.leaving:
            raise RtpushError(ErrorCode.UNAVAILABLE, "this node is leaving")
        if self._viewers is None or not self._making.running:
            self._viewers = self._make_viewers()
            self._viewers.start()
            self._idle = self._node.clock.seconds()
            self._making.start(1.0).addErrback(self._failed)
        return self._viewers

    def _make(self) -> Deferred[None] | None:
        """Make one, if there is anybody to see it."""
        viewers = self._viewers
        if viewers is None:
            return None
        now = self._node.clock.seconds()
        if viewers.connections:
            self._idle = now
        if self._node.leaving or now - self._idle >= LINGER:
            self._end(viewers)
            return None
        for connection in list(viewers.connections.values()):
            if now - connection.since >= TURN:
                connection.disconnect(Disconnect.RECONNECT)
        # Another node may take its time to answer: then there is no snapshot in this second.
        made: Deferred[Any] = maybeDeferred(perform, self._node, "snapshot", Look())
        return made.addCallback(self._publish, viewers).addErrback(self._failed)

    def _publish(self, snapshot: dict[str, Any], viewers: Node) -> None:
        data = msgspec.json.encode({"time": round(self._node.clock.seconds(), 3), **snapshot})
        viewers.publish(Publication(CHANNEL, Payload(data, Kind.JSON)), Access.SERVER).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        _log.failure("making a snapshot for the dashboard failed", failure=failure)

    def _end(self, viewers: Node) -> None:
        self._viewers = None
        self._making.stop()
        viewers.leave_all()
        viewers.stop().addErrback(self._failed)


class _Feed(Endpoint):
    """``GET feed``: the snapshots, as server-sent events."""

    def __init__(self, origins: Origins, gate: _Gate, stream: _Stream) -> None:
        super().__init__(origins)
        self._gate = gate
        self._stream = stream
        self._own_origins = origins

    def answer(self, request: Request) -> bytes | int:
        """Open the stream."""
        self._gate.check(request)
        return SseResource(self._stream.viewers(), self._own_origins).answer(request)
