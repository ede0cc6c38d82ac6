"""How the core reads and writes a descriptor: as it is, or through TLS.

A worker's public port is all of one kind, so this is chosen once and not for each connection.
"""

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from pushsvc import metrics
from pushsvc.logs import SampledLog

log = SampledLog(structlog.get_logger("pushsvc.tls"))


class Transport(Protocol):
    """Non-blocking reads and writes of the descriptors that the core holds.

    All of it raises ``OSError`` where the connection is lost.
    """

    speaks_tls: bool

    def hold(self, sock: socket.socket, /) -> int:
        """Own a non-blocking socket, just accepted; its descriptor, to ``close`` in the end."""

    def handshake(self, fd: int, /) -> None:
        """Go on with what comes before the first byte; at an end once it returns.

        Raises:
            BlockingIOError: the peer has to say more.
        """

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        """How many bytes were taken.

        After ``BlockingIOError`` the next write has to begin with the same bytes.

        Raises:
            BlockingIOError: there is no room.
        """

    def read(self, fd: int, size: int, /) -> bytes:
        """What has come, at most about ``size`` bytes; nothing at the end.

        Raises:
            BlockingIOError: there is nothing yet.
        """

    def shutdown(self, fd: int, /) -> None:
        """Say that nothing more is written. What is read from now on is to be dropped."""

    def close(self, fd: int, /) -> None:
        """Give the descriptor up."""


class Plain:
    """System calls, with nothing around them."""

    speaks_tls = False
    write = staticmethod(os.write)
    read = staticmethod(os.read)
    close = staticmethod(os.close)

    @staticmethod
    def hold(sock: socket.socket, /) -> int:
        """See ``Transport``."""
        return sock.detach()

    @staticmethod
    def handshake(fd: int, /) -> None:
        """Nothing comes before the first byte."""

    @staticmethod
    def shutdown(fd: int, /) -> None:
        """See ``Transport``."""
        half = socket.socket(fileno=fd)
        try:
            half.shutdown(socket.SHUT_WR)
        finally:
            half.detach()


class Secure:
    """TLS, as a server.

    Args:
        context: which certificate is shown now, and what is spoken.
    """

    speaks_tls = True

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._sockets: dict[int, ssl.SSLSocket] = {}

    def hold(self, sock: socket.socket, /) -> int:
        """See ``Transport``."""
        held = self._context().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        fd = held.fileno()
        self._sockets[fd] = held
        return fd

    def handshake(self, fd: int, /) -> None:
        """See ``Transport``. Scanners make many that fail, which is a lost connection.

        A first answer that a new socket has no room for is not waited for, as in ``read``.
        """
        try:
            self._held(fd).do_handshake()
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLEOFError:  # a look whether the port is open
            raise _system_error(errno.ECONNRESET) from None
        except ssl.SSLError as error:
            metrics.tls_handshakes_failed.inc()
            log.warning("TLS handshake failed", reason=error.reason)
            raise _system_error(errno.ECONNRESET) from None

    def write(self, fd: int, data: bytes | memoryview, /) -> int:
        """See ``Transport``. OpenSSL takes all or nothing, and goes on where it was held up."""
        try:
            return self._sockets[fd].write(data)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None
        except KeyError:
            raise _system_error(errno.EBADF) from None
        except ValueError:  # after ``shutdown``
            raise _system_error(errno.EPIPE) from None

    def read(self, fd: int, size: int, /) -> bytes:
        """See ``Transport``.

        A read that has to write, and cannot, ends the connection: it is a peer that asks for new
        keys and reads nothing, and waiting for it would take a second kind of waiting.
        """
        sock = self._held(fd)
        try:
            data = sock.recv(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        # What is decrypted already makes no descriptor readable; it is less than one record.
        while rest := sock.pending():
            data += sock.recv(rest)
        return data

    def shutdown(self, fd: int, /) -> None:
        """See ``Transport``. What the peer still says is read as it comes, encrypted."""
        sock = self._held(fd)
        farewell(sock)
        sock.shutdown(socket.SHUT_WR)

    def close(self, fd: int, /) -> None:
        """See ``Transport``."""
        sock = self._held(fd)
        del self._sockets[fd]
        farewell(sock)
        sock.close()

    def _held(self, fd: int) -> ssl.SSLSocket:
        try:
            return self._sockets[fd]
        except KeyError:
            raise _system_error(errno.EBADF) from None


def _system_error(number: int) -> OSError:
    """What the system says where there is no TLS."""
    return OSError(number, os.strerror(number))


def farewell(sock: ssl.SSLSocket) -> None:
    """Tell a peer that the end is meant, and no attack (``close_notify``), if it can be told."""
    # Python waits for the peer's own one, too, which a non-blocking socket says by an error. A
    # ValueError says that this was done before.
    with contextlib.suppress(OSError, ValueError):
        sock.unwrap()


PLAIN: Final = Plain()
