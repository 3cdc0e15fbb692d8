"""Tests of rtpush.broker.redis.address."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.broker.redis.address import RedisAddress, parse_address

_LOCAL = (("127.0.0.1", 6379),)
_SENTINELS = (("s1", 26379), ("s2", 26380))

#: The text, what it says, and what it is called.
_GOOD = (
    ("redis://127.0.0.1", RedisAddress(hosts=_LOCAL), "127.0.0.1:6379/0"),
    ("redis://127.0.0.1/", RedisAddress(hosts=_LOCAL), "127.0.0.1:6379/0"),
    ("redis://127.0.0.1:6379/0", RedisAddress(hosts=_LOCAL), "127.0.0.1:6379/0"),
    ("redis://Redis-1.example:7000/15", RedisAddress(hosts=(("redis-1.example", 7000),), db=15), None),
    ("redis://[2001:DB8::0]:7000", RedisAddress(hosts=(("2001:db8::", 7000),)), "[2001:db8::]:7000/0"),
    ("redis://:secret@127.0.0.1", RedisAddress(hosts=_LOCAL, password="secret"), "127.0.0.1:6379/0"),
    ("redis://ann:a:b@127.0.0.1", RedisAddress(hosts=_LOCAL, username="ann", password="a:b"), "127.0.0.1:6379/0"),
    ("redis://a%40b:%2f%25%C3%A9@127.0.0.1", RedisAddress(hosts=_LOCAL, username="a@b", password="/%é"), None),
    ("rediss://127.0.0.1", RedisAddress(hosts=_LOCAL, tls=True), "127.0.0.1:6379/0"),
    ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock"), "/run/redis.sock/0"),
    ("unix:///run/my%20redis.sock?db=3", RedisAddress(path="/run/my redis.sock", db=3), "/run/my redis.sock/3"),
    ("unix://ann:secret@/r", RedisAddress(path="/r", username="ann", password="secret"), "/r/0"),
    ("redis+sentinel://s/m", RedisAddress(hosts=(("s", 26379),), master="m"), "m/0 by s:26379"),
    ("redis+sentinel://s1,s2:26380/m/4", RedisAddress(hosts=_SENTINELS, master="m", db=4), "m/4 by s1:26379,s2:26380"),
    (
        "rediss+sentinel://ann:pw@[::1],s/my-master?sentinel_password=%3Fx%26",
        RedisAddress(
            hosts=(("::1", 26379), ("s", 26379)),
            master="my-master",
            tls=True,
            username="ann",
            password="pw",
            sentinel_password="?x&",
        ),
        "my-master/0 by [::1]:26379,s:26379",
    ),
)

#: The text, and a part of the reason.
_BAD = (
    ("", "begins with redis://"),
    ("127.0.0.1:6379", "begins with redis://"),
    ("http://a", "begins with redis://"),
    ("REDIS://a", "begins with redis://"),
    ("unix+sentinel://a/m", "begins with redis://"),
    ("redis://", "host"),
    ("redis://:6379", "host"),
    ("redis://a:", "host"),
    ("redis://a:x", "host"),
    ("redis://a b", "host"),
    ("redis://a\n", "host"),
    ("redis://a,b", "host"),
    ("redis://::1", "host"),
    ("redis://[::1", "host"),
    ("redis://[1.2.3.4]", "IPv6"),
    ("redis://[:::]:1", "IPv6"),
    ("redis://a:0", "port"),
    ("redis://a:65536", "port"),
    ("redis://a:٣", "host"),
    ("redis://a/x", "database"),
    ("redis://a/-1", "database"),
    ("redis://a/1/2", "database"),
    ("redis://a/٣", "database"),
    ("redis://a/100000", "database"),
    ("redis://a/1?db=1", "?"),
    ("redis://a?", "?"),
    ("redis://a/0#x", "database"),
    ("redis://secret@a", "user:password"),
    ("redis://:@a", "user:password"),
    ("redis://ann:@a", "user:password"),
    ("redis://:se/cret@a", "host"),
    ("redis://:se@cret@a", "user:password"),
    ("redis://:secret%4@a", "user:password"),
    ("redis://:secret%ff@a", "UTF-8"),
    ("redis://:secret%00@a", "zero byte"),
    ("unix://", "path of the socket"),
    ("unix:///", "path of the socket"),
    ("unix://run/redis.sock", "path of the socket"),
    ("unix:///a b", "path of the socket"),
    ("unix:///a?", "db="),
    ("unix:///a?db=", "db="),
    ("unix:///a?db=x", "database"),
    ("unix:///a?db=1&db=2", "db="),
    ("unix:///a?database=1", "db="),
    ("redis+sentinel://a", "name of their master"),
    ("redis+sentinel://a/", "name of their master"),
    ("redis+sentinel://a/my master", "name of their master"),
    ("redis+sentinel:///m", "host"),
    ("redis+sentinel://a,/m", "host"),
    ("redis+sentinel://a,A:26379/m", "twice"),
    ("redis+sentinel://a/m/x", "database"),
    ("redis+sentinel://a/m/0/0", "database"),
    ("redis+sentinel://a/m?password=secret", "sentinel_password="),
    ("redis+sentinel://a/m?sentinel_password=secret&db=1", "sentinel_password="),
)


class ParseTests(SynchronousTestCase):
    """Addresses, read."""

    def test_good(self) -> None:
        """Each form is read, and has a name that tells the place and the database alone."""
        for text, address, name in _GOOD:
            with self.subTest(text=text):
                self.assertEqual(parse_address(text), address)
                if name is not None:
                    self.assertEqual(address.name, name)

    def test_shard(self) -> None:
        """The ring's name of a shard stays when there is another sentinel."""
        for text, shard in (
            ("redis://ann:secret@10.0.0.1/2", "10.0.0.1:6379/2"),
            ("redis+sentinel://a,b/main/1", "main/1"),
            ("redis+sentinel://c/main/1", "main/1"),
        ):
            self.assertEqual(parse_address(text).shard, shard)

    def test_bad(self) -> None:
        """What is no address is refused with a reason that shows nothing of it."""
        for text, reason in _BAD:
            with self.subTest(text=text):
                error = self.assertRaises(ValueError, parse_address, text)
                self.assertIn(reason, str(error))
                self.assertNotIn("secret@", str(error))
                self.assertNotIn("=secret", str(error))

    @given(st.text().map(lambda text: f"redis://{text}") | st.text())
    def test_any(self, text: str) -> None:
        """Any text is an address or is none."""
        try:
            parse_address(text)
        except ValueError as error:
            self.assertEqual(len(str(error).splitlines()), 1)

    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
    def test_any_password(self, password: str) -> None:
        """A password may hold anything, and comes out as it went in."""
        encoded = quote(password, safe="")
        address = parse_address(f"redis+sentinel://:{encoded}@a/m?sentinel_password={encoded}")
        self.assertEqual((address.password, address.sentinel_password), (password, password))
        self.assertEqual(address.name, "m/0 by a:26379")

    def test_hidden(self) -> None:
        """An address shows no password when it is shown."""
        address = parse_address("redis+sentinel://ann:one@a/m?sentinel_password=two")
        self.assertNotIn("one", repr(address))
        self.assertNotIn("two", repr(address))

    def test_order_of_sentinels(self) -> None:
        """The order in which sentinels are named does not change what they are called."""
        names = {parse_address(f"redis+sentinel://{hosts}/m").name for hosts in ("a,b:1,c", "c,a,b:1")}
        self.assertEqual(len(names), 1)
