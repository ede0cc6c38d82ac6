"""What TLS on the public port costs: handshakes, memory and deliveries, next to the same without.

The connections are made one after the other, so a handshake's figure is CPU time of the node.
"""

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.client import handshake, post
from bench.harness import Figure, Server, node, say, tokens, wait_until

CONNECTIONS = 2_000
RSA_CONNECTIONS = 500
ROUNDS = 10
_ADDRESS = "127.0.0.1"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def run(*, profile: bool) -> list[Figure]:
    """Connect, look at the node, and publish to all."""
    del profile
    with TemporaryDirectory(prefix="pushsvc-bench-") as directory:
        plain = _measure(None, CONNECTIONS)
        elliptic = _measure(
            certificate_files(Path(directory), ec.generate_private_key(ec.SECP256R1()))
        )
        modular = _measure(
            certificate_files(Path(directory), rsa.generate_private_key(65537, 2048)),
            RSA_CONNECTIONS,
        )
    return [
        Figure("a handshake, plain", plain[0], "us"),
        Figure("a handshake, TLS with ECDSA P-256", elliptic[0], "us"),
        Figure("a handshake, TLS with RSA 2048", modular[0], "us"),
        Figure("an idle connection, plain", plain[1], "bytes"),
        Figure("an idle connection, TLS", elliptic[1], "bytes"),
        Figure("a delivery to all, plain", plain[2], "us"),
        Figure("a delivery to all, TLS", elliptic[2], "us"),
    ]


def _measure(pair: tuple[Path, Path] | None, size: int = CONNECTIONS) -> tuple[float, float, float]:
    """CPU of a handshake (us), memory of a connection (bytes), CPU of a delivery (us)."""
    say(f"tls: {size} connections, {'plain' if pair is None else 'TLS'}")
    certificate, key = pair or ("", "")
    context = None if pair is None else ssl.create_default_context(cafile=str(certificate))
    with node(max_connections=18_000, tls_cert_file=certificate, tls_key_file=key) as server:
        with _held(server, context, 200, "early"):  # imports, caches, the heap's first growth
            pass
        wait_until(lambda: server.metric("pushsvc_connections") == 0, "the first to be gone")
        memory, cpu = server.memory(), server.cpu()
        with _held(server, context, size, "user") as peers:
            handshake_cpu = server.cpu() - cpu
            grown = server.memory() - memory
            delivery_cpu = _deliver(server, context, peers)
    return 1e6 * handshake_cpu / size, grown / size, delivery_cpu


@contextmanager
def _held(
    server: Server, context: ssl.SSLContext | None, size: int, name: str
) -> Iterator[list[socket.socket]]:
    """So many connections."""
    with contextlib.ExitStack() as stack:
        peers = []
        for token in tokens([f"{name}-{number}" for number in range(size)]):
            peer = stack.enter_context(_connected(server, context))
            peer.sendall(handshake("/v1/ws", token))
            answer = b""
            while b'"welcome"' not in answer:
                answer += peer.recv(4096)
            peers.append(peer)
        yield peers


def _connected(server: Server, context: ssl.SSLContext | None) -> socket.socket:
    peer = socket.create_connection((_ADDRESS, server.port), 30)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer if context is None else context.wrap_socket(peer, server_hostname=_ADDRESS)


def _deliver(server: Server, context: ssl.SSLContext | None, peers: list[socket.socket]) -> float:
    """CPU of the node for each delivery of a broadcast, in microseconds."""
    (publisher,) = tokens(["backend"], "push.publish")
    before = server.cpu()
    numbers = count()
    with _connected(server, context) as backend:
        for _ in range(ROUNDS):
            body = b'{"to":{"broadcast":true},"ttl":0,"data":%d}' % next(numbers)
            backend.sendall(post("/v1/notifications", publisher, "application/json", body))
            answer = backend.recv(4096)
            if not answer.startswith(b"HTTP/1.1 202"):
                raise ConnectionError(f"a publish was refused: {answer[:300]!r}")
            for peer in peers:
                data = b""
                while b'"notification"' not in data:
                    data += peer.recv(4096)
    return 1e6 * (server.cpu() - before) / (ROUNDS * len(peers))


def certificate_files(directory: Path, key: Key) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key: the files."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address(_ADDRESS))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / "tls.crt", directory / "tls.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files
