"""The Python client: receive with ``listen`` or ``connect``, publish and ask with ``Publisher``.

It needs nothing of the server, and speaks to any node of the same protocol version.
"""

from pushsvc.client.asking import (
    Acked,
    Device,
    Erased,
    Kept,
    Outcome,
    Outcomes,
    Page,
    Recalled,
    Revocation,
    Ticket,
)
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
from pushsvc.client.inbox import Inbox
from pushsvc.client.inbox_state import InboxItem, Snapshot
from pushsvc.client.listening import connect, listen
from pushsvc.client.marks import Mark
from pushsvc.client.messages import (
    Gap,
    Marked,
    Message,
    Notification,
    Presence,
    Present,
    Problem,
    Withdrawn,
)
from pushsvc.client.minting import mint
from pushsvc.client.publisher import Publisher
from pushsvc.client.publishing import Content, Note, Push, Receipt
from pushsvc.client.tokens import Token

__all__ = [
    "Acked",
    "AsyncPublisher",
    "Client",
    "Closed",
    "Content",
    "Device",
    "Erased",
    "Gap",
    "Inbox",
    "InboxItem",
    "Kept",
    "Mark",
    "Marked",
    "Message",
    "Note",
    "Notification",
    "Outcome",
    "OutcomeUnknown",
    "Outcomes",
    "Page",
    "Presence",
    "Present",
    "Problem",
    "Publisher",
    "Push",
    "PushError",
    "QueueFull",
    "Recalled",
    "Receipt",
    "Refused",
    "Revocation",
    "Snapshot",
    "State",
    "Ticket",
    "Timing",
    "Token",
    "Unavailable",
    "Withdrawn",
    "connect",
    "listen",
    "mint",
]
