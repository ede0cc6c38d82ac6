"""The query of a request: its arguments, with their types and bounds."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from tornado.escape import parse_qs_bytes

from pushsvc.errors import InvalidRequest
from pushsvc.protocol import ids
from pushsvc.protocol.names import find_stray_percent

MAX_ARGUMENTS: Final = 100

_digits = re.compile(r"[0-9]{1,4}").fullmatch
_decimal = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?").fullmatch


class Query:
    """The arguments of a query.

    Args:
        text: the query as it came, without its question mark.

    Raises:
        InvalidRequest: there are more than ``MAX_ARGUMENTS``, or a stray percent sign.
    """

    __slots__ = ("_values",)

    def __init__(self, text: str) -> None:
        # Taken as it stands, it would be a name that the client did not mean.
        if find_stray_percent(text):
            raise InvalidRequest("the query is not percent-encoded: send % as %25")
        try:
            self._values = parse_qs_bytes(
                text, keep_blank_values=True, max_num_fields=MAX_ARGUMENTS
            )
        except ValueError:
            raise InvalidRequest(f"send at most {MAX_ARGUMENTS} arguments") from None

    def all(self, name: str) -> list[str]:
        """All values of an argument.

        Raises:
            InvalidRequest: one is not UTF-8.
        """
        return [_decoded(name, value) for value in self._values.get(name, ())]

    def one(self, name: str) -> str | None:
        """The only value of an argument, None without one.

        Raises:
            InvalidRequest: there are several, or it is not UTF-8.
        """
        values = self._values.get(name, [])
        if len(values) > 1:
            raise InvalidRequest(f'"{name}" is there {len(values)} times: send it once')
        return _decoded(name, values[0]) if values else None

    def number(self, name: str, least: int, most: int, default: int) -> int:
        """A whole number, of four digits at most.

        Raises:
            InvalidRequest: it is none from ``least`` to ``most``, or there are several.
        """
        text = self.one(name)
        if text is None:
            return default
        if not _digits(text) or not least <= int(text) <= most:
            raise InvalidRequest(f'"{name}" is a number from {least} to {most}')
        return int(text)

    def flag(self, name: str) -> bool:
        """Whether an argument says ``true``, and not ``false``, as it does where it is not there.

        Raises:
            InvalidRequest: it is neither, or there are several.
        """
        return self.choice(name, ("true", "false"), "false") == "true"

    def choice(self, name: str, values: Sequence[str], default: str) -> str:
        """One of some words.

        Raises:
            InvalidRequest: it is none of them, or there are several.
        """
        value = self.one(name)
        if value is None:
            return default
        if value not in values:
            raise InvalidRequest(f'"{name}" is {" or ".join(values)}')
        return value

    def seconds(self, name: str, most: float, default: float) -> float:
        """A time of at most 999 seconds, in milliseconds at the finest.

        Raises:
            InvalidRequest: it is none from 0 to ``most``, or there are several.
        """
        text = self.one(name)
        if text is None:
            return default
        if not _decimal(text) or float(text) > most:
            raise InvalidRequest(f'"{name}" is a number of seconds from 0 to {most:g}')
        return float(text)

    def position(self, name: str, source: str) -> int | None:
        """The id of an entry from which a listing goes on, None for its beginning.

        Args:
            name: of the argument.
            source: whose "next" it is, as the error says it.

        Raises:
            InvalidRequest: it is no id, or there are several.
        """
        text = self.one(name)
        if text is None:
            return None
        try:
            return ids.parse_untrusted(text)
        except InvalidRequest:
            raise InvalidRequest(f'"{name}" is the "next" of {source}') from None

    def only(self, names: Collection[str], advice: str) -> dict[str, str]:
        """All arguments, each of which is one of ``names`` and there once.

        Args:
            names: those that may be there.
            advice: the text of the error.

        Raises:
            InvalidRequest: there is another one, or one is there several times or not UTF-8.
        """
        if any(name not in names or len(values) > 1 for name, values in self._values.items()):
            raise InvalidRequest(advice)
        return {name: _decoded(name, values[0]) for name, values in self._values.items()}


def _decoded(name: str, value: bytes) -> str:
    # Nothing is replaced: what a client did not mean would be a name all the same.
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f'"{name}" is not UTF-8: percent-encode the bytes of its UTF-8'
        ) from None
