"""Which claims are read, and what a refusal says of those that were looked at."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.auth.claims import SHOWN, Reader, Rules, find, shown
from pushsvc.auth.tokens import Claims
from pushsvc.errors import InvalidToken
from pushsvc.protocol.grants import grants

NOW = 1_800_000_000


def read(rules: Rules, **claims: Any) -> Claims:
    """Read a good token, except for what is given; a claim that is given as ... is left out."""
    return Reader(rules).read(payload(**claims), NOW)


def payload(**claims: Any) -> dict[str, Any]:
    given = {"sub": "ann", "aud": "pushsvc", "exp": NOW + 60, **claims}
    return {name: value for name, value in given.items() if value is not ...}


def refusal(rules: Rules, **claims: Any) -> str:
    with pytest.raises(InvalidToken) as caught:
        read(rules, **claims)
    assert "\n" not in caught.value.detail
    assert len(caught.value.detail) < 700
    return caught.value.detail


def test_without_rules_the_claims_are_those_of_the_protocol() -> None:
    claims = read(Rules(), scope="push.publish x", topics={"subscribe": ["a.*"]}, jti="1", iat=5)
    assert claims == Claims(
        "ann", NOW + 60, frozenset({"push.publish", "x"}), 5, "1", grants(["a.*"])
    )
    # others that providers put there mean nothing unless a setting says so
    bare = read(Rules(), scp="push.admin", roles=["push.admin"], permissions=["push.admin"])
    assert bare.scopes == frozenset()


# The user


def test_the_user_may_be_in_another_claim() -> None:
    rules = Rules(user_claim="https://example.com/uid")
    assert read(rules, **{"https://example.com/uid": "u7"}).user == "u7"
    assert read(Rules(user_claim="app.user.id"), app={"user": {"id": "u7"}}).user == "u7"
    assert "'x'" not in refusal(rules, uid="x")
    told = refusal(Rules(user_claim="uid"), uid=7)
    assert told.startswith("the uid claim must be a string of")
    assert told.endswith("(JWT_USER_CLAIM): it held a number")
    assert refusal(rules).endswith("it is missing")


# Scopes


@pytest.mark.parametrize(
    ("names", "claims"),
    [
        (("scp",), {"scp": ["push.publish"]}),
        (("scp",), {"scp": "push.publish"}),
        (("scope",), {"scope": ["push.publish"]}),
        (("roles",), {"roles": ["push.publish", "other"]}),
        (("permissions",), {"permissions": ["push.publish"]}),
        (("scope", "scp"), {"scope": "openid", "scp": ["push.publish"]}),
        (("realm_access.roles",), {"realm_access": {"roles": ["push.publish"]}}),
        (
            ("resource_access.com.example.push.roles",),
            {"resource_access": {"com.example.push": {"roles": ["push.publish"]}}},
        ),
    ],
)
def test_scopes_are_read_where_a_setting_says(
    names: tuple[str, ...], claims: dict[str, Any]
) -> None:
    assert "push.publish" in read(Rules(scope_claims=names), **claims).scopes
    assert read(Rules(scope_claims=("elsewhere",)), **claims).scopes == frozenset()


def test_what_stands_in_a_list_is_one_scope_whatever_is_in_it() -> None:
    rules = Rules(scope_claims=("roles",))
    roles = ["cannot push.admin", "push.publish ", "x"]
    assert read(rules, roles=roles).scopes == set(roles)
    most = Rules(scope_claims=("roles",), max_scopes=frozenset({"push.admin"}))
    assert read(most, roles=roles).scopes == frozenset()
    prefixed = Rules(scope_claims=("roles",), scope_prefix=("cannot",))
    assert "push.admin" not in read(prefixed, roles=roles).scopes


@pytest.mark.parametrize("scope", ["push/push.publish", "api://x/push.publish", "push.publish"])
def test_a_prefix_is_taken_off_a_scope_that_has_it(scope: str) -> None:
    rules = Rules(scope_prefix=("push/", "api://x/"))
    assert read(rules, scope=scope).scopes == {"push.publish"}
    assert read(rules, scope=[scope]).scopes == {"push.publish"}


def test_of_prefixes_that_fit_the_longest_is_taken_off_and_only_once() -> None:
    rules = Rules(scope_prefix=("a/", "a/b/"))
    assert read(rules, scope="a/b/push.admin a/a/x").scopes == {"push.admin", "a/x"}


def test_an_issuer_grants_no_more_scopes_than_it_may() -> None:
    rules = Rules(max_scopes=frozenset({"push.publish"}), scope_prefix=("p/",))
    assert read(rules, scope="push.admin p/push.publish").scopes == {"push.publish"}
    assert read(rules, scope="p/push.admin other").scopes == frozenset()
    assert read(Rules(max_scopes=frozenset()), scope="push.admin").scopes == frozenset()


@pytest.mark.parametrize("scope", [None, 1, True, {"a": 1}, ["a", 1], [["a"]]])
def test_a_scope_claim_of_another_shape_is_refused_by_its_name(scope: object) -> None:
    told = refusal(Rules(scope_claims=("scope", "scp")), scp=scope)
    assert told.startswith("the scp claim must be one string")
    assert "(JWT_SCOPE_CLAIMS)" in told


def test_what_was_looked_at_for_scopes_is_told_with_its_setting() -> None:
    told = Reader(Rules()).looked_at(payload(scope="read:x"))
    assert told == "looked at scope, which held 'read:x' (JWT_SCOPE_CLAIMS)"
    rules = Rules(
        name="backends",
        scope_claims=("scp", "realm_access.roles"),
        scope_prefix=("push/",),
        max_scopes=frozenset({"push.publish"}),
    )
    told = Reader(rules).looked_at(payload(realm_access={"roles": ["a", 1]}))
    assert told == (
        "looked at scp, which is missing and realm_access.roles, which held ['a', a number] "
        "(scope_claims of issuers.backends in AUTH_FILE); 'push/' is taken off (scope_prefix of "
        "issuers.backends in AUTH_FILE); allowed at most: push.publish (max_scopes of "
        "issuers.backends in AUTH_FILE)"
    )


# The audience


def test_a_missing_audience_names_the_setting_of_its_claim_too() -> None:
    told = refusal(Rules(), aud=...)
    assert told == (
        "the aud claim must be or contain exactly 'pushsvc' (JWT_AUDIENCE): it is missing; another "
        "claim is looked at with JWT_AUDIENCE_CLAIM"
    )
    assert "JWT_AUDIENCE_CLAIM" not in refusal(Rules(), aud="x")
    told = refusal(Rules(name="a"), aud=...)
    assert told.endswith("looked at with audience_claim of issuers.a in AUTH_FILE")


# Topics


def test_topics_may_be_in_another_claim_nested_or_named_by_an_address() -> None:
    topics = {"subscribe": ["a.*"]}
    for claim, claims in (
        ("https://example.com/push", {"https://example.com/push": topics}),
        ("https://example.com/push.topics", {"https://example.com/push": {"topics": topics}}),
        ("app.push.topics", {"app": {"push": {"topics": topics}}}),
    ):
        granted = read(Rules(topics_claim=claim), **claims).grants
        assert granted.may_subscribe("a.b")
        assert f"looked at {claim} (JWT_TOPICS_CLAIM)" in granted.why_not("publish")
        assert not read(Rules(topics_claim=claim), topics=topics).grants.may_subscribe("a.b")
    told = refusal(Rules(topics_claim="t"), t=["a.*"])
    assert told.endswith("looked at t (JWT_TOPICS_CLAIM)")


def test_an_issuer_opens_no_more_topics_than_it_may() -> None:
    most = grants(["a.**"], ["a.in.*"], "max_topics of issuers.x in AUTH_FILE")
    rules = Rules(name="x", max_topics=most)
    granted = read(rules, topics={"subscribe": ["*.b", "**"], "publish": ["a.*.c", "z"]}).grants
    assert granted.may_subscribe("a.b")
    assert not granted.may_subscribe("b.b")
    assert granted.may_publish("a.in.c")
    assert not granted.may_publish("a.out.c")
    assert not granted.may_publish("z")
    assert granted.why_not("publish") == (
        "looked at topics (topics_claim of issuers.x in AUTH_FILE), whose publish is 'a.*.c', "
        "'z', and at max_topics of issuers.x in AUTH_FILE, whose publish is 'a.in.*'"
    )
    assert not read(rules).grants.may_subscribe("a.b")


# Audience, issuer, what is required


def test_any_of_several_audiences_is_good() -> None:
    rules = Rules(audience=("a", "b"))
    for good in ("a", "b", ["x", "b"]):
        assert read(rules, aud=good).user == "ann"
    for audience in ("c", "", None, ["c"], [], {}, {"a": 1}, ["a", 1], ...):
        told = refusal(rules, aud=audience)
        assert told.startswith("the aud claim must be or contain one of 'a', 'b' (JWT_AUDIENCE)")


def test_the_audience_may_be_in_another_claim_or_on_purpose_in_none() -> None:
    rules = Rules(audience=("client-1",), audience_claim="client_id")
    assert read(rules, aud=..., client_id="client-1").user == "ann"
    told = refusal(rules, aud="client-1", client_id="client-2")
    assert told == (
        "the client_id claim must be or contain exactly 'client-1' (JWT_AUDIENCE): it held "
        "'client-2'"
    )
    for audience in (..., "any", 7):
        assert read(Rules(audience=(), audience_claim=None), aud=audience).user == "ann"


@pytest.mark.parametrize("rules", [Rules(audience=()), Rules(audience=("a", "")), Rules(issuer="")])
def test_an_expectation_that_an_empty_claim_would_meet_is_an_error(rules: Rules) -> None:
    with pytest.raises(ValueError, match="not empty"):
        Reader(rules)


def test_a_token_without_iss_is_told_from_one_with_any() -> None:
    assert read(Rules(any_issuer=False)).user == "ann"
    for issuer in ("https://x", None, 7, ""):
        told = refusal(Rules(any_issuer=False), iss=issuer)
        assert told.startswith("the iss claim must not be there")
        assert read(Rules(), iss=issuer).user == "ann"


def test_required_claims_must_hold_one_of_their_values() -> None:
    rules = Rules(name="c", require=(("token_use", ("access",)), ("verified", (True,))))
    assert read(rules, token_use="access", verified=True).user == "ann"
    assert read(rules, token_use=["id", "access"], verified=True).user == "ann"
    assert refusal(rules, token_use="id", verified=True) == (
        "the token_use claim must hold 'access' (require of issuers.c in AUTH_FILE): it held 'id'"
    )
    for verified in (1, "true", None, ..., [1]):
        assert "must hold true" in refusal(rules, token_use="access", verified=verified)


def test_the_issuer_says_what_its_tokens_are_names_in() -> None:
    rules = Rules(name="eu", issuer="https://eu/", namespace="tenant-1", operator=True)
    claims = read(rules, iss="https://eu/")
    assert (claims.issuer, claims.namespace, claims.operator) == ("https://eu/", "tenant-1", True)


# Paths


def test_a_claim_that_has_the_whole_name_wins() -> None:
    assert find({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert find({"a.b": {"c": 1}, "a": {"b": {"c": 2}}}, "a.b.c") == 1
    assert find({"a": {"b": {"c": 2}}}, "a.b.c") == 2
    assert find({"a.b": None, "a": {"b": 2}}, "a.b") is None


@pytest.mark.parametrize("value", [{}, {"a": 1}, {"a": []}, {"a": {"b": {}}}, {"a": None}])
def test_a_path_that_leads_nowhere_finds_nothing(value: dict[str, Any]) -> None:
    assert find(value, "a.b.c") is find({}, "x")


# What is told


def test_what_a_claim_holds_is_told_short_and_on_one_line() -> None:
    assert shown("a" * 1000) == f"'{'a' * (SHOWN - 1)}…"
    assert shown("a\nb\u202e\ud800") == r"'a\nb\u202e\ud800'"
    assert shown([None, True, 10**5000, 1.5, {}, []]) == (
        "[null, true, a number, a number, an object, a list]"
    )
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "[a list]"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_whatever_a_claim_holds_is_told_in_so_many_printable_characters(value: object) -> None:
    told = shown(value)
    assert len(told) <= SHOWN + 1
    assert told.isprintable()
