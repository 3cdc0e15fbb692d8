"""The routes below ``/api/v1``, and those by which the service is watched."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from rtpush.api.authorization import check_call, granted, token_of
from rtpush.api.calls import CALLS
from rtpush.api.cluster import perform
from rtpush.api.openapi import document
from rtpush.auth.apikey import ApiKeys
from rtpush.auth.origin import Origins
from rtpush.auth.permissions import Grant
from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.codecs import JSON
from rtpush.registry.node import Node
from rtpush.transports.endpoint import Endpoint, NotFound
from rtpush.transports.http import Request, answer_json, check_request, finish_with, read_body

__all__ = ["ApiCall", "Health", "Opens", "Readiness", "api_resource", "check_key"]


class Opens(Protocol):
    """What knows who may make calls."""

    def check(self, request: Request, /) -> None:
        """Let a request pass, or raise :class:`RtpushError`."""


def check_key(keys: Opens, request: Request) -> None:
    """
    Let a request pass that has a key. Those that have none count among those of clients.

    :raises RtpushError: if it has none.
    """
    try:
        keys.check(request)
    except RtpushError:
        check_request(request)
        raise


class ApiCall(Endpoint):
    """
    ``POST /api/v1/NAME``.

    :param tokens: Whether tokens open it too.
    """

    methods = (b"POST",)
    counts = False

    def __init__(self, node: Node, origins: Origins, keys: Opens, name: str, *, tokens: bool = False) -> None:
        super().__init__(origins)
        self._node = node
        self._keys = keys
        self._name = name
        self._tokens = tokens

    def answer(self, request: Request) -> bytes | int:
        if self._tokens and (token := token_of(request)) is not None:
            done = granted(self._node, request, token).addCallback(lambda grant: self._perform(request, grant))
            return finish_with(request, done.addCallback(lambda result: answer_json(request, {"result": result})))
        check_key(self._keys, request)
        result = self._perform(request)
        if isinstance(result, dict):
            return answer_json(request, {"result": result})
        return finish_with(request, result.addCallback(lambda done: answer_json(request, {"result": done})))

    def _perform(self, request: Request, grant: Grant | None = None) -> dict[str, Any] | Deferred[dict[str, Any]]:
        """Do what a request asks for; with what its token grants, if it has one."""
        body = JSON.decode(read_body(request) or b"{}", CALLS[self._name].body)
        if grant is not None:
            check_call(grant, self._name, body)
        return perform(self._node, self._name, body)


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

    counts = False

    def answer(self, request: Request) -> bytes | int:
        return answer_json(request, {"ok": True})


class Readiness(Endpoint):
    """``GET /readyz``: this node should get new clients."""

    counts = False

    def __init__(self, node: Node, origins: Origins) -> None:
        super().__init__(origins)
        self._node = node

    def answer(self, request: Request) -> bytes | int:
        problem = self._node.problem()
        if problem is not None:
            raise RtpushError(ErrorCode.UNAVAILABLE, problem)
        return answer_json(request, {"ok": True})


def api_resource(node: Node, origins: Origins, keys: ApiKeys, *, tokens: bool = False) -> Resource:
    """
    Return everything below ``/api``.

    :param tokens: Whether tokens open it too.
    """
    api, v1 = NotFound(origins), NotFound(origins)
    api.putChild(b"v1", v1)
    for name in CALLS:
        v1.putChild(name.encode(), ApiCall(node, origins, keys, name, tokens=tokens))
    v1.putChild(b"openapi.json", OpenApiDocument(origins))
    return api
