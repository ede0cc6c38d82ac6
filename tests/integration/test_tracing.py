"""A trace that a publish request brings goes on to the delivery and the acknowledgement."""

import asyncio
import gc
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from tornado.netutil import bind_sockets
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.server.telemetry import FLUSH_SECONDS
from pushsvc.server.worker import worker
from pushsvc.settings import RedisURL, Settings
from tests.support.collector import Collector
from tests.support.nodes import SECRET, Node, nodes, token
from tests.support.phone import Phone
from tests.support.ports import free_port

PRODUCER, CONSUMER = 4, 5
CALLER = "b7ad6b7169203331"


def context(flags: str = "01") -> tuple[str, str]:
    """A trace that no other test has, and the header that brings it."""
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{CALLER}-{flags}"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def pair(
    valkey: EmbeddedServer, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Node]]:
    """Two nodes that send their spans at once, and repeat soon what is not acknowledged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        directory = tmp_path_factory.mktemp("nodes")
        with nodes(2, valkey.url, directory, tracing="otlp", ack_timeout_seconds=1) as started:
            yield started


def publish(node: Node, traceparent: str, **body: object) -> str:
    answer = node.post("/v1/notifications", body, headers={"traceparent": traceparent})
    assert answer.status_code == 202, answer.text
    return str(answer.json().get("id", ""))


async def test_publish_delivery_and_ack_are_spans_of_one_trace_over_two_nodes(
    pair: list[Node], collector: Collector, user: str
) -> None:
    here, there = pair
    trace, traceparent = context()
    async with Phone(there, user) as phone:
        sent = publish(here, traceparent, to={"user": user}, event="e", data={"n": 1})
        note = await phone.notification()
        await phone.acked(sent)
    spans = await asyncio.to_thread(collector.spans, trace, "publish", "deliver", "ack")
    published, delivered, acked = spans
    assert [span.parent for span in spans] == [CALLER, published.id, delivered.id]
    assert [span.kind for span in spans] == [PRODUCER, CONSUMER, CONSUMER]
    assert not any(span.error for span in spans)
    assert note["traceparent"] == f"00-{trace}-{published.id}-01"
    assert list(note) == ["type", "id", "time", "traceparent", "event", "data"]

    def node_of(node: Node) -> object:
        return httpx.get(f"{node.admin_url}/readyz").json()["node"]

    common = {"messaging.system": "pushsvc", "messaging.message.id": sent}
    assert published.attributes == common | {
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "pushsvc.destination.kind": "user",
        "pushsvc.node": node_of(here),
    }
    of_connection = {
        "pushsvc.node": node_of(there),
        "pushsvc.connection": phone.welcome["connection"],
    }
    assert delivered.attributes == common | of_connection | {
        "messaging.operation.name": "deliver",
        "messaging.operation.type": "deliver",
        "pushsvc.destination.kind": "user",
        "pushsvc.attempt": 1,
    }
    assert acked.attributes == common | of_connection | {
        "messaging.operation.name": "ack",
        "messaging.operation.type": "settle",
    }
    assert published.resource["service.name"] == "pushsvc"
    assert published.resource["deployment.environment.name"] == "test"
    assert all(user not in str(span) for span in spans), "who it is for is in no span"


async def test_what_waited_in_the_mailbox_is_a_delivery_too_and_one_ack_ends_all(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    for number in range(3):
        sent = publish(pair[0], traceparent, to={"user": user}, data=number)
    async with Phone(pair[1], user) as phone:
        await phone.notifications(3)
        await phone.acked(sent)
    names = ["publish"] * 3 + ["deliver"] * 3 + ["ack"] * 3
    spans = await asyncio.to_thread(collector.spans, trace, *names)
    for earlier, later in ((0, 3), (3, 6)):
        parents = {span.parent for span in spans[later : later + 3]}
        assert parents == {span.id for span in spans[earlier : earlier + 3]}


async def test_an_ack_by_another_way_ends_the_span_of_the_connection(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    async with Phone(pair[1], user) as phone:
        sent = publish(pair[0], traceparent, to={"user": user}, data=1)
        await phone.notification()
        answer = pair[0].post(
            "/v1/ack",
            {"id": sent, "device": "phone"},
            headers={"Authorization": f"Bearer {token(user)}"},
        )
        assert answer.status_code == 200, answer.text
        await asyncio.to_thread(collector.spans, trace, "publish", "deliver", "ack")


async def test_a_redelivery_is_a_span_that_names_the_attempt(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    async with Phone(pair[1], user) as phone:
        sent = publish(pair[0], traceparent, to={"user": user}, data=1)
        await phone.notification()
        again = await phone.notification()
        assert again["attempt"] == 2
        await phone.acked(sent)
    names = ("publish", "deliver", "deliver", "ack")
    spans = await asyncio.to_thread(collector.spans, trace, *names)
    published, first, second, acked = spans
    assert (first.attributes["pushsvc.attempt"], second.attributes["pushsvc.attempt"]) == (1, 2)
    assert first.parent == second.parent == published.id
    assert acked.parent == second.id


async def test_what_goes_to_many_is_one_span_a_node_with_their_number(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    ephemeral, its_traceparent = context()
    async with AsyncExitStack() as stack:
        for number in range(50):
            auth = token(f"{user}.{number}", topics={"subscribe": [user]})
            phone = await stack.enter_async_context(Phone(pair[1], auth=auth))
            await phone.send(type="subscribe", topic=user, ref=1)
            assert (await phone.receive())["type"] == "reply"
        publish(pair[0], traceparent, to={"topic": user}, data=1)
        assert (await phone.notification())["data"] == 1
        publish(pair[0], its_traceparent, to={"topic": user}, data=2, ephemeral=True)
        assert (await phone.notification())["data"] == 2
    for each in (trace, ephemeral):
        published, spread = await asyncio.to_thread(collector.spans, each, "publish", "deliver")
        assert spread.parent == published.id
        assert spread.attributes["pushsvc.connections"] == 50
        assert spread.attributes["pushsvc.destination.kind"] == "topic"


async def test_a_broadcast_is_one_span_and_its_acks_are_none(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    async with Phone(pair[1], user) as phone:
        sent = publish(pair[0], traceparent, to={"broadcast": True}, data=1)
        await phone.notification()
        await phone.send(type="ack", id=sent, broadcast=True, ref=1)
        assert (await phone.receive())["type"] == "reply"
    _, spread = await asyncio.to_thread(collector.spans, trace, "publish", "deliver")
    assert spread.attributes["pushsvc.destination.kind"] == "broadcast"


async def test_a_batch_is_one_span_however_many_it_publishes(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    notes = [{"to": {"users": [f"{user}.{n}", f"{user}.x{n}"]}, "data": n} for n in range(5)]
    answer = pair[0].post(
        "/v1/notifications/batch",
        {"notifications": [*notes, {"to": {"user": "no\nname"}, "data": 0}]},
        headers={"traceparent": traceparent},
    )
    assert answer.status_code == 202
    (published,) = await asyncio.to_thread(collector.spans, trace, "publish")
    assert published.attributes["messaging.batch.message_count"] == 10


@pytest.mark.parametrize(
    ("mode", "status"),
    [("json", 413), ("x-ndjson", 202), ("cloudevents+json", 413), ("cloudevents-batch+json", 413)],
)
async def test_what_is_refused_is_a_span_with_an_error(
    pair: list[Node], collector: Collector, user: str, mode: str, status: int
) -> None:
    trace, traceparent = context()
    data = "x" * 100_000
    body: object = {"to": {"user": user}, "data": data}
    if mode.startswith("cloudevents"):
        body = {
            "specversion": "1.0", "id": "1", "source": f"/{user}", "type": "t",
            "pushuser": user, "data": data,
        }  # fmt: skip
    if "batch" in mode:
        body = [body]
    path = "/v1/notifications/batch" if mode == "x-ndjson" else "/v1/notifications"
    headers = {"traceparent": traceparent, "Content-Type": f"application/{mode}"}
    answer = pair[0].post(path, body, headers=headers)
    assert answer.status_code == status, answer.text
    (published,) = await asyncio.to_thread(collector.spans, trace, "publish")
    assert published.error


async def test_a_key_that_was_used_for_another_body_ends_the_span_too(
    pair: list[Node], collector: Collector, user: str
) -> None:
    trace, traceparent = context()
    headers = {"traceparent": traceparent, "Idempotency-Key": user}
    note = {"to": {"user": user}, "data": 1}
    for body, status in ((note, 202), (note | {"data": 2}, 422)):
        answer = pair[0].post("/v1/notifications", body, headers=headers)
        assert answer.status_code == status, answer.text
    spans = await asyncio.to_thread(collector.spans, trace, "publish", "publish")
    assert sorted(span.error for span in spans) == [False, True]


@pytest.mark.parametrize("binary", [True, False])
async def test_a_cloudevent_brings_its_own_trace(
    pair: list[Node], collector: Collector, user: str, *, binary: bool
) -> None:
    trace, traceparent = context()
    event = {
        "specversion": "1.0", "id": "1", "source": f"/{user}", "type": "t",
        "pushuser": user, "traceparent": traceparent,
    }  # fmt: skip
    hop = {"traceparent": context()[1]}
    if binary:
        headers = {f"ce-{name}": value for name, value in event.items()} | hop
        answer = pair[0].post("/v1/notifications", 1, headers=headers)
    else:
        headers = {"Content-Type": "application/cloudevents+json"} | hop
        answer = pair[0].post("/v1/notifications", event | {"data": 1}, headers=headers)
    assert answer.status_code == 202, answer.text
    (published,) = await asyncio.to_thread(collector.spans, trace, "publish")
    assert published.parent == CALLER


async def test_no_span_is_made_of_what_is_not_sampled_malformed_or_without_a_trace(
    pair: list[Node], collector: Collector, user: str
) -> None:
    unsampled, its_traceparent = context("00")
    trace, traceparent = context()
    before = len(collector.got)
    async with Phone(pair[1], user) as phone:
        publish(pair[0], its_traceparent, to={"user": user}, data=1)
        publish(pair[0], traceparent.upper(), to={"user": user}, data=2)
        pair[0].publish(user, {"traceparent": traceparent})
        publish(pair[0], traceparent, to={"user": user}, data=4)
        notes = await phone.notifications(4, ack=True)
    carried = [note.get("traceparent", "") for note in notes]
    assert carried[:3] == [its_traceparent, "", ""]
    assert carried[3].startswith(f"00-{trace}-")
    await asyncio.to_thread(collector.spans, trace, "publish", "deliver", "ack")
    assert not collector.of(unsampled)
    assert len(collector.got) == before + 3


async def test_where_tracing_is_off_the_publishers_context_is_passed_on_and_none_invented(
    node: Node, user: str
) -> None:
    _, traceparent = context()
    async with Phone(node, user) as phone:
        publish(node, traceparent, to={"user": user}, data=1)
        node.publish(user, 2)
        traced, plain = await phone.notifications(2, ack=True)
    assert traced["traceparent"] == traceparent
    assert "traceparent" not in plain


def test_neither_the_tracer_nor_the_exporter_is_imported_where_tracing_is_off() -> None:
    code = (
        "import sys, pushsvc.cli, pushsvc.server.process, pushsvc.server.supervisor;"
        " print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    # The Redis client looks for the metrics of OpenTelemetry by itself.
    ours = (
        "pushsvc.server.telemetry",
        "opentelemetry.sdk.trace",
        "opentelemetry.exporter",
        "google",
    )
    assert not [name for name in loaded if name.startswith(ours)]


@pytest.mark.parametrize("variable", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SPAN_LINK_COUNT_LIMIT"])
def test_a_variable_that_the_sdk_refuses_ends_the_start_with_one_line(variable: str) -> None:
    environ = {"PUSHSVC_TRACING": "otlp", "PUSHSVC_JWT_SECRET": SECRET, variable: "-1"}
    ended = subprocess.run(
        [sys.executable, "-m", "pushsvc", "serve", "--port=0", "--admin-port=0"],
        capture_output=True,
        text=True,
        env=os.environ | environ,
        check=False,
    )
    assert ended.returncode == 2
    assert "PUSHSVC_TRACING: an OTEL_ variable cannot be used: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_the_extra_the_start_ends_with_one_line_that_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from pushsvc.cli import main; main(['serve', '--port=0', '--admin-port=0'])"
    )
    environ = os.environ | {"PUSHSVC_TRACING": "otlp", "PUSHSVC_JWT_SECRET": SECRET}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if "PUSHSVC_TRACING" in line]
    assert "pip install 'pushsvc[otel]'" in line
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refusing"])
async def test_a_collector_that_is_down_holds_up_neither_the_node_nor_its_end(
    valkey: EmbeddedServer,
    tmp_path: Path,
    prefix: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    silent: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        if not silent:
            deaf.close()
        port = deaf.getsockname()[1] if silent else free_port()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with Node(valkey.url, tmp_path, prefix=prefix, tracing="otlp") as node:
            async with Phone(node, user) as phone:
                for number in range(20):
                    _, traceparent = context()
                    sent = publish(node, traceparent, to={"user": user}, data=number)
                    await phone.notification()
                    await phone.acked(sent)
            started = time.monotonic()
            assert await asyncio.to_thread(node.stop) == 0
            took = time.monotonic() - started
            # Draining, and what a busy machine needs for the rest.
            assert took < FLUSH_SECONDS + 0.5 + 3
            node.check_log()
            said = [x for x in node.log_lines() if x.get("logger", "").endswith("telemetry")]
            # The exporter, its queue, and this project's own word at the end; each once a minute.
            assert 1 <= len(said) <= 3, said


async def test_an_idle_connection_has_nothing_of_a_trace(
    valkey: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    settings = Settings(
        redis_url=RedisURL(valkey.url),
        redis_prefix=prefix,
        jwt_secret=SecretStr(SECRET),
        tracing="otlp",
    )
    sockets = bind_sockets(0, "127.0.0.1")
    async with worker(settings, sockets) as running, AsyncExitStack() as stack:
        await wait_for_lease(running.troubles)
        before = telemetry_objects()
        for number in range(500):
            await stack.enter_async_context(
                connect(
                    f"ws://127.0.0.1:{running.port}/v1/ws",
                    subprotocols=[Subprotocol("pushsvc.v1.json")],
                    additional_headers={"Authorization": f"Bearer {token(f'idle-{number}')}"},
                )
            )
        assert running.connections() == 500
        assert telemetry_objects() == before


async def wait_for_lease(troubles: Callable[[], list[str]]) -> None:
    async with asyncio.timeout(10):
        while troubles():
            await asyncio.sleep(0.01)


def telemetry_objects() -> int:
    """How many objects there are that only tracing makes."""
    gc.collect()
    ours = ("opentelemetry", "pushsvc.server.telemetry", "pushsvc.node.spans")
    return sum(str(type(each).__module__).startswith(ours) for each in gc.get_objects())
