"""The comparison with other servers works, and says what it lacks: what is seldom run rots."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.peers.table import CHECKS, ROWS
from tests.support.documents import ROOT
from tests.support.programs import need


def peers(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", "peers", *arguments],
        cwd=ROOT, env=os.environ | environ, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_a_server_does_all_the_work_and_every_figure_is_told_and_drawn(tmp_path: Path) -> None:
    need("go")
    file = tmp_path / "peers.json"
    done = peers(
        "--only", "pushsvc", "--rounds", "1", "--tiny", "--json", str(file),
        "--plots", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(file.read_text())
    ours, null = measured["medians"]["pushsvc"], measured["medians"]["null"]
    for row in ROWS:
        assert f"| {row.title} |" in done.stdout
        assert set(row.figures) <= set(ours)
    assert set(CHECKS) <= set(ours) & set(null)
    for work in ("delivery", "publish", "rated", "batch"):
        assert ours[f"{work}_received"] == ours[f"{work}_sent"] > 0
    assert done.stdout.count("against a null server") == len(CHECKS)
    drawn = sorted(tmp_path.glob("*.svg"))
    assert len(drawn) == 2
    for plot in drawn:
        ET.fromstring(plot.read_text())
        assert ">pushsvc</text>" in plot.read_text()
        assert plot.read_text().count("http") == 1, "nothing but the name of SVG"


def test_what_is_not_on_the_machine_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    nothing = str(tmp_path)
    done = peers("--only", "centrifugo", PATH=nothing, XDG_CACHE_HOME=nothing)
    assert done.returncode == 1
    assert "Centrifugo: not on this machine; go install github.com/centrifugal/" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(300)
def test_many_sockets_over_several_workers_are_connected_and_sent_to() -> None:
    need("go")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "million", "--sockets", "4000", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {each["name"]: each["value"] for each in json.loads(done.stdout)["million"]}
    assert figures["sockets that failed"] == figures["to one, lost"] == 0
    assert 0 < figures["each worker's own, without connections"] < 40
    assert figures["broadcast: until the last has it"] > 0
    assert figures["broadcast: CPU of a delivery"] > 0  # of fewer: below a clock tick
