"""A push service as browsers have one: Web Push over TLS, with an authority of its own.

What it is sent it checks and decrypts with ``py_vapid`` and ``http_ece``, of which nothing is ours.
"""

import asyncio
import base64
import itertools
import json
import re
import secrets
import ssl
import time
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any, Literal, NamedTuple

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02

from tests.support.certificates import Authority
from tests.support.services import TCPService

MAX_BODY = 4096
DAY = 86_400
OTHER_KEY = (
    b"the VAPID credentials in the authorization header do not correspond to the credentials used"
    b" to create the subscriptions.\n"
)
"""What Google's service says with 403 where a subscription was made with another key."""


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Subscription(NamedTuple):
    """What a browser makes when a page subscribes."""

    endpoint: str
    key: ec.EllipticCurvePrivateKey
    auth: bytes
    server_key: str
    """The application server key that it was made with; empty takes any."""

    @property
    def p256dh(self) -> str:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return base64url(point)

    def to_json(self) -> dict[str, Any]:
        """As ``PushSubscription.toJSON()`` gives it."""
        return {
            "endpoint": self.endpoint,
            "expirationTime": None,
            "keys": {"p256dh": self.p256dh, "auth": base64url(self.auth)},
        }


class Message(NamedTuple):
    """What came for a subscription, and was accepted."""

    endpoint: str
    data: Any
    """Decrypted: the JSON."""
    size: int
    """Bytes of it with padding: what may be known from outside."""
    headers: dict[str, str]
    """By their names in lower case."""
    claims: dict[str, Any]
    """Of the token."""
    server_key: str
    at: float
    """Unix seconds."""


class Answer(NamedTuple):
    """What it answers, in place of what is right."""

    status: int = 201
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    body: bytes = b""
    how: Literal["", "hang", "reset", "drip", "drip head", "flood", "interim", "nonsense"] = ""
    """Never; not at all; a byte of the body or the head at a time; a body, or interim answers,
    without end; no HTTP."""


HANG = Answer(how="hang")
RESET = Answer(how="reset")


class PushService(TCPService):
    """Takes messages for the subscriptions that it made.

    Args:
        directory: where the files of its authority and its certificate are written.
    """

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        self.ca_file = authority.file
        """Whom a client has to trust."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue(directory))
        super().__init__(context)
        self.messages: list[Message] = []
        """What was accepted, in order."""
        self.attempts: Counter[str] = Counter()
        """Requests by endpoint, whatever they were answered."""
        self.mistakes: list[str] = []
        """What clients did that no push service takes."""
        self.connections = 0
        self._subscriptions: dict[str, Subscription] = {}
        self._next: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answer] = {}

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    def subscribe(self, server_key: str = "") -> Subscription:
        """Make a subscription as a browser does.

        Args:
            server_key: the application server key of the page; any may send where it is empty.
        """
        endpoint = f"{self.origin}/push/{secrets.token_urlsafe(96)}"
        key = ec.generate_private_key(ec.SECP256R1())
        made = Subscription(endpoint, key, secrets.token_bytes(16), server_key)
        self._subscriptions[endpoint] = made
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """From now on it is answered 410."""
        del self._subscriptions[subscription.endpoint]

    def answer(self, *answers: Answer, to: Subscription | None = None) -> None:
        """Answer the next requests so, one each; those for one subscription, or those for any."""
        self._next[to.endpoint if to else ""].extend(answers)

    def answer_always(self, answer: Answer | None, to: Subscription | None = None) -> None:
        """Answer so until it is told otherwise; None answers what is right."""
        where = to.endpoint if to else ""
        if answer is None:
            self._always.pop(where, None)
        else:
            self._always[where] = answer

    def received(self, subscription: Subscription) -> list[Message]:
        """What was accepted for a subscription."""
        return [each for each in self.messages if each.endpoint == subscription.endpoint]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            # Not closed: in TLS that waits for the other side, which is gone or does not read.
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (each.partition(":") for each in fields)
        }
        body = await reader.readexactly(int(headers["content-length"]))
        method, path, _ = line.split(" ")
        endpoint = f"{self.origin}{path}"
        self.attempts[endpoint] += 1
        wanted = self._wanted(endpoint)
        right, message = self._right(method, endpoint, headers, body)
        answer = wanted or right
        if message is not None and answer.status < 300 and answer.how in {"", "drip", "flood"}:
            self.messages.append(message)
        return await self._answer(answer, writer)

    def _wanted(self, endpoint: str) -> Answer | None:
        for where in (endpoint, ""):
            if self._next[where]:
                return self._next[where].popleft()
        return self._always.get(endpoint) or self._always.get("")

    def _right(
        self, method: str, endpoint: str, headers: dict[str, str], body: bytes
    ) -> tuple[Answer, Message | None]:
        """What a push service answers (RFC 8030, 8291, 8292)."""
        subscription = self._subscriptions.get(endpoint)
        if subscription is None:
            return Answer(410), None
        try:
            claims, server_key = self._let_in(headers.get("authorization", ""))
        except (ValueError, KeyError, AssertionError, TypeError) as error:
            self.mistakes.append(f"VAPID: {error!r}")
            return Answer(403, body=b"invalid JWT provided\n"), None
        if subscription.server_key not in {"", server_key}:
            return Answer(403, body=OTHER_KEY), None
        if len(body) > MAX_BODY:
            return Answer(413), None
        wrong = _wrong(method, headers)
        try:
            data = http_ece.decrypt(
                body, private_key=subscription.key, auth_secret=subscription.auth,
                version="aes128gcm",
            )  # fmt: skip
            value = json.loads(data)
        except (http_ece.ECEException, ValueError) as error:
            wrong = wrong or f"it cannot be decrypted: {error!r}"
        if wrong:
            self.mistakes.append(wrong)
            return Answer(400, body=wrong.encode()), None
        size = len(body) - 16 - 5 - body[20] - 16 - 1
        message = Message(endpoint, value, size, headers, claims, server_key, time.time())
        location = {"Location": f"{self.origin}/message/{secrets.token_hex(8)}"}
        return Answer(201, location), message

    def _let_in(self, authorization: str) -> tuple[dict[str, Any], str]:
        """Check who a request is from (RFC 8292): the claims, and the public key."""
        match = re.fullmatch(r"vapid t=([\w.-]+), ?k=([\w-]+)", authorization)
        if match is None:
            raise ValueError(f"Authorization is {authorization!r}")
        token, key = match.groups()
        if not Vapid02.verify(f"vapid t={token},k={key}"):
            raise ValueError("the signature is wrong")
        header, claims = (
            json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            for part in token.split(".")[:2]
        )
        if header != {"typ": "JWT", "alg": "ES256"}:
            raise ValueError(f"the header is {header}")
        if claims["aud"] != self.origin:
            raise ValueError(f"aud is {claims['aud']}")
        if not 0 < claims["exp"] - time.time() <= DAY:
            raise ValueError(f"exp is {claims['exp']}")
        if not claims["sub"].startswith(("mailto:", "https:")):
            raise ValueError(f"sub is {claims['sub']}")
        return claims, key

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        endless = answer.how in {"drip", "flood"}
        length = {"Content-Length": str(1 << 30 if endless else len(answer.body))}
        fields = "".join(f"{n}: {v}\r\n" for n, v in (answer.headers | length).items())
        head = f"HTTP/1.1 {answer.status} Whatever\r\n{fields}\r\n".encode()
        match answer.how:
            case "":
                writer.write(head + answer.body)
                await writer.drain()
                return True
            case "hang":
                await asyncio.Event().wait()
            case "reset":
                writer.transport.abort()
            case "nonsense":
                writer.write(b"\0\1\2 what\r\n\r\n")
                await writer.drain()
                return True
            case "drip head":
                await _endlessly(writer, *(bytes([each]) for each in head[:-2]), pause=0.1)
            case "drip":
                await _endlessly(writer, head, b"x", pause=0.1)
            case "flood":
                await _endlessly(writer, head, bytes(65_536))
            case "interim":
                interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
                await _endlessly(writer, interim * 64)
        return False


async def _endlessly(writer: asyncio.StreamWriter, *parts: bytes, pause: float = 0.0) -> None:
    """Write these, the last of them over and over."""
    for part in itertools.chain(parts, itertools.repeat(parts[-1])):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)


def _wrong(method: str, headers: dict[str, str]) -> str:
    """What is wrong with a request, but for its signature and its body; empty for nothing."""
    if method != "POST":
        return f"the method is {method}"
    if headers.get("content-encoding") != "aes128gcm":
        return "no Content-Encoding: aes128gcm"
    if not headers.get("ttl", "").isdigit():
        return "no TTL"
    if headers.get("urgency") not in {"very-low", "low", "normal", "high"}:
        return "no Urgency that is known"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers.get("topic", "t")):
        return "a Topic that is none"
    return ""
