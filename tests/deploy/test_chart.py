"""What the chart renders: for each of its sets of values, valid for Kubernetes, and for any combination of switches."""

from __future__ import annotations

import base64
import copy
import json
import re
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.helm.readme import table
from tests.deploy.chart import (
    CASES,
    CHART,
    FULL,
    NAMESPACE,
    RELEASE,
    ROOT,
    Json,
    case,
    environment,
    named,
    notes,
    of_kind,
    pod_of,
    render,
)

KUBERNETES = ("1.27", "1.37")  # the oldest that Chart.yaml allows, and the newest that there are schemas of
CUSTOM = {file.stem: json.loads(file.read_text()) for file in (ROOT / "tests/deploy/crds").glob("*.json")}


def check(one: Json, *versions: str) -> None:
    """Raises ValidationError unless it is valid for these versions of Kubernetes."""
    if one["kind"] == "Secret":  # random each time, and text all the same
        assert all(isinstance(base64.b64decode(value, validate=True), bytes) for value in one["data"].values())
        one = {**one, "data": dict.fromkeys(one["data"], "")}
    for version in versions:
        check_text(one["kind"], json.dumps(one), version)


@cache
def check_text(kind: str, text: str, version: str) -> None:
    """Most objects are the same in many sets of values."""
    if kind in CUSTOM:
        jsonschema.validate(json.loads(text), CUSTOM[kind])
    else:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_every_object_is_valid(name: str) -> None:
    for one in case(name):
        check(one, *KUBERNETES)
    names = [(one["kind"], one["metadata"]["name"]) for one in case(name)]
    assert len(set(names)) == len(names)
    assert all(one["metadata"]["namespace"] == NAMESPACE for one in case(name))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "replica"), 1),
        ("Deployment", ("spec", "template", "spec", "containers"), {}),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "targetValue"), 1),
        ("ServiceMonitor", ("spec", "endpoints", 0, "oauth2", "tokenURL"), "https://a"),
    ],
)
def test_an_object_that_is_wrong_is_found(kind: str, path: tuple[Any, ...], value: Any) -> None:
    one = copy.deepcopy(of_kind(case("everything"), kind)[0])
    place = one
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        check(one, KUBERNETES[1])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["none", "keda", "prometheus"]),
    tls=st.sampled_from(["generated", "insecureHttp"]),
    clients=st.booleans(),
    run=st.booleans(),
    policies=st.booleans(),
    monitor=st.booleans(),
    bundled=st.booleans(),
)
def test_any_combination_of_switches_is_valid(
    kind: str, tls: str, *, clients: bool, run: bool, policies: bool, monitor: bool, bundled: bool
) -> None:
    area: Json = {} if bundled else {"url": "s3://bucket/area"}
    place = [{"cidr": "10.0.0.0/8", "port": 443}]
    values: Json = {
        "splitServer": {"autoscaling": {"kind": kind}, "store": area},
        "fedServer": {"store": area},
        "bundledStores": {"enabled": bundled},
        "database": {"bundled": {"enabled": bundled}, "existingSecret": "records"},
        "tls": {"mode": tls},
        "clients": {"enabled": clients},
        "run": {"enabled": run},
        "networkPolicy": {"enabled": policies, "bodyStore": place, "clientStore": place, "database": place},
        "serviceMonitor": {"enabled": monitor},
    }
    objects = render(values)
    for one in objects:
        check(one, KUBERNETES[1])
    kinds = {one["kind"] for one in objects}
    assert ("NetworkPolicy" in kinds, "ServiceMonitor" in kinds, "Job" in kinds) == (policies, monitor, run)
    assert ("ScaledObject" in kinds, "HorizontalPodAutoscaler" in kinds) == (kind == "keda", kind == "prometheus")


def test_helm_lint_is_clean() -> None:
    from helm_python import lint

    for name in ("defaults", "everything"):
        report = lint(str(CHART), CASES[name], strict=True)
        assert [one for one in report["messages"] if one["severity"] > 1] == []
        assert report["errors"] == []


# Values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"splitServers": {}}, "splitServers"),
        ({"splitServer": {"replica": 3}}, "replica"),
        ({"splitServer": {"replicas": "three"}}, "replicas"),
        ({"splitServer": {"device": "gpu"}}, "device"),
        ({"splitServer": {"autoscaling": {"kind": "hpa"}}}, "kind"),
        ({"splitServer": {"autoscaling": {"kind": "prometheus", "min": 0}}}, "min"),
        ({"splitServer": {"resources": {"limits": None}}}, "resources"),
        ({"splitServer": {"store": {"url": "https://bucket"}}}, "url"),
        ({"tls": {"mode": "none"}}, "mode"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"models": {"allowModels": ["mymodel"]}}, "allowModels"),
        ({"networkPolicy": {"bodyStore": ["10.0.0.0/8"]}}, "bodyStore"),
        ({"ingress": {"enabled": True}}, "coordinator"),
        ({"clients": {"sites": 0}}, "sites"),
        ({"run": {"data": "uneven"}}, "data"),
        # What only several values together tell.
        ({"bundledStores": {"enabled": False}}, r"\w+\.store\.url: where the \w+ area is"),
        (
            {"database": {"bundled": {"enabled": False}}, "networkPolicy": {"enabled": False}},
            "database.existingSecret: name the Secret",
        ),
        ({"federation": {"create": False}}, r"federation\.secrets\.\w+: name the Secret"),
        ({"tls": {"mode": "existing"}}, r"tls\.secrets\.\w+: name the Secret"),
        ({"tls": {"mode": "certManager"}}, "tls.certManager.issuer: name the issuer"),
        ({"splitServer": {"autoscaling": {"kind": "keda", "min": 9, "max": 8}}}, "min is more than max"),
    ],
)
def test_wrong_values_are_refused_by_name(values: Json, said: str) -> None:
    from helm_python import HelmError

    with pytest.raises(HelmError) as error:
        render(values)
    assert re.search(said, str(error.value))


@pytest.mark.parametrize("key", ["bodyStore", "clientStore", "database"])
def test_a_policy_that_does_not_know_where_a_store_is_is_refused(key: str) -> None:
    from helm_python import HelmError

    values = copy.deepcopy(CASES["external"])
    del values["networkPolicy"][key]
    with pytest.raises(HelmError, match=f"networkPolicy.{key}: say where"):
        render(values)


def test_the_readme_lists_every_value() -> None:
    readme = (CHART / "README.md").read_text()
    values, schema = (
        yaml.safe_load((CHART / "values.yaml").read_text()),
        json.loads((CHART / "values.schema.json").read_text()),
    )
    assert table(values, schema) in readme, "run `python -m deploy.helm.readme`"


def test_the_schema_has_every_value_and_says_what_it_is() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def leaves(value: Any, part: Json, path: str) -> None:
        if part.get("additionalProperties") is False and "properties" in part and "requests" not in part["properties"]:
            assert set(value) <= set(part["properties"]), path
            for name in set(part["properties"]) - {"global"}:
                leaves(value[name], part["properties"][name], f"{path}.{name}")
        else:
            assert part.get("description", "").endswith("."), path

    leaves(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


# What it is about


def test_split_servers_have_time_to_drain_and_are_told_how_long() -> None:
    for seconds in (0, 20, 300):
        found = named(render({"splitServer": {"drainSeconds": seconds}}), "Deployment", "split-server")
        pod = pod_of(found)
        assert float(environment(pod["containers"][0])["MICROSFL_DRAIN_S"]) == seconds
        assert pod["terminationGracePeriodSeconds"] > seconds + 10
        assert "preStop" not in pod["containers"][0].get("lifecycle", {})


def test_what_scales_has_no_number_of_replicas_of_its_own() -> None:
    assert named(case("defaults"), "Deployment", "split-server")["spec"]["replicas"] == 2
    for name in ("keda", "prometheus"):
        assert "replicas" not in named(case(name), "Deployment", "split-server")["spec"]


def test_keda_asks_the_coordinator_with_a_viewer_s_credential() -> None:
    found = named(case("keda"), "ScaledObject", "split-server")["spec"]
    assert (found["minReplicaCount"], found["maxReplicaCount"]) == (0, 16)
    [trigger] = found["triggers"]
    at = f"https://{FULL}-coordinator.{NAMESPACE}.svc:8000/api/scale"
    assert trigger["metadata"]["url"] == f"{at}?min=0&max=16&per_replica=2"
    assert (trigger["metadata"]["valueLocation"], trigger["metadata"]["unsafeSsl"]) == ("replicas", "false")
    auth = named(case("keda"), "TriggerAuthentication", trigger["authenticationRef"]["name"].removeprefix(f"{FULL}-"))
    assert {one["name"] for one in auth["spec"]["secretTargetRef"]} == {f"{FULL}-viewer-identity"}


def test_probes_ask_what_needs_no_token() -> None:
    from microsfl.services import coordinator_endpoints, replica_endpoints
    from microsfl.trust.scopes import Scope

    tables = {
        "coordinator": coordinator_endpoints.ENDPOINTS,
        "split-server": replica_endpoints.BODY,
        "fed-server": replica_endpoints.CLIENT_SIDE,
    }
    for role, endpoints in tables.items():
        container = pod_of(named(case("defaults"), "Deployment", role))["containers"][0]
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        for probe in probes.values():
            assert endpoints["GET", probe["path"]] == (Scope.PUBLIC,)
            assert probe["scheme"] == "HTTPS"
        assert probes["readiness"]["path"].endswith("/ready")
        assert probes["liveness"]["path"].endswith("/health")
        named_ports = {one["name"] for one in container["ports"]}
        assert {probe["port"] for probe in probes.values()} <= named_ports


def test_services_select_the_pods_of_their_role_alone() -> None:
    for name in ("defaults", "everything"):
        workloads = of_kind(case(name), "Deployment", "StatefulSet")
        for service in of_kind(case(name), "Service"):
            wanted = service["spec"]["selector"].items()
            chosen = [one for one in workloads if wanted <= one["spec"]["template"]["metadata"]["labels"].items()]
            assert len(chosen) == 1, service["metadata"]["name"]
            ports = {one["name"] for one in pod_of(chosen[0])["containers"][0].get("ports", [])}
            assert {one["targetPort"] for one in service["spec"].get("ports", [])} <= ports


def test_a_name_of_any_length_leaves_ids_that_microsfl_takes() -> None:
    from microsfl.spec import check_id

    for release in ("a", "microsfl", "x" * 53):
        objects = render({"clients": {"enabled": True, "sites": 1000}}, name=release)
        for one in of_kind(objects, "Deployment"):  # and what Kubernetes adds to it
            check_id(f"{one['metadata']['name']}-abcdefghij-klmno")
        for one in of_kind(objects, "StatefulSet"):
            check_id(f"{one['metadata']['name']}-999")


def test_a_run_s_specification_is_one_that_microsfl_reads() -> None:
    import tomllib

    from microsfl.spec import RunSpec

    found = {}
    for name in ("trial", "everything"):
        [file] = of_kind(case(name), "ConfigMap")
        spec = RunSpec.parse(tomllib.loads(file["data"]["run.toml"]))
        found[name] = (spec.run.name, spec.data.partition, spec.data.clients)
    assert found == {"trial": ("trial", "dirichlet-label", 5), "everything": ("mine", "own", 3)}
    balanced = render({"run": {"enabled": True}})
    assert 'partition = "iid"' in of_kind(balanced, "ConfigMap")[0]["data"]["run.toml"]


def test_notes_say_what_is_at_risk() -> None:
    assert "WARNING" not in notes(CASES["external"])
    assert "for trials" in notes({})
    assert "can read and change tokens" in notes(CASES["insecure"])
    assert "networkPolicy.enabled is off" in notes(CASES["minimal"])
    assert "control.example.org" in notes(CASES["ingress"])
    assert RELEASE in notes(CASES["trial"])
