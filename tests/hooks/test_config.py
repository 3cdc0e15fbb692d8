"""``[hooks]`` in the configuration."""

from __future__ import annotations

import base64
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rtpush.cli.checkconfig import ConfigCheck
from rtpush.cli.findings import Findings
from rtpush.hooks.settings import HookSettings
from rtpush.registry.node import Node
from rtpush.service.assemble import build_node, build_site, reconfigure
from rtpush.service.config import Config, ConfigError, parse
from tests.support.certificates import issue

_LISTEN = "[server]\nlisten = tcp:0:interface=127.0.0.1\n"
_URL = "[hooks]\nurl = http://app.example/rtpush\n"


def _hooks(text: str) -> HookSettings:
    return parse(f"{_LISTEN}[hooks]\n{text}").hooks


class ReadTests(SynchronousTestCase):
    """What may be written."""

    def test_all(self) -> None:
        """All keys."""
        secret = base64.b64encode(b"b" * 32).decode()
        hooks = _hooks(
            "url = https://app.example:8443/hook.php?from=push\nevents = publish, connect\ntimeout = 0.5\n"
            f"secrets =\n    {'a' * 32}\n    base64:{secret}\nheaders = Cookie, X-App\nmax_in_flight = 7\n"
            "on_failure = allow\nfailures = 2\npause = 3\nremember = 0\n"
        )
        self.assertEqual([each.value for each in hooks.secrets], [b"a" * 32, b"b" * 32])
        self.assertEqual(hooks.url, "https://app.example:8443/hook.php?from=push")
        self.assertEqual(hooks.events, ("publish", "connect"))
        self.assertEqual((hooks.headers, hooks.on_failure), (("cookie", "x-app"), "allow"))
        self.assertTrue(hooks.in_use)

    def test_off(self) -> None:
        """Without a URL nobody is asked; a namespace may be left out."""
        for text in ("", "[hooks]\n", "[hooks]\ntimeout = 1\n", "[hooks]\nurl = http://a/\nevents =\n"):
            self.assertFalse(parse(_LISTEN + text).hooks.in_use)
        [namespace] = parse(f"{_LISTEN}[namespace:a]\nhooks = no\n").namespaces
        self.assertFalse(namespace.hooks)

    def test_mistakes(self) -> None:
        """What cannot be used is told in one line, which shows no secret."""
        for text in (
            "url = app.example", "url = ftp://app.example/", "url = http://", "url = http://me:secret@app.example/",
            "url = http://app.example/#x", "url = http://app.example:0/", "url = http://app.example:x/",
            "url = http://app.example/é", "url = http://[::1", "events = refresh", "timeout = 0", "timeout = 61",
            "secrets = short", f"secrets = base64:{'!' * 50}", f"secrets = {'very-secret' * 2}",
            f"secrets =\n  {'very-secret' * 4}\n  {'very-secret' * 4}",
            "headers = a b", "headers = cookie, Cookie", "max_in_flight = 0", "on_failure = maybe", "failures = 0",
            "pause = 0", "ca = /nowhere/ca.pem", "urls = x",
        ):
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, _hooks, text + "\n")
                self.assertIn("[hooks]", str(error))
                self.assertNotIn("secretvery", str(error))
                self.assertNotIn("\n", str(error))

    def test_secret(self) -> None:
        """No secret shows itself with the configuration."""
        config = parse(f"{_LISTEN}[hooks]\nurl = http://a/\nsecrets = {'very-secret' * 4}\n")
        self.assertNotIn("secretvery", repr(config))


class ReloadTests(SynchronousTestCase):
    """Another configuration while the node runs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.node: Node = build_node(parse(_LISTEN), self.clock)
        self.site = build_site(parse(_LISTEN), self.node, self.clock)

    def reload(self, text: str) -> Config:
        """Go on with a configuration."""
        config = parse(_LISTEN + text)
        reconfigure(config, self.node, self.site)
        return config

    def test_changed(self) -> None:
        """Hooks come, stay if nothing has changed, are others if something has, and go."""
        self.assertIsNone(self.node.hooks)
        self.reload(_URL)
        first = self.node.hooks
        self.assertIsNotNone(first)
        self.reload(_URL + "[limits]\nqueue_bytes = 5000\n")
        self.assertIs(self.node.hooks, first)
        self.node.hooks = first
        reconfigure(parse(_LISTEN + "allowed_origins = https://a.example\n" + _URL), self.node, self.site)
        self.assertIsNot(self.node.hooks, first)
        self.reload(_URL + "timeout = 7\n")
        second = self.node.hooks
        self.assertIsNot(second, first)
        self.assertIsNotNone(second)
        self.reload("")
        self.assertIsNone(self.node.hooks)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_authorities(self) -> None:
        """A file of authorities is read again, also if it has the same name; one that is bad changes nothing."""
        path = Path(self.mktemp()).absolute()
        path.write_text(issue(self, "one", authority=True).pem)
        text = f"{_URL}ca = {path}\n"
        self.reload(text)
        first = self.node.hooks
        self.reload(text)
        self.assertIs(self.node.hooks, first)
        path.write_text(issue(self, "two", authority=True).pem)
        self.reload(text)
        second = self.node.hooks
        self.assertIsNot(second, first)
        config = parse(_LISTEN + text)
        path.write_text("nothing")
        error = self.assertRaises(ConfigError, reconfigure, config, self.node, self.site)
        self.assertIn("[hooks] ca", str(error))
        self.assertIs(self.node.hooks, second)
        self.assertRaises(ConfigError, parse, _LISTEN + text)


class CheckTests(TestCase):
    """What ``rtpush check`` says."""

    async def check(self, text: str) -> tuple[str, str]:
        """Return the verdict on hooks, and the details."""
        path = Path(self.mktemp())
        path.write_text(_LISTEN + text)
        findings = Findings()
        await ConfigCheck(reactor, str(path), findings, connect=False).run()
        [found] = [each for each in findings.all if each.what == "hooks"]
        return found.verdict.value, found.detail

    async def test_verdicts(self) -> None:
        """Nobody is to be asked without a signature, or over a network without TLS; queries are not shown."""
        secret = f"secrets = {'x' * 40}\n"
        for url, more, verdict in (
            ("https://app.example/a?key=private", secret, "ok"),
            ("http://localhost:8000/a?key=private", secret, "ok"),
            ("http://app.example/a?key=private", secret, "warning"),
            ("https://app.example/a?key=private", "", "warning"),
        ):
            found = await self.check(f"[hooks]\nurl = {url}\n{more}")
            self.assertEqual(found[0], verdict, found)
            self.assertNotIn("private", found[1])
