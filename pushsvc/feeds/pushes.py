"""Pushes to devices that are away, out of the mailbox: what is due, and what came of it.

What is pending of a mailbox stands beside its log, and the mailbox is on a work queue before that
is so. An outcome is written down first, then its receipt is given, where a second one is noticed,
and then the push is forgotten: whoever looks next goes on from where that broke off.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
import structlog

from pushsvc import metrics
from pushsvc.errors import PushError, checked
from pushsvc.feeds.feed import Appended, Feeds
from pushsvc.feeds.push_registrations import Held, PushRegistrations, held_of
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import UNKNOWN
from pushsvc.protocol.feeds import RECEIPTS, name_of
from pushsvc.protocol.names import named, stored
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.push import PushRegistration, PushText
from pushsvc.protocol.receipts import Status, body
from pushsvc.store import schema
from pushsvc.store.redis import Redis
from pushsvc.store.server_connection import Command

AGAIN: Final = 2.0
"""Seconds until the next look at a mailbox in which a push may just be about to appear."""
MOST_DUE: Final = 16
"""Most notifications of one look at a mailbox."""
RETRY: Final = 1.0
"""Seconds until the next look at a mailbox of which receipts could not be given."""
WEBHOOK_SECONDS: Final = 1.0
"""Seconds until receipts are sent on whose appending was not answered."""

State = Literal["sent", "failed", "retry"]

_text: Final = msgspec.json.Decoder(PushText).decode

log = structlog.get_logger("pushsvc.pushes")


class Push(NamedTuple):
    """One push to one device, which is due."""

    mailbox: str
    notification: int
    expires: int
    """When it leaves the mailbox, in milliseconds since the epoch."""
    text: PushText
    event: str
    collapse_key: str
    device: str
    registration: PushRegistration
    attempts: int
    """How many there were before."""
    due: int
    """Since when, in milliseconds since the epoch."""


class Due(NamedTuple):
    """What of a mailbox is due."""

    wait: float | None
    """Seconds until the next look, whatever comes of these; None if nothing else is pending."""
    pushes: list[Push]


class Done(NamedTuple):
    """What came of a push."""

    push: Push
    state: State
    detail: str = ""
    """Why, short; of a push that failed its receipt has it."""
    wait: float = 0.0
    """Of ``retry``: seconds until the next attempt."""
    remove: bool = False
    """The registration is good no more."""


class PushOutcome(NamedTuple):
    """What came of a push for one device."""

    state: State
    at: int
    """When, in milliseconds since the epoch; of ``retry`` when it is tried again."""
    provider: str
    attempts: int
    """Of ``retry``."""
    detail: str


class PushRecord(NamedTuple):
    """What is kept of the push of one notification, as long as that is."""

    text: PushText
    event: str
    collapse_key: str
    outcomes: Mapping[str, PushOutcome]
    """By device."""


class _Receipt(NamedTuple):
    """A receipt that is owed."""

    mailbox: str
    notification: int
    publisher: str
    device: str
    outcome: PushOutcome

    def append(self) -> Append:
        """The receipt as an entry of the publisher's feed."""
        status = self.status
        which = f"{self.mailbox} {self.notification} {status} {stored(self.device)}"
        digest = hashlib.sha256(which.encode()).hexdigest()[:32]
        reason = self.outcome.provider
        if status is Status.PUSH_FAILED and self.outcome.detail:
            reason = f"{reason}: {self.outcome.detail}"
        text = body(
            self.notification, name_of(self.mailbox), status, self.outcome.at, self.device, reason
        )
        return Append(RECEIPTS + self.publisher, text, once=digest)

    @property
    def status(self) -> Status:
        return Status.PUSHED if self.outcome.state == "sent" else Status.PUSH_FAILED


class Pushes:
    """The pushes of all mailboxes.

    A coroutine raises ``PushError`` where Redis cannot be reached or refuses.

    Args:
        feeds: for receipts.
        redis: any queue without a tail.
        work: the mailboxes in which pushes are pending.
        registrations: of the devices.
        webhooks: the receipts' feeds that are sent on; None if none are.
    """

    def __init__(
        self,
        feeds: Feeds,
        redis: Redis,
        work: WorkQueue,
        registrations: PushRegistrations,
        webhooks: WorkQueue | None = None,
    ) -> None:
        self._feeds = feeds
        self._redis = redis
        self.work: Final = work
        self.registrations: Final = registrations
        self._webhooks = webhooks

    async def foresee(self, appends: Iterable[Append]) -> None:
        """Foresee the pushes of notifications; to be called before they are appended."""
        looks: dict[str, float] = {}
        for append in appends:
            if append.push and append.ttl != 0:
                look = append.push_after
                looks[append.feed] = min(look, looks.get(append.feed, look))
        if looks:
            await self.work.enqueue(looks)

    async def due(self, mailboxes: Sequence[str]) -> list[Due | PushError]:
        """What of some mailboxes is due, to be sent by who holds their leases.

        What nobody needs any more is forgotten, receipts that are still owed are given, and void
        registrations are removed.
        """
        answers = await self._redis.submit([self._due(each) for each in mailboxes])
        found: list[tuple[list[Push], list[Held], list[_Receipt], float | None] | PushError] = [
            answer if isinstance(answer, PushError) else _found(mailbox, answer)
            for mailbox, answer in zip(mailboxes, answers, strict=True)
        ]
        held = {
            (each.mailbox, each.device): each
            for one in found
            if not isinstance(one, PushError)
            for each in one[1]
        }
        good = dict(zip(held, await self.registrations.good([*held.values()]), strict=True))
        for key, is_good in good.items():
            if not is_good:
                await self.registrations.drop(held[key])
        owed = [each for one in found if not isinstance(one, PushError) for each in one[2]]
        failed = await self._give(owed)
        told: list[Due | PushError] = []
        for mailbox, one in zip(mailboxes, found, strict=True):
            if isinstance(one, PushError):
                told.append(one)
                continue
            pushes, _, receipts, wait = one
            kept = [each for each in pushes if good[mailbox, each.device]]
            if mailbox in failed:
                wait = RETRY if wait is None else min(wait, RETRY)
            elif receipts or len(kept) < len(pushes):
                wait = 0.0
            told.append(Due(wait, kept))
        return told

    async def settle(self, done: Sequence[Done]) -> set[str]:
        """Write down what came of pushes, and do what follows from it.

        Repeating it does no harm, and what is broken off ``due`` goes on with.

        Returns:
            The mailboxes to look at again at once.
        """
        if not done:
            return set()
        by_push: dict[tuple[str, int], list[Done]] = {}
        for each in done:
            by_push.setdefault((each.push.mailbox, each.push.notification), []).append(each)
        answers = await self._redis.submit(
            [self._note(*push, outcomes) for push, outcomes in by_push.items()]
        )
        for each in done:
            if each.remove:
                push = each.push
                await self.registrations.remove(push.mailbox, push.device, push.registration.id)
        renewals = [
            command
            for each in done
            if each.state == "sent"
            for command in self.registrations.renewed(each.push.mailbox, each.push.registration)
        ]
        if renewals:
            await self._redis.submit(renewals)
        owed: list[_Receipt] = []
        for ((mailbox, notification), outcomes), answer in zip(
            by_push.items(), answers, strict=True
        ):
            now, publisher, *new = checked(answer)
            fresh = {named(each.decode()) for each in new}
            if publisher:
                owed += [
                    _Receipt(
                        mailbox, notification, publisher.decode(), each.push.device,
                        PushOutcome(
                            each.state, now, each.push.registration.provider, 0, each.detail
                        ),
                    )
                    for each in outcomes
                    if each.state != "retry" and each.push.device in fresh
                ]  # fmt: skip
        return await self._give(owed, by_push)

    async def record(self, mailbox: str, notification: int) -> PushRecord | None:
        """What is kept of the push of a notification; None where there is none."""
        key = self._redis.keys.push_record(mailbox, ids.render(notification))
        fields = schema.pairs(await self._redis.one("HGETALL", key))
        if schema.TEXT not in fields:
            return None
        return PushRecord(
            _text(fields[schema.TEXT]),
            fields.get(schema.EVENT, ""),
            fields.get(schema.KEY, ""),
            {
                named(name): _outcome(value)
                for name, value in fields.items()
                if not name.startswith(schema.OWN)
            },
        )

    async def pending(self, mailbox: str) -> list[tuple[int, int]]:
        """The notifications of a mailbox whose pushes are pending.

        Returns:
            Each with the next look at it, in milliseconds since the epoch.
        """
        key = self._redis.keys.pushes(mailbox)
        found = await self._redis.one("ZRANGE", key, 0, -1, "WITHSCORES")
        return [
            (ids.parse(found[i].decode()), int(float(found[i + 1])))
            for i in range(0, len(found), 2)
        ]

    # ---------------------------------------------------------------------------------------------

    def _keys(self, mailbox: str) -> tuple[str, ...]:
        keys = self._redis.keys
        return (
            keys.log(mailbox), keys.cursors(mailbox), keys.devices(mailbox), keys.pushes(mailbox),
        )  # fmt: skip

    def _due(self, mailbox: str) -> Command:
        return self._redis.script("push_due", self._keys(mailbox), MOST_DUE)

    def _note(self, mailbox: str, notification: int, outcomes: Sequence[Done]) -> Command:
        key = self._redis.keys.push_record(mailbox, ids.render(notification))
        args: list[str | int] = []
        for push, state, detail, wait, _ in outcomes:
            attempts = f"{push.attempts + 1} " if state == "retry" else ""
            text = f"{push.registration.provider} {attempts}{detail}".rstrip()
            args += [stored(push.device), state, round(wait * 1000), text]
        return self._redis.script("push_note", (key,), *args)

    async def _give(
        self, owed: Sequence[_Receipt], settled: Iterable[tuple[str, int]] = ()
    ) -> set[str]:
        """Give receipts, then let go of the pushes.

        Args:
            owed: the receipts.
            settled: further pushes, by mailbox and notification.

        Returns:
            The mailboxes for which that failed, or in which a push is due.
        """
        given: dict[tuple[str, int], list[str]] = {each: [] for each in settled}
        failed: set[str] = set()
        if owed:
            feeds = {RECEIPTS + each.publisher for each in owed}
            if self._webhooks is not None:
                await self._webhooks.enqueue(dict.fromkeys(feeds, WEBHOOK_SECONDS))
            results, confirmed = await self._feeds.append([each.append() for each in owed])
            for each, result, reached in zip(owed, results, confirmed, strict=True):
                devices = given.setdefault((each.mailbox, each.notification), [])
                if isinstance(result, Appended) and reached:
                    devices.append(stored(each.device))
                    if result.previous != UNKNOWN:
                        metrics.receipts.labels(each.status.value).inc()
                else:
                    failed.add(each.mailbox)
            if self._webhooks is not None:
                await self._webhooks.enqueue(dict.fromkeys(feeds, 0.0))
        if given:
            answers = await self._redis.submit(
                [
                    self._redis.script(
                        "push_settle", self._keys(mailbox), ids.render(notification), *devices
                    )
                    for (mailbox, notification), devices in given.items()
                ]
            )
            failed |= {
                mailbox
                for (mailbox, _), answer in zip(given, answers, strict=True)
                if isinstance(answer, PushError) or answer
            }
        return failed


def _found(
    mailbox: str, answer: Sequence[Any]
) -> tuple[list[Push], list[Held], list[_Receipt], float | None]:
    """What a look found: pushes, the registrations that they go to, receipts, the next look."""
    wait, *rows = answer
    pushes: list[Push] = []
    held: dict[str, Held] = {}
    owed: list[_Receipt] = []
    for entry_id, expires, since, text, publisher, event, key, receipts, *devices in rows:
        notification = ids.parse(entry_id)
        owed += [
            _Receipt(
                mailbox,
                notification,
                publisher.decode(),
                named(receipts[i].decode()),
                _outcome(receipts[i + 1].decode()),
            )
            for i in range(0, len(receipts), 2)
        ]
        for i in range(0, len(devices), 3):
            to = held_of(mailbox, devices[i], devices[i + 1])
            held[to.device] = to
            before = _outcome(devices[i + 2].decode()) if devices[i + 2] else None
            pushes.append(
                Push(
                    mailbox, notification, expires, _text(text), event.decode(), key.decode(),
                    to.device, to.registration, before.attempts if before else 0, since,
                )
            )  # fmt: skip
    return pushes, [*held.values()], owed, None if wait == b"" else wait / 1000


def _outcome(text: str) -> PushOutcome:
    """An outcome as a push record has it."""
    state, at, provider, *more = text.split(" ", 3)
    rest = more[0] if more else ""
    attempts = 0
    if state == "retry":
        number, _, rest = rest.partition(" ")
        attempts = int(number)
    return PushOutcome(state, int(at), provider, attempts, rest)  # type: ignore[arg-type]
