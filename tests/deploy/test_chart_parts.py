"""The resources of the chart fit together, and say what the documents promise."""

import re
from pathlib import Path

import helm_python
import pytest
import yaml

from pushsvc.settings import rows
from tests.deploy import chart
from tests.deploy.chart import CHART, Manifest, Values, manifests
from tests.deploy.resources import CI, LEAST, merged, node_pod, of_kind, pods, rendered

pytestmark = pytest.mark.promise

FORMS = pytest.mark.parametrize("form", CI)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@FORMS
def test_what_selects_pods_selects_those_it_means_and_no_others(form: str) -> None:
    resources = rendered(form)
    described = [
        (m["labels"], {p["name"] for c in spec["containers"] for p in c.get("ports", [])})
        for m, spec in pods(resources)
    ]

    def chosen(selector: dict[str, str]) -> set[str]:
        found = [ports for labels, ports in described if selects(selector, labels)]
        assert len(found) == 1, selector
        return found[0]

    for manifest in resources:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                ports = chosen(spec["selector"])
                assert {port["targetPort"] for port in spec["ports"]} <= ports
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet":
                chosen(spec["selector"]["matchLabels"])
            case "PodMonitor":
                ports = chosen(spec["selector"]["matchLabels"])
                assert {end["port"] for end in spec["podMetricsEndpoints"]} <= ports
            case "NetworkPolicy":
                ports = chosen(spec["podSelector"]["matchLabels"])
                assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports
    for constraint in node_pod(resources)["topologySpreadConstraints"]:
        labels = constraint["labelSelector"]["matchLabels"]
        assert form == "production" or chosen(labels) == {"public", "admin"}


@FORMS
def test_routes_lead_to_a_service_that_exists(form: str) -> None:
    resources = rendered(form)
    services = {
        m["metadata"]["name"]: {p[key] for p in m["spec"]["ports"] for key in ("name", "port")}
        for m in of_kind("Service", resources)
    }
    for ingress in of_kind("Ingress", resources):
        for rule in ingress["spec"]["rules"]:
            backend = rule["http"]["paths"][0]["backend"]["service"]
            assert backend["port"]["name"] in services[backend["name"]]
    for route in of_kind("HTTPRoute", resources):
        for backend in route["spec"]["rules"][0]["backendRefs"]:
            assert backend["port"] in services[backend["name"]]
    for workload in of_kind("StatefulSet", resources):
        assert workload["spec"]["serviceName"] in services
    for scaler in of_kind("HorizontalPodAutoscaler", resources):
        (deployment,) = of_kind("Deployment", resources)
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"], "the autoscaler's number would be undone"


def test_names_are_unique_and_short_enough() -> None:
    long = merged(CI["default"], {"fullnameOverride": "n" * 52})
    for resources in (*map(rendered, CI), manifests(long)):
        names = [(m["kind"], m["metadata"]["name"]) for m in resources]
        assert len(names) == len(set(names))
        assert all(len(name) <= 63 for _, name in names)


def test_the_network_policy_opens_what_the_addresses_need() -> None:
    def egress(*layers: Values) -> set[int]:
        (policy,) = of_kind("NetworkPolicy", manifests(merged(*layers)))
        return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}

    own: Values = {"redis": {"url": "redis://[fd00::1]:7000/3", "existingSecret": ""}}
    assert egress(LEAST) == {53, 6379}
    assert egress(LEAST, own) == {53, 6379, 7000}
    assert egress(CI["sentinel"]) == {5353, 6379, 26379}
    assert egress(CI["jwks"]) == {53, 443, 6379, 6390}
    keys = {"existingSecret": "", "jwksUrl": "http://keys:8081/k"}
    assert egress(LEAST, {"auth": {"jwt": keys}}) == {53, 6379, 8081}
    # of an issuer that says itself where its keys are; one that is only compared is not asked
    keys = {"existingSecret": "", "issuer": "https://id:8444/realms/a"}
    assert egress(LEAST, {"auth": {"jwt": keys}}) == {53, 6379, 8444}
    assert egress(LEAST, {"auth": {"jwt": {"issuer": "https://id:8444"}}}) == {53, 6379}
    vapid: Values = {"vapid": {"subject": "mailto:a@b.example", "existingSecret": "v"}}
    assert egress(LEAST, {"push": vapid}) == {53, 443, 6379}
    relay: Values = {"settings": {"pushFcmUrl": "http://relay:8085"}}
    assert egress(LEAST, {"push": {"fcm": {"existingSecret": "f"}}}, relay) == {53, 443, 6379, 8085}
    assert egress(LEAST, relay) == {53, 6379}
    assert egress(CI["production"]) == {53, 443, 4318, 6379, 8443, 26379}
    for rule in of_kind("NetworkPolicy", rendered("default"))[0]["spec"]["ingress"]:
        assert ("from" in rule) == (rule["ports"][0]["port"] == "admin")


def test_a_restart_serves_on_and_a_scale_down_is_slow() -> None:
    (deployment,) = of_kind("Deployment", rendered("production"))
    update = deployment["spec"]["strategy"]["rollingUpdate"]
    assert (update["maxUnavailable"], update["maxSurge"]) == (0, "25%")
    (budget,) = of_kind("PodDisruptionBudget", rendered("production"))
    assert budget["spec"]["maxUnavailable"] == 1
    (scaler,) = of_kind("HorizontalPodAutoscaler", rendered("production"))
    kinds = [metric["type"] for metric in scaler["spec"]["metrics"]]
    assert kinds == ["Pods", "Resource"]
    behavior = scaler["spec"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 600
    # Clients who all reconnect at once need several times the requested CPU, for a minute or two.
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] >= 120
    pod = node_pod(rendered("production"))
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 10
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert "cpu" not in container["resources"]["limits"]


def test_the_default_target_leaves_room_for_the_clients_of_a_lost_pod() -> None:
    most = next(int(row.default) for row in rows() if row.field == "max_connections")
    nodes = 3
    assert chart.defaults()["autoscaling"]["targetConnections"] * nodes / (nodes - 1) <= most


def test_autoscaling_that_is_turned_on_later_keeps_the_pods_that_run(tmp_path: Path) -> None:
    """Helm would take back the number that it wrote, which leaves one pod."""
    copied = chart.beside_a_cluster(tmp_path)

    def deployment(**running: Manifest) -> Manifest:
        scaling = {"autoscaling": {"enabled": True}, "global": {"running": running}}
        found: Manifest
        (found,) = of_kind("Deployment", manifests(merged(LEAST, scaling), chart=copied))
        return found

    mine = {"metadata": {"annotations": {}}, "spec": {"replicas": 7}}
    turned_on = deployment(Deployment=mine)
    assert turned_on["spec"]["replicas"] == 7
    # A rollback or a second upgrade must not find a number where there never was one.
    assert (
        "replicas" not in deployment(Deployment=mine, HorizontalPodAutoscaler={"spec": {}})["spec"]
    )
    turned_on["spec"]["replicas"] = 40
    later = deployment(Deployment=turned_on, HorizontalPodAutoscaler={"spec": {}})
    assert later["spec"]["replicas"] == 40
    assert later["metadata"]["annotations"] == turned_on["metadata"]["annotations"]
    assert "replicas" not in deployment()["spec"]


def test_the_checks_know_the_default_of_the_settings() -> None:
    most = next(row.default for row in rows() if row.field == "max_connections")
    text = (CHART / "templates" / "checks.yaml").read_text()
    assert f"(default {most} $.Values.settings.maxConnections)" in text


def test_both_services_have_the_families_of_addresses_that_are_asked_for() -> None:
    services = of_kind("Service", rendered("bare"))
    for service in (each for each in services if each["spec"].get("clusterIP") != "None"):
        assert service["spec"]["ipFamilyPolicy"] == "RequireDualStack"
        assert service["spec"]["ipFamilies"] == ["IPv6", "IPv4"]
    assert all("ipFamilies" not in each["spec"] for each in of_kind("Service", rendered("default")))


def test_the_ingress_takes_bodies_of_the_size_that_nodes_take() -> None:
    (ingress,) = of_kind("Ingress", rendered("cluster-tls-acl"))
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "8388608"
    assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    (ingress,) = of_kind("Ingress", rendered("production"))
    assert "nginx.ingress.kubernetes.io/proxy-body-size" not in ingress["metadata"]["annotations"]


def test_the_notes_say_what_a_gateway_needs_for_pods_that_speak_tls() -> None:
    notes = {form: chart.render(CI[form])["NOTES.txt"] for form in ("cluster-tls-acl", "jwks")}
    assert "BackendTLSPolicy" in notes["cluster-tls-acl"]
    assert "BackendTLSPolicy" not in notes["jwks"]


def test_labels_of_pods_win_over_those_of_all_resources() -> None:
    both = {"commonLabels": {"team": "a", "tier": "b"}, "podLabels": {"team": "c"}}
    (deployment,) = of_kind("Deployment", manifests(merged(LEAST, both)))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["tier"]) == ("c", "b")


def test_the_alerts_and_the_dashboard_are_the_files() -> None:
    (rule,) = of_kind("PrometheusRule", rendered("production"))
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    (board,) = (
        m for m in of_kind("ConfigMap", rendered("production")) if "dashboard" in str(m["metadata"])
    )
    assert board["data"]["pushsvc.json"] == (CHART / "files" / "dashboard.json").read_text()


def test_pods_run_as_the_user_of_the_image() -> None:
    dockerfile = (chart.ROOT / "Dockerfile").read_text()
    context = node_pod(rendered("default"))["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    ports = chart.defaults()["containerPorts"]
    assert f"EXPOSE {ports['public']} {ports['admin']}\n" in dockerfile


def test_the_commands_of_the_readme_render() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", chart.README.read_text(), re.DOTALL)
    installs = [block for block in blocks if "helm install" in block]
    assert len(installs) == 2
    for block in installs:
        given = re.findall(r"--set ([\w.]+)=(\S+)", block.replace('"$(openssl rand', "x" * 32))
        values = (helm_python.parse_set_string(f"{name}={value}") for name, value in given)
        assert chart.render(merged(*values))
