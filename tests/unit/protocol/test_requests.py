"""Requests against RFC 9112, in pieces of any size, and against what Tornado makes of them."""

from pushsvc.protocol.requests import Head, RequestReader

MAX_HEAD, MAX_FIELDS = 2000, 20

HOST = b"Host: a\r\n"


def reader() -> RequestReader:
    return RequestReader(MAX_HEAD, MAX_FIELDS)


def one(data: bytes) -> Head:
    read = reader()
    read.feed(data)
    head = read.head()
    assert head is not None
    return head


def request(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(each + b"\r\n" for each in fields) + b"\r\n"


def test_a_head_says_what_was_sent() -> None:
    head = one(request(b"X-A:  b c\t", b"Content-Length: 12", line=b"POST /v1/x?y=%20z HTTP/1.1"))
    assert (head.method, head.target, head.version) == ("POST", "/v1/x?y=%20z", "HTTP/1.1")
    assert head.headers == {"host": "a", "x-a": "b c", "content-length": "12"}
    assert (head.length, head.keep_alive, head.expects) == (12, True, False)
