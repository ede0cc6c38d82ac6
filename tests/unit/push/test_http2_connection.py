"""Goodbyes are taken out of what a server sends, and nothing else is."""

from itertools import pairwise

import pytest
from h2.exceptions import ProtocolError
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.http2_connection import GoAway, frames


def frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload


def goodbye(last: int, why: bytes = b"") -> bytes:
    return frame(7, last.to_bytes(4) + bytes(4) + why)


others = st.builds(frame, st.integers(0, 6) | st.just(8), st.binary(max_size=30))
goodbyes = st.builds(goodbye, st.integers(0, 2**31 - 1), st.binary(max_size=10))


@given(st.lists(others | goodbyes, max_size=12), st.lists(st.integers(0, 400), max_size=6))
def test_it_does_not_matter_how_the_bytes_come(sent: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(sent)
    at = sorted({0, len(whole), *(min(each, len(whole)) for each in cuts)})
    received = bytearray()
    got: list[bytes | GoAway] = []
    for begin, end in pairwise(at):
        received += whole[begin:end]
        got += frames(received)
    assert received == b""
    assert b"".join(each for each in got if isinstance(each, bytes)) == b"".join(
        each for each in sent if each[3] != 7
    )
    assert [each.last for each in got if isinstance(each, GoAway)] == [
        int.from_bytes(each[9:13]) for each in sent if each[3] == 7
    ]


def test_what_comes_before_and_after_a_goodbye_stays_there() -> None:
    one, two = frame(4, b""), frame(0, b"x")
    received = bytearray(one + one + goodbye(5, b'{"reason":"Shutdown"}') + two)
    assert list(frames(received)) == [one + one, GoAway(5, '{"reason":"Shutdown"}'), two]


def test_the_reason_of_a_goodbye_is_short_and_printable() -> None:
    (told,) = frames(bytearray(goodbye(1, b"\x1b[31m\xff" + b"x" * 1000)))
    assert isinstance(told, GoAway)
    assert told.why.isprintable()
    assert len(told.why) < 120


def test_a_goodbye_that_is_too_short_is_one_that_took_nothing() -> None:
    assert list(frames(bytearray(frame(7, b"")))) == [GoAway(0, "")]


def test_a_frame_that_is_longer_than_agreed_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError, match="16385"):
        list(frames(bytearray((16_385).to_bytes(3) + bytes(6))))
