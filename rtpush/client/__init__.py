"""The Python client of rtpush, for Twisted programs."""

from rtpush.client.api import ServerApi
from rtpush.client.client import Client, Status
from rtpush.client.errors import ClientClosed, LinkLost, NotDelivered, OutboxFull, ServerEnded
from rtpush.client.subscription import Subscription

__all__ = [
    "Client",
    "ClientClosed",
    "LinkLost",
    "NotDelivered",
    "OutboxFull",
    "ServerApi",
    "ServerEnded",
    "Status",
    "Subscription",
]
