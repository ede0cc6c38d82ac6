"""Feeds on a real server, in this process."""

import pytest


@pytest.fixture(autouse=True)
def clean_log() -> None:
    """No process runs here whose log could be read."""
