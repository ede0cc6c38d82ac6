"""Authenticates every request: by a token or a ticket, unless it was revoked."""

import asyncio
import contextlib
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from pushsvc.auth.revocations import Revocations
from pushsvc.auth.tokens import LEEWAY, Claims, TokenCheck, shared
from pushsvc.errors import InvalidToken, PushError, Unavailable
from pushsvc.protocol.names import was_name
from pushsvc.protocol.revocation import Order, Revocation

REFRESH_SECONDS: Final = 0.5
"""How old a node's view of what is revoked may be, while Redis can be reached."""
TICKET_SECONDS: Final = 30
"""How long a ticket is good."""

_LOOKS: Final = 60
"""Looks in which each namespace is read, told or not: a failover may lose what was told."""
_TICKET_BYTES = 32
# To a node of before, this length is no ticket's.
_NEW_TICKET_BYTES = 33
_match_ticket = re.compile(r"[A-Za-z0-9_-]{43,44}").fullmatch
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Claims).decode


class Changes(Protocol):
    """What was revoked since the last look."""

    @property
    def afresh(self) -> bool:
        """Whether the entries are all that there are, and not those that came since."""

    @property
    def entries(self) -> Sequence[Revocation]:
        """What was revoked, in order."""


class RevocationSource(Protocol):
    """What all nodes hold in common: the revocations of a namespace."""

    def within(self, namespace: str) -> "RevocationSource":
        """Those of another namespace."""

    async def changed(self) -> Sequence[str]:
        """The other namespaces that changed since the last call that did not fail."""

    async def changes(self) -> Changes | None:
        """What changed since the last call that did not fail, None if nothing."""

    async def add(self, order: Order) -> Revocation:
        """Revoke; what is held afterwards, which may revoke more."""

    async def newest(self) -> list[Revocation]:
        """The newest ones."""


class TicketSource(Protocol):
    """What all nodes hold in common: the tickets."""

    async def keep(self, digest: str, value: bytes, seconds: int) -> None:
        """Hold a value for a time."""

    async def take(self, digest: str) -> bytes | None:
        """Take a value, which nobody can then take again; None where there is none."""


class _Revoked:
    """What is revoked in one namespace, as this process knows it.

    Args:
        source: where the revocations of all nodes are.
        clock: the time in Unix seconds.
    """

    def __init__(self, source: RevocationSource, clock: Callable[[], float]) -> None:
        self.source = source
        self.known = Revocations()
        self.ready = False
        """Whether they were ever read."""
        self._clock = clock
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> Sequence[Revocation]:
        """Bring the view up to date; what is new in it."""
        async with self._refreshing:
            return await self._read()

    async def prepare(self) -> Sequence[Revocation]:
        """The same unless that was ever done."""
        if not self.ready:
            async with self._refreshing:
                if not self.ready:  # by a caller that waited before
                    return await self._read()
        return ()

    async def _read(self) -> Sequence[Revocation]:
        changes = await self.source.changes()
        now = self._clock()
        if changes is None:
            self.known.prune(now)
        else:
            self.known.load(changes.entries, now, afresh=changes.afresh)
        self.ready = True
        return () if changes is None else changes.entries


class Authenticator:
    """Verifies tokens as a ``Verifier`` does, and knows which were revoked.

    Nothing is admitted before the revocations of its namespace were read once. Those of the
    default namespace are followed from the start, those of another from its first token here for
    as long as an issuer has it.

    A coroutine that asks Redis raises ``PushError`` where that cannot be reached or refuses.

    Args:
        verifier: of tokens; closed by ``aclose``.
        revocations: where the revocations of all nodes are, those of the default namespace.
        tickets: where the tickets of all nodes are.
        on_change: given a namespace and what was revoked there, once it is refused here. A caller
            that has admitted a token and waited since then calls ``check`` again; what is live must
            be looked through here.
        clock: the time in Unix seconds; that of the verifier, since what is revoked is so until
            its tokens have expired.
        redis_time: the same by Redis time, by which is revoked.
    """

    def __init__(
        self,
        verifier: TokenCheck,
        revocations: RevocationSource,
        tickets: TicketSource,
        *,
        on_change: Callable[[str, Sequence[Revocation]], None] = lambda _namespace, _entries: None,
        clock: Callable[[], float] = time.time,
        redis_time: Callable[[], float] = time.time,
    ) -> None:
        self.on_change = on_change
        self._verifier = verifier
        self._source = revocations
        self._tickets = tickets
        self._clock = clock
        self._redis_time = redis_time
        # As many as the configuration has namespaces; those with a name in the order in which they
        # are read in turn.
        self._revoked = {"": _Revoked(revocations, clock)}
        self._behind: set[str] = set()
        """Those that changed and were not read since."""

    # --- tokens ----------------------------------------------------------------------------------

    async def verify(self, token: str) -> Claims:
        """Verify a token.

        Raises:
            InvalidToken: the token is not good here, or was revoked.
            Unavailable: the keys or the revocations were never read and cannot be for now.
        """
        claims = await self._verifier.verify(token)
        await self._prepare(claims.namespace)
        self.check(claims)
        return claims

    def verify_cached(self, token: str) -> Claims | None:
        """Verify a token without I/O.

        Returns:
            None when only ``verify`` can tell.

        Raises:
            InvalidToken: the token is not good here, or was revoked.
            Unavailable: the keys were never fetched and cannot be for now.
        """
        claims = self._verifier.verify_cached(token)
        if claims is None:
            return None
        revoked = self._revoked.get(claims.namespace)
        if revoked is None or not revoked.ready:
            return None
        if revoked.known.active:
            self.check(claims)
        return claims

    def check(self, claims: Claims) -> None:
        """Look once more at claims that were verified some time ago.

        Raises:
            InvalidToken: the token was revoked meanwhile, or its issuer is not trusted any more.
            Unavailable: its issuer has another namespace meanwhile.
        """
        namespace = self._verifier.namespaces.get(claims.issuer)
        revoked = self._revoked.get(claims.namespace)
        # Without it the issuer was not trusted for a while: what was revoked then is not known.
        if namespace is None or revoked is None:
            raise InvalidToken("the token's issuer is not trusted here any more: get a new token")
        if namespace != claims.namespace:
            # The same token is good, as another user's: whoever has no other one comes back.
            raise Unavailable("the token's issuer has another namespace now: try again")
        known = revoked.known
        if known.revoked(claims.user, claims.token_id, claims.issued, self._clock()):
            raise self._refusal(known, claims)

    def _refusal(self, known: Revocations, claims: Claims) -> InvalidToken:
        """Why a revoked token is refused, and how long a new one would be."""
        good = known.issued_after(claims.user) + 1
        wait = good - self._redis_time()
        if (claims.issued or 0) >= good or wait <= 0:
            return InvalidToken("the token was revoked: get a new one")
        seconds = math.ceil(wait)
        return InvalidToken(
            f"the token was revoked: get a new one, {seconds} s from now: until then it cannot be"
            " told from those of before",
            retry_after=seconds,
        )

    def revoked_key(self, namespace: str, user: str, token_key: int, issued: int) -> bool:
        """Whether the token of a live connection is revoked, or its namespace gone.

        Args:
            namespace: of the user.
            user: its subject.
            token_key: what ``pushsvc.protocol.revocation.token_key`` made of its ``jti``.
            issued: its ``iat``, 0 without one.
        """
        revoked = self._revoked.get(namespace)
        if revoked is None:
            return True
        known = revoked.known
        return known.active and known.revoked_key(user, token_key, issued, self._clock())

    async def is_revoked(self, namespace: str, user: str, token_key: int, issued: int) -> bool:
        """The same for what outlives its connection, on a node that may not know the namespace.

        Args:
            namespace: of the user.
            user: its subject.
            token_key: what ``pushsvc.protocol.revocation.token_key`` made of its ``jti``.
            issued: its ``iat``, 0 without one.

        Raises:
            PushError: the revocations were never read, and Redis cannot be reached.
        """
        if namespace and namespace not in self._verifier.namespaces.values():
            return True
        await self._prepare(namespace)
        return self.revoked_key(namespace, user, token_key, issued)

    @property
    def namespaces(self) -> Mapping[str, str]:
        """See ``TokenCheck.namespaces``."""
        return self._verifier.namespaces

    def looked_at(self, token: str) -> str:
        """See ``TokenCheck.looked_at``."""
        return self._verifier.looked_at(token)

    async def aclose(self) -> None:
        """Close the verifier."""
        await self._verifier.aclose()

    # --- revocations -----------------------------------------------------------------------------

    async def revoke(self, order: Order, namespace: str = "") -> Revocation:
        """Revoke tokens of a namespace, on every node.

        Returns:
            What is held now; an earlier revocation of the same tokens is never weakened.

        Raises:
            InvalidRequest: it names a time that is still to come.
            PushError: Redis cannot be reached, or holds as many as it may.
        """
        held = await self._source_of(namespace).add(order)
        if namespace in self._revoked:
            await self.refresh_within(namespace)
        return held

    async def newest(self, namespace: str = "") -> list[Revocation]:
        """The newest revocations of a namespace, newest first."""
        now = self._clock()
        newest = await self._source_of(namespace).newest()
        return [entry for entry in newest if now < entry.until]

    async def refresh(self) -> None:
        """Bring the view of what is revoked up to date.

        Of the namespaces with a name those are read that are told to have changed, and a few more
        in turn. The default one is always read: nodes of before tell nothing.

        Raises:
            PushError: Redis cannot be reached or refuses; the view stays as it was.
        """
        await self.refresh_within("")
        self._drop_gone()
        if len(self._revoked) == 1:
            return
        self._behind.update(await self._source.changed())
        # What came meanwhile counts: it may have been read before it changed.
        self._behind &= self._revoked.keys()
        named = [namespace for namespace in self._revoked if namespace]
        turn = named[: math.ceil(len(named) / _LOOKS)]
        for namespace in turn:
            self._revoked[namespace] = self._revoked.pop(namespace)
        outcomes = await asyncio.gather(
            *map(self.refresh_within, self._behind.union(turn)), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def refresh_within(self, namespace: str) -> None:
        """Bring the view of what is revoked in one namespace up to date.

        Raises:
            PushError: Redis cannot be reached or refuses; the view stays as it was.
        """
        self._changed(namespace, await self._within(namespace).refresh())
        self._behind.discard(namespace)

    def _source_of(self, namespace: str) -> RevocationSource:
        """The revocations of a namespace, which need not be followed here."""
        revoked = self._revoked.get(namespace)
        return self._source.within(namespace) if revoked is None else revoked.source

    def _within(self, namespace: str) -> _Revoked:
        revoked = self._revoked.get(namespace)
        if revoked is None:
            self._drop_gone()
            revoked = _Revoked(self._source.within(namespace), self._clock)
            self._revoked[namespace] = revoked
        return revoked

    def _drop_gone(self) -> None:
        """Forget the namespaces that no issuer has any more."""
        for namespace in self._revoked.keys() - {"", *self._verifier.namespaces.values()}:
            del self._revoked[namespace]

    async def _prepare(self, namespace: str) -> None:
        """Read the revocations of a namespace unless that was ever done."""
        self._changed(namespace, await self._within(namespace).prepare())

    def _changed(self, namespace: str, entries: Sequence[Revocation]) -> None:
        if entries:
            self.on_change(namespace, entries)

    async def follow(self) -> None:
        """Keep the view up to date until cancelled; while Redis is away it stays as it was."""
        while True:
            with contextlib.suppress(PushError):  # counted where it happened
                await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    # --- tickets ---------------------------------------------------------------------------------

    async def issue(self, claims: Claims) -> str:
        """A ticket that stands for a verified token, once, for ``TICKET_SECONDS``."""
        size = _TICKET_BYTES if _old_nodes_know(claims) else _NEW_TICKET_BYTES
        ticket = secrets.token_urlsafe(size)
        await self._tickets.keep(_digest(ticket), _encode(claims), TICKET_SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> Claims:
        """The claims that a ticket stands for; the ticket is good no more.

        Raises:
            InvalidToken: there is no such ticket, or its token expired or was revoked meanwhile.
            Unavailable: see ``check``.
        """
        kept = await self._tickets.take(_digest(ticket)) if _match_ticket(ticket) else None
        if kept is None:
            raise InvalidToken(
                f"the ticket is unknown, used or over {TICKET_SECONDS} s old: get a new one with "
                "POST /v1/tickets"
            )
        claims = shared(_decode(kept))
        if self._clock() >= claims.expires + LEEWAY:
            raise InvalidToken("the token has expired: get a new one")
        await self._prepare(claims.namespace)
        self.check(claims)
        return claims


def _old_nodes_know(claims: Claims) -> bool:
    """Whether nodes of before take a ticket for what it is, during an upgrade.

    They know neither issuers nor namespaces, and would let in the user of that name in the default
    one; and they would put a user's name into keys as it is.
    """
    return not (claims.issuer or claims.namespace) and was_name(claims.user)


def _digest(ticket: str) -> str:
    # A reader of Redis, or of a dump of it, can redeem nothing.
    return hashlib.sha256(ticket.encode()).hexdigest()
