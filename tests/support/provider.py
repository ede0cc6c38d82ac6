"""An identity provider: its key set, and the document that says where that is."""

import json
import ssl
from typing import Any

from tests.support.services import HTTPService, QuietHandler


class Provider(HTTPService):
    """Answers on ``/jwks.json``; discovery names ``/moved``, which is redirected there.

    Args:
        context: for https.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.fetches = 0
        self.down = False
        self.document: dict[str, Any] = {"keys": []}
        self.paths: list[str] = []
        provider = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                provider.paths.append(self.path)
                status, document = provider.answer(self.path)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", "jwks.json")
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Handler)
        self.origin = self.url
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.origin = self.url.replace("http", "https")
        self.url = f"{self.origin}/jwks.json"

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if self.down:
            return 500, {}
        match path:
            case "/jwks.json":
                return 200, self.document
            case "/moved":
                return 302, {}
            case "/.well-known/openid-configuration":
                return 200, {"issuer": self.origin, "jwks_uri": f"{self.origin}/moved"}
        return 404, {}
