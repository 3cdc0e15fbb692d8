"""The files that the node serves, over a real socket."""

from __future__ import annotations

import http.client
from importlib.resources import files

from tests.transports.loopback import LoopbackTestCase

Reply = tuple[int, dict[str, str], bytes]


class StaticTests(LoopbackTestCase):
    """``/client``."""

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body

    async def ask(self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
        """Ask for a file."""
        return await self.in_thread(self._ask, method, path, headers or {})

    async def test_client(self) -> None:
        """The browser client comes whole, as a module, and again only if it has changed."""
        expected = (files("rtpush.static") / "client" / "rtpush.js").read_bytes()
        status, headers, body = await self.ask("/client/rtpush.js")
        self.assertEqual((status, body), (200, expected))
        self.assertTrue(headers["content-type"].startswith("text/javascript"))
        status, again, body = await self.ask(
            "/client/rtpush.js", headers={"If-Modified-Since": headers["last-modified"]}
        )
        self.assertEqual((status, body), (304, b""))

    async def test_head(self) -> None:
        """HEAD gets the headers of GET, and no body."""
        for path in ("/client/rtpush.js", "/client/nothing.js", "/client/"):
            status, headers, _ = await self.ask(path)
            headed, head, body = await self.ask(path, method="HEAD")
            self.assertEqual((headed, body), (status, b""), path)
            for name in ("content-type", "content-length", "last-modified"):
                self.assertEqual(head.get(name), headers.get(name), (path, name))

    async def test_ranges(self) -> None:
        """Ranges get the whole file: of many of them there would be very much, and of some Twisted makes an error."""
        expected = (files("rtpush.static") / "client" / "rtpush.js").read_bytes()
        for ranges in ("0-10", "5-", "-5", ",".join(["0-"] * 1000), "99999999999999999999-", "0-0,-1"):
            status, headers, body = await self.ask("/client/rtpush.js", headers={"Range": f"bytes={ranges}"})
            self.assertEqual((status, len(body)), (200, len(expected)), ranges[:20])
            self.assertNotIn("content-range", headers)

    async def test_nothing_else(self) -> None:
        """Nothing outside of the folder, no listing of it, and no way to change it."""
        for path in (
            "/client",
            "/client/",
            "/client/nothing",
            "/client/..",
            "/client/../__init__.py",
            "/client/%2e%2e/__init__.py",
            "/client/..%2f__init__.py",
            "/client/..%2f..%2ferrors.py",
            "/client/%2fetc%2fpasswd",
            "/client//etc/passwd",
            "/client/rtpush.js%00",
            "/client/%00",
            "/client/%ff",
            "/client/%C3",
            "/client/" + "x" * 5000,
            "/client/rtpush.js/more",
        ):
            status, _, body = await self.ask(path)
            self.assertIn(status, (301, 302, 307, 308, 400, 404), path)
            self.assertNotIn(b"import", body)
            self.assertNotIn(b"root:", body)
        for method in ("POST", "PUT", "DELETE"):
            status, headers, _ = await self.ask("/client/rtpush.js", method=method)
            self.assertIn(status, (405, 501), method)
            self.assertIn("GET", headers.get("allow", "GET"))
