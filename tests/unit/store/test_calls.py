"""Which runs of scripts share a call, and whose answer is whose."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.store.calls import MOST_BYTES, Run, Script, gather, spread

MANY, SINGLE = Script("many", 3), Script("single")
RUNS = st.tuples(
    st.sampled_from([MANY, SINGLE]),
    st.lists(st.sampled_from("kl"), min_size=1, max_size=3).map(tuple),
    st.lists(st.one_of(st.integers(), st.text(max_size=2)), max_size=4).map(tuple),
).map(Run)


def server(call: tuple[Any, ...]) -> Any:
    """What a server answers that tells for each run its keys and arguments."""
    name, digest, count, *rest = call
    if name != "EVALSHA":
        return call
    keys, args = rest[:count], rest[count:]
    answers = []
    while args:
        (k, a), args = args[:2], args[2:]
        answers.append((digest, keys[:k], args[:a]))
        keys, args = keys[k:], args[a:]
    assert not keys
    return answers


@given(st.lists(st.one_of(RUNS, st.just(("SET", "k", "v")))), st.booleans())
def test_each_run_is_carried_out_once_in_order_with_what_is_its_own(
    commands: list[tuple[Any, ...]],
    share: bool,  # noqa: FBT001
) -> None:
    calls, counts = gather(commands, share=share)
    assert spread(list(map(server, calls)), counts) == [
        (each[0].digest, list(each[1]), list(each[2])) if isinstance(each, Run) else each
        for each in commands
    ]
    most = {MANY.digest: MANY.most if share else 1, SINGLE.digest: 1}
    for call, count in zip(calls, counts, strict=True):
        assert count <= most.get(call[1], 0)


def test_runs_of_one_script_share_as_few_calls_as_may_be() -> None:
    run = Run((MANY, ("k",), ()))
    assert gather([run] * 7, share=True)[1] == [3, 3, 1]
    assert gather([run] * 7, share=False)[1] == [1] * 7
    other = Run((Script("other", 3), ("k",), ()))
    assert gather([run, run, other, other, ("PING",), run], share=True)[1] == [2, 2, 0, 1]


def test_a_call_takes_no_further_run_once_it_is_large() -> None:
    half = Run((MANY, ("k",), (b"x" * (MOST_BYTES // 2), "y")))
    assert gather([half] * 5, share=True)[1] == [2, 2, 1]
    huge = Run((MANY, ("k",), (b"x" * 5 * MOST_BYTES,)))
    assert gather([huge] * 3, share=True)[1] == [1, 1, 1]


def test_an_error_of_a_call_is_that_of_each_of_its_runs() -> None:
    error = ValueError("NOSCRIPT")
    assert spread([[1, 2], error, b"OK", error], [2, 3, 0, 0]) == [
        1, 2, error, error, error, b"OK", error,
    ]  # fmt: skip
