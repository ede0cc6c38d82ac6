"""What an inbox shows, whatever comes in which order."""

from collections import deque
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushsvc.client import asking
from pushsvc.client.asking import LARGEST_PAGE, Page
from pushsvc.client.inbox_state import MOST, Fetch, InboxState, Options, Snapshot
from pushsvc.client.marks import Mark, MarkKind

TIME = "2026-01-31T09:00:00.000Z"


def name(number: int) -> str:
    return f"{number}-0"


def number_of(id: str) -> int:  # noqa: A002 - as everywhere
    return int(id.partition("-")[0])


class Mailbox:
    """What the service keeps of a user."""

    def __init__(self) -> None:
        self.entries: dict[int, dict[str, Any]] = {}
        self.last = 0

    def publish(self, event: str | None = None) -> dict[str, Any]:
        self.last += 1
        entry = {"id": name(self.last), "time": TIME, "data": self.last, "event": event}
        self.entries[self.last] = {**entry, "read": False, "archived": False}
        return {"type": "notification", **entry}

    def mark(self, mark: Mark) -> None:
        for id in mark.among(map(name, self.entries)):  # noqa: A001 - as everywhere
            entry = self.entries[number_of(id)]
            if mark.kind == "read":
                entry["read"] = True
            elif mark.kind == "unread":
                entry["read"] = entry["archived"] = False
            elif mark.kind == "archive":
                entry["read"] = entry["archived"] = True
            else:
                entry["archived"] = False

    @property
    def unread(self) -> int:
        return sum(not each["read"] for each in self.entries.values())

    def listed(self, options: Options) -> list[dict[str, Any]]:
        """Newest first."""
        return [
            dict(each)
            for _, each in sorted(self.entries.items(), reverse=True)
            if each["archived"] is options.archived and options.event in (None, each["event"])
        ]

    def page(self, options: Options, fetch: Fetch) -> Page:
        before = None if fetch.before is None else number_of(fetch.before)
        found = [n for n in self.listed(options) if before is None or number_of(n["id"]) < before]
        some = found[: fetch.limit]
        told = {
            "notifications": [{**each, "expires": TIME, "acked": []} for each in some],
            "next": some[-1]["id"] if len(found) > len(some) else None,
            "unread": self.unread,
        }
        return asking.page("u").read(told)


def inbox_of(mailbox: Mailbox, **options: Any) -> InboxState:
    """One that is connected and listed."""
    state = InboxState(Options(**options))
    state.connected(mailbox.unread)
    state.listed(mailbox.page(state.options, state.first()))
    return state


def shown(state: InboxState) -> list[tuple[int, bool, bool]]:
    return [(number_of(e.id), e.read, e.archived) for e in state.snapshot().items]


def kept(mailbox: Mailbox, options: Options) -> list[tuple[int, bool, bool]]:
    return [(number_of(e["id"]), e["read"], e["archived"]) for e in mailbox.listed(options)]


def filled(count: int) -> Mailbox:
    mailbox = Mailbox()
    for _ in range(count):
        mailbox.publish()
    return mailbox


# --- states --------------------------------------------------------------------------------------


def test_it_loads_is_ready_goes_offline_and_tells_errors() -> None:
    state, mailbox = InboxState(Options()), filled(3)
    assert state.snapshot() == Snapshot(state="loading")
    state.connected(mailbox.unread)
    assert state.snapshot() == Snapshot(unread=3, state="loading")
    state.listed(mailbox.page(state.options, state.first()))
    ready = state.snapshot()
    assert (ready.state, ready.unread, len(ready.items)) == ("ready", 3, 3)
    state.lost()
    assert state.snapshot().state == "offline"
    assert state.snapshot().items == ready.items
    state.connected(3)
    state.first()
    error = TimeoutError("too late")
    state.failed(error)
    assert (state.snapshot().state, state.snapshot().error) == ("error", error)
    state.listed(mailbox.page(state.options, state.first()))
    assert state.snapshot() == ready


def test_a_snapshot_is_the_same_object_until_something_changes() -> None:
    mailbox = filled(2)
    state = inbox_of(mailbox)
    before = state.snapshot()
    state.counted(2)
    state.marked(Mark("read", ("9-0",)), 2)
    state.listed(mailbox.page(state.options, state.first()))
    assert state.snapshot() is before
    state.counted(1)
    assert state.snapshot() is not before


@pytest.mark.parametrize("size", [0, -1, LARGEST_PAGE + 1])
def test_a_page_has_at_least_one_and_as_many_as_the_service_lists(size: int) -> None:
    with pytest.raises(ValueError, match="page_size"):
        Options(page_size=size)


# --- what comes ----------------------------------------------------------------------------------


def test_a_new_one_is_at_the_top_and_counted_at_once() -> None:
    mailbox = filled(1)
    state = inbox_of(mailbox)
    state.notified(mailbox.publish())
    assert shown(state) == [(2, False, False), (1, False, False)]
    assert state.snapshot().unread == 2


def test_what_was_there_when_it_was_listed_and_is_delivered_late_changes_nothing() -> None:
    mailbox = filled(50)
    state = inbox_of(mailbox)
    before = state.snapshot()
    assert before.more
    for number in (1, 30, 50):
        state.notified({"id": name(number), "time": TIME, "data": number})
    assert state.snapshot() is before


def test_one_that_was_archived_before_it_is_delivered_is_not_shown() -> None:
    mailbox = filled(2)
    mailbox.mark(Mark("archive", ("2-0",)))
    state = inbox_of(mailbox)
    state.notified({"id": "2-0", "time": TIME, "data": 2, "read": True, "archived": True})
    assert shown(state) == [(1, False, False)]
    assert state.snapshot().unread == 1


def test_what_comes_before_the_first_list_is_in_that() -> None:
    mailbox, state = filled(5), InboxState(Options(page_size=2))
    state.connected(5)
    for entry in list(mailbox.entries.values()):
        state.notified(entry)
    assert state.snapshot() == Snapshot(unread=5, state="loading")
    fetch = state.first()
    assert fetch == Fetch(None, 2)
    page = mailbox.page(state.options, fetch)
    state.notified(mailbox.publish())
    assert state.listed(page)
    assert [number for number, _, _ in shown(state)] == [6, 5, 4]


def test_of_another_event_it_is_counted_and_not_listed() -> None:
    mailbox = Mailbox()
    mailbox.publish("a")
    state = inbox_of(mailbox, event="a")
    state.notified(mailbox.publish("b"))
    state.notified(mailbox.publish("a"))
    assert [n for n, _, _ in shown(state)] == [3, 1]
    assert state.snapshot().unread == 3


def test_what_is_malformed_is_an_error_and_changes_nothing() -> None:
    mailbox = filled(1)
    state = inbox_of(mailbox)
    before = state.snapshot()
    for message in (
        {},
        {"id": "2-0"},
        {"id": "x", "time": TIME, "data": 1},
        {"id": "2-0", "time": "?", "data": 1},
    ):
        with pytest.raises((LookupError, TypeError, ValueError)):
            state.notified(message)
    assert state.snapshot() is before


def test_an_endless_stream_of_new_ones_takes_no_more_memory_than_a_mailbox() -> None:
    mailbox = filled(3)
    state = inbox_of(mailbox)
    for _ in range(MOST + 50):
        state.notified(mailbox.publish())
    assert len(state.snapshot().items) == MOST
    assert state.snapshot().more
    older = state.older()
    assert older is not None
    state.listed(mailbox.page(state.options, older))
    assert shown(state) == kept(mailbox, state.options)[: MOST + 20]


def test_a_count_that_does_not_fit_to_a_whole_list_has_it_listed_anew() -> None:
    mailbox = filled(3)
    state = inbox_of(mailbox)
    assert not state.counted(3, now=True)
    del mailbox.entries[2]  # a newer one took its place, or it has expired
    assert state.counted(2, now=True)
    assert not state.counted(2)  # something came since it was asked
    state.listed(mailbox.page(state.options, state.first()))
    assert not state.counted(2, now=True)


@pytest.mark.parametrize("options", [{"event": "a"}, {"archived": True}])
def test_of_a_part_of_what_is_unread_a_count_says_only_whether_it_has_changed(
    options: dict[str, Any],
) -> None:
    state = inbox_of(filled(3), **options)
    assert not state.counted(3, now=True)
    assert state.counted(2, now=True)


def test_after_the_service_lost_data_nothing_is_shown_until_it_is_listed() -> None:
    state, mailbox = inbox_of(filled(3)), filled(1)
    state.reset(1)
    assert state.snapshot() == Snapshot(unread=1, state="loading")
    state.listed(mailbox.page(state.options, state.first()))
    assert shown(state) == [(1, False, False)]


def test_what_is_withdrawn_is_neither_shown_nor_counted() -> None:
    state = inbox_of(filled(3))
    state.withdrawn("2-0")
    state.withdrawn("9-0")
    assert shown(state) == [(3, False, False), (1, False, False)]
    assert state.snapshot().unread == 2


def test_it_says_when_the_first_of_what_it_lists_expires() -> None:
    mailbox = filled(1)
    state, then = inbox_of(mailbox), datetime.fromisoformat(TIME)
    before = then - timedelta(seconds=1)
    assert state.expiry(before) == 1
    state.notified(mailbox.publish())
    assert state.expiry(before) == 1
    state.withdrawn("1-0")
    assert state.expiry(before) is None
    state.notified({**mailbox.publish(), "ttl": 5})
    assert state.expiry(before) == 6


def test_what_should_be_gone_and_is_listed_still_is_looked_at_again() -> None:
    state, then = inbox_of(filled(1)), datetime.fromisoformat(TIME)
    assert not state.overdue(then - timedelta(seconds=1))
    for late, wait in ((0, 1), (0.5, 1), (3600, 3600)):
        now = then + timedelta(seconds=late)
        assert state.overdue(now)
        assert state.expiry(now) == wait


def test_as_many_are_listed_again_as_are_shown() -> None:
    state, mailbox = inbox_of(filled(250), page_size=90), filled(250)
    for _ in range(2):
        fetch = state.older()
        assert fetch is not None
        state.listed(mailbox.page(state.options, fetch))
    assert len(state.snapshot().items) == 250
    assert state.first() == Fetch(None, 250)


# --- marks ---------------------------------------------------------------------------------------


def test_what_is_asked_for_is_shown_at_once_and_taken_back_where_it_is_refused() -> None:
    state = inbox_of(filled(3))
    before = state.snapshot()
    state.marking(1, Mark("read", ("2-0",)))
    state.marking(2, Mark("archive", ("3-0",)))
    assert shown(state) == [(2, True, False), (1, False, False)]
    assert state.snapshot().unread == 1
    state.undo(2)
    assert shown(state) == [(3, False, False), (2, True, False), (1, False, False)]
    assert state.snapshot().unread == 2
    state.undo(1)
    assert state.snapshot() == before


def test_all_up_to_one_counts_what_is_not_listed_as_well() -> None:
    state = inbox_of(filled(50))
    state.marking(1, Mark("read", until="48-0"))
    assert state.snapshot().unread == 2
    state.undo(1)
    assert state.snapshot().unread == 50
    state.marking(2, Mark("read", until="20-0"))  # none of these is listed: it is not known
    assert state.snapshot().unread == 50
    state.marked(Mark("read", until="20-0"), 30, 2)
    assert state.snapshot().unread == 30


def test_what_comes_back_is_listed_anew() -> None:
    mailbox = filled(3)
    archive, back = Mark("archive", ("2-0",)), Mark("unarchive", ("2-0",))
    mailbox.mark(archive)
    state, archived = inbox_of(mailbox), inbox_of(mailbox, archived=True)
    assert shown(archived) == [(2, True, True)]
    mailbox.mark(back)
    assert state.marked(back, 2)
    assert not archived.marked(back, 2)
    assert shown(archived) == []
    assert not state.marked(Mark("read", ("3-0",)), 1)
    assert archived.marked(Mark("archive", ("3-0",)), 1)


# --- whatever comes in which order ---------------------------------------------------------------

ids = st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True)
marks = st.tuples(
    st.sampled_from(["read", "unread", "archive", "unarchive"]),
    st.one_of(ids, st.integers(1, 12)),
)
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("elsewhere"), marks),
        st.tuples(st.just("here"), marks),
        st.tuples(st.just("arrive")),  # one of the client's questions
        st.tuples(st.just("hear")),  # one message of the service
        st.tuples(st.just("recall"), st.integers(1, 12)),
        st.tuples(st.just("list")),
        st.tuples(st.just("older")),
        st.tuples(st.just("answer")),
        st.tuples(st.just("reconnect")),
    ),
    max_size=60,
)


class Play:
    """A service, an inbox, and what is under way between them."""

    def __init__(self, options: Options) -> None:
        self.mailbox = Mailbox()
        self.state = InboxState(options)
        self.refs = 0
        self.asked: deque[tuple[int, Mark]] = deque()
        self.told: deque[Any] = deque()
        self.page: Page | None = None
        """The answer to what was asked for, as it was when the service looked."""
        self.state.connected(0)
        self.wanted = True

    def perform(self, happening: tuple[Any, ...]) -> None:
        what, *about = happening
        getattr(self, what)(*about)

    def publish(self, event: str | None) -> None:
        message = self.mailbox.publish(event)
        self.told.append(lambda: self.state.notified(message))

    def elsewhere(self, given: tuple[MarkKind, Any]) -> None:
        mark = self.mark_of(given)
        self.mailbox.mark(mark)
        unread = self.mailbox.unread
        self.told.append(lambda: self.want(self.state.marked(mark, unread)))

    def here(self, given: tuple[MarkKind, Any]) -> None:
        self.refs += 1
        mark = self.mark_of(given)
        self.state.marking(self.refs, mark)
        self.asked.append((self.refs, mark))

    def arrive(self) -> None:
        if self.asked:
            ref, mark = self.asked.popleft()
            self.mailbox.mark(mark)
            unread = self.mailbox.unread
            self.told.append(lambda: self.want(self.state.marked(mark, unread, ref)))

    def hear(self) -> None:
        if self.told:
            self.told.popleft()()

    def recall(self, number: int) -> None:
        if self.mailbox.entries.pop(number, None) is not None:
            self.told.append(lambda: self.state.withdrawn(name(number)))

    def list(self) -> None:
        if self.page is None:
            self.wanted = False
            self.page = self.mailbox.page(self.state.options, self.state.first())

    def older(self) -> None:
        if self.page is None and (fetch := self.state.older()) is not None:
            self.page = self.mailbox.page(self.state.options, fetch)

    def answer(self) -> None:
        if self.page is not None:
            page, self.page = self.page, None
            self.state.listed(page)

    def reconnect(self) -> None:
        """What is under way is lost; what was asked and not answered is asked again."""
        while self.told:
            self.told.popleft()()  # of the old connection: the rest comes as a backlog would
        self.state.lost()
        self.state.connected(self.mailbox.unread)
        self.wanted = True

    def settle(self) -> None:
        """Everything arrives, and what is out of date is listed."""
        self.answer()
        while self.asked or self.told:
            self.arrive()
            self.hear()
        self.want(self.state.counted(self.mailbox.unread, now=True))
        if self.wanted:
            self.list()
            self.answer()

    def want(self, wanted: bool) -> None:  # noqa: FBT001 - what the state says
        self.wanted |= wanted

    @staticmethod
    def mark_of(given: tuple[MarkKind, Any]) -> Mark:
        kind, which = given
        if isinstance(which, int):
            return Mark(kind, until=name(which))
        return Mark(kind, tuple(map(name, which)))


@settings(max_examples=400)
@given(
    happenings,
    st.sampled_from([Options(), Options(3), Options(event="a"), Options(archived=True)]),
)
def test_in_the_end_it_shows_what_the_service_keeps(
    happened: list[tuple[Any, ...]], options: Options
) -> None:
    play = Play(options)
    for each in happened:
        play.perform(each)
        play.state.snapshot()
    play.settle()
    snapshot, listed = play.state.snapshot(), kept(play.mailbox, options)
    assert snapshot.unread == play.mailbox.unread
    assert shown(play.state) == listed[: len(snapshot.items)]
    assert snapshot.more is (len(snapshot.items) < len(listed))
    assert len(snapshot.items) >= min(len(listed), options.page_size) or not snapshot.more
