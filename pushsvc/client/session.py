"""What a client does with what it is sent, over all its connections: messages in, effects out.

A session knows no socket and no clock. Whoever holds it performs what ``received``, ``lost``,
``ask`` and ``handled`` return, in order. It is what makes each notification come once and in
order to the program, although it may come to the client several times.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pushsvc.client.errors import Closed, OutcomeUnknown, PushError, QueueFull, Refused
from pushsvc.client.feed import Feed
from pushsvc.client.marks import KINDS, Mark
from pushsvc.client.messages import Gap, Marked, Presence, Problem, Raw, Withdrawn
from pushsvc.client.topics import Topics

TOPICS = "topics"
"""The ``ref`` of the message that asks for all topics again."""
REFRESH = "refresh"
"""The ``ref`` of the message that brings a new token."""
BEGUN = "begun"
"""The ``ref`` of the ping behind whose answer the state of the topics has come."""
_PRESENCE = "presence "
"""Begins the ``ref`` of the message that asks again who listens to a topic."""
_MAILBOX = "mailbox"
_BROADCAST = "broadcast"
_TOPIC = "topic "  # no name has a space, so that these never meet
_TOO_BIG = 1009
"""The close code for a message that is larger than the service takes."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message. It is encoded here, so that what is no JSON fails where it was asked for.

    Raises:
        TypeError, ValueError: it is no JSON value.
    """

    message: Raw
    text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text = json.dumps(self.message, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()  # a lone surrogate is no text
        object.__setattr__(self, "text", text)


@dataclass(frozen=True, slots=True)
class Give:
    """Hand a notification to the program; ``feed`` is None where it has no id."""

    message: Raw
    feed: Feed | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Hand the program something else."""

    message: Gap | Withdrawn | Presence | Marked | Problem


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked as ``ref`` is answered, or failed."""

    ref: int
    outcome: Raw | PushError


@dataclass(frozen=True, slots=True)
class Renew:
    """Get a new token and hand it to ``renewed``."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Close the connection and come back."""

    retry_after: float


Effect = Send | Give | Tell | Answer | Renew | Leave
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
"""What reading a message raises where a part of it is missing or of another type."""


@dataclass(slots=True)
class _Question:
    send: Send
    repeatable: bool
    """Whether it may be asked again if the connection ends before the answer."""
    sent: bool = False


class Session:
    """The state of one client.

    Args:
        topics: to listen to, each from the id after which to begin, or None for its state.
        bound: how many questions may wait for a connection.

    Raises:
        ValueError: a position is no id.
    """

    def __init__(self, topics: Mapping[str, str | None], bound: int) -> None:
        self._topics = Topics(topics)
        self._feeds: dict[str, Feed] = {
            _MAILBOX: Feed(acked=True),
            _BROADCAST: Feed(acked=True, broadcast=True),
        }
        Send({"topics": dict(topics)})  # what is no text fails here, and not at each connection
        for topic, since in topics.items():
            if since is not None:
                self._feed_of(topic).take(since)
        self._present: dict[str, frozenset[str]] = {}
        """Who listens to the topics whose presence was asked for, as far as the program knows."""
        self._bound = bound
        self._questions: dict[int, _Question] = {}
        self._next = 0
        self.connected = False
        """Whether there is a connection on which the service said ``welcome``."""
        self.welcome: Raw = {}
        self.retry_after = 0.0
        """Seconds that the service asked to wait once the connection has ended."""

    # --- from the service ----------------------------------------------------------------------

    def received(self, message: Raw) -> list[Effect]:
        """Act on one message of the service. What is not known is passed over.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: ``MALFORMED``: it is not as the
                protocol says. Nothing is to be done about it.
        """
        kind = message.get("type")
        if kind == "notification":
            return self._notified(message)
        if kind in ("reply", "error"):
            return self._answered(message)
        if kind == "pong":
            self._topics.begun()
            return []
        if kind == "welcome":
            return self._welcomed(message)
        if kind == "gap":
            return self._missed(message)
        if kind == "withdrawn":
            return [Tell(Withdrawn(message, message["id"], message["reason"]))]
        if kind == "presence":
            return self._came_and_went(message)
        if kind in KINDS:
            return [Tell(Marked(message, Mark.told(message), int(message["unread"])))]
        if kind == "reconnect":
            self.retry_after = float(message["retry_after"])
        return []

    def _notified(self, message: Raw) -> list[Effect]:
        text = message.get("id")
        if text is None:
            return [Give(message, None)]
        feed = self._feed(message)
        if feed.take(text):
            if message.get("topic") is not None:
                self._topics.came(message["topic"], text)
            return [Give(message, feed)]
        # Who sends it again has not heard that it is done. What the program still has in hand is
        # acked when it is done.
        return [_ack(feed, text)] if feed.repeats(text) else []

    def _feed(self, message: Raw) -> Feed:
        topic = message.get("topic")
        if topic is not None:
            return self._feed_of(topic)
        return self._feeds[_BROADCAST if message.get("broadcast") else _MAILBOX]

    def _feed_of(self, topic: str) -> Feed:
        return self._feeds.setdefault(_TOPIC + topic, Feed(acked=False))

    def _missed(self, message: Raw) -> list[Effect]:
        topic, broadcast = message.get("topic"), bool(message.get("broadcast"))
        if message["reason"] == "reset":
            # Ids begin anew. What the program has in hand keeps the old feed, which nobody asks.
            if topic is not None:
                self._feeds.pop(_TOPIC + topic, None)
                self._topics.reset(topic)
            elif broadcast:
                self._feeds[_BROADCAST] = Feed(acked=True, broadcast=True)
            else:
                self._feeds[_MAILBOX] = Feed(acked=True)
        return [Tell(Gap(message, message["after"], message["reason"], topic, broadcast))]

    def _came_and_went(self, message: Raw) -> list[Effect]:
        topic, joined, left = message["topic"], tuple(message["joined"]), tuple(message["left"])
        if topic in self._present:
            self._present[topic] = self._present[topic].union(joined).difference(left)
        return [Tell(Presence(message, topic, joined, left, message.get("count")))]

    def _welcomed(self, message: Raw) -> list[Effect]:
        self.connected = True
        self.welcome = message
        effects: list[Effect] = []
        self._topics.connected()
        effects += self._ask_for_topics()
        for topic in self._present:
            ask = {"type": "presence", "topic": topic, "ref": _PRESENCE + topic}
            effects.append(Send(ask))
        for question in self._questions.values():
            question.sent = True
            effects.append(question.send)
        return effects

    def _ask_for_topics(self) -> list[Effect]:
        # Whoever is asked to leave a topic may hear that before it hears this.
        waiting = [question.send.message for question in self._questions.values()]
        left = {each["topic"] for each in waiting if each["type"] == "unsubscribe"}
        wanted = self._topics.question(left)
        return [Send({"type": "subscribe", "topics": wanted, "ref": TOPICS})] if wanted else []

    def _answered(self, message: Raw) -> list[Effect]:
        ref = message.get("ref")
        if ref == TOPICS:
            return self._topics_answered(message)
        if isinstance(ref, str) and ref.startswith(_PRESENCE):
            return self._present_again(message)
        if ref == REFRESH:
            return []  # a refused one ends with the connection, and the next one tells
        if not isinstance(ref, int) or ref not in self._questions:
            return self._unasked(message)
        question = self._questions.pop(ref)
        if message["type"] == "error":
            return [Answer(ref, Refused.of(message, None))]
        try:
            return [*self._note(question.send.message, message), Answer(ref, message)]
        except MALFORMED:
            return [Answer(ref, Refused(f"the answer is not what was asked for: {message}"))]

    def _note(self, question: Raw, answer: Raw) -> list[Effect]:
        """Keep what an answer means for the next connections."""
        kind, topic = question["type"], str(question.get("topic"))
        if kind == "subscribe":
            return self._begin(self._topics.add(topic, question.get("since"), answer["last"]))
        if kind == "unsubscribe":
            # Not only the topic: who subscribes again is sent its state, which came before.
            self._topics.drop(topic)
            self._feeds.pop(_TOPIC + topic, None)
            self._present.pop(topic, None)
        elif kind == "presence":
            users = frozenset(answer["users"])
            if topic in self._topics:
                self._present[topic] = users
        return []

    @staticmethod
    def _begin(awaited: bool) -> list[Effect]:  # noqa: FBT001 - what `Topics` says
        return [Send({"type": "ping", "ref": BEGUN})] if awaited else []

    def _present_again(self, message: Raw) -> list[Effect]:
        """Tell who came and went while there was no connection."""
        topic = message["ref"].removeprefix(_PRESENCE)
        if message["type"] != "reply" or topic not in self._present:
            return []
        users = frozenset(message["users"])
        if message.get("sample"):
            self._present[topic] = users
            return [Tell(Presence(message, topic, (), (), message["count"]))]
        joined = tuple(sorted(users - self._present[topic]))
        # Of a great many only some are named: who is not named there may still be here.
        whole = message["count"] == len(users)
        left = tuple(sorted(self._present[topic] - users)) if whole else ()
        self._present[topic] = users if whole else self._present[topic] | users
        return [Tell(Presence(message, topic, joined, left))] if joined or left else []

    def _unasked(self, message: Raw) -> list[Effect]:
        if message["type"] != "error":
            return []
        if message["code"] == "token_expiring":
            return [Renew()]
        return [Tell(_problem(message, message.get("topic")))]

    def _topics_answered(self, message: Raw) -> list[Effect]:
        if message["type"] != "error":
            begin = self._begin(self._topics.answered(message["topics"]))
            return [*begin, *self._ask_for_topics()]
        if message.get("temporary"):
            return [Leave(float(message.get("retry_after", 0.0)))]
        refused = self._topics.refused()
        told: list[Effect] = [] if refused is None else [Tell(_problem(message, refused))]
        return told + self._ask_for_topics()

    def lost(self, close_code: int | None = None) -> list[Answer]:
        """The connection ended: what was asked on it and cannot be repeated has failed.

        Args:
            close_code: why, if the service said so.
        """
        self.connected = False
        self.retry_after = 0.0
        sent = {ref: question for ref, question in self._questions.items() if question.sent}
        answers: list[Answer] = []
        if close_code == _TOO_BIG and sent:
            # One of them is too large, so that the largest is; the next try finds another one.
            largest = max(sent, key=lambda ref: len(sent[ref].send.text))
            del sent[largest]
            size = len(self._questions.pop(largest).send.text.encode())
            why = f"a message of {size} bytes is more than the service takes: send less"
            answers.append(Answer(largest, Refused(why, code="too_large", status=close_code)))
        why = "the connection ended before the answer: it may have happened, or not"
        for ref, question in sent.items():
            if not question.repeatable:
                del self._questions[ref]
                answers.append(Answer(ref, OutcomeUnknown(why)))
        return answers

    def ended(self, error: PushError | None) -> list[Answer]:
        """No connection will come any more: everything that waits has failed."""
        self.connected = False
        why = error or Closed("the client was closed before this was answered")
        refs = list(self._questions)
        self._questions.clear()
        return [Answer(ref, why) for ref in refs]

    # --- from the program ----------------------------------------------------------------------

    def ask(self, message: Raw, *, repeatable: bool) -> tuple[int, list[Effect]]:
        """Send a message that is answered, now or on the next connection; its ``ref``.

        Raises:
            QueueFull: there is no connection, and no room to wait for one.
            TypeError, ValueError: the message is no JSON value.
        """
        if not self.connected and len(self._questions) >= self._bound:
            raise QueueFull(
                f"{self._bound} messages wait for a connection already: this one was not sent"
            )
        send = Send({**message, "ref": self._next + 1})
        self._next += 1
        self._questions[self._next] = _Question(send, repeatable, sent=self.connected)
        return self._next, [send] if self.connected else []

    def forget(self, ref: int) -> None:
        """Nobody waits for this answer any more: it is not sent, or not sent again."""
        self._questions.pop(ref, None)

    def listens(self, topic: str) -> bool:
        """Whether a topic is subscribed to, on this connection or the next one."""
        return topic in self._topics

    def handled(self, feed: Feed, text: str, now: float, *, at_once: bool) -> list[Effect]:
        """The program is done with a notification.

        Args:
            feed: that it came with.
            text: its id.
            now: seconds on any steady clock.
            at_once: whether to acknowledge it now, or together with others that wait.
        """
        if not feed.handle(text, now, at_once=at_once) or not self._current(feed):
            return []
        return self._say(feed, now)

    def flush(self, now: float) -> list[Effect]:
        """Acknowledge what is done and was not said yet."""
        feeds = (self._feeds[_MAILBOX], self._feeds[_BROADCAST])
        return [
            effect for feed in feeds if feed.handled > feed.told for effect in self._say(feed, now)
        ]

    @property
    def behind(self) -> bool:
        """Whether something is done and the service was not told, although it could be."""
        feeds = (self._feeds[_MAILBOX], self._feeds[_BROADCAST])
        return self.connected and any(feed.handled > feed.told for feed in feeds)

    def _current(self, feed: Feed) -> bool:
        return feed is self._feeds[_BROADCAST if feed.broadcast else _MAILBOX]

    def _say(self, feed: Feed, now: float) -> list[Effect]:
        if not self.connected:
            return []  # it comes again on the next connection, and is acked then
        feed.told, feed.told_at = feed.handled, now
        return [_ack(feed, f"{feed.handled[0]}-{feed.handled[1]}")]

    def renewed(self, token: str) -> list[Effect]:
        """A new token, for the live connection."""
        if not self.connected:
            return []
        return [Send({"type": "refresh", "token": token, "ref": REFRESH})]


def _ack(feed: Feed, text: str) -> Send:
    where: dict[str, Any] = {"broadcast": True} if feed.broadcast else {}
    return Send({"type": "ack", "id": text, **where})


def _problem(message: Raw, topic: str | None) -> Problem:
    return Problem(message, message["code"], message["detail"], topic)
