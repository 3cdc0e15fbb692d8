"""The description of the server API: valid, complete, and true."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import rtpush
from rtpush.api.calls import CALLS
from rtpush.api.openapi import document
from tests.transports.serving import target
from tests.transports.sockets import SocketTestCase

_STRINGS = (
    st.text(max_size=20)
    # Halves of surrogate pairs too, which JSON can write and UTF-8 cannot.
    | st.text(st.characters(codec=None, min_codepoint=0xD000), max_size=5)
    | st.sampled_from(["", "-", "*", "open", "a" * 256, "zzz:1", "a,b"])
)

#: What is good for a field, so that not every body is refused for its first one.
_GOOD = {
    "channel": ("a", "demo:a", "demo:b", "none:a", "private:a", "unknown:a"),
    "channels": ("a", "demo:a", "unknown:a"),
    "data_b64": ("", "AAEC"),
    "event": ("price", "é"),
    "idempotency_key": ("k", "l"),
    "pattern": ("*", "demo:*", "*a*"),
    "transport": ("websocket", "sse"),
    "reason": ("because", "é"),
}

_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_STRINGS, inner, max_size=3),
    max_leaves=5,
)


def served_document() -> dict[str, Any]:
    """Return the document as it is served."""
    return json.loads(json.dumps(document()))


DOCUMENT = served_document()


def values(schema: dict[str, Any], field: str = "") -> st.SearchStrategy[Any]:
    """Return what makes values that fit a schema of a request body, or of a field of it."""
    if "$ref" in schema:
        return values(_resolve(schema))
    if "anyOf" in schema:
        return st.one_of([values(each, field) for each in schema["anyOf"]])
    match schema.get("type"):
        case None:
            return _ANY_JSON
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum")) | st.integers(0, 200)
        case "string":
            if field in _GOOD:
                good = st.sampled_from(_GOOD[field])
                return st.one_of(good, good, good, good, _STRINGS)
            return _STRINGS
        case "array":
            return st.lists(values(schema["items"], field), max_size=4)
        case "object":
            required = set(schema["required"])
            fields = {name: values(each, name) for name, each in schema["properties"].items()}
            return st.fixed_dictionaries(
                {name: each for name, each in fields.items() if name in required},
                optional={name: each for name, each in fields.items() if name not in required},
            )
    raise AssertionError(f"there is no strategy for {schema}")


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = DOCUMENT
    for part in schema["$ref"].removeprefix("#/").split("/"):
        resolved = resolved[part]
    return resolved


def operation(name: str) -> dict[str, Any]:
    """Return the operation of a call."""
    found: dict[str, Any] = DOCUMENT["paths"][f"/{name}"]["post"]
    return found


def body_schema(name: str) -> dict[str, Any]:
    """Return the schema of a call's body."""
    found: dict[str, Any] = operation(name)["requestBody"]["content"]["application/json"]["schema"]
    return found


@cache
def response_schema(name: str, status: int) -> dict[str, Any]:
    """Return the schema of a call's answer, in which nothing may be that it does not name."""
    responses = operation(name)["responses"]
    content = responses.get(str(status)) or responses[f"{status // 100}XX"]
    schema = copy.deepcopy(content["content"]["application/json"]["schema"])
    components = copy.deepcopy(DOCUMENT["components"])
    _close(schema)
    for each in components["schemas"].values():
        _close(each)
    return {**schema, "components": components}


@cache
def validator(name: str, status: int) -> Draft202012Validator:
    """Return what checks a call's answer."""
    return Draft202012Validator(response_schema(name, status))


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for each in schema.values():
            _close(each)
    elif isinstance(schema, list):
        for each in schema:
            _close(each)


class DocumentTests(SocketTestCase):
    """The document itself."""

    def test_valid(self) -> None:
        """It is a valid document of OpenAPI 3.1."""
        self.assertEqual([str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()], [])

    def test_schemas(self) -> None:
        """All its schemas are valid."""
        for name, schema in DOCUMENT["components"]["schemas"].items():
            Draft202012Validator.check_schema(schema)
            self.assertIn("properties", schema, name)
        for name in CALLS:
            for status in (200, 400, 503):
                Draft202012Validator.check_schema(response_schema(name, status))

    def test_served(self) -> None:
        """It is what is served, to all, without a key."""
        self.serve(sections="[api]\nkeys = 0123456789abcdef0123456789abcdef")
        answer = self.ask("/api/v1/openapi.json")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
        self.assertEqual(answer.json, DOCUMENT)
        self.assertEqual(answer.json["info"]["version"], rtpush.__version__)

    def test_complete(self) -> None:
        """It describes every call, and nothing that there is not."""
        self.assertEqual(set(DOCUMENT["paths"]), {f"/{name}" for name in CALLS})
        served = {child.decode() for child in self.site.resource.children[b"api"].children[b"v1"].children} - {
            "openapi.json"
        }
        self.assertEqual(set(CALLS), served)
        for name in CALLS:
            self.assertEqual(set(DOCUMENT["paths"][f"/{name}"]), {"post"})
            self.assertNotEqual(self.ask(f"/api/v1/{name}", method="POST").status, 404, name)
        identifiers = [operation(name)["operationId"] for name in CALLS]
        self.assertEqual(len(set(identifiers)), len(identifiers))

    def test_described(self) -> None:
        """Each call says what it does, and each body is closed: a misspelt field is an error."""
        for name in CALLS:
            self.assertTrue(operation(name)["summary"])
            schema = _resolve(body_schema(name))
            self.assertTrue(schema["description"])
            self.assertIs(schema["additionalProperties"], False, name)

    def test_required(self) -> None:
        """What it says is required is, and each other field may be left out."""
        for name in CALLS:
            schema = _resolve(body_schema(name))
            full = {"channel": "demo:a", "channels": ["a"], "messages": [{"channel": "a", "data": 1}]}
            body = {field: full[field] for field in schema["required"]}
            for field in schema["required"]:
                less = {key: value for key, value in body.items() if key != field}
                answer = self.ask(f"/api/v1/{name}", method="POST", body=json.dumps(less).encode())
                self.assertEqual((answer.status, answer.error), (400, "bad_request"), (name, field))
            answer = self.ask(f"/api/v1/{name}", method="POST", body=json.dumps(body).encode())
            if answer.status != 200:
                # What a schema of one field after the other cannot say: one of two is needed.
                self.assertIn("expected", answer.json["error"]["message"], name)

    def test_may_be_empty(self) -> None:
        """A body may be left out where it says so."""
        for name in CALLS:
            needed = operation(name)["requestBody"]["required"]
            self.assertIs(needed, bool(_resolve(body_schema(name))["required"]), name)
            if needed:
                self.assertEqual(self.ask(f"/api/v1/{name}", method="POST").error, "bad_request", name)


class TruthTests(SocketTestCase):
    """What it says against what happens."""

    def check(self, name: str, body: Any) -> int:
        """Do a call: its answer fits the document, and is no fault of the node. Return the status."""
        answer = self.ask(f"/api/v1/{name}", method="POST", body=json.dumps(body).encode())
        self.clock.advance(0)
        self.assertLess(answer.status, 500, (name, body))
        errors = [str(error) for error in validator(name, answer.status).iter_errors(answer.json)]
        self.assertEqual(errors, [], (name, body))
        return answer.status

    def test_examples(self) -> None:
        """Results that have something in them fit their schemas."""
        self.socket(target("/ws", channel="demo:a", info='{"a":1}'))
        stream = self.client()
        stream.request("/sse?channel=demo:a,a")
        self.check("publish", {"channel": "demo:a", "data": {"x": 1}, "event": "e"})
        self.check("publish", {"channel": "demo:a", "data_b64": "AA=="})
        for name, body in (
            ("publish_batch", {"messages": [{"channel": "a", "data": 1}, {"channel": "unknown:a", "data": 1}]}),
            ("broadcast", {"channels": ["a", "unknown:a"], "data": 1}),
            ("history", {"channel": "demo:a"}),
            ("presence", {"channel": "demo:a"}),
            ("channels", {}),
            ("connections", {}),
            ("info", {}),
            ("unsubscribe", {"channel": "a"}),
            ("disconnect", {"channel": "demo:a"}),
        ):
            self.assertEqual(self.check(name, body), 200, name)

    def test_bodies(self) -> None:
        """Any body that fits a schema has an answer that fits one, and is never a fault of the node."""
        for name in CALLS:
            _with_each(values(body_schema(name)), 40, partial(self.check, name))

    def test_bodies_of_others(self) -> None:
        """The same with bodies of another call, and with none at all."""
        for name in CALLS:
            others = (values(body_schema(other)) for other in CALLS if other != name)
            _with_each(st.one_of(_ANY_JSON, *others), 20, partial(self.check, name))


def _with_each(strategy: st.SearchStrategy[Any], count: int, test: Callable[[Any], object]) -> None:
    """Run a test with examples of a strategy."""

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def with_one(body: Any) -> None:
        test(body)

    with_one()
