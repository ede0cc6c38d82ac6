"""The publish API: ``POST /v1/notifications`` and ``POST /v1/notifications/batch``.

A backend, whose token has the scope, reaches everyone. A client reaches the topics that its token
names, as on a socket.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, TokenCheck
from pushsvc.errors import Forbidden, InvalidRequest, PushError
from pushsvc.feeds.feed import Feeds
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.node.spans import Publishing, Spans
from pushsvc.protocol import cloudevents, encoding, notifications, tracecontext
from pushsvc.protocol.feeds import TOPIC, name_of
from pushsvc.protocol.notifications import MAX_BATCH, Append
from pushsvc.web.base import lacking
from pushsvc.web.cors import CrossOriginBodyHandler
from pushsvc.web.rates import RequestRates

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
MAX_LINES: Final = 2 * MAX_BATCH
"""Most lines of a batch, of which some may be blank."""

ESCAPED: Final = 2
"""How many times as large as its message a client's body may be; \\u0436 is two bytes of it."""
MAX_KEY: Final = 255
"""Characters of an idempotency key."""

_quoted = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"').fullmatch
_bare = re.compile(r"[!#-\[\]-~]+").fullmatch


class PublishHandler(CrossOriginBodyHandler):
    """Publishes one notification."""

    route: ClassVar[str] = "publish"
    allow: ClassVar[str] = "POST, OPTIONS"

    def initialize(  # type: ignore[override]  # Tornado passes what the application names
        self,
        *,
        publisher: Publisher,
        store: Feeds,
        rates: RequestRates,
        client_rates: RequestRates,
        client_bytes: RequestRates,
        max_message: int,
        verifier: TokenCheck,
        max_body: int,
        timeout: float,
        spans: Spans | None = None,
    ) -> None:
        super().initialize(verifier, max_body, timeout)
        self._publisher = publisher
        self._feeds = store
        self._rates = rates
        self._client_rates = client_rates
        self._client_bytes = client_bytes
        self._max_message = max_message
        self._spans = spans
        self._traceparent = ""
        self._publishing: dict[str, Publishing] = {}

    async def admit(self) -> None:
        """Refuse, by raising an error, what the headers alone condemn."""
        await super().admit()
        if self.request.method == "OPTIONS":
            return
        claims = self.claims
        now = time.monotonic()
        if SCOPE_PUBLISH in claims.scopes:
            self._rates.spend(claims.caller, now)
        elif claims.grants.publish:
            self._client_rates.spend(claims.caller, now)
            self._client_bytes.spend(claims.caller, now, self._length() or 0)
        else:
            needed = (
                f"publishing needs a token with the scope {SCOPE_PUBLISH}, or with topics.publish "
                f"({claims.grants.why_not('publish')})"
            )
            raise lacking(needed, self.request, self._verifier)

    def most(self) -> int:
        """A client may send a message as large as on a socket, with escapes in its JSON."""
        if SCOPE_PUBLISH in self.claims.scopes:
            return super().most()
        return min(super().most(), ESCAPED * self._max_message)

    async def post(self) -> None:
        body = self.body()
        headers = {name.lower(): value for name, value in self.request.headers.items()}
        self._traceparent = tracecontext.read(headers.get(tracecontext.FIELD))
        mode = cloudevents.kind(headers.get("content-type", ""), headers)
        try:
            if mode is None:
                await self.publish(body)
                return
            if "idempotency-key" in headers:
                raise InvalidRequest(
                    "an event is known by its source and id: send no Idempotency-Key beside them"
                )
            await self._post_events(cloudevents.read(mode, headers, body), mode)
        except PushError as error:
            for publishing in self._publishing.values():
                publishing.failed(error.code)
            raise
        finally:
            for publishing in self._publishing.values():
                publishing.end()

    async def publish(self, body: bytes) -> None:
        """Publish what is no CloudEvent."""
        self.media_type(JSON)
        once = self._once()
        digest = None if once is None else once.of(None)
        item = self._item(encoding.decode(body), digest, alone=True)
        await self._admit([item])
        await self._claim(once, body, [item])
        (result,) = await self._publish([item])
        if isinstance(result, PushError):
            raise result
        self.write_json(202, result)

    async def _post_events(
        self, events: Sequence[cloudevents.Publish], mode: cloudevents.Mode
    ) -> None:
        """Publish CloudEvents; one that comes again is known by its source and id.

        An event bus looks at the status only: if one event fails, the request does, and may be
        repeated as it is.
        """
        self._count(len(events))
        items = [
            self._item(
                event.notification,
                Once(self.claims.caller, event.key).of(None),
                event.traceparent,
                alone=False,
            )
            for event in events
        ]
        for index, item in enumerate(items):
            if item.error is not None:
                if mode is cloudevents.Mode.BATCH:
                    item.error.detail = f"event {index} of the batch: {item.error.detail}"
                raise item.error
        _check_size(items)
        await self._admit(items)
        results = await self._publish(items)
        for result in results:
            if isinstance(result, PushError):
                raise result
        if mode is cloudevents.Mode.BATCH:
            self._answer_many(results)
        else:
            self.write_json(202, results[0])

    def _answer_many(self, results: Sequence[dict[str, Any] | PushError]) -> None:
        told = [r.problem() if isinstance(r, PushError) else r for r in results]
        self.write_json(202, {"results": told})

    def _item(
        self, value: Any, digest: str | None, traceparent: str = "", *, alone: bool
    ) -> "_Item":
        """One notification of a request, checked.

        Args:
            value: the parsed JSON, or the line that it is to be parsed from.
            digest: what stands for its idempotency key.
            traceparent: its own trace context; without one it has the request's.
            alone: whether it is the only one, whose error is that of the request.
        """
        item = _Item()
        try:
            if isinstance(value, bytes):
                value = encoding.decode(value)
            traceparent = traceparent or self._traceparent
            if self._spans is not None and tracecontext.is_sampled(traceparent):
                item.publishing = self._begun(self._spans, traceparent)
                traceparent = item.publishing.traceparent
            item.appends = self._appends(value, digest, traceparent)
            item.many = value["to"].get("users") is not None
        except PushError as error:
            if alone:
                raise
            item.error = error.bare()
            if item.publishing is not None:
                item.publishing.failed(error.code)
        return item

    def _appends(self, value: Any, digest: str | None, traceparent: str) -> list[Append]:
        """What a notification asks for.

        Raises:
            InvalidRequest: it has not the documented shape.
            Forbidden: it is for whom the token does not cover.
            PayloadTooLarge: the message for the clients would be over the limit.
        """
        claims = self.claims
        client = SCOPE_PUBLISH not in claims.scopes
        appends = notifications.appends_from(
            value,
            self._max_message,
            by=claims.user,
            namespace=claims.namespace,
            client=client,
            once=digest,
            traceparent=traceparent,
        )
        if client:
            feed = appends[0].feed
            if not (feed.startswith(TOPIC) and claims.grants.may_publish(name_of(feed))):
                raise Forbidden(
                    f"a token without the scope {SCOPE_PUBLISH} publishes to the topics that its "
                    f"topics.publish covers: {claims.grants.why_not('publish')}"
                )
        return appends

    def _begun(self, spans: Spans, traceparent: str) -> Publishing:
        """The span of what the request publishes into a trace: one, however much that is."""
        publishing = self._publishing.get(traceparent)
        if publishing is None:
            publishing = self._publishing[traceparent] = spans.publish(traceparent)
        return publishing

    def _once(self) -> "Once | None":
        """What stands for the request's idempotency key, if it has one."""
        header = self.request.headers.get("Idempotency-Key")
        return None if header is None else Once(self.claims.caller, idempotency_key(header))

    async def _claim(self, once: "Once | None", body: bytes, items: Sequence["_Item"]) -> None:
        """Bind an idempotency key to a body that turned out to be a good request.

        What stores nothing can be repeated as it is.
        """
        appends = [append for item in items for append in item.appends]
        if once is None or all(append.ephemeral for append in appends):
            return
        try:
            await self._publisher.claim(once.digest, hashlib.sha256(body).hexdigest(), appends)
        except PushError:
            self._publisher.abandon(appends, self.claims.user)
            raise

    def _count(self, notifications: int) -> None:
        """Account for what a batch of a client has: its rate is one of messages, good or bad."""
        more = notifications - 1  # the request itself was accounted for
        if SCOPE_PUBLISH not in self.claims.scopes and more > 0:
            self._client_rates.spend(self.claims.caller, time.monotonic(), more)

    async def _admit(self, items: Sequence["_Item"]) -> None:
        """Account for what a client is about to publish, before anything is kept of it.

        Raises:
            QuotaExceeded: these are more bytes than it may store.
        """
        if SCOPE_PUBLISH not in self.claims.scopes:
            appends = [append for item in items for append in item.appends]
            await self._publisher.admit(appends, self.claims.user)

    async def _publish(self, items: list["_Item"]) -> list[dict[str, Any] | PushError]:
        """Publish the good ones of some notifications; an answer for each, in order."""
        appends = [append for item in items for append in item.appends]
        outcomes = iter(await self._publisher.publish(appends, self.claims.user))
        return [item.answer([next(outcomes) for _ in item.appends]) for item in items]


class BatchHandler(PublishHandler):
    """Publishes many notifications; each succeeds or fails by itself."""

    route: ClassVar[str] = "publish_batch"

    async def publish(self, body: bytes) -> None:
        """Publish what are no CloudEvents."""
        values = _notifications(body) if self.media_type(JSON, NDJSON) == JSON else _lines(body)
        if not 1 <= len(values) <= MAX_BATCH:
            raise InvalidRequest(f"a batch has 1 to {MAX_BATCH} notifications: split it")
        self._count(len(values))
        once = self._once()
        items = [
            self._item(value, None if once is None else once.of(i), alone=False)
            for i, value in enumerate(values)
        ]
        _check_size(items)
        await self._admit(items)
        await self._claim(once, body, items)
        self._answer_many(await self._publish(items))


def _check_size(items: Sequence["_Item"]) -> None:
    total = sum(len(item.appends) for item in items)
    if total > MAX_BATCH:
        raise InvalidRequest(
            f"a batch reaches at most {MAX_BATCH} users, each counted as often as it is named, "
            f"not {total}: split it"
        )


class Once:
    """A publisher's idempotency key; publishers cannot use each other's.

    Args:
        publisher: among those of all namespaces.
        key: of a request.
    """

    def __init__(self, publisher: str, key: str) -> None:
        self.digest = hashlib.sha256(f"{publisher}\0{key}".encode()).hexdigest()[:32]

    def of(self, index: int | None) -> str:
        """The digest for one item of the request, or for a request of one."""
        return self.digest if index is None else f"{self.digest}.{index}"


@dataclass(slots=True)
class _Item:
    """One notification of a request, until it is answered."""

    appends: list[Append] = field(default_factory=list)
    error: PushError | None = None
    publishing: Publishing | None = None
    many: bool = False
    """Whether it names a list of users, each of whom has an answer."""

    def answer(self, outcomes: Sequence[Published | PushError]) -> dict[str, Any] | PushError:
        """The JSON of its answer, or the problem."""
        if self.error is not None:
            return self.error
        if self.publishing is not None:
            self._trace(self.publishing, outcomes)
        if not self.many:
            (outcome,) = outcomes
            return outcome if isinstance(outcome, PushError) else outcome.to_json()
        return {
            "results": [
                each.problem() if isinstance(each, PushError) else each.to_json()
                for each in outcomes
            ]
        }

    def _trace(self, publishing: Publishing, outcomes: Sequence[Published | PushError]) -> None:
        for append, outcome in zip(self.appends, outcomes, strict=True):
            if isinstance(outcome, PushError):
                publishing.failed(outcome.code)
            else:
                publishing.accepted(append.feed, outcome.id)


def _notifications(body: bytes) -> list[Any]:
    """The notifications of a batch in JSON, or the first of too many."""
    found = encoding.decode_items(body, "notifications", MAX_BATCH)
    if found is None:
        raise InvalidRequest(
            'a batch is {"notifications": [...]}, or one notification a line as NDJSON'
        )
    return found


def _lines(body: bytes) -> list[bytes]:
    """The lines of a batch, not parsed yet, but for the blank ones."""
    lines = body.split(b"\n", MAX_LINES)
    if len(lines) > MAX_LINES:
        raise InvalidRequest(f"a batch has at most {MAX_LINES} lines, blank or not: split it")
    return [line for line in lines if line and not line.isspace()]


def idempotency_key(header: str) -> str:
    """The key in an Idempotency-Key header: a quoted string (RFC 9651), or a bare word.

    Raises:
        InvalidRequest: it is neither, is empty, or has more than 255 characters.
    """
    text = header.strip()
    quoted = _quoted(text) if len(text) <= MAX_KEY + 2 else None
    key = quoted[1] if quoted else text if len(text) <= MAX_KEY and _bare(text) else ""
    if not 1 <= len(key) <= MAX_KEY:
        raise InvalidRequest(
            f"Idempotency-Key is a quoted string of 1 to {MAX_KEY} printable characters, such as "
            '"7f3a-1"'
        )
    return key
