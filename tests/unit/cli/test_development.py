"""The file of a development node: who may read it, who finds it, and what is said without it."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from pushsvc.cli.development import TOKENS, NoNode, directory, find, kept, reach

USUAL = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of somebody who has none yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "pushsvc"


def values(port: int = 8080, host: str = "127.0.0.1") -> dict[str, str]:
    """What a node with this port has."""
    tokens = {variable: f"{role}-{port}" for role, variable in TOKENS.items()}
    addresses = {"PUSH_URL": f"http://{host}:{port}", "PUSH_ADMIN_URL": f"http://{host}:{port + 1}"}
    return addresses | tokens


def killed(held: Mapping[str, str]) -> Path:
    """A file that a node left which was killed."""
    with kept(held) as path:
        text = path.read_text()
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def umask() -> Iterator[None]:
    """Whoever lets everybody read and write what is new."""
    before = os.umask(0)
    yield
    os.umask(before)


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_only_its_user_can_read_the_file_and_it_goes_with_the_node(state: Path) -> None:
    with kept(values()) as path:
        assert path == state / "dev-8080.env"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert [each.name for each in state.iterdir()] == [path.name]
    assert list(state.iterdir()) == []


def test_a_directory_that_others_may_enter_is_closed_to_them(state: Path) -> None:
    state.mkdir(parents=True)
    state.chmod(0o777)
    with kept(values()):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_shell_sources_it(state: Path) -> None:
    odd = values() | {"USER_TOKEN": "a'b $(c) \\d"}
    with kept(odd) as path:
        told = subprocess.check_output(
            ["sh", "-c", f". '{path}'; env"], env={"PATH": os.environ["PATH"]}, text=True
        ).splitlines()
        assert {f"{name}={value}" for name, value in odd.items()} <= set(told)
        found = find()
        assert found is not None
        assert found.values == odd
    assert state.exists()


def test_nothing_is_written_where_a_link_of_somebody_else_leads(
    state: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    state.parent.mkdir()
    state.symlink_to(elsewhere)
    with pytest.raises(OSError, match="state"), kept(values()):
        pass
    assert list(elsewhere.iterdir()) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_what_belongs_to_another_user_is_neither_written_nor_read(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept(values()):
        assert find() is not None
        monkeypatch.setattr(os, "geteuid", lambda: 12_345)
        assert find() is None
        with pytest.raises(OSError, match="another user"), kept(values(6001)):
            pass
        assert [each.name for each in state.iterdir()] == ["dev-8080.env"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(
    state: Path, tmp_path: Path
) -> None:
    state.mkdir(parents=True)
    (tmp_path / "precious").write_text("mine")
    (state / "dev-8080.env").symlink_to(tmp_path / "precious")
    assert find() is None
    with kept(values()) as path:
        assert not path.is_symlink()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_node_takes_away_its_own_file_and_no_other(state: Path) -> None:
    with ExitStack() as first:
        first.enter_context(kept(values(host="127.0.0.1")))
        with kept(values(host="127.0.0.2")):
            first.close()
            found = find()
            assert found is not None
            assert found.url == "http://127.0.0.2:8080"
        assert list(state.iterdir()) == []


def test_what_killed_nodes_left_is_removed_by_the_next(state: Path) -> None:
    killed(values(1))
    with kept(values(3)), kept(values(5)):
        assert {each.name for each in state.iterdir()} == {"dev-3.env", "dev-5.env"}


def test_it_is_never_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")
    expected = (
        "/home/anna/Library/Application Support/pushsvc"
        if sys.platform == "darwin"
        else "/home/anna/.local/state/pushsvc"
    )
    for other in ("state", "", "."):
        monkeypatch.setenv("XDG_STATE_HOME", other)
        assert directory() == Path(expected)
    monkeypatch.setenv("HOME", ".")
    with pytest.raises(OSError, match="home"):
        directory()
    assert find() is None


# --- who finds it --------------------------------------------------------------------------------


def test_a_command_finds_the_token_of_its_role() -> None:
    with kept(values()):
        for role, variable in TOKENS.items():
            node = reach(role, None, None)
            assert (node.url, node.token) == (USUAL, values()[variable])
            assert node.admin_url == "http://127.0.0.1:8081"


def test_of_several_nodes_it_is_the_one_at_the_usual_address_else_the_newest() -> None:
    with kept(values(6001)) as older, kept(values(7001)):
        os.utime(older, (1, 1))
        assert reach("user", None, None).token == "user-7001"
        with kept(values()) as usual:
            os.utime(usual, (1, 1))
            assert reach("user", None, None).token == "user-8080"
        assert reach("user", "http://127.0.0.1:6001", None).token == "user-6001"
    killed(values())
    with kept(values(6001)):
        assert reach("user", None, None).token == "user-6001"


def test_what_is_given_wins() -> None:
    with kept(values()):
        assert reach("user", None, "mine").token == "mine"
        elsewhere = reach("user", "https://push.example.com", "mine")
        assert (elsewhere.url, elsewhere.token) == ("https://push.example.com", "mine")
        assert elsewhere.admin_url is None
    assert reach("user", None, "mine").url == USUAL


def test_a_token_is_sent_to_its_own_node_and_to_no_other() -> None:
    with kept(values()):
        assert reach("user", "http://localhost:8080/", None).url == USUAL
        for other in (
            "http://127.0.0.1:8082", "https://127.0.0.1:8080", "http://push.example.com:8080",
            "http://127.0.0.1.example.com:8080", "http://127.0.0.1:8080x", "http://127.0.0.1",
        ):  # fmt: skip
            with pytest.raises(NoNode, match="USER_TOKEN"):
                reach("user", other, None)


# --- what is said without it ---------------------------------------------------------------------


@pytest.mark.parametrize("role", TOKENS)
def test_a_token_that_is_missing_is_told_with_its_variable_and_the_way_to_a_node(role: str) -> None:
    with pytest.raises(NoNode) as told:
        reach(role, None, None)  # type: ignore[arg-type]
    for part in (TOKENS[role], "--token", "make run", "pushsvc dev"):  # type: ignore[index]
        assert part in told.value.message


def test_a_node_that_was_killed_is_told_with_the_way_to_another() -> None:
    killed(values())
    for url in (None, USUAL):
        with pytest.raises(NoNode, match=rf"no development node answers at {USUAL}.*make run"):
            reach("user", url, None)
    assert reach("user", None, "mine").url == USUAL


@pytest.mark.parametrize("token", [None, "mine"])
def test_the_admin_port_is_told_with_the_public_one(token: str | None) -> None:
    with kept(values()), pytest.raises(NoNode, match=rf"admin port.*{USUAL}"):
        reach("user", "http://localhost:8081", token)


def test_an_address_without_a_scheme_is_told() -> None:
    with kept(values()), pytest.raises(NoNode, match="http://"):
        reach("user", "localhost:8080", None)


@pytest.mark.parametrize(
    "text", ["", "export PUSH_URL=http://127.0.0.1:8080", "export '", "\0", "x" * 70_000]
)
def test_a_file_that_is_none_does_not_count(state: Path, text: str) -> None:
    state.mkdir(parents=True)
    (state / "dev-8080.env").write_text(text)
    (state / "dev-8081.env").mkdir()
    os.mkfifo(state / "dev-8082.env")
    (state / "dev-8083.env").write_bytes(b"\xff")
    assert find() is None
