"""What an inbox shows, whatever comes in which order: events in, what is to be asked for out.

It knows no socket and no clock. What it shows is what the service said last, and on top of that
what was asked for and is not answered yet. An answer to a list that was asked for may be older
than what came meanwhile: that is kept, and said again on top of it.
"""

from base64 import b64decode
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pushsvc.client.asking import LARGEST_PAGE, Kept, Page
from pushsvc.client.feed import START, parse
from pushsvc.client.marks import Mark

MOST: Final = 1000
"""Notifications that are held; what is older is listed again when it is asked for."""
LATE: Final = 1.0
"""Seconds, at the least, between two looks at what should be gone."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InboxItem:
    """A notification as an inbox has it."""

    id: str
    """``<milliseconds>-<sequence>``, growing within the mailbox."""
    time: datetime
    """When it was published, in UTC."""
    data: Any
    """What was published: any JSON value, or bytes."""
    event: str | None
    read: bool
    """Whether the user has seen it, on whatever device."""
    archived: bool
    raw: Json = field(repr=False, compare=False)
    """As it was sent: its fields are those of PROTOCOL.md."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an inbox shows at a moment."""

    items: tuple[InboxItem, ...] = ()
    """Newest first."""
    unread: int = 0
    """How many notifications of the user are unread: not only of those that are listed here."""
    state: Literal["loading", "ready", "offline", "error"] = "loading"
    """``offline``: there is no connection; what is shown is what was known when it ended."""
    error: Exception | None = None
    """Why it could not be listed."""
    more: bool = False
    """Whether there are older ones, for ``load_more``."""


@dataclass(frozen=True, slots=True)
class Options:
    """Which notifications an inbox lists.

    Raises:
        ValueError: the size of a page is out of its bounds.
    """

    page_size: int = 20
    event: str | None = None
    archived: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= LARGEST_PAGE:
            raise ValueError(f"page_size is from 1 to {LARGEST_PAGE}")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for so many, which may take several pages."""

    before: str | None
    limit: int


def item_of(told: Json) -> InboxItem:
    """A notification of a message, or of a list.

    Raises:
        LookupError, TypeError, ValueError: it is not as documented.
    """
    data, time = told["data"], told.get("time")
    milliseconds, _ = parse(told["id"])  # the same instant
    return InboxItem(
        id=told["id"],
        time=datetime.fromisoformat(time)
        if time
        else datetime.fromtimestamp(milliseconds / 1e3, UTC),
        data=b64decode(data) if told.get("encoding") == "base64" else data,
        event=told.get("event"),
        read=bool(told.get("read")),
        archived=bool(told.get("archived")),
        raw=told,
    )


class InboxState:
    """One list, and the count of what is unread.

    Args:
        options: what it lists.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._connected: bool | None = None
        """None before the first connection."""
        self._items: dict[str, InboxItem] = {}
        """Oldest first, as the service said last; without a hole down to the oldest."""
        self._unread = 0
        self._more = False
        self._next: str | None = None
        """The ``before`` of the next page."""
        self._listed = False
        self._error: Exception | None = None
        self._asked: Fetch | None = None
        self._meanwhile: deque[Mark | InboxItem | str] = deque(maxlen=MOST)
        """What came since a page was asked for: marks, new ones, and the ids of withdrawn ones."""
        self._marks: dict[int, Mark] = {}
        """What was asked for and is not answered yet, oldest first."""
        self._shown = Snapshot()
        self._stale = True
        self._whole = options.event is None and not options.archived
        """Whether what is unread is in this list, on some page."""

    # --- what is shown -------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What to show now: the same object until something changes."""
        if self._stale:
            self._stale = False
            fresh = self._made()
            if fresh != self._shown:
                self._shown = fresh
        return self._shown

    def _made(self) -> Snapshot:
        items, unread = self._items, self._unread
        for mark in self._marks.values():
            items, unread = self._expected(mark, items, unread)
        state: Literal["loading", "ready", "offline", "error"] = "ready"
        if self._error is not None:
            state = "error"
        elif self._connected is False:
            state = "offline"
        elif not self._listed:
            state = "loading"
        shown = tuple(reversed(items.values()))
        return Snapshot(shown, unread, state, self._error, self._more)

    def _expected(
        self, mark: Mark, items: dict[str, InboxItem], unread: int
    ) -> tuple[dict[str, InboxItem], int]:
        """What will be listed and counted once a mark is answered, as far as it can be known."""
        after = self._marked(mark, items)
        if self._whole and mark.until is not None and mark.kind in ("read", "archive"):
            oldest = next(iter(items), None)
            if oldest is None or not self._more or mark.among([oldest]):
                done = mark.among(items)  # and all that is not listed
                return after, _unread(each for each in items.values() if each.id not in done)
        return after, max(0, unread + _unread(after.values()) - _unread(items.values()))

    def _marked(self, mark: Mark, items: dict[str, InboxItem]) -> dict[str, InboxItem]:
        """These, once a mark is done: some are read or unread, and some are of another list."""
        named = mark.among(items)
        if mark.kind in (("unread", "unarchive") if self.options.archived else ("archive",)):
            return {name: each for name, each in items.items() if name not in named}
        if self.options.archived or mark.kind not in ("read", "unread"):
            return items
        read = mark.kind == "read"
        return {
            name: replace(each, read=read) if name in named and each.read is not read else each
            for name, each in items.items()
        }

    def _brings_back(self, mark: Mark) -> bool:
        """Whether it may bring some into this list that are not known."""
        back = ("archive",) if self.options.archived else ("unread", "unarchive")
        if mark.kind not in back or not self._listed:
            return False
        if mark.until is not None:
            return True
        oldest = parse(next(iter(self._items))) if self._more and self._items else START
        return any(each not in self._items and parse(each) >= oldest for each in mark.ids)

    # --- what is asked for ---------------------------------------------------------------------

    def first(self) -> Fetch:
        """Ask for the newest, as many as there are here: all is looked at anew."""
        return self._ask(Fetch(None, max(len(self._items), self.options.page_size)))

    @property
    def is_listed(self) -> bool:
        """Whether it has been listed, since the service lost data at the latest."""
        return self._listed

    def older(self) -> Fetch | None:
        """Ask for the next page; None where there is none."""
        if not self._more:
            return None
        return self._ask(Fetch(self._next, self.options.page_size))

    def _ask(self, fetch: Fetch) -> Fetch:
        self._asked = fetch
        self._meanwhile.clear()
        return fetch

    def listed(self, page: Page) -> bool:
        """A page that was asked for is there; whether the count is to be asked for.

        Raises:
            LookupError, TypeError, ValueError: it is not as documented.
        """
        fetch, self._asked = self._asked, None
        items = {each.id: each for each in map(_of_list, reversed(page.notifications))}
        if fetch is not None and fetch.before is not None:
            items |= self._items
        self._items = items
        self._next, self._more = page.next, page.next is not None
        self._listed, self._error = True, None
        self.counted(page.unread)
        meanwhile = list(self._meanwhile)
        self._meanwhile.clear()
        for each in meanwhile:
            self._note(each)
        self._stale = True
        return bool(meanwhile)

    def failed(self, error: Exception) -> None:
        """What was asked for is refused, or there is no answer: so it stays until it is listed."""
        self._asked = None
        self._error = error
        self._stale = True

    # --- what comes ----------------------------------------------------------------------------

    def connected(self, unread: int | None) -> None:
        """There is a connection, and this is the count; what came meanwhile is to be listed."""
        self._connected = True
        self.counted(unread)
        self._stale = True

    def lost(self) -> None:
        """The connection has ended."""
        self._connected = False
        self._stale = True

    def counted(self, unread: int | None, *, now: bool = False) -> bool:
        """The service said how many are unread; whether that shows that the list is out of date.

        Args:
            unread: how many; None where it did not say.
            now: whether nothing has come since it was asked.
        """
        if unread is None:
            return False
        before, self._unread = self._unread, unread
        self._stale = True
        if not now or not self._listed or self._marks:
            return False
        listed = _unread(self._items.values())
        if self._whole and (listed > unread or (not self._more and listed < unread)):
            return True
        return unread != before  # something is gone, or is there, of which nobody told

    def notified(self, message: Json) -> None:
        """A notification of the mailbox came, for the first time.

        Raises:
            LookupError, TypeError, ValueError: it is not as documented.
        """
        item = item_of(message)
        newest = next(reversed(self._items), None)
        if newest is not None and parse(item.id) <= parse(newest):
            return  # it was there when the list was made: here, further down, or in the other list
        self._stale = True
        if self._listed and not item.read:
            self._unread += 1  # until the service has said
        if item.archived is self.options.archived and self.options.event in (None, item.event):
            self._come(item)

    def withdrawn(self, id: str) -> None:  # noqa: A002 - as everywhere
        """A notification was recalled, or another device has settled it."""
        known = self._items.get(id)
        if known is not None and not known.read:
            self._unread = max(0, self._unread - 1)  # until the service has said
        self._come(id)

    def reset(self, unread: int | None) -> None:
        """The service has lost data, and ids begin anew."""
        self._items, self._listed, self._more, self._next = {}, False, False, None
        self._meanwhile.clear()
        self._stale = True
        self.counted(unread)

    def expiry(self, now: datetime) -> float | None:
        """In how many seconds to list it anew, since the first of it is gone then.

        What is listed still, and should be gone by the clock here, is looked at again after as
        long as it is late: that clock may be ahead of the service's.
        """
        left = [(end - now).total_seconds() for each in self._items.values() if (end := _end(each))]
        return min((each if each > 0 else max(LATE, -each) for each in left), default=None)

    def overdue(self, now: datetime) -> bool:
        """Whether something is listed that should be gone by now."""
        return any((end := _end(each)) and end <= now for each in self._items.values())

    def marked(self, mark: Mark, unread: int | None, ref: int | None = None) -> bool:
        """Something was marked, here as ``ref`` or elsewhere; whether to list anew."""
        if ref is not None:
            self._marks.pop(ref, None)
        again = self._brings_back(mark)
        self._come(mark)
        self.counted(unread)
        return again

    def marking(self, ref: int, mark: Mark) -> None:
        """Something is asked for: it is shown as if it were done."""
        self._marks[ref] = mark
        self._stale = True

    def undo(self, ref: int) -> None:
        """It is not done after all."""
        self._marks.pop(ref, None)
        self._stale = True

    def _come(self, what: Mark | InboxItem | str) -> None:
        if self._asked is not None:
            self._meanwhile.append(what)
        if self._listed:  # else it is in the list that is still to be asked for
            self._note(what)
        self._stale = True

    def _note(self, what: Mark | InboxItem | str) -> None:
        """Bring the list up to date with what came."""
        if isinstance(what, Mark):
            self._items = self._marked(what, self._items)
        elif isinstance(what, str):
            self._items.pop(what, None)
        else:
            self._insert(what)

    def _insert(self, item: InboxItem) -> None:
        newest = next(reversed(self._items), None)
        if newest is not None and parse(item.id) <= parse(newest):
            return
        self._items[item.id] = item
        if len(self._items) > MOST:
            del self._items[next(iter(self._items))]
            self._next, self._more = next(iter(self._items)), True


def _end(item: InboxItem) -> datetime | None:
    """When it leaves the mailbox, where that is known."""
    expires, ttl = item.raw.get("expires"), item.raw.get("ttl")
    if expires:
        return datetime.fromisoformat(expires)
    return item.time + timedelta(seconds=ttl) if ttl else None


def _of_list(kept: Kept) -> InboxItem:
    return item_of(kept.raw)


def _unread(items: Iterable[InboxItem]) -> int:
    return sum(not each.read for each in items)
