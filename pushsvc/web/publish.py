"""The publish API: ``POST /v1/notifications`` and ``POST /v1/notifications/batch``."""

import hashlib
import re
import time
from collections import OrderedDict
from typing import Any, ClassVar, Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, Verifier
from pushsvc.errors import Forbidden, InvalidRequest, PushError, RateLimited
from pushsvc.feeds.feed import Append, Feeds
from pushsvc.feeds.keys import mailbox
from pushsvc.feeds.publisher import Publisher, Receipt
from pushsvc.protocol import ids, messages
from pushsvc.protocol.limits import Rate, spend
from pushsvc.web.base import BodyHandler

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
MAX_BATCH: Final = 1000
"""Most notifications in one batch, each user of a list counted."""
MAX_PUBLISHERS: Final = 10_000
"""Most publishers whose rate is remembered; the least recent is forgotten first."""

_quoted = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"').fullmatch
_bare = re.compile(r"[!#-\[\]-~]+").fullmatch


class PublishRates:
    """How fast each publisher may send requests; a rate of 0 does not limit."""

    def __init__(self, per_second: float) -> None:
        self._rate = Rate(per_second, max(1.0, 2 * per_second)) if per_second > 0 else None
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def spend(self, publisher: str, now: float) -> None:
        """Account for one request.

        Raises:
            RateLimited: the publisher is over its rate.
        """
        if self._rate is None:
            return
        full_at = self._full_at.pop(publisher, 0.0)
        self._full_at[publisher], wait = spend(full_at, now, 1, self._rate)
        if len(self._full_at) > MAX_PUBLISHERS:
            self._full_at.popitem(last=False)
        if wait:
            raise RateLimited(
                f"over {self._rate.per_second:g} requests a second: wait, or use the batch address",
                retry_after=wait,
            )


class PublishHandler(BodyHandler):
    """Publishes one notification, to one user or to many."""

    route: ClassVar[str] = "publish"
    allow: ClassVar[str] = "POST"

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self,
        *,
        publisher: Publisher,
        feeds: Feeds,
        rates: PublishRates,
        max_message: int,
        verifier: Verifier,
        max_body: int,
        timeout: float,
    ) -> None:
        """Take what the application passes."""
        super().initialize(verifier, max_body, timeout)
        self._publisher = publisher
        self._feeds = feeds
        self._rates = rates
        self._max_message = max_message

    async def admit(self) -> None:
        """Refuse, by raising an error, what the headers alone condemn."""
        await super().admit()
        if SCOPE_PUBLISH not in self.claims.scopes:
            raise Forbidden(f"publishing needs a token with the scope {SCOPE_PUBLISH}")
        self._rates.spend(self.claims.user, time.monotonic())

    async def post(self) -> None:
        """Publish."""
        body = self.body()
        self.media_type(JSON)
        once = self._once()
        note = _Item(messages.decode(body), self._max_message, once)
        await self._claim(once, body)
        (result,) = await self._publish([note])
        if isinstance(result, PushError):
            raise result
        self.write_json(202, result)

    def _once(self) -> "Once | None":
        """What stands for the request's idempotency key, if it has one."""
        header = self.request.headers.get("Idempotency-Key")
        return None if header is None else Once(self.claims.user, idempotency_key(header))

    async def _claim(self, once: "Once | None", body: bytes) -> None:
        """Bind an idempotency key to a body that turned out to be a good request."""
        if once is not None:
            await self._feeds.claim(once.digest, hashlib.sha256(body).hexdigest())

    async def _publish(self, items: list["_Item"]) -> list[dict[str, Any] | PushError]:
        """Publish the good ones of some notifications; an answer for each, in order."""
        appends = [append for item in items for append in item.appends]
        receipts = await self._publisher.publish(appends) if appends else []
        answers: list[dict[str, Any] | PushError] = []
        first = 0
        for item in items:
            last = first + len(item.appends)
            answers.append(item.answer(receipts[first:last]))
            first = last
        return answers


class BatchHandler(PublishHandler):
    """Publishes many notifications; each succeeds or fails by itself."""

    route: ClassVar[str] = "publish_batch"

    async def post(self) -> None:
        """Publish."""
        body = self.body()
        if self.media_type(JSON, NDJSON) == JSON:
            values = _notifications(messages.decode(body))
        else:
            values = [_parsed(line) for line in body.split(b"\n") if line.strip()]
        if not 1 <= len(values) <= MAX_BATCH:
            raise InvalidRequest(
                f"a batch has 1 to {MAX_BATCH} notifications, not {len(values)}: split it"
            )
        once = self._once()
        items = [_Item(value, self._max_message, once, i) for i, value in enumerate(values)]
        total = sum(len(item.appends) for item in items)
        if total > MAX_BATCH:
            raise InvalidRequest(
                f"a batch reaches at most {MAX_BATCH} users, each counted as often as it is named, "
                f"not {total}: split it"
            )
        await self._claim(once, body)
        results = await self._publish(items)
        self.write_json(
            202,
            {"results": [r.problem() if isinstance(r, PushError) else r for r in results]},
        )


class Once:
    """A publisher's idempotency key; publishers cannot use each other's."""

    def __init__(self, publisher: str, key: str) -> None:
        self.digest = hashlib.sha256(f"{publisher}\0{key}".encode()).hexdigest()[:32]

    def of(self, index: int | None) -> str:
        """The digest for one item of the request, or for a request of one."""
        return self.digest if index is None else f"{self.digest}.{index}"


class _Item:
    """One notification of a request: what to append, or why not."""

    def __init__(
        self, value: Any, max_message: int, once: Once | None, index: int | None = None
    ) -> None:
        self.appends: list[Append] = []
        self._error: PushError | None = None
        self._many = False
        try:
            if isinstance(value, PushError):
                raise value
            note, body = messages.notification_from(value, max_message)
            users = note.users()
        except PushError as error:
            if index is None:
                raise
            self._error = error
            return
        self._many = note.to.users is not None
        digest = None if once is None else once.of(index)
        self.appends = [Append(mailbox(user), body, note.ttl, digest) for user in users]

    def answer(self, receipts: list[Receipt | PushError]) -> dict[str, Any] | PushError:
        if self._error is not None:
            return self._error
        if not self._many:
            (receipt,) = receipts
            return receipt if isinstance(receipt, PushError) else _told(receipt)
        return {
            "results": [r.problem() if isinstance(r, PushError) else _told(r) for r in receipts]
        }


def _told(receipt: Receipt) -> dict[str, Any]:
    return {
        "id": ids.render(receipt.id),
        "durability": receipt.durability.value,
        "connections": receipt.connections,
    }


def _notifications(value: Any) -> list[Any]:
    if isinstance(value, dict) and list(value) == ["notifications"]:
        notes = value["notifications"]
        if isinstance(notes, list):
            return notes
    raise InvalidRequest(
        'a batch is {"notifications": [...]}, or one notification a line as NDJSON'
    )


def _parsed(line: bytes) -> Any:
    try:
        return messages.decode(line)
    except PushError as error:
        return error


def idempotency_key(header: str) -> str:
    """The key in an Idempotency-Key header: a quoted string (RFC 9651), or a bare word.

    Raises:
        InvalidRequest: it is neither, is empty, or has more than 255 characters.
    """
    text = header.strip()
    quoted = _quoted(text)
    key = quoted[1] if quoted else text if _bare(text) else ""
    if not 1 <= len(key) <= 255:
        raise InvalidRequest(
            'Idempotency-Key is a quoted string of 1 to 255 printable characters, such as "7f3a-1"'
        )
    return key
