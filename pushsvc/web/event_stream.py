"""``GET /v1/stream``: the answer that begins an event stream (HTML Standard, section 9.2)."""

import random
from typing import ClassVar, Final

from pushsvc.protocol.answers import Pairs
from pushsvc.web.base import CrossOriginHandler

PATH: Final = "/v1/stream"
RETRY_MS: Final = (1000, 5000)
"""After how many milliseconds the client of a stream that was cut off reconnects, at random."""


class StreamHandler(CrossOriginHandler):
    """Everything but GET where the event streams are."""

    route: ClassVar[str] = "stream"
    allow: ClassVar[str] = "GET, OPTIONS"


def streaming(cors: Pairs) -> bytes:
    """The answer that accepts a request for an event stream.

    Args:
        cors: the headers that tell a browser that its page may read it.
    """
    lines = [
        "HTTP/1.1 200 OK",
        "Server: pushsvc",
        "Content-Type: text/event-stream",
        "Cache-Control: no-store",
        # The stream ends with the connection; a proxy must not keep events back to fill a buffer.
        "Connection: close",
        "X-Accel-Buffering: no",
        *(f"{name}: {value}" for name, value in cors),
    ]
    # Clients that were cut off together shall not reconnect together.
    retry = random.randint(*RETRY_MS)  # noqa: S311 - not a secret
    return ("\r\n".join(lines) + f"\r\n\r\nretry: {retry}\n\n").encode()
