"""Which runs of scripts share a call, and whose answer is whose."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pushsvc.store.calls import MOST_BYTES, Run, Script, gather, spread

MANY, SINGLE = Script("many", 3), Script("single")
ARGS = st.lists(st.one_of(st.integers(), st.text(max_size=2)), max_size=2).map(tuple)
RUNS = st.tuples(
    st.sampled_from([MANY, SINGLE]),
    st.lists(st.sampled_from("kl"), min_size=1, max_size=2).map(tuple),
    ARGS,
    st.sampled_from([(), (7,), (8, 9)]),
).map(Run)


def server(call: tuple[Any, ...]) -> Any:
    """What a server answers that tells for each run its keys and arguments; one run is no list."""
    name, digest, count, *rest = call
    if name != "EVALSHA":
        return call
    keys, (runs, own, *args) = rest[:count], rest[count:]
    each, common = count // runs, args[runs * own :]
    answers = [
        (digest, keys[n * each : (n + 1) * each], args[n * own : (n + 1) * own] + common)
        for n in range(runs)
    ]
    return answers if runs > 1 else answers[0]


@given(st.lists(st.one_of(RUNS, st.just(("SET", "k", "v")))), st.booleans())
def test_each_run_is_carried_out_once_in_order_with_what_is_its_own(
    commands: list[tuple[Any, ...]],
    share: bool,  # noqa: FBT001
) -> None:
    calls, counts = gather(commands, share=share)
    assert spread(list(map(server, calls)), counts) == [
        (each[0].digest, list(each[1]), [*each[2], *each[3]]) if isinstance(each, Run) else each
        for each in commands
    ]
    most = {MANY.digest: MANY.most if share else 1, SINGLE.digest: 1}
    for call, count in zip(calls, counts, strict=True):
        assert count <= most.get(call[1], 0)


def test_runs_of_one_script_share_as_few_calls_as_may_be() -> None:
    run = Run((MANY, ("k",), (), ()))
    assert gather([run] * 7, share=True)[1] == [3, 3, 1]
    assert gather([run] * 7, share=False)[1] == [1] * 7
    other = Run((Script("other", 3), ("k",), (), ()))
    assert gather([run, run, other, other, ("PING",), run], share=True)[1] == [2, 2, 0, 1]


def test_what_runs_have_alike_is_said_once() -> None:
    first, second = (Run((MANY, ("k",), (n,), ("all",))) for n in (1, 2))
    assert gather([first, second], share=True)[0] == [
        ("EVALSHA", "many", 2, "k", "k", 2, 1, 1, 2, "all")
    ]
    other = Run((MANY, ("k",), (1,), ("other",)))
    longer = Run((MANY, ("k", "l"), (1,), ("other",)))
    assert gather([first, other, longer], share=True)[1] == [1, 1, 1]


def test_a_call_takes_no_further_run_once_it_is_large() -> None:
    half = Run((MANY, ("k",), (b"x" * (MOST_BYTES // 2), "y"), ()))
    assert gather([half] * 5, share=True)[1] == [2, 2, 1]
    huge = Run((MANY, ("k",), (b"x" * 5 * MOST_BYTES,), ()))
    assert gather([huge] * 3, share=True)[1] == [1, 1, 1]


def test_an_error_of_a_call_is_that_of_each_of_its_runs() -> None:
    error = ValueError("NOSCRIPT")
    assert spread([[1, 2], error, b"OK", error], [2, 3, 0, 0]) == [
        1, 2, error, error, error, b"OK", error,
    ]  # fmt: skip
