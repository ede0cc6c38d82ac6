"""WebSocket close codes: the protocol's own (RFC 6455, section 7.4) and this service's.

The range of a code tells a client what to do: 4000-4499 means reconnect, 4500-4999 means stop.
"""

from enum import IntEnum


class Close(IntEnum):
    """Close codes that a node sends."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    DRAINING = 4001
    NO_HEARTBEAT = 4002
    ACKS_OVERDUE = 4003
    SLOW_CONSUMER = 4004
    RATE_LIMITED = 4008
    TOKEN_EXPIRED = 4100
    TOKEN_REFUSED = 4500
    REVOKED = 4501
    PROTOCOL_VIOLATION = 4503
    TOO_MANY_CONNECTIONS = 4505

    @property
    def reason(self) -> str:
        """The sentence sent beside the code, at most 123 bytes (RFC 6455, section 5.5)."""
        return _REASONS[self]


_REASONS = {
    Close.NORMAL: "",
    Close.GOING_AWAY: "the node is going away",
    Close.PROTOCOL_ERROR: "the frame breaks RFC 6455",
    Close.UNSUPPORTED_DATA: "this subprotocol carries frames of the other kind",
    Close.INVALID_DATA: "text is not valid UTF-8",
    Close.POLICY: "too many fragments in one message",
    Close.TOO_BIG: "the message is larger than this node accepts",
    Close.DRAINING: "this connection belongs on another node now: reconnect",
    Close.NO_HEARTBEAT: "no traffic and no pong: reconnect",
    Close.ACKS_OVERDUE: "notifications were not acknowledged in time: reconnect and ack",
    Close.SLOW_CONSUMER: "the socket was not read in time: reconnect",
    Close.RATE_LIMITED: "over the message rate for too long: reconnect and slow down",
    Close.TOKEN_EXPIRED: "the token expired: reconnect with a new one",
    Close.TOKEN_REFUSED: "the token was refused",
    Close.REVOKED: "access was revoked",
    Close.PROTOCOL_VIOLATION: "too many invalid messages",
    Close.TOO_MANY_CONNECTIONS: "too many connections for this user",
}


def means_reconnect(code: int) -> bool:
    """Whether a client whose connection the service closed with this code should come back."""
    return not 4500 <= code <= 4999
