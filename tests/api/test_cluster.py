"""The calls that are about all nodes, with two nodes whose brokers are joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from zope.interface import implementer

from rtpush.api.calls import CALLS
from rtpush.broker.memory import MemoryBroker
from rtpush.errors import ErrorCode, RtpushError
from rtpush.interfaces import ICluster
from rtpush.protocol.cluster import Answers, NodeStatus
from rtpush.service import assemble
from tests.transports.serving import Answer, Client
from tests.transports.sockets import HANDSHAKE, SocketTestCase


@implementer(ICluster)
class JoinedBroker(MemoryBroker):
    """
    A broker that knows others.

    :ivar others: By their ids.
    :ivar deaf: The ids of those that do not answer.
    :ivar garbled: What is answered in the place of a node.
    :ivar is_away: Whether nobody can be asked.
    """

    others: dict[str, JoinedBroker]
    is_away = False

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.others = {}
        self.deaf: set[str] = set()
        self.garbled: dict[str, bytes] = {}
        self.questions: list[bytes] = []

    def nodes(self) -> Deferred[Sequence[NodeStatus]]:
        """Tell of the others."""
        if self.is_away:
            return fail(RtpushError(ErrorCode.UNAVAILABLE, "the broker is away"))
        return succeed(
            [
                NodeStatus(id_, self.garbled.get(id_) or broker._receiver.status(), 1.25)
                for id_, broker in self.others.items()
            ]
        )

    def ask(self, question: bytes) -> Deferred[Answers]:
        """Ask the others."""
        if self.is_away:
            return fail(RtpushError(ErrorCode.UNAVAILABLE, "the broker is away"))
        self.questions.append(question)
        ids = [id_ for id_ in self.others if id_ not in self.deaf]
        asked = [
            succeed(self.garbled[id_]) if id_ in self.garbled else self.others[id_]._receiver.asked(question)
            for id_ in ids
        ]
        gathered = DeferredList(asked, consumeErrors=True)
        return gathered.addCallback(self._answers, ids)

    def _answers(self, results: list[tuple[bool, Any]], ids: list[str]) -> Answers:
        answers = [result for success, result in results if success]
        missing = [id_ for id_, (success, _) in zip(ids, results, strict=True) if not success]
        return Answers(answers, [*missing, *sorted(self.deaf & set(self.others))])


class ClusterTestCase(SocketTestCase):
    """Two nodes: ``a``, which is asked, and ``b``."""

    def serve(self, **config: Any) -> None:
        """Start both."""
        self.patch(assemble, "_broker", self.broker)
        super().serve(**config)
        self.other, self.other_site = self.node, self.site
        self.other.name = "b"
        super().serve(**config)
        self.node.name = "a"
        self.node.broker.others = {"b.1": self.other.broker}
        self.other.broker.others = {"a.1": self.node.broker}

    @staticmethod
    def broker(config: Any, clock: Any, namespaces: Any, *_: Any) -> JoinedBroker:
        """Make the broker of one."""
        return JoinedBroker(clock, namespaces, position_ttl=60, idempotency_window=60)

    def follow(self, site: Any, *channels: str) -> Client:
        """Open a WebSocket at a node, and have it follow channels."""
        client = Client(self.clock, site, next(self._ports))
        client.ask(f"/ws?channel={','.join(channels)}", headers=HANDSHAKE)
        return client

    def at(self, site: Any, name: str, **body: Any) -> Answer:
        """Do a call at a node."""
        client = Client(self.clock, site, next(self._ports))
        answer = client.ask(f"/api/v1/{name}", method="POST", body=json.dumps(body).encode())
        client.lose()
        return answer


class BothTests(ClusterTestCase):
    """Both nodes answer."""

    def setUp(self) -> None:
        super().setUp()
        self.clients = [
            self.follow(self.site, "demo:x", "demo:a"),
            self.follow(self.other_site, "demo:x"),
            self.follow(self.other_site, "demo:x", "demo:b"),
        ]

    def test_channels(self) -> None:
        """Channels are those of both, with the sum of their subscribers."""
        both = {"demo:x": {"subscribers": 3}, "demo:a": {"subscribers": 1}, "demo:b": {"subscribers": 1}}
        for site in (self.site, self.other_site):
            self.assertEqual(self.at(site, "channels").json, {"result": {"channels": both}})
        self.assertEqual(self.call("channels", pattern="*b"), {"channels": {"demo:b": {"subscribers": 1}}})

    def test_connections(self) -> None:
        """Connections are those of both, each with its node, the one that is asked first; the limit is for all."""
        for limit, nodes in ((100, "abb"), (2, "ab"), (1, "a"), (0, "")):
            result = self.call("connections", limit=limit)
            self.assertEqual("".join(each["node"] for each in result["connections"]), nodes)
            self.assertEqual((result["total"], "missing" in result), (3, False))
        result = self.call("connections", channel="demo:b")
        self.assertEqual([each["node"] for each in result["connections"]], ["b"])
        self.assertEqual(result["total"], 1)

    def test_disconnect(self) -> None:
        """A channel's connections are ended on both, one connection wherever it is."""
        name = self.at(self.other_site, "connections", channel="demo:b").json["result"]["connections"][0]["connection"]
        self.assertEqual(self.call("disconnect", connection=name, code=4003), {"disconnected": 1})
        self.assertIn(b"\x0f\xa3", self.clients[2].take()[-60:])
        self.assertEqual(self.call("disconnect", channel="demo:x"), {"disconnected": 2})
        self.assertEqual(self.call("disconnect", channel="demo:x"), {"disconnected": 0})

    def test_unsubscribe(self) -> None:
        """So it is with subscriptions."""
        self.assertEqual(self.call("unsubscribe", channel="demo:x", reason="enough"), {"unsubscribed": 3})
        self.assertEqual(set(self.call("channels")["channels"]), {"demo:a", "demo:b"})

    def test_info(self) -> None:
        """All nodes are told of: the one that is asked as it is, the other as it was."""
        self.clock.advance(3)
        own, other = self.call("info")["nodes"]
        self.assertEqual((own["node"], own["seen"], own["connections"], own["channels"]), ("a", 0, 1, 2))
        self.assertEqual((other["node"], other["seen"], other["id"]), ("b", 1.25, "b.1"))
        self.assertEqual((other["connections"], other["transports"], other["uptime"]), (2, {"websocket": 2}, 3))

    def test_bad(self) -> None:
        """What is wrong is found here, and nobody else is asked."""
        for name, body in (
            ("connections", {"limit": -1}),
            ("connections", {"channel": "unknown:x"}),
            ("disconnect", {}),
            ("unsubscribe", {"channel": "unknown:x"}),
        ):
            self.assertGreaterEqual(self.at(self.site, name, **body).status, 400)
        self.assertEqual(self.node.broker.questions, [])

    def test_asked_once(self) -> None:
        """The one that is asked asks nobody."""
        self.call("channels")
        self.assertEqual((len(self.node.broker.questions), len(self.other.broker.questions)), (1, 0))

    def test_others_are_not_asked(self) -> None:
        """What is not about the connections of each node is done here alone."""
        self.call("publish", channel="demo:x", data=1)
        self.call("history", channel="demo:x")
        self.call("presence", channel="demo:x")
        self.assertEqual(self.node.broker.questions, [])


class QuestionTests(ClusterTestCase):
    """What a node answers to another."""

    def answer(self, question: Any) -> Any:
        """Ask a node."""
        data = question if isinstance(question, bytes) else json.dumps(question).encode()
        return json.loads(self.successResultOf(self.node.asked(data)))

    def test_good(self) -> None:
        """The calls that are about all nodes."""
        self.assertEqual(self.answer({"call": "channels", "body": {}}), {"channels": {}})
        self.assertEqual(self.answer({"call": "disconnect", "body": {"channel": "demo:x"}}), {"disconnected": 0})
        self.assertEqual(
            {name for name, call in CALLS.items() if call.merge is not None},
            {"channels", "connections", "disconnect", "unsubscribe"},
        )

    def test_bad(self) -> None:
        """Anything else is refused, and does nothing."""
        publish = {"channel": "demo:x", "data": 1}
        for question in (
            b"",
            b"\xff",
            b"[]",
            b"[" * 10_000,
            {},
            {"call": "channels"},
            {"call": "channels", "body": []},
            {"call": "channels", "body": {"patern": "*"}},
            {"call": "channels", "body": {}, "more": 1},
            {"call": "disconnect", "body": {}},
            {"call": "publish", "body": publish},
            {"call": "info", "body": {}},
            {"call": "__init__", "body": {}},
            {"call": 1, "body": {}},
        ):
            data = question if isinstance(question, bytes) else json.dumps(question).encode()
            failure = self.failureResultOf(self.node.asked(data), RtpushError)
            self.assertIs(failure.value.kind, ErrorCode.BAD_REQUEST, question)
        self.assertEqual(self.call("history", channel="demo:x")["messages"], [])


class MissingTests(ClusterTestCase):
    """The other node does not answer, or cannot be asked."""

    BODIES: ClassVar = {
        "channels": {},
        "connections": {},
        "disconnect": {"channel": "demo:x"},
        "unsubscribe": {"channel": "demo:x"},
    }

    def setUp(self) -> None:
        super().setUp()
        self.follow(self.site, "demo:x")
        self.follow(self.other_site, "demo:x")

    def test_deaf(self) -> None:
        """A node that does not answer is named, and the rest is there."""
        self.node.broker.deaf = {"b.1"}
        for name, body in self.BODIES.items():
            self.assertEqual(self.call(name, **body)["missing"], ["b.1"])
        self.assertEqual(self.call("channels")["channels"], {})
        others = self.at(self.other_site, "channels").json["result"]
        self.assertEqual(others, {"channels": {"demo:x": {"subscribers": 1}}})

    def test_fails(self) -> None:
        """So is one that fails to answer."""
        self.other.answering = lambda question: fail(ZeroDivisionError("broken"))
        self.assertEqual(self.call("channels"), {"channels": {"demo:x": {"subscribers": 1}}, "missing": ["b.1"]})

    def test_garbled(self) -> None:
        """One whose answer cannot be read spoils nothing either, but that is in the log."""
        for garbled in (b"", b"[]", b"\xff"):
            self.node.broker.garbled = {"b.1": garbled}
            self.assertEqual(self.call("connections")["missing"], ["*"])
        self.node.broker.garbled = {"b.1": b"[]"}
        result = self.call("info")
        self.assertEqual(([node["node"] for node in result["nodes"]], result["missing"]), (["a"], ["b.1"]))
        self.assertEqual(len(self.loudness.events), 4)
        self.loudness.events.clear()

    def test_cannot_be_asked(self) -> None:
        """While the broker is away what only looks tells of this node and says so."""
        self.node.broker.is_away = True
        self.assertEqual(self.call("channels"), {"channels": {"demo:x": {"subscribers": 1}}, "missing": ["*"]})
        result = self.call("connections")
        self.assertEqual((result["total"], result["missing"]), (1, ["*"]))
        result = self.call("info")
        self.assertEqual(([node["node"] for node in result["nodes"]], result["missing"]), (["a"], ["*"]))

    def test_does_not_claim_success(self) -> None:
        """What does something does it here, and fails: it is not done everywhere."""
        self.node.broker.is_away = True
        for name in ("unsubscribe", "disconnect"):
            answer = self.at(self.site, name, channel="demo:x")
            self.assertEqual((answer.status, answer.error), (503, "unavailable"), name)
            self.assertIn("retry-after", answer.headers)
            self.assertIn("done on this node", answer.json["error"]["message"])
        self.assertEqual(self.call("channels")["channels"], {})
        self.node.broker.is_away = False
        self.assertEqual(self.call("disconnect", channel="demo:x"), {"disconnected": 1})

    def test_fault_of_ours(self) -> None:
        """Any other failure is one."""
        for name, method in (("channels", "ask"), ("info", "nodes")):
            self.patch(self.node.broker, method, lambda *_: fail(ZeroDivisionError("broken")))
            self.assertEqual(self.at(self.site, name).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.loudness.events.clear()


class AloneTests(SocketTestCase):
    """A node whose broker knows no others."""

    def test_nothing_is_missing(self) -> None:
        """It says nothing of others."""
        for name, body in MissingTests.BODIES.items():
            self.assertNotIn("missing", self.call(name, **body))
        self.assertEqual(len(self.call("info")["nodes"]), 1)

    def test_status(self) -> None:
        """What it would tell others is what it tells of itself."""
        own = self.call("info")["nodes"][0]
        status = msgspec.json.decode(self.node.status())
        self.assertEqual({**status, "seen": 0}, own)
        self.assertEqual(status["transports"], {})
        ws = self.socket()
        self.assertEqual(msgspec.json.decode(self.node.status())["transports"], {"websocket": 1})
        ws.lose()
        self.assertEqual(msgspec.json.decode(self.node.status())["transports"], {})
