"""docs/authentication.md: each provider's configuration takes the token that stands beside it."""

import json
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.issuer_table import parse
from pushsvc.auth.keys import public_keys
from pushsvc.auth.tokens import SCOPE_PUBLISH, Verifier
from pushsvc.errors import InvalidToken
from pushsvc.server.verifier import rules_of
from pushsvc.settings import load
from tests.support.keys import pem

TEXT = (Path(__file__).parents[3] / "docs" / "authentication.md").read_text()
PROVIDERS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)*)", TEXT, re.MULTILINE))
KEY = rsa.generate_private_key(65537, 2048)


def block(section: str, language: str) -> str | None:
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found[1] if found else None


def rules(section: str) -> Rules:
    """What the configuration of a section says, by the code that reads it at the start."""
    variables, file = block(section, "sh"), block(section, "toml")
    if variables is not None:
        return rules_of(load(dict(line.split("=", 1) for line in variables.splitlines()), {}))
    assert file is not None
    (entry,) = parse(file.encode())
    assert entry.source.kind in {"discovery", "jwks_url"}
    return entry.rules


def claims_of(section: str) -> dict[str, Any]:
    text = block(section, "json")
    assert text is not None
    claims: dict[str, Any] = json.loads(text)
    now = int(time.time())
    return claims | {"iat": now, "exp": now + 60}


def test_every_provider_is_there() -> None:
    assert set(PROVIDERS) == {
        "Auth0", "Okta", "Entra ID", "Keycloak", "Cognito", "Firebase", "Supabase", "Clerk",
    }  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_token_of_the_documented_shape_is_taken_for_what_it_says(provider: str) -> None:
    section = PROVIDERS[provider]
    having, claims = rules(section), claims_of(section)
    keys = public_keys(pem(KEY), ["RS256"])
    verifier = Verifier(keys, algorithms=keys.algorithms, reader=Reader(having))

    def token(**changed: Any) -> str:
        payload = {name: value for name, value in (claims | changed).items() if value is not ...}
        return jwt.encode(payload, KEY, "RS256", headers={"kid": "1"})

    found = verifier.verify_cached(token())
    assert found is not None
    assert found.user == claims[having.user_claim]
    assert SCOPE_PUBLISH in found.scopes
    assert found.grants.may_subscribe("news.eu")
    assert not found.grants.may_publish("news.eu")
    assert having.setting("topics_claim") in found.grants.why_not("publish")
    # without what was assigned it listens, and is told where scopes were looked for
    outer = having.scope_claims[0].split(".")[0]
    plain = token(**{outer: "openid"} if outer in {"scope", "scp"} else {outer: ...})
    without = verifier.verify_cached(plain)
    assert without is not None
    assert SCOPE_PUBLISH not in without.scopes
    told = verifier.looked_at(plain)
    assert having.scope_claims[0] in told
    assert having.setting("scope_claims") in told
    # and elsewhere it is refused, by the setting
    assert having.audience_claim is not None
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"iss": "https://other.example"}, "issuer"),
        ({having.audience_claim: "other"}, "audience"),
        ({having.user_claim: ...}, "user_claim"),
        *(({claim: "other"}, "require") for claim, _ in having.require),
    )
    for changed, setting in wrong:
        with pytest.raises(InvalidToken) as caught:
            verifier.verify_cached(token(**changed))
        assert f"({having.setting(setting)}): it " in caught.value.detail


def test_the_file_of_several_issuers_can_be_used() -> None:
    text = block(TEXT[TEXT.index("## Several issuers") :], "toml")
    assert text is not None
    users, backends = (entry.rules for entry in parse(text.encode()))
    assert users.max_scopes == frozenset()
    assert backends.max_scopes == frozenset({SCOPE_PUBLISH})
