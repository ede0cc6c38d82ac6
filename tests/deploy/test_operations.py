"""Operations documents and guides name settings that there are, and commands to be pasted."""

import re
import subprocess
from pathlib import Path

import pytest

from pushsvc.settings import Settings

DIRECTORY = Path(__file__).parents[2] / "docs" / "operations"
PAGES = sorted(DIRECTORY.glob("*.md"))
GUIDES = sorted((DIRECTORY.parent / "guides").glob("*.md"))
NO_SETTINGS = {
    "ADMIN_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "NODE_EXTRA_CA_CERTS", "NO_PROXY",
    "PUBLISHER_TOKEN", "PUSH_ADMIN_URL", "PUSH_URL", "REDISCLI_AUTH", "SSL_CERT_FILE", "USER_TOKEN",
}  # fmt: skip
"""Variables of others."""


@pytest.mark.parametrize("page", [*PAGES, *GUIDES], ids=lambda page: page.name)
def test_every_setting_that_is_named_is_one(page: Path) -> None:
    known = {name.upper() for name in Settings.model_fields}
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`", page.read_text()))
    unknown = {name for name in named if name.removeprefix("PUSHSVC_") not in known}
    assert {name for name in unknown if not name.startswith(("LOAD_", "OTEL_"))} <= NO_SETTINGS


@pytest.mark.parametrize("page", [*PAGES, *GUIDES], ids=lambda page: page.name)
def test_every_command_can_be_pasted_into_a_shell(page: Path) -> None:
    """What it asks is not tried here, but it is neither cut off nor quoted badly."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        done = subprocess.run(
            ["sh", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, block + done.stderr
        # An address of Sentinels or of a Cluster is one that only nodes understand.
        assert 'redis-cli -u "$REDIS_URL"' not in block


def test_every_page_is_in_the_index() -> None:
    index = (DIRECTORY / "README.md").read_text()
    assert [page.name for page in PAGES if f"]({page.name})" not in index] == ["README.md"]
