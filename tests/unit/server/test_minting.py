"""Tokens for development: the node that has the same settings takes them."""

from pathlib import Path

import pytest

from pushsvc.auth.issuer_table import MAX_FILE
from pushsvc.auth.tokens import payload_of
from pushsvc.server.minting import NoSecretError, mint_for
from pushsvc.server.verifier import verifier_of
from pushsvc.settings import Settings, load

SECRET = "0123456789abcdef" * 4
TOPICS = {"subscribe": ["a.*"]}


def settings(**values: object) -> Settings:
    return load({f"PUSHSVC_{name.upper()}": str(value) for name, value in values.items()}, {})


def check(having: Settings, issuer: str | None = None) -> None:
    text = mint_for(having, "ann", ["push.publish"], 60, TOPICS, issuer=issuer)
    claims = verifier_of(having).verify_cached(text)
    assert claims is not None
    assert claims.user == "ann"
    assert "push.publish" in claims.scopes
    assert claims.grants.may_subscribe("a.b")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"jwt_algorithms": "HS512", "jwt_issuer": "https://x"},
        {"jwt_audience": "a,b", "jwt_audience_claim": "client_id", "jwt_user_claim": "app.uid"},
        {"jwt_audience_claim": "none", "jwt_scope_claims": "scp,scope", "jwt_topics_claim": "a.b"},
    ],
)
def test_a_token_has_its_claims_where_the_node_looks(values: dict[str, str]) -> None:
    check(settings(jwt_secret=SECRET, **values))


def test_an_entry_of_the_file_signs_with_its_secret(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    (tmp_path / "key").write_text(SECRET)
    path.write_text("""
        [issuers.apps]
        issuer = "apps"
        secret_file = "key"
        namespace = "apps"
        require = {token_use = ["access", "x"], verified = true}
        audience_claim = "none"
        [issuers.users]
        issuer = "https://users.example"
        discovery = true
    """)
    having = settings(auth_file=path)
    check(having)
    check(having, "apps")
    with pytest.raises(NoSecretError, match=r"--issuer an issuer that has a secret .*: apps"):
        check(having, "users")
    path.write_text(f'{path.read_text()}\n[issuers.c]\nsecret = "{SECRET}"\nnamespace = "c"')
    check(having, "c")
    with pytest.raises(NoSecretError, match=": apps, c"):
        check(having)


def test_a_file_that_cannot_be_used_is_told_without_what_may_be_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(f'[issuers.a]\nsecret_file = "{SECRET}"')
    with pytest.raises(NoSecretError, match=r"issuers\.a: secret_file\[0\] cannot be") as caught:
        check(settings(auth_file=path))
    assert SECRET not in str(caught.value)
    path.write_text("#" * (MAX_FILE + 1))
    with pytest.raises(NoSecretError, match=f"has more than {MAX_FILE} bytes"):
        check(settings(auth_file=path))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(NoSecretError, match=f"has more than {MAX_FILE} bytes"):
        check(settings(auth_file=path))


def test_a_token_has_no_audience_where_none_is_looked_at() -> None:
    having = settings(jwt_secret=SECRET, jwt_audience_claim="none")
    assert not {"aud", "none"} & set(payload_of(mint_for(having, "ann", [], 60)))


def test_a_scope_that_the_issuer_cannot_grant_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(f"""
        [issuers.a]
        secret = "{SECRET}"
        scope_prefix = "p/"
        max_scopes = ["push.publish"]
    """)
    having = settings(auth_file=path)
    check(having)
    mint_for(having, "ann", ["p/push.publish"], 60)
    told = r"no token has push\.admin: it is not among max_scopes of issuers\.a in AUTH_FILE"
    with pytest.raises(NoSecretError, match=told):
        mint_for(having, "ann", ["push.publish", "push.admin"], 60)


def test_without_a_secret_there_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(NoSecretError, match="JWT_SECRET is not set"):
        check(settings())
    with pytest.raises(NoSecretError, match="cannot be read"):
        check(settings(auth_file=tmp_path / "none"))
    with pytest.raises(NoSecretError, match="64 bytes"):
        check(settings(jwt_secret="x" * 32, jwt_algorithms="HS512"))
