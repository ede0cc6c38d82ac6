"""Who may connect, and is there room? The same for WebSockets, event streams and polls."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Final

from pushsvc.auth.authenticator import Authenticator
from pushsvc.auth.tokens import Claims
from pushsvc.errors import Forbidden, InvalidToken, Overloaded
from pushsvc.node.connections import Connections
from pushsvc.node.dispatcher import Dispatcher
from pushsvc.node.listener import Listener
from pushsvc.protocol.delivery import Backlog
from pushsvc.protocol.session import SUBSCRIBED_AT_ONCE
from pushsvc.web.connection_request import ConnectionRequest
from pushsvc.web.rates import RequestRates

CONNECTIONS: Final = 5
"""Connections that a user may begin for each message that one may send."""
AT_ONCE: Final = 10
"""The same of what may be begun at once."""
POLLS: Final = 10
"""Polls that a user may make for each message: a listener makes one for each few messages."""
POLLED_AT_ONCE: Final = 4
"""Topics of a poll that count as one more: all that a user polls is no more work than sockets."""


class Admission:
    """Admits connections, of which a node takes so many, and so many handshakes at once.

    Args:
        authenticator: of tokens and tickets.
        dispatcher: what an admitted connection listens to.
        connections: those that the node holds.
        rates: how fast each user may begin sockets and streams.
        polls: the same for polls.
        max_connections: most of them.
        max_handshakes: most handshakes in flight, polls included.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        dispatcher: Dispatcher,
        connections: Connections,
        rates: RequestRates,
        polls: RequestRates,
        *,
        max_connections: int,
        max_handshakes: int,
    ) -> None:
        self.in_flight = 0
        self.entering = 0
        """Handshakes whose token is looked at, and which are let in once it is good."""
        self.draining = False
        """Whether load balancers are told to send no clients here any more."""
        self.closed = False
        """Whether a client that comes nevertheless is sent away."""
        self._authenticator = authenticator
        self._dispatcher = dispatcher
        self._connections = connections
        self._rates = rates
        self._polls = polls
        self._max_connections = max_connections
        self.max_handshakes = max_handshakes

    @property
    def under_way(self) -> int:
        """How many clients may still come whom a drain has to send elsewhere."""
        return self.in_flight + self.entering

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let a handshake in, which a drain that begins meanwhile waits for.

        Raises:
            Overloaded: see ``require_room``.
        """
        self.require_room()
        self.entering += 1
        try:
            yield
        finally:
            self.entering -= 1

    @contextmanager
    def handshake(self, *, entered: bool = False) -> Iterator[None]:
        """Count a handshake for as long as the context lasts.

        Args:
            entered: whether it was let in before, and is still within that context.

        Raises:
            Overloaded: see ``require_room``.
        """
        self.require_room(entered=entered)
        self.entering -= entered  # it counts once
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self.entering += entered

    def require_room(self, *, entered: bool = False) -> None:
        """Do nothing where one more client may come, or goes on that was let in.

        Raises:
            Overloaded: the node is at a limit, or takes no clients any more.
        """
        if self.closed and not entered:
            raise Overloaded("this node is draining: reconnect", retry_after=1.0)
        if self.in_flight >= self.max_handshakes:
            raise Overloaded("too many handshakes at once: retry", retry_after=2.0)
        held = len(self._connections) - self._connections.readiness.lost
        if held + self.in_flight >= self._max_connections:
            raise Overloaded("this node holds all it can: retry", retry_after=5.0)

    async def authenticate(
        self,
        request: ConnectionRequest,
        *,
        poll: bool = False,
        apart: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> Claims:
        """What the token or the ticket of a request says.

        Args:
            request: of the client.
            poll: whether it is one.
            apart: entered for as long as keys are waited for.

        Raises:
            InvalidToken: there is none, or it is refused.
            RateLimited: the user begins connections too fast.
            PushError: it cannot be verified for now.
        """
        claims = await self._claims(request, apart)
        now = time.monotonic()
        rates = self._polls if poll else self._rates
        rates.spend(claims.caller, now)
        at_once = POLLED_AT_ONCE if poll else SUBSCRIBED_AT_ONCE
        rates.owe(claims.caller, now, len(request.topics) // at_once)
        return claims

    async def _claims(
        self, request: ConnectionRequest, apart: Callable[[], AbstractAsyncContextManager[None]]
    ) -> Claims:
        token, ticket = request.token, request.ticket
        if ticket is not None and not token:
            return await self._authenticator.redeem(ticket)
        if not token:
            raise InvalidToken(
                "send a token: Authorization: Bearer <token>, the subprotocol bearer.<token>, or "
                "?ticket=<ticket>"
            )
        claims = self._authenticator.verify_cached(token)
        if claims is not None:
            return claims
        async with apart():
            return await self._authenticator.verify(token)

    async def join(
        self,
        listener: Listener,
        request: ConnectionRequest,
        claims: Claims,
        *,
        withdrawn: bool = True,
    ) -> Backlog:
        """Register a listener; what it is owed, from the client's position on.

        Args:
            listener: with the session that the request makes.
            request: of the client.
            claims: of its token.
            withdrawn: whether it is told what was withdrawn while it was away.

        Raises:
            Forbidden: the token does not cover a topic.
            InvalidToken: the token was revoked meanwhile.
            PushError: the user has too many connections, or Redis cannot be reached.
        """
        for name in request.topics:
            if not claims.grants.may_subscribe(name):
                raise Forbidden(
                    f"the token's topics.subscribe does not cover {name}: "
                    f"{claims.grants.why_not('subscribe')}"
                )
        # Who has gone and comes back has not one connection more.
        feed = listener.session.cursor.feed
        self._connections.readiness.drop_lost(self._dispatcher.listening(feed))
        positions = request.positions_of(listener.session)
        backlog = await self._dispatcher.join(listener, positions, withdrawn=withdrawn)
        try:
            self.check(claims)
            request.tell_positions(listener.wire, listener.session)
        except BaseException:
            self._dispatcher.left(listener)
            raise
        return backlog

    def check(self, claims: Claims) -> None:
        """Look once more at claims that were verified some time ago.

        Raises:
            PushError: see ``Authenticator.check``.
        """
        self._authenticator.check(claims)
