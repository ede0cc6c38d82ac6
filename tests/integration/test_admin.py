"""The admin port, several workers in one node, and how a node stops."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from pushsvc import metrics
from pushsvc.admin.port import MAX_CONNECTIONS
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.server.process import SAME_SIGNAL
from tests.support.backend import problem, publish
from tests.support.nodes import Node, nodes, wait_until, workers
from tests.support.phone import Phone
from tests.support.raw import Ended, Raw, RawSocket, request


def admin(node: Node, path: str, **kwargs: Any) -> httpx.Response:
    return httpx.get(node.admin_url + path, timeout=10, **kwargs)


def ready(node: Node) -> dict[str, Any]:
    """What ``/readyz`` says."""
    answer = admin(node, "/readyz")
    report: dict[str, Any] = answer.json()
    assert (answer.status_code == 200) == (report["troubles"] == [])
    assert report["status"] == ("ready" if answer.status_code == 200 else "unready")
    return report


# --- what is served ------------------------------------------------------------------------------


def test_livez_and_readyz_say_that_the_node_is_well(node: Node) -> None:
    answer = admin(node, "/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
    report = ready(node)
    assert report["status"] == "ready"
    assert re.fullmatch(r"[0-9a-f]{12}", report["node"])


async def test_readyz_counts_the_connections(node: Node, user: str) -> None:
    async with Phone(node, user), Phone(node, user):
        assert ready(node)["connections"] == 2
    await asyncio.to_thread(
        wait_until, lambda: ready(node)["connections"] == 0, "the connections to be gone"
    )


def test_the_console_is_a_page_that_loads_nothing_from_elsewhere(node: Node) -> None:
    answer = admin(node, "/console")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", answer.text)
    assert admin(node, "/").headers["Location"] == "/console"


@pytest.mark.parametrize("path", ["/v1/ws?device=d", "/v1/stream", "/v1/notifications"])
def test_a_page_of_this_machine_that_took_it_for_the_public_port_is_told_so(
    node: Node, path: str
) -> None:
    origin = {"Origin": "http://localhost:5173"}
    asked = {**origin, "Access-Control-Request-Headers": "authorization"}
    preflight = httpx.options(node.admin_url + path, headers=asked, timeout=10)
    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    for method in ("GET", "POST"):
        answer = httpx.request(method, node.admin_url + path, headers=origin, timeout=10)
        assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert "PUSHSVC_PORT" in problem(answer, 404, "not_found")["detail"]


@pytest.mark.parametrize("origin", ["https://app.example", "http://localhost.example", "null", "["])
def test_no_other_page_learns_that_an_admin_port_is_there(node: Node, origin: str) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        url = f"{node.admin_url}/v1/notifications"
        answer = httpx.request(method, url, headers={"Origin": origin}, timeout=10)
        problem(answer, 404, "not_found")
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_health_check_may_ask_for_the_head_alone(node: Node) -> None:
    for path in ("/livez", "/readyz"):
        answer = httpx.head(node.admin_url + path, timeout=10)
        assert answer.status_code == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert answer.content == b""


def test_the_admin_port_serves_nothing_else_and_no_other_methods(node: Node) -> None:
    for path in ("/v1/notifications", "/v1/ws", "/nothing"):
        problem(admin(node, path), 404, "not_found")
    problem(httpx.post(node.admin_url + "/metrics"), 405, "method_not_allowed")


def test_connections_that_say_nothing_take_neither_all_descriptors_nor_the_place_of_a_probe(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix) as node, ExitStack() as stack:
        before = psutil.Process(node.process.pid).num_fds()
        for _ in range(3 * MAX_CONNECTIONS):
            silent = socket.create_connection(("127.0.0.1", node.admin_port), timeout=10)
            stack.enter_context(silent)
        assert ready(node)["troubles"] == []
        assert psutil.Process(node.process.pid).num_fds() <= before + MAX_CONNECTIONS + 5
        assert silent.send(b"GET /livez HTTP/1.0\r\n\r\n")  # the newest are kept
        assert silent.recv(1000).startswith(b"HTTP/1.1 200")


def defined(*, labelled: bool = True) -> set[str]:
    """The metrics that the service defines, with or without those that have labels."""
    return {
        metric.name
        for metric in vars(metrics).values()
        if isinstance(metric, metrics.Metric) and (labelled or not metric.label_names)
    }


def test_metrics_has_every_metric_in_both_formats(node: Node) -> None:
    answer = admin(node, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert defined() <= names
    assert "process_resident_memory_bytes" in names
    answer = admin(node, "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_counters_count_what_happens(node: Node, user: str) -> None:
    names: dict[str, dict[str, str]] = {
        "pushsvc_handshakes_total": {"outcome": "accepted"},
        "pushsvc_published_total": {"outcome": "accepted"},
        "pushsvc_delivered_total": {},
        "pushsvc_acks_total": {},
        "pushsvc_closes_total": {"code": "1000"},
        "pushsvc_http_requests_total": {"route": "publish", "status": "202"},
        "pushsvc_http_seconds_count": {"route": "publish"},
        "pushsvc_publish_to_deliver_seconds_count": {},
        "pushsvc_publish_to_ack_seconds_count": {},
        "pushsvc_courier_entries_total": {"fate": "direct"},
    }
    before = {name: node.metric(name, **labels) for name, labels in names.items()}
    held = node.metric("pushsvc_connections")
    async with Phone(node, user) as phone:
        assert node.metric("pushsvc_connections") == held + 1
        sent = await publish(node, user, 1)
        await phone.notification()
        await phone.ack(sent)
        await phone.silent()
    await asyncio.to_thread(
        wait_until, lambda: node.metric("pushsvc_connections") == held, "the close"
    )
    moved = {name: node.metric(name, **names[name]) - before[name] for name in names}
    assert moved == dict.fromkeys(names, 1)
    assert node.metric("pushsvc_redis_seconds_count", lane="publish") > 0
    assert node.metric("pushsvc_ready_workers") == 1


def test_refusals_are_counted_by_their_code(node: Node) -> None:
    def counts() -> tuple[float, float]:
        return (
            node.metric("pushsvc_handshakes_total", outcome="invalid_token"),
            node.metric("pushsvc_http_requests_total", route="publish", status="401"),
        )

    handshakes, requests = counts()
    with Raw(node) as raw:
        raw.send(request(headers={"Authorization": None}))
        raw.answer()
    node.post("/v1/notifications", {}, headers={"Authorization": "Bearer x"})
    assert counts() == (handshakes + 1, requests + 1)


def test_what_clients_send_makes_no_new_labels(node: Node, user: str) -> None:
    def series() -> int:
        return len(admin(node, "/metrics").text.splitlines())

    with RawSocket(node, user) as raw:
        raw.send(b"\x88\x82\0\0\0\0\x0b\xb8")
        raw.closed()
    before = series()
    for code in range(3001, 3020):
        with RawSocket(node, user) as raw:
            raw.send(b"\x88\x82\0\0\0\0" + code.to_bytes(2))
            assert raw.closed() == code
        httpx.get(f"{node.url}/path/{code}")
        httpx.request(f"M{code}", f"{node.url}/v1/notifications")
    assert series() - before < 10


# --- readiness -----------------------------------------------------------------------------------


def test_a_node_without_redis_is_unready_after_its_lease_and_ready_again_after(
    tmp_path: Path,
) -> None:
    with EmbeddedServer() as server, Node(server.url, tmp_path, lease_seconds=1) as node:
        server.kill()
        wait_until(lambda: ready(node)["troubles"], "the node to be unready")
        assert any("Redis" in trouble for trouble in ready(node)["troubles"])
        assert admin(node, "/livez").status_code == 200
        assert node.metric("pushsvc_ready_workers") == 0
        server.start()
        wait_until(node.is_ready, "the node to be ready")


def test_a_node_that_starts_without_redis_waits_for_it(tmp_path: Path) -> None:
    with EmbeddedServer() as server:
        server.kill()
        node = Node(server.url, tmp_path, lease_seconds=1)
        try:
            node.start(ready=False)
            assert not node.is_ready()
            server.start()
            wait_until(node.is_ready, "the node to be ready")
            node.publish("u1", 1)
        finally:
            assert node.stop() == 0
        node.check_log()


async def test_a_node_whose_inbox_connection_is_killed_hears_again_within_two_leases(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedServer() as server,
        Redis.from_url(server.url) as redis,
        Node(server.url, tmp_path, lease_seconds=2) as node,
    ):
        async with Phone(node, "u1") as phone:
            for number in range(3):
                (inbox,) = (c for c in redis.client_list() if c["cmd"] == "xread")
                redis.client_kill_filter(_id=inbox["id"])
                sent = await publish(node, "u1", number)
                assert (await phone.notification())["id"] == sent
                await phone.acked(sent)

                def reading() -> bool:
                    return any(c["cmd"] == "xread" for c in redis.client_list())

                await asyncio.to_thread(wait_until, reading, "the inbox to be read", 4)
            assert ready(node)["troubles"] == []
            await phone.silent()


def strange(feed: str) -> list[tuple[str, Any]]:
    """What may come from another version, or from whoever else writes to an inbox."""
    return [
        ("n", ("trace", feed, [])),
        ("n", ("trace", feed, ["q"])),
        ("n", ("trace", feed, ["q", "no id"])),
        ("n", ("acked", feed, [])),
        ("n", ("acked", feed, ["phone", "no id", "all"])),
        ("n", ("acked", feed, ["phone", "1-1", "all", "and more"])),
        ("n", ("withdrawn", feed, ["1-1"])),
        ("n", ("withdrawn", feed, ["-", "recalled"])),
        ("n", ("presence", "", [])),
        ("n", ("presence", "no feed", ["x"])),
        ("n", ("invented later", feed, ["x"])),
        ("n", ("acked", feed, ["phone", "1-1", "all"], "and more")),
        ("n", {"kind": "acked"}),
        ("invented later", ["x"]),
        ("p", [[feed, 1]]),
    ]


async def test_what_a_node_cannot_read_in_its_inbox_does_not_end_it(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, user: str
) -> None:
    with (
        Redis.from_url(valkey.url) as redis,
        Node(valkey.url, tmp_path, prefix=prefix) as node,
    ):
        inbox = f"{prefix}:node:{ready(node)['node']}:inbox"
        async with Phone(node, user, "phone") as phone:
            notices = strange(f"u:{user}")
            for kind, value in notices:
                redis.xadd(inbox, {kind: msgspec.msgpack.encode(value)})
            redis.xadd(inbox, {"n": b"\xc1", "invented": "later"})
            before = node.metric("pushsvc_courier_entries_total", fate="direct")
            sent = await publish(node, user, 1)
            assert (await phone.notification())["id"] == sent
            assert node.metric("pushsvc_courier_entries_total", fate="direct") > before
        lines = [line for line in node.log_lines() if "cannot be read" in str(line["event"])]
        assert 0 < len(lines) < len(notices)


def test_a_deaf_node_turns_unready(tmp_path: Path) -> None:
    # Redis answers all but the inbox: only the canary notices.
    with (
        EmbeddedServer() as server,
        Redis.from_url(server.url) as redis,
        Node(server.url, tmp_path, lease_seconds=1) as node,
    ):
        redis.execute_command("ACL", "SETUSER", "default", "-xread")
        wait_until(lambda: ready(node)["troubles"], "the node to be unready")
        assert any("canary" in trouble for trouble in ready(node)["troubles"])
        redis.execute_command("ACL", "SETUSER", "default", "+@all")
        wait_until(node.is_ready, "the node to be ready")


# --- stopping ------------------------------------------------------------------------------------


async def test_sigterm_sends_everybody_elsewhere_and_exits_with_0(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    with nodes(2, valkey.url, tmp_path, drain_seconds=1) as (a, b):
        async with Phone(b, "u0") as elsewhere:
            phones = [Phone(a, f"u{number}") for number in range(20)]
            for phone in phones:
                await phone.__aenter__()
            stopping = asyncio.create_task(asyncio.to_thread(a.stop))
            gone: list[float] = []

            async def leaves(phone: Phone) -> None:
                message = await phone.receive()
                assert message["type"] == "reconnect"
                assert 0 <= message["retry_after"] <= 1
                assert await phone.closed() == 4001
                gone.append(time.monotonic())

            await asyncio.gather(*(leaves(phone) for phone in phones))
            # spread over the drain time, not all at once
            assert 0.5 < gone[-1] - gone[0] < 2
            assert await stopping == 0
            sent = await publish(b, "u0", 1)
            assert (await elsewhere.notification())["id"] == sent
        # and nobody counts the connections that are gone
        answer = await asyncio.to_thread(
            b.post, "/v1/notifications", {"to": {"user": "u1"}, "data": 1}
        )
        assert answer.json()["connections"] == 0


async def test_what_was_acked_before_the_drain_is_written(
    valkey: EmbeddedServer, tmp_path: Path
) -> None:
    with nodes(2, valkey.url, tmp_path, drain_seconds=0) as (a, b):
        async with Phone(a, "u1") as phone:
            sent = [await publish(a, "u1", number) for number in range(3)]
            await phone.notifications(3)
            await phone.ack(sent[1])
            await phone.silent()
            stopping = asyncio.create_task(asyncio.to_thread(a.stop))
            assert await phone.closed() == 4001
            assert await stopping == 0
        async with Phone(b, "u1") as phone:
            assert (await phone.notification())["id"] == sent[2]


def knock(node: Node) -> int:
    """The status that answers a handshake on a new connection."""
    with Raw(node) as raw:
        raw.send(request())
        return raw.answer().status_code


def test_a_draining_node_is_unready_and_takes_no_connections(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, drain_seconds=2) as node, ExitStack() as stack:
        for number in range(10):
            stack.enter_context(RawSocket(node, f"u{number}"))
        pooled = stack.enter_context(Raw(node))
        pooled.send(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert pooled.answer().status_code == 404
        node.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ready(node)["troubles"] == ["draining"], "the node to drain")
        with pytest.raises((ConnectionRefusedError, Ended)):
            knock(node)
        # on a connection that is there already, it is told
        pooled.send(request())
        problem(pooled.answer(), 503, "overloaded")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_that_held_everything_stops_at_once(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, number: signal.Signals
) -> None:
    node = Node(valkey.url, tmp_path, prefix=prefix, drain_seconds=0).start()
    with ExitStack() as stack:
        for _ in range(5):  # sockets that came and went
            with RawSocket(node, "u1") as raw:
                raw.pong()
        for _ in range(5):  # bodies that never came whole
            raw_request = stack.enter_context(Raw(node))
            raw_request.send(request("POST", "/v1/notifications", {"Content-Length": "10"}))
            raw_request.socket.close()
        stack.enter_context(Raw(node))  # a connection that never said anything
        pooled = stack.enter_context(Raw(node))  # and one that idles
        pooled.send(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        pooled.answer()
        started = time.monotonic()
        node.process.send_signal(number)
        assert node.process.wait(10) == 0
        assert time.monotonic() - started < 2
    node.check_log()


# --- several workers -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def team(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of two workers."""
    node = Node(
        valkey.url, tmp_path_factory.mktemp("team"), prefix="team", workers=2, lease_seconds=2
    )
    with node:
        yield node


def home(phone: Phone) -> str:
    """The node id of the worker that holds a phone."""
    connection: str = phone.welcome["connection"]
    return connection.partition(".")[0]


@asynccontextmanager
async def on_both(team: Node, user: str) -> AsyncIterator[list[Phone]]:
    """Phones of one user, some on each of two workers."""
    phones: list[Phone] = []
    async with AsyncExitStack() as stack:
        while len({home(phone) for phone in phones}) < 2:
            phone = Phone(team, user, f"d{len(phones)}")
            phones.append(await stack.enter_async_context(phone))
        yield phones


async def test_workers_share_the_port_and_each_others_listeners(team: Node, user: str) -> None:
    assert len(workers(team)) == 2
    async with on_both(team, user) as phones:
        sent = await publish(team, user, 1)
        for phone in phones:
            assert (await phone.notification())["id"] == sent
        await asyncio.to_thread(
            wait_until, lambda: ready(team)["connections"] == len(phones), "the reports"
        )
        report = ready(team)
        assert {worker["node"] for worker in report["workers"]} == {home(each) for each in phones}
        assert all(worker["connections"] > 0 for worker in report["workers"])
        assert team.metric("pushsvc_connections") == len(phones)


def test_metrics_of_the_workers_are_summed(team: Node) -> None:
    wait_until(lambda: ready(team)["connections"] == 0, "the reports of what was before")
    before = team.metric("pushsvc_published_total", outcome="accepted")
    for number in range(20):
        team.publish("u1", number)
    wait_until(
        lambda: team.metric("pushsvc_published_total", outcome="accepted") >= before + 20,
        "the reports",
    )
    assert team.metric("pushsvc_published_total", outcome="accepted") == before + 20
    assert team.metric("pushsvc_ready_workers") == 2
    text = admin(team, "/metrics").text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert defined(labelled=False) <= names


async def test_a_killed_worker_is_replaced_and_its_clients_lose_nothing(
    team: Node, user: str
) -> None:
    before = workers(team)
    async with on_both(team, user) as phones:
        sent = await publish(team, user, 1)
        for phone in phones:
            await phone.notification()
        os.kill(before[0], signal.SIGKILL)

        def replaced() -> bool:
            now = workers(team)
            return len(now) == 2 and before[0] not in now and team.is_ready()

        await asyncio.to_thread(wait_until, replaced, "a new worker")
        left = {worker["node"] for worker in ready(team)["workers"]}
        assert len(left & {home(phone) for phone in phones}) == 1
        for phone in phones:
            if home(phone) in left:
                await phone.silent()
            else:
                assert await phone.closed() == 1006
        held = sum(home(phone) in left for phone in phones)
        assert team.metric("pushsvc_connections") == held
        assert team.metric("pushsvc_ready_workers") == 2
    for phone in phones:
        async with phone:
            assert (await phone.notification())["id"] == sent


async def test_a_node_is_unready_from_the_moment_on_that_a_worker_is_dead(team: Node) -> None:
    wait_until(team.is_ready, "two workers")
    worker = workers(team)[0]
    os.kill(worker, signal.SIGKILL)
    while alive(worker):
        pass
    assert ready(team)["troubles"] == ["ended"]
    wait_until(team.is_ready, "a new worker")


def alive(pid: int) -> bool:
    """Whether a process lives; one that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_workers_do_not_outlive_a_killed_parent_and_drain_with_one_that_stops(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    def ended() -> bool:
        return not any(alive(pid) for pid in pids)

    node = Node(valkey.url, tmp_path, prefix=prefix, workers=2, drain_seconds=0.5).start()
    port = node.port
    pids = workers(node)
    assert len(pids) == 2
    node.kill()
    await asyncio.to_thread(wait_until, ended, "the workers to end")

    await asyncio.to_thread(node.start)
    assert node.port == port
    pids = [child.pid for child in psutil.Process(node.process.pid).children(recursive=True)]
    phones = [Phone(node, f"u{number}") for number in range(8)]
    for phone in phones:
        await phone.__aenter__()
    stopping = asyncio.create_task(asyncio.to_thread(node.stop))
    for phone in phones:
        assert (await phone.receive())["type"] == "reconnect"
        assert await phone.closed() == 4001
    assert await stopping == 0
    await asyncio.to_thread(wait_until, ended, "the workers to end")
    node.check_log()


def test_workers_whose_fork_server_is_killed_serve_on_are_replaced_and_drain(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, workers=2) as node:
        before = workers(node)
        server = psutil.Process(before[0]).parent()
        assert server is not None
        server.kill()
        wait_until(lambda: server.status() == psutil.STATUS_ZOMBIE, "the fork server to end")
        assert ready(node)["troubles"] == []
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(workers(node)) == 1, "another worker, of another fork server", 60)
        wait_until(node.is_ready, "all to be ready", 60)
        survivor = psutil.Process(before[1])
        assert survivor.status() != psutil.STATUS_ZOMBIE  # it serves on, as nobody's child
    # Who has inherited it may not have waited for it yet.
    assert not survivor.is_running() or survivor.status() == psutil.STATUS_ZOMBIE


def test_workers_that_drain_already_are_not_hurried_by_their_parents_later_signal(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    node = Node(valkey.url, tmp_path, prefix=prefix, workers=2, drain_delay_seconds=3).start()
    signalled = time.monotonic()
    for pid in workers(node):  # as a service manager signals all processes of a group
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: ready(node)["troubles"] == ["draining"] * 2, "the workers to drain")
    wait_until(lambda: time.monotonic() - signalled > 2 * SAME_SIGNAL, "it to be a second signal")
    assert node.stop() == 0
    assert time.monotonic() - signalled >= 3
    node.check_log()


COUNTED = (
    "pushsvc_published_total", "pushsvc_delivered_total", "pushsvc_handshakes_total",
    "pushsvc_closes_total", "pushsvc_http_seconds_count", "pushsvc_http_seconds_sum",
)  # fmt: skip


async def until_reported(team: Node, connections: int) -> None:
    """Wait until the workers have said that they hold so many, and with it what they counted."""
    await asyncio.to_thread(
        wait_until, lambda: ready(team)["connections"] == connections, "the reports"
    )


async def test_what_a_dead_worker_counted_is_counted_on(team: Node, user: str) -> None:
    async with on_both(team, user) as phones:
        await publish(team, user, 1)
        for phone in phones:
            await phone.notification()
        await until_reported(team, len(phones))
    await until_reported(team, 0)
    before = {name: team.metric(name) for name in COUNTED}
    for pid in workers(team):
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: ready(team)["troubles"], "it to be unready")
    await asyncio.to_thread(wait_until, team.is_ready, "new workers")
    assert {name: team.metric(name) for name in COUNTED} == pytest.approx(before)


async def test_what_a_worker_counts_as_it_ends_is_counted(team: Node, user: str) -> None:
    async with on_both(team, user) as phones:
        await until_reported(team, len(phones))
        before = team.metric("pushsvc_closes_total", code="4001")
        for pid in workers(team):
            os.kill(pid, signal.SIGTERM)
        for phone in phones:
            assert (await phone.receive())["type"] == "reconnect"
            assert await phone.closed() == 4001
    await asyncio.to_thread(wait_until, team.is_ready, "new workers")
    assert team.metric("pushsvc_closes_total", code="4001") == before + len(phones)
