"""What all push providers have in common: what they are given, and what comes of it."""

from enum import StrEnum
from typing import NamedTuple, Protocol

from pushsvc.protocol.push import PushRegistration, PushText


class Outcome(StrEnum):
    """What came of one attempt."""

    SENT = "sent"
    """The provider accepted it."""
    GONE = "gone"
    """The registration is good no more, and never will be: it is to be removed."""
    RETRY = "retry"
    """The provider is overloaded, broken or out of reach: the same attempt may succeed later."""
    TOO_LARGE = "too_large"
    """The message is too large: one with ids only may not be."""
    CREDENTIALS = "credentials"
    """The provider refuses this server's credentials: nothing else will get through either."""
    REFUSED = "refused"
    """The provider refuses this message, and would again."""


class Verdict(NamedTuple):
    """What came of one attempt, and why."""

    outcome: Outcome
    detail: str = ""
    """A short reason for operators and receipts, such as ``410`` or ``BadDeviceToken``."""
    retry_after: float = 0.0
    """Seconds that the provider asks to wait; 0 where it asks nothing."""


class PushMessage(NamedTuple):
    """What one device is to be told of a notification."""

    notification: str
    """Its id."""
    capability: str
    """Lets its holder fetch the text of this notification and mark it as read; empty for none."""
    text: PushText | None
    """None for ids only."""
    badge: int | None
    """The number at the app's icon; None leaves it as it is."""
    tag: str
    """A newer message with the same tag takes the place of the older; empty for none."""
    group: str
    """What it belongs to (its event), for platforms that group; empty for nothing."""
    ttl: int
    """Seconds that the provider may keep it."""
    urgency: str
    """``very-low``, ``low``, ``normal`` or ``high`` (RFC 8030, section 5.3)."""

    def ids_only(self) -> "PushMessage":
        """The same without its text."""
        return self._replace(text=None)


class Provider(Protocol):
    """One way to devices."""

    name: str
    """As in registrations, metrics and receipts."""

    def check(self, registration: PushRegistration) -> None:
        """Check a registration before it is kept, without I/O.

        Raises:
            InvalidRequest: this provider can never send to it; the message says what to change.
        """

    async def send(self, registration: PushRegistration, message: PushMessage) -> Verdict:
        """Make one attempt, within ``ATTEMPT_SECONDS``; never raises for what a peer does."""

    async def aclose(self) -> None:
        """Close its connections."""
