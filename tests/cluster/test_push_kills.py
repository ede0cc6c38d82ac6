"""Three nodes push, and are killed again and again: nothing is lost, and little comes twice.

What comes twice was under way, or just sent and not written down, in a node that was killed.
"""

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from pushsvc.node.pusher import IN_FLIGHT, LEASE
from pushsvc.push import vapid
from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, nodes, token, wait_until
from tests.support.push_service import PushService, Subscription

KILLS: Final = int(os.environ.get("PUSH_KILLS", "2"))
USERS: Final = 30
BEHIND: Final = 1.0
"""Seconds for what a node sent before it was killed, and had not written down."""
GRACE: Final = LEASE + 5.0
"""Seconds after a kill within which others have sent what was due."""

Which = tuple[str, str]
"""A user and an id, which two users may have."""


class Load:
    """Publishes to devices of which half acknowledge, and keeps what is to be pushed."""

    def __init__(self, running: list[Node], service: PushService) -> None:
        self._nodes = running
        self._service = service
        self.subscriptions: dict[str, Subscription] = {}
        self.due: dict[Which, float] = {}
        """When what nobody acknowledges is due."""
        self.acked: dict[Which, float] = {}
        """When it was answered that the others are acknowledged."""
        self.ending = False

    async def register(self, client: httpx.AsyncClient) -> None:
        for number in range(USERS):
            user = f"u{number}"
            made = self.subscriptions[user] = self._service.subscribe()
            answer = await client.put(
                f"{self._nodes[0].url}/v1/users/{user}/devices/phone/push",
                headers={"Authorization": f"Bearer {token(user, ttl=36_000)}"},
                json={"provider": "web", "subscription": made.to_json()},
            )
            assert answer.status_code == 201, answer.text
            # Who was never there has nothing to acknowledge.
            answer = await client.get(
                f"{self._nodes[0].url}/v1/poll", params={"device": "phone", "wait": 0},
                headers={"Authorization": f"Bearer {token(user)}"},
            )  # fmt: skip
            assert answer.status_code == 200, answer.text

    async def publish(self, client: httpx.AsyncClient, number: int) -> None:
        """Publish one after the other; every second one is acknowledged in time."""
        turn = 0
        while not self.ending:
            user = f"u{(number + 3 * turn) % USERS}"
            acks = turn % 2 == 1
            turn += 1
            after = 2.5 if acks else 0.5
            note = {"to": {"user": user}, "data": turn, "push": {"after": after, "title": "t"}}
            node = self._nodes[turn % 3]
            asked = time.time()
            try:
                answer = await client.post(
                    f"{node.url}/v1/notifications", json=note,
                    headers={"Authorization": f"Bearer {BACKEND}"},
                )  # fmt: skip
                if answer.status_code != 202:
                    continue
                entry_id = answer.json()["id"]
                if not acks:
                    self.due[user, entry_id] = time.time() + after
                    continue
                acked = await self._acknowledge(client, user, entry_id)
                if acked is not None and acked < asked + after - 1:
                    self.acked[user, entry_id] = acked
            except httpx.HTTPError:
                await asyncio.sleep(0.05)  # that node was killed

    async def _acknowledge(
        self, client: httpx.AsyncClient, user: str, entry_id: str
    ) -> float | None:
        for node in self._nodes:
            try:
                answer = await client.post(
                    f"{node.url}/v1/ack", json={"id": entry_id, "device": "phone"},
                    headers={"Authorization": f"Bearer {token(user)}"},
                )  # fmt: skip
            except httpx.HTTPError:
                continue
            if answer.status_code == 200 and answer.json()["acked"] == entry_id:
                return time.time()
        return None


BACKEND = token("backend", "push.publish", ttl=86_400)  # made when loaded, used much later


@pytest.mark.timeout(150 + 20 * KILLS)
async def test_nodes_killed_while_they_push(valkey: EmbeddedServer, tmp_path: Path) -> None:
    """Each due push is sent; twice only what a kill fell upon; none to who acknowledged."""
    key = tmp_path / "vapid.pem"
    key.write_bytes(vapid.new_key()[0])
    with PushService(tmp_path) as service:
        settings: dict[str, Any] = {
            "push_vapid_key_file": key, "push_vapid_subject": "mailto:ops@example.com",
            "push_hosts": "localhost", "push_allow_private": True,
            "push_ca_file": service.ca_file, "publish_rate_per_second": 10_000,
        }  # fmt: skip
        with nodes(3, valkey.url, tmp_path, **settings) as running:
            load = Load(running, service)
            kills: list[float] = []
            async with httpx.AsyncClient(timeout=20) as client:
                await load.register(client)
                publishing = [
                    asyncio.create_task(load.publish(client, number)) for number in range(3)
                ]
                for number in range(KILLS):
                    await more(service)
                    node = running[number % 3]
                    kills.append(time.time())
                    await asyncio.to_thread(node.kill)
                    await asyncio.to_thread(node.start)
                load.ending = True
                await asyncio.gather(*publishing)
            await asyncio.to_thread(wait_until, lambda: not lost(load, service), "all", GRACE + 10)
            check(load, service, kills)
        assert service.mistakes == []


async def more(service: PushService) -> None:
    """Wait until more has come."""
    wanted = len(service.messages) + 10
    await asyncio.to_thread(wait_until, lambda: len(service.messages) > wanted, "pushes")


def lost(load: Load, service: PushService) -> set[Which]:
    return set(load.due) - set(sent(load, service))


def sent(load: Load, service: PushService) -> dict[Which, list[float]]:
    """When each was pushed."""
    users = {made.endpoint: user for user, made in load.subscriptions.items()}
    times: dict[Which, list[float]] = {}
    for each in service.messages:
        times.setdefault((users[each.endpoint], each.data["id"]), []).append(each.at)
    return times


def check(load: Load, service: PushService, kills: list[float]) -> None:
    """Hold what came against what was to come."""
    times = sent(load, service)
    assert len(load.due) > 20
    assert len(load.acked) > 5
    wrong = {each: (acked, times[each]) for each, acked in load.acked.items() if each in times}
    assert wrong == {}, "pushed, and acknowledged before"
    doubled: Counter[float] = Counter()
    for which, at in times.items():
        for first in at[:-1]:
            # A kill followed the first of the two within a moment.
            cause = [kill for kill in kills if -0.2 <= kill - first < BEHIND]
            assert cause, (which, at, kills)
            doubled[cause[0]] += 1
    assert all(count <= IN_FLIGHT for count in doubled.values()), doubled
    for which, due in load.due.items():
        # Where several nodes are killed one after the other, several leases have to end.
        begun = max([due, *(kill for kill in kills if due - GRACE < kill < due + GRACE)])
        assert times[which][0] < begun + GRACE, (which, due, times[which], kills)
