"""The connection core on real sockets: order, bounds, the closing handshake, and time."""

import asyncio
import dataclasses
import itertools
import json
import os
import random
import resource
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import REGISTRY
from websockets.frames import Frame, Opcode

from pushsvc.codes import Close
from pushsvc.node import readiness
from pushsvc.node.connections import LINGER, MAX_TAIL, Connection, Connections
from pushsvc.node.poller import EpollPoller, Poller, SelectorPoller
from pushsvc.node.readiness import ReadinessSet
from pushsvc.protocol import frames, ids
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import Acked, Policy, Request
from pushsvc.protocol.wire import TEXT
from tests.support.hubs import session_of

PATIENCE: Final = 10.0
HEARTBEAT: Final = 25
ACK_TIMEOUT: Final = 30
MAX_MESSAGE: Final = 256 * 1024
GONE: Final = int(LINGER) + 1
POLICY: Final = Policy(
    heartbeat=HEARTBEAT,
    window=64,
    ack_timeout=ACK_TIMEOUT,
    ack_attempts=3,
    messages=Rate(1e9, 1e9),
    bytes=Rate(1e9, 1e9),
    control=Rate(1e9, 1e9),
)
POLLERS: list[Callable[[], Poller]] = [SelectorPoller]
if hasattr(select, "epoll"):
    POLLERS.append(EpollPoller)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.25

    def __call__(self) -> float:
        return self.now


class Owner:
    """Notes what it is told, and answers only as a test says."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.on_drained: Callable[[Connection], None] = lambda _: None
        self.on_acked: Callable[[Connection], None] = lambda _: None
        self.writing: asyncio.Future[None] | None = None

    def drained(self, connection: Connection) -> None:
        self.told.append(("drained", connection.number))
        self.on_drained(connection)

    def acked(self, connection: Connection, ack: Acked) -> None:
        self.told.append(("acked", connection.number, ids.render(ack.id), ack.ref))
        self.on_acked(connection)

    def redeliver(self, connection: Connection, cursor: Cursor) -> None:
        assert cursor is connection.session.cursor
        self.told.append(("redeliver", connection.number))

    def left(self, connection: Connection) -> None:
        self.told.append(("left", connection.number))

    def written(self, connection: Connection) -> asyncio.Future[None] | None:
        assert ("left", connection.number) in self.told
        return self.writing

    def renew(self, connection: Connection, token: str, ref: Ref) -> None:
        self.told.append(("renew", connection.number, token, ref))

    def serve(self, connection: Connection, request: Request) -> None:
        self.told.append(("serve", connection.number, request))


class Peer:
    """The other end of a socket, which reads only when it is asked to."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        end.setblocking(False)
        self._held = b""

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    def push(self, data: bytes) -> int:
        """Send what the kernel takes at once."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    async def some(self, most: int = 1 << 16) -> bytes:
        """What there is next, nothing at the end."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().sock_recv(self.socket, most)

    async def read(self, size: int) -> bytes:
        while len(self._held) < size:
            more = await self.some()
            assert more, f"the end came {size - len(self._held)} bytes early"
            self._held += more
        data, self._held = self._held[:size], self._held[size:]
        return data

    async def rest(self) -> bytes:
        """Everything up to the end, which is no reset."""
        while more := await self.some():
            self._held += more
        data, self._held = self._held, b""
        return data

    async def frame(self) -> tuple[int, bytes]:
        first, size = await self.read(2)
        assert first & 0xF0 == 0x80
        if size == 126:
            (size,) = struct.unpack("!H", await self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.read(8))
        return first & 0x0F, await self.read(size)

    async def message(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == Opcode.TEXT
        message: dict[str, Any] = json.loads(payload)
        return message

    async def closed(self) -> tuple[int, str]:
        """The close frame that comes next."""
        opcode, payload = await self.frame()
        assert opcode == Opcode.CLOSE
        return int.from_bytes(payload[:2]), payload[2:].decode()

    def has_nothing(self) -> bool:
        return not self._held and not select.select([self.socket], [], [], 0)[0]

    def reset(self) -> None:
        """Go as a crash does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Bench:
    """A core, its clock and its owner, and peers that connect over the loopback interface."""

    def __init__(self, policy: Policy = POLICY, *, max_age: float = 0.0) -> None:
        self.clock = Clock()
        self.owner = Owner()
        self.readiness = ReadinessSet(self.clock)
        self.core = Connections(
            policy,
            MAX_MESSAGE,
            self.owner,
            self.owner.renew,
            self.owner.serve,
            self.readiness,
            max_age=max_age,
        )
        self._peers: list[Peer] = []

    def connect(
        self, *, buffers: int | None = None, expires: float = 1e6
    ) -> tuple[Connection, Peer]:
        """A connection and its peer; ``buffers`` is about what the kernel holds each way."""
        with socket.socket() as server:
            if buffers is not None:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            server.bind(("127.0.0.1", 0))
            server.listen()
            there = socket.socket()
            if buffers is not None:
                there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
                there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            there.connect(server.getsockname())
            here, _ = server.accept()
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        here.setblocking(False)
        peer = Peer(there)
        self._peers.append(peer)
        session = session_of("u1", "phone", expires=self.clock.now + expires, seen=self.clock.now)
        connection = self.core.new(session, TEXT)
        fd = here.detach()
        self.readiness.add(connection, fd)
        self.core.adopt(connection, fd)
        return connection, peer

    def blocked(self, size: int = 0) -> tuple[Connection, Peer, bytes]:
        """A connection whose peer does not read, and the frame of which a part waits."""
        connection, peer = self.connect(buffers=16 * 1024)
        data = frames.encode(frames.TEXT, b"n" * (size or MAX_MESSAGE))
        connection.write(data)
        assert connection.tail, "the kernel took it all"
        return connection, peer, data

    async def pass_time(self, seconds: int) -> None:
        """Let time pass as in a worker: a tick a second, and input in between."""
        for _ in range(seconds):
            self.clock.now += 1
            self.readiness.tick()
            await turns()

    def count(self, what: str) -> int:
        return sum(told[0] == what for told in self.owner.told)

    def close(self) -> None:
        self.core.close()
        self.readiness.close()
        for peer in self._peers:
            peer.socket.close()


@pytest.fixture(params=POLLERS)
async def bench(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setattr(readiness, "new_poller", request.param)
    made = Bench()
    yield made
    made.close()


async def turns(count: int = 8) -> None:
    """Let the loop serve what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited for: {what}"
        await asyncio.sleep(0.001)


def client(opcode: Opcode, payload: bytes = b"", *, mask: bool = True) -> bytes:
    """A client's frame, by another implementation."""
    return Frame(opcode, payload).serialize(mask=mask)


def say(**message: Any) -> bytes:
    return client(Opcode.TEXT, json.dumps(message).encode())


def close(code: int | None, reason: str = "") -> bytes:
    payload = b"" if code is None else code.to_bytes(2) + reason.encode()
    return client(Opcode.CLOSE, payload)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def closes(code: int | str) -> float:
    return REGISTRY.get_sample_value("pushsvc_closes_total", {"code": str(int(code))}) or 0.0


def is_open(connection: Connection) -> bool:
    return connection.fd >= 0


# --- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_bytes_arrive_in_order_however_they_are_written_and_read(
    bench: Bench, seed: int
) -> None:
    chance = random.Random(seed)
    connection, peer = bench.connect(buffers=chance.choice([8, 32, 128]) * 1024)
    waiting = [
        frames.encode(frames.BINARY, chance.randbytes(chance.choice([1, 500, 20_000, 250_000])))
        for _ in range(30)
    ]
    expected = b"".join(waiting)

    def feed(to: Connection) -> None:
        while waiting and to.writable():
            to.write(waiting.pop(0))

    bench.owner.on_drained = feed
    feed(connection)
    read = b""
    while len(read) < len(expected):
        read += await peer.some(chance.choice([1, 1000, 100_000]))
        if chance.random() < 0.1:
            await turns()
    assert read == expected
    assert peer.has_nothing()
    assert connection.writable()


async def test_replies_queue_behind_what_waits_and_keep_their_order(bench: Bench) -> None:
    connection, peer, first = bench.blocked(MAX_TAIL // 2)
    replies = [frames.encode(frames.TEXT, b"%d" % number) for number in range(1000)]
    for reply in replies:
        connection.write(reply)
    expected = first + b"".join(replies)
    assert await peer.read(len(expected)) == expected
    await until(connection.writable, "room")
    assert bench.count("drained") == 1


async def test_the_owner_is_told_once_when_all_that_waited_is_sent(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    assert not connection.writable()
    await turns()
    assert bench.count("drained") == 0
    await peer.read(len(data))
    await until(connection.writable, "room")
    await turns()
    assert bench.owner.told == [("drained", connection.number)]
    assert connection.tail is None


async def test_a_socket_that_has_room_again_is_not_watched_for_room(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    await peer.read(len(data))
    await until(connection.writable, "room")
    assert bench.readiness.poller.poll(64) == []


async def test_messages_on_the_socket_are_acted_upon_while_it_is_full(bench: Bench) -> None:
    connection, peer, _ = bench.blocked()
    connection.session.cursor.take(ids.parse("5-0"), bench.clock.now)
    await peer.send(say(type="ack", id="5-0"))
    await until(lambda: bench.count("acked"), "the ack")
    assert bench.owner.told == [("acked", connection.number, "5-0", None)]


# --- bounds ------------------------------------------------------------------------------------


async def test_a_peer_that_reads_no_replies_is_dropped_at_the_bound(bench: Bench) -> None:
    connection, peer = bench.connect(buffers=16 * 1024)
    before, longest = closes(Close.SLOW_CONSUMER), 0
    flood = say(type="ping", ref="r" * 60) * 20
    pending = b""
    async with asyncio.timeout(PATIENCE):
        while is_open(connection):
            with suppress(ConnectionError):
                pending = (pending or flood)[peer.push(pending or flood) :]
            await asyncio.sleep(0)
            longest = max(longest, len(connection.tail or b""))
    assert MAX_MESSAGE < longest <= bench.core.max_tail == MAX_MESSAGE + MAX_TAIL
    assert bench.owner.told == [("left", connection.number)]
    assert closes(Close.SLOW_CONSUMER) == before + 1
    assert len(bench.core) == 0
    with suppress(ConnectionResetError):
        await peer.rest()


async def test_a_reply_does_not_end_a_connection_on_which_a_long_notification_waits(
    bench: Bench,
) -> None:
    connection, peer, data = bench.blocked(MAX_MESSAGE)
    await peer.send(say(type="ping", ref="slow"))
    await until(lambda: len(connection.tail or b"") % 1000 or not is_open(connection), "the reply")
    await turns()
    assert await peer.read(len(data)) == data
    assert await peer.message() == {"type": "pong", "ref": "slow"}
    assert bench.count("left") == 0


async def test_pings_whose_pongs_are_not_read_cost_no_memory_and_not_the_connection(
    bench: Bench,
) -> None:
    connection, peer = bench.connect(buffers=16 * 1024)
    longest = sent = 0
    pending = b""
    while sent < 10_000:
        if not pending:
            pending = b"".join(
                client(Opcode.PING, b"%0125d" % number) for number in range(sent, sent + 100)
            )
            sent += 100
        pending = pending[peer.push(pending) :]
        await asyncio.sleep(0)
        longest = max(longest, len(connection.tail or b""))
    assert longest <= bench.core.max_tail
    assert connection.open
    while pending:
        pending = pending[peer.push(pending) :]
        await asyncio.sleep(0)
    await turns()
    await peer.send(say(type="ping", ref="end"))
    numbers = []
    while (frame := await peer.frame())[0] == Opcode.PONG:
        numbers.append(int(frame[1]))
    assert json.loads(frame[1]) == {"type": "pong", "ref": "end"}
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert len(numbers) < sent


async def test_a_message_over_the_limit_is_refused_before_it_arrives(bench: Bench) -> None:
    connection, peer = bench.connect()
    await peer.send(client(Opcode.TEXT, bytes(MAX_MESSAGE + 1))[:14])
    assert (await peer.closed())[0] == Close.TOO_BIG
    assert connection.reader is None


async def test_a_reader_is_held_only_while_a_message_is_incomplete(bench: Bench) -> None:
    connection, peer = bench.connect()
    other, other_peer = bench.connect()
    message = say(type="ping", ref="x" * 50)
    for byte in message[:-1]:
        await peer.send(bytes([byte]))
        await until(lambda: connection.reader is not None, "the beginning")
    await other_peer.send(message)
    assert (await other_peer.message())["type"] == "pong"
    assert other.reader is None, "no connection reads what another one sent"
    await peer.send(message[-1:])
    assert (await peer.message())["type"] == "pong"
    assert connection.reader is None


# --- control frames and messages ---------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125])
async def test_a_ping_is_answered_with_a_pong_of_its_payload(bench: Bench, payload: bytes) -> None:
    _, peer = bench.connect()
    await peer.send(client(Opcode.PING, payload))
    assert await peer.frame() == (Opcode.PONG, payload)


async def test_pings_are_answered_in_order_and_between_the_fragments_of_a_message(
    bench: Bench,
) -> None:
    _, peer = bench.connect()
    whole = json.dumps({"type": "ping", "ref": "whole"}).encode()
    await peer.send(
        Frame(Opcode.TEXT, whole[:9], fin=False).serialize(mask=True)
        + client(Opcode.PING, b"1")
        + Frame(Opcode.CONT, whole[9:12], fin=False).serialize(mask=True)
        + client(Opcode.PING, b"2")
        + Frame(Opcode.CONT, whole[12:], fin=True).serialize(mask=True)
    )
    assert await peer.frame() == (Opcode.PONG, b"1")
    assert await peer.frame() == (Opcode.PONG, b"2")
    assert await peer.message() == {"type": "pong", "ref": "whole"}


async def test_a_ping_is_answered_behind_a_notification_that_waits(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    await peer.send(client(Opcode.PING, b"alive?"))
    await turns(20)
    assert await peer.read(len(data)) == data
    assert await peer.frame() == (Opcode.PONG, b"alive?")
    assert connection.open


async def test_a_pong_that_nobody_asked_for_is_ignored(bench: Bench) -> None:
    connection, peer = bench.connect()
    await peer.send(client(Opcode.PONG, b"x") + say(type="ping"))
    assert await peer.message() == {"type": "pong"}
    assert connection.open


async def test_a_token_is_handed_to_who_renews(bench: Bench) -> None:
    connection, peer = bench.connect()
    await peer.send(say(type="refresh", token="t", ref=1))
    await until(lambda: bench.owner.told, "the token")
    assert bench.owner.told == [("renew", connection.number, "t", 1)]


async def test_binary_messages_are_refused_with_1003(bench: Bench) -> None:
    connection, peer = bench.connect()
    await peer.send(client(Opcode.BINARY, b"x"))
    assert await peer.closed() == (Close.UNSUPPORTED_DATA, Close.UNSUPPORTED_DATA.reason)
    assert bench.owner.told == [("left", connection.number)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client(Opcode.TEXT, b"{}", mask=False), Close.PROTOCOL_ERROR),
        (client(Opcode.TEXT, b"\xff"), Close.INVALID_DATA),
        (client(Opcode.CLOSE, b"\x03"), Close.PROTOCOL_ERROR),
    ],
    ids=["unmasked", "not UTF-8", "half a close code"],
)
async def test_a_violation_is_answered_after_what_came_before_it(
    bench: Bench, data: bytes, code: Close
) -> None:
    connection, peer = bench.connect()
    await peer.send(say(type="ping", ref=1) + data + say(type="ping", ref=2))
    assert await peer.message() == {"type": "pong", "ref": 1}
    assert (await peer.closed())[0] == code
    assert await peer.rest() == b""
    assert bench.owner.told == [("left", connection.number)]


async def test_bytes_that_came_with_the_handshake_are_acted_upon(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.core.received(connection, say(type="ping", ref="early"))
    assert await peer.message() == {"type": "pong", "ref": "early"}


async def test_bytes_that_came_with_the_handshake_of_a_peer_that_is_gone_are_ignored(
    bench: Bench,
) -> None:
    connection, peer = bench.connect()
    peer.reset()
    connection.write(frames.PING)
    assert not is_open(connection)
    bench.core.received(connection, close(1000))
    assert bench.owner.told == [("left", connection.number)]
    assert len(bench.core) == 0


# --- the closing handshake ---------------------------------------------------------------------


@pytest.mark.parametrize("code", [None, 1000, 1001, 3000, 4999])
async def test_a_close_of_the_peer_is_answered_with_its_code_and_the_socket_closed(
    bench: Bench, code: int | None
) -> None:
    before = descriptors()
    connection, peer = bench.connect()
    await peer.send(close(code, "" if code is None else "so long") + say(type="ping"))
    opcode, payload = await peer.frame()
    assert opcode == Opcode.CLOSE
    assert payload == (b"" if code is None else code.to_bytes(2))
    assert await peer.rest() == b""
    assert bench.owner.told == [("left", connection.number)]
    assert not is_open(connection)
    assert descriptors() == before + 1


async def test_a_close_of_the_peer_is_answered_behind_what_waits_for_it(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    await peer.send(close(1000))
    await until(lambda: not connection.open, "the close")
    assert bench.owner.told == [("left", connection.number)]
    assert await peer.read(len(data)) == data
    assert await peer.closed() == (1000, "")
    assert await peer.rest() == b""
    peer.socket.close()
    await until(lambda: not is_open(connection), "the end")
    assert bench.owner.told == [("left", connection.number)]


async def test_a_close_of_the_peer_is_answered_once_what_it_acknowledged_is_written(
    bench: Bench,
) -> None:
    connection, peer = bench.connect()
    bench.owner.writing = asyncio.get_running_loop().create_future()
    await peer.send(close(1000))
    await until(lambda: not connection.open, "the close")
    await peer.send(say(type="ping"))
    await turns()
    assert peer.has_nothing()
    assert bench.owner.told == [("left", connection.number)]
    bench.owner.writing.set_result(None)
    assert await peer.closed() == (1000, "")
    assert await peer.rest() == b""
    assert not is_open(connection)


async def test_an_answer_that_waits_comes_behind_what_waits_for_the_peer(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    bench.owner.writing = asyncio.get_running_loop().create_future()
    await peer.send(close(1000))
    await until(lambda: not connection.open, "the close")
    assert await peer.read(len(data)) == data
    await until(lambda: connection.tail is None, "room")
    await turns()
    assert peer.has_nothing(), "neither the answer nor the end"
    bench.owner.writing.set_result(None)
    assert await peer.closed() == (1000, "")
    assert await peer.rest() == b""


async def test_a_peer_that_goes_before_its_close_is_answered_is_dropped(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.owner.writing = asyncio.get_running_loop().create_future()
    await peer.send(close(1000))
    await until(lambda: not connection.open, "the close")
    peer.socket.close()
    await until(lambda: not is_open(connection), "the end")
    _, other = bench.connect()  # which may have the descriptor now
    bench.owner.writing.set_result(None)
    await turns()
    assert other.has_nothing()
    assert not bench.core._answering


async def test_a_peer_that_closes_and_does_not_read_is_dropped_after_the_linger(
    bench: Bench,
) -> None:
    connection, peer, _ = bench.blocked()
    await peer.send(close(1000))
    await until(lambda: not connection.open, "the close")
    await bench.pass_time(GONE)
    assert not is_open(connection)
    assert bench.count("left") == 1


async def test_a_close_of_the_node_half_closes_and_waits_for_the_answer(bench: Bench) -> None:
    connection, peer = bench.connect()
    connection.end(Close.DRAINING)
    assert await peer.closed() == (Close.DRAINING, Close.DRAINING.reason)
    assert await peer.some() == b"", "no more comes"
    await turns()
    assert is_open(connection)
    await peer.send(close(Close.DRAINING))
    await turns()
    assert is_open(connection), "it is the peer's turn to close: see RFC 6455, section 7.1.1"
    peer.socket.close()
    await until(lambda: not is_open(connection), "the end")
    assert bench.owner.told == [("left", connection.number)]


async def test_what_a_peer_says_after_the_close_of_the_node_is_read_and_dropped(
    bench: Bench,
) -> None:
    connection, peer = bench.connect()
    connection.session.cursor.take(ids.parse("5-0"), bench.clock.now)
    # More than the kernel holds: a socket closed at once would answer it with a reset.
    crossing = say(type="ack", id="5-0") + client(Opcode.PING) * 200_000
    connection.end(Close.DRAINING)
    await peer.send(crossing)
    assert (await peer.closed())[0] == Close.DRAINING
    assert await peer.rest() == b"", "an end, not a reset"
    assert bench.owner.told == [("left", connection.number)]


async def test_a_close_of_the_node_waits_for_what_was_sent_before_it(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    connection.send(b'{"type":"reconnect"}')
    connection.end(Close.DRAINING)
    assert not connection.open
    assert await peer.read(len(data)) == data
    assert await peer.message() == {"type": "reconnect"}
    assert (await peer.closed())[0] == Close.DRAINING
    assert await peer.rest() == b""
    assert bench.owner.told == [("left", connection.number)]


@pytest.mark.parametrize("reads", [True, False])
async def test_a_peer_that_does_not_answer_a_close_is_dropped_after_the_linger(
    bench: Bench, *, reads: bool
) -> None:
    connection = bench.connect()[0] if reads else bench.blocked()[0]
    connection.end(Close.REVOKED)
    await bench.pass_time(GONE - 2)
    assert is_open(connection)
    await bench.pass_time(2)
    assert not is_open(connection)
    assert bench.owner.told == [("left", connection.number)]


async def test_a_second_close_and_all_else_after_the_first_is_ignored(bench: Bench) -> None:
    connection, peer = bench.connect()
    before = closes(Close.REVOKED)
    connection.end(Close.REVOKED)
    connection.end(Close.DRAINING)
    connection.send(b'{"type":"late"}')
    assert (await peer.closed())[0] == Close.REVOKED
    assert await peer.rest() == b""
    assert bench.count("left") == 1
    assert closes(Close.REVOKED) == before + 1


async def test_nothing_is_written_before_the_handshake_or_after_the_end(bench: Bench) -> None:
    session = session_of("u1", "phone", expires=1e6, seen=bench.clock.now)
    connection = bench.core.new(session, TEXT)
    connection.write(b"x")
    connection.send(b"x")
    connection.end(Close.GOING_AWAY)
    connection.watch()
    assert not connection.writable()
    assert bench.owner.told == []
    connection, peer = bench.connect()
    peer.reset()
    await until(lambda: not is_open(connection), "the reset")
    connection.write(b"x")
    connection.watch()
    assert bench.owner.told == [("left", connection.number)]


@pytest.mark.parametrize("way", ["gone", "half gone", "reset"])
async def test_a_peer_that_goes_without_a_close_is_forgotten(bench: Bench, way: str) -> None:
    before = descriptors()
    connection, peer = bench.connect()
    if way == "reset":
        peer.reset()
    elif way == "gone":
        peer.socket.close()
    else:
        peer.socket.shutdown(socket.SHUT_WR)
    await until(lambda: not is_open(connection), "the end")
    assert bench.owner.told == [("left", connection.number)]
    assert len(bench.core) == 0
    assert list(bench.core) == []
    assert descriptors() == before + (way == "half gone")


async def test_who_was_told_the_end_is_not_counted_among_those_that_are_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.readiness.turns, "run", lambda *_: None)  # it is not their turn
    connection, peer = bench.connect()
    connection.end(Close.GOING_AWAY)
    peer.socket.close()
    await until(lambda: connection.fd < 0, "the end")
    connection, peer = bench.connect()
    peer.socket.shutdown(socket.SHUT_WR)
    await until(lambda: bench.readiness.lost == 1, "the loss")
    connection.end(Close.GOING_AWAY)
    assert (bench.readiness.lost, len(bench.core), connection.fd) == (0, 0, -1)


async def test_a_peer_that_goes_while_something_waits_is_forgotten(bench: Bench) -> None:
    connection, peer, _ = bench.blocked()
    peer.reset()
    await until(lambda: not is_open(connection), "the end")
    assert bench.owner.told == [("left", connection.number)]


async def test_an_event_of_a_connection_that_another_one_ended_is_ignored(bench: Bench) -> None:
    pairs = [bench.connect() for _ in range(4)]
    for connection, peer in pairs:
        connection.session.cursor.take(ids.parse("5-0"), bench.clock.now)
        await peer.send(say(type="ack", id="5-0"))

    def end_the_others(one: Connection) -> None:
        for connection, _ in pairs:
            if connection is not one:
                bench.core.abort(connection, Close.TOO_MANY_CONNECTIONS)

    bench.owner.on_acked = end_the_others
    await until(lambda: bench.count("acked"), "an ack")
    await turns()
    assert bench.count("acked") == 1
    assert bench.count("left") == 3
    assert len(bench.core) == 1


async def test_a_close_needs_no_descriptor(bench: Bench) -> None:
    connection, peer = bench.connect()
    with no_descriptors_left():
        connection.end(Close.GOING_AWAY)
    assert (await peer.closed())[0] == Close.GOING_AWAY
    assert await peer.some() == b""


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def by_peer(_: Bench, __: Connection, peer: Peer) -> None:
    await peer.send(close(1000))


async def by_node(_: Bench, connection: Connection, __: Peer) -> None:
    connection.end(Close.GOING_AWAY)


async def by_both(_: Bench, connection: Connection, peer: Peer) -> None:
    await peer.send(close(1000))
    connection.end(Close.GOING_AWAY)


async def by_abort(bench: Bench, connection: Connection, _: Peer) -> None:
    bench.core.abort(connection, Close.SLOW_CONSUMER)


async def by_violation(_: Bench, __: Connection, peer: Peer) -> None:
    await peer.send(b"\xff\xff\xff\xff")


async def by_loss(_: Bench, __: Connection, peer: Peer) -> None:
    peer.reset()


async def by_a_write_into_the_void(_: Bench, connection: Connection, peer: Peer) -> None:
    peer.reset()
    connection.write(frames.PING)


async def by_node_while_full(_: Bench, connection: Connection, __: Peer) -> None:
    connection.write(bytes(32 * MAX_MESSAGE))
    connection.end(Close.GOING_AWAY)


async def by_peer_while_full(_: Bench, connection: Connection, peer: Peer) -> None:
    connection.write(bytes(32 * MAX_MESSAGE))
    await peer.send(close(1000))


WAYS: list[Callable[[Bench, Connection, Peer], Awaitable[None]]] = [
    by_peer, by_node, by_both, by_abort, by_violation, by_loss, by_a_write_into_the_void,
    by_node_while_full, by_peer_while_full,
]  # fmt: skip


async def test_no_way_to_end_leaves_a_descriptor_or_a_count_behind(bench: Bench) -> None:
    held = REGISTRY.get_sample_value("pushsvc_connections")
    before = descriptors()
    for _ in range(10):
        pairs = [bench.connect() for _ in WAYS]
        for way, (connection, peer) in zip(WAYS, pairs, strict=True):
            await way(bench, connection, peer)
        await turns()
        await bench.pass_time(GONE)
        for connection, peer in pairs:
            assert not is_open(connection)
            peer.socket.close()
    assert descriptors() == before
    assert bench.count("left") == 10 * len(WAYS)
    assert len(bench.core) == 0
    assert REGISTRY.get_sample_value("pushsvc_connections") == held


async def test_the_end_of_the_core_drops_every_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in POLLERS:
        monkeypatch.setattr(readiness, "new_poller", kind)
        before = descriptors()
        bench = Bench()
        bench.connect()
        bench.blocked()
        bench.connect()[0].end(Close.DRAINING)
        bench.close()
        assert descriptors() == before
        assert bench.count("left") == 3


# --- time --------------------------------------------------------------------------------------


async def test_a_silent_peer_is_pinged_after_a_heartbeat_and_left_after_two(bench: Bench) -> None:
    connection, peer = bench.connect()
    connection.session.seen = bench.clock.now
    before = closes(Close.NO_HEARTBEAT)
    await bench.pass_time(HEARTBEAT - 1)
    assert peer.has_nothing()
    await bench.pass_time(3)
    assert await peer.frame() == (Opcode.PING, b"")
    await bench.pass_time(HEARTBEAT - 3)
    assert connection.open
    assert peer.has_nothing(), "one ping is enough"
    await bench.pass_time(3)
    assert await peer.closed() == (Close.NO_HEARTBEAT, Close.NO_HEARTBEAT.reason)
    assert closes(Close.NO_HEARTBEAT) == before + 1


async def test_peers_that_came_together_are_not_pinged_together(bench: Bench) -> None:
    peers = [bench.connect()[1] for _ in range(60)]
    pinged = []
    for _ in range(HEARTBEAT + 2):
        await bench.pass_time(1)
        waiting = [peer for peer in peers if not peer.has_nothing()]
        pinged.append(len(waiting))
        peers = [peer for peer in peers if peer not in waiting]
    assert sum(pinged) == 60
    assert max(pinged) <= 30


async def test_a_peer_that_answers_its_pings_stays(bench: Bench) -> None:
    connection, peer = bench.connect()
    pings = 0
    for _ in range(20 * HEARTBEAT):
        await bench.pass_time(1)
        while not peer.has_nothing():
            assert await peer.frame() == (Opcode.PING, b"")
            await peer.send(client(Opcode.PONG))
            pings += 1
    assert connection.open
    assert 18 <= pings <= 20


async def test_a_peer_that_speaks_is_not_pinged(bench: Bench) -> None:
    connection, peer = bench.connect()
    for number in range(20):
        await bench.pass_time(HEARTBEAT // 3)
        await peer.send(say(type="ping", ref=number))
        assert await peer.message() == {"type": "pong", "ref": number}
    assert connection.open


async def test_a_peer_that_leaves_its_socket_full_is_dropped_and_not_pinged(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    before = closes(Close.SLOW_CONSUMER)
    for _ in range(ACK_TIMEOUT + HEARTBEAT + 1):
        if not is_open(connection):
            break
        await bench.pass_time(1)
        # It is alive, it just does not read.
        with suppress(ConnectionError):
            peer.push(client(Opcode.PONG))
    assert not is_open(connection)
    assert closes(Close.SLOW_CONSUMER) == before + 1
    read = b""
    with suppress(ConnectionResetError):
        while more := await peer.some():
            read += more
    assert data.startswith(read)
    assert len(read) < len(data)


async def test_a_peer_that_reads_slowly_is_not_dropped(bench: Bench) -> None:
    connection, peer, data = bench.blocked()
    read = 0
    for _ in range(3):
        await bench.pass_time(ACK_TIMEOUT - 5)
        while peer.has_nothing():
            await asyncio.sleep(0.001)
        # Some of it, so that the core can send on.
        read += len(await peer.read(80_000))
        await peer.send(client(Opcode.PONG))
        await asyncio.sleep(0.05)
    await peer.read(len(data) - read)
    await until(connection.writable, "room")
    assert bench.count("left") == 0


async def test_what_is_not_acknowledged_in_time_is_sent_again(bench: Bench) -> None:
    connection, peer = bench.connect()
    await bench.pass_time(5)
    connection.session.cursor.take(ids.parse("5-0"), bench.clock.now)
    connection.watch()
    for _ in range(ACK_TIMEOUT):
        await bench.pass_time(1)
        assert bench.count("redeliver") == 0 or bench.clock.now >= 1000 + 5 + ACK_TIMEOUT
        await peer.send(client(Opcode.PONG))
    await bench.pass_time(1)
    assert bench.owner.told == [("redeliver", connection.number)]


async def test_an_ack_may_be_due_before_the_next_sign_of_life() -> None:
    bench = Bench(dataclasses.replace(POLICY, heartbeat=10 * ACK_TIMEOUT))
    connection, _ = bench.connect()
    await bench.pass_time(5)
    connection.session.cursor.take(ids.parse("5-0"), bench.clock.now)
    connection.watch()
    await bench.pass_time(ACK_TIMEOUT - 1)
    assert bench.owner.told == []
    await bench.pass_time(2)
    assert bench.owner.told == [("redeliver", connection.number)]
    bench.close()


async def test_a_new_token_that_ends_earlier_is_looked_at_earlier(bench: Bench) -> None:
    connection, _ = bench.connect()
    before = closes(Close.TOKEN_EXPIRED)
    connection.session.expires = bench.clock.now + 5
    connection.renewed()
    await bench.pass_time(6)
    assert bench.owner.told == [("left", connection.number)]
    assert closes(Close.TOKEN_EXPIRED) == before + 1


async def test_a_token_that_ends_is_announced_and_then_enforced(bench: Bench) -> None:
    _, peer = bench.connect(expires=100)
    for _ in range(41):
        await bench.pass_time(1)
        await peer.send(client(Opcode.PONG))
    told = []
    while not peer.has_nothing():
        opcode, payload = await peer.frame()
        if opcode == Opcode.TEXT:
            told.append(json.loads(payload)["code"])
    assert told == ["token_expiring"]
    for _ in range(60):
        await bench.pass_time(1)
        with suppress(ConnectionError):
            await peer.send(client(Opcode.PONG))
    while (frame := await peer.frame())[0] == Opcode.PING:
        pass
    assert frame[0] == Opcode.CLOSE
    assert int.from_bytes(frame[1][:2]) == Close.TOKEN_EXPIRED


async def test_many_connections_are_each_looked_at_in_their_time(bench: Bench) -> None:
    pairs = [bench.connect() for _ in range(100)]
    quiet, lively = pairs[::2], pairs[1::2]
    for _ in range(2 * HEARTBEAT + 2):
        await bench.pass_time(1)
        for _, peer in lively:
            await peer.send(client(Opcode.PONG))
    await turns(50)
    assert all(connection.open for connection, _ in lively)
    assert not any(connection.open for connection, _ in quiet)
    assert len(bench.core) == len(lively)


# --- going elsewhere ---------------------------------------------------------------------------


async def test_who_departs_is_told_when_to_come_back_and_closed_with_4001(bench: Bench) -> None:
    connection, peer = bench.connect()
    connection.depart(0.25)
    assert await peer.message() == {"type": "reconnect", "retry_after": 0.25}
    assert (await peer.closed())[0] == Close.DRAINING
    connection.depart(0.25)
    assert bench.core.present() == []


async def test_connections_depart_at_their_age_and_not_all_together() -> None:
    bench = Bench(max_age=100)
    try:
        pairs = [bench.connect() for _ in range(60)]
        left: list[int] = []
        for _ in range(102):
            await bench.pass_time(1)
            left.append(len(bench.core))
            for connection, peer in pairs:
                if connection.open:
                    await peer.send(client(Opcode.PONG))
        assert left[78] == 60, "nobody goes before four fifths of the age"
        assert left[-1] == 0, "nobody is older than the age"
        gone = [before - after for before, after in itertools.pairwise(left)]
        assert max(gone) < 20
        while (frame := await pairs[0][1].frame())[0] == Opcode.PING:
            pass
        assert json.loads(frame[1])["type"] == "reconnect"
        assert (await pairs[0][1].closed())[0] == Close.DRAINING
    finally:
        bench.close()


async def test_without_an_age_nobody_departs(bench: Bench) -> None:
    connection, peer = bench.connect()
    for _ in range(1000):
        bench.clock.now += 1
        connection.session.seen = bench.clock.now
        bench.readiness.tick()
    assert connection.open
    assert peer.has_nothing()
