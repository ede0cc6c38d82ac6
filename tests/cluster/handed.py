"""What is done on one node and goes on at another, each a case that two versions must agree on.

A case takes the node where something is done, and the other one. It uses names that nobody else
does, and passes over broadcasts, which come from whoever else is there.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from traceback import extract_tb
from typing import Any, ClassVar, Final, NamedTuple

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.backend import publish, publish_all
from tests.support.nodes import PLAIN, Node, publisher_token, token
from tests.support.phone import PATIENCE
from tests.support.services import QuietHandler
from tests.support.topics import Member, member, order, post, tell, tell_all, tell_everyone

Case = Callable[[Node, Node], Coroutine[Any, Any, None]]

MOST_CONNECTIONS: Final = 6
WEBHOOK_SECRET: Final = "whsec_" + "QUJD" * 10
SETTINGS: Final = {"max_connections_per_user": MOST_CONNECTIONS, "webhook_secret": WEBHOOK_SECRET}
"""Of nodes that cases are tried on; the address of the receipts is the caller's."""


class Outcome(NamedTuple):
    """How a case went."""

    case: str
    way: str
    seconds: float
    error: str
    """Empty where all was well."""


async def handed(one: Node, other: Node) -> list[Outcome]:
    """Try all cases from each of two nodes to the other."""
    return [
        outcome
        for here, there in ((one, other), (other, one))
        for outcome in await asyncio.gather(*(_tried(case, here, there) for case in CASES))
    ]


async def _tried(case: Case, one: Node, other: Node) -> Outcome:
    begun, error = time.monotonic(), ""
    try:
        async with asyncio.timeout(3 * PATIENCE):
            await case(one, other)
    except Exception as failed:  # noqa: BLE001 - whatever it is, it is told, and the others go on
        error = f"{_where(case, failed)}: {type(failed).__name__} {failed}".strip()
    way = f"{one.version.name} → {other.version.name}"
    return Outcome(_name(case), way, time.monotonic() - begun, error)


def _where(case: Case, failed: BaseException) -> str:
    """The last line that a case came to."""
    errors = failed, failed.__cause__  # of what took too long, the cause was under way
    frames = [each for error in errors if error for each in extract_tb(error.__traceback__)]
    here = [each for each in frames if each.name == getattr(case, "__name__", "")]
    return f"line {here[-1].lineno}: {here[-1].line}"


def _name(case: Case) -> str:
    name: str = getattr(case, "__name__", "")
    return name.replace("_", " ")


class Device(Member):
    """A device that hears of no broadcast."""

    async def receive(self) -> dict[str, Any]:
        while (message := await super().receive()).get("broadcast"):
            pass
        return message


class Received(QuietHandler):
    """Takes the receipts that are sent on."""

    came: ClassVar[set[tuple[str, str]]] = set()
    """The publisher and the id of each."""

    def do_POST(self) -> None:
        receipt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        self.came.add((receipt["publisher"], receipt["id"]))
        self.send_response(204)
        self.end_headers()


def _fresh(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:10]}"


def _numbered() -> dict[str, int]:
    """What may be told to everyone, and so to the mixed load: it counts by numbers below these."""
    return {"n": random.randrange(1 << 40, 1 << 50)}


def _ids(notes: list[dict[str, Any]]) -> list[str]:
    return [note["id"] for note in notes]


async def _until(ask: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What was answered, once it is something."""
    found = None
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await ask()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE:g} s for: {what}") from None
    return found


async def _asked(
    method: str, url: str, auth: str, *, expected: int = 200, **kwargs: Any
) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=PATIENCE, verify=PLAIN) as client:
        headers = {"Authorization": f"Bearer {auth}"} | kwargs.pop("headers", {})
        answer = await client.request(method, url, headers=headers, **kwargs)
    assert answer.status_code == expected, (url, answer.status_code, answer.text)
    found: dict[str, Any] = answer.json()
    return found


async def _console(node: Node, path: str, **query: Any) -> dict[str, Any]:
    auth = token(_fresh("operator"), "push.observe")
    return await _asked("GET", f"{node.admin_url}/console/api{path}", auth, params=query)


async def _handshake(node: Node, query: str, auth: str = "") -> int:
    """The status that opening a socket is answered with."""
    headers = {"Authorization": f"Bearer {auth}"} if auth else {}
    address = f"ws://127.0.0.1:{node.port}/v1/ws?{query}"
    try:
        async with connect(address, additional_headers=headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


# --- mailboxes -----------------------------------------------------------------------------------


async def devices_come_back_where_they_were(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user, "laptop") as laptop, Device(other, user, "phone") as phone:
        sent = [await publish((one, other)[n % 2], user, n) for n in range(10)]
        for device in (laptop, phone):
            assert _ids(await device.notifications(10)) == sent, "not all, or not in order"
        assert await laptop.acked(sent[9]) == sent[9]
        assert await phone.acked(sent[4]) == sent[4]
    sent.append(await publish(one, user, 10))
    async with Device(other, user, "laptop") as laptop, Device(one, user, "phone") as phone:
        assert _ids(await laptop.notifications(1)) == sent[10:]
        assert _ids(await phone.notifications(6)) == sent[5:]
        sent.append(await publish(other, user, 11))
        for device in (laptop, phone):
            assert _ids(await device.notifications(1)) == sent[11:]


async def an_ack_opens_the_window_of_the_same_device_elsewhere(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user) as here, Device(other, user) as there:
        window = here.welcome["window"]
        sent = await publish_all(one, user, range(window + 1))
        assert _ids(await here.notifications(window)) == sent[:-1]
        assert _ids(await there.notifications(window)) == sent[:-1]
        await here.ack(sent[-2])
        for device in (here, there):
            assert _ids(await device.notifications(1)) == sent[-1:]


async def all_fields_arrive(one: Node, other: Node) -> None:
    user = _fresh("user")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with Device(other, user) as phone:
        fields = {"event": "order.shipped", "encoding": "base64", "ttl": 60}
        body = {"to": {"user": user}, "data": "AAECAw==", **fields}
        headers = {"traceparent": parent}
        answer = await asyncio.to_thread(one.post, "/v1/notifications", body, headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.json()["connections"] == 1
        note = await phone.notification()
        assert note["id"] == answer.json()["id"]
        assert (note["event"], note["encoding"]) == ("order.shipped", "base64")
        assert note["data"] == "AAECAw=="
        assert note["traceparent"].split("-")[1] == parent.split("-")[1]


async def the_ephemeral_reaches_who_is_there(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(other, user) as phone:
        await post(one, {"user": user}, "typing", ephemeral=True)
        note = await phone.notification()
        assert (note["data"], note["ephemeral"]) == ("typing", True)
        await post(one, {"user": user}, "live", ttl=0)
        assert (await phone.notification())["data"] == "live"
        kept = await publish(one, user, "kept")
        assert (await phone.notification())["id"] == kept


async def the_newer_of_a_key_replaces_the_older(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user):
        pass
    await publish(one, user, 1, collapse_key="score")
    newer = await publish(other, user, 2, collapse_key="score")
    newest = await publish(one, user, 3)
    for node in (other, one):
        async with Device(node, user) as phone:
            assert _ids(await phone.notifications(2)) == [newer, newest]


async def one_of_any_device_settles_it(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user, "phone") as phone, Device(other, user, "laptop") as laptop:
        sent = (await post(one, {"user": user}, 1, deliver="any-device"))["id"]
        for device in (phone, laptop):
            assert (await device.notification())["id"] == sent
        await phone.ack(sent)
        withdrawn = {"type": "withdrawn", "id": sent, "reason": "acked"}
        assert await laptop.receive() == withdrawn


async def what_is_for_one_device_is_never_lost(one: Node, other: Node) -> None:
    user = _fresh("user")
    body = {"to": {"user": user, "device": "phone"}, "data": 1}
    async with Device(one, user, "laptop") as laptop, Device(other, user, "phone") as phone:
        answers = [
            await asyncio.to_thread(node.post, "/v1/notifications", body) for node in (one, other)
        ]
        # A version that knows of none says so, and brings what the other took to all devices.
        assert {answer.status_code for answer in answers} <= {202, 400}
        sent = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        last = await publish(one, user, 2)
        assert _ids(await phone.notifications(len(sent) + 1)) == [*sent, last]
        came = await laptop.notifications(1)
        while came[-1]["id"] != last:
            came += await laptop.notifications(1)
        assert set(_ids(came)) <= {*sent, last}
        if len(sent) == len(answers):
            assert _ids(came) == [last]
        assert await phone.acked(last) == last
    async with Device(one, user, "phone") as phone:
        await phone.silent()


async def what_is_recalled_is_withdrawn(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user, "tablet"):
        pass
    async with Device(other, user, "phone") as phone:
        sent = await publish(one, user, 1)
        assert (await phone.notification())["id"] == sent
        url = f"{one.url}/v1/users/{user}/notifications/{sent}"
        assert (await _asked("DELETE", url, publisher_token()))["acked"] == []
        withdrawn = {"type": "withdrawn", "id": sent, "reason": "recalled"}
        assert await phone.receive() == withdrawn
    later = await publish(one, user, 2)
    async with Device(other, user, "tablet") as tablet:
        assert await tablet.receive() == withdrawn
        assert (await tablet.notification())["id"] == later


async def what_was_read_is_counted_whatever_the_other_does(one: Node, other: Node) -> None:
    """Of two versions one may know nothing of it, and publishes and recalls beside the other."""
    user = _fresh("user")
    newer = [node for node in (one, other) if await _counts(node)]
    if not newer:
        return

    async def unread() -> list[int]:
        auth = token(user)
        body: dict[str, Any] = {"ids": []}
        urls = [f"{node.url}/v1/users/{user}/read" for node in newer]
        return [(await _asked("POST", url, auth, json=body))["unread"] for url in urls]

    sent = [await publish((one, other)[n % 2], user, n) for n in range(4)]
    assert set(await unread()) == {4}
    url = f"{newer[0].url}/v1/users/{user}/read"
    await _asked("POST", url, token(user), json={"ids": sent[:2]})
    sent.append(await publish(other, user, 4))
    assert set(await unread()) == {3}
    for each, left in ((sent[1], 3), (sent[2], 2)):
        at = f"{other.url}/v1/users/{user}/notifications/{each}"
        await _asked("DELETE", at, publisher_token())
        assert set(await unread()) == {left}
    await publish(one, user, 5)
    assert set(await unread()) == {3}


async def _counts(node: Node) -> bool:
    """Whether a node knows of what users have read."""
    async with Device(node, _fresh("user")) as phone:
        return "unread" in phone.welcome


async def the_history_says_who_acknowledged(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user, "phone") as phone, Device(other, user, "laptop") as laptop:
        sent = await publish(one, user, 1)
        for device in (phone, laptop):
            await device.notification()
            await device.acked(sent)
    for node in (one, other):
        url = f"{node.url}/v1/users/{user}/notifications"
        (note,) = (await _asked("GET", url, publisher_token()))["notifications"]
        assert note["id"] == sent
        acked = {each["device"]: each["time"] for each in note["acked"]}
        assert set(acked) == {"phone", "laptop"}
        assert all(acked.values()), acked


async def connections_are_counted_over_all_nodes(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with AsyncExitStack() as stack:
        for number in range(MOST_CONNECTIONS):
            await stack.enter_async_context(Device((one, other)[number % 2], user, f"d{number}"))
        for node in (one, other):
            url = f"{node.url}/v1/users/{user}/presence"
            found = await _asked("GET", url, publisher_token())
            assert found["online"] is True
            assert len(found["devices"]) == MOST_CONNECTIONS
            assert await _handshake(node, "device=more", token(user)) == 429


async def a_poll_goes_on_behind_its_position(one: Node, other: Node) -> None:
    user, topic = _fresh("user"), _fresh("topic")

    async def poll(node: Node, **query: str) -> tuple[list[str], str]:
        params = {"device": "web", "topic": topic, "wait": "0", **query}
        found = await _asked("GET", f"{node.url}/v1/poll", member(user), params=params)
        notes = [m for m in found["messages"] if not m.get("broadcast")]
        return _ids(notes), found["position"]

    _, position = await poll(one)
    sent = await publish(one, user, 1)
    told = (await tell(one, topic, 2))["id"]
    found, position = await poll(other, after=position)
    assert sorted(found) == sorted([sent, told])
    later = await publish(other, user, 3)
    assert (await poll(one, after=position))[0] == [later]
    body = {"device": "web", "id": later}
    assert await _asked("POST", f"{other.url}/v1/ack", token(user), json=body) == {"acked": later}
    assert (await poll(one))[0] == []


# --- topics, the broadcast, presence -------------------------------------------------------------


async def a_topic_is_taken_up_since(one: Node, other: Node) -> None:
    user, topic = _fresh("user"), _fresh("topic")
    async with Device(one, user) as phone:
        await phone.subscribe(topic)
        sent = await tell_all(one, topic, range(3))
        sent += await tell_all(other, topic, range(3, 6))
        assert _ids(await phone.notifications(6)) == sent, "not all, or not in order"
    sent += await tell_all(one, topic, range(6, 9))
    async with Device(other, user) as phone:
        assert await phone.subscribe(topic, since=sent[5]) == sent[8]
        assert _ids(await phone.notifications(3)) == sent[6:]
        await phone.send(type="publish", topic=topic, data="hi", ref=1)
        both = [await phone.receive(), await phone.receive()]
        (reply,) = [each for each in both if each["type"] == "reply"]
        (note,) = [each for each in both if each["type"] == "notification"]
        assert (note["id"], note["from"]) == (reply["id"], user)


async def a_topic_has_its_state(one: Node, other: Node) -> None:
    user, topic = _fresh("user"), _fresh("topic")
    await tell(one, topic, "old", collapse_key="A")
    state = [(await tell(one, topic, 1, collapse_key="B"))["id"]]
    state.append((await tell(other, topic, 2, collapse_key="A"))["id"])
    await tell(one, topic, "not in the state")
    for node in (other, one):
        async with Device(node, user) as phone:
            await phone.subscribe(topic)
            assert _ids(await phone.notifications(2)) == state
            later = (await tell(one, topic, 3))["id"]
            assert (await phone.notification())["id"] == later


async def the_broadcast_is_owed_to_who_was_here(one: Node, other: Node) -> None:
    user = _fresh("user")

    async def come(phone: Member, until: str) -> list[str]:
        """Acknowledge broadcasts up to one; the ids."""
        came: list[str] = []
        while not came or came[-1] != until:
            note = await phone.receive()
            if note.get("broadcast"):
                came.append(note["id"])
                await phone.send(type="ack", id=note["id"], broadcast=True)
        return came

    async with Member(one, user):
        pass
    sent = await tell_everyone(one, _numbered())
    async with Member(other, user) as phone:
        assert (await come(phone, sent))[-1] == sent
        await phone.send(type="ack", id=sent, broadcast=True, ref="a")
        while (message := await phone.receive()).get("ref") != "a":
            pass
        assert order(message["acked"]) >= order(sent)
    async with Member(one, user) as phone:
        again = await come(phone, await tell_everyone(other, _numbered()))
        assert all(order(each) > order(sent) for each in again), "it came although acknowledged"


async def presence_is_told(one: Node, other: Node) -> None:
    topic = _fresh("topic")
    there, guest = _fresh("a"), _fresh("guest")

    async def listed(node: Node) -> list[str]:
        found = await _asked("GET", f"{node.url}/v1/topics/{topic}/presence", publisher_token())
        users: list[str] = found["users"]
        return users

    async def alone() -> bool:
        return [await listed(node) for node in (one, other)] == [[there], [there]]

    async with Device(one, there) as phone:
        await phone.subscribe(topic)
        assert (await phone.ask(type="presence", topic=topic))["users"] == [there]
        async with Device(other, guest) as visiting:
            await visiting.subscribe(topic)
            came = {"type": "presence", "topic": topic, "joined": [guest], "left": []}
            assert await phone.receive() == came
            for node in (one, other):
                assert await listed(node) == [there, guest]
        assert await phone.receive() == {**came, "joined": [], "left": [guest]}
        await _until(alone, "the guest to be gone")


# --- backends ------------------------------------------------------------------------------------


async def a_retry_is_known(one: Node, other: Node) -> None:
    user, topic = _fresh("user"), _fresh("topic")

    async def sent(node: Node, to: dict[str, Any], data: Any, expected: int = 202) -> Any:
        headers = {"Idempotency-Key": f'"{key}"'}
        body = {"to": to, "data": data}
        answer = await asyncio.to_thread(node.post, "/v1/notifications", body, headers=headers)
        assert answer.status_code == expected, answer.text
        found = answer.json()
        return [each.get("id") for each in found.get("results", [found])]

    for to in ({"user": user}, {"users": [user, _fresh("user")]}, {"topic": topic}):
        key = _fresh("key")
        first = await sent(one, to, 1)
        assert await sent(other, to, 1) == first, "it was published twice"
        await sent(other, to, 2, expected=422)


async def what_is_scheduled_goes_out_to_both(one: Node, other: Node) -> None:
    user = _fresh("user")
    at = datetime.fromtimestamp(time.time() + 0.5, UTC).isoformat()
    body = {"to": {"user": user}, "data": 1, "at": at}
    async with Device(one, user, "phone") as phone, Device(other, user, "laptop") as laptop:
        answers = [
            await asyncio.to_thread(node.post, "/v1/notifications", body) for node in (one, other)
        ]
        # A version that knows of no times says so.
        taken = [answer for answer in answers if answer.status_code == 202]
        assert {answer.status_code for answer in answers} <= {202, 400}
        assert taken, "none of the two schedules"
        for device in (phone, laptop):
            notes = await device.notifications(len(taken))
            assert len(set(_ids(notes))) == len(taken)
            await device.silent()


async def receipts_are_given_once_and_sent_on(one: Node, other: Node) -> None:
    user, backend = _fresh("user"), _fresh("backend")
    auth = {"Authorization": f"Bearer {token(backend, 'push.publish')}"}

    async def send(node: Node, **fields: Any) -> str:
        body = {"to": {"user": user}, "data": 1, "receipt": True, **fields}
        answer = await asyncio.to_thread(node.post, "/v1/notifications", body, headers=auth)
        assert answer.status_code == 202, answer.text
        sent: str = answer.json()["id"]
        return sent

    async def read(node: Node) -> list[dict[str, Any]]:
        url = f"{node.url}/v1/receipts"
        found = await _asked("GET", url, token(backend, "push.publish"))
        receipts: list[dict[str, Any]] = found["receipts"]
        return receipts

    async with Device(other, user) as phone:
        acked, recalled = await send(one), await send(one)
        assert _ids(await phone.notifications(2)) == [acked, recalled]
        url = f"{other.url}/v1/users/{user}/notifications/{recalled}"
        await _asked("DELETE", url, publisher_token())
        await phone.receive()
        await phone.acked(acked)
    expired = await send(other, ttl=0.2)
    wanted = {acked: "acked", recalled: "recalled", expired: "expired"}

    async def all_given() -> list[dict[str, Any]]:
        receipts = await read(one)
        sent_on = {(backend, each["id"]) for each in receipts} <= Received.came
        return receipts if len(receipts) >= len(wanted) and sent_on else []

    receipts = await _until(all_given, "the receipts, and that they are sent on")
    assert receipts == await read(other)
    assert len(receipts) == len(wanted), "one was given twice"
    assert {each["notification"]: each["status"] for each in receipts} == wanted


# --- who may come in -----------------------------------------------------------------------------


async def a_ticket_is_good_once(one: Node, other: Node) -> None:
    user = _fresh("user")
    found = await _asked("POST", f"{one.url}/v1/tickets", token(user), expected=201)
    query = f"device=web&ticket={found['ticket']}"
    assert await _handshake(other, query) == 101
    assert await _handshake(one, query) == 401


async def who_is_revoked_is_out(one: Node, other: Node) -> None:
    user, admin = _fresh("user"), token("admin", "push.admin")
    auth = member(user)
    async with (
        Device(other, user, "a", auth=auth) as far,
        Device(one, user, "b", auth=auth) as near,
    ):
        body = {"user": user}
        await _asked("POST", f"{one.url}/v1/revocations", admin, json=body, expected=201)
        for device in (far, near):
            assert await device.closed() == 4501
    for node in (one, other):
        assert await _handshake(node, "device=a", auth) == 401
        held = (await _asked("GET", f"{node.url}/v1/revocations", admin))["revocations"]
        assert user in [each.get("user") for each in held]


# --- the console ---------------------------------------------------------------------------------


async def the_overview_lists_both(one: Node, other: Node) -> None:
    async def both_ready() -> list[dict[str, Any]]:
        pids = {node.process.pid for node in (one, other)}
        nodes = (await _console(one, "/overview"))["nodes"]
        found = [each for each in nodes if each["pid"] in pids and each["ready"]]
        return found if len(found) == len(pids) else []

    for each in await _until(both_ready, "both nodes, ready, in the overview"):
        assert each["silent"] is False, each
        assert each["version"], each
        assert each["totals"]["handshakes"] >= 0, each
        assert each["latency"]["deliver"]["counts"], each


async def a_users_page_shows_all_devices(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(one, user, "phone") as phone, Device(other, user, "laptop") as laptop:
        sent = await publish(one, user, 1)
        for device in (phone, laptop):
            await device.notification()
        await phone.acked(sent)
        homes = {"phone": phone.welcome["connection"], "laptop": laptop.welcome["connection"]}
        for node in (one, other):
            page = await _console(node, f"/users/{user}")
            devices = {each["device"]: each for each in page["devices"]}
            for name, home in homes.items():
                (connection,) = devices[name]["connections"]
                assert connection["connection"] == home
            assert (devices["phone"]["acked"], devices["phone"]["waiting"]) == (sent, 0)
            assert (devices["laptop"]["acked"], devices["laptop"]["waiting"]) != (sent, 0)


async def a_trace_goes_over_both(one: Node, other: Node) -> None:
    user = _fresh("user")
    async with Device(other, user) as phone:
        sent = await publish(one, user, 1)
        await phone.notification()
        await phone.ack(sent)

        for node in (one, other):

            async def acked(node: Node = node) -> dict[str, Any] | None:
                found = await _console(node, "/trace", id=sent, user=user)
                return found if found["status"] == "acked" else None

            found = await _until(acked, "the trace to tell the acknowledgement")
            assert all(each["answered"] for each in found["nodes"]), found["nodes"]
            steps = {step["what"]: step for step in found["steps"]}
            assert {"accepted", "routed", "sent", "acked"} <= set(steps), steps
            assert steps["sent"]["connection"] == phone.welcome["connection"]
            assert steps["accepted"]["node"] != steps["sent"]["node"]


CASES: Final[tuple[Case, ...]] = (
    devices_come_back_where_they_were,
    an_ack_opens_the_window_of_the_same_device_elsewhere,
    all_fields_arrive,
    the_ephemeral_reaches_who_is_there,
    the_newer_of_a_key_replaces_the_older,
    one_of_any_device_settles_it,
    what_is_for_one_device_is_never_lost,
    what_is_recalled_is_withdrawn,
    what_was_read_is_counted_whatever_the_other_does,
    the_history_says_who_acknowledged,
    connections_are_counted_over_all_nodes,
    a_poll_goes_on_behind_its_position,
    a_topic_is_taken_up_since,
    a_topic_has_its_state,
    the_broadcast_is_owed_to_who_was_here,
    presence_is_told,
    a_retry_is_known,
    what_is_scheduled_goes_out_to_both,
    receipts_are_given_once_and_sent_on,
    a_ticket_is_good_once,
    who_is_revoked_is_out,
    the_overview_lists_both,
    a_users_page_shows_all_devices,
    a_trace_goes_over_both,
)
