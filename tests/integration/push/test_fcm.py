"""FCM through real sockets: tokens asked for and withdrawn, messages taken and refused."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from pushsvc.protocol.push import MAX_PAYLOAD, PushRegistration, PushText
from pushsvc.push import fcm
from pushsvc.push.fcm import Fcm
from pushsvc.push.hosts import Hosts
from pushsvc.push.outbound import Outbound
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from tests.support.fcm_service import BAD_REQUEST, EMAIL, FcmService, Reply, error
from tests.support.push import message, messages, registration

SENT = Verdict(Outcome.SENT)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FcmService]:
    with FcmService(tmp_path) as running:
        yield running
        running.release()


@pytest.fixture
async def out(service: FcmService) -> AsyncIterator[Outbound]:
    way = Outbound(Hosts(), ca_file=service.ca_file)
    yield way
    await way.aclose()


@pytest.fixture
async def provider(service: FcmService, out: Outbound) -> AsyncIterator[Fcm]:
    made = Fcm(fcm.load_credentials(service.file), out, url=service.url)
    yield made
    await made.aclose()


def to(device: str = "device-1") -> PushRegistration:
    return registration(provider="fcm", address=device, topic="")


async def test_a_message_is_what_google_asks_for(service: FcmService, provider: Fcm) -> None:
    told = message(text=PushText("Grüße", "„2“ 😀\nb", url="/o"), badge=2, tag="o-7", group="g")
    before = time.time()
    assert await provider.send(to(), told) == SENT
    (wanted,) = service.requests
    assert wanted["token"] == "device-1"
    assert wanted["notification"] == {"title": "Grüße", "body": "„2“ 😀\nb"}
    assert wanted["data"]["capability"] == told.capability
    (claims,) = service.assertions
    assert claims["iss"] == EMAIL
    assert claims["exp"] == claims["iat"] + 3600
    assert before - 1 <= claims["iat"] <= time.time()


async def test_nothing_that_travels_names_the_user(service: FcmService, provider: Fcm) -> None:
    await provider.send(to(), message())
    (wanted,) = service.requests
    assert set(wanted) == {"authorization", "token", "notification", "data", "android"}
    assert set(wanted["data"]) == {"id", "capability"}


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(told=messages)
def test_whatever_is_told_is_taken(service: FcmService, told: PushMessage) -> None:
    async def send() -> None:
        out = Outbound(Hosts(), ca_file=service.ca_file)
        provider = Fcm(fcm.load_credentials(service.file), out, url=service.url)
        try:
            assert await provider.send(to(), told) == SENT
        finally:
            await provider.aclose()
            await out.aclose()

    asyncio.run(send())
    assert len(service.raw[-1]) <= MAX_PAYLOAD + len('"token":"device-1",')


async def test_a_token_is_asked_for_once_and_kept(service: FcmService, provider: Fcm) -> None:
    sends = [provider.send(to(f"device-{each}"), message()) for each in range(50)]
    assert set(await asyncio.gather(*sends)) == {SENT}
    assert await provider.send(to(), message()) == SENT
    assert len(service.assertions) == 1
    assert service.connections <= 51


async def test_a_token_is_replaced_before_its_end(service: FcmService, provider: Fcm) -> None:
    now = time.time() - 3450
    provider._token._clock = lambda: now
    assert await provider.send(to(), message()) == SENT
    now += 3200
    assert await provider.send(to(), message()) == SENT
    assert len(service.assertions) == 1
    now += 200
    assert await provider.send(to(), message()) == SENT
    assert len(service.assertions) == 2


async def test_a_token_that_was_withdrawn_is_replaced_once_for_all(
    service: FcmService, provider: Fcm
) -> None:
    assert await provider.send(to(), message()) == SENT
    service.withdraw()
    sends = [provider.send(to(f"device-{each}"), message()) for each in range(20)]
    assert set(await asyncio.gather(*sends)) == {SENT}
    assert len(service.assertions) == 2


async def test_what_is_refused_with_a_new_token_too_is_told_as_credentials(
    service: FcmService, provider: Fcm
) -> None:
    service.reply("device-1", error(403, "PERMISSION_DENIED"))
    verdict = await provider.send(to(), message())
    assert verdict == Verdict(Outcome.CREDENTIALS, "PERMISSION_DENIED")
    assert len(service.assertions) == 2


async def test_credentials_that_google_does_not_know_are_told(
    service: FcmService, provider: Fcm
) -> None:
    service.token_replies.append(
        Reply(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    )
    verdict = await provider.send(to(), message())
    assert verdict == Verdict(
        Outcome.CREDENTIALS, "token endpoint: invalid_grant: Invalid JWT Signature."
    )
    assert service.requests == []
    assert await provider.send(to(), message()) == SENT


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503, b"", {"Retry-After": "9"}),
        Reply(429, {"error": "slow_down"}, {"Retry-After": "9"}),
        Reply(500, b"<html>", {"Retry-After": "9"}),
    ],
)
async def test_a_token_endpoint_that_is_away_is_asked_later(
    service: FcmService, provider: Fcm, reply: Reply
) -> None:
    service.token_replies.append(reply)
    verdict = await provider.send(to(), message())
    assert verdict == Verdict(Outcome.RETRY, f"token endpoint: {reply.status}", 9.0)


@pytest.mark.parametrize(
    "body", [b"no", {"access_token": 7}, {"access_token": "a b"}, {"token": ""}, b"[" * 9000]
)
async def test_a_token_endpoint_that_gives_none_is_asked_later(
    service: FcmService, provider: Fcm, body: object
) -> None:
    service.token_replies.append(Reply(200, body))
    verdict = await provider.send(to(), message())
    assert verdict == Verdict(Outcome.RETRY, "the token endpoint answers without a token")


@pytest.mark.parametrize("lasts", [None, 0, -5, 10**12, "3600", True])
async def test_a_lifetime_that_is_none_is_not_believed(
    service: FcmService, provider: Fcm, lasts: object
) -> None:
    service.lifetime = lasts  # type: ignore[assignment]
    assert await provider.send(to(), message()) == SENT
    assert await provider.send(to(), message()) == SENT
    assert len(service.assertions) <= 2


VIOLATION = {
    "@type": BAD_REQUEST,
    "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}],
}


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (error(404, "NOT_FOUND", "UNREGISTERED"), Outcome.GONE),
        (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "no", VIOLATION), Outcome.GONE),
        (error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"), Outcome.REFUSED),
        (error(400, "INVALID_ARGUMENT", "", "Message too big"), Outcome.TOO_LARGE),
        (error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), Outcome.REFUSED),
        (error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), Outcome.RETRY),
        (error(503, "UNAVAILABLE", "UNAVAILABLE"), Outcome.RETRY),
        (error(500, "INTERNAL", "INTERNAL"), Outcome.RETRY),
        (Reply(502, b"<html><title>Error 502</title>"), Outcome.RETRY),
    ],
)
async def test_each_refusal_has_its_verdict(
    service: FcmService, provider: Fcm, reply: Reply, outcome: Outcome
) -> None:
    service.reply("device-1", reply)
    assert (await provider.send(to(), message())).outcome is outcome
    assert await provider.send(to("device-2"), message()) == SENT


async def test_a_wait_that_google_asks_for_is_told(service: FcmService, provider: Fcm) -> None:
    service.reply("device-1", error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", Retry_After="30"))
    verdict = await provider.send(to(), message())
    assert verdict == Verdict(Outcome.RETRY, "QUOTA_EXCEEDED", 30.0)


async def test_another_projects_token_is_gone_once_these_credentials_were_good_for_one(
    service: FcmService, provider: Fcm
) -> None:
    """Else the wrong credentials file would have every registration removed."""
    service.reply("device-1", error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"))
    verdict = await provider.send(to(), message())
    assert verdict == Verdict(Outcome.REFUSED, "SENDER_ID_MISMATCH")
    assert await provider.send(to("device-2"), message()) == SENT
    assert (await provider.send(to(), message())).outcome is Outcome.GONE


async def test_an_address_that_leads_elsewhere_removes_nothing(
    service: FcmService, out: Outbound
) -> None:
    provider = Fcm(fcm.load_credentials(service.file), out, url=f"{service.url}/elsewhere")
    assert await provider.send(to(), message()) == Verdict(Outcome.RETRY, "404")


async def test_a_service_that_hangs_costs_an_attempt_its_time_and_no_more(
    service: FcmService, provider: Fcm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcm, "ATTEMPT_SECONDS", 0.3)
    service.hold()
    verdicts = await asyncio.gather(*[provider.send(to(), message()) for _ in range(5)])
    assert set(verdicts) == {Verdict(Outcome.RETRY, "no answer in 0.3 s")}
    service.release()
    monkeypatch.undo()
    assert await provider.send(to(), message()) == SENT


async def test_one_that_gives_up_takes_the_token_from_nobody(
    service: FcmService, provider: Fcm
) -> None:
    service.hold()
    first = asyncio.create_task(provider.send(to(), message()))
    others = [asyncio.create_task(provider.send(to(), message())) for _ in range(3)]
    async with asyncio.timeout(30):
        while not service.connections:
            await asyncio.sleep(0.005)
    first.cancel()
    service.release()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert set(await asyncio.gather(*others)) == {SENT}
    assert len(service.assertions) == 1


async def test_a_service_that_is_away_is_tried_again_later(
    service: FcmService, out: Outbound
) -> None:
    credentials = fcm.load_credentials(service.file)
    provider = Fcm(credentials, out, url="https://127.0.0.1:1")
    assert (await provider.send(to(), message())).outcome is Outcome.RETRY
    nowhere = credentials._replace(token_uri="https://127.0.0.1:1/token")
    provider = Fcm(nowhere, out, url=service.url)
    assert (await provider.send(to(), message())).outcome is Outcome.RETRY
    assert service.requests == []


async def test_closing_ends_the_question_for_a_token(service: FcmService, provider: Fcm) -> None:
    service.hold()
    send = asyncio.create_task(provider.send(to(), message()))
    async with asyncio.timeout(30):
        while not service.connections:
            await asyncio.sleep(0.005)
    await provider.aclose()
    assert (await send).outcome is Outcome.RETRY


async def test_the_key_stays_where_it_is(service: FcmService, provider: Fcm) -> None:
    service.token_replies.append(Reply(400, {"error": "invalid_grant"}))
    verdict = await provider.send(to(), message())
    await provider.send(to(), message())
    sent = json.dumps([service.assertions, [each.decode() for each in service.raw], verdict])
    assert "PRIVATE KEY" not in sent
