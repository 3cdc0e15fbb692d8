"""What the dashboard shows, as one node tells it of itself: work that does not grow with what the node holds."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from rtpush.api.calls import Call
from rtpush.interfaces import IHealthCheck, ILinked
from rtpush.metrics.process import process_samples
from rtpush.registry.node import Node

__all__ = ["LOOKED_AT", "SNAPSHOT", "Look"]

#: How many channels a node looks at to find the largest.
LOOKED_AT = 5000

#: How many of the largest are told.
_TOLD = 20


class Look(msgspec.Struct, forbid_unknown_fields=True):
    """Look at all nodes."""


def _look(node: Node, body: Look) -> Deferred[dict[str, Any]]:
    counts = node.counts
    own = {
        **msgspec.json.decode(node.status()),
        "transports": {
            name: {"connections": each.present, "accepted": each.accepted, "delivered": each.delivered}
            for name, each in counts.transports.items()
        },
        "published": sum(counts.published.values()),
        "delivered": sum(each.delivered for each in counts.transports.values()),
        "delivered_bytes": sum(each.delivered_bytes for each in counts.transports.values()),
        "accepted": sum(each.accepted for each in counts.transports.values()),
        "errors": dict(counts.refusals),
        "recovered": sum(each.recovered for each in counts.transports.values()),
        "gaps": sum(each.gaps for each in counts.transports.values()),
        "lag": {"sum": counts.lag.sum, "count": sum(counts.lag.buckets)},
        "broker": _broker(node.broker),
        **_process(),
    }
    return succeed({"nodes": [own], "top": _largest(_channels(node)), "channels": len(node.channels)})


def _channels(node: Node) -> Iterable[dict[str, Any]]:
    for name, channel in islice(node.channels.items(), LOOKED_AT):
        yield {
            "channel": name,
            "subscribers": len(channel),
            "epoch": channel.position.epoch,
            "offset": channel.position.offset,
        }


def _largest(channels: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    largest = heapq.nlargest(_TOLD, channels, key=lambda each: (each["subscribers"], each["offset"]))
    return [each for each in largest if each["subscribers"]]


def _broker(broker: Any) -> dict[str, Any]:
    links = broker.links() if ILinked.providedBy(broker) else ()
    return {
        "engine": "redis" if ILinked.providedBy(broker) else "memory",
        "problem": broker.problem() if IHealthCheck.providedBy(broker) else None,
        "links": [
            {
                "name": link.name,
                "is_up": link.is_up,
                "sessions": link.sessions,
                "lag": round(link.lag, 6),
                "pending": link.pending,
            }
            for link in links
        ],
    }


def _process() -> dict[str, float]:
    samples = process_samples()
    wanted = {"cpu": "process_cpu_seconds", "memory": "process_resident_memory_bytes"}
    return {name: samples[series][0].value for name, series in wanted.items() if series in samples}


def _merge(body: Look, results: list[dict[str, Any]]) -> dict[str, Any]:
    top: dict[str, dict[str, Any]] = {}
    for result in results:
        for each in result["top"]:
            same = top.setdefault(each["channel"], {**each, "subscribers": 0, "offset": 0})
            same["subscribers"] += each["subscribers"]
            if same["epoch"] == each["epoch"]:
                same["offset"] = max(same["offset"], each["offset"])
    return {
        "nodes": [node for result in results for node in result["nodes"]],
        "top": _largest(top.values()),
        # One that several nodes follow is there several times: how many there are takes more to find out.
        "channels": max(result["channels"] for result in results),
    }


#: The call that the nodes make of each other. It is none of the server API.
SNAPSHOT = Call(Look, {}, "Tell what the dashboard shows", _look, _merge)
