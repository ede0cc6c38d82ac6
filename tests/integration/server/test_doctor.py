"""``pushsvc doctor``: what it finds wrong on this machine and in the settings, and how it ends."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from pushsvc.cli.development import kept
from pushsvc.push.vapid import new_key
from pushsvc.server.doctor import certificates, examine, files
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.server.findings import Finding, State
from tests.support.certificates import Authority
from tests.support.doctor import found, of, one, settings_of
from tests.support.keys import jwk
from tests.support.nodes import SECRET, Node
from tests.support.ports import free_port
from tests.support.programs import need_libfaketime
from tests.support.provider import Provider

OK, SKIP, WARN, FAIL = State


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(appendonly=True, extra=("--maxmemory", "1gb")) as running:
        yield running


def look(**fields: Any) -> list[Finding]:
    """Without a Redis, which has tests of its own."""
    return found(examine(settings_of(**fields)))


def doctor(
    url: str, *arguments: str, shell: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    given = {
        "PUSHSVC_REDIS_URL": url, "PUSHSVC_JWT_SECRET": SECRET, "PUSHSVC_HOST": "127.0.0.1",
        "PUSHSVC_PORT": "0", "PUSHSVC_ADMIN_HOST": "127.0.0.1", "PUSHSVC_ADMIN_PORT": "0",
        "XDG_STATE_HOME": "/nowhere",
    }  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PUSH")}
    return subprocess.run(
        ["sh", "-c", f'{shell} exec "$0" -m pushsvc doctor "$@"', sys.executable, *arguments],
        env=clean | given | variables, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


# --- the command ---------------------------------------------------------------------------------


def test_where_nothing_is_wrong_it_ends_with_0(server: EmbeddedServer) -> None:
    done = doctor(server.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.partition("  ")[0].strip() for line in done.stdout.splitlines()} == {"ok"}


def test_a_warning_fails_nothing_and_lines_of_json_say_the_same(server: EmbeddedServer) -> None:
    done = doctor(server.url, "--json", "--max-connections", "1000000")
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(each) == {"state", "check", "what", "change"} for each in told)
    (limit,) = [each for each in told if each["check"] == "files"]
    assert limit["state"] == "warn"
    assert "MAX_CONNECTIONS" in limit["what"]


def test_what_fails_is_told_beside_what_is_well_and_ends_with_1() -> None:
    done = doctor(f"redis://127.0.0.1:{free_port()}/0")
    assert (done.returncode, done.stderr) == (1, "")
    redis, *others = [line for line in done.stdout.splitlines() if "settings: " not in line]
    assert redis.startswith("fail  redis: ")
    assert all(line.startswith("ok ") for line in others)


def test_beside_a_development_node_it_says_that_this_is_not_the_one_it_looks_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    url = "http://127.0.0.1:8123"
    with kept({"PUSH_URL": url, "PUSH_ADMIN_URL": "http://127.0.0.1:9123"}):
        done = doctor("redis://127.0.0.1:1/0", XDG_STATE_HOME=str(tmp_path))
    first = done.stdout.splitlines()[0]
    assert first.startswith("skip  development: ")
    assert url in first
    done = doctor("redis://127.0.0.1:1/0", XDG_STATE_HOME=str(tmp_path))
    assert "development" not in done.stdout


def test_a_setting_that_cannot_be_used_ends_with_2_and_one_line() -> None:
    done = doctor("redis://127.0.0.1:1/0", PUSHSVC_JWT_SECRET="short")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: PUSHSVC_JWT_SECRET: the value (not shown) is shorter than 32 bytes\n"
    )


def test_a_clock_that_is_off_fails(server: EmbeddedServer) -> None:
    for skew, side in (("+60s", "60 s ahead of"), ("-60s", "60 s behind")):
        done = doctor(server.url, LD_PRELOAD=need_libfaketime(), FAKETIME=skew)
        assert done.returncode == 1
        (line,) = [each for each in done.stdout.splitlines() if each.startswith("fail")]
        assert f"this machine is {side} the primary" in line
        assert "NTP" in line


def test_a_low_limit_of_open_files_is_told(server: EmbeddedServer) -> None:
    done = doctor(server.url, shell="ulimit -n 512;")
    assert done.returncode == 0
    (line,) = [each for each in done.stdout.splitlines() if each.startswith("warn")]
    assert "512 open files leaves room for 212 of the 18000" in line
    assert "raise it to 18300" in line
    assert files(200, 500).state is OK


# --- settings ------------------------------------------------------------------------------------


def test_one_user_who_may_fill_a_topic_is_told() -> None:
    bad: list[dict[str, int]] = [
        {"client_bytes_per_topic": 20_000_000},
        {"client_bytes_per_user": 0},
    ]
    for fields in bad:
        _, finding = of(look(**fields), "settings")
        assert finding.state is WARN
        assert "CLIENT_BYTES_PER_TOPIC" in finding.change
    assert len(of(look(), "settings")) == 1


# --- keys ----------------------------------------------------------------------------------------


def test_keys_that_cannot_be_fetched_fail_with_the_reason() -> None:
    with Provider() as provider:
        fields = {"jwt_secret": None, "jwt_jwks_url": provider.url}
        assert "none of the document's 0 keys" in one(look(**fields), "keys", FAIL).what
        provider.down = True
        finding = one(look(**fields), "keys", FAIL)
        assert provider.url in finding.what
        assert "500" in finding.what
        assert "issuers.md" in finding.change
        provider.down = False
        provider.document = {"keys": [jwk(rsa.generate_private_key(65537, 2048), "k1")]}
        assert "JWT_JWKS_URL" in one(look(**fields), "keys", OK).what


def test_every_issuer_of_a_file_is_looked_at(tmp_path: Path) -> None:
    issuers = tmp_path / "issuers.toml"
    fields = {"jwt_secret": None, "auth_file": str(issuers)}
    nobody = f"http://127.0.0.1:{free_port()}/jwks.json"
    issuers.write_text(
        f'[issuers.own]\nsecret = "{SECRET}"\nissuer = "own"\n'
        f'[issuers.other]\nissuer = "https://other.example"\njwks_url = "{nobody}"\n'
        'namespace = "other"\n'
    )
    states = {each.state: each for each in of(look(**fields), "keys")}
    assert states.keys() == {OK, FAIL}
    assert "own" in states[OK].what
    assert nobody in states[FAIL].what
    issuers.write_text("[issuers.own]\n")
    assert "PUSHSVC_AUTH_FILE" in one(look(**fields), "keys", FAIL).what


def test_settings_without_keys_fail() -> None:
    assert "JWT_SECRET" in one(look(jwt_secret=None), "keys", FAIL).what


# --- certificates --------------------------------------------------------------------------------


def test_a_certificate_is_told_by_its_dates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue(tmp_path, ends=timedelta(days=20))
    settings = settings_of(tls_cert_file=str(certificate), tls_key_file=str(key))
    now = datetime.now(UTC)
    for days, state, what in (
        (0, OK, "is good until"),
        (15, WARN, "ends on"),
        (25, FAIL, "has expired on"),
        (-90, FAIL, "is good from"),
    ):
        (finding,) = certificates(settings, now + timedelta(days=days))
        assert finding.state is state
        assert what in finding.what
        assert "PUSHSVC_TLS_CERT_FILE" in finding.what
    key.write_text("none")
    refused, *_ = certificates(settings, now)
    assert refused.state is FAIL
    assert "PUSHSVC_TLS_KEY_FILE" in refused.what


def test_authorities_are_good_as_long_as_one_is_and_a_chain_as_long_as_all_are(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)  # for 30 days, as the intermediate
    certificate, key = authority.issue(tmp_path, ends=timedelta(days=90))
    both = {"jwt_ca_file": str(certificate), "redis_url": "rediss://127.0.0.1:1"}
    later = datetime.now(UTC) + timedelta(days=40)
    one(list(certificates(settings_of(**both), later)), "certificate", OK)
    chain = {"tls_cert_file": str(certificate), "tls_key_file": str(key)}
    one(list(certificates(settings_of(**chain), later)), "certificate", FAIL)


# --- ports ---------------------------------------------------------------------------------------


def failures(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 1
    return [line for line in done.stdout.splitlines() if line.startswith("fail")]


def test_a_port_that_another_program_has_fails(server: EmbeddedServer) -> None:
    with socket.socket() as one_taken, socket.socket() as other_taken:
        for taken in (one_taken, other_taken):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        ports = [str(taken.getsockname()[1]) for taken in (one_taken, other_taken)]
        given = dict(zip(("PUSHSVC_PORT", "PUSHSVC_ADMIN_PORT"), ports, strict=True))
        public, admin = failures(doctor(server.url, **given))
        assert f"fail  port: PUSHSVC_PORT: 127.0.0.1:{ports[0]} is in use → choose" in public
        assert f"fail  admin port: PUSHSVC_ADMIN_PORT: 127.0.0.1:{ports[1]} is in use" in admin
        assert "--admin-port" in admin


def test_an_address_of_another_machine_fails(server: EmbeddedServer) -> None:
    (line,) = failures(doctor(server.url, PUSHSVC_HOST="192.0.2.1"))
    assert "PUSHSVC_HOST: 192.0.2.1:0 cannot be bound" in line


def test_ports_that_a_node_serves_are_told_as_such(
    server: EmbeddedServer, valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue(tmp_path)
    files = {"tls_cert_file": str(certificate), "tls_key_file": str(key)}
    with Node(valkey.url, tmp_path, prefix=prefix, tls=authority.context(), **files) as node:
        done = doctor(
            server.url, "--port", str(node.port), "--admin-port", str(node.admin_port),
            "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
        )  # fmt: skip
    assert done.returncode == 0
    for check in ("port", "admin port"):
        assert f"ok    {check}: a node of pushsvc serves it already" in done.stdout


# --- tracing -------------------------------------------------------------------------------------


def test_tracing_is_told_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(look(), "tracing") == []
    one(look(tracing="otlp"), "tracing", OK)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    assert "OTEL_" in one(look(tracing="otlp"), "tracing", FAIL).what


# --- keys of push providers ----------------------------------------------------------------------


def test_keys_of_pushes_are_told_of_where_there_are_any(tmp_path: Path) -> None:
    assert of(look(), "push") == []
    pem, _ = new_key()
    file = tmp_path / "vapid.pem"
    file.write_bytes(pem)
    given = {"push_vapid_key_file": str(file), "push_vapid_subject": "mailto:a@b.example"}
    assert one(look(**given), "push", OK).what == "the keys of web can be used"
    private = of(look(**given, push_allow_private="true"), "push")
    assert [each.state for each in private] == [OK, WARN]
    file.write_text("nothing")
    finding = one(look(**given), "push", FAIL)
    assert finding.what.startswith("PUSHSVC_PUSH_VAPID_KEY_FILE: ")
