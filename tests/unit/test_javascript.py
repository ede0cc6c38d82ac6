"""The rules of the console's page, which are pure modules, under Node.js."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODE = Path(sys.executable).parent / "node"


def test_the_rules_of_the_console_hold() -> None:
    tests = sorted((ROOT / "tests" / "browser" / "console_unit").glob("*.test.mjs"))
    assert tests
    done = subprocess.run(
        [NODE, "--test", *tests], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
