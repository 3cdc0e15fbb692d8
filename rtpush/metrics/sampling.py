"""Takes the samples of a node: all that is worked out is worked out here, when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import rtpush
from rtpush.errors import Disconnect, ErrorCode
from rtpush.interfaces import IHealthCheck, ILinked
from rtpush.metrics.process import process_samples
from rtpush.metrics.samples import Sample, Samples
from rtpush.protocol.channel import SlowReader
from rtpush.protocol.negotiate import TRANSPORTS
from rtpush.registry.counts import HOOK_EVENTS, HOOK_OUTCOMES, Counts
from rtpush.registry.limiter import LIMITS
from rtpush.registry.node import Node

__all__ = ["node_samples"]

# What can happen is there from the beginning, at 0: so the first time that it does is seen as a change.
_STATES = ("connecting", "open", "closing")
_ROADS = ("api", "websocket", "emit")
_REFUSALS = tuple(kind.name.lower() for kind in ErrorCode)
_POLICIES = tuple(policy.value for policy in SlowReader)


def node_samples(node: Node) -> Samples:
    """Return the value of every metric for a node, which is the only one of its process."""
    counts = node.counts
    return {
        **_connections(counts),
        **_messages(counts),
        **_namespaces(counts, node.namespaces.names),
        **_present(node),
        **_hooks(node),
        **_broker(node.broker),
        **process_samples(),
    }


def _connections(counts: Counts) -> Samples:
    transports = [(name, counts.transports[name]) for name in TRANSPORTS]
    disconnects = counts.disconnects
    return {
        "rtpush_connections": [
            Sample((name, state), getattr(each, state)) for name, each in transports for state in _STATES
        ],
        "rtpush_accepted_connections": [Sample((name,), each.accepted) for name, each in transports],
        "rtpush_accepted_sockets": _one(counts.sockets),
        "rtpush_disconnects": [
            Sample((str(why.code), why.reason), disconnects.get(why.reason, 0)) for why in Disconnect
        ],
        "rtpush_missed_heartbeats": _one(disconnects.get(Disconnect.NO_HEARTBEAT.reason, 0)),
        "rtpush_refusals": _each(_REFUSALS, counts.refusals),
        "rtpush_limited": _each(LIMITS, counts.limited),
        "rtpush_turned_away": _one(counts.turned_away),
        "rtpush_recoveries": [
            sample
            for name, each in transports
            for sample in (Sample((name, "ok"), each.recovered), Sample((name, "gap"), each.gaps))
        ],
        "rtpush_slow_readers": _each(_POLICIES, counts.slow_readers),
    }


def _messages(counts: Counts) -> Samples:
    transports = [(name, counts.transports[name]) for name in TRANSPORTS]
    return {
        "rtpush_published_messages": _each(_ROADS, counts.published),
        "rtpush_broker_messages": _one(counts.received),
        "rtpush_delivered_messages": [Sample((name,), each.delivered) for name, each in transports],
        "rtpush_delivered_bytes": [Sample((name,), each.delivered_bytes) for name, each in transports],
        "rtpush_fanout_seconds": [Sample.of(counts.fanout)],
        "rtpush_loop_lag_seconds": [Sample.of(counts.lag)],
        "rtpush_gc_pause_seconds": [Sample.of(counts.pauses)],
    }


def _namespaces(counts: Counts, names: Iterable[str]) -> Samples:
    # One that was there before a reload has its numbers still.
    namespaces = [(name, counts.namespaces[name]) for name in sorted({*names, *counts.namespaces})]
    return {
        "rtpush_namespace_published_messages": [Sample((name,), each.published) for name, each in namespaces],
        "rtpush_namespace_published_bytes": [Sample((name,), each.published_bytes) for name, each in namespaces],
        "rtpush_namespace_delivered_messages": [Sample((name,), each.delivered) for name, each in namespaces],
    }


def _present(node: Node) -> Samples:
    return {
        "rtpush_channels": _one(len(node.channels)),
        "rtpush_paused_connections": _one(len(node.paused)),
        "rtpush_queued_bytes": _one(sum(connection.queued for connection in node.paused)),
        "rtpush_ready": _one(int(node.problem() is None)),
        "rtpush_node_info": [Sample((node.name, rtpush.__version__), 1)],
        "rtpush_sample_age_seconds": _one(0),
    }


def _hooks(node: Node) -> Samples:
    outcomes, hooks = node.counts.hooks.outcomes, node.hooks
    return {
        "rtpush_hook_requests": [
            Sample((event, outcome), outcomes.get((event, outcome), 0))
            for event in HOOK_EVENTS
            for outcome in HOOK_OUTCOMES
        ],
        "rtpush_hook_seconds": [Sample.of(node.counts.hooks.seconds)],
        "rtpush_hook_pending_requests": _one(0 if hooks is None else hooks.pending),
        "rtpush_hook_breaker_open": _one(int(hooks is not None and hooks.is_shut)),
    }


def _broker(broker: Any) -> Samples:
    links = broker.links() if ILinked.providedBy(broker) else ()
    return {
        "rtpush_broker_up": _one(int(not IHealthCheck.providedBy(broker) or broker.problem() is None)),
        "rtpush_broker_server_up": [Sample((link.name,), int(link.is_up)) for link in links],
        "rtpush_broker_lag_seconds": [Sample((link.name,), link.lag) for link in links],
        "rtpush_broker_pending_requests": [Sample((link.name,), link.pending) for link in links],
        "rtpush_broker_sessions": [Sample((link.name,), link.sessions) for link in links],
    }


def _one(value: float) -> list[Sample]:
    return [Sample((), value)]


def _each(names: Iterable[str], values: Mapping[str, int]) -> list[Sample]:
    return [Sample((name,), values.get(name, 0)) for name in names]
