"""
HTTP/2 connections (RFC 9113): many requests at once, each of which may have an answer that goes on.

What is on the wire is the work of h2. Here is what it leaves to others: whose turn it is to send, what a client may
cost, and how long it may take. A connection comes here when its client has chosen this protocol in the TLS handshake.

twisted.web has HTTP/2 too, but sends one frame in a turn of the reactor; and as long as an answer waits for room that
its client does not make, it keeps the reactor turning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from rtpush.transports.http import address_of
from rtpush.transports.http2_stream import Http2Stream

if TYPE_CHECKING:
    from rtpush.transports.site import PushSite

__all__ = ["Http2Connection"]

#: How many requests may be there at once: event streams of all tabs of a browser are on one connection.
_MAX_STREAMS = 256

#: The most bytes in one frame, and how many are handed to the transport at once.
_FRAME_SIZE = 16384
_WRITE_SIZE = 65536

#: How many times the largest body all bodies may have together that are not complete.
_BODIES = 4

#: What a client may do that makes work and is no request: cancel, ping, change settings, open windows. So many at once,
#: so many a second, and so many for each frame that it is sent.
_PATIENCE = 1000.0
_PATIENCE_PER_SECOND = 50.0
_PATIENCE_PER_FRAME = 2.0

_URI = re.compile(rb"/[!-~]*")

_REFUSED = [(b":status", b"400"), (b"content-length", b"0")]
_CONTINUE = [(b":status", b"100")]


class _Machine(H2Connection):
    #: How many streams are remembered that are closed; a client that says something of an older one is cut off.
    MAX_CLOSED_STREAMS = 1000


@implementer(IProtocol, IPushProducer)
class Http2Connection:
    """
    A connection.

    :param peer: The address of the client, if a proxy has told it.
    """

    _log = Logger()

    def __init__(self, site: PushSite, peer: str = "") -> None:
        self.site = site
        self.peer = peer
        self.transport: Any = None
        self._machine = _Machine(H2Configuration(client_side=False, header_encoding=None))
        self._machine.local_settings.update(
            {SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS, SettingCodes.MAX_HEADER_LIST_SIZE: site.header_bytes}
        )
        # From now on, not from when the client has agreed.
        self._machine.local_settings.acknowledge()
        self._machine.decoder.max_header_list_size = site.header_bytes
        self._streams: dict[int, Http2Stream] = {}
        #: Those with something to send, in the order of their turns.
        self._ready: dict[int, Http2Stream] = {}
        #: Those for which something is due from the client: the rest of its request, or room for that of the answer.
        self._awaited: set[int] = set()
        #: How many bytes of incomplete bodies are here.
        self._held = 0
        self._has_moved = False
        self._is_reading = False
        self._is_due = False
        #: Whether the client takes nothing from the transport.
        self._is_paused = False
        self._is_over = False
        self._patience = _PATIENCE
        self._then = site.now()

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.site.open += 1
        self._machine.initiate_connection()
        self._write()
        self._look()

    def dataReceived(self, data: bytes) -> None:
        if not self._is_listening:
            return
        self._is_reading = True
        try:
            for event in self._machine.receive_data(data):
                react = self._reactions.get(type(event))
                if react is not None:
                    react(self, event)
                if self._is_over:
                    return
        except ProtocolError:
            # h2 has told the client why.
            self._end(None)
            return
        finally:
            self._is_reading = False
        self._flush()

    def connectionLost(self, reason: Any) -> None:
        self._is_over = True
        self.site.open -= 1
        self.site.forget(self)
        self._drop_all()

    @property
    def _is_listening(self) -> bool:
        return not self._is_over

    # What streams ask for

    def send_head(self, stream: Http2Stream, fields: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer."""
        self._said(self._machine.send_headers, stream.id, fields)
        self._flush_soon()

    def wake(self, stream: Http2Stream) -> None:
        """A stream has something to send."""
        self._ready[stream.id] = stream
        if stream.has_ended:
            self._awaited.add(stream.id)
        self._flush_soon()

    def cancel(self, stream: Http2Stream, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End a stream at once."""
        if stream.id in self._streams:
            self._said(self._machine.reset_stream, stream.id, code)
            self._drop(stream)
            self._flush_soon()

    # IPushProducer: the transport's back-pressure

    def pauseProducing(self) -> None:
        """The client does not take what it was sent. It is not heard either, since it would be answered."""
        self._is_paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It has taken it."""
        self._is_paused = False
        self.transport.resumeProducing()
        self._flush_soon()

    def stopProducing(self) -> None:
        """The transport takes nothing more; that it is lost is said elsewhere."""

    # What the site tells

    def tick(self) -> None:
        """What was expected has not come in its time."""
        if self._is_over:
            self.transport.abortConnection()
        elif not self._streams:
            self._end(ErrorCodes.NO_ERROR)
        else:
            for id_ in list(self._awaited):
                self.cancel(self._streams[id_])

    def failed(self, doing: str) -> None:
        """Something of ours went wrong: log it, and end this connection alone."""
        self._log.failure("{doing} failed on a connection of {peer}", doing=doing, peer=address_of(self.transport))
        self.transport.abortConnection()

    # What the client says

    def _request_received(self, event: events.RequestReceived) -> None:
        id_: Any = event.stream_id
        fields: dict[bytes, list[bytes]] = {}
        said: Any = event.headers
        for name, value in said:
            fields.setdefault(name, []).append(value)
        method, uri = fields.pop(b":method")[0], fields.pop(b":path", [b""])[0]
        authority = fields.pop(b":authority", None)
        if authority is not None:
            fields[b"host"] = authority
        for name in [name for name in fields if name.startswith(b":")]:
            del fields[name]
        if _URI.fullmatch(uri) is None:
            if self._said(self._machine.send_headers, id_, _REFUSED, end_stream=True) and event.stream_ended is None:
                self._said(self._machine.reset_stream, id_, ErrorCodes.NO_ERROR)
            return
        self._streams[id_] = Http2Stream(self, id_, method, uri, fields)
        if event.stream_ended is None:
            self._awaited.add(id_)
            if b"100-continue" in [value.lower() for value in fields.get(b"expect", ())]:
                self._said(self._machine.send_headers, id_, _CONTINUE)

    def _data_received(self, event: events.DataReceived) -> None:
        id_: Any = event.stream_id
        data: Any = event.data
        self._machine.acknowledge_received_data(event.flow_controlled_length or 0, id_)
        stream = self._streams.get(id_)
        if not data:
            self._endure()
        elif stream is not None:
            self._has_moved = True
            before = stream.held
            has_patience = stream.receive(data)
            self._held += stream.held - before
            if not has_patience or self._held > self.site.request_bytes * _BODIES:
                self.cancel(stream, ErrorCodes.ENHANCE_YOUR_CALM)

    def _stream_ended(self, event: events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None:
            self._has_moved = True
            self._awaited.discard(stream.id)
            self._held -= stream.held
            stream.complete()

    def _stream_reset(self, event: events.StreamReset) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None:
            self._drop(stream)
        self._endure()

    def _window_updated(self, event: events.WindowUpdated) -> None:
        self._endure()
        if event.stream_id:
            stream = self._streams.get(event.stream_id)
            if stream is not None and stream.is_waiting:
                self._ready[stream.id] = stream
        else:
            self._all_ready()

    def _settings_changed(self, event: events.RemoteSettingsChanged) -> None:
        self._endure()
        # Among them, how large the windows of streams are.
        self._all_ready()

    def _all_ready(self) -> None:
        for stream in self._streams.values():
            if stream.is_waiting:
                self._ready.setdefault(stream.id, stream)

    def _endure(self, event: events.Event | None = None) -> None:
        """The client has made work that is no request (CVE-2019-9512 and its like, CVE-2023-44487)."""
        now = self.site.now()
        come = max(now - self._then, 0.0) * _PATIENCE_PER_SECOND
        self._then = now
        self._patience = min(self._patience + come, _PATIENCE) - 1.0
        if self._patience < 0:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _terminated(self, event: events.ConnectionTerminated) -> None:
        # It has what it wants, or is not content with it.
        self._end(None)

    _reactions: ClassVar[dict[type, Any]] = {
        events.RequestReceived: _request_received,
        events.DataReceived: _data_received,
        events.StreamEnded: _stream_ended,
        events.StreamReset: _stream_reset,
        events.WindowUpdated: _window_updated,
        events.RemoteSettingsChanged: _settings_changed,
        events.ConnectionTerminated: _terminated,
        events.SettingsAcknowledged: _endure,
        events.PingReceived: _endure,
        events.PriorityUpdated: _endure,
        events.UnknownFrameReceived: _endure,
    }

    # Sending

    @staticmethod
    def _said(say: Callable[..., object], *what: Any, **how: Any) -> bool:
        """Have h2 say something of a stream, and return true; not if it is over already, as is known here soon."""
        try:
            say(*what, **how)
        except ProtocolError:
            return False
        return True

    def _flush_soon(self) -> None:
        if not (self._is_due or self._is_reading or self._is_over):
            self._is_due = True
            self.site.soon(self._flush_now)

    def _flush_now(self) -> None:
        try:
            self._flush()
        except Exception:
            self.failed("sending")

    def _flush(self) -> None:
        """Send what can be sent: a frame of each stream, in turns."""
        self._is_due = False
        if self._is_over:
            return
        unwritten = 0
        while self._ready and not self._is_paused:
            id_ = next(iter(self._ready))
            stream = self._ready.pop(id_)
            try:
                unwritten += self._send(stream)
            except ProtocolError:
                # It is over, if nothing was heard of it.
                self._drop(stream)
            if unwritten >= _WRITE_SIZE:
                self._write()
                unwritten = 0
        self._write()
        self._look()

    def _send(self, stream: Http2Stream) -> int:
        """Send a frame of a stream; return how many bytes that were."""
        machine = self._machine
        window = machine.local_flow_control_window(stream.id)
        data = stream.take(min(window, machine.max_outbound_frame_size, _FRAME_SIZE))
        is_last = stream.has_ended and not stream.waits
        if data or is_last:
            machine.send_data(stream.id, data, end_stream=is_last)
            self._has_moved = True
            self._patience += _PATIENCE_PER_FRAME
        if is_last:
            if not stream.is_complete:
                # What else the client has to say, nobody wants to hear (RFC 9113 section 8.1).
                machine.reset_stream(stream.id, ErrorCodes.NO_ERROR)
            self._drop(stream)
        else:
            if data and stream.waits:
                # To the end of the line.
                self._ready[stream.id] = stream
            if data:
                stream.taken()
        return len(data)

    def _write(self) -> None:
        data = self._machine.data_to_send()
        if data:
            self.transport.write(data)

    # The end of streams, and of the connection

    def give_up(self) -> None:
        """Drop what has come of bodies, since that of all connections is too much."""
        self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _drop(self, stream: Http2Stream) -> None:
        """A stream is over."""
        del self._streams[stream.id]
        self._held -= stream.held
        self._ready.pop(stream.id, None)
        self._awaited.discard(stream.id)
        stream.gone()

    def _drop_all(self) -> None:
        while self._streams:
            self._drop(next(iter(self._streams.values())))

    def _look(self) -> None:
        """See whether the client is to do something, and whether it may go."""
        self.site.incoming.hold(self, self._held)
        if self._is_over:
            return
        if self.site.leaving and not self._streams and self._machine.highest_inbound_stream_id:
            # Not earlier: there are clients, those made with h2 among them, that read nothing after it.
            self._end(ErrorCodes.NO_ERROR)
        elif not self._streams or self._awaited:
            self.site.expect(self, anew=self._has_moved)
        else:
            self.site.expect_nothing(self)
        self._has_moved = False

    def _end(self, code: ErrorCodes | None) -> None:
        """
        End the connection.

        :param code: What the client is told, if it does not know.
        """
        self._is_over = True
        if code is not None:
            self._machine.close_connection(code)
        self._write()
        self._drop_all()
        self.site.expect_end(self)
        self.transport.unregisterProducer()
        # Reading goes on, so that its end is seen.
        self.transport.resumeProducing()
        self.transport.loseConnection()
