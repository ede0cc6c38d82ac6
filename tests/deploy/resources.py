"""The resources that the chart renders, and what to look for in them."""

import copy
import functools
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from tests.deploy.chart import Manifest, Values, ci_values, manifests

CI = ci_values()
LEAST: Values = {"redis": {"existingSecret": "r"}, "auth": {"jwt": {"existingSecret": "j"}}}
"""The fewest values that render."""


def merged(*layers: Values) -> Values:
    """Values over values, as Helm merges them."""
    whole: Values = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, dict) and isinstance(whole.get(name), dict)
            whole[name] = merged(whole[name], value) if both else copy.deepcopy(value)
    return whole


@functools.cache
def rendered(form: str) -> list[Manifest]:
    """The resources of one of the sets of values."""
    return manifests(CI[form])


def of_kind(kind: str, resources: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in resources if manifest["kind"] == kind]


def secret_values(manifest: Manifest) -> dict[str, str]:
    """What is in a Secret."""
    return {name: b64decode(text).decode() for name, text in manifest["data"].items()}


def pods(resources: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """The metadata and the spec of every pod."""
    for manifest in resources:
        match manifest:
            case {"kind": "Pod", "metadata": metadata, "spec": spec}:
                yield metadata, spec
            case {"spec": {"template": {"metadata": metadata, "spec": spec}}}:
                yield metadata, spec


def node_pod(resources: list[Manifest]) -> Manifest:
    (deployment,) = of_kind("Deployment", resources)
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


def environment(resources: list[Manifest]) -> dict[str, Any]:
    """The variables of a node; a reference to a Secret as it is written."""
    (container,) = node_pod(resources)["containers"]
    name = container["envFrom"][0]["configMapRef"]["name"]
    (config,) = (m for m in of_kind("ConfigMap", resources) if m["metadata"]["name"] == name)
    own = {
        item["name"]: item.get("value", item.get("valueFrom")) for item in container.get("env", [])
    }
    return {**config["data"], **own}
