"""The subprotocol ``pushsvc.v1.msgpack``: the same messages, in binary frames."""

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from websockets.typing import Subprotocol

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish
from tests.support.events import Stream
from tests.support.nodes import Node, nodes, token
from tests.support.phone import PATIENCE
from tests.support.topics import Member, member, tell, tell_everyone

BYTES = bytes(range(256))
TEXT = base64.b64encode(BYTES).decode()


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(2, valkey.url, tmp_path_factory.mktemp("msgpack"), prefix="msgpack") as both:
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


class Packed(Member):
    """A device that speaks MessagePack."""

    def __init__(self, node: Node, user: str, device: str = "packed", **kwargs: Any) -> None:
        kwargs.setdefault("subprotocols", [Subprotocol("pushsvc.v1.msgpack")])
        super().__init__(node, user, device, **kwargs)

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            data = await self.socket.recv()
        assert isinstance(data, bytes)
        message: dict[str, Any] = msgspec.msgpack.decode(data)
        return message

    async def send(self, **message: Any) -> None:
        await self.socket.send(msgspec.msgpack.encode(message))


async def test_the_subprotocol_is_answered(node: Node, user: str) -> None:
    async with Packed(node, user) as phone:
        assert phone.socket.subprotocol == "pushsvc.v1.msgpack"
        assert phone.welcome["user"] == user
    both = [Subprotocol("pushsvc.v1.json"), Subprotocol("pushsvc.v1.msgpack")]
    async with Member(node, user, subprotocols=both) as phone_json:
        assert phone_json.socket.subprotocol == both[0]
    async with Packed(node, user, subprotocols=both[::-1]) as phone:
        assert phone.socket.subprotocol == both[1]


async def test_every_message_is_spoken(pair: list[Node], user: str, topic: str) -> None:
    async with Packed(pair[0], user) as phone:
        assert await phone.subscribe(topic) == "0-0"
        assert (await phone.ask(type="presence", topic=topic))["users"] == [user]
        sent = await phone.ask(type="publish", topic=topic, data={"a": [1, 2.5, None, "ü"]})
        note = await phone.notification()
        assert (note["id"], note["from"]) == (sent["id"], user)
        assert note["data"] == {"a": [1, 2.5, None, "ü"]}
        mail = await publish(pair[1], user, {"big": 2**53, "neg": -5, "t": True}, event="e")
        note = await phone.notification()
        assert (note["id"], note["event"]) == (mail, "e")
        assert note["data"] == {"big": 2**53, "neg": -5, "t": True}
        assert await phone.acked(mail) == mail
        await tell_everyone(pair[1], 1)
        assert (await phone.notification())["broadcast"] is True
        await tell(pair[1], topic, 2, ephemeral=True)
        assert (await phone.notification())["ephemeral"] is True
        async with Member(pair[1], "other") as other:
            await other.subscribe(topic)
            message = await phone.receive()
            assert (message["type"], message["joined"]) == ("presence", ["other"])
            await phone.unsubscribe(topic)
        answer = await phone.ask(type="refresh", token=token(user))
        assert answer["type"] == "reply"
        answer = await phone.ask(type="subscribe", topic=topic)
        assert (answer["type"], answer["code"]) == ("error", "forbidden")
        await phone.silent()


async def test_bytes_are_bytes_here_and_base64_there(
    pair: list[Node], user: str, topic: str
) -> None:
    async with (
        Packed(pair[0], user) as phone,
        Packed(pair[1], user, "other") as other,
        Member(pair[1], user, "json") as json_phone,
        Stream(pair[0], user, "stream", topics=[topic]) as stream,
    ):
        await stream.settled([topic])
        for each in (phone, other, json_phone):
            await each.subscribe(topic)
        await phone.send(type="publish", topic=topic, data=BYTES)
        for packed in (phone, other):
            note = await packed.notification()
            assert note["data"] == BYTES
            assert "encoding" not in note
        for note in (await json_phone.notification(), await stream.notification()):
            assert (note["data"], note["encoding"]) == (TEXT, "base64")
        # And the other way round, from a JSON client and from a backend.
        await json_phone.send(type="publish", topic=topic, data=TEXT, encoding="base64")
        await tell(pair[0], topic, TEXT, encoding="base64")
        for _ in range(2):
            assert (await phone.notification())["data"] == BYTES
            note = await json_phone.notification()
            assert (note["data"], note["encoding"]) == (TEXT, "base64")
        # A string that looks like base64 stays a string.
        await tell(pair[0], topic, TEXT)
        assert (await phone.notification())["data"] == TEXT
        assert "encoding" not in await json_phone.notification()


async def test_what_was_kept_is_bytes_as_well(node: Node, user: str, topic: str) -> None:
    async with Packed(node, user) as phone:
        await phone.ask(type="publish", topic=topic, data=b"")
        await phone.ask(type="publish", topic=topic, data=BYTES, collapse_key="k")
        await phone.subscribe(topic)
        assert (await phone.notification())["data"] == BYTES
        await phone.unsubscribe(topic)
        await phone.subscribe(topic, since="0-0")
        assert [note["data"] for note in await phone.notifications(2)] == [b"", BYTES]


async def test_a_text_frame_is_not_spoken(node: Node, user: str) -> None:
    async with Packed(node, user) as phone:
        await phone.socket.send('{"type":"ping"}')
        code, reason = await closed(phone)
        assert code == 1003
        assert "text frames only" not in reason  # it is the other subprotocol that carries these
    async with Member(node, user) as other:
        await other.socket.send(b"\x81\xa4type\xa4ping")
        assert (await closed(other))[0] == 1003


async def closed(phone: Member) -> tuple[int, str]:
    """Wait for the close; its code and its reason."""
    return await phone.closed(), phone.socket.close_reason or ""


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\xff\xff",
        b"\x93\x01\x02\x03",
        b'{"type":"ping"}',
        b'{"type":"ack","id":"1-0"}',
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 4000 + b"\x01",
        b"\x81\xa4type\xa1\xff",
        b"\x81\x01\x02",
        b"\x81\xa4type\xd6\xff\0\0\0\0",
        b"\x81\xa4type\xc7\x01\x05\0",
        b"\x82\xa4type\xa4ping\xa3ref\xcb\x7f\xf0\0\0\0\0\0\0",
        b"\x82\xa4type\xa4ping\xa3ref\xc4\x01a",
        msgspec.msgpack.encode({"type": "publish", "topic": "a", "data": {"x": b"inside"}}),
        msgspec.msgpack.encode({"type": "publish", "topic": "a", "data": [b"inside"]}),
        msgspec.msgpack.encode({"type": "publish", "topic": b"a", "data": 1}),
        msgspec.msgpack.encode({"type": "publish", "topic": "a", "data": {1: 2}}),
        msgspec.msgpack.encode(
            {"type": "publish", "topic": "a", "data": b"x", "encoding": "base64"}
        ),
        msgspec.msgpack.encode({"type": "nothing"}),
    ],
)
async def test_what_cannot_be_read_is_told(node: Node, user: str, frame: bytes) -> None:
    async with Packed(node, user) as phone:
        await phone.socket.send(frame)
        answer = await phone.receive()
        assert answer["type"] == "error", answer
        assert answer["code"].startswith("invalid")
        assert answer["detail"]
        await phone.silent()


async def test_who_never_says_anything_readable_is_closed(node: Node, user: str) -> None:
    async with Packed(node, user) as phone:
        for _ in range(40):
            await phone.socket.send(b"\xc1")
        assert (await closed(phone))[0] == 4503


async def test_a_large_binary_message_counts_as_it_is_kept(node: Node, user: str) -> None:
    async with Packed(node, user, auth=member(user)) as phone:
        # Within the limit as bytes, beyond it as base64, which is what others are sent.
        answer = await phone.ask(type="publish", topic="t", data=b"x" * 60_000)
        assert (answer["type"], answer["code"]) == ("error", "too_large")
        answer = await phone.ask(type="publish", topic="t", data=b"x" * 48_000)
        assert answer["type"] == "reply"
