"""How messages are written for one kind of connection; the messages are the same for all.

Every message is made as JSON, once. A wire turns it into the bytes for the socket.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

from pushsvc.codes import Close
from pushsvc.errors import InvalidRequest
from pushsvc.protocol import encoding, frames, ids, messages
from pushsvc.protocol.feeds import TOPIC, plain, topic
from pushsvc.protocol.names import from_percent_encoded, is_topic


class Wire(Protocol):
    """One way to write messages."""

    shared: ClassVar[bool]
    """Whether it writes a message alike for every connection, so that once is enough."""
    answers: ClassVar[bool]
    """Whether the peer can answer: a sign of life, an acknowledgement, a close."""
    opcode: ClassVar[int]
    """Of the frames that the peer sends messages in (RFC 6455, section 5.2)."""
    beat: ClassVar[bytes]
    """A sign of life."""

    def read(self, data: bytes, /) -> Any:
        """Parse a message of the peer."""

    def message(self, payload: bytes) -> bytes:
        """Write a message that is no entry of a feed."""

    def entry(self, feed: str, entry_id: int, payload: bytes) -> bytes:
        """Write an entry of a feed, or what stands in its place: the peer then holds that id."""

    def at(self, feed: str, entry_id: int) -> None:
        """The peer holds all there is of a feed up to this id."""

    def close(self, code: int | None, reason: str) -> bytes:
        """Write the end of the connection."""


class _Frames:
    shared: ClassVar[bool] = True
    answers: ClassVar[bool] = True
    beat: ClassVar[bytes] = frames.PING

    def at(self, feed: str, entry_id: int) -> None:
        pass

    def close(self, code: int | None, reason: str) -> bytes:
        return frames.encode_close(code, reason)


class _TextFrames(_Frames):
    opcode: ClassVar[int] = frames.TEXT
    # The function itself, by which its callers see that messages are JSON.
    read = staticmethod(encoding.decode)

    def message(self, payload: bytes) -> bytes:
        return frames.text(payload)

    def entry(self, feed: str, entry_id: int, payload: bytes) -> bytes:  # noqa: ARG002 - no place for it
        return frames.text(payload)


class _BinaryFrames(_Frames):
    opcode: ClassVar[int] = frames.BINARY

    def read(self, data: bytes, /) -> Any:
        return encoding.unpack(data)

    def message(self, payload: bytes) -> bytes:
        return frames.encode(frames.BINARY, encoding.to_msgpack(payload))

    def entry(self, feed: str, entry_id: int, payload: bytes) -> bytes:  # noqa: ARG002 - no place for it
        return frames.encode(frames.BINARY, encoding.to_msgpack(payload))


TEXT: Final[Wire] = _TextFrames()
"""JSON in text frames."""
BINARY: Final[Wire] = _BinaryFrames()
"""MessagePack in binary frames."""
BY_SUBPROTOCOL: Final[Mapping[str, Wire]] = {
    messages.SUBPROTOCOL: TEXT,
    messages.MSGPACK_SUBPROTOCOL: BINARY,
}


class _Positioned:
    """What a peer is told that says where it is in each feed, to go on from there on any node."""

    shared: ClassVar[bool] = False
    answers: ClassVar[bool] = False
    opcode: ClassVar[int] = frames.TEXT

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}

    def read(self, data: bytes, /) -> Any:
        """Parse a message of the peer, of which there are none."""
        return encoding.decode(data)

    def at(self, feed: str, entry_id: int) -> None:
        """The peer holds all there is of a feed up to this id."""
        self.positions[feed] = entry_id


class EventStream(_Positioned):
    """Server-Sent Events (HTML Standard, section 9.2): each message is one event.

    The id of an event is the peer's position in every feed that it listens to, so the last one is
    all that it needs.
    """

    beat: ClassVar[bytes] = b":\n\n"

    def message(self, payload: bytes) -> bytes:
        """Write a message that is no entry of a feed."""
        return b"id: %s\ndata: %s\n\n" % (position(self.positions).encode(), payload)

    def entry(self, feed: str, entry_id: int, payload: bytes) -> bytes:
        """Write an entry of a feed."""
        self.positions[feed] = entry_id
        return self.message(payload)

    def position_event(self) -> bytes:
        """Tell the peer its position without a message: no event without data is dispatched."""
        return b"id: %s\n\n" % position(self.positions).encode()

    def close(self, code: int | None, reason: str) -> bytes:
        """Write the end of the connection."""
        return self.message(messages.closed(code or Close.NORMAL, reason))


class Lines(_Positioned):
    """One message a line, for an answer that is put together of them."""

    beat: ClassVar[bytes] = b""

    def message(self, payload: bytes) -> bytes:
        """Write a message that is no entry of a feed."""
        return payload + b"\n"

    def entry(self, feed: str, entry_id: int, payload: bytes) -> bytes:
        """Write an entry of a feed."""
        self.positions[feed] = entry_id
        return payload + b"\n"

    def close(self, code: int | None, reason: str) -> bytes:
        """Write the end of the connection."""
        return self.message(messages.closed(code or Close.NORMAL, reason))


def position(positions: Mapping[str, int]) -> str:
    """Positions in several feeds as one string: ``u=1764000000123-0,t:scores=1764000000456-0``.

    A feed of one user or of everyone needs no name; stored forms hold no comma.
    """
    return ",".join(f"{_short(feed)}={ids.render(at)}" for feed, at in positions.items())


def _short(feed: str) -> str:
    return plain(feed) if feed.startswith(TOPIC) else feed[:1]


def parse_position(text: str) -> dict[str, int]:
    """Read a position that a client sent back: ``u``, ``b`` or the feed of a topic to an id each.

    Raises:
        InvalidRequest: the text is no position.
    """
    positions: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        feed, _, at = part.rpartition("=")
        if feed not in ("u", "b"):
            name = from_percent_encoded(feed.removeprefix(TOPIC))
            if not feed.startswith(TOPIC) or name is None or not is_topic(name):
                raise InvalidRequest("a position is what an earlier answer gave: send it unchanged")
            feed = topic(name)  # however it was encoded
        positions[feed] = ids.parse_untrusted(at)
    return positions
