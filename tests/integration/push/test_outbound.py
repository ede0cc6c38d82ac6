"""The HTTP that goes out for pushes: only where it may go, and bounded."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pushsvc.push import outbound
from pushsvc.push.hosts import Endpoint, Hosts
from pushsvc.push.outbound import MAX_KEPT, MAX_READ, Outbound, Refused, Unreachable
from tests.support.certificates import Authority
from tests.support.forward_proxy import ForwardProxy
from tests.support.push_service import HANG, RESET, Answer, PushService, Subscription

LOCAL = ["localhost", "push.test", "other.test"]


class AnyPort(Hosts):
    """The list of a node that serves people, but for the port."""

    def endpoint(self, url: str) -> Endpoint:
        self.allow_private = True
        try:
            return super().endpoint(url)
        finally:
            self.allow_private = False


@asynccontextmanager
async def going_out(service: PushService, hosts: Hosts | None = None) -> AsyncIterator[Outbound]:
    out = Outbound(hosts or Hosts(LOCAL, allow_private=True), ca_file=service.ca_file)
    try:
        yield out
    finally:
        await out.aclose()


@pytest_asyncio.fixture
async def out(service: PushService) -> AsyncIterator[Outbound]:
    async with going_out(service) as out:
        yield out


async def post(out: Outbound, where: Subscription | str, **settings: Any) -> outbound.Answer:
    """What the service answers to a request that is wrong, unless it was told to answer another."""
    url = where if isinstance(where, str) else where.endpoint
    return await out.post(url, {"TTL": "0"}, b"body", **settings)


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have names stand for these addresses, one list after the other; what is looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *_: Any) -> Any:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [entry for each in found for entry in real(each, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr("pushsvc.push.outbound.getaddrinfo", lookup)
    return asked


# --- where it may go -----------------------------------------------------------------------------


@pytest.mark.parametrize("addresses", [
    ["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"], ["::1"], ["fe80::1"], ["::ffff:127.0.0.1"],
    ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["8.8.8.8", "127.0.0.1"], ["100.64.0.1"], ["224.0.0.1"],
])  # fmt: skip
async def test_a_name_for_an_address_that_is_not_public_is_refused(
    service: PushService, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    names(monkeypatch, addresses)
    subscription, connections = service.subscribe(), service.connections
    async with going_out(service, AnyPort(LOCAL)) as out:
        with pytest.raises(Refused, match="localhost has an address that is not public"):
            await post(out, subscription)
    assert service.connections == connections


async def test_a_connection_goes_to_the_address_that_was_checked(
    service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    checked: list[str] = []

    def is_public(address: str) -> bool:
        checked.append(address)
        return address == "127.0.0.1"

    monkeypatch.setattr(outbound, "is_public", is_public)
    monkeypatch.setattr(outbound, "LOOKED_UP_SECONDS", 0)
    subscription = service.subscribe()
    service.answer(Answer(201), Answer(202), to=subscription)
    async with going_out(service, AnyPort(LOCAL)) as out:
        assert (await post(out, subscription)).status == 201
        assert (asked, checked) == (["localhost"], ["127.0.0.1"])
        # On the connection that there is, whatever the name stands for by now.
        assert (await post(out, subscription)).status == 202
        assert asked == ["localhost"]
        service.answer(RESET, to=subscription)
        with pytest.raises(Unreachable):
            await post(out, subscription)
        with pytest.raises(Refused):
            await post(out, subscription)
    assert checked == ["127.0.0.1", "127.0.0.2"]


async def test_connections_are_for_one_host_each(
    service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, ["127.0.0.1"])
    subscription, connections = service.subscribe(), service.connections
    async with going_out(service) as out:
        await post(out, subscription)
        await post(out, subscription)
        assert service.connections == connections + 1
        # Its certificate is for another name, which a connection in common would not show.
        with pytest.raises(Unreachable, match="no good certificate: Hostname mismatch"):
            await post(out, subscription.endpoint.replace("localhost", "push.test"))


@pytest.mark.parametrize("url", [
    "http://localhost/x", "https://localhost:8443/x", "https://evil.example/x", "https://127.0.0.1/x",
    "https://user@localhost/x",
])  # fmt: skip
async def test_an_address_that_is_not_allowed_is_not_looked_up(
    service: PushService, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    asked = names(monkeypatch, ["127.0.0.1"])
    async with going_out(service, Hosts(LOCAL)) as out:
        with pytest.raises(Refused):
            await post(out, url)
    assert asked == []


async def test_what_settings_name_may_be_anywhere(service: PushService) -> None:
    subscription = service.subscribe()
    async with going_out(service, Hosts()) as out:
        assert (await post(out, subscription, checked=False)).status == 403
        by_address = subscription.endpoint.replace("localhost", "127.0.0.1")
        assert (await post(out, by_address, checked=False)).status == 403


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_like_others(
    out: Outbound, service: PushService, status: int
) -> None:
    subscription, other = service.subscribe(), service.subscribe()
    service.answer(Answer(status, {"Location": other.endpoint}), to=subscription)
    answer = await post(out, subscription)
    assert (answer.status, answer.headers["location"]) == (status, other.endpoint)
    assert service.attempts[other.endpoint] == 0


async def test_a_host_that_nobody_listed_gets_no_connection_that_is_kept(
    service: PushService,
) -> None:
    subscription, connections = service.subscribe(), service.connections
    async with going_out(service, Hosts(["*"], allow_private=True)) as out:
        for _ in range(3):
            await post(out, subscription)
    assert service.connections == connections + 3


async def test_a_server_of_another_authority_is_not_spoken_to(
    service: PushService, tmp_path: Path
) -> None:
    subscription = service.subscribe()
    out = Outbound(Hosts(LOCAL, allow_private=True), ca_file=Authority(tmp_path).file)
    try:
        with pytest.raises(Unreachable, match="no good certificate"):
            await post(out, subscription)
    finally:
        await out.aclose()
    assert service.attempts[subscription.endpoint] == 0


def test_a_file_of_authorities_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ValueError, match="is no PEM file of certificates"):
        Outbound(Hosts(), ca_file=tmp_path / "ca.pem")


# --- through a proxy -----------------------------------------------------------------------------


async def test_a_proxy_is_used_and_looks_the_name_up(
    service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = service.subscribe()
    with ForwardProxy("me:p@ss") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url("me:p%40ss"))
        asked = names(monkeypatch, ["10.0.0.1"])
        async with going_out(service, AnyPort(LOCAL)) as out:
            for _ in range(2):
                assert (await post(out, subscription)).status == 403
            with pytest.raises(Refused, match="not among the push services"):
                await Outbound(Hosts(LOCAL)).post("https://evil.example/", {}, b"")
    assert asked == []
    assert proxy.requests == [f"CONNECT localhost:{service.port} HTTP/1.1"]


async def test_a_proxy_may_be_passed_by(
    service: PushService, monkeypatch: pytest.MonkeyPatch, out: Outbound
) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert (await post(out, service.subscribe())).status == 403
    assert proxy.requests == []


async def test_a_proxy_that_refuses_is_told_of(
    service: PushService, monkeypatch: pytest.MonkeyPatch, out: Outbound
) -> None:
    with ForwardProxy("me:secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        with pytest.raises(Unreachable, match="the proxy answered with status 407"):
            await post(out, service.subscribe())


async def test_a_proxy_of_another_kind_is_told_of(
    service: PushService, monkeypatch: pytest.MonkeyPatch, out: Outbound
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(Unreachable, match="HTTPS_PROXY is not http://"):
        await post(out, service.subscribe())


# --- what is answered ----------------------------------------------------------------------------


async def test_an_answer_is_what_was_answered(out: Outbound, service: PushService) -> None:
    subscription = service.subscribe()
    packed = gzip.compress(b"x" * 1000)
    headers = {"Retry-After": "3", "X-Twice": "a", "Content-Encoding": "gzip", "Set-Cookie": "a=b"}
    service.answer(Answer(429, headers, packed), to=subscription)
    answer = await post(out, subscription)
    assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "3", packed)
    await out.post(subscription.endpoint, {}, b"")


async def test_nothing_is_sent_that_was_not_asked_for(out: Outbound) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\nbody"))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        heads.append(await reader.readuntil(b"\r\n\r\nbody"))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            await post(out, f"http://localhost:{port}/a%2Fb?c=%20+")
    first, second = heads
    assert first == second
    line, *fields = first.decode().removesuffix("\r\n\r\nbody").split("\r\n")
    assert line == "POST /a%2Fb?c=%20+ HTTP/1.1"
    assert {each.partition(":")[0].lower() for each in fields} == {
        "host", "ttl", "user-agent", "content-length", "content-type",
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, MAX_KEPT, MAX_KEPT + 1, MAX_READ - 4096])
async def test_a_body_is_kept_in_part_and_read_to_its_end(
    out: Outbound, service: PushService, size: int
) -> None:
    subscription, connections = service.subscribe(), service.connections
    body = bytes(range(256)) * (size // 256 + 1)
    for _ in range(3):
        service.answer(Answer(500, body=body[:size]), to=subscription)
        assert (await post(out, subscription)).body == body[: min(size, MAX_KEPT)]
    assert service.connections == connections + 1


def slow(service: PushService, answer: Answer) -> Subscription:
    subscription = service.subscribe()
    service.answer(answer, to=subscription)
    return subscription


@pytest.mark.parametrize("how", ["drip", "flood"])
async def test_a_body_without_end_is_cut_off_and_the_status_counts(
    out: Outbound, service: PushService, how: Any
) -> None:
    subscription, connections = slow(service, Answer(410, how=how)), service.connections
    began = time.monotonic()
    answer = await post(out, subscription)
    assert time.monotonic() - began < 4
    assert answer.status == 410
    assert len(answer.body) <= MAX_KEPT
    service.answer(Answer(201), to=subscription)
    assert (await post(out, subscription)).status == 201
    assert service.connections == connections + 2


@pytest.mark.parametrize("how", ["hang", "drip head"])
async def test_an_answer_that_does_not_come_is_given_up(
    out: Outbound, service: PushService, how: Any
) -> None:
    subscription = slow(service, Answer(how=how))
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
        await post(out, subscription, seconds=0.5)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(how="interim"), f"more than {MAX_READ} bytes"),
        (Answer(how="nonsense"), "the answer is no HTTP"),
        (Answer(headers={"X": "x" * 20_000}), "the answer is no HTTP"),
        (Answer(headers={f"X-{number}": "x" for number in range(200)}), "the answer is no HTTP"),
        (Answer(headers={"X": "x\0y"}), "the answer is no HTTP"),
        (RESET, "."),
    ],
)
async def test_what_is_no_answer_is_given_up_at_once(
    out: Outbound, service: PushService, answer: Answer, why: str
) -> None:
    subscription = slow(service, answer)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=why) as caught:
        await post(out, subscription)
    assert time.monotonic() - began < 4
    assert str(caught.value).isprintable()


async def test_a_server_that_is_not_there_is_told_of(out: Outbound) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="no connection: "):
            await post(out, f"https://localhost:{taken.getsockname()[1]}/")


async def test_a_name_that_is_none_is_told_of(
    service: PushService, monkeypatch: pytest.MonkeyPatch, out: Outbound
) -> None:
    def lookup(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("pushsvc.push.outbound.getaddrinfo", lookup)
    with pytest.raises(Unreachable, match="the name of its host cannot be looked up"):
        await post(out, service.subscribe())


async def test_name_servers_that_do_not_answer_hold_no_more_than_some_threads(
    monkeypatch: pytest.MonkeyPatch, held: Callable[[], None], out: Outbound
) -> None:
    def lookup(*_: Any) -> Any:
        held()
        raise socket.gaierror(socket.EAI_AGAIN, "no name server")

    monkeypatch.setattr("pushsvc.push.outbound.getaddrinfo", lookup)
    begun = time.monotonic()
    results = await asyncio.gather(
        *(post(out, f"https://{number}.test/", seconds=0.5) for number in range(40)),
        return_exceptions=True,
    )
    assert time.monotonic() - begun < 4
    assert {type(each) for each in results} == {Unreachable}
    told = [str(each) for each in results]
    assert told.count("no answer within 0.5 s") == outbound.LOOKUPS


@pytest.fixture
def held() -> Any:
    """Holds a thread until the end of the test."""
    end = threading.Event()
    yield end.wait
    end.set()


async def test_what_is_under_way_at_the_end_ends(service: PushService) -> None:
    subscription = slow(service, HANG)
    async with going_out(service) as out:
        under_way = asyncio.create_task(post(out, subscription))
        while not service.attempts[subscription.endpoint]:
            await asyncio.sleep(0)
    with pytest.raises(Unreachable):
        await under_way
    await out.aclose()
