"""Tests of rtpush.protocol.channel."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.errors import ErrorCode, RtpushError
from rtpush.protocol.channel import REVOCATIONS, Access, Namespace, Namespaces
from tests.protocol.strategies import channels

_DEFAULT = Namespace(name="default")
_DEMO = Namespace(name="demo")


class NamespacesTests(SynchronousTestCase):
    """Channel names and their namespaces."""

    def setUp(self) -> None:
        """Have two namespaces."""
        self.namespaces = Namespaces([_DEFAULT, _DEMO])

    def refusal(self, channel: str) -> RtpushError:
        """Return the error for a channel."""
        return self.assertRaises(RtpushError, self.namespaces.of, channel)

    @given(channels)
    @example("a")
    @example("x" * 255)
    @example(":a")
    def test_good_names(self, channel: str) -> None:
        """A good name is of the default namespace without a colon, and unknown with an unknown one before it."""
        if ":" not in channel:
            self.assertIs(self.namespaces.of(channel), _DEFAULT)
        elif channel.partition(":")[0] not in ("default", "demo"):
            self.assertIs(self.refusal(channel).kind, ErrorCode.UNKNOWN_CHANNEL)

    @given(channels)
    def test_needs_no_escaping(self, channel: str) -> None:
        """A good name goes into JSON, and into the list of a query, as it is."""
        self.assertEqual(json.dumps(channel), f'"{channel}"')
        self.assertNotIn(",", channel)

    @given(st.text())
    @example("")
    @example("x" * 256)
    @example("a b")
    @example("a,b")
    @example('a"b')
    @example("a\\b")
    @example("a\x7f")
    @example("a\n")
    @example("é")
    @example("\ud800")
    def test_any_name(self, channel: str) -> None:
        """A name is good exactly if it has 1 to 255 printable ASCII characters without the four that are taken."""
        good = 1 <= len(channel) <= 255 and all("!" <= letter <= "~" and letter not in ',"\\' for letter in channel)
        try:
            self.namespaces.of(channel)
        except RtpushError as error:
            self.assertIs(error.kind, ErrorCode.UNKNOWN_CHANNEL if good else ErrorCode.BAD_CHANNEL)
            self.assertLess(len(error.message), 1000)
        else:
            self.assertTrue(good)

    def test_with_namespace(self) -> None:
        """What stands before the first colon picks the namespace."""
        self.assertIs(self.namespaces.of("demo:a"), _DEMO)
        self.assertIs(self.namespaces.of("demo:a:b"), _DEMO)
        self.assertIs(self.namespaces.of("demo:"), _DEMO)
        self.assertIs(self.namespaces.of("default:a"), _DEFAULT)

    def test_without_default(self) -> None:
        """A name without a colon is unknown where no namespace is called default."""
        error = self.assertRaises(RtpushError, Namespaces([_DEMO]).of, "a")
        self.assertIs(error.kind, ErrorCode.UNKNOWN_CHANNEL)
        self.assertIn("'default'", error.message)


    def test_own(self) -> None:
        """The channel of the nodes themselves is for the server alone, and in no namespace of the configuration."""
        own = self.namespaces.of(REVOCATIONS)
        self.assertIs(own.subscribe, Access.SERVER)
        self.assertIs(own.publish, Access.SERVER)
        self.assertNotIn(own.name, self.namespaces.names)


class ReplaceTests(SynchronousTestCase):
    """Other namespaces."""

    def test_replace(self) -> None:
        """Others count at once, also for channels that were asked for before."""
        namespaces = Namespaces([_DEFAULT, _DEMO])
        self.assertIs(namespaces.of("demo:a"), _DEMO)
        other = Namespace(name="demo", history_size=7)
        namespaces.replace([other])
        self.assertIs(namespaces.of("demo:a"), other)
        self.assertRaises(RtpushError, namespaces.of, "a")
