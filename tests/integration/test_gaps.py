"""Gaps as they are counted: what Redis lost, and what only a client says that it held."""

from collections.abc import Iterator

import httpx
import pytest
from redis import Redis

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish
from tests.support.events import Stream
from tests.support.nodes import Node
from tests.support.topics import Member, member, tell, tell_everyone

PREFIX = "gaps"
FUTURE = "9999999999999-0"
PAST = "1-0"


@pytest.fixture(scope="module")
def node(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(valkey.url, tmp_path_factory.mktemp("gaps"), prefix=PREFIX) as running:
        yield running


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


class Counted:
    """How many gaps are counted from now on, by reason."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {
            reason: self._node.metric("pushsvc_gaps_total", reason=reason)
            for reason in ("reset", "trimmed", "claimed")
        }

    def since(self) -> dict[str, float]:
        """Those that are not zero."""
        now = self._now()
        return {
            reason: now[reason] - before
            for reason, before in self._before.items()
            if now[reason] > before
        }


@pytest.mark.parametrize(
    ("feed", "position"), [("u", FUTURE), ("u", PAST), ("b", FUTURE), ("t", FUTURE), ("t", PAST)]
)
async def test_a_position_that_never_was_is_answered_with_a_reset_and_no_alert(
    node: Node, user: str, topic: str, feed: str, position: str
) -> None:
    await publish(node, user, 1)
    await tell(node, topic, 1)
    await tell_everyone(node, 1)
    where = f"t:{topic}" if feed == "t" else feed
    counted = Counted(node)
    headers = {"Authorization": f"Bearer {member(user)}"}
    async with httpx.AsyncClient(headers=headers) as client:
        for number in range(3):
            query = {
                "after": f"{where}={position}", "topic": topic, "device": f"d{number}", "wait": "0",
            }  # fmt: skip
            answer = await client.get(f"{node.url}/v1/poll", params=query)
            gaps = [each for each in answer.json()["messages"] if each["type"] == "gap"]
            assert [each["reason"] for each in gaps] == ["reset"], answer.text
            assert gaps[0]["after"] == position
    assert counted.since() == {"claimed": 1}


async def test_a_stream_and_a_subscription_may_claim_what_they_like(
    node: Node, user: str, topic: str
) -> None:
    await publish(node, user, 1)
    await tell(node, topic, 1)
    counted = Counted(node)
    async with Member(node, user) as phone:
        await phone.notification()
        for _ in range(3):
            await phone.send(type="subscribe", topic=topic, since=FUTURE, ref="q")
            assert (await phone.receive())["ref"] == "q"
            gap = await phone.receive()
            assert (gap["type"], gap["reason"]) == ("gap", "reset")
            assert (await phone.notification())["data"] == 1
            await phone.unsubscribe(topic)
    assert counted.since() == {"claimed": 1}
    async with Stream(node, f"{user}-2", after=f"u={FUTURE}") as stream:
        assert (await stream.message())["reason"] == "reset"
    assert counted.since() == {"claimed": 2}


async def test_who_comes_back_from_before_what_was_trimmed_counts_once(
    node: Node, user: str, topic: str, valkey: EmbeddedServer
) -> None:
    first = (await tell(node, topic, 1))["id"]
    await tell(node, topic, 2)
    with Redis.from_url(valkey.url) as redis:
        cursors = f"{PREFIX}:{{t:{topic}}}:cursors"
        assert redis.exists(cursors)
        redis.hset(cursors, "~trimmed", (await tell(node, topic, 3))["id"])
        redis.hset(cursors, "~first", first)
    counted = Counted(node)
    async with Member(node, user) as phone:
        for _ in range(3):
            await phone.send(type="subscribe", topic=topic, since=first, ref="q")
            assert (await phone.receive())["ref"] == "q"
            assert (await phone.receive())["reason"] == "trimmed"
            await phone.notification()
            await phone.notification()
            await phone.unsubscribe(topic)
    assert counted.since() == {"trimmed": 1}


async def test_what_redis_lost_counts_as_lost_whoever_listens(
    node: Node, user: str, topic: str, valkey: EmbeddedServer
) -> None:
    async with Member(node, user) as phone:
        await phone.subscribe(topic)
        await publish(node, user, 1)
        await phone.notification()
        await tell(node, topic, 1)
        await phone.notification()
        for feed in (f"u:{user}", f"t:{topic}"):
            counted = Counted(node)
            with Redis.from_url(valkey.url) as redis:
                redis.delete(f"{PREFIX}:{{{feed}}}:log", f"{PREFIX}:{{{feed}}}:cursors")
            if feed.startswith("u"):
                await publish(node, user, 2)
            else:
                await tell(node, topic, 2)
            assert (await phone.receive())["reason"] == "reset"
            assert (await phone.notification())["data"] == 2
            assert counted.since() == {"reset": 1}
