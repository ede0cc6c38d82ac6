"""Questions of a backend as requests, and what their answers say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pushsvc.client import asking
from pushsvc.client.asking import Question
from pushsvc.client.calls import Request

AWKWARD = "a/b?c&d=ü %2F..+#"
ENCODED = "a%2Fb%3Fc%26d%3D%C3%BC%20%252F..%2B%23"
SCHEDULED = "s-" + "0" * 24
_FIFTH = datetime.fromtimestamp(5, UTC)


@pytest.mark.parametrize(
    ("question", "method", "path"),
    [
        (asking.page(AWKWARD), "GET", f"/v1/user/notifications?user={ENCODED}&limit=100"),
        (asking.page("u", "1-0", 5), "GET", "/v1/user/notifications?user=u&before=1-0&limit=5"),
        (
            asking.recall(f"s-{'0a' * 12}", "u", None, broadcast=False),
            "DELETE",
            f"/v1/user/notifications/s-{'0a' * 12}?user=u",
        ),
        (
            asking.recall("1-0", AWKWARD, None, broadcast=False),
            "DELETE",
            f"/v1/user/notifications/1-0?user={ENCODED}",
        ),
        (
            asking.recall(SCHEDULED, None, AWKWARD, broadcast=False),
            "DELETE",
            f"/v1/topic/notifications/{SCHEDULED}?topic={ENCODED}",
        ),
        (
            asking.recall(SCHEDULED, None, None, broadcast=True),
            "DELETE",
            f"/v1/broadcast/notifications/{SCHEDULED}",
        ),
        (asking.devices(AWKWARD), "GET", f"/v1/user/presence?user={ENCODED}"),
        (asking.presence(AWKWARD), "GET", f"/v1/topic/presence?topic={ENCODED}"),
        (asking.disconnect(AWKWARD, None), "POST", f"/v1/user/disconnect?user={ENCODED}"),
        (asking.receipts(None, 100, 0), "GET", "/v1/receipts?limit=100"),
        (asking.receipts("1-0", 5, 20), "GET", "/v1/receipts?after=1-0&limit=5&wait=20"),
        (asking.revocations(), "GET", "/v1/revocations"),
        (asking.ticket(None), "POST", "/v1/tickets"),
    ],
)
def test_names_are_in_the_query_percent_encoded(
    question: Question[Any], method: str, path: str
) -> None:
    assert (question.request.method, question.request.path) == (method, path)
    assert question.request.body is None


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"user": "u"}, b'{"user": "u"}'),
        ({"user": "u", "issued_before": 1.9}, b'{"user": "u", "issued_before": 1}'),
        ({"everyone": True, "issued_before": _FIFTH}, b'{"issued_before": 5}'),
        ({"jti": "j", "ttl": 60}, b'{"jti": "j", "ttl": 60}'),
    ],
)  # fmt: skip
def test_a_revocation_names_its_tokens_once(given: dict[str, Any], body: bytes) -> None:
    whole: dict[str, Any] = {"user": None, "jti": None, "issued_before": None, "ttl": None}
    question = asking.revoke(**{**whole, "everyone": False, **given})
    assert question.request == Request("/v1/revocations", body, 201)


def test_waiting_for_a_receipt_takes_as_much_longer() -> None:
    assert asking.receipts(None, 1, 25).request.wait == 25


def test_the_token_of_another_is_no_part_of_what_is_shown() -> None:
    request = asking.ticket("secret").request
    assert request.bearer == "secret"
    assert "secret" not in repr(request)


def test_devices_that_acked_at_a_time_that_is_forgotten_are_told_without_it() -> None:
    told = {
        "notifications": [
            {
                "id": "1-0", "time": "2025-11-24T16:00:00.123Z",
                "expires": "2025-12-01T16:00:00.123Z", "data": None,
                "acked": [{"device": "phone", "time": None}],
            }
        ],
        "next": None,
    }  # fmt: skip
    page = asking.page("u").read(told)
    assert page.notifications[0].acked == (asking.Acked("phone", None),)
    assert page.notifications[0].time == datetime(2025, 11, 24, 16, 0, 0, 123_000, UTC)
