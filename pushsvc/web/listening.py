"""What a request to listen asks for, and who may: the same for sockets, streams and polls."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from tornado.httputil import HTTPHeaders

from pushsvc.auth.gate import Gate
from pushsvc.auth.revocations import token_key
from pushsvc.auth.tokens import Claims
from pushsvc.errors import Forbidden, InvalidRequest, InvalidToken
from pushsvc.node.renewals import deadline
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST, mailbox, topic
from pushsvc.protocol.names import require_name
from pushsvc.protocol.session import Session
from pushsvc.protocol.wire import parse_position

MAX_TOPICS: Final = 32
"""Most topics of a stream or a poll: all of their positions are in each of its event ids."""
MAX_ARGUMENTS: Final = 100


def arguments_of(query: str) -> dict[str, list[str]]:
    """The arguments of a query.

    Raises:
        InvalidRequest: there are too many.
    """
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=MAX_ARGUMENTS)
    except ValueError:
        raise InvalidRequest(f"send at most {MAX_ARGUMENTS} arguments") from None


@dataclass(frozen=True, slots=True)
class Listening:
    """What a stream or a poll asks for."""

    device: str
    ticket: str | None
    held: dict[str, int]
    topics: Sequence[str]


def listening(headers: HTTPHeaders, arguments: Mapping[str, Sequence[str]]) -> Listening:
    """Read what a request for a stream or a poll asks for.

    Args:
        headers: of the request; ``Last-Event-ID`` says what the client holds.
        arguments: of the query; ``after`` says the same for who can set no header.

    Raises:
        InvalidRequest: the device, a topic or the position is none, or there are too many topics.
    """
    topics = [require_name(name, "topic") for name in dict.fromkeys(arguments.get("topic", ()))]
    if len(topics) > MAX_TOPICS:
        raise InvalidRequest(f"name at most {MAX_TOPICS} topics, or use a socket")
    position = headers.get("Last-Event-ID") or arguments.get("after", [""])[-1]
    held = parse_position(position)
    wanted = {"u", BROADCAST, *map(topic, topics)}
    return Listening(
        require_name(arguments.get("device", ["default"])[-1], "device"),
        arguments.get("ticket", [None])[-1],
        {feed: at for feed, at in held.items() if feed in wanted},
        topics,
    )


def held_by(user: str, held: Mapping[str, int]) -> dict[str, int]:
    """The positions that a client sent, by the names of the feeds."""
    return {mailbox(user) if feed == "u" else feed: at for feed, at in held.items()}


async def admitted(gate: Gate, token: str | None, ticket: str | None) -> Claims:
    """Who comes with a token or a ticket.

    Raises:
        InvalidToken: there is none, or it is refused.
        PushError: it cannot be told for now.
    """
    if ticket is not None and not token:
        return await gate.redeem(ticket)
    if not token:
        raise InvalidToken(
            "send a token: Authorization: Bearer <token>, the subprotocol bearer.<token>, or "
            "?ticket=<ticket>"
        )
    return gate.verify_cached(token) or await gate.verify(token)


def allow_topics(claims: Claims, topics: Iterable[str]) -> None:
    """Check that a token covers topics.

    Raises:
        Forbidden: it does not.
    """
    for name in topics:
        if not claims.grants.may_subscribe(name):
            raise Forbidden(f"the token's topics.subscribe does not cover {name}")


def session_of(claims: Claims, device: str, *, answers: bool) -> Session:
    """The session of who was let in.

    Args:
        claims: of its token.
        device: that it is.
        answers: whether it can answer a sign of life.
    """
    now = time.monotonic()
    return Session(
        claims.user,
        device,
        expires=deadline(claims.expires, now),
        seen=now,
        cursor=Cursor(mailbox(claims.user), device),
        broadcast=Cursor(BROADCAST),
        grants=claims.grants,
        issued=claims.issued or 0,
        token_key=token_key(claims.token_id),
        answers=answers,
    )
