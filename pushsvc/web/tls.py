"""TLS on the public port: how a connection gets it, and how its socket leaves Tornado with it."""

import errno
import os
import socket
import ssl
from typing import Any, Final, cast

import structlog
from tornado.iostream import IOStream, SSLIOStream

from pushsvc import metrics
from pushsvc.logs import SampledLog
from pushsvc.node.transport import Secure, farewell
from pushsvc.web.certificates import Certificates

log = SampledLog(structlog.get_logger("pushsvc.tls"))


HANDSHAKE: Final = 22
"""The first byte of a TLS connection (RFC 8446, section 5.1), with which no request begins."""


class TLSSocket(ssl.SSLSocket):
    """A socket on which a failed handshake is a lost connection: scanners make many."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as its base has it
        """Go on with the handshake.

        Raises:
            ConnectionResetError: it has failed.
        """
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLEOFError:
            raise _lost() from None  # a look whether the port is open
        except ssl.SSLError as error:
            metrics.tls_handshakes_failed.inc()
            log.warning("TLS handshake failed", reason=error.reason)
            raise _lost() from None


def _lost() -> ConnectionResetError:
    """What Tornado takes for a peer that has gone."""
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


class PlainStream(IOStream):
    """A stream without TLS, which ends at once where its peer begins to speak TLS.

    Who writes https for http would else wait for an answer until the time for a request is up.
    """

    _begun = False

    @classmethod
    def take(cls, stream: IOStream) -> None:
        """Make a new stream one of these: Tornado makes them itself, of its own class."""
        stream.__class__ = cls

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read; what begins with a record of a TLS handshake is a lost connection."""
        size = super().read_from_fd(buf)
        if size and not self._begun:
            self._begun = True
            if buf[0] == HANDSHAKE:
                log.warning(
                    "a client speaks TLS to the port that has none: its address begins with https"
                    " or wss, and PUSHSVC_TLS_CERT_FILE is not set"
                )
                raise _lost()
        return size


class TLSStream(SSLIOStream):
    """A stream that can give up its socket, and that says goodbye.

    Args:
        sock: the socket, whose handshake is to come.
        transport: takes the socket over.
        **options: for the base.
    """

    def __init__(self, sock: ssl.SSLSocket, transport: Secure, **options: Any) -> None:
        self._transport = transport
        self._released = False
        super().__init__(sock, **options)

    def release(self) -> int:
        """Close the stream, but not its socket; the descriptor, which is the transport's now."""
        fd = self._transport.hold(self.socket)
        self._released = True
        self.close()
        return fd

    def close(self, exc_info: Any = False) -> None:  # noqa: FBT002 - as its base has it
        """Close the stream; ``exc_info`` is the error behind it, as its base has it."""
        super().close(exc_info)
        if self.error is not None:
            # Their frames hold this stream, which would wait for the garbage collector.
            self.error.__traceback__ = self.error.__context__ = None

    def close_fd(self) -> None:
        """Close the socket, unless it was given up."""
        if self._released:
            self.socket = cast("ssl.SSLSocket", None)  # as the base does behind a closed one
        else:
            farewell(self.socket)
            super().close_fd()

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read; what is no TLS is a lost connection."""
        try:
            return super().read_from_fd(buf)
        except ssl.SSLError:
            raise _lost() from None

    def write_to_fd(self, data: memoryview) -> int:
        """Write; see ``read_from_fd``."""
        try:
            return super().write_to_fd(data)
        except ssl.SSLError:
            raise _lost() from None


class Tls:
    """What a server needs to speak TLS.

    Args:
        certificates: what it shows.
    """

    def __init__(self, certificates: Certificates) -> None:
        self.transport = Secure()
        """Of the sockets that leave Tornado."""
        self._certificates = certificates

    def secure(self, stream: IOStream) -> TLSStream | None:
        """A stream with TLS in the place of a new one without; None if the peer has gone."""
        sock = stream.socket.dup()
        stream.close()
        # Without this the session tickets, and what follows them, wait for an ACK of the client.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self._certificates.context
        context.sslsocket_class = TLSSocket
        try:
            wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            sock.close()
            return None
        return TLSStream(
            wrapped,
            self.transport,
            ssl_options=context,  # without, it loads one for clients
            max_buffer_size=stream.max_buffer_size,
            read_chunk_size=stream.read_chunk_size,
        )

    def tick(self) -> None:
        """Look for a new certificate; to be called once a second."""
        self._certificates.tick()
