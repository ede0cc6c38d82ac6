"""The alerts and the dashboard read what a node says, and every alert says what to do."""

import asyncio
import contextlib
import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
import redis
import yaml
from websockets.exceptions import InvalidStatus

import pushsvc.server.process  # noqa: F401  # every handler and every error is defined
from pushsvc.errors import PushError
from pushsvc.protocol.webhooks import Verdict
from pushsvc.push.vapid import new_key
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.web.base import Handler
from pushsvc.web.operation import Operation
from tests.deploy.promql import Expression, parse
from tests.support.nodes import Node, wait_until, workers
from tests.support.phone import Phone
from tests.support.programs import need

ROOT: Final = Path(__file__).parents[2]
ALERTS: Final = ROOT / "helm" / "pushsvc" / "files" / "alerts.yaml"
DASHBOARD: Final = ROOT / "helm" / "pushsvc" / "files" / "dashboard.json"
RULE_TESTS: Final = Path(__file__).with_name("alerts_test.yaml")
RUNBOOK: Final = "docs/operations/runbook.md"

TARGET_LABELS: Final = {"namespace", "job", "pod", "instance"}
"""Labels that Prometheus adds to what it scrapes, in Kubernetes."""
OF_PROMETHEUS: Final = {"up"}
"""What Prometheus says of each target by itself."""


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def expressions() -> dict[str, Expression]:
    """What the alerts and the dashboard read, but for what the alerts record themselves."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    found = {}
    for text in [*(rule["expr"] for rule in rules()), *dashboard_expressions()]:
        parsed = parse(text)
        assert parsed.selectors, text
        elsewhere = recorded | OF_PROMETHEUS
        read = [selector for selector in parsed.selectors if selector.metric not in elsewhere]
        found[text] = Expression(tuple(read), parsed.grouping)
    return found


class Samples:
    """What ``/metrics`` said: the labels of each series, and the values that each had."""

    def __init__(self, text: str) -> None:
        self.labels: dict[str, dict[str, set[str]]] = {}
        for line in text.splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line)
            if match is not None:
                values = self.labels.setdefault(match[1], {})
                for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""):
                    values.setdefault(label, set()).add(value)


def read(node: Node) -> Samples:
    return Samples(httpx.get(f"{node.admin_url}/metrics", timeout=5).text)


SETTINGS: Final[dict[str, Any]] = {
    "sweep_seconds": 0.5,
    "ack_timeout_seconds": 1,
    "ack_attempts": 100,
}


def settings(directory: Path) -> dict[str, Any]:
    """These, and a push provider."""
    key = directory / "vapid.pem"
    key.write_bytes(new_key()[0])
    push = {"push_vapid_key_file": key, "push_vapid_subject": "mailto:ops@example.com"}
    return SETTINGS | push


async def use(node: Node) -> None:
    """Have a node with these settings do what it counts."""
    with contextlib.suppress(InvalidStatus):
        async with Phone(node, auth="no token"):
            pass
    async with Phone(node) as phone:
        owed = await asyncio.to_thread(node.publish, "u1", 1, receipt=True)
        # Not acknowledged, it is read from the mailbox and sent again.
        await until(phone, id=owed, attempt=2)
        await phone.ack(owed)
        message = {"to": {"user": "u1"}, "data": 2, "ephemeral": True}
        await asyncio.to_thread(node.post, "/v1/notifications", message)
        await until(phone, ephemeral=True)
        await phone.send(type="nonsense")
        await until(phone, type="error")
        await asyncio.to_thread(
            wait_until,
            lambda: {"pushsvc_swept_total", "pushsvc_receipts_total"} <= set(read(node).labels),
            "a sweep and a receipt",
        )
    await asyncio.to_thread(
        wait_until, lambda: "pushsvc_closes_total" in read(node).labels, "the close"
    )


async def until(phone: Phone, **fields: Any) -> None:
    """Receive until a message has these fields."""
    while not fields.items() <= (await phone.receive()).items():
        pass


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """What a node says that has met everything, a dead Redis included."""
    directory = tmp_path_factory.mktemp("node")
    with (
        EmbeddedServer() as server,
        Node(server.url, directory, **settings(directory)) as node,
    ):
        asyncio.run(use(node))
        server.kill()
        assert node.post("/v1/notifications", {"to": {"user": "u1"}, "data": 1}).status_code == 503
        return read(node)


def test_every_metric_and_label_in_an_alert_or_the_dashboard_is_said_by_a_node(
    used: Samples,
) -> None:
    for text, expression in expressions().items():
        said = set(TARGET_LABELS)
        for selector in expression.selectors:
            assert selector.metric in used.labels, f"{selector.metric} in {text}"
            labels = used.labels[selector.metric]
            said |= set(labels)
            for matcher in selector.matchers:
                assert matcher.label in labels.keys() | TARGET_LABELS, f"{matcher} in {text}"
        if expression.selectors:
            assert expression.grouping <= said, text


def test_every_value_of_a_label_that_is_asked_for_can_occur(used: Samples) -> None:
    for text, expression in expressions().items():
        for selector in expression.selectors:
            for matcher in selector.matchers:
                if matcher.label in TARGET_LABELS:
                    continue
                known = used.labels[selector.metric][matcher.label] | vocabulary(matcher.label)
                for pattern in matcher.patterns:
                    assert any(re.fullmatch(pattern, each) for each in known), (matcher, text)
                assert known.issuperset(matcher.values), (matcher, text)


def vocabulary(label: str) -> set[str]:
    """Values of a label that a short test does not bring about."""
    codes = {kind.code for kind in descendants(PushError)} | {PushError.code}
    return {
        "outcome": codes | {each.value for each in Verdict} | {"accepted", "given_up", "trimmed"},
        "route": {kind.route for base in (Handler, Operation) for kind in descendants(base)}
        | {"accept"},
        "status": {str(kind.status) for kind in descendants(PushError)} | {str(PushError.status)},
        "kind": {name for name in dir(redis.exceptions) if name.endswith("Error")},
        "where": {"connection", "outbox"},
    }.get(label, set())


def descendants(kind: type[Any]) -> Iterator[type[Any]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_a_node_with_several_workers_says_the_same_but_for_what_is_of_one_process(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, used: Samples
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, workers=2, **settings(tmp_path)) as node:
        asyncio.run(use(node))
        said = read(node).labels
    metrics = {s.metric for expression in expressions().values() for s in expression.selectors}
    of_a_process = {metric for metric in metrics if metric.startswith("process_")}
    # Of what is labelled, only what happened is said; here Redis does not fail.
    assert metrics - set(said) - {"pushsvc_redis_errors_total"} == of_a_process
    for metric in metrics & set(said):
        assert set(said[metric]) == set(used.labels[metric]), metric
    for panel in panels():
        if "process_" in json.dumps(panel):
            assert "Only with WORKERS=1" in panel["description"]
    for rule in alerts():
        assert "process_" not in rule["expr"], "with WORKERS>1 it would never fire"


def test_a_node_counts_as_unready_when_one_of_its_workers_is_dead(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    """What ``/readyz`` tells the load balancer is what the alerts look at."""
    with Node(valkey.url, tmp_path, prefix=prefix, workers=2) as node:
        assert node.metric("pushsvc_ready") == 1
        psutil.Process(workers(node)[0]).kill()

        def unready() -> bool:
            return node.metric("pushsvc_ready") == 0 < node.metric("pushsvc_ready_workers")

        wait_until(unready, "the node to say so")
        assert not node.is_ready()
        wait_until(node.is_ready, "a new worker")
        assert node.metric("pushsvc_ready") == 1


def test_every_alert_says_how_grave_it_is_what_happens_and_where_to_read_on() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook"] == f"{RUNBOOK}#{rule['alert'].lower()}"


def test_every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() -> None:
    text = (ROOT / RUNBOOK).read_text()
    entries = re.findall(r"^### (Pushsvc\w+)$", text, re.MULTILINE)
    assert entries == [rule["alert"] for rule in alerts()]
    for part in re.split(r"^#{2,3} ", text, flags=re.MULTILINE):
        if part.startswith("Pushsvc"):
            for heading in ("**Means**", "**Look**", "**Do**", "**Ends**"):
                assert heading in part, part.splitlines()[0]


def test_the_objectives_in_the_documents_are_those_that_alert() -> None:
    text = (ROOT / "docs" / "operations" / "slo.md").read_text()
    for rule in alerts():
        if "slo" in rule["labels"]:
            assert f"`{rule['alert']}`" in text


def test_the_rules_are_good_and_fire_when_they_should() -> None:
    promtool = need("promtool")
    for command in (("check", "rules", ALERTS), ("test", "rules", RULE_TESTS)):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_panel_has_a_description_a_unit_and_a_place_of_its_own() -> None:
    document = json.loads(DASHBOARD.read_text())
    assert document["schemaVersion"] >= 39
    assert [each["name"] for each in document["templating"]["list"]] == [
        "datasource", "namespace", "job", "pod",
    ]  # fmt: skip
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            for selector in parse(target["expr"]).selectors:
                chosen = {matcher.label for matcher in selector.matchers}
                assert {"namespace", "job", "pod"} <= chosen, target["expr"]
    for one, other in itertools.combinations(found, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
