"""Load for a cluster of your own: devices that hold sockets, and backends that publish to them.

::

    locust -f locustfile.py --headless -u 50 -r 25 -t 15s --host http://127.0.0.1:8080

with the nodes' PUSHSVC_JWT_SECRET set. Nine of ten users are devices, each of a user of its own: it
holds a WebSocket, listens to its mailbox and to a topic that it shares with nine others, and
acknowledges what it gets. One of ten is a backend, which publishes to these users and topics. What
a device is owed and does not get, or gets twice or out of order, is a failure.
docs/operations/load.md says what each row of the table means.
"""

import contextlib
import itertools
import json
import math
import os
import random
import socket
import struct
import time
import uuid
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from locust import LoadTestShape, User, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner, Runner
from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketException,
    WebSocketTimeoutException,
    create_connection,
)

from pushsvc.auth.tokens import SCOPE_PUBLISH, mint
from pushsvc.client import Publisher, PushError
from pushsvc.settings import Settings, SettingsError, load

TOPIC_LISTENERS: Final = 10
"""Devices that share a topic."""
TOKEN_SECONDS: Final = 86400.0
"""How long the tokens are good, and so the longest run."""
PUBLISH_SECONDS: Final = 10.0
"""For a publish, with the publisher's own retries."""
TTL_SECONDS: Final = 600
"""After which Redis may forget what was published and nobody came to get."""
CONNECT_SECONDS: Final = 10.0
ACK_EVERY: Final = 0.25
"""Seconds between two acknowledgements of a device: each covers all before it, and the service
limits the messages of a connection to 10 a second."""
IDLE_SECONDS: Final = 5.0
"""For a device to look up from its socket."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
LASTED_SECONDS: Final = 10.0
"""How fast devices come back, as PROTOCOL.md asks of clients."""
GOING_AWAY: Final = frozenset({1001, 4001})
"""Close codes of a node that stops: the device connects to another one, and that is no failure."""
DROP: Final = "drop-sockets"
"""The message by which a storm reaches the processes that hold sockets."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: ArgumentParser) -> None:
    """Offer what can be told beside Locust's own options."""
    group = parser.add_argument_group("pushsvc")
    group.add_argument(
        "--publish-rate", type=float, default=2.0, metavar="N",
        help="Notifications a second from each backend (default 2).",
    )  # fmt: skip
    group.add_argument(
        "--topic-share", type=float, default=0.2, metavar="F",
        help="Share of them that go to topics, 0 to 1 (default 0.2).",
    )  # fmt: skip
    group.add_argument(
        "--payload-bytes", type=int, default=100, metavar="N",
        help="Bytes of data in each (default 100).",
    )  # fmt: skip
    group.add_argument(
        "--grace-seconds", type=float, default=5.0, metavar="S",
        help="How long a device that stops waits for what it is owed (default 5).",
    )  # fmt: skip
    group.add_argument(
        "--storm-seconds", type=float, default=30.0, metavar="S",
        help="With LOAD_SHAPE=storm, the time between two storms (default 30).",
    )  # fmt: skip


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, runner: Runner, **_: Any) -> None:
    """Read the settings, and listen for storms."""
    if not isinstance(runner, MasterRunner):
        Tokens.settings = _settings()
    CROWD.name = uuid.uuid4().hex[:8]  # here, because Locust forks after reading this file
    runner.register_message(DROP, _drop_sockets)
    if environment.host is None:
        environment.host = "http://127.0.0.1:8080"


def _settings() -> Settings:
    try:
        settings = load(os.environ, {})
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    if settings.jwt_secret is None:
        raise SystemExit("PUSHSVC_JWT_SECRET is not set: give it the value that the nodes have")
    return settings


class Tokens:
    """Tokens, as the nodes accept them."""

    settings: Settings

    @classmethod
    def mint(cls, user: str, *scopes: str, subscribe: str | None = None) -> str:
        """A token for a user or a backend, which opens one topic."""
        settings = cls.settings
        assert settings.jwt_secret is not None  # noqa: S101 - _settings() saw to it
        return mint(
            secret=settings.jwt_secret.get_secret_value(),
            user=user,
            audience=next(iter(settings.jwt_audience), ""),
            issuer=settings.jwt_issuer,
            scopes=scopes,
            topics={"subscribe": [subscribe]} if subscribe else None,
            ttl=TOKEN_SECONDS,
        )


# --- what is owed, and whether what comes is in order ---------------------------------------------


class WrongDeliveryError(Exception):
    """What a device is promised and did not get."""


class Order:
    """The order of what one device gets, by the ids of each feed.

    Ids grow within a feed. After a reconnect, what was not acknowledged comes again.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}
        self._here: dict[str, tuple[int, int]] = {}

    def reconnected(self) -> None:
        """Forget what came on the connection that ended."""
        self._here.clear()

    def take(self, feed: str, notification_id: str, attempt: int = 1) -> bool:
        """Take one notification; whether it is new.

        Args:
            feed: such as the topic.
            notification_id: ``<milliseconds>-<sequence>``.
            attempt: which one it is, on this connection.

        Raises:
            WrongDeliveryError: it came twice on one connection, or after a later one.
        """
        milliseconds, _, sequence = notification_id.partition("-")
        place = (int(milliseconds), int(sequence))
        before = self._here.get(feed)
        if before is not None and place <= before:
            if attempt > 1:
                raise WrongDeliveryError("came again: its acknowledgement was late")
            raise WrongDeliveryError(
                "came twice on one connection" if place == before else "came out of order"
            )
        self._here[feed] = place
        if place <= self._last.get(feed, (0, 0)):
            return False
        self._last[feed] = place
        return True


class Crowd:
    """The devices of this process that are there to be published to."""

    name: str
    """In the names of its users and topics: no two processes or runs share any."""

    def __init__(self) -> None:
        self.devices: list[Device] = []
        self._topics: dict[str, list[Device]] = defaultdict(list)
        self._numbers = itertools.count()
        self._notes = itertools.count()

    def number(self) -> int:
        """The number of the next device."""
        return next(self._numbers)

    def add(self, device: "Device") -> None:
        """Count on a device that listens to its mailbox and its topic."""
        self.devices.append(device)
        self._topics[device.topic].append(device)

    def remove(self, device: "Device") -> None:
        """Count on it no more."""
        if device in self.devices:
            self.devices.remove(device)
            self._topics[device.topic].remove(device)

    @contextlib.contextmanager
    def owing(self, device: "Device", topic: str | None) -> Iterator[int]:
        """Owe a notification to a device, or to all of a topic, unless publishing it fails.

        Yields:
            the notification's number.
        """
        number = next(self._notes)
        recipients = [device] if topic is None else list(self._topics[topic])
        for recipient in recipients:
            recipient.owed[number] = time.perf_counter()
        try:
            yield number
        except BaseException:  # an interrupted publish may have happened, or not
            for recipient in recipients:
                recipient.owed.pop(number, None)
            raise


CROWD: Final = Crowd()


# --- the two kinds of users -----------------------------------------------------------------------


class Recording(User):
    """A user that tells Locust what it measures."""

    abstract = True

    def record(
        self,
        kind: str,
        name: str,
        seconds: float | None = None,
        *,
        size: int = 0,
        trouble: Exception | None = None,
    ) -> None:
        """Tell one measurement, or failure."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=None if seconds is None else seconds * 1000,
            response_length=size,
            exception=trouble,
            context={},
        )

    def option(self, name: str) -> Any:
        """What the command line says."""
        return getattr(self.environment.parsed_options, name)


class Backend(Recording):
    """A service that publishes to the users and topics of the devices in this process."""

    weight = 1

    def wait_time(self) -> float:
        """Seconds until the next publish: random, as independent events are."""
        return random.expovariate(self.option("publish_rate"))

    def on_start(self) -> None:
        """Get ready to publish."""
        token = Tokens.mint(f"load-{CROWD.name}-backend", SCOPE_PUBLISH)
        self._publisher = Publisher(str(self.host), token=token, deadline=PUBLISH_SECONDS)
        self._padding = "x" * self.option("payload_bytes")

    def on_stop(self) -> None:
        """Close the connections."""
        self._publisher.close()

    @task
    def publish(self) -> None:
        """Publish one notification."""
        if not CROWD.devices:
            return
        device = random.choice(CROWD.devices)  # noqa: S311 - no secret
        to_topic = random.random() < self.option("topic_share")  # noqa: S311 - no secret
        topic = device.topic if to_topic else None
        kind = "user" if topic is None else "topic"
        start = time.perf_counter()
        try:
            with CROWD.owing(device, topic) as number:
                data = {"n": number, "padding": self._padding}
                if topic is None:
                    self._publisher.publish(user=device.user, data=data, ttl=TTL_SECONDS)
                else:
                    self._publisher.publish(topic=topic, data=data, ttl=TTL_SECONDS)
        except PushError as error:
            self.record("publish", kind, time.perf_counter() - start, trouble=error)
        else:
            self.record("publish", kind, time.perf_counter() - start, size=len(self._padding))


class Device(Recording):
    """A user's device, which holds a socket and acknowledges what it gets."""

    weight = 9
    wait_time = constant(0)

    def on_start(self) -> None:
        """Become someone."""
        number = CROWD.number()
        self.user = f"load-{CROWD.name}-{number}"
        self.topic = f"load.{CROWD.name}.{number // TOPIC_LISTENERS}"
        self.owed: dict[int, float] = {}
        """When what it is to get was published, by the number of the notification."""
        address = urlsplit(str(self.host))
        scheme = {"http": "ws", "https": "wss"}.get(address.scheme, address.scheme)
        path = address.path.rstrip("/")
        self._address = f"{scheme}://{address.netloc}{path}/v1/ws?device=load"
        self._token = Tokens.mint(self.user, subscribe=self.topic)
        self._order = Order()
        self._since: str | None = None
        self._stopping = False
        # How and when to come back.
        self._come_back_at = 0.0
        self._failures = 0
        self._retry_after = 0.0
        # Of the connection.
        self._socket: WebSocket | None = None
        self._dropped = False
        self._connected_at = self._heard_at = self._acked_at = 0.0
        self._silence = math.inf
        self._refs = itertools.count(1)
        self._asked: dict[int, float] = {}
        self._unacked: dict[str, str] = {}

    @task
    def live(self) -> None:
        """Do what is next."""
        self._step(IDLE_SECONDS)

    def on_stop(self) -> None:
        """Wait for what is owed, and close."""
        self._stopping = True
        CROWD.remove(self)
        deadline = time.perf_counter() + self.option("grace_seconds")
        while self.owed and (left := deadline - time.perf_counter()) > 0:
            self._step(left)
        for _ in self.owed:
            self.record("deliver", "missing", trouble=WrongDeliveryError("was not delivered"))
        self.owed.clear()
        if self._socket is not None:
            with contextlib.suppress(WebSocketException, OSError):
                self._acknowledge()
                self._socket.close(timeout=2)
            self._socket = None

    def drop(self) -> None:
        """Lose the connection without a word, as when a load balancer dies."""
        if self._socket is not None and self._socket.sock is not None:
            self._dropped = True
            # Below TLS and behind the back of whoever reads, who then sees the end.
            with (
                contextlib.suppress(OSError),
                socket.socket(fileno=os.dup(self._socket.sock.fileno())) as same,
            ):
                same.shutdown(socket.SHUT_RDWR)

    # --- connecting ------------------------------------------------------------------------------

    def _connect(self) -> None:
        start = time.perf_counter()
        opened: WebSocket | None = None
        try:
            opened = create_connection(
                self._address,
                timeout=CONNECT_SECONDS,
                header=[f"Authorization: Bearer {self._token}"],
                subprotocols=["pushsvc.v1.json"],
                suppress_origin=True,
                enable_multithread=False,
            )
            welcome = json.loads(opened.recv())
        except (WebSocketException, OSError, ValueError) as error:
            self.record("connect", "socket", trouble=error)
            if opened is not None:
                opened.shutdown()  # type: ignore[no-untyped-call]
            self._come_back(_retry_after(error))
            return
        self._connected_at = self._heard_at = time.perf_counter()
        self.record("connect", "socket", self._connected_at - start)
        self._socket = opened
        self._silence = 2.5 * welcome["heartbeat"]
        self._dropped = False
        self._retry_after = 0.0
        self._asked.clear()
        self._unacked.clear()
        self._order.reconnected()
        self._send({"type": "subscribe", "topic": self.topic, "since": self._since})

    def _come_back(self, least: float) -> None:
        """Plan the next attempt: the random part keeps devices from coming all at once."""
        spread = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
        pause = least + random.random() * spread  # noqa: S311 - no secret
        self._come_back_at = time.perf_counter() + pause
        self._failures += 1

    def _ended(self, code: int | None, trouble: Exception) -> None:
        """Go on after a connection that ended, and tell it unless that was to be."""
        if not self._dropped:
            expected = code in GOING_AWAY
            self.record("close", str(code or "lost"), trouble=None if expected else trouble)
        if self._socket is not None:
            self._socket.shutdown()  # type: ignore[no-untyped-call]
            self._socket = None
        if time.perf_counter() - self._connected_at >= LASTED_SECONDS:
            self._failures = 0
        self._come_back(self._retry_after)

    # --- listening -------------------------------------------------------------------------------

    def _step(self, seconds: float) -> None:
        """Do what is next, for so long at most."""
        away = self._come_back_at - time.perf_counter()
        try:
            if self._socket is not None:
                self._read(self._socket, seconds)
            elif away > 0:
                time.sleep(min(away, seconds))
            else:
                self._connect()
        except WebSocketTimeoutException:
            if time.perf_counter() - self._heard_at > self._silence:
                self._ended(None, WrongDeliveryError("no heartbeat came"))
        except (WebSocketException, OSError) as error:
            self._ended(None, error)

    def _read(self, opened: WebSocket, seconds: float) -> None:
        wait = seconds
        if self._unacked:
            wait = self._acked_at + ACK_EVERY - time.perf_counter()
            if wait <= 0:
                self._acknowledge()
                wait = seconds
        opened.settimeout(min(wait, seconds))
        opcode, payload = opened.recv_data(control_frame=True)
        self._heard_at = time.perf_counter()
        if opcode == ABNF.OPCODE_CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
            reason = payload[2:].decode(errors="replace")
            self._ended(code, WrongDeliveryError(f"closed: {reason}"))
        elif opcode == ABNF.OPCODE_TEXT:
            message = json.loads(payload)
            handle = self._handlers.get(message["type"])
            if handle is not None:
                handle(self, message, len(payload))

    def _notified(self, message: dict[str, Any], size: int) -> None:
        if "id" not in message:
            return  # ephemeral, and not ours
        topic = message.get("topic")
        kind = "topic" if topic else "broadcast" if message.get("broadcast") else "user"
        try:
            new = self._order.take(topic or kind, message["id"], message.get("attempt", 1))
        except WrongDeliveryError as trouble:
            self.record("deliver", kind, trouble=trouble)
            new = False
        if topic:
            self._since = message["id"]
        else:
            self._unacked[kind] = message["id"]
        if kind == "broadcast":
            return  # of somebody else
        published_at = self.owed.pop(message["data"]["n"], None)
        if new and published_at is not None:
            away = "" if published_at >= self._connected_at else " (was away)"
            self.record("deliver", kind + away, self._heard_at - published_at, size=size)

    def _acknowledge(self) -> None:
        for kind, notification_id in self._unacked.items():
            broadcast = True if kind == "broadcast" else None
            self._send({"type": "ack", "id": notification_id, "broadcast": broadcast})
        self._unacked.clear()
        self._acked_at = time.perf_counter()

    def _replied(self, message: dict[str, Any], _size: int) -> None:
        asked_at = self._asked.pop(message["ref"], None)
        if asked_at is None:
            return
        seconds = time.perf_counter() - asked_at
        if "acked" in message:
            self.record("ack", "user", seconds)
            return
        self.record("subscribe", "topic", seconds)
        if self._since is None:
            self._since = message["last"]
        if not (self._stopping or self in CROWD.devices):
            CROWD.add(self)

    def _gap(self, message: dict[str, Any], _size: int) -> None:
        self.record("deliver", "gap", trouble=WrongDeliveryError(f"gap: {message['reason']}"))

    def _refused(self, message: dict[str, Any], _size: int) -> None:
        self.record(
            "error",
            message["code"],
            trouble=WrongDeliveryError(f"{message['code']}: {message.get('detail')}"),
        )

    def _reconnect(self, message: dict[str, Any], _size: int) -> None:
        self._retry_after = message.get("retry_after", 0.0)

    def _send(self, message: dict[str, Any]) -> None:
        """Send what is answered, and remember when."""
        assert self._socket is not None  # noqa: S101 - for the type checker
        ref = next(self._refs)
        self._asked[ref] = time.perf_counter()
        said = {name: value for name, value in message.items() if value is not None}
        self._socket.send(json.dumps(said | {"ref": ref}))

    _handlers: Final[dict[str, Callable[["Device", dict[str, Any], int], None]]] = {
        "notification": _notified,
        "reply": _replied,
        "gap": _gap,
        "error": _refused,
        "reconnect": _reconnect,
    }


def _retry_after(error: Exception) -> float:
    """Seconds that a refusal asks to wait."""
    if isinstance(error, WebSocketBadStatusException) and error.resp_headers:
        try:
            return float(error.resp_headers.get("retry-after", 0))
        except ValueError:
            return 0.0
    return 0.0


def _drop_sockets(**_: Any) -> None:
    for device in list(CROWD.devices):
        device.drop()


# --- shapes, of which LOAD_SHAPE chooses one ------------------------------------------------------

SHAPES: Final = ("steady", "ramp", "storm")
SHAPE: Final = os.environ.get("LOAD_SHAPE") or "steady"
"""Chosen by a variable, because Locust takes any shape that this file defines. ``steady`` is what
``-u``, ``-r`` and ``-t`` say without one."""
if SHAPE not in SHAPES:
    raise SystemExit(f"LOAD_SHAPE={SHAPE} is no shape: choose one of {', '.join(SHAPES)}")
STEPS: Final = 20
DEFAULT_RUN_SECONDS: Final = 300.0
CALM_SECONDS: Final = 5.0
"""Before the end, in which no storm begins, so that all are back."""


def ramp(elapsed: float, users: int, seconds: float) -> int:
    """How many of the users there are: more in equal steps for 4/5 of the time, then all."""
    step = min(STEPS, math.floor(elapsed / (0.8 * seconds) * STEPS) + 1)
    return math.ceil(users * step / STEPS)


def storms(elapsed: float, every: float, seconds: float) -> int:
    """How many storms there were by now."""
    return math.floor(min(elapsed, max(0.0, seconds - CALM_SECONDS)) / every)


class Shaped(LoadTestShape):
    """What the shapes share: ``-u``, ``-r`` and ``-t`` are theirs too."""

    abstract = True
    use_common_options = True

    def options(self) -> Any:
        """The command line, or the form of the web interface."""
        assert self.runner is not None  # noqa: S101 - Locust sets it before it asks
        return self.runner.environment.parsed_options

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - float(self.start_time)

    def said(self) -> tuple[int, float, float]:
        """Users, users a second, and seconds."""
        options = self.options()
        users, rate = options.num_users or 1, options.spawn_rate or 1
        return users, rate, options.run_time or DEFAULT_RUN_SECONDS


class Ramp(Shaped):
    """From none to ``-u`` users: at which number does the latency rise?"""

    abstract = SHAPE != "ramp"

    def tick(self) -> tuple[int, float] | None:
        """The number of users now."""
        users, rate, seconds = self.said()
        elapsed = self.elapsed()
        return (ramp(elapsed, users, seconds), rate) if elapsed < seconds else None


class Storm(Shaped):
    """``-u`` users, all of whose connections are lost at once, again and again."""

    abstract = SHAPE != "storm"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storms = 0

    def tick(self) -> tuple[int, float] | None:
        """The number of users; and a storm when it is time."""
        users, rate, seconds = self.said()
        elapsed = self.elapsed()
        so_far = storms(elapsed, self.options().storm_seconds, seconds)
        if so_far > self._storms:
            self._storms = so_far
            assert self.runner is not None  # noqa: S101 - options() saw to it
            self.runner.send_message(DROP)
        return (users, rate) if elapsed < seconds else None
