"""Arbitrary names, driven through everything that takes one and back."""

import asyncio
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pushsvc.client import AsyncPublisher, Notification, connect
from pushsvc.protocol.names import is_name, is_topic, stored
from pushsvc.server.embedded import EmbeddedServer
from tests.support import js
from tests.support.events import Stream
from tests.support.failover import Cluster, ask
from tests.support.nodes import Node, token
from tests.support.phone import PATIENCE
from tests.support.topics import Member, member

PROVIDERS: Final = [
    "auth0|507f", "google-oauth2|1", "a+b@x.com", "{6F9619FF-8B86-D011}", "o'brien@x",
    "DOMAIN\\jdoe", "users/42", "user name", "https://id.example/u?a=1&b=2#c",
]  # fmt: skip
MEANT: Final = [
    ".", "..", "%2F", "%", "%25", "%7Ehead", "~head", "~b:x", "~s:x", "a,b", "{x}", "a b", " a",
    '"', "a ", "\\", "'", "<b>&amp;", "a+b", "?", "#", "u:x", "b", "*", "t:a=1-0,b",
    "notifications", "J\u00f6rg", "Jo\u0308rg", "\u05d0\u05d1", "x\u202ey",
    "\U0001f469\u200d\U0001f4bb", "e\u0301\u0323", "\u2028", "\u00e9" * 128,
    "\U0001f600" * 64, "~" * 256, "a" * 256, "\ufeff", "\u00a0",
]  # fmt: skip
"""What has a meaning somewhere on the way, is invisible, or is as long as may be."""
ANY: Final = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=80)

KEY: Final = re.compile(r"names:(\{[A-Za-z0-9._:@=%-]+\}:)?[A-Za-z0-9._:@=%-]+")
"""What a key may look like."""
FIELD: Final = re.compile(r"(~[a-z]+|(~[a-z]:)?([A-Za-z0-9._:@=-]|%[0-9A-F]{2})+)")
"""What a field of the cursors may look like."""


class World:
    """A node, and every name that was used there."""

    def __init__(self, node: Node, ports: Sequence[int]) -> None:
        self.node = node
        self.ports = ports
        self.used: set[str] = set()

    def fresh(self, names: Sequence[str]) -> list[str]:
        """Those that nobody was called yet: what one left behind is no other's."""
        found = [name for name in dict.fromkeys(names) if name not in self.used]
        self.used.update(found)
        return found

    def keys(self) -> dict[str, int]:
        """The keys in Redis, each with the port of its server."""
        return {key: port for port in self.ports for key in ask(port, "KEYS", "names:*")}


@pytest.fixture(scope="module")
def alone(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Node(valkey.url, tmp_path_factory.mktemp("alone"), prefix="names", **LIMITS) as node:
        yield World(node, [valkey.port])
        node.check_log()


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("cluster")
    with (
        Cluster(directory, primaries=2, replicas=0) as cluster,
        Node(cluster.url, directory, prefix="names", **LIMITS) as node,
    ):
        yield World(node, list(cluster.servers))
        node.check_log()


LIMITS: Final[dict[str, Any]] = {
    "rate_messages_per_second": 1000, "rate_burst": 2000, "max_connections_per_user": 50,
}  # fmt: skip


def backend(publisher: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(publisher, 'push.publish', 'push.admin')}"}


def in_paths(plural: str, name: str, rest: str) -> list[str]:
    """A name in the query, and in the path where no URL parser swallows it."""
    one = plural.removesuffix("s")
    query = f"{one}{rest}?{one.rpartition('/')[2]}={quote(name, safe='')}"
    return [query] if name in (".", "..") else [query, f"{plural}/{quote(name, safe='')}{rest}"]


class Life:
    """What one user does, and what is said of it."""

    def __init__(self, world: World, client: httpx.AsyncClient, user: str, device: str) -> None:
        self.node = world.node
        self.client = client
        self.user = user
        self.device = device
        self.topic = user if is_topic(user) else f"t.{zlib.crc32(user.encode()):x}"

    async def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """A request of a backend that is called as the user is; its answer."""
        kwargs.setdefault("headers", backend(self.user))
        answer = await self.client.request(method, path, **kwargs)
        while answer.status_code == 429:  # all of them trace at once
            await asyncio.sleep(answer.json()["retry_after"])
            answer = await self.client.request(method, path, **kwargs)
        assert answer.status_code < 300, (method, path, self.user, answer.text)
        return answer.json()

    async def publish(self, to: dict[str, str], **fields: Any) -> str:
        body = {"to": to, "data": self.user, **fields}
        once = {**backend(self.user), "Idempotency-Key": f'"{fields.get("event", "k")}"'}
        first = await self.call("POST", "/v1/notifications", json=body, headers=once)
        again = await self.call("POST", "/v1/notifications", json=body, headers=once)
        assert again["id"] == first["id"]
        return str(first["id"])

    async def run(self) -> None:
        sent = await self.publish({"user": self.user}, receipt=True)
        async with Member(self.node, self.user, self.device) as phone:
            assert phone.welcome["user"] == self.user
            assert phone.welcome["device"] == self.device
            note = await phone.notification()
            assert (note["id"], note["data"]) == (sent, self.user)
            await self.is_looked_at(phone.welcome["connection"])
            assert await phone.acked(sent) == sent
            await self.is_acknowledged(sent)
            await self.is_told_on_a_topic(phone)
            await self.is_recalled(phone)
            await self.polls()
            assert (await phone.notification())["event"] == "poll"
            await phone.silent()
            await self.is_revoked(phone)

    async def is_looked_at(self, connection: str) -> None:
        for path in in_paths("/v1/users", self.user, "/presence"):
            found = await self.call("GET", path)
            assert found["user"] == self.user
            assert [each["device"] for each in found["devices"]] == [self.device]
        for path in in_paths("/console/api/users", self.user, ""):
            found = await self.call("GET", self.node.admin_url + path)
            assert found["user"] == self.user
            (device,) = found["devices"]
            assert device["device"] == self.device
            assert [each["connection"] for each in device["connections"]] == [connection]

    async def is_acknowledged(self, sent: str) -> None:
        for path in in_paths("/v1/users", self.user, "/notifications"):
            (kept,) = (await self.call("GET", path))["notifications"]
            assert kept["id"] == sent
            assert [each["device"] for each in kept["acked"]] == [self.device]
        found = await self.call("GET", "/v1/receipts?wait=10")
        (receipt,) = found["receipts"]
        assert (receipt["user"], receipt["device"]) == (self.user, self.device)
        assert (receipt["notification"], receipt["status"]) == (sent, "acked")
        path = f"{self.node.admin_url}/console/api/trace"
        trace = await self.call("GET", path, params={"id": sent, "user": self.user})
        assert trace["feed"] == {"user": self.user}
        (device,) = trace["devices"]
        assert (device["device"], device["status"]) == (self.device, "acked")
        (accepted,) = [step for step in trace["steps"] if step["what"] == "accepted"]
        assert accepted["by"] == self.user

    async def is_recalled(self, phone: Member) -> None:
        for number in range(len(in_paths("/v1/users", self.user, ""))):
            sent = await self.publish({"user": self.user}, event=f"recalled{number}")
            assert (await phone.notification())["id"] == sent
            path = in_paths("/v1/users", self.user, f"/notifications/{sent}")[number]
            assert await self.call("DELETE", path) == {"id": sent, "acked": []}
            told = await phone.receive()
            assert told == {"type": "withdrawn", "id": sent, "reason": "recalled"}

    async def is_told_on_a_topic(self, phone: Member) -> None:
        await phone.subscribe(self.topic)
        answer = await phone.ask(type="presence", topic=self.topic)
        assert (answer["topic"], answer["users"]) == (self.topic, [self.user])
        for path in in_paths("/v1/topics", self.topic, "/presence"):
            found = await self.call("GET", path)
            assert (found["topic"], found["users"]) == (self.topic, [self.user])
        sent = await self.publish({"topic": self.topic}, event="topic")
        async with Stream(self.node, self.user, self.device, topics=[self.topic]) as stream:
            await stream.settled([stored(self.topic)])
            place = stream.last_id
        note = await phone.notification()
        assert (note["id"], note["topic"]) == (sent, self.topic)
        await phone.send(type="publish", topic=self.topic, data=2)
        note = await phone.notification()
        assert (note["topic"], note["from"]) == (self.topic, self.user)
        # The position that the stream ended with goes on where it was.
        async with Stream(
            self.node, self.user, self.device, topics=[self.topic], after=place
        ) as stream:
            assert (await stream.notification())["id"] == note["id"]

    async def polls(self) -> None:
        headers = {"Authorization": f"Bearer {member(self.user)}"}
        ticket = (await self.call("POST", "/v1/tickets", headers=headers))["ticket"]
        query = {"device": self.device, "topic": self.topic, "wait": "0"}
        first = await self.call("GET", "/v1/poll", params={**query, "ticket": ticket}, headers={})
        sent = await self.publish({"topic": self.topic}, event="poll")
        query["after"] = first["position"]
        second = await self.call("GET", "/v1/poll", params=query, headers=headers)
        (note,) = [each for each in second["messages"] if each["type"] == "notification"]
        assert (note["id"], note["topic"]) == (sent, self.topic)
        body = {"id": sent, "device": self.device}
        assert "acked" in await self.call("POST", "/v1/ack", json=body, headers=headers)

    async def is_revoked(self, phone: Member) -> None:
        path = in_paths("/v1/users", self.user, "/disconnect")[-1]
        own = {"Authorization": f"Bearer {token(self.user)}"}
        # By another, as whoever is revoked cannot ask any more.
        answer = await self.client.post(path, headers=backend("operator-of-names"))
        assert answer.json()["user"] == self.user
        assert await phone.closed() == 4501
        answer = await self.client.get("/v1/poll?wait=0", headers=own)
        assert answer.status_code == 401


async def live(world: World, names: Sequence[str]) -> None:
    """Have every name stand for a user, the one before it for its device."""
    async with httpx.AsyncClient(base_url=world.node.url, timeout=20) as client:
        lives = [
            Life(world, client, user, device)
            for user, device in zip(names, [*names[-1:], *names[:-1]], strict=True)
        ]
        await asyncio.gather(*(life.run() for life in lives))
        revoked = await client.get("/v1/revocations", headers=backend("operator-of-names"))
    told = {each.get("user") for each in revoked.json()["revocations"]}
    assert set(names) <= told


def drive(world: World, names: Sequence[str]) -> None:
    fresh = world.fresh([name for name in names if is_name(name)])
    for begin in range(0, len(fresh), 16):
        asyncio.run(live(world, fresh[begin : begin + 16]))
    keys = world.keys()
    assert all(map(KEY.fullmatch, keys)), [key for key in keys if not KEY.fullmatch(key)]
    fields = [
        field
        for key, port in keys.items()
        if key.endswith("}:cursors")
        for field in ask(port, "HKEYS", key)
    ]
    assert fields
    assert all(map(FIELD.fullmatch, fields))


few = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@example([*PROVIDERS, *MEANT])
@given(st.lists(ANY, min_size=6, max_size=8))
@few
def test_any_name_goes_through_everything_and_comes_back(alone: World, names: list[str]) -> None:
    drive(alone, names)


@example([*PROVIDERS, "..", "{x}", "}{", "~b:x", "J\u00f6rg", "Jo\u0308rg", "\U0001f600" * 64])
@given(st.lists(ANY, min_size=6, max_size=8))
@few
def test_a_cluster_finds_all_that_is_kept_of_any_name(clustered: World, names: list[str]) -> None:
    drive(clustered, names)


@pytest.mark.parametrize(
    "name", [*PROVIDERS, "..", "%2F", "J\u00f6rg", "\U0001f469\u200d\U0001f4bb", "x\u202ey"]
)
async def test_the_python_client_takes_any_name(alone: World, name: str) -> None:
    (user, device) = f"py {name}", f"{name} of py"
    topic = quote(name, safe="/|+'{}") if not is_topic(name) else f"py/{name}"
    async with (
        AsyncPublisher(alone.node.url, token=token("py", "push.publish")) as publisher,
        connect(alone.node.url, token=member(user), device=device, topics=[topic]) as client,
    ):
        sent = await publisher.publish(user=user, data=name)
        await client.publish(topic, [name])
        seen: list[Notification] = []
        async with asyncio.timeout(PATIENCE):
            async for message in client:
                if isinstance(message, Notification):
                    seen.append(message)
                if len(seen) == 2:
                    break
        found = {message.topic: message for message in seen}
        assert found[None].id == sent.id
        assert found[topic].data == [name]
        assert user in (await client.presence(topic))[0]


SCRIPT: Final = """
import { connect } from %(client)s;
const { url, token, user, device, topic, other, transport } = JSON.parse(process.argv[1]);
const got = [];
const push = connect({ url, token, device, transports: [transport], topics: [topic] });
const came = (count) => new Promise((resolve) => {
  const look = () => got.length >= count ? resolve() : setTimeout(look, 10);
  look();
});
push.on("notification", ({ topic, data }) => got.push([topic ?? null, data]));
await push.subscribe(topic);
await push.publish(topic, 1);
await came(1);
await push.subscribe(other);  // by a new connection, where that cannot be said on the old one
await push.publish(topic, 2);
await push.publish(other, 3);
await came(3);
const { users } = await push.presence(topic);
console.log(JSON.stringify({ got, users }));
process.exit(0);
"""


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
@pytest.mark.parametrize("name", ["users/42", "..", "a=b,c%2F", "J\u00f6rg's~", "\U0001f600"])
async def test_the_javascript_client_takes_any_name(
    alone: World, name: str, transport: str
) -> None:
    user = f"js {transport} {name}"
    topic = f"js/{transport}/{name}" if name != ".." else ".." + "." * len(transport)
    asked = {
        "url": alone.node.url, "token": member(user), "user": user, "device": f"{name} of js",
        "topic": topic, "other": topic + "=", "transport": transport,
    }  # fmt: skip
    module = Path(__file__).parents[2] / "pushsvc" / "web" / "assets" / "client.js"
    process = await asyncio.create_subprocess_exec(
        js.NODE, "--input-type=module", "-e",
        SCRIPT % {"client": json.dumps(module.as_uri())}, json.dumps(asked),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    found = json.loads(told)
    assert sorted(found["got"]) == [[topic, 1], [topic, 2], [topic + "=", 3]]
    assert found["users"] == [user]
