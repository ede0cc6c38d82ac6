"""Programs that no pinned package brings: a test that needs one is skipped where it is missing.

``make test`` has no such test, and ``make test-all`` counts the skip as a failure.
"""

import shutil
from pathlib import Path
from typing import Final

import pytest

_PACKAGES: Final = {
    "redis-cli": "redis-tools", "promtool": "prometheus", "go": "golang-go", "mvn": "maven",
    "java": "default-jdk-headless", "php": "php-cli", "ruby": "ruby ruby-jwt",
    "nginx": "nginx-light", "WebKitWebDriver": "webkit2gtk-driver", "Xvfb": "xvfb",
}  # fmt: skip
"""Debian's packages of those programs that have another name."""


def need(program: str) -> str:
    """The path of a program; the test is skipped where there is none."""
    found = shutil.which(program)
    if found is None:
        package = _PACKAGES.get(program, program)
        pytest.skip(f"needs {program} (Debian: apt-get install {package})")
    return found


def need_libfaketime() -> str:
    """The path of the library that gives a program another clock; skipped where there is none."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("needs libfaketime (Debian: apt-get install libfaketime)")
    return str(found[0])
