"""
The table of all metrics: their names, labels and meaning.

``docs/metrics.rst`` shows the same table; a test compares them. Labels are transports, namespaces, codes and the
like: of each there are few, whatever clients do.
"""

from __future__ import annotations

import enum

import attrs

__all__ = ["BY_NAME", "METRICS", "WORKER", "Kind", "Merge", "Metric"]

#: The label that every series has besides its own: which of the workers it is of.
WORKER = "worker"


class Kind(enum.Enum):
    """What the numbers of a metric do."""

    #: Grows, and begins at 0 when the server starts.
    COUNTER = "counter"
    #: Goes up and down.
    GAUGE = "gauge"
    #: Sorts durations by their length.
    HISTOGRAM = "histogram"


class Merge(enum.Enum):
    """What several workers make together of their numbers."""

    SUM = "sum"
    LEAST = "min"
    MOST = "max"


@attrs.frozen(kw_only=True)
class Metric:
    """
    One metric.

    :ivar name: Its name; that of a counter's series has ``_total`` at its end.
    :ivar doc: What it says.
    :ivar merge: What it is for all workers together.
    """

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    merge: Merge = Merge.SUM

    @property
    def series(self) -> str:
        """The name as one asks for it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def unit(self) -> str:
        """What its numbers are; empty for a number of things."""
        ending = self.name.rpartition("_")[2]
        return ending if ending in ("seconds", "bytes") else ""


def _counter(name: str, doc: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, doc=doc, labels=labels)


def _gauge(name: str, doc: str, *labels: str, merge: Merge = Merge.SUM) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, doc=doc, labels=labels, merge=merge)


def _histogram(name: str, doc: str) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, doc=doc)


METRICS = (
    # Connections
    _gauge("rtpush_connections", "Clients that are connected, by transport and state.", "transport", "state"),
    _counter("rtpush_accepted_connections", "Clients that have connected. Each poll is one.", "transport"),
    _counter("rtpush_accepted_sockets", "Connections over TCP and Unix sockets that were accepted."),
    _counter(
        "rtpush_disconnects", "Connections that the server has ended, by the reason and its code.", "code", "reason"
    ),
    _counter("rtpush_missed_heartbeats", "Connections that were ended since nothing came from the client in time."),
    _counter("rtpush_refusals", "Requests and commands that were answered by an error, by its name.", "reason"),
    _counter("rtpush_limited", "How often a client met a limit, by its key in [limits].", "limit"),
    _counter("rtpush_turned_away", "Clients that were told to come back later since too many came at once."),
    # Messages
    _counter(
        "rtpush_published_messages", "Messages published here and allowed: by the API, a WebSocket, or /emit.", "road"
    ),
    _counter("rtpush_broker_messages", "Messages that the broker has brought."),
    _counter("rtpush_delivered_messages", "Messages sent, counted for each client that got them.", "transport"),
    _counter(
        "rtpush_delivered_bytes",
        "Their bytes as the transport has them, without TCP, TLS and what is the same for any answer.",
        "transport",
    ),
    _counter("rtpush_namespace_published_messages", "Messages published here and allowed.", "namespace"),
    _counter("rtpush_namespace_published_bytes", "Their payloads.", "namespace"),
    _counter(
        "rtpush_namespace_delivered_messages", "Messages sent, counted for each client that got them.", "namespace"
    ),
    _histogram(
        "rtpush_fanout_seconds",
        "From when a message is here until it is written to all its clients; once for what goes out together.",
    ),
    _gauge("rtpush_channels", "Channels that are followed."),
    # Recovery and slow readers
    _counter(
        "rtpush_recoveries",
        "Clients that came back with a position: ok if nothing was lost, gap if they were told that something was. "
        "Each poll with a cursor is one.",
        "transport",
        "outcome",
    ),
    _counter(
        "rtpush_slow_readers", "Subscriptions whose client's queue was full, by what was done about it.", "policy"
    ),
    _gauge("rtpush_paused_connections", "Clients that have not taken all yet that was sent to them."),
    _gauge("rtpush_queued_bytes", "What waits for them, besides what the system and the transports keep."),
    # The application
    _counter(
        "rtpush_hook_requests",
        "What the application was asked about or told of, by what came of it: allowed, denied, failed (no good "
        "answer), or skipped (not asked, since it has failed too often or too much waits).",
        "event",
        "outcome",
    ),
    _histogram("rtpush_hook_seconds", "How long the application takes to answer."),
    _gauge("rtpush_hook_pending_requests", "What the application is asked or told now, or waits for that."),
    _gauge(
        "rtpush_hook_breaker_open",
        "1 if the application is not asked for a while, since it has failed too often, else 0.",
        merge=Merge.MOST,
    ),
    # The broker
    _gauge("rtpush_broker_up", "1 if the broker does its work, else 0.", merge=Merge.LEAST),
    _gauge(
        "rtpush_broker_server_up", "1 if this server of the broker does its work, else 0.", "server", merge=Merge.LEAST
    ),
    _gauge(
        "rtpush_broker_lag_seconds",
        "How long what is published there takes to arrive here; it grows while nothing arrives.",
        "server",
        merge=Merge.MOST,
    ),
    _gauge("rtpush_broker_pending_requests", "Answers of this server that are awaited.", "server"),
    _counter("rtpush_broker_sessions", "How often a connection to this server was made.", "server"),
    # The node and its process
    _gauge("rtpush_ready", "1 if the node should get new clients, as /readyz says it, else 0.", merge=Merge.LEAST),
    _gauge("rtpush_node_info", "Always 1: what the node is called, and its version.", "node", "version"),
    _gauge("rtpush_sample_age_seconds", "How old the numbers of this worker are.", merge=Merge.MOST),
    _histogram("rtpush_loop_lag_seconds", "How late the reactor is, ten times a second."),
    _histogram("rtpush_gc_pause_seconds", "How long collections of garbage took, in which nothing else is done."),
    _counter("python_gc_collections", "Collections of garbage.", "generation"),
    _counter("python_gc_objects_collected", "Objects that they have found.", "generation"),
    _counter("process_cpu_seconds", "Processor time, of user and system."),
    _gauge("process_resident_memory_bytes", "Memory in use."),
    _gauge("process_open_fds", "Open file descriptors."),
    _gauge("process_max_fds", "The most that may be open."),
    _gauge("process_start_time_seconds", "When the process was started, in seconds since 1970.", merge=Merge.LEAST),
)

BY_NAME = {metric.name: metric for metric in METRICS}
