"""A render that cannot work fails, and says what to set."""

import json
import re
from pathlib import Path
from typing import Any

import helm_python
import pytest

from pushsvc.server.worker import STOP_SECONDS
from tests.deploy import chart
from tests.deploy.chart import CHART, Values, manifests
from tests.deploy.resources import CI, LEAST, merged, of_kind

TRIAL: Values = {"valkey": {"enabled": True, "password": "p"}}
REFUSED: dict[str, tuple[Values, str]] = {
    "no Redis": (
        {"auth": LEAST["auth"]}, "set redis.existingSecret to a Secret with the key redis-url"
    ),
    "no keys": (
        {"redis": LEAST["redis"]}, "Nothing says what signs tokens: set exactly one of auth.jwt"
    ),
    "an issuer that is no address, and no keys": (
        {"redis": LEAST["redis"], "auth": {"jwt": {"issuer": "accounts.google.com"}}},
        "or none and auth.jwt.issuer to an https:// address",
    ),
    "an authority for keys that are not fetched": (
        merged(LEAST, {"auth": {"jwt": {"caSecret": "ca", "issuer": "https://k"}}}),
        "auth.jwt.caSecret is for keys that are fetched",
    ),
    "two kinds of keys": (
        merged(LEAST, {"auth": {"jwt": {"jwksUrl": "https://k"}}}), "More than one value says"
    ),
    "a file of issuers, and another issuer": (
        merged(LEAST, {"auth": {"existingSecret": "issuers"}}),
        "auth.existingSecret has the issuers, and auth.jwt another",
    ),
    "a secret twice": (
        merged(LEAST, {"auth": {"jwt": {"secret": "s" * 32}}}), "set exactly one of auth.jwt"
    ),
    "a password in the open": (
        merged(LEAST, {"redis": {"url": "redis://:p@r"}}), "redis.url is shown in a ConfigMap"
    ),
    "a password twice": (
        merged(LEAST, {"redis": {"url": "redis://r", "password": "p"}}),
        "redis.password and redis.existingSecret are both set: leave one empty",
    ),
    "a password for no address": (
        merged(LEAST, {"redis": {"password": "p"}}), "are used with redis.url: set that too"
    ),
    "a user without a password": (
        merged(LEAST, {"redis": {"url": "redis://r", "existingSecret": "", "username": "u"}}),
        "redis.username needs its password: set redis.existingSecret",
    ),
    "a Sentinel user without a password": (
        merged(LEAST, {"redis": {"url": "redis+sentinel://r:1/m", "sentinel": {"username": "u"}}}),
        "set redis.sentinel.existingSecret",
    ),
    "certificates without TLS": (
        merged(LEAST, {"redis": {"url": "redis://r", "tls": {"caSecret": "ca"}}}), "write rediss://"
    ),
    "Sentinel without Sentinels": (
        merged(LEAST, {"redis": {"url": "redis://r", "sentinel": {"existingSecret": "s"}}}),
        "write redis+sentinel://",
    ),
    "two Redis": (merged(LEAST, TRIAL), "leave the values under redis empty"),
    "a Valkey without a password": (
        {"auth": LEAST["auth"], "valkey": {"enabled": True}}, "set valkey.password="
    ),
    "a Valkey with two": (
        merged({"auth": LEAST["auth"]}, TRIAL, {"valkey": {"existingSecret": "s"}}),
        "valkey.password and valkey.existingSecret are both set",
    ),
    "a webhook that is not signed": (
        merged(LEAST, {"webhook": {"url": "https://h"}}), "set webhook.existingSecret"
    ),
    "a signature for no webhook": (
        merged(LEAST, {"webhook": {"existingSecret": "w"}}), "set webhook.url too"
    ),
    "a key of Web Push for nobody": (
        merged(LEAST, {"push": {"vapid": {"existingSecret": "v"}}}), "set push.vapid.subject"
    ),
    "a sender of Web Push without a key": (
        merged(LEAST, {"push": {"vapid": {"subject": "mailto:a@b.example"}}}),
        "set push.vapid.existingSecret to a Secret with the key vapid.pem",
    ),
    "a key of Web Push twice": (
        merged(LEAST, {"push": {"vapid": {
            "subject": "https://a.example", "existingSecret": "v",
            "key": "-----BEGIN PRIVATE KEY-----\n"}}}),
        "push.vapid.key and push.vapid.existingSecret are both set",
    ),
    "a key of APNs without its id": (
        merged(LEAST, {"push": {"apns": {"existingSecret": "a", "teamId": "DEF123GHIJ"}}}),
        "set push.apns.keyId and push.apns.teamId",
    ),
    "a team of APNs without a key": (
        merged(LEAST, {"push": {"apns": {"teamId": "DEF123GHIJ"}}}),
        "set push.apns.existingSecret to a Secret with the key apns.p8",
    ),
    "an authority for no provider": (
        merged(LEAST, {"push": {"caSecret": "c"}}), "set push.vapid, push.apns or push.fcm"
    ),
    "too little grace": (
        merged(LEAST, {"drain": {"seconds": 35.5, "delaySeconds": 2}}),
        "is 60 and pods would be killed while they drain: set it to 63 or more",
    ),
    "one port for both": (
        merged(LEAST, {"containerPorts": {"public": 9090}}), "set two different ports"
    ),
    "a node port for a ClusterIP": (
        merged(LEAST, {"service": {"nodePort": 30080}}), "set service.type to NodePort"
    ),
    "an Ingress for no name": (merged(LEAST, {"ingress": {"enabled": True}}), "set ingress.hosts"),
    "a route without a Gateway": (
        merged(LEAST, {"httpRoute": {"enabled": True}}), "set httpRoute.parentRefs"
    ),
    "fewer at most than at least": (
        merged(LEAST, {"autoscaling": {"enabled": True, "maxReplicas": 2}}), "swap them"
    ),
    "nothing to aim at": (
        merged(LEAST, {"autoscaling": {
            "enabled": True, "targetConnections": None, "targetCPUUtilization": None}}),
        "set autoscaling.targetConnections or",
    ),
    "a share of nothing": (
        merged(LEAST, {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}),
        "set resources.requests.cpu",
    ),
    "a target that is never reached": (
        merged(LEAST, {"autoscaling": {"enabled": True}},
               {"settings": {"maxConnections": 6000, "workers": 2}}),
        "set it under 12000",
    ),
    "a target that is never reached by default": (
        merged(LEAST, {"autoscaling": {"enabled": True, "targetConnections": 18000}}),
        "set it under 18000",
    ),
    "all pods replaced at once, and not": (
        merged(LEAST, {"deployment": {"strategy": {"type": "Recreate"}}}),
        "set deployment.strategy.rollingUpdate=null too",
    ),
    "a label that selects": (
        merged(LEAST, {"podLabels": {"app.kubernetes.io/component": "edge"}}),
        "podLabels has app.kubernetes.io/component, which the chart sets",
    ),
    "a Sentinel without a port": (
        merged(LEAST, {"redis": {"url": "redis+sentinel://s1:26379,s2/main"}}), "as host:port"
    ),
    "a server of a Cluster without a port": (
        merged(LEAST, {"redis": {"url": "rediss+cluster://[fd00::1],[fd00::2]:6379"}}),
        "as host:port",
    ),
    "a typo": (merged(LEAST, {"redis": {"exsitingSecret": "r"}}), "'exsitingSecret' not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_render_that_fails_says_what_to_set(case: str) -> None:
    values, sentence = REFUSED[case]
    with pytest.raises(helm_python.HelmError) as refused:
        chart.render(values)
    assert sentence in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        chart.render({"terminationGracePeriodSeconds": 10})
    for sentence in ("No Redis", "Nothing says what signs tokens", "set it to 50 or more"):
        assert sentence in str(refused.value)


def test_the_sentences_name_values_that_exist() -> None:
    text = (CHART / "templates" / "checks.yaml").read_text()
    properties = json.loads(chart.SCHEMA.read_text())["properties"]
    sentences = " ".join(re.findall(r'"([^"]+)"', text))
    tops = "|".join(name for name in properties if name not in ("image", "tests", "global"))
    names = set(re.findall(rf"(?<![\w./])(?:{tops})(?:\.[a-zA-Z]+)+(?![\w(])", sentences))
    assert len(names) > 30
    for name in names:
        found: Any = {"properties": properties}
        for part in name.split("."):
            if "properties" not in found:  # Kubernetes' own
                break
            found = found["properties"][part]


def test_the_grace_has_the_margin_that_a_worker_may_take() -> None:
    enough = {"drain": {"seconds": 35}, "terminationGracePeriodSeconds": 40 + STOP_SECONDS}
    chart.render(merged(LEAST, enough))
    with pytest.raises(helm_python.HelmRenderError):
        chart.render(merged(LEAST, enough, {"drain": {"seconds": 35.1}}))
    waiting = {"settings": {"durability": "replica", "durabilityTimeoutSeconds": 4}}
    with pytest.raises(helm_python.HelmRenderError, match="64 or more"):
        chart.render(merged(LEAST, enough, waiting))
    chart.render(merged(LEAST, enough, waiting, {"terminationGracePeriodSeconds": 64}))


def test_every_label_of_the_chart_is_its_own() -> None:
    (deployment,) = of_kind("Deployment", manifests(LEAST))
    for label in deployment["metadata"]["labels"]:
        for value in ("commonLabels", "podLabels"):
            with pytest.raises(helm_python.HelmRenderError, match=f"{value} has {label},"):
                chart.render(merged(LEAST, {value: {label: "x"}}))


def test_pods_may_all_be_replaced_at_once_if_that_is_meant() -> None:
    recreate = {"deployment": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}
    (deployment,) = of_kind("Deployment", manifests(merged(LEAST, recreate)))
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


_BRANCH = re.compile(r"\{\{-? *(?:if|else|with|range)\b.*?\}\}")


def test_every_branch_of_the_templates_is_taken(tmp_path: Path) -> None:
    """Each has a mark that fails the render, until every mark was met."""
    marked = chart.beside_a_cluster(tmp_path)
    (marked / "files" / "dashboard.json").write_text("{}")  # large
    texts = {path: path.read_text() for path in (marked / "templates").rglob("*.*")}
    left = {
        f"<{path.name} {match.start()}>": (path, match.end())
        for path, text in texts.items()
        for match in _BRANCH.finditer(text)
    }
    assert len(left) > 100

    def mark() -> None:
        for path, text in texts.items():
            marks = sorted(((end, m) for m, (p, end) in left.items() if p == path), reverse=True)
            for end, name in marks:
                text = f'{text[:end]}{{{{ fail "{name}" }}}}{text[end:]}'  # noqa: PLW2901
            path.write_text(text)

    scaled_later = {
        "autoscaling": {"enabled": True},
        "global": {"running": {"Deployment": {"spec": {"replicas": 7}}}},
    }
    forms = [
        *CI.values(), merged(LEAST, scaled_later), *(values for values, _ in REFUSED.values())
    ]  # fmt: skip
    for values, release in ((LEAST, "pushsvc"), *((values, chart.RELEASE) for values in forms)):
        while left:
            mark()
            try:
                chart.render(values, chart=marked, release=release)
                break
            except helm_python.HelmError as error:
                met = re.search(r"<[^<>]+ \d+>", str(error))
                if met is None:  # a sentence that it is meant to fail with
                    break
                del left[met[0]]
    assert left == {}
