"""Tests of rtpush.service.config and rtpush.service.schema."""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rtpush.broker.redis.address import RedisAddress
from rtpush.protocol.backoff import Backoff
from rtpush.protocol.channel import Access, Namespace, SlowReader
from rtpush.protocol.limits import Limits
from rtpush.service import config, ini
from rtpush.service.schema import NAMESPACE, SECTIONS
from rtpush.service.settings.serving import AUTO

CONF = Path(__file__).parents[2] / "conf"

_TYPES = (*SECTIONS, NAMESPACE)
_LISTEN = "[server]\nlisten = tcp:8080\n"

# The text, the line that is to blame (None: none), and parts of what must be said about it.
_BAD = (
    # The form of the file.
    ("listen = tcp:80", 1, "'listen = tcp:80'", "expected a [section]"),
    ("[server\n", 1, "'[server'", "expected [section]"),
    ("[server] listen = tcp:80", 1, "expected [section]"),
    ("[server]\nlisten", 2, "[server]", "'listen'", "expected key = value"),
    ("[server]\n= tcp:80", 2, "expected key = value"),
    (_LISTEN + "listen = tcp:81", 3, "[server] listen", "twice", "line 2"),
    (_LISTEN + "[poll]\n[poll]\n", 4, "[poll]", "twice", "line 3"),
    # Names.
    ("", None, "[server] listen: missing"),
    ("[server]\nheartbeat = 30", None, "[server] listen: missing"),
    ("[sever]\nlisten = tcp:80", 1, "[sever]: unknown section", "did you mean server?"),
    ("[SERVER]\nlisten = tcp:80", 1, "[SERVER]: unknown section", "did you mean server?"),
    (_LISTEN + "[DEFAULT]\n", 3, "[DEFAULT]: unknown section", "known are server,"),
    (_LISTEN + "[namepsace:x]\n", 3, "[namepsace:x]: unknown section", "did you mean namespace:x?"),
    (_LISTEN + "[namespace]\n", 3, "did you mean namespace:NAME?"),
    (_LISTEN + "[namespace:]\n", 3, "''", "expected 1 to 64 letters"),
    (_LISTEN + "[namespace:a:b]\n", 3, "'a:b'", "expected 1 to 64 letters"),
    (_LISTEN + "[namespace:a b]\n", 3, "'a b'", "expected 1 to 64 letters"),
    (_LISTEN + "heartbaet = 3", 3, "[server] heartbaet: unknown key", "did you mean heartbeat?"),
    (_LISTEN + "Heartbeat = 3", 3, "[server] Heartbeat: unknown key", "did you mean heartbeat?"),
    (_LISTEN + "message_bytes = 3", 3, "unknown key", "did you mean message_bytes of [limits]?"),
    (_LISTEN + "processes = 2", 3, "[server] processes: unknown key", "known are listen, node"),
    (_LISTEN + "[namespace:x]\nhistory = 3", 4, "[namespace:x] history: unknown key", "did you mean history_"),
    # Numbers.
    (_LISTEN + "heartbeat =", 3, "[server] heartbeat: there is no value", "a number of seconds from 0.1 to 3600"),
    (_LISTEN + "heartbeat = soon", 3, "[server] heartbeat: 'soon'", "a number of seconds from 0.1 to 3600"),
    (_LISTEN + "heartbeat = -1", 3, "'-1'", "a number"),
    (_LISTEN + "heartbeat = nan", 3, "'nan'", "a number"),
    (_LISTEN + "heartbeat = inf", 3, "'inf'", "a number"),
    (_LISTEN + "heartbeat = 1e3", 3, "'1e3'", "a number"),
    (_LISTEN + "heartbeat = 0", 3, "'0'", "from 0.1"),
    (_LISTEN + "heartbeat = 3601", 3, "'3601'", "to 3600"),
    (_LISTEN + "heartbeat = ٣", 3, "'٣'", "a number"),
    (_LISTEN + "heartbeat = 1\n  node = a", 4, "[server] heartbeat: 'node = a'", "one line only"),
    (_LISTEN + "[limits]\nmessage_bytes = 1.5", 4, "'1.5'", "a whole number"),
    (_LISTEN + "[limits]\nmessage_bytes = 1_000", 4, "'1_000'", "a whole number"),
    (_LISTEN + "[limits]\nmessage_bytes = 0", 4, "'0'", "from 1"),
    (_LISTEN + "[limits]\nmessage_bytes = " + "9" * 5000, 4, "a whole number"),
    (_LISTEN + "[poll]\njitter = 1.1", 4, "'1.1'", "from 0 to 1"),
    (_LISTEN + "workers = 0", 3, "[server] workers: '0'", "a whole number from 1 to 256, or auto"),
    (_LISTEN + "workers = 257", 3, "'257'", "a whole number from 1 to 256, or auto"),
    (_LISTEN + "workers = Auto", 3, "'Auto'", "a whole number from 1 to 256, or auto"),
    # Words.
    (_LISTEN + "echo = perhaps", 3, "[server] echo: 'perhaps'", "expected yes or no"),
    (_LISTEN + "[broker]\nengine = rediss", 4, "'rediss'", "expected memory or redis", "did you mean redis?"),
    (_LISTEN + "[namespace:x]\npublish = anybody", 4, "'anybody'", "anyone, token or server", "did you mean anyone?"),
    (_LISTEN + "[namespace:x]\nslow_reader = drop", 4, "'drop'", "recover, latest or disconnect"),
    (_LISTEN + "node = a b", 3, "'a b'", "expected 1 to 64 letters"),
    # Lists.
    ("[server]\nlisten =\n", 2, "[server] listen: there is no value"),
    ("[server]\nlisten = tcp:80\n\n  # another\n  tcp:81\n  tpc:82", 6, "'tpc:82'", "did you mean tcp?"),
    ("[server]\nlisten = tcp:80\n  tcp:80", 3, "'tcp:80'", "expected each value once"),
    ("[server]\nlisten = tcp:99999", 2, "'tcp:99999'", "0 to 65535"),
    ("[server]\nlisten = localhost:80", 2, "'localhost:80'", "Twisted endpoint", "known are tcp"),
    (_LISTEN + "transports = websocket, sse, websockets", 3, "'websockets'", "did you mean websocket?"),
    (_LISTEN + "transports = ,", 3, "there is no value"),
    # URLs and origins.
    (_LISTEN + "public_url = push.example.com", 3, "'push.example.com'", "an absolute URL"),
    (_LISTEN + "public_url = https://a/?b", 3, "an absolute URL without query"),
    (_LISTEN + "public_url = https://a:x/", 3, "an absolute URL"),
    (_LISTEN + "public_url = https://[a/", 3, "an absolute URL"),
    (_LISTEN + "allowed_origins = example.com", 3, "'example.com'", "an origin"),
    (_LISTEN + "allowed_origins = https://example.com/", 3, "an origin without path"),
    (_LISTEN + "allowed_origins = https://example.com, *", 3, "[server] allowed_origins: expected * to stand alone"),
    (_LISTEN + "allowed_origins = null", 3, "an origin"),
    (_LISTEN + "allowed_origins = *\n[auth]\ncookie = session", 5, "[auth] cookie: session: expected", "origins"),
    (_LISTEN + "[auth]\ncookie = a b", 4, "[auth] cookie", "letters"),
    # Several keys together.
    (_LISTEN + "[backoff]\nmax = 2\nbase = 3", 5, "[backoff] base: 3: expected at most max, which is 2"),
    (_LISTEN + "[backoff]\nmax = 0.5", None, "[backoff] base: 1: expected at most max, which is 0.5"),
    (_LISTEN + "[poll]\ntimeout = 61", 4, "[poll] timeout: 61: expected at most max_timeout, which is 60"),
    (_LISTEN + "[limits]\nmessage_bytes = 2000000", 4, "expected at most request_bytes, which is 1048576"),
    (_LISTEN + "[api]\nopen = yes", 4, "[api] open: 'yes'", "expected no", "'tcp:8080'", "interface=127.0.0.1"),
    # Tokens.
    (_LISTEN + "[api]\ntokens = yes", 4, "[api] tokens: expected keys", "[auth]"),
    (
        _LISTEN + f"[auth]\nkeys = k HS256 {32 * 'x'}\n[api]\nkeys = eyJ0eXAiOiJKV1QifQ.e30.x\ntokens = yes",
        6,
        "[api] keys: one of them looks like a token",
        "taken for one",
    ),
    (_LISTEN + "[auth]\nkeys = k HS256 xxx", 4, "[auth] keys: a value of 11 characters", "3 bytes is too short"),
    (_LISTEN + "[auth]\nkeys = k HS256", 4, "an id, an algorithm and a key, with spaces between them"),
    (_LISTEN + "[auth]\nkeys = k none x", 4, "the algorithm is one of HS256"),
    (_LISTEN + f"[auth]\nkeys =\n  k HS256 {32 * 'x'}\n  k HS256 {32 * 'y'}", 4, "each key's id and algorithm once"),
    (_LISTEN + "[auth]\nkeys = k RS256 /no/such/file", 4, "[auth] keys: key k: /no/such/file: cannot read the file"),
    (_LISTEN + "[auth]\njwks = /etc/keys.json", 4, "[auth] jwks: '/etc/keys.json'", "https://"),
    (_LISTEN + "[auth]\njwks = http://example.com/keys", 4, "a URL that begins with https://"),
    (_LISTEN + "[auth]\njwks = http://localhost.example.com/keys", 4, "a URL that begins with https://"),
    (_LISTEN + "[auth]\njwks = https:///keys", 4, "a URL that begins with https://"),
    (_LISTEN + "[auth]\njwks = https://[/keys", 4, "a URL that begins with https://"),
    (_LISTEN + "[auth]\njwks = file:", 4, "file: and a path"),
    (_LISTEN + "[auth]\nleeway = 301", 4, "from 0 to 300"),
    (_LISTEN + "[auth]\naudience = a b", 4, "printable ASCII"),
    # Redis.
    (_LISTEN + "[redis]\nurl =", 4, "[redis] url: there is no value", "an address such as redis://127.0.0.1:6379/0"),
    (_LISTEN + "[redis]\nurl = localhost", 4, "a value of 9 characters", "(it begins with redis://"),
    (_LISTEN + "[redis]\nurl = redis://a\n  redis://a:6379/0", 5, "expected each value once"),
    (_LISTEN + "[redis]\nurl = redis://a\n  redis://:x@a/0", 4, "[redis] url: expected each server and database once"),
    (_LISTEN + "[redis]\nprefix = a:b", 4, "[redis] prefix: 'a:b'", "1 to 32 letters"),
    (_LISTEN + "[redis]\nprefix = " + 33 * "a", 4, "1 to 32 letters"),
    (_LISTEN + "[redis]\ntimeout = 61", 4, "'61'", "from 0.1 to 60"),
    (_LISTEN + "[redis]\nnode_ttl = 2", 4, "'2'", "from 3 to 3600"),
    (_LISTEN + "[redis]\ncertificate = /x", 4, "[redis] certificate: expected the key with it"),
    (_LISTEN + "[redis]\nkey = /x", 4, "[redis] key: expected the certificate with it"),
    (
        _LISTEN + "[broker]\nengine = redis\n[redis]\nca = /no/such/file",
        6,
        "[redis] ca: '/no/such/file': cannot read the file: No such file",
    ),
    (
        _LISTEN + "[broker]\nengine = redis\n[redis]\nkey = /no/such/file\ncertificate = /",
        7,
        "[redis] certificate: '/': cannot read the file: Is a directory",
    ),
    (_LISTEN + "workers = 4", 3, "[server] workers: 4: expected 1 with [broker] engine = memory, whose messages"),
    (_LISTEN + "workers = auto", 3, "[server] workers: auto: expected 1 with [broker] engine = memory"),
    # Names that would break the line.
    (_LISTEN + "a\u2028b = 1", 3, "a\\u2028b: unknown key"),
    (_LISTEN + "[a\x0bb\x85c]", 3, "[a\\x0bb\\x85c]: unknown section"),
)


def _explained(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the comment above each key of a file, also of those that are commented out, and its value."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    section, comment = "", ""
    for line in text.splitlines():
        if match := re.fullmatch(r"\[(.*)\]", line):
            section = "namespace:NAME" if match[1].startswith("namespace:") else match[1]
        elif match := re.fullmatch(r"#?(\w+) =(.*)", line):
            found[section, match[1]] = (comment, match[2].strip())
        comment = f"{comment}{line[1:]}" if line.startswith("# ") else ""
    return found


class LoadTests(SynchronousTestCase):
    """Files that can be used, and files that cannot be read."""

    def _file(self, content: bytes) -> str:
        path = self.mktemp()
        Path(path).write_bytes(content)
        return path

    def test_defaults(self) -> None:
        """A file that only says where to listen gives the defaults of every class."""
        self.assertEqual(
            config.load(self._file(_LISTEN.encode())), config.Config(server=config.Server(listen=("tcp:8080",)))
        )

    def test_everything(self) -> None:
        """Every kind of value is read, with comments, blank lines and percent signs among them."""
        text = (
            "\ufeff# top\n[server] ; here\nlisten =\n  # the first\n  tcp:80:interface=127.0.0.1  # inline\n\n"
            "  unix:/run/%d\n"
            "node=push-1\npublic_url = https://push.example.com/%7Ea/\ntransports = sse,\n    longpoll\n"
            "allowed_origins = HTTPS://Example.com:443, http://a:8000,\n    http://[::1]:80\n"
            "heartbeat = 0.5\nheartbeat_grace = 1\necho = on\ndemo = TRUE\n"
            "[backoff]\nbase = 2\nmax = 60\njitter = 0.25\n"
            "[limits]\nmessage_bytes = 7\npage_messages = 9\n"
            "[api]\nopen = yes\nkeys = 0123456789abcdef  # the old one\n  fedcba9876543210\n"
            "[broker]\nengine = redis\n"
            "[redis]\nurl =\n  redis://:a%3Ab@redis-1  # the first\n  unix:///run/r.sock?db=3\n"
            "prefix = Push_2\ntimeout = 2.5\nnode_ttl = 5\n"
            "[namespace:a.b-c_1]\nhistory_size = 5\nsubscribe = server\npublish = anyone\nslow_reader = disconnect\n"
            "[namespace:default]\n"
        )
        self.assertEqual(
            config.load(self._file(text.encode())),
            config.Config(
                server=config.Server(
                    listen=("tcp:80:interface=127.0.0.1", "unix:/run/%d"),
                    node="push-1",
                    public_url="https://push.example.com/%7Ea",
                    transports=("sse", "longpoll"),
                    allowed_origins=("https://example.com", "http://a:8000", "http://[::1]"),
                    heartbeat=0.5,
                    heartbeat_grace=1.0,
                    echo=True,
                    demo=True,
                ),
                backoff=Backoff(2.0, 60.0, 0.25),
                limits=Limits(message_bytes=7, page_messages=9),
                api=config.Api(open=True, keys=("0123456789abcdef", "fedcba9876543210")),
                broker=config.Broker(engine="redis"),
                redis=config.Redis(
                    url=(
                        RedisAddress(hosts=(("redis-1", 6379),), password="a:b"),
                        RedisAddress(path="/run/r.sock", db=3),
                    ),
                    prefix="Push_2",
                    timeout=2.5,
                    node_ttl=5.0,
                ),
                namespaces=(
                    Namespace(
                        name="a.b-c_1",
                        history_size=5,
                        subscribe=Access.SERVER,
                        publish=Access.ANYONE,
                        slow_reader=SlowReader.DISCONNECT,
                    ),
                    Namespace(name="default"),
                ),
            ),
        )

    def test_workers(self) -> None:
        """One worker is for every engine; several are for one that joins them."""
        redis = "[broker]\nengine = redis\n"
        for line, workers in (
            ("workers = 1\n", 1),
            ("workers = 256\n" + redis, 256),
            ("workers = auto\n" + redis, AUTO),
        ):
            self.assertEqual(config.parse(_LISTEN + line).server.workers, workers)

    def test_secret(self) -> None:
        """An API key is shown neither by a message about it nor by the configuration that holds it."""
        for keys in ("secret", "secret-secret-secret\n  secret-secret-secret", "secret secret secret secret"):
            error = self.assertRaises(config.ConfigError, config.parse, f"{_LISTEN}[api]\nkeys = {keys}")
            self.assertIn("[api] keys: a value of ", str(error))
            self.assertNotIn("secret", str(error))
        self.assertNotIn("secret", repr(config.parse(f"{_LISTEN}[api]\nkeys = secret-secret-secret")))

    def test_secret_of_redis(self) -> None:
        """A password of Redis is shown neither by a message about it nor by the configuration that holds it."""
        for urls in (
            "redis://:secret@host:port",
            "redis://secret@host",
            "redis://:secret@a\n  redis://:secret@a",
            "redis://:secret@a\n  redis://:secret2@a",
            "redis+sentinel://a/b?sentinel_password=secret&x",
            "http://secret",
        ):
            error = self.assertRaises(config.ConfigError, config.parse, f"{_LISTEN}[redis]\nurl = {urls}")
            self.assertIn("[redis] url: ", str(error))
            self.assertNotIn("secret", str(error))
        urls = "redis://:secret@a\n  redis+sentinel://:secret@a/b?sentinel_password=secret"
        self.assertNotIn("secret@", repr(parsed := config.parse(f"{_LISTEN}[redis]\nurl = {urls}")))
        self.assertNotIn("'secret'", repr(parsed))

    def test_files_of_redis(self) -> None:
        """Files of Redis must be readable if Redis is used, and are of no concern if not."""
        path = self._file(b"")
        for engine, ca in (("redis", path), ("memory", path), ("memory", "/no/such/file")):
            parsed = config.parse(f"{_LISTEN}[broker]\nengine = {engine}\n[redis]\nca = {ca}")
            self.assertEqual(parsed.redis.ca, ca)

    def test_unreadable(self) -> None:
        """A file that is not there, is a directory, or has an impossible name is told in one line."""
        os.mkdir(directory := self.mktemp())
        for path, reason in (
            (self.mktemp(), "No such file or directory"),
            (directory, "Is a directory"),
            ("a\0b", "null"),
            ("a\nb", "No such file or directory"),
        ):
            error = str(self.assertRaises(config.ConfigError, config.load, path))
            self.assertIn(f": cannot read the file: {reason}" if reason != "null" else reason, error)
            self.assertEqual(len(error.splitlines()), 1, error)

    def test_not_text(self) -> None:
        """A file that is not UTF-8 is told with the line and the byte."""
        path = self._file(b"[server]\n# caf\xe9\n")
        self.assertEqual(
            str(self.assertRaises(config.ConfigError, config.load, path)),
            f"{path}:2: byte 0xe9: expected text in UTF-8",
        )


class MistakeTests(SynchronousTestCase):
    """What is said about files that cannot be used."""

    def test_bad(self) -> None:
        """Each mistake is told in one line, with the file, the line, the value and what was expected."""
        for text, line, *parts in _BAD:
            with self.subTest(text=text[:200]):
                error = self.assertRaises(config.ConfigError, config.parse, text, "conf/x.ini")
                self.assertEqual((error.path, error.line), ("conf/x.ini", line))
                message = str(error)
                self.assertTrue(message.startswith("conf/x.ini: " if line is None else f"conf/x.ini:{line}: "), message)
                self.assertEqual(len(message.splitlines()), 1)
                self.assertLess(len(message), 400)
                for part in parts:
                    self.assertIn(part, message)

    @given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
    @example("[server]\nlisten = a=b")
    @example("[server]\nlisten = \\")
    @example("[server]\nlisten = tcp:80:\ud800")
    def test_any_text(self, text: str) -> None:
        """Any text is a configuration or a mistake that is told in one line."""
        self._config_or_mistake(text)

    @given(st.binary())
    def test_any_bytes(self, content: bytes) -> None:
        """Any file is a configuration or a mistake that is told in one line."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        error = self.assertRaises(config.ConfigError, config.load, str(path))
        self.assertEqual(len(str(error).splitlines()), 1, repr(str(error)))

    @given(st.data())
    def test_any_values(self, data: st.DataObject) -> None:
        """Any values of known keys are a configuration or a mistake that is told in one line."""
        values = st.text(max_size=20) | st.sampled_from(
            [
                "tcp:8080",
                "tcp:80:interface=::",
                "unix:/a",
                "yes",
                "0",
                "1",
                "99",
                "0.5",
                "sse",
                "anyone",
                "https://a",
                "*",
            ]
        )
        lines: list[str] = []
        for section in data.draw(st.lists(st.sampled_from(_TYPES), unique_by=lambda section: section.name)):
            lines.append(f"[{section.name}]".replace("NAME", data.draw(st.sampled_from(["a", "default", ""]))))
            for key in data.draw(st.lists(st.sampled_from(section.keys), unique_by=lambda key: key.name)):
                lines.append(f"{key.name} = {data.draw(values)}")
        self._config_or_mistake("\n".join(lines))

    def _config_or_mistake(self, text: str) -> None:
        try:
            self.assertIsInstance(config.parse(text, "x.ini"), config.Config)
        except config.ConfigError as error:
            self.assertTrue(str(error).startswith("x.ini:"), str(error))
            self.assertEqual(len(str(error).splitlines()), 1, repr(str(error)))


class SchemaTests(SynchronousTestCase):
    """The table of keys, against the classes and the files that it must agree with."""

    def test_fields(self) -> None:
        """The keys of each section are the fields of its class, and each section is a field of Config."""
        for section in _TYPES:
            self.assertEqual(
                {key.field for key in section.keys}, set(attrs.fields_dict(section.holder)) - {"name"}, section.name
            )
        self.assertEqual({section.name for section in SECTIONS} | {"namespaces"}, set(attrs.fields_dict(config.Config)))

    def test_explained(self) -> None:
        """conf/prod.ini has every key, each below what it does, and with its default where it is commented out."""
        self._assert_explained(CONF / "prod.ini", _explained((CONF / "prod.ini").read_text()))
        names = {(section.name, key.name) for section in _TYPES for key in section.keys}
        self.assertEqual(set(_explained((CONF / "prod.ini").read_text())), names)

    def test_explained_in_dev(self) -> None:
        """What conf/dev.ini has is explained there too."""
        self._assert_explained(CONF / "dev.ini", _explained((CONF / "dev.ini").read_text()))

    def _assert_explained(self, path: Path, found: dict[tuple[str, str], tuple[str, str]]) -> None:
        for section in _TYPES:
            for key in section.keys:
                comment, _ = found.get((section.name, key.name), (key.doc, ""))
                self.assertIn(key.doc, comment, f"{path.name}: [{section.name}] {key.name}")

    def test_shown_defaults(self) -> None:
        """What conf/prod.ini shows commented out is the default of its key, but for examples where that is empty."""
        shown = _explained((CONF / "prod.ini").read_text())
        active = {
            (section.name, key) for section in ini.read((CONF / "prod.ini").read_text()) for key in section.entries
        }
        for section in _TYPES:
            for key in section.keys:
                if (section.name, key.name) in active or (section.name.replace("NAME", "default"), key.name) in active:
                    continue
                value = key.value.read([ini.Line(1, text) for _, text in [shown[section.name, key.name]] if text])
                default = section.default(key)
                self.assertIn(default, (value, "", None), f"[{section.name}] {key.name}")

    def test_anonymous(self) -> None:
        """Clients without a token are let in, until there are keys for tokens; then only where it is said."""
        namespaces = "[namespace:a]\n[namespace:b]\nanonymous = yes\n[namespace:c]\nanonymous = no\n"
        for auth, expected in (
            ("", [True, True, False]),
            ("[auth]\nissuer = us\n", [True, True, False]),
            (f"[auth]\nkeys = k HS256 {32 * 'x'}\n", [False, True, False]),
            ("[auth]\njwks = file:/etc/keys.json\n", [False, True, False]),
            ("[auth]\njwks = http://[::1]:8000/keys\n", [False, True, False]),
        ):
            for text in (auth + namespaces, namespaces + auth):
                made = config.parse(_LISTEN + text)
                self.assertEqual([each.anonymous for each in made.namespaces], expected)

    def test_shipped(self) -> None:
        """The shipped files can be used: prod is closed, dev is open on this machine."""
        prod, dev = config.load(str(CONF / "prod.ini")), config.load(str(CONF / "dev.ini"))
        self.assertEqual(
            (prod.api, prod.server.demo, prod.server.echo),
            (config.Api(listen=("tcp:8090:interface=127.0.0.1",)), False, False),
        )
        self.assertEqual(prod.server.allowed_origins, ())
        self.assertEqual((dev.api.open, dev.server.demo, dev.server.echo), (True, True, True))
        self.assertEqual([namespace.name for namespace in dev.namespaces], ["demo", "room", "default"])
