"""Several issuers: whose key verifies what, and who is gone."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.issuers import Issuer, Issuers
from pushsvc.auth.keys import secret_keys
from pushsvc.auth.tokens import MAX_TOKEN, Check, Verifier
from pushsvc.codes import Close
from pushsvc.errors import InvalidToken

ONE, TWO = "one" * 16, "two" * 16


def issuer(name: str, secret: str, iss: str | None, namespace: str = "") -> Issuer:
    rules = Rules(name=name, issuer=iss, any_issuer=False, namespace=namespace)
    keys = secret_keys([secret], ())
    return Issuer(rules, Verifier(keys, algorithms=keys.algorithms, reader=Reader(rules)))


def token(secret: str, **claims: Any) -> str:
    now = int(time.time())
    return jwt.encode({"sub": "ann", "aud": "pushsvc", "exp": now + 60, **claims}, secret)


@pytest.fixture
def issuers() -> Issuers:
    found = Issuers()
    found.use([issuer("a", ONE, "https://a/"), issuer("b", TWO, "https://b/", "ns")])
    return found


async def test_a_token_is_verified_by_its_own_issuer(issuers: Issuers) -> None:
    for secret, iss, namespace in ((ONE, "https://a/", ""), (TWO, "https://b/", "ns")):
        claims = issuers.verify_cached(token(secret, iss=iss))
        assert claims is not None
        assert (claims.issuer, claims.namespace) == (iss, namespace)
        assert await issuers.verify(token(secret, iss=iss)) == claims
    assert issuers.namespaces == {"https://a/": "", "https://b/": "ns"}


def test_a_key_of_one_issuer_is_never_good_for_a_token_of_another(issuers: Issuers) -> None:
    for secret, iss in ((TWO, "https://a/"), (ONE, "https://b/")):
        with pytest.raises(InvalidToken, match=r"signature does not match.*\(JWT_SECRET\)"):
            issuers.verify_cached(token(secret, iss=iss))


class NoKeys:
    """Keys that nobody may look at."""

    algorithms = ("HS256",)
    setting = "JWT_SECRET"

    def find(self, algorithm: str, kid: str | None) -> Check | None:
        raise AssertionError(algorithm, kid)

    async def fetch(self) -> None:
        raise AssertionError

    def start(self) -> None: ...
    def missing(self) -> str | None: ...
    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    "iss", ["https://a", "https://A/", "", "https://c/", None, 7, ["https://a/"], {}, ...]
)
def test_an_unknown_issuer_is_refused_before_any_key_is_looked_at(iss: object) -> None:
    found = Issuers()
    verifier = Verifier(NoKeys(), algorithms=["HS256"], reader=Reader(Rules()))
    found.use([Issuer(Rules(issuer="https://a/"), verifier)])
    claims = {"sub": "ann"} if iss is ... else {"sub": "ann", "iss": iss}
    parts = [b'{"alg":"HS256"}', json.dumps(claims).encode(), b"signature"]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()
    with pytest.raises(InvalidToken, match="exactly the issuer of an entry in AUTH_FILE") as caught:
        found.verify_cached(text)
    assert ("it is missing" if iss is ... else "it held") in caught.value.detail


def test_one_entry_may_take_the_tokens_without_an_issuer_and_no_others() -> None:
    found = Issuers()
    found.use([issuer("bare", ONE, None), issuer("a", TWO, "https://a/")])
    claims = found.verify_cached(token(ONE))
    assert claims is not None
    # neither the one issuer of a node without such a file, nor the name of any
    assert claims.issuer == Rules(name="other", any_issuer=False).identity
    assert claims.issuer not in {Rules().identity, "bare"}
    for bad in (token(ONE, iss="https://a/"), token(ONE, iss="https://x/"), token(TWO)):
        with pytest.raises(InvalidToken):
            found.verify_cached(bad)


@pytest.mark.parametrize(
    "text", ["", "x", "a.b", "a.b.c.d", "é.é.é", "..", "\ud800..", "x" * (MAX_TOKEN + 1)]
)
async def test_what_is_no_token_is_refused(issuers: Issuers, text: str) -> None:
    with pytest.raises(InvalidToken):
        issuers.verify_cached(text)
    with pytest.raises(InvalidToken):
        await issuers.verify(text)


def test_what_was_looked_at_is_told_by_the_tokens_issuer(issuers: Issuers) -> None:
    told = issuers.looked_at(token(TWO, iss="https://b/", scope="x"))
    assert told == "looked at scope, which held 'x' (scope_claims of issuers.b in AUTH_FILE)"


def test_whoever_is_gone_is_told_once_its_tokens_are_refused(issuers: Issuers) -> None:
    told: list[Mapping[str, Close]] = []

    def gone(names: Mapping[str, Close]) -> None:
        assert issuers.namespaces.get("https://b/") != "ns"
        told.append(names)

    issuers.on_gone = gone
    one, two = issuer("a", ONE, "https://a/"), issuer("b", TWO, "https://b/", "ns")
    issuers.use([two, one])
    assert told == []
    issuers.use([one])
    issuers.use([one, two])
    assert told == [{"https://b/": Close.REVOKED}]
    # its tokens are good, but its users are in another place
    issuers.use([one, issuer("b", TWO, "https://b/", "other")])
    assert told[1:] == [{"https://b/": Close.GOING_AWAY}]
    # what an entry is called says nothing of whose users they are
    issuers.use([one, issuer("c", TWO, "https://b/", "other")])
    assert len(told) == 2
    issuers.use([one, issuer("c", TWO, "https://b2/", "other")])
    issuers.use([issuer("a", ONE, None)])
    assert told[2:] == [
        {"https://b/": Close.REVOKED},
        {"https://a/": Close.REVOKED, "https://b2/": Close.REVOKED},
    ]
