"""Whatever is kept under a name: no two pairs of a namespace and a name share it."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushsvc.auth.tokens import Claims
from pushsvc.protocol import webhooks
from pushsvc.protocol.feeds import broadcast, mailbox, receipts, topic
from pushsvc.protocol.names import is_name, is_namespace
from pushsvc.store import schema
from pushsvc.store.schema import Keys
from pushsvc.web.publish import Once, idempotency_key

Pair = tuple[str, str]
"""A namespace and a name."""

KEYS: Final = Keys("push")
PARTS: Final = ("entries", "order", "ends", "revision")

NAMESPACES: Final = st.sampled_from(["", "acme", "other", "u", "changed", "entries"]) | (
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,7}", fullmatch=True)
)
# Names that look as if they had a namespace, in every way in which one is written.
NAMES: Final = st.builds("".join, st.lists(
    st.sampled_from(["acme", "other", "/", "%2F", "%00", ":", "u:", "}", "{", "~", " ", "b", "a"])
    | st.characters(exclude_categories=("Cs", "Cc")),
    min_size=1, max_size=6,
)).filter(is_name)  # fmt: skip
PAIRS: Final = st.tuples(NAMESPACES, NAMES)


def caller(pair: Pair) -> str:
    return Claims(pair[1], 0, namespace=pair[0]).caller


MADE: Final[dict[str, Callable[[Pair], str]]] = {
    "mailbox": lambda pair: mailbox(pair[1], pair[0]),
    "topic": lambda pair: topic(pair[1], pair[0]),
    "receipts": lambda pair: receipts(pair[1], pair[0]),
    "rate": caller,
    "quota": lambda pair: KEYS.stored(mailbox(pair[1], pair[0])),
    "once": lambda pair: KEYS.request(Once(caller(pair), "k").of(None)),
    "once of a feed": lambda pair: KEYS.once(
        mailbox(pair[1], pair[0]), Once(caller(pair), "k").of(0)
    ),
    "webhook": lambda pair: webhooks.message_id(receipts(pair[1], pair[0]), 1),
    "revoked": lambda pair: " ".join(
        [KEYS.revocations("entries", pair[0]), schema.revoked(pair[1], None)]
    ),
    "revoked token": lambda pair: " ".join(
        [KEYS.revocations("entries", pair[0]), schema.revoked(None, pair[1])]
    ),
}


@pytest.mark.parametrize("what", MADE)
@given(one=PAIRS, other=PAIRS)
@example(one=("acme", "ann"), other=("", "acme/ann"))
@example(one=("acme", "ann"), other=("", "acme%2Fann"))
@example(one=("acme", "ann"), other=("other", "ann"))
def test_no_two_pairs_are_one(what: str, one: Pair, other: Pair) -> None:
    made = MADE[what]
    assert (made(one) == made(other)) == (one == other)


@given(one=PAIRS, other=PAIRS, keys=st.tuples(*[st.text("abk-~!", min_size=1, max_size=4)] * 2))
def test_an_idempotency_key_is_its_publishers(one: Pair, other: Pair, keys: Pair) -> None:
    digests = [
        Once(caller(pair), idempotency_key(key)).of(None)
        for pair, key in zip((one, other), keys, strict=True)
    ]
    assert (digests[0] == digests[1]) == ((one, keys[0]) == (other, keys[1]))


@given(one=NAMESPACES, other=NAMESPACES)
def test_what_has_no_name_is_kept_by_namespace(one: str, other: str) -> None:
    assert all(is_namespace(each) for each in (one, other) if each)
    assert (broadcast(one) == broadcast(other)) == (one == other)
    names = {KEYS.revocations(part, each) for part in PARTS for each in (one, other)}
    assert len(names) == len(PARTS) * len({one, other})
    assert KEYS.revocations("changed") not in names
