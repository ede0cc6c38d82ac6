"""The publish API: ``POST /v1/notifications`` and ``POST /v1/notifications/batch``.

A backend, whose token has the scope, reaches everyone. A client reaches the topics that its token
names, as on a socket.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, Claims, TokenCheck
from pushsvc.errors import Forbidden, InvalidRequest, PushError
from pushsvc.feeds.feed import Append, Feeds
from pushsvc.feeds.publisher import Publisher, Receipt
from pushsvc.node.spans import Publishing, Spans
from pushsvc.protocol import cloudevents, encoding, feeds, ids, notifications, tracecontext
from pushsvc.web.cors import CrossOriginBodyHandler
from pushsvc.web.rates import RequestRates

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
MAX_BATCH: Final = 1000
"""Most notifications in one batch, each user of a list counted."""

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
        max_message: int,
        verifier: TokenCheck,
        max_body: int,
        timeout: float,
        spans: Spans | None = None,
    ) -> None:
        """Take what the application passes."""
        super().initialize(verifier, max_body, timeout)
        self._publisher = publisher
        self._feeds = store
        self._rates = rates
        self._client_rates = client_rates
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
        if SCOPE_PUBLISH in claims.scopes:
            self._rates.spend(claims.user, time.monotonic())
        elif claims.grants.publish:
            self._client_rates.spend(claims.user, time.monotonic())
        else:
            raise Forbidden(
                f"publishing needs a token with the scope {SCOPE_PUBLISH}, or with topics.publish"
            )

    async def post(self) -> None:
        """Publish."""
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
        await self._claim(once, body)
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
        items = [
            self._item(
                event.notification,
                Once(self.claims.user, event.key).of(None),
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
            value: the parsed JSON, or why it could not be parsed.
            digest: what stands for its idempotency key.
            traceparent: its own trace context; without one it has the request's.
            alone: whether it is the only one, whose error is that of the request.
        """
        item = _Item()
        try:
            if isinstance(value, PushError):
                raise value
            traceparent = traceparent or self._traceparent
            if self._spans is not None and tracecontext.is_sampled(traceparent):
                item.publishing = self._begun(self._spans, traceparent)
                traceparent = item.publishing.traceparent
            item.fill(value, self.claims, self._max_message, digest, traceparent)
        except PushError as error:
            if alone:
                raise
            item.error = error
            if item.publishing is not None:
                item.publishing.failed(error.code)
        return item

    def _begun(self, spans: Spans, traceparent: str) -> Publishing:
        """The span of what the request publishes into a trace: one, however much that is."""
        publishing = self._publishing.get(traceparent)
        if publishing is None:
            publishing = self._publishing[traceparent] = spans.publish(traceparent)
        return publishing

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
        if SCOPE_PUBLISH not in self.claims.scopes:
            # The request itself was accounted for; a client's rate is one of messages.
            more = sum(len(item.appends) for item in items) - 1
            if more > 0:
                self._client_rates.spend(self.claims.user, time.monotonic(), more)
        appends = [append for item in items for append in item.appends if not append.ephemeral]
        receipts = iter(await self._publisher.publish(appends, self.claims.user) if appends else [])
        return [
            item.answer(
                [
                    await self._pass_on(append) if append.ephemeral else next(receipts)
                    for append in item.appends
                ]
            )
            for item in items
        ]

    async def _pass_on(self, append: Append) -> Receipt | PushError:
        try:
            return await self._publisher.pass_on(append.feed, append.body)
        except PushError as error:
            return error


class BatchHandler(PublishHandler):
    """Publishes many notifications; each succeeds or fails by itself."""

    route: ClassVar[str] = "publish_batch"

    async def publish(self, body: bytes) -> None:
        """Publish what are no CloudEvents."""
        if self.media_type(JSON, NDJSON) == JSON:
            values = _notifications(encoding.decode(body))
        else:
            values = [_parsed(line) for line in body.split(b"\n") if line.strip()]
        if not 1 <= len(values) <= MAX_BATCH:
            raise InvalidRequest(
                f"a batch has 1 to {MAX_BATCH} notifications, not {len(values)}: split it"
            )
        once = self._once()
        items = [
            self._item(value, None if once is None else once.of(i), alone=False)
            for i, value in enumerate(values)
        ]
        _check_size(items)
        await self._claim(once, body)
        self._answer_many(await self._publish(items))


def _check_size(items: Sequence["_Item"]) -> None:
    total = sum(len(item.appends) for item in items)
    if total > MAX_BATCH:
        raise InvalidRequest(
            f"a batch reaches at most {MAX_BATCH} users, each counted as often as it is named, "
            f"not {total}: split it"
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

    def __init__(self) -> None:
        self.appends: list[Append] = []
        self.error: PushError | None = None
        self.publishing: Publishing | None = None
        self._many = False

    def fill(
        self, value: Any, claims: Claims, max_message: int, digest: str | None, traceparent: str
    ) -> None:
        """Take what a notification asks for.

        Raises:
            InvalidRequest: it has not the documented shape.
            Forbidden: it is for whom the token does not cover.
            PayloadTooLarge: the message for the clients would be over the limit.
        """
        backend = SCOPE_PUBLISH in claims.scopes
        sender = "" if backend else claims.user
        note, body = notifications.notification_from(value, max_message, sender, traceparent)
        if not backend and (note.to.topic is None or not claims.grants.may_publish(note.to.topic)):
            raise Forbidden(
                f"a token without the scope {SCOPE_PUBLISH} publishes to the topics that its "
                "topics.publish covers"
            )
        self._many = note.to.users is not None
        if note.to.topic is not None:
            targets = [feeds.topic(note.to.topic)]
        elif note.to.broadcast:
            targets = [feeds.BROADCAST]
        else:
            targets = [feeds.mailbox(user) for user in note.users()]
        self.appends = [
            Append(
                feed,
                body,
                note.ttl,
                digest,
                collapse_key=note.collapse_key or "",
                any_device=note.deliver == "any-device",
                receipt=claims.user if note.receipt else "",
                ephemeral=note.ephemeral,
            )
            for feed in targets
        ]

    def answer(self, receipts: Sequence[Receipt | PushError]) -> dict[str, Any] | PushError:
        """What the publisher is told of it."""
        if self.error is not None:
            return self.error
        if self.publishing is not None:
            self._trace(self.publishing, receipts)
        if not self._many:
            (receipt,) = receipts
            return receipt if isinstance(receipt, PushError) else _told(receipt)
        return {
            "results": [r.problem() if isinstance(r, PushError) else _told(r) for r in receipts]
        }

    def _trace(self, publishing: Publishing, receipts: Sequence[Receipt | PushError]) -> None:
        for append, receipt in zip(self.appends, receipts, strict=True):
            if isinstance(receipt, PushError):
                publishing.failed(receipt.code)
            else:
                publishing.accepted(append.feed, receipt.id)


def _told(receipt: Receipt) -> dict[str, Any]:
    return {
        **({"id": ids.render(receipt.id)} if receipt.id else {}),
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
        return encoding.decode(line)
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
