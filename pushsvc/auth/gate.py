"""The one door: tokens and tickets come in here, and revoked ones do not."""

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from pushsvc.auth.revocations import Revocations
from pushsvc.auth.tokens import LEEWAY, Claims, TokenCheck, shared
from pushsvc.errors import InvalidToken, PushError
from pushsvc.protocol.revocation import Revocation

REFRESH_SECONDS: Final = 0.5
"""How old a node's view of what is revoked may be, while Redis can be reached."""
TICKET_SECONDS: Final = 30
"""How long a ticket is good."""

_TICKET_BYTES = 32
_match_ticket = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch
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
    """What all nodes hold in common: the revocations."""

    async def changes(self) -> Changes | None:
        """What changed since the last call that did not fail, None if nothing."""

    async def add(self, revocation: Revocation) -> Revocation:
        """Add one; what is held afterwards, which may revoke more."""

    async def newest(self) -> list[Revocation]:
        """The newest ones."""


class TicketSource(Protocol):
    """What all nodes hold in common: the tickets."""

    async def keep(self, digest: str, value: bytes, seconds: int) -> None:
        """Hold a value for a time."""

    async def take(self, digest: str) -> bytes | None:
        """Take a value, which nobody can then take again; None where there is none."""


class Gate:
    """Verifies tokens as a ``Verifier`` does, and knows which were revoked.

    Nothing is admitted before the revocations were read once.

    Args:
        verifier: of tokens; closed by ``aclose``.
        revocations: where the revocations of all nodes are.
        tickets: where the tickets of all nodes are.
        on_change: told what was revoked, once the gate refuses it. Whoever has admitted a token
            and waited since then asks ``check`` again; what is live must be looked through here.
        clock: the time in Unix seconds.
    """

    def __init__(
        self,
        verifier: TokenCheck,
        revocations: RevocationSource,
        tickets: TicketSource,
        *,
        on_change: Callable[[Sequence[Revocation]], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_change = on_change
        self._verifier = verifier
        self._source = revocations
        self._tickets = tickets
        self._clock = clock
        self._revocations = Revocations()
        self._ready = False
        self._refreshing = asyncio.Lock()

    # --- tokens ----------------------------------------------------------------------------------

    async def verify(self, token: str) -> Claims:
        """Verify a token.

        Raises:
            InvalidToken: the token is not good here, or was revoked.
            Unavailable: the keys or the revocations were never read and cannot be for now.
        """
        claims = await self._verifier.verify(token)
        await self._prepare()
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
        if not self._ready:
            return None
        claims = self._verifier.verify_cached(token)
        if claims is not None and self._revocations.active:
            self.check(claims)
        return claims

    def check(self, claims: Claims) -> None:
        """Look once more at claims that were verified some time ago.

        Raises:
            InvalidToken: the token was revoked meanwhile.
        """
        if self._revocations.revoked(claims.user, claims.token_id, claims.issued, self._clock()):
            raise InvalidToken("the token was revoked: get a new one")

    def revoked_key(self, user: str, token_key: int, issued: int) -> bool:
        """Whether the token of a live connection is revoked.

        Args:
            user: its subject.
            token_key: what ``pushsvc.auth.revocations.token_key`` made of its ``jti``.
            issued: its ``iat``, 0 without one.
        """
        return self._revocations.active and self._revocations.revoked_key(
            user, token_key, issued, self._clock()
        )

    async def aclose(self) -> None:
        """Close the verifier."""
        await self._verifier.aclose()

    # --- revocations -----------------------------------------------------------------------------

    async def revoke(self, revocation: Revocation) -> Revocation:
        """Revoke tokens, on every node.

        Returns:
            What is held now; an earlier revocation of the same tokens is never weakened.

        Raises:
            PushError: Redis cannot be reached, or holds as many as it may.
        """
        held = await self._source.add(revocation)
        await self.refresh()
        return held

    async def newest(self) -> list[Revocation]:
        """The newest revocations, newest first.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        now = self._clock()
        return [entry for entry in await self._source.newest() if now < entry.until]

    async def refresh(self) -> None:
        """Bring the view of what is revoked up to date.

        Raises:
            PushError: Redis cannot be reached or refuses; the view stays as it was.
        """
        async with self._refreshing:
            await self._read()

    async def _prepare(self) -> None:
        """Read the revocations unless that was ever done."""
        if not self._ready:
            async with self._refreshing:
                if not self._ready:  # by who waited before
                    await self._read()

    async def _read(self) -> None:
        changes = await self._source.changes()
        now = self._clock()
        if changes is None:
            self._revocations.prune(now)
        else:
            self._revocations.load(changes.entries, now, afresh=changes.afresh)
        self._ready = True
        if changes is not None and changes.entries:
            self.on_change(changes.entries)

    async def follow(self) -> None:
        """Keep the view up to date until cancelled; while Redis is away it stays as it was."""
        while True:
            with contextlib.suppress(PushError):  # counted where it happened
                await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    # --- tickets ---------------------------------------------------------------------------------

    async def issue(self, claims: Claims) -> str:
        """A ticket that stands for a verified token, once, for ``TICKET_SECONDS``.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        await self._tickets.keep(_digest(ticket), _encode(claims), TICKET_SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> Claims:
        """The claims that a ticket stands for; the ticket is good no more.

        Raises:
            InvalidToken: there is no such ticket, or its token expired or was revoked meanwhile.
            PushError: Redis cannot be reached or refuses.
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
        await self._prepare()
        self.check(claims)
        return claims


def _digest(ticket: str) -> str:
    # Whoever reads Redis, or a dump of it, can redeem nothing.
    return hashlib.sha256(ticket.encode()).hexdigest()
