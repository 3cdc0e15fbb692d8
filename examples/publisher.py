"""
A backend that publishes a price every second, by the server API.

Usage: publisher.py [URL [API_KEY]]
"""

from __future__ import annotations

import random
import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from rtpush.client import LinkLost, ServerApi
from rtpush.errors import RtpushError


async def publish(reactor, url="http://127.0.0.1:8080/", key=""):
    api = ServerApi(reactor, url, key)
    eur = 40.0
    while True:
        eur = round(eur + random.uniform(-0.5, 0.5), 2)
        try:
            position = await api.publish("demo:prices", {"symbol": "ACME", "eur": eur}, event="price")
            print(f"{position}  {eur}")
        except (LinkLost, RtpushError) as error:
            # The next price makes up for this one. What must not be missed is published again, with the same key.
            print(f"not published: {error}", file=sys.stderr)
        await deferLater(reactor, 1.0)


react(lambda reactor, *arguments: Deferred.fromCoroutine(publish(reactor, *arguments)), sys.argv[1:])
