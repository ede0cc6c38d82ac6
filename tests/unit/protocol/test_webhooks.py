"""What is signed, checked by the standard's own library; and when to try again."""

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from pushsvc.protocol import ids, webhooks
from pushsvc.protocol.webhooks import Verdict

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
DATA = '{"id":"1-0","user":"ü"}'.encode()


def test_another_implementation_accepts_the_signature() -> None:
    body = webhooks.payload("receipt", "2026-01-01T00:00:00.000Z", DATA)
    headers = webhooks.headers(webhooks.secret_bytes(SECRET), "msg_1", int(time.time()), body)
    assert Webhook(SECRET).verify(body, headers) == {
        "type": "receipt",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "data": json.loads(DATA),
    }


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_another_implementation_refuses_what_was_changed(changed: str) -> None:
    headers = webhooks.headers(KEY, "msg_1", int(time.time()), b"{}")
    other = webhooks.headers(KEY[1:], "msg_2", int(time.time()) - 1, b"{}")
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b"{}", headers | {changed: other[changed]})


@pytest.mark.parametrize("size", [24, 64])
def test_a_secret_of_good_size_is_read(size: int) -> None:
    key = bytes(size)
    assert webhooks.secret_bytes("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", SECRET.removeprefix("whsec_"), SECRET + "!", "whsec_" + "ü" * 40]
    + ["whsec_" + base64.b64encode(bytes(size)).decode() for size in (23, 65)],
)
def test_other_secrets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        webhooks.secret_bytes(text)


def test_a_message_has_one_id_and_no_full_stop_in_it() -> None:
    first = webhooks.message_id("r:a.b", ids.parse("1-0"))
    assert first == webhooks.message_id("r:a.b", ids.parse("1-0"))
    assert len({first, webhooks.message_id("r:a.b", 1), webhooks.message_id("r:a", 1)}) == 3
    assert "." not in first


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED), (204, Verdict.DELIVERED), (410, Verdict.GONE),
        (301, Verdict.RETRY), (307, Verdict.RETRY), (400, Verdict.RETRY), (404, Verdict.RETRY),
        (429, Verdict.RETRY), (500, Verdict.RETRY), (199, Verdict.RETRY), (600, Verdict.RETRY),
    ],
)  # fmt: skip
def test_only_success_is_success_and_only_410_is_the_end(status: int, verdict: Verdict) -> None:
    assert webhooks.verdict(status) is verdict


def test_pauses_double_until_an_hour() -> None:
    assert [webhooks.pause(n, 1.0) for n in (1, 2, 3, 12)] == [1, 2, 4, 2048]
    assert webhooks.pause(13, 1.0) == webhooks.pause(10**9, 1.0) == 3600


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1e12))
def test_a_pause_is_jittered_over_its_whole_length_and_heeds_what_is_asked_for(
    failures: int, chance: float, asked: float
) -> None:
    most = webhooks.pause(failures, 1.0)
    assert webhooks.pause(failures, chance) == pytest.approx(chance * most)
    assert webhooks.pause(failures, chance, asked) >= min(asked, 86_400)
    assert webhooks.pause(failures, chance, asked) <= 86_400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120), (" 7 ", 7), ("0", 0), ("-1", 0), ("1.5", 0), ("", 0), ("soon", 0),
        ("٣", 0), ("9" * 30, 0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 99 Jan 1970 00:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_a_receiver_asks_for_a_pause_in_seconds_or_by_a_date(value: str, seconds: float) -> None:
    assert webhooks.retry_after({"Retry-After": value}, 1000.0) == seconds
    assert webhooks.retry_after({}, 1000.0) == 0


@given(st.text())
def test_no_answer_breaks_the_reading_of_a_pause(value: str) -> None:
    assert webhooks.retry_after({"Retry-After": value}, 1000.0) >= 0
