"""What a run of the tests holds itself to, tried on runs of tests that break it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gate import MAY_SKIP

PROCESSES = pytest.mark.parametrize("processes", [[], ["-p", "xdist.plugin", "-n", "1"]])


def run(
    tmp_path: Path, test: str, *options: str, named: bool = True
) -> subprocess.CompletedProcess[str]:
    """A run of this one file, that is named or just there."""
    file = tmp_path / "test_it.py"
    file.write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.gate",
         *options, *([file] if named else [])],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@PROCESSES
def test_what_failed_runs_again_unless_the_run_broke_off(
    tmp_path: Path, processes: list[str]
) -> None:
    again = ["--last-failed", "--last-failed-no-failures", "none"]
    flaky = """
from pathlib import Path
def test_one(): Path("one").touch()
def test_two():
    assert Path("two").exists(), Path("two").touch()
"""
    assert run(tmp_path, flaky, *processes).returncode == 1
    (tmp_path / "one").unlink()
    assert run(tmp_path, flaky, *again).returncode == 0
    assert not (tmp_path / "one").exists()
    (tmp_path / "two").unlink()
    (tmp_path / "conftest.py").write_text("""
def pytest_runtest_makereport(item):
    if item.name == "test_two": raise MemoryError
""")
    assert run(tmp_path, flaky, *processes).returncode == pytest.ExitCode.INTERNAL_ERROR
    (tmp_path / "conftest.py").unlink()
    done = run(tmp_path, flaky, *again)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "did not come to its end" in done.stderr


@PROCESSES
def test_a_skip_fails_where_none_is_allowed_but_for_those_with_a_reason(
    tmp_path: Path, processes: list[str]
) -> None:
    (allowed, *_) = MAY_SKIP
    skips = f"""
import pytest
def test_one(): pytest.skip("needs a program")
def test_two(): pytest.skip("{allowed}")
@pytest.fixture
def program(): pytest.skip("needs another")
def test_three(program): pass
"""
    done = run(tmp_path, skips, *processes)
    assert done.returncode == 0, done.stdout
    assert "3 skipped" in done.stdout
    assert "1 skipped: needs a program" in done.stdout
    done = run(tmp_path, skips, "--no-skips", *processes)
    assert done.returncode == 1
    assert "skipped, which fails here: needs a program" in done.stdout
    assert "skipped, which fails here: needs another" in done.stdout
    assert f"1 skipped: {allowed}" in done.stdout


def test_a_module_that_is_skipped_whole_fails_too(tmp_path: Path) -> None:
    skips = "import pytest\npytest.skip('needs a system', allow_module_level=True)"
    done = run(tmp_path, skips, "--no-skips")
    assert done.returncode != 0
    assert "skipped, which fails here: needs a system" in done.stdout


@PROCESSES
def test_a_run_that_leaves_something_behind_fails_names_it_and_removes_it(
    tmp_path: Path, processes: list[str]
) -> None:
    leaves = """
import subprocess, sys, tempfile
def test_it():
    program = "import sys, time; print(flush=True); time.sleep(600)"
    started = subprocess.Popen(
        [sys.executable, "-c", program, "left"], stdout=subprocess.PIPE, start_new_session=True
    )
    started.stdout.readline()
    started.returncode = 0  # so that nothing warns of it
    print(tempfile.mkdtemp(prefix="pushsvc-metrics-"))
"""
    impatient = tmp_path / "impatient.py"
    impatient.write_text("from tests.support.leftovers import Run\nRun.seconds = 0.1")
    done = run(tmp_path, leaves, *processes, "-o", f"pythonpath={tmp_path}", "-p", "impatient")
    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    first, second = (line for line in done.stdout.splitlines() if "left behind" in line)
    assert first.startswith("FAILED: the tests left behind: process ")
    assert first.endswith(" left")
    assert not Path(f"/proc/{first.split()[6].strip(':')}/cwd").exists()
    assert "folder pushsvc-metrics-" in second


@PROCESSES
def test_the_promise_is_what_is_marked_unless_files_are_named(
    tmp_path: Path, processes: list[str]
) -> None:
    tests = """
import pytest
@pytest.mark.promise
def test_one(): pass
def test_two(): pass
"""
    promised = run(tmp_path, tests, "--promise", *processes, named=False)
    assert "1 passed" in promised.stdout, promised.stdout
    assert "2 passed" in run(tmp_path, tests, "--promise", *processes).stdout
    assert "2 passed" in run(tmp_path, tests, *processes, named=False).stdout
