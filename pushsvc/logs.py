"""Structured logs to one stream, from which no token and no message body can be read.

:func:`configure` sends the events of structlog loggers and the records of the standard library's
``logging`` (Tornado, asyncio, redis) through the same processors, so that every line has the same
form and passes the same redaction.

What a client chose may stand in any value: characters that would end a line or turn the direction
of what follows are escaped; only a traceback keeps its lines.

What is redacted: values under a key such as ``token`` or ``body`` (:data:`SECRET_KEYS`), and
tokens, tickets and URL passwords in any text, tracebacks included. A message body in the *text* of
an event cannot be told from other text: log bodies under such a key, or better their size.
Objects that are not plain data are shown by their type alone, because a ``repr`` may hold anything.
"""

import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, Protocol, TextIO
from uuid import UUID

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pushsvc.printable import printable

REDACTED = "[redacted]"

LINES = frozenset({"exception", "stack"})
"""The keys whose values may have several lines."""

SECRET_KEYS = frozenset(
    {
        "authorization",
        "bearer",
        "body",
        "claims",
        "cookie",
        "credentials",
        "data",
        "jwt",
        "key",
        "password",
        "payload",
        "secret",
        "ticket",
        "token",
    }
)
"""Last words of the keys whose values are never shown: ``token``, ``access_token``, ``X-Token``."""

# Linear in the length of the text, whatever a client puts there: no alternative that scans far can
# fail after having done so.
_SECRETS = re.compile(
    r"""
      # a JWT: header.payload.signature, or enough of its header to be one that was cut
      eyJ (?: [A-Za-z0-9_-]{12,} (?:\.[A-Za-z0-9_-]*)* | [A-Za-z0-9_-]{0,11} (?:\.[A-Za-z0-9_-]*)+ )
      # Authorization: Bearer x
    | (?P<bearer> \b (?i:bearer) \s+ ) [^\s"'<>,;]+
      # ?ticket=x, &access_token=x
    | (?P<query> (?i:ticket|token|secret|password) = ) [^\s"'<>,;&\#]+
      # redis://user:x@host
    | (?P<url> :// ) [^\s/?\#@]+ (?=@)
    """,
    re.VERBOSE,
)

_MAX_DEPTH = 8

_PLAIN = (bool, int, float, type(None))
_AS_TEXT = (PurePath, UUID, date, timedelta)


def redact_text(text: str) -> str:
    """The text with every token, ticket and URL password in it replaced."""
    return _SECRETS.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    return (match[match.lastgroup] if match.lastgroup else "") + REDACTED


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor of structlog: the event with nothing secret left in it, all of it plain data."""
    return {
        _text(name): printable(redact_text(value), keep="\n")
        if name in LINES and isinstance(value, str)
        else _redacted(name, value, 1)
        for name, value in event.items()
    }


def _text(value: str) -> str:
    return printable(redact_text(value))


def _redacted(name: str, value: Any, depth: int) -> Any:
    if name.replace("-", "_").rpartition("_")[2].lower() in SECRET_KEYS:
        return REDACTED
    return _plain(value, depth)


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if isinstance(value, _AS_TEXT):
        return _text(str(value))
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}")
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            _text(str(name)): _redacted(str(name), item, depth + 1) for name, item in value.items()
        }
    if isinstance(value, Sequence | AbstractSet):
        return [_plain(item, depth + 1) for item in value]
    return f"<{type(value).__qualname__}>"


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler; :func:`configure` knows its own by this type."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        # The base prints the record's arguments, unredacted, in the middle of JSON lines. A record
        # of our own that fails means that the stream cannot be written: nothing is left to do.
        if record.name != __name__:
            kind = sys.exc_info()[0]
            logging.getLogger(__name__).error(
                "a log record of %s could not be written: %s",
                record.name,
                kind.__name__ if kind else "unknown error",
            )


# For both kinds of loggers, before they meet in the handler.
_COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

# One list for ever: loggers keep it, and structlog.testing.capture_logs works by changing it.
_PROCESSORS: list[Processor] = [
    structlog.stdlib.filter_by_level,
    *_COMMON,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


def configure(
    fmt: Literal["console", "json"] | None, level: str, stream: TextIO | None = None
) -> None:
    """Set up logging for this process; a second call replaces the first.

    Args:
        fmt: how lines look; None means ``console`` if the stream is a terminal, else ``json``.
        level: ``debug``, ``info``, ``warning`` or ``error``: the least severe level that this
            package's loggers (``structlog.get_logger(__name__)``) write. Those of libraries write
            no ``debug``: it would have the content of frames and commands in it.
        stream: where to write; None means ``sys.stderr``.

    Raises:
        KeyError: there is no such level.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    stream = sys.stderr if stream is None else stream
    console = stream.isatty() if fmt is None else fmt == "console"
    renderer: Processor = structlog.processors.JSONRenderer()
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            # tracebacks come here as text already; Rich would print local variables too
            exception_formatter=structlog.dev.plain_traceback,
        )
    handler = _Handler(stream)
    handler.addFilter(_SampleTornado())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _Handler)]
    root.addHandler(handler)
    root.setLevel(max(number, logging.INFO))
    logging.getLogger(__package__).setLevel(number)
    # Requests are counted, not logged: a line for each one would let clients fill the disk.
    logging.getLogger("tornado.access").disabled = True
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


@dataclass(slots=True)
class _Window:
    start: float
    passed: int = 1
    suppressed: int = 0


class Sampler:
    """Lets the first few events of a kind through in each interval, and counts the others.

    Args:
        limit: events of one key per interval that pass.
        interval: seconds from the first event of a key to the start of its next interval.
        max_keys: keys that are remembered; the least recently seen is forgotten first, together
            with its count.
    """

    def __init__(self, limit: int = 5, interval: float = 10.0, max_keys: int = 1024) -> None:
        self._limit = limit
        self._interval = interval
        self._max_keys = max_keys
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def allow(self, key: str, now: float) -> int | None:
        """Whether an event passes.

        Args:
            key: the kind of the event.
            now: monotonic time in seconds.

        Returns:
            None if the event is suppressed; else how many were suppressed since the last that
            passed, which is 0 but for the first event of an interval.
        """
        window = self._windows.get(key)
        if window is None or now - window.start >= self._interval:
            self._windows[key] = _Window(now)
            self._windows.move_to_end(key)
            if len(self._windows) > self._max_keys:
                self._windows.popitem(last=False)
            return window.suppressed if window else 0
        self._windows.move_to_end(key)
        if window.passed < self._limit:
            window.passed += 1
            return 0
        window.suppressed += 1
        return None


class _SampleTornado(logging.Filter):
    """Samples what Tornado says of requests that are no HTTP: a line for each fills the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._sampler = Sampler()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.name != "tornado.general" or record.levelno >= logging.ERROR:
            return True
        return self._sampler.allow(str(record.msg), time.monotonic()) is not None


class _Warns(Protocol):
    def warning(self, event: str, **values: Any) -> Any: ...


class SampledLog:
    """Warnings that clients can cause, sampled by their event text: repetition cannot fill a disk.

    Args:
        logger: where the warnings go.
        sampler: what passes; one with the defaults if None.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        logger: _Warns,
        sampler: Sampler | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._sampler = Sampler() if sampler is None else sampler
        self._clock = clock

    def warning(self, event: str, **values: Any) -> None:
        """Log a warning unless there were too many of the same event text lately.

        Args:
            event: a constant text; what varies belongs into values.
            values: as for the logger; ``suppressed`` is added where warnings were left out.
        """
        suppressed = self._sampler.allow(event, self._clock())
        if suppressed is None:
            return
        if suppressed:
            values["suppressed"] = suppressed
        self._logger.warning(event, **values)
