"""The server API: every call with good and bad bodies, keys, and the shapes of what comes back."""

from __future__ import annotations

import base64
import json
from typing import Any

from rtpush.api.calls import CALLS
from tests.transports.serving import target
from tests.transports.sockets import SocketTestCase

KEY = "0123456789abcdef0123456789abcdef"
OTHER_KEY = "fedcba9876543210fedcba9876543210"


class CallTestCase(SocketTestCase):
    """A node whose API is open."""

    def refused(self, name: str, body: Any) -> tuple[int, str]:
        """Do a call that is refused; return status and the error's name."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.ask(f"/api/v1/{name}", method="POST", body=data)
        self.assertGreaterEqual(answer.status, 400, (name, body, answer.body))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(list(answer.json), ["error"])
        self.assertEqual(set(answer.json["error"]), {"code", "name", "message", "temporary"})
        return answer.status, answer.error

    def assert_bad(self, name: str, *bodies: Any) -> None:
        """Each body is a bad request."""
        for body in bodies:
            self.assertEqual(self.refused(name, body), (400, "bad_request"), (name, body))


class EveryCallTests(CallTestCase):
    """What is the same for all calls."""

    def test_not_json(self) -> None:
        """What is no JSON object is a bad request."""
        for name in CALLS:
            self.assert_bad(name, b"{", b"[]", b"null", b"17", b'"x"', b"\xff", b'{"a":\xff}', b"{}{}", b"[" * 10_000)
            self.assert_bad(name, b'{"channel":"\xff"}', b'{"unknown":1}')

    def test_misspelt(self) -> None:
        """A field that there is not is an error, not a silence."""
        for name, body in (
            ("publish", {"channel": "a", "data": 1, "evnt": "x"}),
            ("publish_batch", {"messages": [], "x": 1}),
            ("publish_batch", {"messages": [{"channel": "a", "data": 1, "x": 1}]}),
            ("broadcast", {"channels": ["a"], "data": 1, "channel": "b"}),
            ("history", {"channel": "a", "limits": 1}),
            ("presence", {"channel": "demo:a", "limit": 1}),
            ("channels", {"patern": "*"}),
            ("connections", {"state": "open"}),
            ("disconnect", {"connection": "x", "after": 1}),
            ("unsubscribe", {"channel": "a", "code": 1}),
            ("info", {"node": "x"}),
            ("revoke", {"user": "42", "ttl": 60, "before": 1}),
            ("revocations", {"user": "42"}),
        ):
            self.assert_bad(name, body)

    def test_empty_body(self) -> None:
        """No body is an empty object, which is enough where nothing must be said."""
        for name in CALLS:
            answer = self.ask(f"/api/v1/{name}", method="POST")
            enough = name in ("channels", "connections", "info", "revocations")
            self.assertEqual(answer.status, 200 if enough else 400, name)
            self.assertEqual(self.ask(f"/api/v1/{name}", method="POST", body=b"{}").status, answer.status)

    def test_content_type(self) -> None:
        """What the body is called does not matter."""
        for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"):
            answer = self.ask("/api/v1/info", method="POST", body=b"{}", headers={"Content-Type": content_type})
            self.assertEqual(answer.status, 200)

    def test_query_is_not_looked_at(self) -> None:
        """A query changes nothing."""
        self.assertEqual(self.ask("/api/v1/info?channel=%ff&x=1", method="POST").status, 200)

    def test_unknown_call(self) -> None:
        """A call that there is not, by any method."""
        for path in (
            "/api/v1/nothing",
            "/api/v1/",
            "/api/v1/info/",
            "/api/v1/info/more",
            "/api/v1/openapi.json/x",
            "/api/v2/info",
            "/api/v1/Info",
            "/api/v1/info%2F",
        ):
            for method in ("GET", "POST"):
                answer = self.ask(path, method=method)
                self.assertEqual((answer.status, answer.error), (404, "not_found"), path)


class PublishTests(CallTestCase):
    """``publish``, ``publish_batch`` and ``broadcast``."""

    def test_result(self) -> None:
        """The result is the position."""
        first = self.call("publish", channel="a", data=1)
        self.assertEqual(set(first), {"epoch", "offset"})
        self.assertEqual(first["offset"], 1)
        self.assertEqual(self.call("publish", channel="a", data=2), {"epoch": first["epoch"], "offset": 2})
        self.assertEqual(self.call("publish", channel="a", data=3, history=False), {})
        self.assertEqual(self.call("publish", channel="a", data=4), {"epoch": first["epoch"], "offset": 3})

    def test_what_is_kept(self) -> None:
        """Any JSON, text and bytes come back from history as they were."""
        for data in (None, True, 0, -1.5, 10**15, "", "é😀", [], {}, [[[]]], {"a": {"b": [1, "x", None]}}):
            self.call("publish", channel="a", data=data)
            [kept] = self.call("history", channel="a", limit=1, reverse=True)["messages"]
            self.assertEqual(kept["data"], data)
        for payload in (b"", b"\0\xff", bytes(range(256))):
            encoded = base64.b64encode(payload).decode()
            self.call("publish", channel="a", data_b64=encoded, event="e")
            [kept] = self.call("history", channel="a", limit=1, reverse=True)["messages"]
            self.assertEqual((kept["data_b64"], kept["event"], "data" in kept), (encoded, "e", False))

    def test_json_is_kept_as_written(self) -> None:
        """Numbers and the order of fields are not touched."""
        text = '{"z": 1.50, "a": 123456789012345678901234567890, "e": 1E+2, "z": 2}'
        answer = self.ask("/api/v1/publish", method="POST", body=b'{"channel":"a","data":%b}' % text.encode())
        self.assertEqual(answer.status, 200)
        history = self.ask("/api/v1/history", method="POST", body=b'{"channel":"a"}')
        self.assertIn(text.encode(), history.body)

    def test_bad(self) -> None:
        """Bodies that say too little, too much, or the wrong thing."""
        self.assert_bad(
            "publish",
            {},
            {"channel": "a"},
            {"data": 1},
            {"channel": 1, "data": 1},
            {"channel": None, "data": 1},
            {"channel": ["a"], "data": 1},
            {"channel": "a", "data": 1, "data_b64": "AA=="},
            {"channel": "a", "data_b64": "x"},
            {"channel": "a", "data_b64": "AA"},
            {"channel": "a", "data_b64": "A A="},
            {"channel": "a", "data_b64": 1},
            {"channel": "a", "data": 1, "event": ""},
            {"channel": "a", "data": 1, "event": "open"},
            {"channel": "a", "data": 1, "event": "x" * 129},
            {"channel": "a", "data": 1, "event": "\n"},
            {"channel": "a", "data": 1, "event": 1},
            {"channel": "a", "data": 1, "history": "no"},
            {"channel": "a", "data": 1, "history": None},
            {"channel": "a", "data": 1, "idempotency_key": ""},
            {"channel": "a", "data": 1, "idempotency_key": "x" * 129},
            {"channel": "a", "data": 1, "idempotency_key": 1},
            {"channel": "a", "data": "\ud800"},
            b'{"channel":"a","data":' + b"[" * 201 + b"]" * 201 + b"}",
            b'{"channel":"a","data":NaN}',
            b'{"channel":"a","data":}',
            b'{"channel":"a","data":"\n"}',
            b'{"channel":"a","data":1e999}',
        )
        self.assertEqual(self.refused("publish", {"channel": "unknown:a", "data": 1}), (404, "unknown_channel"))
        self.assertEqual(self.refused("publish", {"channel": "a b", "data": 1}), (400, "bad_channel"))
        self.assertEqual(self.refused("publish", {"channel": "a", "data": "x" * 65537}), (413, "message_too_large"))
        body = b'{"channel":"a","data":' + b"[" * 200 + b"]" * 200 + b"}"
        self.assertEqual(self.ask("/api/v1/publish", method="POST", body=body).status, 200)

    def test_server_may(self) -> None:
        """A backend publishes to, and reads, what clients may not."""
        for channel in ("a", "private:a"):
            self.call("publish", channel=channel, data=1)
            self.assertEqual(len(self.call("history", channel=channel)["messages"]), 1)
        self.assertEqual(self.call("presence", channel="private:a"), {"connections": []})

    def test_idempotency(self) -> None:
        """A repeated key gives the first result, within its channel and its time; nothing is published again."""
        first = self.call("publish", channel="a", data=1, idempotency_key="k")
        self.assertEqual(self.call("publish", channel="a", data=2, idempotency_key="k"), first)
        other = self.call("publish", channel="b", data=1, idempotency_key="k")
        self.assertNotEqual(other["epoch"], first["epoch"])
        self.assertEqual(self.call("publish", channel="a", data=3, idempotency_key="l")["offset"], 2)
        self.assertEqual([each["data"] for each in self.call("history", channel="a")["messages"]], [1, 3])
        silent = self.call("publish", channel="a", data=4, idempotency_key="m", history=False)
        self.assertEqual(self.call("publish", channel="a", data=4, idempotency_key="m"), silent)
        self.pump(290, 10)
        self.assertEqual(self.call("publish", channel="a", data=5, idempotency_key="k"), first)
        self.pump(20, 10)
        self.assertEqual(self.call("publish", channel="a", data=6, idempotency_key="k")["offset"], 3)

    def test_delivered_once(self) -> None:
        """What is not published again is not delivered again."""
        ws = self.socket(target("/ws", channel="a"))
        for n in range(3):
            self.publish("a", n, idempotency_key="k")
        self.assertEqual([each["message"]["data"] for each in ws.heard() if "message" in each], [0])

    def test_batch(self) -> None:
        """Each message of a batch has its own result, in order; a bad one does not stop the others."""
        responses = self.call(
            "publish_batch",
            messages=[
                {"channel": "a", "data": 1},
                {"channel": "unknown:a", "data": 1},
                {"channel": "a", "data": 2, "event": "open"},
                {"channel": "a"},
                {"channel": "a", "data": 3, "history": False},
                {"channel": "a", "data_b64": "AA=="},
                {"channel": "a", "data": "x" * 65537},
                {"channel": "b", "data": 1, "idempotency_key": "k"},
                {"channel": "b", "data": 2, "idempotency_key": "k"},
            ],
        )["responses"]
        outcomes = [each["result"].get("offset") if "result" in each else each["error"]["name"] for each in responses]
        self.assertEqual(
            outcomes,
            [1, "unknown_channel", "bad_request", "bad_request", None, 2, "message_too_large", 1, 1],
        )
        self.assertEqual({frozenset(each) for each in responses}, {frozenset({"result"}), frozenset({"error"})})

    def test_bad_batches(self) -> None:
        """A batch that is none, is empty, or whose messages have no shape, is refused as a whole."""
        self.assert_bad(
            "publish_batch",
            {},
            {"messages": []},
            {"messages": {}},
            {"messages": [1]},
            {"messages": [{"data": 1}]},
            {"messages": [{"channel": "a", "data": 1}, {"channel": 1, "data": 1}]},
        )
        self.assertEqual(self.call("history", channel="a")["messages"], [])

    def test_broadcast(self) -> None:
        """One message goes to several channels, each with its own result and position."""
        ws = self.socket(target("/ws", channel="a,b"))
        ws.heard()
        responses = self.call("broadcast", channels=["a", "unknown:a", "b", "a"], data={"x": 1}, event="e")["responses"]
        self.clock.advance(0)
        self.assertEqual([set(each) for each in responses], [{"result"}, {"error"}, {"result"}, {"result"}])
        self.assertEqual(
            [(each["message"]["channel"], each["message"]["data"], each["message"]["event"]) for each in ws.heard()],
            [("a", {"x": 1}, "e"), ("a", {"x": 1}, "e"), ("b", {"x": 1}, "e")],
        )
        again = self.call("broadcast", channels=["a", "b"], data_b64="AA==", idempotency_key="k")
        self.assertEqual(self.call("broadcast", channels=["a", "b"], data_b64="AA==", idempotency_key="k"), again)

    def test_bad_broadcasts(self) -> None:
        """A message that cannot be is refused as a whole."""
        self.assert_bad(
            "broadcast",
            {"channels": ["a"]},
            {"channels": [], "data": 1},
            {"channels": "a", "data": 1},
            {"channels": [1], "data": 1},
            {"channels": ["a"], "data": 1, "data_b64": ""},
            {"channels": ["a"], "data": 1, "event": "gap"},
        )
        self.assertEqual(self.call("history", channel="a")["messages"], [])


class LargeBatchTests(CallTestCase):
    """As many as there may be at once."""

    limits = ""

    def setUp(self) -> None:
        super().setUp()
        # The bodies are larger than the other tests want them to be.
        self.site.request_bytes = 4_000_000

    def test_ten_thousand(self) -> None:
        """Ten thousand messages are published in one call, in order, and delivered; one more is refused."""
        ws = self.socket(target("/ws", channel="demo:a"))
        messages = [{"channel": "demo:a", "data": n} for n in range(10_000)]
        responses = self.call("publish_batch", messages=messages)["responses"]
        self.assertEqual([each["result"]["offset"] for each in responses], list(range(1, 10_001)))
        self.clock.advance(0)
        heard = [each["message"]["data"] for each in ws.heard() if "message" in each]
        self.assertEqual(heard, list(range(10_000)))
        self.assert_bad("publish_batch", {"messages": [*messages, messages[0]]})

    def test_ten_thousand_channels(self) -> None:
        """One message goes to ten thousand channels."""
        channels = [f"c{n}" for n in range(10_000)]
        responses = self.call("broadcast", channels=channels, data=1)["responses"]
        self.assertEqual({each["result"]["offset"] for each in responses}, {1})
        self.assert_bad("broadcast", {"channels": [*channels, "d"], "data": 1})


class ReadTests(CallTestCase):
    """``history`` and ``presence``."""

    def test_history(self) -> None:
        """Pages of history, both ways, from a position or the end."""
        empty = self.call("history", channel="demo:a")
        self.assertEqual((empty["messages"], empty["offset"]), ([], 0))
        positions = [self.publish("demo:a", n) for n in range(150)]
        for fields, expected in (
            ({}, range(100)),
            ({"limit": 10_000}, range(150)),
            ({"limit": 0}, []),
            ({"since": positions[140]}, range(141, 150)),
            ({"since": f"{empty['epoch']}:0", "limit": 2}, [0, 1]),
            ({"since": positions[149]}, []),
            ({"reverse": True, "limit": 2}, [149, 148]),
            ({"reverse": True, "since": positions[2]}, [1, 0]),
            ({"since": None, "limit": 1}, [0]),
        ):
            result = self.call("history", channel="demo:a", **fields)
            self.assertEqual([each["data"] for each in result["messages"]], list(expected), fields)
            self.assertEqual((result["epoch"], result["offset"]), (empty["epoch"], 150))
            self.assertEqual(set(result), {"messages", "epoch", "offset"})

    def test_bad_history(self) -> None:
        """What cannot be read."""
        self.assert_bad(
            "history",
            {},
            {"channel": "a", "limit": -1},
            {"channel": "a", "limit": 10_001},
            {"channel": "a", "limit": 1.5},
            {"channel": "a", "limit": "1"},
            {"channel": "a", "limit": 10**30},
            {"channel": "a", "reverse": 1},
        )
        for since in ("", "x", "k:1,k:2", "-", "zzzzzzzz:1"):
            self.assertEqual(self.refused("history", {"channel": "a", "since": since}), (400, "bad_cursor"), since)
        self.assertEqual(self.refused("history", {"channel": "none:a"}), (404, "not_available"))
        self.assertEqual(self.refused("history", {"channel": "unknown:a"}), (404, "unknown_channel"))

    def test_presence(self) -> None:
        """Who is there; and where nobody is counted."""
        self.assertEqual(self.call("presence", channel="demo:a"), {"connections": []})
        self.socket(target("/ws", channel="demo:a", info='{"name":"é"}'))
        [entry] = self.call("presence", channel="demo:a")["connections"]
        self.assertEqual(set(entry), {"connection", "transport", "info"})
        self.assertEqual((entry["transport"], entry["info"]), ("websocket", {"name": "é"}))
        self.assertEqual(self.refused("presence", {"channel": "a"}), (404, "not_available"))
        self.assert_bad("presence", {}, {"channel": None})


class AdminTests(CallTestCase):
    """``channels``, ``connections``, ``disconnect``, ``unsubscribe`` and ``info``."""

    def test_channels(self) -> None:
        """The channels with subscribers, and how many; a pattern chooses."""
        self.assertEqual(self.call("channels"), {"channels": {}})
        self.socket(target("/ws", channel="a,demo:a,demo:b"))
        stream = self.client()
        stream.request("/sse?channel=demo:a")
        self.publish("nobody", 1)
        everything = {"a": {"subscribers": 1}, "demo:a": {"subscribers": 2}, "demo:b": {"subscribers": 1}}
        self.assertEqual(self.call("channels"), {"channels": everything})
        for pattern, names in (
            ("*", {"a", "demo:a", "demo:b"}),
            ("demo:*", {"demo:a", "demo:b"}),
            ("*a", {"a", "demo:a"}),
            ("*:*", {"demo:a", "demo:b"}),
            ("d*o:*b", {"demo:b"}),
            ("**", {"a", "demo:a", "demo:b"}),
            ("a*a", set()),
            ("a", {"a"}),
            ("demo", set()),
            ("", set()),
            ("demo.a", set()),
            ("demo:[ab]", set()),
            ("(", set()),
            ("*demo:a*", {"demo:a"}),
            ("*demo:a*demo:a*", set()),
        ):
            self.assertEqual(set(self.call("channels", pattern=pattern)["channels"]), names, pattern)
        self.assert_bad("channels", {"pattern": 1})

    def test_costly_pattern(self) -> None:
        """No pattern takes long, however many stars it has."""
        self.socket(target("/ws", channel="a" * 255))
        self.assertEqual(self.call("channels", pattern="a*" * 100 + "b"), {"channels": {}})
        self.assertEqual(len(self.call("channels", pattern="a*" * 100)["channels"]), 1)
        self.assertEqual(len(self.call("channels", pattern="*" * 10_000)["channels"]), 1)

    def test_connections(self) -> None:
        """All that is known of each; channel and transport choose, ``total`` counts also what is not listed."""
        ws = self.socket(target("/ws", channel="a,demo:a"))
        stream, poll = self.client(), self.client()
        stream.request("/sse?channel=a")
        self.clock.advance(7)
        poll.request("/poll?channel=demo:a")
        self.clock.advance(1.5)
        result = self.call("connections")
        self.assertEqual(result["total"], 3)
        listed = {each["transport"]: each for each in result["connections"]}
        self.assertEqual(set(listed), {"websocket", "sse", "longpoll"})
        entry = dict(listed["websocket"])
        self.assertRegex(entry.pop("peer"), r"^127\.0\.0\.1:\d+$")
        self.assertEqual(entry.pop("connection"), ws.do("connect")["connection"])
        self.assertEqual(
            entry,
            {
                "node": "test-node",
                "transport": "websocket",
                "state": "open",
                "channels": ["a", "demo:a"],
                "since": 8.5,
                "queued": 0,
            },
        )
        self.assertEqual(listed["longpoll"]["since"], 1.5)
        for fields, count, total in (
            ({"channel": "a"}, 2, 2),
            ({"channel": "demo:a"}, 2, 2),
            ({"channel": "nobody"}, 0, 0),
            ({"transport": "sse"}, 1, 1),
            ({"transport": "pigeon"}, 0, 0),
            ({"channel": "a", "transport": "sse"}, 1, 1),
            ({"limit": 2}, 2, 3),
            ({"limit": 0}, 0, 3),
        ):
            result = self.call("connections", **fields)
            self.assertEqual((len(result["connections"]), result["total"]), (count, total), fields)
        self.assert_bad("connections", {"limit": -1}, {"limit": 10_001}, {"limit": "1"}, {"channel": 1})
        self.assertEqual(self.refused("connections", {"channel": "unknown:a"}), (404, "unknown_channel"))
        self.assertEqual(self.refused("connections", {"channel": ""}), (400, "bad_channel"))

    def test_closing_connections(self) -> None:
        """A connection that is being closed is listed as such, and cannot be ended twice."""
        ws = self.socket("/ws?channel=a")
        self.assertEqual(self.call("disconnect", channel="a"), {"disconnected": 1})
        [entry] = self.call("connections")["connections"]
        self.assertEqual((entry["state"], entry["channels"]), ("closing", []))
        self.assertEqual(self.call("disconnect", channel="a"), {"disconnected": 0})
        self.assertEqual(self.call("disconnect", connection=entry["connection"]), {"disconnected": 0})
        ws.lose()
        self.assert_nobody()

    def test_disconnect(self) -> None:
        """One connection, or all of a channel; who is not there is nobody."""
        sockets = [self.socket("/ws?channel=a") for _ in range(3)]
        name = sockets[0].do("connect")["connection"]
        self.assertEqual(self.call("disconnect", connection=name), {"disconnected": 1})
        self.assertEqual(self.call("disconnect", connection="nobody"), {"disconnected": 0})
        self.assertEqual(self.call("disconnect", channel="b"), {"disconnected": 0})
        self.assertEqual(self.call("disconnect", channel="a"), {"disconnected": 2})
        self.assert_bad(
            "disconnect",
            {},
            {"connection": "x", "channel": "a"},
            {"connection": None, "channel": None},
            {"connection": 1},
            {"channel": "a", "code": 1000},
            {"channel": "a", "code": 3999},
            {"channel": "a", "code": 5000},
            {"channel": "a", "code": 4000.5},
            {"channel": "a", "code": 10**20},
            {"channel": "a", "reason": "x" * 121},
            {"channel": "a", "reason": "é" * 61},
            {"channel": "a", "reconnect": "yes"},
        )
        self.assertEqual(self.refused("disconnect", {"channel": "unknown:a"}), (404, "unknown_channel"))

    def test_unsubscribe(self) -> None:
        """Subscriptions of one connection, or of all."""
        sockets = [self.socket("/ws?channel=a") for _ in range(3)]
        name = sockets[0].do("connect")["connection"]
        self.assertEqual(self.call("unsubscribe", channel="a", connection=name), {"unsubscribed": 1})
        self.assertEqual(self.call("unsubscribe", channel="a", connection=name), {"unsubscribed": 0})
        self.assertEqual(self.call("unsubscribe", channel="a"), {"unsubscribed": 2})
        self.assertEqual(self.call("unsubscribe", channel="nobody"), {"unsubscribed": 0})
        self.assertEqual(self.call("connections")["total"], 3)
        self.assert_bad("unsubscribe", {}, {"connection": "x"}, {"channel": 1})
        self.assertEqual(self.refused("unsubscribe", {"channel": "unknown:a"}), (404, "unknown_channel"))

    def test_info(self) -> None:
        """What a node says of itself."""
        self.socket("/ws?channel=a")
        self.clock.advance(5)
        [node] = self.call("info")["nodes"]
        self.assertEqual(
            set(node),
            {"node", "version", "pid", "uptime", "leaving", "connections", "transports", "channels", "seen"},
        )
        self.assertEqual((node["leaving"], node["seen"]), (False, 0))
        self.assertEqual(
            (node["node"], node["uptime"], node["connections"], node["transports"], node["channels"]),
            ("test-node", 5, 1, {"websocket": 1}, 1),
        )


class KeyTests(SocketTestCase):
    """Who may use the server API."""

    sections = f"[api]\nkeys =\n    {KEY}\n    {OTHER_KEY}"

    def status(self, name: str = "info", **headers: str) -> int:
        """Do a call with some headers, and return its status."""
        sent = {header.replace("_", "-"): value for header, value in headers.items()}
        answer = self.ask(f"/api/v1/{name}", method="POST", body=b"{}", headers=sent)
        if answer.status == 401:
            self.assertEqual(answer.error, "unauthorized")
            self.assertEqual(answer.headers["www-authenticate"], "Bearer")
            self.assertNotIn(KEY.encode(), answer.body)
        return answer.status

    def test_good(self) -> None:
        """Either key, in either header."""
        for key in (KEY, OTHER_KEY):
            for headers in (
                {"Authorization": f"Bearer {key}"},
                {"Authorization": f"bearer {key}"},
                {"Authorization": f"BEARER   {key}"},
                {"X_API_Key": key},
                {"x_api_key": f" {key} "},
            ):
                self.assertEqual(self.status(**headers), 200, headers)

    def test_bad(self) -> None:
        """Anything else is refused, for each call, whatever its body."""
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": f"Bearer {KEY[:-1]}"},
            {"Authorization": f"Bearer {KEY.upper()}"},
            {"Authorization": f"Bearer {KEY} {KEY}"},
            {"Authorization": f"Bearer {KEY},{OTHER_KEY}"},
            {"Authorization": "Bearer \xe9"},
            {"X_API_Key": ""},
            {"X_API_Key": "x"},
            {"X_API_Key": f"{KEY}\t{KEY}"},
            {"X_API_Key": f"Bearer {KEY}"},
        ):
            for name in CALLS:
                self.assertEqual(self.status(name, **headers), 401, headers)

    def test_a_wrong_one_beside(self) -> None:
        """A wrong key in one header is not made good by the other."""
        self.assertEqual(self.status(Authorization=f"Bearer {KEY}", X_API_Key="x"), 401)

    def test_nothing_is_done(self) -> None:
        """Without a key nothing is done, and nothing is told of what there is."""
        body = b'{"channel":"demo:a","data":1}'
        before = self.node.broker.__len__()
        self.assertEqual(self.ask("/api/v1/publish", method="POST", body=body).status, 401)
        self.assertEqual(self.ask("/api/v1/publish", method="POST", body=b"nonsense").status, 401)
        self.assertEqual(self.node.broker.__len__(), before)

    def test_not_in_the_query(self) -> None:
        """A key in the URL, where it would be logged, does not count."""
        for name in ("key", "api_key", "access_token", "token"):
            self.assertEqual(self.ask(f"/api/v1/info?{name}={KEY}", method="POST").status, 401)

    def test_what_needs_none(self) -> None:
        """The description and the health of the node need no key; clients do not either."""
        for path in ("/api/v1/openapi.json", "/healthz", "/readyz", "/negotiate", "/poll?channel=a&timeout=0"):
            self.assertEqual(self.ask(path).status, 200)
        self.assertEqual(self.ask("/emit", method="POST", body=b'{"ping":{}}').status, 200)

    def test_closed(self) -> None:
        """Without any key in the config the API is closed to all."""
        self.serve(sections="")
        for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": KEY}, {"Authorization": "Bearer "}):
            answer = self.ask("/api/v1/info", method="POST", headers=headers)
            self.assertEqual((answer.status, answer.error), (401, "unauthorized"))
            self.assertIn("closed", answer.json["error"]["message"])


class HealthTests(SocketTestCase):
    """``/healthz`` and ``/readyz``."""

    def test_well(self) -> None:
        """Both say so while all is well."""
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.ask(path).json, {"ok": True})

    def test_leaving(self) -> None:
        """A node that leaves is alive, but not ready."""
        self.node.leave_all()
        self.assertEqual(self.ask("/healthz").status, 200)
        answer = self.ask("/readyz")
        self.assertEqual((answer.status, answer.error), (503, "unavailable"))

    def test_broker(self) -> None:
        """A node whose broker is away is alive, but not ready."""
        self.node.broker.problem = lambda: "the broker is away"
        self.assertEqual(self.ask("/healthz").status, 200)
        answer = self.ask("/readyz")
        self.assertEqual((answer.status, answer.json["error"]["message"]), (503, "the broker is away"))


class EmitTests(CallTestCase):
    """``/emit``: what clients without a WebSocket say."""

    def emit(self, body: Any) -> Any:
        """Send a body, and return status and answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.ask("/emit", method="POST", body=data)
        return answer.status, answer.json

    def test_single(self) -> None:
        """One command is answered with its reply."""
        self.assertEqual(self.emit({"ping": {}}), (200, {"ping": {}}))
        self.assertEqual(self.emit({"id": 7, "ping": {}}), (200, {"id": 7, "ping": {}}))
        status, reply = self.emit({"id": 7, "publish": {"channel": "demo:a", "data": 1}})
        self.assertEqual((status, reply["id"], reply["publish"]["offset"]), (200, 7, 1))
        status, reply = self.emit({"history": {"channel": "demo:a"}})
        self.assertEqual([each["data"] for each in reply["history"]["messages"]], [1])
        self.assertEqual(self.emit({"presence": {"channel": "demo:a"}}), (200, {"presence": {"connections": []}}))
        self.assertEqual(self.emit(b'\n {"ping":{}}\r\n'), (200, {"ping": {}}))

    def test_single_errors(self) -> None:
        """A single command's error is that of the request."""
        for command, status, name in (
            ({"publish": {"channel": "a", "data": 1}}, 403, "permission_denied"),
            ({"publish": {"channel": "unknown:a", "data": 1}}, 404, "unknown_channel"),
            ({"publish": {"channel": "demo:a", "data": "x" * 65537}}, 413, "message_too_large"),
            ({"history": {"channel": "private:a"}}, 403, "permission_denied"),
            ({"presence": {"channel": "a"}}, 404, "not_available"),
            ({"subscribe": {"channel": "demo:a"}}, 400, "bad_request"),
            ({"connect": {}}, 400, "bad_request"),
            ({"unsubscribe": {"channel": "demo:a"}}, 400, "bad_request"),
            ({"refresh": {"token": "x"}}, 404, "not_available"),
            ({"id": 0, "ping": {}}, 400, "bad_request"),
            ({}, 400, "bad_request"),
            (b"", 400, "bad_request"),
            (b"nonsense", 400, "bad_request"),
            (b"\xff", 400, "bad_request"),
            (b"[]", 400, "bad_request"),
            (b"\x0b[]", 400, "bad_request"),
            (b'\x0c[{"ping":{}}]', 400, "bad_request"),
        ):
            got, answer = self.emit(command)
            self.assertEqual((got, answer["error"]["name"]), (status, name), command)

    def test_several(self) -> None:
        """An array is answered with an array, in order; errors are among the replies."""
        status, replies = self.emit(
            [
                {"id": 1, "ping": {}},
                {"id": 2, "publish": {"channel": "a", "data": 1}},
                {"publish": {"channel": "demo:a", "data": 1}},
                {"id": 4, "nonsense": {}},
                17,
                {"subscribe": {"channel": "demo:a"}},
            ]
        )
        self.assertEqual(status, 200)
        self.assertEqual([each.get("id") for each in replies], [1, 2, None, 4, None, None])
        self.assertEqual(
            [each.get("error", {}).get("name") for each in replies],
            [None, "permission_denied", None, "bad_request", "bad_request", "bad_request"],
        )
        self.assertEqual(self.emit([{"ping": {}}]), (200, [{"ping": {}}]))
        status, [reply] = self.emit(b"[{}")
        self.assertEqual(reply["error"]["name"], "bad_request")

    def test_too_many(self) -> None:
        """So many and no more; what is too much is not looked at."""
        self.assertEqual(len(self.emit([{"ping": {}}] * 1000)[1]), 1000)
        status, answer = self.emit([{"ping": {}}] * 1001)
        self.assertEqual((status, answer["error"]["name"]), (400, "bad_request"))
        # As any array that cannot be read.
        status, [reply] = self.emit(b"[" + b"0," * 100_000 + b"0]")
        self.assertEqual((status, reply["error"]["name"]), (200, "bad_request"))
