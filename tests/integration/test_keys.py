"""Tokens signed by an identity provider: public key files and JWKS, end to end."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from pushsvc.embedded import EmbeddedServer
from tests.support.backend import problem
from tests.support.nodes import Node
from tests.support.phone import Phone
from tests.support.raw import Raw, request

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ISSUER = "https://issuer.example"

KEYS: dict[str, Key] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(
    algorithm: str, key: Key | bytes, user: str = "u1", kid: str | None = None, **claims: Any
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


class Provider:
    """An identity provider's JWKS address."""

    def __init__(self) -> None:
        self.fetches = 0
        self.down = False
        self.document: dict[str, Any] = {"keys": []}
        self.url = ""


@contextmanager
def provider() -> Iterator[Provider]:
    state = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.fetches += 1
            body = json.dumps(state.document).encode()
            self.send_response(500 if state.down else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def jwk(kid: str, key: Key) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        found = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        found = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid, "use": "sig"}


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
    with provider() as issuer:
        issuer.document = {
            "keys": [jwk(name, key) for name, key in KEYS.items()]
            + [{"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "shared"}, {"kty": "?"}, None]
        }
        with Node(
            valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_jwks_url=issuer.url,
            jwt_issuer=ISSUER,
        ) as node:  # fmt: skip
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


def test_a_jwks_address_that_never_answered_is_told_with_503(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with provider() as issuer:
        issuer.down = True
        with Node(
            valkey.url, tmp_path, prefix=prefix, jwt_secret="", jwt_jwks_url=issuer.url
        ) as node:
            auth = signed("ES256", KEYS["ES256"], kid="ES256")
            for _ in range(5):
                problem(shake(node, auth), 503, "unavailable")
            assert issuer.fetches == 1
