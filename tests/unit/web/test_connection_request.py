"""What a client asks for that wants to listen."""

from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from pushsvc.auth.tokens import Claims
from pushsvc.errors import InvalidName, InvalidRequest
from pushsvc.protocol.feeds import topic
from pushsvc.protocol.names import is_topic
from pushsvc.protocol.wire import EventStream, position
from pushsvc.web.base import MAX_HEADERS
from pushsvc.web.connection_request import MAX_TOPICS, ConnectionRequest, listening_request
from pushsvc.web.query import Query
from tests.support.hubs import session_of

A, B = 1764000000123 << 64, 1764000000456 << 64


def read(query: str, **headers: str) -> ConnectionRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return listening_request(HTTPHeaders(named), Query(query))


def test_a_request_names_its_device_its_topics_and_what_lets_it_in() -> None:
    request = read("device=tv&topic=a&topic=b&topic=a&ticket=t", Authorization="Bearer x")
    assert request == ConnectionRequest("tv", "x", "t", ["a", "b"], {})
    assert read("").device == "default"


def test_the_last_event_id_counts_before_the_query_and_only_for_what_is_asked_for() -> None:
    position = "u=1764000000123-0,t:a=1764000000456-0,t:c=1764000000456-0"
    request = read("topic=a&topic=b&after=u=1764000000456-0", Last_Event_ID=position)
    assert request.client_positions == {"u": A, "t:a": B}
    assert request.positions_of(session_of("ann", "phone")) == {"u:ann": A}
    assert request.subscription().topics == {"a": B, "b": None}
    assert read("after=b=1764000000456-0").client_positions == {"b": B}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("device=", InvalidName),
        ("device=%ff", InvalidRequest),
        ("device=a&device=b", InvalidRequest),
        ("ticket=a&ticket=b", InvalidRequest),
        ("after=u=1-0&after=u=2-0", InvalidRequest),
        ("device=a%0a", InvalidName),
        ("topic=a%20b", InvalidName),
        ("topic=%ff", InvalidRequest),
        ("after=x", InvalidRequest),
        ("&".join(f"topic=t{n}" for n in range(MAX_TOPICS + 1)), InvalidRequest),
    ],
)
def test_what_cannot_be_listened_to_is_refused(query: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(query)


def test_the_first_message_of_a_stream_tells_all_positions_that_are_known() -> None:
    request = read("topic=a&topic=b&after=t:a=1764000000456-0")
    session = request.session(Claims("ann", 4_000_000_000), answers=False)
    session.cursor.begin(A, None)
    wire = EventStream()
    request.tell_positions(wire, session)
    assert wire.positions == {"u:ann": A, "b": 0, "t:a": B}


def test_the_positions_of_a_client_are_in_its_namespace_though_it_is_told_none() -> None:
    request = read("topic=a&after=u=1764000000123-0,b=1764000000456-0,t:a=1764000000456-0")
    session = request.session(Claims("ann", 4_000_000_000, namespace="acme"), answers=False)
    assert (session.user, session.namespace) == ("ann", "acme")
    assert request.positions_of(session) == {"u:acme/ann": A, "b:acme/": B}
    assert request.subscription().topics == {"a": B}
    wire = EventStream()
    request.tell_positions(wire, session)
    assert wire.positions == {"u:acme/ann": 0, "b:acme/": 0, "t:acme/a": B}
    assert wire.position_event() == b"id: u=0-0,b=0-0,t:a=1764000000456-0\n\n"


LETTERS = st.sampled_from(["a", "-", ":", "|", "~", "\u00e9", "\u4e2d", "\U0001f600"])


@given(
    st.lists(
        st.tuples(LETTERS, st.integers(1, 256))
        .map(lambda each: each[0] * each[1])
        .filter(is_topic),
        unique=True,
    ),
    st.integers(0, 8192),
)
@example([f"{n:02}" + "\u4e2d" * 84 for n in range(12)], 8192)
@example([f"{n:02}" + "\u4e2d" * 18 for n in range(32)], 8192)
@example([f"{n:02}" + "|" * 254 for n in range(32)], 300)
def test_a_request_that_is_taken_can_be_repeated_with_all_of_its_positions(
    topics: list[str], size: int
) -> None:
    headers = {"Authorization": "Bearer " + "x" * size, "Host": "push.example.com"}
    query = [("device", "tv"), *(("topic", name) for name in topics)]
    try:
        listening_request(HTTPHeaders(headers), Query(urlencode(query)))
    except InvalidRequest as error:
        assert "fewer or shorter topics" in error.detail or len(topics) > MAX_TOPICS  # noqa: PT017
        return
    at = {"u:ann": A, "b": A, **{topic(name): A + 99999 for name in topics}}
    query += [("after", position(at)), ("wait", "60")]
    line = f"GET /v1/stream?{urlencode(query)} HTTP/1.1"
    head = "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    assert len(head) <= MAX_HEADERS - 512


def test_as_many_topics_as_nodes_of_before_took_fit_beside_a_token_of_several_kilobytes() -> None:
    topics = [f"{n:02}" + "a" * 126 for n in range(MAX_TOPICS)]
    query = Query(urlencode({"topic": topics}, doseq=True))
    headers = {"Authorization": "Bearer " + "x" * 5120, "User-Agent": "x" * 500}
    assert listening_request(HTTPHeaders(headers), query).topics == topics
    # What it holds already is told anew.
    headers["Last-Event-ID"] = position({topic(name): A for name in topics})
    assert len(listening_request(HTTPHeaders(headers), query).client_positions) == MAX_TOPICS
