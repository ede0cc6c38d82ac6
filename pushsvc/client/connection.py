"""The client on a WebSocket: a thin shell of asyncio around a session, which decides.

One task holds the connection, reads it, and makes the next one when it ends; it lives as long as
the ``async with`` block, and nothing outlives that.
"""

import asyncio
import json
import logging
import random
import ssl as tls
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast
from urllib.parse import urlencode, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from pushsvc.client import session, wire
from pushsvc.client.backoff import Again, Ended, ReconnectPolicy
from pushsvc.client.errors import Closed, NoAnswer, OutcomeUnknown, PushError, Refused
from pushsvc.client.feed import ACK_PAUSE
from pushsvc.client.forks import require_own
from pushsvc.client.hints import checked_token, no_answer, place, split_address
from pushsvc.client.inbox import Inbox, Inboxes
from pushsvc.client.inbox_state import Options
from pushsvc.client.incoming import Incoming
from pushsvc.client.messages import Message, Notification, Present, Raw, Withdrawn
from pushsvc.client.tokens import Token, ask_for_token

CLOSE_TIMEOUT: Final = 3.0
"""Seconds that the service has to answer a close."""
MAX_MESSAGE: Final = 16 * 2**20
"""Bytes of a message of the service: far more than any node is set to send."""
PULSE: Final = 1.0
"""Seconds between two signs of life while the program is too slow for what comes."""

_log = logging.getLogger("pushsvc.client")


@dataclass(frozen=True, slots=True)
class State:
    """What a client is doing."""

    status: Literal["connecting", "connected", "waiting", "closed"]
    connection: str | None = None
    """The id of the connection, while there is one."""
    user: str | None = None
    """Whose mailbox it is, while connected."""
    retry_in: float | None = None
    """While waiting: seconds from the moment of this state until the next try."""
    error: Exception | None = None
    """Why it waits, or is closed for good."""


class Client:
    """One device of one user, over as many connections as it takes. Made by ``connect``.

    It belongs to the event loop in which it was entered: elsewhere, as in a process that was forked
    since, its calls raise ``RuntimeError``. Make one in each.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        device: str,
        topics: Mapping[str, str | None],
        *,
        auto_ack: bool,
        queue: int,
        reconnection: ReconnectPolicy,
        ssl: tls.SSLContext | None,
        on_state: Callable[[State], None] | None,
        on_message: Callable[[Raw], None] | None,
    ) -> None:
        self._url = url
        self._address = _address(url, device)
        self._welcomed = False
        self._provider = token
        self._token: str | None = None
        self._refused = False
        self._session = session.Session(topics, queue)
        self._reconnection = reconnection
        self._auto_ack = auto_ack
        self._incoming = Incoming(auto_ack=auto_ack, done=self._handled, idle=self._flush)
        of_lists = token if isinstance(token, str) else self._token_of_lists
        self._lists_with: str | None = None
        """The token that lists were last asked for with."""
        self._inboxes = Inboxes(_http(url), of_lists, ssl, self._asked, self._check)
        self._iterated = False
        """Whether the program has ever taken what comes."""
        self._taking: asyncio.Task[None] | None = None
        self._ssl = ssl
        self._on_state = on_state
        self._on_message = on_message
        self._state = State("connecting")
        self._socket: ClientConnection | None = None
        self._up_since = 0.0
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answers: dict[int, asyncio.Future[Raw]] = {}
        self._acking: asyncio.Task[None] | None = None

    # --- lifetime ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a client is entered once: make another one with connect()")
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="pushsvc.client")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Acknowledge what is done, close the connection, and end every loop over this client.

        Then another client of the same device is not sent again what was acknowledged, unless there
        was no connection, or the service could not write that within 2 seconds.

        May be called several times, and from another task than the one that iterates.
        """
        require_own(self._loop, "client")
        task = self._task
        if task is None:
            return
        try:
            if not task.done():
                await self._flush()
                if self._socket is not None:
                    await self._socket.close()
        finally:
            beside = [each for each in (self._acking, self._taking) if each is not None]
            tasks = [task, *beside, *self._inboxes.tasks]
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
            self._finish(None)  # a task that is cancelled before it began runs no `finally`

    @property
    def state(self) -> State:
        """What the client is doing now."""
        return self._state

    # --- what comes ----------------------------------------------------------------------------

    def __aiter__(self) -> AsyncGenerator[Message]:
        """What the service sends: notifications, each once and in the order of its feed, and more.

        A notification of the mailbox or the broadcast is acknowledged when the next one is asked
        for. A loop that is left before that, by ``break`` or an error, has not acknowledged the
        last one: it comes first in the next loop, or to the next client. ``await n.ack()`` before
        the ``break`` where it is done. One loop at a time.

        Raises:
            Refused: coming back is useless.
            Unavailable: there was no connection for as long as ``patience`` said.
        """
        require_own(self._loop, "client")
        self._iterated = True
        if self._taking is not None:
            self._taking.cancel()
        return self._incoming.loop()

    def inbox(
        self, *, page_size: int = 20, event: str | None = None, archived: bool = False
    ) -> Inbox:
        """The user's inbox: what was sent to the user, newest first, and how much of it is unread.

        With the same arguments it is the same one, so that what several parts of a program show
        is asked for once. While the program does not iterate over this client, and never did, what
        comes is acknowledged here, unless ``ack`` is ``manual``: so a program that shows an inbox
        needs no other loop. One that has a loop begins it before.

        Args:
            page_size: how many are listed at first, and with each ``load_more``; up to 100.
            event: only those of this event; the count is that of all.
            archived: those that are archived, and no others.

        Raises:
            ValueError: ``page_size`` is out of its bounds.
            Closed: the client is.
        """
        options = Options(page_size, event, archived)
        self._check()
        inbox = self._inboxes.open(options)
        taken = self._taking is not None and not self._taking.done()
        if self._auto_ack and not self._iterated and not taken:
            self._taking = asyncio.create_task(self._take_all(), name="pushsvc.client inbox")
        return inbox

    async def _take_all(self) -> None:
        """Have what comes be done while there is an inbox, as nobody else takes it."""
        async with aclosing(self._incoming.loop()) as messages:
            with suppress(Exception):  # who iterates over the inbox is told
                async for _ in messages:
                    if not self._inboxes.used:
                        return  # this one is not done

    async def _handled(self, item: Notification, *, at_once: bool = False) -> None:
        self._incoming.settled(item)
        if item.feed is not None and item.id is not None:
            now = time.monotonic()
            await self._perform(self._session.handled(item.feed, item.id, now, at_once=at_once))
            if self._session.behind and (self._acking is None or self._acking.done()):
                # Whatever the program does next, and for how long: this one is done.
                self._acking = asyncio.create_task(self._flush_soon(), name="pushsvc.client acks")

    async def _flush_soon(self) -> None:
        await asyncio.sleep(ACK_PAUSE)
        await self._flush()

    async def _acked(self, item: Notification) -> None:
        require_own(self._loop, "client")
        await self._handled(item, at_once=True)

    async def _flush(self) -> None:
        await self._perform(self._session.flush(time.monotonic()))

    # --- what is asked -------------------------------------------------------------------------

    async def subscribe(self, topic: str, *, since: str | None = None) -> str:
        """Listen to a topic, on this connection and all that follow; the topic's newest id.

        Args:
            topic: its name; the token's ``topics.subscribe`` covers it.
            since: go on after this id; ``"0-0"`` for all that is kept. None for the topic's state:
                the latest notification of each ``collapse_key``.

        Raises:
            Refused: the token does not cover it, or there are too many.
            QueueFull: there is no connection, and no room to wait for one.
            OutcomeUnknown: there was no answer within ``timing.answer``.
            ValueError: ``since`` for a topic that is listened to already: what it would bring
                again was given already.
        """
        if since is not None and self._session.listens(topic):
            raise ValueError(f"{topic!r} is listened to already: to begin anew, unsubscribe first")
        start = {} if since is None else {"since": since}
        message = {"type": "subscribe", "topic": topic, **start}
        return str((await self._ask(message, repeatable=True))["last"])

    async def unsubscribe(self, topic: str) -> None:
        """Stop listening to a topic. Errors are as those of ``subscribe``."""
        await self._ask({"type": "unsubscribe", "topic": topic}, repeatable=True)

    async def presence(self, topic: str) -> Present:
        """Who listens to a topic: ``users, count``, at most 500 by name, and how many they are.

        If this client listens to the topic itself, it is given ``Presence`` messages from then on,
        until it unsubscribes; after a reconnect, of what changed meanwhile. Of a large topic, with
        more than 1000, ``sample`` of the answer is true: the users are some of them, and the
        messages tell a ``count`` and no names, until this is called again and the topic is small.
        Errors are as those of ``subscribe``.
        """
        answer = await self._ask({"type": "presence", "topic": topic}, repeatable=True)
        users, sample = tuple(answer["users"]), bool(answer.get("sample"))
        return Present(users, int(answer["count"]), sample=sample)

    async def publish(
        self,
        topic: str,
        data: Any,
        *,
        event: str | None = None,
        ttl: float | None = None,
        collapse_key: str | None = None,
        ephemeral: bool = False,
    ) -> str | None:
        """Publish to a topic as this user; the id, or None for what is not stored.

        Args:
            topic: its name; the token's ``topics.publish`` covers it.
            data: any JSON value, or bytes.
            event: what kind of notification it is.
            ttl: seconds that it is worth delivering; 0 is live only.
            collapse_key: takes the place of an older one with this key.
            ephemeral: worthless a moment later: it is sent now or, without a connection, not at
                all, and nothing is awaited. A refusal comes as a ``Problem`` in the loop.

        Raises:
            Refused: the token does not cover it, it is too large, or the rate is used up.
            OutcomeUnknown: the connection ended before the answer, or there was none within
                ``timing.answer``: it may have happened.
            QueueFull: there is no connection, and no room to wait for one.
            TypeError, ValueError: ``data`` is no JSON value: nothing was sent.
        """
        message: Raw = {"type": "publish", "topic": topic, **_encoded(data)}
        fields = {"event": event, "ttl": ttl, "collapse_key": collapse_key}
        message |= {name: value for name, value in fields.items() if value is not None}
        if ephemeral:
            self._check()
            send = session.Send({**message, "ephemeral": True})
            if self._session.connected:
                await self._perform([send])
            return None
        answer = await self._ask(message, repeatable=False)
        return cast("str | None", answer.get("id"))

    async def _asked(self, message: Raw) -> Raw:
        return await self._ask(message, repeatable=True)

    async def _ask(self, message: Raw, *, repeatable: bool) -> Raw:
        self._check()
        ref, effects = self._session.ask(message, repeatable=repeatable)
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self._answers[ref] = answer
        self._incoming.hurry()  # the answer stands behind what the program has not taken yet
        try:
            await self._perform(effects)
            return await self._within_time(answer)
        finally:
            self._answers.pop(ref, None)
            self._session.forget(ref)
            if answer.done() and not answer.cancelled():
                answer.exception()  # a cancelled caller does not look, and asyncio would complain

    async def _within_time(self, answer: asyncio.Future[Raw]) -> Raw:
        """What is answered, for which there is limited time once there is a connection."""
        limit = self._reconnection.timing.answer
        asked = time.monotonic()
        while True:
            left = limit
            if self._session.connected:
                left -= time.monotonic() - max(asked, self._up_since)
            if left <= 0:
                raise OutcomeUnknown(
                    f"no answer within {limit:g} s: it may have happened, or not; or the program"
                    " does not take what came before it"
                )
            await asyncio.wait([answer], timeout=left)
            if answer.done():
                return answer.result()

    def _check(self) -> None:
        if self._task is None:
            raise RuntimeError("use the client within `async with`")
        require_own(self._loop, "client")
        if self._incoming.over:
            raise self._incoming.error or Closed("the client is closed: open a new one")

    # --- the connection ------------------------------------------------------------------------

    async def _run(self) -> None:
        """Hold a connection, again and again, until there is no point in it."""
        error: Exception | None = None
        try:
            while error is None:
                error = await self._try()
        except Exception as unforeseen:  # noqa: BLE001 - told to who iterates, as it is
            error = unforeseen
        finally:
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        """No connection will come any more."""
        if self._incoming.over:
            return
        if error is not None:
            _log.error("the client of %s has ended for good: %s", place(self._url), error)
        self._incoming.end(error)
        self._inboxes.end(error)
        for effect in self._session.ended(error if isinstance(error, PushError) else None):
            self._answer(effect)
        self._say(State("closed", error=error))

    async def _try(self) -> PushError | None:
        """One connection, and the pause after it; why it was the last one, if it was."""
        self._say(State("connecting"))
        ended = await self._connection()
        if isinstance(ended, PushError):
            return ended
        now = time.monotonic()
        again = self._reconnection.after(ended, now, random.random())  # noqa: S311 - jitter, no secret
        if not isinstance(again, Again):
            return again
        if again.new_token and not isinstance(self._provider, str):
            self._token, self._refused = None, again.refused
        why = ended.refusal or ended.error
        said = why or ended.reason or ended.close_code or "it was closed"
        # What was up and ended is a node that is restarted, as a rule.
        level = logging.INFO if ended.up else logging.WARNING
        where = place(self._url)
        _log.log(level, "no connection to %s: again in %.1f s: %s", where, again.delay, said)
        self._say(State("waiting", retry_in=again.delay, error=why))
        self._inboxes.lost()
        await asyncio.sleep(again.delay)
        return None

    async def _connection(self) -> Ended | PushError:
        """One connection from its handshake to its end; how it ended."""
        try:
            if self._token is None:
                self._token = await self._new_token(refused=self._refused)
        except PushError as error:
            return error  # the provider's own verdict
        except Exception as error:  # noqa: BLE001 - whatever a provider raises may pass
            _log.warning("the function that returns tokens failed: %r", error)
            return Ended(error=error)
        self._up_since = hint = 0.0
        try:
            async with wire.open_socket(
                self._address,
                subprotocols=[Subprotocol("pushsvc.v1.json")],
                additional_headers={"Authorization": f"Bearer {self._token}"},
                compression=None,
                open_timeout=self._reconnection.timing.open,
                close_timeout=CLOSE_TIMEOUT,
                ping_interval=None,  # its own would take a slow program for a dead service
                max_size=MAX_MESSAGE,
                # None would be refused for wss; True is the system's authorities.
                ssl=self._ssl or (True if self._address.startswith("wss:") else None),
            ) as self._socket:
                try:
                    await self._read(self._socket)
                finally:
                    hint = self._session.retry_after
                    self._inboxes.lost()
                    for effect in self._session.lost(self._socket.protocol.close_code):
                        self._answer(effect)
        except ConnectionClosed as error:
            received = error.rcvd
            code = None if received is None else received.code
            reason = "" if received is None else received.reason
            why = None if received else self._no_answer(error)
            return Ended(self._up(), code, reason, hint, error=why)
        except _Left as left:
            return Ended(self._up(), retry_after=left.retry_after)
        except InvalidStatus as error:
            return _refusal(error)
        except (OSError, InvalidHandshake) as error:
            return Ended(self._up(), error=self._no_answer(error))
        finally:
            self._socket = None
        return Ended(self._up())

    def _no_answer(self, error: Exception) -> NoAnswer:
        return no_answer(error, self._url, first=not self._welcomed)

    def _up(self) -> float:
        return time.monotonic() - self._up_since if self._up_since else 0.0

    async def _read(self, socket: ClientConnection) -> None:
        """Act on what comes until the connection ends.

        Raises:
            ConnectionClosed: it did.
        """
        renewals: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.timeout(self._reconnection.timing.open):
                while not self._session.connected:
                    await self._take(await socket.recv(), renewals)
            self._up_since = time.monotonic()
            self._welcomed = True
            _log.info("connected to %s", place(self._url))
            welcomed = self._session.welcome
            self._say(State("connected", welcomed.get("connection"), welcomed.get("user")))
            self._inboxes.welcomed(welcomed)
            while True:
                await self._room(socket)
                await self._take(await wire.receive(socket), renewals)
        finally:
            for renewal in renewals:
                renewal.cancel()
            if renewals:
                await asyncio.wait(renewals)

    async def _room(self, socket: ClientConnection) -> None:
        """Wait until one more message may be read.

        Raises:
            ConnectionClosed: it was, meanwhile.
        """
        # While an answer is awaited some more is read: it stands behind the rest.
        while not self._incoming.has_room(read_ahead=bool(self._answers)):
            try:
                async with asyncio.timeout(PULSE):
                    await self._incoming.taken()
            except TimeoutError:
                await socket.pong()  # who does not read answers no ping, and lives

    async def _take(self, text: str | bytes, renewals: set[asyncio.Task[None]]) -> None:
        message = _parsed(text)
        if message is None:
            _log.warning("passed over what is no message: %.200r", text)
            return
        if self._on_message is not None:
            self._on_message(message)
        try:
            effects = self._session.received(message)
        except session.MALFORMED as error:
            _log.warning("passed over a message that is malformed (%r): %.200r", error, text)
            return
        if any(isinstance(effect, session.Renew) for effect in effects) and not renewals:
            renewal = asyncio.create_task(self._renew(), name="pushsvc.client token")
            renewals.add(renewal)
            renewal.add_done_callback(renewals.discard)
        await self._perform(effects)

    async def _perform(self, effects: Iterable[session.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, session.Send):
                if self._socket is not None:
                    await wire.send(self._socket, effect.text)
            elif isinstance(effect, session.Give):
                notification = Notification(effect.message, effect.feed, self._acked)
                self._inboxes.notified(notification)
                self._incoming.put(notification)
            elif isinstance(effect, session.Tell):
                if isinstance(effect.message, Withdrawn):
                    self._incoming.withdraw(effect.message.id)
                self._inboxes.told(effect.message)
                self._incoming.put(effect.message)
            elif isinstance(effect, session.Answer):
                self._answer(effect)
            elif isinstance(effect, session.Leave):
                raise _Left(effect.retry_after)

    def _answer(self, effect: session.Answer) -> None:
        answer = self._answers.get(effect.ref)
        if answer is None or answer.done():
            return
        if isinstance(effect.outcome, PushError):
            answer.set_exception(effect.outcome)
        else:
            answer.set_result(effect.outcome)

    def _say(self, state: State) -> None:
        self._state = state
        if self._on_state is not None:
            self._on_state(state)

    # --- tokens --------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Bring the live connection a new token before the old one expires."""
        if isinstance(self._provider, str):
            return
        try:
            self._token = await self._new_token(refused=False)
        except Exception as error:  # noqa: BLE001 - the old token is good for a while
            _log.warning("no new token: %r; the connection ends with the old one", error)
            return
        await self._perform(self._session.renewed(self._token))

    async def _token_of_lists(self, refused: bool) -> str:  # noqa: FBT001 - as of any provider
        """The token of the connection, or a new one where that is the one that is refused."""
        if self._token is None or (refused and self._token == self._lists_with):
            self._token = await self._new_token(refused=refused)
        self._lists_with = self._token
        return self._token

    async def _new_token(self, *, refused: bool) -> str:
        return checked_token(await ask_for_token(self._provider, refused=refused))


class _Left(Exception):
    """The session wants another connection."""

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


def _address(url: str, device: str) -> str:
    parts = split_address(url, "http", "https", "ws", "wss")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    query = urlencode({"device": device})
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/v1/ws", query, ""))


def _http(url: str) -> str:
    parts = split_address(url, "http", "https", "ws", "wss")
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path, "", ""))


def _parsed(text: str | bytes) -> Raw | None:
    """A message, or None for what is none."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None


def _encoded(data: Any) -> Raw:
    if isinstance(data, bytes | bytearray | memoryview):
        return {"data": b64encode(data).decode(), "encoding": "base64"}
    return {"data": data}


def _refusal(error: InvalidStatus) -> Ended:
    response = error.response
    try:
        problem = json.loads(response.body or b"")
    except (ValueError, RecursionError):
        problem = None
    try:
        header = float(response.headers.get("Retry-After", ""))
    except ValueError:
        header = 0.0
    refused = Refused.of(problem, response.status_code, header).advised()
    return Ended(retry_after=refused.retry_after or 0.0, refusal=refused)
