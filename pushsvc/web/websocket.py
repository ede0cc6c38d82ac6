"""``GET /v1/ws``: the opening handshake of a WebSocket (RFC 6455, section 4)."""

from collections.abc import Mapping
from typing import ClassVar, Final

from pushsvc.errors import InvalidRequest, MethodNotAllowed, UpgradeRequired
from pushsvc.protocol import frames
from pushsvc.protocol.wire import BY_SUBPROTOCOL
from pushsvc.web.base import Handler

PATH: Final = "/v1/ws"
BEARER_SUBPROTOCOL: Final = "bearer."
"""How a browser, which can set no header, offers its token."""


class WebSocketHandler(Handler):
    """Everything but GET where the WebSockets are."""

    route: ClassVar[str] = "ws"

    def prepare(self) -> None:
        raise MethodNotAllowed("connect with a WebSocket client: a handshake is a GET")


def websocket_key(version: str, headers: Mapping[str, str]) -> str:
    """The key of a proper opening handshake (RFC 6455, section 4.2.1).

    Raises:
        UpgradeRequired: it is no WebSocket request, or of another version than 13.
        InvalidRequest: it is not a proper one.
    """
    upgrade = headers.get("upgrade")
    if upgrade is None:
        raise UpgradeRequired("connect with a WebSocket client: this path serves nothing else")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise InvalidRequest("a handshake has no body")
    options = [option.strip().lower() for option in headers.get("connection", "").split(",")]
    if upgrade.lower() != "websocket" or "upgrade" not in options or version != "HTTP/1.1":
        raise InvalidRequest("a handshake is HTTP/1.1 with Upgrade: websocket")
    if headers.get("sec-websocket-version") != "13":
        raise UpgradeRequired("only WebSocket version 13 is served: RFC 6455")
    key = headers.get("sec-websocket-key", "")
    if not frames.valid_key(key):
        raise InvalidRequest("Sec-WebSocket-Key is the base64 of 16 random bytes")
    return key


def subprotocol_of(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The subprotocol to answer with, and the token offered as another one.

    Raises:
        InvalidRequest: subprotocols are offered, but none that is spoken here.
    """
    header = headers.get("sec-websocket-protocol")
    if header is None:
        return None, None
    token = spoken = None
    for item in header.split(","):
        name = item.strip()
        if name.startswith(BEARER_SUBPROTOCOL):
            token = name[len(BEARER_SUBPROTOCOL) :]
        elif name in BY_SUBPROTOCOL and spoken is None:
            spoken = name  # the client's first choice (RFC 6455, section 4.1)
    if spoken is None:
        raise InvalidRequest(f"offer a subprotocol: {' or '.join(BY_SUBPROTOCOL)}")
    return spoken, token


def switching(key: str, subprotocol: str | None) -> bytes:
    """The answer that accepts a handshake (RFC 6455, section 4.2.2)."""
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {frames.accept_key(key)}\r\n{chosen}\r\n"
    ).encode()
