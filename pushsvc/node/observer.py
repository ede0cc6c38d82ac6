"""What a node does with notifications, told in one place: metrics, the event log and spans.

Those who dispatch call it once for each event, and know nothing of the three. Counters are summed
up and given to the metrics library once a batch, since a call there costs more than the rest.
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from pushsvc import metrics
from pushsvc.feeds.event_log import CLOSED, SENT, SPREAD, WITHDRAWN, EventLog
from pushsvc.feeds.nodes import Entry
from pushsvc.logs import SampledLog
from pushsvc.node.listener import Listener
from pushsvc.node.spans import Spans
from pushsvc.protocol import ids
from pushsvc.protocol.delivery import Cursor, Deliver, Gap
from pushsvc.protocol.feeds import MAILBOX
from pushsvc.protocol.session import Acked

log = structlog.get_logger("pushsvc.dispatch")
sampled = SampledLog(log)

TOLD_SECONDS: Final = 600.0
"""Seconds in which a user's connections count once that begin with a gap."""
MOST_TOLD: Final = 10_000
"""Most users of whom that is remembered."""


class Observer:
    """Tells what happens to notifications on this node.

    Args:
        event_log: remembers it, for traces.
        redis_time: seconds since the epoch, by Redis time.
        spans: of what is sent and acknowledged; None where nothing is traced.
    """

    def __init__(
        self, event_log: EventLog, redis_time: Callable[[], float], spans: Spans | None = None
    ) -> None:
        self._event_log = event_log
        self._redis_time = redis_time
        self._spans = spans
        # Looked up once: by its label it takes as long as the rest of a batch of one.
        self._direct_entries = metrics.courier_entries.labels("direct")
        self._late_entries = metrics.courier_entries.labels("late")
        self._sent = self._resent = self._direct = self._late = 0
        # Whose gaps were counted lately, by reason.
        self._told: set[tuple[str, str]] = set()
        self._told_since = 0.0

    # --- dispatch ------------------------------------------------------------------------------

    def dispatched(self, entry: Entry, sent: Sequence[Listener], late: int) -> None:
        """An entry of a mailbox came: who was sent it, and how many read it later."""
        self._late += late
        if not sent:
            return
        now, entry_id = self._redis_time(), entry.id
        self._counted(entry_id, len(sent), now)
        if self._event_log.takes(entry_id):
            for listener in sent:
                # The cursor's strings live as long as the connection; the entry's would be kept.
                cursor = listener.session.cursor
                self._event_log.add(
                    (now, SENT, cursor.feed, entry_id, cursor.device, listener.number, 1)
                )
        if self._spans is not None:
            delivery = self._spans.delivery(entry.feed, entry_id, entry.body)
            if delivery is not None:
                for listener in sent:
                    delivery.to(listener.number, 1)

    def fanned_out(self, entry: Entry, sent: int, late: int) -> None:
        """An entry of a topic or the broadcast came: how many got it, and how many read it later.

        What goes to many is one event, and this is where it is told.
        """
        self._late += late
        if not sent and not late:
            return
        now, entry_id = self._redis_time(), entry.id
        if sent:
            self._counted(entry_id, sent, now)
        if self._event_log.takes(entry_id):
            self._event_log.add((now, SPREAD, entry.feed, entry_id, sent, late))
        if self._spans is not None:
            self._spans.spread(entry.feed, entry_id, entry.body, sent, late)

    def passed_on(self, entry: Entry, sent: int, dropped: int) -> None:
        """Something ephemeral came: how many got it, and how many had no room for it."""
        self._sent += sent
        metrics.ephemeral_dropped.labels("connection").inc(dropped)
        if self._spans is not None and sent:
            self._spans.spread(entry.feed, 0, entry.body, sent, 0)

    def _counted(self, entry_id: int, sent: int, now: float) -> None:
        self._sent += sent
        self._direct += 1
        metrics.deliver_seconds.observe(max(0.0, now - ids.milliseconds(entry_id) / 1000))

    def flush(self) -> None:
        """A batch is done: give what was counted to the metrics."""
        if self._sent:
            metrics.delivered.inc(self._sent)
        if self._resent:
            metrics.redelivered.inc(self._resent)
        if self._direct:
            self._direct_entries.inc(self._direct)
        if self._late:
            self._late_entries.inc(self._late)
        self._sent = self._resent = self._direct = self._late = 0

    def fenced(self) -> None:
        """Something came while the lease was not held, and was passed over."""
        metrics.courier_entries.labels("fenced").inc()

    def unreadable(self, what: str, why: object) -> None:
        """Something came that cannot be read.

        It costs what it would have told, and nothing else: the feeds are what counts.
        """
        metrics.courier_entries.labels("unreadable").inc()
        sampled.warning("the inbox holds what cannot be read", what=what, why=repr(why))

    # --- catch-up ------------------------------------------------------------------------------

    def reads(self, cause: str) -> None:
        """A feed is read."""
        metrics.feed_reads.labels(cause).inc()

    def delivered(self, listener: Listener, cursor: Cursor, step: Deliver) -> None:
        """An entry that was read from its feed was sent."""
        if step.attempt == 1:
            self._sent += 1
        else:
            self._resent += 1
        if not cursor.feed.startswith(MAILBOX):
            return
        entry_id, body, *_ = step.entry
        number, attempt = listener.number, step.attempt
        if self._event_log.takes(entry_id):
            now = self._redis_time()
            self._event_log.add((now, SENT, cursor.feed, entry_id, cursor.device, number, attempt))
        if self._spans is not None:
            delivery = self._spans.delivery(cursor.feed, entry_id, body)
            if delivery is not None:
                delivery.to(number, attempt)

    def delivered_to_many(self, sent: int) -> None:
        """An entry that a channel read from its feed was sent to its subscribers."""
        self._sent += sent

    def gap(self, gap: Gap, listener: Listener, *, begins: bool = False) -> None:
        """A client was told that entries are gone.

        One that asks again and again, from a position of its choice, counts once in a while: else
        it alone could raise an alert. A position that only it has ever heard of tells nothing of
        what Redis lost.

        Args:
            gap: what was told.
            listener: to whom.
            begins: whether it is where a connection or a subscription begins.
        """
        reason = "claimed" if gap.claimed else gap.reason
        if begins or gap.claimed:
            told = listener.session.user, reason
            if told in self._told:
                return
            if len(self._told) < MOST_TOLD:
                self._told.add(told)
        metrics.gaps.labels(reason).inc()

    # --- acknowledgements, withdrawals, ends ---------------------------------------------------

    def acked(self, listener: Listener, ack: Acked) -> None:
        """A client acknowledged."""
        if not ack.moved:
            return
        age = self._redis_time() - ids.milliseconds(ack.id) / 1000
        metrics.ack_seconds.observe(max(0.0, age))
        metrics.acked.inc()
        self.settled(listener, ack.cursor, ack.id)

    def settled(self, listener: Listener, cursor: Cursor, position: int) -> None:
        """A device acknowledged up to a position, on this connection or another."""
        if self._spans is not None and cursor is listener.session.cursor:
            self._spans.acked(listener.number, position)

    def withdrawn(self, feed: str, entry_id: int, reason: str) -> None:
        """A notification was withdrawn that this node may have sent."""
        self._event_log.add((self._redis_time(), WITHDRAWN, feed, entry_id, reason))

    def left(self, listener: Listener) -> None:
        """A connection is over."""
        cursor = listener.session.cursor
        if cursor.unacked and self._event_log.takes(cursor.unacked[-1]):
            now, first, last = self._redis_time(), cursor.unacked[0], cursor.unacked[-1]
            self._event_log.add(
                (now, CLOSED, cursor.feed, last, cursor.device, listener.number, first)
            )
        if self._spans is not None:
            self._spans.left(listener.number)

    # --- registrations -------------------------------------------------------------------------

    def swept(self, in_step: int, late: int, lost: int) -> None:
        """Registrations were checked, by what was found."""
        metrics.sweeps.labels("in step").inc(in_step)
        metrics.sweeps.labels("late").inc(late)
        metrics.sweeps.labels("unregistered").inc(lost)
        if lost:
            log.warning("registrations were lost", count=lost)

    def tick(self) -> None:
        """A second has passed."""
        self._event_log.tick()
        now = self._redis_time()
        if self._told and not 0 <= now - self._told_since < TOLD_SECONDS:
            self._told.clear()
        if not self._told:
            self._told_since = now
