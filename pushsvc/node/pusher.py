"""Sends what is due to devices that are away: any node does, each mailbox one at a time.

A node that dies leaves its mailboxes to the others once its leases end. A push whose outcome it had
not written down yet is sent again: at least once. An attempt begins only while the lease lasts
until its end, and right after the look at the mailbox, so that none goes to a device that has
acknowledged the notification meanwhile.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import structlog

from pushsvc import metrics
from pushsvc.errors import PushError
from pushsvc.feeds.event_log import PUSHED, EventLog
from pushsvc.feeds.pushes import Done, Due, Push, Pushes
from pushsvc.feeds.work_queue import Lease
from pushsvc.logs import SampledLog
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import name_of, namespace_of
from pushsvc.protocol.push import ATTEMPT_SECONDS
from pushsvc.protocol.push_capability import seal
from pushsvc.push.breaker import Breakers
from pushsvc.push.provider import Outcome, Provider, PushMessage, Verdict

POLL: Final = 0.5
"""Seconds between two looks at what is due."""
LOOKS: Final = 64
"""Mailboxes that are looked at together."""
IN_FLIGHT: Final = 64
"""Most attempts of a provider at the same time."""
LEASE: Final = 10.0
"""Seconds that the lease of a mailbox lasts."""
MARGIN: Final = 2.0
"""Seconds of a lease that are kept for writing down what came of an attempt."""
FRESH: Final = 0.8
"""Seconds after a look within which its attempts begin."""
CROWDED: Final = 0.1
"""Seconds until the next look at a mailbox whose provider had no room."""
RETRY: Final = 1.0
"""Seconds until the next look at a mailbox where Redis did not answer."""
LONGEST: Final = 600.0
"""Seconds of the longest pause between two attempts."""
STOPPED: Final = 10.0
"""Seconds, about, until the next look at a push whose provider an operator stopped."""
PROBE: Final = 60.0
"""Seconds between two attempts at a provider that refuses the credentials."""
SETTINGS: Final = {
    "web": "PUSHSVC_PUSH_VAPID_KEY_FILE",
    "apns": "PUSHSVC_PUSH_APNS_KEY_FILE, PUSHSVC_PUSH_APNS_KEY_ID, PUSHSVC_PUSH_APNS_TEAM_ID",
    "fcm": "PUSHSVC_PUSH_FCM_CREDENTIALS_FILE",
}
"""What the credentials of a provider are set with."""
REASONS: Final = ("credentials", "switch", "breaker")

log = structlog.get_logger("pushsvc.pusher")
sampled = SampledLog(log)


class TokenCheck(Protocol):
    """What knows of revoked tokens."""

    async def is_revoked(self, namespace: str, user: str, token_key: int, issued: int) -> bool:
        """Whether a token is revoked."""


class Unread(Protocol):
    """What counts unread notifications."""

    async def count(self, feed: str) -> int:
        """How many of a mailbox are unread."""


class _Looked(NamedTuple):
    """A mailbox whose pushes are under way."""

    lease: Lease
    due: Due
    seen: float
    """When it was looked at, by the clock."""
    until: float
    """When attempts may begin at the latest, by the clock."""


class _Refused(NamedTuple):
    """Why a provider is not asked."""

    detail: str
    since: float
    probe: float
    """When the next attempt may be made, by the clock."""


class Pusher:
    """Sends what is due.

    Args:
        providers: the ways to devices, by name; not empty.
        pushes: what is due.
        unread: for badges.
        tokens: says which registrations are void.
        event_log: for traces.
        redis_time: now by Redis time, in Unix seconds.
        ids_only: whether providers are given no texts.
        clock: seconds of a clock that only goes on.
        chance: a random number from 0 to 1.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        pushes: Pushes,
        unread: Unread,
        tokens: TokenCheck,
        event_log: EventLog,
        redis_time: Callable[[], float],
        *,
        ids_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._providers = providers
        self._pushes = pushes
        self._unread = unread
        self._tokens = tokens
        self._event_log = event_log
        self._redis_time = redis_time
        self._ids_only = ids_only
        self._clock = clock
        self._chance = chance
        self._secret: bytes | None = None
        self._breakers = Breakers()
        self._refused: dict[str, _Refused] = {}
        self._switched: frozenset[str] = frozenset()
        self._in_flight: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self._outcomes: list[tuple[Done, asyncio.Future[float | None]]] = []
        self._given_back: list[tuple[Lease, float | None]] = []
        self._settling: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup
        self._running: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to look."""
        for name in self._providers:
            metrics.pushes_in_flight.labels(name).set(0)
            for outcome in metrics.PUSH_OUTCOMES:
                metrics.pushes.labels(name, outcome)
        self._tell_stopped()
        self._tasks = tasks
        self._running = tasks.create_task(self._run(), name="pusher")

    async def aclose(self) -> None:
        """Stop, once the attempts under way have ended and what came of them is written down."""
        self._closing.set()
        if self._running is not None:
            await asyncio.wait([self._running])
        while self._looks or self._settling is not None:
            await asyncio.wait([*self._looks, *([self._settling] if self._settling else [])])

    def stopped(self) -> dict[str, dict[str, str]]:
        """Why providers are stopped on this node: provider to reason to what is known of it."""
        found: dict[str, dict[str, str]] = {}
        for name in self._providers:
            reasons: dict[str, str] = {}
            if name in self._refused:
                reasons["credentials"] = self._refused[name].detail
            if name in self._switched:
                reasons["switch"] = ""
            if hosts := self._breakers.open(name):
                reasons["breaker"] = ", ".join(hosts[:8])
            found[name] = reasons
        return found

    # ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        failing = False
        while not self._closing.is_set():
            more = False
            try:
                more = await self.turn()
            except PushError as error:
                if not failing:
                    log.warning("pushes cannot be sent", error=error.detail)
                failing = True
            else:
                if failing:
                    log.info("pushes are sent again")
                failing = False
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._closing.wait()

    async def turn(self) -> bool:
        """Take mailboxes that are due, as many as there is room for; whether there may be more.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        room = len(self._providers) * IN_FLIGHT - self._in_flight.total()
        most = min(LOOKS, room - len(self._looks))
        if most <= 0:
            # Something ends soon, or is cut off.
            await asyncio.wait(self._looks, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
            return True
        taken = self._clock()
        leases = await self._pushes.work.lease(most)
        if not leases:
            return False
        try:
            # Each time: whoever deletes it, or empties Redis, has another one made.
            self._secret = await self._pushes.registrations.secret()
            self._switched = await self._pushes.registrations.stopped()
            seen = self._clock()
            found = await self._pushes.due([lease.feed for lease in leases])
        except PushError:
            with contextlib.suppress(PushError):
                await self._pushes.work.release((lease, RETRY) for lease in leases)
            raise
        self._tell_stopped()
        until = min(seen + FRESH, taken + LEASE - ATTEMPT_SECONDS - MARGIN)
        for lease, due in zip(leases, found, strict=True):
            if isinstance(due, PushError):
                sampled.warning(
                    "the pushes of a mailbox cannot be looked at, and are tried again",
                    feed=lease.feed, error=due.detail,
                )  # fmt: skip
                self._give_back(lease, RETRY)
            elif not due.pushes:
                self._give_back(lease, due.wait)
            else:
                look = self._look(_Looked(lease, due, seen, until))
                task = self._tasks.create_task(look, name="pushes of a mailbox")
                self._looks.add(task)
                task.add_done_callback(self._looks.discard)
        return len(leases) == most

    async def _look(self, looked: _Looked) -> None:
        """Send what is due in one mailbox."""
        wait = looked.due.wait
        try:
            pushes, voided = await self._good(looked.due.pushes)
            if voided:
                wait = 0.0
            badge: int | None = None
            if any(each.text.badge == "unread" for each in pushes):
                badge = await self._unread.count(looked.lease.feed)
        except PushError as error:
            sampled.warning(
                "the pushes of a mailbox cannot be sent, and are tried again",
                feed=looked.lease.feed, error=error.detail,
            )  # fmt: skip
            wait = _sooner(wait, RETRY)
        else:
            looks = await asyncio.gather(
                *[self._push(each, looked.until, badge) for each in pushes]
            )
            for each in looks:
                wait = _sooner(wait, each)
        self._give_back(looked.lease, wait)

    async def _good(self, pushes: Sequence[Push]) -> tuple[list[Push], bool]:
        """Those whose registrations count, and whether others were removed."""
        good: list[Push] = []
        void: dict[str, str] = {}
        known: dict[str, bool] = {}
        for push in pushes:
            registration, feed = push.registration, push.mailbox
            if push.device not in known:
                known[push.device] = await self._tokens.is_revoked(
                    namespace_of(feed), name_of(feed), registration.token_key, registration.issued
                )
            if known[push.device]:
                void[push.device] = registration.id
            else:
                good.append(push)
        for device, registration_id in void.items():
            await self._pushes.registrations.remove(pushes[0].mailbox, device, registration_id)
        for push in pushes:
            if push.device in void:
                metrics.pushes.labels(push.registration.provider, "cancelled").inc()
        return good, bool(void)

    async def _push(self, push: Push, until: float, unread: int | None) -> float | None:
        """Make an attempt and write down what came of it; the seconds until the next look."""
        tried = await self._try(push, until, unread)
        if not isinstance(tried, Done):
            return tried
        # At once: another device of the mailbox may let its attempt wait for long.
        written: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._outcomes.append((tried, written))
        self._settle_soon()
        return await written

    async def _try(self, push: Push, until: float, unread: int | None) -> Done | float:
        """Make an attempt; what came of it, or the seconds until the next look."""
        name = push.registration.provider
        provider = self._providers.get(name)
        if provider is None:
            return self._held(push, "not configured here", STOPPED)
        if name in self._switched:
            return self._held(push, "stopped", STOPPED)
        now = self._clock()
        if now > until:
            return 0.0
        refused = self._refused.get(name)
        if refused is not None and now < refused.probe:
            return self._held(push, "credentials", refused.probe - now)
        if self._in_flight[name] >= IN_FLIGHT:
            return CROWDED
        breaker = self._breakers.of(name, host_of(push))
        if held := breaker.wait(now):
            return self._held(push, "the push service is left alone", held)
        if refused is not None:
            self._refused[name] = refused._replace(probe=now + PROBE)
        message = self._message(push, unread)
        metrics.push_late.observe(max(0.0, self._redis_time() - push.due / 1000))
        self._count(name, 1)
        try:
            verdict = await self._attempt(provider, push, message)
            if verdict.outcome is Outcome.TOO_LARGE and message.text is not None:
                if self._clock() > until:
                    verdict = Verdict(Outcome.RETRY, verdict.detail)
                else:
                    verdict = await self._attempt(provider, push, message.ids_only())
        finally:
            self._count(name, -1)
        breaker.done(self._clock(), failed=verdict.outcome is Outcome.RETRY)
        self._credentials(name, verdict)
        return self._done(push, verdict)

    async def _attempt(self, provider: Provider, push: Push, message: PushMessage) -> Verdict:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                verdict = await provider.send(push.registration, message)
        except TimeoutError:
            verdict = Verdict(Outcome.RETRY, "no answer in time")
        except Exception as error:
            # Whatever a client library meets in a broken answer, the node must live on.
            log.exception("an attempt failed in an unforeseen way")
            verdict = Verdict(Outcome.RETRY, type(error).__name__)
        metrics.push_seconds.labels(provider.name).observe(time.perf_counter() - started)
        metrics.pushes.labels(provider.name, verdict.outcome.value).inc()
        if verdict.outcome is not Outcome.SENT:
            sampled.warning(
                "a push was not accepted",
                provider=provider.name, host=host_of(push), outcome=verdict.outcome.value,
                detail=verdict.detail,
            )  # fmt: skip
        if self._event_log.takes(push.notification):
            told = f"{provider.name} {verdict.outcome.value} {verdict.detail}".rstrip()
            self._event_log.add(
                (
                    self._redis_time(), PUSHED, push.mailbox, push.notification, push.device,
                    push.attempts + 1, told,
                )
            )  # fmt: skip
        return verdict

    def _message(self, push: Push, unread: int | None) -> PushMessage:
        """What the device is told."""
        text = push.text
        badge = unread if text.badge == "unread" else text.badge
        secret = self._secret
        return PushMessage(
            notification=ids.render(push.notification),
            capability=""
            if secret is None
            else seal(secret, push.mailbox, push.notification, push.device, push.expires),
            text=None if self._ids_only else text,
            badge=badge if isinstance(badge, int) else None,
            tag=push.collapse_key,
            group=push.event,
            ttl=max(0, int(push.expires / 1000 - self._redis_time())),
            urgency=text.urgency,
        )

    def _done(self, push: Push, verdict: Verdict) -> Done:
        """What follows from what a provider said."""
        detail = verdict.detail
        match verdict.outcome:
            case Outcome.SENT:
                return Done(push, "sent")
            case Outcome.GONE:
                return Done(push, "failed", f"gone: {detail}" if detail else "gone", remove=True)
            case Outcome.TOO_LARGE | Outcome.REFUSED:
                return Done(push, "failed", detail or verdict.outcome.value)
            case Outcome.CREDENTIALS:
                return self._later(push, "credentials", PROBE)
            case Outcome.RETRY:
                pause = min(2.0 ** min(push.attempts, 16) * (0.5 + self._chance()), LONGEST)
                return self._later(push, detail, max(verdict.retry_after, pause))

    def _later(self, push: Push, detail: str, wait: float) -> Done:
        if self._redis_time() + wait >= push.expires / 1000:
            metrics.pushes.labels(push.registration.provider, "expired").inc()
            return Done(push, "failed", f"expired: {detail}" if detail else "expired")
        return Done(push, "retry", detail, wait)

    def _held(self, push: Push, detail: str, wait: float) -> Done:
        """A push that waits without an attempt, which is not counted as one."""
        wait += wait * self._chance() / 2  # not all at once
        return self._later(push._replace(attempts=push.attempts - 1), detail, wait)

    def _credentials(self, name: str, verdict: Verdict) -> None:
        """Stop a provider that refuses the credentials; let it go on once it does not."""
        if verdict.outcome is Outcome.CREDENTIALS:
            now = self._clock()
            if name not in self._refused:
                log.error(
                    "a push provider refuses this server's credentials: its pushes wait; correct"
                    " these settings and restart",
                    provider=name, detail=verdict.detail, settings=SETTINGS.get(name, ""),
                )  # fmt: skip
                self._refused[name] = _Refused(verdict.detail, now, now + PROBE)
                self._tell_stopped()
        elif verdict.outcome is not Outcome.RETRY and name in self._refused:
            del self._refused[name]
            log.info("a push provider takes this server's credentials again", provider=name)
            self._tell_stopped()

    def _count(self, name: str, change: int) -> None:
        self._in_flight[name] += change
        metrics.pushes_in_flight.labels(name).set(self._in_flight[name])

    def _tell_stopped(self) -> None:
        for name, reasons in self.stopped().items():
            for reason in REASONS:
                metrics.push_provider_stopped.labels(name, reason).set(int(reason in reasons))

    # ---------------------------------------------------------------------------------------------

    def _give_back(self, lease: Lease, wait: float | None) -> None:
        """Have a mailbox given back, together with what else is."""
        self._given_back.append((lease, wait))
        self._settle_soon()

    def _settle_soon(self) -> None:
        if self._settling is None:
            self._settling = self._tasks.create_task(self._settle(), name="push outcomes")

    async def _settle(self) -> None:
        try:
            while self._outcomes or self._given_back:
                outcomes, self._outcomes = self._outcomes, []
                if outcomes:
                    waits = await self._write([done for done, _ in outcomes])
                    for (_, written), wait in zip(outcomes, waits, strict=True):
                        written.set_result(wait)
                given_back, self._given_back = self._given_back, []
                if given_back:
                    with contextlib.suppress(PushError):  # the leases end by themselves
                        await self._pushes.work.release(given_back)
        finally:
            self._settling = None

    async def _write(self, done: Sequence[Done]) -> list[float | None]:
        """Write down what came of pushes; for each the seconds until the next look."""
        try:
            at_once = await self._pushes.settle(done)
        except PushError:
            # It may be one mailbox only. What is written a second time changes nothing.
            return [await self._write_one(each) for each in done]
        return [
            0.0 if each.push.mailbox in at_once else each.wait if each.state == "retry" else None
            for each in done
        ]

    async def _write_one(self, done: Done) -> float | None:
        try:
            at_once = await self._pushes.settle([done])
        except PushError as error:
            # What was sent and could not be written down is sent again: at least once.
            sampled.warning(
                "the outcome of a push cannot be written: it may be sent again",
                feed=done.push.mailbox, error=error.detail,
            )  # fmt: skip
            return RETRY
        return 0.0 if at_once else done.wait if done.state == "retry" else None


def host_of(push: Push) -> str:
    """The push service that a push goes to; empty where the provider has one only."""
    registration = push.registration
    if registration.provider == "web":
        return urlsplit(registration.address).hostname or ""
    return "sandbox" if registration.sandbox else ""


def _sooner(wait: float | None, other: float | None) -> float | None:
    if wait is None or other is None:
        return other if wait is None else wait
    return min(wait, other)
