"""Feed ids as integers and as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import ids

parts = st.tuples(st.integers(0, 2**47), st.integers(0, 2**63 - 1))


@given(parts)
def test_what_is_rendered_is_parsed_to_the_same_id(pair: tuple[int, int]) -> None:
    text = f"{pair[0]}-{pair[1]}"
    assert ids.render(ids.parse(text)) == text
    assert ids.parse(text.encode()) == ids.parse(text)
    assert ids.milliseconds(ids.parse(text)) == pair[0]


@given(parts, parts)
def test_ids_compare_as_their_parts_do(a: tuple[int, int], b: tuple[int, int]) -> None:
    as_ids = [ids.parse(f"{ms}-{seq}") for ms, seq in (a, b)]
    assert (as_ids[0] < as_ids[1]) == (a < b)


@given(st.text())
def test_text_of_a_client_is_an_id_or_is_refused(text: str) -> None:
    try:
        value = ids.parse_untrusted(text)
    except InvalidRequest:
        return
    assert ids.render(value) == text


@pytest.mark.parametrize(
    "text", ["", "-", "1", "1-", "-1", "01-0", "1-00", "1--1", "+1-0", "1 -0", "1-0\n", "٣-٤"]
)
def test_what_only_looks_like_an_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="looks like"):
        ids.parse_untrusted(text)
