"""Tests of the server API at addresses of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rtpush.service.assemble import build_api_site, build_node, build_site, reconfigure
from rtpush.service.config import ConfigError, parse
from rtpush.service.leaving import AllSites
from rtpush.service.reloading import changed
from tests.transports.serving import Client

_KEY = "0123456789abcdef0123456789abcdef"
_CONFIG = f"""
[server]
listen = tcp:8080
[api]
listen = tcp:8090:interface=127.0.0.1
keys = {_KEY}
[namespace:default]
"""

#: What is not for clients, and what is for nobody else.
_OPERATORS = ("/api/v1/openapi.json", "/metrics", "/admin/")
_CLIENTS = ("/negotiate", "/poll?channel=a&timeout=0", "/client/rtpush.js")


class ApiPortTests(SynchronousTestCase):
    """Two sites of one node."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.config = parse(_CONFIG)
        self.node: Any = build_node(self.config, self.clock)
        self.successResultOf(self.node.start())
        self.public = build_site(self.config, self.node, self.clock)
        self.api = build_api_site(self.config, self.node, self.clock)

    def status(self, site: Any, path: str, method: str = "HEAD", **request: Any) -> int:
        """Ask on a connection of its own; return the status."""
        client = Client(self.clock, site, 40000)
        headers = {"X-API-Key": _KEY, "Connection": "close"}
        status = client.ask(path, method=method, headers=headers, **request).status
        client.lose()
        return status

    def test_apart(self) -> None:
        """What is for operators is on the one, what is for clients on the other, and health on both."""
        for path in _OPERATORS:
            self.assertEqual(self.status(self.public, path), 404, path)
            self.assertLess(self.status(self.api, path), 400, path)
        for path in _CLIENTS:
            self.assertEqual(self.status(self.public, path), 200, path)
            self.assertEqual(self.status(self.api, path), 404, path)
        for path in ("/healthz", "/readyz"):
            self.assertEqual((self.status(self.public, path), self.status(self.api, path)), (200, 200))
        body = b'{"channel": "a", "data": 1}'
        self.assertEqual(self.status(self.public, "/api/v1/publish", method="POST", body=body), 404)
        self.assertEqual(self.status(self.api, "/api/v1/publish", method="POST", body=body), 200)

    def test_one_port(self) -> None:
        """Without addresses of its own it is where all else is."""
        config = parse(_CONFIG.replace("listen = tcp:8090:interface=127.0.0.1", ""))
        site = build_site(config, self.node, self.clock)
        for path in (*_OPERATORS, *_CLIENTS):
            self.assertLess(self.status(site, path), 400, path)

    def test_closed(self) -> None:
        """Without a key it is closed there too, whatever the address."""
        config = parse(_CONFIG.replace(f"keys = {_KEY}", ""))
        site = build_api_site(config, self.node, self.clock)
        self.assertEqual(self.status(site, "/api/v1/info", method="POST", body=b"{}"), 401)

    def test_reload(self) -> None:
        """Both get what is new; the addresses stay until the next start."""
        other = parse(_CONFIG.replace(_KEY, _KEY[::-1]).replace("8090", "8091"))
        config, lines = changed(self.config, other)
        self.assertEqual(lines, ["[api] listen can only be changed by a restart: it stays as it is"])
        self.assertEqual(config.addresses, ("tcp:8080", "tcp:8090:interface=127.0.0.1"))
        reconfigure(config, self.node, self.public, None, self.api)
        self.assertEqual(self.status(self.api, "/api/v1/info", method="POST", body=b"{}"), 401)
        self.assertEqual(self.status(self.public, "/api/v1/info", method="POST", body=b"{}"), 404)

    def test_open(self) -> None:
        """It may be open to all only if its own addresses are local, whatever those of the clients are."""
        open_ = _CONFIG.replace(f"keys = {_KEY}", "open = yes")
        self.assertTrue(parse(open_).api.open)
        for address in ("tcp:8090", "haproxy:tcp:8090:interface=127.0.0.1"):
            with self.assertRaisesRegex(ConfigError, r"\[(api\] open|server\] trusted_proxies)"):
                parse(open_.replace("tcp:8090:interface=127.0.0.1", address))
        with self.assertRaisesRegex(ConfigError, r"\[api\] listen: expected other addresses"):
            parse(_CONFIG.replace("tcp:8090:interface=127.0.0.1", "tcp:8080"))

    def test_leaving(self) -> None:
        """A node leaves both; it is empty when both are."""
        both = AllSites([self.public, self.api])
        clients = [Client(self.clock, site, 40000) for site in (self.public, self.api)]
        self.assertEqual((both.open, both.leaving), (2, False))
        both.leaving = True
        self.assertTrue(both.leaving and self.public.leaving and self.api.leaving)
        self.assertEqual(clients[1].ask("/healthz").headers["connection"], "close")
        self.clock.advance(1)
        self.assertEqual(both.open, 1)
        both.close_idle()
        for _ in range(30):
            self.clock.advance(0.1)
            self.node._turn()
        self.assertEqual(both.open, 0)
