"""The door: verified, not revoked, once for a ticket."""

import asyncio
from collections.abc import Sequence

import pytest

from pushsvc.auth import gate as module
from pushsvc.auth.gate import TICKET_SECONDS, Gate
from pushsvc.auth.keys import verifier
from pushsvc.auth.revocations import token_key
from pushsvc.auth.tokens import Claims, mint
from pushsvc.codes import Close
from pushsvc.errors import InvalidToken, StoreUnavailable
from pushsvc.feeds.revocations import Changes
from pushsvc.protocol.revocation import Revocation

SECRET = "a-secret-for-tests-only-of-48-bytes-0123456789ab"
NOW = 1_800_000_000


class Store:
    """What nodes share, without a Redis: what happens between a gate and it, step by step."""

    def __init__(self) -> None:
        self.entries: list[Revocation] = []
        self.tickets: dict[str, bytes] = {}
        self.down = False
        self.news: Changes | None = Changes([], afresh=True)
        self.reads = 0

    async def changes(self) -> Changes | None:
        self.reads += 1
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("down: retry")
        news, self.news = self.news, None
        return news

    async def add(self, revocation: Revocation) -> Revocation:
        if self.down:
            raise StoreUnavailable("down: retry")
        self.entries.append(revocation)
        self.news = Changes([revocation], afresh=False)
        return revocation

    async def newest(self) -> list[Revocation]:
        return self.entries[::-1]

    async def keep(self, digest: str, value: bytes, seconds: int) -> None:
        assert seconds == TICKET_SECONDS
        self.tickets[digest] = value

    async def take(self, digest: str) -> bytes | None:
        return self.tickets.pop(digest, None)


class Time:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def gate(store: Store, clock: Time) -> Gate:
    verify = verifier(
        algorithms=(), secret=SECRET, public_key_pem=None, jwks_url=None, issuer=None,
        audience="push", fetch=None, clock=clock,
    )  # fmt: skip
    return Gate(verify, store, store, clock=clock)


def token(user: str = "ann", now: float = NOW, ttl: float = 600) -> str:
    topics = {"subscribe": ["a.*"]}
    scopes = ["push.publish", "x"]
    return mint(
        secret=SECRET, user=user, audience="push", ttl=ttl, now=now, scopes=scopes, topics=topics
    )


async def test_a_good_token_is_admitted(gate: Gate) -> None:
    text = token()
    claims = await gate.verify(text)
    assert claims.user == "ann"
    assert gate.verify_cached(text) == claims
    with pytest.raises(InvalidToken, match="compact JWT"):
        gate.verify_cached("x")


async def test_nothing_is_admitted_before_the_revocations_were_read(
    gate: Gate, store: Store
) -> None:
    store.down = True
    assert gate.verify_cached(token()) is None
    with pytest.raises(StoreUnavailable):
        await gate.verify(token())
    store.down = False
    await gate.verify(token())
    assert gate.verify_cached(token()) is not None


async def test_who_comes_first_together_reads_the_revocations_once(
    gate: Gate, store: Store
) -> None:
    await asyncio.gather(*(gate.verify(token()) for _ in range(20)))
    assert store.reads == 1


async def test_a_bad_token_is_refused_although_the_revocations_are_not_known(
    gate: Gate, store: Store
) -> None:
    store.down = True
    with pytest.raises(InvalidToken):
        await gate.verify(token()[:-2])


async def test_once_read_the_revocations_stay_while_the_store_is_away(
    gate: Gate, store: Store
) -> None:
    await gate.revoke(Revocation(NOW + 60, "ann", issued_before=NOW))
    store.down = True
    with pytest.raises(StoreUnavailable):
        await gate.refresh()
    with pytest.raises(InvalidToken, match="revoked"):
        gate.verify_cached(token())
    assert gate.verify_cached(token("bob")) is not None


async def test_a_revoked_token_is_refused_everywhere(gate: Gate) -> None:
    text = token()
    claims = await gate.verify(text)
    ticket = await gate.issue(claims)
    await gate.revoke(Revocation(NOW + 60, token_id=claims.token_id))
    for refused in (gate.verify(text), gate.redeem(ticket)):
        with pytest.raises(InvalidToken, match="revoked: get a new one") as caught:
            await refused
        assert caught.value.close is Close.TOKEN_REFUSED
    with pytest.raises(InvalidToken, match="revoked"):
        gate.verify_cached(text)
    with pytest.raises(InvalidToken, match="revoked"):
        gate.check(claims)
    assert gate.verify_cached(token()) is not None  # another one of the same user


async def test_live_connections_are_told_apart_without_their_token_ids(gate: Gate) -> None:
    text = token()
    claims = await gate.verify(text)
    held = claims.user, token_key(claims.token_id), claims.issued or 0
    assert not gate.revoked_key(*held)
    await gate.revoke(Revocation(NOW + 60, token_id="another"))
    assert not gate.revoked_key(*held)
    await gate.revoke(Revocation(NOW + 60, token_id=claims.token_id))
    assert gate.revoked_key(*held)


async def test_whoever_holds_connections_is_told_once_the_gate_refuses(gate: Gate) -> None:
    text = token()
    claims = await gate.verify(text)
    told: list[Sequence[Revocation]] = []

    def changed(entries: Sequence[Revocation]) -> None:
        told.append(entries)
        with pytest.raises(InvalidToken):
            gate.check(claims)

    gate.on_change = changed
    one = Revocation(NOW + 60, "ann", issued_before=NOW)
    assert await gate.revoke(one) == one
    await gate.refresh()
    assert told == [[one]]


async def test_a_revocation_ends_by_the_clock(gate: Gate, clock: Time) -> None:
    await gate.revoke(Revocation(NOW + 60, "ann", issued_before=NOW))
    assert [one.user for one in await gate.newest()] == ["ann"]
    clock.now = NOW + 60
    assert await gate.newest() == []
    assert gate.verify_cached(token()) is not None


async def test_following_goes_on_after_the_store_was_away(
    gate: Gate, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0)
    store.down = True
    async with asyncio.timeout(5):
        task = asyncio.create_task(gate.follow())
        for _ in range(10):
            await asyncio.sleep(0)
        store.down = False
        store.news = Changes([Revocation(NOW + 60, "ann", issued_before=NOW)], afresh=True)
        while gate.verify_cached(token("bob")) is None:
            await asyncio.sleep(0)
        with pytest.raises(InvalidToken):
            gate.verify_cached(token())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# Tickets


async def test_a_ticket_stands_for_all_that_its_token_said(gate: Gate) -> None:
    claims = await gate.verify(token())
    redeemed = await gate.redeem(await gate.issue(claims))
    assert redeemed == claims
    assert redeemed.grants is claims.grants
    assert redeemed.scopes is claims.scopes
    bare = Claims("bob", NOW + 60)
    assert await gate.redeem(await gate.issue(bare)) == bare


async def test_a_ticket_is_good_once(gate: Gate) -> None:
    ticket = await gate.issue(await gate.verify(token()))
    assert len(ticket) == 43
    await gate.redeem(ticket)
    with pytest.raises(InvalidToken, match="POST /v1/tickets"):
        await gate.redeem(ticket)


@pytest.mark.parametrize("ticket", ["", "x", "x" * 43, "é" * 43, "x" * 10_000, "x" * 42 + "\n"])
async def test_what_is_no_ticket_is_refused(gate: Gate, ticket: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        await gate.redeem(ticket)
    assert len(ticket) < 3 or ticket not in caught.value.detail


async def test_a_ticket_does_not_outlive_its_token(gate: Gate, clock: Time) -> None:
    ticket = await gate.issue(await gate.verify(token(ttl=5)))
    clock.now = NOW + 15
    with pytest.raises(InvalidToken, match="expired"):
        await gate.redeem(ticket)


async def test_neither_tickets_nor_tokens_are_in_the_store(gate: Gate, store: Store) -> None:
    text = token()
    ticket = await gate.issue(await gate.verify(text))
    for digest, value in store.tickets.items():
        assert ticket not in digest
        assert ticket.encode() not in value
        assert text.encode() not in value


async def test_tickets_are_not_guessed(gate: Gate) -> None:
    claims = await gate.verify(token())
    assert len({await gate.issue(claims) for _ in range(100)}) == 100
