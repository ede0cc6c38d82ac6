"""CloudEvents 1.0 as another form of a publish request, so that an event bus can point at us.

The three content modes of the HTTP binding are read: binary, structured and batched, the latter two
in the JSON format. The same event makes the same notification in each of them.

An event says whom it is for in extension attributes. Its ``type`` becomes the notification's
``event``, its data the ``data``; ``source`` and ``id``, which are its identity, become the
idempotency key, so that a bus may deliver an event as often as it likes; ``traceparent`` goes on
with the notification. All other attributes stay here: a client is sent the same message however a
notification was published, and what it should know belongs in the data.
"""

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from pushsvc.errors import InvalidJSON, InvalidRequest, PushError, UnsupportedMediaType
from pushsvc.protocol import encoding, tracecontext
from pushsvc.protocol.names import find_stray_percent, require_label
from pushsvc.protocol.notifications import MAX_BATCH

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
SPECVERSION: Final = "1.0"
HEADER: Final = "ce-"
"""What the header of an attribute begins with."""
MAX_INTEGER: Final = 2**31 - 1
"""An Integer of CloudEvents has 32 bits."""

_REQUIRED: Final = ("id", "source", "specversion", "type")
_REQUIRED_HEADERS: Final = tuple(HEADER + name for name in _REQUIRED)
_NOT_ATTRIBUTES: Final = ("data", "data_base64")
_TARGETS: Final = ("pushuser", "pushtopic", "pushbroadcast")
_DEVICE: Final = "pushdevice"
_STRINGS: Final = {"pushcollapsekey": "collapse_key", "pushdeliver": "deliver", "pushat": "at"}
_FLAGS: Final = {"pushephemeral": "ephemeral", "pushreceipt": "receipt", "pushinbox": "inbox"}
EXTENSIONS: Final = (*_TARGETS, _DEVICE, "pushttl", *_STRINGS, *_FLAGS)
"""The extension attributes that say what to do with an event."""

Attributes = dict[str, str | bool | int]

_is_attribute_name = re.compile(r"[a-z0-9]+").fullmatch
# What a String may not hold (CloudEvents, section "Type System"); halves of surrogate pairs do not
# get past the JSON decoder, nor past UTF-8.
_forbidden = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane | 0xFFFE)}{chr(plane | 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
    )
    + "]"
).search
_quoted = re.compile(r'"((?:[^"\\]|\\.)*)"').fullmatch
_is_integer = re.compile(r"0|-?[1-9]\d{0,9}", re.ASCII).fullmatch
_charset = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)"?', re.IGNORECASE).search
_is_json = re.compile(r"(?:application|text)/json|[^/]+/[^/]+\+json").fullmatch


class Mode(Enum):
    """A content mode of the HTTP binding (section 3)."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


class Publish(NamedTuple):
    """What an event asks for: a notification as ``POST /v1/notifications`` takes it."""

    notification: dict[str, Any]
    key: str
    """The idempotency key: the same for each delivery of one event, whatever the mode."""
    traceparent: str = ""
    """The trace context of the event (the extension Distributed Tracing); empty without one."""


def kind(content_type: str, headers: Mapping[str, str]) -> Mode | None:
    """Whether a request carries CloudEvents, and how.

    Args:
        content_type: of the request, with or without parameters; empty without one.
        headers: of the request, the names in lower case.

    Raises:
        UnsupportedMediaType: it carries them in a format that is not read here.
    """
    media_type = _media_type(content_type)
    if media_type == STRUCTURED:
        return Mode.STRUCTURED
    if media_type == BATCHED:
        return Mode.BATCH
    if media_type.startswith("application/cloudevents"):
        raise UnsupportedMediaType(
            f"CloudEvents are read as {STRUCTURED}, {BATCHED} or in binary mode: send one of them"
        )
    return None if headers.keys().isdisjoint(_REQUIRED_HEADERS) else Mode.BINARY


def read(mode: Mode, headers: Mapping[str, str], body: bytes) -> list[Publish]:
    """Read the events of a request; exactly one unless it is a batch, which may be empty.

    Args:
        mode: what ``kind`` found.
        headers: of the request, the names in lower case.
        body: of the request.

    Raises:
        InvalidRequest: an event breaks CloudEvents 1.0, or does not say whom it is for.
        UnsupportedMediaType: text is in another encoding than UTF-8.
    """
    if "idempotency-key" in headers:
        raise InvalidRequest(
            "an event's source and id are its idempotency key: leave the Idempotency-Key out"
        )
    content_type = headers.get("content-type", "")
    if mode is Mode.BINARY:
        return [_publish(_attributes_of_headers(headers), _from_bytes(content_type, body))]
    _require_utf8(content_type)
    if mode is Mode.STRUCTURED:
        return [_structured(encoding.decode(body))]
    events = encoding.decode_items(body, None, MAX_BATCH)
    if events is None:
        raise InvalidRequest("a batch of CloudEvents is a JSON array of events")
    if len(events) > MAX_BATCH:
        raise InvalidRequest(f"a batch has at most {MAX_BATCH} events: split it")
    publishes = []
    for index, event in enumerate(events):
        try:
            publishes.append(_structured(event))
        except PushError as error:
            # The whole batch is refused: a bus looks at the status only, and would take an event
            # that was left out for a delivered one.
            raise type(error)(f"event {index} of the batch: {error.detail}") from None
    return publishes


# --- attributes ----------------------------------------------------------------------------------


def _attributes_of_headers(headers: Mapping[str, str]) -> Attributes:
    attributes: Attributes = {}
    for header, value in headers.items():
        header = header.lower()  # noqa: PLW2901 - as names are compared
        if header.startswith(HEADER):
            name = header[len(HEADER) :]
            if name == "datacontenttype":
                raise InvalidRequest(
                    "in binary mode the data's media type is the Content-Type: leave "
                    "ce-datacontenttype out"
                )
            _check_name(name)
            attributes[name] = _string(name, _header_value(name, value))
    return attributes


def _header_value(name: str, value: str) -> str:
    """Undo the quoting of older versions, then one round of percent-encoding (section 3.1.3.2)."""
    quoted = _quoted(value)
    if quoted:
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    if not value.isascii() or find_stray_percent(value):
        raise InvalidRequest(
            f"the header ce-{name[:40]} is not percent-encoded: write a percent sign as %25, and "
            "characters beyond ASCII as their UTF-8 bytes"
        )
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"the percent-encoded bytes of the header ce-{name[:40]} are not UTF-8: encode as UTF-8"
        ) from None


def _attributes_of_object(event: dict[str, Any]) -> Attributes:
    attributes: Attributes = {}
    for name, value in event.items():
        if name in _NOT_ATTRIBUTES or value is None:  # null means unset (JSON format, section 2.2)
            continue
        _check_name(name)
        if isinstance(value, str):
            attributes[name] = _string(name, value)
        elif isinstance(value, bool) or (
            isinstance(value, int) and -MAX_INTEGER - 1 <= value <= MAX_INTEGER
        ):
            attributes[name] = value
        else:
            raise InvalidRequest(
                f'the attribute "{name[:40]}" is no string, boolean or 32-bit integer: put what '
                "has structure into the data"
            )
    return attributes


def _check_name(name: str) -> None:
    if name in _NOT_ATTRIBUTES or not _is_attribute_name(name):
        raise InvalidRequest(
            f"{name[:40]!r} is no attribute name: use lower-case letters a-z and digits"
        )
    if name.startswith("push") and name not in EXTENSIONS:
        raise InvalidRequest(
            f"the attribute {name[:40]!r} is not known: those that begin with push are "
            f"{', '.join(EXTENSIONS)}"
        )


def _string(name: str, value: str) -> str:
    if not value:
        raise InvalidRequest(
            f'the attribute "{name[:40]}" is empty: give it a value or leave it out'
        )
    if _forbidden(value):
        raise InvalidRequest(
            f'the attribute "{name[:40]}" holds a control character or a code point that is no '
            "character: leave it out"
        )
    return value


def _require(attributes: Attributes) -> None:
    """Check the attributes that every event has."""
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str):
            raise InvalidRequest(
                f'a CloudEvent needs the attribute "{name}", a string: send it (in binary mode as '
                f"the header ce-{name})"
            )
    if attributes["specversion"] != SPECVERSION:
        raise InvalidRequest(f'only CloudEvents {SPECVERSION} are read: send specversion "1.0"')


# --- data ----------------------------------------------------------------------------------------


def _structured(event: Any) -> Publish:
    if not isinstance(event, dict):
        raise InvalidRequest("a CloudEvent in the JSON format is an object")
    attributes = _attributes_of_object(event)
    content_type = attributes.get("datacontenttype", "")
    if not isinstance(content_type, str):
        raise InvalidRequest('the attribute "datacontenttype" is a string: a media type')
    return _publish(attributes, _data_of_object(event, content_type))


def _data_of_object(event: dict[str, Any], content_type: str) -> dict[str, Any]:
    """The data of an event in the JSON format (section 3.1)."""
    if "data" in event and "data_base64" in event:
        raise InvalidRequest('an event has "data" or "data_base64", not both: leave one out')
    encoded = event.get("data_base64")
    if encoded is not None:
        plain = _unbase64(encoded)
        return _from_bytes(content_type, plain) if content_type else _bytes(plain)
    data = event.get("data")
    if data is None or _holds_json(content_type):
        return {"data": data}
    if not isinstance(data, str):
        raise InvalidRequest(
            f'"data" that is {content_type[:80]!r} is a string: send a string, bytes in '
            '"data_base64", or a datacontenttype of JSON'
        )
    return {"data": data} if _is_text(content_type) else _bytes(data.encode())


def _from_bytes(content_type: str, data: bytes) -> dict[str, Any]:
    """The fields of a notification for data as bytes of a media type; without one it is JSON."""
    if not data:
        return {"data": None}
    if _holds_json(content_type):
        _require_utf8(content_type)
        try:
            return {"data": encoding.decode(data)}
        except InvalidJSON as error:
            raise InvalidJSON(
                f"the data: {error.detail}; if it is not meant to be JSON, send its media type"
            ) from None
    if not _is_text(content_type):
        return _bytes(data)
    _require_utf8(content_type)
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        raise InvalidRequest(
            "the data is text but not UTF-8: encode it as UTF-8, or send it as "
            "application/octet-stream"
        ) from None


def _bytes(data: bytes) -> dict[str, Any]:
    return {"data": base64.b64encode(data).decode(), "encoding": "base64"}


def _unbase64(text: Any) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest('"data_base64" is not base64: send the padded base64 of the bytes')


@functools.lru_cache(maxsize=64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _holds_json(content_type: str) -> bool:
    media_type = _media_type(content_type)
    return not media_type or _is_json(media_type) is not None


def _is_text(content_type: str) -> bool:
    return _media_type(content_type).startswith("text/")


def _require_utf8(content_type: str) -> None:
    charset = _charset(content_type)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(
            f"text is read as UTF-8, not as {charset[1][:40]!r}: encode it as UTF-8"
        )


# --- what to publish -----------------------------------------------------------------------------


def _publish(attributes: Attributes, data: dict[str, Any]) -> Publish:
    _require(attributes)
    event = require_label(
        attributes["type"], 'the type of a CloudEvent, which becomes the "event" for clients,'
    )
    value: dict[str, Any] = {"to": _target(attributes), "event": event, **data}
    if "pushttl" in attributes:
        value["ttl"] = _integer(attributes, "pushttl")
    for name, field in _STRINGS.items():
        if name in attributes:
            value[field] = _text(attributes, name)
    for name, field in _FLAGS.items():
        if name in attributes:
            value[field] = _boolean(attributes, name)
    # No String holds a NUL, so no two identities are joined to the same text.
    identity = f"{attributes['source']}\0{attributes['id']}"
    key = "ce-" + hashlib.sha256(identity.encode()).hexdigest()
    return Publish(value, key, tracecontext.read(attributes.get(tracecontext.FIELD)))


def _target(attributes: Attributes) -> dict[str, Any]:
    to: dict[str, Any] = {
        name.removeprefix("push"): _text(attributes, name)
        for name in ("pushuser", "pushtopic")
        if name in attributes
    }
    if "pushbroadcast" in attributes and _boolean(attributes, "pushbroadcast"):
        to["broadcast"] = True
    if len(to) != 1:
        raise InvalidRequest(
            "an event needs exactly one of the extension attributes pushuser, pushtopic and "
            'pushbroadcast ("true"): say whom it is for'
        )
    if _DEVICE in attributes:
        to["device"] = _text(attributes, _DEVICE)
    return to


def _text(attributes: Attributes, name: str) -> str:
    value = attributes[name]
    if isinstance(value, str):
        return value
    raise InvalidRequest(f'the attribute "{name}" is a string')


def _integer(attributes: Attributes, name: str) -> int:
    value = attributes[name]
    # A bus that changes the mode may leave a string of what was an integer, and the other way.
    if isinstance(value, str) and _is_integer(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidRequest(f'the attribute "{name}" is an integer, such as 60')


def _boolean(attributes: Attributes, name: str) -> bool:
    value = attributes[name]
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise InvalidRequest(f'the attribute "{name}" is true or false')
