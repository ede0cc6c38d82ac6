from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pushsvc.settings import (
    Durability,
    RedisURL,
    Settings,
    SettingsError,
    document,
    load,
    rows,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
SECRET = "correct horse battery staple, 32 bytes"


def refusal(environ: Mapping[str, str], **overrides: object) -> str:
    """The one line with which these settings are refused."""
    with pytest.raises(SettingsError) as refused:
        load(environ, overrides)
    line = str(refused.value)
    assert line == f"{refused.value.variable}: {refused.value.message}"
    assert line.splitlines() == [line]
    return line


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load({}, {})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.admin_port) == ("0.0.0.0", 8080, 9090)
    assert settings.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.durability is Durability.MEMORY
    assert settings.jwt_secret is None
    assert settings.allowed_origins == ()
    assert settings.log_format is None


def test_variables_are_read_and_typed() -> None:
    settings = load(
        {
            "PUSHSVC_PORT": "0",
            "PUSHSVC_HEARTBEAT_SECONDS": "1.5",
            "PUSHSVC_DURABILITY": "replica",
            "PUSHSVC_JWT_ALGORITHMS": "RS256, EdDSA",
            "PUSHSVC_JWT_SECRET": SECRET,
            "PUSHSVC_JWT_PUBLIC_KEY_FILE": "/etc/key.pem",
            "PUSHSVC_LOG_FORMAT": "json",
        },
        {},
    )
    assert settings.port == 0
    assert settings.heartbeat_seconds == 1.5
    assert settings.durability is Durability.REPLICA
    assert settings.jwt_algorithms == ("RS256", "EdDSA")
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == SECRET
    assert settings.jwt_public_key_file == Path("/etc/key.pem")
    assert settings.log_format == "json"


def test_flags_win_over_variables_and_none_is_not_given() -> None:
    environ = {"PUSHSVC_PORT": "1", "PUSHSVC_WORKERS": "2"}
    settings = load(environ, {"port": "3", "workers": None})
    assert (settings.port, settings.workers) == (3, 2)


def test_empty_variables_count_as_not_set() -> None:
    environ = {row.variable: "" for row in rows()}
    del environ["PUSHSVC_JWT_AUDIENCE"]
    assert load(environ, {}) == Settings()


def test_no_user_alone_fills_a_topic_for_everybody() -> None:
    default = load({}, {})
    assert default.client_bytes_per_topic >= 4 * default.client_bytes_per_user > 0


def test_an_empty_audience_means_neither_the_default_nor_any() -> None:
    for environ, flags in (({"PUSHSVC_JWT_AUDIENCE": ""}, {}), ({}, {"jwt_audience": " , "})):
        with pytest.raises(SettingsError, match="JWT_AUDIENCE_CLAIM to none") as caught:
            load(environ, flags)
        assert "is empty" in caught.value.message
        assert load(environ | {"PUSHSVC_JWT_AUDIENCE_CLAIM": "none"}, flags).jwt_audience == ()


def test_claims_and_audiences_are_lists_separated_by_commas() -> None:
    settings = load(
        {
            "PUSHSVC_JWT_AUDIENCE": "a, https://b.example/",
            "PUSHSVC_JWT_SCOPE_CLAIMS": "scope, realm_access.roles",
            "PUSHSVC_JWT_SCOPE_PREFIX": "push/,api://x/",
        },
        {},
    )
    assert settings.jwt_audience == ("a", "https://b.example/")
    assert settings.jwt_scope_claims == ("scope", "realm_access.roles")
    assert settings.jwt_scope_prefix == ("push/", "api://x/")


@pytest.mark.parametrize("claim", ["x" * 256, "a\tb", ".".join("a" * 17)])
@pytest.mark.parametrize("setting", ["USER_CLAIM", "SCOPE_CLAIMS", "TOPICS_CLAIM"])
def test_a_claim_has_a_name_of_bounded_length_and_depth(setting: str, claim: str) -> None:
    with pytest.raises(SettingsError, match=f"JWT_{setting}"):
        load({f"PUSHSVC_JWT_{setting}": claim}, {})


def test_only_the_given_mapping_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSHSVC_PORT", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PUSHSVC_PORT=2\n")
    assert load({}, {}).port == Settings().port == 8080


def test_names_are_matched_exactly_and_others_are_left_alone() -> None:
    assert load({"pushsvc_port": "1", "PORT": "2", "PATH": "/bin"}, {}) == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load({}, {}).port = 1


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("PORT", "abc", "PUSHSVC_PORT: 'abc' is not an integer"),
        ("PORT", "1.5", "PUSHSVC_PORT: '1.5' is not an integer"),
        ("PORT", "65536", "PUSHSVC_PORT: '65536' is more than 65535"),
        ("ACK_WINDOW", "0", "PUSHSVC_ACK_WINDOW: '0' is less than 1"),
        ("LEASE_SECONDS", "0.5", "PUSHSVC_LEASE_SECONDS: '0.5' is less than 1"),
        ("LEASE_SECONDS", "soon", "PUSHSVC_LEASE_SECONDS: 'soon' is not a number"),
        ("LEASE_SECONDS", "nan", "PUSHSVC_LEASE_SECONDS: 'nan' is not a number"),
        ("DURABILITY", "disk", "PUSHSVC_DURABILITY: 'disk' is not one of memory, replica, fsync"),
        (
            "LOG_LEVEL",
            "INFO",
            "PUSHSVC_LOG_LEVEL: 'INFO' is not one of debug, info, warning, error",
        ),
        (
            "REDIS_PREFIX",
            "{push}",
            "PUSHSVC_REDIS_PREFIX: '{push}' is not 1 to 32 of the characters A-Z a-z 0-9 . _ : -",
        ),
        (
            "ALLOWED_ORIGINS",
            "https://a.example, https://b.example/",
            (
                "PUSHSVC_ALLOWED_ORIGINS: 'https://b.example/' is not an origin:"
                " write scheme://host[:port] without a path, or *"
            ),
        ),
        (
            "HOST",
            "a\nb",
            "PUSHSVC_HOST: 'a\\nb' contains a control character, or white space around it",
        ),
    ],
)
def test_a_bad_value_is_told_in_one_line_that_names_the_variable(
    variable: str, value: str, line: str
) -> None:
    assert refusal({f"PUSHSVC_{variable}": value}) == line


def test_a_bad_flag_is_told_by_the_name_of_the_flag() -> None:
    assert refusal({}, admin_port="x") == "--admin-port: 'x' is not an integer"
    assert refusal({}, colour="red") == "--colour: is not a setting"


def test_long_values_are_cut() -> None:
    line = refusal({"PUSHSVC_PORT": "x" * 10_000})
    assert line.endswith("xxx… is not an integer")
    assert len(line) < 150


@pytest.mark.parametrize("algorithm", ["none", "rs256", "ES521"])
def test_only_real_signature_algorithms_are_taken(algorithm: str) -> None:
    line = refusal({"PUSHSVC_JWT_ALGORITHMS": f"RS256,{algorithm}"})
    assert line.startswith(f"PUSHSVC_JWT_ALGORITHMS: '{algorithm}' is not one of HS256, ")


def test_unknown_variables_are_refused_with_the_likely_name() -> None:
    assert (
        refusal({"PUSHSVC_ALOWED_ORIGINS": "*"})
        == "PUSHSVC_ALOWED_ORIGINS: is not a setting: did you mean PUSHSVC_ALLOWED_ORIGINS?"
    )
    assert refusal({"PUSHSVC_port": "1"}).endswith("did you mean PUSHSVC_PORT?")
    assert refusal({"PUSHSVC_QQQQQ": "1"}) == "PUSHSVC_QQQQQ: is not a setting"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUSHSVC_PORT", "tcp://10.0.0.1:8080"),
        ("PUSHSVC_SERVICE_HOST", "10.0.0.1"),
        ("PUSHSVC_SERVICE_PORT", "8080"),
        ("PUSHSVC_SERVICE_PORT_HTTP", "8080"),
        ("PUSHSVC_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PUSHSVC_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PUSHSVC_ADMIN_PORT", "tcp://10.0.0.1:9090"),
        ("PUSHSVC_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("PUSHSVC_REDIS_PORT_6379_TCP_PROTO", "tcp"),
    ],
)
def test_kubernetes_service_links_are_told_apart_from_mistakes(name: str, value: str) -> None:
    line = refusal({name: value, "PUSHSVC_ALOWED_ORIGINS": "*"})
    assert line == (
        f"{name}: comes from a Kubernetes Service of that name, not from you:"
        " set `enableServiceLinks: false` on the pod"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://user:p%40ss@localhost:6379/15",
        "rediss://[::1]:6380/1",
        "unix:///run/valkey.sock?db=1",
        "unix://:password@/run/valkey.sock",
        "redis+sentinel://a:26379,b:26379,[::1]:26379/mymaster",
        "rediss+sentinel://:password@a:26379/mymaster",
        "redis+cluster://a:7000,b:7001",
        "rediss+cluster://user:password@a:7000/0",
    ],
)
def test_redis_urls_of_every_kind_are_taken_as_they_are(url: str) -> None:
    assert load({"PUSHSVC_REDIS_URL": url}, {}).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "REDIS://localhost",
        "redis://",
        "redis:///0",
        "redis://localhost:port",
        "redis://localhost:0",
        "redis://localhost:65536",
        "redis://localhost/zero",
        "redis://a:1,b:2",
        "redis://us@er:hunter2@localhost",
        "redis://lo cal",
        "redis://localhost\n",
        "redis://localhost?x=\n",
        "redis://localhost?ssl_cert_reqs=none",
        "redis://localhost?password=hunter2",
        "redis+cluster://a:7000?ssl_ca_certs=/ca.pem",
        "unix:///run/valkey.sock?db=x",
        "unix:///run/valkey.sock?password=hunter2",
        "unix://relative.sock",
        "redis+sentinel://a:26379",
        "redis+sentinel://a/mymaster",
        "redis+cluster://a:7000/1",
        "redis+cluster://a:7000,b:70000",
        "redis+cluster://",
    ],
)
def test_malformed_redis_urls_are_refused_without_showing_them(url: str) -> None:
    line = refusal({"PUSHSVC_REDIS_URL": url})
    assert line.startswith("PUSHSVC_REDIS_URL: the value (not shown) ")
    assert "hunter2" not in line


def test_a_redis_url_without_a_scheme_is_told_which_to_write() -> None:
    assert "put redis:// before it" in refusal({"PUSHSVC_REDIS_URL": "localhost:6379"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:hunter2@localhost", "redis://user:***@localhost"),
        ("redis://:hunter2@localhost", "redis://:***@localhost"),
        ("redis://hunter2@localhost", "redis://***@localhost"),
        ("redis://user:x:hunter2@localhost", "redis://user:***@localhost"),
        ("unix://:hunter2@/run/a@b.sock", "unix://:***@/run/a@b.sock"),
        ("redis+cluster://u:hunter2@a:1,b:2", "redis+cluster://u:***@a:1,b:2"),
    ],
)
def test_the_password_of_a_redis_url_is_masked(url: str, shown: str) -> None:
    settings = load({"PUSHSVC_REDIS_URL": url}, {})
    assert str(settings.redis_url) == shown
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert shown in text
        assert "hunter2" not in text


def test_secrets_are_in_no_representation_and_in_no_error() -> None:
    assert SECRET not in repr(load({"PUSHSVC_JWT_SECRET": SECRET}, {}))
    line = refusal({"PUSHSVC_JWT_SECRET": "hunter2"})
    assert line == "PUSHSVC_JWT_SECRET: the value (not shown) is shorter than 32 bytes"
    with pytest.raises(ValidationError) as refused:
        Settings(redis_url=RedisURL("http://:hunter2@localhost"))
    assert "hunter2" not in str(refused.value)


def test_the_cause_of_an_error_is_not_chained_because_it_knows_the_value() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"PUSHSVC_JWT_SECRET": "hunter2"}, {})
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["ftp://a/jwks", "https://", "a/jwks", "https://a:b/jwks", "https://a\n/jwks"]
)
def test_malformed_key_set_urls_are_refused(url: str) -> None:
    assert "is not an http:// or https:// URL" in refusal({"PUSHSVC_JWT_JWKS_URL": url})


def test_a_key_set_url_with_a_password_is_refused_without_showing_it() -> None:
    line = refusal({"PUSHSVC_JWT_JWKS_URL": "https://user:hunter2@a.example/jwks"})
    assert "hunter2" not in line


def test_origins_are_written_the_way_browsers_send_them() -> None:
    origins = (
        "*, HTTPS://A.Example:443 ,http://b:080,http://[::1]:3000,,https://c:8443,app://x,"
        "http://LOCALHOST:*"
    )
    assert load({"PUSHSVC_ALLOWED_ORIGINS": origins}, {}).allowed_origins == (
        "*",
        "https://a.example",
        "http://b",
        "http://[::1]:3000",
        "https://c:8443",
        "app://x",
        "http://localhost:*",
    )


@pytest.mark.parametrize(
    "origin",
    [
        "a.example",
        "null",
        "https://*.a.example",
        "https://a?x",
        "https://a:0",
        "//a",
        "https://a:8*",
        "*:*",
    ],
)
def test_what_is_not_an_origin_is_refused(origin: str) -> None:
    assert "is not an origin" in refusal({"PUSHSVC_ALLOWED_ORIGINS": origin})


def test_every_default_is_a_value_that_can_be_given() -> None:
    environ = {row.variable: row.default for row in rows()}
    assert load(environ, {}) == Settings()
    assert load({}, {row.field: row.default for row in rows() if row.default}) == Settings()


def test_every_row_is_complete() -> None:
    assert [row.field for row in rows()] == list(Settings.model_fields)
    for row in rows():
        assert row.variable == "PUSHSVC_" + row.field.upper()
        assert row.flag in (None, "--" + row.field.replace("_", "-"))
        assert row.help.endswith(".")
        assert "|" not in row.help
        kind = Settings.model_fields[row.field].annotation
        is_number = bool({int, float} & {kind, *get_args(kind)})
        assert (row.bounds is not None) == is_number, row.field
        if row.field.endswith("_seconds"):
            assert "econds" in row.help
        if row.field.endswith("_bytes"):
            assert "ytes" in row.help


def test_the_secrets_have_no_flag_because_arguments_are_public() -> None:
    assert [row.field for row in rows() if row.flag is None] == ["jwt_secret", "webhook_secret"]


def test_receipts_are_sent_on_with_an_address_and_a_secret_or_not_at_all() -> None:
    url, secret = "https://example.com/hooks?key=1", "whsec_" + "A" * 32
    settings = load({"PUSHSVC_WEBHOOK_URL": url, "PUSHSVC_WEBHOOK_SECRET": secret}, {})
    assert settings.webhook_url == url
    assert settings.webhook_secret is not None
    assert secret not in repr(settings)
    assert refusal({"PUSHSVC_WEBHOOK_URL": url}) == (
        "PUSHSVC_WEBHOOK_SECRET: the value (not shown) is empty and PUSHSVC_WEBHOOK_URL is set: "
        "set both or neither"
    )
    assert refusal({"PUSHSVC_WEBHOOK_SECRET": secret}) == (
        "PUSHSVC_WEBHOOK_SECRET: the value (not shown) is set and PUSHSVC_WEBHOOK_URL is empty: "
        "set both or neither"
    )


VAPID = {"PUSHSVC_PUSH_VAPID_KEY_FILE": "v.pem", "PUSHSVC_PUSH_VAPID_SUBJECT": "mailto:a@b.example"}
APNS = {
    "PUSHSVC_PUSH_APNS_KEY_FILE": "a.p8",
    "PUSHSVC_PUSH_APNS_KEY_ID": "ABC123DEFG",
    "PUSHSVC_PUSH_APNS_TEAM_ID": "DEF123GHIJ",
}


def test_pushes_need_nothing_and_take_what_is_given() -> None:
    settings = load({}, {})
    assert settings.push_after_seconds is None
    assert (settings.push_hosts, settings.push_content) == ((), "full")
    assert settings.push_allow_private is False
    settings = load(
        {
            **VAPID,
            **APNS,
            "PUSHSVC_PUSH_FCM_CREDENTIALS_FILE": "f.json",
            "PUSHSVC_PUSH_AFTER_SECONDS": "0",
            "PUSHSVC_PUSH_HOSTS": "Push.Example.com, *.example.org ,*",
            "PUSHSVC_PUSH_ALLOW_PRIVATE": "true",
            "PUSHSVC_PUSH_CONTENT": "ids",
            "PUSHSVC_PUSH_APNS_URL": "https://localhost:2197",
        },
        {},
    )
    assert settings.push_vapid_key_file == Path("v.pem")
    assert settings.push_vapid_subject == "mailto:a@b.example"
    assert (settings.push_apns_key_id, settings.push_apns_team_id) == ("ABC123DEFG", "DEF123GHIJ")
    assert settings.push_after_seconds == 0
    assert settings.push_hosts == ("push.example.com", "*.example.org", "*")
    assert settings.push_allow_private is True
    assert settings.push_content == "ids"


@pytest.mark.parametrize("missing", sorted({**VAPID, **APNS}))
def test_a_key_of_pushes_without_its_counterpart_is_refused(missing: str) -> None:
    given = {name: value for name, value in {**VAPID, **APNS}.items() if name != missing}
    line = refusal(given)
    assert missing in line
    assert line.endswith("set both or neither")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AFTER_SECONDS", "2592001", "is more than 2592000"),
        ("AFTER_SECONDS", "-1", "is less than 0"),
        ("AFTER_SECONDS", "soon", "is not a number"),
        ("HOSTS", "https://a.example", "is not a host such as push.example.com"),
        ("HOSTS", "a.example:443", "is not a host such as push.example.com"),
        ("HOSTS", "a.*.example", "is not a host such as push.example.com"),
        ("HOSTS", "*example", "is not a host such as push.example.com"),
        ("HOSTS", "-a.example", "is not a host such as push.example.com"),
        ("ALLOW_PRIVATE", "perhaps", "'perhaps' is not one of true, false"),
        ("CONTENT", "none", "'none' is not one of full, ids"),
        ("APNS_URL", "localhost", "is not an http:// or https:// URL"),
        ("FCM_URL", "ftp://a", "is not an http:// or https:// URL"),
    ],
)
def test_what_cannot_be_meant_of_pushes_is_refused(variable: str, value: str, said: str) -> None:
    line = refusal({f"PUSHSVC_PUSH_{variable}": value})
    assert line.startswith(f"PUSHSVC_PUSH_{variable}: ")
    assert said in line


@pytest.mark.parametrize("subject", ["a@b.example", "mailto:", "http://a.example", "mailto:a b@c"])
def test_who_sends_pushes_is_a_mail_address_or_a_page(subject: str) -> None:
    line = refusal({**VAPID, "PUSHSVC_PUSH_VAPID_SUBJECT": subject})
    assert line.startswith("PUSHSVC_PUSH_VAPID_SUBJECT: ")
    assert "write mailto: and a mail address" in line
    for good in ("mailto:a@b.example", "https://a.example/contact?x=1", "https://a.example"):
        assert load({**VAPID, "PUSHSVC_PUSH_VAPID_SUBJECT": good}, {}).push_vapid_subject == good


@pytest.mark.parametrize("name", ["KEY_ID", "TEAM_ID"])
@pytest.mark.parametrize("value", ["ABC123DEF", "abc123defg", "ABC123DEFGH"])
def test_ids_of_apple_are_told_apart_from_what_is_none(name: str, value: str) -> None:
    line = refusal({**APNS, f"PUSHSVC_PUSH_APNS_{name}": value})
    assert "is not 10 characters A-Z and 0-9" in line


@pytest.mark.parametrize("url", ["ftp://a/b", "https://", "https://u:p@a/b", "http://a b", "/x"])
def test_a_webhook_address_is_an_http_url_and_is_not_repeated(url: str) -> None:
    line = refusal({"PUSHSVC_WEBHOOK_URL": url, "PUSHSVC_WEBHOOK_SECRET": "whsec_" + "A" * 32})
    assert line == (
        "PUSHSVC_WEBHOOK_URL: the value (not shown) is not an http:// or https:// URL without "
        "user and password"
    )


@pytest.mark.parametrize("secret", ["x" * 40, "whsec_", "whsec_" + "A" * 31, "whsec_" + "A" * 88])
def test_a_webhook_secret_is_of_the_documented_form_and_not_repeated(secret: str) -> None:
    line = refusal({"PUSHSVC_WEBHOOK_URL": "https://a/b", "PUSHSVC_WEBHOOK_SECRET": secret})
    assert line == (
        "PUSHSVC_WEBHOOK_SECRET: the value (not shown) is not whsec_ and the base64 of 24 to 64 "
        "random bytes"
    )


@pytest.mark.parametrize(
    ("environ", "variable", "problem"),
    [
        (
            {"REDIS_URL": "redis://u:hunter2@h", "REDIS_PASSWORD_FILE": "/p"},
            "REDIS_PASSWORD_FILE",
            (
                "'/p' is set and PUSHSVC_REDIS_URL has a user or a password before its @:"
                " take those out of the URL"
            ),
        ),
        (
            {"REDIS_URL": "redis://u@h", "REDIS_USERNAME": "u", "REDIS_PASSWORD_FILE": "/p"},
            "REDIS_PASSWORD_FILE",
            (
                "'/p' is set and PUSHSVC_REDIS_URL has a user or a password before its @:"
                " take those out of the URL"
            ),
        ),
        (
            {"REDIS_USERNAME": "u"},
            "REDIS_USERNAME",
            "'u' is set and PUSHSVC_REDIS_PASSWORD_FILE is empty: set both, or no user",
        ),
        (
            {"REDIS_CA_FILE": "/ca"},
            "REDIS_CA_FILE",
            (
                "'/ca' is set and PUSHSVC_REDIS_URL is without TLS:"
                " write rediss in place of redis there"
            ),
        ),
        (
            {"REDIS_URL": "rediss://h", "REDIS_CERT_FILE": "/c"},
            "REDIS_KEY_FILE",
            "is empty and PUSHSVC_REDIS_CERT_FILE is set: set both or neither",
        ),
        (
            {"REDIS_URL": "rediss+cluster://h:1", "REDIS_KEY_FILE": "/k"},
            "REDIS_KEY_FILE",
            "'/k' is set and PUSHSVC_REDIS_CERT_FILE is empty: set both or neither",
        ),
        (
            {"TLS_CERT_FILE": "/c"},
            "TLS_KEY_FILE",
            "is empty and PUSHSVC_TLS_CERT_FILE is set: set both or neither",
        ),
        (
            {"TLS_KEY_FILE": "/k"},
            "TLS_KEY_FILE",
            "'/k' is set and PUSHSVC_TLS_CERT_FILE is empty: set both or neither",
        ),
        (
            {"REDIS_SENTINEL_PASSWORD_FILE": "/p"},
            "REDIS_SENTINEL_PASSWORD_FILE",
            "'/p' is set and PUSHSVC_REDIS_URL names no Sentinel: take one of the two",
        ),
        (
            {"REDIS_URL": "redis+sentinel://h:1/m", "REDIS_SENTINEL_USERNAME": "u"},
            "REDIS_SENTINEL_USERNAME",
            "'u' is set and PUSHSVC_REDIS_SENTINEL_PASSWORD_FILE is empty: set both, or no user",
        ),
        (
            {"JWT_SECRET": SECRET, "JWT_SECRET_FILE": "/s"},
            "JWT_SECRET_FILE",
            "is set and PUSHSVC_JWT_SECRET too: take one of them",
        ),
        (
            {"WEBHOOK_SECRET_FILE": "/no/such/file"},
            "WEBHOOK_SECRET_FILE",
            "'/no/such/file' cannot be read: No such file or directory",
        ),
    ],
)
def test_ways_to_be_let_in_that_contradict_each_other_are_told_apart(
    environ: dict[str, str], variable: str, problem: str
) -> None:
    given = {f"PUSHSVC_{name}": value for name, value in environ.items()}
    assert refusal(given) == f"PUSHSVC_{variable}: {problem}"


def test_an_at_sign_in_the_path_of_a_socket_is_no_user() -> None:
    environ = {"PUSHSVC_REDIS_URL": "unix:///a@b", "PUSHSVC_REDIS_PASSWORD_FILE": "/p"}
    assert load(environ, {}).redis_password_file == Path("/p")


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_can_stand_in_a_file_that_ends_in_a_line_end(tmp_path: Path, end: str) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + end, newline="")
    by_variable = load({"PUSHSVC_JWT_SECRET_FILE": str(file)}, {})
    by_flag = load({}, {"jwt_secret_file": str(file)})
    for settings in (by_variable, by_flag):
        assert settings.jwt_secret is not None
        assert settings.jwt_secret.get_secret_value() == SECRET
        assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff" * 40, "holds bytes that are not UTF-8"),
        (b"x" * 1_048_577, "holds more than 1048576 bytes, which is no secret"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(content)
    told = refusal({"PUSHSVC_JWT_SECRET_FILE": "secret"})
    assert told == f"PUSHSVC_JWT_SECRET_FILE: 'secret' {problem}"


def test_a_secret_in_a_file_has_to_be_as_good_as_any(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    assert refusal({"PUSHSVC_JWT_SECRET_FILE": str(file)}) == (
        "PUSHSVC_JWT_SECRET_FILE: the value (not shown) is shorter than 32 bytes"
    )
    assert refusal({}, jwt_secret_file=str(file)).startswith("--jwt-secret-file: the value (not")


def test_rows_list_the_choices_and_bounds_that_are_enforced() -> None:
    for row in rows():
        for choice in row.choices:
            load({row.variable: choice}, {})
        for bound in row.bounds or ():
            load({row.variable: str(bound)}, {})
        if row.bounds:
            refusal({row.variable: str(row.bounds[0] - 1)})
            refusal({row.variable: str(row.bounds[1] + 1)})


def test_the_documentation_is_the_table() -> None:
    """Regenerate it with ``python -m pushsvc.settings > docs/settings.md``."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


VARIABLES = st.sampled_from([row.variable for row in rows()])


@given(environ=st.dictionaries(VARIABLES, st.text()))
@example(environ={"PUSHSVC_REDIS_URL": "redis://[::1"})
@example(environ={"PUSHSVC_JWT_JWKS_URL": "http://[::1"})
@example(environ={"PUSHSVC_JWT_ISSUER": "\udc80"})
@example(environ={"PUSHSVC_JWT_SECRET": "\udc80" * 32})
@example(environ={"PUSHSVC_PORT": "9" * 5000})
@example(environ={"PUSHSVC_PORT": "\u2028"})
@example(environ={"PUSHSVC_ALLOWED_ORIGINS": "http://a:٣"})
@example(environ={"PUSHSVC_REDIS_URL": "redis://a:٣"})
def test_garbage_values_are_settings_or_one_line(environ: dict[str, str]) -> None:
    try:
        load(environ, {})
    except SettingsError:
        refusal(environ)


@given(name=st.text(), value=st.text())
def test_garbage_names_are_one_line(name: str, value: str) -> None:
    environ = {f"PUSHSVC_X{name}": value}
    assert refusal(environ).startswith(("PUSHSVC_X", "'PUSHSVC_X", '"PUSHSVC_X'))
