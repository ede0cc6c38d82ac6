"""As much of HTTP/1.1 as a client of the protocol speaks, with nothing decided on its behalf.

The scripted server has to refuse, to answer late, and not to answer; so requests are only read
here, and a scenario says what becomes of them.
"""

import asyncio
import json
import math
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

MAX_HEAD: Final = 64 * 1024
MAX_BODY: Final = 1024 * 1024

_NAMED: Final = re.compile(r"^/v1/users/[^/]+/")

_CODES: Final = {
    400: "invalid",
    401: "invalid_token",
    403: "forbidden",
    404: "not_found",
    426: "upgrade_required",
    429: "too_many_connections",
    500: "internal",
    503: "unavailable",
}
"""The problem that goes with a status, where a scenario names none."""


@dataclass(slots=True)
class Request:
    """A request that was read.

    Attributes:
        method: such as ``GET``.
        path: without the query.
        query: all values of each parameter.
        headers: with names in lower case.
        body: as it came.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def kind(self) -> str:
        """``websocket``, ``stream``, ``poll``, or ``METHOD /path`` of a call.

        Of one user it is the path without the name, which may be in the path or the query.
        """
        if self.method == "GET":
            match self.path:
                case "/v1/ws":
                    return "websocket"
                case "/v1/stream":
                    return "stream"
                case "/v1/poll":
                    return "poll"
                case _:
                    pass
        return f"{self.method} {re.sub(_NAMED, '/v1/user/', self.path)}"

    @property
    def protocols(self) -> list[str]:
        """The subprotocols that are offered."""
        offered = self.headers.get("sec-websocket-protocol", "")
        return [name.strip() for name in offered.split(",") if name.strip()]

    @property
    def token(self) -> str | None:
        """The token, from wherever the protocol lets a client put it."""
        authorization = self.headers.get("authorization", "")
        if authorization.startswith("Bearer "):
            return authorization.removeprefix("Bearer ")
        for name in self.protocols:
            if name.startswith("bearer."):
                return name.removeprefix("bearer.")
        return None

    def parameters(self) -> dict[str, Any]:
        """What a scenario may ask about a request that opens a connection."""
        found: dict[str, Any] = {
            "token": self.token,
            "device": self.query.get("device", ["default"])[-1],
            "topics": sorted(self.query.get("topic", [])),
        }
        after = self.headers.get("last-event-id") or self.query.get("after", [""])[-1]
        if after:
            found["after"] = after
        return found

    def json(self) -> Any:
        """The body.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.body) if self.body else None


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when the peer is gone or does not speak HTTP."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _version = line.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _colon, value in (each.partition(":") for each in fields)
        }
        address = urlsplit(target)
        length = int(headers.get("content-length", "0"))
        if length > MAX_BODY:
            return None
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
        return None
    query = parse_qs(address.query, keep_blank_values=True)
    return Request(method, address.path, query, headers, body)


def answer(status: int, value: Any, headers: dict[str, str] | None = None) -> bytes:
    """A whole answer whose body is JSON."""
    body = json.dumps(value).encode()
    media = "application/json" if status < HTTPStatus.BAD_REQUEST else "application/problem+json"
    lines = {
        "Content-Type": media,
        "Content-Length": str(len(body)),
        "Access-Control-Allow-Origin": "*",
        **(headers or {}),
    }
    return start(status, lines) + body


def problem(status: int, *, code: str | None = None, retry_after: float | None = None) -> bytes:
    """A refusal, as a node words it (RFC 9457).

    Args:
        status: 400 and above.
        code: the problem's last part; by default the one that goes with the status.
        retry_after: seconds; whole ones in the header, exact in the body.
    """
    name = code or _CODES.get(status, "unavailable")
    value: dict[str, Any] = {
        "type": f"urn:pushsvc:problem:{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "the scenario refuses this",
    }
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if retry_after is not None:
        value["retry_after"] = retry_after
        headers["Retry-After"] = str(math.ceil(retry_after))
    return answer(status, value, headers)


def start(status: int, headers: dict[str, str]) -> bytes:
    """The head of an answer."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{fields}\r\n".encode("latin-1")
