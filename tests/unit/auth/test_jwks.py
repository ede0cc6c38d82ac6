"""When keys that an issuer publishes are fetched, and how they are found."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from pushsvc.auth import jwks as jwks_module
from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.jwks import (
    FETCH_INTERVAL,
    LINES_TOLD,
    MOST_PAUSE,
    REFRESH_AFTER,
    discovered,
    is_address,
    jwks_at,
    keys_address,
)
from pushsvc.auth.keys import MAX_JWKS, KeyConfigError
from pushsvc.auth.tokens import Verifier, mint
from pushsvc.errors import InvalidToken, Unavailable
from tests.support.keys import PrivateKey, document, jwk

READER = Reader(Rules(audience=("push",)))
SECRET = "0123456789abcdef" * 4
URL = "https://issuer.example/jwks.json"
NOW = 1_800_000_000.0

P256, OTHER_P256 = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ED25519 = ed25519.Ed25519PrivateKey.generate()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Issuer:
    """A JWKS address: counts fetches, and fails or waits on demand."""

    def __init__(self, *jwks: Any) -> None:
        self.document = document(*jwks)
        self.fetches = 0
        self.failing: BaseException | None = None
        self.gate: asyncio.Event | None = None

    async def fetch(self, url: str) -> bytes:
        assert url == URL
        self.fetches += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return self.document


def token(
    key: PrivateKey, algorithm: str, kid: str | None = None, *, at: float = NOW, **header: Any
) -> str:
    payload = {"sub": "ann", "aud": "push", "exp": at + 60}
    headers = header if kid is None else {"kid": kid, **header}
    return jwt.encode(payload, key, algorithm, headers=headers)


def refused(one: Verifier, text: str, because: str) -> InvalidToken:
    with pytest.raises(InvalidToken, match=because) as caught:
        one.verify_cached(text)
    return caught.value


async def settle() -> None:
    """Let background tasks run until all of them wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(jwk(P256, "k1"))


@pytest.fixture
async def jwks(issuer: Issuer, clock: Clock) -> AsyncIterator[Verifier]:
    keys = jwks_at(URL, issuer.fetch, clock=clock)
    one = Verifier(keys, algorithms=keys.algorithms, reader=READER, clock=clock)
    yield one
    await one.aclose()


async def test_keys_are_fetched_with_the_first_token_and_then_kept(
    jwks: Verifier, issuer: Issuer
) -> None:
    text = token(P256, "ES256", "k1")
    assert jwks.verify_cached(text) is None
    assert issuer.fetches == 0
    claims = await jwks.verify(text)
    assert claims.user == "ann"
    assert jwks.verify_cached(text) == claims
    assert await jwks.verify(text) == claims
    assert issuer.fetches == 1


async def test_concurrent_tokens_share_one_fetch(jwks: Verifier, issuer: Issuer) -> None:
    issuer.gate = asyncio.Event()
    waiting = [asyncio.create_task(jwks.verify(token(P256, "ES256", "k1"))) for _ in range(50)]
    await settle()
    issuer.gate.set()
    assert len({(await one).user for one in waiting}) == 1
    assert issuer.fetches == 1


async def test_one_who_stops_waiting_does_not_stop_the_fetch_for_others(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.gate = asyncio.Event()
    first, second = (asyncio.create_task(jwks.verify(token(P256, "ES256", "k1"))) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    assert not second.done()
    issuer.gate.set()
    assert (await second).user == "ann"
    assert issuer.fetches == 1


async def test_a_token_without_a_kid_is_good_only_while_there_is_a_single_key(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256")
    assert (await jwks.verify(text)).user == "ann"
    issuer.document = document(jwk(P256, "k1"), jwk(ED25519, "k2"))
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(token(ED25519, "EdDSA", "k2"))).user == "ann"
    clock.now += FETCH_INTERVAL
    refused(jwks, text, "kid")
    assert issuer.fetches == 2


async def test_a_single_key_without_a_kid_serves_tokens_without_one(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.document = document(jwk(P256), {"kty": "oct", "k": "AAAA", "kid": "ignored"})
    assert (await jwks.verify(token(P256, "ES256"))).user == "ann"


async def test_a_key_does_not_check_tokens_that_name_another(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.document = document(jwk(P256, "a"), jwk(OTHER_P256, "b"), jwk(ED25519, "c"))
    assert (await jwks.verify(token(P256, "ES256", "a"))).user == "ann"
    refused(jwks, token(P256, "ES256", "b"), "does not match")
    refused(jwks, token(P256, "ES256", "c"), "not for its algorithm")
    assert issuer.fetches == 1


async def test_a_shared_secret_token_is_refused_without_a_fetch(
    jwks: Verifier, issuer: Issuer
) -> None:
    text = mint(secret=SECRET, user="ann", audience="push", ttl=60, now=NOW)
    with pytest.raises(
        InvalidToken,
        match=r"sign the token with one of: RS256, ES256, EdDSA \(JWT_ALGORITHMS\): its",
    ):
        await jwks.verify(text)
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": jwk(OTHER_P256)},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"kid": "' UNION SELECT 'k1' --"},
        {"kid": "/dev/null\x00"},
        {"kid": "k" * 129},
    ],
)
async def test_a_header_that_is_refused_causes_no_fetch(
    header: dict[str, Any], jwks: Verifier, issuer: Issuer
) -> None:
    with pytest.raises(InvalidToken):
        await jwks.verify(token(OTHER_P256, "ES256", **header))
    assert issuer.fetches == 0


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/etc/passwd", "k1=k1", "https://e.example/"]
)
async def test_a_kid_that_looks_like_a_path_is_only_ever_looked_up(
    kid: str, jwks: Verifier, issuer: Issuer
) -> None:
    with pytest.raises(InvalidToken, match="names no key"):
        await jwks.verify(token(OTHER_P256, "ES256", kid))
    assert issuer.fetches == 1  # of the one configured address, as fetch() asserts


async def test_a_thousand_unknown_kids_cause_one_fetch_per_30_seconds(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    await jwks.verify(token(P256, "ES256", "k1"))
    assert issuer.fetches == 1
    flood = [token(OTHER_P256, "ES256", f"unknown-{n}") for n in range(1000)]
    for round_ in range(3):
        clock.now = NOW + 1 + round_ * FETCH_INTERVAL
        for text in flood:
            with pytest.raises(InvalidToken, match="names no key"):
                await jwks.verify(text)
        assert issuer.fetches == 1 + round_
    error = refused(jwks, flood[0], r"names no key of the issuer \(JWT_JWKS_URL\)")
    assert error.retry_after is not None
    assert 0 < error.retry_after <= FETCH_INTERVAL


async def test_a_thousand_unknown_kids_at_once_share_one_fetch(
    jwks: Verifier, issuer: Issuer
) -> None:
    flood = (token(OTHER_P256, "ES256", f"unknown-{n}") for n in range(1000))
    results = await asyncio.gather(*map(jwks.verify, flood), return_exceptions=True)
    assert {type(result) for result in results} == {InvalidToken}
    assert issuer.fetches == 1


async def test_a_new_key_is_found_by_its_unknown_kid(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    await jwks.verify(token(P256, "ES256", "k1"))
    issuer.document = document(jwk(P256, "k1"), jwk(OTHER_P256, "k2"))
    text = token(OTHER_P256, "ES256", "k2")
    refused(jwks, text, "names no key")
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(text)).user == "ann"
    assert (await jwks.verify(token(P256, "ES256", "k1"))).user == "ann"
    assert issuer.fetches == 2


async def test_a_key_that_was_rotated_out_stops_working(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    old = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(old)
    issuer.document = document(jwk(OTHER_P256, "k2"))
    clock.now += REFRESH_AFTER
    assert jwks.verify_cached(old) is not None  # this use is what starts the refresh
    await settle()
    assert issuer.fetches == 2
    refused(jwks, old, "names no key")
    text = token(OTHER_P256, "ES256", "k2", at=clock.now)
    assert jwks.verify_cached(text) is not None


async def test_keys_are_refreshed_only_when_used_and_older_than_ten_minutes(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + 10 * REFRESH_AFTER)
    await jwks.verify(text)
    clock.now += REFRESH_AFTER - 1
    jwks.verify_cached(text)
    await settle()
    assert issuer.fetches == 1
    clock.now += 5 * REFRESH_AFTER
    await settle()
    assert issuer.fetches == 1
    for _ in range(3):
        jwks.verify_cached(text)
        await settle()
    assert issuer.fetches == 2


async def test_old_keys_work_while_the_refresh_runs(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(text)
    issuer.gate = asyncio.Event()
    clock.now += REFRESH_AFTER
    for _ in range(5):
        assert jwks.verify_cached(text) is not None
        await settle()
    assert issuer.fetches == 2
    # An unknown kid waits for the refresh that runs already.
    issuer.document = document(jwk(P256, "k1"), jwk(OTHER_P256, "k2"))
    new = asyncio.create_task(jwks.verify(token(OTHER_P256, "ES256", "k2", at=clock.now)))
    await settle()
    assert not new.done()
    issuer.gate.set()
    assert (await new).user == "ann"
    assert issuer.fetches == 2


@pytest.mark.parametrize(
    "failure", [OSError("no route"), TimeoutError(), RuntimeError("boom"), asyncio.CancelledError()]
)
async def test_known_keys_go_on_working_for_as_long_as_fetching_fails(
    failure: BaseException, jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    end = NOW + 2 * REFRESH_AFTER
    text = token(P256, "ES256", "k1", at=end)
    await jwks.verify(text)
    clock.now += REFRESH_AFTER
    issuer.failing = failure
    while clock.now < end:
        assert jwks.verify_cached(text) is not None
        await settle()
        clock.now += 1
    assert issuer.fetches == 1 + REFRESH_AFTER / FETCH_INTERVAL
    issuer.failing = None
    issuer.document = document(jwk(OTHER_P256, "k2"))
    clock.now += FETCH_INTERVAL
    jwks.verify_cached(text)
    await settle()
    refused(jwks, text, "names no key")


@pytest.mark.parametrize("text", [b"", b"<html>", b"{}", b"[" * 100_000, b" " * (MAX_JWKS + 1)])
async def test_a_bad_document_leaves_the_old_keys_in_use(
    text: bytes, jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    good = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(good)
    issuer.document = text
    clock.now += REFRESH_AFTER
    assert jwks.verify_cached(good) is not None
    await settle()
    assert issuer.fetches == 2
    assert jwks.verify_cached(good) is not None


async def test_without_keys_ever_fetched_tokens_wait_for_better_times(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    issuer.failing = OSError("no route")
    text = token(P256, "ES256", "k1")
    for _ in range(100):
        with pytest.raises(Unavailable) as caught:
            await jwks.verify(text)
        assert caught.value.retry_after == FETCH_INTERVAL
    assert issuer.fetches == 1
    issuer.failing = None
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(text)).user == "ann"


async def test_a_fetch_that_hangs_is_given_up(
    jwks: Verifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_module, "FETCH_TIMEOUT", 0.01)
    issuer.gate = asyncio.Event()
    with pytest.raises(Unavailable):
        await jwks.verify(token(P256, "ES256", "k1"))


async def test_a_clock_set_back_does_not_stop_fetches(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    await jwks.verify(token(P256, "ES256", "k1"))
    clock.now -= 86_400
    issuer.document = document(jwk(OTHER_P256, "k2"))
    assert (await jwks.verify(token(OTHER_P256, "ES256", "k2"))).user == "ann"
    assert issuer.fetches == 2
    clock.now -= 86_400
    assert jwks.verify_cached(token(OTHER_P256, "ES256", "k2")) is not None
    await settle()
    assert issuer.fetches == 3


async def test_a_slow_fetch_is_not_joined_by_a_second_one(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    issuer.gate = asyncio.Event()
    waiting = []
    for _ in range(3):
        waiting.append(asyncio.create_task(jwks.verify(token(P256, "ES256", "k1"))))
        await settle()
        clock.now += FETCH_INTERVAL
    issuer.gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert issuer.fetches == 1


async def test_closing_stops_the_fetch_and_those_who_wait_for_it(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.gate = asyncio.Event()
    waiting = asyncio.create_task(jwks.verify(token(P256, "ES256", "k1")))
    await settle()
    async with asyncio.timeout(1):
        await jwks.aclose()
    with pytest.raises(Unavailable):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(Unavailable):
        await jwks.verify(token(P256, "ES256", "k1"))
    assert issuer.fetches == 1


async def test_known_keys_still_work_after_closing(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + REFRESH_AFTER)
    await jwks.verify(text)
    await jwks.aclose()
    await jwks.aclose()
    clock.now += REFRESH_AFTER
    assert jwks.verify_cached(text) is not None
    refused(jwks, token(OTHER_P256, "ES256", "k2"), "names no key")
    assert issuer.fetches == 1


# From the start on


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(jwks_module, "MOST_PAUSE", 0.004)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_keys_are_there_before_the_first_token(jwks: Verifier, issuer: Issuer) -> None:
    (trouble,) = jwks.troubles()
    assert URL in trouble
    with structlog.testing.capture_logs() as log:
        jwks.start()
        jwks.start()
        await settle()
    assert jwks.troubles() == []
    assert issuer.fetches == 1
    assert jwks.verify_cached(token(P256, "ES256", "k1")) is not None
    (line,) = log
    assert line == {
        "event": "an issuer's keys were fetched", "log_level": "info", "setting": "JWT_JWKS_URL",
        "address": URL,
        "keys": 1, "kids": ["k1"],
    }  # fmt: skip


@pytest.mark.usefixtures("quick")
async def test_an_issuer_that_is_down_is_tried_without_a_token_until_it_is_up(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.failing = OSError("no route")
    with structlog.testing.capture_logs() as log:
        jwks.start()
        await until(lambda: issuer.fetches == 20)
        assert jwks.troubles() == [f"no keys yet from {URL}: no route (JWT_JWKS_URL)"]
        issuer.failing = None
        await until(lambda: not jwks.troubles())
    assert (await jwks.verify(token(P256, "ES256", "k1"))).user == "ann"
    fetches = issuer.fetches
    failures = [line for line in log if line["log_level"] == "warning"]
    assert len(failures) == LINES_TOLD  # and no line for each try
    assert failures[0]["reason"] == "no route"
    assert failures[0]["address"] == URL
    await settle()
    assert issuer.fetches == fetches


async def test_the_pauses_between_the_first_tries_grow_up_to_a_bound(
    jwks: Verifier, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    issuer.failing = OSError("no route")
    monkeypatch.setattr(asyncio, "sleep", note)
    jwks.start()
    async with asyncio.timeout(10):
        while len(pauses) < 8:
            await sleep(0)
    assert pauses[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    await jwks.aclose()


async def test_a_token_waits_for_the_first_fetch_and_starts_none_between_tries(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.gate = asyncio.Event()
    issuer.failing = OSError("no route")
    jwks.start()
    await settle()
    waiting = asyncio.create_task(jwks.verify(token(P256, "ES256", "k1")))
    await settle()
    assert not waiting.done()
    issuer.gate.set()
    for _ in range(50):
        with pytest.raises(Unavailable) as caught:
            await (waiting if not waiting.done() else jwks.verify(token(P256, "ES256", "k1")))
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= MOST_PAUSE
    assert issuer.fetches == 1


async def test_a_rotation_just_after_the_start_waits_for_the_interval(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    jwks.start()
    await settle()
    issuer.document = document(jwk(P256, "k1"), jwk(OTHER_P256, "k2"))
    text = token(OTHER_P256, "ES256", "k2")
    refused(jwks, text, "names no key")
    clock.now += FETCH_INTERVAL
    assert (await jwks.verify(text)).user == "ann"
    assert issuer.fetches == 2


async def test_a_key_set_that_has_no_usable_key_any_more_is_taken_for_a_mishap(
    jwks: Verifier, issuer: Issuer, clock: Clock
) -> None:
    text = token(P256, "ES256", "k1", at=NOW + 2 * REFRESH_AFTER)
    await jwks.verify(text)
    clock.now += REFRESH_AFTER
    for empty in (document(), document({"kty": "oct", "k": "AAAA"})):
        issuer.document = empty
        clock.now += FETCH_INTERVAL
        fetches = issuer.fetches
        assert jwks.verify_cached(text) is not None
        await settle()
        assert issuer.fetches == fetches + 1
        assert jwks.verify_cached(text) is not None
        assert jwks.troubles() == []


async def test_a_source_that_is_closed_while_it_tries_leaves_nothing_behind(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.gate = asyncio.Event()
    jwks.start()
    await settle()
    await jwks.aclose()
    jwks.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Discovery

ISSUER = "https://issuer.example/tenant/"


def described(**members: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": URL, **members}).encode()


async def test_an_issuer_says_itself_where_its_keys_are() -> None:
    asked: list[str] = []
    documents = {
        "https://issuer.example/tenant/.well-known/openid-configuration": described(),
        URL: document(jwk(P256, "k1")),
    }

    async def get(url: str) -> bytes:
        asked.append(url)
        return documents[url]

    keys = discovered(ISSUER, get, ["ES256"])
    assert keys.algorithms == ("ES256",)
    keys.start()
    await settle()
    assert keys.missing() is None
    assert asked == list(documents)
    assert keys.find("ES256", "k1") is not None
    await keys.aclose()


@pytest.mark.parametrize(
    ("text", "because"),
    [
        (b"", "."),
        (b"<html>", "."),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (described(issuer=ISSUER.removesuffix("/")), "of the issuer 'https://issuer.example/ten"),
        (described(issuer=None), "of the issuer 'None'"),
        (described(issuer="x" * 5000), "of the issuer 'x{200}'"),
        (described(jwks_uri=None), "jwks_uri"),
        (described(jwks_uri="file:///etc/passwd"), "jwks_uri"),
        (described(jwks_uri="http://issuer.example/keys"), "is http, and its issuer https"),
        (described(jwks_uri="HTTP://issuer.example/keys"), "is http, and its issuer https"),
    ],
)
def test_a_discovery_document_of_another_or_without_an_address_is_an_error(
    text: bytes, because: str
) -> None:
    with pytest.raises(ValueError, match=because):
        keys_address(text, ISSUER)


def test_keys_may_be_of_another_origin_than_their_issuer() -> None:
    google = "https://www.googleapis.com/oauth2/v3/certs"
    assert keys_address(described(jwks_uri=google), ISSUER) == google
    plain = json.dumps({"issuer": "http://idp", "jwks_uri": "http://keys/"}).encode()
    assert keys_address(plain, "http://idp") == "http://keys/"


@pytest.mark.parametrize(
    "url",
    ["", "//a", "a.example", "ftp://a/", "https://", "https://:1", "https://[", "https://a:0",
     "https://a:99999", "https://a:b", "https://u@a/", "https://u:p@a/", "https://a b/",
     "https://a/\n", "https://ä/", "https://.a/", "https://a/" + "b" * 2048],
)  # fmt: skip
def test_what_nothing_can_be_got_from_is_no_address(url: str) -> None:
    assert not is_address(url)


def test_an_address_is_http_or_https() -> None:
    for url in ("http://a", "https://a:1/b?c=@#d", "HTTPS://a.example", "http://[::1]:8/"):
        assert is_address(url)


async def test_a_line_of_the_log_is_short_whatever_the_key_ids_are(
    jwks: Verifier, issuer: Issuer
) -> None:
    issuer.document = document(*[jwk(P256, f"{number:02}" * 5000) for number in range(50)])
    with structlog.testing.capture_logs() as log:
        jwks.start()
        await settle()
    (line,) = log
    assert line["keys"] == 50
    assert len(line["kids"]) == 20
    assert len(str(line)) < 4000


@pytest.mark.parametrize("issuer", ["accounts.google.com", "https://a.example/?x", "urn:x", ""])
def test_an_issuer_without_an_address_has_no_discovery(issuer: str) -> None:
    async def get(url: str) -> bytes:
        raise AssertionError(url)

    with pytest.raises(KeyConfigError) as caught:
        discovered(issuer, get)
    assert caught.value.part == "keys"
