"""Plays one scenario: performs its steps in order, and says which one did not go as expected."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from conformance.driver import Driver, DriverFailed
from conformance.http import answer, problem
from conformance.mailbox import Mailbox, asks_for_the_count
from conformance.match import difference, filled, sendable
from conformance.server import Arrival, Connection, Server
from conformance.table import Scenario, verb

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that a step waits for what it expects."""
SLACK: Final = 0.7
"""Seconds that a busy machine may take beyond the latest moment that the protocol allows."""
EARLY: Final = 0.01
"""Seconds that a timer may ring too early."""

_MESSAGES: Final = frozenset({"notification", "gap", "withdrawn", "presence"})
"""Events that hold a message of the server; steps name the members of that."""
_BESIDES: Final = frozenset({"ack", "ping", "(closed)"})
"""What a client may send between the messages that a step is about."""
_UNASKED: Final = frozenset({"ready", "state", "error", "inbox"})
"""Events that need no step."""


class StepFailed(Exception):
    """What came is not what was expected."""


async def play(scenario: Scenario, server: Server, driver: Driver) -> None:
    """Play a scenario to its end.

    Raises:
        StepFailed: a step did not go as expected; says which, and what came.
        DriverFailed: the driver ended.
    """
    stage = _Stage(scenario, server, driver)
    driver.tell(sendable({**scenario.connect, "url": server.url}))
    for number, step in enumerate(scenario.steps, 1):
        try:
            await stage.perform(step)
        except (StepFailed, DriverFailed) as wrong:
            raise type(wrong)(f"step {number}, {_told(step)}: {wrong}") from None
        except Exception as error:
            # What a client under test sends may have any shape.
            raise StepFailed(f"step {number}, {_told(step)}: cannot go on: {error!r}") from error
    if left := stage.left(_BESIDES):
        raise StepFailed(f"after the last step: {'; '.join(left)}")
    driver.tell({"do": "close"})


class _Stage:
    """Where a scenario is: its current connection, and the moment that delays count from."""

    def __init__(self, scenario: Scenario, server: Server, driver: Driver) -> None:
        self._device = str(scenario.connect["device"])
        self._server = server
        self._driver = driver
        self._connection: Connection | None = None
        self._connections = 0
        self._mark = time.monotonic()
        self._variables: dict[str, Any] = {}
        self._steps: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "accept": self._accept,
            "arrive": self._arrive,
            "refuse": self._refuse,
            "refusing": self._refusing,
            "send": self._send,
            "text": self._text,
            "backlog": self._backlog,
            "close": self._close,
            "drop": self._drop,
            "poll": self._poll,
            "request": self._request,
            "mailbox": self._mailbox,
            "hear": self._hear,
            "acked": self._acked,
            "subscribed": self._subscribed,
            "gone": self._gone,
            "do": self._do,
            "told": self._told,
            "state": self._state,
            "shows": self._shows,
            "quiet": self._quiet,
            "returns": self._returns,
        }

    async def perform(self, step: dict[str, Any]) -> None:
        """One step.

        Raises:
            StepFailed: it did not go as expected.
        """
        await self._steps[verb(step)](filled(step, self._variables))

    def left(self, besides: frozenset[str]) -> list[str]:
        """What came and no step took, in words, besides what may come."""
        found = [
            f"the client told {event}"
            for kind, inbox in self._driver.events.items()
            if kind not in _UNASKED | besides
            for event in inbox.left()
        ]
        if self._connection is not None:
            found += [
                f"the client sent {message}"
                for message in self._connection.heard.left()
                if message.get("type") not in {"(closed)", *besides}
            ]
        for inbox in self._server.arrivals.values():
            found += [f"the client asked for {arrival!r}" for arrival in inbox.left()]
        return found

    # The server

    async def _accept(self, step: dict[str, Any]) -> None:
        arrival = await self._arrival(step.pop("accept"), step)
        welcome = step.get("welcome", {})
        self._connection = arrival.accept()
        self._connection.answered = self._counted
        if welcome is False:
            return
        self._connections += 1
        message = {
            "type": "welcome",
            "connection": f"c{self._connections}",
            "user": "u1",
            "device": self._device,
            "heartbeat": 25,
            "window": 64,
            "expires_at": int(time.time()) + 3600,
        }
        self._connection.send({**message, **welcome})

    async def _arrive(self, step: dict[str, Any]) -> None:
        await self._arrival(step.pop("arrive"), step)
        self._now()

    async def _refuse(self, step: dict[str, Any]) -> None:
        status = step.pop("refuse")
        arrival = await self._arrival(step.pop("kind", "websocket"), step)
        self._now()
        if status == "reset":
            arrival.reset()
        else:
            retry_after, code = step.get("retry_after"), step.get("code")
            arrival.answer(problem(status, code=code, retry_after=retry_after))

    async def _refusing(self, step: dict[str, Any]) -> None:
        self._server.refusing = step["refusing"]

    async def _send(self, step: dict[str, Any]) -> None:
        position = step.pop("position", None)
        self._now()
        self._current.send({"type": step.pop("send"), **step}, position)

    async def _text(self, step: dict[str, Any]) -> None:
        self._current.send_text(step["text"])

    async def _backlog(self, step: dict[str, Any]) -> None:
        ids = [f"{number}-0" for number in range(1, step["backlog"] + 1)]
        for each in ids:
            self._current.send({"type": "notification", "id": each, "data": each})
        for each in ids:
            await self._told({"told": "notification", "id": each})
        await self._acked({"acked": ids[-1]})

    async def _close(self, step: dict[str, Any]) -> None:
        self._now()
        self._current.close(step["close"])

    async def _drop(self, step: dict[str, Any]) -> None:
        self._now()
        if step["drop"] == "reset":
            self._current.reset()
        else:
            self._current.end()

    async def _poll(self, step: dict[str, Any]) -> None:
        messages = step.pop("poll")
        position = step.pop("position")
        arrival = await self._arrival("poll", step)
        self._now()
        told = {"unread": step["unread"]} if "unread" in step else {}
        arrival.answer(answer(200, {"messages": messages, "position": position, **told}))

    async def _request(self, step: dict[str, Any]) -> None:
        kind = step["request"]
        arrival = await self._awaited(self._server.of(kind).take(), f"a request {kind}")
        if "body" in step:
            try:
                body = arrival.request.json()
            except ValueError:
                raise StepFailed(f"the body is no JSON: {arrival.request.body!r}") from None
            self._check(step["body"], body)
        if "token" in step:
            self._check(step["token"], arrival.request.token)
        status = step.get("status", 200)
        if status >= 400:
            retry_after, code = step.get("retry_after"), step.get("code")
            arrival.answer(problem(status, code=code, retry_after=retry_after))
        else:
            arrival.answer(answer(status, step.get("answer", {})))

    async def _mailbox(self, step: dict[str, Any]) -> None:
        self._server.mailbox = Mailbox(step["mailbox"])

    def _counted(self, message: dict[str, Any]) -> dict[str, Any] | None:
        mailbox = self._server.mailbox
        if mailbox is None or not asks_for_the_count(message):
            return None
        return {"type": "reply", "ref": message.get("ref"), "unread": mailbox.unread}

    # What the client sends

    async def _hear(self, step: dict[str, Any]) -> None:
        kind = step.pop("hear")
        name = step.pop("as", "ref")
        message = await self._heard(kind, lambda each: each == kind or each not in _BESIDES)
        self._check({"type": kind, **step}, message)
        self._variables[name] = message.get("ref")

    async def _acked(self, step: dict[str, Any]) -> None:
        wanted, broadcast = step["acked"], step.get("broadcast", False)
        while True:
            message = await self._heard(f"an ack of {wanted}", lambda each: each == "ack")
            if bool(message.get("broadcast", False)) is not broadcast:
                raise StepFailed(f"got {message}; broadcast should be {broadcast}")
            got = _numbers(message.get("id"))
            if got > _numbers(wanted):
                raise StepFailed(f"got {message}, which is more than was handled")
            if got == _numbers(wanted):
                return

    async def _subscribed(self, step: dict[str, Any]) -> None:
        wanted: dict[str, Any] = dict(step["subscribed"])
        while wanted:
            message = await self._heard("a subscribe", lambda each: each not in _BESIDES)
            self._check({"type": "subscribe"}, message)
            one = message.get("topic")
            topics = message.get("topics") or ({one: message.get("since")} if one else {})
            for topic, since in topics.items():
                if topic not in wanted:
                    raise StepFailed(f"the client subscribed to {topic!r} as well")
                self._check(wanted.pop(topic), since)
            last = {topic: since or "0-0" for topic, since in topics.items()}
            about = {"topic": one, "last": last[one]} if one else {"topics": last}
            if "ref" in message:
                self._current.send({"type": "reply", "ref": message["ref"], **about})

    async def _gone(self, _step: dict[str, Any]) -> None:
        await self._heard("the end of the connection", lambda each: each == "(closed)")
        self._now()

    # The driver

    async def _do(self, step: dict[str, Any]) -> None:
        self._driver.tell(sendable(step))

    async def _told(self, step: dict[str, Any]) -> None:
        kind, past = step.pop("told"), step.pop("past", False)
        while True:
            event = await self._awaited(self._driver.of(kind).take(), f"an event {kind!r}")
            got = event.get("message") if kind in _MESSAGES else event
            if not past or difference(step, got) is None:
                break
        self._check(step, got)

    async def _state(self, step: dict[str, Any]) -> None:
        status = step.pop("state")
        event = await self._awaited(
            self._driver.of("state").take(lambda each: each.get("status") == status),
            f"the state {status!r}",
        )
        self._check(step, event)

    async def _shows(self, step: dict[str, Any]) -> None:
        ids, read = step.pop("shows"), step.pop("read", None)
        wrong: str | None = "it showed nothing"

        def wanted(event: dict[str, Any]) -> bool:
            nonlocal wrong
            items = event.get("items", [])
            got = {
                **event,
                "ids": [item.get("id") for item in items],
                "read": [item.get("id") for item in items if item.get("read")],
            }
            told = {"ids": ids} if read is None else {"ids": ids, "read": read}
            wrong = difference({**told, **step}, got)
            return wrong is None

        coming = self._driver.of("inbox").take(wanted)
        try:
            await self._driver.unless_ended(coming, PATIENCE)
        except TimeoutError:
            raise StepFailed(f"the inbox does not show it in {PATIENCE:g} s: {wrong}") from None
        # What it showed before is not what it shows.
        self._driver.of("inbox").clear()

    # Time

    async def _quiet(self, step: dict[str, Any]) -> None:
        besides = frozenset(step.get("besides", []))
        await asyncio.sleep(step["quiet"] / 1000)
        if left := self.left(besides):
            raise StepFailed(f"nothing should happen, but {'; '.join(left)}")
        for kind in besides:
            self._driver.of(kind).clear()
        if self._connection is not None:
            self._connection.heard.clear(lambda message: message.get("type") in besides)

    async def _returns(self, step: dict[str, Any]) -> None:
        first, most = step["first"] / 1000, step["max"] / 1000
        spread: list[float] = []
        for failures in range(step["returns"]):
            window = min(most, first * 2**failures)
            arrival = await self._arrival("websocket", {})
            delay = arrival.at - self._mark
            if failures and delay > window + SLACK:
                raise StepFailed(f"return {failures} took {delay:.3f} s, the most is {window} s")
            if failures and window == most:
                spread.append(delay)
            self._now()
            arrival.answer(problem(step["refuse"]))
        early = sum(delay < most / 2 for delay in spread)
        if not 0 < early < len(spread):
            said = ", ".join(f"{delay:.3f}" for delay in spread)
            raise StepFailed(f"delays are not spread over 0 to {most} s: {said}")

    # Parts of steps

    @property
    def _current(self) -> Connection:
        if self._connection is None:
            raise StepFailed("no connection was accepted yet: the scenario is wrong")
        return self._connection

    def _now(self) -> None:
        # Before what the client is to wait after: it may hear of that before this process goes on.
        self._mark = time.monotonic()

    async def _arrival(self, kind: str, step: dict[str, Any]) -> Arrival:
        """The next request of a kind, when it comes at the right time and asks what it should."""
        arrival = await self._awaited(self._server.of(kind).take(), f"a request for a {kind}")
        delay = arrival.at - self._mark
        if "not_before" in step and delay < step["not_before"] / 1000 - EARLY:
            raise StepFailed(f"came after {delay * 1000:.0f} ms, too early")
        if "not_after" in step and delay > step["not_after"] / 1000 + SLACK:
            raise StepFailed(f"came after {delay * 1000:.0f} ms, too late")
        asked = arrival.request.parameters()
        self._check({key: step[key] for key in _PARAMETERS if key in step}, asked)
        return arrival

    async def _heard(self, what: str, wanted: Callable[[str], bool]) -> dict[str, Any]:
        """The next message of the client that is of a wanted type."""
        coming = self._current.heard.take(lambda message: wanted(str(message.get("type"))))
        return await self._awaited(coming, what)

    async def _awaited(self, coming: Coroutine[Any, Any, T], what: str) -> T:
        try:
            return await self._driver.unless_ended(coming, PATIENCE)
        except TimeoutError:
            instead = "; ".join(self.left(_BESIDES)) or "nothing else came either"
            errors = self._driver.of("error").left()
            said = f"; it told {errors}" if errors else ""
            raise StepFailed(f"{what} did not come in {PATIENCE:g} s; {instead}{said}") from None

    @staticmethod
    def _check(expected: Any, got: Any) -> None:
        if (found := difference(expected, got)) is not None:
            raise StepFailed(f"{found}; got {got}")


_PARAMETERS: Final = ("token", "device", "topics", "after")


def _numbers(identifier: Any) -> tuple[int, int]:
    """An id as the two numbers that it is compared by.

    Raises:
        StepFailed: it is none.
    """
    try:
        time_ms, sequence = str(identifier).split("-")
        return int(time_ms), int(sequence)
    except ValueError:
        raise StepFailed(f"{identifier!r} is not an id") from None


def _told(step: dict[str, Any]) -> str:
    """A step as it is read aloud: ``close 4001``, ``hear ack, id=1-0``."""
    first, *others = step.items()
    return ", ".join([f"{first[0]} {first[1]}", *(f"{key}={value}" for key, value in others)])
