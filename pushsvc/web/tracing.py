"""``/console/api/trace``: where a notification is, from accepted to acknowledged."""

import time
from typing import Any, ClassVar, Final

import msgspec

from pushsvc.auth.tokens import TokenCheck
from pushsvc.errors import InvalidRequest
from pushsvc.feeds.journal import Answer
from pushsvc.feeds.reach import Device
from pushsvc.feeds.trace import Step, Trace
from pushsvc.feeds.tracer import Tracer
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, MAILBOX, fields_of, mailbox, name_of, topic
from pushsvc.protocol.names import require_name
from pushsvc.web.base import Handler, authorize
from pushsvc.web.rates import RequestRates
from pushsvc.web.users import rfc3339, told

PER_SECOND: Final = 10
"""Traces that a process answers, whoever asks: each has every node search its journal."""
EVERYONE: Final = ""
"""The one caller that all operators are to their rate."""
PARAMETERS: Final = frozenset({"id", "user", "topic", "broadcast"})


class TraceHandler(Handler):
    """Answers where a notification is."""

    route: ClassVar[str] = "console_trace"

    def initialize(self, *, tracer: Tracer, verifier: TokenCheck, rates: RequestRates) -> None:
        """Take what the application passes.

        Args:
            tracer: asks the feed and the nodes.
            verifier: of tokens; it lets in who may see the console.
            rates: how fast all operators together may ask.
        """
        self._tracer = tracer
        self._verifier = verifier
        self._rates = rates

    async def get(self) -> None:
        """Answer with the trace."""
        await authorize(self.request, self._verifier)
        self._rates.spend(EVERYONE, time.monotonic())
        entry_id, feed = asked(self.request.query_arguments)
        self.write_json(200, _trace(await self._tracer.trace(entry_id, feed)))


def asked(query: dict[str, list[bytes]]) -> tuple[int, str | None]:
    """The id that a query asks for, and the feed where it names one.

    Raises:
        InvalidRequest: it names no id, or not one feed.
        InvalidName: the user or the topic is not one.
    """
    values: dict[str, str] = {}
    for name, several in query.items():
        if name not in PARAMETERS or len(several) > 1:
            raise InvalidRequest(
                'send "id" and at most one of "user", "topic" and "broadcast=true"'
            )
        values[name] = several[0].decode(errors="replace")
    if "id" not in values:
        raise InvalidRequest('"id" is missing: send the id that a publish was answered with')
    entry_id = ids.parse_untrusted(values.pop("id"))
    if len(values) > 1:
        raise InvalidRequest('send one of "user", "topic" and "broadcast", or none of them')
    if "user" in values:
        return entry_id, mailbox(require_name(values["user"], "user id"))
    if "topic" in values:
        return entry_id, topic(require_name(values["topic"], "topic"))
    if "broadcast" in values:
        if values["broadcast"] != "true":
            raise InvalidRequest('"broadcast" is "true", or is left out')
        return entry_id, BROADCAST
    return entry_id, None


def _trace(trace: Trace) -> dict[str, Any]:
    entry = trace.entry
    return {
        "id": ids.render(trace.id),
        "feed": None if trace.feed is None else _feed(trace.feed),
        "notification": None if entry is None else msgspec.Raw(told(entry)),
        "status": trace.status,
        "steps": [_timed(step) for step in trace.steps],
        "devices": [_timed(device) for device in trace.devices],
        "note": trace.note,
        "also": [_feed(feed) for feed in trace.also],
        "nodes": [
            _node(node, answer, asked=node not in trace.unasked)
            for node, answer in trace.answers.items()
        ],
    }


def _feed(feed: str) -> dict[str, Any]:
    return {"user": name_of(feed)} if feed.startswith(MAILBOX) else fields_of(feed)


def _timed(value: Step | Device) -> dict[str, Any]:
    """Only what is known."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    if value.time is not None:
        fields["time"] = rfc3339(value.time)
    return fields


def _node(node: str, answer: Answer | None, *, asked: bool) -> dict[str, Any]:
    """Whether a node was asked and answered, and from when on its journal remembers everything."""
    since = None if answer is None or answer.since is None else answer.since
    return {
        "node": node,
        "asked": asked,
        "answered": answer is not None,
        "since": None if since is None else rfc3339(round(since * 1000)),
    }
