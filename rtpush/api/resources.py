"""The routes below ``/api/v1``, and those by which the service is watched."""

from __future__ import annotations

from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from rtpush.api.calls import CALLS
from rtpush.api.cluster import perform
from rtpush.api.openapi import document
from rtpush.auth.apikey import ApiKeys
from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.codecs import JSON
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint, NotFound
from rtpush.transports.http import Request, answer_json, finish_with, read_body

__all__ = ["ApiCall", "Health", "Opens", "Readiness", "api_resource"]


class Opens(Protocol):
    """What knows who may make calls."""

    def check(self, request: Request, /) -> None:
        """Let a request pass, or raise :class:`RtpushError`."""


class ApiCall(Endpoint):
    """``POST /api/v1/NAME``."""

    methods = (b"POST",)

    def __init__(self, node: Node, origins: Origins, keys: Opens, name: str) -> None:
        super().__init__(origins)
        self._node = node
        self._keys = keys
        self._name = name

    def answer(self, request: Request) -> bytes | int:
        self._keys.check(request)
        body = JSON.decode(read_body(request) or b"{}", CALLS[self._name].body)
        result = perform(self._node, self._name, body)
        if isinstance(result, Deferred):
            return finish_with(request, result.addCallback(lambda done: answer_json(request, {"result": done})))
        return answer_json(request, {"result": result})


class OpenApiDocument(Endpoint):
    """``GET /api/v1/openapi.json``: needs no key, for it tells nothing of this server but its version."""

    def __init__(self, origins: Origins) -> None:
        super().__init__(origins)
        self._body = msgspec.json.format(msgspec.json.encode(document()), indent=1)

    def answer(self, request: Request) -> bytes | int:
        request.setHeader(b"content-type", b"application/json")
        return self._body


class Health(Endpoint):
    """``GET /healthz``: this process is alive."""

    def answer(self, request: Request) -> bytes | int:
        return answer_json(request, {"ok": True})


class Readiness(Endpoint):
    """``GET /readyz``: this node should get new clients."""

    def __init__(self, node: Node, origins: Origins) -> None:
        super().__init__(origins)
        self._node = node

    def answer(self, request: Request) -> bytes | int:
        problem = self._node.problem()
        if problem is not None:
            raise RtpushError(ErrorCode.UNAVAILABLE, problem)
        return answer_json(request, {"ok": True})


def api_resource(node: Node, origins: Origins, keys: ApiKeys) -> Resource:
    """Return everything below ``/api``."""
    api, v1 = NotFound(origins), NotFound(origins)
    api.putChild(b"v1", v1)
    for name in CALLS:
        v1.putChild(name.encode(), ApiCall(node, origins, keys, name))
    v1.putChild(b"openapi.json", OpenApiDocument(origins))
    return api
