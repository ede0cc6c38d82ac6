"""The names in Redis: Python's are those of the scripts, all of one feed are in one slot."""

import inspect
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, mailbox, receipts, topic
from pushsvc.store import schema
from pushsvc.store.schema import Keys, Registration

SCRIPTS: Final = {
    file.name: file.read_text()
    for file in (files("pushsvc.store") / "lua").iterdir()
    if file.name.endswith(".lua")
}
LUA: Final = "\n".join(SCRIPTS.values())
NOT_OF_SCRIPTS: Final = {schema.SENT, schema.FAILURES}
"""What only Python reads and writes."""


def own_fields() -> set[str]:
    """The fields of the cursors that are no devices, as Python knows them."""
    return {
        value
        for name, value in vars(schema).items()
        if name.isupper() and isinstance(value, str) and value.startswith("~")
    }


def test_the_constants_of_the_scripts_are_those_of_python() -> None:
    found: dict[str, str] = {}
    for names, values in re.findall(
        r"^local ([A-Z, ]+) = ('.*)$", SCRIPTS["lib.lua"], re.MULTILINE
    ):
        found |= dict(zip(names.split(", "), re.findall(r"'([^']*)'", values), strict=True))
    assert len(found) == 29
    assert found == {name: getattr(schema, name) for name in found}


def test_the_fields_of_the_cursors_are_known_to_both() -> None:
    assert set(re.findall(r"'(~[^']*)'", LUA)) == own_fields() - NOT_OF_SCRIPTS


def test_the_marks_are_known_to_both() -> None:
    named = set(re.findall(r"'([a-z]:)'", LUA))
    listed = {f"{kind}:" for kind in re.findall(r"marked\(.*?, '([a-z])'[,)]", LUA)}
    assert listed <= named == {
        schema.ANY_DEVICE, schema.WITHDRAWN, schema.RECEIPT, schema.FOR_DEVICE,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "given"),
    [
        ("publish", Keys("p").publish("u:x", None)),
        ("subscribe", Keys("p").subscribe("u:x")),
        ("join", Keys("p").join("u:x")),
        ("read", Keys("p").read("u:x")),
        ("ack", Keys("p").ack("u:x")),
        ("check", Keys("p").check("u:x")),
        ("schedule", Keys("p").schedule("u:x", None)),
    ],
)
def test_a_script_is_given_its_keys_in_order(script: str, given: tuple[str, ...]) -> None:
    line = re.search(r"^-- KEYS: (.*)$", SCRIPTS[f"{script}.lua"], re.MULTILINE)
    assert line is not None
    names = re.split(r",? and ", line[1])[0].split(", ")
    assert list(given) == [getattr(Keys("p"), name)("u:x") for name in names]


def test_what_comes_besides_follows_the_other_keys() -> None:
    keys = Keys("p")
    assert keys.publish("u:x", "d") == (*keys.publish("u:x", None), keys.once("u:x", "d"))
    assert keys.publish_scheduled("u:x", "s-1") == (
        *keys.publish("u:x", None), keys.became("u:x", "s-1"), keys.times("u:x"),
        keys.scheduled("u:x"),
    )  # fmt: skip
    assert keys.schedule("u:x", "d")[2] == keys.once("u:x", "at.d")
    marks, order = keys.publish("u:x", None)[-1], keys.publish("t:x", None)[-1]
    assert (marks, order) == (keys.marks("u:x"), keys.order("t:x"))
    assert keys.read_mailbox("u:x") == (*keys.read("u:x"), keys.marks("u:x"))


def flat(pairs: dict[str, Any]) -> list[bytes]:
    """A hash as Redis answers it."""
    return [str(each).encode() for pair in pairs.items() for each in pair]


def test_the_cursors_are_taken_apart() -> None:
    found = schema.cursors(
        flat(
            {
                "phone": "3-0",
                schema.BEGAN + "phone": "1-0",
                schema.broadcast_position("phone"): "2-0",
                schema.HEAD: "5-0",
                schema.TRIMMED: "4-0",
                schema.EVICTED: "old-phone",
                schema.FAILURES: "7",
            }
        )
    )
    one, two, three = (ids.parse(f"{n}-0") for n in (1, 2, 3))
    assert (found.devices, found.began, found.broadcast) == (
        {"phone": three},
        {"phone": one},
        {"phone": two},
    )
    assert (found.head, found.trimmed) == (ids.parse("5-0"), ids.parse("4-0"))


def test_the_listeners_are_taken_apart() -> None:
    fields = flat({"n1.1": "phone 17", "n2.1": "laptop 18"})
    assert schema.devices(fields) == {"n1.1": "phone", "n2.1": "laptop"}
    assert schema.registrations(fields)["n1.1"] == Registration("phone", 17)
    assert schema.counts(flat({"n1": 2, "n2": 1})) == {"n1": 2, "n2": 1}


def test_a_user_who_is_present_is_read_as_written() -> None:
    assert schema.present(schema.presence("n1", "u 1").encode()) == ("n1", "u 1")


@pytest.mark.parametrize("whose", [(None, None), ("u1", None), (None, "t1"), ("a", None)])
def test_whose_tokens_are_revoked_is_read_as_written(whose: tuple[str | None, str | None]) -> None:
    assert schema.whose(schema.revoked(*whose)) == whose


def test_a_mark_says_how_an_entry_ended() -> None:
    assert schema.how_it_ended(b"backend 1700") is None
    assert schema.how_it_ended(b"backend 1700 trimmed 1600") == ("trimmed", 1600)
    assert schema.how_it_ended(b"") is None


NAMES = st.text("abcdefgh0123456789._-", min_size=1, max_size=20)
FEEDS = NAMES.map(mailbox) | NAMES.map(topic) | NAMES.map(receipts) | st.just(BROADCAST)
METHODS = {
    name: list(inspect.signature(method).parameters)[1:]
    for name, method in inspect.getmembers(Keys, inspect.isfunction)
    if inspect.signature(method).return_annotation is str
}
"""The ways to make a name, with what each takes."""


def of(keys: Keys, feed: str) -> Iterator[str]:
    """Every key of a feed."""
    for name, takes in METHODS.items():
        if takes[0] == "feed":
            yield getattr(keys, name)(feed, *("digest" for _ in takes[1:]))


@given(FEEDS)
def test_all_keys_of_a_feed_are_in_one_slot(feed: str) -> None:
    names = list(of(Keys("push"), feed))
    assert len(names) >= 8
    assert len({key_slot(name.encode()) for name in names}) == 1


@given(FEEDS, FEEDS)
def test_no_two_keys_have_one_name(one: str, other: str) -> None:
    keys = Keys("push")
    names = [name for feed in {one, other} for name in of(keys, feed)]
    names += [keys.nodes, keys.probe]
    for name, takes in METHODS.items():
        if takes[0] != "feed":
            names.append(getattr(keys, name)(*(f"{each}-1" for each in takes)))
    assert len(set(names)) == len(names)
    assert all(name.startswith("push:") for name in names)


@given(FEEDS)
def test_every_key_of_a_feed_says_which_that_is(feed: str) -> None:
    assert {schema.feed_of(name.encode()) for name in of(Keys("push"), feed)} == {feed}
    assert schema.feed_of(Keys("push").nodes.encode()) == ""


def test_services_with_prefixes_of_their_own_share_no_key() -> None:
    one, other = (set(of(Keys(prefix), "u:ann")) for prefix in ("one", "other"))
    assert not one & other


def test_the_parts_of_a_work_queue_and_of_the_revocations_are_in_one_slot_each() -> None:
    keys = Keys("push")
    queue = {
        key_slot(keys.work_queue("receipts", part).encode()) for part in ("due", "owed", "claims")
    }
    revoked = {
        key_slot(keys.revocations(part).encode())
        for part in ("entries", "order", "ends", "revision", "changed")
    }
    assert len(queue) == len(revoked) == 1
