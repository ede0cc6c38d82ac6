"""Whatever scans untrusted input takes time in proportion to it: each is timed at its worst.

CPU is compared, with what the same scan takes for a quarter of the input and with what parsing
usual JSON of the same size takes, so that a slow machine is no failure.
"""

import ast
import base64
import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tornado.httputil import HTTPHeaders
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from pushsvc import logs
from pushsvc.auth import authenticator
from pushsvc.auth.claims import Reader, Rules
from pushsvc.auth.tokens import Verifier, _read_header
from pushsvc.client import calls, connection, feed
from pushsvc.errors import PushError
from pushsvc.protocol import (
    chunks,
    cloudevents,
    encoding,
    frames,
    grants,
    ids,
    messages,
    names,
    notifications,
    requests,
    revocation,
    scheduled,
    tracecontext,
    webhooks,
    wire,
)
from pushsvc.server.process import settle_memory
from pushsvc.web import cors, operation, publish, query, websocket
from pushsvc.web.base import MAX_HEADERS

PACKAGE = Path(__file__).parents[2] / "pushsvc"
MIB = 1 << 20

GROWTH = 2.5
"""How much more than four times as long four times the input may take: caches end."""
SPARE = 0.002
"""Seconds that are too few to compare."""
USUAL = 16.0
"""How many times as long as parsing usual JSON a scan may take."""
TRIES = 5
"""The least of so many counts: what others do on the machine only ever adds."""


class Scan(NamedTuple):
    """A scan of untrusted input, and the worst that it can be given."""

    run: Callable[[Any], object]
    worst: Callable[[int], Any]
    """Makes so many bytes, or characters."""
    covers: tuple[str, ...] = ()
    """The regular expressions in it, as ``module:name``."""
    size: int = MIB
    """Less than a MiB where a limit, which is checked before, is lower."""
    times: float = USUAL
    """More than the usual where so small a value costs so much that the input has many of them."""


def run_of(unit: Any, head: Any = None, tail: Any = None) -> Callable[[int], Any]:
    """Makes input of one unit over and over."""
    nothing = unit[:0]
    first, last = head or nothing, tail or nothing
    return lambda size: first + unit * ((size - len(first) - len(last)) // len(unit)) + last


def numbered(size: int) -> bytes:
    return b"{" + b",".join(b'"%d":1' % number for number in range(size // 9)) + b"}"


def array32(unit: bytes) -> Callable[[int], bytes]:
    """A MessagePack array of many units."""
    return lambda size: b"\xdd" + (size // len(unit)).to_bytes(4) + unit * (size // len(unit))


def one_frame(size: int, filling: bytes) -> bytes:
    length = size // len(filling) * len(filling)
    return b"\x81\xff" + length.to_bytes(8) + bytes(4) + filling * (size // len(filling))


def read_frames(data: bytes) -> object:
    return frames.FrameReader(max_message=2 * MIB, max_fragments=MIB).feed(data)


def read_request(data: bytes, step: int = 2 * MIB) -> object:
    reader = requests.RequestReader(max_head=2 * MIB, max_fields=100)
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        reader.head()
    return reader.buffered


def read_chunks(data: bytes) -> object:
    return chunks.ChunkReader(max_besides=2 * MIB).take(bytearray(data))


def read_message(data: bytes) -> object:
    return messages.usual_ack(data) or messages.client_message(encoding.decode(data))


def subscribe(data: bytes) -> object:
    message = read_message(data)
    assert isinstance(message, messages.Subscribe)
    return message.positions()


def publish_json(data: bytes) -> object:
    return notifications.appends_from(encoding.decode(data), 65_536)


def event(**headers: str) -> object:
    known = {"ce-id": "1", "ce-source": "s", "ce-specversion": "1.0", "ce-type": "t"}
    fields = known | {"ce-pushuser": "u"} | {n.replace("_", "-"): v for n, v in headers.items()}
    mode = cloudevents.kind(fields.get("content-type", ""), fields)
    assert mode is not None
    return cloudevents.read(mode, fields, b"1")


def batch_of_events(data: bytes) -> object:
    headers = {"content-type": cloudevents.BATCHED}
    return cloudevents.read(cloudevents.Mode.BATCH, headers, data)


def structured_event(data: bytes) -> object:
    headers = {"content-type": cloudevents.STRUCTURED}
    return cloudevents.read(cloudevents.Mode.STRUCTURED, headers, data)


def json_text(head: str, unit: str, tail: str) -> Callable[[int], bytes]:
    return run_of(unit.encode(), head.encode(), tail.encode())


def origin(text: str) -> object:
    return cors.Origins(()).allow(HTTPHeaders({"Origin": text, "Host": "h"}))


def offer(text: str) -> object:
    return websocket.subprotocol_of(HTTPHeaders({"Sec-WebSocket-Protocol": text}))


def upgrade(text: str) -> object:
    headers = {"Upgrade": "websocket", "Connection": text, "Sec-WebSocket-Version": "13"}
    return websocket.websocket_key("HTTP/1.1", HTTPHeaders(headers | {"Sec-WebSocket-Key": text}))


def matched(topics: str) -> object:
    """Topics against the worst patterns that fit into a token."""
    stars = ".".join(["*"] * 60)
    held = grants.grants([f"{stars}.x{number}" for number in range(48)])
    return [held.may_subscribe(topic) for topic in topics.split(" ")]


def base64url(value: Any) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


VERIFIER = Verifier(keys=None, algorithms=["HS256"], reader=Reader(Rules()))  # type: ignore[arg-type]

SCANS: dict[str, Scan] = {
    # JSON
    "a string": Scan(encoding.decode, run_of(b"a", b'"', b'"')),
    "digits that are nearly too many": Scan(encoding.decode, run_of(b"1" * 308 + b"x", b'"', b'"')),
    "integers that are nearly too large": Scan(
        encoding.decode, run_of(b"1" * 308 + b",", b"[", b"1]")
    ),
    "integers beside a long one": Scan(
        encoding.decode, run_of(b"1,", b"[" + b"9" * 309 + b".5,", b"1]")
    ),
    "an integer": Scan(encoding.decode, run_of(b"1")),
    "a fraction": Scan(encoding.decode, run_of(b"1", b"0.")),
    "fractions": Scan(encoding.decode, run_of(b"1.1,", b"[", b"1]")),
    "exponents": Scan(encoding.decode, run_of(b"1e-300,", b"[", b"1]")),
    "zeros of an exponent": Scan(encoding.decode, run_of(b"0", b"1e")),
    "brackets": Scan(encoding.decode, run_of(b"[")),
    "braces": Scan(encoding.decode, run_of(b'{"a":')),
    "empty arrays": Scan(encoding.decode, run_of(b"[],", b"[", b"[]]")),
    "empty objects": Scan(encoding.decode, run_of(b"{},", b"[", b"{}]")),
    "small objects": Scan(encoding.decode, run_of(b'{"":1},', b"[", b"{}]")),
    "names": Scan(encoding.decode, numbered),
    "escapes": Scan(encoding.decode, run_of(b"\\u0000", b'"', b'"')),
    "half pairs": Scan(encoding.decode, run_of(b"\\ud800", b'"', b'"')),
    "white space": Scan(encoding.decode, run_of(b" ")),
    "lines and no JSON": Scan(encoding.decode, run_of(b"\n", b"", b"x")),
    "a string without end": Scan(encoding.decode, run_of(b"\\\\", b'"')),
    "items": Scan(
        lambda data: encoding.decode_items(data, None, 1000),
        run_of(b"1,", b"[", b"1]"),
    ),
    "items far apart": Scan(
        lambda data: encoding.decode_items(data, None, MIB),
        run_of(b"1" + b" " * 999 + b",", b"["),
        covers=("protocol/encoding:_blanks", "protocol/encoding:_comma"),
    ),
    "items without end": Scan(
        lambda data: encoding.decode_items(data, "a", 5), run_of(b" ", b'{"a":[1')
    ),
    "what is nested": Scan(
        lambda data: encoding.check_depth(json.loads(data)),
        run_of(b"[" * 60 + b"]" * 60 + b",", b"[", b"1]"),
        times=40,
    ),
    # MessagePack
    "nils": Scan(encoding.unpack, array32(b"\xc0")),
    "empty maps": Scan(encoding.unpack, array32(b"\x80"), times=45),
    "empty lists": Scan(encoding.unpack, array32(b"\x90"), times=35),
    "doubles": Scan(encoding.unpack, array32(b"\xcb\x3f\xf0\0\0\0\0\0\0")),
    "lists within one another": Scan(encoding.unpack, run_of(b"\x91")),
    "lists that announce too much": Scan(encoding.unpack, run_of(b"\xdd\xff\xff\xff\xff")),
    "maps that announce too much": Scan(encoding.unpack, run_of(b"\xdf\xff\xff\xff\xff")),
    "text for MessagePack": Scan(
        encoding.to_msgpack, run_of(b"aaaa", b'{"encoding":"base64","data":"', b'"}')
    ),
    "integers too wide for MessagePack": Scan(
        encoding.to_msgpack,
        run_of(b"18446744073709551616,", b'{"data":[', b"1]}"),
    ),
    # messages and notifications
    "nearly an ack": Scan(
        read_message,
        run_of(b"1", b'{"type":"ack","id":"', b'"}'),
        covers=("protocol/messages:_usual_ack",),
    ),
    "a message of no type": Scan(read_message, run_of(b"a", b'{"type":"', b'","ref":1}')),
    "a message with an unknown field": Scan(
        read_message, run_of(b"a", b'{"type":"ping","', b'":1}')
    ),
    "topics": Scan(
        subscribe,
        lambda size: json.dumps(
            {"type": "subscribe", "topics": dict.fromkeys(map(str, range(size // 12)))}
        ).encode(),
    ),
    "an id": Scan(ids.parse_untrusted, run_of("1"), covers=("protocol/ids:_FORM",)),
    "an id of what is scheduled": Scan(
        scheduled.is_scheduled_id, run_of("0", "s-"), covers=("protocol/scheduled:is_scheduled_id",)
    ),
    "a time": Scan(
        lambda text: notifications.appends_from({"to": {"user": "u"}, "data": 1, "at": text}, MIB),
        run_of("0", "2026-01-31T09:00:00.", "Z"),
    ),
    "a topic": Scan(names.is_topic, run_of("a", "|"), covers=("protocol/names:_find_unprintable",)),
    "a name": Scan(names.is_name, run_of("a"), covers=("protocol/names:_match_plain",)),
    "a name that is none": Scan(
        names.is_name, run_of("a", "", "\n"), covers=("protocol/names:_find_control",)
    ),
    "a percent-encoded name": Scan(
        names.from_percent_encoded, run_of("%41"), covers=("protocol/names:_match_encoded",)
    ),
    "an event": Scan(
        lambda text: names.require_label(text, "event"),
        run_of("a"),
        covers=("protocol/names:_match_label",),
    ),
    "users": Scan(publish_json, json_text('{"data":1,"to":{"users":["', 'a","', '"]}}')),
    "data": Scan(publish_json, json_text('{"to":{"user":"u"},"data":[', "[],", "1]}")),
    "base64": Scan(
        publish_json, json_text('{"to":{"user":"u"},"encoding":"base64","data":"', "aaaa", '"}')
    ),
    "no base64": Scan(
        publish_json, json_text('{"to":{"user":"u"},"encoding":"base64","data":"', "====", '"}')
    ),
    "what is revoked": Scan(lambda text: revocation.order_from({"jti": text}), run_of("a")),
    # CloudEvents
    "an attribute": Scan(
        structured_event,
        json_text('{"id":"', "a", '"}'),
        covers=("protocol/cloudevents:_forbidden",),
    ),
    "the name of an attribute": Scan(
        structured_event,
        json_text('{"', "a", 'A":"x"}'),
        covers=("protocol/cloudevents:_is_attribute_name",),
    ),
    "an integer as text": Scan(
        lambda text: cloudevents._integer({"pushttl": text}, "pushttl"),
        run_of("1"),
        covers=("protocol/cloudevents:_is_integer",),
    ),
    "attributes": Scan(
        structured_event,
        lambda size: json.dumps({f"a{number}": True for number in range(size // 16)}).encode(),
    ),
    "a media type": Scan(
        cloudevents._holds_json,
        run_of("+json", "a/", "x"),
        covers=("protocol/cloudevents:_is_json",),
    ),
    "a charset far off": Scan(
        cloudevents._require_utf8,
        run_of(" ", ";"),
        covers=("protocol/cloudevents:_charset",),
    ),
    "semicolons": Scan(cloudevents._require_utf8, run_of("; ")),
    "charsets": Scan(cloudevents._require_utf8, run_of(";charset ")),
    "a quoted header": Scan(
        lambda text: event(ce_subject=text),
        run_of("\\a", '"', '"'),
        size=MAX_HEADERS,
        covers=("protocol/cloudevents:_quoted", "protocol/cloudevents:_header_value"),
        times=50,
    ),
    "a header with one quote": Scan(
        lambda text: event(ce_subject=text), run_of("\\a", '"'), size=MAX_HEADERS
    ),
    "a percent-encoded header": Scan(
        lambda text: event(ce_subject=text),
        run_of("%41"),
        covers=("protocol/names:find_stray_percent",),
        times=20,
    ),
    "events": Scan(batch_of_events, run_of(b"{},", b"[", b"{}]")),
    # frames
    "short frames": Scan(read_frames, run_of(b"\x81\x80aaaa"), times=24),
    "pings": Scan(read_frames, run_of(b"\x89\x80aaaa"), times=28),
    "empty fragments": Scan(read_frames, run_of(b"\x00\x80aaaa", b"\x01\x80aaaa"), times=36),
    "a long frame": Scan(read_frames, lambda size: one_frame(size, b"a")),
    "a long frame of two-byte characters": Scan(
        read_frames, lambda size: one_frame(size, b"\xc3\xa4")
    ),
    "a frame byte by byte": Scan(
        lambda data: [
            reader.feed(data[at : at + 1])
            for reader in [frames.FrameReader(max_message=2 * MIB)]
            for at in range(len(data))
        ],
        lambda size: one_frame(size, b"a"),
        size=256 * 1024,
        times=150,
    ),
    "a key": Scan(frames.valid_key, run_of("A"), covers=("protocol/frames:_KEY",)),
    # a request
    "a method": Scan(
        read_request,
        run_of(b"a", b"", b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
        covers=("protocol/requests:_match_request_line", "protocol/requests:_is_token"),
    ),
    "a target": Scan(read_request, run_of(b"/", b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n")),
    "a target with its host": Scan(
        read_request,
        run_of(b"?/", b"GET http://a", b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        covers=("protocol/requests:_match_absolute",),
    ),
    "a host": Scan(
        read_request,
        run_of(b"a:", b"GET / HTTP/1.1\r\nHost: ", b"\r\n\r\n"),
        covers=("protocol/requests:_is_host",),
    ),
    "a host's port": Scan(read_request, run_of(b"1", b"GET / HTTP/1.1\r\nHost: a:", b"x\r\n\r\n")),
    "a header's name": Scan(read_request, run_of(b"a", b"GET / HTTP/1.1\r\n", b" : b\r\n\r\n")),
    "a header's value": Scan(
        read_request,
        run_of(b" a", b"GET / HTTP/1.1\r\na:", b"\x01\r\n\r\n"),
        covers=("protocol/requests:_find_control",),
    ),
    "header lines": Scan(read_request, run_of(b"a:b\r\n", b"GET / HTTP/1.1\r\n", b"\r\n")),
    "lines that do not end": Scan(
        read_request,
        run_of(b"\r\n\r", b"GET / HTTP/1.1\r\n"),
        covers=("protocol/requests:_find_stray",),
    ),
    "options of the Connection header": Scan(
        read_request, run_of(b",", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: ", b"\r\n\r\n")
    ),
    "transfer codings": Scan(
        read_request,
        run_of(b"chunked,", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ", b"\r\n\r\n"),
    ),
    "empty lines": Scan(read_request, run_of(b"\r\n")),
    "a head byte by byte": Scan(
        lambda data: read_request(data, 1),
        run_of(b"a", b"GET / HTTP/1.1\r\na:", b"\r\n\r\n"),
        size=256 * 1024,
        times=150,
    ),
    "chunks of a byte": Scan(
        read_chunks,
        run_of(b"1\r\nx\r\n"),
        covers=("protocol/chunks:_match_size",),
        times=40,
    ),
    "extensions of chunks": Scan(read_chunks, run_of(b"1;" + b"a" * 254 + b"\r\nx\r\n")),
    "a chunk's size that does not end": Scan(
        read_chunks, run_of(b"0"), covers=("protocol/chunks:_begins_size",)
    ),
    "a trailer": Scan(
        read_chunks,
        run_of(b"a", b"0\r\na:", b"\r\n\r\n"),
        covers=("protocol/chunks:_is_trailer",),
    ),
    "a trailer that does not end": Scan(
        read_chunks, run_of(b"a", b"0\r\na:"), covers=("protocol/chunks:_find_stray",)
    ),
    "trailers": Scan(read_chunks, run_of(b"a:\r\n", b"0\r\n"), times=40),
    "headers of one name": Scan(HTTPHeaders.parse, run_of("a:b\r\n"), size=MAX_HEADERS, times=70),
    "headers": Scan(
        HTTPHeaders.parse,
        lambda size: "".join(f"{number}:\r\n" for number in range(size // 8)),
        size=MAX_HEADERS,
        times=70,
    ),
    "a trace context": Scan(
        tracecontext.read,
        run_of("a", f"01-{'a' * 32}-{'a' * 16}-01-"),
        covers=("protocol/tracecontext:_traceparent",),
    ),
    "a trace context of blanks": Scan(tracecontext.read, run_of(" ")),
    "commas of a position": Scan(wire.parse_position, run_of(",")),
    "a position": Scan(wire.parse_position, run_of("u=1-1,"), times=24),
    "an idempotency key": Scan(publish.idempotency_key, run_of("a"), covers=("web/publish:_bare",)),
    "a quoted idempotency key": Scan(
        publish.idempotency_key, run_of('\\"', '"'), covers=("web/publish:_quoted",)
    ),
    "arguments": Scan(query.Query, run_of("a&")),
    "a percent-encoded argument": Scan(query.Query, run_of("%41")),
    "a number in a query": Scan(
        lambda text: query.Query(text).number("a", 0, 9, 0),
        run_of("1", "a="),
        covers=("web/query:_digits",),
    ),
    "seconds in a query": Scan(
        lambda text: query.Query(text).seconds("a", 9, 0),
        run_of("1", "a=1."),
        covers=("web/query:_decimal",),
    ),
    "an origin of colons": Scan(origin, run_of(":"), covers=("web/cors:_PORT",)),
    "an origin of ports": Scan(origin, run_of(":1111", "", "x")),
    "subprotocols": Scan(offer, run_of("a,")),
    "options of a connection": Scan(upgrade, run_of("a,")),
    "an authorization": Scan(
        lambda text: operation.bearer(HTTPHeaders({"Authorization": text})), run_of(" ", "bearer")
    ),
    # tokens
    "a token of dots": Scan(VERIFIER.verify_cached, run_of(".")),
    "the header of a token": Scan(_read_header, run_of(b"W1tb"), size=8192),
    "a key id": Scan(
        _read_header,
        lambda size: base64url({"alg": "HS256", "kid": "a" * size}),
        covers=("auth/tokens:_match_kid",),
    ),
    "a ticket": Scan(
        authenticator._match_ticket, run_of("a"), covers=("auth/authenticator:_match_ticket",)
    ),
    "a pattern": Scan(
        lambda text: grants.from_claim({"publish": [text]}),
        run_of("a."),
    ),
    "patterns": Scan(lambda text: grants.from_claim({"publish": text.split(".")}), run_of("a.")),
    "topics against patterns": Scan(
        matched, run_of(".".join(["a"] * 61) + " ", "", "a"), size=32 * 1024, times=300
    ),
    # logs
    **{
        f"a log line of {unit!r}": Scan(logs.redact_text, run_of(unit), covers=("logs:_SECRETS",))
        for unit in (
            "eyJ",
            "eyJ.",
            "eyJaaaaaaaaaaaa.",
            "bearer ",
            "bearer" + " " * 99,
            " ",
            "://",
            "://a",
            "token=",
            "a",
        )
    },
    "a log line of one long secret": Scan(logs.redact_text, run_of("a", "://")),
    "a log line of one long word": Scan(logs.redact_text, run_of(" ", "bearer")),
    # what a server may send to a client, and a receiver of webhooks to a node
    "when to try again": Scan(
        lambda text: webhooks.retry_after({"Retry-After": text}, 0.0),
        run_of("1"),
        covers=("protocol/webhooks:_SECONDS",),
    ),
    "a date of words": Scan(
        lambda text: webhooks.retry_after({"Retry-After": text}, 0.0), run_of("a ")
    ),
    "a position of a server": Scan(
        feed._SHAPE.fullmatch, run_of("1"), covers=("client/feed:_SHAPE",)
    ),
    "a message of a server": Scan(connection._parsed, run_of("[")),
    "an answer of a server": Scan(calls._parsed, run_of(b"[")),
    "a refusal of a server": Scan(
        lambda body: connection._refusal(InvalidStatus(Response(401, "", Headers(), body))),
        run_of(b"["),
    ),
}

BOUNDED = {
    "web/spec/page:_code": "the descriptions of the API, which are ours",
    "client/asking:_id": "the id that the program gives; 41 characters by the expression",
    "client/publishing:_key": "the key that the program gives; 255 characters by the expression",
    "protocol/push_capability:_match": "1,200 characters, which are counted before",
    "protocol/names:_substitute_wide": "names that were checked, of 256 bytes",
    "protocol/names:_match_namespace": "what the operator sets; 63 characters by the expression",
    "auth/issuer_table:": "what the operator writes",
    "store/scripts:": "our own scripts",
    "auth/keys:_find_pems": "files of the operator",
    "auth/jwks:_match_printable": "addresses that the issuer names, of a document of 1 MiB at most",
    "settings/values:": "what the operator sets",
    "settings/loading:": "what the operator sets",
    "cli/durations:": "what the operator types",
    "protocol/push_asking:": "texts of a push that were checked, of 2000 bytes",
}
"""The regular expressions that see no untrusted input, or only a little: what bounds it."""


def cpu(run: Callable[[Any], object], given: Any) -> float:
    """Seconds of CPU; a refusal is as good as a result."""
    began = time.process_time()
    with contextlib.suppress(PushError):
        run(given)
    return time.process_time() - began


@pytest.fixture(scope="module", autouse=True)
def memory_of_a_node() -> Iterator[None]:
    """Garbage is collected as in a node."""
    usual = gc.get_threshold()
    settle_memory()
    yield
    gc.set_threshold(*usual)
    gc.unfreeze()


@pytest.fixture(scope="module")
def usual() -> float:
    """Seconds of CPU that parsing a MiB of usual JSON takes."""
    note = {"to": {"user": "u1"}, "data": {"order": 17, "carrier": "DHL", "text": "x" * 20}}
    text = json.dumps([note] * (MIB // len(json.dumps(note)))).encode()
    return min(cpu(json.loads, text) for _ in range(TRIES))


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_a_scan_takes_time_in_proportion_to_its_input(scan: Scan, usual: float) -> None:
    whole, part = scan.worst(scan.size), scan.worst(scan.size // 4)
    most = scan.times * usual * scan.size / MIB + SPARE
    long = short = float("inf")
    for _ in range(TRIES):
        long, short = min(long, cpu(scan.run, whole)), min(short, cpu(scan.run, part))
        if long <= most and long <= 4 * GROWTH * short + SPARE:
            return
    pytest.fail(
        f"{long * 1000:.1f} ms; {short * 1000:.1f} ms for a quarter; at most {most * 1000:.1f} ms"
    )


def expressions() -> Iterator[str]:
    """The regular expressions of the package, each as ``module:name`` of what it stands in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        for outer in ast.parse(path.read_text()).body:
            if any(_is_regular(inner) for inner in ast.walk(outer)):
                yield f"{module}:{_name(outer)}"


def _is_regular(node: ast.AST) -> bool:
    """Whether this is a call of ``re``."""
    called = node.func if isinstance(node, ast.Call) else None
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name):
        return False
    return called.value.id == "re"


def _name(outer: ast.stmt) -> str:
    if isinstance(outer, ast.Assign):
        return ast.unparse(outer.targets[0])
    if isinstance(outer, ast.AnnAssign):
        return ast.unparse(outer.target)
    return str(getattr(outer, "name", "?"))


def test_each_regular_expression_is_timed_or_sees_nothing_untrusted() -> None:
    timed = {name for scan in SCANS.values() for name in scan.covers}
    found = set(expressions())
    unknown = {name for name in found - timed if not name.startswith(tuple(BOUNDED))}
    assert not unknown, "time each at its worst in SCANS, or say in BOUNDED what bounds its input"
    assert not timed - found, "there are no such expressions any more"
    assert all(any(name.startswith(known) for name in found) for known in BOUNDED)


def test_no_import_hides_a_regular_expression() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "from re import" not in text, path
        assert "import re as" not in text, path
