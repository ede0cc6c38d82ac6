"""Which topics a pattern matches, and which patterns there are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.errors import InvalidToken
from pushsvc.protocol.grants import MAX_PATTERNS, NOTHING, Grants, from_claim, grants
from pushsvc.protocol.names import is_topic

segments = st.lists(st.text("ab-é/#", max_size=2), min_size=1, max_size=4)
topics = segments.map(".".join).filter(is_topic)
patterns = st.builds(
    lambda parts, end: ".".join(parts + end),
    st.lists(st.text("ab-é/#", max_size=2) | st.just("*"), max_size=4),
    st.sampled_from([["**"], ["*"], ["a"], []]),
).filter(lambda pattern: pattern != "")


def allows(pattern: str, topic: str) -> bool:
    return grants([pattern]).may_subscribe(topic)


def by_the_book(pattern: list[str], topic: list[str]) -> bool:
    """The definition, word for word."""
    if pattern == ["**"]:
        return ".".join(topic) != ""
    if not pattern or not topic:
        return not pattern and not topic
    first = pattern[0] == topic[0] or (pattern[0] == "*" and topic[0] != "")
    return first and by_the_book(pattern[1:], topic[1:])


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("scores.nba", ["scores.nba"], ["scores.NBA", "scores.nba.1", "scores", "xscores.nba"]),
        ("scores.*", ["scores.nba", "scores.b-c"], ["scores", "scores.", "scores.a.b", "s.nba"]),
        ("scores.**", ["scores.nba", "scores.a.b.c"], ["scores", "scores.", "scoresnba", "x.a"]),
        ("*", ["scores"], ["scores.nba", ".", ".a", "a."]),
        (".*", [".a"], ["a", "a.b"]),
        ("**", ["scores", "scores.nba", "."], []),
        ("*.nba", ["scores.nba"], ["nba", ".nba", "scores.x.nba", "scores.nba.x"]),
        ("a.*.c", ["a.b.c"], ["a.c", "a..c", "a.b.b.c", "a.b.cc"]),
        ("a.*.**", ["a.b.c", "a.b.c.d"], ["a.b", "a..c", "a.b."]),
        ("*.*", ["a.b"], ["a", "a.b.c", "a.", ".b"]),
        ("a.b.c", ["a.b.c"], ["aXbXc", "a.bXc"]),
        ("a..b", ["a..b"], ["a.b", "a.x.b"]),
    ],
)  # fmt: skip
def test_a_pattern_matches_these_topics_and_not_those(
    pattern: str, matched: list[str], others: list[str]
) -> None:
    assert [topic for topic in matched + others if allows(pattern, topic)] == matched


@given(st.lists(patterns, max_size=4), topics)
def test_patterns_match_what_the_definition_says(several: list[str], topic: str) -> None:
    expected = any(by_the_book(pattern.split("."), topic.split(".")) for pattern in several)
    both = grants(several, several)
    assert both.may_subscribe(topic) == both.may_publish(topic) == expected


@given(topics)
def test_two_stars_match_every_topic_and_a_name_matches_itself_alone(topic: str) -> None:
    assert allows("**", topic)
    assert allows(topic, topic)
    assert not allows(topic, topic + ".x")
    assert not allows(topic, "x." + topic)


@given(segments, st.integers(0, 3))
def test_one_star_matches_any_one_segment_in_its_place(parts: list[str], at: int) -> None:
    at %= len(parts)
    pattern = ".".join([*parts[:at], "*", *parts[at + 1 :]])
    assert allows(pattern, ".".join([*parts[:at], "other", *parts[at + 1 :]]))
    assert not allows(pattern, ".".join([*parts[:at], "one", "two", *parts[at + 1 :]]))


def test_subscribing_and_publishing_are_granted_apart() -> None:
    one = from_claim({"subscribe": ["scores.*"], "publish": ["chat.room1"]})
    assert one.may_subscribe("scores.nba")
    assert not one.may_publish("scores.nba")
    assert one.may_publish("chat.room1")
    assert not one.may_subscribe("chat.room1")


@pytest.mark.parametrize("claim", [{}, {"subscribe": []}, {"publish": [], "subscribe": []}])
def test_who_is_granted_nothing_may_do_nothing(claim: dict[str, Any]) -> None:
    one = from_claim(claim)
    assert one is NOTHING
    assert not one.may_subscribe("a")
    assert not one.may_publish("a")


def test_tokens_with_the_same_patterns_share_one_object() -> None:
    one, other = (from_claim({"subscribe": ["a.".lower() + "*"], "publish": ["b"]}) for _ in "12")
    assert one is other
    assert one == Grants(("a.*",), ("b",))


@pytest.mark.parametrize(
    "claim",
    [
        None, 1, True, "scores.*", ["scores.*"],
        {"subscribe": "scores.*"}, {"subscribe": None}, {"publish": {"a": 1}},
        {"subscribe": [1]}, {"publish": [None]}, {"publish": [["a"]]},
        {"read": ["a"]}, {"subscribe": ["a"], "Publish": ["a"]},
    ],
    ids=repr,
)  # fmt: skip
def test_a_claim_of_another_shape_is_refused(claim: Any) -> None:
    with pytest.raises(InvalidToken, match="the topics claim"):
        from_claim(claim)


@pytest.mark.parametrize(
    "pattern",
    [
        "", "a*", "*a", "a.b*", "a.**.b", "**.a", "***", "a.***", "a.**b", "**a",
        "a b", "a\u00a0b", "a\u200b", "a\n", "*\n", "a.*\n", "**\n", "a" * 257, "a" * 255 + ".*",
        "é" * 127 + ".**",
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_for_both(pattern: str) -> None:
    for name in ("subscribe", "publish"):
        with pytest.raises(InvalidToken, match=f"topics claim's {name} must be"):
            from_claim({name: ["good.*", pattern]})


def test_what_is_no_pattern_is_told_with_where_it_was_found() -> None:
    source = "push (JWT_TOPICS_CLAIM)"
    with pytest.raises(InvalidToken) as caught:
        from_claim({"subscribe": ["good.*", "a\nb" + "c" * 5000]}, source)
    assert f"which 'a\\nb{'c' * 61}'… is not: looked at {source}" in caught.value.detail
    with pytest.raises(InvalidToken) as caught:
        from_claim({"publish": ["a"] * (MAX_PATTERNS + 1)}, source)
    assert caught.value.detail.endswith(f"looked at {source}")


def test_patterns_are_bounded_in_number_and_length() -> None:
    most = [f"a{number}" for number in range(MAX_PATTERNS)]
    assert from_claim({"subscribe": most, "publish": most}).may_publish(most[-1])
    with pytest.raises(InvalidToken, match="at most 64"):
        from_claim({"subscribe": [*most, "b"]})
    assert allows("a" * 254 + ".*", "a" * 254 + ".b")
    assert allows("é" * 127 + ".*", "é" * 127 + ".b")


@given(st.text(max_size=20))
def test_a_text_without_stars_is_a_pattern_if_it_is_a_topic(text: str) -> None:
    try:
        one = grants([text])
    except InvalidToken:
        assert not is_topic(text)
        return
    assert is_topic(text) or "*" in text
    assert one.may_subscribe(text) or "*" in text
