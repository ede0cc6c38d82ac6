"""APNs through real sockets: a service of another make answers, refuses, hangs and leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings

from pushsvc.protocol.push import MAX_PAYLOAD, PushText
from pushsvc.push import apns, http2, http2_connection
from pushsvc.push.apns import Apns
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from tests.support.apns_service import KEY_ID, TEAM_ID, TOPIC, ApnsService, device, refusal
from tests.support.forward_proxy import ForwardProxy
from tests.support.push import message, messages, registration

HOLD = {"act": "hold"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApnsService]:
    """A service for the tests that do not change how it is."""
    with ApnsService(tmp_path_factory.mktemp("apns")) as service:
        yield service


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ApnsService]:
    """A service of the test's own."""
    with ApnsService(tmp_path) as service:
        yield service


def provider_of(service: ApnsService) -> Apns:
    key = apns.load_key(service.key_file, key_id=KEY_ID, team_id=TEAM_ID)
    return Apns(key, url=service.url, ca_file=service.ca_file)


@pytest.fixture
async def provider(shared: ApnsService) -> AsyncIterator[Apns]:
    provider = provider_of(shared)
    yield provider
    await provider.aclose()


@pytest.fixture
async def to_own(own: ApnsService) -> AsyncIterator[Apns]:
    provider = provider_of(own)
    yield provider
    await provider.aclose()


def made(provider: Apns) -> int:
    """How many connections it made."""
    return provider._services[0].connections.connected


async def until(condition: Any, what: str) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


async def test_a_push_is_what_apple_asks_for(shared: ApnsService, provider: Apns) -> None:
    to = registration(address=device(1).upper())
    told = message(
        text=PushText("Grüße", "Zeile 1\n„2“ 😀", url="/o/7"), badge=2, tag="order-7", group="g"
    )
    assert await provider.send(to, told) == Verdict(Outcome.SENT)
    (request,) = shared.of(device(1))
    assert shared.verified(request)["iss"] == TEAM_ID
    assert request.payload == {
        "aps": {
            "alert": {"title": "Grüße", "body": "Zeile 1\n„2“ 😀"},
            "badge": 2,
            "thread-id": "g",
            "mutable-content": 1,
        },
        "pushsvc": {"id": told.notification, "capability": told.capability, "url": "/o/7"},
    }
    headers = request.headers
    assert headers["apns-topic"] == TOPIC
    assert headers["apns-collapse-id"] == "order-7"
    assert headers[":authority"] == f"127.0.0.1:{shared.port}"


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(told=messages)
def test_whatever_is_told_is_taken(shared: ApnsService, told: PushMessage) -> None:
    async def send() -> None:
        provider = provider_of(shared)
        try:
            assert await provider.send(registration(address=device(2)), told) == Verdict(
                Outcome.SENT
            )
        finally:
            await provider.aclose()

    asyncio.run(send())
    assert len(shared.of(device(2))[-1].text.encode()) <= MAX_PAYLOAD


async def test_nothing_that_travels_names_the_user(shared: ApnsService, provider: Apns) -> None:
    to = registration(address=device(3))
    await provider.send(to, message())
    (request,) = shared.of(device(3))
    assert set(request.headers) == {
        ":method", ":scheme", ":authority", ":path", "authorization", "content-length",
        "apns-topic", "apns-push-type", "apns-priority", "apns-expiration", "apns-id",
    }  # fmt: skip
    assert set(request.payload) == {"aps", "pushsvc"}
    assert set(request.payload["pushsvc"]) == {"id", "capability"}


REFUSALS = [
    (refusal(400, "BadDeviceToken"), Outcome.GONE),
    (refusal(400, "DeviceTokenNotForTopic"), Outcome.GONE),
    (refusal(410, "Unregistered", timestamp=1_764_547_200_000), Outcome.GONE),
    (refusal(410, "ExpiredToken", timestamp=1_764_547_200_000), Outcome.GONE),
    (refusal(413, "PayloadTooLarge"), Outcome.TOO_LARGE),
    (refusal(403, "InvalidProviderToken"), Outcome.CREDENTIALS),
    (refusal(403, "MissingProviderToken"), Outcome.CREDENTIALS),
    (refusal(403, "BadCertificate"), Outcome.CREDENTIALS),
    (refusal(400, "TopicDisallowed"), Outcome.REFUSED),
    (refusal(400, "BadTopic"), Outcome.REFUSED),
    (refusal(429, "TooManyRequests"), Outcome.RETRY),
    (refusal(429, "TooManyProviderTokenUpdates"), Outcome.RETRY),
    (refusal(500, "InternalServerError"), Outcome.RETRY),
    (refusal(503, "ServiceUnavailable"), Outcome.RETRY),
    (refusal(503, "Shutdown"), Outcome.RETRY),
    (refusal(400, "IdleTimeout"), Outcome.RETRY),
]


@pytest.mark.parametrize(("rule", "outcome"), REFUSALS)
async def test_each_refusal_has_its_verdict(
    shared: ApnsService, rule: dict[str, Any], outcome: Outcome
) -> None:
    provider = provider_of(shared)
    shared.rule(device(10), rule)
    try:
        verdict = await provider.send(registration(address=device(10)), message())
    finally:
        await provider.aclose()
    assert verdict.outcome is outcome
    assert verdict.detail in {rule["body"]["reason"], "413"}


async def test_the_wait_that_is_asked_for_is_told(shared: ApnsService, provider: Apns) -> None:
    shared.rule(device(11), refusal(503, "ServiceUnavailable", headers={"retry-after": "12"}))
    verdict = await provider.send(registration(address=device(11)), message())
    assert verdict == Verdict(Outcome.RETRY, "ServiceUnavailable", 12.0)


async def test_a_wrong_key_is_told_as_credentials(shared: ApnsService) -> None:
    key = apns.load_key(shared.key_file, key_id="XXXXXXXXXX", team_id=TEAM_ID)
    provider = Apns(key, url=shared.url, ca_file=shared.ca_file)
    try:
        verdict = await provider.send(registration(), message())
    finally:
        await provider.aclose()
    assert verdict == Verdict(Outcome.CREDENTIALS, "InvalidProviderToken")


async def test_a_refusal_of_a_token_that_was_just_accepted_stops_nobody(
    shared: ApnsService, provider: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, other = registration(address=device(12)), registration(address=device(13))
    shared.rule(device(12), refusal(403, "InvalidProviderToken"))
    assert (await provider.send(to, message())).outcome is Outcome.CREDENTIALS
    assert (await provider.send(other, message())).outcome is Outcome.SENT
    assert (await provider.send(to, message())).outcome is Outcome.RETRY
    monkeypatch.setattr(apns, "PROVEN_SECONDS", 0.0)
    assert (await provider.send(to, message())).outcome is Outcome.CREDENTIALS


async def test_a_token_that_is_too_old_is_replaced_and_the_push_goes_out(
    own: ApnsService, to_own: Apns
) -> None:
    now = 0.0
    to_own._token._clock = lambda: now
    now = time.time() - 2000
    assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    own.tell("age", most=1800)
    now = time.time()
    assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    tokens = [each.token for each in own.requests]
    assert len(tokens) == 3
    assert tokens[0] == tokens[1] != tokens[2]


async def test_a_new_token_that_is_too_old_is_of_a_clock_that_is_wrong(
    own: ApnsService, to_own: Apns
) -> None:
    own.tell("age", most=-10)
    verdict = await to_own.send(registration(), message())
    assert verdict.outcome is Outcome.CREDENTIALS
    assert "clock" in verdict.detail
    assert len(own.requests) == 1


async def test_many_pushes_share_one_connection(own: ApnsService, to_own: Apns) -> None:
    own.rule("*", HOLD)
    sends = [
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(100)
    ]
    await until(lambda: own.state()["held"] == 100, "all of them under way at once")
    own.tell("release")
    assert {each.outcome for each in await asyncio.gather(*sends)} == {Outcome.SENT}
    assert made(to_own) == 1
    assert len({each.session for each in own.requests}) == 1
    assert len({each.token for each in own.requests}) == 1


async def test_no_more_are_under_way_than_the_service_allows(
    own: ApnsService, to_own: Apns
) -> None:
    own.tell("allow", settings={"maxConcurrentStreams": 3})
    sends = [
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(60)
    ]
    assert {each.outcome for each in await asyncio.gather(*sends)} == {Outcome.SENT}
    assert own.state()["most"] <= 3
    assert made(to_own) == 1


async def test_the_service_may_allow_more_later(own: ApnsService, to_own: Apns) -> None:
    """As Apple does: one at first, until a token was accepted."""
    own.tell("allow", settings={"maxConcurrentStreams": 1})
    own.rule("*", HOLD)
    sends = [
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(20)
    ]
    await until(lambda: own.state()["held"] == 1, "the first")
    own.tell("allow", settings={"maxConcurrentStreams": 1000})
    await until(lambda: own.state()["held"] == 20, "the others")
    own.tell("release")
    assert {each.outcome for each in await asyncio.gather(*sends)} == {Outcome.SENT}


async def test_bodies_wait_for_the_room_that_the_service_has(
    own: ApnsService, to_own: Apns
) -> None:
    own.tell("allow", settings={"initialWindowSize": 100})
    told = message(text=PushText(title="T", body="b" * 2000))
    sends = [to_own.send(registration(address=device(each)), told) for each in range(60)]
    assert set(await asyncio.gather(*sends)) == {Verdict(Outcome.SENT)}
    assert all(each.payload["aps"]["alert"]["body"] == "b" * 2000 for each in own.requests)
    assert made(to_own) == 1


async def test_the_service_may_ask_whether_it_is_there(own: ApnsService, to_own: Apns) -> None:
    assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    own.tell("ping")
    await until(lambda: own.state()["pongs"] == 1, "an answer")


async def test_one_that_waits_for_room_may_give_up(own: ApnsService, to_own: Apns) -> None:
    own.tell("allow", settings={"maxConcurrentStreams": 1})
    own.rule("*", HOLD)
    first, second, third = (
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(3)
    )
    await until(lambda: own.state()["held"] == 1, "the first")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    own.rule("*", {"act": "answer", "status": 200})
    own.tell("release")
    assert (await first).outcome is Outcome.SENT
    assert (await third).outcome is Outcome.SENT
    assert not own.of(device(1))


async def test_room_that_is_given_back_passes_by_those_who_gave_up(
    own: ApnsService, to_own: Apns
) -> None:
    own.tell("allow", settings={"maxConcurrentStreams": 1})
    own.rule(device(0), HOLD)
    first, second, third = (
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(3)
    )
    await until(lambda: own.state()["held"] == 1, "the first")
    first.cancel()
    second.cancel()
    assert (await third).outcome is Outcome.SENT
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
    assert made(to_own) == 1


async def test_what_was_under_way_is_answered_after_a_goodbye(
    own: ApnsService, to_own: Apns
) -> None:
    """A service that restarts announces its end and answers what it took; nothing goes twice."""
    own.rule("*", HOLD)
    sends = [
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(10)
    ]
    await until(lambda: own.state()["held"] == 10, "all under way")
    own.tell("leave")
    own.rule("*", {"act": "answer", "status": 200})
    assert (await to_own.send(registration(address=device(99)), message())).outcome is Outcome.SENT
    assert made(to_own) == 2
    own.tell("release")
    assert {each.outcome for each in await asyncio.gather(*sends)} == {Outcome.SENT}
    assert len(own.requests) == 11


async def test_what_a_goodbye_says_it_did_not_take_is_sent_again(
    own: ApnsService, to_own: Apns
) -> None:
    own.rule("*", HOLD)
    sends = [
        asyncio.create_task(to_own.send(registration(address=device(each)), message()))
        for each in range(4)
    ]
    await until(lambda: own.state()["held"] == 4, "all under way")
    own.rule("*", {"act": "answer", "status": 200})
    own.tell("goaway", code=0, last=3, why='{"reason":"Shutdown"}')  # streams 1 and 3
    await until(lambda: len(own.requests) == 6, "two of them again, elsewhere")
    own.tell("release")
    assert {each.outcome for each in await asyncio.gather(*sends)} == {Outcome.SENT}
    assert made(to_own) == 2


async def test_a_stream_that_is_refused_is_sent_again_and_one_that_breaks_off_is_not(
    own: ApnsService, to_own: Apns
) -> None:
    accepted = {"act": "answer", "status": 200}
    own.rule(device(1), {"act": "reset", "code": 7}, accepted)
    own.rule(device(2), {"act": "reset", "code": 2}, accepted)
    assert (await to_own.send(registration(address=device(1)), message())).outcome is Outcome.SENT
    verdict = await to_own.send(registration(address=device(2)), message())
    assert verdict == Verdict(Outcome.RETRY, "the server broke the request off")
    own.rule(device(3), {"act": "reset", "code": 7})
    verdict = await to_own.send(registration(address=device(3)), message())
    assert verdict == Verdict(Outcome.RETRY, "the server takes no request")
    assert made(to_own) == 1


async def test_a_connection_that_breaks_is_made_again(own: ApnsService, to_own: Apns) -> None:
    own.rule(device(1), {"act": "drop"})
    assert (await to_own.send(registration(address=device(1)), message())).outcome is Outcome.RETRY
    assert (await to_own.send(registration(address=device(2)), message())).outcome is Outcome.SENT
    assert made(to_own) == 2


async def test_an_answer_before_the_body_was_read_counts(own: ApnsService, to_own: Apns) -> None:
    own.rule(device(1), {"act": "early", "status": 410, "body": {"reason": "Unregistered"}})
    verdict = await to_own.send(registration(address=device(1)), message())
    assert verdict.outcome is Outcome.GONE


async def test_an_answer_that_is_too_long_is_none(own: ApnsService, to_own: Apns) -> None:
    own.rule(device(1), {"act": "answer", "status": 400, "blind": True, "body": "x" * 200_000})
    verdict = await to_own.send(registration(address=device(1)), message())
    assert verdict.outcome is Outcome.RETRY
    assert "4096" in verdict.detail
    for each in range(20):
        verdict = await to_own.send(registration(address=device(1)), message())
        assert (await to_own.send(registration(address=device(2 + each)), message())) == Verdict(
            Outcome.SENT
        )
    assert made(to_own) == 1


async def test_a_service_that_hangs_costs_an_attempt_its_time_and_no_more(
    own: ApnsService, to_own: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apns, "ATTEMPT_SECONDS", 0.3)
    own.rule(device(1), HOLD)
    verdict = await to_own.send(registration(address=device(1)), message())
    assert verdict == Verdict(Outcome.RETRY, "no answer in 0.3 s")
    await until(lambda: own.state()["resets"] == 1, "the service is told")
    monkeypatch.undo()
    assert (await to_own.send(registration(address=device(2)), message())).outcome is Outcome.SENT
    assert own.state()["pings"] == 1  # it was asked whether it is still there
    assert made(to_own) == 1


async def test_a_connection_that_died_in_silence_is_noticed_before_it_is_used(
    own: ApnsService, to_own: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    monkeypatch.setattr(http2_connection, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(http2_connection, "PING_SECONDS", 0.2)
    monkeypatch.setattr(http2, "CONNECT_SECONDS", 0.4)
    own.freeze()
    try:
        verdict = await to_own.send(registration(address=device(5)), message())
    finally:
        own.thaw()
    assert verdict.outcome is Outcome.RETRY
    assert "no connection" in verdict.detail
    monkeypatch.undo()
    assert (await to_own.send(registration(address=device(6)), message())).outcome is Outcome.SENT
    assert not own.of(device(5))


async def test_a_service_that_answers_pings_keeps_its_connection(
    own: ApnsService, to_own: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_connection, "QUIET_SECONDS", 0.0)
    for _ in range(5):
        assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    assert made(to_own) == 1
    assert own.state()["pings"] >= 4


async def test_an_idle_connection_is_closed(
    own: ApnsService, to_own: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_connection, "IDLE_SECONDS", 0.05)
    assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    await until(lambda: own.state()["live"] == 0, "closed")
    assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
    assert made(to_own) == 2


async def test_a_service_that_is_away_is_tried_again_later(
    own: ApnsService,
) -> None:
    key = apns.load_key(own.key_file, key_id=KEY_ID, team_id=TEAM_ID)
    provider = Apns(key, url="https://127.0.0.1:1", ca_file=own.ca_file)
    try:
        sends = [provider.send(registration(), message()) for _ in range(10)]
        verdicts = await asyncio.gather(*sends)
    finally:
        await provider.aclose()
    assert {each.outcome for each in verdicts} == {Outcome.RETRY}
    assert "no connection to 127.0.0.1" in verdicts[0].detail
    assert made(provider) == 0


async def test_a_service_that_nobody_certifies_is_given_nothing(own: ApnsService) -> None:
    key = apns.load_key(own.key_file, key_id=KEY_ID, team_id=TEAM_ID)
    provider = Apns(key, url=own.url)
    try:
        verdict = await provider.send(registration(), message())
    finally:
        await provider.aclose()
    assert verdict.outcome is Outcome.RETRY
    assert "no good TLS server" in verdict.detail
    assert own.state()["sessions"] == 0


async def test_it_goes_through_a_proxy(
    own: ApnsService, to_own: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy("a:b c") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url("a:b%20c"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        for _ in range(3):
            assert (await to_own.send(registration(), message())).outcome is Outcome.SENT
        assert proxy.requests == [f"CONNECT 127.0.0.1:{own.port} HTTP/1.1"]
        await to_own.aclose()


async def test_what_a_proxy_refuses_is_tried_later(
    to_own: Apns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy("a:b") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        verdict = await to_own.send(registration(), message())
    assert verdict.outcome is Outcome.RETRY
    assert "407" in verdict.detail


async def test_closing_ends_what_is_under_way_and_takes_no_more(
    own: ApnsService, to_own: Apns
) -> None:
    own.rule("*", HOLD)
    send = asyncio.create_task(to_own.send(registration(), message()))
    await until(lambda: own.state()["held"] == 1, "under way")
    await to_own.aclose()
    assert (await send).outcome is Outcome.RETRY
    assert (await to_own.send(registration(), message())).outcome is Outcome.RETRY
    await to_own.aclose()
    await until(lambda: own.state()["live"] == 0, "closed")


def test_it_works_on_the_loop_of_a_node_and_through_a_proxy_there(
    own: ApnsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send() -> list[Verdict]:
        provider = provider_of(own)
        try:
            sends = [
                provider.send(registration(address=device(each)), message()) for each in range(50)
            ]
            return list(await asyncio.gather(*sends))
        finally:
            await provider.aclose()

    assert set(uvloop.run(send())) == {Verdict(Outcome.SENT)}
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert set(uvloop.run(send())) == {Verdict(Outcome.SENT)}
        assert len(proxy.requests) == 1
