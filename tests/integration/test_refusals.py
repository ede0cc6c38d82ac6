"""Requests that are refused, and what becomes of their connections."""

import http.client

import pytest

from tests.support.nodes import Node, token
from tests.support.raw import Raw, request


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


RAW = [("J\u00f6rg", "not ASCII: percent-encode"), ("%zz", "not percent-encoded")]
RAW += [("100%", "not percent-encoded"), ("%C3%B6\u00f6", "not ASCII: percent-encode")]


@pytest.mark.parametrize("admin", [False, True])
@pytest.mark.parametrize(("name", "why"), RAW)
def test_a_path_that_is_not_percent_encoded_is_no_other_users(
    node: Node, name: str, why: str, *, admin: bool
) -> None:
    """curl and PHP send the bytes of a path as they are."""
    base, port = ("/console/api", node.admin_port) if admin else ("/v1", node.port)
    auth = token("backend", "push.admin")
    raw = name.encode().decode("latin-1")
    paths = [
        ("POST", f"{base}/users/{raw}/disconnect"),
        ("GET", f"{base}/users/{raw}/notifications"),
        ("DELETE", f"{base}/users/{raw}/notifications/1764000000123-0"),
        ("GET", f"{base}/users/{raw}" if admin else f"{base}/topics/{raw}/presence"),
    ]
    for method, path in paths:
        with Raw(node, port=port) as peer:
            plain = {"Upgrade": None, "Connection": None, "Content-Length": "0"}
            peer.send(request(method, path, {**plain, "Authorization": f"Bearer {auth}"}))
            answer = peer.answer()
            assert answer.status_code == 400, (path, answer.text)
            assert why in answer.json()["detail"]


@pytest.mark.parametrize("zeros", [9, 17, 100, 5000])
@pytest.mark.parametrize("admin", [False, True])
def test_a_padded_length_is_judged_by_its_number(node: Node, zeros: int, *, admin: bool) -> None:
    path, port = ("/console/api", node.admin_port) if admin else ("/v1", node.port)
    auth = {"Authorization": f"Bearer {token('backend', 'push.admin')}", "Upgrade": None}
    with Raw(node, port=port) as peer:
        length = {"Connection": None, "Content-Length": "0" * zeros + "2000000"}
        peer.send(request("POST", f"{path}/revocations", {**auth, **length}))
        assert peer.answer().status_code == 413


@pytest.mark.parametrize("name", ["J\u00f6rg", "%zz"])
def test_a_query_takes_raw_utf_8_and_no_stray_percent_sign(node: Node, name: str) -> None:
    target = f"/v1/user/presence?user={name}".encode().decode("latin-1")
    auth = {"Authorization": f"Bearer {token('backend', 'push.admin')}"}
    with Raw(node) as peer:
        peer.send(request("GET", target, {"Upgrade": None, "Connection": None, **auth}))
        answer = peer.answer()
    if name == "%zz":
        assert answer.status_code == 400
        assert "not percent-encoded" in answer.json()["detail"]
    else:
        assert answer.json()["user"] == name
