"""Requests that are refused, and what becomes of their connections."""

import http.client

import pytest

from tests.support.nodes import Node, token


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/ws"])
def test_a_request_with_too_many_arguments_is_refused(node: Node, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    query = "&".join(f"a{i}=1" for i in range(200))
    connection.request("GET", f"{path}?{query}", headers={"Authorization": f"Bearer {token('u1')}"})
    answer = connection.getresponse()
    assert answer.status == 400
    assert answer.getheader("Content-Type") == "application/problem+json"
    connection.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/tickets"), ("GET", "/v1/revocations"), ("GET", "/v1/nowhere")],
)
def test_a_refused_request_without_a_body_leaves_its_connection_open(
    node: Node, method: str, path: str
) -> None:
    """A pooled client would meet the end of it with its next request."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    connection.connect()
    socket = connection.sock
    for _ in range(2):
        connection.request(method, path, headers={"Authorization": "Bearer nonsense"})
        answer = connection.getresponse()
        assert answer.status in {401, 404}
        answer.read()
        assert connection.sock is socket
    connection.close()
