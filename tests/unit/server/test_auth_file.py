"""The file of issuers on a disk: read again when it changes, and kept where it cannot be."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from pushsvc import metrics
from pushsvc.auth.issuer_table import AuthFileError
from pushsvc.codes import Close
from pushsvc.errors import InvalidToken, Unavailable
from pushsvc.server.auth_file import AuthFile
from tests.support.keys import PrivateKey, document, jwk, pem

ONE, TWO = "one" * 16, "two" * 16
KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


class Site:
    """What issuers publish: documents by their addresses."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def get(self, url: str) -> bytes:
        self.asked.append(url)
        return self.documents[url]


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.toml"


@pytest.fixture(autouse=True)
def _metric() -> Iterator[None]:
    yield
    metrics.auth_file_refused.set(0)


def token(key: str | PrivateKey, kid: str | None = None, **claims: str) -> str:
    payload = {"sub": "ann", "aud": "pushsvc", "exp": int(time.time()) + 60, **claims}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(payload, key, "HS256" if isinstance(key, str) else "ES256", headers=headers)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def good(issuers: AuthFile, text: str) -> bool:
    try:
        return issuers.verify_cached(text) is not None
    except InvalidToken:
        return False


def settle(issuers: AuthFile) -> None:
    """Two looks: a file is read when it has come to rest."""
    issuers.tick()
    issuers.tick()


def refused() -> float:
    return float(REGISTRY.get_sample_value("pushsvc_auth_file_refused") or 0)


def test_a_change_is_taken_over_once_the_file_has_come_to_rest(path: Path, site: Site) -> None:
    path.write_text(f'[issuers.a]\nsecret = "{ONE}"')
    issuers = AuthFile(path, site.get)
    settle(issuers)
    assert good(issuers, token(ONE))
    path.write_text(f'[issuers.a]\nsecrets = ["{ONE}", "{TWO}"]')
    issuers.tick()
    assert not good(issuers, token(TWO))
    issuers.tick()
    assert good(issuers, token(ONE))
    assert good(issuers, token(TWO))


def test_a_mounted_secret_is_read_again_when_its_link_is_swapped(
    tmp_path: Path, site: Site
) -> None:
    def mount(version: str, secret: str) -> None:
        (tmp_path / version).mkdir()
        (tmp_path / version / "auth.toml").write_text('[issuers.a]\nsecret_file = "key"')
        (tmp_path / version / "key").write_text(secret + "\n")
        (tmp_path / "..new").symlink_to(version)
        (tmp_path / "..new").rename(tmp_path / "..data")

    mount("..1", ONE)
    for name in ("auth.toml", "key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    issuers = AuthFile(tmp_path / "auth.toml", site.get)
    assert good(issuers, token(ONE))
    mount("..2", TWO)
    settle(issuers)
    assert good(issuers, token(TWO))
    assert not good(issuers, token(ONE))


def test_a_key_file_is_read_again_when_it_alone_changes(path: Path, site: Site) -> None:
    key = path.with_name("key.pem")
    key.write_bytes(pem(KEY))
    path.write_text('[issuers.a]\npublic_key_file = "key.pem"')
    issuers = AuthFile(path, site.get)
    assert good(issuers, token(KEY))
    key.write_bytes(pem(OTHER))
    os.utime(key, ns=(1, 1))
    settle(issuers)
    assert good(issuers, token(OTHER))
    assert not good(issuers, token(KEY))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[issuers.a", "is not TOML"),
        ('[issuers.a]\nsecret = "short"', "issuers.a: secret is too short"),
        ('[issuers.a]\nsecret_file = "none"', "issuers.a: secret_file[0] cannot be read: No such"),
        ('[issuers.a]\nsecret_file = "a\\u0000b"', "secret_file[0] cannot be read: it is no path"),
        ('[issuers.a]\npublic_key_file = "\\u0000"', "public_key_file[0] cannot be read: it is no"),
        (f'[issuers.a]\nsecret_file = ["auth.toml", "{ONE}"]', "issuers.a: secret_file[1] cannot"),
        ('[issuers.a]\npublic_key_file = "auth.toml"', "issuers.a: public_key_file has no PEM"),
        (f'[issuers.a]\nsecret = "{ONE}"\nalgorithms = ["RS256"]', "issuers.a: algorithms RS256"),
        ('[issuers.a]\njwks_url = "ftp://x"', "issuers.a: jwks_url is not an http or https"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_loudly(
    path: Path, site: Site, text: str | None, reason: str
) -> None:
    path.write_text(f'[issuers.a]\nsecret = "{ONE}"')
    issuers = AuthFile(path, site.get)
    issuers.on_gone = lambda gone: pytest.fail(str(gone))
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with capture_logs() as logs:
        settle(issuers)
        settle(issuers)
    (line,) = logs  # once for each change
    assert line["log_level"] == "error"
    assert reason in line["reason"]
    assert ONE not in str(line)
    assert refused() == 1
    assert good(issuers, token(ONE))
    path.write_text(f'[issuers.a]\nsecret = "{TWO}"')
    settle(issuers)
    assert refused() == 0
    assert good(issuers, token(TWO))


def test_a_file_that_cannot_be_used_stops_the_start(path: Path, site: Site) -> None:
    with pytest.raises(AuthFileError, match="cannot be read: No such file"):
        AuthFile(path, site.get)
    path.write_text('[issuers.a]\nsecret = "short"')
    with pytest.raises(AuthFileError, match=r"issuers\.a: secret is too short"):
        AuthFile(path, site.get)


def test_a_file_that_it_names_and_that_comes_later_mends_it(path: Path, site: Site) -> None:
    path.write_text(f'[issuers.a]\nsecret = "{ONE}"')
    issuers = AuthFile(path, site.get)
    path.write_text('[issuers.a]\nsecret_file = "later"')
    settle(issuers)
    assert refused() == 1
    path.with_name("later").write_text(TWO)
    settle(issuers)
    assert refused() == 0
    assert good(issuers, token(TWO))


def test_whoever_goes_is_named_and_its_tokens_are_refused(path: Path, site: Site) -> None:
    one = f'[issuers.a]\nissuer = "a"\nsecret = "{ONE}"\nnamespace = "a"\n'
    two = f'[issuers.b]\nissuer = "b"\nsecret = "{TWO}"\nnamespace = "b"\n'
    path.write_text(one + two)
    issuers = AuthFile(path, site.get)
    gone: list[object] = []
    issuers.on_gone = gone.append
    path.write_text(one)
    settle(issuers)
    assert gone == [{"b": Close.REVOKED}]
    assert good(issuers, token(ONE, iss="a"))
    assert not good(issuers, token(TWO, iss="b"))
    path.write_text(one.replace('issuer = "a"', 'issuer = "c"'))
    settle(issuers)
    assert gone[1:] == [{"a": Close.REVOKED}]
    assert not good(issuers, token(ONE, iss="a"))
    assert good(issuers, token(ONE, iss="c"))


async def test_fetched_keys_outlive_a_change_of_anything_else(path: Path, site: Site) -> None:
    url = "https://a.example/keys"
    site.documents[url] = document(jwk(KEY, "k"))
    entry = f'[issuers.a]\nissuer = "a"\njwks_url = "{url}"\nnamespace = "a"\n'
    write(path, entry)
    issuers = AuthFile(path, site.get)
    (trouble,) = issuers.troubles()
    assert url in trouble
    issuers.start()
    async with asyncio.timeout(10):
        while issuers.troubles():
            await asyncio.sleep(0)
    site.documents.clear()
    write(path, entry + f'audience = "other"\n[issuers.b]\nsecret = "{ONE}"\n')
    settle(issuers)
    assert good(issuers, token(KEY, "k", iss="a", aud="other"))
    assert not good(issuers, token(KEY, "k", iss="a"))
    assert site.asked == [url]
    await issuers.aclose()


async def until_ready(issuers: AuthFile) -> None:
    async with asyncio.timeout(10):
        while issuers.troubles():
            await asyncio.sleep(0)


async def test_keys_stay_until_another_address_has_brought_some(path: Path, site: Site) -> None:
    old, new = "https://old.example/keys", "https://new.example/keys"
    entry = '[issuers.a]\nissuer = "a"\njwks_url = "%s"\n'
    site.documents[old] = document(jwk(KEY, "k"))
    write(path, entry % old)
    issuers = AuthFile(path, site.get)
    issuers.start()
    await until_ready(issuers)
    for dead in ("https://dead.example/keys", new):
        write(path, entry % dead)
        settle(issuers)
        for _ in range(10):
            await asyncio.sleep(0)
        assert dead in site.asked
        assert good(issuers, token(KEY, "k", iss="a"))
        assert issuers.troubles() == []
        with pytest.raises(Unavailable):  # it may be of a key that is at the new address
            await issuers.verify(token(OTHER, "new", iss="a"))
    # under another name, too; and they go once there are others
    site.documents[new] = document(jwk(OTHER, "new"))
    write(path, (entry % new).replace("issuers.a", "issuers.b"))
    settle(issuers)
    assert good(issuers, token(KEY, "k", iss="a"))
    async with asyncio.timeout(10):
        while good(issuers, token(KEY, "k", iss="a")):
            await asyncio.sleep(0)
    assert good(issuers, token(OTHER, "new", iss="a"))
    await issuers.aclose()


async def test_another_issuer_under_the_same_name_has_none_of_the_keys(
    path: Path, site: Site
) -> None:
    url = "https://a.example/keys"
    site.documents[url] = document(jwk(KEY, "k"))
    write(path, f'[issuers.a]\nissuer = "a"\njwks_url = "{url}"\n')
    issuers = AuthFile(path, site.get)
    issuers.start()
    await until_ready(issuers)
    site.documents.clear()
    write(path, f'[issuers.a]\nissuer = "b"\njwks_url = "{url}"\n')
    settle(issuers)
    with pytest.raises(Unavailable):
        await issuers.verify(token(KEY, "k", iss="b"))
    # which is no reason for all nodes to stop at once
    assert issuers.troubles() == []
    await issuers.aclose()


async def test_two_issuers_at_one_address_share_no_keys(path: Path, site: Site) -> None:
    url = "https://both.example/keys"
    site.documents[url] = document(jwk(KEY, "k"))
    write(path, "".join(
        f'[issuers.{name}]\nissuer = "{name}"\njwks_url = "{url}"\nnamespace = "{name}"\n'
        for name in ("a", "b")
    ))  # fmt: skip
    issuers = AuthFile(path, site.get)
    assert (await issuers.verify(token(KEY, "k", iss="a"))).namespace == "a"
    site.documents[url] = document(jwk(OTHER, "k"))
    assert (await issuers.verify(token(OTHER, "k", iss="b"))).namespace == "b"
    assert not good(issuers, token(OTHER, "k", iss="a"))
    assert not good(issuers, token(KEY, "k", iss="b"))
    await issuers.aclose()


async def test_refusals_and_the_log_name_the_entry(path: Path, site: Site) -> None:
    url = "https://a.example/keys"
    write(path, (
        f'[issuers.a]\nissuer = "a"\njwks_url = "{url}"\nnamespace = "a"\n'
        f'[issuers.b]\nsecret_file = "key"\n'
    ))  # fmt: skip
    path.with_name("key").write_text(ONE)
    issuers = AuthFile(path, site.get)
    where = "jwks_url of issuers.a in AUTH_FILE"
    with capture_logs() as logs:
        with pytest.raises(Unavailable):
            await issuers.verify(token(KEY, "k", iss="a"))
        with pytest.raises(Unavailable, match=where):
            await issuers.verify(token(KEY, "k", iss="a"))
    assert [line["setting"] for line in logs] == [where]
    with pytest.raises(InvalidToken, match=r"\(secret_file of issuers\.b in AUTH_FILE\)"):
        issuers.verify_cached(token(TWO))
    with pytest.raises(
        InvalidToken, match=r"\(algorithms of issuers\.b in AUTH_FILE\): its alg is"
    ):
        issuers.verify_cached(token(KEY))
    assert issuers.troubles() == []
    await issuers.aclose()


async def test_an_issuer_that_is_added_is_asked_for_its_keys_at_once(
    path: Path, site: Site
) -> None:
    url = "https://a.example/"
    site.documents = {
        url + ".well-known/openid-configuration": b'{"issuer":"%b","jwks_uri":"https://k/"}'
        % url.encode(),
        "https://k/": document(jwk(KEY, "k")),
    }
    other = f'[issuers.b]\nsecret = "{ONE}"\nnamespace = "b"\n'
    write(path, other)
    issuers = AuthFile(path, site.get)
    issuers.start()
    write(path, other + f'[issuers.a]\nissuer = "{url}"\ndiscovery = true\n')
    settle(issuers)
    async with asyncio.timeout(10):
        while not issuers.verify_cached(token(KEY, "k", iss=url)):
            await asyncio.sleep(0)
    write(path, other)
    settle(issuers)
    assert not good(issuers, token(KEY, "k", iss=url))
    await issuers.aclose()
