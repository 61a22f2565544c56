"""What no pod of the chart may have or do, and what each must have; and that a breach of each is found."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.deploy.chart import CASES, WORKLOADS, Json, case, containers, named, of_kind, pod_of

# Who may write to a claim's volume is its template's business; these are the only other kinds of volumes.
VOLUMES = {"emptyDir", "secret", "configMap"}


def breaches(workload: Json) -> Iterator[str]:
    """What is wrong with a Deployment, StatefulSet or Job."""
    pod = pod_of(workload)
    if pod.get("automountServiceAccountToken") is not False:
        yield "a service account's token"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield "the host's namespaces"
    of_pod = pod.get("securityContext", {})
    if of_pod.get("runAsNonRoot") is not True or not of_pod.get("runAsUser") or not of_pod.get("runAsGroup"):
        yield "root"
    if of_pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    for volume in pod.get("volumes", []):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield "a volume of the host"
        if volume.get("secret", {}).get("defaultMode", 0o440) & 0o337:
            yield "a secret that others may read"
    for container in containers(pod):
        yield from breaches_of(container)


def breaches_of(container: Json) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("runAsUser", 1) == 0:
        yield "root"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "a root file system that can be written"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "privilege"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    for bound in ("requests", "limits"):
        if not {"cpu", "memory"} <= container.get("resources", {}).get(bound, {}).keys():
            yield f"no {bound}"
    image = str(container["image"])
    if "@sha256:" not in image and image.rpartition(":")[2] in ("", "latest", image):
        yield "an image without a version"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the host"
    for one in container.get("env", []):
        if (
            "value" in one
            and any(word in one["name"] for word in ("SECRET", "PASSWORD", "TOKEN"))
            and "FILE" not in one["name"]
        ):
            yield "a secret in plain text"


@pytest.mark.parametrize("name", CASES)
def test_no_pod_breaks_a_rule(name: str) -> None:
    workloads = of_kind(case(name), *WORKLOADS)
    assert len(workloads) >= 3
    found = {one["metadata"]["name"]: sorted(set(breaches(one))) for one in workloads}
    assert {who: what for who, what in found.items() if what} == {}


def _set(*path: Any, to: Any) -> Callable[[Json], None]:
    def change(pod: Json) -> None:
        place: Any = pod
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


FIRST = ("containers", 0)
SECURITY = (*FIRST, "securityContext")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("automountServiceAccountToken", to=True), "a service account's token"),
        (_set("hostNetwork", to=True), "the host's namespaces"),
        (_set("securityContext", "runAsUser", to=0), "root"),
        (_set("securityContext", "seccompProfile", "type", to="Unconfined"), "no seccomp profile"),
        (_set("volumes", 0, to={"name": "tmp", "hostPath": {"path": "/"}}), "a volume of the host"),
        (_set("volumes", 1, "secret", "defaultMode", to=0o444), "a secret that others may read"),
        (_set(*SECURITY, "runAsUser", to=0), "root"),
        (_set(*SECURITY, "readOnlyRootFilesystem", to=False), "a root file system that can be written"),
        (_set(*SECURITY, "privileged", to=True), "privilege"),
        (_set(*SECURITY, "allowPrivilegeEscalation", to=True), "privilege"),
        (_set(*SECURITY, "capabilities", to={"drop": ["ALL"], "add": ["NET_RAW"]}), "capabilities"),
        (_set(*FIRST, "resources", "requests", to={"cpu": 1}), "no requests"),
        (_set(*FIRST, "resources", "limits", to={"memory": 1}), "no limits"),
        (_set(*FIRST, "image", to="a/b:latest"), "an image without a version"),
        (_set(*FIRST, "image", to="a/b"), "an image without a version"),
        (_set(*FIRST, "ports", 0, "hostPort", to=80), "a port of the host"),
        (_set(*FIRST, "env", 0, to={"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}), "a secret in plain text"),
    ],
)
def test_a_breach_is_found(change: Callable[[Json], None], said: str) -> None:
    workload = copy.deepcopy(named(case("defaults"), "Deployment", "split-server"))
    assert list(breaches(workload)) == []
    change(pod_of(workload))
    assert said in breaches(workload)
