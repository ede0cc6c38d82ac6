import asyncio
import base64
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pushsvc import logs
from pushsvc.codes import Close
from pushsvc.logs import REDACTED, SampledLog, Sampler, configure, redact, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {}
    for name in ("", "pushsvc"):
        levels[name] = logging.getLogger(name).level
    yield
    root.handlers = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("tornado.access").disabled = False
    structlog.reset_defaults()


def logger(name: str = "pushsvc.test") -> structlog.stdlib.BoundLogger:
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def line(write: Callable[[], object], level: str = "info") -> dict[str, Any]:
    """The one JSON line that this writes."""
    stream = io.StringIO()
    configure("json", level, stream)
    write()
    (only,) = lines(stream)
    return only


def test_json_lines_have_time_level_logger_and_event() -> None:
    written = line(lambda: logger().info("connected", user="u1", connections=3))
    when = datetime.fromisoformat(written.pop("timestamp"))
    assert when.utcoffset() == timedelta(0)
    assert abs(when.timestamp() - time.time()) < 60
    assert written == {
        "event": "connected",
        "level": "info",
        "logger": "pushsvc.test",
        "user": "u1",
        "connections": 3,
    }


def test_the_standard_librarys_records_come_out_the_same() -> None:
    written = line(lambda: logging.getLogger("tornado.general").warning("closed %d", 7))
    assert written.pop("timestamp")
    assert written == {"event": "closed 7", "level": "warning", "logger": "tornado.general"}


def test_bound_context_and_positional_arguments_are_written() -> None:
    def write() -> None:
        with structlog.contextvars.bound_contextvars(node="n1"):
            logger().bind(user="u1").info("took %d ms", 7)

    written = line(write)
    assert (written["node"], written["user"], written["event"]) == ("n1", "u1", "took 7 ms")


def test_a_terminal_gets_the_console_form_and_anything_else_gets_json() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        configure(None, "info", stream)
        logger().info("connected", user="u1")
    assert "connected" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
    assert lines(file)[0]["event"] == "connected"


def test_the_form_can_be_chosen_against_the_stream() -> None:
    terminal, file = Terminal(), io.StringIO()
    configure("json", "info", terminal)
    logger().info("a")
    configure("console", "info", file)
    logger().info("connected", user="u1")
    assert lines(terminal)[0]["event"] == "a"
    assert "\x1b[" not in file.getvalue()
    assert "user=u1" in file.getvalue()


def test_without_a_stream_it_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure(None, "info")
    logger().info("connected")
    assert json.loads(capsys.readouterr().err)["event"] == "connected"


def test_configuring_again_replaces_the_first_time_also_for_loggers_in_use() -> None:
    first, second = io.StringIO(), io.StringIO()
    log = logger()
    configure("json", "info", first)
    log.info("a")
    log.debug("b")
    configure("json", "debug", second)
    log.debug("c")
    configure("json", "error", second)
    log.warning("d")
    assert [entry["event"] for entry in lines(first)] == ["a"]
    assert [entry["event"] for entry in lines(second)] == ["c"]


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(KeyError):
        configure("json", "loud")


def test_libraries_write_no_debug_lines_because_these_contain_messages() -> None:
    stream = io.StringIO()
    configure("json", "debug", stream)
    for name in ("websockets.client", "redis", "asyncio", "pushsvc.node"):
        logging.getLogger(name).debug("> TEXT 'hello'")
        logger(name).debug("x")
    assert {entry["logger"] for entry in lines(stream)} == {"pushsvc.node"}


def test_requests_are_not_logged() -> None:
    stream = io.StringIO()
    configure("json", "debug", stream)
    for write in (logging.Logger.info, logging.Logger.error):
        write(logging.getLogger("tornado.access"), "500 GET /ws?ticket=abc")
    assert stream.getvalue() == ""


def test_other_handlers_of_the_root_logger_are_left_alone() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure("json", "info", io.StringIO())
    configure("json", "info", io.StringIO())
    handlers = logging.getLogger().handlers
    assert other in handlers
    assert len([each for each in handlers if isinstance(each, logs._Handler)]) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_are_written_without_secrets_and_without_local_variables(form: Any) -> None:
    stream = io.StringIO()
    configure(form, "info", stream)

    def fail(words: list[str]) -> None:
        local = "hunter2 " * 2
        raise ValueError(" ".join(words) + local[:0])

    try:
        fail(["refused", JWT, "Bearer", "abc"])
    except ValueError:
        logger().exception("failed")
        logging.getLogger("tornado.application").exception("failed too")
    text = stream.getvalue()
    assert text.count("Traceback") == 2
    assert text.count(f"ValueError: refused {REDACTED} Bearer {REDACTED}") == 2
    assert "hunter2 hunter2" not in text
    assert JWT not in text


async def test_what_asyncio_reports_is_redacted_too() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"failed for {JWT}", "exception": ValueError("ticket=abc")}
    )
    (written,) = lines(stream)
    assert written["event"].startswith(f"failed for {REDACTED}")
    assert written["exception"].endswith(f"ValueError: ticket={REDACTED}")


@pytest.mark.parametrize(
    "name",
    ["token", "access_token", "X-Ticket", "Authorization", "jwt_secret", "data", "body", "key"],
)
def test_values_under_secret_keys_are_not_shown_at_any_depth(name: str) -> None:
    event = redact(None, "", {name: "hunter2", "a": [{"b": {name: {"c": "hunter2"}}}]})
    assert event == {name: REDACTED, "a": [{"b": {name: REDACTED}}]}


@pytest.mark.parametrize("name", ["body_bytes", "data_dir", "tokens_issued", "monkey", "event"])
def test_values_under_other_keys_are_shown(name: str) -> None:
    assert redact(None, "", {name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token {JWT} expired", f"token {REDACTED} expired"),
        (f"x{JWT}", f"x{REDACTED}"),
        ("cut: eyJhbGciOiJIUzI1NiJ9", f"cut: {REDACTED}"),
        ("Authorization: Bearer abc.def~+/=", f"Authorization: Bearer {REDACTED}"),
        ("authorization: bearer  abc, x", f"authorization: bearer  {REDACTED}, x"),
        ("/ws?a=1&ticket=abc&b=2", f"/ws?a=1&ticket={REDACTED}&b=2"),
        ("/ws?access_token=abc HTTP/1.1", f"/ws?access_token={REDACTED} HTTP/1.1"),
        ("uri='/ws?TOKEN=abc'", f"uri='/ws?TOKEN={REDACTED}'"),
        ("at redis://user:pass@host:1/0", f"at redis://{REDACTED}@host:1/0"),
        ("redis://host:1/0 a@b.example", "redis://host:1/0 a@b.example"),
        ("the token expired; keyJoin", "the token expired; keyJoin"),
    ],
)
def test_secrets_in_text_are_replaced_and_nothing_else_is(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_name_cannot_end_a_line_or_turn_it(form: Any) -> None:
    stream = io.StringIO()
    configure(form, "info", stream)
    name = "a\nb\u2028c\u202ed\x1b[2J\u2066"
    logger().info("seen", user=name, names=[name], by={name: 1}, error=ValueError(name))
    try:
        raise ValueError(name)  # noqa: TRY301
    except ValueError:
        logger().exception("failed")
    text = stream.getvalue()
    shown = r"a\nb\u2028c\u202ed\x1b[2J\u2066"
    if form == "json":
        seen, failed = lines(stream)
        assert (seen["user"], seen["names"], seen["by"]) == (shown, [shown], {shown: 1})
        assert failed["exception"].count("\n") > 2
        text += seen["error"] + failed["exception"]
    assert not set(text) & set("\u2028\u202e\x1b\u2066")


def test_objects_that_are_not_plain_data_are_shown_by_their_type() -> None:
    @dataclass
    class Publish:
        text: str

    shown = redact(
        None,
        "",
        {
            "publish": Publish("hello"),
            "frame": b"hello",
            "error": ValueError(f"refused {JWT}"),
            "path": Path("/tmp/x"),
            "id": UUID(int=0),
            "close": Close.DRAINING,
            "items": ("a", 1, None, 1.5, True),
            "set": {"a"},
        },
    )
    assert shown == {
        "publish": f"<{Publish.__qualname__}>",
        "frame": "<5 bytes>",
        "error": f"ValueError: refused {REDACTED}",
        "path": "/tmp/x",
        "id": "00000000-0000-0000-0000-000000000000",
        "close": 4001,
        "items": ["a", 1, None, 1.5, True],
        "set": ["a"],
    }


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "…" in json.dumps(redact(None, "", {"loop": loop}), ensure_ascii=False)


def test_a_record_that_cannot_be_rendered_does_not_print_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().handlers = []  # pytest's own let the error through
    written = line(lambda: logging.getLogger("redis").error("%d", "hunter2"))
    assert written["event"] == "a log record of redis could not be written: TypeError"
    assert capsys.readouterr().err == ""


def test_a_stream_that_cannot_be_written_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    stream.close()
    logger().info("connected")
    assert capsys.readouterr().err == ""


def test_redacting_a_hostile_text_takes_linear_time() -> None:
    start = time.perf_counter()
    for part in (
        "eyJ",
        "eyJ.",
        "eyJaaaaaaaaaaaaa",
        "://",
        "://a:",
        "bearer ",
        "bearer",
        "token=",
        " ",
    ):
        redact_text(part * (200_000 // len(part)))
        redact_text("bearer" + part * (200_000 // len(part)))
    assert time.perf_counter() - start < 5


SEGMENT = st.binary(min_size=12, max_size=60).map(
    lambda octets: base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
)
HEADER = st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), st.text(), min_size=1).map(
    lambda header: base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
)
TOKEN = st.tuples(HEADER, SEGMENT, SEGMENT).map(".".join)


class Opaque:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


PLACES: list[Callable[[str], object]] = [
    lambda text: text,
    lambda text: [{"a": (text,)}],
    lambda text: {text: 1},
    lambda text: {"a": {text: text}},
    lambda text: {text},
    lambda text: text.encode(errors="surrogatepass"),
    ValueError,
    Opaque,
]


@given(
    before=st.text(),
    token=TOKEN,
    after=st.text(),
    place=st.sampled_from(PLACES),
    form=st.sampled_from(["json", "console"]),
)
def test_a_token_placed_anywhere_is_never_written(
    before: str, token: str, after: str, place: Callable[[str], object], form: Any
) -> None:
    text = before + token + after
    stream = io.StringIO()
    configure(form, "info", stream)
    log, foreign = logger(), logging.getLogger("tornado.general")
    log.info(text.replace("%", "%%"))
    log.info("a", value=place(text))
    log.info("a %s", place(text))
    log.bind(value=place(text)).error("a", exc_info=ValueError(text))
    foreign.info(text.replace("%", "%%"))
    foreign.warning("a %s", text)
    foreign.error("a", exc_info=ValueError(text))
    written = stream.getvalue()
    assert written.count("pushsvc.test") == 4
    assert written.count("tornado.general") == 3
    signature = token.rpartition(".")[2]
    assert signature not in written


def test_a_sampler_passes_the_first_few_and_then_tells_how_many_it_did_not() -> None:
    sampler = Sampler(limit=2, interval=10)
    assert [sampler.allow("a", now) for now in (0, 1, 2, 9.9)] == [0, 0, None, None]
    assert sampler.allow("b", 9.9) == 0
    assert [sampler.allow("a", now) for now in (10, 11, 12, 25, 40)] == [2, 0, None, 1, 0]


def test_a_sampler_has_defaults_for_bad_input() -> None:
    sampler = Sampler()
    assert [sampler.allow("a", 0.0) for _ in range(7)] == [0] * 5 + [None] * 2
    assert sampler.allow("a", 10.0) == 2


def test_a_sampler_forgets_the_key_that_was_not_seen_for_longest() -> None:
    sampler = Sampler(limit=1, max_keys=2)
    assert [sampler.allow(key, 0) for key in "aab"] == [0, None, 0]
    assert [sampler.allow(key, 1) for key in "ac"] == [None, 0]
    assert [sampler.allow(key, 2) for key in "ab"] == [None, 0]
    assert len(sampler._windows) == 2


@given(
    keys=st.lists(st.text(max_size=2)),
    limit=st.integers(1, 5),
    max_keys=st.integers(1, 3),
)
def test_a_sampler_never_passes_more_than_its_limit_or_grows(
    keys: list[str], limit: int, max_keys: int
) -> None:
    sampler = Sampler(limit, 10, max_keys)
    for key in keys:
        sampler.allow(key, 0)
        assert len(sampler._windows) <= max_keys
        assert all(window.passed <= limit for window in sampler._windows.values())


def test_a_sampled_log_adds_how_many_warnings_it_left_out() -> None:
    now = 0.0
    stream = io.StringIO()
    configure("json", "info", stream)
    log = SampledLog(logger(), Sampler(limit=1), clock=lambda: now)
    for user in ("u1", "u2", "u3"):
        log.warning("bad frame", user=user)
    log.warning("bad token", user="u4")
    now = 10.0
    log.warning("bad frame", user="u5")
    assert [(each["event"], each["user"], each.get("suppressed")) for each in lines(stream)] == [
        ("bad frame", "u1", None),
        ("bad token", "u4", None),
        ("bad frame", "u5", 2),
    ]
    assert {each["level"] for each in lines(stream)} == {"warning"}


def test_a_sampled_log_runs_on_the_monotonic_clock_by_default() -> None:
    with structlog.testing.capture_logs() as entries:
        log = SampledLog(logger())
        for _ in range(7):
            log.warning("bad frame")
    assert len(entries) == 5
