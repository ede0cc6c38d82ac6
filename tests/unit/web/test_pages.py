"""Pages that are files of the package."""

from pathlib import Path

from pushsvc import admin
from pushsvc.web import pages

ROOT = Path(admin.__file__).parent / "console"


def test_all_of_the_console_is_found_with_its_type() -> None:
    found = pages.folder("pushsvc.admin", "console")
    there = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if path.suffix in pages.TYPES and path.is_file()
    }
    assert found.keys() == there
    assert found["index.html"].media_type == "text/html; charset=utf-8"
    for name, file in found.items():
        assert file.body == (ROOT / name).read_bytes()


def test_every_file_of_the_console_can_be_served() -> None:
    left = {path.suffix for path in ROOT.rglob("*") if path.is_file()} - pages.TYPES.keys()
    assert left == set()


def test_an_entity_tag_follows_the_content_alone() -> None:
    found = pages.folder("pushsvc.admin", "console")
    tags = {file.etag for file in found.values()}
    pages.folder.cache_clear()
    again = pages.folder("pushsvc.admin", "console")
    assert again is not found
    assert tags == {file.etag for file in again.values()}
    assert len(tags) == len({file.body for file in found.values()})
