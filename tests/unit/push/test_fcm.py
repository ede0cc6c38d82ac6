"""FCM without a network: credentials, messages, and what answers mean."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.push import MAX_PAYLOAD, PushText
from pushsvc.push import fcm
from pushsvc.push.fcm import Fcm, FcmCredentials, request, verdict_of
from pushsvc.push.hosts import Hosts
from pushsvc.push.outbound import Answer, Outbound
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from tests.support.push import message, messages, registration

NOW = 1_764_547_200.0
KEY = rsa.generate_private_key(65537, 2048)
TO = registration(provider="fcm", address="fQ:APA91b-_", topic="")


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def credentials(**fields: Any) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": "example-project",
        "private_key_id": "0123",
        "private_key": pem(KEY),
        "client_email": "sender@example-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    } | fields


def test_the_key_of_a_service_account_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(credentials()))
    read = fcm.load_credentials(file)
    assert read.key.private_numbers() == KEY.private_numbers()
    assert read[:2] == ("example-project", "sender@example-project.iam.gserviceaccount.com")
    assert read[3:] == ("0123", "https://oauth2.googleapis.com/token")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "authorized_user"}, "'type'"),
        ({"project_id": "a/../b"}, "'project_id'"),
        ({"project_id": ""}, "'project_id'"),
        ({"project_id": 7}, "project_id"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, "'token_uri'"),
        ({"token_uri": "https://u:p@host/token"}, "'token_uri'"),
        ({"token_uri": "https://[/token"}, "'token_uri'"),
        ({"token_uri": ""}, "'token_uri'"),
        ({"private_key": "no"}, "'private_key'"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "'private_key'"),
    ],
)
def test_credentials_that_are_none_are_refused_with_what_is_wrong(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(credentials(**fields)))
    with pytest.raises(ValueError, match=says) as refused:
        fcm.load_credentials(file)
    assert "PRIVATE" not in str(refused.value)


@pytest.mark.parametrize(
    "text", [b"", b"no", b"[]", b"{}", b"\xff\xfe", b"[" * 5000, b"x" * 70_000]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "key.json"
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        fcm.load_credentials(file)
    file.write_bytes(text)
    with pytest.raises(ValueError, match=r"^(is|holds) "):
        fcm.load_credentials(file)


def test_a_key_of_this_machines_own_double_may_ask_in_the_clear(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(credentials(token_uri="http://127.0.0.1:9/token")))
    assert fcm.load_credentials(file).token_uri == "http://127.0.0.1:9/token"


@pytest.fixture
def provider() -> Fcm:
    return Fcm(FcmCredentials("p", "e", KEY, "k", "https://127.0.0.1/token"), Outbound(Hosts()))


@pytest.mark.parametrize("token", ["fQ:APA91b-_", "x", "%" * 4096])
def test_registration_tokens_of_many_kinds_are_taken(provider: Fcm, token: str) -> None:
    provider.check(registration(provider="fcm", address=token))


@pytest.mark.parametrize("token", ["", "a b", 'a"b', "a\\b", "ä", "a\n", "x" * 4097])
def test_what_is_no_registration_token_is_refused(provider: Fcm, token: str) -> None:
    with pytest.raises(InvalidRequest, match="'token'"):
        provider.check(registration(provider="fcm", address=token))


def asked(told: PushMessage) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request(TO, told))
    assert list(body) == ["message"]
    wanted: dict[str, Any] = body["message"]
    assert wanted.pop("token") == "fQ:APA91b-_"
    return wanted


def test_a_message_has_the_text_for_people_and_the_ids_for_the_app() -> None:
    told = message(
        text=PushText("Your order", "It is on its way.", url="/o/7", icon="/i.png"),
        badge=3, tag="order-7", group="order.shipped",
    )  # fmt: skip
    assert asked(told) == {
        "notification": {"title": "Your order", "body": "It is on its way."},
        "data": {
            "id": "1764547200000-0",
            "capability": "pc1.c2VhbGVk",
            "url": "/o/7",
            "tag": "order-7",
            "group": "order.shipped",
            "badge": "3",
        },
        "android": {
            "ttl": "3600s",
            "priority": "HIGH",
            "collapse_key": "order-7",
            "notification": {"tag": "order-7", "notification_count": 3},
        },
    }


def test_without_a_text_it_is_data_for_the_app_only() -> None:
    told = message(badge=1, tag="order-7", group="g", urgency="low", ttl=0).ids_only()
    wanted = asked(told)
    key = wanted["android"].pop("collapse_key")
    assert (len(key), key.isalnum()) == (32, True)
    assert wanted == {
        "data": {"id": "1764547200000-0", "capability": "pc1.c2VhbGVk", "badge": "1"},
        "android": {"ttl": "0s", "priority": "NORMAL"},
    }


def test_a_text_that_shows_nothing_is_data_too() -> None:
    assert "notification" not in asked(message(text=PushText()))
    assert set(asked(message())["android"]) == {"ttl", "priority"}


@given(messages)
def test_a_message_is_json_within_its_bound(told: PushMessage) -> None:
    made = request(TO, told)
    wanted = asked(told)
    assert len(made) - len('"token":"fQ:APA91b-_",') <= MAX_PAYLOAD
    assert wanted["data"]["id"] == told.notification
    assert all(isinstance(each, str) for each in wanted["data"].values())
    assert len(wanted["android"].get("collapse_key", "").encode()) <= 64
    assert 0 <= int(wanted["android"]["ttl"].removesuffix("s")) <= 2_419_200


def answered(status: int, name: str, code: str = "", words: str = "", *more: Any) -> Answer:
    details = [{"@type": fcm._ERROR_TYPE, "errorCode": code}] if code else []
    body = {"code": status, "message": words, "status": name, "details": [*details, *more]}
    return Answer(status, {}, json.dumps({"error": body}).encode())


@pytest.mark.parametrize(
    ("status", "name", "code", "outcome"),
    [
        (404, "NOT_FOUND", "UNREGISTERED", Outcome.GONE),
        (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", Outcome.GONE),
        (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", Outcome.REFUSED),
        (400, "FAILED_PRECONDITION", "", Outcome.REFUSED),
        (404, "NOT_FOUND", "", Outcome.REFUSED),
        (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", Outcome.RETRY),
        (429, "RESOURCE_EXHAUSTED", "", Outcome.RETRY),
        (503, "UNAVAILABLE", "UNAVAILABLE", Outcome.RETRY),
        (500, "INTERNAL", "INTERNAL", Outcome.RETRY),
        (502, "UNKNOWN", "", Outcome.RETRY),
        (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", Outcome.REFUSED),
        (401, "UNAUTHENTICATED", "", Outcome.CREDENTIALS),
        (403, "PERMISSION_DENIED", "", Outcome.CREDENTIALS),
    ],
)
def test_each_of_googles_codes_has_its_verdict(
    status: int, name: str, code: str, outcome: Outcome
) -> None:
    assert verdict_of(answered(status, name, code), NOW) == Verdict(outcome, code or name)


def test_what_is_accepted_is_sent() -> None:
    assert verdict_of(Answer(200, {}, b"{}"), NOW) == Verdict(Outcome.SENT)


def test_an_invalid_argument_that_is_the_token_means_that_it_is_gone() -> None:
    words = "The registration token is not a valid FCM registration token"
    violation = {"fieldViolations": [{"field": "message.token", "description": "Invalid"}]}
    for said in (
        answered(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", words),
        answered(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "", violation),
    ):
        assert verdict_of(said, NOW) == Verdict(Outcome.GONE, "INVALID_ARGUMENT: token")


def test_an_invalid_argument_that_is_the_size_asks_for_less() -> None:
    said = answered(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Android message is too big")
    assert verdict_of(said, NOW).outcome is Outcome.TOO_LARGE


def test_a_wait_that_google_asks_for_is_told() -> None:
    said = answered(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    asked = said._replace(headers={"retry-after": "60"})
    assert verdict_of(asked, NOW) == Verdict(Outcome.RETRY, "QUOTA_EXCEEDED", 60.0)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 407, 410, 429, 500, 503])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":"x"}', b"\xff", b"[" * 4096])
def test_an_answer_that_is_not_googles_removes_nothing_and_stops_nothing(
    status: int, body: bytes
) -> None:
    assert verdict_of(Answer(status, {}, body), NOW) == Verdict(Outcome.RETRY, str(status))


@pytest.mark.parametrize(
    "error",
    [
        {"details": 7},
        {"details": [7, {"@type": fcm._ERROR_TYPE, "errorCode": ["UNREGISTERED"]}]},
        {"details": [{"fieldViolations": 7}, {"fieldViolations": ["x"]}], "message": 7},
        {"details": [{"@type": fcm._ERROR_TYPE, "errorCode": "<script>"}], "status": 7},
    ],
)
@pytest.mark.parametrize("status", [400, 404])
def test_what_has_other_shapes_is_a_refusal(status: int, error: dict[str, Any]) -> None:
    verdict = verdict_of(Answer(status, {}, json.dumps({"error": error}).encode()), NOW)
    assert verdict == Verdict(Outcome.REFUSED, str(status))
