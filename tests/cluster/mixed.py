"""Mixed load on several nodes, and a checker of all of it: mailboxes, topics, broadcast, presence.

python -m tests.cluster.mixed --seconds 60 --kill-every 4
python -m tests.cluster.mixed --seconds 60 --roll
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from pushsvc.protocol import ids
from pushsvc.protocol.feeds import BROADCAST, mailbox, name_of, topic
from pushsvc.server.embedded import EmbeddedServer
from tests.cluster.tally import Accepted, Place, Report, kind_of
from tests.support.nodes import Node, publisher_token
from tests.support.topics import member
from tests.support.versions import Version

USERS = 6
DEVICES = ("phone", "laptop")
GUESTS = 6
BACKENDS = 4
PACE_SECONDS: Final = 0.04
"""The most that a backend rests between two requests."""
SPEAK_SECONDS: Final = 1.5
"""The most that a client rests between two messages of its own."""
RETRY_SECONDS: Final = 40.0
SETTLE_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 0.25
WANDER_SECONDS: Final = (1.0, 8.0)
"""The least and the most that a client stays on one connection, before the last fault."""

ROOM: Final = "room"
"""The topic whose people are watched; guests come and go."""
PRICES: Final = "prices"
"""The topic with a state: each message replaces an older one of its key."""
TOPICS: Final = (ROOM, PRICES, "chat.1", "chat.2", "scores.nba")
KEYS: Final = ("A", "B", "C", "D")

Disturb = Callable[["Mixed"], Coroutine[Any, Any, None]]


class Peer:
    """A client on the socket, and what it holds of each feed.

    Args:
        load: where it belongs.
        user: the user id.
        name: the device.
        topics: what it subscribes to.
        follows: whether it wants to know who is in the room.
    """

    def __init__(
        self, load: "Mixed", user: str, name: str, topics: tuple[str, ...], *, follows: bool = True
    ) -> None:
        self.load = load
        self.user = user
        self.name = name
        self.topics = topics
        self.follows = follows
        self.places: dict[str, Place] = defaultdict(Place)
        self.since: dict[str, str | None] = dict.fromkeys(topics)
        """What it will subscribe with: the last id that it saw, or was told of."""
        self.ready = asyncio.Event()
        """Set once it was welcomed and subscribed for the first time."""
        self.present: set[str] | None = None
        """Who is in the room, as it was told; None while it does not know."""
        self.node: Node | None = None
        self.socket: ClientConnection | None = None
        self.leaving = False
        """Whether it is about to end its connection itself."""
        self._here: dict[str, set[int]] = {}
        self._said: dict[str, tuple[str, int, str, float]] = {}
        self._in_the_room = False
        self._numbers = itertools.count()

    async def run(self) -> None:
        """Listen, on one node after another."""
        for turn in itertools.count():
            self.load.report.reconnects += turn > 0
            await asyncio.sleep(await self.visit() + random.uniform(0.02, 0.3))

    async def visit(self) -> float:
        """Listen on some node until the connection ends; how long to wait before the next."""
        report = self.load.report
        try:
            await self._listen()
        except ConnectionClosed as error:
            code = 1006 if error.rcvd is None else error.rcvd.code
            if not self.leaving:
                report.closes[code] += 1
            report.sent_away += 4500 <= code <= 4999
        except InvalidStatus as error:
            report.sent_away += error.response.status_code not in (429, 503)
            return min(1.0, float(error.response.headers.get("Retry-After", 0)))
        except (OSError, InvalidHandshake, TimeoutError):
            pass
        finally:
            self._gone()
        return 0.0

    def _gone(self) -> None:
        self.present = self.socket = None
        self.load.report.unanswered += len(self._said)
        self._said.clear()
        if self._in_the_room:
            self._in_the_room = False
            self.load.room[self.user] -= 1

    async def _listen(self) -> None:
        self.node = self.load.some_node(but=self.node)
        async with (
            connect(
                f"ws://127.0.0.1:{self.node.port}/v1/ws?device={self.name}",
                additional_headers={"Authorization": f"Bearer {self.load.token_of(self.user)}"},
                open_timeout=3,
                close_timeout=0.2,
                ping_interval=1,  # a node that stands still is left
                ping_timeout=5,
            ) as socket,
            asyncio.TaskGroup() as tasks,
        ):
            self._here = defaultdict(set)
            self.socket = socket
            self.leaving = False
            beside = [tasks.create_task(self._speak(socket))]
            beside.append(tasks.create_task(self._wander(socket)))
            try:
                await self._hear(socket)
            except ConnectionClosed as error:
                self._closed = error
            finally:
                for task in beside:
                    task.cancel()
        raise self._closed

    async def _wander(self, socket: ClientConnection) -> None:
        """Lose the connection now and then, as phones do."""
        await asyncio.sleep(random.uniform(*WANDER_SECONDS))
        if not self.load.ending:
            self.leaving = True
            socket.transport.abort()

    async def _hear(self, socket: ClientConnection) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = json.loads(await socket.recv())
            except TimeoutError:
                await self._confirm(socket)
            else:
                await self._heard(socket, message)

    async def _heard(self, socket: ClientConnection, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "notification":
            await self._notified(socket, message)
        elif kind == "welcome":
            wanted = {name: self.since[name] for name in self.topics}
            await _send(socket, type="subscribe", topics=wanted, ref="topics")
        elif kind == "reply":
            await self._replied(socket, message)
        elif kind == "presence":
            assert self.present is not None, "changes were told before the answer"
            self.present = (self.present | set(message["joined"])) - set(message["left"])
        elif kind == "gap":
            self.load.report.tallies[kind_of(_feed(self.user, message))].gaps += 1
        elif kind == "error":
            self.load.report.errors[message["code"]] += 1
            self._said.pop(str(message.get("ref")), None)

    async def _replied(self, socket: ClientConnection, message: dict[str, Any]) -> None:
        ref = str(message["ref"])
        if ref == "topics":
            for name, last in message["topics"].items():
                if self.since[name] is None:
                    self.since[name] = last
            if ROOM in self.topics:
                self._in_the_room = True
                self.load.room[self.user] += 1
            self.ready.set()
            if self.follows:
                await _send(socket, type="presence", topic=ROOM, ref="who")
        elif ref == "who":
            self.present = set(message["users"])
        elif ref in (mailbox(""), BROADCAST):
            place = self.places[mailbox(self.user) if ref != BROADCAST else BROADCAST]
            place.confirmed = max(place.confirmed, ids.parse(message["acked"]))
        elif ref in self._said:
            name, number, key, at = self._said.pop(ref)
            self.load.was_accepted(topic(name), message["id"], Accepted(number, at, key))

    async def _notified(self, socket: ClientConnection, message: dict[str, Any]) -> None:
        feed, entry_id = _feed(self.user, message), ids.parse(message["id"])
        tally, place = self.load.report.tallies[kind_of(feed)], self.places[feed]
        here = self._here[feed]
        if "attempt" not in message and here:
            tally.duplicated += entry_id in here
            tally.out_of_order += entry_id not in here and entry_id < max(here)
        here.add(entry_id)
        self.load.ids_of[feed, message["data"]["n"]].add(entry_id)
        if entry_id <= place.confirmed:
            tally.again += 1
        if entry_id in place.told:
            tally.redelivered += 1
        else:
            tally.delivered += 1
            place.told[entry_id] = time.monotonic()
        if feed.startswith(topic("")):
            # What is told is passed; `since` excludes it on the next connection.
            place.confirmed = max(place.confirmed, entry_id)
            self.since[name_of(feed)] = ids.render(place.confirmed)
        elif random.random() < 0.7:
            await self._ack(socket, feed, entry_id, confirm=random.random() < 0.5)

    async def _confirm(self, socket: ClientConnection) -> None:
        for feed in (mailbox(self.user), BROADCAST):
            place = self.places[feed]
            if here := self._here[feed]:
                if place.confirmed < max(here):
                    await self._ack(socket, feed, max(here), confirm=True)
            elif place.confirmed < max(place.told, default=ids.START):
                # Told on an earlier connection, whose acknowledgement was written all the same.
                await self._ack(socket, feed, max(place.told), confirm=True)

    async def _ack(
        self, socket: ClientConnection, feed: str, entry_id: int, *, confirm: bool
    ) -> None:
        ref = {"ref": BROADCAST if feed == BROADCAST else mailbox("")} if confirm else {}
        which = {"broadcast": True} if feed == BROADCAST else {}
        await _send(socket, type="ack", id=ids.render(entry_id), **which, **ref)

    async def _speak(self, socket: ClientConnection) -> None:
        """Publish now and then; what is not answered may have been published or not."""
        with contextlib.suppress(ConnectionClosed):
            await self.ready.wait()
            while True:
                await asyncio.sleep(random.uniform(0.3, SPEAK_SECONDS))
                if not self.load.publishing:
                    continue
                name = random.choice(TOPICS)
                number = self.load.next_number()
                key = random.choice(KEYS) if name == PRICES else ""
                ref = f"p{next(self._numbers)}"
                self._said[ref] = name, number, key, time.monotonic()
                self.load.report.tallies["topic"].attempted += 1
                fields = {"collapse_key": key} if key else {}
                data = {"n": number}
                await _send(socket, type="publish", topic=name, data=data, ref=ref, **fields)

    _closed: ConnectionClosed


class Guest(Peer):
    """Someone who comes to the room and leaves it, and knows no past.

    Args:
        load: where it belongs.
        number: which of the guests; the odd ones do not stay to the end.
    """

    def __init__(self, load: "Mixed", number: int) -> None:
        super().__init__(load, f"guest-{number}", "web", (ROOM,), follows=False)
        self.stays = number % 2 == 0

    async def run(self) -> None:
        """Come and leave, one way or another."""
        while True:
            self.since = {ROOM: None}
            self.ready.clear()
            for place in self.places.values():
                place.confirmed = 0  # whoever names no position may be told the state again
            async with asyncio.TaskGroup() as tasks:
                visiting = tasks.create_task(self.visit())
                await self._stay(visiting)
                visiting.cancel()
            if self.load.ending and not self.stays:
                return
            await asyncio.sleep(random.uniform(0.02, 0.5))

    async def _stay(self, visiting: asyncio.Task[float]) -> None:
        until = time.monotonic() + random.uniform(0.5, 4)
        while not visiting.done():
            await asyncio.sleep(0.05)
            if self.load.ending:
                if not self.stays:
                    break
            elif time.monotonic() > until:
                break
        if self.socket is None or visiting.done():
            return
        self.leaving = True
        how = random.random()
        if how < 0.3:
            self.socket.transport.abort()
        elif how < 0.6 and self.ready.is_set():
            with contextlib.suppress(ConnectionClosed):
                await _send(self.socket, type="unsubscribe", topic=ROOM, ref="u")
                await asyncio.sleep(0.05)


class Mixed:
    """Backends, devices and guests on some nodes.

    Args:
        nodes: that can be used; they are killed and restarted.
        lease: seconds that a node's lease lasts.
    """

    def __init__(self, nodes: list[Node], lease: float) -> None:
        self.nodes = nodes
        self.lease = lease
        self.report = Report()
        self.users = [f"user-{n}" for n in range(USERS)]
        self.peers = [
            Peer(self, user, name, self._topics_of(number))
            for number, (user, name) in enumerate(itertools.product(self.users, DEVICES))
        ]
        self.guests = [Guest(self, number) for number in range(GUESTS)]
        self.accepted: dict[str, dict[int, Accepted]] = defaultdict(dict)
        self.ids_of: dict[tuple[str, int], set[int]] = defaultdict(set)
        """The ids under which a feed told one publication."""
        self.room: Counter[str] = Counter()
        """The truth: who is subscribed to the room, with how many connections."""
        self.publishing = True
        self.ending = False
        """The last fault comes: who leaves now stays away."""
        self.last_fault = 0.0
        self._struck = asyncio.Event()
        self._tokens: dict[str, str] = {}
        self._numbers = itertools.count(1)

    @staticmethod
    def _topics_of(number: int) -> tuple[str, ...]:
        """The room for all, and of the others most."""
        return tuple(name for i, name in enumerate(TOPICS) if i == 0 or (number + i) % 3)

    def next_number(self) -> int:
        """A number that no other publication has."""
        return next(self._numbers)

    def token_of(self, user: str) -> str:
        """A token that opens every topic."""
        if user not in self._tokens:
            self._tokens[user] = member(user, ttl=3600)
        return self._tokens[user]

    def some_node(self, *, but: Node | None = None) -> Node:
        """Any node, dead ones included: who asks finds out."""
        return random.choice([node for node in self.nodes if node is not but] or self.nodes)

    def was_accepted(self, feed: str, entry_id: str, accepted: Accepted) -> None:
        """A publish was answered with an id."""
        self.accepted[feed][ids.parse(entry_id)] = accepted
        self.report.tallies[kind_of(feed)].accepted += 1

    def struck(self) -> None:
        """A node was just killed or stopped."""
        if self.ending:
            self.last_fault = time.monotonic()
            self._struck.set()

    def a_guests_node(self) -> Node:
        """A node that holds a guest who will not come back, if there is one."""
        nodes = [guest.node for guest in self.guests if guest.socket and not guest.stays]
        return next((node for node in nodes if node is not None), self.some_node())

    async def run(self, disturb: Disturb) -> Report:
        """Publish while something disturbs, then wait until everyone has all and presence is true.

        ``disturb`` sets ``ending`` before its last fault, and says ``struck`` after each.
        """
        listening = [asyncio.create_task(peer.run()) for peer in self.peers]
        try:
            # Owed is what was accepted after a device was known and subscribed.
            await asyncio.gather(*(peer.ready.wait() for peer in self.peers))
            listening += [asyncio.create_task(guest.run()) for guest in self.guests]
            async with httpx.AsyncClient(timeout=5) as client, asyncio.TaskGroup() as tasks:
                publishers = [tasks.create_task(self._backend(client)) for _ in range(BACKENDS)]
                watching = tasks.create_task(self._watch_presence(client))
                await disturb(self)
                await asyncio.sleep(1)
                self.publishing = False
                await asyncio.wait(publishers)
                await self._settled()
                await watching
        finally:
            for task in listening:
                task.cancel()
            ends = await asyncio.gather(*listening, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        self._count()
        return self.report

    # --- backends ------------------------------------------------------------------------------

    async def _backend(self, client: httpx.AsyncClient) -> None:
        while self.publishing:
            await self._publish(client)
            await asyncio.sleep(random.uniform(0, PACE_SECONDS))

    def _something(self) -> tuple[list[str], dict[str, Any], str]:
        """Feeds, the address that stands for them, and a collapse key."""
        how = random.random()
        if how < 0.35:
            user = random.choice(self.users)
            return [mailbox(user)], {"user": user}, ""
        if how < 0.45:
            users = random.sample(self.users, 3)
            return [mailbox(user) for user in users], {"users": users}, ""
        if how < 0.6:
            return [BROADCAST], {"broadcast": True}, ""
        name = random.choice(TOPICS)
        return [topic(name)], {"topic": name}, random.choice(KEYS) if name == PRICES else ""

    async def _publish(self, client: httpx.AsyncClient) -> None:
        feeds, to, key = self._something()
        number = self.next_number()
        self.report.tallies[kind_of(feeds[0])].attempted += len(feeds)
        body = {"to": to, "data": {"n": number}} | ({"collapse_key": key} if key else {})
        headers = {
            "Authorization": f"Bearer {publisher_token()}",
            "Idempotency-Key": f'"{uuid.uuid4()}"',
        }
        begun = time.monotonic()
        while time.monotonic() < begun + RETRY_SECONDS:
            pause = random.uniform(0.02, 0.2)
            address = self.some_node().url + "/v1/notifications"
            try:
                answer = await client.post(address, json=body, headers=headers)
            except httpx.ConnectError:
                self.report.refused += 1
            except httpx.TransportError as error:
                self.report.broken_off[type(error).__name__] += 1
            else:
                if answer.status_code == 202:
                    result = answer.json()
                    results = result.get("results", [result])
                    if all("id" in each for each in results):
                        for feed, each in zip(feeds, results, strict=True):
                            accepted = Accepted(number, time.monotonic(), key)
                            self.was_accepted(feed, each["id"], accepted)
                        return
                elif answer.status_code != 503:
                    raise AssertionError(answer.text)
                self.report.unavailable += 1
                pause += min(1.0, float(answer.headers.get("Retry-After", 0)))
            await asyncio.sleep(pause)
        self.report.never_accepted += 1

    # --- what became of it ---------------------------------------------------------------------

    async def _settled(self) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and any(self._missing(peer) for peer in self.peers):
            await asyncio.sleep(0.05)

    def _owed(self, peer: Peer) -> dict[tuple[str, int], Accepted]:
        feeds = [mailbox(peer.user), BROADCAST, *map(topic, peer.topics)]
        return {
            (feed, entry_id): accepted
            for feed in feeds
            for entry_id, accepted in self.accepted[feed].items()
        }

    def _missing(self, peer: Peer) -> list[tuple[str, int]]:
        """What a peer was not told, nor anything newer that replaced it."""
        newest: dict[tuple[str, str], int] = {}
        for feed in map(topic, peer.topics):
            for entry_id, accepted in self.accepted[feed].items():
                if entry_id in peer.places[feed].told:
                    place = feed, accepted.key
                    newest[place] = max(newest.get(place, 0), entry_id)
        return [
            (feed, entry_id)
            for (feed, entry_id), accepted in self._owed(peer).items()
            if entry_id not in peer.places[feed].told
            and not (accepted.key and newest.get((feed, accepted.key), 0) > entry_id)
        ]

    def _count(self) -> None:
        tallies = self.report.tallies
        for peer in self.peers:
            for feed, entry_id in self._missing(peer):
                tallies[kind_of(feed)].lost += 1
                sys.stderr.write(f"lost: {peer.user} {peer.name} {feed} {ids.render(entry_id)}\n")
            for (feed, entry_id), accepted in self._owed(peer).items():
                told = peer.places[feed].told.get(entry_id)
                if told is not None:
                    tally = tallies[kind_of(feed)]
                    tally.slowest = max(tally.slowest, told - accepted.at)
        for feed, entries in self.accepted.items():
            for entry_id, accepted in entries.items():
                self.ids_of[feed, accepted.number].add(entry_id)
        for (feed, _), several in self.ids_of.items():
            tallies[kind_of(feed)].doubled += len(several) - 1

    # --- presence ------------------------------------------------------------------------------

    async def _watch_presence(self, client: httpx.AsyncClient) -> None:
        """Measure how long after the last fault the last one was still wrong about the room."""
        await self._struck.wait()
        end = self.last_fault + 2 * self.lease + 2
        wrong = self.last_fault
        while (now := time.monotonic()) < end or (wrong > end - 1 and now < end + 30):
            views = [peer.present for peer in self.peers]
            answers = [await self._ask(client, node) for node in self.nodes]
            views += [answer for answer in answers if answer is not None]
            truth = {user for user, count in self.room.items() if count}
            if any(view != truth for view in views):
                wrong = time.monotonic()
                self.report.presence = f"true: {sorted(truth)}; told: {views}"
            await asyncio.sleep(0.1)
        self.report.presence_seconds = wrong - self.last_fault
        self.report.presence_late = wrong - self.last_fault > 2 * self.lease

    async def _ask(self, client: httpx.AsyncClient, node: Node) -> set[str] | None:
        with contextlib.suppress(httpx.TransportError):
            answer = await client.get(
                f"{node.url}/v1/topics/{ROOM}/presence",
                headers={"Authorization": f"Bearer {publisher_token()}"},
            )
            if answer.status_code == 200:
                return set(answer.json()["users"])
        return None


async def _send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


def _feed(user: str, message: dict[str, Any]) -> str:
    if "topic" in message:
        return topic(message["topic"])
    return BROADCAST if message.get("broadcast") else mailbox(user)


def killing(every: float, seconds: float) -> Disturb:
    """``kill -9`` a node at random, again and again, and start it again a second later."""

    async def disturb(load: Mixed) -> None:
        end = time.monotonic() + seconds
        while not load.ending:
            await asyncio.sleep(every)
            load.ending = time.monotonic() + every + 1 >= end
            victim = load.a_guests_node() if load.ending else load.some_node()
            victim.kill()
            load.struck()
            load.report.kills += 1
            await asyncio.sleep(1)
            await asyncio.to_thread(victim.start, ready=False)

    return disturb


def rolling(pause: float, seconds: float) -> Disturb:
    """Restart all nodes, one after the other, as a deployment does, until the time is over."""

    async def disturb(load: Mixed) -> None:
        end = time.monotonic() + seconds
        for node in itertools.cycle(load.nodes):
            if load.ending:
                return
            await asyncio.sleep(pause)
            load.ending = time.monotonic() + pause >= end and node is load.nodes[-1]
            await restart(load, node, node.version)

    return disturb


async def restart(load: Mixed, node: Node, version: Version) -> None:
    """Stop a node as a deployment does, and have this version take its place."""
    assert await asyncio.to_thread(node.stop) == 0, "a node did not stop cleanly"
    load.struck()
    load.report.restarts += 1
    node.version = version
    await asyncio.to_thread(node.start)


SETTINGS: Final = {"mailbox_max": 100_000, "drain_seconds": 1}
"""All that is published is kept: what is missing is lost."""


async def _main(disturb: Disturb, count: int, lease: float) -> Report:
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer() as server:
        settings = {**SETTINGS, "lease_seconds": lease}
        nodes = [
            Node(server.url, Path(directory), prefix="mixed", **settings) for _ in range(count)
        ]
        try:
            for node in nodes:
                node.start()
            return await Mixed(nodes, lease).run(disturb)
        finally:
            for node in nodes:
                node.stop()
                node.check_log()


def main() -> int:
    """Run the load and print the tables; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.mixed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kill-every", type=float, default=4)
    parser.add_argument("--roll", action="store_true", help="restart one by one instead")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--lease", type=float, default=10)
    arguments = parser.parse_args()
    disturb = killing(arguments.kill_every, arguments.seconds)
    if arguments.roll:
        disturb = rolling(1, arguments.seconds)
    report = asyncio.run(_main(disturb, arguments.nodes, arguments.lease))
    sys.stdout.write(f"{report}\n")
    broken = report.disturbed() if arguments.roll else report.broken()
    if broken:
        sys.stdout.write(f"broken: {broken}\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
