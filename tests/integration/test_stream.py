"""Server-Sent Events: the same messages for who cannot open a socket."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.protocol.names import stored
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem, publish, publish_all
from tests.support.events import Stream
from tests.support.nodes import Node, nodes, token
from tests.support.raw import Raw
from tests.support.topics import Member, member, order, tell, tell_all, tell_everyone, wide

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with nodes(
        2, valkey.url, tmp_path_factory.mktemp("stream"), prefix="stream", heartbeat_seconds=1,
        max_connections_per_user=2, allowed_origins=ORIGIN, ack_timeout_seconds=2,
    ) as both:  # fmt: skip
        yield both


@pytest.fixture(scope="module")
def node(pair: list[Node]) -> Node:
    return pair[0]


@pytest.fixture
def topic(user: str) -> str:
    """A topic that no other test uses."""
    return f"room.{user}"


async def acked(node: Node, user: str, device: str, notification_id: str, **fields: Any) -> str:
    """Acknowledge by request; the device's position."""
    body = {"device": device, "id": notification_id, **fields}
    headers = {"Authorization": f"Bearer {token(user)}"}
    answer = await asyncio.to_thread(node.post, "/v1/ack", body, headers=headers)
    assert answer.status_code == 200, answer.text
    position: str = answer.json()["acked"]
    return position


# --- the answer ----------------------------------------------------------------------------------


async def test_a_stream_begins_as_browsers_expect_it(node: Node, user: str) -> None:
    async with Stream(node, user, "web") as stream:
        headers = stream.head.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Connection"] == "close"
        assert headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in headers
        assert "Transfer-Encoding" not in headers
        assert stream.retry is not None
        assert 1000 <= stream.retry <= 5000
        assert set(stream.welcome) == {
            "type", "connection", "user", "device", "heartbeat", "window", "expires_at", "unread",
        }  # fmt: skip
        assert (stream.welcome["user"], stream.welcome["device"]) == (user, "web")
        assert set(stream.last_id.split(",")) == {"u=0-0", stream.last_id.split(",")[1]}
        assert stream.last_id.split(",")[1].startswith("b=")


async def test_an_http_1_0_client_gets_a_stream(node: Node, user: str) -> None:
    async with Stream(node, user, version="HTTP/1.0") as stream:
        sent = await publish(node, user, 1)
        assert (await stream.notification())["id"] == sent


async def test_an_events_id_is_the_position_of_every_feed(
    node: Node, user: str, topic: str
) -> None:
    async with Stream(node, user, topics=[topic]) as stream:
        await stream.settled([topic])
        mail = await publish(node, user, 1)
        await stream.notification()
        assert f"u={mail}" in stream.last_id.split(",")
        told = (await tell(node, topic, 2))["id"]
        await stream.notification()
        everyone = await tell_everyone(node, 3)
        await stream.notification()
        assert set(stream.last_id.split(",")) == {f"u={mail}", f"b={everyone}", f"t:{topic}={told}"}
        await tell(node, topic, 4, ephemeral=True)
        assert "id" not in await stream.notification()
        assert f"t:{topic}={told}" in stream.last_id.split(",")


async def test_a_message_of_many_lines_is_one_event(node: Node, user: str) -> None:
    text = "a\nb\r\nc\n\nid: x\ndata: y\n\n: \u2028 \x85"
    async with Stream(node, user) as stream:
        await publish(node, user, text)
        assert (await stream.notification())["data"] == text
        await stream.quiet()


async def test_heartbeats_are_comments(node: Node, user: str) -> None:
    async with Stream(node, user) as stream:
        place = stream.last_id
        async with asyncio.timeout(10):
            while stream.comments < 2:
                await stream.quiet(0.5)
        assert stream.last_id == place


async def test_a_stream_that_says_nothing_is_not_closed_for_it(node: Node, user: str) -> None:
    async with Stream(node, user) as stream:
        await stream.quiet(3.5)  # more than three heartbeats
        await publish(node, user, 1)
        await stream.notification()


# --- going on ------------------------------------------------------------------------------------


class Publishers:
    """Publishes to a user, to everyone and to topics, all at once, until told to stop.

    Args:
        pair: where.
        user: the user, whose id marks what is published.
        topics: the topics.
    """

    def __init__(self, pair: list[Node], user: str, topics: Sequence[str]) -> None:
        self._pair = pair
        self._user = user
        self._stop = asyncio.Event()
        self.counts = dict.fromkeys([*topics, "mail", "all"], 0)
        self.seen: dict[str, list[int]] = {kind: [] for kind in self.counts}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(kind, self._pair[n % 2]))
            for n, kind in enumerate(self.counts)
        ]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _run(self, kind: str, node: Node) -> None:
        while not self._stop.is_set():
            data = [self._user, kind, self.counts[kind]]
            if kind == "mail":
                await publish(node, self._user, data)
            elif kind == "all":
                await tell_everyone(node, data)
            else:
                await tell(node, kind, data)
            self.counts[kind] += 1
            await asyncio.sleep(0.005)

    def take(self, message: dict[str, Any]) -> None:
        """Note that a message came."""
        assert message["type"] == "notification", message
        if isinstance(message["data"], list) and message["data"][0] == self._user:
            self.seen[message["data"][1]].append(message["data"][2])

    def complete(self) -> bool:
        return all(len(self.seen[kind]) >= count for kind, count in self.counts.items())


async def test_a_stream_goes_on_where_it_was_cut_on_any_node(
    pair: list[Node], user: str, topic: str
) -> None:
    topics = [topic + ".a", topic + ".b"]
    publishers = Publishers(pair, user, topics)
    after = ""
    for visit in range(6):
        async with Stream(pair[visit % 2], user, topics=topics, after=after) as stream:
            if not visit:
                await stream.settled(topics)
                publishers.start()
            for _ in range(visit * 3):
                publishers.take(await stream.message())
            after = stream.last_id
        mail = after.split(",")[0].removeprefix("u=")
        if mail != "0-0":
            await acked(pair[0], user, "phone", mail)
    await publishers.stop()
    async with Stream(pair[0], user, topics=topics, after=after) as stream:
        while not publishers.complete():
            publishers.take(await stream.message())
        await stream.quiet(0.2)
    assert publishers.seen == {kind: list(range(n)) for kind, n in publishers.counts.items()}


async def test_a_stream_cut_before_its_first_event_misses_nothing(
    pair: list[Node], user: str, topic: str
) -> None:
    await tell(pair[0], topic, "before")
    async with Stream(pair[0], user, topics=[topic]) as stream:
        await stream.settled([topic])
    sent = await tell_all(pair[1], topic, range(3))
    async with Stream(pair[1], user, topics=[topic], after=stream.last_id) as stream:
        assert [note["id"] for note in await stream.notifications(3)] == sent
        await stream.quiet()


async def test_a_position_holds_from_the_first_event_on(node: Node, user: str, topic: str) -> None:
    sent = await tell_all(node, topic, range(3))
    async with Stream(node, user, topics=[topic], after=f"t:{topic}={sent[0]}") as stream:
        # Cut before the topic was answered, it would come back with this.
        assert f"t:{topic}={sent[0]}" in stream.last_id.split(",")


async def test_the_position_may_be_in_the_address(node: Node, user: str, topic: str) -> None:
    sent = await tell_all(node, topic, range(3))
    place = f"t:{topic}={sent[0]}"
    async with Stream(node, user, topics=[topic], query={"after": place}) as stream:
        assert [note["id"] for note in await stream.notifications(2)] == sent[1:]
    # What a browser sends when it comes back by itself is newer than what its page wrote.
    newer = f"t:{topic}={sent[1]}"
    async with Stream(node, user, topics=[topic], query={"after": place}, after=newer) as stream:
        assert (await stream.notification())["id"] == sent[2]


async def test_a_place_in_a_topic_that_is_not_asked_for_means_nothing(
    node: Node, user: str, topic: str
) -> None:
    sent = await tell(node, topic, 1)
    async with Stream(node, user, after=f"t:{topic}={sent['id']}") as stream:
        assert topic not in stream.last_id


async def test_a_newcomer_gets_the_state_first(node: Node, user: str, topic: str) -> None:
    for value, key in [(1, "a"), (2, "b"), (3, "a")]:
        await tell(node, topic, value, collapse_key=key)
    async with Stream(node, user, topics=[topic]) as stream:
        assert [note["data"] for note in await stream.notifications(2)] == [2, 3]
        await tell(node, topic, 4, collapse_key="b")
        assert (await stream.notification())["data"] == 4


async def test_what_was_trimmed_is_told(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(1, valkey.url, tmp_path, prefix=prefix, mailbox_max=5) as (node,):
        sent = await tell_all(node, "t", range(20))
        async with Stream(node, user, topics=["t"], after=f"t:t={sent[0]}") as stream:
            gap = await stream.message()
            assert gap == {"type": "gap", "topic": "t", "after": sent[0], "reason": "trimmed"}
            assert [note["id"] for note in await stream.notifications(5)] == sent[-5:]


# --- acknowledging -------------------------------------------------------------------------------


async def test_what_is_not_acknowledged_comes_again_on_the_stream(node: Node, user: str) -> None:
    async with Stream(node, user) as stream:
        sent = await publish(node, user, 1)
        first = await stream.notification()
        assert "attempt" not in first
        again = await stream.notification()
        assert again == {**first, "attempt": 2}
        assert await acked(node, user, "phone", sent) == sent
        await stream.quiet(2.5)


async def test_an_ack_by_request_opens_the_window_of_a_stream(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix, ack_window=3) as pair:
        async with Stream(pair[0], user) as stream:
            sent = await publish_all(pair[0], user, range(8))
            got = [note["id"] for note in await stream.notifications(3)]
            await stream.quiet()
            for first in (3, 6):
                assert await acked(pair[1], user, "phone", got[-1]) == got[-1]
                size = min(3, 8 - first)
                got += [note["id"] for note in await stream.notifications(size)]
            assert got == sent


# --- the end -------------------------------------------------------------------------------------


async def test_a_stream_ends_with_its_token(node: Node, user: str) -> None:
    async with Stream(node, user, auth=member(user, ttl=2)) as stream:
        assert time.time() <= stream.welcome["expires_at"] <= time.time() + 2.5
        started = time.monotonic()
        messages = await stream.ended()
        assert time.monotonic() - started < 5
    kinds = [message["type"] for message in messages]
    assert kinds[-1] == "closed", messages
    assert messages[-1]["code"] == 4100
    assert messages[-1]["reason"]
    assert set(kinds[:-1]) <= {"error"}  # that it was told of


async def test_a_draining_node_sends_streams_elsewhere(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(2, valkey.url, tmp_path, prefix=prefix) as pair:
        async with Stream(pair[0], user, topics=["t"]) as stream:
            await stream.settled(["t"])
            stopping = asyncio.create_task(asyncio.to_thread(pair[0].stop))
            reconnect, closed = await stream.ended()
            assert reconnect["type"] == "reconnect"
            assert 0 <= reconnect["retry_after"] <= 1
            assert (closed["type"], closed["code"]) == ("closed", 4001)
            await stopping
        sent = await tell(pair[1], "t", 1)
        async with Stream(pair[1], user, topics=["t"], after=stream.last_id) as stream:
            assert (await stream.notification())["id"] == sent["id"]


async def test_a_stream_of_a_revoked_user_is_closed(node: Node, user: str) -> None:
    async with Stream(node, user) as stream:
        headers = {"Authorization": f"Bearer {token('admin', 'push.admin')}"}
        await asyncio.to_thread(node.post, f"/v1/users/{user}/disconnect", headers=headers)
        (closed,) = await stream.ended()
        assert (closed["type"], closed["code"]) == ("closed", 4501)


async def test_a_stream_that_is_not_read_is_closed_and_goes_on_later(
    node: Node, user: str, topic: str
) -> None:
    slow = Stream(node, user, topics=[topic], receive_buffer=4096)
    before = node.metric("pushsvc_closes_total", code="4004")
    async with slow:
        await slow.settled([topic])
        slow.pause()
        sent = []
        for _ in range(8):
            sent += await tell_all(node, topic, ["x" * 60_000] * 15)
        deadline = time.monotonic() + 15
        while node.metric("pushsvc_closes_total", code="4004") == before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        slow.resume()
        got = []
        with contextlib.suppress(OSError, EOFError):
            while True:
                got.append((await slow.message())["id"])
    assert 0 < len(got) < len(sent)
    async with Stream(node, user, topics=[topic], after=slow.last_id) as stream:
        rest = await stream.notifications(len(sent) - len(got))
        assert got + [note["id"] for note in rest] == sent


async def test_a_client_that_goes_is_forgotten(node: Node, user: str) -> None:
    for _ in range(5):  # more than the user may hold at once
        async with Stream(node, user) as stream:
            pass
        await gone(node, user)
        del stream


async def gone(node: Node, user: str) -> None:
    """Wait until a user is not connected."""
    headers = {"Authorization": f"Bearer {token(user)}"}
    async with httpx.AsyncClient() as client, asyncio.timeout(5):
        while True:
            answer = await client.get(f"{node.url}/v1/users/{user}/presence", headers=headers)
            if not answer.json()["online"]:
                return
            await asyncio.sleep(0.01)


# --- who may -------------------------------------------------------------------------------------


async def refused(node: Node, user: str, status: int, code: str, **kwargs: Any) -> httpx.Response:
    stream = Stream(node, user, **kwargs)
    answer = await stream.open()
    stream.drop()
    problem(answer, status, code)
    return answer


async def test_a_stream_needs_a_token(node: Node, user: str) -> None:
    await refused(node, user, 401, "invalid_token", auth="")
    await refused(node, user, 401, "invalid_token", auth="x.y.z")
    await refused(node, user, 401, "invalid_token", auth=token(user, ttl=-100))


async def test_a_stream_needs_a_token_that_opens_its_topics(node: Node, user: str) -> None:
    auth = token(user, topics={"subscribe": ["a.*"]})
    await refused(node, user, 403, "forbidden", topics=["a.b", "b"], auth=auth)
    await refused(node, user, 403, "forbidden", topics=["b"], auth=token(user))
    async with Stream(node, user, topics=["a.b"], auth=auth):
        pass


async def test_a_ticket_opens_one_stream(node: Node, user: str, topic: str) -> None:
    headers = {"Authorization": f"Bearer {token(user, topics={'subscribe': [topic]})}"}
    answer = await asyncio.to_thread(node.post, "/v1/tickets", headers=headers)
    query = {"ticket": answer.json()["ticket"]}
    async with Stream(node, auth="", topics=[topic], query=query) as stream:
        assert stream.welcome["user"] == user
        await stream.settled([topic])
        sent = await tell(node, topic, 1)
        assert (await stream.notification())["id"] == sent["id"]
    await refused(node, user, 401, "invalid_token", auth="", query=query)


async def test_pages_of_allowed_origins_may_read_a_stream_and_others_may_not(
    node: Node, user: str
) -> None:
    async with Stream(node, user, headers={"Origin": ORIGIN}) as stream:
        assert stream.head.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Origin" in stream.head.headers["Vary"]
    denied = await refused(
        node, user, 403, "origin_refused", headers={"Origin": "https://evil.example"}
    )
    assert "Access-Control-Allow-Origin" not in denied.headers
    # A page must be able to read why it was refused.
    told = await refused(node, user, 401, "invalid_token", auth="", headers={"Origin": ORIGIN})
    assert told.headers["Access-Control-Allow-Origin"] == ORIGIN
    preflight = await asyncio.to_thread(
        httpx.options, node.url + "/v1/stream",
        headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET",
                 "Access-Control-Request-Headers": "authorization,last-event-id"},
    )  # fmt: skip
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Last-Event-ID" in preflight.headers["Access-Control-Allow-Headers"]


async def test_a_user_holds_so_many_connections_streams_included(
    pair: list[Node], user: str
) -> None:
    async with Stream(pair[0], user, "a"), Member(pair[1], user, "b"):
        await refused(pair[1], user, 429, "too_many_connections", device="c")


async def test_a_full_node_refuses_streams(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with nodes(1, valkey.url, tmp_path, prefix=prefix, max_connections=1) as (node,):
        async with Stream(node, user):
            answer = await refused(node, user + "2", 503, "overloaded")
            assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "PATCH"])
def test_a_stream_is_got_and_nothing_else(node: Node, user: str, method: str) -> None:
    answer = httpx.request(
        method, node.url + "/v1/stream", headers={"Authorization": f"Bearer {token(user)}"}
    )
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    if method != "HEAD":
        problem(answer, 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("device=a%09b", "invalid_name"),
        ("device=", "invalid_name"),
        ("topic=", "invalid_name"),
        ("topic=*", "invalid_name"),
        ("topic=a%0d%0ab", "invalid_name"),
        ("topic=a+b", "invalid_name"),
        ("topic=%ff", "invalid"),
        ("device=%ff", "invalid"),
        ("&".join(f"topic=t{n}" for n in range(33)), "invalid"),
        ("&".join(f"topic=t{n}" for n in range(150)), "invalid"),
        ("after=x", "invalid"),
        ("after=u", "invalid"),
        ("after=u=1", "invalid"),
        ("after=x=1-0", "invalid"),
        ("after=t:=1-0", "invalid"),
        ("after=t:*=1-0", "invalid"),
        ("after=u=-1-0", "invalid"),
        ("after=u=99999999999999999999-0", "invalid"),
    ],
)
@pytest.mark.parametrize("path", ["stream", "poll"])
def test_a_request_that_makes_no_sense_is_told_why(
    node: Node, user: str, path: str, query: str, code: str
) -> None:
    headers = {"Authorization": f"Bearer {member(user)}"}
    answer = httpx.get(f"{node.url}/v1/{path}?{query}", headers=headers, timeout=5)
    problem(answer, 400, code)


@pytest.mark.parametrize("target", ["/v1/ws", "/v1/stream", "/v1/poll"])
def test_more_parameters_than_anybody_needs_are_refused(node: Node, user: str, target: str) -> None:
    query = "&".join(f"p{n}=1" for n in range(1000))
    headers = {
        "Authorization": f"Bearer {token(user)}", "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    answer = httpx.get(f"{node.url}{target}?{query}", headers=headers, timeout=5)
    problem(answer, 400, "invalid")


def test_what_a_client_says_on_a_stream_is_passed_over(node: Node, user: str) -> None:
    with Raw(node) as peer:
        head = f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n"
        peer.send(head.encode() + b"GET /v1/poll HTTP/1.1\r\n\r\n\x81\x80")
        assert b"200 OK" in peer.read(15)
        peer.send(b"\x88\x80\0\0\0\0")
        node.publish(user, "still here")
        text = b""
        while b"still here" not in text:
            text += peer.read(1)


# --- the same over every transport ---------------------------------------------------------------


async def test_sockets_streams_and_polls_are_told_the_same(
    pair: list[Node], user: str, topic: str
) -> None:
    other = user + "-p"
    headers = {"Authorization": f"Bearer {member(other)}"}
    async with (
        Member(pair[0], user, "socket") as socket,
        Stream(pair[1], user, "stream", topics=[topic]) as stream,
        httpx.AsyncClient(base_url=pair[0].url, headers=headers, timeout=30) as client,
    ):
        await socket.subscribe(topic)
        await stream.settled([topic])
        first = await client.get("/v1/poll", params={"topic": topic, "wait": "0"})
        position = first.json()["position"]
        told = await tell(pair[0], topic, {"n": [1, "ü", None]}, event="e")
        everyone = await tell_everyone(pair[1], user)
        on_socket = {note["id"]: note for note in await socket.notifications(2)}
        on_stream = {note["id"]: note for note in await stream.notifications(2)}
        assert on_socket == on_stream
        assert set(on_socket) == {told["id"], everyone}
        polled: dict[str, Any] = {}
        while not set(polled) >= set(on_socket):
            answer = await client.get("/v1/poll", params={"topic": topic, "after": position})
            position = answer.json()["position"]
            polled |= {note["id"]: note for note in answer.json()["messages"]}
        assert {key: polled[key] for key in on_socket} == on_socket
        mail = await publish(pair[0], user, {"big": 2**60, "f": 1.5}, event="x")
        assert await socket.notification() == await stream.notification()
        assert order(mail) > (0, 0)
        assert json.dumps(polled)


async def test_a_stream_with_the_widest_topics_that_are_taken_goes_on_from_its_position(
    pair: list[Node], user: str
) -> None:
    """Headers of more than 16 KiB are cut off without a word, and the client would loop."""
    topics = wide(user)
    tried = Stream(pair[0], user, topics=topics)
    answer = await tried.open()
    while answer.status_code == 400:
        assert "fewer or shorter topics, or use a socket" in answer.json()["detail"]
        tried.drop()
        topics.pop()
        tried = Stream(pair[0], user, topics=topics)
        answer = await tried.open()
    tried.drop()
    assert 10 < len(topics) < len(wide(user))
    async with Stream(pair[0], user, topics=topics) as stream:
        await stream.settled([stored(name) for name in topics])
        place = stream.last_id
    for number, name in enumerate(topics):
        await tell(pair[0], name, number)
    async with Stream(pair[1], user, topics=topics, query={"after": place}) as stream:
        told = [(await stream.notification())["data"] for _ in topics]
        assert sorted(told) == list(range(len(topics)))
