"""What a node does with frames that no library sends, and with peers that do not read."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import publish, publish_all
from tests.support.nodes import Node, token, wait_until
from tests.support.phone import Phone
from tests.support.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Ended,
    Raw,
    RawSocket,
    frame,
    request,
)

MAX_MESSAGE = 65_536
GROWTH = 30 * 2**20
"""Bytes by which the process may grow under a flood that would need hundreds of megabytes."""
HELLO = b'{"type":"ping"}'


def memory(node: Node) -> int:
    """Resident bytes of the node."""
    size: int = psutil.Process(node.process.pid).memory_info().rss
    return size


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason)


PROTOCOL_ERRORS = {
    "an unmasked frame": frame(TEXT, HELLO, masked=False),
    "an unmasked control frame": frame(PING, masked=False),
    "a compressed frame, as compression was not agreed on": frame(TEXT, HELLO, reserved=4),
    "the second reserved bit": frame(TEXT, HELLO, reserved=2),
    "the third reserved bit": frame(PING, reserved=1),
    "a reserved data opcode": frame(3, HELLO),
    "the last reserved data opcode": frame(7, HELLO),
    "a reserved control opcode": frame(0xB),
    "the last reserved control opcode": frame(0xF),
    "a fragmented ping": frame(PING, fin=False),
    "a fragmented close": frame(CLOSE, fin=False),
    "a ping of 126 bytes": frame(PING, bytes(126)),
    "a pong of 70,000 bytes": frame(PONG, bytes(70_000)),
    "a close of 126 bytes": frame(CLOSE, (1000).to_bytes(2) + b"x" * 124),
    "a continuation of nothing": frame(CONTINUATION, HELLO),
    "a message inside another": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "a length that is not in its shortest form": b"\x81\xfe\x00\x05" + bytes(9),
    "half a close code": frame(CLOSE, b"\x03"),
} | {
    f"close code {code}": close(code)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
}  # fmt: skip


@pytest.mark.parametrize("data", PROTOCOL_ERRORS.values(), ids=PROTOCOL_ERRORS)
def test_a_frame_that_breaks_the_rfc_is_closed_with_1002(
    node: Node, user: str, data: bytes
) -> None:
    with RawSocket(node, user) as raw:
        raw.send(data)
        assert raw.closed() == 1002


INVALID_TEXT = {
    "a stray byte": frame(TEXT, b"\xff"),
    "a cut code point": frame(TEXT, "é".encode()[:1]),
    "a surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "an overlong slash": frame(TEXT, b"\xc0\xaf"),
    "beyond the last code point": frame(TEXT, b"\xf4\x90\x80\x80"),
    "over two fragments": frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION, b"\xff"),
    "in the reason of a close": close(1000, b"\xff"),
}


@pytest.mark.parametrize("data", INVALID_TEXT.values(), ids=INVALID_TEXT)
def test_text_that_is_not_utf_8_is_closed_with_1007(node: Node, user: str, data: bytes) -> None:
    with RawSocket(node, user) as raw:
        raw.send(data)
        assert raw.closed() == 1007


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999])
def test_a_close_code_that_may_be_sent_is_echoed(node: Node, user: str, code: int) -> None:
    with RawSocket(node, user) as raw:
        raw.send(close(code, "später".encode()))
        assert raw.closed() == code
        assert raw.ended() < 5


def test_a_close_without_a_code_is_echoed_without_one(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw:
        raw.send(frame(CLOSE))
        assert raw.frame() == (CLOSE, b"")
        raw.ended()


def test_nothing_that_follows_a_close_is_read(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw:
        raw.send(close(1000) + frame(TEXT, HELLO))
        assert raw.closed() == 1000
        with pytest.raises(Ended):
            raw.frame()


def test_binary_messages_are_closed_with_1003(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw:
        raw.send(frame(BINARY, HELLO))
        assert raw.closed() == 1003


def test_frames_that_arrive_a_byte_at_a_time_are_read(node: Node, user: str) -> None:
    with RawSocket(node, user) as raw:
        for byte in frame(TEXT, b'{"type":"ping","ref":"\xf0\x9f\x98\x80"}') + frame(PING, b"p"):
            raw.send(bytes([byte]))
        assert raw.frame() == (TEXT, '{"type":"pong","ref":"😀"}'.encode())
        assert raw.frame() == (PONG, b"p")


def test_a_ping_between_the_fragments_of_a_message_is_answered_at_once(
    node: Node, user: str
) -> None:
    with RawSocket(node, user) as raw:
        raw.send(frame(TEXT, HELLO[:5], fin=False) + frame(PING, b"between"))
        assert raw.frame() == (PONG, b"between")
        raw.send(frame(CONTINUATION, HELLO[5:]))
        assert raw.message() == {"type": "pong"}


def test_compression_is_not_agreed_on(node: Node, user: str) -> None:
    headers: dict[str, str | None] = {
        "Authorization": f"Bearer {token(user)}",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    }
    with Raw(node) as bare:
        bare.send(request(headers=headers))
        assert "Sec-WebSocket-Extensions" not in bare.answer().headers


# --- size ----------------------------------------------------------------------------------------


def test_a_message_of_the_largest_size_is_read_and_a_larger_one_closed_with_1009(
    node: Node, user: str
) -> None:
    with RawSocket(node, user) as raw:
        raw.send(frame(TEXT, HELLO + b" " * (MAX_MESSAGE - len(HELLO))))
        assert raw.message() == {"type": "pong"}
        raw.send(frame(TEXT, HELLO + b" " * (MAX_MESSAGE + 1 - len(HELLO))))
        assert raw.closed() == 1009


@pytest.mark.parametrize("length", [MAX_MESSAGE + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
def test_a_length_over_the_limit_is_closed_with_1009_before_anything_is_allocated(
    node: Node, user: str, length: int
) -> None:
    before = memory(node)
    with RawSocket(node, user) as raw:
        raw.send(frame(TEXT, b"x", length=length))
        assert raw.closed() == 1009
    assert memory(node) - before < GROWTH


def pour(raw: RawSocket, data: bytes, times: int) -> None:
    """Send something again and again until the node had enough."""
    try:
        for _ in range(times):
            raw.send(data)
    except (Ended, TimeoutError):
        return
    raw.ended()


@contextmanager
def flood(node: Node, code: int, closes: int) -> Iterator[None]:
    """Check that what happens within ends so many connections with a code, in bounded memory.

    The peers themselves may not see the code: it can be lost to the reset of a connection that was
    still being written to.
    """
    before = memory(node)
    closed = node.metric("pushsvc_closes_total", code=str(code))
    yield
    assert memory(node) - before < GROWTH
    wait_until(
        lambda: node.metric("pushsvc_closes_total", code=str(code)) - closed == closes,
        f"{closes} times {code}",
    )


def test_a_message_in_100_000_fragments_is_ended_in_bounded_memory(node: Node, user: str) -> None:
    with flood(node, 1008, 10), ExitStack() as stack:
        sockets = [stack.enter_context(RawSocket(node, user, f"d{i}")) for i in range(10)]
        for raw in sockets:
            raw.send(frame(TEXT, b"[", fin=False))
            pour(raw, frame(CONTINUATION, b"[", fin=False) * 1000, 100)


def test_a_message_that_never_ends_is_ended_in_bounded_memory(node: Node, user: str) -> None:
    with flood(node, 1009, 20), ExitStack() as stack:
        sockets = [stack.enter_context(RawSocket(node, user, f"d{i}")) for i in range(20)]
        for raw in sockets:
            raw.send(frame(TEXT, b"x" * 16_000, fin=False))
        for raw in sockets:
            pour(raw, frame(CONTINUATION, b"x" * 16_000, fin=False), 640)


def test_a_flood_of_bytes_is_closed_with_4008_in_bounded_memory(node: Node, user: str) -> None:
    with flood(node, 4008, 10), ExitStack() as stack:
        for number in range(10):
            raw = stack.enter_context(RawSocket(node, user, f"d{number}"))
            # valid messages: what is limited is their sheer volume
            pour(raw, frame(TEXT, HELLO + b" " * 30_000), 1000)


def test_a_ping_flood_of_a_peer_that_never_reads_is_closed_in_bounded_memory(
    node: Node, user: str
) -> None:
    pings = frame(PING, b"x" * 125) * 1000
    with flood(node, 4008, 10), ExitStack() as stack:
        for number in range(10):
            raw = RawSocket(node, user, f"d{number}", receive_buffer=4096)
            stack.enter_context(raw)
            with suppress(Ended, TimeoutError):
                for _ in range(1000):
                    raw.send(pings)


async def test_everybody_else_is_served_during_a_flood(node: Node, user: str) -> None:
    def storm() -> None:
        for number in range(20):
            with RawSocket(node, "flooder", f"d{number}") as raw:
                pour(raw, frame(TEXT, b'{"type":"ack","id":"1-0"}') * 1000, 200)

    async with Phone(node, user) as phone:
        flooding = asyncio.create_task(asyncio.to_thread(storm))
        slowest, count = 0.0, 0
        while not flooding.done() or count < 10:
            started = time.monotonic()
            sent = await publish(node, user, count)
            assert (await phone.notification())["id"] == sent
            await phone.ack(sent)
            slowest = max(slowest, time.monotonic() - started)
            count += 1
        await flooding
    assert slowest < 1


# --- peers that do not read ----------------------------------------------------------------------


async def test_peers_that_never_read_cost_no_memory_and_lose_nothing(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, prefix: str, user: str
) -> None:
    count, size, peers = 300, 40_000, 20
    with Node(
        valkey.url, tmp_path_factory.mktemp("slow"), prefix=prefix, ack_timeout_seconds=1
    ) as node:
        async with Phone(node, "other") as other:
            with ExitStack() as stack:
                for number in range(peers):
                    device = f"d{number}"
                    stack.enter_context(RawSocket(node, user, device, receive_buffer=4096))
                before = memory(node)
                sent: list[str] = []
                slowest = 0.0
                for first in range(0, count, 20):
                    values = [f"{n}".ljust(size) for n in range(first, first + 20)]
                    sent += await publish_all(node, user, values)
                    started = time.monotonic()
                    mine = await publish(node, "other", first)
                    assert (await other.notification())["id"] == mine
                    await other.ack(mine)
                    slowest = max(slowest, time.monotonic() - started)
                    # of 240 MB that these peers are owed by now, at most a tail each is here
                    assert memory(node) - before < GROWTH
                assert slowest < 1
                await asyncio.to_thread(
                    wait_until,
                    lambda: node.metric("pushsvc_connections") == 1,
                    "those who do not read to be dropped",
                )
                assert node.metric("pushsvc_closes_total", code="4004") == peers
        for number in (0, peers - 1):
            async with Phone(node, user, f"d{number}", max_size=None) as phone:
                notes = await phone.notifications(count, ack=True)
                assert [note["id"] for note in notes] == sent
                assert [int(note["data"]) for note in notes] == list(range(count))
                await phone.silent()
