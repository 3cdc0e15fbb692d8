"""Tests of rtpush.client.wants."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from rtpush.client.wants import Want, channels_query, first_request, subscribe_body
from rtpush.protocol.position import Position

NOW = Want("now")
OLD = Want("old", earliest=True)
AT = Want("at", Position("k3f9", 7), earliest=True)


class WantTests(SynchronousTestCase):
    """How channels are asked for."""

    def test_subscribe_body(self) -> None:
        """The command says where to begin; a position says it best."""
        self.assertEqual(json.loads(subscribe_body(NOW)), {"channel": "now"})
        self.assertEqual(json.loads(subscribe_body(OLD)), {"channel": "old", "since": "earliest"})
        self.assertEqual(json.loads(subscribe_body(AT)), {"channel": "at", "cursor": "k3f9:7"})

    def test_channels_query(self) -> None:
        """The query has a cursor as soon as one channel has a position."""
        self.assertEqual(channels_query([NOW]), [("channel", "now")])
        self.assertEqual(channels_query([OLD]), [("channel", "old"), ("since", "earliest")])
        self.assertEqual(channels_query([NOW, AT]), [("channel", "now"), ("channel", "at"), ("cursor", "-,k3f9:7")])

    def test_first_request(self) -> None:
        """Channels that begin at now come first, then those that begin at the oldest message, then all together."""
        self.assertEqual(first_request([NOW, OLD, AT]), [NOW, AT])
        self.assertEqual(first_request([NOW]), [NOW])
        self.assertEqual(first_request([OLD, AT]), [OLD])
        self.assertEqual(first_request([AT]), [AT])
        self.assertEqual(first_request([]), [])
