"""What is made from the chart and from the settings is what is in the repository."""

import json
import re
from typing import Any

import pytest
import yaml

# It has no types.
from kubernetes_validate import validate  # type: ignore[import-untyped]

from pushsvc.settings import rows
from tests.deploy import chart
from tests.deploy.restricted import violations

MAKE = "run: make manifests"


def test_the_schema_knows_every_setting_with_its_bounds() -> None:
    assert chart.SCHEMA.read_text() == chart.schema(), MAKE
    assert set(chart.ELSEWHERE) <= {row.field for row in rows()}


def test_the_readme_lists_every_value() -> None:
    assert chart.README.read_text() == chart.readme(), MAKE


def leaves(value: Any, path: str = "") -> list[str]:
    """The paths of all values that are no maps, or empty ones."""
    if isinstance(value, dict) and value:
        return [leaf for name in value for leaf in leaves(value[name], f"{path}.{name}")]
    return [path.removeprefix(".")]


def test_every_value_has_a_comment() -> None:
    documented = {path for path, _ in chart.documented()}
    for leaf in leaves(chart.defaults()):
        parts = leaf.split(".")
        above = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        assert above & documented, f"{leaf}: write a line `# -- …` above it"


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads(chart.SCHEMA.read_text())
    for leaf in leaves(chart.defaults()):
        found = schema
        for name in leaf.split("."):
            if "properties" not in found:  # Kubernetes' own
                break
            found = found["properties"][name]


def test_what_the_documents_set_is_a_value() -> None:
    known = set(leaves(chart.defaults()))
    for page in (*(chart.ROOT / "docs").rglob("*.md"), chart.ROOT / "README.md", chart.README):
        for name in re.findall(r"--set ([\w.]+)=", page.read_text()):
            assert name in known or name.startswith("settings."), f"{page}: {name}"


def objects_without_bounds(schema: Any, path: str = "") -> list[str]:
    """Objects that take any name, other than maps of strings and Kubernetes' own structures."""
    if not isinstance(schema, dict):
        return []
    found = []
    if "properties" in schema and schema.get("additionalProperties") is not False:
        found.append(path)
    for name, inner in schema.get("properties", {}).items():
        found += objects_without_bounds(inner, f"{path}.{name}")
    return found


def test_no_map_of_the_schema_takes_a_name_that_it_does_not_know() -> None:
    assert objects_without_bounds(json.loads(chart.SCHEMA.read_text())) == []


@pytest.mark.parametrize("name", ["kustomization.yaml", *chart.plain_manifests()])
def test_the_plain_manifests_are_what_the_chart_says(name: str) -> None:
    assert (chart.MANIFESTS / name).read_text() == chart.plain_manifests()[name], MAKE


def test_the_plain_manifests_are_all_there_and_no_others() -> None:
    made = {"values.yaml", *chart.plain_manifests()}
    assert {path.name for path in chart.MANIFESTS.glob("*.yaml")} == made, MAKE
    listed = yaml.safe_load((chart.MANIFESTS / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml", "values.yaml"} == made


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_accepts_the_plain_manifests(version: str) -> None:
    text = ""
    for name, manifest in chart.plain_manifests().items():
        if name != "kustomization.yaml":
            text += manifest
            for resource in yaml.safe_load_all(manifest):
                validate(resource, version, strict=True)
                if resource["kind"] == "Deployment":
                    assert list(violations(resource["spec"]["template"]["spec"])) == []
    for mark in ("helm", "Helm", "checksum", chart.NAMESPACE):
        assert mark not in text
    assert "kind: Secret\n" not in text
