"""Tests of rtpush.service.reloading."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.config import parse
from rtpush.service.reloading import changed

_OLD = """
[server]
listen = tcp:8080:interface=127.0.0.1
node = a
[namespace:demo]
history_size = 10
"""

_NEW = """
[server]
listen = tcp:8081:interface=127.0.0.1
node = b
workers = 2
heartbeat = 20
allowed_origins = https://example.com
drain_window = 7
[backoff]
base = 3
[limits]
queue_bytes = 1234567
[poll]
timeout = 20
[api]
keys = 0123456789abcdef
[broker]
engine = redis
position_ttl = 77
[redis]
url = redis://example.com
[namespace:demo]
history_size = 20
[namespace:other]
"""


class ChangedTests(SynchronousTestCase):
    """What of a new configuration counts at once."""

    def test_everything(self) -> None:
        """What needs a restart stays as it is, with a line for each; all else is as in the new one."""
        old, new = parse(_OLD), parse(_NEW)
        config, lines = changed(old, new)
        self.assertEqual(
            lines,
            [
                f"{what} can only be changed by a restart: it stays as it is"
                for what in (
                    "[server] listen",
                    "[server] node",
                    "[server] workers",
                    "[broker] engine",
                    "[broker] position_ttl",
                    "[redis] url",
                )
            ],
        )
        self.assertEqual((config.broker, config.redis), (old.broker, old.redis))
        server = config.server
        self.assertEqual((server.listen, server.node, server.workers), (old.server.listen, "a", 1))
        self.assertEqual((server.heartbeat, server.allowed_origins), (20.0, ("https://example.com",)))
        self.assertEqual(server.drain_window, 7.0)
        for section in ("backoff", "limits", "poll", "api", "namespaces", "websocket", "metrics"):
            self.assertEqual(getattr(config, section), getattr(new, section), section)

    def test_nothing(self) -> None:
        """The same configuration changes nothing, and nothing is said."""
        self.assertEqual(changed(parse(_OLD), parse(_OLD)), (parse(_OLD), []))
