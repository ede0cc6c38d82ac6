"""What a token must look like and say, with a shared secret as the key."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.keys import secret_keys
from pushsvc.auth.tokens import (
    LEEWAY,
    MAX_TOKEN,
    MOST_PROVEN,
    SCOPE_PUBLISH,
    SCOPE_RECEIVE,
    Check,
    Claims,
    Verifier,
    key_troubles,
    mint,
)
from pushsvc.codes import Close
from pushsvc.errors import InvalidName, InvalidToken, Unavailable
from pushsvc.protocol.grants import Grants
from tests.support.verifiers import shared_verifier

SECRET = "correct horse battery staple, and then some more of it to be long"
ISSUER = "https://issuer.example"
NOW = 1_800_000_000
DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def clock() -> float:
    return NOW


def verifier_of(
    *algorithms: str, secret: str = SECRET, issuer: str | None = ISSUER, audience: str = "push"
) -> Verifier:
    return shared_verifier(secret, *algorithms, audience=audience, issuer=issuer, clock=clock)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: bytes, payload: bytes, secret: str = SECRET, algorithm: str = "HS256") -> str:
    """A token of any header and payload bytes, with a good signature."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(hmac.digest(secret.encode(), signed.encode(), DIGESTS[algorithm]))}"


def token(header: dict[str, Any] | None = None, /, **claims: Any) -> str:
    """A good token, except for what is given; a claim that is given as ... is left out."""
    payload = {"sub": "ann", "aud": "push", "iss": ISSUER, "exp": NOW + 60} | claims
    return compact(
        json.dumps({"alg": "HS256", "typ": "JWT"} | (header or {})).encode(),
        json.dumps({name: value for name, value in payload.items() if value is not ...}).encode(),
    )


def accept(text: str) -> Claims:
    claims = verifier_of().verify_cached(text)
    assert claims is not None
    return claims


def refuse(text: str, because: str = "") -> None:
    with pytest.raises(InvalidToken) as caught:
        verifier_of().verify_cached(text)
    assert because in caught.value.detail
    assert caught.value.close is Close.TOKEN_REFUSED
    if len(text) > 4:
        assert text not in caught.value.detail
    assert SECRET not in caught.value.detail


# A good token


def test_a_good_token_says_who_until_when_and_what() -> None:
    text = token(scope="push.receive openid  push.publish", iat=NOW - 5, jti="t-1")
    assert accept(text) == Claims(
        user="ann",
        expires=NOW + 60,
        scopes=frozenset({SCOPE_RECEIVE, SCOPE_PUBLISH, "openid"}),
        issued=NOW - 5,
        token_id="t-1",
    )


def test_scope_iat_jti_and_nbf_may_be_missing() -> None:
    assert accept(token()) == Claims("ann", NOW + 60, frozenset(), None, None)


async def test_verify_gives_what_verify_cached_gives() -> None:
    one = verifier_of()
    assert await one.verify(token()) == one.verify_cached(token())
    await one.aclose()
    assert await one.verify(token()) == accept(token())


def test_claims_cannot_be_changed() -> None:
    claims = accept(token())
    with pytest.raises(AttributeError):
        claims.user = "bob"  # type: ignore[misc]
    assert not hasattr(claims, "__dict__")


def test_times_may_have_fractions_of_a_second() -> None:
    assert accept(token(exp=NOW + 1.9, iat=NOW - 0.5, nbf=NOW - 0.5)).expires == NOW + 1


def test_the_audience_may_be_one_of_a_list() -> None:
    assert accept(token(aud=["other", "push"])).user == "ann"


def test_any_issuer_is_good_when_none_is_configured() -> None:
    for issuer in (..., "https://anyone.example", 7):
        assert verifier_of(issuer=None).verify_cached(token(iss=issuer)) is not None


def test_the_kid_of_a_token_does_not_matter_with_a_single_secret() -> None:
    assert accept(token({"kid": "../../etc/passwd"})).user == "ann"


def test_connections_with_the_same_scopes_share_one_set() -> None:
    one, other = (accept(token(scope="push.receive", sub=user)) for user in ("ann", "bob"))
    assert one.scopes is other.scopes


def test_a_token_of_pyjwt_itself_is_good() -> None:
    payload = {"sub": "ann", "aud": "push", "iss": ISSUER, "exp": NOW + 60}
    assert accept(jwt.encode(payload, SECRET, "HS256", headers={"kid": "k"})).user == "ann"


# Shape


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "..",
        "...",
        "garbage",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "\x00",
        "é.é.é",
        "\ud800.a.b",
        "Bearer " + token(),
        token() + "\n",
        " " + token(),
        token() + "=",
        token().replace(".", ". ", 1),
        token().replace(".", "..", 1),
        token() + ".",
        "{}",
        "null",
    ],
)
def test_a_text_that_is_not_three_base64url_parts_is_refused(text: str) -> None:
    refuse(text)


def test_a_token_over_8_kib_is_refused_unread() -> None:
    fitting = token(filler="x" * 5800)
    assert len(fitting) < MAX_TOKEN
    accept(fitting)
    refuse("." * (MAX_TOKEN + 1), "at most 8192 bytes")
    refuse(token(filler="x" * MAX_TOKEN), "at most 8192 bytes")


def test_a_part_that_is_not_base64_is_refused() -> None:
    head, payload, signature = token().split(".")
    refuse(f"{head[0]}.{payload}.{signature}", "header is not base64url")
    refuse(f"{head}.{payload}.{signature[:1]}", "signature is not base64url")


def test_a_signature_has_one_spelling_only() -> None:
    text = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 43 characters carry 258 bits, two more than the digest has.
    respelled = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    refuse(respelled, "canonical")


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"[]", b'"x"', b"1", b"\xff", b'{"a":NaN}', b"[" * 3000]
)
def test_a_header_or_payload_that_is_not_a_json_object_is_refused(bad: bytes) -> None:
    good = b'{"alg":"HS256"}'
    refuse(compact(bad, b"{}"), "the token's header")
    refuse(compact(good, bad), "the token's payload")


def test_any_change_to_a_token_spoils_it() -> None:
    text = token()
    for at in range(0, len(text), 7):
        if text[at] != ".":
            refuse(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


# Header


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_a_signature_is_refused_however_none_is_spelled(algorithm: str) -> None:
    header, payload, signature = token({"alg": algorithm}).split(".")
    refuse(f"{header}.{payload}.", "sign the token with one of: HS256")
    refuse(f"{header}.{payload}.{signature}", "sign the token with one of: HS256")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", ""])
def test_an_algorithm_that_is_not_allowed_is_refused(algorithm: str) -> None:
    refuse(token({"alg": algorithm}), "sign the token with one of: HS256")


@pytest.mark.parametrize(
    ("algorithm", "held"), [("RS256", "RS256"), ("none", "none"), ("ses\namé", "none of these")]
)
def test_the_algorithm_of_a_refused_token_is_told_with_its_setting(
    algorithm: str, held: str
) -> None:
    with pytest.raises(InvalidToken) as caught:
        verifier_of().verify_cached(token({"alg": algorithm}))
    assert caught.value.detail.endswith(f"HS256 (JWT_ALGORITHMS): its alg is {held}")


@pytest.mark.parametrize("algorithm", [None, 1, ["HS256"], {"HS256": 1}])
def test_an_algorithm_that_is_not_a_string_is_refused(algorithm: object) -> None:
    refuse(token({"alg": algorithm}), "alg")


def test_a_header_without_an_algorithm_is_refused() -> None:
    refuse(compact(b"{}", b"{}"), "alg")


def test_an_empty_signature_is_refused() -> None:
    refuse(token().rpartition(".")[0] + ".", "does not match")


@pytest.mark.parametrize("name", ["crit", "b64", "jku", "jwk", "x5u", "x5c"])
@pytest.mark.parametrize("value", [None, [], ["b64"], "https://evil.example/", {"kty": "oct"}])
def test_a_header_that_extends_or_brings_a_key_is_refused(name: str, value: object) -> None:
    refuse(token({name: value}), f"remove {name!r}")


@pytest.mark.parametrize(
    "kid", ["", "k" * 129, "a b", "k\n", "' OR 1=1 --", "k;x", "{k}", "é", None, 1, True, ["k"]]
)
def test_a_kid_outside_its_alphabet_or_length_is_refused(kid: object) -> None:
    refuse(token({"kid": kid}), "kid")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_shared_secret_algorithm_is_checked_with_its_own_digest(algorithm: str) -> None:
    one = verifier_of(*DIGESTS)
    text = mint(secret=SECRET, user="ann", audience="push", ttl=60, issuer=ISSUER, now=NOW)
    payload = base64.urlsafe_b64decode(text.split(".")[1] + "==")
    for digest in DIGESTS:
        text = compact(json.dumps({"alg": algorithm}).encode(), payload, algorithm=digest)
        if digest == algorithm:
            assert one.verify_cached(text) is not None
        else:
            with pytest.raises(InvalidToken, match="does not match"):
                one.verify_cached(text)


def test_a_token_of_another_secret_is_refused() -> None:
    text = compact(b'{"alg":"HS256"}', b"{}", secret=SECRET[::-1])
    refuse(text, "does not match")


# Claims


@pytest.mark.parametrize("claim", ["sub", "aud", "exp", "iss"])
def test_a_required_claim_that_is_missing_is_named(claim: str) -> None:
    refuse(token(**{claim: ...}), f"the {claim} claim")


@pytest.mark.parametrize(
    "sub",
    [
        None,
        0,
        42,
        True,
        ["ann"],
        {"id": "ann"},
        "",
        "a" * 257,
        "ä" * 129,
        "ann\r\nSet-Cookie: x",
        "ann\n",
        "a\u0000",
        "a\u009b",
    ],
)
def test_a_sub_that_is_not_a_name_is_refused(sub: object) -> None:
    refuse(token(sub=sub), "the sub claim")


@pytest.mark.parametrize(
    "sub",
    ["auth0|507f", "google-oauth2|1", "a+b@x.com", "{6F9619FF-8B86}", "o'brien@x", "DOMAIN\\jdoe",
     "users/42", "user name", "Jörg", "https://id.example/u/1?x=1#y", "ä" * 128],
)  # fmt: skip
def test_a_sub_as_providers_issue_it_is_the_user(sub: str) -> None:
    assert accept(token(sub=sub)).user == sub


@pytest.mark.parametrize(
    "aud",
    [
        None,
        "",
        "pus",
        "push2",
        "push ",
        "PUSH",
        "pu",
        7,
        True,
        {},
        [],
        [""],
        ["pus"],
        ["push", 7],
        ["push2", "a push"],
    ],
)
def test_an_audience_must_match_exactly(aud: object) -> None:
    refuse(token(aud=aud), "the aud claim")


@pytest.mark.parametrize("aud", ["https://push.example", "https://push.example/v1/", "h"])
def test_an_audience_that_is_only_a_prefix_or_longer_is_refused(aud: str) -> None:
    one = verifier_of(audience="https://push.example/v1")
    with pytest.raises(InvalidToken, match="the aud claim"):
        one.verify_cached(token(aud=aud))
    assert one.verify_cached(token(aud="https://push.example/v1")) is not None


@pytest.mark.parametrize(
    "iss", [None, "", ISSUER[:-1], ISSUER + "/", ISSUER + ".evil", ISSUER.upper(), 1, [ISSUER]]
)
def test_an_issuer_must_match_exactly(iss: object) -> None:
    refuse(token(iss=iss), "the iss claim")


def test_exp_is_kept_with_ten_seconds_of_leeway() -> None:
    assert LEEWAY == 10
    assert accept(token(exp=NOW)).expires == NOW
    assert accept(token(exp=NOW - 9)).expires == NOW - 9
    refuse(token(exp=NOW - 10), "expired")
    refuse(token(exp=NOW - 3600), "expired")
    refuse(token(exp=0), "expired")


def test_nbf_is_kept_with_ten_seconds_of_leeway() -> None:
    accept(token(nbf=NOW + 10))
    refuse(token(nbf=NOW + 11), "not valid yet (nbf)")


def test_a_token_from_the_future_is_refused_beyond_ten_seconds() -> None:
    accept(token(iat=NOW + 10))
    refuse(token(iat=NOW + 11), "in the future (iat)")


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [None, "", str(NOW), "soon", True, False, [NOW], {}])
def test_a_time_that_is_not_a_number_is_refused(claim: str, value: object) -> None:
    refuse(token(**{claim: value}), f"the {claim} claim must be a number")


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [-1, -0.5, (NOW + 60) * 1000, 10**40, 1e300, -(10**40)])
def test_a_time_that_no_calendar_shows_is_refused(claim: str, value: float) -> None:
    refuse(token(**{claim: value}), f"the {claim} claim must be seconds, not milliseconds")


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"9" * 5000])
def test_an_exp_that_json_cannot_say_or_no_number_can_hold_is_refused(value: bytes) -> None:
    payload = b'{"sub":"ann","aud":"push","iss":"https://issuer.example","exp":' + value + b"}"
    refuse(compact(b'{"alg":"HS256"}', payload))


@pytest.mark.parametrize("scope", [None, 1, True, ["push.receive", 1], {"push.receive": True}])
def test_a_scope_that_is_neither_a_string_nor_a_list_of_them_is_refused(scope: object) -> None:
    refuse(token(scope=scope), "the scope claim")


@pytest.mark.parametrize("jti", [1, True, ["x"], {}])
def test_a_jti_that_is_not_a_string_is_refused(jti: object) -> None:
    refuse(token(jti=jti), "the jti claim")


@pytest.mark.parametrize(
    "topics", [None, 1, "a.*", ["a.*"], {"subscribe": "a"}, {"x": []}, {"publish": ["a*"]}]
)
def test_a_topics_claim_of_another_shape_is_refused(topics: object) -> None:
    refuse(token(topics=topics), "the topics claim")


def test_a_token_opens_the_topics_that_it_names_and_without_the_claim_none() -> None:
    grants = accept(token(topics={"subscribe": ["scores.*"]})).grants
    assert grants.may_subscribe("scores.nba")
    assert not grants.may_publish("scores.nba")
    assert not accept(token()).grants.may_subscribe("scores.nba")


def test_connections_with_the_same_topics_share_one_object() -> None:
    topics = {"subscribe": ["scores.*"], "publish": ["chat.**"]}
    one, other = (accept(token(topics=topics, sub=user)) for user in ("ann", "bob"))
    assert one.grants is other.grants


# The refusal itself


def test_a_refusal_repeats_nothing_of_a_token_but_the_claims_that_were_looked_at() -> None:
    for text in (
        token({"alg": "sesame"}),
        token({"kid": "ses ame"}),
        token(exp="sesame"),
        token(sub=7, name="sesame"),
        compact(b'{"alg":"HS256"}', b'{"aud":"sesame"}', secret=SECRET[::-1]),
        compact(b"sesame", b"{}"),
    ):
        with pytest.raises(InvalidToken) as caught:
            verifier_of().verify_cached(text)
        assert "sesame" not in str(caught.value).replace(" ", "")
    for claim in ("sub", "aud", "iss"):
        refuse(token(**{claim: "ses\name"}), r"it held 'ses\name'")


async def test_a_source_that_still_lacks_its_keys_after_a_fetch_is_a_passing_failure() -> None:
    class Empty:
        algorithms = ("HS256",)
        setting = "JWT_SECRET"
        fetched = 0

        def find(self, algorithm: str, kid: str | None) -> Check | None:
            assert (algorithm, kid) == ("HS256", None)
            return None

        async def fetch(self) -> None:
            self.fetched += 1

        def start(self) -> None:
            pass

        def missing(self) -> str | None:
            return "nothing there"

        async def aclose(self) -> None:
            pass

    keys = Empty()
    one = Verifier(keys, algorithms=["HS256"], reader=Reader(Rules()), clock=clock)
    assert one.verify_cached(token()) is None
    with pytest.raises(Unavailable) as caught:
        await one.verify(token())
    assert caught.value.retry_after is not None
    assert keys.fetched == 1
    assert one.troubles() == ["nothing there"]
    # of several sources, one that has keys is enough
    assert key_troubles([keys, keys]) == ["nothing there", "nothing there"]
    assert key_troubles([keys, secret_keys([SECRET], ())]) == []


class Watched:
    """Keys that can be exchanged, and say how often a signature was checked."""

    algorithms = ("HS256",)
    setting = "JWT_SECRET"

    def __init__(self) -> None:
        self.checked = 0
        self.use(SECRET)

    def use(self, secret: str) -> None:
        def check(signed: bytes, signature: bytes) -> bool:
            self.checked += 1
            return hmac.digest(secret.encode(), signed, "sha256") == signature

        self._check = check

    def find(self, algorithm: str, kid: str | None) -> Check | None:
        assert (algorithm, kid) == ("HS256", None)
        return self._check

    async def fetch(self) -> None: ...

    def start(self) -> None: ...

    def missing(self) -> str | None: ...

    async def aclose(self) -> None: ...


def watched(now: Callable[[], float] = clock) -> tuple[Watched, Verifier]:
    keys = Watched()
    rules = Rules(audience=("push",))
    return keys, Verifier(keys, algorithms=keys.algorithms, reader=Reader(rules), clock=now)


def test_the_signature_of_a_token_that_comes_again_is_checked_once() -> None:
    keys, verifier = watched()
    text = token()
    first = verifier.verify_cached(text)
    assert [verifier.verify_cached(text) for _ in range(3)] == [first] * 3
    assert keys.checked == 1


def test_a_token_that_comes_again_is_refused_once_its_key_is_another() -> None:
    keys, verifier = watched()
    text = token()
    verifier.verify_cached(text)
    keys.use("another secret")
    for _ in range(2):
        with pytest.raises(InvalidToken, match="signature"):
            verifier.verify_cached(text)
    assert keys.checked == 3
    keys.use(SECRET)
    assert verifier.verify_cached(text) is not None


def test_a_token_that_comes_again_expires_all_the_same() -> None:
    now = NOW
    keys, verifier = watched(lambda: now)
    text = token()
    verifier.verify_cached(text)
    now = NOW + 1000
    with pytest.raises(InvalidToken, match="expired"):
        verifier.verify_cached(text)
    assert keys.checked == 1


def test_no_other_text_passes_for_a_token_that_was_good() -> None:
    _, verifier = watched()
    text = token()
    verifier.verify_cached(text)
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(InvalidToken):
            verifier.verify_cached(changed)


def test_tokens_that_were_good_are_remembered_up_to_a_bound_and_bad_ones_never() -> None:
    keys, verifier = watched()
    texts = [token(jti=str(number)) for number in range(MOST_PROVEN + 1)]
    for text in texts:
        verifier.verify_cached(text)
    assert len(verifier._proven) == MOST_PROVEN
    keys.checked = 0
    verifier.verify_cached(texts[1])
    assert keys.checked == 0
    for bad in (texts[0][:-4] + "AAAA", compact(b'{"alg":"HS256"}', b"[]")):
        for _ in range(2):
            with pytest.raises(InvalidToken):
                verifier.verify_cached(bad)
    assert keys.checked == 4
    verifier.verify_cached(texts[0])
    assert keys.checked == 5


async def test_one_issuer_has_nothing_to_follow() -> None:
    async with asyncio.timeout(5):
        await verifier_of().follow()


@pytest.mark.parametrize("expected", [{"audience": ""}, {"issuer": ""}])
def test_an_expectation_that_an_empty_claim_would_meet_is_an_error(
    expected: dict[str, str],
) -> None:
    with pytest.raises(ValueError, match="not empty"):
        verifier_of(**expected)


# Fuzz


@given(st.text())
def test_arbitrary_text_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(InvalidToken):
        asyncio.run(verifier_of().verify(text))


@given(st.lists(st.text(alphabet="ABCXYZabcxyz0189-_=", max_size=40), min_size=3, max_size=3))
def test_arbitrary_base64_parts_are_refused_and_nothing_else(parts: list[str]) -> None:
    with pytest.raises(InvalidToken):
        verifier_of().verify_cached(".".join(parts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "jku", "typ", "x"]), JSON))
def test_arbitrary_headers_are_refused_or_accepted_and_nothing_else(header: dict[str, Any]) -> None:
    try:
        accept(token(header))
    except InvalidToken:
        return
    assert not header.keys() & {"crit", "jku"}


@given(
    st.dictionaries(
        st.sampled_from(["sub", "aud", "exp", "nbf", "iat", "scope", "jti", "topics"]), JSON
    )
)
def test_arbitrary_signed_claims_are_refused_or_accepted_and_nothing_else(
    payload: dict[str, Any],
) -> None:
    try:
        claims = accept(token(**payload))
    except InvalidToken:
        return
    assert isinstance(claims.user, str)
    assert type(claims.expires) is int


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_arbitrary_signed_bytes_are_refused_and_nothing_else(header: bytes, payload: bytes) -> None:
    with pytest.raises(InvalidToken):
        verifier_of().verify_cached(compact(header, b"{}"))
    with pytest.raises(InvalidToken):
        verifier_of().verify_cached(compact(b'{"alg":"HS256"}', payload))


# Tokens for development


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_minted_token_is_good(algorithm: str) -> None:
    text = mint(
        secret=SECRET,
        user="ann",
        audience="push",
        scopes=[SCOPE_RECEIVE, SCOPE_PUBLISH],
        ttl=60,
        issuer=ISSUER,
        algorithm=algorithm,
        now=NOW + 0.7,
    )
    claims = verifier_of(algorithm).verify_cached(text)
    assert claims is not None
    assert claims.token_id
    assert claims == Claims(
        "ann", NOW + 60, frozenset({SCOPE_RECEIVE, SCOPE_PUBLISH}), NOW, claims.token_id
    )


def test_a_token_is_minted_with_topics_and_not_with_bad_ones() -> None:
    wanted = {"subscribe": ("a.*", "b"), "publish": iter(["c.**"])}
    text = mint(
        secret=SECRET, user="ann", audience="push", ttl=60, issuer=ISSUER, now=NOW, topics=wanted
    )
    assert accept(text).grants == Grants(("a.*", "b"), ("c.**",))
    bad: list[dict[str, list[str]]] = [{"subscribe": ["a*"]}, {"read": ["a"]}]
    for topics in bad:
        with pytest.raises(InvalidToken, match="the topics claim"):
            mint(secret=SECRET, user="ann", audience="push", ttl=60, topics=topics)


def test_no_two_minted_tokens_are_the_same() -> None:
    texts = {mint(secret=SECRET, user="ann", audience="push", ttl=60, now=NOW) for _ in range(50)}
    assert len(texts) == 50


def test_a_minted_token_counts_from_the_wall_clock_unless_told_otherwise() -> None:
    text = mint(secret=SECRET, user="ann", audience="push", ttl=60)
    assert jwt.decode(text, SECRET, algorithms=["HS256"], audience="push")["sub"] == "ann"


def test_a_token_is_not_minted_for_a_user_that_is_no_name() -> None:
    with pytest.raises(InvalidName):
        mint(secret=SECRET, user="ann\n", audience="push", ttl=60)


@pytest.mark.parametrize(
    ("secret", "algorithm"),
    [
        ("s" * 31, "HS256"),
        ("s" * 47, "HS384"),
        ("s" * 63, "HS512"),
        (SECRET, "none"),
        (SECRET, "RS256"),
        ('{"kty": "oct", "k": "c2VjcmV0LXNlY3JldA"}', "HS256"),
    ],
)
def test_a_token_is_not_minted_with_an_unfit_secret_or_algorithm(
    secret: str, algorithm: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the message is checked below
        mint(secret=secret, user="ann", audience="push", ttl=60, algorithm=algorithm)
    assert secret not in str(caught.value)
