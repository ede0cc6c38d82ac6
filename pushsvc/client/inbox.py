"""The inboxes of a client: thin shells around what they show, which an ``InboxState`` decides.

Lists are asked for by HTTP; everything else goes over the client's connection. What one inbox asks
for is told to all inboxes of the client, and the count is asked for once for all of them.
"""

import asyncio
import logging
import ssl as tls
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from pushsvc.client import asking
from pushsvc.client.asking import MALFORMED, Only
from pushsvc.client.core import DEADLINE, TIMEOUT, Core
from pushsvc.client.errors import Closed, OutcomeUnknown, PushError, Refused
from pushsvc.client.http import Http
from pushsvc.client.inbox_state import Fetch, InboxState, Options, Snapshot
from pushsvc.client.marks import EMPTY, Mark, MarkKind
from pushsvc.client.messages import Gap, Marked, Notification, Presence, Problem, Raw, Withdrawn
from pushsvc.client.threads import Threads
from pushsvc.client.tokens import Token

GATHER: Final = 0.1
"""Seconds in which what comes makes one question for the count."""
PAUSE: Final = 0.5
"""Seconds between two lists, and between two questions for the count, while they go on changing."""
LONGEST: Final = 3600.0
"""Seconds of the longest timer, where something that is listed expires."""
MOST_KEPT: Final = 1_000_000
"""More than any mailbox keeps."""
REQUESTS: Final = 2
"""Requests for lists at a time, of all inboxes of a client."""

_log = logging.getLogger("pushsvc.client")


class Inbox:
    """What a user has been sent, and how much of it is unread: the bell in the corner.

    ::

        inbox = client.inbox()
        async for now in inbox:
            print(now.unread, [item.data for item in now.items])

    Made by ``client.inbox``. It follows what comes and what is read or archived anywhere, until the
    client ends. What is asked for here is shown at once, and taken back where it is refused.
    """

    def __init__(self, inboxes: "Inboxes", state: InboxState) -> None:
        self._inboxes = inboxes
        self.state = state
        self._changed = asyncio.Event()
        self._over = False
        self._error: Exception | None = None
        self._turn = asyncio.Lock()
        self._wanted = False
        self._asked: list[asyncio.Future[None]] = []
        """Whoever waits until it is listed anew."""
        self._lister: asyncio.Task[None] | None = None
        self._older: asyncio.Task[None] | None = None

    # --- what it shows -------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """What it shows now: the same object until something changes."""
        return self.state.snapshot()

    async def __aiter__(self) -> AsyncGenerator[Snapshot]:
        """What it shows, now and after each change; what changes meanwhile comes together.

        Any number of loops may go over one inbox. A loop ends with ``close``, and with the client.

        Raises:
            PushError: the client has ended for good, as its own loop tells.
        """
        shown: Snapshot | None = None
        while not self._over:
            changed = self._changed
            snapshot = self.state.snapshot()
            if snapshot is not shown:
                shown = snapshot
                yield snapshot
            else:
                await changed.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Follow nothing more: its loops end. Whoever asks the client for it again has a new one.

        May be called several times. The end of the client does it too.
        """
        self._inboxes.forget(self)
        self.end(None)

    # --- what is asked -------------------------------------------------------------------------

    async def refresh(self) -> None:
        """List it anew, as it does by itself after each reconnect and each gap.

        Raises:
            PushError: it is refused, or there is no answer in time.
            Closed: the inbox or the client was.
        """
        self._check()
        listed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(listed)
        self.want()
        await listed

    async def load_more(self) -> None:
        """List the next page of older ones too, where there are ``more``. Errors as ``refresh``."""
        self._check()
        if self._older is None or self._older.done():
            self._older = self._inboxes.start(self._load_more())
        older = self._older
        await asyncio.wait([older])
        if older.cancelled():
            raise self._error or _closed()
        older.result()

    async def read(self, ids: str | Iterable[str] = (), *, until: str | None = None) -> None:
        """Have some be read, for the user on all devices. It acknowledges nothing.

        Args:
            ids: one or more, listed here or not; with none at all nothing happens. What is more
                than 1000 goes in parts.
            until: all up to this one, instead, listed here or not; what came after it stays.

        Raises:
            Refused: the service does not take it.
            QueueFull: there is no connection, and no room to wait for one.
            OutcomeUnknown: there was no answer within ``timing.answer``.
            Closed: the inbox or the client was.
            ValueError: it names both, or an id is none.
        """
        await self._mark("read", ids, until)

    async def unread(self, ids: str | Iterable[str] = (), *, until: str | None = None) -> None:
        """Have some be unread, and listed again where they were archived. As ``read``."""
        await self._mark("unread", ids, until)

    async def archive(self, ids: str | Iterable[str] = (), *, until: str | None = None) -> None:
        """Have some be read, and neither listed nor counted any more. As ``read``."""
        await self._mark("archive", ids, until)

    async def unarchive(self, ids: str | Iterable[str] = (), *, until: str | None = None) -> None:
        """Have archived ones be listed again, as read. As ``read``."""
        await self._mark("unarchive", ids, until)

    async def read_all(self) -> None:
        """Have everything be read up to the newest that is shown: what comes meanwhile is not.

        That is listed first where it has not been. Of an inbox of one event only those are meant,
        listed here or not; in one of what is archived everything is read. Errors as ``read``, and
        as ``refresh``.
        """
        self._check()
        options = self.state.options
        if options.archived:
            return
        if not self.state.is_listed:
            await self.refresh()
        shown = self.snapshot()
        if not shown.items:
            return
        newest = shown.items[0].id
        if options.event is None:
            await self._mark("read", (), newest)
            return
        await self._mark("read", [item.id for item in shown.items if not item.read], None)
        if shown.more:
            every = await self._inboxes.page(options, Fetch(None, MOST_KEPT), unread=True)
            older = Mark("read", until=newest).among(each.id for each in every.notifications)
            await self._mark("read", older, None)

    async def _mark(self, kind: MarkKind, ids: str | Iterable[str], until: str | None) -> None:
        self._check()
        for mark in Mark.of(kind, ids, until):
            await self._inboxes.mark(mark)

    # --- how it is done ------------------------------------------------------------------------

    def change(self) -> None:
        """Have the loops look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def want(self) -> None:
        """List it anew, as soon as there is a connection and the last list is not too new."""
        self._wanted = True
        if self._inboxes.connected and (self._lister is None or self._lister.done()):
            self._lister = self._inboxes.start(self._list())

    def end(self, error: Exception | None) -> None:
        """Nothing comes any more."""
        if self._over:
            return
        self._over, self._error = True, error
        self.change()
        self._settle(error or _closed())
        for task in (self._lister, self._older):
            if task is not None:
                task.cancel()

    def _check(self) -> None:
        self._inboxes.check()
        if self._over:
            raise self._error or Closed("the inbox is closed: ask the client for another one")

    async def _list(self) -> None:
        while self._wanted and self._inboxes.connected:
            self._wanted = False
            waiting, self._asked = self._asked, []
            error: Exception | None = None
            try:
                async with self._turn:
                    await self._fetch(self.state.first())
            except Exception as failure:  # noqa: BLE001 - it is told to who asked, and shown
                error = failure
            finally:
                _tell(waiting, error)
            await asyncio.sleep(PAUSE)

    async def _load_more(self) -> None:
        async with self._turn:
            fetch = self.state.older()
            if fetch is not None:
                await self._fetch(fetch)

    async def _fetch(self, fetch: Fetch) -> None:
        try:
            page = await self._inboxes.page(self.state.options, fetch)
            again = self.state.listed(page)
        except Exception as error:
            self.state.failed(error)
            raise
        finally:
            self.change()
        if again:
            self._inboxes.recount()
        self._inboxes.expect()

    def _settle(self, error: Exception) -> None:
        waiting, self._asked = self._asked, []
        _tell(waiting, error)


class Inboxes:
    """All inboxes of one client.

    Args:
        url: of the service.
        token: whatever returns the client's token.
        ssl: for https; the system's by default.
        ask: asks the service over the connection, as often as it takes.
        check: raises where the client is not in use.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        ssl: tls.SSLContext | None,
        ask: Callable[[Raw], Awaitable[Raw]],
        check: Callable[[], None],
    ) -> None:
        self._url = url
        self._token = token
        self._ssl = ssl
        self._ask = ask
        self.check = check
        self.connected = False
        self.tasks: set[asyncio.Task[None]] = set()
        """What runs for them."""
        self._user: str | None = None
        self._unread: int | None = None
        self._inboxes: dict[Options, Inbox] = {}
        self._io: Threads | None = None
        self._core: Core | None = None
        self._marks = 0
        self._uncounted = False
        self._counting: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def open(self, options: Options) -> Inbox:
        """The inbox with these options: one for all who ask for it."""
        inbox = self._inboxes.get(options)
        if inbox is None:
            state = InboxState(options)
            inbox = self._inboxes[options] = Inbox(self, state)
            if self.connected:
                state.connected(self._unread)
            inbox.want()
        return inbox

    @property
    def used(self) -> bool:
        """Whether there is any."""
        return bool(self._inboxes)

    def forget(self, inbox: Inbox) -> None:
        """This one is not told anything any more."""
        if self._inboxes.get(inbox.state.options) is inbox:
            del self._inboxes[inbox.state.options]

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the client."""
        task = asyncio.create_task(work, name="pushsvc.client inbox")
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who waits for it was told, and asyncio would complain

    # --- what comes ----------------------------------------------------------------------------

    def welcomed(self, message: Raw) -> None:
        """There is a connection."""
        self.connected = True
        self._user = message.get("user")
        self._counted(message.get("unread"))
        for inbox in self._all():
            inbox.state.connected(self._unread)
            inbox.want()
            inbox.change()

    def lost(self) -> None:
        """The connection has ended."""
        self.connected = False
        for inbox in self._all():
            inbox.state.lost()
            inbox.change()

    def notified(self, notification: Notification) -> None:
        """A notification came, for the first time."""
        if not notification.inbox:
            return
        for inbox in self._all():
            try:
                inbox.state.notified(notification.raw)
            except MALFORMED as error:
                _log.warning("an inbox passed over what is malformed: %r", error)
                return
            inbox.change()
        self.recount()

    def told(self, message: Gap | Withdrawn | Presence | Marked | Problem) -> None:
        """Something else came."""
        match message:
            case Marked() if message.mark.nothing:
                self.recount()  # and list anew where that is another one than it was
            case Marked():
                self._marked(message.mark, message.unread, None)
            case Withdrawn():
                for inbox in self._all():
                    inbox.state.withdrawn(message.id)
                    inbox.change()
                self.recount()
            case Gap() if message.topic is None and not message.broadcast:
                unread = message.raw.get("unread")
                self._counted(unread)
                for inbox in self._all():
                    if message.reason == "reset":
                        inbox.state.reset(unread)
                    inbox.want()
                    inbox.change()

    def end(self, error: Exception | None) -> None:
        """The client has ended."""
        self.connected = False
        for inbox in self._all():
            inbox.close() if error is None else inbox.end(error)
        for task in self.tasks:
            task.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._io is not None:
            self._io.close()

    # --- what is asked -------------------------------------------------------------------------

    async def page(self, options: Options, fetch: Fetch, *, unread: bool = False) -> asking.Page:
        """A part of a list, or of what is unread in it: a page of the service may be short.

        Raises:
            PushError: it is refused, or there is no answer in time.
        """
        if self._core is None:
            self._io = Threads(Http(self._url, REQUESTS, self._ssl), REQUESTS)
            self._core = Core(self._io, self._token, DEADLINE, TIMEOUT)
        only = Only(unread=unread, event=options.event, archived=options.archived, inbox=True)
        user, before = str(self._user), fetch.before
        found: tuple[asking.Kept, ...] = ()
        while True:
            most = min(fetch.limit - len(found), asking.LARGEST_PAGE)
            page = await self._core.ask(asking.page(user, before, most, only))
            if page.unread is None:
                why = "this node keeps no read state: upgrade it"
                raise Refused(why, code="not_found", status=404)
            found, before = found + page.notifications, page.next
            if before is None or len(found) >= fetch.limit:
                return replace(page, notifications=found)

    async def mark(self, mark: Mark) -> None:
        """Have something be marked, which is shown meanwhile. Errors as ``Inbox.read``."""
        self._marks += 1
        ref = self._marks
        for inbox in self._all():
            inbox.state.marking(ref, mark)
            inbox.change()
        try:
            answer = await self._ask({"type": mark.kind, **mark.which()})
            unread = int(answer["unread"])
        except BaseException as error:
            for inbox in self._all():
                inbox.state.undo(ref)
                inbox.change()
                if not isinstance(error, Refused):
                    inbox.want()  # it may have happened
            if isinstance(error, MALFORMED):
                raise OutcomeUnknown("the answer does not say how many are unread") from None
            raise
        self._marked(mark, unread, ref)

    def _marked(self, mark: Mark, unread: int, ref: int | None) -> None:
        self._unread = unread
        for inbox in self._all():
            if inbox.state.marked(mark, unread, ref):
                inbox.want()
            inbox.change()

    def recount(self) -> None:
        """Ask for the count in a moment: more may come, and one question is enough."""
        self._uncounted = True
        if self._inboxes and (self._counting is None or self._counting.done()):
            self._counting = self.start(self._count())

    def expect(self) -> None:
        """Once something that is listed has expired, list that anew, and ask for the count."""
        if self._expiry is not None:
            self._expiry.cancel()
        now = datetime.now(UTC)
        waits = [each for inbox in self._all() if (each := inbox.state.expiry(now)) is not None]
        if waits:
            wait = min(min(waits) + PAUSE, LONGEST)
            self._expiry = asyncio.get_running_loop().call_later(wait, self._expired)

    def _expired(self) -> None:
        now = datetime.now(UTC)
        for inbox in self._all():
            if inbox.state.overdue(now):
                inbox.want()
        self.recount()
        self.expect()

    async def _count(self) -> None:
        while self._uncounted and self._inboxes:
            await asyncio.sleep(GATHER)
            self._uncounted = False
            try:
                unread = int((await self._ask(dict(EMPTY)))["unread"])
            except PushError as error:
                wait = getattr(error, "retry_after", None)
                if wait is None:
                    _log.info("no count of what is unread: %s", error)
                    return  # the next list, or the next welcome, has it
                self._uncounted = True
                await asyncio.sleep(wait)
                continue
            if not self._uncounted:  # else it may be older than what came
                self._counted(unread, now=True)
            self.expect()
            await asyncio.sleep(PAUSE)

    def _counted(self, unread: int | None, *, now: bool = False) -> None:
        self._unread = self._unread if unread is None else unread
        for inbox in self._all():
            if inbox.state.counted(unread, now=now):
                inbox.want()
            inbox.change()

    def _all(self) -> list[Inbox]:
        return list(self._inboxes.values())


def _closed() -> Closed:
    return Closed("the inbox was closed before this was answered")


def _tell(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for each in waiting:
        if each.done():
            continue
        if error is None:
            each.set_result(None)
        else:
            each.set_exception(error)
            each.exception()  # whoever was cancelled does not look
