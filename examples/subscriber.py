"""
A program that follows a channel over whatever transport works. Started again, it goes on where it was.

Usage: subscriber.py [URL]
"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor

from rtpush.client import Client

CHANNEL = "demo:prices"
CURSOR = Path("prices.cursor")


def on_status(status):
    print(f"[{status.state.value}] {status.transport or ''} {status.reason}", file=sys.stderr)


def on_message(message):
    print(message.position, message.event or "message", message.data)
    # Written after the message was dealt with: what a crash leaves undone comes again.
    CURSOR.write_text(str(subscription.position))


def on_gap(gap):
    print(f"messages were lost ({gap.reason.value}); going on after {gap.position}", file=sys.stderr)


def on_end(error):
    print(f"the subscription ended: {error}", file=sys.stderr)
    reactor.stop()


client = Client(reactor, *(sys.argv[1:] or ["http://127.0.0.1:8080/"]))
client.on_status(on_status)
subscription = client.subscribe(
    CHANNEL,
    on_message,
    position=CURSOR.read_text() if CURSOR.exists() else None,
    since="earliest",
    on_gap=on_gap,
    on_end=on_end,
)
reactor.addSystemEventTrigger("before", "shutdown", client.close)
reactor.run()
