"""The mistakes of a first hour in Python: what the error says, and the log of who only listens."""

import asyncio
import logging
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from pushsvc.client import (
    AsyncPublisher,
    Notification,
    Publisher,
    Refused,
    Timing,
    Unavailable,
    connect,
    listen,
)
from pushsvc.server.embedded import EmbeddedServer
from tests.support.certificates import Authority
from tests.support.nodes import Node, publisher_token, token
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.services import service

SOON = Timing(first=0.05, longest=0.1, open=1.0)


@pytest.fixture(scope="module")
def secure(valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    certificate, key = authority.issue(directory)
    with Node(
        valkey.url, directory, prefix=f"t{uuid.uuid4().hex[:10]}", tls=authority.context(),
        tls_cert_file=certificate, tls_key_file=key,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What a program with ``logging.basicConfig(level=INFO)`` is shown; never a token."""
    with caplog.at_level(logging.INFO, "pushsvc.client"):
        yield caplog
    assert "eyJ" not in caplog.text


async def told(url: str, log: pytest.LogCaptureFixture, auth: str | None = None) -> list[str]:
    """What each way to use the service says: the errors, and the log of one who only listens."""
    said = []
    with pytest.raises((Refused, Unavailable)) as error:
        await asyncio.to_thread(publish, url, auth or publisher_token())
    said.append(str(error.value))
    async with AsyncPublisher(
        url, token=auth or publisher_token(), deadline=1, timeout=0.4
    ) as publisher:
        with pytest.raises((Refused, Unavailable)) as error:
            await publisher.publish(user="u", data=1)
    said.append(str(error.value))
    with pytest.raises((Refused, Unavailable)) as error:
        async for _ in listen(url, token=auth or token("u"), timing=SOON, patience=0.5):
            pass
    said.append(str(error.value))
    log.clear()
    listening = asyncio.ensure_future(
        anext(listen(url, token=auth or token("u"), timing=SOON), None)
    )
    while not (seen := [each for each in log.records if each.levelno >= logging.WARNING]):
        await asyncio.sleep(0.01)
    listening.cancel()
    await asyncio.wait([listening])
    if not listening.cancelled():
        listening.exception()
    return [*said, seen[0].getMessage()]


def publish(url: str, auth: str) -> None:
    with Publisher(url, token=auth, deadline=1, timeout=0.4) as publisher:
        publisher.publish(user="u", data=1)


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    for make in (Publisher, AsyncPublisher, connect):
        with pytest.raises(ValueError, match="'localhost:8080' has no scheme: write 'http://local"):
            make("localhost:8080", token="t")


async def test_a_port_at_which_nobody_listens_is_named(log: pytest.LogCaptureFixture) -> None:
    port = free_port()
    for each in await told(f"http://127.0.0.1:{port}", log):
        assert f"http://127.0.0.1:{port} refuses connections; start a node there, or corr" in each


async def test_http_for_https_says_so(secure: Node, log: pytest.LogCaptureFixture) -> None:
    for each in await told(f"http://127.0.0.1:{secure.port}", log):
        assert f"if it speaks TLS, write https://127.0.0.1:{secure.port}" in each


async def test_https_for_http_says_so(node: Node, log: pytest.LogCaptureFixture) -> None:
    for each in await told(f"https://127.0.0.1:{node.port}", log):
        assert f"if it does not speak TLS, write http://127.0.0.1:{node.port}" in each


async def test_a_certificate_of_an_unknown_authority_says_what_to_give(
    secure: Node, log: pytest.LogCaptureFixture
) -> None:
    for each in await told(secure.url, log):
        assert f"the certificate of https://127.0.0.1:{secure.port} is not trusted" in each
        assert "create_default_context(cafile=" in each


async def test_the_admin_port_is_told_from_the_public_one(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    for each in await told(node.admin_url, log):
        assert "this is the admin port: clients and backends use the public one" in each


async def test_a_path_that_is_not_there_is_told_from_what_is_not_kept(
    node: Node, log: pytest.LogCaptureFixture
) -> None:
    for each in await told(f"{node.url}/v1", log):
        assert "check that the URL is the address of a node's public port" in each


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        (token("u", "push.publish", ttl=-100), "the token has expired: get a new one"),
        (token("u", "push.publish")[:-6] + "AAAAAA", "the signature does not match"),
        ("not-a-token", "send a compact JWT"),
        (token("u", "push.publish") + "\n", "the token has white space"),
        ("", "the token is empty"),
    ],
)
async def test_a_token_that_is_wrong_is_told_what_is(
    node: Node, log: pytest.LogCaptureFixture, auth: str, said: str
) -> None:
    for each in await _told_of_token(node.url, log, auth):
        assert said in each


async def _told_of_token(url: str, log: pytest.LogCaptureFixture, auth: str) -> list[str]:
    said = []
    with pytest.raises(Refused) as error:
        await asyncio.to_thread(publish, url, auth)
    said.append(str(error.value))
    with pytest.raises(Refused) as error:
        async for _ in listen(url, token=auth, timing=SOON):
            pass
    said.append(str(error.value))
    (record,) = [each for each in log.records if each.levelno == logging.ERROR]
    assert "has ended for good" in record.getMessage()
    return [*said, record.getMessage()]


def test_who_configures_no_logging_is_shown_what_keeps_a_listener_from_its_node() -> None:
    """Python shows the warnings of a logger without handlers, which a NullHandler would stop."""
    url = f"http://127.0.0.1:{free_port()}"
    program = f"""if True:
        import asyncio
        from pushsvc.client import listen

        async def main():
            async for notification in listen({url!r}, token="t"):
                pass

        asyncio.run(main())"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as listener:
        try:
            assert listener.stderr is not None
            line = listener.stderr.readline().decode()
        finally:
            listener.kill()
    assert line.startswith(f"no connection to {url}: again in ")
    assert "refuses connections; start a node there" in line


# --- the log -------------------------------------------------------------------------------------


def test_a_publish_that_is_sent_again_is_logged_with_its_reason_and_pause(
    log: pytest.LogCaptureFixture,
) -> None:
    accepted = {"id": "1-0", "durability": "memory", "connections": 0}
    problem = {
        "type": "urn:pushsvc:problem:overloaded",
        "status": 503,
        "detail": "the node is full",
    }
    answers = iter([(503, problem), (401, {"detail": "it expired"}), (202, accepted)])
    with (
        service(lambda _: next(answers)) as url,
        Publisher(url, token=lambda refused: f"secret-{refused}") as publisher,
    ):
        publisher.publish(user="secret-user", data="secret-data")
    first, second = log.records
    assert first.levelno == logging.WARNING
    assert first.getMessage().startswith("POST /v1/notifications: again in 0.")
    assert first.getMessage().endswith("s: 503: the node is full")
    assert second.levelno == logging.INFO
    assert "a new token in 0.0 s, as the last was refused: 401: it expired" in second.getMessage()
    assert "secret" not in log.text


def test_a_call_that_is_given_up_is_logged_without_its_user(log: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with (
        Publisher(f"http://127.0.0.1:{port}", token="t", deadline=0.3) as publisher,
        pytest.raises(Unavailable),
    ):
        publisher.devices("secret-user")
    last = log.records[-1]
    assert last.levelno == logging.WARNING
    assert last.getMessage().startswith("GET /v1/user/presence: given up: not done within 0.3 s")
    assert "secret" not in log.text


async def test_a_client_that_comes_back_is_logged_with_its_reason_and_pause(
    node: Node, user: str, log: pytest.LogCaptureFixture
) -> None:
    with Proxy(node.port) as network:
        url = f"http://127.0.0.1:{network.port}"
        with Publisher(node.url, token=publisher_token()) as publisher:
            await asyncio.to_thread(publisher.publish, user=user, data="secret")
            async with connect(url, token=token(user), timing=SOON) as client:
                await anext(each async for each in client if isinstance(each, Notification))
                network.reset()
                while client.state.status == "connected":
                    await asyncio.sleep(0.01)
                await anext(each async for each in client if isinstance(each, Notification))
    messages = [each.getMessage() for each in log.records]
    assert f"connected to {url}" in messages
    assert any(each.startswith(f"no connection to {url}: again in 0.") for each in messages)
    assert "secret" not in log.text
    assert user not in log.text
