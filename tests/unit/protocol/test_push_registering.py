"""What a device may say of where it is reached, and what is made of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.push import PushRegistration
from pushsvc.protocol.push_registering import (
    MAX_APP,
    MAX_DEVICE_TOKEN,
    MAX_ENDPOINT,
    MAX_KEY,
    PROVIDERS,
    host_of,
    registration_from,
)

ENDPOINT = "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABl"
SUBSCRIPTION = {
    "endpoint": ENDPOINT,
    "expirationTime": None,
    "keys": {"p256dh": "BDd3", "auth": "BTBZ"},
}
WEB = {"provider": "web", "subscription": SUBSCRIPTION}
APNS = {"provider": "apns", "token": "00fc13ad", "topic": "com.example.app"}
FCM = {"provider": "fcm", "token": "bk3RNwTe3H0:CI2k_HHw"}


def made(value: Any, offered: Any = PROVIDERS) -> PushRegistration:
    return registration_from(value, offered, at=5, token_key=7, issued=9)


def refused(value: Any, offered: Any = PROVIDERS) -> str:
    with pytest.raises(InvalidRequest) as caught:
        made(value, offered)
    assert caught.value.status == 400
    return caught.value.detail


def test_a_subscription_is_kept_as_a_browser_gives_it() -> None:
    found = made(WEB)
    assert (found.provider, found.address) == ("web", ENDPOINT)
    assert (found.p256dh, found.auth, found.vapid_key) == ("BDd3", "BTBZ", "")
    assert (found.at, found.token_key, found.issued) == (5, 7, 9)
    assert made({**WEB, "key": "BPub"}).vapid_key == "BPub"
    assert host_of(found) == "updates.push.services.mozilla.com"


def test_an_app_is_kept_with_what_its_provider_needs() -> None:
    found = made(APNS)
    assert (found.provider, found.address, found.topic) == ("apns", "00fc13ad", "com.example.app")
    assert not found.sandbox
    assert made({**APNS, "environment": "sandbox"}).sandbox
    found = made(FCM)
    assert (found.provider, found.address) == ("fcm", "bk3RNwTe3H0:CI2k_HHw")
    assert host_of(found) == host_of(made(APNS)) == ""


def test_each_registration_has_an_id_of_its_own() -> None:
    assert len({made(FCM).id for _ in range(100)}) == 100


def test_only_a_provider_that_the_server_has_is_taken() -> None:
    assert '"provider" is web or fcm' in refused(APNS, ["web", "fcm"])
    assert "this server reaches no devices that are away" in refused(APNS, [])
    assert '"provider" is web or apns or fcm' in refused({**FCM, "provider": "sms"})
    assert '"provider" is' in refused({"token": "x"})
    assert '"provider" is' in refused({**FCM, "provider": ["fcm"]})


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "web",
        {"provider": "web"},
        {**WEB, "subscription": {"endpoint": ENDPOINT}},
        {**WEB, "subscription": {**SUBSCRIPTION, "keys": {"p256dh": "BDd3"}}},
        {**WEB, "subscription": {**SUBSCRIPTION, "endpoint": 1}},
        {**WEB, "token": "x"},
        {**APNS, "environment": "test"},
        {**APNS, "topic": ""},
        {"provider": "apns", "token": "00fc13ad"},
        {**FCM, "topic": "x"},
    ],
)
def test_what_has_another_shape_is_refused(value: Any) -> None:
    refused(value)


def of_subscription(**changed: Any) -> Any:
    keys = {**SUBSCRIPTION["keys"], **changed.pop("keys", {})}  # type: ignore[dict-item]
    return {**WEB, "subscription": {**SUBSCRIPTION, **changed, "keys": keys}}


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda text: of_subscription(endpoint=text), MAX_ENDPOINT),
        (lambda text: of_subscription(keys={"p256dh": text}), MAX_KEY),
        (lambda text: of_subscription(keys={"auth": text}), MAX_KEY),
        (lambda text: {**WEB, "key": text}, MAX_KEY),
        (lambda text: {**APNS, "token": text}, MAX_DEVICE_TOKEN),
        (lambda text: {**APNS, "topic": text}, MAX_APP),
        (lambda text: {**FCM, "token": text}, MAX_DEVICE_TOKEN),
    ],
)
def test_every_text_is_bounded_and_printable(make: Any, most: int) -> None:
    assert made(make("x" * most))
    for text in ("x" * (most + 1), "a b", "a\n", "ä", "a\x00", "\ud800"):
        assert f"1 to {most} printable ASCII characters" in refused(make(text))
        assert text not in refused(make(text))


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["provider", "subscription", "keys", "token", "topic"]) | st.text(), inner
    ),
) | st.fixed_dictionaries({"provider": st.sampled_from(PROVIDERS)}))  # fmt: skip
def test_anything_else_is_refused_and_not_met_with_an_error(value: Any) -> None:
    refused(value)


@given(st.text().map(lambda text: of_subscription(endpoint=text)))
def test_no_endpoint_is_met_with_an_error(value: Any) -> None:
    try:
        found = made(value)
    except InvalidRequest:
        return
    assert isinstance(host_of(found), str)
