"""MessagePack, read as strictly as JSON and written with the same values.

What JSON is refused is tested with the messages.
"""

import base64
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushsvc.errors import InvalidJSON, InvalidRequest
from pushsvc.protocol import encoding, messages, notifications
from pushsvc.protocol.encoding import MAX_DEPTH, to_msgpack, unpack

pack = msgspec.msgpack.encode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)
anything = st.recursive(
    plain
    | st.binary(max_size=5)
    | st.floats()
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=5)),
    lambda inner: (
        st.lists(inner) | st.dictionaries(texts | st.integers(-9, 9) | st.binary(max_size=3), inner)
    ),
    max_leaves=20,
)


@given(plain)
def test_what_json_can_say_is_read_as_it_was_packed(value: Any) -> None:
    message = {"type": "publish", "value": value}
    assert unpack(pack(message)) == message


@given(st.binary(max_size=60) | anything.map(pack) | anything.map(lambda v: pack({"data": v})))
def test_whatever_is_accepted_can_be_sent_to_a_json_client(data: bytes) -> None:
    try:
        value = unpack(data)
    except InvalidRequest as error:
        assert error.detail  # noqa: PT017
        return
    assert encoding.decode(encoding.encode(value)) == value


@given(st.binary())
def test_data_may_hold_bytes_which_json_clients_are_sent_as_base64(data: bytes) -> None:
    assert unpack(pack({"type": "publish", "data": data})) == {
        "type": "publish",
        "data": base64.b64encode(data).decode(),
        "encoding": "base64",
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"x", "bytes"),
        ({"data": [b"x"]}, "bytes"),
        ({"id": b"x"}, "bytes"),
        ([{"data": b"x"}], "bytes"),
        ({"type": "ping", "ref": math.nan}, "finite"),
        ({"data": {"a": [math.inf]}}, "finite"),
        ({"data": msgspec.msgpack.Ext(5, b"x")}, "extension"),
        ({"data": datetime(2026, 1, 1, tzinfo=UTC)}, "data"),
        ({"data": {1: "x"}}, "strings"),
        ({None: "x"}, "strings"),
    ],
)
def test_what_json_cannot_say_is_refused(value: Any, why: str) -> None:
    with pytest.raises(InvalidJSON, match=why):
        unpack(pack(value))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not MessagePack"),
        (b"\xc1", "not MessagePack"),
        (b"\x01\x02", "not MessagePack"),
        (b"\x81\xa4data", "not MessagePack"),
        (b"\xdd\xff\xff\xff\xff", "not MessagePack"),
        (b"\x81\x80\x01", "not MessagePack"),
        (b"\xa1\xff", "UTF-8"),
        (b"\xa3\xed\xa0\x80", "UTF-8"),  # half of a surrogate pair
        (b"\x91" * 100_000 + b"\x01", "deeper"),
    ],
)
def test_what_is_no_messagepack_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InvalidJSON, match=why):
        unpack(data)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_data_may_be_as_deep_as_in_json() -> None:
    def publish(levels: int) -> bytes:
        data = pack({"type": "publish", "topic": "t", "data": nested(levels)})
        message = messages.client_message(unpack(data))
        assert isinstance(message, messages.Publish)
        return notifications.append_from(message, 1 << 16, "u1").body

    assert publish(MAX_DEPTH)
    for levels in (MAX_DEPTH + 1, MAX_DEPTH + 2, 500):
        with pytest.raises(InvalidJSON, match="deeper"):
            publish(levels)


def test_bytes_need_no_encoding() -> None:
    with pytest.raises(InvalidRequest, match="encoding"):
        unpack(pack({"data": b"x", "encoding": "base64"}))


@given(plain)
def test_a_messagepack_client_is_sent_the_same_values(value: Any) -> None:
    message = {"type": "notification", "data": value}
    assert msgspec.msgpack.decode(to_msgpack(encoding.encode(message))) == message


@given(st.binary())
def test_a_messagepack_client_is_sent_bytes_as_bytes(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    message = {"type": "notification", "encoding": "base64", "data": text}
    assert msgspec.msgpack.decode(to_msgpack(encoding.encode(message))) == {
        "type": "notification", "data": data,
    }  # fmt: skip


@given(st.integers(2**64, 10**308) | st.integers(-(10**308), -(2**63) - 1))
def test_integers_that_messagepack_cannot_hold_are_sent_as_doubles(value: int) -> None:
    message = {"type": "notification", "data": {"a": [value, 7]}}
    told = msgspec.msgpack.decode(to_msgpack(encoding.encode(message)))
    assert told == {"type": "notification", "data": {"a": [float(value), 7]}}


# --- JSON ----------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        *'{}[]:, \t\n"\\\0ü', '"a"', '"b"', '"a":', '"a" :', '"":', '"\\"', '"\\u0061":', '"":"',
        "1", "-0", "1.5e300", "1e999", "9" * 30, "9" * 310, "01", "true", "NaN",
    ]
)  # fmt: skip
pairs = st.lists(st.tuples(st.sampled_from(["a", "b", ":", "{", "ü", ""]), plain | texts))


def written(pairs: list[tuple[str, Any]], separators: tuple[str, str]) -> bytes:
    """An object, with whatever names it is given."""
    comma, colon = separators
    items = [f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in pairs]
    return ("{" + comma.join(items) + "}").encode()


documents = (
    st.binary(max_size=20)
    | st.lists(pieces, max_size=12).map(lambda parts: "".join(parts).encode())
    | st.builds(written, pairs, st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]))
)


@given(documents)
@example(b'{"a":1,"a":2}')
@example(b'{"a":{"b":1,"b":1},"c":"\\""}')
@example(b'{"a":1,"\\u0061":2}')
@example(b'{"a" :1,"a":"\\":"}')
@example(b"[" * 3000)
@example(b"[" * 500 + b"]" * 500)
def test_the_fast_parser_reads_what_the_strict_one_reads_and_nothing_else(data: bytes) -> None:
    def read(parse: Callable[[bytes], Any]) -> tuple[Any, str]:
        try:
            value = parse(data)
        except InvalidJSON as error:
            return None, error.detail
        return value, repr(value)  # 1 is not 1.0, 0 is not -0.0

    strictly = read(lambda data: encoding._decode(data, json.JSONDecoder.decode))
    assert read(encoding.decode) == strictly
