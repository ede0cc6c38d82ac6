"""APNs without a network: keys, tokens, payloads, and what answers mean."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.push import MAX_PAYLOAD, PushText
from pushsvc.push import apns
from pushsvc.push.apns import Apns, ApnsKey, ProviderToken, headers_of, payload, verdict_of
from pushsvc.push.outbound import Answer
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from tests.support.certificates import write_key
from tests.support.push import message, messages, registration

NOW = 1_764_547_200.0
KEY = ApnsKey(ec.generate_private_key(ec.SECP256R1()), "ABC123DEFG", "DEF123GHIJ")


def test_the_key_is_read_from_apples_file(tmp_path: Path) -> None:
    file = tmp_path / "AuthKey_ABC123DEFG.p8"
    write_key(file, KEY.key)
    read = apns.load_key(file, key_id="ABC123DEFG", team_id="DEF123GHIJ")
    assert read.key.private_numbers() == KEY.key.private_numbers()
    assert read[1:] == ("ABC123DEFG", "DEF123GHIJ")


def test_a_file_that_is_no_such_key_is_refused_with_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key.p8"

    def refusal() -> str:
        with pytest.raises(ValueError, match=r"^(is|cannot)") as refused:
            apns.load_key(file, key_id="ABC123DEFG", team_id="DEF123GHIJ")
        return str(refused.value)

    assert refusal() == "cannot be read: No such file or directory"
    for text in (b"", b"{}", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        file.write_bytes(text)
        assert "not a private key as Apple gives it out" in refusal()
    write_key(file, KEY.key, b"secret")
    assert "not a private key as Apple gives it out" in refusal()
    write_key(file, rsa.generate_private_key(65537, 2048))
    assert "P-256" in refusal()
    write_key(file, ec.generate_private_key(ec.SECP384R1()))
    assert "P-256" in refusal()
    file.write_bytes(b"x" * 20_000)
    assert "larger than" in refusal()


def test_ids_of_keys_and_teams_are_ten_capitals_and_digits() -> None:
    assert apns.is_apple_id("ABC123DEFG")
    for text in ("", "abc123defg", "ABC123DEF", "ABC123DEFG1", "ABC123DEF\n", "ABC123DEF-"):
        assert not apns.is_apple_id(text)


class Clock:
    """Unix seconds, as a test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def issued(token: str) -> int:
    claims = jwt.decode(
        token, KEY.key.public_key(), algorithms=["ES256"], options={"verify_iat": False}
    )
    assert claims["iss"] == "DEF123GHIJ"
    assert jwt.get_unverified_header(token)["kid"] == "ABC123DEFG"
    return int(claims["iat"])


def test_a_provider_token_lasts_between_20_and_60_minutes(clock: Clock) -> None:
    token = ProviderToken(KEY, clock)
    seen = [token.current()]
    for _ in range(240):
        clock.now += 60
        now = token.current()
        assert clock.now - issued(now) < 3600
        if now != seen[-1]:
            assert issued(now) - issued(seen[-1]) >= 1200
            seen.append(now)
    assert len(seen) == 7


def test_one_that_is_refused_as_too_old_is_replaced_once_in_20_minutes(clock: Clock) -> None:
    token = ProviderToken(KEY, clock)
    first = token.current()
    assert token.after(first) is None
    clock.now += 1200
    second = token.after(first)
    assert second is not None
    assert issued(second) == clock.now
    assert token.after(first) == second == token.current()
    assert token.after(second) is None


def test_a_clock_that_was_put_right_makes_a_new_one(clock: Clock) -> None:
    token = ProviderToken(KEY, clock)
    wrong = token.current()
    clock.now -= 7200
    assert issued(token.current()) == clock.now
    clock.now += 10 * 7200
    assert issued(token.current()) == clock.now
    assert issued(wrong) == NOW


@pytest.fixture
def provider() -> Apns:
    return Apns(KEY)


@pytest.mark.parametrize("token", ["ab" * 32, "AB" * 32, "0f" * 50, "ab" * 100])
def test_device_tokens_of_many_lengths_are_taken(provider: Apns, token: str) -> None:
    provider.check(registration(address=token))


@pytest.mark.parametrize(
    "token", ["", "ab" * 31, "ab" * 101, "ab" * 32 + "a", "zz" * 32, "ab/../" * 11, "٣٣" * 32]
)
def test_what_is_no_device_token_is_refused(provider: Apns, token: str) -> None:
    with pytest.raises(InvalidRequest, match="'token'"):
        provider.check(registration(address=token))


@pytest.mark.parametrize("topic", ["", "com.example.äpp", "com example", "a\r\nb", "a" * 256])
def test_what_is_no_bundle_id_is_refused(provider: Apns, topic: str) -> None:
    with pytest.raises(InvalidRequest, match="'topic'"):
        provider.check(registration(topic=topic))


def test_a_payload_has_the_text_for_people_and_the_ids_for_the_app() -> None:
    told = message(
        text=PushText("Your order", "It is on its way.", url="/orders/7", icon="/i.png"),
        badge=3, group="order.shipped",
    )  # fmt: skip
    assert json.loads(payload(told)) == {
        "aps": {
            "alert": {"title": "Your order", "body": "It is on its way."},
            "badge": 3,
            "thread-id": "order.shipped",
            "mutable-content": 1,
        },
        "pushsvc": {
            "id": "1764547200000-0",
            "capability": "pc1.c2VhbGVk",
            "url": "/orders/7",
        },
    }


def test_without_a_text_the_app_is_woken_to_fetch_it() -> None:
    told = message(badge=0, group="order.shipped").ids_only()
    assert json.loads(payload(told)) == {
        "aps": {"alert": {"loc-key": "New notification"}, "badge": 0, "mutable-content": 1},
        "pushsvc": {"id": "1764547200000-0", "capability": "pc1.c2VhbGVk"},
    }


@given(messages)
def test_a_payload_is_json_within_its_bound(told: PushMessage) -> None:
    made = payload(told)
    assert len(made) <= MAX_PAYLOAD
    assert json.loads(made)["pushsvc"]["id"] == told.notification


@given(messages)
def test_headers_are_such_that_http2_carries_them(told: PushMessage) -> None:
    for _, value in headers_of(registration(), told, NOW):
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()
    headers = dict(headers_of(registration(), told, NOW))
    assert len(headers.get("apns-collapse-id", "")) <= 64
    assert ("apns-collapse-id" in headers) == bool(told.tag)


def test_headers_say_what_and_until_when() -> None:
    told = message(tag="order-7", ttl=60)
    headers = dict(headers_of(registration(), told, NOW + 0.9))
    assert (
        str(UUID(headers.pop("apns-id"))) == dict(headers_of(registration(), told, 0.0))["apns-id"]
    )
    assert headers == {
        "apns-topic": "com.example.app",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": "1764547260",
        "apns-collapse-id": "order-7",
    }
    low = dict(headers_of(registration(), message(urgency="low", ttl=0), NOW))
    assert (low["apns-priority"], low["apns-expiration"]) == ("5", "0")


def test_two_devices_have_two_ids_and_a_repeat_has_the_same() -> None:
    one, two = (
        dict(headers_of(registration(id=each), message(), NOW))["apns-id"] for each in ("r1", "r2")
    )
    assert one != two


def test_a_long_tag_and_one_that_may_not_be_told_are_digests() -> None:
    long, short = message(tag="t" * 65), message(tag="order-7")
    assert apns.collapse_id(long) != "t" * 65
    assert len(apns.collapse_id(long)) == 32
    assert apns.collapse_id(short) == "order-7"
    assert len(apns.collapse_id(short.ids_only())) == 32
    assert len(apns.collapse_id(message(tag="bestellung-ä"))) == 32


def answered(status: int, reason: str = "", **more: Any) -> Answer:
    headers = more.pop("headers", {})
    body = json.dumps({"reason": reason} | more).encode() if reason else b""
    return Answer(status, headers, body)


def verdicts() -> Iterator[tuple[int, str, Outcome]]:
    yield 200, "", Outcome.SENT
    for status, reason in (
        (400, "BadDeviceToken"), (400, "DeviceTokenNotForTopic"), (410, "ExpiredToken"),
        (410, "Unregistered"),
    ):  # fmt: skip
        yield status, reason, Outcome.GONE
    yield 413, "PayloadTooLarge", Outcome.TOO_LARGE
    for reason in (
        "InvalidProviderToken", "MissingProviderToken", "ExpiredProviderToken", "Forbidden",
        "BadCertificate", "BadCertificateEnvironment", "UnrelatedKeyIdInToken",
        "BadEnvironmentKeyInToken", "BadEnvironmentKeyIdInToken", "SomethingNew",
    ):  # fmt: skip
        yield 403, reason, Outcome.CREDENTIALS
    for reason in (
        "TopicDisallowed", "BadTopic", "MissingTopic", "BadCollapseId", "BadExpirationDate",
        "BadMessageId", "BadPriority", "DuplicateHeaders", "InvalidPushType",
        "MissingDeviceToken", "PayloadEmpty", "SomethingNew",
    ):  # fmt: skip
        yield 400, reason, Outcome.REFUSED
    yield 404, "BadPath", Outcome.REFUSED
    yield 405, "MethodNotAllowed", Outcome.REFUSED
    for status, reason in (
        (400, "IdleTimeout"), (429, "TooManyRequests"), (429, "TooManyProviderTokenUpdates"),
        (500, "InternalServerError"), (503, "ServiceUnavailable"), (503, "Shutdown"),
    ):  # fmt: skip
        yield status, reason, Outcome.RETRY


@pytest.mark.parametrize(("status", "reason", "outcome"), list(verdicts()))
def test_each_of_apples_reasons_has_its_verdict(status: int, reason: str, outcome: Outcome) -> None:
    verdict = verdict_of(answered(status, reason), registration(), NOW)
    assert verdict.outcome is outcome
    assert verdict.detail in {reason, str(status), ""}


def test_a_wait_that_apple_asks_for_is_told() -> None:
    asked = answered(503, "ServiceUnavailable", headers={"retry-after": "17"})
    assert verdict_of(asked, registration(), NOW).retry_after == 17.0
    updates = answered(429, "TooManyProviderTokenUpdates")
    assert verdict_of(updates, registration(), NOW).retry_after == 60.0


@pytest.mark.parametrize("at", [0, 1_000, 1_001])
def test_a_registration_made_after_its_end_is_not_gone(at: int) -> None:
    said = answered(410, "Unregistered", timestamp=1_000)
    verdict = verdict_of(said, registration(at=at), NOW)
    assert verdict.outcome is (Outcome.REFUSED if at == 1_001 else Outcome.GONE)


@pytest.mark.parametrize("timestamp", ["1000", None, [], True])
def test_a_time_that_is_none_does_not_keep_a_registration(timestamp: Any) -> None:
    said = answered(410, "Unregistered", timestamp=timestamp)
    assert verdict_of(said, registration(at=2_000), NOW).outcome in {Outcome.GONE, Outcome.REFUSED}


def test_a_key_of_the_other_environment_is_no_reason_to_stop_for_a_sandbox_registration() -> None:
    said = answered(403, "BadEnvironmentKeyInToken")
    assert verdict_of(said, registration(sandbox=True), NOW) == Verdict(
        Outcome.REFUSED, "BadEnvironmentKeyInToken"
    )


@pytest.mark.parametrize("status", [301, 400, 403, 404, 407, 410, 418, 429, 500, 502, 503])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"x"',
        b"{}",
        b'{"reason":7}',
        b'{"reason":"<b>"}',
        b"\xff",
        b"[" * 4096,
    ],
)
def test_an_answer_that_is_not_apples_removes_nothing_and_stops_nothing(
    status: int, body: bytes
) -> None:
    verdict = verdict_of(Answer(status, {}, body), registration(), NOW)
    assert verdict == Verdict(Outcome.RETRY, str(status))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "https://", "https://u:p@host", "example.com", "https://h:99999"]
)
def test_an_address_that_is_no_origin_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Apns(KEY, url=url)


def test_a_file_of_authorities_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        Apns(KEY, ca_file=file)
    file.write_text("no")
    with pytest.raises(ValueError, match="no PEM file"):
        Apns(KEY, ca_file=file)
