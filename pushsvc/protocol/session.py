"""The rules of one connection, whatever carries it: input and time in, effects out.

A session knows nothing of sockets. Its holder performs the effects that ``receive`` and
``due`` return, in order.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from pushsvc.codes import Close
from pushsvc.errors import Forbidden, InvalidRequest, PushError, RateLimited
from pushsvc.protocol import encoding, ids, messages
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import namespace_of
from pushsvc.protocol.grants import NOTHING, Grants
from pushsvc.protocol.limits import Rate, owe, spend
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.names import caller, require_topic
from pushsvc.protocol.read_state import LOOKED_AT_ONCE, Change

EXPIRY_NOTICE: Final = 60.0
"""Seconds before a token's expiry at which its connection is told."""


ERROR_BUDGET: Final = Rate(0.2, 20)
ANSWER_BYTES: Final = 16 * 1024
"""Bytes of an answer about presence that count as one more message of the client."""
SUBSCRIBED_AT_ONCE: Final = 16
"""New topics of a subscription that count as one more message of the client."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What every session of a node goes by; times in seconds."""

    heartbeat: float
    window: int
    ack_timeout: float
    ack_attempts: int
    messages: Rate
    """Messages of a client, acks and pings aside."""
    bytes: Rate
    """Bytes of a client, all of them."""
    control: Rate
    """Acks, pings and pongs: a client that acks every notification stays below it."""
    errors: Rate = ERROR_BUDGET
    """Invalid or refused messages before the connection is closed."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message; ``error`` is the code of an error message."""

    payload: bytes
    error: str | None = None


class Acked(msgspec.Struct, frozen=True, gc=False):
    """The device's position: write it down if it moved, then answer ``ref``."""

    cursor: Cursor
    id: int
    ref: Ref
    moved: bool


@dataclass(frozen=True, slots=True)
class Renew:
    """Verify this token and hand its expiry to ``renewed``."""

    token: str
    ref: Ref

    def __repr__(self) -> str:
        """Without the token: an effect may be logged."""
        return "Renew(...)"


@dataclass(frozen=True, slots=True)
class Beat:
    """Send a sign of life that the peer must answer."""


@dataclass(frozen=True, slots=True)
class Redeliver:
    """Read on from what was acknowledged: the cursor was rewound."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Listen to topics, each from a position or from now on, then answer ``ref``."""

    topics: dict[str, int | None]
    many: bool
    ref: Ref
    more: int = 0
    """Messages that it counts as besides itself: the next ones wait for them."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Do not listen to a topic any more, then answer ``ref``."""

    topic: str
    ref: Ref


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish to a topic, then answer ``ref``."""

    message: messages.Publish
    ref: Ref


@dataclass(frozen=True, slots=True)
class Present:
    """Say who listens to a topic, and from now on who comes and goes."""

    topic: str
    ref: Ref


@dataclass(frozen=True, slots=True)
class End:
    """Close the connection."""

    code: Close


@dataclass(frozen=True, slots=True)
class ChangeReadState:
    """Change what the user has read, then answer ``ref``."""

    change: Change
    ref: Ref


Request = Subscribe | Unsubscribe | Publish | Present | ChangeReadState
"""What a client asks for."""
Effect = Send | Acked | Renew | Beat | Redeliver | Request | End


class Session(msgspec.Struct, gc=False, eq=False):
    """One connection of one device.

    Args:
        user: the user id, from the token.
        device: the device, from the request.
        expires: when the token expires, seconds on the session's monotonic clock.
        seen: now, on that clock.
        cursor: its own in the mailbox.
        broadcast: its own cursor in the broadcast.
        grants: the topics that the token opens.
        issued: when the token was made, seconds since the epoch; 0 where it does not say.
        token_key: stands for the token's id.
        answers: whether the peer can answer a sign of life.
        issuer: of the token, as ``Claims.issuer`` has it.
    """

    user: str
    device: str
    expires: float
    seen: float
    """When the peer was last heard of."""
    cursor: Cursor
    broadcast: Cursor
    grants: Grants = NOTHING
    issued: int = 0
    token_key: int = 0
    answers: bool = True
    issuer: str = ""
    asked: float = 0.0
    """When it was last asked for a sign of life."""
    warned: bool = False
    topics: dict[str, Cursor | None] | None = None
    """The topics that it listens to: its own cursor in each, None while it shares the channel's."""
    # Token buckets; 0.0 is an unused one.
    _messages: float = 0.0
    _bytes: float = 0.0
    _control: float = 0.0
    _errors: float = 0.0

    @property
    def namespace(self) -> str:
        """The namespace of the user and of all that it asks for; its mailbox's name holds it."""
        return namespace_of(self.cursor.feed)

    @property
    def caller(self) -> str:
        """The user among those of all namespaces."""
        return caller(self.user, self.namespace)

    # --- input ---------------------------------------------------------------------------------

    def received(self, size: int, policy: Policy, now: float) -> Effect | None:
        """Account for ``size`` bytes from the peer; any traffic proves life."""
        self.seen = now
        self._bytes, wait = spend(self._bytes, now, size, policy.bytes)
        return End(Close.RATE_LIMITED) if wait else None

    def answered(self, size: int, policy: Policy, now: float) -> None:
        """Account for an answer that the client may make as large as it likes."""
        if (more := size // ANSWER_BYTES) > 0:
            self._messages = owe(self._messages, now, more, policy.messages)

    def looked_at(self, count: int, policy: Policy, now: float) -> None:
        """Account for the notifications that a change of the read state looked at."""
        if (more := count // LOOKED_AT_ONCE) > 0:
            self._messages = owe(self._messages, now, more, policy.messages)

    def controlled(self, policy: Policy, now: float) -> Effect | None:
        """Account for a protocol ping or pong."""
        self._control, wait = spend(self._control, now, 1, policy.control)
        return End(Close.RATE_LIMITED) if wait else None

    def receive(
        self, payload: bytes, policy: Policy, now: float, read: encoding.Read = encoding.decode
    ) -> list[Effect]:
        """Act on one message of the client, which ``read`` parses."""
        value = None
        try:
            acked = messages.usual_ack(payload) if read is encoding.decode else None
            if acked is not None:
                self._spend_control(policy, now)
                return self._ack(acked, None, now)
            value = read(payload)
            return self._act(messages.client_message(value), policy, now)
        except PushError as error:
            return self.fail(error, messages.ref_of(value), policy, now)

    def _act(self, message: messages.ClientMessage, policy: Policy, now: float) -> list[Effect]:
        if isinstance(message, messages.Ack):
            self._spend_control(policy, now)
            entry_id = ids.parse_untrusted(message.id)
            return self._ack(entry_id, message.ref, now, broadcast=message.broadcast)
        if isinstance(message, messages.Ping):
            self._spend_control(policy, now)
            return [Send(messages.pong(message.ref))]
        self._messages, wait = spend(self._messages, now, 1, policy.messages)
        self._limited(wait, policy.messages)
        if isinstance(message, messages.Refresh):
            return [Renew(message.token, message.ref)]
        if isinstance(message, messages.Subscribe):
            return [self._subscribe(message, policy, now)]
        if isinstance(message, messages.ReadState):
            return [ChangeReadState(message.change(), message.ref)]
        topic = require_topic(message.topic)
        if isinstance(message, messages.Unsubscribe):
            return [Unsubscribe(topic, message.ref)]
        if isinstance(message, messages.Publish):
            if not self.grants.may_publish(topic):
                raise Forbidden(
                    "the token's topics.publish does not cover this topic: "
                    f"{self.grants.why_not('publish')}"
                )
            return [Publish(message, message.ref)]
        self._may_subscribe(topic)
        return [Present(topic, message.ref)]

    def _ack(self, entry_id: int, ref: Ref, now: float, *, broadcast: bool = False) -> list[Effect]:
        """Move the position that holds the id, the mailbox's first."""
        cursors = (self.broadcast,) if broadcast else (self.cursor, self.broadcast)
        for cursor in cursors:
            if cursor.ack(entry_id, now):
                return [Acked(cursor, cursor.acked, ref, moved=True)]
        if ref is None:
            return []
        return [Acked(cursors[0], cursors[0].acked, ref, moved=False)]

    def _subscribe(self, message: messages.Subscribe, policy: Policy, now: float) -> Effect:
        topics = message.positions()
        for topic in topics:
            self._may_subscribe(topic)
        held = self.topics or {}
        new = sum(topic not in held for topic in topics)
        if len(held) + new > messages.MAX_SUBSCRIPTIONS:
            raise InvalidRequest(
                f"a connection listens to at most {messages.MAX_SUBSCRIPTIONS} topics: "
                "unsubscribe from some first"
            )
        # Owed, not asked for: who subscribes to all that it may as it connects must not wait.
        if (more := new // SUBSCRIBED_AT_ONCE) > 0:
            self._messages = owe(self._messages, now, more, policy.messages)
        return Subscribe(topics, message.topics is not None, message.ref, more)

    def _may_subscribe(self, topic: str) -> None:
        if not self.grants.may_subscribe(topic):
            raise Forbidden(
                "the token's topics.subscribe does not cover this topic: "
                f"{self.grants.why_not('subscribe')}"
            )

    def _spend_control(self, policy: Policy, now: float) -> None:
        self._control, wait = spend(self._control, now, 1, policy.control)
        self._limited(wait, policy.control)

    @staticmethod
    def _limited(wait: float, rate: Rate) -> None:
        if wait:
            raise RateLimited(
                f"over {rate.per_second:g} messages a second: wait before the next",
                retry_after=wait,
            )

    def fail(self, error: PushError, ref: Ref, policy: Policy, now: float) -> list[Effect]:
        """Tell the client of its error, and end the connection once it made too many."""
        self._errors, wait = spend(self._errors, now, 1, policy.errors)
        told = Send(messages.error(error, ref), error.code)
        if wait:
            return [told, End(error.close or Close.PROTOCOL_VIOLATION)]
        return [told]

    def belongs_to(self, user: str, namespace: str) -> bool:
        """Whether a token may go on with the connection.

        In another namespace the same name is someone else. Issuers of one namespace share its
        users: their configuration says so.
        """
        return (user, namespace) == (self.user, self.namespace)

    def renewed(
        self,
        whose: tuple[str, str],
        expires: float,
        expires_at: int,
        grants: Grants,
        ref: Ref,
    ) -> list[Effect]:
        """Take a verified token for the rest of the connection.

        Args:
            whose: the token's user id and its namespace.
            expires: when it expires, seconds on the session's clock.
            expires_at: the same in seconds since the epoch, for the answer.
            grants: the topics that it opens; others are left.
            ref: of the client's ``refresh``.
        """
        if not self.belongs_to(*whose):
            return [End(Close.TOKEN_REFUSED)]
        self.expires = expires
        self.warned = False
        self.grants = grants
        effects: list[Effect] = []
        for topic in self.topics or ():
            if not grants.may_subscribe(topic):
                refused = Forbidden(
                    f"the new token's topics.subscribe does not cover {topic}: "
                    f"{grants.why_not('subscribe')}"
                )
                effects += [Unsubscribe(topic, None), Send(messages.error(refused), refused.code)]
        if ref is not None:
            effects.append(Send(messages.reply(ref, expires_at=expires_at)))
        return effects

    # --- time ----------------------------------------------------------------------------------

    def due(self, policy: Policy, now: float) -> list[Effect]:
        """What the passing of time asks for."""
        if now >= self.expires:
            return [End(Close.TOKEN_EXPIRED)]
        effects: list[Effect] = []
        if now >= self._silent_at(policy):
            # A peer that was not asked is not silent, however late this is.
            if self.asked > self.seen and self.answers:
                return [End(Close.NO_HEARTBEAT)]
            self.asked = now
            effects.append(Beat())
        if not self.warned and now >= self.expires - EXPIRY_NOTICE:
            self.warned = True
            notice = _Expiring(self.expires - now)
            effects.append(Send(messages.error(notice), notice.code))
        for cursor in (self.cursor, self.broadcast):
            if cursor.overdue(now, policy.ack_timeout) and not cursor.reading:
                if cursor.attempt >= policy.ack_attempts:
                    return [*effects, End(Close.ACKS_OVERDUE)]
                cursor.rewind(now)
                effects.append(Redeliver(cursor))
        return effects

    def _silent_at(self, policy: Policy) -> float:
        """When the peer, as last heard or asked, was silent for a heartbeat."""
        return max(self.seen, self.asked) + policy.heartbeat

    def next_due(self, policy: Policy) -> float:
        """When ``due`` is to be asked next, seconds on the session's clock."""
        expiry = self.expires if self.warned else self.expires - EXPIRY_NOTICE
        when = min(self._silent_at(policy), expiry)
        for cursor in (self.cursor, self.broadcast):
            if cursor.unacked is not None:
                when = min(when, cursor.progress + policy.ack_timeout)
        return when


class _Expiring(PushError):
    code = "token_expiring"
    title = "Token expires soon"
    temporary = True

    def __init__(self, left: float) -> None:
        super().__init__(
            f"the token expires in {max(left, 0):.0f} s: send a refresh with a new one, or the "
            "connection is closed with 4100"
        )
