"""What a node answers to what clients say, and when it has heard enough."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish, publish_all
from tests.support.nodes import Node, token, wait_until
from tests.support.phone import Phone
from tests.support.raw import CLOSE, PING, PONG, TEXT, RawSocket, frame

pytestmark = pytest.mark.promise

ERRORS = 20
"""How many errors in a row a connection may make."""


@pytest.fixture(scope="module")
def quick(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a short heartbeat."""
    with Node(
        valkey.url, tmp_path_factory.mktemp("quick"), prefix="quick", heartbeat_seconds=1
    ) as running:
        yield running


def refused(message: dict[str, Any], code: str, *, ref: Any = None) -> dict[str, Any]:
    """Check the shape of an error message; the message."""
    assert message["type"] == "error", message
    assert set(message) - {"ref", "retry_after"} == {"type", "code", "detail", "temporary"}
    assert message["code"] == code, message
    assert len(message["detail"]) > 10
    assert message["temporary"] is (code == "rate_limited")
    assert message.get("ref") == ref
    return message


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut off": b'{"type":"ping"',
    "two values": b'{"type":"ping"}{"type":"ping"}',
    "a byte order mark": b'\xef\xbb\xbf{"type":"ping"}',
    "single quotes": b"{'type':'ping'}",
    "NaN": b'{"type":"ping","ref":NaN}',
    "minus infinity": b'{"type":"ping","ref":-Infinity}',
    "a number beyond a double": b'{"type":"ping","ref":1e999}',
    "an integer of 5,000 digits": b'{"type":"ping","ref":' + b"9" * 5000 + b"}",
    "the same name twice": b'{"type":"ping","ref":1,"ref":2}',
    "the same type twice": b'{"type":"ack","id":"1-0","type":"ping"}',
    "a raw NUL": b'{"type":"ping","ref":"\0"}',
    "a raw line feed": b'{"type":"ping","ref":"\n"}',
    "arrays 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "objects 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "10,000 deep in a field": b'{"type":"ping","ref":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "60,000 brackets": b"[" * 60_000,
    "a type that is half a pair": b'{"type":"\\ud800"}',
    "a field that is half a pair": b'{"type":"ping","\\udfff":1}',
    "an id that is half a pair": b'{"type":"ack","id":"\\uD800"}',
    "a ref that is half a pair": b'{"type":"ping","ref":"\\ud800"}',
    "a pair the wrong way round": b'{"type":"ping","ref":"\\udc00\\ud800"}',
    "an ack with a ref that is half a pair": b'{"type":"ack","id":"1-0","ref":"\\udc00"}',
    "an unknown type with such a ref": b'{"type":"dance","ref":"\\ud800"}',
    "a token that is half a pair": b'{"type":"refresh","token":"\\ud800","ref":"a"}',
}

NOT_A_MESSAGE: dict[str, bytes] = {
    "an array": b"[]",
    "a string": b'"ping"',
    "a number": b"1",
    "null": b"null",
    "no type": b"{}",
    "an unknown type": b'{"type":"dance"}',
    "a type of the server": b'{"type":"welcome"}',
    "a type that is no string": b'{"type":7}',
    "a type that is a list": b'{"type":["ping"]}',
    "an ack without an id": b'{"type":"ack"}',
    "an ack of a number": b'{"type":"ack","id":17}',
    "an ack of no id": b'{"type":"ack","id":"first"}',
    "an ack of half an id": b'{"type":"ack","id":"17"}',
    "an ack of a negative id": b'{"type":"ack","id":"-1-0"}',
    "an ack of a huge id": b'{"type":"ack","id":"99999999999999999999999-0"}',
    "an ack in other digits": '{"type":"ack","id":"\u0661-\u0660"}'.encode(),
    "an ack with a line feed": b'{"type":"ack","id":"1-0\\n"}',
    "an unknown field": b'{"type":"ping","reff":1}',
    "a ref that is a list": b'{"type":"ping","ref":[1]}',
    "a ref that is true": b'{"type":"ping","ref":true}',
    "a ref that is a fraction": b'{"type":"ping","ref":1.5}',
    "a refresh without a token": b'{"type":"refresh"}',
    "a type with an escaped NUL": b'{"type":"pi\\u0000ng"}',
}


@pytest.mark.parametrize("payload", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_i_json_is_answered_with_an_error(
    node: Node, user: str, payload: bytes
) -> None:
    with RawSocket(node, user) as raw:
        raw.send(frame(TEXT, payload))
        refused(raw.message(), "invalid_json")
        raw.pong()


@pytest.mark.parametrize("payload", NOT_A_MESSAGE.values(), ids=NOT_A_MESSAGE)
def test_what_is_no_message_is_answered_with_an_error(
    node: Node, user: str, payload: bytes
) -> None:
    with RawSocket(node, user) as raw:
        raw.send(frame(TEXT, payload))
        message = raw.message()
        refused(message, "invalid")
        raw.pong()


@pytest.mark.parametrize(
    "ref", [0, -1, 7, 2**53, 2**63, 2**64, 10**300, "", "a\0b", "é😀", "x" * 999]
)
@pytest.mark.parametrize(
    "message", [{"type": "dance"}, {"type": "ack", "id": "x"}, {"type": "refresh", "token": "x"}]
)
def test_an_error_carries_the_ref_of_its_message(
    node: Node, user: str, ref: Any, message: dict[str, Any]
) -> None:
    with RawSocket(node, user) as raw:
        raw.say(**message, ref=ref)
        answer = raw.message()
        refused(answer, answer["code"], ref=ref)
        raw.pong(ref)


@pytest.mark.parametrize("ref", [None, 0, "a", 2**64])
def test_a_ping_is_answered_with_a_pong(node: Node, user: str, ref: Any) -> None:
    with RawSocket(node, user) as raw:
        raw.say(type="ping", **({} if ref is None else {"ref": ref}))
        assert raw.message() == {"type": "pong"} | ({} if ref is None else {"ref": ref})


def test_a_null_ref_is_no_ref(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw:
        raw.say(type="ping", ref=None)
        assert raw.message() == {"type": "pong"}


def test_a_connection_that_keeps_making_errors_is_closed_with_4503(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw, RawSocket(node, user, "another") as other:
        for number in range(ERRORS):
            raw.say(type="dance", ref=number)
            refused(raw.message(), "invalid", ref=number)
        raw.pong()
        for number in range(ERRORS):
            raw.say(type="dance", ref=number)
        assert raw.closed() == 4503
        other.pong()


# --- rates ---------------------------------------------------------------------------------------


def test_messages_over_the_rate_are_refused_and_persistence_is_closed_with_4008(
    node: Node, user: str
) -> None:
    good = token(user)
    with RawSocket(node, user) as raw, RawSocket(node, user, "another") as other:
        for number in range(20):  # RATE_BURST at once
            raw.say(type="refresh", token=good, ref=number)
        replies = [raw.message() for _ in range(20)]
        assert [(each["type"], each["ref"]) for each in replies] == [
            ("reply", number) for number in range(20)
        ]
        for number in range(60):
            raw.say(type="refresh", token=good, ref=number)
        limited = 0
        while (answer := raw.frame())[0] == TEXT:
            message = json.loads(answer[1])
            if message["type"] == "error":
                refused(message, "rate_limited", ref=message["ref"])
                assert 0 < message["retry_after"] <= 10
                limited += 1
        assert limited == ERRORS + 1
        assert answer == (CLOSE, (4008).to_bytes(2) + answer[1][2:])
        other.say(type="refresh", token=good, ref=1)
        assert other.message()["type"] == "reply"


def test_who_waits_as_told_is_served_again(node: Node, user: str) -> None:
    good = token(user)
    with RawSocket(node, user) as raw:
        for _ in range(25):
            raw.say(type="refresh", token=good, ref="a")
        waits = [raw.message().get("retry_after", 0) for _ in range(25)]
        assert max(waits) > 0
        due = time.monotonic() + max(waits)
        wait_until(lambda: time.monotonic() >= due, "the time that was told")
        raw.say(type="refresh", token=good, ref="b")
        assert raw.message()["type"] == "reply"


async def test_a_client_that_acks_every_notification_is_never_limited(
    node: Node, user: str
) -> None:
    async with Phone(node, user) as phone:
        for first in range(0, 900, 300):
            sent = await publish_all(node, user, range(first, first + 300))
            notes = await phone.notifications(300, ack=True)
            assert [note["id"] for note in notes] == sent
        assert await phone.acked(sent[-1]) == sent[-1]
        await phone.silent()


# --- tokens --------------------------------------------------------------------------------------


async def test_a_refresh_with_a_new_token_is_answered_with_its_expiry(
    node: Node, user: str
) -> None:
    async with Phone(node, user, auth=token(user, ttl=300)) as phone:
        later = int(time.time()) + 900
        await phone.send(type="refresh", token=token(user, ttl=900), ref="r")
        reply = await phone.receive()
        assert reply == {"type": "reply", "ref": "r", "expires_at": reply["expires_at"]}
        assert abs(reply["expires_at"] - later) <= 2


async def test_a_refresh_for_another_user_is_closed_with_4500(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        await phone.send(type="refresh", token=token("somebody-else"), ref="r")
        assert await phone.closed() == 4500


async def test_a_refresh_with_a_bad_token_is_an_error_and_the_connection_lives(
    node: Node, user: str
) -> None:
    async with Phone(node, user) as phone:
        for bad in ("", "x", token(user)[:-2], token(user, ttl=-60)):
            await phone.send(type="refresh", token=bad, ref="r")
            refused(await phone.receive(), "invalid_token", ref="r")
        await phone.silent()


async def test_a_connection_is_told_before_its_token_expires_and_closed_with_4100_when_it_does(
    node: Node, user: str
) -> None:
    auth = token(user, ttl=3)
    async with Phone(node, user, auth=auth) as phone:
        notice = await phone.receive()
        assert notice["type"] == "error"
        assert notice["code"] == "token_expiring"
        assert notice["temporary"] is True
        assert "refresh" in notice["detail"]
        assert await phone.closed() == 4100
        late = time.time() - phone.welcome["expires_at"]
        assert -0.5 < late < 2.5


async def test_a_refreshed_connection_outlives_its_first_token(node: Node, user: str) -> None:
    async with Phone(node, user, auth=token(user, ttl=2)) as phone:
        await phone.send(type="refresh", token=token(user, ttl=600), ref="r")
        message = await phone.receive()
        while message["type"] == "error":
            assert message["code"] == "token_expiring"
            message = await phone.receive()
        assert message["type"] == "reply"
        async with Phone(node, user, "unrefreshed", auth=token(user, ttl=2)) as other:
            assert await other.closed() == 4100
        sent = await publish(node, user, "later")
        assert (await phone.notification())["id"] == sent


# --- heartbeats ----------------------------------------------------------------------------------


def test_a_silent_peer_is_pinged_and_then_closed_with_4002(quick: Node, user: str) -> None:
    with RawSocket(quick, user) as raw:
        assert raw.welcome["heartbeat"] == 1
        started = time.monotonic()
        assert raw.frame() == (PING, b"")
        opcode, payload = raw.frame()
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, 4002)
        assert time.monotonic() - started < 2 + 2.5


def outlive(quick: Node, user: str) -> None:
    """Answer pings, or talk, until a silent peer that came later was closed."""
    with (
        RawSocket(quick, user, "answers") as answers,
        RawSocket(quick, user, "talks") as talks,
        RawSocket(quick, user, "silent") as silent,
    ):
        for raw in (answers, talks, silent):
            raw.socket.settimeout(0.02)
        opcode = PING
        while opcode == PING:
            with suppress(TimeoutError):
                opcode, payload = answers.frame()
                assert opcode == PING
                answers.send(frame(PONG, payload))
            talks.say(type="ack", id="1-0")  # which is answered by nothing
            with suppress(TimeoutError):
                assert talks.frame()[0] == PING
            with suppress(TimeoutError):
                opcode = silent.frame()[0]
        for raw in (answers, talks):
            raw.socket.settimeout(10)
            raw.pong()


async def test_who_answers_pings_stays_and_so_does_who_says_anything(
    quick: Node, user: str
) -> None:
    async with Phone(quick, user, ping_interval=None) as phone:
        await asyncio.to_thread(outlive, quick, user)
        await phone.silent()


def test_errors_are_counted(node: Node, user: str) -> None:
    before = node.metric("pushsvc_client_errors_total", code="invalid")
    with RawSocket(node, user) as raw:
        raw.say(type="dance")
        raw.message()
    assert node.metric("pushsvc_client_errors_total", code="invalid") == before + 1


def test_an_error_names_what_is_wrong_and_not_the_implementation(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw:
        for payload, hint in (
            (b'{"type":"dance"}', "dance"),
            (b'{"type":"ack"}', "id"),
            (b'{"type":"ping","reff":1}', "reff"),
        ):
            raw.send(frame(TEXT, payload))
            detail = raw.message()["detail"]
            assert hint in detail
            assert "$" not in detail
            assert "msgspec" not in json.dumps(detail)
