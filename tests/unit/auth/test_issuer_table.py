"""What may stand in the file of issuers, and the one line that says what may not."""

import pytest

from pushsvc.auth.issuer_table import MAX_FILE, AuthFileError, parse

SECRET = "0123456789abcdef" * 4


def refusal(text: str) -> str:
    with pytest.raises(AuthFileError) as caught:
        parse(text.encode())
    told = str(caught.value)
    assert "\n" not in told
    assert SECRET not in told
    return told


def entry(lines: str = "", name: str = "a", source: str = f'secret = "{SECRET}"') -> str:
    return f"[issuers.{name}]\n{source}\n{lines}\n"


def test_an_entry_has_the_defaults_of_the_variables() -> None:
    (one,) = parse(entry().encode())
    rules = one.rules
    assert (rules.name, rules.issuer, rules.any_issuer) == ("a", None, False)
    assert (rules.audience, rules.audience_claim) == (("pushsvc",), "aud")
    assert (rules.user_claim, rules.scope_claims, rules.topics_claim) == (
        "sub",
        ("scope",),
        "topics",
    )
    assert (rules.max_scopes, rules.max_topics, rules.require) == (None, None, ())
    assert (rules.namespace, rules.operator, one.shared_users) == ("", False, False)
    assert (one.source.kind, one.source.values) == ("secret", (SECRET,))
    assert SECRET not in repr(one)


def test_an_entry_says_all_that_its_tokens_are_read_by() -> None:
    (one,) = parse(b"""
        [issuers.customers]
        issuer = "https://example.eu.auth0.com/"
        discovery = true
        algorithms = ["RS256"]
        audience = ["a", "b"]
        audience_claim = "client_id"
        user_claim = "app.uid"
        scope_claims = ["scp", "realm_access.roles"]
        scope_prefix = "push/"
        topics_claim = "https://example.com/push"
        require = {token_use = "access", verified = [true, "yes"]}
        max_scopes = ["push.publish"]
        max_topics = {subscribe = ["a.**"]}
        namespace = "tenant-1"
        operator = true
        shared_users = true
    """)
    rules = one.rules
    assert rules.audience == ("a", "b")
    assert rules.audience_claim == "client_id"
    assert rules.user_claim == "app.uid"
    assert rules.scope_claims == ("scp", "realm_access.roles")
    assert rules.scope_prefix == ("push/",)
    assert rules.topics_claim == "https://example.com/push"
    assert rules.require == (("token_use", ("access",)), ("verified", (True, "yes")))
    assert rules.max_scopes == frozenset({"push.publish"})
    assert rules.max_topics is not None
    assert rules.max_topics.may_subscribe("a.b")
    assert not rules.max_topics.may_publish("a.b")
    assert (rules.namespace, rules.operator, one.shared_users) == ("tenant-1", True, True)
    assert (one.source.kind, one.source.algorithms) == ("discovery", ("RS256",))
    assert one.source.values == ("https://example.eu.auth0.com/",)


def test_what_may_be_a_list_may_be_one() -> None:
    (one,) = parse(entry('algorithms = "HS512"\nmax_scopes = "push.publish"').encode())
    assert one.source.algorithms == ("HS512",)
    assert one.rules.max_scopes == frozenset({"push.publish"})


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("audeince = 'x'", "issuers.a: 'audeince' is not a key: did you mean audience?"),
        ("audience = 7", "issuers.a: audience has the wrong type: Expected `str | array`, got"),
        ("audience = []", "issuers.a: audience is empty"),
        ("audience = ['']", "issuers.a: audience has what is not 1 to 255 printable"),
        ("audience = 'x'\naudience_claim = 'none'", "issuers.a: audience is set and"),
        ("issuer = ''", "issuers.a: issuer has what is not"),
        ("issuer = 1", "issuers.a: issuer has the wrong type"),
        ("operator = 'yes'", "issuers.a: operator has the wrong type"),
        ("user_claim = ''", "issuers.a: user_claim '' is not the name of a claim"),
        ("scope_claims = []", "issuers.a: scope_claims is empty"),
        (f"topics_claim = '{'.'.join('a' * 17)}'", "more than 16 parts between dots"),
        ("require = {a = []}", "issuers.a: require allows 'a' no value"),
        ("require = {a = 1}", "issuers.a: require has the wrong type"),
        ("max_scopes = ['push.all']", "issuers.a: max_scopes has 'push.all', not one of push.adm"),
        ("max_topics = {read = ['a']}", "issuers.a: max_topics has 'read': it has subscribe and"),
        ("max_topics = {publish = ['a*']}", "issuers.a: max_topics is refused: each of"),
        ("namespace = ''", "issuers.a: namespace is not 1 to 63"),
        ("namespace = '-a'", "issuers.a: namespace is not 1 to 63"),
        ("namespace = 'A'", "issuers.a: namespace is not 1 to 63"),
        (f"namespace = '{'a' * 64}'", "issuers.a: namespace is not 1 to 63"),
        ("jwks_url = 'https://x'", "issuers.a: set one of jwks_url, discovery, public_key_file"),
    ],
)
def test_what_is_wrong_is_told_by_entry_and_key(lines: str, told: str) -> None:
    assert told in refusal(entry(lines))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "not none"),
        ("discovery = false", "not none"),
        ("discovery = true", "issuers.a: discovery needs issuer"),
        ("secret = ''", "issuers.a: secret is empty"),
        ("secrets = []", "issuers.a: secrets is empty"),
        ("secret_file = ['a', '']", "issuers.a: secret_file is empty"),
        ("secrets = 'x'", "issuers.a: secrets has the wrong type"),
    ],
)
def test_an_entry_has_one_source_of_keys(source: str, told: str) -> None:
    assert told in refusal(entry(source=source))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no issuer"),
        ("issuers = 1", "names no issuer"),
        ("[issuers]\na = 1", "issuers.a is not a table"),
        ("[issuer.a]", "has 'issuer': write each issuer as [issuers.<name>]"),
        (f"secret = {SECRET}", "is not TOML: "),
        (entry(name="'a b'"), "the name is not 1 to 64 characters"),
        ("x = " + "[" * 100_000, "is nested too deeply"),
        ("#" * (MAX_FILE + 1), f"has more than {MAX_FILE} bytes"),
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, told: str) -> None:
    assert told in refusal(text)


def test_a_file_is_utf_8() -> None:
    with pytest.raises(AuthFileError, match="is not UTF-8"):
        parse(b"\xff")


def test_two_entries_cannot_have_the_same_issuer_or_none() -> None:
    both = entry("issuer = 'x'\nnamespace = 'm'") + entry("issuer = 'x'\nnamespace = 'n'", "b")
    assert refusal(both) == "issuers.b: issuer is that of issuers.a"
    neither = entry("namespace = 'm'") + entry("namespace = 'n'", "b")
    assert refusal(neither) == "issuers.b: issuer is missing, as it is of issuers.a"


@pytest.mark.parametrize("where", ["", "namespace = 'm'\n"])
def test_issuers_share_users_only_where_all_of_them_say_so(where: str) -> None:
    shared = where + "shared_users = true\n"
    apart = entry(where) + entry(where + "issuer = 'x'", "b")
    one = entry(shared) + entry(where + "issuer = 'x'", "b")
    for text, name in ((apart, "a"), (one, "b")):
        told = refusal(text)
        assert told.startswith(f"issuers.{name}: shared_users is not true: issuers.a and issuers.b")
        assert "could speak for the users of the others" in told
    assert len(parse((entry(shared) + entry(shared + "issuer = 'x'", "b")).encode())) == 2
    assert len(parse((entry(where) + entry("issuer = 'x'\nnamespace = 'z'", "b")).encode())) == 2
