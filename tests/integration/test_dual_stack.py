"""A node whose address is `::` serves IPv4 and IPv6."""

from pathlib import Path

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, publisher_token


@pytest.mark.parametrize("workers", [1, 2])
def test_both_ports_answer_on_both_families(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, workers: int
) -> None:
    everywhere = {"host": "::", "admin_host": "::", "workers": workers}
    with Node(valkey.url, tmp_path, prefix=prefix, **everywhere) as node:
        for address in ("127.0.0.1", "[::1]"):
            ready = httpx.get(f"http://{address}:{node.admin_port}/readyz")
            assert ready.status_code == 200, ready.text
            accepted = httpx.post(
                f"http://{address}:{node.port}/v1/notifications",
                headers={"Authorization": f"Bearer {publisher_token()}"},
                json={"to": {"user": "alice"}, "data": address},
            )
            assert accepted.status_code == 202, accepted.text


@pytest.mark.parametrize("workers", [1, 2])
def test_a_node_of_one_family_leaves_the_other_alone(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, workers: int
) -> None:
    loopback = {"host": "::1", "workers": workers}
    with Node(valkey.url, tmp_path, prefix=prefix, **loopback) as node:
        assert httpx.get(f"http://[::1]:{node.port}/v1/poll").status_code == 401
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{node.port}/v1/poll")
