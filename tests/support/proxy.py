"""A TCP proxy that is a bad network: slow, silent, or cut at the worst moment."""

import asyncio
import contextlib
import socket
import struct

from tests.support.services import TCPService

CHUNK = 64 * 1024


class Proxy(TCPService):
    """Stands between a node and its Redis.

    Args:
        port: of the server behind it, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.delay = 0.0
        """Seconds that bytes take, each way."""
        self.cut_after = b""
        """Bytes of a request: they pass, and the connection is reset instead of the answer."""
        self.cuts = 0
        self._links: set[_Link] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop_flow(self) -> None:
        """Let nothing pass any more; what is sent meanwhile arrives once it flows again."""
        self.loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        self.loop.call_soon_threadsafe(self._flowing.set)

    def reset(self) -> None:
        """Reset every connection; returns once that is done."""

        async def reset_all() -> None:
            for link in self._links:
                link.reset()

        asyncio.run_coroutine_threadsafe(reset_all(), self.loop).result()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            behind, before = await asyncio.open_connection("127.0.0.1", self._target)
            link = _Link(self, writer)
            self._links.add(link)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(link.carry(reader, before, self._flowing, there=True))
                    tasks.create_task(link.carry(behind, writer, self._flowing, there=False))
            except* (OSError, _CutError):
                pass
            finally:
                self._links.discard(link)
                before.close()
                writer.close()


class _CutError(Exception):
    pass


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, node: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._node = node
        self._doomed = False

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
        *,
        there: bool,
    ) -> None:
        """Carry bytes one way, in order, each as late as the proxy says."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            while data := await reader.read(CHUNK):
                under_way.put_nowait((loop.time() + self._proxy.delay, data))
            under_way.put_nowait((loop.time() + self._proxy.delay, b""))

        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(take())
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - loop.time())
                await flowing.wait()
                if not data:
                    break
                if there:
                    self._doomed |= bool(self._proxy.cut_after) and self._proxy.cut_after in data
                elif self._doomed:
                    self._proxy.cuts += 1
                    self.reset()
                    raise _CutError
                writer.write(data)
                await writer.drain()
            taking.cancel()
            writer.write_eof()

    def reset(self) -> None:
        """End the connection without a close."""
        peer: socket.socket = self._node.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._node.transport.abort()
