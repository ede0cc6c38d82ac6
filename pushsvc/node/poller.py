"""One readiness set for all sockets of a worker, itself watched by the event loop.

The choice of mechanism is made here only: epoll on Linux, and whatever ``selectors`` finds (kqueue
on macOS and the BSDs) elsewhere, where this service runs for development.
"""

import select
import selectors
from contextlib import suppress
from typing import Final, Protocol

READABLE: Final = 1
WRITABLE: Final = 2


class Poller(Protocol):
    """Level-triggered readiness of many descriptors, non-blocking."""

    def fileno(self) -> int:
        """The descriptor that is readable while any watched one is ready."""

    def add(self, fd: int) -> None:
        """Watch for input and hang-up."""

    def want(self, fd: int, events: int) -> None:
        """Watch for ``READABLE``, ``WRITABLE``, both or neither; errors are always told."""

    def remove(self, fd: int) -> None:
        """Stop watching; done before the descriptor is closed."""

    def poll(self, most: int) -> list[tuple[int, int]]:
        """What is ready now: descriptors with ``READABLE`` and ``WRITABLE`` bits."""

    def close(self) -> None:
        """Give the set up."""


class EpollPoller:
    """epoll, at no Python object per descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self.close = self._epoll.close

    def add(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)

    def want(self, fd: int, events: int) -> None:
        self._epoll.modify(
            fd,
            (select.EPOLLIN | select.EPOLLRDHUP if events & READABLE else 0)
            | (select.EPOLLOUT if events & WRITABLE else 0),
        )

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def poll(self, most: int) -> list[tuple[int, int]]:
        other = ~select.EPOLLOUT
        return [
            (
                fd,
                (READABLE if events & other else 0) | (WRITABLE if events & select.EPOLLOUT else 0),
            )
            for fd, events in self._epoll.poll(0, most)
        ]


class SelectorPoller:
    """The best selector of the platform that has a descriptor of its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        descriptor: int = self._selector.fileno()
        return descriptor

    def add(self, fd: int) -> None:
        self._selector.register(fd, selectors.EVENT_READ)

    def want(self, fd: int, events: int) -> None:
        wanted = (selectors.EVENT_READ if events & READABLE else 0) | (
            selectors.EVENT_WRITE if events & WRITABLE else 0
        )
        if fd not in self._selector.get_map():
            if wanted:
                self._selector.register(fd, wanted)
        elif wanted:
            self._selector.modify(fd, wanted)
        else:
            self._selector.unregister(fd)  # there is no watching for errors only

    def remove(self, fd: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(fd)

    def poll(self, most: int) -> list[tuple[int, int]]:
        ready = self._selector.select(0)[:most]
        return [
            (
                key.fd,
                (READABLE if events & selectors.EVENT_READ else 0)
                | (WRITABLE if events & selectors.EVENT_WRITE else 0),
            )
            for key, events in ready
        ]

    def close(self) -> None:
        self._selector.close()


def new_poller() -> Poller:
    """The poller for this platform."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
