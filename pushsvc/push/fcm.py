"""Firebase Cloud Messaging (FCM), HTTP v1: an access token that Google gives for a signed claim."""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pushsvc.errors import InvalidRequest
from pushsvc.printable import printable
from pushsvc.protocol.push import ATTEMPT_SECONDS, PushRegistration
from pushsvc.push.answers import said
from pushsvc.push.fitting import fit
from pushsvc.push.jws import sign
from pushsvc.push.outbound import Answer, Refused, Unreachable
from pushsvc.push.provider import Outcome, PushMessage, Verdict
from pushsvc.push.retrying import retry_after

ORIGIN: Final = "https://fcm.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

MAX_CREDENTIALS: Final = 65_536
"""Bytes of a credentials file."""
MAX_TOKEN: Final = 4096
"""Characters of a registration token; Google promises no length, and gives about 160."""
MAX_TTL: Final = 2_419_200
"""Seconds that FCM keeps a message at most: four weeks."""
CLAIM_SECONDS: Final = 3600
"""How long a signed claim lasts: as long as it may."""
SPARE_SECONDS: Final = 300.0
"""An access token that lasts no longer is replaced before it is used."""
MAX_COLLAPSE: Final = 64
"""Bytes of a collapse key; a longer one is a digest."""

_ERROR_TYPE: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

_is_project = re.compile(r"[a-z0-9.:-]{1,100}").fullmatch
_is_token = re.compile(r"[!#-\[\]-~]+").fullmatch
_is_code = re.compile(r"[A-Z_]{1,64}").fullmatch


class FcmCredentials(NamedTuple):
    """A service account that may send (its key as the Google Cloud console gives it out)."""

    project: str
    email: str
    key: RSAPrivateKey
    key_id: str
    token_uri: str


class Poster(Protocol):
    """The way out; see ``outbound.Outbound``."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, checked: bool
    ) -> Answer:
        """See ``outbound.Outbound.post``."""


def load_credentials(path: Path) -> FcmCredentials:
    """The key of a service account, from its JSON file.

    Raises:
        ValueError: it is not there or not such a file; the message fits behind the file's name.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CREDENTIALS + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(text) > MAX_CREDENTIALS:
        raise ValueError(f"is larger than {MAX_CREDENTIALS} bytes, which no credentials are")
    try:
        stated = msgspec.json.decode(text, type=_CredentialsFile)
    except msgspec.ValidationError as error:
        raise ValueError(f"is not the key of a service account: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is not JSON") from None
    if stated.type != "service_account":
        raise ValueError("is not the key of a service account: its 'type' is another")
    if not _is_project(stated.project_id):
        raise ValueError("names no project in 'project_id'")
    if not _is_endpoint(stated.token_uri):
        raise ValueError("has no https address in 'token_uri'")
    return FcmCredentials(
        stated.project_id,
        stated.client_email,
        _private_key(stated.private_key),
        stated.private_key_id,
        stated.token_uri,
    )


def _is_endpoint(address: str) -> bool:
    """Whether a signed claim may be sent there: by https, or within this machine."""
    try:
        parts = urlsplit(address)
        plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
    except ValueError:
        return False
    return bool(parts.hostname) and parts.username is None and (parts.scheme == "https" or plain)


def _private_key(text: str) -> RSAPrivateKey:
    try:
        key: object = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, RSAPrivateKey):
        return key
    raise ValueError("holds no RSA key in 'private_key' (PEM)")


class _CredentialsFile(msgspec.Struct, frozen=True):
    project_id: str
    client_email: str
    private_key: str
    private_key_id: str
    token_uri: str
    type: str = "service_account"


class _NoToken(Exception):
    """There is no access token.

    Args:
        verdict: what that means for who wanted one.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict


class AccessToken:
    """The token that lets this server send, kept until shortly before its end (RFC 7523).

    Args:
        credentials: of the service account.
        out: the way to ``token_uri``.
        clock: Unix seconds.
    """

    def __init__(
        self, credentials: FcmCredentials, out: Poster, clock: Callable[[], float] = time.time
    ) -> None:
        self._credentials = credentials
        self._out = out
        self._clock = clock
        self._token = ""
        self._until = 0.0
        self._asking: asyncio.Task[str] | None = None
        self._closed = False

    async def current(self) -> str:
        """The token to send.

        Raises:
            _NoToken: none can be had.
        """
        left = self._until - self._clock()
        # One that lasts longer than any is of a clock that was wrong.
        if self._token and SPARE_SECONDS < left <= 2 * CLAIM_SECONDS:
            return self._token
        return await self._fresh()

    async def after(self, refused: str) -> str:
        """The token to send after one was refused.

        Raises:
            _NoToken: none can be had.
        """
        if refused == self._token:
            return await self._fresh()
        return await self.current()

    async def _fresh(self) -> str:
        """Ask for one, once for all who want it meanwhile."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        try:
            return await asyncio.shield(self._asking)
        except asyncio.CancelledError:
            if self._closed:
                raise _NoToken(Verdict(Outcome.RETRY, "it is closed")) from None
            raise

    def _asked(self, task: asyncio.Task[str]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # which those who wait are told, if there are any left

    async def _ask(self) -> str:
        of, now = self._credentials, int(self._clock())
        claims = {
            "iss": of.email,
            "scope": SCOPE,
            "aud": of.token_uri,
            "iat": now,
            "exp": now + CLAIM_SECONDS,
        }
        assertion = sign(of.key, {"kid": of.key_id}, claims)
        body = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        self._token = ""
        answer = await self._out.post(of.token_uri, headers, body, checked=False)
        self._token, lasts = _granted(answer, self._clock())
        self._until = self._clock() + lasts
        return self._token

    async def aclose(self) -> None:
        """Give up what is being asked for."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])


def _granted(answer: Answer, now: float) -> tuple[str, float]:
    """An access token, and the seconds that it lasts.

    Raises:
        _NoToken: the answer has none.
    """
    told = said(answer.body)
    if answer.status == 200:
        token, lasts = told.get("access_token"), told.get("expires_in")
        if isinstance(token, str) and _is_token(token):
            known = isinstance(lasts, int | float) and 0 < lasts <= CLAIM_SECONDS
            return token, float(lasts if known and lasts else CLAIM_SECONDS)
        raise _NoToken(Verdict(Outcome.RETRY, "the token endpoint answers without a token"))
    wait = retry_after(answer.headers, now)
    if answer.status in {408, 429} or not 400 <= answer.status < 500:
        raise _NoToken(Verdict(Outcome.RETRY, f"token endpoint: {answer.status}", wait))
    why = [told.get("error"), told.get("error_description")]
    words = ": ".join(printable(each[:100]) for each in why if isinstance(each, str))
    raise _NoToken(Verdict(Outcome.CREDENTIALS, f"token endpoint: {words or answer.status}"))


class Fcm:
    """Pushes to apps with Firebase; a ``Provider``.

    Args:
        credentials: see ``load_credentials``.
        out: the way out.
        url: the origin of another service; empty for Google's.
    """

    name = "fcm"

    def __init__(self, credentials: FcmCredentials, out: Poster, *, url: str = "") -> None:
        self._token = AccessToken(credentials, out)
        self._out = out
        origin = (url or ORIGIN).rstrip("/")
        self._url = f"{origin}/v1/projects/{credentials.project}/messages:send"
        self._accepted = False

    def check(self, registration: PushRegistration) -> None:
        """See ``Provider``."""
        token = registration.address
        if not 0 < len(token) <= MAX_TOKEN or not _is_token(token):
            raise InvalidRequest(
                "'token' is not a registration token as FirebaseMessaging.getToken gives it"
            )

    async def send(self, registration: PushRegistration, message: PushMessage) -> Verdict:
        """See ``Provider``."""
        body = request(registration, message)
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                token = await self._token.current()
                verdict = await self._attempt(token, body)
                if verdict.outcome is Outcome.CREDENTIALS:
                    # Google may have withdrawn a token before its time.
                    verdict = await self._attempt(await self._token.after(token), body)
        except TimeoutError:
            return Verdict(Outcome.RETRY, f"no answer in {ATTEMPT_SECONDS:g} s")
        except _NoToken as error:
            return error.verdict
        except (Refused, Unreachable) as error:
            return Verdict(Outcome.RETRY, str(error))
        if verdict.outcome is Outcome.SENT:
            self._accepted = True
        elif verdict.detail == "SENDER_ID_MISMATCH" and not self._accepted:
            # Nobody's registration fits: it is rather the credentials that are another project's.
            return verdict._replace(outcome=Outcome.REFUSED)
        return verdict

    async def aclose(self) -> None:
        """See ``Provider``."""
        await self._token.aclose()

    async def _attempt(self, token: str, body: bytes) -> Verdict:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        answer = await self._out.post(self._url, headers, body, checked=False)
        return verdict_of(answer, time.time())


def request(registration: PushRegistration, message: PushMessage) -> bytes:
    """What FCM is asked: JSON; without the device's token ``MAX_PAYLOAD`` bytes at most.

    https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages
    """
    begin = b'{"message":{'
    token = msgspec.json.encode(registration.address)
    return begin + b'"token":' + token + b"," + fit(message, _json).removeprefix(begin)


def _json(message: PushMessage) -> bytes:
    text = message.text
    data = {"id": message.notification}
    if message.capability:
        data["capability"] = message.capability
    android: dict[str, Any] = {
        "ttl": f"{min(max(message.ttl, 0), MAX_TTL)}s",
        "priority": "HIGH" if message.urgency in {"high", "normal"} else "NORMAL",
    }
    if message.tag:
        android["collapse_key"] = _collapse_key(message)
    told: dict[str, Any] = {"data": data, "android": android}
    if text is not None:
        data |= {
            name: value
            for name, value in (("url", text.url), ("tag", message.tag), ("group", message.group))
            if value
        }
        shown = {name: value for name in ("title", "body") if (value := getattr(text, name))}
        if shown:
            told["notification"] = shown
            on_android: dict[str, Any] = {}
            if message.tag:
                on_android["tag"] = message.tag
            if message.badge is not None:
                on_android["notification_count"] = message.badge
            if on_android:
                android["notification"] = on_android
    if message.badge is not None:
        data["badge"] = str(message.badge)
    return msgspec.json.encode({"message": told})


def _collapse_key(message: PushMessage) -> str:
    """What newer messages replace older ones by, of those that a device has not had: see APNs'."""
    tag = message.tag
    if message.text is not None and len(tag.encode()) <= MAX_COLLAPSE:
        return tag
    return hashlib.sha256(tag.encode()).hexdigest()[:32]


def verdict_of(answer: Answer, now: float) -> Verdict:
    """What an answer means.

    https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode

    Args:
        answer: of FCM.
        now: Unix seconds.
    """
    status = answer.status
    if status == 200:
        return Verdict(Outcome.SENT)
    error = said(answer.body).get("error")
    wait = retry_after(answer.headers, now)
    if not isinstance(error, dict):
        # Of something in between, which knows nothing of registrations and credentials.
        return Verdict(Outcome.RETRY, str(status), wait)
    details = [each for each in _list(error.get("details")) if isinstance(each, dict)]
    code = next((each.get("errorCode") for each in details if each.get("@type") == _ERROR_TYPE), "")
    detail = _code(code) or _code(error.get("status")) or str(status)
    match code:
        case "UNREGISTERED" | "SENDER_ID_MISMATCH":
            return Verdict(Outcome.GONE, detail)
        case "THIRD_PARTY_AUTH_ERROR":
            # The project's keys for Apple or browsers, at Google: Android devices do not need them.
            return Verdict(Outcome.REFUSED, detail)
        case "QUOTA_EXCEEDED" | "UNAVAILABLE" | "INTERNAL":
            return Verdict(Outcome.RETRY, detail, wait)
    if status == 400:
        return _invalid(error, details, detail)
    if status in {401, 403}:
        return Verdict(Outcome.CREDENTIALS, detail)
    if status in {408, 429} or status >= 500:
        return Verdict(Outcome.RETRY, detail, wait)
    return Verdict(Outcome.REFUSED, detail)


def _invalid(error: Mapping[str, Any], details: list[Any], detail: str) -> Verdict:
    """What is meant by INVALID_ARGUMENT: FCM says which argument in words and violations only."""
    message = error.get("message")
    words = message.lower() if isinstance(message, str) else ""
    fields = [
        each.get("field")
        for one in details
        for each in _list(one.get("fieldViolations"))
        if isinstance(each, dict)
    ]
    if "message.token" in fields or "registration token is not a valid" in words:
        return Verdict(Outcome.GONE, f"{detail}: token")
    if "too big" in words or "too large" in words:
        return Verdict(Outcome.TOO_LARGE, detail)
    return Verdict(Outcome.REFUSED, detail)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _code(value: Any) -> str:
    return value if isinstance(value, str) and _is_code(value) else ""
