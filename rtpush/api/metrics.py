"""``GET /metrics``: what Prometheus collects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rtpush.api.resources import check_key
from rtpush.auth.apikey import ApiKeys
from rtpush.auth.origin import Origins
from rtpush.errors import ErrorCode, RtpushError
from rtpush.metrics.exposition import expose
from rtpush.metrics.samples import Samples, summed
from rtpush.transports.endpoint import Endpoint
from rtpush.transports.http import Request
from rtpush.transports.query import query_of

__all__ = ["MetricsResource"]


class MetricsResource(Endpoint):
    """
    Answers with the metrics of all workers of this host, each by itself; with ``?workers=summed``, together.

    :param keys: Opens it.
    :param gather: Returns the samples of each worker, by its name.
    """

    counts = False

    def __init__(self, origins: Origins, keys: ApiKeys, gather: Callable[[], Mapping[str, Samples]]) -> None:
        super().__init__(origins)
        self._keys = keys
        self._gather = gather

    def answer(self, request: Request) -> bytes | int:
        check_key(self._keys, request)
        wanted = query_of(request).one("workers")
        if wanted not in (None, "summed"):
            raise RtpushError(ErrorCode.BAD_REQUEST, f"workers is {wanted[:40]!r}, expected summed")
        workers = self._gather()
        if wanted is not None:
            workers = {"": summed(workers.values())}
        body, content_type = expose(workers, (request.getHeader(b"accept") or b"").decode("latin-1"))
        request.setHeader(b"content-type", content_type.encode())
        request.setHeader(b"cache-control", b"no-store")
        return body
