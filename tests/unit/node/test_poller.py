"""One contract for every poller, on real sockets."""

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from pushsvc.node.poller import (
    READABLE,
    WRITABLE,
    EpollPoller,
    Poller,
    SelectorPoller,
    new_poller,
)

KINDS: list[Callable[[], Poller]] = [SelectorPoller]
if hasattr(select, "epoll"):
    KINDS.append(EpollPoller)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=KINDS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A watched socket and its peer."""
    here, there = tcp_pair()
    with here, there:
        yield here, there


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    here.setblocking(False)
    return here, there


def reset(peer: socket.socket) -> None:
    """End a connection as a crash does."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def is_ready(poller: Poller, seconds: float = 0.0) -> bool:
    """Whether an event loop that watches the poller would call it."""
    return bool(select.select([poller.fileno()], [], [], seconds)[0])


def poll(poller: Poller) -> list[tuple[int, int]]:
    """What is ready within a second."""
    is_ready(poller, 1.0)
    return poller.poll(64)


def fill(sender: socket.socket) -> None:
    with suppress(BlockingIOError):
        while True:
            sender.send(bytes(65536))


def test_nothing_is_reported_while_nothing_happens(poller: Poller, pair: Pair) -> None:
    poller.add(pair[0].fileno())
    assert poller.poll(64) == []
    assert not is_ready(poller)


def test_input_is_reported_until_it_is_read(poller: Poller, pair: Pair) -> None:
    here, there = pair
    poller.add(here.fileno())
    there.send(b"xy")
    for _ in range(3):
        assert poll(poller) == [(here.fileno(), READABLE)]
        assert is_ready(poller)
    here.recv(1)
    assert poll(poller) == [(here.fileno(), READABLE)]
    here.recv(1)
    assert poller.poll(64) == []
    assert not is_ready(poller)


def test_input_from_before_the_watch_is_reported(poller: Poller, pair: Pair) -> None:
    here, there = pair
    there.send(b"x")
    poller.add(here.fileno())
    assert poll(poller) == [(here.fileno(), READABLE)]


def test_room_to_write_is_reported_only_while_it_is_wanted(poller: Poller, pair: Pair) -> None:
    here, _ = pair
    poller.add(here.fileno())
    assert poller.poll(64) == []
    poller.want(here.fileno(), READABLE | WRITABLE)
    assert poll(poller) == [(here.fileno(), WRITABLE)]
    assert poll(poller) == [(here.fileno(), WRITABLE)]
    poller.want(here.fileno(), READABLE)
    assert poller.poll(64) == []


def test_a_full_socket_has_no_room_until_its_peer_reads(poller: Poller, pair: Pair) -> None:
    here, there = pair
    poller.add(here.fileno())
    fill(here)
    poller.want(here.fileno(), READABLE | WRITABLE)
    assert poller.poll(64) == []
    there.settimeout(0.2)
    with suppress(TimeoutError):
        while there.recv(1 << 20):
            pass
    assert poll(poller) == [(here.fileno(), WRITABLE)]


def test_input_and_room_are_reported_together(poller: Poller, pair: Pair) -> None:
    here, there = pair
    there.send(b"x")
    poller.add(here.fileno())
    assert poll(poller) == [(here.fileno(), READABLE)]
    poller.want(here.fileno(), READABLE | WRITABLE)
    assert poll(poller) == [(here.fileno(), READABLE | WRITABLE)]


def test_input_is_watched_for_whether_or_not_room_is_wanted(poller: Poller, pair: Pair) -> None:
    here, there = pair
    poller.add(here.fileno())
    fill(here)
    poller.want(here.fileno(), READABLE | WRITABLE)
    there.send(b"x")
    assert poll(poller) == [(here.fileno(), READABLE)]
    poller.want(here.fileno(), READABLE)
    assert poll(poller) == [(here.fileno(), READABLE)]


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_the_end_of_a_peer_is_readable(
    poller: Poller, pair: Pair, end: Callable[[socket.socket], None]
) -> None:
    here, there = pair
    poller.add(here.fileno())
    end(there)
    ((fd, events),) = poll(poller)
    assert fd == here.fileno()
    assert events & READABLE


def test_a_peer_that_only_stops_sending_is_readable(poller: Poller, pair: Pair) -> None:
    here, there = pair
    poller.add(here.fileno())
    there.shutdown(socket.SHUT_WR)
    assert poll(poller) == [(here.fileno(), READABLE)]
    assert here.recv(1) == b""


def test_a_removed_descriptor_is_not_reported(poller: Poller, pair: Pair) -> None:
    here, there = pair
    poller.add(here.fileno())
    there.send(b"x")
    assert poll(poller)
    poller.remove(here.fileno())
    assert poller.poll(64) == []
    assert not is_ready(poller)


def test_a_descriptor_that_is_wanted_for_nothing_is_silent_until_it_is_wanted_again(
    poller: Poller, pair: Pair
) -> None:
    here, there = pair
    poller.add(here.fileno())
    there.send(b"x")
    poller.want(here.fileno(), 0)
    assert poller.poll(64) == []
    assert not is_ready(poller)
    poller.want(here.fileno(), WRITABLE)
    assert poll(poller) == [(here.fileno(), WRITABLE)]
    poller.want(here.fileno(), 0)
    poller.want(here.fileno(), READABLE)
    assert poll(poller) == [(here.fileno(), READABLE)]
    poller.want(here.fileno(), 0)
    poller.remove(here.fileno())


def test_a_number_can_be_watched_again_once_its_descriptor_was_closed(poller: Poller) -> None:
    first, first_peer = tcp_pair()
    second, second_peer = tcp_pair()
    with first_peer, second, second_peer:
        number = first.fileno()
        poller.add(number)
        poller.want(number, READABLE | WRITABLE)
        poller.remove(number)
        first.close()
        os.dup2(second.fileno(), number)
        poller.add(number)
        assert poller.poll(64) == [], "what the first one wanted is forgotten"
        second_peer.send(b"x")
        assert poll(poller) == [(number, READABLE)]
        poller.remove(number)
        os.close(number)


def test_no_more_is_reported_than_asked_for_and_the_rest_later(poller: Poller) -> None:
    pairs = [tcp_pair() for _ in range(10)]
    try:
        for here, there in pairs:
            poller.add(here.fileno())
            there.send(b"x")
        waiting = {here.fileno(): here for here, _ in pairs}
        while waiting:
            assert is_ready(poller, 1.0)
            ready = poller.poll(3)
            assert 0 < len(ready) <= 3
            for fd, events in ready:
                assert events == READABLE
                waiting.pop(fd).recv(1)
        assert poller.poll(3) == []
    finally:
        for each in pairs:
            for end in each:
                end.close()


def test_closing_gives_the_pollers_own_descriptor_back() -> None:
    for kind in KINDS:
        poller = kind()
        number = poller.fileno()
        poller.close()
        again = kind()
        assert again.fileno() == number
        again.close()


def test_linux_gets_epoll_and_every_other_system_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hasattr(select, "epoll"):
        found = new_poller()
        assert isinstance(found, EpollPoller)
        found.close()
    monkeypatch.delattr(select, "epoll", raising=False)
    found = new_poller()
    assert isinstance(found, SelectorPoller)
    found.close()
