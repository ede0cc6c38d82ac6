"""The chart renders what Kubernetes accepts, for every way to run it."""

import json
import re
import shutil
from base64 import b64encode
from pathlib import Path

import helm_python
import pytest
import yaml

# It has no types.
from kubernetes_validate import (  # type: ignore[import-untyped]
    SchemaNotFoundError,
    validate,
)

from pushsvc import __version__
from pushsvc.server.verifier import verifier_of
from pushsvc.settings import load, rows
from tests.deploy import chart
from tests.deploy.chart import CHART, ELSEWHERE, manifests
from tests.deploy.resources import (
    CI,
    LEAST,
    environment,
    merged,
    node_pod,
    of_kind,
    pods,
    rendered,
    secret_values,
)
from tests.deploy.restricted import violations
from tests.support.certificates import Authority

pytestmark = pytest.mark.promise

VERSIONS = ("1.31", "1.37")
FORMS = pytest.mark.parametrize("form", CI)


# --- what Helm and Kubernetes say ----------------------------------------------------------------


@FORMS
def test_lint_finds_nothing(form: str) -> None:
    report = helm_python.lint(CHART, CI[form], strict=True, with_subcharts=True)
    assert (report["errors"], report["messages"]) == ([], [])


def test_the_values_that_are_checked_cover_every_way_to_run_it() -> None:
    wanted = {"default", "external-redis", "sentinel", "cluster-tls-acl", "jwks", "production"}
    assert wanted <= set(CI)


GRAMMAR = {
    # Kubernetes' own schemas do not hold these kinds; the fields are those of their definitions.
    "HTTPRoute": (
        "gateway.networking.k8s.io/v1",
        {"parentRefs", "hostnames", "rules"},
        {"matches", "filters", "backendRefs", "timeouts"},
    ),
    "PodMonitor": (
        "monitoring.coreos.com/v1",
        {"selector", "podMetricsEndpoints"},
        {"port", "path", "interval"},
    ),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}, {"name", "interval", "rules"}),
}


@pytest.mark.parametrize("version", VERSIONS)
@FORMS
def test_kubernetes_accepts_every_resource(form: str, version: str) -> None:
    for manifest in rendered(form):
        try:
            validate(manifest, version, strict=True)
        except SchemaNotFoundError:
            api, fields, inner = GRAMMAR[manifest["kind"]]
            assert manifest["apiVersion"] == api
            spec = manifest["spec"]
            assert set(spec) <= fields
            lists = {"rules", "podMetricsEndpoints", "groups"}
            for part in (item for name in lists & set(spec) for item in spec[name]):
                assert set(part) <= inner


@FORMS
def test_two_renders_are_the_same(form: str) -> None:
    assert chart.render(CI[form]) == chart.render(CI[form])


def test_a_new_chart_leaves_the_pods_alone(tmp_path: Path) -> None:
    newer = shutil.copytree(CHART, tmp_path / "pushsvc")
    about = newer / "Chart.yaml"
    about.write_text(re.sub(r"(?m)^version: .*", "version: 9.9.9", about.read_text()))
    values = merged(CI["default"])
    for kind in ("Deployment", "StatefulSet"):
        (old,), (new,) = (of_kind(kind, manifests(values, chart=c)) for c in (CHART, newer))
        assert old["metadata"]["labels"] != new["metadata"]["labels"]
        assert old["spec"] == new["spec"]


def test_the_chart_installs_the_version_it_is_released_with() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


# --- what pods may do ----------------------------------------------------------------------------


@FORMS
def test_pods_fit_the_restricted_profile(form: str) -> None:
    for metadata, spec in pods(rendered(form)):
        assert list(violations(spec)) == [], metadata
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "PUSHSVC_PORT would be set by a Service"
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_check_of_the_profile_finds_what_it_forbids() -> None:
    bad = {
        "hostNetwork": True,
        "securityContext": {"runAsUser": 0, "sysctls": [{"name": "kernel.msgmax"}]},
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "containers": [
            {
                "name": "c",
                "ports": [{"containerPort": 1, "hostPort": 1}],
                "livenessProbe": {"httpGet": {"host": "metadata", "port": 80}},
                "securityContext": {
                    "privileged": True,
                    "procMount": "Unmasked",
                    "runAsUser": 0,
                    "seLinuxOptions": {"user": "u"},
                    "appArmorProfile": {"type": "Unconfined"},
                    "windowsOptions": {"hostProcess": True},
                    "capabilities": {"add": ["SYS_ADMIN"]},
                },
            }
        ],
    }
    assert len(list(violations(bad))) == 17


@FORMS
def test_secrets_are_files_in_directories_that_follow_a_rotation(form: str) -> None:
    for _, spec in pods(rendered(form)):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        if "volumeClaimTemplates" in str(rendered(form)):
            volumes.add("data")
        for container in spec["containers"]:
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes
                assert "subPath" not in mount, "a file that is mounted alone is never updated"


def test_no_secret_is_made_where_all_are_named() -> None:
    for form in ("sentinel", "cluster-tls-acl", "jwks", "issuers", "production"):
        assert of_kind("Secret", rendered(form)) == []
    (own,) = of_kind("Secret", rendered("external-redis"))
    assert set(secret_values(own)) == {
        "jwt-secret", "webhook-secret", "vapid.pem", "apns.p8", "fcm.json",
    }  # fmt: skip
    given = merged(LEAST, {"redis": {"url": "redis://r", "existingSecret": "", "password": "p"}})
    (own,) = of_kind("Secret", manifests(given))
    assert secret_values(own) == {"redis-password": "p"}


def test_no_secret_stands_in_a_config_map() -> None:
    secret = "not-in-a-config-map-0123456789abcdef"
    values = {
        "redis": {"url": "redis://r", "password": secret},
        "auth": {"jwt": {"secret": secret}},
    }
    for manifest in manifests(values):
        is_secret = manifest["kind"] == "Secret"
        assert secret not in json.dumps(manifest), manifest["kind"]
        assert b64encode(secret.encode()).decode() not in json.dumps(manifest) or is_secret
        assert not is_secret or set(secret_values(manifest).values()) == {secret}


# --- settings ------------------------------------------------------------------------------------


@FORMS
def test_a_node_starts_with_what_the_chart_sets(form: str, tmp_path: Path) -> None:
    resources = rendered(form)
    environ = environment(resources)
    if isinstance(environ.get("PUSHSVC_REDIS_URL"), dict):
        assert environ["PUSHSVC_REDIS_URL"]["secretKeyRef"]["key"] == "redis-url"
        environ["PUSHSVC_REDIS_URL"] = "rediss://user:password@redis.data:6390/0"
    contents = {
        "jwt-secret": "s" * 64,
        "webhook-secret": "whsec_" + "MDEy" * 12,
        "ca.crt": Authority(tmp_path).file.read_text(),
        "auth.toml": f'[issuers.a]\nsecret = "{"s" * 64}"',
    }
    for manifest in resources:
        if manifest["kind"] == "Secret":
            contents |= secret_values(manifest)
        else:
            contents |= manifest.get("data", {})
    files = {name for name in environ if name.startswith("PUSHSVC_") and name.endswith("_FILE")}
    (container,) = node_pod(resources)["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in files:
        path = Path(environ[name])
        assert str(path.parent) in mounts
        file = tmp_path / name
        file.write_text(contents.get(path.name, "secret"))
        environ[name] = str(file)
    settings = load({k: v for k, v in environ.items() if k.startswith("PUSHSVC_")}, {})
    verifier_of(settings)


def test_every_setting_can_be_set() -> None:
    sample = {"string": "push", "array": ["https://a.example"], "boolean": True}
    particular = {
        "pushApnsUrl": "https://a.example",
        "pushFcmUrl": "https://a.example",
        "pushHosts": ["push.example.com", "*.example.org"],
    }
    for name, kind in chart.settings_schema()["properties"].items():
        usual = kind.get("maximum", sample.get(kind.get("type")))
        value = kind["enum"][0] if "enum" in kind else particular.get(name, usual)
        environ = environment(manifests(merged(LEAST, {"settings": {name: value}})))
        variable = kind["description"].partition(":")[0]
        written = environ[variable]
        told = ",".join(value) if isinstance(value, list) else str(value)
        assert written == (told.lower() if value is True else told), variable
        load({variable: written}, {})  # not "1e+06"
    elsewhere = {row.variable for row in rows() if row.field in ELSEWHERE}
    set_by_values = {name for form in CI for name in environment(rendered(form))}
    # These two come in files.
    assert elsewhere - set_by_values == {"PUSHSVC_JWT_SECRET", "PUSHSVC_WEBHOOK_SECRET"}


def test_values_have_the_bounds_of_the_settings() -> None:
    properties = json.loads(chart.SCHEMA.read_text())
    bounds = {row.field: row.bounds for row in rows()}
    for field, path in ELSEWHERE.items():
        found = properties
        for name in path.split("."):
            found = found["properties"][name]
        if bounds[field] is not None and "port" not in field:
            assert (found["minimum"], found["maximum"]) == bounds[field], path


def test_the_schema_refuses_what_the_settings_refuse() -> None:
    for values in (
        {"settings": {"mailboxMax": 0}},
        {"settings": {"mailboxMax": 1.5}},
        {"settings": {"durability": "disk"}},
        {"settings": {"mailboxmax": 5}},
        {"settings": {"drainSeconds": 5}},
        {"drain": {"seconds": 3601}},
        {"auth": {"jwt": {"secret": "short", "existingSecret": ""}}},
        {"auth": {"jwt": {"algorithms": ["none"]}}},
        {"service": {"type": "ExternalName"}},
        {"replicas": 3},
        {"redis": {"url": "http://redis"}},
    ):
        with pytest.raises(helm_python.HelmValuesError):
            chart.render(merged(LEAST, values))
