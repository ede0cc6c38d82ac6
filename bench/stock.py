"""What pushsvc is compared with: Tornado's own WebSocket handler, without tokens and without Redis.

``python -m bench.stock uvloop`` or ``python -m bench.stock asyncio``.
"""

import asyncio
import json
import sys

import tornado.web
import tornado.websocket
import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets


class SocketHandler(tornado.websocket.WebSocketHandler):
    """Takes every connection."""

    def open(self, *args: str, **kwargs: str) -> None:
        """Nothing to do."""

    def on_message(self, message: str | bytes) -> None:
        """Nothing to do."""


async def _serve() -> None:
    application = tornado.web.Application([(r"/v1/ws", SocketHandler)], log_function=lambda _: None)
    server = HTTPServer(application)
    sockets = bind_sockets(0, "127.0.0.1", backlog=4096)
    server.add_sockets(sockets)
    print(json.dumps({"event": "serving", "port": sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    loops = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    with asyncio.Runner(loop_factory=loops[sys.argv[1]]) as runner:
        runner.run(_serve())
