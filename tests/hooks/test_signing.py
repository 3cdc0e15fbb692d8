"""Signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac

from twisted.trial.unittest import SynchronousTestCase

from rtpush.hooks.signing import Secret, parse_secret, signed


class SecretTests(SynchronousTestCase):
    """How secrets are written."""

    def test_forms(self) -> None:
        """As text, in base64, and as Standard Webhooks has them."""
        raw = bytes(range(32))
        text = base64.b64encode(raw).decode()
        self.assertEqual(parse_secret("x" * 32).value, b"x" * 32)
        self.assertEqual(parse_secret(f"base64:{text}").value, raw)
        self.assertEqual(parse_secret("whsec_" + base64.b64encode(raw[:24]).decode()).value, raw[:24])

    def test_bad(self) -> None:
        """Short or malformed ones are refused, and not shown."""
        for text in ("x" * 31, "base64:" + "A" * 40, "base64:***", "whsec_QUJD", "é" * 40):
            error = self.assertRaises(ValueError, parse_secret, text)
            self.assertNotIn(text[-3:], str(error))

    def test_repr(self) -> None:
        """A secret does not show itself."""
        self.assertNotIn("xxx", repr(Secret(b"x" * 32)))


class SignedTests(SynchronousTestCase):
    """The headers."""

    def test_specification(self) -> None:
        """The example of the specification's own libraries."""
        secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        headers = dict(signed([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
        self.assertEqual(headers[b"webhook-signature"], b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")

    def test_several(self) -> None:
        """Each secret makes a signature, the first one first; without any there is none."""
        headers = dict(signed([Secret(b"a" * 32), Secret(b"b" * 32)], "id", 7, b"{}"))
        self.assertEqual((headers[b"webhook-id"], headers[b"webhook-timestamp"]), (b"id", b"7"))
        made = [
            "v1," + base64.b64encode(hmac.new(letter * 32, b"id.7.{}", hashlib.sha256).digest()).decode()
            for letter in (b"a", b"b")
        ]
        self.assertEqual(headers[b"webhook-signature"].decode().split(" "), made)
        self.assertNotIn(b"webhook-signature", dict(signed([], "id", 7, b"{}")))
