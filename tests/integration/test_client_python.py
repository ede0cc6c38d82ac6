"""``pushsvc.client`` against real nodes: what it promises when they are killed and come back."""

import asyncio
import datetime as dt
import functools
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from pushsvc.client import (
    Closed,
    Notification,
    OutcomeUnknown,
    Presence,
    Problem,
    QueueFull,
    Refused,
    State,
    Timing,
    Unavailable,
    Withdrawn,
    connect,
    listen,
    wire,
)
from pushsvc.client.incoming import BUFFER, READ_AHEAD
from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, publisher_token, token, wait_until
from tests.support.proxy import Proxy

SOON = Timing(first=0.05, longest=0.2, uptime=0.5)
TOPICS = {"subscribe": ["py.**"], "publish": ["py.**"]}


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition of this event loop."""
    try:
        async with asyncio.timeout(15):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited for: {what}")


async def publish(node: Node, user: str, data: Any, **fields: Any) -> str:
    return await asyncio.to_thread(node.publish, user, data, **fields)


def offline() -> str:
    """An address at which nothing is."""
    return "http://127.0.0.1:1"


@asynccontextmanager
async def service(
    behave: Callable[[ServerConnection], Awaitable[None]],
) -> AsyncIterator[str]:
    """The address of a service that welcomes, and then does what a node would not."""

    async def welcome(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "welcome", "connection": "c", "user": "u1"}))
        await behave(socket)

    async with serve(welcome, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


# --- receiving -----------------------------------------------------------------------------------


async def test_listen_gives_notifications_in_order_and_acks_each_when_the_next_is_asked_for(
    node: Node,
    user: str,
) -> None:
    ids = [await publish(node, user, number, event="counted") for number in range(3)]
    seen: list[Notification] = []
    async with aclosing(listen(node.url, token=token(user))) as notifications:
        async for notification in notifications:
            seen.append(notification)
            if len(seen) == 3:
                break
    assert [n.id for n in seen] == ids
    assert [n.data for n in seen] == [0, 1, 2]
    assert seen[0].event == "counted"
    assert seen[0].time.utcoffset() is not None
    # The last one was left without an ack: it comes again, and the others do not.
    async with aclosing(listen(node.url, token=token(user))) as notifications:
        last = await anext(notifications)
        assert last.id == ids[2]
        await last.ack()
    await publish(node, user, "next")
    async with aclosing(listen(node.url, token=token(user))) as notifications:
        assert (await anext(notifications)).data == "next"


async def test_a_loop_that_an_error_left_is_given_the_same_notification_again(
    node: Node, user: str
) -> None:
    first, second = [await publish(node, user, number) for number in range(2)]
    async with connect(node.url, token=token(user)) as client:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop is what fails
            async for message in client:
                assert isinstance(message, Notification)
                1 / message.data
        again = [message async for message in _some(client, 2)]
    assert [n.id for n in again] == [first, second]


async def _some(messages: Any, count: int) -> Any:
    async for message in messages:
        yield message
        count -= 1
        if not count:
            return


@pytest.mark.parametrize("death", ["kill", "stop"])
async def test_nothing_is_missing_or_handled_twice_when_the_node_dies_again_and_again(
    mortal: Node, death: str
) -> None:
    seen: list[tuple[str, Any]] = []
    states: list[State] = []
    client = connect(
        mortal.url, token=token("u1", topics=TOPICS), topics={"py.t": "0-0"}, timing=SOON,
        on_state=states.append,
    )  # fmt: skip

    async def handle() -> None:
        async for message in client:
            if isinstance(message, Notification):
                seen.append((message.topic or "mailbox", message.data))  # noqa: PERF401 - as it comes

    published = 0
    async with client:
        handling = asyncio.create_task(handle())
        for _ in range(6):
            await until(lambda: client.state.status == "connected", "a connection")
            for _ in range(20):
                await publish(mortal, "u1", published)
                body = {"to": {"topic": "py.t"}, "data": published}
                await asyncio.to_thread(mortal.post, "/v1/notifications", body)
                published += 1
            await asyncio.to_thread(getattr(mortal, death))
            await asyncio.to_thread(mortal.start)
        await until(lambda: len(seen) >= 2 * published, "all to be handled")
        for feed in ("mailbox", "py.t"):
            assert [data for name, data in seen if name == feed] == list(range(published))
        await client.close()
        await handling
    assert client.state.status == "closed"
    # All that was handled is acknowledged: nothing waits for this device.
    poll = {"Authorization": f"Bearer {token('u1')}"}
    left = await asyncio.to_thread(_poll, mortal, poll)
    assert left == []


def _poll(node: Node, headers: dict[str, str]) -> Any:
    import httpx  # noqa: PLC0415 - an independent peer, used here only

    answer = httpx.get(f"{node.url}/v1/poll?device=default&wait=0", headers=headers, timeout=10)
    return answer.json()["messages"]


async def test_a_sender_of_repetitions_is_acked_again_and_the_program_sees_nothing_of_it(
    valkey: EmbeddedServer, tmp_path: Any, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, ack_timeout_seconds=1) as node:
        seen: list[Any] = []
        raw: list[dict[str, Any]] = []
        async with connect(node.url, token=token("u1"), on_message=raw.append) as client:
            await publish(node, "u1", 1)
            await publish(node, "u1", 2)
            async for message in client:
                assert isinstance(message, Notification)
                seen.append(message.data)
                if message.data == 1:  # slower than the service likes
                    again = [m for m in raw if m.get("attempt")]
                    while not again:
                        await asyncio.sleep(0.05)
                        again = [m for m in raw if m.get("attempt")]
                if message.data == 2:
                    await message.ack()
                    break
        assert seen == [1, 2]


async def test_manual_acks_leave_what_was_not_acked_to_the_next_client(
    node: Node, user: str
) -> None:
    ids = [await publish(node, user, number) for number in range(3)]
    async with connect(node.url, token=token(user), ack="manual") as client:
        given = [message async for message in _some(client, 3)]
        await given[1].ack()
    async with connect(node.url, token=token(user), ack="manual") as client:
        (left,) = [message async for message in _some(client, 1)]
    assert left.id == ids[2]


async def test_what_is_withdrawn_while_it_waits_for_the_program_is_not_given(
    node: Node, user: str
) -> None:
    async with connect(node.url, token=token(user)) as client:
        await until(lambda: client.state.status == "connected", "a connection")
        messages = aiter(client)
        await publish(node, user, "first")
        first = await anext(messages)
        assert isinstance(first, Notification)
        recalled = await publish(node, user, "recalled")
        answer = await asyncio.to_thread(_recall, node, user, recalled)
        assert answer == 200
        await publish(node, user, "last")
        withdrawn = await anext(messages)
        assert isinstance(withdrawn, Withdrawn)
        assert (withdrawn.id, withdrawn.reason) == (recalled, "recalled")
        last = await anext(messages)
        assert isinstance(last, Notification)
        assert last.data == "last"


def _recall(node: Node, user: str, notification_id: str) -> int:
    import httpx  # noqa: PLC0415 - an independent peer

    headers = {"Authorization": f"Bearer {publisher_token()}"}
    url = f"{node.url}/v1/users/{user}/notifications/{notification_id}"
    return httpx.delete(url, headers=headers, timeout=10).status_code


# --- topics and questions ------------------------------------------------------------------------


async def test_topics_presence_and_publishing_over_the_connection(node: Node, user: str) -> None:
    async with (
        connect(node.url, token=token("anna", topics=TOPICS)) as anna,
        connect(node.url, token=token("ben", topics=TOPICS)) as ben,
    ):
        assert await anna.subscribe(f"py.{user}.room") == "0-0"
        present = await anna.presence(f"py.{user}.room")
        assert not present.sample
        assert present == (("anna",), 1)
        await ben.subscribe(f"py.{user}.room")
        messages = aiter(anna)
        came = await anext(messages)
        assert isinstance(came, Presence)
        assert came.joined == ("ben",)
        sent = await ben.publish(f"py.{user}.room", b"\x00\xff", event="blob")
        note = await anext(messages)
        assert isinstance(note, Notification)
        assert (note.id, note.data, note.sender) == (sent, b"\x00\xff", "ben")
        assert await ben.publish(f"py.{user}.room", 1, ephemeral=True) is None
        note = await anext(messages)
        assert isinstance(note, Notification)
        assert note.ephemeral
        await anna.unsubscribe(f"py.{user}.room")
        with pytest.raises(Refused, match=r"topics\.subscribe") as refused:
            await anna.subscribe("other")
        assert refused.value.code == "forbidden"


async def test_a_topic_that_the_token_does_not_open_is_told_and_the_others_go_on(
    node: Node,
    user: str,
) -> None:
    auth = token(user, topics=TOPICS)
    wanted = {f"py.{user}.a": "0-0", "secret": None, f"py.{user}.b": "0-0"}
    async with connect(node.url, token=auth, topics=wanted) as client:
        messages = aiter(client)
        problem = await anext(messages)
        assert isinstance(problem, Problem)
        assert (problem.topic, problem.code) == ("secret", "forbidden")
        await client.publish(f"py.{user}.a", "a")
        await client.publish(f"py.{user}.b", "b")
        await publish(node, user, "mine")
        given = [message.data async for message in _some(client, 3)]
        assert sorted(given) == ["a", "b", "mine"]
    with pytest.raises(Refused, match=r"secret: .*topics\.subscribe"):
        async for _ in listen(node.url, token=auth, topics=wanted):
            pass


async def test_the_state_of_a_topic_has_come_when_a_later_ping_is_answered(
    node: Node, user: str
) -> None:
    auth = token(user, topics=TOPICS)
    raw: list[dict[str, Any]] = []
    async with connect(node.url, token=auth) as client:
        for number in range(40):
            await asyncio.to_thread(
                node.post,
                "/v1/notifications",
                {
                    "to": {"topic": f"py.{user}.s"},
                    "data": number,
                    "collapse_key": f"k{number % 30}",
                },
            )
    async with connect(
        node.url, token=auth, topics=[f"py.{user}.s"], on_message=raw.append
    ) as client:
        await until(lambda: raw and raw[-1]["type"] == "pong", "the answer to the ping")
        await client.publish(f"py.{user}.s", "next")
        given = [message.data async for message in _some(client, 31)]
    kinds = [message["type"] for message in raw]
    assert kinds[:33] == ["welcome", "reply", *["notification"] * 30, "pong"]
    assert given == [*range(10, 40), "next"]


async def test_a_subscription_survives_the_node_and_a_publish_waits_for_the_next_one(
    mortal: Node,
) -> None:
    auth = token("u1", topics=TOPICS)
    async with connect(mortal.url, token=auth, timing=SOON, queue=2) as client:
        await client.subscribe("py.a")
        await asyncio.to_thread(mortal.kill)
        await until(lambda: client.state.status != "connected", "the loss of the connection")
        waiting = [asyncio.create_task(client.publish("py.a", number)) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await client.publish("py.a", "too many")
        await asyncio.to_thread(mortal.start)
        await asyncio.gather(*waiting)
        assert [message.data async for message in _some(client, 2)] == [0, 1]


async def test_what_is_asked_of_a_closed_client_fails(node: Node, user: str) -> None:
    async with connect(node.url, token=token(user, topics=TOPICS)) as client:
        pass
    with pytest.raises(Closed):
        await client.publish(f"py.{user}.a", 1)
    assert [message async for message in client] == []
    async with connect(offline(), token="t") as client:
        asking = asyncio.create_task(client.subscribe(f"py.{user}.a"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Closed):
            await asking


async def test_closing_ends_a_loop_in_another_task_and_leaves_no_task_behind(
    node: Node, user: str
) -> None:
    before = asyncio.all_tasks()
    client = connect(node.url, token=token(user))

    async def loop() -> list[Any]:
        return [message async for message in client]

    async with client:
        looping = asyncio.create_task(loop())
        await until(lambda: client.state.status == "connected", "a connection")
    assert await looping == []
    assert asyncio.all_tasks() == before


async def test_a_cancelled_listener_ends_cleanly(mortal: Node) -> None:
    before = asyncio.all_tasks()

    async def listening() -> None:
        async for _ in listen(mortal.url, token=token("u1")):
            pass

    task = asyncio.create_task(listening())
    connected = functools.partial(mortal.metric, "pushsvc_connections")
    await asyncio.to_thread(wait_until, connected, "a connection")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("data", [math.nan, "\ud800", dt.datetime.now(dt.UTC)])
async def test_what_is_no_json_fails_at_once_and_the_client_goes_on(
    node: Node, user: str, data: Any
) -> None:
    auth = token(user, topics=TOPICS)
    async with connect(node.url, token=auth, topics=[f"py.{user}.t"], timing=SOON) as client:
        for _ in range(2):  # before there is a connection, and on it
            with pytest.raises((TypeError, ValueError)):
                await client.publish(f"py.{user}.t", data)
            with pytest.raises((TypeError, ValueError)):
                await client.publish(f"py.{user}.t", data, ephemeral=True)
            await until(lambda: client.state.status == "connected", "a connection")
        await client.publish(f"py.{user}.t", "next")
        assert [message.data async for message in _some(client, 1)] == ["next"]


async def test_a_message_that_is_too_large_is_refused_and_not_sent_for_ever(
    node: Node, user: str
) -> None:
    auth = token(user, topics=TOPICS)
    async with connect(node.url, token=auth, timing=SOON) as client:
        with pytest.raises(Refused, match="send less") as refused:
            await client.subscribe(f"py.{user}." + "x" * 2**21)
        assert refused.value.code == "too_large"
        assert await client.subscribe(f"py.{user}.a") == "0-0"


async def test_a_topic_is_not_begun_anew_while_it_is_listened_to(node: Node, user: str) -> None:
    auth = token(user, topics=TOPICS)
    async with connect(node.url, token=auth) as client:
        await client.publish(f"py.{user}.a", 1)
        for _ in range(2):
            await client.subscribe(f"py.{user}.a", since="0-0")
            assert [message.data async for message in _some(client, 1)] == [1]
            with pytest.raises(ValueError, match="unsubscribe first"):
                await client.subscribe(f"py.{user}.a", since="0-0")
            await client.unsubscribe(f"py.{user}.a")


async def test_a_question_that_is_not_answered_in_time_has_an_unknown_outcome() -> None:
    async def be_silent(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with service(be_silent) as url:
        timing = Timing(first=0.05, longest=0.2, answer=0.2)
        async with connect(url, token="t", timing=timing) as client:
            for ask in (client.publish("a", 1), client.subscribe("a")):
                with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.2 s"):
                    await ask
            assert client.state.status == "connected"


async def test_what_waits_for_the_program_is_bounded_also_while_a_question_is_open() -> None:
    async def flood(socket: ServerConnection) -> None:
        message = {"type": "notification", "ephemeral": True, "data": "x" * 1000}
        while True:
            await socket.send(json.dumps(message))

    raw: list[Any] = []
    async with service(flood) as url:
        timing = Timing(first=0.05, longest=0.2, answer=2)
        async with connect(url, token="t", timing=timing, on_message=raw.append) as client:
            await until(lambda: len(raw) > BUFFER, "as much as may wait")
            with pytest.raises(OutcomeUnknown):
                await client.publish("a", 1)
            assert len(raw) == 1 + BUFFER + READ_AHEAD


async def test_a_program_that_is_slow_for_long_keeps_its_connection(
    valkey: EmbeddedServer, tmp_path: Any, prefix: str
) -> None:
    count = BUFFER + 500
    with Node(valkey.url, tmp_path, prefix=prefix, heartbeat_seconds=1) as node:
        auth = token("u1", topics=TOPICS)
        async with connect(node.url, token=auth, topics=["py.t"], timing=SOON) as client:
            await until(lambda: client.state.status == "connected", "a connection")
            for begin in range(0, count, 250):
                notes = [{"to": {"topic": "py.t"}, "data": n} for n in range(begin, begin + 250)]
                await asyncio.to_thread(
                    node.post, "/v1/notifications/batch", {"notifications": notes[: count - begin]}
                )
            connection = client.state.connection
            await asyncio.sleep(4)  # four heartbeats of the node, which it answers none of
            given = [message.data async for message in _some(client, count)]
            assert given == list(range(count))
            assert client.state.connection == connection


async def test_a_slow_program_comes_back_when_its_connection_ended(mortal: Node) -> None:
    count = BUFFER + 500
    auth = token("u1", topics=TOPICS)
    async with connect(mortal.url, token=auth, topics=["py.t"], timing=SOON) as client:
        await until(lambda: client.state.status == "connected", "a connection")
        notes = [{"to": {"topic": "py.t"}, "data": "x" * 500} for _ in range(count)]
        for begin in range(0, count, 500):
            body = {"notifications": notes[begin : begin + 500]}
            await asyncio.to_thread(mortal.post, "/v1/notifications/batch", body)
        connection = client.state.connection
        await asyncio.to_thread(mortal.kill)
        await asyncio.to_thread(mortal.start)
        await until(lambda: client.state.connection not in (None, connection), "another connection")


async def test_a_service_that_falls_silent_is_left_and_one_that_is_only_quiet_is_not(
    node: Node, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SILENCE", 0.2)
    states: list[str] = []
    with Proxy(node.port) as network:
        url = f"http://127.0.0.1:{network.port}"

        async with connect(
            url, token=token(user), timing=SOON, on_state=lambda state: states.append(state.status)
        ) as client:
            await until(lambda: client.state.status == "connected", "a connection")
            await asyncio.sleep(1)  # five times as quiet as it may be without a ping
            assert states == ["connecting", "connected"]
            network.stop_flow()
            await until(lambda: "waiting" in states, "the end of the connection")
            network.flow()
            await until(lambda: client.state.status == "connected", "another connection")


async def test_listen_warns_of_what_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def lose(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "gap", "after": "1-0", "reason": "trimmed"}))
        await socket.send(json.dumps({"type": "notification", "id": "5-0", "data": 5}))
        await socket.wait_closed()

    async with service(lose) as url, aclosing(listen(url, token="t")) as notifications:
        assert (await anext(notifications)).data == 5
    assert "some of the mailbox are gone after 1-0 (trimmed)" in caplog.text


async def test_a_redirect_is_a_refusal_and_the_token_goes_nowhere_else() -> None:
    elsewhere: list[bytes] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as there:
        port = there.sockets[0].getsockname()[1]

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n"
                b"Location: ws://127.0.0.1:%d/\r\n\r\n" % port
            )
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(redirect, "127.0.0.1", 0) as here:
            url = f"http://127.0.0.1:{here.sockets[0].getsockname()[1]}"
            with pytest.raises(Refused) as refused:
                async for _ in listen(url, token="secret", timing=SOON):
                    pass
    assert refused.value.status == 307
    assert elsewhere == []


# --- tokens and refusals -------------------------------------------------------------------------


async def test_a_refused_token_is_asked_for_anew_once(node: Node, user: str) -> None:
    asked: list[bool] = []

    async def provider(refused: bool) -> str:  # noqa: FBT001 - the shape of a provider
        asked.append(refused)
        return token(user) if refused else token(user, ttl=-100)

    async with connect(node.url, token=provider, timing=SOON) as client:
        await until(lambda: client.state.status == "connected", "a connection")
    assert asked == [False, True]

    with pytest.raises(Refused) as refused:
        async for _ in listen(node.url, token=lambda _: "no.t.oken", timing=SOON):
            pass
    assert refused.value.status == 401


async def test_a_plain_token_that_is_refused_ends_the_loop(node: Node, user: str) -> None:
    with pytest.raises(Refused, match="401"):
        async for _ in listen(node.url, token="no.t.oken"):
            pass
    with pytest.raises(Refused, match=r"topics\.subscribe"):
        async for _ in listen(node.url, token=token(user), topics=[f"py.{user}.a"]):
            pass
    with pytest.raises(Refused, match="404"):
        async for _ in listen(node.admin_url, token=token(user)):
            pass


async def test_a_token_that_expires_is_renewed_on_the_live_connection(
    node: Node, user: str
) -> None:
    asked: list[bool] = []

    def provider(refused: bool) -> str:  # noqa: FBT001 - the shape of a provider
        asked.append(refused)
        return token(user, ttl=2 if len(asked) == 1 else 600)

    raw: list[dict[str, Any]] = []
    async with connect(node.url, token=provider, on_message=raw.append) as client:
        await until(lambda: any("expires_at" in m and "ref" in m for m in raw), "the renewal")
        connection = client.state.connection
        await publish(node, user, 1)
        await anext(aiter(client))
        assert client.state.connection == connection
    assert asked == [False, False]


async def test_revoked_access_ends_the_loop_with_the_reason(node: Node, user: str) -> None:
    async with connect(node.url, token=token(user)) as client:
        await until(lambda: client.state.status == "connected", "a connection")
        admin = {"Authorization": f"Bearer {token('root', 'push.admin')}"}
        answer = await asyncio.to_thread(
            node.post, f"/v1/users/{user}/disconnect", headers=admin, json={}
        )
        assert answer.status_code in (200, 201)
        with pytest.raises(Refused) as refused:
            await anext(aiter(client))
        assert refused.value.status == 4501


async def test_who_accepts_a_connection_and_says_nothing_is_left() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        timing = Timing(first=0.05, longest=0.2, open=0.1)
        with pytest.raises(Unavailable) as error:
            async for _ in listen(url, token="t", timing=timing, patience=0.3):
                pass
    assert isinstance(error.value.__cause__, TimeoutError)


async def test_patience_ends() -> None:
    with pytest.raises(Unavailable, match=r"no connection within 0\.3 s") as error:
        async for _ in listen(offline(), token="t", timing=SOON, patience=0.3):
            pass
    assert isinstance(error.value.__cause__, OSError)
    with pytest.raises(ValueError, match="http"):
        connect("ftp://x", token="t")
