"""The delivery code against a model: any interleaving keeps the promises.

The hubs, queues, feeds, scripts and the Valkey are real. Virtual are the sockets, the inboxes and
the time, so that Hypothesis decides what a network, a clock and a scheduler decide otherwise: when
a pipeline leaves and when its answer arrives, which copy is lost, doubled or late, which socket is
full, and who dies when.
"""

import asyncio
import itertools
import json
import os
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pushsvc.codes import Close
from pushsvc.errors import StoreUnavailable, TooManyConnections, Unavailable
from pushsvc.feeds.event_log import EventLog
from pushsvc.feeds.feed import Appended, Bounds, Feeds
from pushsvc.feeds.nodes import ControlMessage, Entry, Leases, Outbox, node_of, pack, unpack
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.feeds.quota import ClientQuota
from pushsvc.feeds.receipts import Receipts
from pushsvc.feeds.schedule import Schedule
from pushsvc.node.identity import new_node_id
from pushsvc.protocol import frames, ids
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.session import Acked, End, Policy, Redeliver, Send
from pushsvc.protocol.wire import TEXT
from pushsvc.settings import Durability
from pushsvc.store.pipeline_queue import PipelineQueue
from pushsvc.store.redis import Redis
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from pushsvc.store.server_connection import Command, Result, StoreConnection
from pushsvc.store.topology import connector
from tests.support.hubs import new_node, session_of

Item = TypeVar("Item")
EXAMPLES: Final = int(os.environ.get("MODEL_EXAMPLES", "120"))
STEPS: Final = int(os.environ.get("MODEL_STEPS", "50"))

NODES: Final = 2
USER: Final = "u1"
FEED: Final = mailbox(USER)
DEVICES: Final = ("phone", "laptop", "watch")
EVER: Final = 1e9
LEASE: Final = 3600.0
ACK_TIMEOUT: Final = 30.0
MOMENT: Final = 0.001
"""A time to live that is over by the time anything is read."""


# --- a store whose answers come when the model says so -------------------------------------------


@dataclass
class Pending:
    """Commands on their way to Redis, or the results on their way back."""

    commands: Sequence[Command]
    future: asyncio.Future[list[Result]]
    decode: Any
    results: list[Result] | None = None


class HeldQueue(PipelineQueue):
    """A real queue behind a delay: what is submitted waits, in order, in both directions."""

    def __init__(self, connection: StoreConnection, scripts: Scripts) -> None:
        super().__init__("model", connection, scripts)
        self.pending: deque[Pending] = deque()
        self.cut = False

    def submit(self, commands: Sequence[Command], decode: Any = None) -> Any:
        if self.cut:
            raise StoreUnavailable("the queue is cut", retry_after=1.0)
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.pending.append(Pending(list(commands), future, decode))
        return future

    async def carry_out(self) -> bool:
        """Let the oldest commands that have not left reach Redis."""
        for pending in self.pending:
            if pending.results is None:
                pending.results = await super().submit(pending.commands, pending.decode)
                return True
        return False

    def answer(self) -> bool:
        """Let the oldest answer arrive."""
        if not self.pending or self.pending[0].results is None:
            return False
        pending = self.pending.popleft()
        if not pending.future.done():
            pending.future.set_result(pending.results or [])
        return True

    def fail(self) -> None:
        """Lose everything under way, in whichever direction."""
        self.cut = True
        while self.pending:
            future = self.pending.popleft().future
            if not future.done():
                future.set_exception(StoreUnavailable("lost on the way", retry_after=1.0))


# --- virtual sockets -----------------------------------------------------------------------------


@dataclass
class Device:
    """What the app on a device knows."""

    name: str
    start: int | None = None
    """Its position when it first connected; None before."""
    earliest: int | None = None
    """The least that this may be, known when it first tries to connect."""
    seen: set[int] = field(default_factory=set)
    excused: set[int] = field(default_factory=set)
    """What it was told that it missed."""
    confirmed: int = ids.START
    """The highest acknowledgement that the server has confirmed."""
    acked: int = ids.START
    """The highest that it sent."""


class Socket:
    """A listener whose peer is the model."""

    def __init__(self, model: "Model", node: "VirtualNode", number: int, device: Device) -> None:
        self.model = model
        self.node = node
        self.number = number
        self.session = session_of(USER, device.name, expires=EVER, seen=model.now)
        self.wire = TEXT
        self.device = device
        self.open = False
        self.closed: Close | None = None
        self.full = False
        self.tail: bytes | None = None
        self.dead = False
        self.received: list[int] = []
        self.highest = ids.START
        self.acked = ids.START
        self.floor = device.confirmed
        """Nothing up to here may be received."""
        self.gaps: list[int] = []

    def __hash__(self) -> int:
        return self.number  # the order in a set is the same in every run

    # What the hub sees.

    def writable(self) -> bool:
        return self.open and self.tail is None

    def write(self, data: bytes) -> None:
        if self.dead or self.closed is not None:
            return
        if self.tail is not None:
            self.tail += data
        elif self.full:
            self.tail = data
        else:
            self._read(data)

    def send(self, payload: bytes) -> None:
        if self.open:
            self.write(frames.text(payload))

    def watch(self) -> None:
        pass

    def end(self, code: Close) -> None:
        if self.open:
            self.open = False
            self.closed = code
            self.node.dispatcher.left(self)

    # What the peer does.

    def drop(self) -> None:
        """Cut the connection; what is in the socket's buffer is lost."""
        self.dead = True
        if self.open:
            self.open = False
            self.node.dispatcher.left(self)

    def empty(self) -> None:
        """Read what waits, and make room."""
        self.full = False
        tail, self.tail = self.tail, None
        if tail:
            self._read(tail)
        if self.open:
            self.node.dispatcher.drained(self)

    def say(self, **message: Any) -> None:
        """Send a message to the node."""
        payload = json.dumps(message).encode()
        self.perform(self.session.receive(payload, self.model.policy, self.model.now))

    def perform(self, effects: Iterable[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Acked):
                self.node.dispatcher.acked(self, effect)
            elif isinstance(effect, Send):
                self.send(effect.payload)
            elif isinstance(effect, Redeliver):
                self.node.dispatcher.redeliver(self, effect.cursor)
            elif isinstance(effect, End):
                self.end(effect.code)
            else:
                self.model.check(holds=False, promise=f"no such effect: {effect}")

    def _read(self, data: bytes) -> None:
        for message in messages_in(data):
            kind = message["type"]
            if kind == "notification":
                self._notification(ids.parse(message["id"]), message.get("attempt", 1))
            elif kind == "gap":
                self.gaps.append(ids.parse(message["after"]))
            elif kind == "reply":
                acked = ids.parse(message["acked"])
                self.device.confirmed = max(self.device.confirmed, acked)
                # Where another socket of the device acknowledged more, copies for this one may be
                # on their way.
                self.floor = max(self.floor, min(acked, self.acked))
            else:
                self.model.check(holds=False, promise=f"no such message: {message}")

    def _notification(self, entry: int, attempt: int) -> None:
        check = self.model.check
        whose = self.model.whose.get(entry, "")
        check(whose in ("", self.device.name), "what is for one device came to another")
        check(entry > self.floor, "what was acknowledged came again")
        if attempt == 1:
            check(entry > self.highest, "sent twice or out of order, and not as an attempt")
        else:
            check(entry in self.received, "the first of a notification is not an attempt")
        self.highest = max(self.highest, entry)
        self.received.append(entry)
        device = self.device
        if entry not in device.seen:
            if device.seen and max(device.seen) > entry:
                self.model.late.append(entry)
            device.seen.add(entry)


def messages_in(data: bytes) -> Iterator[dict[str, Any]]:
    """The messages in unmasked text frames, as a server sends them."""
    pos = 0
    while pos < len(data):
        assert data[pos] == 0x81
        size, start = data[pos + 1], pos + 2
        if size == 126:
            size, start = int.from_bytes(data[pos + 2 : pos + 4]), pos + 4
        assert size < 0x10000
        yield json.loads(data[start : start + size])
        pos = start + size


# --- nodes ---------------------------------------------------------------------------------------


class VirtualNode:
    """A hub with its queue; membership and inbox are the model's."""

    def __init__(self, model: "Model") -> None:
        self.model = model
        self.queue = HeldQueue(model.store.connection, model.store.scripts)
        commands = Redis(self.queue, model.keys, model.store.scripts)
        self.feeds = Feeds(model.bounds, publishing=commands, sessions=commands)
        # What it knows of the others is as of its own last renewal.
        self.leases = Leases(Redis(model.store.queue, model.keys, model.store.scripts), LEASE)
        self.parts = new_node(
            new_node_id(), self.feeds, self.leases, model.outbox, model.policy,
            sweep_seconds=60, clock=lambda: model.now,
        )  # fmt: skip
        self.dispatcher = self.parts.dispatcher
        self.busy = False
        """Whether what takes several turns gets none."""
        self._turns = cast(Any, self.parts.turns)
        self._go_on = self._turns._go_on
        self._turns._go_on = lambda: None if self.busy else self._go_on()
        self.inbox: list[Entry | ControlMessage] = []
        self.held = False
        self.lapsed = False
        self.registered = True
        self.sockets: list[Socket] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.rejoining: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.parts.identity.id

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.model.failures.append(error)

    def connect(self, device: Device) -> None:
        self.model.numbers += 1
        self._spawn(self._connect(Socket(self.model, self, self.model.numbers, device)))

    async def _connect(self, socket: Socket) -> None:
        device = socket.device
        if device.earliest is None:
            device.earliest = max(each.confirmed for each in self.model.devices)
        try:
            backlog = await self.dispatcher.join(socket)
        except TooManyConnections:
            return
        except Unavailable:
            return
        if device.start is None:
            device.start = backlog.cursor
            acked = max(each.acked for each in self.model.devices)
            place = device.earliest <= backlog.cursor <= acked
            self.model.check(place, "a new device starts after what any device has acknowledged")
        # As the handshake does: without a pause between the join and this.
        socket.open = True
        self.sockets.append(socket)
        self.dispatcher.start(socket, backlog, b"")

    def hold(self) -> None:
        """Have what is sent to many wait for ``turn`` and ``go_on``."""
        self.busy = True

    def turn(self) -> None:
        """A step of what is sent to many."""
        self._turns._turn()

    def go_on(self) -> None:
        """Send to many as usual."""
        self.busy = False
        self._go_on()

    def come_back(self, name: str) -> None:
        """What membership does once it learns that the lease lapsed."""
        self.lapsed = False
        self.registered = False
        self.inbox.clear()
        self.dispatcher.lapsed(name)
        self._rejoin()

    def _rejoin(self) -> None:
        if self.rejoining is not None:
            self.rejoining.cancel()
        self.rejoining = self._spawn(self._register())

    async def _register(self) -> None:
        try:
            await self.dispatcher.register_again()
        except Unavailable:
            return
        self.registered = True

    def tick(self) -> None:
        if not self.registered and (self.rejoining is None or self.rejoining.done()):
            self._rejoin()
        self.dispatcher.tick()

    def sweep(self) -> None:
        self.dispatcher.sweep_soon()
        self.tick()

    def carry(self, count: int) -> None:
        """Hand the next copies to the hub as one packet; without a lease, drop them."""
        packet, self.inbox = self.inbox[:count], self.inbox[count:]
        if packet and not self.lapsed:
            for kind, items in itertools.groupby(packet, type):
                if kind is ControlMessage:
                    for item in items:
                        self.dispatcher.control(cast(ControlMessage, item))
                else:
                    self.dispatcher.deliver(unpack(pack(cast(list[Entry], list(items)))))

    def die(self) -> None:
        self.queue.cut = True
        for socket in self.sockets:
            socket.dead = True
            socket.open = False
        for task in self.tasks:
            task.cancel()


class VirtualOutbox(Outbox):
    """Puts copies where the model decides about them."""

    def __init__(self, nodes: Callable[[], Iterable[VirtualNode]]) -> None:
        self._nodes = nodes

    def post(self, node: str, entry: Entry) -> None:
        self._put_in(node, entry)

    def notify(self, node: str, notice: ControlMessage) -> None:
        self._put_in(node, notice)

    def _put_in(self, node: str, entry: Entry | ControlMessage) -> None:
        for each in self._nodes():
            if each.id == node:
                each.inbox.append(entry)


class Store:
    """The Valkey and an event loop, for all examples of a run."""

    def __init__(self, url: str) -> None:
        self.loop = uvloop.new_event_loop()
        self.scripts = Scripts()
        connect = connector(url)
        self.queue = PipelineQueue("model", connect(5.0), self.scripts)
        # For the nodes, which take turns.
        self.connection = connect(5.0)

    def close(self) -> None:
        self.loop.run_until_complete(self.queue.aclose())
        self.loop.run_until_complete(self.connection.aclose())
        self.loop.close()


# --- the machine ---------------------------------------------------------------------------------


def anyone(items: Sequence[Item], number: int) -> Item:
    return items[number % len(items)]


small = st.integers(0, 3)


class Model(RuleBasedStateMachine):
    """One user with three devices on two nodes."""

    store: Store

    @initialize(
        window=st.sampled_from([1, 3, 64]),
        keep=st.sampled_from([4, 8, 1000]),
        most=st.sampled_from([4, 32]),
    )
    def begin(self, window: int, keep: int, most: int) -> None:
        self.now = 1000.0
        self.numbers = 0
        self.policy = Policy(
            heartbeat=EVER, window=window, ack_timeout=ACK_TIMEOUT, ack_attempts=3,
            messages=Rate(EVER, EVER), bytes=Rate(EVER, EVER), control=Rate(EVER, EVER),
        )  # fmt: skip
        self.bounds = Bounds(entries=keep, retention=3600, connections=most)
        self.keys = Keys(f"m{uuid.uuid4().hex[:10]}")
        self.devices = [Device(name) for name in DEVICES]
        # Entries that are not live only, and whether they are there for long.
        self.published: dict[int, bool] = {}
        # Those that are for one device.
        self.whose: dict[int, str] = {}
        self.gone_until = ids.START
        self.buried: list[VirtualNode] = []
        self.late: list[int] = []
        self.failures: list[BaseException] = []
        self.nodes: list[VirtualNode] = []
        self.store.loop.set_exception_handler(self._unexpected)
        commands = Redis(self.store.queue, self.keys, self.store.scripts)
        self.feeds = Feeds(self.bounds, publishing=commands, sessions=commands)
        self.leases = Leases(commands, LEASE)
        self.outbox = VirtualOutbox(lambda: self.nodes)
        # Nothing asks for a receipt, and nothing is for later.
        receipts, schedule = cast(Receipts, None), cast(Schedule, None)
        self.publisher = Publisher(
            self.feeds, self.outbox, self.leases, Durability.MEMORY, receipts, EventLog(0),
            ClientQuota(commands, 0, 1), schedule,
        )  # fmt: skip
        self.run(self._start_nodes())

    async def _start_nodes(self) -> None:
        await self.leases.renew("publisher", take=True)
        self.nodes.extend([await self._new_node() for _ in range(NODES)])
        self.nodes[0].connect(self.devices[0])
        await self.settle()

    async def _new_node(self) -> VirtualNode:
        node = VirtualNode(self)
        await node.leases.renew(node.id, take=True)
        return node

    # --- running ---------------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.store.loop.run_until_complete(coroutine)

    def do(self, action: Callable[[], object]) -> None:
        """Do something on the loop, and let everything happen that is not held."""

        async def act() -> None:
            action()
            await self.settle()

        self.run(act())

    async def settle(self) -> None:
        quiet = 0
        while quiet < 2:
            quiet += 1
            for _ in range(8):
                await asyncio.sleep(0)
            while self.store.queue._task is not None:  # what is asked about leases, and cleaned up
                quiet = 0
                await asyncio.sleep(0)
            for node in self.nodes:
                while not node.held and (await node.queue.carry_out() or node.queue.answer()):
                    quiet = 0
        await self._hear_gaps()
        if self.failures:
            raise self.failures[0]

    async def _hear_gaps(self) -> None:
        told = [socket for socket in self.sockets if socket.gaps]
        if not told and not self.late:
            return
        trimmed = await self.store.queue.one("HGET", self.keys.cursors(FEED), "~trimmed")
        self.gone_until = max(self.gone_until, ids.parse(trimmed or b"0-0"))
        for socket in told:
            for after in socket.gaps:
                socket.device.excused |= {
                    entry for entry in self.published if entry > after and self.is_gone(entry)
                }
            socket.gaps.clear()
        for entry in self.late:
            # Where one socket was told of a gap, another may still have been brought the entry.
            self.check(self.is_gone(entry), "a smaller id came first after a larger one")
        self.late.clear()

    def is_gone(self, entry: int) -> bool:
        return not self.published.get(entry, False) or entry <= self.gone_until

    def check(self, holds: bool, promise: str) -> None:  # noqa: FBT001
        """Note a broken promise; callbacks of the loop cannot raise."""
        if not holds:
            self.failures.append(AssertionError(promise))

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = RuntimeError(context["message"])
        error.__cause__ = context.get("exception")
        self.failures.append(error)

    @property
    def sockets(self) -> list[Socket]:
        return [socket for node in self.nodes for socket in node.sockets]

    @property
    def open_sockets(self) -> list[Socket]:
        return [socket for socket in self.sockets if socket.open]

    # --- what backends and devices do ------------------------------------------------------------

    @rule(
        ttls=st.lists(st.sampled_from([None, None, MOMENT, 0.0, 600.0]), min_size=1, max_size=4),
        size=st.sampled_from([1, 300]),
        copies=st.sampled_from(["at once", "at once", "late", "never"]),
        to=st.sampled_from(["", "", *DEVICES]),
    )
    def publish(self, ttls: list[float | None], size: int, copies: str, to: str) -> None:
        async def act() -> None:
            body = b'"data":"%s"}' % (b"x" * size)
            for ttl in ttls:
                append = Append(FEED, body, ttl, device=to)
                self._has_a_place(append)
                entry = await self._publish(append, copies=copies != "never")
                if to:
                    self.whose[entry] = to
                if ttl != 0:
                    self.published[entry] = ttl != MOMENT
                if copies == "at once":
                    for node in self.nodes:
                        node.carry(len(node.inbox))
                if ttl == MOMENT:
                    await asyncio.sleep(3 * MOMENT)  # whoever reads it finds it expired
            await self.settle()

        self.run(act())

    def _has_a_place(self, append: Append) -> None:
        """A device that never came begins with what is kept for it, as if it came now."""
        for device in self.devices:
            if device.name == append.device and append.ttl != 0 and device.earliest is None:
                device.earliest = max(each.confirmed for each in self.devices)

    async def _publish(self, append: Append, *, copies: bool) -> int:
        if copies:
            (receipt,) = await self.publisher.publish([append])
            assert isinstance(receipt, Published)
            return receipt.id
        # As where the publisher dies before it sends them.
        (appended,), _ = await self.feeds.append([append])
        assert isinstance(appended, Appended)
        return appended.id

    @rule(device=small, which=small)
    def connect(self, device: int, which: int) -> None:
        self.do(lambda: anyone(self.nodes, which).connect(anyone(self.devices, device)))

    @precondition(lambda self: self.open_sockets)
    @rule(which=small)
    def disconnect(self, which: int) -> None:
        self.do(anyone(self.open_sockets, which).drop)

    @precondition(lambda self: any(socket.received for socket in self.open_sockets))
    @rule(which=small, back=st.sampled_from([0, 0, 1, 2]), ref=st.booleans())
    def ack(self, which: int, back: int, ref: bool) -> None:  # noqa: FBT001
        socket: Socket = anyone([each for each in self.open_sockets if each.received], which)
        received = sorted(set(socket.received), reverse=True)
        self.do(lambda: self._ack(socket, received[min(back, len(received) - 1)], ref=ref))

    def _ack(self, socket: Socket, entry: int, *, ref: bool) -> None:
        socket.acked = max(socket.acked, entry)
        socket.device.acked = max(socket.device.acked, entry)
        socket.say(type="ack", id=ids.render(entry), **({"ref": "a"} if ref else {}))
        if entry == socket.highest and socket.tail is None and socket.open:
            unacked = socket.session.cursor.unacked
            self.check(unacked is None, "who acknowledges its last has nothing left to do")

    @precondition(lambda self: self.open_sockets)
    @rule(which=small)
    def fill_or_empty(self, which: int) -> None:
        socket: Socket = anyone(self.open_sockets, which)
        if socket.full:
            self.do(socket.empty)
        else:
            socket.full = True

    # --- time ------------------------------------------------------------------------------------

    @rule()
    def the_acks_are_overdue(self) -> None:
        def act() -> None:
            self.now += ACK_TIMEOUT
            for socket in self.open_sockets:
                socket.perform(socket.session.due(self.policy, self.now))

        self.do(act)

    @rule(which=small, sweep=st.booleans())
    def upkeep(self, which: int, sweep: bool) -> None:  # noqa: FBT001
        node = anyone(self.nodes, which)
        self.do(node.sweep if sweep else node.tick)

    @precondition(lambda self: self.published)
    @rule()
    def the_log_passes_its_retention(self) -> None:
        async def act() -> None:
            await self.store.queue.one("DEL", self.keys.log(FEED))
            self.gone_until = max(self.published)

        self.run(act())

    # --- copies in the inboxes -------------------------------------------------------------------

    @precondition(lambda self: any(node.inbox for node in self.nodes))
    @rule(
        which=small,
        what=st.sampled_from(["arrive", "arrive", "lose", "double", "delay"]),
        entry=small,
        to=small,
    )
    def copies(self, which: int, what: str, entry: int, to: int) -> None:
        node: VirtualNode = anyone([node for node in self.nodes if node.inbox], which)
        inbox = node.inbox
        if what == "arrive":
            self.do(lambda: node.carry(1 + entry))
        elif what == "lose":
            del inbox[entry % len(inbox)]
        elif what == "double":
            inbox.insert(to % (len(inbox) + 1), anyone(inbox, entry))
        else:
            inbox.insert(to % len(inbox), inbox.pop(entry % len(inbox)))

    # --- the way to Redis ------------------------------------------------------------------------

    @rule(which=small)
    def hold_or_release(self, which: int) -> None:
        node = anyone(self.nodes, which)
        node.held = not node.held
        self.do(lambda: None)

    @precondition(lambda self: any(node.queue.pending for node in self.nodes))
    @rule(which=small, leave=st.integers(0, 3), arrive=st.integers(0, 3))
    def some_get_through(self, which: int, leave: int, arrive: int) -> None:
        node: VirtualNode = anyone([each for each in self.nodes if each.queue.pending], which)

        async def act() -> None:
            for _ in range(leave):
                await node.queue.carry_out()
            for _ in range(arrive):
                node.queue.answer()
            await self.settle()

        self.run(act())

    @rule(which=small)
    def cut_or_mend(self, which: int) -> None:
        queue = anyone(self.nodes, which).queue
        if queue.cut:
            queue.cut = False
        else:
            self.do(queue.fail)

    # --- nodes -----------------------------------------------------------------------------------

    @rule(which=small, leave=st.integers(0, 2), lapses=st.booleans())
    def kill(self, which: int, leave: int, lapses: bool) -> None:  # noqa: FBT001
        slot = which % len(self.nodes)

        async def act() -> None:
            node = self.nodes[slot]
            for _ in range(leave):
                await node.queue.carry_out()
            node.die()
            self.buried.append(node)
            self.nodes[slot] = await self._new_node()
            if lapses:
                await self._leases_lapse()
            await self.settle()

        self.run(act())

    async def _leases_lapse(self) -> None:
        for node in self.buried:
            await self.store.queue.one("ZREM", self.keys.nodes, node.id)

    @rule(which=small)
    def lapse_or_come_back(self, which: int) -> None:
        async def act() -> None:
            node = anyone(self.nodes, which)
            if node.lapsed:
                await self._come_back()
            else:
                node.lapsed = True
                await self.store.queue.one("ZREM", self.keys.nodes, node.id)

        self.run(act())

    async def _come_back(self) -> None:
        for node in self.nodes:
            if node.lapsed:
                name = new_node_id()
                await node.leases.renew(name, take=True)
                node.come_back(name)
        await self.settle()

    # --- what holds ------------------------------------------------------------------------------

    @invariant()
    def no_window_is_overrun(self) -> None:
        for socket in self.open_sockets:
            assert len(socket.session.cursor.unacked or ()) <= self.policy.window

    def teardown(self) -> None:
        try:
            if not self.failures:
                self.run(self._end())
        finally:
            self.run(self._clean_up())

    async def _end(self) -> None:
        """Everything is repaired; the copies under way are lost."""
        for node in self.nodes:
            node.held = node.queue.cut = False
            node.inbox.clear()
        await self._leases_lapse()
        await self._come_back()
        for node in self.nodes:
            await node.leases.renew(node.id, take=False)
        for socket in self.open_sockets:
            socket.empty()
        await self._catch_up()
        self._all_was_seen({socket.device.name for socket in self.open_sockets})
        await self._registered_are({self._id(socket) for socket in self.open_sockets})
        await self._hang_up()
        for device in self.devices:
            if device.start is not None or device.name in self.whose.values():
                self.nodes[0].connect(device)
        await self._catch_up()
        assert len(self.open_sockets) == sum(each.start is not None for each in self.devices)
        self._all_was_seen({socket.device.name for socket in self.open_sockets})
        await self._hang_up()

    async def _catch_up(self) -> None:
        """Acknowledge, sweep and read until nothing more comes."""
        before = -1
        quiet = 0
        while quiet < 3:
            self.now += 1
            for node in self.nodes:
                node.sweep()
            await self.settle()
            for socket in self.open_sockets:
                if socket.received:
                    self._ack(socket, socket.highest, ref=True)
            await self.settle()
            after = sum(len(socket.received) for socket in self.sockets)
            quiet = quiet + 1 if after == before else 0
            before = after

    async def _hang_up(self) -> None:
        for socket in self.open_sockets:
            socket.drop()
        for node in self.nodes:
            node.tick()
        await self.settle()
        await self._registered_are(set())
        for node in self.nodes:
            assert not node.parts.listeners.feeds()
            assert not node.parts.reader._stalled

    def _all_was_seen(self, names: set[str]) -> None:
        for device in self.devices:
            if device.name in names:
                assert device.start is not None
                owed = {
                    entry
                    for entry in self.published
                    if self.whose.get(entry) == device.name
                    or (entry > device.start and entry not in self.whose)
                }
                lost = owed - device.seen - device.excused
                assert not lost, f"{device.name} was neither sent nor told of {sorted(lost)}"

    async def _registered_are(self, expected: set[str]) -> None:
        names = await self.store.queue.one("HKEYS", self.keys.listeners(FEED))
        live = {node.id for node in self.nodes}
        registered = {name.decode() for name in names if node_of(name.decode()) in live}
        assert registered == expected, "the registrations are not those of the open connections"

    @staticmethod
    def _id(socket: Socket) -> str:
        return socket.node.dispatcher.connection_id(socket)

    async def _clean_up(self) -> None:
        me = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not me]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        keys = self.keys
        names = [keys.nodes, keys.acks(FEED), keys.listeners(BROADCAST), keys.cursors(BROADCAST)]
        names += [keys.log(FEED), keys.listeners(FEED), keys.cursors(FEED)]
        await self.store.queue.submit([("DEL", name) for name in names])
