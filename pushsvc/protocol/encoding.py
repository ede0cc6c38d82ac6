"""JSON and MessagePack as they are read and written here: what any client can read.

Everything is I-JSON (RFC 7493): duplicate names, lone surrogates and numbers beyond a double are
refused at the edge, so what is stored can be forwarded as it is.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, Never, TypeVar

import msgspec

from pushsvc.errors import InvalidJSON, InvalidRequest

MAX_DEPTH: Final = 64
"""Most arrays and objects within one another."""
BASE64: Final = "base64"
"""The ``encoding`` of data that stands for bytes."""

Read = Callable[[bytes], Any]
"""Parses what a client sent: ``decode`` or ``unpack``."""

_encode = msgspec.json.Encoder().encode
_parse = msgspec.json.Decoder().decode
Shape = TypeVar("Shape")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidJSON("an object has the same name twice: send each name once")
    return fields


def _constant(name: str) -> Never:
    raise InvalidJSON(f"{name} is not JSON: send a number, a string or null")


# A double, or an error where none can hold it: eight times as fast as looking at what `float` made.
_finite = msgspec.json.Decoder(float).decode


def _integer(text: str) -> int:
    if len(text) >= _LONG:
        _finite(text)
    return int(text)


_LONG: Final = 309
"""Digits of the largest double: an integer with fewer is finite."""
_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant
)
# Looks at each integer, which only those need that have as many digits as the largest double.
_careful_decoder = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_finite,
    parse_int=_integer,
    parse_constant=_constant,
)
_ALIKE: Final = bytes(ord("0") if chr(byte).isdecimal() else byte for byte in range(256))
_LONG_NUMBER: Final = b"0" * _LONG


def _has_long_number(data: bytes) -> bool:
    # A regular expression would begin anew at each digit of a run that is too short.
    return len(data) >= _LONG and _LONG_NUMBER in data.translate(_ALIKE)


def decode(data: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        InvalidJSON: the bytes are not UTF-8, not JSON, too deep, or not I-JSON.
    """
    # Five times as fast as the strict parser, and lenient in one thing: of a name that is twice in
    # an object it keeps the last. Where nothing is escaped, that alone changes how many quotes
    # there are once it is written again.
    if b"\\" not in data and not _has_long_number(data):
        try:
            value = _parse(data)
            if _encode(value).count(b'"') == data.count(b'"'):
                return value
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass  # the strict parser says what is wrong
    return _decode(data, json.JSONDecoder.decode)


def decode_items(data: bytes, member: str | None, most: int) -> list[Any] | None:
    """Parse the items of an array as strictly, and no more than one beyond ``most`` of them.

    Args:
        data: the array, or an object that has it as its only member.
        member: the name of that member; None for the array itself.
        most: how many the caller takes.

    Returns:
        The items, of which one too many says that there are more; None where ``data`` is something
        else, JSON or not.

    Raises:
        InvalidJSON: an item is not I-JSON, or not followed by another one or the end.
    """
    opening = ("[",) if member is None else ("{", f'"{member}"', ":", "[")
    closing = ("]",) if member is None else ("]", "}")

    def parse(decoder: json.JSONDecoder, text: str) -> list[Any] | None:
        at = _after(text, 0, *opening)
        if at < 0:
            return None
        items: list[Any] = []
        if not text.startswith("]", at):
            for _ in range(most + 1):
                item, at = decoder.raw_decode(text, at)
                items.append(item)
                comma = _comma(text, at)
                if comma is None:
                    break
                at = comma.end()
            else:
                return items
        at = _skip_blanks(text, at)
        if not text.startswith("]", at):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        return items if _after(text, at, *closing) == len(text) else None

    return _decode(data, parse)


def _after(text: str, at: int, *tokens: str) -> int:
    """Where the text goes on after these tokens and white space; -1 where others stand there."""
    for token in tokens:
        at = _skip_blanks(text, at)
        if not text.startswith(token, at):
            return -1
        at += len(token)
    return _skip_blanks(text, at)


_blanks = re.compile(r"[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match


def _skip_blanks(text: str, at: int) -> int:
    found = _blanks(text, at)
    return found.end() if found else at


def _decode(data: bytes, parse: Callable[[json.JSONDecoder, str], Shape]) -> Shape:
    value = _parsed(data, parse)
    if b"\\u" in data:
        encode(value)  # only an escape can be half of a surrogate pair: what cannot be sent back
    return value


def _parsed(data: bytes, parse: Callable[[json.JSONDecoder, str], Shape]) -> Shape:
    try:
        decoder = _careful_decoder if _has_long_number(data) else _decoder
        return parse(decoder, data.decode())
    except UnicodeDecodeError:
        raise InvalidJSON("the text is not UTF-8: encode JSON as UTF-8") from None
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data") from None
    except msgspec.ValidationError:  # of `_finite`
        raise InvalidJSON(
            "a number is larger than a double can hold: send it as a string"
        ) from None
    except ValueError as error:
        raise InvalidJSON(f"not JSON: {str(error)[:200]}") from None


def encode(value: Any) -> bytes:
    """Write compact JSON.

    Raises:
        InvalidJSON: a string holds a lone surrogate, or the value is nested too deep.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        raise InvalidJSON(
            "a string holds half of a surrogate pair: send whole characters"
        ) from None
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data") from None


def shape(value: Any, kind: type[Shape]) -> Shape:
    """Check a parsed value against a documented shape.

    Raises:
        InvalidRequest: a field is missing, unknown or of another type; the detail says which.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_plain(str(error))) from None


def _plain(text: str) -> str:
    """An error of msgspec in the words of the wire: ``$.to.user`` is ``to.user``."""
    return (text[0].lower() + text[1:]).replace("`$.", "`").replace(" - at `$`", "")[:300]


def check_depth(value: Any) -> None:
    """Check that a value is nested no deeper than is forwarded.

    Raises:
        InvalidJSON: it is.
    """
    for _ in _levels(value, MAX_DEPTH):
        pass


def _levels(value: Any, most: int) -> Iterator[list[Any]]:
    """A value, then what is directly within it, and so on: all of one depth at once.

    A call for each value would take ten times as long, and a client says how many there are.

    Raises:
        InvalidJSON: there are more than ``most`` arrays and objects within one another.
    """
    level = [value]
    for _ in range(most):
        yield level
        below: list[Any] = []
        for each in level:
            if type(each) is list:
                below += each
            elif type(each) is dict:
                below += each.values()
        if not below:
            return
        level = below
    yield level
    if any(isinstance(each, dict | list) for each in level):
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data")


# --- MessagePack ---------------------------------------------------------------------------------

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(
    ext_hook=lambda _code, _data: _refuse_extension()  # timestamps aside, which are checked below
).decode


_PLAIN: Final = frozenset({list, str, int, bool, type(None)})
"""The types that JSON has as well, those aside that are looked into."""


def _refuse_extension() -> Never:
    raise InvalidJSON("MessagePack extension types are not read: send numbers, strings and maps")


def unpack(data: bytes) -> Any:
    """Parse MessagePack as strictly as JSON; only the member ``data`` may hold bytes.

    Of a name that is there twice the last one counts: the decoder cannot tell.

    Raises:
        InvalidJSON: it is not MessagePack, or holds what JSON cannot.
    """
    try:
        value = _unpack(data)
    except UnicodeDecodeError:
        raise InvalidJSON("a string is not UTF-8: encode text as UTF-8") from None
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidJSON(f"not MessagePack: {str(error)[:200]}") from None
    if isinstance(value, dict) and isinstance(value.get("data"), bytes):
        if "encoding" in value:
            raise InvalidRequest(f'"data" as bytes needs no "encoding": it is {BASE64} by itself')
        text = base64.b64encode(value["data"]).decode()
        value = {**value, "data": text, "encoding": BASE64}
    _check_plain(value)
    return value


def _check_plain(value: Any) -> None:
    """Raise an error for what JSON cannot say, so that a JSON client can be sent the same."""
    for level in _levels(value, MAX_DEPTH + 2):  # data is within a message or two
        for each in level:
            kind = type(each)
            if kind is dict:
                if each and set(map(type, each)) != {str}:
                    raise InvalidJSON("the names in a map are strings: send strings")
            elif kind is float:
                if not math.isfinite(each):
                    raise InvalidJSON("a number is not finite: send a number, a string or nil")
            elif kind not in _PLAIN:
                raise InvalidJSON('only the member "data" of a message may be bytes: send text')


def to_msgpack(payload: bytes) -> bytes:
    """A message for a client that speaks MessagePack: the same, with bytes as bytes."""
    value = msgspec.json.decode(payload)
    if value.get("encoding") == BASE64:
        del value["encoding"]
        value["data"] = base64.b64decode(value["data"])
    try:
        return _pack(value)
    except OverflowError:
        return _pack(_narrow(value))


def _narrow(value: Any) -> Any:
    """The same with doubles for integers of more than 64 bits, which MessagePack cannot hold."""
    if isinstance(value, dict):
        return {name: _narrow(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_narrow(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value
