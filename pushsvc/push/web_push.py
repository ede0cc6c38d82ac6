"""Web Push: RFC 8030, with the encryption of RFC 8291 and the signatures of RFC 8292."""

import asyncio
import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pushsvc.errors import InvalidRequest
from pushsvc.printable import printable
from pushsvc.protocol.push import ATTEMPT_SECONDS, PushRegistration
from pushsvc.push import encryption
from pushsvc.push.fitting import fit
from pushsvc.push.hosts import Endpoint, Hosts, NotAllowed
from pushsvc.push.outbound import Answer, Outbound, Refused, Unreachable
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from pushsvc.push.retrying import retry_after
from pushsvc.push.vapid import VapidKeys

MAX_TTL: Final = 28 * 86_400
"""Seconds that push services keep a message at most; some refuse more."""
TRUSTED_SECONDS: Final = 3600.0
"""How long an accepted message shows that a push service knows this server."""
MAX_REMEMBERED: Final = 4096
"""Registrations, and push services, that something is remembered of."""

_SENT: Final = {200, 201, 202, 204}
_GONE: Final = {404, 410}
_UNAUTHORIZED: Final = {401, 403}
_BUSY: Final = {406, 408, 425, 429}  # 406: a limit of Windows' service
_OTHER_KEY: Final = (b"vapidpkhashmismatch", b"public key mismatch", b"do not correspond to")
"""How Apple, Mozilla and Google say that a subscription was made with another key."""
_DETAIL: Final = 100


class WebPush:
    """Sends to the subscriptions of browsers.

    Args:
        keys: of this server.
        subject: whom push services can ask, ``mailto:`` or ``https:``.
        out: the way there.
        hosts: where subscriptions may lead.
        clock: Unix seconds.
    """

    name = "web"

    def __init__(
        self,
        keys: VapidKeys,
        subject: str,
        out: Outbound,
        hosts: Hosts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.public_key = keys.public[0]
        """What new subscriptions are made with (application server key), in base64url."""
        self._public = keys.public
        self._signer = keys.signer(subject, clock)
        self._out = out
        self._hosts = hosts
        self._clock = clock
        self._second: dict[str, None] = {}
        """Registrations that were made with the second key, and do not say so."""
        self._accepted: dict[tuple[str, int], float] = {}
        """When a push service last accepted something, by its origin and the key."""

    def check(self, registration: PushRegistration) -> None:
        """See ``Provider``."""
        try:
            self._hosts.endpoint(registration.address)
        except NotAllowed as error:
            raise InvalidRequest(f"endpoint: {error}") from None
        try:
            encryption.public_key(registration.p256dh)
        except ValueError as error:
            raise InvalidRequest(f"p256dh {error}") from None
        try:
            encryption.secret(registration.auth)
        except ValueError as error:
            raise InvalidRequest(f"auth {error}") from None
        if registration.vapid_key and self._made_with(registration) is None:
            raise InvalidRequest(
                "the subscription was made with a key that this server does not have: subscribe"
                " with that of GET /v1/push"
            )

    async def send(self, registration: PushRegistration, message: PushMessage) -> Verdict:
        """See ``Provider``."""
        until = asyncio.get_running_loop().time() + ATTEMPT_SECONDS
        try:
            endpoint = self._hosts.endpoint(registration.address)
            secret = encryption.secret(registration.auth)
            theirs = encryption.public_key(registration.p256dh)
        except ValueError as error:
            return Verdict(Outcome.REFUSED, printable(str(error)))
        keys = self._keys(registration)
        if not keys:
            return Verdict(Outcome.REFUSED, "made with a key that this server no longer has")
        body = encryption.encrypt(fit(message, payload, encryption.MAX_PLAINTEXT), theirs, secret)
        headers = _headers(message, secret)
        verdict = Verdict(Outcome.REFUSED)
        for key in keys:
            headers["Authorization"] = self._signer.authorization(endpoint.origin, key)
            left = until - asyncio.get_running_loop().time()
            try:
                answer = await self._out.post(endpoint.url, headers, body, seconds=max(left, 0.1))
            except Refused as error:
                return Verdict(Outcome.REFUSED, str(error))
            except Unreachable as error:
                return Verdict(Outcome.RETRY, str(error))
            verdict = self._verdict(answer, endpoint, key)
            if verdict.outcome is Outcome.SENT:
                self._remember(registration, endpoint, key)
                return verdict
            if not _unauthorized(answer):
                return verdict
        return verdict

    async def aclose(self) -> None:
        """See ``Provider``: the connections are of whoever made ``out``."""

    def _keys(self, registration: PushRegistration) -> list[int]:
        """Which keys to try, in order."""
        if registration.vapid_key:
            made_with = self._made_with(registration)
            return [] if made_with is None else [made_with]
        keys = [*range(len(self._public))]
        return keys[::-1] if registration.id in self._second else keys

    def _made_with(self, registration: PushRegistration) -> int | None:
        named = encryption.decoded(registration.vapid_key)
        for place, each in enumerate(self._public):
            if named == encryption.decoded(each):
                return place
        return None

    def _remember(self, registration: PushRegistration, endpoint: Endpoint, key: int) -> None:
        if len(self._accepted) >= MAX_REMEMBERED:
            self._accepted.clear()
        self._accepted[endpoint.origin, key] = self._clock()
        if key and not registration.vapid_key:
            if len(self._second) >= MAX_REMEMBERED:
                del self._second[next(iter(self._second))]
            self._second[registration.id] = None

    def _verdict(self, answer: Answer, endpoint: Endpoint, key: int) -> Verdict:
        """What an answer means (RFC 8030, section 5; what push services document beside it)."""
        status, detail = answer.status, _detail(answer)
        if status in _SENT:
            return Verdict(Outcome.SENT, str(status))
        if status in _GONE:
            return Verdict(Outcome.GONE, detail)
        if status == 413:
            return Verdict(Outcome.TOO_LARGE, detail)
        if status in _BUSY or status >= 500:
            return Verdict(Outcome.RETRY, detail, retry_after(answer.headers, self._clock()))
        if status in _UNAUTHORIZED and self._is_ours(answer, endpoint, key):
            return Verdict(Outcome.CREDENTIALS, detail)
        return Verdict(Outcome.REFUSED, detail)

    def _is_ours(self, answer: Answer, endpoint: Endpoint, key: int) -> bool:
        """Whether it is this server that a push service refuses, and not one subscription.

        Anybody can register a subscription that was made with another key, or at a host that only
        ``*`` lets in: that must not stop the pushes to all others.
        """
        accepted = self._accepted.get((endpoint.origin, key), float("-inf"))
        return (
            endpoint.known
            and not _says_other_key(answer)
            and not self._clock() - accepted < TRUSTED_SECONDS
        )


def payload(message: PushMessage) -> bytes:
    """What a service worker is given: JSON, in which nothing stands that is empty."""
    told: dict[str, Any] = {"v": 1, "id": message.notification, "capability": message.capability}
    if message.text is not None:
        text = message.text
        told |= {"title": text.title, "body": text.body, "url": text.url, "icon": text.icon}
        told |= {"tag": message.tag, "group": message.group}
        told |= {"urgency": message.urgency if message.urgency != "normal" else ""}
    told = {name: value for name, value in told.items() if value != ""}
    if message.badge is not None:
        told["badge"] = message.badge
    return msgspec.json.encode(told)


def _headers(message: PushMessage, secret: bytes) -> dict[str, str]:
    headers = {
        "TTL": str(min(max(message.ttl, 0), MAX_TTL)),
        "Urgency": message.urgency,
        "Content-Encoding": "aes128gcm",
        "Content-Type": "application/octet-stream",
    }
    if message.tag:
        # What a push service sees of a tag: neither the tag, nor that two users have the same.
        digest = hmac.digest(secret, message.tag.encode(), "sha256")[:24]
        headers["Topic"] = urlsafe_b64encode(digest).decode()
    return headers


def _unauthorized(answer: Answer) -> bool:
    return answer.status in _UNAUTHORIZED or (answer.status == 400 and _says_other_key(answer))


def _says_other_key(answer: Answer) -> bool:
    body = answer.body.lower()
    return any(each in body for each in _OTHER_KEY)


def _detail(answer: Answer) -> str:
    """The status, and a little of what a push service says to it."""
    text = printable(" ".join(answer.body[:_DETAIL].decode(errors="replace").split()))
    return f"{answer.status} {text}".rstrip()
