"""Namespaces: who has the same names in another one sees, counts, limits and revokes nothing here.

Everything is called the same in the default namespace and in two others: users, devices, topics,
publishers, idempotency keys, ids of tokens.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pushsvc.codes import Close
from pushsvc.protocol.revocation import TOLERANCE
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.events import Stream
from tests.support.failover import Cluster
from tests.support.nodes import Node, wait_until
from tests.support.tenants import ACME, MAIN, OPS, OTHER, TENANTS, Tenant, tenancy
from tests.support.topics import Member

DEVICE = "phone"


def part(name: str) -> str:
    """A name as a part of a path or of a position."""
    return quote(name, safe="")


@pytest.fixture(scope="module", params=["server", "cluster"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Node]]:
    directory = tmp_path_factory.mktemp("tenants")
    rates = {"rate_messages_per_second": 1000, "rate_burst": 2000}
    if request.param == "server":
        url = request.getfixturevalue("valkey").url
        with tenancy(url, directory, **rates) as both:
            yield both
        return
    with (
        Cluster(directory, primaries=2, replicas=0) as cluster,
        tenancy(cluster.url, directory, **rates) as both,
    ):
        yield both


@pytest.fixture
def node(pair: list[Node]) -> Node:
    return pair[0]


@pytest.fixture
def user() -> str:
    """A user that no other test has; its name looks as if it had a namespace."""
    return f"acme/{uuid.uuid4().hex[:10]}"


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test has."""
    return user


@pytest.fixture
async def phones(pair: list[Node], user: str) -> AsyncIterator[dict[Tenant, Member]]:
    """The same device of the same user in each namespace, all on one node."""
    async with AsyncExitStack() as stack:
        yield {each: await stack.enter_async_context(each.phone(pair[1], user)) for each in TENANTS}


async def quiet(phone: Member) -> None:
    """The phone was sent nothing that it has not read."""
    await phone.send(type="ping", ref="quiet")
    assert await phone.receive() == {"type": "pong", "ref": "quiet"}


# --- who is erased -------------------------------------------------------------------------------


async def test_who_is_erased_is_so_in_one_namespace(
    pair: list[Node], user: str, phones: dict[Tenant, Member]
) -> None:
    key = {"Idempotency-Key": '"of-this-user"'}
    for each, phone in phones.items():
        body = {"to": {"user": user}, "data": each.name}
        answer = await each.call(pair[0], "POST", "/v1/notifications", json=body, headers=key)
        assert answer.status_code == 202
        assert (await phone.receive())["data"] == each.name
    answer = await ACME.call(pair[1], "DELETE", "/v1/user", ACME.admin(), params={"user": user})
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"] == user
    assert await phones[ACME].closed() == 4001
    for each in TENANTS:
        answer = await each.call(
            pair[0], "GET", "/v1/user/export", each.admin(), params={"user": user}
        )
        kept = [note["data"] for note in answer.json()["notifications"]]
        assert kept == ([] if each is ACME else [each.name])
    for each in (MAIN, OTHER):
        await quiet(phones[each])


# --- what is delivered ---------------------------------------------------------------------------


async def test_a_notification_reaches_the_user_of_its_namespace_and_counts_there(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    for tenant in TENANTS:
        sent = await tenant.publish(pair[0], {"user": user})
        assert sent["connections"] == 1
        note = await phones[tenant].notification()
        assert (note["id"], note["data"]) == (sent["id"], tenant.name)
        for phone in phones.values():
            await quiet(phone)
        await phones[tenant].ack(note["id"])


async def test_what_a_user_is_told_names_no_namespace(
    phones: dict[Tenant, Member], user: str
) -> None:
    for phone in phones.values():
        assert phone.welcome["user"] == user
        assert "namespace" not in phone.welcome


async def test_a_mailbox_its_acks_and_its_presence_are_those_of_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    sent = {each: (await each.publish(pair[0], {"user": user}))["id"] for each in TENANTS}
    for tenant, phone in phones.items():
        assert (await phone.notification())["id"] == sent[tenant]
    assert await phones[ACME].acked(sent[ACME]) == sent[ACME]
    for tenant in TENANTS:
        for auth in (tenant.backend(), tenant.token(user)):
            path = f"/v1/users/{part(user)}/notifications"
            listed = (await tenant.call(pair[0], "GET", path, auth)).json()["notifications"]
            assert {each["data"] for each in listed} == {tenant.name}
            assert listed[0]["id"] == sent[tenant]
            mine = [each for each in listed[0]["acked"] if each["device"] == DEVICE]
            assert len(mine) == (tenant is ACME)
            path = f"/v1/users/{part(user)}/presence"
            found = (await tenant.call(pair[0], "GET", path, auth)).json()
            assert [each["connections"] for each in found["devices"]] == [1]
    await phones[MAIN].socket.close()
    path = f"/v1/users/{part(user)}/presence"

    async def online(tenant: Tenant) -> bool:
        online: bool = (await tenant.call(pair[0], "GET", path)).json()["online"]
        return online

    async with asyncio.timeout(10):
        while await online(MAIN):
            await asyncio.sleep(0.05)
    assert await online(ACME)
    assert await online(OTHER)


@pytest.mark.parametrize("kind", ["topic", "broadcast"])
async def test_what_goes_to_many_goes_to_those_of_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], kind: str, topic: str
) -> None:
    to: dict[str, Any] = {"topic": topic} if kind == "topic" else {"broadcast": True}
    if kind == "topic":
        for phone in phones.values():
            await phone.subscribe(topic)
    for tenant in TENANTS:
        for fields in ({}, {"ephemeral": True}, {"ttl": 0}):
            sent = await tenant.publish(pair[0], to, **fields)
            assert sent["connections"] <= 1
            note = await phones[tenant].notification()
            assert note["data"] == tenant.name
            assert note.get("topic") == to.get("topic")
            assert note.get("broadcast") == to.get("broadcast")
            for phone in phones.values():
                await quiet(phone)
            if kind == "broadcast" and "id" in note:
                assert await phones[tenant].acked(note["id"]) == note["id"]


async def test_a_late_subscriber_is_given_the_state_of_its_own_topic(node: Node, user: str) -> None:
    for tenant in TENANTS:
        await tenant.publish(node, {"topic": "state"}, collapse_key="k")
    for tenant in TENANTS:
        async with tenant.phone(node, user, "late") as phone:
            await phone.subscribe("state")
            assert (await phone.notification())["data"] == tenant.name
            await quiet(phone)


async def test_what_clients_publish_stays_in_their_namespace(
    phones: dict[Tenant, Member], user: str
) -> None:
    for phone in phones.values():
        await phone.subscribe("room")
    for tenant, phone in phones.items():
        await phone.send(type="publish", topic="room", data=tenant.name)
        note = await phone.notification()
        assert (note["data"], note["from"]) == (tenant.name, user)
        for each in phones.values():
            await quiet(each)


async def test_presence_names_those_of_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    for tenant, phone in phones.items():
        await phone.subscribe("lounge")
        answer = await phone.ask(type="presence", topic="lounge")
        assert (answer["users"], answer["count"]) == ([user], 1)
        found = await tenant.call(pair[0], "GET", "/v1/topics/lounge/presence")
        assert (found.json()["users"], found.json()["count"]) == ([user], 1)
    async with Member(pair[0], auth=ACME.token("visitor")) as visitor:
        await visitor.subscribe("lounge")
        assert (await phones[ACME].receive())["joined"] == ["visitor"]
        for tenant in (MAIN, OTHER):
            await quiet(phones[tenant])


@pytest.mark.parametrize("way", ["stream", "poll"])
async def test_streams_and_polls_resume_in_their_namespace_by_positions_that_name_none(
    pair: list[Node], user: str, topic: str, way: str
) -> None:
    positions: dict[Tenant, str] = {}
    for tenant in TENANTS:
        heard, positions[tenant] = await listened(tenant, pair[1], user, topic, "", way)
        assert "acme/" not in positions[tenant].replace(f"t:{part(topic)}", "")
        assert {part.partition("=")[0] for part in positions[tenant].split(",")} >= {"u", "b"}
        assert "other" not in positions[tenant]
        assert all(each == tenant.name for each in heard)
    for to in ({"user": user}, {"topic": topic}, {"broadcast": True}):
        await ACME.publish(pair[0], to, data=f"new to {next(iter(to))}")
    for tenant in TENANTS:
        heard, after = await listened(tenant, pair[0], user, topic, positions[tenant], way)
        new = {"new to user", "new to topic", "new to broadcast"} if tenant is ACME else set()
        assert set(heard) == new
        if tenant is ACME:
            assert {part.partition("=")[0] for part in after.split(",")} == {
                "u", "b", f"t:{part(topic)}",
            }  # fmt: skip


async def listened(
    tenant: Tenant, node: Node, user: str, topic: str, after: str, way: str
) -> tuple[list[Any], str]:
    """The data of all that is kept for a client from a position on, and its new position."""
    if way == "poll":
        query = {"device": DEVICE, "topic": topic, "wait": "0", "after": after}
        answer = await tenant.call(node, "GET", "/v1/poll", tenant.token(user), params=query)
        assert answer.status_code == 200, answer.text
        told = answer.json()["messages"]
        position: str = answer.json()["position"]
    else:
        told = []
        stream = Stream(
            node, device=DEVICE, topics=[topic], after=after, auth=tenant.token(user),
        )  # fmt: skip
        async with stream:
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.5):
                        told.append(await stream.message())
        position = stream.last_id
    assert all(each["type"] == "notification" for each in told), told
    return [each["data"] for each in told], position


async def test_acks_by_request_are_of_the_token_s_namespace(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    for to, more in (({"user": user}, {}), ({"broadcast": True}, {"broadcast": True})):
        sent = (await ACME.publish(pair[0], to))["id"]
        assert (await phones[ACME].notification())["id"] == sent
        for tenant in TENANTS:
            body = {"id": sent, "device": DEVICE, **more}
            answer = await tenant.call(pair[0], "POST", "/v1/ack", tenant.token(user), json=body)
            assert (answer.json()["acked"] == sent) == (tenant is ACME)


# --- what publishers have ------------------------------------------------------------------------


async def test_an_idempotency_key_is_known_in_its_namespace_only(node: Node, user: str) -> None:
    ids: dict[Tenant, str] = {}
    for tenant in TENANTS:
        body = {"to": {"user": user}, "data": tenant.name}
        headers = {"Idempotency-Key": f'"{user}"'}
        for _ in range(2):
            answer = await tenant.call(
                node, "POST", "/v1/notifications", json=body, headers=headers
            )
            assert answer.status_code == 202, answer.text
            assert ids.setdefault(tenant, answer.json()["id"]) == answer.json()["id"]
        again = {"to": {"user": user}, "data": "another"}
        answer = await tenant.call(node, "POST", "/v1/notifications", json=again, headers=headers)
        problem(answer, 422, "idempotency_conflict")
        path = f"/v1/users/{part(user)}/notifications"
        listed = (await tenant.call(node, "GET", path)).json()["notifications"]
        assert [each["data"] for each in listed] == [tenant.name]


async def test_receipts_are_those_of_the_publisher_in_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    begin = {}
    for tenant in TENANTS:
        answer = await tenant.call(pair[0], "GET", "/v1/receipts?limit=1000")
        begin[tenant] = answer.json()["next"]
    sent = {}
    for tenant in TENANTS:
        sent[tenant] = (await tenant.publish(pair[0], {"user": user}, receipt=True))["id"]
        assert (await phones[tenant].notification())["id"] == sent[tenant]
    for tenant in (ACME, MAIN):
        assert await phones[tenant].acked(sent[tenant]) == sent[tenant]
    for tenant in (ACME, MAIN):
        path = f"/v1/receipts?wait=20&after={begin[tenant]}"
        (receipt,) = (await tenant.call(pair[0], "GET", path)).json()["receipts"]
        assert (receipt["notification"], receipt["user"]) == (sent[tenant], user)
        assert receipt["status"] == "acked"
    path = f"/v1/receipts?after={begin[OTHER]}"
    assert (await OTHER.call(pair[0], "GET", path)).json()["receipts"] == []


async def test_a_recall_takes_back_what_is_in_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    sent = {each: (await each.publish(pair[0], {"user": user}))["id"] for each in TENANTS}
    for tenant, phone in phones.items():
        assert (await phone.notification())["id"] == sent[tenant]
    for tenant in (MAIN, OTHER):
        path = f"/v1/users/{part(user)}/notifications/{sent[ACME]}"
        answer = await tenant.call(pair[0], "DELETE", path)
        assert answer.status_code == (200 if sent[tenant] == sent[ACME] else 404)
    await quiet(phones[ACME])
    path = f"/v1/users/{part(user)}/notifications/{sent[ACME]}"
    assert (await ACME.call(pair[0], "DELETE", path)).status_code == 200
    assert (await phones[ACME].receive())["type"] == "withdrawn"
    for tenant in (MAIN, OTHER):
        await quiet(phones[tenant])
        await phones[tenant].ack(sent[tenant])


# --- who is let in -------------------------------------------------------------------------------


async def test_a_ticket_opens_the_namespace_of_its_token(pair: list[Node], user: str) -> None:
    for tenant in TENANTS:
        answer = await tenant.call(pair[0], "POST", "/v1/tickets", tenant.token(user))
        ticket = answer.json()["ticket"]
        address = f"ws://127.0.0.1:{pair[1].port}/v1/ws?device={DEVICE}&ticket={ticket}"
        async with connect(address) as socket:
            assert json.loads(await socket.recv())["user"] == user
            sent = await tenant.publish(pair[0], {"user": user})
            assert sent["connections"] == 1
            note = json.loads(await socket.recv())
            assert (note["id"], note["data"]) == (sent["id"], tenant.name)
            await socket.send(json.dumps({"type": "ack", "id": note["id"], "ref": 1}))
            await socket.recv()


@pytest.mark.parametrize("other", [MAIN, OTHER])
async def test_a_connection_goes_on_with_tokens_of_its_namespace_only(
    node: Node, other: Tenant, user: str
) -> None:
    async with ACME.phone(node, user) as phone:
        answer = await phone.ask(type="refresh", token=ACME.token(user))
        assert answer["type"] == "reply"
        await phone.send(type="refresh", token=other.token(user))
        with pytest.raises(ConnectionClosed) as closed:
            await phone.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == Close.TOKEN_REFUSED


async def is_closed(phone: Member) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        await phone.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == Close.REVOKED


async def is_good(tenant: Tenant, node: Node, auth: str) -> bool:
    """Whether a token is good."""
    answer = await tenant.call(node, "POST", "/v1/tickets", auth)
    assert answer.status_code in (201, 401), answer.text
    return answer.status_code == 201


@pytest.mark.parametrize("what", ["user", "disconnect", "jti", "all"])
@pytest.mark.parametrize("where", [MAIN, ACME], ids=repr)
async def test_a_revocation_is_of_its_namespace(
    pair: list[Node], where: Tenant, what: str, user: str
) -> None:
    jti = f"jti-{user}"
    # The tokens are old where all old ones are revoked, so that other tests go on, and younger than
    # what another of these tests has revoked.
    issued = 1 + (where is ACME)
    claims = {"jti": jti} | ({"iat": issued} if what == "all" else {})
    tokens = {each: each.token(user, **claims) for each in TENANTS}
    admins = {each: each.admin() for each in TENANTS}
    path = f"/v1/users/{part(user)}/disconnect" if what == "disconnect" else "/v1/revocations"
    bodies: dict[str, dict[str, Any]] = {
        "user": {"user": user, "ttl": 30},
        "disconnect": {"ttl": 30},
        "jti": {"jti": jti, "ttl": 30},
        "all": {"issued_before": issued, "ttl": 2},
    }
    body = bodies[what]
    # Another of these tests may have revoked all that are as old, for as long as it is kept.
    for tenant in TENANTS:
        async with asyncio.timeout(2 + 2 * TOLERANCE + 10):
            while not await is_good(tenant, pair[0], tokens[tenant]):
                await asyncio.sleep(0.1)
    async with AsyncExitStack() as stack:
        phones = {
            each: await stack.enter_async_context(Member(pair[1], auth=tokens[each]))
            for each in TENANTS
        }
        answer = await where.call(pair[0], "POST", path, admins[where], json=body)
        assert answer.status_code == 201, answer.text
        held = answer.json()
        assert "namespace" not in held
        await is_closed(phones[where])
        for tenant in TENANTS:
            assert await is_good(tenant, pair[0], tokens[tenant]) == (tenant is not where)
            if tenant is not where:
                await quiet(phones[tenant])
            listed = await tenant.call(pair[0], "GET", "/v1/revocations", admins[tenant])
            told = [each for each in listed.json()["revocations"] if held.items() <= each.items()]
            assert len(told) == (tenant is where)


# --- operators -----------------------------------------------------------------------------------


async def test_the_console_shows_the_namespace_of_the_token(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    for tenant in TENANTS:
        me = (await tenant.console(pair[0], "GET", "/me")).json()
        assert (me["namespace"], me["operator"]) == (tenant.namespace, False)
        assert me["may"]["overview"] is False
        answer = await tenant.console(pair[0], "GET", "/overview")
        assert "counts all namespaces" in problem(answer, 403, "forbidden")["detail"]
        sent = await tenant.console(
            pair[0], "POST", "/notifications",
            json={"to": {"user": user}, "data": tenant.name},
        )  # fmt: skip
        assert sent.json()["connections"] == 1
        note = await phones[tenant].notification()
        assert note["data"] == tenant.name
        found = (await tenant.console(pair[0], "GET", f"/users/{part(user)}")).json()
        waiting = {each["device"]: each["waiting"] for each in found["devices"]}
        assert waiting[DEVICE] == 1
        listed = await tenant.console(pair[0], "GET", f"/users/{part(user)}/notifications")
        assert {each["data"] for each in listed.json()["notifications"]} == {tenant.name}
        assert await phones[tenant].acked(note["id"]) == note["id"]
    for phone in phones.values():
        await quiet(phone)


@pytest.mark.parametrize("kind", ["user", "topic", "broadcast"])
async def test_a_trace_tells_what_was_published_in_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], kind: str, user: str, topic: str
) -> None:
    to: dict[str, Any] = {"user": user, "topic": topic, "broadcast": True}
    to = {kind: to[kind]}
    named = {name: "true" if value is True else value for name, value in to.items()}
    if kind == "topic":
        for phone in phones.values():
            await phone.subscribe(topic)
    sent = (await ACME.publish(pair[0], to))["id"]
    assert (await phones[ACME].notification())["id"] == sent
    for asked in ({}, named):
        for tenant in TENANTS:
            query = {"id": sent, **asked}
            told = (await tenant.console(pair[0], "GET", "/trace", params=query)).json()
            steps = {each["what"] for each in told["steps"]}
            if tenant is ACME:
                assert told["feed"] == to
                assert {"accepted", "sent"} <= steps
            else:
                assert told["status"] in ("unknown", "gone")
                assert (steps, told["devices"], told["also"]) == (set(), [], [])
                assert told["notification"] is None
    if kind != "topic":
        await phones[ACME].acked(sent)


async def test_an_operator_sees_every_namespace_and_nobody_else_another(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    me = (await OPS.console(pair[0], "GET", "/me")).json()
    assert (me["operator"], me["may"]["overview"]) == (True, True)
    nodes = (await OPS.console(pair[0], "GET", "/overview")).json()["nodes"]
    assert len(nodes) == 2
    for tenant in TENANTS:
        there = {"namespace": tenant.namespace}
        sent = await OPS.console(
            pair[0], "POST", "/notifications", params=there,
            json={"to": {"user": user}, "data": tenant.name},
        )  # fmt: skip
        assert sent.json()["connections"] == 1
        note = await phones[tenant].notification()
        path = f"/users/{part(user)}/notifications"
        listed = (await OPS.console(pair[0], "GET", path, params=there)).json()["notifications"]
        assert listed[0]["id"] == note["id"]
        asked = {"id": note["id"], **there}
        told = (await OPS.console(pair[0], "GET", "/trace", params=asked)).json()
        assert told["feed"] == {"user": user}
        recalled = await OPS.console(pair[0], "DELETE", f"{path}/{note['id']}", params=there)
        assert recalled.status_code == 200
        assert (await phones[tenant].receive())["type"] == "withdrawn"
        for other in TENANTS:
            for way in (path, f"/users/{part(user)}", "/revocations", "/trace?id=1-0"):
                answer = await other.console(pair[0], "GET", way, params=there | {"id": "1-0"})
                if other is tenant:
                    assert answer.status_code == 200, answer.text
                else:
                    problem(answer, 403, "forbidden")
    # In the public API an operator acts in its own namespace, as everyone does.
    sent = await OPS.call(
        pair[0], "POST", "/v1/notifications?namespace=acme",
        json={"to": {"user": user}, "data": 1},
    )  # fmt: skip
    assert sent.json()["connections"] == 0


# --- limits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(
    valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Node]]:
    """Nodes with limits that are reached at once."""
    with tenancy(
        valkey.url, tmp_path_factory.mktemp("narrow"), max_connections_per_user=2,
        rate_messages_per_second=0.1, rate_burst=4, publish_rate_per_second=0.01,
    ) as both:  # fmt: skip
        yield both


async def test_connections_of_a_user_count_in_its_namespace(narrow: list[Node], user: str) -> None:
    async with AsyncExitStack() as stack:
        for tenant in TENANTS:
            for number in range(2):
                await stack.enter_async_context(tenant.phone(narrow[number], user, f"d{number}"))
            answer = await tenant.call(narrow[0], "GET", "/v1/poll?wait=0", tenant.token(user))
            problem(answer, 429, "too_many_connections")


REQUESTS: dict[str, tuple[str, str, Any]] = {
    "publish": ("POST", "/v1/notifications", {"to": {"user": "x"}, "data": 1}),
    "client": ("POST", "/v1/notifications", {"to": {"topic": "x"}, "data": 1}),
    "ticket": ("POST", "/v1/tickets", None),
    "mailbox": ("GET", "/v1/users/u/notifications", None),
    "presence": ("GET", "/v1/topics/x/presence", None),
    "poll": ("GET", "/v1/poll?device=d&wait=0", None),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_a_rate_is_that_of_a_caller_in_its_namespace(
    narrow: list[Node], what: str, user: str
) -> None:
    method, path, body = REQUESTS[what]
    path = path.replace("/u/", f"/{part(user)}/")
    scopes = ("push.publish",) if what == "publish" else ()
    for tenant in TENANTS:
        auth = tenant.token(user, *scopes)
        statuses = []
        for _ in range(10):
            answer = await tenant.call(narrow[0], method, path, auth, json=body)
            statuses.append(answer.status_code)
            if statuses[-1] == 429:
                break
        assert statuses[0] < 300
        assert statuses[-1] == 429


async def test_an_operator_has_one_rate_of_traces_whatever_namespaces_it_names(
    narrow: list[Node], user: str
) -> None:
    auth = OPS.admin()
    answers = await asyncio.gather(
        *(
            OPS.console(
                narrow[0], "GET", "/trace", auth,
                params={"id": "1-1", "user": user, "namespace": f"invented-{number}"},
            )
            for number in range(100)
        )
    )  # fmt: skip
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}


def test_the_nodes_are_well(pair: list[Node]) -> None:
    for each in pair:
        wait_until(each.is_ready, "the node to be ready")
        each.check_log()


async def test_what_is_scheduled_goes_out_and_is_taken_back_in_its_namespace(
    pair: list[Node], phones: dict[Tenant, Member], user: str
) -> None:
    at = datetime.fromtimestamp(time.time() + 0.6, UTC).isoformat()
    targets: dict[str, dict[str, Any]] = {
        f"/v1/users/{part(user)}": {"user": user}, f"/v1/topics/{part(user)}": {"topic": user},
        "/v1/broadcast": {"broadcast": True},
    }  # fmt: skip
    for phone in phones.values():
        await phone.subscribe(user)
    for path, to in targets.items():
        scheduled = {
            each: [(await each.publish(pair[0], to, data, at=at))["id"] for data in (1, 2)]
            for each in TENANTS
        }
        for each, (never, _) in scheduled.items():
            for other in TENANTS:
                if other is not each:
                    answer = await other.call(pair[1], "DELETE", f"{path}/notifications/{never}")
                    problem(answer, 404, "not_found")
        answer = await ACME.call(pair[1], "DELETE", f"{path}/notifications/{scheduled[ACME][0]}")
        assert answer.json()["cancelled"] is True
    for each, phone in phones.items():
        wanted = [2] * 3 if each is ACME else [1] * 3 + [2] * 3
        assert sorted([note["data"] for note in await phone.notifications(len(wanted))]) == wanted
