"""The public port with TLS: everything that is served there, and what clients do to it."""

import asyncio
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest

from pushsvc.client import Notification, Publisher, connect
from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.certificates import Authority
from tests.support.events import Stream
from tests.support.nodes import Node, publisher_token, token, wait_until
from tests.support.phone import Phone
from tests.support.raw import CLOSE, PATIENCE, TEXT, Ended, Raw, RawSocket, frame, request
from tests.support.topics import member

LATEST = 3.0
"""Seconds after which a request is late, on the node of these tests."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(
    valkey: EmbeddedServer, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = authority.issue(directory)
    with Node(
        valkey.url, directory, prefix="tls", tls=authority.context(),
        tls_cert_file=certificate, tls_key_file=key,
        max_message_bytes=1 << 20, max_body_bytes=1 << 21, rate_bytes_per_second=1 << 24,
        request_timeout_seconds=LATEST, rate_burst=1000,
    ) as running:  # fmt: skip
        yield running


class Peer:
    """TLS by hand: what is encrypted goes out in whatever pieces a test wants."""

    def __init__(self, node: Node) -> None:
        assert node.tls is not None
        self.socket = socket.create_connection(("127.0.0.1", node.port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = node.tls.wrap_bio(self._incoming, self.outgoing, server_hostname="127.0.0.1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def shake(self, piece: int = 1 << 16) -> None:
        while True:
            with suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                break
            self.flush(piece)
            self._incoming.write(self.socket.recv(1 << 16))
        self.flush(piece)

    def flush(self, piece: int = 1 << 16) -> None:
        data = self.outgoing.read()
        for begin in range(0, len(data), piece):
            self.socket.sendall(data[begin : begin + piece])

    def read(self) -> bytes:
        while True:
            with suppress(ssl.SSLWantReadError):
                return self.tls.read(1 << 16)
            self._incoming.write(self.socket.recv(1 << 16))


# --- what is served -----------------------------------------------------------------------------


async def test_a_phone_receives_and_acknowledges(node: Node, user: str) -> None:
    before = node.metric("pushsvc_acks_total")
    async with Phone(node, user) as phone:
        sent = [node.publish(user, {"n": n}) for n in range(3)]
        assert [note["id"] for note in await phone.notifications(3, ack=True)] == sent
        wait_until(lambda: node.metric("pushsvc_acks_total") == before + 3, "the acks")


async def test_an_event_stream_receives(node: Node, user: str) -> None:
    async with Stream(node, user) as stream:
        sent = node.publish(user, "hello")
        assert (await stream.message())["id"] == sent


def test_a_poll_is_answered(node: Node, user: str) -> None:
    headers = {"Authorization": f"Bearer {member(user)}"}
    with httpx.Client(verify=node.tls or True, headers=headers) as client:
        first = client.get(f"{node.url}/v1/poll?wait=0").json()
        sent = node.publish(user, 1)
        after = first["position"]
        answer = client.get(f"{node.url}/v1/poll", params={"wait": "5", "after": after}).json()
    assert [message["id"] for message in answer["messages"]] == [sent]


def test_a_ticket_opens_a_socket_and_the_javascript_client_is_served(node: Node, user: str) -> None:
    ticket = node.post("/v1/tickets", headers={"Authorization": f"Bearer {token(user)}"}).json()
    target = f"/v1/ws?ticket={ticket['ticket']}"
    with Raw(node) as raw:
        raw.send(request(target=target, headers={"Authorization": None}))
        assert raw.answer().status_code == 101
    script = httpx.get(node.url + "/client.js", verify=node.tls or True)
    assert (script.status_code, script.http_version) == (200, "HTTP/1.1")


async def test_the_python_client_takes_a_context(node: Node, user: str) -> None:
    def publish() -> str | None:
        with Publisher(node.url, token=publisher_token(), ssl=node.tls) as publisher:
            return publisher.publish(user=user, data="hi").id

    async with connect(node.url, token=token(user), ssl=node.tls) as client:
        sent = await asyncio.to_thread(publish)
        async with asyncio.timeout(PATIENCE):
            async for message in client:
                assert isinstance(message, Notification)
                assert message.id == sent
                break


@pytest.mark.parametrize("known", [True, False])
def test_the_command_line_trusts_the_authority_that_openssl_is_told_of(
    node: Node, authority: Authority, user: str, *, known: bool
) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PUSHSVC_")}
    environ |= {"PUBLISHER_TOKEN": publisher_token(), "PUSH_URL": node.url}
    if known:
        environ["SSL_CERT_FILE"] = str(authority.file)
    done = subprocess.run(
        [sys.executable, "-m", "pushsvc", "publish", "--user", user, "1"],
        env=environ, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is known, done.stderr
    assert "Traceback" not in done.stderr


def test_listening_takes_the_authorities_of_the_system(
    node: Node, authority: Authority, user: str
) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PUSHSVC_")}
    environ |= {"USER_TOKEN": token(user), "PUSH_URL": node.url}
    sent = node.publish(user, "hi")
    done = subprocess.run(
        [sys.executable, "-m", "pushsvc", "listen", "--count", "1"],
        env=environ | {"SSL_CERT_FILE": str(authority.file)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert sent in done.stdout


def test_only_current_versions_and_http_1_are_spoken(node: Node, authority: Authority) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = authority.context()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", node.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as peer,
        ):
            assert peer.version() == version.name.replace("_", ".")
            assert peer.selected_alpn_protocol() == "http/1.1"


def test_a_page_of_the_node_itself_may_connect_and_another_is_told_why_not(node: Node) -> None:
    own = f"127.0.0.1:{node.port}"
    for origin, status in ((f"https://{own}", 101), ("https://evil.example", 403)):
        with Raw(node) as raw:
            raw.send(request(headers={"Host": own, "Origin": origin}))
            answer = raw.answer()
            if status == 101:
                assert answer.status_code == status, answer.text
            else:
                problem(answer, status, "origin_refused")
                assert raw.ended() < 1


# --- large, small and broken ---------------------------------------------------------------------


def test_a_slow_reader_gets_everything_in_order(node: Node, user: str) -> None:
    with RawSocket(node, user, receive_buffer=4096) as peer:
        bodies = [f"{n}" * 400_000 for n in range(5)]
        for body in bodies:
            node.publish(user, body)
        for number in range(20):  # answered behind what waits
            peer.say(type="ping", ref=number)
        found: list[str] = []
        pongs: list[int] = []
        while len(found) < len(bodies) or len(pongs) < 20:
            message = peer.message()
            if message["type"] == "pong":
                pongs.append(message["ref"])
            else:
                found.append(message["data"])
        assert found == bodies
        assert pongs == list(range(20))


def test_a_message_that_spans_records_and_records_that_hold_messages_are_read(
    node: Node, user: str
) -> None:
    with RawSocket(node, user) as peer:
        peer.say(type="ping", ref="x" * 64)
        assert peer.message()["ref"] == "x" * 64
        padding = " " * 300_000
        peer.send(frame(TEXT, b'{"type":"ping",' + padding.encode() + b'"ref":1}'))
        assert peer.message() == {"type": "pong", "ref": 1}
        small = [frame(TEXT, b'{"type":"ping","ref":%d}' % n) for n in range(300)]
        peer.send(b"".join(small))
        assert [peer.message()["ref"] for _ in small] == list(range(300))


def test_what_follows_the_handshake_in_the_same_record_is_read(node: Node, user: str) -> None:
    behind = frame(TEXT, b'{"type":"ping","ref":"early"}') * 2
    with RawSocket(node, user, behind=behind) as peer:
        assert [peer.message()["ref"] for _ in range(2)] == ["early", "early"]


def test_records_that_come_a_byte_at_a_time_are_read(node: Node, user: str) -> None:
    with Peer(node) as peer:
        peer.shake(piece=1)
        auth = {"Authorization": f"Bearer {token(user)}"}
        peer.tls.write(request(headers={**auth}))
        peer.flush(piece=1)
        assert peer.read().startswith(b"HTTP/1.1 101")
        peer.tls.write(frame(TEXT, b'{"type":"ping","ref":7}'))
        peer.flush(piece=1)
        data = b""
        while b'"ref":7' not in data:
            data += peer.read()


@pytest.mark.parametrize("farewell", [True, False])
def test_a_peer_that_says_no_more_is_gone(node: Node, user: str, *, farewell: bool) -> None:
    with RawSocket(node, user) as peer:
        wait_until(lambda: node.metric("pushsvc_connections") == 1, "those before to be gone")
        if farewell:  # close_notify
            assert isinstance(peer.socket, ssl.SSLSocket)
            peer.socket.setblocking(False)
            with suppress(ssl.SSLError):
                peer.socket.unwrap()
        else:
            socket.socket.shutdown(peer.socket, socket.SHUT_WR)
        wait_until(lambda: node.metric("pushsvc_connections") == 0, "it to be gone")


def test_what_is_no_tls_in_the_middle_ends_the_connection(node: Node, user: str) -> None:
    with RawSocket(node, user) as peer:
        plain = socket.socket(fileno=os.dup(peer.socket.fileno()))
        with plain:
            plain.settimeout(PATIENCE)  # it shares the mode of the other
            plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            wait_until(lambda: _ended(plain), "the end")
    with Peer(node) as other:  # before the request is complete
        other.shake()
        other.tls.write(b"GET / HTTP/1.1\r\n")
        other.flush()
        other.socket.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        wait_until(lambda: _ended(other.socket), "the end")


def _ended(plain: socket.socket) -> bool:
    try:
        return not plain.recv(1 << 16)
    except ConnectionResetError:
        return True


def test_the_end_is_told_as_meant(node: Node, user: str) -> None:
    with RawSocket(node, user) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        vars(peer.socket)["suppress_ragged_eofs"] = False
        peer.send(frame(CLOSE, struct.pack("!H", 1000)))
        assert peer.closed() == 1000
        assert peer.socket.recv(1) == b""  # and no SSLEOFError
    with Raw(node) as raw:
        assert isinstance(raw.socket, ssl.SSLSocket)
        vars(raw.socket)["suppress_ragged_eofs"] = False
        raw.send(b"GET /docs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert raw.answer().status_code == 200
        assert raw.socket.recv(1) == b""


def test_a_poll_whose_client_goes_at_once_is_forgotten(node: Node, user: str) -> None:
    wait_until(lambda: node.metric("pushsvc_connections") == 0, "those before to be gone")
    head = (
        f"GET /v1/poll?wait=30 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n"
    )
    accepted = node.metric("pushsvc_handshakes_total", outcome="accepted")
    for _ in range(5):
        with Raw(node) as peer:
            peer.send(head.encode())
    wait_until(
        lambda: node.metric("pushsvc_handshakes_total", outcome="accepted") >= accepted + 5,
        "all polls to be let in",
    )
    wait_until(lambda: node.metric("pushsvc_connections") == 0, "all polls to end")


# --- who does not shake hands --------------------------------------------------------------------


def test_a_handshake_that_stalls_is_cut_off(node: Node) -> None:
    with Peer(node) as peer, socket.create_connection(("127.0.0.1", node.port)) as silent:
        with suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.socket.sendall(peer.outgoing.read()[:20])
        for plain in (peer.socket, silent):
            plain.settimeout(LATEST + 5)
            assert _ended(plain)


def test_neither_plain_http_nor_a_port_scan_fills_the_log(node: Node) -> None:
    before, failed = len(node.log_lines()), node.metric("pushsvc_tls_handshakes_failed_total")
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", node.port), PATIENCE) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not _ended(plain):
                pass
        with socket.create_connection(("127.0.0.1", node.port)):
            pass
    wait_until(
        lambda: node.metric("pushsvc_tls_handshakes_failed_total") >= failed + 100,
        "the failures to be counted",
    )
    assert len(node.log_lines()) - before <= 20


def test_a_client_that_does_not_know_the_authority_is_a_failed_handshake(node: Node) -> None:
    failed = node.metric("pushsvc_tls_handshakes_failed_total")
    with pytest.raises(httpx.ConnectError):
        httpx.get(node.url)
    wait_until(
        lambda: node.metric("pushsvc_tls_handshakes_failed_total") == failed + 1, "its failure"
    )


def test_connections_leave_no_descriptor_behind(node: Node, user: str) -> None:
    process = psutil.Process(node.process.pid)
    auth = {"Authorization": f"Bearer {token(user)}"}

    def some(count: int) -> None:
        for number in range(count):
            with Raw(node) as raw:
                if number % 4 == 0:
                    continue
                with suppress(Ended):
                    raw.send(
                        request(headers={**auth, "Origin": None if number % 4 > 1 else "x://y"})
                    )
                    raw.answer()
                    if number % 4 == 3:
                        raw.send(frame(CLOSE, struct.pack("!H", 1000)))
                        raw.ended()

    some(8)
    wait_until(lambda: node.metric("pushsvc_connections") == 0, "all to be gone")
    before = process.num_fds()
    some(200)
    wait_until(lambda: process.num_fds() <= before, "the descriptors to be closed")


def test_handshakes_that_fail_leave_neither_descriptors_nor_memory(node: Node) -> None:
    process = psutil.Process(node.process.pid)

    def hello(peer: Peer) -> bytes:
        with suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        return peer.outgoing.read()

    def flood(count: int) -> None:
        for number in range(count):
            with Peer(node) as peer:
                first = hello(peer)
                kind = number % 5
                if kind == 0:  # gone behind its first word
                    peer.socket.sendall(first)
                elif kind == 1:  # and before the end of it
                    peer.socket.sendall(first[:50])
                elif kind == 2:  # gone with a reset, when the answer is there
                    peer.socket.sendall(first)
                    peer.socket.recv(1)
                else:
                    peer.socket.sendall(os.urandom(200) if kind == 3 else b"GET / HTTP/1.1\r\n\r\n")
                    while not _ended(peer.socket):
                        pass

    wait_until(lambda: node.metric("pushsvc_connections") == 0, "those before to be gone")
    flood(200)
    descriptors, memory = process.num_fds(), process.memory_info().rss
    flood(400)
    wait_until(lambda: process.num_fds() <= descriptors, "the descriptors to be closed")
    # What OpenSSL holds for one connection is some 50 kB.
    assert process.memory_info().rss - memory < 4 << 20


def test_looking_whether_the_port_is_open_leaves_no_memory(node: Node) -> None:
    """What holds itself in a cycle would wait for the rare look of the garbage collector."""
    process = psutil.Process(node.process.pid)

    def look(count: int) -> None:
        for number in range(count):
            socket.create_connection(("127.0.0.1", node.port)).close()
            if number % 20 == 19:  # an answer: those before it are over, however busy the node is
                httpx.get(node.url, verify=node.tls or True, timeout=10)

    look(500)
    before = process.memory_info().rss
    look(2000)
    assert process.memory_info().rss - before < 4 << 20  # it was 11 MB


# --- the end -------------------------------------------------------------------------------------


def test_two_workers_drain_with_4001(
    valkey: EmbeddedServer, authority: Authority, tmp_path: Path, prefix: str, user: str
) -> None:
    certificate, key = authority.issue(tmp_path)
    with Node(
        valkey.url, tmp_path, prefix=prefix, tls=authority.context(), workers=2,
        tls_cert_file=certificate, tls_key_file=key,
    ) as node:  # fmt: skip
        peers = [RawSocket(node, user, device=f"d{number}") for number in range(6)]
        node.process.terminate()
        for peer in peers:
            with peer:
                assert peer.message()["type"] == "reconnect"
                assert peer.closed() == 4001
        assert node.stop() == 0
