"""A push service that costs little: it takes everything, and notes when it came.

``argv`` is a directory with a certificate and its key. It prints its port, and then, for each line
of standard input, the Unix times at which requests came since the last one, as JSON.
"""

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path

ACCEPTED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


class Taker(asyncio.Protocol):
    """One connection.

    Args:
        came: gets the time of each request.
    """

    def __init__(self, came: list[float]) -> None:
        self._came = came
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is there as a whole."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n") + 4) > 3:
            head = self._data[:end].lower()
            length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            if len(self._data) < end + length:
                return
            self._data = self._data[end + length :]
            self._came.append(time.time())
            self._transport.write(ACCEPTED)


async def serve(directory: Path) -> None:
    """Serve until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    came: list[float] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Taker(came), "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(came), flush=True)
        came.clear()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
