"""
The demo's network: for each viewer of the demo page, one that can be broken on purpose.

Under ``net/<session>/`` stand the same routes as on the real site. Each request goes to the real resource, unless the
switches of that session say that a proxy stands between: one that refuses WebSocket or SSE, that lets a WebSocket
open and then passes nothing, or that keeps an SSE stream to itself. ``POST network`` sets the switches; whoever knows
a session, which is a random text, may set its switches.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from weakref import WeakSet

import attrs
import msgspec
from twisted.internet.protocol import Protocol
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as WebRequest

from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.transports.endpoint import Endpoint, NotFound
from rtpush.transports.handshake import Deflate, check_upgrade, header_items, response_head
from rtpush.transports.http import Request, answer_error, answer_json, read_body

__all__ = ["DemoNetwork"]

#: How many viewers' networks are remembered; the one that was used longest ago goes first.
MAX_SESSIONS = 1000

_SESSION = r"\A[A-Za-z0-9_-]{8,64}\Z"

#: The transport that a route is; a route that is not here is let through always and not cut.
_TRANSPORTS = {"ws": "websocket", "echo": "websocket", "sse": "sse", "poll": "poll"}


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST network``: a switch that is absent stays as it was."""

    session: Annotated[str, msgspec.Meta(pattern=_SESSION)]
    block: set[Literal["websocket", "sse"]] | msgspec.UnsetType = msgspec.UNSET
    mute: set[Literal["websocket"]] | msgspec.UnsetType = msgspec.UNSET
    buffer: set[Literal["sse"]] | msgspec.UnsetType = msgspec.UNSET
    cut: bool = False


class _Harms(msgspec.Struct, frozen=True):
    """The transports that a network refuses, lets open without passing anything, and keeps to itself."""

    block: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()
    buffer: frozenset[str] = frozenset()

    def of(self, transport: str) -> str | None:
        """Return the name of what is done to a transport; refusing it goes before the rest."""
        return next((name for name in self.__struct_fields__ if transport in getattr(self, name)), None)


_decode_change = msgspec.json.Decoder(_Change).decode


@attrs.define(eq=False)
class _Network:
    """
    What stands between one viewer and the server.

    :ivar requests: The transport of each HTTP request that is not answered in full.
    :ivar sockets: The connections on which a WebSocket was begun. HTTP does not hear of their end: they leave this set
        when nothing else holds them.
    """

    harms: _Harms = attrs.field(factory=_Harms)
    requests: dict[WebRequest, str] = attrs.field(factory=dict)
    sockets: WeakSet[Any] = attrs.field(factory=WeakSet)

    def change(self, wanted: _Change) -> None:
        """Set switches, and cut what is open of each transport to which something else is done from now on."""
        before = self.harms
        given = {name: getattr(wanted, name) for name in _Harms.__struct_fields__}
        given = {name: frozenset(value) for name, value in given.items() if value is not msgspec.UNSET}
        self.harms = msgspec.structs.replace(before, **given)
        for transport in ("websocket", "sse"):
            if wanted.cut or before.of(transport) != self.harms.of(transport):
                self.cut(transport)
        if wanted.cut:
            self.cut("poll")

    def cut(self, transport: str) -> None:
        """Abort the connections of a transport."""
        channels: list[Any] = [request.channel for request, its in self.requests.items() if its == transport]
        connections = [channel.transport for channel in channels]
        if transport == "websocket":
            connections.extend(self.sockets)
        for connection in connections:
            connection.abortConnection()

    def remember(self, request: WebRequest, transport: str) -> None:
        """Keep a request until it is answered in full or its connection is lost."""
        self.requests[request] = transport
        request.notifyFinish().addBoth(lambda _: self.requests.pop(request))


class DemoNetwork(Resource):
    """
    The demo: ``network`` for the switches, ``net/<session>/`` for the routes of each viewer, and its pages.

    :param pages: What is served for every other path.
    :param real: The real resources by the name of their route: ``negotiate``, ``ws``, ``sse``, ``poll``, ``emit`` and
        ``echo``; those that are not there are not found.
    """

    def __init__(self, origins: Origins, pages: IResource, real: Mapping[str, Resource]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pages = pages
        networks = _Networks()
        self.putChild(b"network", _Switches(origins, networks))
        self.putChild(b"net", _Viewers(origins, networks, real))

    def getChild(self, path: bytes, request: WebRequest) -> IResource:
        """Return the page."""
        page: IResource = self._pages.getChildWithDefault(path, request)
        return page

    def render(self, request: WebRequest) -> bytes:
        """Redirect to where the page's relative addresses are right, whatever prefix a proxy has cut off."""
        path, mark, query = request.uri.partition(b"?")
        request.setResponseCode(308)
        request.setHeader(b"location", path.rpartition(b"/")[2] + b"/" + mark + query)
        return b""


class _Networks:
    """The networks by session, the one that was used longest ago first."""

    def __init__(self) -> None:
        self._networks: OrderedDict[str, _Network] = OrderedDict()

    def get(self, session: str) -> _Network:
        """Return a session's network: a harmless one if the session is new."""
        network = self._networks.setdefault(session, _Network())
        self._networks.move_to_end(session)
        if len(self._networks) > MAX_SESSIONS:
            self._networks.popitem(last=False)
        return network


class _Switches(Endpoint):
    """``POST network``."""

    methods: ClassVar[tuple[bytes, ...]] = (b"POST",)

    def __init__(self, origins: Origins, networks: _Networks) -> None:
        super().__init__(origins)
        self._networks = networks

    def answer(self, request: Request) -> bytes:
        """Change a session's network; answer with its switches."""
        try:
            change = _decode_change(read_body(request))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RtpushError(ErrorCode.BAD_REQUEST, str(error)) from None
        network = self._networks.get(change.session)
        network.change(change)
        return answer_json(request, {"result": network.harms})


class _Viewers(NotFound):
    """``net/<session>/<route>``."""

    def __init__(self, origins: Origins, networks: _Networks, real: Mapping[str, Resource]) -> None:
        super().__init__(origins)
        self._networks = networks
        self._real = {name.encode(): (_TRANSPORTS.get(name), resource) for name, resource in real.items()}

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the route that the rest of the path names, seen through the network of this session."""
        route = self._real.get(b"/".join(request.postpath or ()))
        session = path.decode("ascii", "replace")
        if route is None or re.match(_SESSION, session) is None:
            return self
        request.postpath = []
        transport, real = route
        return real if transport is None else _Through(self._networks.get(session), transport, real)


class _Through(Resource):
    """A real route as one viewer's network lets it be seen."""

    isLeaf = True

    def __init__(self, network: _Network, transport: str, real: Resource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._transport = transport
        self._real = real

    def render(self, request: WebRequest) -> bytes | int:
        """Hand the request to the real resource, or do to it what the switches say."""
        harm = self._network.harms.of(self._transport)
        if harm == "block":
            # In a proxy's words: an error of ours would speak of the channel.
            request.setResponseCode(403)
            request.setHeader(b"content-type", b"text/plain")
            return f"the demo's network blocks {self._transport}\n".encode()
        if self._transport != "websocket":
            self._network.remember(request, self._transport)
            return NOT_DONE_YET if harm == "buffer" else self._real.render(request)
        self._network.sockets.add(request.channel.transport)
        return _silence(request) if harm == "mute" else self._real.render(request)


def _silence(request: Request) -> bytes | int:
    """Open a WebSocket behind which there is nothing."""
    try:
        key = check_upgrade(request)
    except RtpushError as error:
        return answer_error(request, error)
    offered = header_items(request, b"sec-websocket-protocol")
    channel: Any = request.channel
    # A protocol that does nothing with what it receives.
    channel.upgrade(Protocol(), response_head(key, offered[0] if offered else None, Deflate()))
    return NOT_DONE_YET
