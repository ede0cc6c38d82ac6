"""The Python client: receive with ``listen`` or ``connect``, publish with ``Publisher``.

It needs nothing of the server, and speaks to any node of the same protocol version.
"""

from pushsvc.client.async_publisher import AsyncPublisher
from pushsvc.client.backoff import Timing
from pushsvc.client.connection import Client, State
from pushsvc.client.errors import (
    Closed,
    OutcomeUnknown,
    PushError,
    QueueFull,
    Refused,
    Unavailable,
)
from pushsvc.client.listening import connect, listen
from pushsvc.client.messages import Gap, Message, Notification, Presence, Problem, Withdrawn
from pushsvc.client.publisher import Publisher
from pushsvc.client.publishing import Content, Note, Receipt
from pushsvc.client.tokens import Token

__all__ = [
    "AsyncPublisher",
    "Client",
    "Closed",
    "Content",
    "Gap",
    "Message",
    "Note",
    "Notification",
    "OutcomeUnknown",
    "Presence",
    "Problem",
    "Publisher",
    "PushError",
    "QueueFull",
    "Receipt",
    "Refused",
    "State",
    "Timing",
    "Token",
    "Unavailable",
    "Withdrawn",
    "connect",
    "listen",
]
