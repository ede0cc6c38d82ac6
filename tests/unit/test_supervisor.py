"""The place of a worker that cannot run: it is filled again, less and less often."""

import asyncio
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from pushsvc.settings import Settings
from pushsvc.supervisor import BAD_SETTINGS, RESTART_SECONDS, _Slot
from tests.support.nodes import SECRET


async def until_ended(slot: _Slot) -> None:
    async with asyncio.timeout(30):
        while slot.process.exitcode is None:
            await asyncio.sleep(0.02)


async def test_a_worker_that_never_becomes_ready_is_replaced_after_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    missing = tmp_path / "missing.pem"
    settings = Settings(jwt_secret=SecretStr(SECRET), tls_cert_file=missing, tls_key_file=missing)
    slot = _Slot(settings, None)
    shortest, longest = RESTART_SECONDS
    expected = shortest
    for _ in range(5):
        ended = slot.process
        await until_ended(slot)
        assert ended.exitcode == BAD_SETTINGS
        now = time.monotonic()
        slot.keep_filled(now)
        slot.keep_filled(now + expected - 0.01)
        assert slot.process is ended
        slot.keep_filled(now + expected)
        assert slot.process is not ended
        assert "TLS_CERT_FILE" in slot.report["troubles"][0]  # who asks meanwhile learns why
        expected = min(2 * expected, longest)
    assert expected == longest
    await until_ended(slot)
    slot.close()


async def test_a_place_without_a_process_cannot_be_killed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    slot = _Slot(Settings(jwt_secret=SecretStr(SECRET)), None)
    slot.kill()
    slot.keep_filled(time.monotonic())
    slot.kill()
    assert slot.report["troubles"] == ["ended"]
    slot.close()
