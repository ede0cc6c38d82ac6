"""Tokens as another library reads them."""

import time

import jwt
import pytest

from pushsvc.client import mint

SECRET = "a-secret-of-at-least-32-bytes-ü-0123456789"


def test_another_library_verifies_it_and_reads_its_claims() -> None:
    token = mint(
        SECRET, user="auth0|ü", ttl=60.5, scopes=["push.publish", "push.admin"],
        topics={"subscribe": ["scores.*"], "publish": iter(("chat.**",))}, iss="https://id",
    )  # fmt: skip
    claims = jwt.decode(token, SECRET.encode(), algorithms=["HS256"], audience="pushsvc")
    assert 58 <= claims.pop("exp") - time.time() <= 61
    assert abs(claims.pop("iat") - time.time()) < 2
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "sub": "auth0|ü", "aud": "pushsvc", "iss": "https://id",
        "scope": "push.publish push.admin",
        "topics": {"subscribe": ["scores.*"], "publish": ["chat.**"]},
    }  # fmt: skip
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert "=" not in token


def test_a_user_needs_no_scopes_and_no_topics_and_each_token_has_an_id_of_its_own() -> None:
    first, second = (
        jwt.decode(mint(SECRET, user="u"), SECRET, algorithms=["HS256"], audience="pushsvc")
        for _ in range(2)
    )
    assert first.keys() == {"sub", "aud", "iat", "exp", "jti"}
    assert first["jti"] != second["jti"]


def test_a_secret_with_which_no_node_starts_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="31 bytes: it is that of the nodes") as error:
        mint("x" * 31, user="u")
    assert "xx" not in str(error.value)
    assert mint(b"x" * 32, user="u")
