"""What a backend meets when it repeats a request."""

import socket
from pathlib import Path

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, wait_until
from tests.support.phone import Phone


def test_a_key_is_not_spent_on_a_request_that_was_refused(node: Node) -> None:
    key = {"Idempotency-Key": '"k"'}
    wrong = node.post("/v1/notifications", {"to": {"user": "u1"}, "datta": 1}, headers=key)
    assert wrong.status_code == 400
    mended = node.post("/v1/notifications", {"to": {"user": "u1"}, "data": 1}, headers=key)
    assert mended.status_code == 202, mended.text
    other = node.post("/v1/notifications", {"to": {"user": "u2"}, "data": 1}, headers=key)
    assert other.status_code == 422
    again = node.post("/v1/notifications", {"to": {"user": "u1"}, "data": 1}, headers=key)
    assert again.json()["id"] == mended.json()["id"]


def test_a_user_named_twice_is_refused(node: Node) -> None:
    answer = node.post("/v1/notifications", {"to": {"users": ["a", "b", "a"]}, "data": 1})
    assert answer.status_code == 400
    assert "twice" in answer.json()["detail"]


def test_connections_that_say_nothing_do_not_take_all_descriptors(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, request_timeout_seconds=2) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(3000)]
        # Were it not, whoever can do this to one node could take all out of service.
        assert node.is_ready()
        wait_until(
            lambda: (
                node.post("/v1/notifications", {"to": {"user": "u"}, "data": 1}).status_code == 202
            ),
            "the silent ones to be closed",
        )
        assert node.is_ready()
        for each in silent:
            each.close()


async def test_acks_that_move_nothing_are_answered_and_not_counted(node: Node) -> None:
    counted = node.metric("pushsvc_acks_total")
    seconds = node.metric("pushsvc_publish_to_ack_seconds_sum")
    async with Phone(node, "nobody") as phone:
        for _ in range(5):
            assert await phone.acked("1-0") == "0-0"
    assert node.metric("pushsvc_acks_total") == counted
    assert node.metric("pushsvc_publish_to_ack_seconds_sum") == seconds
