"""The cursor of a connection against a model of a feed, in any order of events."""

import ast
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pushsvc.protocol import delivery
from pushsvc.protocol.delivery import (
    UNKNOWN,
    Backlog,
    Cursor,
    Deliver,
    Gap,
    LogEntry,
    StateCursor,
    Step,
    Withdrawn,
)
from pushsvc.protocol.feeds import mailbox

FEED = mailbox("u1")
WINDOW = 3
READ = 2
TIMEOUT = 30.0


@dataclass
class Feed:
    """What Redis does, in a few lines: the scripts are checked against real servers elsewhere."""

    entries: dict[int, bool] = field(default_factory=dict)
    """Id to whether its time to live has passed."""
    head: int = 0
    trimmed: int = 0
    cursor: int = 0

    def publish(self, *, stored: bool) -> tuple[int, int]:
        previous, self.head = self.head, self.head + 10
        if stored:
            self.entries[self.head] = False
        return self.head, previous

    def trim(self) -> None:
        self.trimmed = min(self.entries)
        del self.entries[self.trimmed]

    def read(self, held: int) -> Backlog:
        start = max(self.cursor, held)
        gap = ""
        if self.head < start:
            gap, start = "reset", self.cursor if self.cursor <= self.head else 0
        elif start < self.trimmed:
            gap = "trimmed"
        found = sorted(i for i in self.entries if i > start)
        entries = [LogEntry(i, None if self.entries[i] else b"%d" % i) for i in found[:READ]]
        upto = entries[-1].id if len(entries) == READ else self.head
        return Backlog(self.cursor, self.head, start, upto, gap, entries)


class Delivery(RuleBasedStateMachine):
    """One connection, its feed, and a courier that loses, delays and repeats."""

    @initialize(before=st.integers(0, 4))
    def connect(self, before: int) -> None:
        self.feed = Feed()
        for _ in range(before):
            self.feed.publish(stored=True)
        self.now = 0.0
        self.cursor = Cursor(FEED, "phone")
        self.writable = True
        self.couriers: list[tuple[int, int]] = []
        self.reading: Backlog | None = None
        self.heard: list[Deliver | Gap] = []
        self.told: set[int] = set()
        # What was owed to the connection and never told it, and may not be any more.
        self.excused: set[int] = set()
        self.published: set[int] = set(self.feed.entries)
        backlog = self.feed.read(0)
        self.cursor.begin(backlog.cursor)
        self.carry_out(backlog)

    # --- the node ---------------------------------------------------------------------------------

    def carry_out(self, backlog: Backlog) -> None:
        for step in self.cursor.plan(backlog, WINDOW, self.now):
            if not self.writable:
                break
            if isinstance(step, Deliver):
                self.cursor.take(step.entry.id, self.now)
            assert not isinstance(step, Withdrawn), "nothing was withdrawn"
            self.hear(step)

    def hear(self, step: Deliver | Gap) -> None:
        if isinstance(step, Gap):
            # Who was told of a gap knows that anything up to the next notification may be gone.
            self.excused |= {i for i in self.published if i > step.after and self.is_gone(i)}
            if step.reason == "reset":
                self.told.clear()
        elif step.attempt == 1:
            assert step.entry.id not in self.told, "delivered twice as a first attempt"
            assert step.entry.id > max(self.told, default=0), "out of order"
        else:
            assert step.entry.id in self.told, "an attempt of what was never delivered"
        if isinstance(step, Deliver):
            self.told.add(step.entry.id)
        self.heard.append(step)

    def is_gone(self, entry_id: int) -> bool:
        return self.feed.entries.get(entry_id, True)

    def read(self) -> None:
        self.cursor.reading = True
        self.reading = self.feed.read(self.cursor.sent)

    # --- what may happen --------------------------------------------------------------------------

    @rule(stored=st.booleans(), copy=st.sampled_from(["sent", "lost", "twice"]))
    def publish(self, stored: bool, copy: str) -> None:  # noqa: FBT001
        entry_id, previous = self.feed.publish(stored=stored)
        if stored:
            self.published.add(entry_id)
        self.couriers += [(entry_id, previous)] * {"sent": 1, "lost": 0, "twice": 2}[copy]

    @precondition(lambda self: self.couriers)
    @rule(data=st.data(), known=st.booleans())
    def courier(self, data: st.DataObject, known: bool) -> None:  # noqa: FBT001
        which = data.draw(st.integers(0, len(self.couriers) - 1))
        entry_id, previous = self.couriers.pop(which)
        if not known:
            previous = UNKNOWN
        if self.cursor.offer(entry_id, previous, WINDOW) and self.writable:
            self.cursor.take(entry_id, self.now)
            self.hear(Deliver(LogEntry(entry_id, b""), 1))
        elif self.writable and self.cursor.wants(WINDOW):
            self.read()

    @precondition(lambda self: self.reading is not None)
    @rule()
    def answer(self) -> None:
        backlog, self.reading = self.reading, None
        assert backlog is not None
        self.cursor.reading = False
        if self.writable:
            self.carry_out(backlog)

    @precondition(lambda self: self.reading is None)
    @rule()
    def sweep(self) -> None:
        self.cursor.head = max(self.cursor.head, self.feed.head)
        if self.writable and (self.cursor.wants(WINDOW) or self.feed.head < self.cursor.sent):
            self.read()

    @rule(writable=st.booleans())
    def socket(self, writable: bool) -> None:  # noqa: FBT001
        self.writable = writable

    @precondition(lambda self: self.cursor.unacked)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        assert self.cursor.unacked is not None
        entry_id = data.draw(st.sampled_from(self.cursor.unacked))
        assert self.cursor.ack(entry_id, self.now)
        self.feed.cursor = max(self.feed.cursor, entry_id)

    @rule(entry_id=st.integers(0, 1000))
    def ack_of_what_was_not_sent(self, entry_id: int) -> None:
        before = self.cursor.acked, self.cursor.sent
        if entry_id not in (self.cursor.unacked or ()):
            assert not self.cursor.ack(entry_id, self.now)
            assert (self.cursor.acked, self.cursor.sent) == before

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def another_socket_of_the_device_acks(self, data: st.DataObject) -> None:
        entry_id = data.draw(st.sampled_from(sorted(self.published)))
        self.feed.cursor = max(self.feed.cursor, entry_id)

    @rule()
    def acks_are_overdue(self) -> None:
        self.now += TIMEOUT
        if self.cursor.overdue(self.now, TIMEOUT) and not self.cursor.reading:
            self.cursor.rewind(self.now)
            if self.writable:
                self.read()

    @precondition(lambda self: self.feed.entries)
    @rule()
    def trim(self) -> None:
        self.feed.trim()

    @precondition(lambda self: self.feed.entries)
    @rule(data=st.data())
    def time_to_live_passes(self, data: st.DataObject) -> None:
        self.feed.entries[data.draw(st.sampled_from(sorted(self.feed.entries)))] = True

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def positions_are_in_order(self) -> None:
        if hasattr(self, "cursor"):
            assert self.cursor.acked <= self.cursor.sent
            assert self.cursor.outstanding <= WINDOW

    def teardown(self) -> None:
        """Once all is quiet, whatever is owed was delivered, or a gap was told."""
        if not hasattr(self, "cursor"):
            return
        self.writable = True
        for _ in range(200):
            if self.reading is not None:
                self.answer()
            if self.cursor.unacked:
                self.cursor.ack(self.cursor.unacked[-1], self.now)
                self.feed.cursor = max(self.feed.cursor, self.cursor.acked)
            self.sweep()
            if self.reading is None and not self.cursor.unacked:
                break
        else:
            raise AssertionError("the connection never became quiet")
        for entry_id in self.published:
            known = entry_id in self.told or entry_id <= self.feed.cursor
            assert known or entry_id in self.excused, f"{entry_id} neither delivered nor in a gap"


Delivery.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestDelivery = Delivery.TestCase


def test_entries_lost_by_redis_are_told_and_the_rest_is_delivered_again() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.begin(0)
    cursor.sent = cursor.head = 50
    backlog = Backlog(20, 40, 20, 40, "reset", [LogEntry(30, b"30"), LogEntry(40, b"40")])
    steps = []
    for step in cursor.plan(backlog, 64, 0.0):
        steps.append(step)
        if isinstance(step, Deliver):
            cursor.take(step.entry.id, 0.0)
    assert steps == [
        Gap(50, "reset"),
        Deliver(LogEntry(30, b"30"), 1),
        Deliver(LogEntry(40, b"40"), 1),
    ]
    assert (cursor.acked, cursor.sent, cursor.head) == (20, 40, 40)


def reset(cursor: Cursor, head: int) -> list[Step]:
    return list(cursor.plan(Backlog(0, head, 0, head, "reset", []), 64, 0.0))


def test_a_position_that_only_the_client_knows_of_is_no_sign_of_what_was_lost() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.begin(10, 900)
    cursor.put_off(Backlog(0, 20, 0, 20, "reset", []))
    assert reset(cursor, 20) == [Gap(900, "reset", claimed=True)]
    # The position that it was given in its place is one of the feed.
    assert reset(cursor, 5) == [Gap(20, "reset")]


def test_a_position_that_the_feed_has_confirmed_is_not_the_client_s_alone() -> None:
    for confirm in (
        lambda cursor: list(cursor.plan(Backlog(0, 20, 20, 20, "", []), 64, 0.0)),
        Cursor.confirm,
    ):
        cursor = Cursor(FEED, "phone")
        cursor.begin(10, 20)
        confirm(cursor)
        assert reset(cursor, 5) == [Gap(20, "reset")]


def test_a_client_that_holds_no_more_than_it_acknowledged_claims_nothing() -> None:
    for held in (None, 5, 10):
        cursor = Cursor(FEED, "phone")
        cursor.begin(10, held)
        assert reset(cursor, 5) == [Gap(10, "reset")]


def test_an_idle_cursor_holds_no_list() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    assert cursor.unacked == [10]
    cursor.ack(10, 1.0)
    assert cursor.unacked is None


def test_a_redelivery_counts_its_attempts_and_progress_starts_anew() -> None:
    cursor = Cursor(FEED, "phone")
    for entry_id in (10, 20):
        cursor.take(entry_id, 0.0)
    assert not cursor.overdue(29.9, 30)
    assert cursor.overdue(30.0, 30)
    cursor.rewind(30.0)
    backlog = Backlog(0, 20, 0, 20, "", [LogEntry(10, b""), LogEntry(20, b"")])
    attempts = []
    for step in cursor.plan(backlog, 64, 31.0):
        assert isinstance(step, Deliver)
        cursor.take(step.entry.id, 31.0)
        attempts.append((step.entry.id, step.attempt))
    assert attempts == [(10, 2), (20, 2)]
    assert not cursor.overdue(59.0, 30)
    cursor.ack(10, 40.0)
    assert cursor.attempt == 1


def test_an_ack_that_comes_after_the_rewind_still_counts() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    cursor.rewind(30.0)
    assert cursor.ack(10, 30.5)
    assert (cursor.acked, cursor.sent, cursor.unacked) == (10, 10, None)


def test_live_only_entries_that_were_never_acked_do_not_block_for_ever() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    cursor.rewind(30.0)
    assert list(cursor.plan(Backlog(0, 10, 0, 10, "", []), 64, 31.0)) == []
    assert cursor.unacked is None
    assert cursor.sent == 10


def test_a_read_that_began_before_a_rewind_is_not_used() -> None:
    cursor = Cursor(FEED, "phone")
    for entry_id in (10, 20):
        cursor.take(entry_id, 0.0)
    cursor.rewind(30.0)
    late = Backlog(0, 30, 20, 30, "", [LogEntry(30, b"")])
    assert list(cursor.plan(late, 64, 31.0)) == []
    assert cursor.sent == 0
    assert cursor.wants(64)


def carried_out(cursor: Cursor, backlog: Backlog, window: int = 64, now: float = 0.0) -> list[Step]:
    """The steps of an answer, carried out."""
    steps = []
    for step in cursor.plan(backlog, window, now):
        if isinstance(step, Deliver):
            cursor.take(step.entry.id, now)
        steps.append(step)
    return steps


# --- what other devices and connections did ------------------------------------------------------


def test_what_another_connection_of_the_device_acknowledged_is_done() -> None:
    cursor = Cursor(FEED, "phone")
    for entry_id in (10, 20, 30):
        cursor.take(entry_id, 0.0)
    assert cursor.settle(20, 5.0)
    assert (cursor.acked, cursor.sent, cursor.unacked) == (20, 30, [30])
    assert not cursor.overdue(34.9, 30)
    assert not cursor.settle(20, 6.0)
    assert not cursor.settle(10, 6.0)
    assert cursor.acked == 20


def test_what_is_settled_before_it_was_sent_is_not_sent() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    assert cursor.settle(20, 1.0)
    assert (cursor.acked, cursor.sent, cursor.unacked) == (20, 20, None)
    late = Backlog(20, 30, 10, 30, "", [LogEntry(20, b""), LogEntry(30, b"")])
    assert carried_out(cursor, late) == [Deliver(LogEntry(30, b""), 1)]


def test_a_withdrawal_makes_room_in_the_window_and_is_told_to_who_may_hold_the_entry() -> None:
    cursor = Cursor(FEED, "phone")
    for entry_id in (10, 20, 30):
        cursor.take(entry_id, 0.0)
    cursor.ack(10, 0.0)
    cursor.head = 40
    assert not cursor.wants(2)
    assert cursor.withdraw(20)
    assert cursor.unacked == [30]
    assert cursor.wants(2)
    assert cursor.withdraw(30)
    assert cursor.unacked is None


def test_what_follows_a_withdrawal_of_all_that_was_sent_has_all_its_attempts() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    cursor.rewind(30.0)
    assert carried_out(cursor, Backlog(0, 10, 0, 10, "", [LogEntry(10, b"")]), now=30.0)
    assert cursor.withdraw(10)
    cursor.take(20, 40.0)
    assert cursor.attempt == 1
    assert not cursor.overdue(69.0, 30)


def test_a_withdrawal_of_what_was_acknowledged_or_never_sent_is_not_told() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    cursor.ack(10, 0.0)
    assert not cursor.withdraw(10)
    assert not cursor.withdraw(20)


def test_what_the_client_says_it_holds_may_be_withdrawn() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.begin(10, held=30)
    assert (cursor.acked, cursor.sent) == (10, 30)
    assert cursor.withdraw(20)


def test_a_position_that_is_behind_what_was_acknowledged_counts_for_nothing() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.begin(30, held=10)
    assert (cursor.acked, cursor.sent) == (30, 30)


def test_withdrawn_entries_are_told_in_their_place_and_need_no_room() -> None:
    cursor = Cursor(FEED, "phone")
    entries = [
        LogEntry(10, b"a"), LogEntry(20, None, "recalled"),
        LogEntry(30, None, "acked"), LogEntry(40, b"b"),
    ]  # fmt: skip
    assert carried_out(cursor, Backlog(0, 40, 0, 40, "", entries), window=1) == [
        Deliver(LogEntry(10, b"a"), 1),
        Withdrawn(20, "recalled"),
        Withdrawn(30, "acked"),
    ]
    assert cursor.unacked == [10]
    cursor.ack(10, 0.0)
    rest = Backlog(10, 40, cursor.sent, 40, "", [e for e in entries if e.id > cursor.sent])
    assert carried_out(cursor, rest, window=1)[-1] == Deliver(LogEntry(40, b"b"), 1)
    assert cursor.sent == 40


def test_a_withdrawn_entry_does_not_hide_a_gap() -> None:
    cursor = Cursor(FEED, "phone")
    entries = [LogEntry(20, None, "recalled"), LogEntry(30, b"x")]
    assert carried_out(cursor, Backlog(0, 30, 0, 30, "trimmed", entries)) == [
        Gap(0, "trimmed"),
        Withdrawn(20, "recalled"),
        Deliver(LogEntry(30, b"x"), 1),
    ]


def test_who_is_told_of_a_withdrawal_goes_on_behind_it() -> None:
    cursor = Cursor(FEED, "phone")
    entries = [LogEntry(i, None, "recalled") for i in (10, 20, 30)]
    steps = cursor.plan(Backlog(0, 30, 0, 30, "", entries), 64, 0.0)
    assert [next(steps), next(steps)] == [Withdrawn(10, "recalled"), Withdrawn(20, "recalled")]
    assert cursor.sent == 10  # the second is not known to have been written


def test_what_was_withdrawn_since_it_was_sent_is_not_waited_for_any_more() -> None:
    cursor = Cursor(FEED, "phone")
    cursor.take(10, 0.0)
    cursor.rewind(30.0)
    assert carried_out(cursor, Backlog(0, 10, 0, 10, "", [LogEntry(10, None, "acked")])) == [
        Withdrawn(10, "acked")
    ]
    assert cursor.unacked is None
    assert cursor.sent == 10


# --- feeds without acknowledgements ---------------------------------------------------------------


def test_without_acknowledgements_there_is_no_window_and_nothing_is_overdue() -> None:
    cursor = Cursor("t:a", acks=False)
    entries = [LogEntry(i, b"") for i in (10, 20, 30)]
    steps = carried_out(cursor, Backlog(0, 30, 0, 30, "", entries), window=1)
    assert steps == [Deliver(entry, 1) for entry in entries]
    assert (cursor.sent, cursor.unacked, cursor.outstanding) == (30, None, 0)
    assert not cursor.overdue(1e9, 30)
    assert cursor.offer(40, 30, 1)


def test_without_acknowledgements_nobody_is_owed_what_expired() -> None:
    cursor = Cursor("t:a", acks=False)
    entries = [LogEntry(10, None), LogEntry(20, b"")]
    assert carried_out(cursor, Backlog(0, 20, 0, 20, "", entries)) == [
        Deliver(LogEntry(20, b""), 1),
    ]
    with_acks = Cursor(FEED, "phone")
    assert carried_out(with_acks, Backlog(0, 20, 0, 20, "", entries)) == [
        Gap(0, "trimmed"),
        Deliver(LogEntry(20, b""), 1),
    ]


def test_without_acknowledgements_a_gap_is_told_all_the_same() -> None:
    cursor = Cursor("t:a", acks=False)
    cursor.begin(0, held=10)
    assert carried_out(cursor, Backlog(0, 40, 10, 40, "trimmed", [LogEntry(40, b"")])) == [
        Gap(10, "trimmed"),
        Deliver(LogEntry(40, b""), 1),
    ]


def test_no_field_of_a_cursor_is_written_outside_the_protocol() -> None:
    """Every delivery decision is made in ``Cursor``; what performs it calls its verbs."""
    package = Path(delivery.__file__).parents[1]
    fields = set(StateCursor.__struct_fields__) - {"feed", "device", "acks"}  # names of others too
    writes = [
        f"{file.relative_to(package)}:{node.lineno}: {ast.unparse(target)}"
        for file in sorted(package.rglob("*.py"))
        if file.relative_to(package).parts[0] not in {"protocol", "client"}
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for written in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in ast.walk(written)
        if isinstance(target, ast.Attribute)
        and target.attr in fields
        and ast.unparse(target.value) != "self"
    ]
    assert writes == [], "give Cursor a verb instead"


def test_a_cursor_forgets_a_head_from_before_a_read() -> None:
    cursor = Cursor("u:1")
    cursor.jump(5)
    cursor.follow(9)
    cursor.begin_read()
    assert (cursor.head, cursor.reading) == (5, True)
    assert not cursor.offer(10, 5, 64), "what comes meanwhile is read afterwards"
    assert cursor.head == 10


def test_an_answer_that_is_put_off_is_read_again_and_a_gap_is_not_forgotten() -> None:
    for gap, wants in (("", False), ("trimmed", True)):
        cursor = Cursor("u:1")
        cursor.jump(5)
        cursor.begin_read()
        cursor.put_off(Backlog(5, 5, 5, 5, gap, []))
        assert cursor.wants(64) is wants


def test_a_subscriber_that_falls_behind_reads_on_from_what_it_was_sent() -> None:
    shared = Cursor("t:1", acks=False)
    shared.jump(7)
    own = shared.fall_behind(5)
    assert (own.sent, own.head, own.acks) == (5, 7, False)
    own = shared.fall_behind(7)
    assert own.wants(1), "what it could not be told is no entry"


def test_a_cursor_beyond_what_redis_lost_must_read_and_one_before_it_need_not() -> None:
    beyond, before = Cursor("b"), Cursor("b")
    beyond.jump(9)
    before.jump(4)
    before.follow(9)
    beyond.lost_after(4)
    before.lost_after(4)
    assert beyond.wants(64)
    assert not before.wants(64)


def test_nothing_but_the_state_is_sent_until_it_is_complete() -> None:
    cursor = StateCursor("t:1", acks=False)
    cursor.ends_at(8)
    cursor.jump(5)
    assert not cursor.offer(6, 5, 1)
    assert not cursor.wants(1)
    cursor.take(8, 0.0)
    assert cursor.complete
    assert cursor.offer(9, 8, 1)


def test_a_state_that_was_complete_stays_so_when_redis_loses_it() -> None:
    cursor = StateCursor("t:1", acks=False)
    cursor.ends_at(8)
    cursor.take(8, 0.0)
    cursor.begin_read()
    assert list(cursor.plan(Backlog(0, 3, 0, 3, "reset", []), 1, 0.0)) == [Gap(8, "reset")]
    assert cursor.complete
    assert cursor.offer(4, 3, 1)
