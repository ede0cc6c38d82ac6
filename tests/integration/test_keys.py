"""Tokens signed by an identity provider: public key files and JWKS, end to end."""

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.utils import base64url_encode

from pushsvc.server.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.certificates import Authority
from tests.support.forward_proxy import ForwardProxy
from tests.support.keys import PrivateKey, jwk, pem
from tests.support.nodes import Node, wait_until
from tests.support.phone import Phone
from tests.support.provider import Provider
from tests.support.raw import Raw, request

ISSUER = "https://issuer.example"

KEYS: dict[str, PrivateKey] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def signed(
    algorithm: str, key: PrivateKey | bytes, user: str = "u1", kid: str | None = None, **claims: Any
) -> str:
    payload = {
        "sub": user, "aud": ["elsewhere", "pushsvc"], "iss": ISSUER,
        "exp": int(time.time()) + 600, "scope": "push.publish", **claims,
    }  # fmt: skip
    return jwt.encode(payload, key, algorithm, headers={"kid": kid} if kid else None)


def shake(node: Node, auth: str) -> httpx.Response:
    with Raw(node) as raw:
        raw.send(request(headers={"Authorization": f"Bearer {auth}"}))
        return raw.answer()


async def works(node: Node, auth: str, user: str) -> None:
    """Publish and receive with this token."""
    async with Phone(node, user, auth=auth) as phone:
        answer = await asyncio.to_thread(
            node.post, "/v1/notifications", {"to": {"user": user}, "data": 1},
            headers={"Authorization": f"Bearer {auth}"},
        )  # fmt: skip
        assert answer.status_code == 202, answer.text
        assert (await phone.notification())["id"] == answer.json()["id"]
        await phone.acked(answer.json()["id"])


def hmac_with(public: bytes) -> str:
    """A token whose shared secret is a public key; PyJWT refuses to make one, as it should."""
    head = base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = base64url_encode(
        json.dumps({"sub": "u1", "aud": "pushsvc", "iss": ISSUER, "exp": 4e9}).encode()
    )
    signature = hmac.new(public, head + b"." + body, hashlib.sha256).digest()
    return b".".join([head, body, base64url_encode(signature)]).decode()


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_public_key_file_verifies_tokens_of_its_key_only(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, algorithm: str
) -> None:
    key = KEYS[algorithm]
    file = tmp_path / "key.pem"
    file.write_bytes(pem(key))
    with Node(
        valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_public_key_file=file,
        jwt_issuer=ISSUER,
    ) as node:  # fmt: skip
        await works(node, signed(algorithm, key), "u1")
        bad = {name: signed(name, other) for name, other in KEYS.items() if other is not key}
        bad["the public key as a secret"] = hmac_with(pem(key))
        bad["another issuer"] = signed(algorithm, key, iss=ISSUER + "/")
        bad["no issuer"] = signed(algorithm, key, iss="")
        if algorithm == "RS256":
            bad["another key of the kind"] = signed(
                "RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)
            )
            bad["an algorithm of the family that is not allowed"] = signed("RS512", key)
        for auth in bad.values():
            problem(shake(node, auth), 401, "invalid_token")


def flood(node: Node) -> None:
    """Use 300 key ids that the issuer does not have."""
    with httpx.Client() as client:
        for number in range(300):
            auth = signed("EdDSA", KEYS["EdDSA"], kid=f"unknown-{number}")
            answer = client.post(
                f"{node.url}/v1/notifications", headers={"Authorization": f"Bearer {auth}"}, json={}
            )
            found = problem(answer, 401, "invalid_token")
            assert found["retry_after"] > 0


async def test_jwks_keys_verify_tokens_and_are_fetched_once(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Provider() as issuer:
        issuer.document = {
            "keys": [jwk(key, name, use="sig") for name, key in KEYS.items()]
            + [{"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "shared"}, {"kty": "?"}, None]
        }
        with Node(
            valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_jwks_url=issuer.url,
            jwt_issuer=ISSUER,
        ) as node:  # fmt: skip
            assert issuer.fetches == 1  # before any token came
            for name, key in KEYS.items():
                await works(node, signed(name, key, kid=name), "u1")
            assert issuer.fetches == 1
            # a flood of key ids that nobody has must not become a flood of fetches
            await asyncio.to_thread(flood, node)
            assert issuer.fetches == 1
            for auth in (
                signed("RS256", KEYS["RS256"], kid="ES256"),
                signed("RS256", KEYS["RS256"]),
                signed("ES256", ec.generate_private_key(ec.SECP256R1()), kid="ES256"),
                signed("HS256", b"c2VjcmV0" * 8, kid="shared"),
            ):
                problem(shake(node, auth), 401, "invalid_token")
            # and an issuer that is gone must not lock out those whose keys are known
            issuer.down = True
            await works(node, signed("ES256", KEYS["ES256"], "u2", "ES256"), "u2")
            assert issuer.fetches == 1


def readiness(node: Node) -> tuple[int, list[str]]:
    answer = httpx.get(f"{node.admin_url}/readyz")
    return answer.status_code, answer.json()["troubles"]


@contextmanager
def unready(node: Node) -> Iterator[Node]:
    """A node of which nobody expects that it is ready at once."""
    try:
        yield node.start(ready=False)
    finally:
        node.stop()
    node.check_log()


async def test_a_node_is_unready_until_the_issuer_that_was_down_has_given_its_keys(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    auth = signed("ES256", KEYS["ES256"], kid="ES256")
    with Provider() as issuer:
        issuer.down = True
        given = {"jwt_secret": "", "jwt_jwks_url": issuer.url}
        with unready(Node(valkey.url, tmp_path, prefix=prefix, **given)) as node:
            await asyncio.to_thread(
                wait_until, lambda: len(readiness(node)[1]) == 1 and issuer.fetches > 1, "a retry"
            )
            status, (trouble,) = readiness(node)
            assert status == 503
            assert (
                trouble == f"no keys yet from {issuer.url}: {issuer.url} answered with status 500"
                " (JWT_JWKS_URL)"
            )
            problem(shake(node, auth), 503, "unavailable")
            issuer.document = {"keys": [jwk(KEYS["ES256"], "ES256", use="sig")]}
            issuer.down = False
            # without a token that asks for it
            await asyncio.to_thread(wait_until, node.is_ready, "keys", 30)
            await works(node, auth, "u1")
            lines = [line for line in node.log_lines() if "keys" in line["event"]]
            failed, done = lines[0], lines[-1]
            assert failed["event"] == "an issuer's keys could not be fetched"
            assert failed["address"] == issuer.url
            assert "status 500" in failed["reason"]
            assert done["event"] == "an issuer's keys were fetched"
            assert (done["address"], done["keys"], done["kids"]) == (issuer.url, 1, ["ES256"])
            # and what fails later makes it unready no more
            issuer.down = True
            problem(shake(node, signed("ES256", KEYS["ES256"], kid="new")), 401, "invalid_token")
            assert readiness(node) == (200, [])


def test_a_node_ends_at_once_while_keys_are_fetched(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        node = Node(valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_jwks_url=url)
        with unready(node):
            connection, _ = silent.accept()
            began = time.monotonic()
        assert time.monotonic() - began < 5
        connection.close()


async def test_keys_are_found_by_discovery_past_a_redirect_a_proxy_and_a_private_authority(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(tmp_path))
    with ForwardProxy("ann:p%w") as proxy, Provider(context) as issuer:
        issuer.document = {"keys": [jwk(KEYS["ES256"], "ES256", use="sig")]}
        with monkeypatch.context() as environment:  # of the node alone
            environment.setenv("HTTPS_PROXY", proxy.url("ann:p%25w"))
            environment.setenv("NO_PROXY", "")
            node = Node(
                valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_issuer=issuer.origin,
                jwt_ca_file=authority.file,
            )  # fmt: skip
        with node:
            await works(node, signed("ES256", KEYS["ES256"], kid="ES256", iss=issuer.origin), "u1")
            assert issuer.paths == [
                "/.well-known/openid-configuration", "/moved", "/jwks.json"
            ]  # fmt: skip
            assert len(proxy.requests) == 3
            assert "p%w" not in node.log()


async def test_the_key_of_a_certificate_verifies_tokens(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    certificate, key_file = Authority(tmp_path).issue(tmp_path, ends=-timedelta(days=1))
    key = load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with Node(
        valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_public_key_file=certificate
    ) as node:
        await works(node, signed("ES256", key), "u1")
        problem(shake(node, signed("ES256", KEYS["ES256"])), 401, "invalid_token")
        assert "out of date; its key is used all the same" in node.log()
