"""A service that answers as Google does: its token endpoint, and FCM's HTTP v1."""

import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.certificates import Authority
from tests.support.services import HTTPService, QuietHandler

PROJECT = "example-project"
EMAIL = "sender@example-project.iam.gserviceaccount.com"
KEY_ID = "0123456789abcdef0123456789abcdef01234567"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class Reply(NamedTuple):
    """What the service answers."""

    status: int
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never written


def error(
    status: int, name: str, code: str = "", message: str = "no", *details: Any, **headers: str
) -> Reply:
    """How FCM refuses: the status by its name, and FCM's own code where it has one."""
    told = [{"@type": FCM_ERROR, "errorCode": code}] if code else []
    body = {"code": status, "message": message, "status": name, "details": [*told, *details]}
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Reply(status, {"error": body}, named)


ACCEPTED = Reply(200, {"name": f"projects/{PROJECT}/messages/0:1"})


class FcmService(HTTPService):
    """For the length of a ``with`` block; it takes what Google would, unless it is told otherwise.

    Args:
        directory: where its certificate and the credentials file are written.
    """

    def __init__(self, directory: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        """The messages that were taken for good requests, with their ``authorization``."""
        self.raw: list[bytes] = []
        self.assertions: list[dict[str, Any]] = []
        """The claims that a token was asked for with."""
        self.replies: dict[str, deque[Reply]] = {}
        """By registration token, what is answered in place of the usual; the last one stays."""
        self.token_replies: deque[Reply] = deque()
        self.lifetime = 3600
        self.connections = 0
        self._good: set[str] = set()
        self._wait = threading.Event()
        self._wait.set()
        service = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                service.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service._wait.wait()
                answer: Callable[[Any, bytes], Reply] = (
                    service._token if self.path == "/token" else service._message
                )
                reply = answer(self, body)
                data = reply.body if isinstance(reply.body, bytes) else _json(reply.body)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        super().__init__(Handler)
        authority = Authority(directory)
        self.ca_file = authority.file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(directory))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")
        key = rsa.generate_private_key(65537, 2048)
        self._public = key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.credentials = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": KEY_ID,
            "private_key": private.decode(),
            "client_email": EMAIL,
            "client_id": "1",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": f"{self.url}/token",
            "universe_domain": "googleapis.com",
        }
        self.file = directory / "service-account.json"
        self.file.write_text(json.dumps(self.credentials))

    def reply(self, device: str, *replies: Reply) -> None:
        """What a device's messages are answered, one after the other; the last one stays."""
        self.replies[device] = deque(replies)

    def withdraw(self) -> None:
        """No access token is good any more."""
        self._good.clear()

    def hold(self) -> None:
        """Answer nothing until ``release``."""
        self._wait.clear()

    def release(self) -> None:
        self._wait.set()

    def _token(self, _: Any, body: bytes) -> Reply:
        form = {name: value for name, (value,) in parse_qs(body.decode()).items()}
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return Reply(400, {"error": "unsupported_grant_type"})
        try:
            assert jwt.get_unverified_header(form["assertion"])["kid"] == KEY_ID
            claims = jwt.decode(
                form["assertion"], self._public.decode(), algorithms=["RS256"], issuer=EMAIL,
                audience=self.credentials["token_uri"],
                options={"require": ["iss", "scope", "aud", "iat", "exp"]},
            )  # fmt: skip
        except jwt.InvalidTokenError as invalid:
            return Reply(400, {"error": "invalid_grant", "error_description": f"{invalid}"})
        self.assertions.append(claims)
        if claims["scope"] != SCOPE or claims["exp"] - claims["iat"] > 3600:
            return Reply(400, {"error": "invalid_scope"})
        if self.token_replies:
            reply = self.token_replies.popleft()
            if reply.status != 200 or reply.body:
                return reply
        token = f"ya29.{len(self.assertions)}-{time.time_ns()}"
        self._good.add(token)
        return Reply(
            200, {"access_token": token, "expires_in": self.lifetime, "token_type": "Bearer"}
        )

    def _message(self, handler: Any, body: bytes) -> Reply:
        if handler.path != f"/v1/projects/{PROJECT}/messages:send":
            return Reply(404, b"<!DOCTYPE html><title>Error 404</title>")
        scheme, _, token = handler.headers["Authorization"].partition(" ")
        if scheme != "Bearer" or token not in self._good:
            return error(401, "UNAUTHENTICATED")
        if handler.headers["Content-Type"] != "application/json":
            return error(400, "INVALID_ARGUMENT")
        message = json.loads(body)["message"]
        self.raw.append(body)
        self.requests.append(message | {"authorization": token})
        waiting = self.replies.get(message["token"])
        if waiting:
            return waiting.popleft() if len(waiting) > 1 else waiting[0]
        return _checked(message)


def _checked(message: dict[str, Any]) -> Reply:
    """What FCM says of a message that it does not understand."""
    data = message.get("data", {})
    wrong = [
        name
        for name, value in data.items()
        if not isinstance(value, str) or name == "from" or name.startswith(("google", "gcm"))
    ]
    android = message.get("android", {})
    known = {"collapse_key", "priority", "ttl", "notification"}
    if wrong or set(android) - known or android["priority"] not in {"HIGH", "NORMAL"}:
        return error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
    if not android["ttl"].endswith("s") or not 0 <= int(android["ttl"][:-1]) <= 2_419_200:
        return error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
    shown = android.get("notification", {})
    if set(shown) - {"tag", "notification_count"} or set(message.get("notification", {})) - {
        "title", "body"
    }:  # fmt: skip
        return error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
    told = _json([message.get("notification", {}), data])
    if len(told) > 4096:
        return error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "Android message is too big")
    return ACCEPTED


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
