"""How fast the console's pages answer, at a node that holds 100,000 connections."""

import http.client
import json
import statistics
import time
from typing import Any

from bench.crowded_node import DEVICES
from bench.harness import Figure, Server, node, say, tokens, wait_until

CONNECTIONS = 100_000
ROUNDS = 50
MAILBOX = 1_000
"""Notifications that the user whose page is looked at has: as many as are kept."""
BAR = 200.0
"""Milliseconds."""
USER = "user-0"


def run(*, profile: bool) -> list[Figure]:
    """Look at each page again and again."""
    del profile
    with node() as server:
        alone = Console(server).times("/overview")
    with node(module=("bench.crowded_node", str(CONNECTIONS))) as server:
        say(f"console: registering {CONNECTIONS:,} connections")
        wait_until(
            lambda: server.metric("pushsvc_connections") == CONNECTIONS, "the connections", 300
        )
        say("console: waiting for the sweep of them to begin, a minute after the start")
        wait_until(lambda: server.metric("pushsvc_swept_total") > 0, "the sweep", 100)
        console = Console(server)
        newest = console.fill()
        wait_until(lambda: console.connections() == CONNECTIONS, "the overview")
        found = console.get(f"/users/{USER}")
        if len(found["devices"]) != DEVICES or found["mailbox"]["length"] != MAILBOX:
            raise RuntimeError(f"this is not the page that was to be measured: {found}")
        pages = {
            "the page": "",
            "overview": "/overview",
            f"user, {DEVICES} devices, {MAILBOX:,} kept": f"/users/{USER}",
            "100 notifications": f"/users/{USER}/notifications?limit=100",
            "trace": f"/trace?id={newest}&user={USER}",
            "trace, user not known": f"/trace?id={newest}",
        }
        times = {name: console.times(path) for name, path in pages.items()}
        before = server.cpu()
        time.sleep(10)
        idle = (server.cpu() - before) / 10
        before = server.cpu()
        for _ in range(10):
            console.get("/overview")
            time.sleep(1)
        watched = (server.cpu() - before) / 10
    figures = [Figure("overview, no connections: median", statistics.median(alone), "ms")]
    for name, each in times.items():
        figures.append(Figure(f"{name}: median", statistics.median(each), "ms"))
        figures.append(Figure(f"{name}: longest", max(each), "ms", at_most=BAR))
    figures.append(Figure("CPU of the node, nobody looks", 100 * idle, "%"))
    figures.append(Figure("an overview each second adds", 100 * (watched - idle), "%"))
    return figures


class Console:
    """An operator at the admin port of a server."""

    def __init__(self, server: Server) -> None:
        (token,) = tokens(["operator"], "push.admin", "push.publish")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http = http.client.HTTPConnection("127.0.0.1", server.admin_port)
        self._public = http.client.HTTPConnection("127.0.0.1", server.port)

    def fill(self) -> str:
        """Fill the mailbox; the id of the newest notification."""
        notes = [{"to": {"user": USER}, "data": {"text": "x" * 200}} for _ in range(MAILBOX)]
        body = json.dumps({"notifications": notes})
        self._public.request("POST", "/v1/notifications/batch", body, self._headers)
        results = json.loads(self._public.getresponse().read())["results"]
        newest: str = results[-1]["id"]
        return newest

    def get(self, path: str) -> dict[str, Any]:
        """What a path answers."""
        answer, _ = self._ask(path)
        found: dict[str, Any] = json.loads(answer)
        return found

    def connections(self) -> int:
        """How many the overview shows."""
        return sum(each["connections"] for each in self.get("/overview")["nodes"])

    def times(self, path: str) -> list[float]:
        """How long a path takes, in milliseconds."""
        self._ask(path)
        times = []
        for _ in range(ROUNDS):
            times.append(self._ask(path)[1])
            time.sleep(0.11)  # as often as one operator may ask for a trace
        return times

    def _ask(self, path: str) -> tuple[bytes, float]:
        begin = time.perf_counter()
        self._http.request(
            "GET", f"/console/api{path}" if path else "/console", None, self._headers
        )
        answer = self._http.getresponse()
        body = answer.read()
        took = 1000 * (time.perf_counter() - begin)
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}: {body.decode()}")
        return body, took
