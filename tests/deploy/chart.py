"""The chart: rendered, and what is made from it and from the settings.

``python -m tests.deploy.chart`` (``make manifests``) writes the settings into the chart's schema,
the values into its README, and the plain manifests into ``k8s/``.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

from pushsvc.settings import Settings, rows

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "pushsvc"
MANIFESTS = ROOT / "k8s"
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
RELEASE = "push"
NAMESPACE = "team"

ELSEWHERE = {
    "port": "containerPorts.public",
    "admin_port": "containerPorts.admin",
    "redis_url": "redis.url",
    "redis_username": "redis.username",
    "redis_password_file": "redis.existingSecret",
    "redis_ca_file": "redis.tls.caSecret",
    "redis_cert_file": "redis.tls.certSecret",
    "redis_key_file": "redis.tls.certSecret",
    "redis_sentinel_username": "redis.sentinel.username",
    "redis_sentinel_password_file": "redis.sentinel.existingSecret",
    "jwt_algorithms": "auth.jwt.algorithms",
    "jwt_secret": "auth.jwt.secret",
    "jwt_secret_file": "auth.jwt.existingSecret",
    "jwt_public_key_file": "auth.jwt.publicKey",
    "jwt_jwks_url": "auth.jwt.jwksUrl",
    "jwt_ca_file": "auth.jwt.caSecret",
    "jwt_issuer": "auth.jwt.issuer",
    "jwt_audience": "auth.jwt.audience",
    "auth_file": "auth.existingSecret",
    "webhook_url": "webhook.url",
    "webhook_secret": "webhook.secret",
    "webhook_secret_file": "webhook.existingSecret",
    "push_vapid_key_file": "push.vapid.existingSecret",
    "push_vapid_subject": "push.vapid.subject",
    "push_apns_key_file": "push.apns.existingSecret",
    "push_apns_key_id": "push.apns.keyId",
    "push_apns_team_id": "push.apns.teamId",
    "push_fcm_credentials_file": "push.fcm.existingSecret",
    "push_ca_file": "push.caSecret",
    "drain_delay_seconds": "drain.delaySeconds",
    "drain_seconds": "drain.seconds",
    "tls_cert_file": "tls.existingSecret",
    "tls_key_file": "tls.existingSecret",
    "tracing": "tracing.enabled",
}
"""Settings that have a value of their own; all others are under ``settings``."""

Values = dict[str, Any]
Manifest = dict[str, Any]


def render(values: Values, *, chart: Path = CHART, release: str = RELEASE) -> dict[str, str]:
    """What the templates make of the values, by template.

    Raises:
        helm_python.HelmError: the values are refused, or a template fails.
    """
    with helm_python.Chart.load(chart) as loaded:
        texts = loaded.render(values, name=release, namespace=NAMESPACE)
    return {name.removeprefix("pushsvc/templates/"): text for name, text in texts.items()}


def manifests(values: Values, *, chart: Path = CHART) -> list[Manifest]:
    """All resources that the templates make of the values."""
    return [
        manifest
        for name, text in render(values, chart=chart).items()
        if name != "NOTES.txt"
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


_LOOKUP = re.compile(r'lookup "[\w/]+" "(\w+)" \S+ \S+')


def beside_a_cluster(directory: Path) -> Path:
    """The chart, with what it looks up in a cluster taken from ``global.running``, by kind.

    A render without a cluster finds nothing.
    """
    copied = shutil.copytree(CHART, directory / "pushsvc")
    for path in (copied / "templates").rglob("*.*"):
        found = r'dig "global" "running" "\1" (dict) .Values.AsMap'
        path.write_text(_LOOKUP.sub(found, path.read_text()))
    return copied


def ci_values() -> dict[str, Values]:
    """The sets of values that the chart is checked with, by name."""
    return {
        path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    }


def value_name(field: str) -> str:
    """A setting's name under ``settings``."""
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)


def settings_schema() -> dict[str, Any]:
    """The schema of ``settings``, as :mod:`pushsvc.settings` has them."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            value_name(row.field): {
                "description": f"{row.variable}: {row.help}",
                **_type(row.field, row.choices, row.bounds),
            }
            for row in rows()
            if row.field not in ELSEWHERE
        },
    }


def _type(
    field: str, choices: tuple[str, ...], bounds: tuple[float, float] | None
) -> dict[str, Any]:
    if Settings.model_fields[field].default == ():
        items = {"enum": list(choices)} if choices else {"type": "string", "minLength": 1}
        return {"type": "array", "items": items}
    if Settings.model_fields[field].annotation is bool:
        return {"type": "boolean"}
    if choices:
        return {"enum": list(choices)}
    if bounds is not None:
        kind = "integer" if Settings.model_fields[field].annotation is int else "number"
        return {"type": kind, "minimum": bounds[0], "maximum": bounds[1]}
    return {"type": "string"}


def schema() -> str:
    """The schema of the values, with the settings as they are now."""
    whole = json.loads(SCHEMA.read_text())
    whole["properties"]["settings"] = settings_schema()
    algorithms = next(row.choices for row in rows() if row.field == "jwt_algorithms")
    jwt = whole["properties"]["auth"]["properties"]["jwt"]["properties"]
    jwt["algorithms"]["items"]["enum"] = list(algorithms)
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


_KEY = re.compile(r"( *)([A-Za-z][A-Za-z0-9]*):(?: |$)")


def documented() -> Iterator[tuple[str, str]]:
    """Each value that has a comment ``# --``: its path and the comment."""
    path: list[str] = []
    comment = None
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.lstrip().startswith("# -- "):
            comment = line.lstrip().removeprefix("# -- ")
        elif match := _KEY.match(line):
            path[len(match[1]) // 2 :] = [match[2]]
            if comment is not None:
                yield ".".join(path), comment
            comment = None


def values_at(path: str, values: Values) -> Any:
    """The value at a path such as ``image.tag``."""
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found


def defaults() -> Values:
    """The chart's own values."""
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def readme() -> str:
    """The chart's README, with the values as they are now."""
    values = defaults()
    table = ["| value | default | |", "|---|---|---|"]
    for path, comment in documented():
        default = json.dumps(values_at(path, values), ensure_ascii=False)
        table.append(f"| `{path}` | `{default}` | {comment.replace('|', chr(92) + '|')} |")
    before, _, rest = README.read_text().partition("<!-- values -->\n")
    _, _, after = rest.partition("<!-- /values -->")
    return f"{before}<!-- values -->\n" + "\n".join(table) + f"\n<!-- /values -->{after}"


_HELMS = re.compile(
    r"^ *(?:helm\.sh/chart|app\.kubernetes\.io/managed-by|checksum/[a-z]+):.*\n", re.MULTILINE
)
_NO_ANNOTATIONS = re.compile(r"^( *)annotations:\n(?:\1  #.*\n)*(?!\1  )", re.MULTILINE)


def plain_manifests() -> dict[str, str]:
    """The files of ``k8s/`` that are made from the chart, by name."""
    values = yaml.safe_load((MANIFESTS / "values.yaml").read_text())
    files = {}
    for template, text in sorted(render(values, release="pushsvc").items()):
        if template.endswith(".yaml") and not template.startswith("tests/"):
            plain = _NO_ANNOTATIONS.sub("", _HELMS.sub("", text)).strip()
            if any(yaml.safe_load_all(plain)):
                files[template] = f"{plain}\n"
    listed = "".join(f"  - {name}\n" for name in files)
    files["kustomization.yaml"] = (
        "apiVersion: kustomize.config.k8s.io/v1beta1\n"
        f"kind: Kustomization\nresources:\n{listed}"
    )  # fmt: skip
    return files


def main() -> None:
    """Write everything that is made."""
    SCHEMA.write_text(schema())
    README.write_text(readme())
    made = plain_manifests()
    for path in MANIFESTS.glob("*.yaml"):
        if path.name not in {*made, "values.yaml"}:
            path.unlink()
    for name, text in made.items():
        (MANIFESTS / name).write_text(text)


if __name__ == "__main__":
    main()
