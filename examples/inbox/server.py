"""A shop with a bell: what is bought is told, and what was read in one window is read in all.

The page is two lines of HTML; this is the backend behind it, which gives out tokens and publishes.

    python examples/inbox/server.py     # then open http://localhost:3000, twice
"""

import json
import os
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.request import Request, urlopen

from pushsvc.client import Publisher

NODE = os.environ.get("PUSH_URL", "http://127.0.0.1:8080")
ADMIN = os.environ.get("PUSH_ADMIN_URL", "http://127.0.0.1:9090")
PAGE = Path(__file__).with_name("index.html").read_text().replace("http://127.0.0.1:8080", NODE)
USER = "demo"
"""Who is signed in; your backend takes this from its session."""

orders = count(17)


def token(user: str, *scopes: str) -> str:
    """A token of the development node; in production your backend signs it."""
    asked = json.dumps({"user": user, "scopes": scopes}).encode()
    request = Request(f"{ADMIN}/dev/token", asked, {"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["token"])


publisher = Publisher(NODE, token=lambda _refused: token("shop", "push.publish"))


class Shop(BaseHTTPRequestHandler):
    """The pages of the shop, and what the bell asks for."""

    def do_GET(self) -> None:
        if self.path == "/push-token":  # the bell asks for one whenever it needs it
            self.answer(200, "text/plain", token(USER))
        elif self.path == "/" or self.path.startswith("/orders/"):
            self.answer(200, "text/html", PAGE)
        else:
            self.answer(404, "text/plain", "there is no such page")

    def do_POST(self) -> None:
        number = next(orders)
        publisher.publish(
            user=USER,
            event="order.shipped",
            data={
                "title": f"Order {number} is on its way",
                "body": "It comes tomorrow between nine and noon.",
                "url": f"/orders/{number}",
            },
        )
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, status: int, media_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{media_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    try:
        token(USER)
    except OSError as error:
        sys.exit(f"nothing makes tokens at PUSH_ADMIN_URL {ADMIN} ({error}): start it: `make run`")
    port = int(os.environ.get("PORT", "3000"))
    with ThreadingHTTPServer(("127.0.0.1", port), Shop) as server:
        print(f"open http://localhost:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
