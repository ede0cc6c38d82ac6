"""Two versions side by side: what is tried on them, where an earlier one comes from, what fails."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.cluster import handed
from tests.cluster.handed import Outcome, Received
from tests.cluster.tally import Report
from tests.cluster.upgrade import SLOWEST, Result
from tests.support.nodes import Node
from tests.support.services import HTTPService
from tests.support.versions import HERE, ROOT, Version, earlier


@pytest.fixture
def copy(tmp_path: Path) -> Version:
    """The code of the working tree at another place."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pushsvc", tmp_path / "copy" / "pushsvc", ignore=ignored)
    return Version("a copy", tmp_path / "copy")


async def test_each_case_goes_well_from_one_version_to_the_other_and_back(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, copy: Version
) -> None:
    with HTTPService(Received) as receiver:
        settings = {**handed.SETTINGS, "webhook_url": receiver.url}
        with (
            Node(valkey.url, tmp_path, prefix=prefix, version=copy, **settings) as one,
            Node(valkey.url, tmp_path, prefix=prefix, **settings) as other,
        ):
            outcomes = await handed.handed(one, other)
    assert [each for each in outcomes if each.error] == []
    assert len({(each.case, each.way) for each in outcomes}) == 2 * len(handed.CASES)


async def test_a_case_that_fails_is_told_with_its_line(
    monkeypatch: pytest.MonkeyPatch, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    monkeypatch.setattr(handed, "CASES", (handed.a_ticket_is_good_once,))
    nodes = [Node(valkey.url, tmp_path) for _ in range(2)]  # which nobody started
    for each in await handed.handed(*nodes):
        assert "/v1/tickets" in each.error
        assert "ConnectError" in each.error


# --- where an earlier version comes from ---------------------------------------------------------


def _git(repository: Path, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", "-C", str(repository), *who, *arguments], check=True)


def test_an_earlier_version_is_what_git_holds_and_not_what_is_installed(
    tmp_path: Path, copy: Version
) -> None:
    repository = copy.directory
    shutil.copy(ROOT / "requirements-runtime.txt", repository)
    _git(repository, "init", "--quiet")
    _git(repository, "add", ".")
    _git(repository, "commit", "--quiet", "--message", "one")
    code = repository / "pushsvc" / "__init__.py"
    committed = code.read_text()
    code.write_text("raise SystemExit('not committed')")
    version = earlier("HEAD", tmp_path / "earlier", repository)
    assert (tmp_path / "earlier" / "pushsvc" / "__init__.py").read_text() == committed
    assert version == ("HEAD", tmp_path / "earlier", HERE.python)


@pytest.mark.parametrize("ref", ["no-such-ref", "--help", ""])
def test_a_ref_that_is_not_in_the_clone_is_told_in_a_line(
    tmp_path: Path, copy: Version, ref: str
) -> None:
    _git(copy.directory, "init", "--quiet")
    with pytest.raises(
        LookupError, match=f"{ref!r} is not to be had from the git clone here"
    ) as caught:
        earlier(ref, tmp_path / "earlier", copy.directory)
    assert "\n" not in str(caught.value)


def test_code_that_would_not_run_is_told(tmp_path: Path) -> None:
    HERE.check()
    with pytest.raises(RuntimeError, match="an empty folder would not run"):
        Version("an empty folder", tmp_path).check()


# --- what fails ----------------------------------------------------------------------------------


def test_losses_failed_cases_complaints_and_what_is_late_break_a_result() -> None:
    good = Outcome("a case", "one → other", 0.1, "")
    assert Result(Report(), [good]).broken() == {}
    lost, late = Report(), Report()
    lost.tallies["topic"].lost = 1
    late.tallies["mailbox"].slowest = SLOWEST + 1
    assert Result(lost, [good]).broken() == {"topic lost": 1}
    assert Result(late, [good]).broken() == {"slow": {"mailbox": SLOWEST + 1}}
    failed = Result(Report(), [good, good._replace(error="line 1: assert x")])
    assert failed.broken() == {"failed": ["a case (one → other)"]}
    assert "line 1: assert x" in str(failed)
    warned = Counter({"the courier brought what cannot be read": 2})
    assert Result(Report(), [good], warned).broken() == {"complaints": dict(warned)}
