"""The arithmetic of what a node needs of its surroundings."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import pushsvc.push
from pushsvc.push.vapid import new_key
from pushsvc.server.checks import LEAST_STREAMS, SPARE_DESCRIPTORS, dates, push, room
from pushsvc.settings import SettingsError
from tests.support.certificates import Authority
from tests.support.doctor import settings_of


def test_connections_have_what_is_left_of_the_descriptors() -> None:
    spare = SPARE_DESCRIPTORS + LEAST_STREAMS
    assert room(1000, 1000 + spare) == (1000, LEAST_STREAMS)
    assert room(1000, 500 + spare) == (500, LEAST_STREAMS)
    assert room(1000, 5000) == (1000, 5000 - SPARE_DESCRIPTORS - 1000)
    assert room(1000, 10) == (1, LEAST_STREAMS)


def test_every_certificate_of_a_file_has_its_dates(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue(tmp_path, ends=timedelta(days=90))
    (begins, ends), (_, intermediate) = dates(certificate)
    now = datetime.now(UTC)
    assert begins < now
    assert timedelta(days=89) < ends - now < timedelta(days=91)
    assert timedelta(days=29) < intermediate - now < timedelta(days=31)
    assert dates(key) == dates(tmp_path / "none") == []


# --- keys of push providers ----------------------------------------------------------------------


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    """The settings of all three providers, with good keys."""
    pem, _ = new_key()
    (tmp_path / "vapid.pem").write_bytes(pem)
    (tmp_path / "apns.p8").write_bytes(private(ec.generate_private_key(ec.SECP256R1())))
    account = {
        "type": "service_account",
        "project_id": "shop-1234",
        "private_key_id": "1",
        "private_key": private(rsa.generate_private_key(65537, 2048)).decode(),
        "client_email": "push@shop-1234.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    (tmp_path / "fcm.json").write_text(json.dumps(account))
    return {
        "push_vapid_key_file": str(tmp_path / "vapid.pem"),
        "push_vapid_subject": "mailto:ops@example.com",
        "push_apns_key_file": str(tmp_path / "apns.p8"),
        "push_apns_key_id": "ABC123DEFG",
        "push_apns_team_id": "DEF123GHIJ",
        "push_fcm_credentials_file": str(tmp_path / "fcm.json"),
    }


def refused(**settings: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        push(settings_of(**settings))
    assert "\n" not in str(caught.value)
    return caught.value


def test_without_a_key_nothing_is_pushed() -> None:
    assert push(settings_of()) is None
    assert push(settings_of(push_after_seconds="5", push_hosts="*", push_ca_file="none")) is None


def test_the_keys_that_are_named_are_loaded(keys: dict[str, Any]) -> None:
    found = push(settings_of(**keys, push_content="ids", push_hosts="a.example"))
    assert found is not None
    assert found.vapid is not None
    assert found.apns is not None
    assert found.fcm is not None
    assert (found.apns.key_id, found.apns.team_id) == ("ABC123DEFG", "DEF123GHIJ")
    assert (found.ids_only, found.hosts, found.allow_private) == (True, ("a.example",), False)
    only = {name: value for name, value in keys.items() if "vapid" in name}
    found = push(settings_of(**only))
    assert found is not None
    assert (found.apns, found.fcm) == (None, None)


@pytest.mark.parametrize(
    "field", ["push_vapid_key_file", "push_apns_key_file", "push_fcm_credentials_file"]
)
def test_a_key_that_cannot_be_used_is_told_by_its_variable(
    keys: dict[str, Any], field: str, tmp_path: Path
) -> None:
    missing, bad = tmp_path / "missing", tmp_path / "bad"
    bad.write_text("{}")
    error = refused(**keys | {field: str(missing)})
    assert error.variable == f"PUSHSVC_{field.upper()}"
    assert error.message == f"'{missing}' cannot be read: No such file or directory"
    error = refused(**keys | {field: str(bad)})
    assert error.variable == f"PUSHSVC_{field.upper()}"
    assert error.message.startswith(f"'{bad}' ")


def test_authorities_that_cannot_be_used_are_told(keys: dict[str, Any], tmp_path: Path) -> None:
    error = refused(**keys, push_ca_file=str(tmp_path / "missing"))
    assert error.variable == "PUSHSVC_PUSH_CA_FILE"
    assert "cannot be read" in error.message


@pytest.mark.parametrize(
    ("library", "modules", "field"),
    [
        ("aiohttp", ("outbound", "web_push"), "push_vapid_key_file"),
        ("aiohttp", ("outbound", "fcm"), "push_fcm_credentials_file"),
        ("h2", ("http2", "http2_connection", "apns"), "push_apns_key_file"),
    ],
)
def test_a_library_that_is_missing_is_told_with_what_to_install(
    keys: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    modules: tuple[str, ...],
    field: str,
) -> None:
    for module in modules:
        monkeypatch.delitem(sys.modules, f"pushsvc.push.{module}", raising=False)
        monkeypatch.delattr(pushsvc.push, module, raising=False)
    for name in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    part = field.split("_")[1]
    error = refused(**{name: value for name, value in keys.items() if name.split("_")[1] == part})
    assert error.variable == f"PUSHSVC_{field.upper()}"
    assert f"no module {library}" in error.message
    assert error.advice == "pip install 'pushsvc[push]'"
