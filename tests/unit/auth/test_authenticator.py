"""The door: verified, not revoked, once for a ticket."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import pytest

from pushsvc.admin.console_api import ConsoleAuthenticator
from pushsvc.auth import authenticator as module
from pushsvc.auth.authenticator import TICKET_SECONDS, Authenticator
from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.keys import secret_keys
from pushsvc.auth.tokens import Claims, Verifier, mint
from pushsvc.codes import Close
from pushsvc.errors import InvalidToken, StoreUnavailable, Unavailable
from pushsvc.feeds.revocations import Changes
from pushsvc.protocol.revocation import Order, Revocation, token_key
from tests.support.verifiers import shared_verifier

SECRET = "a-secret-for-tests-only-of-48-bytes-0123456789ab"
NOW = 1_800_000_000


class Store:
    """What nodes share, without a Redis: what an authenticator does with it, step by step."""

    def __init__(self) -> None:
        self.entries: list[Revocation] = []
        self.tickets: dict[str, bytes] = {}
        self.down = False
        self.news: Changes | None = Changes([], afresh=True)
        self.reads = 0
        self.others: dict[str, Store] = {}
        self.bumped: list[str] = []

    def within(self, namespace: str) -> "Store":
        assert namespace
        return self.others.setdefault(namespace, Store())

    async def changed(self) -> list[str]:
        bumped, self.bumped = self.bumped, []
        return bumped

    async def changes(self) -> Changes | None:
        self.reads += 1
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("down: retry")
        news, self.news = self.news, None
        return news

    async def add(self, order: Order) -> Revocation:
        if self.down:
            raise StoreUnavailable("down: retry")
        revocation = Revocation(
            NOW + int(order.ttl), order.user, order.token_id, order.issued_before or 0
        )
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
def authenticator(store: Store, clock: Time) -> Authenticator:
    verify = shared_verifier(SECRET, audience="push", clock=clock)
    return Authenticator(verify, store, store, clock=clock, redis_time=clock)


def token(user: str = "ann", now: float = NOW, ttl: float = 600, issuer: str | None = None) -> str:
    topics = {"subscribe": ["a.*"]}
    scopes = ["push.publish", "x"]
    return mint(
        secret=SECRET,
        user=user,
        audience="push",
        ttl=ttl,
        now=now,
        scopes=scopes,
        topics=topics,
        issuer=issuer,
    )


async def test_a_good_token_is_admitted(authenticator: Authenticator) -> None:
    text = token()
    claims = await authenticator.verify(text)
    assert claims.user == "ann"
    assert authenticator.verify_cached(text) == claims
    with pytest.raises(InvalidToken, match="compact JWT"):
        authenticator.verify_cached("x")


async def test_nothing_is_admitted_before_the_revocations_were_read(
    authenticator: Authenticator, store: Store
) -> None:
    store.down = True
    assert authenticator.verify_cached(token()) is None
    with pytest.raises(StoreUnavailable):
        await authenticator.verify(token())
    store.down = False
    await authenticator.verify(token())
    assert authenticator.verify_cached(token()) is not None


async def test_who_comes_first_together_reads_the_revocations_once(
    authenticator: Authenticator, store: Store
) -> None:
    await asyncio.gather(*(authenticator.verify(token()) for _ in range(20)))
    assert store.reads == 1


async def test_a_bad_token_is_refused_although_the_revocations_are_not_known(
    authenticator: Authenticator, store: Store
) -> None:
    store.down = True
    with pytest.raises(InvalidToken):
        await authenticator.verify(token()[:-2])


async def test_once_read_the_revocations_stay_while_the_store_is_away(
    authenticator: Authenticator, store: Store
) -> None:
    await authenticator.revoke(Order(60, "ann", issued_before=NOW))
    store.down = True
    with pytest.raises(StoreUnavailable):
        await authenticator.refresh()
    with pytest.raises(InvalidToken, match="revoked"):
        authenticator.verify_cached(token())
    assert authenticator.verify_cached(token("bob")) is not None


async def test_a_revoked_token_is_refused_everywhere(authenticator: Authenticator) -> None:
    text = token()
    claims = await authenticator.verify(text)
    ticket = await authenticator.issue(claims)
    await authenticator.revoke(Order(60, token_id=claims.token_id))
    for refused in (authenticator.verify(text), authenticator.redeem(ticket)):
        with pytest.raises(InvalidToken, match="revoked: get a new one") as caught:
            await refused
        assert caught.value.close is Close.TOKEN_REFUSED
    with pytest.raises(InvalidToken, match="revoked"):
        authenticator.verify_cached(text)
    with pytest.raises(InvalidToken, match="revoked"):
        authenticator.check(claims)
    assert authenticator.verify_cached(token()) is not None  # another one of the same user


async def test_live_connections_are_told_apart_without_their_token_ids(
    authenticator: Authenticator,
) -> None:
    text = token()
    claims = await authenticator.verify(text)
    held = "", claims.user, token_key(claims.token_id), claims.issued or 0
    assert not authenticator.revoked_key(*held)
    await authenticator.revoke(Order(60, token_id="another"))
    assert not authenticator.revoked_key(*held)
    await authenticator.revoke(Order(60, token_id=claims.token_id))
    assert authenticator.revoked_key(*held)


async def test_whoever_holds_connections_is_told_once_the_gate_refuses(
    authenticator: Authenticator,
) -> None:
    text = token()
    claims = await authenticator.verify(text)
    told: list[tuple[str, Sequence[Revocation]]] = []

    def changed(namespace: str, entries: Sequence[Revocation]) -> None:
        told.append((namespace, entries))
        with pytest.raises(InvalidToken):
            authenticator.check(claims)

    authenticator.on_change = changed
    one = Revocation(NOW + 60, "ann", issued_before=NOW)
    assert await authenticator.revoke(Order(60, "ann", issued_before=NOW)) == one
    await authenticator.refresh()
    assert told == [("", [one])]


async def test_who_logs_in_too_soon_is_told_when_a_token_will_be_good(
    authenticator: Authenticator, clock: Time
) -> None:
    await authenticator.revoke(Order(60, "ann", issued_before=NOW + 10))
    clock.now = NOW + 3.5
    for refused in (token(now=NOW), token(now=NOW + 3)):
        with pytest.raises(InvalidToken, match="get a new one, 8 s from now") as caught:
            await authenticator.verify(refused)
        assert caught.value.retry_after == 8
    clock.now = NOW + 11
    assert (await authenticator.verify(token(now=NOW + 11))).user == "ann"
    with pytest.raises(InvalidToken, match=r"revoked: get a new one$") as caught:
        await authenticator.verify(token(now=NOW + 3))
    assert caught.value.retry_after is None


async def test_whose_one_token_is_revoked_may_have_another_at_once(
    authenticator: Authenticator,
) -> None:
    text = token()
    claims = await authenticator.verify(text)
    await authenticator.revoke(Order(60, token_id=claims.token_id))
    with pytest.raises(InvalidToken) as caught:
        await authenticator.verify(text)
    assert caught.value.retry_after is None


async def test_a_revocation_ends_by_the_clock(authenticator: Authenticator, clock: Time) -> None:
    await authenticator.revoke(Order(60, "ann", issued_before=NOW))
    assert [one.user for one in await authenticator.newest()] == ["ann"]
    clock.now = NOW + 60
    assert await authenticator.newest() == []
    assert authenticator.verify_cached(token()) is not None


async def test_following_goes_on_after_the_store_was_away(
    authenticator: Authenticator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0)
    store.down = True
    async with asyncio.timeout(5):
        task = asyncio.create_task(authenticator.follow())
        for _ in range(10):
            await asyncio.sleep(0)
        store.down = False
        store.news = Changes([Revocation(NOW + 60, "ann", issued_before=NOW)], afresh=True)
        while authenticator.verify_cached(token("bob")) is None:
            await asyncio.sleep(0)
        with pytest.raises(InvalidToken):
            authenticator.verify_cached(token())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# Tickets


async def test_a_ticket_stands_for_all_that_its_token_said(authenticator: Authenticator) -> None:
    claims = await authenticator.verify(token())
    redeemed = await authenticator.redeem(await authenticator.issue(claims))
    assert redeemed == claims
    assert redeemed.grants is claims.grants
    assert redeemed.scopes is claims.scopes
    # one scope, as its token had it, and not two
    spaced = Claims("bob", NOW + 60, frozenset({"cannot push.admin"}))
    assert await authenticator.redeem(await authenticator.issue(spaced)) == spaced
    bare = Claims("bob", NOW + 60)
    assert await authenticator.redeem(await authenticator.issue(bare)) == bare


async def test_a_ticket_is_good_once(authenticator: Authenticator) -> None:
    ticket = await authenticator.issue(await authenticator.verify(token()))
    assert len(ticket) == 43
    await authenticator.redeem(ticket)
    with pytest.raises(InvalidToken, match="POST /v1/tickets"):
        await authenticator.redeem(ticket)


@pytest.mark.parametrize("ticket", ["", "x", "x" * 43, "é" * 43, "x" * 10_000, "x" * 42 + "\n"])
async def test_what_is_no_ticket_is_refused(authenticator: Authenticator, ticket: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        await authenticator.redeem(ticket)
    assert len(ticket) < 3 or ticket not in caught.value.detail


async def test_a_ticket_does_not_outlive_its_token(
    authenticator: Authenticator, clock: Time
) -> None:
    ticket = await authenticator.issue(await authenticator.verify(token(ttl=5)))
    clock.now = NOW + 15
    with pytest.raises(InvalidToken, match="expired"):
        await authenticator.redeem(ticket)


async def test_neither_tickets_nor_tokens_are_in_the_store(
    authenticator: Authenticator, store: Store
) -> None:
    text = token()
    ticket = await authenticator.issue(await authenticator.verify(text))
    for digest, value in store.tickets.items():
        assert ticket not in digest
        assert ticket.encode() not in value
        assert text.encode() not in value


async def test_tickets_are_not_guessed(authenticator: Authenticator) -> None:
    claims = await authenticator.verify(token())
    assert len({await authenticator.issue(claims) for _ in range(100)}) == 100


# --- namespaces ----------------------------------------------------------------------------------


class Spaces:
    """A verifier whose tokens are a namespace, a user and a token id; issuers are called alike."""

    namespaces: ClassVar[dict[str, str]] = {"": "", "acme": "acme", "other": "other"}
    scopes: ClassVar[frozenset[str]] = frozenset()

    def looked_at(self, token: str) -> str:
        raise NotImplementedError(token)

    async def verify(self, token: str) -> Claims:
        return self.verify_cached(token)

    def verify_cached(self, token: str) -> Claims:
        namespace, user, token_id = token.split(" ")
        return Claims(
            user,
            NOW + 600,
            self.scopes,
            issued=NOW,
            token_id=token_id,
            namespace=namespace,
            issuer=namespace,
        )

    async def aclose(self) -> None:
        pass


@pytest.fixture
def spaces(store: Store, clock: Time) -> Authenticator:
    return Authenticator(Spaces(), store, store, clock=clock, redis_time=clock)


@pytest.mark.parametrize(
    "order",
    [
        Order(60, "ann", issued_before=NOW),
        Order(60, token_id="t"),
        Order(60, issued_before=NOW),
    ],
    ids=["a user", "a token", "all"],
)
@pytest.mark.parametrize("where", ["", "acme"])
async def test_what_is_revoked_in_a_namespace_is_good_in_every_other(
    spaces: Authenticator, order: Order, where: str
) -> None:
    held = {name: await spaces.verify(f"{name} ann t") for name in ("", "acme", "other")}
    revoked = await spaces.revoke(order, where)
    assert await spaces.newest(where) == [revoked]
    for name, claims in held.items():
        refused = name == where
        assert refused == spaces.revoked_key(name, "ann", token_key("t"), NOW)
        assert await spaces.newest(name) == ([revoked] if refused else [])
        if refused:
            with pytest.raises(InvalidToken, match="revoked"):
                spaces.check(claims)
            with pytest.raises(InvalidToken, match="revoked"):
                spaces.verify_cached(f"{name} ann t")
        else:
            spaces.check(claims)
            assert spaces.verify_cached(f"{name} ann t") == claims


async def test_nothing_of_a_namespace_is_admitted_before_its_revocations_were_read(
    spaces: Authenticator, store: Store
) -> None:
    await spaces.refresh()
    assert spaces.verify_cached(" ann t") is not None
    theirs = store.within("acme")
    theirs.down = True
    assert spaces.verify_cached("acme ann t") is None
    with pytest.raises(StoreUnavailable):
        await spaces.verify("acme ann t")
    with pytest.raises(StoreUnavailable):
        await spaces.refresh()  # the default namespace's were read all the same
    assert store.reads == 2
    theirs.down = False
    await spaces.refresh()
    assert spaces.verify_cached("acme ann t") is not None


async def test_a_ticket_keeps_its_namespace_and_a_node_that_knows_none_refuses_it(
    spaces: Authenticator,
) -> None:
    for name, length in (("", 43), ("acme", 44)):
        claims = await spaces.verify(f"{name} ann t")
        ticket = await spaces.issue(claims)
        assert len(ticket) == length  # another length than 43 is no ticket to older nodes
        assert await spaces.redeem(ticket) == claims


# Many of them

TENANTS = [f"tenant-{number}" for number in range(300)]


@pytest.fixture
async def many(
    spaces: Authenticator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Authenticator:
    """An authenticator that has met tokens of many namespaces."""
    monkeypatch.setattr(Spaces, "namespaces", {"": ""} | {name: name for name in TENANTS})
    for name in TENANTS:
        await spaces.verify(f"{name} ann t")
    await spaces.refresh()
    for each in (store, *store.others.values()):
        each.reads = 0
    return spaces


def read(store: Store) -> list[str]:
    return [name for name, each in store.others.items() if each.reads]


async def elsewhere(store: Store, namespace: str, *, told: bool = True) -> None:
    """Another node revokes the tokens of a user."""
    await store.within(namespace).add(Order(60, "ann", issued_before=NOW))
    if told:
        store.bumped.append(namespace)


async def test_of_many_namespaces_those_are_read_in_which_something_was_revoked(
    many: Authenticator, store: Store
) -> None:
    await many.refresh()
    assert len(read(store)) <= 5
    assert store.reads == 1
    changed = next(name for name in reversed(TENANTS) if name not in read(store))
    await elsewhere(store, changed)
    await many.refresh()
    assert store.within(changed).reads == 1
    assert len(read(store)) <= 11
    with pytest.raises(InvalidToken, match="revoked"):
        many.verify_cached(f"{changed} ann t")


async def test_what_was_revoked_and_not_told_is_found_within_half_a_minute(
    many: Authenticator, store: Store
) -> None:
    for name in TENANTS:
        await elsewhere(store, name, told=False)
    for _ in range(round(30 / module.REFRESH_SECONDS)):
        await many.refresh()
    assert {store.within(name).reads for name in TENANTS} == {1}
    for name in TENANTS:
        with pytest.raises(InvalidToken, match="revoked"):
            many.verify_cached(f"{name} ann t")


async def test_what_could_not_be_read_is_read_at_the_next_look(
    many: Authenticator, store: Store
) -> None:
    last = TENANTS[-1]
    await elsewhere(store, last)
    store.within(last).down = True
    with pytest.raises(StoreUnavailable):
        await many.refresh()
    store.within(last).down = False
    await many.refresh()
    with pytest.raises(InvalidToken, match="revoked"):
        many.verify_cached(f"{last} ann t")


async def test_a_namespace_that_no_issuer_has_any_more_is_read_no_more_and_afresh_when_it_is_back(
    many: Authenticator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = TENANTS[0]
    claims = await many.verify(f"{gone} ann t")
    with monkeypatch.context() as patch:
        patch.setattr(Spaces, "namespaces", {"": ""} | {name: name for name in TENANTS[1:]})
        for _ in range(60):
            await many.refresh()
        assert gone not in read(store)
    with pytest.raises(InvalidToken, match="not trusted"):
        many.check(claims)  # nobody knows what was revoked meanwhile
    assert many.revoked_key(gone, "ann", token_key("t"), NOW)
    assert many.verify_cached(f"{gone} ann t") is None
    many.check(await many.verify(f"{gone} ann t"))
    assert read(store).count(gone) == 1


async def test_a_namespace_in_which_only_an_operator_looks_is_not_followed(
    many: Authenticator, store: Store
) -> None:
    assert await many.newest("invented") == []
    held = await many.revoke(Order(60, "ann", issued_before=NOW), "invented")
    assert await many.newest("invented") == [held]
    for _ in range(60):
        await many.refresh()
    assert store.within("invented").reads == 0


async def test_the_console_reads_what_is_revoked_in_the_namespace_of_the_token_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live() -> None: ...

    monkeypatch.setattr(Spaces, "scopes", frozenset({"push.admin"}))
    console = ConsoleAuthenticator(Spaces(), store, store, live, lambda: float(NOW))
    for name in ("acme", "other", "acme"):
        await console.verify(f"{name} ann t")
    assert store.within("other").reads == 2  # for the first token, and for each
    assert store.reads == 0
    await store.within("acme").add(Order(60, "ann", issued_before=NOW))
    with pytest.raises(InvalidToken, match="revoked"):
        await console.verify("acme ann t")


# Issuers


@pytest.fixture
def issuer(clock: Time) -> Verifier:
    """A verifier of an issuer that has a name."""
    rules = Rules(name="eu", issuer="https://eu/", namespace="tenant", audience=("push",))
    keys = secret_keys([SECRET], ())
    one = Verifier(keys, algorithms=keys.algorithms, reader=Reader(rules), clock=clock)
    one.namespaces = {"https://eu/": "tenant"}
    return one


@pytest.fixture
def named(issuer: Verifier, store: Store, clock: Time) -> Authenticator:
    return Authenticator(issuer, store, store, clock=clock)


async def test_a_ticket_of_a_named_issuer_is_none_to_nodes_that_know_no_names(
    named: Authenticator,
) -> None:
    claims = await named.verify(token(issuer="https://eu/"))
    ticket = await named.issue(claims)
    assert len(ticket) == 44
    redeemed = await named.redeem(ticket)
    assert redeemed == claims
    assert (redeemed.issuer, redeemed.namespace) == ("https://eu/", "tenant")
    assert redeemed.issuer is claims.issuer


@pytest.mark.parametrize(
    ("user", "length"), [("a" * 128, 43), ("a" * 129, 44), ("auth0|507f", 44), ("Jörg", 44)]
)
async def test_a_ticket_of_a_user_whose_name_is_new_is_none_to_nodes_of_before(
    authenticator: Authenticator, user: str, length: int
) -> None:
    ticket = await authenticator.issue(await authenticator.verify(token(user)))
    assert len(ticket) == length
    assert (await authenticator.redeem(ticket)).user == user


@pytest.mark.parametrize("namespaces", [{}, {"": "tenant"}])
async def test_tokens_and_tickets_of_an_issuer_that_went_are_refused(
    named: Authenticator, issuer: Verifier, namespaces: dict[str, str]
) -> None:
    claims = await named.verify(token(issuer="https://eu/"))
    ticket = await named.issue(claims)
    issuer.namespaces = namespaces
    with pytest.raises(InvalidToken, match="not trusted here any more"):
        named.check(claims)
    with pytest.raises(InvalidToken, match="not trusted here any more"):
        await named.redeem(ticket)


@pytest.mark.parametrize("namespace", ["", "other"])
async def test_whose_issuer_moved_meanwhile_is_to_come_back_with_the_same_token(
    named: Authenticator, issuer: Verifier, namespace: str
) -> None:
    claims = await named.verify(token(issuer="https://eu/"))
    ticket = await named.issue(claims)
    issuer.namespaces = {"https://eu/": namespace}
    with pytest.raises(Unavailable, match="another namespace now: try again"):
        named.check(claims)
    with pytest.raises(Unavailable, match="another namespace now: try again"):
        await named.redeem(ticket)


async def test_a_ticket_of_a_namespace_means_nothing_where_there_are_none(
    named: Authenticator, authenticator: Authenticator
) -> None:
    ticket = await named.issue(await named.verify(token(issuer="https://eu/")))
    with pytest.raises(InvalidToken, match="not trusted here"):
        await authenticator.redeem(ticket)
