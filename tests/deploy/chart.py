"""The chart, rendered as Helm renders it, without a cluster: `lookup` finds nothing, as at the first installation."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("helm_python", reason="helm-python-sdk, Helm as a library, has no wheel for this machine")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/microsfl"
CASES = {"defaults": {}} | {
    file.name.removesuffix("-values.yaml"): yaml.safe_load(file.read_text()) for file in sorted(CHART.glob("ci/*.yaml"))
}
RELEASE, NAMESPACE = "trial", "clinics"
FULL = "trial-microsfl"
WORKLOADS = ("Deployment", "StatefulSet", "Job")

Json = dict[str, Any]


@cache
def chart() -> Any:
    from helm_python import Chart

    return Chart.load(str(CHART))


def render(values: Json, name: str = RELEASE) -> list[Json]:
    """All objects. Raises HelmError when the chart refuses the values."""
    files = chart().render(values, name=name, namespace=NAMESPACE)
    return [one for file, text in sorted(files.items()) if file.endswith(".yaml") for one in documents(text)]


def notes(values: Json) -> str:
    files: dict[str, str] = chart().render(values, name=RELEASE, namespace=NAMESPACE)
    return files["microsfl/templates/NOTES.txt"]


def documents(text: str) -> list[Json]:
    return [one for one in yaml.safe_load_all(text) if one]


@cache
def case(name: str) -> tuple[Json, ...]:
    """Those of one of the chart's own sets of values; not to be changed."""
    return tuple(render(CASES[name]))


def named(objects: Iterator[Json] | tuple[Json, ...] | list[Json], kind: str, name: str) -> Json:
    [found] = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == f"{FULL}-{name}"]
    return found


def of_kind(objects: tuple[Json, ...] | list[Json], *kinds: str) -> list[Json]:
    return [one for one in objects if one["kind"] in kinds]


def pod_of(workload: Json) -> Json:
    spec: Json = workload["spec"]["template"]["spec"]
    return spec


def role_of(workload: Json) -> str:
    return str(workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"])


def containers(pod: Json) -> list[Json]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(container: Json) -> dict[str, str]:
    """What has a value in it."""
    return {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}


def contents(secret: Json) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
