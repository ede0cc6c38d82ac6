"""Keys that an issuer publishes: when its key set (JWKS) is fetched, and how it is found.

What is at an address is not this module's: it is handed a callable that gets documents.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from pushsvc.auth.keys import KeyConfigError, KeySet, jwks_algorithms
from pushsvc.auth.tokens import MAX_KID, Check
from pushsvc.errors import InvalidToken, Unavailable
from pushsvc.logs import SampledLog, Sampler

REFRESH_AFTER: Final = 600.0
"""Seconds after which a use of the key set has it fetched again in the background."""

FETCH_INTERVAL: Final = 30.0
"""Seconds between the starts of two fetches, at least, however many tokens call for one."""

FETCH_TIMEOUT: Final = 10.0
"""Seconds that a fetch may take, with discovery and redirects."""

FIRST_PAUSE: Final = 1.0
"""Seconds between the first failure and the second try, while there are no keys; then twice as
many each time."""

MOST_PAUSE: Final = 30.0
"""The most seconds between two tries."""

LINES_TOLD: Final = 5
"""Failures that the log has of ``REFRESH_AFTER`` seconds; the others are counted."""

MOST_KIDS_TOLD: Final = 20
"""Key ids that a line of the log has at most."""

MAX_ADDRESS: Final = 2048
"""Characters of an address."""

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
"""Where an issuer says where its keys are (OpenID Connect Discovery 1.0, section 4)."""

Get = Callable[[str], Awaitable[bytes]]
"""Returns the document at an http or https address, of at most ``MAX_JWKS`` bytes, or raises."""

_match_printable = re.compile(r"[!-~]+").fullmatch

_log = structlog.get_logger(__name__)


def jwks_at(
    url: str,
    get: Get,
    algorithms: Sequence[str] = (),
    *,
    setting: str = "JWT_JWKS_URL",
    clock: Callable[[], float] = time.time,
) -> "Jwks":
    """The keys at a JWKS address.

    Args:
        url: http or https.
        get: see ``Get``.
        algorithms: the accepted ones; empty for the usual.
        setting: see ``KeySource.setting``.
        clock: the time in Unix seconds.

    Raises:
        KeyConfigError: the address is none, or the algorithms do not fit.
    """
    if not is_address(url):
        raise KeyConfigError("keys", "is not an http or https address without user and password")

    async def read() -> tuple[str, bytes]:
        return url, await get(url)

    return Jwks(url, read, algorithms=jwks_algorithms(algorithms), setting=setting, clock=clock)


def discovered(
    issuer: str,
    get: Get,
    algorithms: Sequence[str] = (),
    *,
    setting: str = "JWT_ISSUER",
    clock: Callable[[], float] = time.time,
) -> "Jwks":
    """The keys of an issuer, at the address that it names itself.

    That may be of another origin, as with Google: the document that names it is the issuer's.

    Args:
        issuer: the ``iss`` of its tokens, an http or https address.
        get: see ``Get``.
        algorithms: the accepted ones; empty for the usual.
        setting: see ``KeySource.setting``.
        clock: the time in Unix seconds.

    Raises:
        KeyConfigError: the issuer is no address, or the algorithms do not fit.
    """
    if not is_address(issuer) or "?" in issuer or "#" in issuer:  # neither has a path behind it
        raise KeyConfigError("keys", "is not an http or https address, so it has no discovery")
    address = issuer.removesuffix("/") + DISCOVERY_PATH

    async def read() -> tuple[str, bytes]:
        url = keys_address(await get(address), issuer)
        return url, await get(url)

    return Jwks(address, read, algorithms=jwks_algorithms(algorithms), setting=setting, clock=clock)


def keys_address(document: bytes, issuer: str) -> str:
    """Where the keys of an issuer are.

    Args:
        document: what discovery brought.
        issuer: whose it must be, exactly (OpenID Connect Discovery 1.0, section 4.3).

    Raises:
        ValueError: it is no such document, of another issuer, or names no good address.
    """
    try:
        value = msgspec.json.decode(document)
    except RecursionError:
        raise ValueError("the discovery document is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("the discovery document is not a JSON object")  # noqa: TRY004
    if value.get("issuer") != issuer:
        raise ValueError(
            f"the discovery document is of the issuer {str(value.get('issuer'))[:200]!r}, "
            f"and not of {issuer!r}, to the letter"
        )
    url = value.get("jwks_uri")
    if not isinstance(url, str) or not is_address(url):
        raise ValueError("the jwks_uri of the discovery document is not an http or https address")
    if (urlsplit(issuer).scheme, urlsplit(url).scheme) == ("https", "http"):
        raise ValueError("the jwks_uri of the discovery document is http, and its issuer https")
    return url


def is_address(url: str) -> bool:
    """Whether documents can be got from there: http or https, without user and password."""
    if len(url) > MAX_ADDRESS or _match_printable(url) is None:
        return False
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        return False
    host = parts.hostname
    return good and bool(host) and not str(host).startswith(".") and "@" not in parts.netloc


class Jwks:
    """Keys that an issuer publishes, fetched from the start on and kept up to date by use.

    Keys once fetched stay in use for as long as newer ones cannot be had. Fetches never overlap.
    Those that tokens call for start at least ``FETCH_INTERVAL`` apart, however many name unknown
    keys; while none were fetched, one is tried after growing pauses without a token.

    Args:
        address: where the way to the keys begins, for people.
        read: returns the address of the key set and the document there, or raises.
        algorithms: the accepted algorithms.
        setting: see ``KeySource.setting``.
        clock: the time in Unix seconds.
    """

    def __init__(
        self,
        address: str,
        read: Callable[[], Awaitable[tuple[str, bytes]]],
        *,
        algorithms: Sequence[str],
        setting: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.algorithms = tuple(algorithms)
        self.setting = setting
        self._address = address
        self._read = read
        self._clock = clock
        self.keys: KeySet | None = None
        """Those in use."""
        self._has_own = False
        """Whether the keys are from here."""
        self._why = "they are being fetched"
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._again = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Task[None] | None = None
        self._closed = False
        self._log = SampledLog(_log, Sampler(LINES_TOLD, REFRESH_AFTER))

    def take_over(self, older: "Jwks") -> None:
        """Go by the keys of an earlier address of the same issuer until there are own ones."""
        self.keys = older.keys

    def find(self, algorithm: str, kid: str | None) -> Check | None:
        """See ``KeySource.find``; starts a refresh in the background when the keys are old."""
        now = self._clock()
        if self.keys is not None:
            # Also true after the clock was set back.
            if not 0 <= now - self._fetched < REFRESH_AFTER:
                self._start(now)
            check = self.keys.checks.get((kid, algorithm))
            if check is not None:
                return check
            if self._has_own and kid is None:
                raise InvalidToken(
                    f"name the issuer's key ({self.setting}) in the token's header (kid)"
                )
            if self._has_own and kid in self.keys.kids:
                raise InvalidToken(
                    f"the key that the token's kid names is not for its algorithm ({self.setting})"
                )
        wait = self._wait(now)
        if self._task is not None or not wait:
            return None
        if not self._has_own:
            if self._first is not None:
                wait = min(max(self._again - now, FIRST_PAUSE), MOST_PAUSE)
            raise Unavailable(
                f"the issuer's keys could not be fetched ({self.setting}): try again",
                retry_after=wait,
            )
        raise InvalidToken(
            f"the token's kid names no key of the issuer ({self.setting})", retry_after=wait
        )

    async def fetch(self) -> None:
        """See ``KeySource.fetch``; all who wait at the same time wait for the same fetch."""
        self._start(self._clock())
        await self._fetch_done()

    def start(self) -> None:
        """See ``KeySource.start``."""
        if self._first is None and not self._closed:
            # An empty context: what is logged belongs to no request.
            create = asyncio.get_running_loop().create_task
            self._first = create(self._fetch_first(), context=Context())

    def missing(self) -> str | None:
        """See ``KeySource.missing``."""
        if self.keys is not None:
            return None
        return f"no keys yet from {self._address}: {self._why} ({self.setting})"

    async def aclose(self) -> None:
        """See ``KeySource.aclose``; keys already held can still be found."""
        self._closed = True
        tasks = [task for task in (self._first, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _wait(self, now: float) -> float:
        """Seconds until a token may have the next fetch started."""
        if self._closed:
            return FETCH_INTERVAL
        since = now - self._tried
        return FETCH_INTERVAL - since if 0 <= since < FETCH_INTERVAL else 0.0

    def _start(self, now: float, *, early: bool = False) -> None:
        if self._task is None and (early or not self._wait(now)):
            task = asyncio.get_running_loop().create_task(self._refresh(), context=Context())
            self._tried = now
            self._task = task
            task.add_done_callback(self._forget)

    async def _fetch_done(self) -> None:
        if self._task is not None:
            # wait() leaves the task alone when the one who waits is cancelled, and does not pass on
            # the task's own cancellation by aclose().
            await asyncio.wait([self._task])

    def _forget(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None

    async def _fetch_first(self) -> None:
        """Try until there are keys from here."""
        pause = FIRST_PAUSE
        while not self._has_own:
            self._start(self._clock(), early=True)
            await self._fetch_done()
            if not self._has_own:
                self._again = self._clock() + pause
                await asyncio.sleep(pause)
                pause = min(2 * pause, MOST_PAUSE)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                address, document = await self._read()
            keys = KeySet(document, self.algorithms)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the old keys stay in use
            late = f"not fetched in {FETCH_TIMEOUT:g} s"
            self._why = str(error) or (
                late if isinstance(error, TimeoutError) else type(error).__name__
            )
            self._log.warning(
                "an issuer's keys could not be fetched",
                setting=self.setting,
                address=self._address,
                error=type(error).__name__,
                reason=self._why,
                older="none" if self.keys is None else "stay in use",
            )
        else:
            self.keys = keys
            self._has_own = True
            self._fetched = self._clock()
            _log.info(
                "an issuer's keys were fetched",
                setting=self.setting,
                address=address,
                keys=keys.usable,
                kids=[kid[:MAX_KID] for kid in sorted(keys.kids)[:MOST_KIDS_TOLD]],
            )
