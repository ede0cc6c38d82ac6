"""JSON and MessagePack as they are read and written here: what any client can read.

Everything is I-JSON (RFC 7493): duplicate names, lone surrogates and numbers beyond a double are
refused at the edge, so what is stored can be forwarded as it is.
"""

import base64
import json
import math
import re
from collections.abc import Callable
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
Shape = TypeVar("Shape")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidJSON("an object has the same name twice: send each name once")
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidJSON("a number is larger than a double can hold: send it as a string")
    return number


def _constant(name: str) -> Never:
    raise InvalidJSON(f"{name} is not JSON: send a number, a string or null")


def _integer(text: str) -> int:
    _finite(text)
    return int(text)


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
_has_long_number = re.compile(rb"\d{309}").search


def decode(data: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        InvalidJSON: the bytes are not UTF-8, not JSON, too deep, or not I-JSON.
    """
    value = _decode(data)
    if b"\\u" in data:
        encode(value)  # only an escape can be half of a surrogate pair: what cannot be sent back
    return value


def _decode(data: bytes) -> Any:
    try:
        decoder = _careful_decoder if _has_long_number(data) else _decoder
        return decoder.decode(data.decode())
    except UnicodeDecodeError:
        raise InvalidJSON("the text is not UTF-8: encode JSON as UTF-8") from None
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data") from None
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
    if not _depth_within(value, MAX_DEPTH):
        raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data")


def _depth_within(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_depth_within(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_depth_within(item, levels - 1) for item in value)
    return True


# --- MessagePack ---------------------------------------------------------------------------------

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(
    ext_hook=lambda _code, _data: _refuse_extension()  # timestamps aside, which are checked below
).decode


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
    _check_plain(value, MAX_DEPTH + 2)
    return value


def _check_plain(value: Any, levels: int) -> None:
    """Raise an error for what JSON cannot say, so that a JSON client can be sent the same."""
    if isinstance(value, dict | list):
        if levels <= 0:
            raise InvalidJSON(f"nested deeper than {MAX_DEPTH} levels: flatten the data")
        if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
            raise InvalidJSON("the names in a map are strings: send strings")
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, levels - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidJSON("a number is not finite: send a number, a string or nil")
    elif value is not None and not isinstance(value, str | int | float):
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
