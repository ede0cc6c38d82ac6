"""A backend that publishes come what may."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support.nodes import Node, publisher_token, token


class Backend:
    """Publishes numbers in order, each until it is accepted, with its ``Idempotency-Key``.

    Args:
        node: where to.
        targets: one number goes to each of them.
    """

    def __init__(self, node: Node, *targets: dict[str, str]) -> None:
        self._node = node
        self._targets = targets
        self._ending = threading.Event()
        self.accepted = 0
        self.retries = 0

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publish meanwhile."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._node.url, timeout=5) as client:
            while not self._ending.is_set():
                for target in self._targets:
                    self._publish(client, target, self.accepted)
                self.accepted += 1
                time.sleep(0.01)

    def _publish(self, client: httpx.Client, target: dict[str, str], number: int) -> None:
        (kind,) = target
        headers = {
            "Authorization": f"Bearer {publisher_token()}",
            "Idempotency-Key": f"{kind}-{number}",
        }
        body = {"to": target, "data": number}
        while True:
            try:
                answer = client.post("/v1/notifications", json=body, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                return
            assert answer is None or answer.status_code == 503, answer.text
            self.retries += 1
            time.sleep(0.05)


def acked(node: Node, user: str, notification: str) -> list[str]:
    """The devices that have acknowledged a notification."""
    answer = httpx.get(
        f"{node.url}/v1/users/{user}/notifications",
        headers={"Authorization": f"Bearer {token(user)}"},
        timeout=10,
    )
    rows = {row["id"]: row for row in answer.json()["notifications"]}
    return [device["device"] for device in rows[notification]["acked"]]
