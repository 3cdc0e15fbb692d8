"""
An application that is asked about clients by rtpush: https://docs.python.org/3 is all that it needs.

    [hooks]
    url = http://127.0.0.1:8000/rtpush
    secrets = change-me-change-me-change-me-change-me

    python3 hooks_backend.py change-me-change-me-change-me-change-me

Whoever has the cookie session=ann is ann, may do everything in channels of the namespace "room", and is greeted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = sys.argv[1].encode()
SESSIONS = {"ann": {"name": "Ann"}, "bob": {"name": "Bob"}}


def is_signed(headers, body):
    """Tell whether a request is from rtpush, and was sent just now."""
    id_, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "0")
    made = hmac.digest(SECRET, f"{id_}.{sent}.".encode() + body, hashlib.sha256)
    expected = "v1," + base64.b64encode(made).decode()
    is_new = sent.isdigit() and abs(time.time() - int(sent)) < 300
    signatures = headers.get("webhook-signature", "").split()
    return is_new and any(hmac.compare_digest(each.encode(), expected.encode()) for each in signatures)


def answer(question):
    """Return what is said to a question; nothing more to say is yes."""
    match question["event"]:
        case "connect":
            cookie = SimpleCookie(question.get("headers", {}).get("cookie", "")).get("session")
            if cookie is None or cookie.value not in SESSIONS:
                return {"deny": {"message": "log in first"}}
            return {
                "user": cookie.value,
                "info": SESSIONS[cookie.value],
                "channels": {"room:*": ["subscribe", "publish", "presence"]},
                "expires": time.time() + 3600,
                "data": {"welcome": SESSIONS[cookie.value]["name"]},
            }
        case "publish" if "darn" in str(question.get("data")):
            return {"data": str(question["data"]).replace("darn", "****")}
    return {}


class Handler(BaseHTTPRequestHandler):
    """Takes questions, over connections that are kept."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Answer one."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        signed = is_signed(self.headers, body)
        said = json.dumps(answer(json.loads(body)) if signed else {}).encode()
        self.send_response(200 if signed else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
