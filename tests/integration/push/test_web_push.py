"""Web Push against a push service that checks and decrypts with code that is not ours."""

import time
from base64 import b64encode
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.push import PushRegistration, PushText
from pushsvc.push.encryption import MAX_PLAINTEXT, decoded
from pushsvc.push.hosts import Hosts
from pushsvc.push.outbound import Outbound
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from pushsvc.push.vapid import load_keys, new_key
from pushsvc.push.web_push import WebPush
from tests.support.push_service import HANG, OTHER_KEY, RESET, Answer, PushService, Subscription

SUBJECT = "mailto:push@example.com"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two keys."""
    file = tmp_path_factory.mktemp("keys") / "vapid.pem"
    file.write_bytes(b"".join(new_key()[0] for _ in range(2)))
    return file


@pytest_asyncio.fixture
async def out(service: PushService) -> AsyncIterator[Outbound]:
    outbound = Outbound(Hosts(["localhost"], allow_private=True), ca_file=service.ca_file)
    yield outbound
    await outbound.aclose()
    service.answer_always(None)
    assert service.mistakes == []


@pytest.fixture
def web(out: Outbound, keys: Path) -> WebPush:
    return WebPush(load_keys(keys), SUBJECT, out, Hosts(["localhost"], allow_private=True))


def registration(
    subscription: Subscription, vapid_key: str = "", id_: str = "r"
) -> PushRegistration:
    keys = subscription.to_json()["keys"]
    return PushRegistration(
        id=id_, provider="web", address=subscription.endpoint, p256dh=keys["p256dh"],
        auth=keys["auth"], vapid_key=vapid_key,
    )  # fmt: skip


def message(**fields: Any) -> PushMessage:
    text = PushText(title="Shipped", body="Order 17 is on its way", url="/orders/17")
    usual = PushMessage("1764-0", "pc1.x", text, 3, "order-17", "order.shipped", 3600, "high")
    return usual._replace(**fields)


async def test_a_browser_gets_what_a_notification_says(web: WebPush, service: PushService) -> None:
    subscription = service.subscribe(web.public_key)
    verdict = await web.send(registration(subscription), message())
    assert verdict == Verdict(Outcome.SENT, "201")
    (got,) = service.received(subscription)
    assert got.data == {
        "v": 1, "id": "1764-0", "capability": "pc1.x", "title": "Shipped",
        "body": "Order 17 is on its way", "url": "/orders/17", "badge": 3, "tag": "order-17",
        "group": "order.shipped", "urgency": "high",
    }  # fmt: skip
    assert got.headers["ttl"] == "3600"
    assert got.headers["urgency"] == "high"
    assert len(got.headers["topic"]) == 32
    assert got.claims["sub"] == SUBJECT
    assert got.server_key == web.public_key


async def test_ids_only_say_nothing_of_it(web: WebPush, service: PushService) -> None:
    subscription = service.subscribe()
    await web.send(registration(subscription), message().ids_only())
    (got,) = service.received(subscription)
    assert got.data == {"v": 1, "id": "1764-0", "capability": "pc1.x", "badge": 3}


async def test_lengths_that_differ_a_little_look_alike(web: WebPush, service: PushService) -> None:
    subscription = service.subscribe()
    for body in ("yes", "absolutely not"):
        text = PushText(title="Answer", body=body)
        await web.send(registration(subscription), message(text=text))
    first, second = service.received(subscription)
    assert first.size == second.size


async def test_a_tag_is_a_topic_that_tells_nobody_what_it_is(
    web: WebPush, service: PushService
) -> None:
    one, other = service.subscribe(), service.subscribe()
    for subscription, tag in ((one, "t"), (one, "t"), (one, "x"), (other, "t"), (other, "")):
        await web.send(registration(subscription), message(tag=tag))
    first, again, another = (each.headers["topic"] for each in service.received(one))
    assert first == again != another
    elsewhere, without = service.received(other)
    assert elsewhere.headers["topic"] != first
    assert "topic" not in without.headers


@pytest.mark.parametrize("character", ["a", "é", "😀", '"', "\nx"])
async def test_a_body_that_is_too_long_is_cut_between_characters(
    web: WebPush, service: PushService, character: str
) -> None:
    subscription = service.subscribe()
    text = PushText(title="t" * 256, body=character * 2000, url="/" + "u" * 900)
    assert (await web.send(registration(subscription), message(text=text))).outcome is Outcome.SENT
    (got,) = service.received(subscription)
    body = got.data["body"]
    assert body.removesuffix("…").strip(character) == ""
    assert got.data["title"] == "t" * 256
    assert got.size <= MAX_PLAINTEXT


async def test_what_is_left_is_ids_where_all_but_the_body_is_too_long(
    web: WebPush, service: PushService
) -> None:
    subscription = service.subscribe()
    text = PushText(title="t" * 256, body="b", url="/" + "u" * 1900, icon="/" + "i" * 1000)
    await web.send(registration(subscription), message(text=text))
    (got,) = service.received(subscription)
    assert got.data == {"v": 1, "id": "1764-0", "capability": "pc1.x", "badge": 3}


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (Answer(200), Outcome.SENT, "200"),
        (Answer(202), Outcome.SENT, "202"),
        (Answer(404), Outcome.GONE, "404"),
        (Answer(410, body=b"NotRegistered\n"), Outcome.GONE, "410 NotRegistered"),
        (Answer(413), Outcome.TOO_LARGE, "413"),
        (Answer(400, body=b'{"reason":"BadWebPushTopic"}'), Outcome.REFUSED,
         '400 {"reason":"BadWebPushTopic"}'),
        (Answer(401), Outcome.CREDENTIALS, "401"),
        (Answer(403, body=b'{"reason":"BadJwtToken"}'), Outcome.CREDENTIALS,
         '403 {"reason":"BadJwtToken"}'),
        (Answer(405), Outcome.REFUSED, "405"),
        (Answer(301, {"Location": "http://127.0.0.1/"}), Outcome.REFUSED, "301"),
        (Answer(307, {"Location": "https://localhost/"}), Outcome.REFUSED, "307"),
        (Answer(406), Outcome.RETRY, "406"),
        (Answer(408), Outcome.RETRY, "408"),
        (Answer(429), Outcome.RETRY, "429"),
        (Answer(500), Outcome.RETRY, "500"),
        (Answer(503, body=b"\x1b[31m\xff\nnow"), Outcome.RETRY, "503 \\x1b[31m\ufffd now"),
        (RESET, Outcome.RETRY, None),
        (Answer(how="nonsense"), Outcome.RETRY, "the answer is no HTTP"),
    ],
)  # fmt: skip
async def test_each_answer_has_its_verdict(
    web: WebPush, service: PushService, answer: Answer, outcome: Outcome, detail: str | None
) -> None:
    subscription = service.subscribe(web.public_key)
    service.answer(answer, answer, to=subscription)
    verdict = await web.send(registration(subscription, web.public_key), message())
    assert verdict.outcome is outcome
    assert detail is None or verdict.detail == detail
    assert verdict.detail.isprintable()


@pytest.mark.parametrize(("value", "least", "most"), [
    ("17", 17, 17), ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0), ("soon", 0, 0), ("a date", 2000, 3000),
])  # fmt: skip
async def test_a_push_service_says_when_to_come_back(
    web: WebPush, service: PushService, value: str, least: float, most: float
) -> None:
    subscription = service.subscribe()
    later = formatdate(time.time() + 3000, usegmt=True)
    asked = {"Retry-After": later if value == "a date" else value}
    service.answer(Answer(429, asked), to=subscription)
    verdict = await web.send(registration(subscription), message())
    assert verdict.outcome is Outcome.RETRY
    assert least <= verdict.retry_after <= most


async def test_a_push_service_that_does_not_answer_is_given_up(
    web: WebPush, service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushsvc.push.web_push.ATTEMPT_SECONDS", 0.5)
    subscription = service.subscribe()
    service.answer(HANG, to=subscription)
    began = time.monotonic()
    verdict = await web.send(registration(subscription), message())
    assert verdict.outcome is Outcome.RETRY
    assert time.monotonic() - began < 5


# --- two keys ------------------------------------------------------------------------------------


async def test_the_key_of_before_still_reaches_its_subscriptions(
    web: WebPush, service: PushService, keys: Path
) -> None:
    _, old = load_keys(keys).public
    subscription = service.subscribe(old)
    made = registration(subscription, id_="old")
    for _ in range(3):
        assert (await web.send(made, message())).outcome is Outcome.SENT
    # The first time both keys were tried, and then the right one at once.
    assert service.attempts[subscription.endpoint] == 4


@pytest.mark.parametrize("refusal", [
    Answer(401, body=b'{"errno":109,"message":"VAPID public key mismatch"}'),
    Answer(403, body=OTHER_KEY), Answer(400, body=b'{"reason":"VapidPkHashMismatch"}'),
])  # fmt: skip
async def test_the_other_key_is_tried_however_the_first_is_refused(
    web: WebPush, service: PushService, refusal: Answer
) -> None:
    subscription = service.subscribe()
    service.answer(refusal, to=subscription)
    assert (await web.send(registration(subscription), message())).outcome is Outcome.SENT
    assert service.attempts[subscription.endpoint] == 2


async def test_a_subscription_that_says_its_key_is_sent_to_with_that_alone(
    web: WebPush, service: PushService, keys: Path
) -> None:
    new, old = load_keys(keys).public
    for key in (new, old):
        subscription = service.subscribe(key)
        assert (await web.send(registration(subscription, key), message())).outcome is Outcome.SENT
        assert service.attempts[subscription.endpoint] == 1


async def test_a_subscription_of_a_key_that_is_gone_is_refused_without_a_request(
    web: WebPush, service: PushService
) -> None:
    _, other = new_key()
    subscription = service.subscribe(other)
    verdict = await web.send(registration(subscription, other), message())
    assert verdict.outcome is Outcome.REFUSED
    assert service.attempts[subscription.endpoint] == 0


# --- what one client can bring about stops nobody else -------------------------------------------


async def test_a_subscription_of_another_key_is_no_matter_of_credentials(
    web: WebPush, service: PushService
) -> None:
    subscription = service.subscribe(new_key()[1])
    verdict = await web.send(registration(subscription), message())
    assert verdict.outcome is Outcome.REFUSED
    assert service.attempts[subscription.endpoint] == 2


async def test_who_is_refused_after_others_were_accepted_is_refused_alone(
    web: WebPush, service: PushService
) -> None:
    good, bad = service.subscribe(web.public_key), service.subscribe(web.public_key)
    service.answer_always(Answer(401), to=bad)
    one, other = registration(good, web.public_key), registration(bad, web.public_key)
    assert (await web.send(other, message())).outcome is Outcome.CREDENTIALS
    assert (await web.send(one, message())).outcome is Outcome.SENT
    assert (await web.send(other, message())).outcome is Outcome.REFUSED
    web._clock = lambda: time.time() + 3601
    assert (await web.send(other, message())).outcome is Outcome.CREDENTIALS


async def test_a_host_that_nobody_listed_says_nothing_of_credentials(
    service: PushService, keys: Path
) -> None:
    hosts = Hosts(["*"], allow_private=True)
    out = Outbound(hosts, ca_file=service.ca_file)
    subscription = service.subscribe()
    service.answer_always(Answer(401), to=subscription)
    try:
        web = WebPush(load_keys(keys), SUBJECT, out, hosts)
        verdict = await web.send(registration(subscription), message())
    finally:
        await out.aclose()
    assert verdict.outcome is Outcome.REFUSED


async def test_an_address_that_is_allowed_no_more_is_refused(
    service: PushService, keys: Path
) -> None:
    subscription = service.subscribe()
    strict = Hosts()
    out = Outbound(strict)
    verdict = await WebPush(load_keys(keys), SUBJECT, out, strict).send(
        registration(subscription), message()
    )
    assert verdict.outcome is Outcome.REFUSED
    assert service.attempts[subscription.endpoint] == 0


# --- registrations -------------------------------------------------------------------------------


def test_what_a_browser_gives_is_taken_in_any_base64(web: WebPush, service: PushService) -> None:
    subscription = service.subscribe()
    made = registration(subscription)
    web.check(made)
    point = b64encode(_bytes(made.p256dh)).decode()
    auth = b64encode(subscription.auth).decode()
    web.check(_with(made, p256dh=point, auth=auth, vapid_key=web.public_key + "="))
    web.check(_with(made, p256dh=point.rstrip("="), auth=auth.rstrip("=")))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"address": "ftp://localhost/"}, "endpoint: "),
        ({"address": ""}, "endpoint: "),
        ({"p256dh": ""}, "p256dh is not 65 bytes"),
        ({"p256dh": "A" * 87}, "p256dh is not a point"),
        ({"p256dh": "é" * 87}, "p256dh is not 65 bytes"),
        ({"p256dh": "!" * 87}, "p256dh is not 65 bytes"),
        ({"p256dh": "A" * 100_000}, "p256dh is not 65 bytes"),
        ({"auth": "A" * 21}, "auth is not 16 bytes"),
        ({"auth": "A" * 24}, "auth is not 16 bytes"),
        ({"vapid_key": "B" + "A" * 86}, "made with a key that this server does not have"),
    ],
)
def test_what_no_browser_gives_is_refused(
    web: WebPush, service: PushService, fields: dict[str, str], what: str
) -> None:
    with pytest.raises(InvalidRequest, match=what):
        web.check(_with(registration(service.subscribe()), **fields))


def _with(made: PushRegistration, **fields: str) -> PushRegistration:
    return msgspec.structs.replace(made, **fields)


def _bytes(text: str) -> bytes:
    return decoded(text)
