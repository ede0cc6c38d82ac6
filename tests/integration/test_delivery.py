"""What a backend and a device see of one node."""

import asyncio
from pathlib import Path

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, nodes
from tests.support.phone import Phone

pytestmark = pytest.mark.promise


async def test_a_notification_reaches_a_connected_device_at_once(node: Node) -> None:
    async with Phone(node) as phone:
        sent = await asyncio.to_thread(node.publish, "u1", {"text": "hello"})
        note = await phone.notification()
        assert note["id"] == sent
        assert note["data"] == {"text": "hello"}


async def test_a_publish_on_one_node_reaches_a_socket_on_another_in_order(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    with nodes(2, valkey.url, tmp_path) as (a, b):
        async with Phone(b) as phone:
            sent = [await asyncio.to_thread(a.publish, "u1", i) for i in range(20)]
            notes = await phone.notifications(20)
            assert [note["id"] for note in notes] == sent
            await phone.acked(sent[9])
        async with Phone(a) as phone:
            notes = await phone.notifications(10)
            assert [note["id"] for note in notes] == sent[10:]
            await phone.silent()
