"""The publish API: ``POST /v1/notifications`` and ``POST /v1/notifications/batch``.

A backend, whose token has the scope, reaches everyone. A client reaches the topics that its token
names, as on a socket.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from pushsvc.auth.tokens import SCOPE_PUBLISH, Claims, TokenCheck
from pushsvc.errors import Forbidden, InvalidRequest, PushError, checked
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.node.spans import Publishing, Spans
from pushsvc.protocol import cloudevents, encoding, notifications, tracecontext
from pushsvc.protocol.feeds import TOPIC, name_of
from pushsvc.protocol.notifications import MAX_BATCH, Append
from pushsvc.web.cors import Origins
from pushsvc.web.operation import (
    CHUNKED,
    JSON,
    Admitted,
    Answer,
    Request,
    TokenOperation,
    media_type,
)
from pushsvc.web.rates import RequestRates

NDJSON: Final = "application/x-ndjson"
MAX_LINES: Final = 2 * MAX_BATCH
"""Most lines of a batch, of which some may be blank."""

ESCAPED: Final = 2
"""How many times as large as its message a client's body may be; \\u0436 is two bytes of it."""
MAX_KEY: Final = 255
"""Characters of an idempotency key."""

_quoted = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"').fullmatch
_bare = re.compile(r"[!#-\[\]-~]+").fullmatch


class PublishOperation(TokenOperation):
    """Publishes one notification.

    Args:
        publisher: to the feeds.
        rates: how fast each backend may publish.
        client_rates: how fast each client may send messages.
        client_bytes: the same of bytes.
        max_message: most bytes of the message that clients will be sent.
        verifier: of tokens.
        max_body: most bytes of a body.
        origins: which pages may call.
        push_after: seconds until a push whose publisher does not say; None where each has to.
        spans: makes those of traces that are recorded, if that is wanted.
    """

    route: ClassVar[str] = "publish"
    allow: ClassVar[str] = "POST, OPTIONS"

    def __init__(
        self,
        *,
        publisher: Publisher,
        rates: RequestRates,
        client_rates: RequestRates,
        client_bytes: RequestRates,
        max_message: int,
        verifier: TokenCheck,
        max_body: int,
        origins: Origins,
        push_after: float | None = None,
        spans: Spans | None = None,
    ) -> None:
        super().__init__(verifier, max_body=max_body, origins=origins)
        self._publisher = publisher
        self._rates = rates
        self._client_rates = client_rates
        self._client_bytes = client_bytes
        self._max_message = max_message
        self._push_after = push_after
        self._spans = spans

    def most(self, claims: Claims) -> int:
        """A client may send a message as large as on a socket, with escapes in its JSON."""
        if SCOPE_PUBLISH in claims.scopes:
            return self._max_body
        return min(self._max_body, ESCAPED * self._max_message)

    def permit(self, request: Request, claims: Claims) -> None:
        """Check who publishes, and how much.

        Raises:
            Forbidden: the token is for no publishing.
            RateLimited: its holder publishes too fast.
        """
        now = time.monotonic()
        if SCOPE_PUBLISH in claims.scopes:
            self._rates.spend(claims.caller, now)
        elif claims.grants.publish:
            self._client_rates.spend(claims.caller, now)
            if request.length > 0:
                self._client_bytes.spend(claims.caller, now, request.length)
        else:
            raise self.lacking(
                f"publishing needs a token with the scope {SCOPE_PUBLISH}, or with topics.publish "
                f"({claims.grants.why_not('publish')})",
                request,
            )

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Publish, and say what came of it."""
        headers, claims = request.headers, admitted.claims
        call = _Call(claims, tracecontext.read(headers.get(tracecontext.FIELD)), self._spans)
        if request.length == CHUNKED and call.client:
            self._client_bytes.spend(claims.caller, time.monotonic(), len(body))
        mode = cloudevents.kind(headers.get("content-type", ""), headers)
        try:
            if mode is None:
                return await self._publish(call, headers, body)
            return await self._publish_events(call, cloudevents.read(mode, headers, body), mode)
        except PushError as error:
            call.failed(error)
            raise
        finally:
            call.end()

    async def _publish(self, call: "_Call", headers: Mapping[str, str], body: bytes) -> Answer:
        """Publish what is no CloudEvent."""
        media_type(headers, JSON)
        once = _once(call.claims, headers)
        item = self._item(call, encoding.decode(body), None if once is None else once.of(None))
        if item.error is not None:
            raise item.error
        (result,) = await self._append(call, [item], once, body)
        return _accepted(checked(result))

    async def _publish_events(
        self, call: "_Call", events: Sequence[cloudevents.Publish], mode: cloudevents.Mode
    ) -> Answer:
        """Publish CloudEvents; one that comes again is known by its source and id.

        An event bus looks at the status only: if one event fails, the request does, and may be
        repeated as it is.
        """
        self._count(call, len(events))
        items = [
            self._item(
                call,
                event.notification,
                Once(call.claims.caller, event.key).of(None),
                event.traceparent,
            )
            for event in events
        ]
        for index, item in enumerate(items):
            if item.error is not None:
                if mode is cloudevents.Mode.BATCH:
                    item.error.detail = f"event {index} of the batch: {item.error.detail}"
                raise item.error
        results = [checked(result) for result in await self._append(call, items)]
        return _accepted(_results(results) if mode is cloudevents.Mode.BATCH else results[0])

    def _item(
        self, call: "_Call", value: Any, digest: str | None, traceparent: str = ""
    ) -> "_Item":
        """One notification of a request, checked.

        Args:
            call: the request.
            value: the parsed JSON, or the line that it is to be parsed from.
            digest: what stands for its idempotency key.
            traceparent: its own trace context; without one it has the request's.
        """
        item = _Item()
        try:
            if isinstance(value, bytes):
                value = encoding.decode(value)
            item.publishing, traceparent = call.begin(traceparent)
            item.appends = self._appends(call, value, digest, traceparent)
            item.many = value["to"].get("users") is not None
        except PushError as error:
            item.error = error.bare()
            if item.publishing is not None:
                item.publishing.failed(error.code)
        return item

    def _appends(
        self, call: "_Call", value: Any, digest: str | None, traceparent: str
    ) -> list[Append]:
        """What a notification asks for.

        Raises:
            InvalidRequest: it has not the documented shape.
            Forbidden: it is for whom the token does not cover.
            PayloadTooLarge: the message for the clients would be over the limit.
        """
        claims, client = call.claims, call.client
        appends = notifications.appends_from(
            value,
            self._max_message,
            by=claims.user,
            namespace=claims.namespace,
            client=client,
            once=digest,
            traceparent=traceparent,
            push_after=self._push_after,
        )
        if client:
            feed = appends[0].feed
            if not (feed.startswith(TOPIC) and claims.grants.may_publish(name_of(feed))):
                raise Forbidden(
                    f"a token without the scope {SCOPE_PUBLISH} publishes to the topics that its "
                    f"topics.publish covers: {claims.grants.why_not('publish')}"
                )
        return appends

    def _count(self, call: "_Call", notifications: int) -> None:
        """Account for what a batch of a client has: its rate is one of messages, good or bad."""
        more = notifications - 1  # the request itself was accounted for
        if call.client and more > 0:
            self._client_rates.spend(call.claims.caller, time.monotonic(), more)

    async def _claim(
        self, call: "_Call", once: "Once", body: bytes, appends: Sequence[Append]
    ) -> None:
        """Bind an idempotency key to a body that turned out to be a good request.

        What stores nothing can be repeated as it is.
        """
        if all(append.ephemeral for append in appends):
            return
        try:
            await self._publisher.claim(once.digest, hashlib.sha256(body).hexdigest(), appends)
        except PushError:
            self._publisher.abandon(appends, call.claims.user)
            raise

    async def _append(
        self,
        call: "_Call",
        items: Sequence["_Item"],
        once: "Once | None" = None,
        body: bytes = b"",
    ) -> list[bytes | PushError]:
        """Publish the good ones of some notifications; an answer for each, in order."""
        appends = _all_appends(items)
        if call.client:
            await self._publisher.admit(appends, call.claims.user)
        if once is not None:
            await self._claim(call, once, body, appends)
        outcomes = iter(await self._publisher.publish(appends, call.claims.user))
        return [item.answer([next(outcomes) for _ in item.appends]) for item in items]


class BatchOperation(PublishOperation):
    """Publishes many notifications; each succeeds or fails by itself."""

    route: ClassVar[str] = "publish_batch"

    async def _publish(self, call: "_Call", headers: Mapping[str, str], body: bytes) -> Answer:
        """Publish what are no CloudEvents."""
        is_json = media_type(headers, JSON, NDJSON) == JSON
        values = _notifications(body) if is_json else _lines(body)
        if not 1 <= len(values) <= MAX_BATCH:
            raise InvalidRequest(f"a batch has 1 to {MAX_BATCH} notifications: split it")
        self._count(call, len(values))
        once = _once(call.claims, headers)
        items = [
            self._item(call, value, None if once is None else once.of(i))
            for i, value in enumerate(values)
        ]
        return _accepted(_results(await self._append(call, items, once, body)))


class _Call:
    """One request, and the spans of what it publishes.

    Args:
        claims: who publishes.
        traceparent: the trace context of the request, empty without one.
        spans: makes them, if that is wanted.
    """

    __slots__ = ("_publishing", "_spans", "claims", "client", "traceparent")

    def __init__(self, claims: Claims, traceparent: str, spans: Spans | None) -> None:
        self.claims = claims
        self.client = SCOPE_PUBLISH not in claims.scopes
        self.traceparent = traceparent
        self._spans = spans
        # One for each trace, however much is published into it.
        self._publishing: dict[str, Publishing] = {}

    def begin(self, traceparent: str) -> tuple[Publishing | None, str]:
        """The span of a notification, if its trace is recorded, and the context that it carries on.

        Args:
            traceparent: its own trace context; without one it has the request's.
        """
        traceparent = traceparent or self.traceparent
        if self._spans is None or not tracecontext.is_sampled(traceparent):
            return None, traceparent
        publishing = self._publishing.get(traceparent)
        if publishing is None:
            publishing = self._publishing[traceparent] = self._spans.publish(traceparent)
        return publishing, publishing.traceparent

    def failed(self, error: PushError) -> None:
        """The request has failed as a whole."""
        for publishing in self._publishing.values():
            publishing.failed(error.code)

    def end(self) -> None:
        """Everything was published, or failed."""
        for publishing in self._publishing.values():
            publishing.end()


def _once(claims: Claims, headers: Mapping[str, str]) -> "Once | None":
    """What stands for the idempotency key of a request, if it has one."""
    header = headers.get("idempotency-key")
    return None if header is None else Once(claims.caller, idempotency_key(header))


def _all_appends(items: Sequence["_Item"]) -> list[Append]:
    """What all notifications of a request ask for, which is bounded.

    Raises:
        InvalidRequest: it is too much.
    """
    appends = [append for item in items for append in item.appends]
    if len(appends) > MAX_BATCH:
        raise InvalidRequest(
            f"a batch reaches at most {MAX_BATCH} users, each counted as often as it is named, "
            f"not {len(appends)}: split it"
        )
    return appends


def _accepted(told: bytes) -> Answer:
    return Answer(202, told + b"\n")  # for a reader in a terminal


def _answered(outcome: Published | PushError) -> bytes | PushError:
    return outcome if isinstance(outcome, PushError) else encoding.encode(outcome.to_json())


def _results(answers: Iterable[bytes | PushError]) -> bytes:
    """The JSON of what came of several."""
    told = (
        encoding.encode(each.problem()) if isinstance(each, PushError) else each for each in answers
    )
    return b'{"results":[%b]}' % b",".join(told)


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


class _Item(msgspec.Struct, eq=False):
    """One notification of a request, until it is answered."""

    appends: list[Append] = []
    error: PushError | None = None
    publishing: Publishing | None = None
    many: bool = False
    """Whether it names a list of users, each of whom has an answer."""

    def answer(self, outcomes: Sequence[Published | PushError]) -> bytes | PushError:
        """The JSON of its answer, or the problem."""
        if self.error is not None:
            return self.error
        if self.publishing is not None:
            self._trace(self.publishing, outcomes)
        if self.many:
            return _results(map(_answered, outcomes))
        return _answered(*outcomes)

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
