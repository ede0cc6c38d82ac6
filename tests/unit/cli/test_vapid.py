"""``pushsvc vapid``: makes keys, without a server or a Redis."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pushsvc.cli import main
from pushsvc.push.vapid import load_keys, new_key


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["vapid", *arguments])


def refused(*arguments: str) -> str:
    """Check that it failed with one line; the line."""
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = [each for each in done.stderr.splitlines() if each]
    return line


def test_it_makes_a_file_for_its_user_alone_and_prints_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "a key.pem"
    done = run(str(file), "--subject", "mailto:push@example.com")
    assert done.exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    (public,) = load_keys(file).public
    assert public in done.stdout
    shell = (
        f"{done.stdout}\nprintf '%s\n' \"$PUSHSVC_PUSH_VAPID_KEY_FILE\" $PUSHSVC_PUSH_VAPID_SUBJECT"
    )
    told = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == [str(file), "mailto:push@example.com"]


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("mine")
    assert "is there already, and is not overwritten" in refused(str(file))
    assert file.read_text() == "mine"
    link = tmp_path / "link.pem"
    link.symlink_to(tmp_path / "nowhere")
    assert "is there already" in refused(str(link))
    assert not (tmp_path / "nowhere").exists()


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    assert "cannot be written: No such file or directory" in refused(str(tmp_path / "no" / "key"))


def test_it_shows_the_public_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    (new, new_public), (old, old_public) = new_key(), new_key()
    file.write_bytes(new + old)
    assert run("--show", str(file)).stdout.splitlines() == [new_public, old_public]
    assert file.read_bytes() == new + old
    file.write_text("nothing")
    assert "holds 0 keys in PEM" in refused("--show", str(file))
    assert "cannot be read: No such file" in refused("--show", str(tmp_path / "none"))


@pytest.mark.parametrize(
    "subject", ["you@example.com", "mailto:", "http://example.com", "mailto:a b@c"]
)
def test_somebody_who_cannot_be_asked_is_no_subject(tmp_path: Path, subject: str) -> None:
    assert "--subject is neither" in refused(str(tmp_path / "key"), "--subject", subject)
    assert not (tmp_path / "key").exists()


def test_it_says_what_a_node_lacks_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(str(tmp_path / "one")).stderr == ""
    monkeypatch.setattr("pushsvc.cli.vapid._LIBRARY", "no_such_library")
    assert "pip install 'pushsvc[push]'" in run(str(tmp_path / "other")).stderr


def test_without_the_server_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None; sys.argv[:] = ['pushsvc', 'vapid', 'k'];"
        "import pushsvc.cli as cli; cli._installed = lambda: False; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pushsvc vapid needs the server: pip install 'pushsvc[server]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_needs_nothing_of_what_sends() -> None:
    program = (
        "import sys, pushsvc.cli.vapid; print({'aiohttp', 'tornado', 'redis'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout == "set()\n"
