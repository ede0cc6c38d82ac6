"""``/console/api/trace``: where a notification is, from accepted to acknowledged."""

import time
from typing import Any, ClassVar, Final

import msgspec

from pushsvc.admin.device_status import DeviceStatus
from pushsvc.admin.namespace import InNamespace
from pushsvc.admin.timeline import Step, Timeline
from pushsvc.admin.trace import TraceQuery
from pushsvc.auth.tokens import TokenCheck
from pushsvc.errors import InvalidRequest
from pushsvc.feeds.event_log import Answer
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import MAILBOX, broadcast, fields_of, mailbox, name_of, topic
from pushsvc.protocol.names import require_name, require_topic
from pushsvc.protocol.timestamps import rfc3339
from pushsvc.web.query import Query
from pushsvc.web.rates import RequestRates
from pushsvc.web.users import listed

PER_SECOND: Final = 10
"""Traces that a process answers a second to those who have tokens of one issuer: each has every
worker search its event log."""
ALTOGETHER: Final = 30
"""Those that it answers a second to all."""
PARAMETERS: Final = frozenset({"id", "user", "topic", "broadcast", "namespace"})


class TraceRates:
    """How fast traces may be asked for: by issuer, which nobody can choose, and altogether."""

    def __init__(self) -> None:
        self._issuers = RequestRates(PER_SECOND)
        self._all = RequestRates(ALTOGETHER)

    def spend(self, issuer: str, now: float) -> None:
        """Account for one trace.

        Raises:
            RateLimited: those of the issuer, or all, are over the rate.
        """
        self._issuers.spend(issuer, now)
        self._all.spend("", now)


class TraceHandler(InNamespace):
    """Answers where a notification is.

    Args:
        traces: asks the feed and the nodes.
        verifier: of tokens; of those that may see the console.
        rates: how fast it may be asked.
    """

    route: ClassVar[str] = "console_trace"

    def initialize(self, *, traces: TraceQuery, verifier: TokenCheck, rates: TraceRates) -> None:
        self._traces = traces
        self._verifier = verifier
        self._rates = rates

    async def get(self) -> None:
        claims = await self.authorized()
        self._rates.spend(claims.issuer, time.monotonic())
        namespace = claims.namespace
        entry_id, feed = arguments_of(Query(self.request.query), namespace)
        found = await self._traces.trace(entry_id, feed, namespace)
        self.write_json(200, _timeline_json(found))


def arguments_of(query: Query, namespace: str = "") -> tuple[int, str | None]:
    """The id that a query asks for, and the feed of a namespace where it names one.

    Raises:
        InvalidRequest: it names no id, or not one feed.
        InvalidName: the user or the topic is not one.
    """
    values = query.only(
        PARAMETERS, 'send "id" and at most one of "user", "topic" and "broadcast=true"'
    )
    values.pop("namespace", None)
    if "id" not in values:
        raise InvalidRequest('"id" is missing: send the id that a publish was answered with')
    entry_id = ids.parse_untrusted(values.pop("id"))
    if len(values) > 1:
        raise InvalidRequest('send one of "user", "topic" and "broadcast", or none of them')
    if "user" in values:
        return entry_id, mailbox(require_name(values["user"], "user id"), namespace)
    if "topic" in values:
        return entry_id, topic(require_topic(values["topic"]), namespace)
    if "broadcast" in values:
        if values["broadcast"] != "true":
            raise InvalidRequest('"broadcast" is "true", or is left out')
        return entry_id, broadcast(namespace)
    return entry_id, None


def _timeline_json(found: Timeline) -> dict[str, Any]:
    entry = found.entry
    return {
        "id": ids.render(found.id),
        "feed": None if found.feed is None else _feed_json(found.feed),
        "notification": None if entry is None else msgspec.Raw(listed(entry)),
        "status": found.status,
        "steps": [_known_json(step) for step in found.steps],
        "devices": [_known_json(device) for device in found.devices],
        "note": found.note,
        "also": [_feed_json(feed) for feed in found.also],
        "nodes": [
            _node_json(node, answer, asked=node not in found.unasked)
            for node, answer in found.answers.items()
        ],
    }


def _feed_json(feed: str) -> dict[str, Any]:
    return {"user": name_of(feed)} if feed.startswith(MAILBOX) else fields_of(feed)


def _known_json(value: Step | DeviceStatus) -> dict[str, Any]:
    """Only what is known."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    if value.time is not None:
        fields["time"] = rfc3339(value.time)
    return fields


def _node_json(node: str, answer: Answer | None, *, asked: bool) -> dict[str, Any]:
    """Whether a node was asked and answered, and since when its event log remembers everything."""
    since = None if answer is None or answer.since is None else answer.since
    return {
        "node": node,
        "asked": asked,
        "answered": answer is not None,
        "since": None if since is None else rfc3339(round(since * 1000)),
    }
