"""Apple's push service (APNs): HTTP/2, and a token that this server signs."""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hpack import NeverIndexedHeaderTuple

from pushsvc.egress import tls_context
from pushsvc.errors import InvalidRequest
from pushsvc.protocol.push import ATTEMPT_SECONDS, PushRegistration
from pushsvc.push.answers import said
from pushsvc.push.fitting import fit
from pushsvc.push.http2 import Http2
from pushsvc.push.jws import sign
from pushsvc.push.outbound import Answer, Unreachable
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from pushsvc.push.retrying import retry_after

PRODUCTION: Final = "https://api.push.apple.com"
SANDBOX: Final = "https://api.sandbox.push.apple.com"

MAX_KEY: Final = 16_384
"""Bytes of a key file."""
MIN_TOKEN, MAX_TOKEN = 32, 100
"""Bytes of a device token: Apple promises no length; so far it was always the least."""
TOKEN_SECONDS: Final = 2400.0
"""How long a provider token is used: one that is older than an hour is refused."""
MIN_TOKEN_SECONDS: Final = 1200.0
"""The least between two of them: a server that makes more is turned away."""
PROVEN_SECONDS: Final = 60.0
"""For so long after a provider token was accepted, a refusal of it is put down to the one
registration: what clients register stops the provider for nobody else."""
MAX_COLLAPSE: Final = 64
"""Bytes of ``apns-collapse-id``."""

UNTITLED: Final = "New notification"
"""What iOS looks up in the app's own strings, and shows as it is where that has no such string,
for a push without a text. Without any text the app would not be woken to fetch one."""

_GONE = {"BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "Unregistered"}
_OF_OTHER_ENVIRONMENT = {"BadEnvironmentKeyInToken", "BadEnvironmentKeyIdInToken"}
_TOKEN_UPDATES_SECONDS: Final = 60.0

_is_hex = re.compile(r"[0-9A-Fa-f]+").fullmatch
_is_bundle_id = re.compile(r"[A-Za-z0-9.-]{1,255}").fullmatch
_is_apple_id = re.compile(r"[A-Z0-9]{10}").fullmatch


class ApnsKey(NamedTuple):
    """What provider tokens are signed with."""

    key: EllipticCurvePrivateKey
    key_id: str
    team_id: str


def load_key(path: Path, *, key_id: str, team_id: str) -> ApnsKey:
    """The key of a ``.p8`` file as Apple gives it out.

    Args:
        path: the file.
        key_id: which key that is, as Apple says; see ``is_apple_id``.
        team_id: the team that it belongs to.

    Raises:
        ValueError: it is not there or not such a key; the message fits behind the file's name.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(text) > MAX_KEY:
        raise ValueError(f"is larger than {MAX_KEY} bytes, which no key is")
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not a private key as Apple gives it out (.p8, PEM)") from None
    if not (isinstance(key, EllipticCurvePrivateKey) and key.curve.name == SECP256R1.name):
        raise ValueError("is not a key on the curve P-256, which APNs signs with")
    return ApnsKey(key, key_id, team_id)


def is_apple_id(text: str) -> bool:
    """Whether a text can be the id of a key or of a team: ten capitals and digits."""
    return _is_apple_id(text) is not None


class ProviderToken:
    """The token that says who sends, made anew in time and no sooner.

    Args:
        key: from Apple.
        clock: Unix seconds.
    """

    def __init__(self, key: ApnsKey, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock
        self._token = ""
        self._made = 0

    def current(self) -> str:
        """The token to send."""
        age = self._clock() - self._made
        # One from the future is of a clock that was wrong.
        if not self._token or age >= TOKEN_SECONDS or age <= -MIN_TOKEN_SECONDS:
            self._make()
        return self._token

    def after(self, refused: str) -> str | None:
        """The token to send after one was refused as too old; None if that would be no other."""
        if refused == self._token:
            if abs(self._clock() - self._made) < MIN_TOKEN_SECONDS:
                return None
            self._make()
        return self._token

    def _make(self) -> None:
        self._made = int(self._clock())
        claims = {"iss": self._key.team_id, "iat": self._made}
        self._token = sign(self._key.key, {"kid": self._key.key_id}, claims)


class Apns:
    """Pushes to the devices of Apple; a ``Provider``.

    Args:
        key: see ``load_key``.
        url: the origin of another service, for both environments.
        ca_file: PEM file with the authorities that may certify it, in place of the system's.

    Raises:
        ValueError: the url is not an origin, or the file cannot be used.
    """

    name = "apns"

    def __init__(self, key: ApnsKey, *, url: str = "", ca_file: Path | None = None) -> None:
        self._token = ProviderToken(key)
        production = Http2(url or PRODUCTION, tls_context(ca_file))
        sandbox = production if url else Http2(SANDBOX, tls_context(ca_file))
        self._services = (_Service(production), _Service(sandbox))

    def check(self, registration: PushRegistration) -> None:
        """See ``Provider``."""
        token, topic = registration.address, registration.topic
        if not 2 * MIN_TOKEN <= len(token) <= 2 * MAX_TOKEN or len(token) % 2 or not _is_hex(token):
            raise InvalidRequest(
                "'token' is not the device token in hex: didRegisterForRemoteNotifications gives"
                f" its {MIN_TOKEN} bytes or more"
            )
        if not _is_bundle_id(topic):
            raise InvalidRequest("'topic' is not the app's bundle id, such as com.example.app")

    async def send(self, registration: PushRegistration, message: PushMessage) -> Verdict:
        """See ``Provider``."""
        path = f"/3/device/{registration.address.lower()}"
        body = payload(message)
        headers = headers_of(registration, message, time.time())
        service = self._services[registration.sandbox]
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                token = self._token.current()
                answer = await service.post(path, token, headers, body)
                verdict = verdict_of(answer, registration, time.time())
                if verdict.detail == "ExpiredProviderToken":
                    if (fresh := self._token.after(token)) is None:
                        detail = "ExpiredProviderToken of a new token: is this clock right?"
                        return Verdict(Outcome.CREDENTIALS, detail)
                    answer = await service.post(path, fresh, headers, body)
                    verdict = verdict_of(answer, registration, time.time())
        except TimeoutError:
            return Verdict(Outcome.RETRY, f"no answer in {ATTEMPT_SECONDS:g} s")
        except Unreachable as error:
            return Verdict(Outcome.RETRY, str(error))
        return service.judged(verdict)

    async def aclose(self) -> None:
        """See ``Provider``."""
        for service in self._services:
            await service.connections.aclose()


class _Service:
    """Production or the sandbox, and when it last took a provider token for good."""

    def __init__(self, connections: Http2) -> None:
        self.connections = connections
        self._proven = -PROVEN_SECONDS

    async def post(
        self, path: str, token: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer:
        """Ask it, with a provider token."""
        with_token = [("authorization", f"bearer {token}"), *headers]
        return await self.connections.post(path, with_token, body)

    def judged(self, verdict: Verdict) -> Verdict:
        """A verdict, where others show that it is not the token that is wrong."""
        now = time.monotonic()
        if verdict.outcome in {Outcome.SENT, Outcome.GONE}:
            self._proven = now
        elif verdict.outcome is Outcome.CREDENTIALS and now - self._proven < PROVEN_SECONDS:
            return verdict._replace(outcome=Outcome.RETRY)
        return verdict


def payload(message: PushMessage) -> bytes:
    """What a device is given: JSON of ``MAX_PAYLOAD`` bytes at most, of the 4,096 that Apple takes.

    https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification
    """
    return fit(message, _json)


def _json(message: PushMessage) -> bytes:
    text = message.text
    alert: dict[str, str] = {}
    ours = {"id": message.notification}
    if message.capability:
        ours["capability"] = message.capability
    if text is not None:
        if text.title:
            alert["title"] = text.title
        if text.body:
            alert["body"] = text.body
        if text.url:
            ours["url"] = text.url
    aps: dict[str, Any] = {"alert": alert or {"loc-key": UNTITLED}, "mutable-content": 1}
    if message.badge is not None:
        aps["badge"] = message.badge
    if message.group and text is not None:
        aps["thread-id"] = message.group
    return msgspec.json.encode({"aps": aps, "pushsvc": ours})


def headers_of(
    registration: PushRegistration, message: PushMessage, now: float
) -> list[tuple[str, str]]:
    """The headers of a request, but for who sends it.

    https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns

    Args:
        registration: the device.
        message: what it is told.
        now: Unix seconds.
    """
    expiration = str(int(now) + message.ttl) if message.ttl > 0 else "0"
    # The same for each attempt, so that an operator finds one notification in Apple's log.
    made_of = f"{message.notification}\0{registration.id}".encode()
    apns_id = str(UUID(bytes=hashlib.sha256(made_of).digest()[:16], version=4))
    headers: list[tuple[Any, Any]] = [
        ("apns-topic", registration.topic),
        ("apns-push-type", "alert"),
        ("apns-priority", "10" if message.urgency in {"high", "normal"} else "5"),
        NeverIndexedHeaderTuple("apns-expiration", expiration),
        NeverIndexedHeaderTuple("apns-id", apns_id),
    ]
    if message.tag:
        headers.append(NeverIndexedHeaderTuple("apns-collapse-id", collapse_id(message)))
    return headers


def collapse_id(message: PushMessage) -> str:
    """What newer messages replace older ones by: the tag, or a digest of it.

    A digest where the tag is too long for a header or has other characters than those, and where
    nothing but ids may be told.
    """
    tag = message.tag
    plain = tag.isascii() and tag.isprintable() and tag == tag.strip()
    if message.text is not None and plain and len(tag) <= MAX_COLLAPSE:
        return tag
    return hashlib.sha256(tag.encode()).hexdigest()[:32]


def verdict_of(answer: Answer, registration: PushRegistration, now: float) -> Verdict:
    """What an answer means.

    https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns

    Args:
        answer: of APNs.
        registration: the device that it is about.
        now: Unix seconds.
    """
    status = answer.status
    if status == 200:
        return Verdict(Outcome.SENT)
    if status == 413:
        return Verdict(Outcome.TOO_LARGE, "413")
    told = said(answer.body)
    reason = told.get("reason")
    if not isinstance(reason, str) or not reason.isascii() or not reason.isalnum():
        # Of something in between, which knows nothing of registrations and credentials.
        return Verdict(Outcome.RETRY, str(status), retry_after(answer.headers, now))
    reason = reason[:64]
    if reason in _GONE and status in {400, 410}:
        timestamp = told.get("timestamp")
        if isinstance(timestamp, int | float) and timestamp < registration.at:
            # Apple knows of its end only from before it was registered again; the next push asks
            # anew, and this one would hardly be told otherwise a few seconds later.
            return Verdict(Outcome.REFUSED, f"{reason} before it was registered")
        return Verdict(Outcome.GONE, reason)
    if status == 403:
        if reason in _OF_OTHER_ENVIRONMENT and registration.sandbox:
            return Verdict(Outcome.REFUSED, reason)
        return Verdict(Outcome.CREDENTIALS, reason)
    wait = retry_after(answer.headers, now)
    if reason == "TooManyProviderTokenUpdates":
        return Verdict(Outcome.RETRY, reason, max(wait, _TOKEN_UPDATES_SECONDS))
    if status == 429 or status >= 500 or reason == "IdleTimeout":
        return Verdict(Outcome.RETRY, reason, wait)
    # A topic that is not of this team's apps among them: the client named it, and other
    # registrations are not the worse for it.
    return Verdict(Outcome.REFUSED, reason)
