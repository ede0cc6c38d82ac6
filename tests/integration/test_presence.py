"""Presence: who is at a topic, over all nodes, and who came and went."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis

from pushsvc.client import connect
from pushsvc.protocol import feeds
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.schema import Keys, presence
from tests.support.backend import problem
from tests.support.nodes import Node, nodes, publisher_token, token
from tests.support.topics import Member, member, tell

LEASE = 2.0
PREFIX = "presence"


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("presence"), prefix=PREFIX,
        rate_messages_per_second=1000, rate_burst=2000,
    ) as both:  # fmt: skip
        yield both


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


async def here(phone: Member, topic: str) -> list[str]:
    """Ask who is at a topic; announcements that come before the answer are dropped."""
    await phone.send(type="presence", topic=topic, ref="p")
    while (answer := await phone.receive()).get("ref") != "p":
        assert answer["type"] == "presence", answer
    assert answer["type"] == "reply", answer
    assert answer["topic"] == topic
    assert answer["count"] == len(answer["users"])
    users: list[str] = answer["users"]
    return users


async def told(phone: Member, topic: str) -> tuple[list[str], list[str]]:
    """The next announcement."""
    message = await phone.receive()
    assert set(message) == {"type", "topic", "joined", "left"}, message
    assert (message["type"], message["topic"]) == ("presence", topic)
    return message["joined"], message["left"]


async def listed(node: Node, topic: str, auth: str) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(
            f"{node.url}/v1/topics/{topic}/presence", headers={"Authorization": f"Bearer {auth}"}
        )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(node: Node, topic: str, users: list[str], seconds: float = 10) -> None:
    """Wait until exactly these users are at a topic."""
    async with asyncio.timeout(seconds):
        while (await listed(node, topic, publisher_token()))["users"] != users:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def at(node: Node, topic: str, *users: str) -> AsyncIterator[list[Member]]:
    """These users, at a topic."""
    async with AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(Member(node, user)) for user in users]
        for phone in phones:
            await phone.subscribe(topic)
        yield phones


# --- who is here ---------------------------------------------------------------------------------


async def test_the_people_of_all_nodes_are_listed(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u1", "u3") as phones, at(pair[1], topic, "u2", "u3"):
        assert await here(phones[0], topic) == ["u1", "u2", "u3"]
        found = await listed(pair[1], topic, publisher_token())
        assert found == {"topic": topic, "users": ["u1", "u2", "u3"], "count": 3}


async def test_who_only_asks_is_not_here_and_is_told_no_changes(
    pair: list[Node], topic: str
) -> None:
    async with Member(pair[0], "watcher") as phone:
        assert await here(phone, topic) == []
        async with at(pair[1], topic, "u1"):
            await until(pair[0], topic, ["u1"])
            await asyncio.sleep(0.5)
            await phone.silent()


async def test_who_has_asked_is_told_who_comes_and_goes(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u1") as (phone,):
        assert await here(phone, topic) == ["u1"]
        async with at(pair[1], topic, "u2") as (other,):
            assert await told(phone, topic) == (["u2"], [])
            await other.unsubscribe(topic)
            assert await told(phone, topic) == ([], ["u2"])
            await other.subscribe(topic)
            assert await told(phone, topic) == (["u2"], [])
        assert await told(phone, topic) == ([], ["u2"])
        await phone.silent()


async def test_who_has_not_asked_is_told_nothing(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u1", "u2") as (asker, phone):
        await here(asker, topic)
        async with at(pair[1], topic, "u3"):
            assert await told(asker, topic) == (["u3"], [])
        assert await told(asker, topic) == ([], ["u3"])
        await phone.silent()


async def test_who_left_the_topic_is_told_no_more(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u1", "u2") as (phone, other):
        await here(phone, topic)
        await here(other, topic)
        # Asked and left before the answer: it must not be followed either.
        await phone.send(type="presence", topic=topic, ref=1)
        await phone.send(type="unsubscribe", topic=topic, ref=2)
        assert {(await phone.receive())["ref"] for _ in range(2)} == {1, 2}
        async with at(pair[1], topic, "u3"):
            joined, left = await told(other, topic)
            if not left:
                assert joined == ["u3"]
            await asyncio.sleep(0.5)
            await phone.silent()


async def test_who_comes_back_within_moments_was_never_away(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u1") as (phone,):
        await here(phone, topic)
        async with at(pair[0], topic, "u2"):
            assert await told(phone, topic) == (["u2"], [])
        for visit in range(3):
            await asyncio.sleep(0.5)
            async with at(pair[visit % 2], topic, "u2"):
                await asyncio.sleep(0.1)
        async with at(pair[0], topic, "u2"):
            await asyncio.sleep(2.5)
            await phone.silent()
            assert await here(phone, topic) == ["u1", "u2"]


async def test_a_user_with_two_sockets_leaves_once(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u1") as (phone,):
        await here(phone, topic)
        async with at(pair[0], topic, "u2"):
            assert await told(phone, topic) == (["u2"], [])
            async with at(pair[0], topic, "u2", "u2"), at(pair[1], topic, "u2"):
                pass
            await asyncio.sleep(2.5)
            await phone.silent()
        assert await told(phone, topic) == ([], ["u2"])
        await phone.silent()
        assert await here(phone, topic) == ["u1"]


async def test_many_who_come_at_once_are_told_together(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u0") as (phone,):
        await here(phone, topic)
        users = [f"m{n:02}" for n in range(30)]
        async with at(pair[1], topic, *users):
            joined: list[str] = []
            messages = 0
            while len(joined) < len(users):
                came, left = await told(phone, topic)
                assert left == []
                joined += came
                messages += 1
            assert sorted(joined) == users
            assert messages < 15
            await phone.silent()


async def test_a_view_kept_up_by_announcements_is_the_truth(pair: list[Node], topic: str) -> None:
    async with at(pair[0], topic, "u0") as (phone,):
        view = set(await here(phone, topic))

        async def visitor(number: int) -> None:
            for _ in range(4):
                async with at(pair[number % 2], topic, f"v{number % 5}"):
                    await asyncio.sleep(0.05 * (number % 3))
                await asyncio.sleep(0.02 * number)

        await asyncio.gather(*map(visitor, range(8)))
        async with at(pair[1], topic, "end"):
            async with asyncio.timeout(10):
                while view != {"u0", "end"}:
                    joined, left = await told(phone, topic)
                    assert not view & set(joined)
                    assert set(left) <= view
                    view = (view | set(joined)) - set(left)
            assert await here(phone, topic) == ["end", "u0"]


# --- where very many are -------------------------------------------------------------------------


class Crowd:
    """Users who are nowhere but in Redis."""

    def __init__(self, redis: Redis, key: str, node: str) -> None:
        self._redis = redis
        self._key = key
        self._node = node

    def _fields(self, first: int, last: int) -> list[str]:
        return [presence(self._node, f"user-{number:06}") for number in range(first, last)]

    def come(self, first: int, last: int) -> None:
        for start in range(first, last, 5000):
            fields = self._fields(start, min(last, start + 5000))
            self._redis.hset(self._key, mapping=dict.fromkeys(fields, "1"))

    def go(self, first: int, last: int) -> None:
        self._redis.hdel(self._key, *self._fields(first, last))


@contextmanager
def crowd(
    valkey: EmbeddedServer, phone: Member, topic: str, count: int, prefix: str = PREFIX
) -> Iterator[Crowd]:
    """So many who are said to be at a topic by the node of this device."""
    with Redis.from_url(valkey.url) as redis:
        node, _, _ = phone.welcome["connection"].partition(".")
        there = Crowd(redis, Keys(prefix).present(feeds.topic(topic)), node)
        there.come(0, count)
        yield there


async def answered(phone: Member, topic: str) -> dict[str, Any]:
    """Ask who is at a topic; announcements that come before the answer are dropped."""
    await phone.send(type="presence", topic=topic, ref="p")
    while (answer := await phone.receive()).pop("ref", None) != "p":
        assert answer["type"] == "presence", answer
    assert answer["type"] == "reply", answer
    return answer


async def counted(phone: Member, topic: str) -> int:
    """The next announcement, which names nobody."""
    message = await phone.receive()
    count: int = message.pop("count")
    assert message == {"type": "presence", "topic": topic, "joined": [], "left": []}
    return count


async def test_a_large_topic_is_counted_and_some_are_named(
    pair: list[Node], topic: str, valkey: EmbeddedServer
) -> None:
    async with at(pair[0], topic, "u1") as (phone,):
        with crowd(valkey, phone, topic, 3000):
            answer = await answered(phone, topic)
            assert (answer["topic"], answer["count"], answer["sample"]) == (topic, 3001, True)
            assert 0 < len(answer["users"]) <= 100
            assert answer["users"] == sorted(set(answer["users"]))
            found = await listed(pair[1], topic, publisher_token())
            assert {**found, "type": "reply"} == answer
            async with connect(pair[0].url, token=member("u2")) as client:
                present = await client.presence(topic)
                users, count = present
                assert (users, count, present.sample) == (tuple(answer["users"]), 3001, True)


async def test_of_a_large_topic_the_number_is_told_once_a_second(
    pair: list[Node], topic: str, valkey: EmbeddedServer
) -> None:
    async with at(pair[0], topic, "u1", "u2") as (phone, other):
        with crowd(valkey, phone, topic, 3000):
            assert (await answered(phone, topic))["count"] == 3002
            began = time.monotonic()
            async with at(pair[1], topic, *(f"m{number}" for number in range(30))):
                counts = [await counted(phone, topic)]
                while counts[-1] != 3032:
                    counts.append(await counted(phone, topic))
                assert counts == sorted(set(counts))
                assert len(counts) <= time.monotonic() - began + 2
            while counts[-1] != 3002:
                counts.append(await counted(phone, topic))
            await other.silent()  # it has not asked


async def test_a_topic_that_grows_large_is_told_by_its_number_until_it_is_asked_about(
    pair: list[Node], topic: str, valkey: EmbeddedServer
) -> None:
    async with at(pair[0], topic, "u1", "u2") as (phone, other):
        with crowd(valkey, phone, topic, 990) as there:
            assert (await answered(phone, topic))["count"] == 992
            async with at(pair[1], topic, "u3"):
                assert await told(phone, topic) == (["u3"], [])
                there.come(990, 1010)
                async with at(pair[1], topic, "u4"):
                    assert await counted(phone, topic) == 1014
                    there.go(10, 1010)
                while await counted(phone, topic) != 13:
                    pass
                # The one that was told a number is told numbers, another one names.
                assert (await answered(other, topic))["count"] == 13
                async with at(pair[1], topic, "u5"):
                    assert await told(other, topic) == (["u5"], [])
                    assert await counted(phone, topic) == 14
                    assert "sample" not in await answered(phone, topic)
                    async with at(pair[1], topic, "u6"):
                        assert await told(phone, topic) == (["u6"], [])
                        assert await told(other, topic) == (["u6"], [])


class Cost:
    """What processes have used since the last look, in seconds of CPU."""

    def __init__(self, node: Node, valkey: EmbeddedServer) -> None:
        self._node = psutil.Process(node.process.pid)
        self._redis = Redis.from_url(valkey.url)
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        node = [self._node, *self._node.children(recursive=True)]
        stats = self._redis.info("commandstats")
        spent = ("cmdstat_evalsha", "cmdstat_hscan", "cmdstat_hdel")
        return (
            sum(sum(each.cpu_times()[:2]) for each in node),
            sum(stats.get(name, {}).get("usec", 0) for name in spent) / 1e6,
        )

    def spent(self) -> tuple[float, float]:
        """Of the node, and of the scripts in Redis."""
        before, self._before = self._before, self._now()
        return self._before[0] - before[0], self._before[1] - before[1]


async def test_what_a_question_costs_does_not_grow_with_the_topic(
    pair: list[Node], topic: str, valkey: EmbeddedServer
) -> None:
    spent = {}
    for count in (500, 50_000):
        room = f"{topic}.{count}"
        async with at(pair[0], room, *(f"asker{number}" for number in range(10))) as phones:
            with crowd(valkey, phones[0], room, count):
                await answered(phones[0], room)
                cost = Cost(pair[0], valkey)

                async def ask(phone: Member, room: str = room, count: int = count) -> None:
                    for _ in range(100):
                        assert (await answered(phone, room))["count"] >= count

                await asyncio.gather(*map(ask, phones))
                spent[count] = cost.spent()
    (node_few, redis_few), (node_many, redis_many) = spent.values()
    # A clock of processes ticks a hundred times a second.
    assert node_many < 1.5 * node_few + 0.05, spent
    assert redis_many < 1.5 * redis_few + 0.01, spent


async def test_what_a_change_costs_does_not_grow_with_the_topic(
    pair: list[Node], topic: str, valkey: EmbeddedServer
) -> None:
    spent = {}
    for count in (500, 50_000):
        room = f"{topic}.{count}"
        async with at(pair[0], room, *(f"f{number}" for number in range(10))) as phones:
            with crowd(valkey, phones[0], room, count):
                for phone in phones:
                    await answered(phone, room)
                cost = Cost(pair[0], valkey)
                for number in range(5):
                    async with at(pair[1], room, f"guest{number}"):
                        for phone in phones:
                            message = await phone.receive()
                            assert message["type"] == "presence"
                spent[count] = cost.spent()
    (node_few, redis_few), (node_many, redis_many) = spent.values()
    assert node_many < 1.5 * node_few + 0.05, spent
    assert redis_many < 1.5 * redis_few + 0.01, spent


# --- what happens to nodes -----------------------------------------------------------------------


async def test_the_people_of_a_node_that_was_killed_leave_with_its_lease(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=LEASE) as pair:
        async with at(pair[0], "t", "u1") as (phone,), AsyncExitStack() as stack:
            await stack.enter_async_context(at(pair[1], "t", "u2", "u3"))
            assert await here(phone, "t") == ["u1", "u2", "u3"]
            pair[1].kill()
            killed = time.monotonic()
            assert await told(phone, "t") == ([], ["u2", "u3"])
            assert time.monotonic() - killed < 2 * LEASE
            assert await here(phone, "t") == ["u1"]
            pair[1].start()
            async with at(pair[1], "t", "u2"):
                assert await told(phone, "t") == (["u2"], [])


async def test_the_people_of_a_node_that_stops_leave_at_once(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=30) as pair:
        async with at(pair[0], "t", "u1") as (phone,), AsyncExitStack() as stack:
            await stack.enter_async_context(at(pair[1], "t", "u2"))
            assert await here(phone, "t") == ["u1", "u2"]
            stopping = asyncio.create_task(asyncio.to_thread(pair[1].stop))
            assert await told(phone, "t") == ([], ["u2"])
            await stopping
            assert (await listed(pair[0], "t", publisher_token()))["users"] == ["u1"]
            with Redis.from_url(valkey.url) as redis:
                keys = [key for key in redis.scan_iter(f"{prefix}:*") if b"present" in key]
                assert len(keys) == 1
                assert len(redis.hkeys(keys[0])) == 1


async def test_presence_is_true_again_after_redis_was_emptied(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=LEASE) as pair:
        async with at(pair[0], "t", "u1") as (phone,), at(pair[1], "t", "u2"):
            assert await here(phone, "t") == ["u1", "u2"]
            with Redis.from_url(valkey.url) as redis:
                for key in redis.scan_iter(f"{prefix}:*"):
                    redis.delete(key)
            await asyncio.sleep(0.5)
            await until(pair[0], "t", ["u1", "u2"], seconds=2 * LEASE)
            async with at(pair[1], "t", "u3"):
                joined: list[str] = []
                while "u3" not in joined:
                    joined, _ = await told(phone, "t")


async def test_the_people_of_a_node_that_stood_still_come_back_with_it(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, lease_seconds=LEASE) as pair:
        async with at(pair[0], "t", "u1") as (phone,), at(pair[1], "t", "u2") as (other,):
            assert await here(phone, "t") == ["u1", "u2"]
            pair[1].pause()
            try:
                assert await told(phone, "t") == ([], ["u2"])
            finally:
                pair[1].resume()
            assert await told(phone, "t") == (["u2"], [])
            await tell(pair[0], "t", 1)
            assert (await other.notification())["data"] == 1


# --- who may -------------------------------------------------------------------------------------


async def test_a_socket_asks_for_topics_that_its_token_opens(
    pair: list[Node], user: str, topic: str
) -> None:
    async with Member(pair[0], user, auth=token(user, topics={"subscribe": ["a"]})) as phone:
        answer = await phone.ask(type="presence", topic=topic)
        assert (answer["type"], answer["code"]) == ("error", "forbidden")
        answer = await phone.ask(type="presence", topic="a")
        assert answer == {"type": "reply", "topic": "a", "users": [], "count": 0}


async def test_an_address_tells_who_may_know(pair: list[Node], user: str, topic: str) -> None:
    address = f"{pair[0].url}/v1/topics/{topic}/presence"
    async with at(pair[1], topic, user), httpx.AsyncClient() as client:

        async def get(auth: str, path: str = address) -> httpx.Response:
            return await client.get(path, headers={"Authorization": f"Bearer {auth}"})

        for auth in (member("x"), token("x", topics={"subscribe": [topic]}), publisher_token(),
                     token("admin", "push.admin")):  # fmt: skip
            assert (await get(auth)).json()["users"] == [user]
        problem(await get(token("x")), 403, "forbidden")
        problem(await get(token("x", topics={"publish": ["**"]})), 403, "forbidden")
        problem(await client.get(address), 401, "invalid_token")
        for name in ("a%20b", "*", "a%0d%0ab", "x" * 257, "%C2%A0"):
            answer = await get(member("x"), f"{pair[0].url}/v1/topics/{name}/presence")
            problem(answer, 400, "invalid_name")
        answer = await client.post(address, headers={"Authorization": f"Bearer {member('x')}"})
        problem(answer, 405, "method_not_allowed")
