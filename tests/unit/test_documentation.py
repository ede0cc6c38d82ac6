"""The documents lead somewhere, the index names each page, and the limits are those of the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from pushsvc.auth.authenticator import TICKET_SECONDS
from pushsvc.auth.tokens import MAX_TOKEN
from pushsvc.codes import Close
from pushsvc.errors import PushError
from pushsvc.feeds.feed import MAX_DEVICES, ONCE_SECONDS
from pushsvc.feeds.revocations import MAX_REVOCATIONS
from pushsvc.feeds.schedule import MOST_BYTES
from pushsvc.protocol.encoding import MAX_DEPTH
from pushsvc.protocol.grants import MAX_PATTERNS
from pushsvc.protocol.messages import MAX_SUBSCRIPTIONS
from pushsvc.protocol.names import MAX_LABEL, MAX_NAME
from pushsvc.protocol.notifications import MAX_BATCH, MAX_USERS
from pushsvc.protocol.read_state import MAX_IDS
from pushsvc.protocol.scheduled import TOLERANCE
from pushsvc.settings import rows
from pushsvc.web.base import MAX_HEADERS
from pushsvc.web.bodies import AT_ONCE
from pushsvc.web.connection_request import MAX_TOPICS
from pushsvc.web.http_connection import MAX_FIELDS
from pushsvc.web.publish import MAX_KEY
from pushsvc.web.users import MAX_PAGE
from tests.support.documents import ROOT, anchors, descendants, links, prose, table

DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(
        part.startswith(".") or part in {"node_modules", "dist", "build"}
        for part in page.relative_to(ROOT).parts
    )
)
LIMITS = (DOCS / "guides" / "limits.md").read_text()

QUESTIONS = {
    "mint a token in my backend": "tokens.md",
    "one device only": "devices.md",
    "read on all": "devices.md",
    "badge": "devices.md",
    "history": "history.md",
    "typing": "typing.md",
    "proxy": "proxies.md",
    "How large": "limits.md",
    "away for eight days": "away.md",
    "rotate the secret": "secrets.md",
    "several tenants": "tenants.md",
    "upgrade": "upgrading.md",
    "202": "accepted.md",
    "send something later": "scheduling.md",
    "bell": "bell.md",
}
"""What newcomers ask, in words of theirs, and the guide that answers."""

FIXED: dict[str, int] = {
    "bytes of a user id, a device, a topic": MAX_NAME,
    "characters of an event, a collapse key": MAX_LABEL,
    "levels in `data`": MAX_DEPTH,
    "users of one publish": MAX_USERS,
    "notifications in a batch": MAX_BATCH,
    "characters of an idempotency key": MAX_KEY,
    "bytes that wait for their time for one user, one topic, the broadcast": MOST_BYTES,
    "seconds that an idempotency key counts": ONCE_SECONDS,
    "seconds by which `at` may be past": int(TOLERANCE),
    "topics of a socket": MAX_SUBSCRIPTIONS,
    "topics of a stream or a poll": MAX_TOPICS,
    "patterns of topics in a token": MAX_PATTERNS,
    "bytes of a token": MAX_TOKEN,
    "bytes of a request's headers": MAX_HEADERS,
    "lines of a request's headers": MAX_FIELDS,
    "requests of one client, one without `push.publish`, whose bodies are still to come": AT_ONCE,
    "devices of a user with a place": MAX_DEVICES,
    "notifications on a page of the list": MAX_PAGE,
    "notifications that one change of what was read names": MAX_IDS,
    "seconds that a ticket is good": TICKET_SECONDS,
    "revocations that are kept": MAX_REVOCATIONS,
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    pages = {*DOCS.glob("*.md"), *(DOCS / "guides").glob("*.md")} - {index}
    assert sorted(map(name_of, pages - named)) == []


@pytest.mark.parametrize(("words", "guide"), QUESTIONS.items(), ids=list(QUESTIONS))
def test_the_index_answers_each_question_with_one_page(words: str, guide: str) -> None:
    found = table((DOCS / "README.md").read_text(), "## Questions")
    (answer,) = [answer for question, answer in found if words in question]
    assert re.findall(r"\]\(guides/([\w.]+)", answer) == [guide]


def test_a_guide_is_short() -> None:
    for page in (DOCS / "guides").glob("*.md"):
        if page.name != "tokens.md":  # six languages
            assert len(page.read_text().splitlines()) <= 120, page.name


def test_the_guide_of_the_bell_has_its_words_properties_and_parts() -> None:
    guide = (DOCS / "guides" / "bell.md").read_text()
    source = {each.name: each.read_text() for each in (ROOT / "clients/js/src/bell").glob("*.*s")}
    labels = re.search(r"LABELS: Labels = \{\n(.+?)\n\};", source["labels.ts"], re.DOTALL)
    assert labels is not None
    words = re.findall(r'^  (\w+): "(.+)",$', labels[1], re.MULTILINE)
    assert table(guide, "## Its words") == [[f"`{name}`", text] for name, text in words]
    assert set(re.findall(r"`(--pushsvc-[\w-]+)`", guide)) == set(
        re.findall(r"var\(\s*(--pushsvc-[\w-]+)", source["bell.css"])
    )
    (told,) = re.findall(r"::part\(panel\)`: (.+)$", guide, re.MULTILINE)
    for part in re.findall(r"`([\w-]+)`", told):
        assert re.search(rf'part~?="{part}"\]|"{part}"| {part}"', "".join(source.values())), part


def test_the_guide_of_pushes_is_short_and_has_each_reason_why_not() -> None:
    guide = (DOCS / "push.md").read_text()
    assert len(guide.splitlines()) <= 120
    types = (ROOT / "clients/js/src/types.ts").read_text()
    reasons = re.search(r"type PushReason =\n(.+?);\n", types, re.DOTALL)
    assert reasons is not None
    told = [code for row in table(guide, "## In a page") for code in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(re.findall(r'\| "(\w+)"', reasons[1]))


def test_the_readme_is_short_and_leads_to_the_index() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text().splitlines()) <= 200
    assert "docs/README.md" in links(readme)


# --- limits --------------------------------------------------------------------------------------

SET = [
    row
    for heading in ("Sizes", "What is kept", "Connections", "Rates")
    for row in table(LIMITS, f"## {heading}")
]
UNSET = table(LIMITS, "## What cannot be set")


def test_the_page_of_limits_has_every_setting_that_is_one() -> None:
    bounds = re.compile(r"MAX_|_MAX$|RATE_|BYTES|ACK_|RETENTION|REQUEST_TIMEOUT|DURABILITY_TIMEOUT")
    known = {
        row.variable.removeprefix("PUSHSVC_"): row.default
        for row in rows()
        if bounds.search(row.variable) or row.variable.endswith("HEARTBEAT_SECONDS")
    }
    assert {setting.strip("`"): default for _, setting, default, _ in SET} == {
        name: default.removesuffix(".0") for name, default in known.items()
    }


def test_the_page_of_limits_has_what_cannot_be_set() -> None:
    assert {what: int(limit) for what, limit, _ in UNSET} == FIXED


def test_what_is_beyond_a_limit_is_an_error_or_a_close_code_that_there_is() -> None:
    errors: dict[str, Any] = {error.code: error.status for error in descendants(PushError)}
    for row in [*SET, *UNSET]:
        for status, code in re.findall(r"(?:(\d{3}) )?`(\w+)`", row[-1]):
            if code not in {"gap", "attempt"}:
                assert code in errors, row
                assert not status or int(status) == errors[code], row
        for close in re.findall(r"\b4\d{3}\b", row[-1]):
            assert int(close) in {int(code) for code in Close}, row


def test_the_most_asked_limits_are_those_of_the_table() -> None:
    told = re.search(r"^The most asked: (.+)$", prose(DOCS / "guides" / "limits.md"), re.MULTILINE)
    assert told
    size, number, days, connections, rate = map(int, re.findall(r"\*\*(\d+)", told[1]))
    defaults = {setting.strip("`"): int(default) for _, setting, default, _ in SET}
    assert [
        defaults[name]
        for name in (
            "MAX_MESSAGE_BYTES", "MAILBOX_MAX", "RETENTION_SECONDS", "MAX_CONNECTIONS_PER_USER",
            "RATE_MESSAGES_PER_SECOND",
        )
    ] == [size * 1024, number, days * 86400, connections, rate]  # fmt: skip
