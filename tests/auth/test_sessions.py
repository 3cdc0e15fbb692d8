"""Tests of rtpush.auth.sessions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rtpush.auth.sessions import Sessions

KEY, OTHER = "key-of-the-api-0000", "another-key-of-the-api"


class SessionsTests(SynchronousTestCase):
    """Sessions that are opened by a key."""

    def setUp(self) -> None:
        self.sessions = Sessions([KEY, OTHER], lifetime=100.0)

    def open(self, key: str = KEY, now: float = 1000.0) -> str:
        """Open one."""
        session = self.sessions.open(key, now)
        assert session is not None
        return session

    def test_lasts(self) -> None:
        """Any of the keys opens one, which lasts as long as it is said, and not longer."""
        for key in (KEY, OTHER):
            session = self.open(key)
            self.assertNotIn(key, session)
            self.assertEqual(self.sessions.end(session, 1000.0), 1100.0)
            self.assertEqual(self.sessions.end(session, 1099.9), 1100.0)
            self.assertIsNone(self.sessions.end(session, 1100.0))

    def test_wrong_keys(self) -> None:
        """Nothing else opens one, and no two are the same."""
        for key in ("", KEY[:-1], KEY + "x", KEY.upper(), "\udcff", "ключ"):
            self.assertIsNone(self.sessions.open(key, 1000.0))
        self.assertNotEqual(self.open(), self.open())

    def test_elsewhere(self) -> None:
        """A session is known wherever its key is, and nowhere else."""
        session = self.open(OTHER)
        self.assertEqual(Sessions([OTHER], lifetime=100.0).end(session, 1000.0), 1100.0)
        self.assertIsNone(Sessions([KEY], lifetime=100.0).end(session, 1000.0))
        self.assertIsNone(Sessions([], lifetime=100.0).end(session, 1000.0))
        # Where sessions are shorter, one that is too long does not count.
        self.assertIsNone(Sessions([OTHER], lifetime=50.0).end(session, 1000.0))

    def test_changed(self) -> None:
        """One in which a single character is another one is none."""
        session = self.open()
        for place in range(len(session)):
            changed = session[:place] + ("1" if session[place] == "0" else "0") + session[place + 1 :]
            self.assertIsNone(self.sessions.end(changed, 1000.0), place)
        for text in ("", ".", "..", session + "0", session + "\n", " " + session, "9" * 400, session.upper()):
            self.assertIsNone(self.sessions.end(text, 1000.0), text)

    def test_can_open(self) -> None:
        """Without a key there are none."""
        self.assertTrue(self.sessions.can_open)
        none = Sessions([], lifetime=100.0)
        self.assertFalse(none.can_open)
        self.assertIsNone(none.open("", 1000.0))
