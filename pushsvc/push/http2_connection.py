"""A connection of HTTP/2, with many requests on it at once (RFC 9113).

Frames, header compression and the states of streams are ``h2``'s. What it lacks is here: an end
that a server announces (GOAWAY) leaves it deaf to the answers that are still to come, so those
frames are taken out before it sees them.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import NoAvailableStreamIDError, ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Encoder, NeverIndexedHeaderTuple

from pushsvc.printable import printable
from pushsvc.push.outbound import Answer, Unreachable

MAX_STREAMS: Final = 256
"""Requests under way at once, where the server allows as many."""
MAX_ANSWER: Final = 4096
"""Bytes of an answer's body."""
MAX_UNREAD: Final = 1 << 20
"""Bytes that wait for a server to read them."""
QUIET_SECONDS: Final = 30.0
"""After so long a silence a connection may be gone without a word: it is asked before it is used,
so that what is sent neither gets lost there nor is sent twice."""
PING_SECONDS: Final = 2.0
"""How long a server has to answer then."""
IDLE_SECONDS: Final = 600.0
"""A connection without requests is closed after this."""
CLOSE_SECONDS: Final = 1.0
"""How long a server may take to close its side."""

_HEAD: Final = 9
_GOAWAY: Final = 7
_MAX_FRAME: Final = 16_384

Headers = Sequence[tuple[str, str]]


class NotTaken(Exception):
    """The server did not take a request, so it may be sent again."""


class _Stream:
    """A request under way, and what came of its answer."""

    __slots__ = ("answer", "body", "headers", "status", "unsent")

    def __init__(self, answer: asyncio.Future[Answer], unsent: bytes) -> None:
        self.answer = answer
        self.unsent = unsent
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.body = b""

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever waited may have been cancelled


class _Frames(H2Connection):
    """The states of a connection and its streams.

    Of streams that have ended h2 would remember 65,536, which is megabytes; frames that were under
    way then come sooner than a thousand requests later.
    """

    MAX_CLOSED_STREAMS = 1024


class _PlainEncoder(Encoder):
    """Compresses headers by its table only.

    Huffman codes take a fifth of a request's CPU, and save a hundred bytes.
    """

    def encode(self, headers: Any, huffman: bool = False) -> bytes:  # noqa: FBT001, FBT002
        """See ``Encoder``."""
        return super().encode(headers, huffman)


class Connection(asyncio.Protocol):
    """One connection to a server.

    Args:
        ended: called once nothing comes any more, and the socket is closed.
    """

    def __init__(self, ended: "Callable[[Connection], None]") -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._h2 = _Frames(H2Configuration(client_side=True, header_encoding=None))
        self._h2.encoder = _PlainEncoder()
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_FRAME,
            },
        )
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._taken = 0
        self._limit = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._ping: asyncio.Future[None] | None = None
        self._lost = self._loop.create_future()
        self._heard = self._used = 0.0
        self._doubtful = False
        self._why = "the connection was lost"
        self._idle: asyncio.TimerHandle | None = None
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.ResponseReceived: self._on_response,
            events.DataReceived: self._on_data,
            events.StreamEnded: self._on_end,
            events.StreamReset: self._on_reset,
            events.RemoteSettingsChanged: self._on_settings,
            events.WindowUpdated: self._on_window,
            events.PingAckReceived: self._on_pong,
        }
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done once the server said what it allows."""
        self.over = False
        """Whether it takes no more requests."""

    # What the callers do.

    async def post(self, authority: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Send a request, and wait for its answer; see ``http2.Http2.post``.

        Raises:
            Unreachable: there is no answer, or none that can be used.
            NotTaken: nothing was sent, or the server says that it did not take it.
        """
        await self._take()
        stream_id = 0
        try:
            if self.over:
                raise NotTaken
            stream = _Stream(self._loop.create_future(), body)
            stream_id = self._send(authority, path, headers, stream)
            return await stream.answer
        except asyncio.CancelledError:
            self._doubtful = True  # it may be the connection that is silent, and not the server
            raise
        finally:
            if (left := self._streams.pop(stream_id, None)) is not None:
                self._cancel(stream_id, left)
            self._give_back()

    async def alive(self) -> bool:
        """Whether the server is still there, which is asked after a silence only."""
        now = self._loop.time()
        if not self._doubtful and now - self._heard < QUIET_SECONDS:
            return not self.over
        if self.over:
            return False
        if self._ping is None:
            self._ping = self._loop.create_future()
            self._h2.ping(b"pushsvc?")
            self._flush()
        try:
            async with asyncio.timeout(PING_SECONDS):
                await asyncio.shield(self._ping)
        except TimeoutError:
            self.fail("the server does not answer a ping")
        except Unreachable:
            pass
        return not self.over

    async def aclose(self) -> None:
        """Say goodbye, and close."""
        if self._transport is None or self._lost.done():
            return
        if not self._transport.is_closing():
            self.over = True
            self._h2.close_connection()
            self._flush()
            self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._lost)
        except TimeoutError:
            self.fail("closed")
            await self._lost

    def fail(self, why: str) -> None:
        """Give the connection up at once."""
        self._why = why
        self._end()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ended(self)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is None or tls.selected_alpn_protocol() != "h2":
            self.fail("the server does not speak HTTP/2")
            return
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._heard = self._loop.time()
        self._received += data
        try:
            for part in frames(self._received):
                if isinstance(part, GoAway):
                    self._going_away(part)
                    continue
                for event in self._h2.receive_data(part):
                    if (handler := self._handlers.get(type(event))) is not None:
                        handler(event)
        except (ProtocolError, ValueError) as error:
            self._flush()  # which tells the server
            self.fail(f"the server breaks HTTP/2: {reason_of(error)}")
            return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        if exc is not None and not self.over:
            self._why = f"the connection was lost: {reason_of(exc)}"
        self._end()
        if not self._lost.done():
            self._lost.set_result(None)
        self._ended(self)

    def _on_response(self, event: events.ResponseReceived) -> None:
        if (stream := self._streams.get(event.stream_id)) is not None:
            told = {_text(name): _text(value) for name, value in event.headers}
            stream.status = int(told.pop(":status"))
            stream.headers = MappingProxyType(told)

    def _on_data(self, event: events.DataReceived) -> None:
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if (stream := self._streams.get(event.stream_id)) is None:
            return
        stream.body += event.data
        if len(stream.body) > MAX_ANSWER:
            stream.body = b""
            stream.fail(Unreachable(f"an answer of more than {MAX_ANSWER} bytes"))

    def _on_end(self, event: events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None and not stream.answer.done():
            stream.answer.set_result(Answer(stream.status, stream.headers, stream.body))

    def _on_reset(self, event: events.StreamReset) -> None:
        if (stream := self._streams.pop(event.stream_id, None)) is not None:
            taken = event.error_code != ErrorCodes.REFUSED_STREAM
            stream.fail(Unreachable("the server broke the request off") if taken else NotTaken())

    def _on_settings(self, _: events.RemoteSettingsChanged) -> None:
        if not self.over:
            self._limit = min(self._h2.remote_settings.max_concurrent_streams, MAX_STREAMS)
            self._wake()
        if not self.ready.done():
            self.ready.set_result(None)
        self._send_rest()

    def _on_window(self, _: events.WindowUpdated) -> None:
        self._send_rest()

    def _on_pong(self, _: events.PingAckReceived) -> None:
        self._doubtful = False
        if self._ping is not None and not self._ping.done():
            self._ping.set_result(None)
        self._ping = None

    def _going_away(self, goodbye: "GoAway") -> None:
        """The server takes no more requests; it answers those up to one of them."""
        self._why = "the server closed the connection" + (f": {goodbye.why}" if goodbye.why else "")
        self.over = True
        for stream_id in [each for each in self._streams if each > goodbye.last]:
            self._streams.pop(stream_id).fail(NotTaken())
        self._turn_away()
        if not self._streams and self._transport is not None:
            self._transport.close()

    # How streams are opened and written.

    async def _take(self) -> None:
        """Wait for room for one more request."""
        if self.over or (not self._waiting and self._taken < self._limit):
            self._taken += 1
            return
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._give_back()
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def _wake(self) -> None:
        while self._waiting and self._taken < self._limit:
            waiter = self._waiting.popleft()
            if not waiter.done():  # whoever gave up is only told so a moment later
                self._taken += 1
                waiter.set_result(None)

    def _turn_away(self) -> None:
        """Have those who wait find that the connection is over."""
        self._limit = self._taken + len(self._waiting)
        self._wake()

    def _give_back(self) -> None:
        self._taken -= 1
        self._used = self._loop.time()
        if not self.over:
            self._wake()
        elif not self._streams and self._transport is not None:
            self._transport.close()
        if not self._taken and not self.over and self._idle is None:
            self._idle = self._loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle = None
        if self.over or self._transport is None:
            return
        left = IDLE_SECONDS - (self._loop.time() - self._used)
        if self._taken or left > 0:
            wait = left if left > 0 else IDLE_SECONDS
            self._idle = self._loop.call_later(wait, self._close_if_idle)
            return
        self.over = True
        self._h2.close_connection()
        self._flush()
        self._transport.close()

    def _send(self, authority: str, path: str, headers: Headers, stream: _Stream) -> int:
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(
                stream_id,
                [
                    (":method", "POST"),
                    (":scheme", "https"),
                    (":authority", authority),
                    # What differs each time would only push the rest out of the table.
                    NeverIndexedHeaderTuple(":path", path),
                    NeverIndexedHeaderTuple("content-length", str(len(stream.unsent))),
                    *headers,
                ],
            )
        except NoAvailableStreamIDError:
            self.over = True
            raise NotTaken from None
        except ProtocolError as error:
            self.fail(reason_of(error))
            raise Unreachable(self._why) from None
        self._streams[stream_id] = stream
        self._send_body(stream_id, stream)
        self._flush()
        return stream_id

    def _send_body(self, stream_id: int, stream: _Stream) -> None:
        """Send of a body what the server has room for."""
        window = self._h2.local_flow_control_window(stream_id)
        room = min(window, self._h2.max_outbound_frame_size)
        while stream.unsent and room > 0:
            part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
            self._h2.send_data(stream_id, part, end_stream=not stream.unsent)
            window = self._h2.local_flow_control_window(stream_id)
            room = min(window, self._h2.max_outbound_frame_size)

    def _send_rest(self) -> None:
        for stream_id, stream in self._streams.items():
            if stream.unsent and not stream.answer.done():
                self._send_body(stream_id, stream)

    def _cancel(self, stream_id: int, stream: _Stream) -> None:
        """Tell the server that nothing more is wanted of a request, unless that is over."""
        answer = stream.answer
        whole = answer.done() and not answer.cancelled() and answer.exception() is None
        if self._lost.done() or (whole and not stream.unsent):
            return
        try:
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        except ProtocolError:  # it was closed by both sides by now
            return
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if not data or self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self.fail("the server does not read")

    def _end(self) -> None:
        """Nothing comes any more."""
        self.over = True
        if self._idle is not None:
            self._idle.cancel()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(Unreachable(self._why))
        for future in (self.ready, self._ping):
            if future is not None and not future.done():
                future.set_exception(Unreachable(self._why))
                future.exception()
        self._turn_away()


class GoAway(NamedTuple):
    """A server's goodbye (RFC 9113, 6.8)."""

    last: int
    """The last request that it may have taken."""
    why: str


def frames(received: bytearray) -> Iterator[bytes | GoAway]:
    """Whole frames, as many together as there are between goodbyes.

    Args:
        received: what came and was not given out yet; what is whole is taken out at the end.

    Raises:
        ProtocolError: a frame is longer than it may be.
    """
    begin = end = 0
    while len(received) - end >= _HEAD:
        length = int.from_bytes(received[end : end + 3])
        if length > _MAX_FRAME:
            raise ProtocolError(f"a frame of {length} bytes")
        following = end + _HEAD + length
        if len(received) < following:
            break
        if received[end + 3] == _GOAWAY:
            if begin < end:
                yield bytes(received[begin:end])
            yield _goodbye(bytes(received[end + _HEAD : following]))
            begin = following
        end = following
    if begin < end:
        yield bytes(received[begin:end])
    del received[:end]


def _goodbye(payload: bytes) -> GoAway:
    last = int.from_bytes(payload[:4]) & 0x7FFF_FFFF
    return GoAway(last, printable(payload[8:108].decode("utf-8", "replace")))


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def reason_of(error: Exception) -> str:
    """An error in a few printable words."""
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", "") or error.reason or str(error)
        return f"no good TLS server: {printable(str(said)[:100])}"
    if isinstance(error, TimeoutError) and not str(error):
        return "it does not answer in time"
    return printable(str(error)[:100]) or type(error).__name__
