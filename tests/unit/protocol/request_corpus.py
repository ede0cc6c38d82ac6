"""What connections may carry, well or badly formed, and what is read of each.

The two readers of the service are held to this one table: `RequestReader` and Tornado's, which the
admin port is served by. Where they differ, it says why.
"""

from typing import Final, NamedTuple

MAX_HEAD: Final = 1024
MAX_FIELDS: Final = 20


class Case(NamedTuple):
    """Bytes of one connection, and what is read of them."""

    data: bytes
    ours: str
    """The requests that are whole, ``method target body`` each, and the status of a refusal."""
    tornado: str | None = None
    """The same of Tornado where it differs; its refusals are all 400."""
    why: str = ""


def get(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "Host: a") -> bytes:
    lines = [line, *([] if host is None else [host]), *fields]
    return "".join(each + "\r\n" for each in lines).encode("latin-1") + b"\r\n"


def post(*fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return get(*fields, line=f"POST / HTTP/{version}") + body


def chunked(body: bytes, *fields: str) -> bytes:
    return post("Transfer-Encoding: chunked", *fields, body=body)


NEXT: Final = get(line="GET /next HTTP/1.1")
"""A request behind another: smuggled if the two readers see it in different places."""
LF: Final = (
    "RFC 9112 section 2.2 lets a recipient take LF for CRLF; one that does not may be before us"
)
EXPRESSION: Final = "Tornado ends heads at the first pair of line ends of either kind"
CLOSED: Final = (
    "Tornado serves what it has buffered after it closed; RFC 9112 section 9.6 forbids it"
)
EXTENSIONS: Final = (
    "Tornado reads no extensions; RFC 9112 section 7.1.1 says to ignore unknown ones"
)
TRAILERS: Final = "Tornado reads no trailers; RFC 9112 section 7.1.2 allows them"

CORPUS: Final[dict[str, Case]] = {
    # well formed
    "a request": Case(get(), "GET /"),
    "two, pipelined": Case(get() + NEXT, "GET /; GET /next"),
    "a body and a request behind it": Case(
        post("Content-Length: 3", body=b"abc") + NEXT, "POST / abc; GET /next"
    ),
    "no body and a request behind it": Case(post("Content-Length: 0") + NEXT, "POST /; GET /next"),
    "chunks and a request behind them": Case(
        chunked(b"3\r\nabc\r\n0\r\n\r\n") + NEXT, "POST / abc; GET /next"
    ),
    "a body with a GET": Case(get("Content-Length: 3") + b"abc" + NEXT, "GET / abc; GET /next"),
    "half a head": Case(get()[:-2], ""),
    "half a body": Case(post("Content-Length: 3", body=b"ab"), ""),
    "half a chunk": Case(chunked(b"3\r\nab"), ""),
    "nothing behind the last chunk": Case(chunked(b"3\r\nabc\r\n0\r\n"), ""),
    "HTTP/1.0": Case(
        get(line="GET / HTTP/1.0", host=None) + NEXT, "GET /", "GET /; GET /next", CLOSED
    ),
    "HTTP/1.0 that would be kept": Case(
        get("Connection: keep-alive", line="GET / HTTP/1.0") + NEXT,
        "GET /",
        "GET /; GET /next",
        "1.0 is answered and closed: nobody needs more of it",
    ),
    "Connection: close": Case(get("Connection: close") + NEXT, "GET /", "GET /; GET /next", CLOSED),
    "close among the options": Case(
        get("Connection: x, Close") + NEXT,
        "GET /",
        "GET /; GET /next",
        "Tornado compares the whole value; RFC 9110 section 7.6.1 makes it a list",
    ),
    "an upgrade that nobody takes": Case(
        get("Connection: Upgrade", "Upgrade: h2c") + NEXT, "GET /; GET /next"
    ),
    "an expectation": Case(
        post("Expect: 100-continue", "Content-Length: 1", body=b"x"), "POST / x"
    ),
    "one empty line before a request": Case(get() + b"\r\n" + NEXT, "GET /; GET /next"),
    "white space round a value": Case(get("X: \t a b \t "), "GET /"),
    "an empty value": Case(get("X:"), "GET /"),
    "Latin-1 in a value": Case(get("X: \xe4"), "GET /"),
    "a field twice": Case(get("X: 1", "x: 2"), "GET /"),
    "a method that nobody knows": Case(get(line="FOO / HTTP/1.1"), "FOO /"),
    "a method in lower case": Case(get(line="get / HTTP/1.1"), "get /"),
    "a body's length with zeros before it": Case(
        post("Content-Length: 003", body=b"abc"), "POST / abc"
    ),
    "the coding in capitals": Case(
        post("Transfer-Encoding: CHUNKED", body=b"1\r\nx\r\n0\r\n\r\n"), "POST / x"
    ),
    # targets
    "a query": Case(get(line="GET /a?b=%20&c HTTP/1.1"), "GET /a?b=%20&c"),
    "two slashes": Case(get(line="GET //evil/x HTTP/1.1"), "GET //evil/x"),
    "dots": Case(get(line="GET /../x HTTP/1.1"), "GET /../x"),
    "braces and bars": Case(get(line='GET /{a|b}"<> HTTP/1.1'), 'GET /{a|b}"<>'),
    "absolute": Case(
        get(line="GET http://b/c?d HTTP/1.1"),
        "GET /c?d",
        "GET http://b/c?d",
        "RFC 9112 section 3.2.2 has servers take it; Tornado's routes do not",
    ),
    "absolute without a path": Case(
        get(line="GET http://b?d HTTP/1.1"), "GET /?d", "GET http://b?d", "as before"
    ),
    "absolute with a user": Case(
        get(line="GET http://u@b/ HTTP/1.1"),
        "400",
        "GET http://u@b/",
        "RFC 9110 section 4.2.4: what stands before the @ hides the host",
    ),
    "another scheme": Case(
        get(line="GET ftp://b/ HTTP/1.1"), "400", "GET ftp://b/", "no path, so no route"
    ),
    "an asterisk with OPTIONS": Case(get(line="OPTIONS * HTTP/1.1"), "OPTIONS *"),
    "an asterisk with GET": Case(
        get(line="GET * HTTP/1.1"), "400", "GET *", "RFC 9112 section 3.2.4: for OPTIONS only"
    ),
    "CONNECT": Case(
        get(line="CONNECT a:80 HTTP/1.1"),
        "400",
        "CONNECT a:80",
        "no proxy: 404 in Tornado's routes",
    ),
    "no slash": Case(get(line="GET x HTTP/1.1"), "400", "GET x", "no path, so no route"),
    "a fragment": Case(
        get(line="GET /a#b HTTP/1.1"), "400", "GET /a#b", "RFC 9112 section 3.2: never sent"
    ),
    "Latin-1 in a target": Case(get(line="GET /\xe4 HTTP/1.1"), "GET /\xe4"),  # see path_part
    "a control character in a target": Case(get(line="GET /\x01 HTTP/1.1"), "400"),
    "DEL in a target": Case(get(line="GET /\x7f HTTP/1.1"), "400"),
    "a tab in a target": Case(get(line="GET /\t HTTP/1.1"), "400"),
    # the request line
    "two spaces": Case(get(line="GET  / HTTP/1.1"), "400"),
    "two spaces before the version": Case(get(line="GET /  HTTP/1.1"), "400"),
    "a space behind the version": Case(get(line="GET / HTTP/1.1 "), "400"),
    "a space before the method": Case(get(line=" GET / HTTP/1.1"), "400"),
    "tabs for spaces": Case(get(line="GET\t/\tHTTP/1.1"), "400"),
    "no version": Case(get(line="GET /"), "400"),
    "HTTP/0.9": Case(get(line="GET / HTTP/0.9"), "400"),
    "HTTP/1.2": Case(
        get(line="GET / HTTP/1.2"), "400", "GET /", "RFC 9110 section 2.5 would take it for 1.1"
    ),
    "HTTP/2.0": Case(get(line="GET / HTTP/2.0"), "400"),
    "HTTP/2's preface": Case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
    "HTTP/01.1": Case(get(line="GET / HTTP/01.1"), "400"),
    "http/1.1": Case(get(line="GET / http/1.1"), "400"),
    "RTSP": Case(get(line="DESCRIBE / RTSP/1.0"), "400"),
    "ICE": Case(get(line="SOURCE / ICE/1.0"), "400"),
    "a colon in a method": Case(get(line="GE:T / HTTP/1.1"), "400"),
    "Latin-1 in a method": Case(get(line="G\xcbT / HTTP/1.1"), "400"),
    "TLS on a plain port": Case(
        b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03", "400", "", "Tornado waits for a line's end"
    ),
    "empty lines before a request": Case(b"\r\n\r\n\r\n" + get(), "400"),
    "a bare LF before a request": Case(b"\n" + get(), "400", "GET /", LF),
    # line ends
    "LF behind the request line": Case(b"GET / HTTP/1.1\nHost: a\r\n\r\n", "400", "GET /", LF),
    "LF behind a header": Case(b"GET / HTTP/1.1\r\nHost: a\n\r\n", "400", "GET /", LF),
    "LF for the empty line": Case(
        b"GET / HTTP/1.1\r\nHost: a\r\n\n" + NEXT, "400", "GET /; GET /next", LF
    ),
    "LF everywhere": Case(b"GET / HTTP/1.1\nHost: a\n\n", "400", "GET /", EXPRESSION),
    "LF in a head that is not whole": Case(b"GET / HTTP/1.1\nHost: a", "400", "", LF),
    "CR behind the request line": Case(b"GET / HTTP/1.1\rHost: a\r\n\r\n", "400"),
    "CR in a value": Case(get("X: a\rb"), "400"),
    "CR before CRLF": Case(get("X: a\r"), "400"),
    "CR and a header": Case(get("X: a\rContent-Length: 3") + b"abc", "400"),
    "NUL in a value": Case(get("X: a\0b"), "400"),
    "NUL in a name": Case(get("X\0: a"), "400"),
    # fields
    "a space before the colon": Case(get("X : a"), "400"),
    "a space before the colon of a length": Case(post("Content-Length : 3", body=b"abc"), "400"),
    "a tab before the colon": Case(get("X\t: a"), "400"),
    "a space in a name": Case(get("X Y: a"), "400"),
    "no name": Case(get(": a"), "400"),
    "no colon": Case(get("X"), "400"),
    "a name in Latin-1": Case(get("\xe4: a"), "400"),
    "a bracket in a name": Case(get("X[]: a"), "400"),
    "a folded line": Case(get("X: a", " b"), "400"),
    "a folded line of a tab": Case(get("X: a", "\tb"), "400"),
    "a folded length": Case(post("Content-Length:", " 3", body=b"abc"), "400"),
    "a header that begins with a space": Case(get(" X: a", host=None), "400"),
    "a control character in a value": Case(get("X: \x01"), "400"),
    "DEL in a value": Case(get("X: \x7f"), "400"),
    "VT before a coding": Case(post("Transfer-Encoding: \x0bchunked"), "400"),
    "too many lines": Case(get(*["X: a"] * MAX_FIELDS), "431", "GET /", "Tornado counts no lines"),
    "too many bytes": Case(
        get("X: " + "a" * MAX_HEAD), "431", "", "Tornado closes without an answer"
    ),
    # the host
    "no host": Case(get(host=None), "400"),
    "two hosts": Case(get("Host: b"), "400"),
    "the same host twice": Case(get("Host: a"), "400"),
    "hosts with a comma": Case(
        get(host="Host: a,b"),
        "GET /",
        "400",
        "a comma may stand in a name (RFC 3986 section 3.2.2)",
    ),
    "a host with a space": Case(get(host="Host: a b"), "400"),
    "a host with a path": Case(get(host="Host: a/b"), "400"),
    "a host with a user": Case(get(host="Host: u@a"), "400"),
    "a host with a port": Case(get(host="Host: a:80"), "GET /"),
    "an address": Case(get(host="Host: [::1]:80"), "GET /"),
    "an address without brackets": Case(
        get(host="Host: ::1"), "400", "GET /", "Tornado takes colons anywhere"
    ),
    "an empty host": Case(get(host="Host:"), "GET /"),
    "two hosts in HTTP/1.0": Case(get("Host: b", line="GET / HTTP/1.0"), "400"),
    # the length
    "two lengths": Case(post("Content-Length: 3", "Content-Length: 4", body=b"abcd"), "400"),
    "the same length twice": Case(
        post("Content-Length: 3", "Content-Length: 3", body=b"abc"),
        "400",
        "POST / abc",
        "RFC 9112 section 6.3 allows either",
    ),
    "a length twice in one": Case(
        post("Content-Length: 3, 3", body=b"abc"), "400", "POST / abc", "as before"
    ),
    "an empty length": Case(post("Content-Length:"), "400"),
    "a length with a sign": Case(post("Content-Length: +3", body=b"abc"), "400"),
    "a length below 0": Case(post("Content-Length: -3", body=b"abc"), "400"),
    "a length in hex": Case(post("Content-Length: 0x3", body=b"abc"), "400"),
    "a length with an underscore": Case(post("Content-Length: 1_0", body=b"abc"), "400"),
    "a length with a fraction": Case(post("Content-Length: 3.0", body=b"abc"), "400"),
    "a length with a space": Case(post("Content-Length: 3 0", body=b"abc"), "400"),
    "a length in superscript": Case(post("Content-Length: \xb3", body=b"abc"), "400"),
    "a length of 17 digits": Case(
        post("Content-Length: " + "9" * 17), "413", "400", "RFC 9110 section 15.5.14"
    ),
    "a length beyond 64 bits": Case(
        post("Content-Length: 18446744073709551617", body=b"a"), "413", "400", "the same"
    ),
    # the coding
    "a length and chunks": Case(
        post("Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), "400"
    ),
    "chunks and a length": Case(
        post("Transfer-Encoding: chunked", "Content-Length: 3", body=b"0\r\n\r\n"), "400"
    ),
    "chunked twice": Case(chunked(b"0\r\n\r\n", "Transfer-Encoding: chunked"), "400"),
    "chunked twice in one": Case(post("Transfer-Encoding: chunked, chunked"), "400"),
    "chunked and identity": Case(chunked(b"0\r\n\r\n", "Transfer-Encoding: identity"), "400"),
    "identity": Case(post("Transfer-Encoding: identity"), "400"),
    "gzip and chunked": Case(post("Transfer-Encoding: gzip, chunked"), "501"),
    "gzip": Case(post("Transfer-Encoding: gzip"), "400"),
    "no coding": Case(post("Transfer-Encoding:"), "400"),
    "a comma before chunked": Case(post("Transfer-Encoding: ,chunked"), "501"),
    "a comma behind chunked": Case(post("Transfer-Encoding: chunked,"), "400"),
    "xchunked": Case(post("Transfer-Encoding: xchunked"), "400"),
    "chunked with a parameter": Case(post("Transfer-Encoding: chunked;a=b"), "400"),
    "chunked in quotes": Case(post('Transfer-Encoding: "chunked"'), "400"),
    "chunks in HTTP/1.0": Case(
        post("Transfer-Encoding: chunked", version="1.0", body=b"0\r\n\r\n"),
        "400",
        "POST /",
        "RFC 9112 section 6.1: framing of it is faulty",
    ),
    # chunks
    "an extension": Case(
        chunked(b"3;a=b\r\nabc\r\n0\r\n\r\n") + NEXT, "POST / abc; GET /next", "400", EXTENSIONS
    ),
    "a trailer": Case(
        chunked(b"3\r\nabc\r\n0\r\nA: b\r\n\r\n") + NEXT, "POST / abc; GET /next", "400", TRAILERS
    ),
    "a chunk size with a sign": Case(chunked(b"+3\r\nabc\r\n0\r\n\r\n"), "400"),
    "a chunk size with 0x": Case(chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), "400"),
    "a chunk size with an underscore": Case(chunked(b"1_0\r\nabc\r\n0\r\n\r\n"), "400"),
    "a chunk size with a space": Case(chunked(b"3 \r\nabc\r\n0\r\n\r\n"), "400"),
    "a chunk size of 17 digits": Case(
        chunked(b"00000000000000003\r\nabc\r\n0\r\n\r\n"),
        "400",
        "POST / abc",
        "Tornado bounds the line, at 64 bytes",
    ),
    "a chunk size that overflows": Case(chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), "400"),
    "no chunk size": Case(chunked(b"\r\nabc\r\n0\r\n\r\n"), "400"),
    "a chunk size and a bare LF": Case(chunked(b"3\nabc\r\n0\r\n\r\n"), "400"),
    "a chunk that goes on": Case(chunked(b"3\r\nabcd\r\n0\r\n\r\n"), "400"),
    "a chunk that ends with LF": Case(chunked(b"3\r\nabc\n0\r\n\r\n"), "400"),
    "a request in place of the trailers": Case(chunked(b"0\r\n" + NEXT), "400"),
}
