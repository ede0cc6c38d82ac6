"""Pushes from the publish to the push service, by real nodes."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from pushsvc.node.pusher import LEASE
from pushsvc.protocol import ids
from pushsvc.protocol.push_capability import open_sealed
from pushsvc.push import vapid
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish
from tests.support.fcm_service import FcmService
from tests.support.nodes import Node, token, wait_until
from tests.support.phone import Phone
from tests.support.push_service import HANG, Answer, Message, PushService, Subscription

pytestmark = pytest.mark.promise

AFTER = 0.5
BACKEND = {"Authorization": f"Bearer {token('backend', 'push.publish', ttl=86_400)}"}
"""Made when loaded, used much later."""
SOON: dict[str, Any] = {"after": AFTER, "title": "Hello"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushService]:
    """A push service, of which no client may have done what none takes."""
    with PushService(tmp_path_factory.mktemp("service")) as running:
        yield running
        assert running.mistakes == []


def pushing(service: PushService, directory: Path) -> dict[str, Any]:
    """The settings of a node that pushes to it."""
    key = directory / "vapid.pem"
    if not key.exists():
        key.write_bytes(vapid.new_key()[0])
    return {
        "push_vapid_key_file": key,
        "push_vapid_subject": "mailto:ops@example.com",
        "push_hosts": "localhost",
        "push_allow_private": "true",
        "push_ca_file": service.ca_file,
    }


@pytest.fixture(scope="module")
def nodes(
    valkey: EmbeddedServer, service: PushService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Node]]:
    """Two nodes that push."""
    directory = tmp_path_factory.mktemp("pushing")
    settings = pushing(service, directory)
    with (
        Node(valkey.url, directory, prefix="pushing", **settings) as one,
        Node(valkey.url, directory, prefix="pushing", **settings) as two,
    ):
        yield [one, two]


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    return nodes[0]


def subscribe(node: Node, service: PushService, user: str, device: str = "phone") -> Subscription:
    """Register a device as its page does."""
    made = service.subscribe()
    answer = httpx.put(
        f"{node.url}/v1/users/{user}/devices/{device}/push",
        headers={"Authorization": f"Bearer {token(user)}"},
        json={"provider": "web", "subscription": made.to_json()},
        verify=False,
    )
    assert answer.status_code in (200, 201), answer.text
    return made


async def pushed(service: PushService, to: Subscription, count: int = 1) -> list[Message]:
    """What was pushed, once so many came."""
    await asyncio.to_thread(
        wait_until, lambda: len(service.received(to)) >= count, f"{count} pushes"
    )
    return service.received(to)


async def test_push_away(node: Node, service: PushService) -> None:
    """A device that is not connected gets a push when its time has come, and one only."""
    to = subscribe(node, service, "away")
    begun = time.time()
    note = await publish(node, "away", {"n": 1}, event="greeting", push=SOON | {"badge": "unread"})
    [message] = await pushed(service, to)
    assert message.at - begun >= AFTER
    data = message.data
    assert data["id"] == note
    assert data["title"] == "Hello"
    assert data["badge"] == 1
    assert data["group"] == "greeting"
    assert data["capability"].startswith("pc1.")
    # Another push, later, shows that the first did not come again.
    second = await publish(node, "away", {"n": 2}, push=SOON)
    assert [each.data["id"] for each in await pushed(service, to, 2)] == [note, second]


async def test_push_acknowledged(node: Node, service: PushService) -> None:
    """A device that acknowledges gets none; another of the same user that never came does."""
    there = subscribe(node, service, "both", "there")
    never = subscribe(node, service, "both", "never")
    async with Phone(node, "both", "there") as phone:
        note = await publish(node, "both", 1, push=SOON)
        await phone.ack((await phone.notification())["id"])
        [message] = await pushed(service, never)
        assert message.data["id"] == note
    assert service.received(there) == []


@pytest.mark.parametrize("why", ["read", "archive", "recall", "collapse"])
async def test_push_cancelled(node: Node, service: PushService, why: str) -> None:
    """What was read, archived, recalled or replaced before is not pushed."""
    user = f"cancelled-{why}"
    to = subscribe(node, service, user)
    key = {"collapse_key": "k"} if why == "collapse" else {}
    note = await publish(node, user, 1, push=SOON | {"after": 2}, **key)
    if why in ("read", "archive"):
        answer = await asyncio.to_thread(
            node.post, f"/v1/users/{user}/{why}", {"ids": [note]},
            headers={"Authorization": f"Bearer {token(user)}"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
    elif why == "recall":
        answer = await asyncio.to_thread(
            httpx.delete, f"{node.url}/v1/users/{user}/notifications/{note}", headers=BACKEND
        )
        assert answer.status_code == 200, answer.text
    second = await publish(node, user, 2, push=SOON | {"after": 2.5}, **key)
    assert [each.data["id"] for each in await pushed(service, to)] == [second]


async def test_push_gone(node: Node, service: PushService) -> None:
    """A subscription that is gone is removed, and the publisher told."""
    to = subscribe(node, service, "gone")
    service.unsubscribe(to)
    note = await publish(node, "gone", 1, push=SOON, receipt=True)
    receipt = await asyncio.to_thread(
        wait_until, lambda: _receipt(node, note, "push_failed"), "the receipt"
    )
    assert receipt["device"] == "phone"
    assert receipt["reason"].startswith("web: gone")
    path = "/v1/users/gone/devices/phone/push"
    answer = await asyncio.to_thread(httpx.get, node.url + path, headers=BACKEND)
    assert answer.status_code == 404
    assert service.attempts[to.endpoint] == 1


def _receipt(node: Node, note: str, status: str) -> dict[str, Any] | None:
    answer = httpx.get(f"{node.url}/v1/receipts", headers=BACKEND)
    found = [
        each
        for each in answer.json()["receipts"]
        if each["notification"] == note and each["status"] == status
    ]
    return found[0] if found else None


async def test_push_retried(node: Node, service: PushService) -> None:
    """What a push service asks to have later comes later, and once."""
    to = subscribe(node, service, "retried")
    service.answer(Answer(429, {"Retry-After": "2"}), to=to)
    begun = time.time()
    await publish(node, "retried", 1, push=SOON)
    [message] = await pushed(service, to)
    assert message.at - begun > AFTER + 2
    assert service.attempts[to.endpoint] == 2


async def test_push_too_large(node: Node, service: PushService) -> None:
    """What is too large for a push service goes with its id alone."""
    to = subscribe(node, service, "large")
    service.answer(Answer(413), to=to)
    note = await publish(node, "large", 1, push=SOON)
    [message] = await pushed(service, to)
    assert set(message.data) == {"v", "id", "capability"}
    assert message.data["id"] == note


async def test_push_drained(valkey: EmbeddedServer, service: PushService, tmp_path: Path) -> None:
    """A node that is told to stop writes down what came of the attempts that were under way."""
    settings = pushing(service, tmp_path)
    with Node(valkey.url, tmp_path, prefix="drained", **settings) as first:
        done = subscribe(first, service, "u1", "done")
        to = subscribe(first, service, "u1")
        service.answer(HANG, to=to)
        await publish(first, "u1", 1, push=SOON)
        await asyncio.to_thread(
            wait_until, lambda: service.attempts[to.endpoint], "the attempt to begin"
        )
        await asyncio.to_thread(first.stop)
        with Node(valkey.url, tmp_path, prefix="drained", **settings) as second:
            # The mailbox was given back: no lease has to end first.
            begun = time.time()
            [message] = await pushed(service, to)
            assert message.at - begun < LEASE / 2
            assert second.is_ready()
    assert service.attempts[to.endpoint] == 2
    assert service.attempts[done.endpoint] == 1


async def test_push_credentials(
    valkey: EmbeddedServer, service: PushService, tmp_path: Path
) -> None:
    """A provider that refuses the credentials is stopped, and no other."""
    (tmp_path / "fcm").mkdir()
    with FcmService(tmp_path / "fcm") as fcm:
        authorities = tmp_path / "authorities.pem"
        authorities.write_bytes(service.ca_file.read_bytes() + fcm.ca_file.read_bytes())
        settings = pushing(service, tmp_path) | {
            "push_ca_file": authorities,
            "push_fcm_credentials_file": fcm.file,
            "push_fcm_url": fcm.url,
        }
        with Node(valkey.url, tmp_path, prefix="refused", **settings) as node:
            web = subscribe(node, service, "refused", "browser")
            answer = await asyncio.to_thread(
                httpx.put, f"{node.url}/v1/users/refused/devices/phone/push",
                headers={"Authorization": f"Bearer {token('refused')}"},
                json={"provider": "fcm", "token": "d" * 152},
            )  # fmt: skip
            assert answer.status_code == 201, answer.text
            service.answer_always(Answer(401), to=web)
            for count in (1, 2):
                await publish(node, "refused", count, push=SOON)
                await asyncio.to_thread(wait_until, partial(_came, fcm, count), "the phone's push")
            stopped = {
                name: node.metric(
                    "pushsvc_push_provider_stopped", provider=name, reason="credentials"
                )
                for name in ("web", "fcm")
            }
            assert stopped == {"web": 1, "fcm": 0}
            assert service.attempts[web.endpoint] == 1, "nobody is asked again for a minute"
            assert "a push provider refuses this server's credentials" in node.log()
            service.answer_always(None, to=web)


def _came(fcm: FcmService, count: int) -> bool:
    return len(fcm.requests) >= count


async def test_push_of_a_revoked_token(node: Node, service: PushService) -> None:
    """What a token registered gets nothing once it is revoked."""
    to = subscribe(node, service, "revoked")
    await publish(node, "revoked", 1, push=SOON | {"after": 2})
    answer = await asyncio.to_thread(
        httpx.post, f"{node.url}/v1/users/revoked/disconnect",
        headers={"Authorization": f"Bearer {token('operator', 'push.admin')}"},
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    later = subscribe(node, service, "revoked-later")
    await publish(node, "revoked-later", 1, push=SOON | {"after": 2.5})
    await pushed(service, later)
    assert service.attempts[to.endpoint] == 0


async def test_push_with_another_key_of_capabilities(
    valkey: EmbeddedServer, service: PushService, tmp_path: Path
) -> None:
    """Once the key is deleted, or Redis was emptied, pushes are sealed with the new one."""
    with (
        Node(valkey.url, tmp_path, prefix="sealed", **pushing(service, tmp_path)) as node,
        redis.Redis.from_url(valkey.url) as raw,
    ):
        to = subscribe(node, service, "sealed")
        await publish(node, "sealed", 1, push=SOON)
        await pushed(service, to)
        assert raw.delete("sealed:push:secret") == 1
        note = await publish(node, "sealed", 2, push=SOON)
        capability = (await pushed(service, to, 2))[1].data["capability"]
        secret: Any = raw.get("sealed:push:secret")
    opened = open_sealed(bytes.fromhex(secret.decode()), capability, round(1000 * time.time()))
    assert ids.render(opened.notification) == note


async def test_push_once(nodes: list[Node], service: PushService) -> None:
    """Two nodes share the work, and send nothing twice."""
    users = [f"once-{i}" for i in range(60)]
    subscriptions = [
        await asyncio.to_thread(subscribe, nodes[i % 2], service, user)
        for i, user in enumerate(users)
    ]
    await asyncio.gather(
        *[publish(nodes[i % 2], user, i, push=SOON) for i, user in enumerate(users)]
    )
    for each in subscriptions:
        await pushed(service, each)
    again = await publish(nodes[0], users[0], "again", push=SOON)
    assert (await pushed(service, subscriptions[0], 2))[1].data["id"] == again
    assert [service.attempts[each.endpoint] for each in subscriptions] == [2] + [1] * 59


async def test_push_switch(nodes: list[Node], service: PushService) -> None:
    """Pushes wait while an operator has their provider stopped, and go out after that."""
    to = subscribe(nodes[0], service, "switch")
    answer = await _switch(nodes[0], "stop")
    assert answer.status_code == 200, answer.text
    try:
        await publish(nodes[1], "switch", 1, push=SOON)
        await asyncio.to_thread(
            wait_until,
            lambda: sum(
                node.metric("pushsvc_push_provider_stopped", provider="web", reason="switch")
                for node in nodes
            ),
            "a node to notice",
        )
        assert service.attempts[to.endpoint] == 0
    finally:
        answer = await _switch(nodes[1], "go-on")
    assert answer.json() == {"providers": [{"provider": "web", "stopped": False}]}
    await pushed(service, to)


async def _switch(node: Node, action: str) -> httpx.Response:
    return await asyncio.to_thread(
        httpx.post, f"{node.admin_url}/console/api/push",
        json={"provider": "web", "action": action},
        headers={"Authorization": f"Bearer {token('operator', 'push.admin')}"},
    )  # fmt: skip
