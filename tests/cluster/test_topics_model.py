"""Topics against a model: any interleaving keeps the promises.

As in ``mailbox_model``: nodes, queues, feeds and the Valkey are real; sockets, inboxes and time are
virtual, and Hypothesis decides when what happens, what is lost, and who is slow.
"""

import asyncio
import functools
import os
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pushsvc.feeds import feed as feed_module
from pushsvc.feeds.event_log import EventLog
from pushsvc.feeds.feed import Appended, Bounds, Feeds
from pushsvc.feeds.nodes import Leases
from pushsvc.feeds.publisher import Published, Publisher
from pushsvc.feeds.quota import ClientQuota
from pushsvc.feeds.receipts import Receipts
from pushsvc.feeds.schedule import Schedule
from pushsvc.node import catch_up as catch_up_module
from pushsvc.node import presence as presence_module
from pushsvc.node import registrations as registrations_module
from pushsvc.node import turns as turns_module
from pushsvc.node.identity import new_node_id
from pushsvc.protocol import frames, ids
from pushsvc.protocol.feeds import BROADCAST, topic
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.session import Policy, Subscribe
from pushsvc.protocol.wire import TEXT
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.settings import Durability
from pushsvc.store.redis import Redis
from pushsvc.store.schema import Keys
from tests.cluster.mailbox_model import (
    EVER,
    LEASE,
    MOMENT,
    Store,
    VirtualNode,
    VirtualOutbox,
    anyone,
    messages_in,
    small,
)
from tests.support.hubs import session_of

EXAMPLES: Final = int(os.environ.get("MODEL_EXAMPLES", "120"))
STEPS: Final = int(os.environ.get("MODEL_STEPS", "50"))

NODES: Final = 2
TOPICS: Final = ("a", "b")
KEYS: Final = ("x", "y", "z")
MOST_SOCKETS: Final = 6
LONG: Final = 5.0
"""Seconds after which who left has left."""


@dataclass
class Note:
    """A publication, and what became of it."""

    id: int
    key: str
    owed: bool
    """It is stored, and for long."""
    era: int
    """How often Redis had been emptied before."""


@dataclass
class Subscription:
    """What one socket was told of one topic."""

    since: int | None
    base: int | None = None
    """What is published after it is owed; None until the answer."""
    state: set[int] = field(default_factory=set)
    """What the state was made of at the answer."""
    position: int = ids.START
    """Where a loss is noticed: at the start there is nothing to lose."""
    last: int = ids.START
    seen: set[int] = field(default_factory=set)
    excused: set[int] = field(default_factory=set)


class Socket:
    """A listener whose peer is the model."""

    def __init__(self, model: "TopicsModel", node: VirtualNode, number: int) -> None:
        self.model = model
        self.node = node
        self.number = number
        self.user = f"u{number % 3}"
        self.session = session_of(self.user, "d", expires=EVER, seen=model.now)
        self.wire = TEXT
        self.open = True
        self.dead = False
        self.full = False
        self.tail = False
        self.held: dict[str, Subscription] = {}
        self.asked: list[Subscription] = []
        """The subscriptions, by the ref of their request."""
        self.people: dict[str, set[str]] = {}

    def __hash__(self) -> int:
        return self.number  # the order in a set is the same in every run

    # What the node sees.

    def writable(self) -> bool:
        return self.open and not self.tail

    def write(self, data: bytes) -> None:
        if self.dead:
            return
        self.tail = self.tail or self.full
        for message in messages_in(data):
            self._heard(message)

    def send(self, payload: bytes) -> None:
        if self.open:
            self.write(frames.text(payload))

    def watch(self) -> None:
        pass

    # What the peer does.

    def drop(self) -> None:
        self.open = False
        self.dead = True
        self.node.parts.topics.left(self)

    def empty(self) -> None:
        self.full = self.tail = False
        if self.open:
            self.node.parts.topics.drained(self)

    def subscribe(self, name: str, since: int | None) -> None:
        held = self.held[name] = Subscription(since)
        self.asked.append(held)
        request = Subscribe({name: since}, many=False, ref=len(self.asked) - 1)
        self.node.parts.topics.subscribe(self, request)

    def unsubscribe(self, name: str) -> None:
        del self.held[name]
        self.people.pop(name, None)
        self.node.parts.topics.unsubscribe(self, name, None)

    def ask(self, name: str) -> None:
        self.node.parts.topics.ask(self, name, "w")

    def _heard(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "error":
            # Refused, as Redis cannot be reached; or the people, which says nothing.
            if message["ref"] != "w":
                self._refused()
            return
        name = message["topic"]
        if kind == "presence":
            if name in self.people:
                self.people[name] |= set(message["joined"])
                self.people[name] -= set(message["left"])
            return
        held = self.held.get(name)
        if kind == "reply" and "users" in message:
            if held is not None:
                self.people[name] = set(message["users"])
            return
        if kind == "reply":
            self._answered(name, self.asked[message["ref"]], ids.parse(message["last"]))
            return
        self.model.check(held is not None, "told of a topic that it does not listen to")
        if held is None:
            return
        if kind == "gap":
            self._gap(name, held, message)
        else:
            self._notified(held, ids.parse(message["id"]))

    def _refused(self) -> None:
        topics = self.session.topics or {}
        for name in [name for name in self.held if name not in topics]:
            del self.held[name]
            self.people.pop(name, None)

    def _answered(self, name: str, held: Subscription, last: int) -> None:
        held.base = last if held.since is None else held.since
        held.position = held.base
        if held.base == ids.START:
            model = self.model
            held.excused |= {note.id for note in model.notes[name] if note.era < model.era}
        held.last = ids.START if held.since is None else held.since
        if held.since is None:
            held.state = self.model.state(name, last)

    def _gap(self, name: str, held: Subscription, message: dict[str, Any]) -> None:
        if message["reason"] == "reset":
            self.model.check(self.model.era > 0, "a reset without a loss")
            held.excused |= {n.id for n in self.model.notes[name] if n.era < self.model.era}
            held.last = held.position = ids.START
        # A reset tells as well of what came after the loss and is gone by now.
        self.model.gaps.append((name, held, ids.parse(message["after"])))

    def _notified(self, held: Subscription, entry: int) -> None:
        self.model.check(held.base is not None, "told before the answer")
        self.model.check(entry > held.last, "sent twice, or out of order")
        held.last = held.position = entry
        held.seen.add(entry)


class TopicsModel(RuleBasedStateMachine):
    """Two topics, two nodes, some sockets that come and go."""

    store: Store

    @initialize(keep=st.sampled_from([4, 8, 1000]), stalls=st.booleans())
    def begin(self, keep: int, stalls: bool) -> None:  # noqa: FBT001
        self.now = 1000.0
        self.stalls = stalls
        self.numbers = 0
        self.era = 0
        forever = Rate(EVER, EVER)
        self.policy = Policy(
            heartbeat=EVER, window=64, ack_timeout=30.0, ack_attempts=3,
            messages=forever, bytes=forever, control=forever,
        )  # fmt: skip
        self.bounds = Bounds(entries=keep, retention=3600, connections=64)
        self.keys = Keys(f"m{uuid.uuid4().hex[:10]}")
        self.notes: dict[str, list[Note]] = {name: [] for name in TOPICS}
        self.gone_until = dict.fromkeys(TOPICS, ids.START)
        self.gaps: list[tuple[str, Subscription, int]] = []
        self.failures: list[BaseException] = []
        self.nodes: list[VirtualNode] = []
        self.sockets: list[Socket] = []
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
        await self.leases.renew("publisher", take=False)

    async def _new_node(self) -> VirtualNode:
        node = VirtualNode(cast(Any, self))
        if self.stalls:
            node.hold()
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
        quiet = rounds = 0
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
                    rounds += 1
                    assert rounds < 1000, "it never comes to rest"
        await self._hear_gaps()
        if self.failures:
            raise self.failures[0]

    async def _hear_gaps(self) -> None:
        """A gap excuses what is gone after it."""
        for name, held, after in self.gaps:
            trimmed = await self.store.queue.one("HGET", self.keys.cursors(topic(name)), "~trimmed")
            gone = max(self.gone_until[name], ids.parse(trimmed or b"0-0"))
            held.excused |= {n.id for n in self.notes[name] if after < n.id <= gone}
        self.gaps.clear()

    def check(self, holds: bool, promise: str) -> None:  # noqa: FBT001
        """Note a broken promise; callbacks of the loop cannot raise."""
        if not holds:
            self.failures.append(AssertionError(promise))

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = RuntimeError(context["message"])
        error.__cause__ = context.get("exception")
        self.failures.append(error)

    @property
    def open_sockets(self) -> list[Socket]:
        return [socket for socket in self.sockets if socket.open]

    @property
    def subscribed(self) -> list[tuple[Socket, str]]:
        return [(socket, name) for socket in self.open_sockets for name in socket.held]

    def state(self, name: str, upto: int) -> set[int]:
        """The newest of each key up to an id."""
        newest = {
            note.key: note.id
            for note in self.notes[name]
            if note.key and note.era == self.era and note.id <= upto
        }
        return {note.id for note in self.notes[name] if note.id in newest.values() and note.owed}

    # --- what backends do ------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(TOPICS),
        ttls=st.lists(st.sampled_from([None, None, MOMENT, 0.0, 600.0]), min_size=1, max_size=4),
        key=st.sampled_from(["", "", *KEYS]),
        size=st.sampled_from([1, 300]),
        copies=st.sampled_from(["at once", "at once", "late", "never"]),
    )
    def publish(
        self, name: str, ttls: list[float | None], key: str, size: int, copies: str
    ) -> None:
        async def act() -> None:
            body = b'"topic":"%s","data":"%s"}' % (name.encode(), b"x" * size)
            for ttl in ttls:
                append = Append(topic(name), body, ttl, collapse_key=key)
                await self._publish(name, append, copies=copies)
                if ttl == MOMENT:
                    await asyncio.sleep(3 * MOMENT)  # whoever reads it finds it expired
            await self.settle()

        self.run(act())

    async def _publish(self, name: str, append: Append, *, copies: str) -> None:
        if copies == "never":
            # As where the publisher dies before it sends them.
            (appended,), _ = await self.feeds.append([append])
            assert isinstance(appended, Appended)
            entry = appended.id
        else:
            (receipt,) = await self.publisher.publish([append])
            assert isinstance(receipt, Published)
            entry = receipt.id
        key = append.collapse_key if append.ttl != 0 else ""
        self.notes[name].append(Note(entry, key, append.ttl not in (0, MOMENT), self.era))
        if copies == "at once":
            for node in self.nodes:
                node.carry(len(node.inbox))

    # --- what clients do -------------------------------------------------------------------------

    @precondition(lambda self: len(self.open_sockets) < MOST_SOCKETS)
    @rule(which=small, names=st.sets(st.sampled_from(TOPICS), min_size=1))
    def come(self, which: int, names: set[str]) -> None:
        self.numbers += 1
        socket = Socket(self, anyone(self.nodes, which), self.numbers)
        self.sockets.append(socket)
        for name in sorted(names):
            self.do(functools.partial(socket.subscribe, name, None))

    @precondition(lambda self: self.open_sockets)
    @rule(which=small, name=st.sampled_from(TOPICS), back=st.sampled_from([None, 0, 0, 1, 3, 9]))
    def subscribe(self, which: int, name: str, back: int | None) -> None:
        socket: Socket = anyone(self.open_sockets, which)
        if name in socket.held:
            return
        since = None
        if back is not None and self.notes[name]:
            known = [ids.START, *(note.id for note in self.notes[name])]
            since = known[max(0, len(known) - 1 - back)]
        self.do(lambda: socket.subscribe(name, since))

    @precondition(lambda self: self.subscribed)
    @rule(which=small)
    def unsubscribe(self, which: int) -> None:
        socket, name = anyone(self.subscribed, which)
        self.do(lambda: socket.unsubscribe(name))

    @precondition(lambda self: self.subscribed)
    @rule(which=small)
    def ask_who_is_here(self, which: int) -> None:
        socket, name = anyone(self.subscribed, which)
        self.do(lambda: socket.ask(name))

    @precondition(lambda self: self.open_sockets)
    @rule(which=small)
    def go(self, which: int) -> None:
        self.do(anyone(self.open_sockets, which).drop)

    @precondition(lambda self: self.open_sockets)
    @rule(which=small)
    def fill_or_empty(self, which: int) -> None:
        socket: Socket = anyone(self.open_sockets, which)
        if socket.full:
            self.do(socket.empty)
        else:
            socket.full = True

    # --- time and copies -------------------------------------------------------------------------

    @rule(which=small, what=st.sampled_from(["tick", "sweep", "later"]))
    def upkeep(self, which: int, what: str) -> None:
        node = anyone(self.nodes, which)
        self.now += LONG if what == "later" else 0
        self.do(node.sweep if what == "sweep" else node.tick)

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

    # --- what goes to many -----------------------------------------------------------------------

    @rule(which=small)
    def stall_or_go_on(self, which: int) -> None:
        node: VirtualNode = anyone(self.nodes, which)
        self.do(node.go_on if node.busy else node.hold)

    @precondition(lambda self: any(node.busy and node.parts.turns._works for node in self.nodes))
    @rule(which=small, turns=st.integers(1, 3))
    def some_are_sent_to(self, which: int, turns: int) -> None:
        busy = [each for each in self.nodes if each.busy and each.parts.turns._works]
        node: VirtualNode = anyone(busy, which)
        for _ in range(turns):
            self.do(node.turn)

    # --- Redis, and the way there ----------------------------------------------------------------

    @rule(name=st.sampled_from(TOPICS))
    def the_log_passes_its_retention(self, name: str) -> None:
        async def act() -> None:
            if await self.store.queue.one("DEL", self.keys.log(topic(name))):
                self.gone_until[name] = self.notes[name][-1].id

        self.run(act())

    @rule(name=st.sampled_from(TOPICS))
    def a_failover_loses_who_listens(self, name: str) -> None:
        async def act() -> None:
            await self.store.queue.one("DEL", self.keys.listeners(topic(name)))

        self.run(act())

    @rule(leases=st.booleans())
    def redis_is_emptied(self, leases: bool) -> None:  # noqa: FBT001
        async def act() -> None:
            await self._empty()
            for socket, name in self.subscribed:
                held = socket.held[name]
                answered = held.base is not None or not held.since
                if answered and held.position == ids.START:
                    held.excused |= {note.id for note in self.notes[name]}
            if leases:
                await self.store.queue.one("DEL", self.keys.nodes)
                for node in self.nodes:
                    node.lapsed = True
                await self.leases.renew("publisher", take=True)
            self.era += 1
            await asyncio.sleep(0.002)  # ids do not come again

        self.run(act())

    async def _empty(self) -> None:
        keys = self.keys
        for feed in (*map(topic, TOPICS), BROADCAST):
            names = [keys.log(feed), keys.listeners(feed), keys.cursors(feed)]
            names += [keys.latest(feed), keys.order(feed), keys.present(feed)]
            await self.store.queue.submit([("DEL", name) for name in names])

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

    @rule(which=small, leave=st.integers(0, 2))
    def kill(self, which: int, leave: int) -> None:
        slot = which % len(self.nodes)

        async def act() -> None:
            node = self.nodes[slot]
            for _ in range(leave):
                await node.queue.carry_out()
            for socket in self.open_sockets:
                if socket.node is node:
                    socket.dead, socket.open = True, False
            node.die()
            await self.store.queue.one("ZREM", self.keys.nodes, node.id)
            self.nodes[slot] = await self._new_node()
            await self._renew()
            await self.settle()

        self.run(act())

    async def _renew(self) -> None:
        for node in self.nodes:
            if not node.lapsed:
                await node.leases.renew(node.id, take=False)
        await self.leases.renew("publisher", take=False)

    @rule(which=small)
    def lapse_or_come_back(self, which: int) -> None:
        async def act() -> None:
            node = anyone(self.nodes, which)
            if node.lapsed:
                await self._come_back()
            else:
                node.lapsed = True
                await self.store.queue.one("ZREM", self.keys.nodes, node.id)
            await self._renew()

        self.run(act())

    async def _come_back(self) -> None:
        for node in self.nodes:
            if node.lapsed:
                name = new_node_id()
                await node.leases.renew(name, take=True)
                node.come_back(name)
        await self.settle()

    # --- what holds ------------------------------------------------------------------------------

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
            node.go_on()
        await self._come_back()
        await self._renew()
        for socket in self.open_sockets:
            socket.empty()
        await self._quiet()
        self.now += presence_module.REASSERT  # Redis may have been emptied
        await self._quiet()
        for socket, name in self.subscribed:
            self._all_was_told(socket, name)
        self._presence_is_true()
        for name in TOPICS:  # one that finds out with the next one has found out now
            body = b'"topic":"%s","data":0}' % name.encode()
            await self._publish(name, Append(topic(name), body), copies="at once")
        await self.settle()
        for socket, name in self.subscribed:
            self._all_was_told(socket, name)
            assert (socket.session.topics or {})[name] is None, "it is not in step"
        for socket in self.open_sockets:
            socket.drop()
        await self._quiet()
        await self._nothing_is_left()

    async def _quiet(self) -> None:
        """Sweep and read until nothing more comes."""
        for _ in range(8):
            self.now += 1
            for node in self.nodes:
                node.sweep()
            await self.settle()
            for node in self.nodes:
                node.carry(len(node.inbox))
            await self.settle()

    def _all_was_told(self, socket: Socket, name: str) -> None:
        held = socket.held[name]
        notes = self.notes[name]
        newest = {(note.key, note.era): note.id for note in notes if note.key}
        base = held.base
        assert base is not None, "no answer came"
        owed = {
            note.id
            for note in notes
            if note.owed
            and (note.id > base or note.id in held.state)
            and (not note.key or newest[note.key, note.era] == note.id)
        }
        lost = owed - held.seen - held.excused
        assert not lost, f"{socket.number} was neither sent nor told of {sorted(lost)} of {name}"

    def _presence_is_true(self) -> None:
        for name in TOPICS:
            truth = {socket.user for socket, topic in self.subscribed if topic == name}
            for socket in self.open_sockets:
                people = socket.people.get(name, truth)
                assert people == truth, f"{socket.number} believes {people} are at {name}"

    async def _nothing_is_left(self) -> None:
        for node in self.nodes:
            topics, presence = node.parts.topics, node.parts.presence
            assert not topics._channels
            assert not topics._stalled
            assert not node.parts.reader._stalled
            assert not presence._followers
            assert not presence._known
            assert not any(presence._here.values())
        for name in TOPICS:
            for key in (self.keys.listeners(topic(name)), self.keys.present(topic(name))):
                fields = await self.store.queue.one("HKEYS", key)
                live = {node.id for node in self.nodes}
                left = [f for f in fields if f.decode().split(" ")[0] in live]
                assert not left, f"{key} holds {left}"

    async def _clean_up(self) -> None:
        me = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not me]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._empty()
        await self.store.queue.one("DEL", self.keys.nodes)


@pytest.fixture
def store(valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    # Small limits, so that few entries reach them.
    monkeypatch.setattr(catch_up_module, "CHUNK", 500)
    monkeypatch.setattr(turns_module, "PART", 1)
    monkeypatch.setattr(turns_module, "AT_ONCE", 1)
    monkeypatch.setattr(turns_module, "TURN", 0)
    monkeypatch.setattr(turns_module, "MOST_WAITING", 2)
    monkeypatch.setattr(registrations_module, "BATCH", 1)
    monkeypatch.setattr(feed_module, "READ_COUNT", 4)
    monkeypatch.setattr(feed_module, "STATE_COUNT", 1)
    monkeypatch.setattr(presence_module, "PAUSE", 0)
    monkeypatch.setattr(presence_module, "BATCH", 1)
    monkeypatch.setattr(presence_module, "MOST_PAUSE", 0)
    store = Store(valkey.url)
    yield store
    store.close()


@pytest.fixture
def model(store: Store) -> Iterator[TopicsModel]:
    """The model, for a story that is told by hand."""
    model: TopicsModel = type("Running", (TopicsModel,), {"store": store})()
    model.begin(keep=1000, stalls=False)
    yield model
    model.teardown()


def _publish(model: TopicsModel, name: str, key: str) -> None:
    model.publish(name=name, ttls=[None], key=key, size=300, copies="at once")


def test_what_is_published_while_the_state_waits_for_room_is_told_as_well(
    model: TopicsModel,
) -> None:
    _publish(model, "a", "x")
    _publish(model, "a", "y")
    model.come(which=0, names={"b"})
    model.fill_or_empty(which=0)
    model.subscribe(which=0, name="a", back=None)
    _publish(model, "a", "")
    _publish(model, "a", "x")
    model.fill_or_empty(which=0)


def test_who_comes_to_a_topic_that_redis_lost_does_not_read_it_again_and_again(
    model: TopicsModel,
) -> None:
    model.come(which=0, names={"a"})
    _publish(model, "a", "")
    model.redis_is_emptied(leases=False)
    model.come(which=0, names={"a"})


def test_who_began_with_a_state_that_redis_lost_is_told_what_comes_then(model: TopicsModel) -> None:
    model.come(which=0, names={"a"})
    model.a_failover_loses_who_listens(name="a")
    _publish(model, "a", "")
    model.come(which=0, names={"a"})
    model.redis_is_emptied(leases=False)


def test_a_loss_and_what_is_gone_of_what_came_after_it_are_one_gap(model: TopicsModel) -> None:
    _publish(model, "a", "")
    model.come(which=0, names={"a"})
    model.redis_is_emptied(leases=False)
    _publish(model, "a", "")
    model.the_log_passes_its_retention(name="a")


def test_one_that_goes_while_others_are_sent_to_gets_nothing_more(model: TopicsModel) -> None:
    for _ in range(3):
        model.come(which=0, names={"a"})
    model.stall_or_go_on(which=0)
    _publish(model, "a", "")
    model.some_are_sent_to(which=0, turns=1)
    model.unsubscribe(which=2)
    _publish(model, "a", "")
    model.subscribe(which=2, name="a", back=1)
    model.some_are_sent_to(which=0, turns=3)


def test_every_interleaving_keeps_the_promises_of_topics(store: Store) -> None:
    run_state_machine_as_test(
        type("Running", (TopicsModel,), {"store": store}),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
