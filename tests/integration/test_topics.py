"""Topics on the socket: who may, in what order, and what becomes of those who are slow."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node, nodes, token
from tests.support.raw import RawSocket
from tests.support.topics import Member, member, order, resident, tell, tell_all

pytestmark = pytest.mark.promise

KEPT = 200


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("topics"), prefix="topics", mailbox_max=KEPT,
        rate_messages_per_second=1000, rate_burst=2000, heartbeat_seconds=5,
        ack_timeout_seconds=30,
    ) as both:  # fmt: skip
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


def numbers(notes: list[dict[str, Any]]) -> list[Any]:
    return [note["data"] for note in notes]


@asynccontextmanager
async def publishing(
    pair: list[Node], topic: str, *, pause: float = 0.02
) -> AsyncIterator[list[str]]:
    """Publish over both nodes in turn, one after the other, until the context ends; the ids."""
    ids: list[str] = []
    stop = asyncio.Event()

    async def run() -> None:
        while not stop.is_set():
            answer = await tell(pair[len(ids) % 2], topic, len(ids))
            ids.append(answer["id"])
            await asyncio.sleep(pause)

    task = asyncio.create_task(run())
    try:
        yield ids
    finally:
        stop.set()
        await task


# --- who may -------------------------------------------------------------------------------------


async def test_a_topic_is_heard_from_subscribing_until_unsubscribing(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[0], user) as phone:
        assert await phone.subscribe(topic) == "0-0"
        sent = await tell(pair[1], topic, {"n": 1}, event="goal")
        assert sent["connections"] == 1
        assert sent["durability"] == "memory"
        note = await phone.notification()
        assert note == {
            "type": "notification", "id": sent["id"], "time": note["time"], "topic": topic,
            "event": "goal", "data": {"n": 1},
        }  # fmt: skip
        await phone.unsubscribe(topic)
        await tell(pair[1], topic, 2)
        await phone.silent()


async def test_a_subscription_is_answered_with_the_newest_id(
    node: Node, user: str, topic: str
) -> None:
    sent = await tell_all(node, topic, range(3))
    async with Member(node, user) as phone:
        assert await phone.subscribe(topic) == sent[-1]
        await phone.silent()


async def test_a_token_opens_its_topics_and_no_others(node: Node, user: str, topic: str) -> None:
    auth = token(user, topics={"subscribe": [topic, "scores.*"]})
    async with Member(node, user, auth=auth) as phone:
        await phone.subscribe(topic)
        await phone.subscribe("scores.nba")
        for other in ("scores", "scores.nba.live", topic + ".x", "other"):
            for kind in ("subscribe", "presence"):
                answer = await phone.ask(type=kind, topic=other)
                assert (answer["type"], answer["code"]) == ("error", "forbidden"), answer
                assert answer["temporary"] is False
        both = await phone.ask(type="subscribe", topics={"scores.nhl": None, "other": None})
        assert both["code"] == "forbidden"
        await tell(node, "scores.nhl", 1)  # all or nothing
        await phone.silent()
    async with Member(node, user, auth=token(user)) as phone:
        answer = await phone.ask(type="subscribe", topic=topic)
        assert answer["code"] == "forbidden"


@pytest.mark.parametrize(
    "name",
    ["a\r\nb", "a\n", "*", "a.*", "**", "a b", " ", "", "x" * 257, "é" * 129, "a\u200bb", "\0"],
)
async def test_what_is_no_name_is_no_topic(node: Node, user: str, name: str) -> None:
    async with Member(node, user) as phone:
        for message in (
            {"type": "subscribe", "topic": name},
            {"type": "subscribe", "topics": {name: None}},
            {"type": "unsubscribe", "topic": name},
            {"type": "presence", "topic": name},
            {"type": "publish", "topic": name, "data": 1},
        ):
            answer = await phone.ask(**message)
            assert (answer["type"], answer["code"]) == ("error", "invalid_name"), answer
        await phone.silent()
    refused = await asyncio.to_thread(
        node.post, "/v1/notifications", {"to": {"topic": name}, "data": 1}
    )
    problem(refused, 400, "invalid_name")


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"topic": "a", "topics": {"a": None}},
        {"topics": {}},
        {"topics": {f"t{n}": None for n in range(257)}},
        {"topic": "a", "since": "yesterday"},
        {"topic": "a", "since": 5},
        {"topics": {"a": "1-"}},
        {"topics": {"a": None}, "since": "0-0"},
        {"topics": ["a"]},
        {"topic": None},
        {"topic": "a", "after": "0-0"},
    ],
)
async def test_a_subscription_that_makes_no_sense_is_refused(
    node: Node, user: str, message: dict[str, Any]
) -> None:
    async with Member(node, user) as phone:
        answer = await phone.ask(type="subscribe", **message)
        assert (answer["type"], answer["code"]) == ("error", "invalid"), answer
        await phone.silent()


async def test_many_topics_are_subscribed_with_one_message(
    pair: list[Node], user: str, topic: str
) -> None:
    sent = await tell_all(pair[0], topic + ".1", range(3))
    async with Member(pair[1], user) as phone:
        wanted = {topic + ".1": sent[0], topic + ".2": None, topic + ".3": "0-0"}
        answer = await phone.ask(type="subscribe", topics=wanted)
        last = {topic + ".1": sent[-1], topic + ".2": "0-0", topic + ".3": "0-0"}
        assert answer == {"type": "reply", "topics": last}
        assert numbers([await phone.notification() for _ in range(2)]) == [1, 2]
        for number in (2, 3):
            await tell(pair[0], f"{topic}.{number}", number)
            assert (await phone.notification())["topic"] == f"{topic}.{number}"
        await phone.silent()


async def test_a_connection_listens_to_so_many_topics_and_no_more(
    node: Node, user: str, topic: str
) -> None:
    async with Member(node, user) as phone:
        answer = await phone.ask(
            type="subscribe", topics={f"{topic}.{n}": None for n in range(256)}
        )
        assert len(answer["topics"]) == 256
        assert (await phone.ask(type="subscribe", topic=topic))["code"] == "invalid"
        # One that it listens to already, and one for one, are no more.
        await phone.subscribe(f"{topic}.7")
        await phone.unsubscribe(f"{topic}.7")
        await phone.subscribe(topic)


async def test_subscribing_again_changes_nothing(node: Node, user: str, topic: str) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        sent = await tell_all(node, topic, range(3))
        await phone.notifications(3)
        assert await phone.subscribe(topic) == sent[-1]
        assert await phone.subscribe(topic, since="0-0") == sent[-1]
        answer = await phone.ask(type="subscribe", topics={topic: None})
        assert answer == {"type": "reply", "topics": {topic: sent[-1]}}
        await tell(node, topic, 3)
        assert numbers([await phone.notification()]) == [3]
        await phone.silent()
    async with Member(node, user) as phone:
        await phone.unsubscribe(topic)  # to which it does not listen
        await phone.silent()


async def test_a_topic_that_a_new_token_does_not_cover_is_left(
    node: Node, user: str, topic: str
) -> None:
    auth = token(user, topics={"subscribe": [f"{topic}.**"]})
    async with Member(node, user, auth=auth) as phone:
        await phone.subscribe(topic + ".a")
        await phone.subscribe(topic + ".b")
        await phone.send(
            type="refresh", token=token(user, topics={"subscribe": [topic + ".b"]}), ref=1
        )
        answers = [await phone.receive() for _ in range(2)]
        assert sorted(each["type"] for each in answers) == ["error", "reply"]
        assert next(each for each in answers if each["type"] == "error")["code"] == "forbidden"
        await tell(node, topic + ".a", 1)
        await tell(node, topic + ".b", 2)
        assert numbers([await phone.notification()]) == [2]
        await phone.silent()


# --- in which order ------------------------------------------------------------------------------


async def test_since_replays_what_is_kept_and_goes_live(
    pair: list[Node], user: str, topic: str
) -> None:
    sent = await tell_all(pair[0], topic, range(KEPT))
    async with Member(pair[1], user) as phone:
        assert await phone.subscribe(topic, since=sent[9]) == sent[-1]
        assert numbers(await phone.notifications(KEPT - 10)) == list(range(10, KEPT))
        await tell(pair[0], topic, KEPT)
        assert numbers([await phone.notification()]) == [KEPT]
        await phone.silent()
    async with Member(pair[0], user) as phone:
        await phone.subscribe(topic, since=sent[-1])
        assert numbers([await phone.notification()]) == [KEPT]
        await phone.silent()


async def test_there_is_no_seam_between_what_is_kept_and_what_is_new(
    pair: list[Node], user: str, topic: str
) -> None:
    first = await tell_all(pair[0], topic, [-2, -1])
    async with publishing(pair, topic, pause=0.001) as ids:
        while len(ids) < 20:
            await asyncio.sleep(0.01)

        async def subscriber(number: int) -> list[Any]:
            async with Member(pair[number % 2], user, f"d{number}") as phone:
                await phone.subscribe(topic, since=first[0])
                notes: list[dict[str, Any]] = []
                while not notes or notes[-1]["data"] < 60:
                    notes.append(await phone.notification())
            return numbers(notes)

        for seen in await asyncio.gather(*map(subscriber, range(8))):
            assert seen == [-1, *range(len(seen) - 1)]


async def test_who_leaves_and_comes_back_since_its_last_misses_nothing(
    pair: list[Node], user: str, topic: str
) -> None:
    last = "0-0"
    seen: list[Any] = []
    async with publishing(pair, topic, pause=0.001), Member(pair[0], user) as phone:
        for _ in range(6):
            await phone.send(type="subscribe", topic=topic, since=last)
            for _ in range(5):
                note = await phone.notification()
                last = note["id"]
                seen.append(note["data"])
            await phone.send(type="unsubscribe", topic=topic, ref=1)
            while (message := await phone.receive())["type"] == "notification":
                last = message["id"]
                seen.append(message["data"])
    assert seen == list(range(len(seen)))


async def test_subscribing_twice_at_once_from_other_places_has_no_hole(
    node: Node, user: str, topic: str
) -> None:
    sent = await tell_all(node, topic, range(20))
    async with Member(node, user) as phone:
        # All of it is under way before the first is answered.
        await phone.send(type="subscribe", topic=topic, ref=1)
        await phone.send(type="unsubscribe", topic=topic, ref=2)
        await phone.send(type="subscribe", topic=topic, since=sent[4], ref=3)
        notes: list[dict[str, Any]] = []
        refs: list[int] = []
        while len(notes) < 15 or len(refs) < 3:
            message = await phone.receive()
            if message["type"] == "notification":
                notes.append(message)
            else:
                refs.append(message["ref"])
        assert numbers(notes) == list(range(5, 20))
        await phone.silent()


async def test_what_was_trimmed_is_told_as_a_gap(pair: list[Node], user: str, topic: str) -> None:
    sent = await tell_all(pair[0], topic, range(KEPT + 50))
    async with Member(pair[1], user) as phone:
        await phone.subscribe(topic, since=sent[0])
        gap = await phone.receive()
        assert gap == {"type": "gap", "topic": topic, "after": sent[0], "reason": "trimmed"}
        seen = numbers(await phone.notifications(KEPT))
        assert seen == list(range(50, KEPT + 50))
        await phone.silent()


async def test_a_place_that_never_was_is_told_as_a_reset(node: Node, user: str, topic: str) -> None:
    sent = await tell_all(node, topic, range(3))
    beyond = f"{order(sent[-1])[0] + 1_000_000}-0"
    async with Member(node, user) as phone:
        await phone.subscribe(topic, since=beyond)
        gap = await phone.receive()
        assert gap == {"type": "gap", "topic": topic, "after": beyond, "reason": "reset"}
        assert numbers(await phone.notifications(3)) == [0, 1, 2]
        await tell(node, topic, 3)
        assert numbers([await phone.notification()]) == [3]


async def test_what_passed_its_time_is_not_replayed(node: Node, user: str, topic: str) -> None:
    await tell(node, topic, "short", ttl=0.05)
    kept = await tell(node, topic, "long")
    await asyncio.sleep(0.1)
    async with Member(node, user) as phone:
        await phone.subscribe(topic, since="0-0")
        note = await phone.notification()
        assert (note["id"], note["data"]) == (kept["id"], "long")
        await phone.silent()


async def test_several_topics_of_one_connection_do_not_mix(
    pair: list[Node], user: str, topic: str
) -> None:
    names = [f"{topic}.{n}" for n in range(3)]
    async with Member(pair[0], user) as phone:
        await phone.ask(type="subscribe", topics=dict.fromkeys(names))
        await asyncio.gather(
            *(tell_all(pair[n % 2], name, range(100)) for n, name in enumerate(names))
        )
        notes = await phone.notifications(300)
        for name in names:
            assert [n["data"] for n in notes if n["topic"] == name] == list(range(100))
        await phone.silent()


# --- the latest of each key ----------------------------------------------------------------------


async def test_a_newcomer_gets_the_latest_of_each_key_first(
    pair: list[Node], user: str, topic: str
) -> None:
    for value, key in [(1, "a"), (2, "b"), (3, "a"), (4, "c")]:
        await tell(pair[0], topic, [key, value], collapse_key=key)
    await tell(pair[0], topic, "no state")
    async with Member(pair[1], user) as phone:
        await phone.subscribe(topic)
        assert numbers(await phone.notifications(3)) == [["b", 2], ["a", 3], ["c", 4]]
        await phone.silent()
        await tell(pair[0], topic, ["b", 5], collapse_key="b")
        assert numbers([await phone.notification()]) == [["b", 5]]
    async with Member(pair[0], user) as phone:
        await phone.subscribe(topic)
        assert numbers(await phone.notifications(3)) == [["a", 3], ["c", 4], ["b", 5]]
        await phone.silent()


async def test_since_on_a_keyed_topic_gives_what_was_not_replaced(
    node: Node, user: str, topic: str
) -> None:
    first = await tell(node, topic, 0, collapse_key="z")
    for value, key in [(1, "a"), (2, "b"), (3, "a"), (4, "b")]:
        await tell(node, topic, value, collapse_key=key)
    async with Member(node, user) as phone:
        await phone.subscribe(topic, since=first["id"])
        assert numbers(await phone.notifications(2)) == [3, 4]
        await phone.silent()


async def test_a_subscriber_is_sent_every_change_of_a_key(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[1], user) as phone:
        await phone.subscribe(topic)
        await tell_all(pair[0], topic, range(100), collapse_key="price")
        notes = await phone.notifications(1)
        while notes[-1]["data"] < 99:
            notes.append(await phone.notification())
        assert numbers(notes) == sorted(set(numbers(notes)))  # never back, never twice


async def test_state_that_passed_its_time_is_no_state(node: Node, user: str, topic: str) -> None:
    await tell(node, topic, "short", collapse_key="a", ttl=0.05)
    await tell(node, topic, "long", collapse_key="b")
    await asyncio.sleep(0.1)
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        assert numbers([await phone.notification()]) == ["long"]
        await phone.silent()


async def test_state_and_changes_have_no_seam(pair: list[Node], user: str, topic: str) -> None:
    stop = asyncio.Event()

    async def ticker(key: str) -> None:
        value = 0
        while not stop.is_set():
            await tell(pair[value % 2], topic, [key, value], collapse_key=key)
            value += 1
            await asyncio.sleep(0.05)  # a value that is replaced before it is read is skipped

    tickers = [asyncio.create_task(ticker(key)) for key in "ab"]
    await asyncio.sleep(0.2)

    async def newcomer(number: int) -> None:
        async with Member(pair[number % 2], user, f"d{number}") as phone:
            await phone.subscribe(topic)
            last: dict[str, int] = {}
            for note in await phone.notifications(60):
                key, value = note["data"]
                # A key never goes back, and what was told as state is followed by the next one.
                assert value == last.get(key, value - 1) + 1, note
                last[key] = value
            assert set(last) == {"a", "b"}

    try:
        await asyncio.gather(*map(newcomer, range(4)))
    finally:
        stop.set()
        await asyncio.gather(*tickers)


async def test_a_newcomer_whose_socket_is_full_gets_the_state_and_not_the_history(
    node: Node, user: str, topic: str
) -> None:
    block = "x" * 40_000
    await tell_all(node, topic, [f"old {n}" for n in range(10)])
    await tell(node, topic, "state", collapse_key="k")
    with RawSocket(node, user, auth=member(user), receive_buffer=4096) as slow:
        slow.say(type="subscribe", topic=topic + ".full", ref=1)
        assert (await asyncio.to_thread(slow.message))["type"] == "reply"
        for _ in range(10):
            await tell_all(node, topic + ".full", [block] * 10)
        slow.say(type="subscribe", topic=topic, ref=2)
        await asyncio.sleep(0.3)  # it is answered into a full socket
        seen: list[Any] = []
        while "state" not in seen:
            message = await asyncio.to_thread(slow.message)
            if message.get("topic") == topic and message["type"] == "notification":
                seen.append(message["data"])
        assert seen == ["state"]
        await tell(node, topic, "new")
        while "new" not in seen:
            message = await asyncio.to_thread(slow.message)
            if message.get("topic") == topic and message["type"] == "notification":
                seen.append(message["data"])
        assert seen == ["state", "new"]


# --- who is slow ---------------------------------------------------------------------------------


def topic_messages(slow: RawSocket, last: int) -> list[dict[str, Any]]:
    """What a socket is sent until the message with this number."""
    found: list[dict[str, Any]] = []
    while not found or found[-1].get("data", {}).get("n") != last:
        found.append(slow.message())
    return found


async def test_a_subscriber_that_stops_reading_costs_nothing_and_finds_its_place_again(
    pair: list[Node], user: str, topic: str
) -> None:
    filler = "x" * 3000
    seconds, rate, parts = 3, 1000, 20
    with RawSocket(pair[0], user, auth=member(user), receive_buffer=4096) as slow:
        slow.say(type="subscribe", topic=topic, ref=1)
        assert (await asyncio.to_thread(slow.message))["type"] == "reply"
        async with Member(pair[0], user, "quick", max_queue=None) as quick:
            await quick.subscribe(topic)
            sizes = []
            latest = 0.0

            async def read() -> list[int]:
                nonlocal latest
                seen: list[int] = []
                while len(seen) < seconds * rate:
                    data = (await quick.notification())["data"]
                    latest = max(latest, time.time() - data["at"])
                    seen.append(data["n"])
                return seen

            reading = asyncio.create_task(read())
            size = rate // parts
            started = time.monotonic()
            for part in range(seconds * parts):
                data = [
                    {"n": n, "at": time.time(), "x": filler}
                    for n in range(part * size, (part + 1) * size)
                ]
                await tell_all(pair[part % 2], topic, data)
                if part % parts == parts - 1:
                    sizes.append(resident(pair[0]))
                await asyncio.sleep(max(0.0, started + (part + 1) / parts - time.monotonic()))
            assert await reading == list(range(seconds * rate))
            assert latest < 2.0
            assert sizes[-1] - sizes[0] < 4 * 1024 * 1024, sizes

        found = await asyncio.to_thread(topic_messages, slow, seconds * rate - 1)
        follow_each_other(found)
        assert any(message["type"] == "gap" for message in found)  # more went by than is kept

        # In step again: what is published now is sent without another read of the feed.
        reads = pair[0].metric("pushsvc_feed_reads_total")
        sent = await tell_all(pair[1], topic, [{"n": -1}] * 5)
        again = [await asyncio.to_thread(slow.message) for _ in sent]
        assert [message["id"] for message in again] == sent
        assert pair[0].metric("pushsvc_feed_reads_total") == reads


def follow_each_other(found: list[dict[str, Any]]) -> None:
    """Check that messages are in order, and that nothing is missing where no gap is told."""
    last = -1
    gap = False
    for message in found:
        if message["type"] == "gap":
            assert message["reason"] == "trimmed"
            gap = True
            continue
        assert message["type"] == "notification", json.dumps(message)[:300]
        n = message["data"]["n"]
        assert n > last if gap else n == last + 1, (last, n)
        last, gap = n, False


async def test_a_subscriber_that_pauses_for_less_than_is_kept_misses_nothing(
    pair: list[Node], user: str, topic: str
) -> None:
    filler = "x" * 30_000
    with RawSocket(pair[0], user, auth=member(user), receive_buffer=4096) as slow:
        slow.say(type="subscribe", topic=topic, ref=1)
        assert (await asyncio.to_thread(slow.message))["type"] == "reply"
        for part in range(15):
            values = [{"n": part * 10 + n, "x": filler} for n in range(10)]
            await tell_all(pair[part % 2], topic, values)
        found = await asyncio.to_thread(topic_messages, slow, 149)
        assert [message["data"]["n"] for message in found] == list(range(150))
        await tell(pair[0], topic, {"n": 150})
        assert (await asyncio.to_thread(slow.message))["data"] == {"n": 150}


# --- what is not stored --------------------------------------------------------------------------


async def test_what_is_ephemeral_has_no_id_and_is_not_kept(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[0], user) as phone:
        await phone.subscribe(topic)
        sent = await tell(pair[1], topic, "typing", event="typing", ephemeral=True)
        assert sent == {"durability": "none", "connections": 1}
        note = await phone.notification()
        assert note == {
            "type": "notification", "time": note["time"], "ephemeral": True, "topic": topic,
            "event": "typing", "data": "typing",
        }  # fmt: skip
        assert await phone.subscribe(topic) == "0-0"
    async with Member(pair[0], user) as phone:
        await phone.subscribe(topic, since="0-0")
        await phone.silent()


async def test_what_is_live_only_has_an_id_and_is_not_kept(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[0], user) as phone:
        await phone.subscribe(topic)
        sent = await tell(pair[1], topic, 1, ttl=0)
        assert sent["durability"] == "none"
        assert (await phone.notification())["id"] == sent["id"]
        stored = await tell(pair[1], topic, 2)
        assert order(stored["id"]) > order(sent["id"])
        assert (await phone.notification())["id"] == stored["id"]
    async with Member(pair[0], user) as phone:
        await phone.subscribe(topic, since="0-0")
        assert (await phone.notification())["id"] == stored["id"]
        await phone.silent()


async def test_what_is_ephemeral_is_dropped_for_who_does_not_read(
    node: Node, user: str, topic: str
) -> None:
    filler = "x" * 30_000
    with RawSocket(node, user, auth=member(user), receive_buffer=4096) as slow:
        slow.say(type="subscribe", topic=topic, ref=1)
        assert (await asyncio.to_thread(slow.message))["type"] == "reply"
        for part in range(12):
            await tell_all(node, topic, [{"n": part * 10 + n, "x": filler} for n in range(10)])
        for n in range(20):
            await tell(node, topic, {"e": n}, ephemeral=True)
        found = await asyncio.to_thread(topic_messages, slow, 119)
        assert [message["data"].get("n") for message in found] == list(range(120))
        await tell(node, topic, {"e": "last"}, ephemeral=True)
        assert (await asyncio.to_thread(slow.message))["data"] == {"e": "last"}


async def test_an_ephemeral_message_moves_no_place_in_a_mailbox(node: Node, user: str) -> None:
    async with Member(node, user) as phone:
        answer = await asyncio.to_thread(
            node.post, "/v1/notifications",
            {"to": {"user": user}, "data": "now", "ephemeral": True},
        )  # fmt: skip
        assert answer.json() == {"durability": "none", "connections": 1}
        note = await phone.notification()
        assert "id" not in note
        assert note["ephemeral"] is True
        sent = await asyncio.to_thread(node.publish, user, "kept")
        assert (await phone.notification())["id"] == sent
        assert await phone.acked(sent) == sent
    async with Member(node, user) as phone:
        await phone.silent()


async def test_a_device_that_was_away_gets_the_newest_of_a_key(node: Node, user: str) -> None:
    async with Member(node, user):
        pass
    for n in range(3):
        await asyncio.to_thread(node.publish, user, n, collapse_key="score")
    other = await asyncio.to_thread(node.publish, user, "other")
    async with Member(node, user) as phone:
        assert numbers(await phone.notifications(2)) == [2, "other"]
        assert await phone.acked(other) == other
        await phone.silent()
