"""TLS below the core: what OpenSSL keeps for itself must not be waited for, or said twice."""

import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from pushsvc.node.transport import PLAIN, Secure
from tests.support.certificates import Authority

RECORD = 16 * 1024


class Pair(NamedTuple):
    transport: Secure
    fd: int
    peer: ssl.SSLSocket


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(tmp_path))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = Secure(lambda: context)
    fd = transport.hold(ours)
    with ThreadPoolExecutor() as pool:
        shaken = pool.submit(
            authority.context().wrap_socket,
            theirs,
            server_hostname="localhost",
            suppress_ragged_eofs=False,
        )
        while True:
            with suppress(BlockingIOError):
                transport.handshake(fd)
                break
    with shaken.result() as peer:
        peer.settimeout(5)
        yield Pair(transport, fd, peer)
        with suppress(OSError):
            transport.close(fd)


def test_a_read_leaves_nothing_decrypted_behind(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.transport.read(pair.fd, 100)
    pair.peer.sendall(b"x" * RECORD)
    assert pair.transport.read(pair.fd, 100) == b"x" * RECORD
    with pytest.raises(BlockingIOError):
        pair.transport.read(pair.fd, 100)


def test_a_write_that_is_held_up_goes_on_with_what_was_added(pair: Pair) -> None:
    data = os.urandom(2_000_000)
    with pytest.raises(BlockingIOError):
        pair.transport.write(pair.fd, data)
    data += b"and more"
    received = b""
    pair.peer.setblocking(False)
    sent = 0
    while not sent:
        with suppress(ssl.SSLWantReadError):
            while True:
                received += pair.peer.recv(1 << 16)
        with suppress(BlockingIOError):
            sent = pair.transport.write(pair.fd, data)
    with suppress(ssl.SSLWantReadError):
        while True:
            received += pair.peer.recv(1 << 16)
    assert sent == len(data)
    assert received == data


def test_after_the_last_word_the_peer_is_read_to_its_end(pair: Pair) -> None:
    pair.peer.sendall(b"unread")
    pair.transport.shutdown(pair.fd)
    assert pair.peer.recv(1) == b"", "a clean end"
    pair.peer.sendall(b"late")
    socket.socket.shutdown(pair.peer, socket.SHUT_WR)
    while pair.transport.read(pair.fd, 1 << 16):
        pass
    with pytest.raises(BrokenPipeError):
        pair.transport.write(pair.fd, b"never in the clear")


def test_what_is_done_to_a_closed_socket_is_an_error_of_the_system_as_without_tls(
    pair: Pair,
) -> None:
    pair.transport.close(pair.fd)
    for transport, fd in ((pair.transport, pair.fd), (pair.transport, -1), (PLAIN, -1)):
        for do in (
            partial(transport.write, fd, b"x"),
            partial(transport.read, fd, 1),
            partial(transport.close, fd),
        ):
            with pytest.raises(OSError, match="Bad file descriptor"):
                do()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pair.transport.shutdown(pair.fd)


def test_a_peer_that_speaks_no_tls_is_lost(pair: Pair) -> None:
    os.write(pair.peer.fileno(), b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(OSError, match="SSL"):
        pair.transport.read(pair.fd, 100)
