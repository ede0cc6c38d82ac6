"""Acknowledgements, redelivery, and what a device is told of what it cannot have any more."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish, publish_all
from tests.support.nodes import Node, nodes, publisher_token, wait_until
from tests.support.phone import Phone

pytestmark = pytest.mark.promise

WINDOW = 4
MAILBOX = 20


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        valkey.url, tmp_path_factory.mktemp("acks"), prefix="acks",
        ack_window=WINDOW, mailbox_max=MAILBOX,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def hasty(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that does not wait long for acknowledgements."""
    with Node(
        valkey.url, tmp_path_factory.mktemp("hasty"), prefix="hasty",
        ack_timeout_seconds=1, ack_attempts=3,
    ) as running:  # fmt: skip
        yield running


async def visit(node: Node, user: str, device: str = "phone") -> None:
    """Connect once, so that the device has a place in the mailbox."""
    async with Phone(node, user, device):
        pass


async def owed(node: Node, user: str, device: str = "phone") -> list[str]:
    """The ids that a device is sent when it connects, at most a window of them."""
    async with Phone(node, user, device) as phone:
        await phone.send(type="ping")
        ids = []
        while (message := await phone.receive())["type"] != "pong":
            assert message["type"] == "notification", message
            ids.append(message["id"])
        return ids


# --- the cursor ----------------------------------------------------------------------------------


async def test_what_is_acked_never_comes_again(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish_all(node, user, range(3))
        await phone.notifications(3)
        assert await phone.acked(sent[0]) == sent[0]
    assert await owed(node, user) == sent[1:]
    async with Phone(node, user) as phone:
        await phone.notifications(2)
        assert await phone.acked(sent[2]) == sent[2]
    assert await owed(node, user) == []


async def test_what_was_acked_before_a_close_is_written_before_the_close_is_answered(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with (
        Redis.from_url(valkey.url, decode_responses=True) as redis,
        nodes(1, valkey.url, tmp_path, prefix=prefix, acks_gather_seconds=0.025) as (node,),
    ):
        for _ in range(20):  # what nobody waits for is written in time, now and then
            sent = await publish(node, "u1", "once")
            async with Phone(node) as phone:
                await phone.notifications(1, ack=True)
            assert redis.hget(f"{prefix}:{{u:u1}}:cursors", "phone") == sent


async def test_an_ack_covers_everything_before_it(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish_all(node, user, range(4))
        await phone.notifications(4)
        assert await phone.acked(sent[2]) == sent[2]
        assert await phone.acked(sent[0]) == sent[2]  # and none goes back
    assert await owed(node, user) == [sent[3]]


async def test_an_ack_without_a_ref_is_written_without_an_answer(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish(node, user, 1)
        await phone.notification()
        await phone.ack(sent)
        await phone.silent()
        key = f"acks:{{u:{user}}}:cursors"
        with Redis.from_url(node._environ["PUSHSVC_REDIS_URL"]) as redis:
            await asyncio.to_thread(
                wait_until, lambda: redis.hget(key, "phone") == sent.encode(), "the cursor"
            )
    assert await owed(node, user) == []


async def test_what_was_cut_off_before_its_ack_comes_again_as_it_was(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        await publish(node, user, {"n": 1}, event="order.shipped")
        first = await phone.notification()
        await phone.drop()
    async with Phone(node, user) as phone:
        assert await phone.notification() == first
        assert await phone.acked(first["id"]) == first["id"]
    assert await owed(node, user) == []


async def test_an_ack_of_what_the_connection_was_not_sent_changes_nothing(
    node: Node, user: str
) -> None:
    theirs = await publish(node, user + "-other", 1)
    await visit(node, user)
    sent = await publish_all(node, user, range(3))
    milliseconds = int(sent[2].partition("-")[0])
    never = [
        theirs, "0-0", "1-0", "999999999999999-0", f"{milliseconds}-9999",
        f"{milliseconds + 3_600_000}-0", "1-9999999999999999999",
    ]  # fmt: skip
    moved = node.metric("pushsvc_acks_total")
    async with Phone(node, user) as phone:
        await phone.notifications(3)
        for each in never:
            await phone.ack(each)
        await phone.silent()
        assert node.metric("pushsvc_acks_total") == moved
        for each in never:
            assert await phone.acked(each) == "0-0"
        assert await phone.acked(sent[0]) == sent[0]
        for each in never:
            assert await phone.acked(each) == sent[0]
    assert await owed(node, user) == sent[1:]
    async with Phone(node, user + "-other", "new") as other:
        assert (await other.notification())["id"] == theirs


async def test_an_ack_of_a_waiting_notification_that_was_not_sent_yet_changes_nothing(
    node: Node, user: str
) -> None:
    sent = await publish_all(node, user, range(WINDOW + 2))
    async with Phone(node, user) as phone:
        await phone.notifications(WINDOW)
        assert await phone.acked(sent[-1]) == "0-0"
        await phone.silent()


async def test_the_same_ack_a_thousand_times_is_one(node: Node, user: str) -> None:
    moved = node.metric("pushsvc_acks_total")
    async with Phone(node, user) as phone:
        sent = await publish_all(node, user, range(2))
        await phone.notifications(2)
        for _ in range(1000):
            await phone.ack(sent[0])
        await phone.silent()
        assert node.metric("pushsvc_acks_total") == moved + 1
        assert await phone.acked(sent[0]) == sent[0]
    assert await owed(node, user) == sent[1:]


# --- the window ----------------------------------------------------------------------------------


async def test_no_more_than_the_window_is_sent_ahead_of_acks(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        assert phone.welcome["window"] == WINDOW
        sent = await publish_all(node, user, range(11))
        ids = [note["id"] for note in await phone.notifications(WINDOW)]
        await phone.silent()
        await phone.ack(ids[1])
        ids += [note["id"] for note in await phone.notifications(2)]
        await phone.silent()
        await phone.ack(ids[-1])
        ids += [note["id"] for note in await phone.notifications(WINDOW)]
        await phone.silent()
        await phone.ack(ids[-1])
        ids += [note["id"] for note in await phone.notifications(1)]
        assert ids == sent
        # back in step: what comes now comes at once
        assert await phone.acked(sent[-1]) == sent[-1]
        later = await publish(node, user, "later")
        assert (await phone.notification())["id"] == later


async def test_the_backlog_keeps_to_the_window_too(node: Node, user: str) -> None:
    sent = await publish_all(node, user, range(10))
    async with Phone(node, user) as phone:
        ids = [note["id"] for note in await phone.notifications(WINDOW)]
        await phone.silent()
        while len(ids) < 10:
            await phone.ack(ids[-1])
            ids.append((await phone.notification())["id"])
        assert ids == sent


# --- devices -------------------------------------------------------------------------------------


async def test_every_device_gets_everything(node: Node, user: str) -> None:
    async with Phone(node, user, "a") as a, Phone(node, user, "b") as b:
        sent = await publish_all(node, user, range(3))
        for phone in (a, b):
            assert [note["id"] for note in await phone.notifications(3)] == sent
        await a.acked(sent[-1])
    assert await owed(node, user, "a") == []
    assert await owed(node, user, "b") == sent


async def test_two_sockets_of_a_device_get_everything_and_share_the_cursor(
    node: Node, user: str
) -> None:
    async with Phone(node, user) as one, Phone(node, user) as two:
        sent = await publish_all(node, user, range(3))
        for phone in (one, two):
            assert [note["id"] for note in await phone.notifications(3)] == sent
        await one.acked(sent[1])
        assert await two.acked(sent[0]) == sent[1]
    assert await owed(node, user) == sent[2:]


async def test_a_new_device_starts_after_what_any_device_acked(node: Node, user: str) -> None:
    sent = await publish_all(node, user, range(3))
    async with Phone(node, user, "old") as old:
        await old.notifications(3)
        await old.acked(sent[1])
    assert await owed(node, user, "new") == sent[2:]


async def test_a_first_device_gets_what_nobody_saw(node: Node, user: str) -> None:
    sent = await publish_all(node, user, range(3))
    assert await owed(node, user, "first") == sent


async def test_a_device_that_acked_nothing_keeps_its_place(node: Node, user: str) -> None:
    await visit(node, user, "tablet")
    sent = await publish_all(node, user, range(3))
    async with Phone(node, user, "phone") as phone:
        await phone.notifications(3)
        await phone.acked(sent[-1])
    assert await owed(node, user, "tablet") == sent


async def test_a_device_moves_between_nodes_with_its_place(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    with nodes(2, valkey.url, tmp_path, ack_window=2) as pair:
        sent = await publish_all(pair[0], "u1", range(10))
        seen = []
        for turn in range(5):
            async with Phone(pair[turn % 2], "u1") as phone:
                seen += [note["id"] for note in await phone.notifications(2)]
                await phone.send(type="ack", id=seen[-1], ref="a")
                while (await phone.receive())["type"] != "reply":
                    continue  # room in the window is used at once
        assert seen == sent


# --- redelivery ----------------------------------------------------------------------------------


async def test_what_is_not_acked_comes_again_with_its_attempt_until_4003(
    hasty: Node, user: str
) -> None:
    async with Phone(hasty, user) as phone, Phone(hasty, user, "acking") as other:
        sent = await publish_all(hasty, user, ["a", "b"])
        await other.notifications(2, ack=True)
        first = await phone.notifications(2)
        assert [note["id"] for note in first] == sent
        assert all("attempt" not in note for note in first)
        for attempt in (2, 3):
            again = await phone.notifications(2)
            assert again == [note | {"attempt": attempt} for note in first]
        assert await phone.closed() == 4003
        await other.silent()
    async with Phone(hasty, user) as phone:
        assert await phone.notifications(2) == first


async def test_an_ack_stops_the_redelivery_of_what_it_covers(hasty: Node, user: str) -> None:
    async with Phone(hasty, user) as phone:
        sent = await publish_all(hasty, user, range(3))
        await phone.notifications(3)
        await phone.ack(sent[1])
        again = await phone.notification()
        assert (again["id"], again["attempt"]) == (sent[2], 2)
        await phone.acked(sent[2])
        # and progress sets the count of attempts back
        later = await publish(hasty, user, "later")
        assert "attempt" not in await phone.notification()
        again = await phone.notification()
        assert (again["id"], again["attempt"]) == (later, 2)


async def test_an_ack_by_another_socket_of_the_device_stops_the_redelivery(
    hasty: Node, user: str
) -> None:
    async with (
        Phone(hasty, user) as one,
        Phone(hasty, user) as two,
        Phone(hasty, user, "clock") as clock,
    ):
        sent = await publish(hasty, user, 1)
        for phone in (one, two, clock):
            assert (await phone.notification())["id"] == sent
        assert await two.acked(sent) == sent
        for attempt in (2, 3):  # the time in which the first socket would have been sent it again
            assert (await clock.notification())["attempt"] == attempt
        await one.silent()
        await two.silent()


async def test_redelivery_goes_on_where_the_window_is_full(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(
        valkey.url, tmp_path, prefix=prefix, ack_timeout_seconds=1, ack_window=2, ack_attempts=50
    ) as node:
        sent = await publish_all(node, "u1", range(6))
        async with Phone(node, "u1") as phone:
            assert [n["id"] for n in await phone.notifications(2)] == sent[:2]
            again = await phone.notifications(2)
            assert [(n["id"], n["attempt"]) for n in again] == [(i, 2) for i in sent[:2]]
            await phone.ack(sent[0])
            note = await phone.notification()
            while note["id"] != sent[2]:  # the second may be sent a third time before the ack
                assert note["id"] == sent[1]
                note = await phone.notification()
            assert "attempt" not in note
            await phone.ack(sent[2])
            await phone.ack(sent[2])
            assert [n["id"] for n in await phone.notifications(2)] == sent[3:5]


# --- what is gone --------------------------------------------------------------------------------


async def test_what_outlived_its_ttl_is_not_delivered_but_told_as_a_gap(
    node: Node, user: str
) -> None:
    await visit(node, user)
    await publish(node, user, "short", ttl=0.2)
    published = time.time()
    sent = await publish(node, user, "long", ttl=60)
    await asyncio.to_thread(wait_until, lambda: time.time() > published + 0.3, "the ttl to pass")
    async with Phone(node, user) as phone:
        assert await phone.receive() == {"type": "gap", "after": "0-0", "reason": "trimmed"}
        assert (await phone.notification())["id"] == sent
        await phone.acked(sent)
    assert await owed(node, user) == []


async def test_a_gap_is_told_even_if_nothing_follows_it(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        sent = await publish(node, user, 1)
        await phone.notification()
        await phone.acked(sent)
    await publish(node, user, "short", ttl=0.1)
    published = time.time()
    await asyncio.to_thread(wait_until, lambda: time.time() > published + 0.2, "the ttl to pass")
    async with Phone(node, user) as phone:
        assert await phone.receive() == {"type": "gap", "after": sent, "reason": "trimmed"}
        later = await publish(node, user, "later")
        assert (await phone.notification())["id"] == later


async def test_live_only_reaches_who_is_connected_and_nobody_else(node: Node, user: str) -> None:
    await visit(node, user, "absent")
    async with Phone(node, user) as phone:
        answer = await asyncio.to_thread(
            node.post, "/v1/notifications", {"to": {"user": user}, "data": "now", "ttl": 0}
        )
        assert answer.json()["durability"] == "none"
        assert answer.json()["connections"] == 1
        note = await phone.notification()
        assert note["id"] == answer.json()["id"]
        assert note["data"] == "now"
        sent = await publish(node, user, "kept")
        assert (await phone.notification())["id"] == sent
        assert await phone.acked(note["id"]) == note["id"]
    for device in ("phone", "absent"):
        assert await owed(node, user, device) == [sent]


async def test_a_full_mailbox_trims_the_oldest_and_says_so(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        acked = await publish(node, user, "acked")
        await phone.notification()
        await phone.acked(acked)
    sent = await publish_all(node, user, range(MAILBOX + 5))
    async with Phone(node, user) as phone:
        assert await phone.receive() == {"type": "gap", "after": acked, "reason": "trimmed"}
        ids = []
        for _ in range(MAILBOX):
            note = await phone.notification()
            ids.append(note["id"])
            await phone.ack(note["id"])
        assert ids == sent[5:]
        await phone.acked(ids[-1])
        await phone.silent()
    async with Phone(node, user) as phone:
        await phone.silent()


async def test_what_a_full_mailbox_trims_behind_an_ack_is_no_gap(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        for first in range(0, 3 * MAILBOX, WINDOW):
            sent = await publish_all(node, user, range(first, first + WINDOW))
            await phone.notifications(WINDOW)
            await phone.acked(sent[-1])
    assert await owed(node, user) == []


# --- a store that forgets ------------------------------------------------------------------------


async def test_an_emptied_redis_is_told_as_a_reset_and_delivery_goes_on(tmp_path: Path) -> None:
    with (
        EmbeddedServer() as server,
        Redis.from_url(server.url) as redis,
        nodes(2, server.url, tmp_path, lease_seconds=1) as (a, b),
    ):
        async with Phone(a, "u1") as seen, Phone(b, "u1", "b") as other, Phone(b, "u2") as new:
            sent = await publish(a, "u1", "before")
            for phone in (seen, other):
                assert (await phone.notification())["id"] == sent
            await seen.acked(sent)

            redis.flushall()
            for phone in (seen, other):
                gap = {"type": "gap", "after": sent, "reason": "reset", "unread": 0}
                assert await phone.receive() == gap
            for node in (a, b):
                await asyncio.to_thread(wait_until, node.is_ready, "the node to be ready", 5)
            after = await publish(b, "u1", "after")
            for phone in (seen, other):
                assert (await phone.notification())["id"] == after
                assert await phone.acked(after) == after
            assert (await publish(a, "u2", 1)) == (await new.notification())["id"]
            for phone in (seen, other):
                await phone.silent()


async def test_scripts_that_redis_forgot_are_given_again_and_no_ack_is_lost(
    valkey: EmbeddedServer, node: Node, user: str
) -> None:
    def publish_again(number: int) -> str:
        """As a backend does: until it is accepted."""
        body = {"to": {"user": user}, "data": number}
        while (answer := node.post("/v1/notifications", body)).status_code == 503:
            pass
        assert answer.status_code == 202, answer.text
        notification_id: str = answer.json()["id"]
        return notification_id

    with Redis.from_url(valkey.url) as redis:
        async with Phone(node, user) as phone:
            for number in range(3):
                redis.script_flush()
                sent = await asyncio.to_thread(publish_again, number)
                assert (await phone.notification())["id"] == sent
                redis.script_flush()
                assert await phone.acked(sent) == sent


async def test_an_ack_during_an_outage_of_redis_is_written_when_it_is_back(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedServer(appendonly=True, extra=("--appendfsync", "always")) as server,
        Node(server.url, tmp_path, lease_seconds=2) as node,
    ):
        async with Phone(node, "u1") as phone:
            sent = await publish_all(node, "u1", range(3))
            await phone.notifications(3)
            server.kill()
            await phone.send(type="ack", id=sent[1], ref="a")
            await phone.silent()
            await asyncio.to_thread(server.start)
            assert await phone.receive() == {"type": "reply", "ref": "a", "acked": sent[1]}
            await asyncio.to_thread(wait_until, node.is_ready, "the node to be ready")
        assert await owed(node, "u1") == sent[2:]


async def test_a_paused_redis_delays_delivery_and_loses_nothing(tmp_path: Path) -> None:
    with EmbeddedServer() as server, Node(server.url, tmp_path, lease_seconds=2) as node:
        async with Phone(node, "u1") as phone:
            await publish(node, "u1", 0)
            first = await phone.notification()
            await phone.acked(first["id"])
            os.kill(server.pid, signal.SIGSTOP)
            try:
                publishing = asyncio.create_task(publish(node, "u1", 1))
                await asyncio.to_thread(
                    wait_until, lambda: not node.is_ready(), "the node to be unready"
                )
            finally:
                os.kill(server.pid, signal.SIGCONT)
            sent = await publishing
            assert (await phone.notification())["id"] == sent
            await asyncio.to_thread(wait_until, node.is_ready, "the node to be ready")
            assert await phone.acked(sent) == sent
            await phone.silent()


# --- idempotency ---------------------------------------------------------------------------------


async def test_a_repeated_request_is_delivered_once(node: Node, user: str) -> None:
    async with Phone(node, user) as phone:
        body = {"to": {"user": user}, "data": "once"}
        headers = {"Idempotency-Key": f'"{user}"', "Authorization": f"Bearer {publisher_token()}"}
        ids = set()
        for _ in range(5):
            answer = await asyncio.to_thread(node.post, "/v1/notifications", body, headers=headers)
            assert answer.status_code == 202
            ids.add(answer.json()["id"])
        (only,) = ids
        assert (await phone.notification())["id"] == only
        await phone.silent()
        await phone.acked(only)
    assert await owed(node, user) == []
