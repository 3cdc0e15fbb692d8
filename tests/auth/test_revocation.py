"""Tests of rtpush.auth.revocation."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.permissions import Grant
from rtpush.auth.revocation import Revocation, Revocations
from rtpush.errors import ErrorCode, RtpushError

NOW = 1000.0


def revocation(**changes: Any) -> Revocation:
    """Return a revocation of what was made until now, for a minute."""
    return Revocation(**{"before": NOW, "until": NOW + 60} | changes)


def revoked(*revocations: Revocation) -> Revocations:
    """Return a store with some in it."""
    store = Revocations()
    for each in revocations:
        store.add(each, NOW)
    return store


class RevocationsTests(SynchronousTestCase):
    """What is taken back."""

    def test_kinds(self) -> None:
        """A token is taken back by its user, by its id, by a channel, or by its user in a channel."""
        ann, bob, nobody = (
            Grant(user=user, id=id_, issued=NOW) for user, id_ in (("ann", "1"), ("bob", "2"), ("", ""))
        )
        for given_names, expected in (
            ({"user": "ann"}, {("ann", "a"), ("ann", "b"), ("ann", "")}),
            ({"id": "2"}, {("bob", "a"), ("bob", "b"), ("bob", "")}),
            ({"channel": "a"}, {("ann", "a"), ("bob", "a"), ("", "a")}),
            ({"user": "ann", "channel": "a"}, {("ann", "a")}),
            ({"user": "2"}, set()),
            ({"id": "ann"}, set()),
        ):
            store = revoked(revocation(**given_names))
            found = {
                (grant.user, channel)
                for grant, channel in itertools.product((ann, bob, nobody), ("a", "b", ""))
                if store.is_revoked(grant, channel, NOW)
            }
            self.assertEqual(found, expected, given_names)

    def test_empty(self) -> None:
        """Without revocations nothing is taken back."""
        self.assertFalse(Revocations().is_revoked(Grant(user="ann", id="1"), "a", NOW))

    def test_newer_tokens(self) -> None:
        """Tokens of the user that were made later are good; those that do not say when are not. An id is for good."""
        for names in ({"user": "ann"}, {"channel": "a"}, {"user": "ann", "channel": "a"}, {"id": "1"}):
            store = revoked(revocation(**names))
            for issued, expected in ((None, True), (NOW - 1, True), (NOW, True), (NOW + 0.5, "id" in names)):
                grant = Grant(user="ann", id="1", issued=issued)
                self.assertEqual(store.is_revoked(grant, "a", NOW), expected, (names, issued))

    def test_ends(self) -> None:
        """At its end a revocation is over; one that is over already is not kept."""
        store = revoked(revocation(user="ann"), revocation(user="bob", until=NOW))
        self.assertEqual(len(store), 1)
        self.assertTrue(store.is_revoked(Grant(user="ann"), "", NOW + 59.9))
        self.assertFalse(store.is_revoked(Grant(user="ann"), "", NOW + 60))
        self.assertEqual(store.all(NOW + 60), [])
        store.forget(NOW + 60)
        self.assertEqual(len(store), 0)

    def test_full(self) -> None:
        """A full store takes no more, but wider ones for what is there, and says so; what is over makes room."""
        store = Revocations(limit=2)
        store.add(revocation(user="a"), NOW)
        store.add(revocation(user="b", until=NOW + 5), NOW)
        error = self.assertRaises(RtpushError, store.add, revocation(user="c"), NOW)
        self.assertIs(error.kind, ErrorCode.LIMIT_EXCEEDED)
        self.assertFalse(store.is_revoked(Grant(user="c"), "", NOW))
        store.add(revocation(user="a", until=NOW + 90), NOW)
        store.add(revocation(user="c"), NOW + 5)
        self.assertEqual({each.user for each in store.all(NOW + 5)}, {"a", "c"})

    def test_again(self) -> None:
        """One that has ended and comes again begins anew, even in a full store."""
        store = Revocations(limit=1)
        store.add(revocation(user="a", before=NOW + 50, until=NOW + 5), NOW)
        store.add(revocation(user="a", before=NOW + 10, until=NOW + 90), NOW + 10)
        self.assertEqual(store.all(NOW + 10), [revocation(user="a", before=NOW + 10, until=NOW + 90)])

    _ANY = st.builds(
        revocation,
        user=st.sampled_from(["ann", "bob"]),
        channel=st.sampled_from(["", "a"]),
        before=st.sampled_from([NOW - 1, NOW, NOW + 1]),
        until=st.sampled_from([NOW + 1, NOW + 2]),
    )

    @given(st.lists(_ANY, max_size=6).flatmap(lambda listed: st.tuples(st.just(listed), st.permutations(listed * 2))))
    def test_order(self, lists: tuple[list[Revocation], list[Revocation]]) -> None:
        """In whatever order they come, and however often, all nodes know the same in the end."""
        one, two = (revoked(*listed) for listed in lists)
        self.assertEqual(set(one.all(NOW)), set(two.all(NOW)))
        self.assertEqual(set(revoked(*one.all(NOW)).all(NOW)), set(one.all(NOW)))


class MessageTests(SynchronousTestCase):
    """What nodes tell each other."""

    def test_round(self) -> None:
        """A revocation can be written and read, and takes few bytes."""
        for names in ({"user": "é"}, {"id": "1"}, {"channel": "a:b"}, {"user": "ann", "channel": "a:b"}):
            made = revocation(**names)
            self.assertEqual(Revocation.decode(made.encode()), made)
        self.assertEqual(revocation(user="ann").encode(), b'{"user":"ann","before":1000.0,"until":1060.0}')

    def test_malformed(self) -> None:
        """What is none is refused: no name or a mixture, wrong types, times that are none."""
        for content in (
            b"",
            b"x",
            b"null",
            b"{}",
            b'{"before":1,"until":2}',
            b'{"user":"","before":1,"until":2}',
            b'{"user":"a","until":2}',
            b'{"user":"a","id":"b","before":1,"until":2}',
            b'{"channel":"a","id":"b","before":1,"until":2}',
            b'{"user":1,"before":1,"until":2}',
            b'{"user":"a","before":"1","until":2}',
            b'{"user":"a","before":1,"until":1e400}',
            b'{"user":"a","before":-1,"until":2}',
            b'{"user":"a","before":NaN,"until":2}',
            b'{"user":"a","before":1,"until":2,"more":3}',
            b'{"user":"' + 256 * b"a" + b'","before":1,"until":2}',
        ):
            self.assertRaises(ValueError, Revocation.decode, content)
        self.assertRaises(ValueError, revocation)
        self.assertRaises(ValueError, revocation, user="a", before=float("nan"))

    @given(st.binary())
    def test_anything(self, content: bytes) -> None:
        """Anything else is a ValueError."""
        self.assertRaises(ValueError, Revocation.decode, content)
