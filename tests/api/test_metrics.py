"""Tests of rtpush.api.metrics."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Cooperator
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from rtpush.testing import DEFAULT_CONFIG, InMemoryServer

_CLOSED = DEFAULT_CONFIG.replace("open = yes", "keys = key-of-the-api-00")


class MetricsTests(SynchronousTestCase):
    """``GET /metrics``."""

    def _start(self, config: str = DEFAULT_CONFIG) -> None:
        self.server = InMemoryServer(config)
        self.addCleanup(self.server.close)

    def _get(self, path: str = "metrics", method: bytes = b"GET", **headers: str) -> tuple[Any, bytes]:
        fields = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        asked = self.server.agent().request(method, f"{self.server.url}{path}".encode(), fields)
        self.server.advance()
        answer = self.successResultOf(asked)
        read = readBody(answer)
        self.server.advance()
        return answer, self.successResultOf(read)

    def _status(self, **headers: str) -> int:
        return int(self._get(**headers)[0].code)

    def test_open(self) -> None:
        """Where the server API is open, so are the metrics; what happened is in them."""
        self._start()
        self.server.publish("demo:a", 1)
        self._get("poll?channel=nothing:a&timeout=0")
        answer, body = self._get()
        self.assertEqual(answer.code, 200)
        self.assertEqual(answer.headers.getRawHeaders("cache-control"), ["no-store"])
        found = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
        self.assertEqual(found["rtpush_published_messages_total", (("road", "api"), ("worker", "1"))], 1)
        self.assertEqual(found["rtpush_refusals_total", (("reason", "unknown_channel"), ("worker", "1"))], 1)

    def test_closed(self) -> None:
        """Without a key they are closed, as shipped."""
        self._start(DEFAULT_CONFIG.replace("[api]\nopen = yes\n", ""))
        self.assertEqual(self._status(), 401)

    def test_keys(self) -> None:
        """A key of the API opens them, and so does one that opens nothing else."""
        self._start(_CLOSED + "[metrics]\nkeys = key-of-metrics-00\n")
        self.assertEqual(self._status(), 401)
        self.assertEqual(self._status(x_api_key="key-of-something"), 401)
        self.assertEqual(self._status(x_api_key="key-of-the-api-00"), 200)
        self.assertEqual(self._status(authorization="Bearer key-of-metrics-00"), 200)
        self.assertEqual(self._get("api/v1/info", b"POST", x_api_key="key-of-metrics-00")[0].code, 401)

    def test_said_to_be_open(self) -> None:
        """They can be open while the API is not."""
        self._start(_CLOSED + "[metrics]\nopen = yes\n")
        self.assertEqual(self._status(), 200)
        self.assertEqual(self._get("api/v1/info", b"POST")[0].code, 401)

    def test_openmetrics(self) -> None:
        """Who asks for OpenMetrics gets that."""
        self._start()
        answer, body = self._get(accept="application/openmetrics-text; version=1.0.0")
        self.assertIn("application/openmetrics-text", answer.headers.getRawHeaders("content-type")[0])
        self.assertTrue(body.endswith(b"# EOF\n"))

    def test_summed(self) -> None:
        """The workers can be had together; anything else that is wanted of them is refused."""
        self._start()
        self.assertNotIn(b"worker=", self._get("metrics?workers=summed")[1])
        answer, body = self._get("metrics?workers=each")
        self.assertEqual((answer.code, json.loads(body)["error"]["name"]), (400, "bad_request"))

    def test_batches(self) -> None:
        """What is refused in a batch is counted, each by itself."""
        self._start()
        messages = [{"channel": channel, "data": 1} for channel in ("demo:a", "nothing:a", "nothing:b")]
        for path, body in (
            ("api/v1/publish_batch", {"messages": [*messages, {"channel": "demo:a"}]}),
            ("emit", [{"publish": message} for message in messages]),
        ):
            producer = FileBodyProducer(BytesIO(json.dumps(body).encode()), cooperator=self._cooperator())
            asked = self.server.agent().request(b"POST", f"{self.server.url}{path}".encode(), None, producer)
            self.server.advance()
            self.assertEqual(self.successResultOf(asked).code, 200)
        self.assertEqual(self.server.node.counts.refusals, {"unknown_channel": 4, "bad_request": 1})

    def _cooperator(self) -> Cooperator:
        """Return what makes a body go at once."""
        return Cooperator(scheduler=lambda call: self.server.clock.callLater(0, call), started=True)
