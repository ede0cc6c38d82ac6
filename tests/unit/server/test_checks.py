"""The arithmetic of what a node needs of its surroundings."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pushsvc.server.checks import LEAST_STREAMS, SPARE_DESCRIPTORS, dates, room
from tests.support.certificates import Authority


def test_connections_have_what_is_left_of_the_descriptors() -> None:
    spare = SPARE_DESCRIPTORS + LEAST_STREAMS
    assert room(1000, 1000 + spare) == (1000, LEAST_STREAMS)
    assert room(1000, 500 + spare) == (500, LEAST_STREAMS)
    assert room(1000, 5000) == (1000, 5000 - SPARE_DESCRIPTORS - 1000)
    assert room(1000, 10) == (1, LEAST_STREAMS)


def test_every_certificate_of_a_file_has_its_dates(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue(tmp_path, ends=timedelta(days=90))
    (begins, ends), (_, intermediate) = dates(certificate)
    now = datetime.now(UTC)
    assert begins < now
    assert timedelta(days=89) < ends - now < timedelta(days=91)
    assert timedelta(days=29) < intermediate - now < timedelta(days=31)
    assert dates(key) == dates(tmp_path / "none") == []
