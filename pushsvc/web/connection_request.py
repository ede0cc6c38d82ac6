"""What a client asks for that wants to listen: the same for WebSockets, event streams and polls."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from pushsvc.auth.tokens import Claims
from pushsvc.errors import InvalidRequest
from pushsvc.node.renewals import deadline
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST, TOPIC, broadcast, mailbox, topic
from pushsvc.protocol.names import require_name, require_topic
from pushsvc.protocol.revocation import token_key
from pushsvc.protocol.session import Session, Subscribe
from pushsvc.protocol.wire import Wire, parse_position
from pushsvc.web.base import MAX_HEADERS
from pushsvc.web.operation import bearer
from pushsvc.web.query import Query

MAX_TOPICS: Final = 32
"""Most topics of a stream or a poll: all of their positions are in each of its event ids."""
PLACE: Final = len("&topic=") + len("t%3A%3D1764000000123-999999%2C")
"""Bytes of a topic and the position there in the query of a request, besides its name."""
SPARE: Final = 1024
"""Bytes of a request's headers that nothing is known of yet: the rest of its first line, and what
the next token or a proxy adds."""
DEFAULT_DEVICE: Final = "default"


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """What a request for a connection asks for."""

    device: str
    token: str | None
    ticket: str | None
    topics: Sequence[str] = ()
    client_positions: Mapping[str, int] = field(default_factory=dict)
    """The positions that the client says it holds, as ``parse_position`` reads them: it calls its
    feeds as those of the default namespace are called."""

    def positions_of(self, session: Session) -> dict[str, int]:
        """The client's positions in its mailbox and in the broadcast, by the names of the feeds."""
        cursors = {"u": session.cursor, BROADCAST: session.broadcast}
        return {
            cursors[feed].feed: position
            for feed, position in self.client_positions.items()
            if feed in cursors
        }

    def session(self, claims: Claims, *, answers: bool) -> Session:
        """The session of the client.

        Args:
            claims: of its token.
            answers: whether it can answer a sign of life.
        """
        now = time.monotonic()
        return Session(
            claims.user,
            self.device,
            expires=deadline(claims.expires, now),
            seen=now,
            cursor=Cursor(mailbox(claims.user, claims.namespace), self.device),
            broadcast=Cursor(broadcast(claims.namespace)),
            grants=claims.grants,
            issued=claims.issued or 0,
            token_key=token_key(claims.token_id),
            answers=answers,
            issuer=claims.issuer,
        )

    def subscription(self) -> Subscribe:
        """What it asks for of topics, each from the client's position on."""
        positions = {name: self.client_positions.get(topic(name)) for name in self.topics}
        return Subscribe(positions, many=True, ref=None)

    def tell_positions(self, wire: Wire, session: Session) -> None:
        """Have the first message tell the client's positions: it may be the last one, too."""
        for cursor in (session.cursor, session.broadcast):
            wire.at(cursor.feed, cursor.sent)
        for name in self.topics:
            position = self.client_positions.get(topic(name))
            if position is not None:
                wire.at(topic(name, session.namespace), position)


def device_of(query: Query) -> str:
    """The device that a query names.

    Raises:
        InvalidName: it is not one.
        InvalidRequest: there are several.
    """
    device = query.one("device")
    return require_name(DEFAULT_DEVICE if device is None else device, "device")


def _require_room(headers: Mapping[str, str], device: str, topics: Sequence[str]) -> None:
    """Check that the next request can tell all the positions that this one leads to.

    Headers that are too long are not read, and their connection is closed without a word: the
    client would try again for ever.
    """
    size = SPARE + len(quote(device, safe=""))
    for name, value in headers.items():
        if name.lower() != "last-event-id":
            size += len(f"{name}: {value}\r\n")
    for topic_name in topics:
        # A position is percent-encoded itself, and once more in a query, as ``after``. Some encode
        # what others leave, so each byte counts that any of them does.
        once = quote(topic(topic_name).removeprefix(TOPIC), safe="%")
        size += PLACE + len(once) + len(quote(once, safe=""))
    if size > MAX_HEADERS:
        raise InvalidRequest(
            f"the positions in these topics would not fit into the {MAX_HEADERS} bytes of the next"
            " request's headers: name fewer or shorter topics, or use a socket"
        )


def listening_request(headers: Mapping[str, str], query: Query) -> ConnectionRequest:
    """Read a request for a stream or a poll.

    Args:
        headers: of the request, asked with lower-case names; ``Last-Event-ID`` says what the
            client holds.
        query: of the request; ``after`` says the same for a client that can set no header.

    Raises:
        InvalidRequest: the device, a topic or the position is none, there are too many topics, or
            their positions would not fit into the next request.
    """
    topics = [require_topic(name) for name in dict.fromkeys(query.all("topic"))]
    if len(topics) > MAX_TOPICS:
        raise InvalidRequest(f"name at most {MAX_TOPICS} topics, or use a socket")
    device = device_of(query)
    _require_room(headers, device, topics)
    position = headers.get("last-event-id") or query.one("after") or ""
    wanted = {"u", BROADCAST, *map(topic, topics)}
    positions = {feed: at for feed, at in parse_position(position).items() if feed in wanted}
    return ConnectionRequest(device, bearer(headers), query.one("ticket"), topics, positions)
