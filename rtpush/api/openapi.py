"""The description of the server API, OpenAPI 3.1, made from the shapes that the calls are decoded with."""

from __future__ import annotations

from typing import Any

import msgspec

import rtpush
from rtpush.api.calls import CALLS
from rtpush.errors import ErrorCode

__all__ = ["document"]

_ERROR = {
    "type": "object",
    "required": ["code", "name", "message", "temporary"],
    "properties": {
        "code": {"type": "integer", "enum": [kind.code for kind in ErrorCode]},
        "name": {"type": "string", "enum": [kind.name.lower() for kind in ErrorCode]},
        "message": {"type": "string"},
        "temporary": {"type": "boolean", "description": "Whether trying again later can help."},
        "channel": {"type": "string", "description": "The channel whose own token it is about."},
    },
}

_ENVELOPE = {
    "type": "object",
    "required": ["channel"],
    "properties": {
        "channel": {"type": "string"},
        "offset": {"type": "integer", "minimum": 1},
        "epoch": {"type": "string"},
        "event": {"type": "string"},
        "data": {"description": "Any JSON."},
        "data_b64": {"type": "string", "description": "A binary payload, in base64."},
    },
}


def document() -> dict[str, Any]:
    """Return the whole document, ready for JSON."""
    _, components = msgspec.json.schema_components(
        [call.body for call in CALLS.values()], ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rtpush server API",
            "version": rtpush.__version__,
            "description": "What a backend asks of rtpush. Every call is a POST with a JSON object.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"bearer": []}, {"apiKey": []}, {"token": []}],
        "paths": {f"/{name}": {"post": _operation(name)} for name in CALLS},
        "components": {
            "schemas": {**components, "Error": _ERROR, "Envelope": _ENVELOPE},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A signed token whose claim api names the call, where [api] tokens is yes.",
                },
            },
        },
    }


def _operation(name: str) -> dict[str, Any]:
    call = CALLS[name]
    error = {
        "description": "The call failed.",
        "content": _json(
            {"type": "object", "required": ["error"], "properties": {"error": {"$ref": "#/components/schemas/Error"}}}
        ),
    }
    return {
        "operationId": name,
        "summary": call.summary,
        "requestBody": {
            "required": any(field.required for field in msgspec.structs.fields(call.body)),
            "content": _json({"$ref": f"#/components/schemas/{call.body.__name__}"}),
        },
        "responses": {
            "200": {
                "description": "It was done.",
                "content": _json({"type": "object", "required": ["result"], "properties": {"result": call.result}}),
            },
            "4XX": error,
            "5XX": error,
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
