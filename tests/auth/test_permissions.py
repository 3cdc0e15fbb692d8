"""Tests of rtpush.auth.permissions."""

from __future__ import annotations

import itertools
import re
import sys

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.permissions import NOTHING, Action, Grant, Permissions, channel_mismatch, may
from rtpush.errors import ErrorCode
from rtpush.protocol.channel import Access, Namespace

SUBSCRIBE, PUBLISH, HISTORY, PRESENCE = Action
ANYONE, TOKEN, SERVER = Access


def permissions(*patterns: str, actions: tuple[Action, ...] = (SUBSCRIBE,)) -> Permissions:
    """Return permissions to do something in channels of some forms."""
    return Permissions.of(dict.fromkeys(patterns, actions))


class PatternTests(SynchronousTestCase):
    """Which channels a name or pattern fits."""

    def test_table(self) -> None:
        """A star stands for anything but a colon; at the end, for anything."""
        for pattern, fits, fits_not in (
            ("demo:a", ["demo:a"], ["demo:", "demo:ab", "demo:A", "xdemo:a", "demo:a:b"]),
            ("demo:*", ["demo:", "demo:a", "demo:a:b", "demo:*"], ["demo", "demos:a", "a:demo:b"]),
            ("*", ["a", "a:b", "a:b:c", "*"], []),
            ("user:*:news", ["user:42:news", "user::news"], ["user:news", "user:4:2:news", "user:42:newsy", "user:42"]),
            ("user:*:*", ["user:42:", "user:42:a", "user:42:a:b"], ["user:42", "users:42:a"]),
            ("*:news", ["a:news", ":news"], ["news", "a:b:news"]),
            ("demo:a*", ["demo:a", "demo:ab", "demo:a:b"], ["demo:b", "demo:"]),
            ("demo:a*c", ["demo:ac", "demo:abc"], ["demo:a", "demo:a:c", "demo:acd", "demo:ab"]),
            # Before and behind the star must not be the same characters.
            ("demo:aba*ba", ["demo:ababa", "demo:abaxba"], ["demo:aba", "demo:abaa"]),
            ("demo:(a|b)+", ["demo:(a|b)+"], ["demo:a", "demo:ab"]),
            ("demo:.*", ["demo:.", "demo:.x"], ["demo:a"]),
            ("demo:[ab]", ["demo:[ab]"], ["demo:a"]),
            ("demo:?", ["demo:?"], ["demo:a"]),
        ):
            granted = permissions(pattern)
            for channel in fits:
                self.assertTrue(granted.allows(SUBSCRIBE, channel), (pattern, channel))
            for channel in fits_not:
                self.assertFalse(granted.allows(SUBSCRIBE, channel), (pattern, channel))

    _PIECE = st.text("ab*", max_size=4)

    @given(st.lists(_PIECE, max_size=4).map(":".join), st.lists(st.text("ab", max_size=4), max_size=5).map(":".join))
    @example("a*a:b", "aa:b")
    def test_as_expressions(self, pattern: str, channel: str) -> None:
        """A pattern fits what the regular expression fits that says the same."""
        try:
            granted = permissions(pattern)
        except ValueError:
            self.assertTrue(not pattern or any(piece.count("*") > 1 for piece in pattern.split(":")))
            return
        body, last = (pattern[:-1], ".*") if pattern.endswith("*") else (pattern, "")
        expression = "[^:]*".join(re.escape(piece) for piece in body.split("*")) + last
        self.assertEqual(granted.allows(SUBSCRIBE, channel), re.fullmatch(expression, channel) is not None)


class PermissionsTests(SynchronousTestCase):
    """Several patterns together."""

    def test_union(self) -> None:
        """A channel that several fit has the actions of all."""
        granted = Permissions.of({"a:b": [PUBLISH], "a:*": [SUBSCRIBE, SUBSCRIBE], "*:b": [HISTORY], "c:*": [PRESENCE]})
        self.assertEqual([action for action in Action if granted.allows(action, "a:b")], [SUBSCRIBE, PUBLISH, HISTORY])
        self.assertEqual([action for action in Action if granted.allows(action, "a:c")], [SUBSCRIBE])
        self.assertEqual([action for action in Action if granted.allows(action, "d:c")], [])

    def test_nothing(self) -> None:
        """Nothing permits nothing, and so does a channel without an action."""
        for granted in (NOTHING, Permissions.of({"*": []})):
            self.assertFalse(any(granted.allows(action, "a") for action in Action))

    def test_bounds(self) -> None:
        """There are at most 100, each of the form of a channel's name."""
        permissions(*(f"a:{number}*" for number in range(100)))
        self.assertRaises(ValueError, permissions, *(f"a:{number}" for number in range(101)))
        for name in ("", "a b", "a,b", "ü", "x" * 256, "a:**", "a**:b"):
            self.assertRaises(ValueError, permissions, name)

    def test_shared(self) -> None:
        """Equal ones are one object, in whatever order they were written."""
        one = Permissions.of({"a:*": [SUBSCRIBE, PUBLISH], "b": [HISTORY]})
        self.assertIs(Permissions.of({"b": [HISTORY], "a:*": [PUBLISH, SUBSCRIBE]}), one)
        self.assertNotEqual(Permissions.of({"b": [HISTORY], "a:*": [PUBLISH]}), one)
        self.assertIs(Permissions.of({}), NOTHING)

    def test_forgotten(self) -> None:
        """Only the newest are kept for others: those of users who have gone do not pile up."""
        first = permissions("forgotten:first")
        for number in range(1024):
            permissions(f"forgotten:{number}")
        self.assertIsNot(permissions("forgotten:first"), first)
        self.assertEqual(permissions("forgotten:first"), first)

    def test_small(self) -> None:
        """One that a user has alone takes a few hundred bytes."""
        granted = permissions("user:42:*")
        size = sum(map(sys.getsizeof, (granted, granted._names, *granted._names, granted._actions)))
        self.assertLess(size, 300)


class GrantTests(SynchronousTestCase):
    """What one token grants."""

    def test_frozen(self) -> None:
        """A grant does not change, and has no room for more."""
        grant = Grant(user="42")
        self.assertRaises(attrs.exceptions.FrozenInstanceError, setattr, grant, "user", "43")
        self.assertFalse(hasattr(grant, "__dict__"))
        self.assertLess(sys.getsizeof(grant), 100)

    def test_channel_mismatch(self) -> None:
        """A token for a channel is for that channel alone, and for connections of the same user."""
        token = Grant(user="42", channel="a:b")
        self.assertIsNone(channel_mismatch(token, "a:b", Grant(user="42")))
        self.assertIsNone(channel_mismatch(Grant(channel="a:b"), "a:b", None))
        self.assertIsNone(channel_mismatch(Grant(channel="a:b"), "a:b", Grant()))
        for given_token, channel, connection in (
            (token, "a:c", Grant(user="42")),
            (token, "a:b", Grant(user="43")),
            (token, "a:b", Grant()),
            (token, "a:b", None),
            (Grant(channel="a:b"), "a:b", Grant(user="42")),
            (Grant(user="42"), "a:b", Grant(user="42")),
        ):
            error = channel_mismatch(given_token, channel, connection)
            self.assertIs(error and error.kind, ErrorCode.PERMISSION_DENIED)


#: Who asks.
NOBODY = None
PLAIN = Grant(user="42")
PERMITTED = Grant(user="42", permissions=permissions("a:*", actions=tuple(Action)))
UNNAMED = Grant(permissions=permissions("a:*", actions=tuple(Action)))
ELSEWHERE = Grant(user="42", permissions=permissions("b:*", actions=tuple(Action)))


class MayTests(SynchronousTestCase):
    """The decision."""

    def outcome(self, grant: Grant | None, action: Action, channel: str = "a:b", **options: object) -> str:
        """Return the name of the error, or ``yes``."""
        error = may(grant, action, channel, Namespace(name="a", **options))  # type: ignore[arg-type]
        if error is None:
            return "yes"
        self.assertIn(channel, error.message)
        self.assertIn(action.word, error.message)
        return error.kind.name.lower()

    def test_access(self) -> None:
        """For each action: who may, by what the namespace says, with the four kinds of client."""
        yes, token, denied = "yes", "unauthorized", "permission_denied"
        for action, field in zip(Action, ("subscribe", "publish", "read_history", "read_presence"), strict=True):
            for anonymous, access, expected in (
                #                    nobody, plain,  permitted, elsewhere
                (True, ANYONE,      (yes,    yes,    yes,       yes)),
                (True, TOKEN,       (token,  denied, yes,       denied)),
                (True, SERVER,      (denied, denied, denied,    denied)),
                (False, ANYONE,     (token,  yes,    yes,       yes)),
                (False, TOKEN,      (token,  denied, yes,       denied)),
                (False, SERVER,     (denied, denied, denied,    denied)),
            ):  # fmt: skip
                for grant, said in zip((NOBODY, PLAIN, PERMITTED, ELSEWHERE), expected, strict=True):
                    options = {"anonymous": anonymous, field: access}
                    self.assertEqual(self.outcome(grant, action, **options), said, (action, options, grant))

    def test_each_action_has_its_own(self) -> None:
        """What a token permits is asked action by action."""
        everything_by_token = {"subscribe": TOKEN, "publish": TOKEN}
        for permitted, asked in itertools.product(Action, Action):
            grant = Grant(permissions=permissions("a:b", actions=(permitted,)))
            expected = "yes" if permitted is asked else "permission_denied"
            self.assertEqual(self.outcome(grant, asked, **everything_by_token), expected)

    def test_reading_follows_subscribing(self) -> None:
        """History and presence are for those who may subscribe, where the namespace says nothing else."""
        for access in Access:
            for grant in (NOBODY, PLAIN, PERMITTED, ELSEWHERE):
                expected = self.outcome(grant, SUBSCRIBE, subscribe=access)
                for action in (HISTORY, PRESENCE):
                    self.assertEqual(self.outcome(grant, action, subscribe=access), expected)
        self.assertEqual(self.outcome(NOBODY, HISTORY, subscribe=SERVER, read_history=ANYONE), "yes")
        self.assertEqual(self.outcome(NOBODY, PRESENCE, subscribe=ANYONE, read_presence=SERVER), "permission_denied")
        self.assertEqual(self.outcome(NOBODY, HISTORY, subscribe=ANYONE, read_presence=SERVER), "yes")

    def test_defaults(self) -> None:
        """As it comes, a namespace lets anyone subscribe and read, and only the server publish."""
        for grant in (NOBODY, PLAIN, PERMITTED):
            outcomes = [self.outcome(grant, action) for action in Action]
            self.assertEqual(outcomes, ["yes", "permission_denied", "yes", "yes"])

    def test_user_limited(self) -> None:
        """A channel that names users is for them alone; to read there, they need no more; to publish, they may."""
        yes, token, denied = "yes", "unauthorized", "permission_denied"
        for access, expected_publish in ((ANYONE, yes), (TOKEN, denied), (SERVER, denied)):
            for channel in ("a:b#42", "a:#42", "a:b#41#42", "a:b#42#43"):
                for action in (SUBSCRIBE, HISTORY, PRESENCE):
                    options = {"user_limited": True, "subscribe": access, "publish": access}
                    expected = denied if access is SERVER else yes
                    self.assertEqual(self.outcome(PLAIN, action, channel, **options), expected)
                    self.assertEqual(
                        self.outcome(NOBODY, action, channel, **options), denied if access is SERVER else token
                    )
                    self.assertEqual(self.outcome(UNNAMED, action, channel, **options), denied)
                    other = attrs.evolve(PERMITTED, user="4")
                    self.assertEqual(self.outcome(other, action, channel, **options), denied)
                self.assertEqual(self.outcome(PLAIN, PUBLISH, channel, **options), expected_publish)
        self.assertEqual(self.outcome(PERMITTED, PUBLISH, "a:b#42", user_limited=True, publish=TOKEN), yes)
        self.assertEqual(self.outcome(PERMITTED, PUBLISH, "a:b#43", user_limited=True, publish=TOKEN), denied)
        self.assertEqual(self.outcome(NOBODY, PUBLISH, "a:b#43", user_limited=True, publish=ANYONE), token)

    def test_user_limited_names(self) -> None:
        """Users are named whole, behind the first ``#``; a token of nobody is named nowhere."""
        for channel in ("a:42", "a:42#", "a:b#", "a:b##", "a:b#421", "a:b#4#2", "a:b#42,43", "a:b#042", "a:42#43"):
            for grant in (attrs.evolve(PERMITTED, user="42"), UNNAMED):
                if "#" in channel:
                    self.assertEqual(
                        self.outcome(grant, SUBSCRIBE, channel, user_limited=True), "permission_denied", channel
                    )
        before = attrs.evolve(PERMITTED, user="a:42")
        self.assertEqual(self.outcome(before, SUBSCRIBE, "a:42#43", user_limited=True), "permission_denied")
        self.assertEqual(self.outcome(NOBODY, SUBSCRIBE, "a:b", user_limited=True), "yes")
        self.assertEqual(self.outcome(PERMITTED, SUBSCRIBE, "a:b", user_limited=True, subscribe=TOKEN), "yes")

    def test_not_user_limited(self) -> None:
        """Elsewhere ``#`` is a character like others."""
        self.assertEqual(self.outcome(NOBODY, SUBSCRIBE, "a:b#42"), "yes")
        self.assertEqual(self.outcome(PLAIN, SUBSCRIBE, "a:b#42", subscribe=TOKEN), "permission_denied")

    @given(
        st.sampled_from([NOBODY, PLAIN, PERMITTED, UNNAMED, ELSEWHERE]),
        st.sampled_from(Action),
        st.sampled_from(["a:b", "a:b#42", "a:b#43", "a:#"]),
        st.builds(
            Namespace,
            name=st.just("a"),
            subscribe=st.sampled_from(Access),
            publish=st.sampled_from(Access),
            read_history=st.none() | st.sampled_from(Access),
            read_presence=st.none() | st.sampled_from(Access),
            anonymous=st.booleans(),
            user_limited=st.booleans(),
        ),
    )
    def test_laws(self, grant: Grant | None, action: Action, channel: str, namespace: Namespace) -> None:
        """A token never takes anything away; more permissions never do; what is for the server is for no one else."""
        allowed = may(grant, action, channel, namespace) is None
        if may(None, action, channel, namespace) is None:
            self.assertTrue(allowed)
        if grant is not None and allowed:
            more = attrs.evolve(grant, permissions=permissions("*", actions=tuple(Action)))
            self.assertIsNone(may(more, action, channel, namespace))
        if grant is None and not namespace.anonymous:
            self.assertFalse(allowed)
        closed = attrs.evolve(namespace, subscribe=SERVER, publish=SERVER, read_history=None, read_presence=None)
        self.assertIsNotNone(may(grant, action, channel, closed))
