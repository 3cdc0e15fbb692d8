"""Plain Autobahn and twisted.web, as their documentation shows them: what one writes first with the same libraries.

``python -m benchmarks.peers.plain_autobahn HTTP_PORT WEBSOCKET_PORT``.
"""

# Twisted's web server has no types for half of what is called here.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import sys

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

__all__ = ["serve"]


class Channel:
    """A channel and whoever follows it."""

    def __init__(self, factory: WebSocketServerFactory) -> None:
        self.factory = factory
        self.subscribers: set[WebSocketServerProtocol] = set()
        self.streams: set[Request] = set()
        self.polls: set[Request] = set()
        self.count = 0
        self.answer = b""

    def publish(self, payload: bytes) -> None:
        """Send a message to everyone."""
        self.count += 1
        self.answer = b'{"messages":["%s"],"cursor":"%d"}' % (payload, self.count)
        prepared = self.factory.prepareMessage(payload)
        for each in self.subscribers:
            each.sendPreparedMessage(prepared)
        for stream in self.streams:
            stream.write(b"data: %s\n\n" % payload)
        polls, self.polls = self.polls, set()
        for poll in polls:
            answer_poll(poll, self.answer)
            poll.finish()


def answer_poll(request: Request, answer: bytes) -> None:
    """Write the answer of a long poll."""
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", b"%d" % len(answer))
    request.write(answer)


class Channels(dict[str, Channel]):
    """All channels, made when they are asked for."""

    def __init__(self, factory: WebSocketServerFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, name: str) -> Channel:
        channel = self[name] = Channel(self._factory)
        return channel


class Followed(Resource):
    """A resource whose last segment is the channel."""

    isLeaf = True

    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self._channels = channels

    def channel(self, request: Request) -> Channel:
        """Return the channel of a request."""
        return self._channels[request.path.rpartition(b"/")[2].decode()]


class Subscriber(WebSocketServerProtocol):
    """A WebSocket that gets every message."""

    channels: Channels
    channel: Channel

    def onConnect(self, request: ConnectionRequest) -> None:
        """Note the channel."""
        self.channel = self.channels[request.path.rpartition("/")[2]]

    def onOpen(self) -> None:
        """Subscribe."""
        self.channel.subscribers.add(self)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        """Unsubscribe."""
        self.channel.subscribers.discard(self)


class Publish(Followed):
    """``POST /publish/CHANNEL``: the body is the payload."""

    def render_POST(self, request: Request) -> bytes:
        """Publish."""
        assert request.content is not None
        self.channel(request).publish(request.content.read())
        request.setHeader(b"content-type", b"application/json")
        return b"{}"


class Stream(Followed):
    """``GET /sse/CHANNEL``: an event stream."""

    def render_GET(self, request: Request) -> int:
        """Begin the stream."""
        request.setHeader(b"content-type", b"text/event-stream")
        request.setHeader(b"cache-control", b"no-store")
        request.write(b": open\n\n")
        channel = self.channel(request)
        channel.streams.add(request)
        request.notifyFinish().addErrback(lambda _: channel.streams.discard(request))
        return NOT_DONE_YET


class Poll(Followed):
    """``GET /poll/CHANNEL?cursor=``: a long poll."""

    def render_GET(self, request: Request) -> int | bytes:
        """Answer at once if there is a newer message than the cursor says, else wait for one."""
        channel = self.channel(request)
        if int(request.args.get(b"cursor", [str(channel.count)])[0]) < channel.count:
            request.setHeader(b"content-type", b"application/json")
            return channel.answer
        channel.polls.add(request)
        request.notifyFinish().addErrback(lambda _: channel.polls.discard(request))
        return NOT_DONE_YET


def serve(http_port: int, websocket_port: int) -> None:
    """Serve for ever on two loopback ports."""
    factory = WebSocketServerFactory()
    channels = Channels(factory)
    factory.protocol = Subscriber
    Subscriber.channels = channels
    root = Resource()
    root.putChild(b"publish", Publish(channels))
    root.putChild(b"sse", Stream(channels))
    root.putChild(b"poll", Poll(channels))
    reactor.listenTCP(websocket_port, factory, backlog=1024, interface="127.0.0.1")
    reactor.listenTCP(http_port, Site(root), backlog=1024, interface="127.0.0.1")  # type: ignore[arg-type]
    reactor.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
