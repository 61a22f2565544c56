"""Who may talk to whom, as the NetworkPolicies of the chart decide it, beside the table of the guide."""

from __future__ import annotations

import copy
import itertools
import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.deploy.chart import CASES, RELEASE, ROOT, WORKLOADS, Json, case, containers, of_kind, pod_of, role_of

# Who calls whom; everything else is forbidden. The coordinator calls split servers for `reduce!`, the fed server for
# `aggregate!`; a run's Job fetches the weights of both.
TALKS = {
    "client": {"coordinator", "split-server", "fed-server"},
    "run": {"coordinator", "split-server", "fed-server"},
    "coordinator": {"split-server", "fed-server", "database"},
    "split-server": {"coordinator", "store-body"},
    "fed-server": {"coordinator", "store-client"},
    "database": set(),
    "store-body": set(),
    "store-client": set(),
}  # fmt: skip
PORTS = {
    "coordinator": 8000, "split-server": 8100, "fed-server": 8200, "database": 5432, "store-body": 8333,
    "store-client": 8333,
}  # fmt: skip
FULLEST = "everything"  # all roles are there, and stores and database are in the cluster


def labels(role: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "microsfl",
        "app.kubernetes.io/instance": RELEASE,
        "app.kubernetes.io/component": role,
    }


def selects(selector: Json, given: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "the evaluator knows no other kind"
    return selector.get("matchLabels", {}).items() <= given.items()


def matches(peer: Json, other: Any) -> bool:
    """other: the labels of a pod of the same namespace, or an address outside of the cluster."""
    if isinstance(other, str):
        return "ipBlock" in peer and ip_address(other) in ip_network(peer["ipBlock"]["cidr"])
    return peer.keys() == {"podSelector"} and selects(peer["podSelector"], other)


def allowed(policies: list[Json], direction: str, pod: dict[str, str], other: Any, port: int) -> bool:
    """Whether the policies let this pod receive from, or send to, another (Kubernetes: what some rule allows, once any
    policy of that direction selects the pod)."""
    side = "from" if direction == "Ingress" else "to"
    mine = [
        one["spec"]
        for one in policies
        if direction in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], pod)
    ]
    rules = [rule for one in mine for rule in one.get(direction.lower(), [])]
    return not mine or any(
        (side not in rule or any(matches(peer, other) for peer in rule[side]))
        and ("ports" not in rule or port in [one["port"] for one in rule["ports"]])
        for rule in rules
    )


def talks(policies: list[Json], source: str, target: str, port: int) -> bool:
    return allowed(policies, "Egress", labels(source), labels(target), port) and allowed(
        policies, "Ingress", labels(target), labels(source), port
    )


def test_all_roles_are_in_the_table() -> None:
    workloads = of_kind(case(FULLEST), *WORKLOADS)
    assert {role_of(one) for one in workloads} == set(TALKS)
    for one in workloads:  # the evaluator's labels are those of the pods, and its ports those that they listen on
        assert labels(role_of(one)).items() <= one["spec"]["template"]["metadata"]["labels"].items()
        listens = {port["containerPort"] for each in containers(pod_of(one)) for port in each.get("ports", [])}
        assert listens == ({PORTS[role_of(one)]} if role_of(one) in PORTS else set())


def test_the_guide_has_the_same_table() -> None:
    guide = (ROOT / "docs/guides/kubernetes.md").read_text().partition("## Who may talk to whom")[2]
    words = {
        "clients": "client", "the run's Job": "run", "split servers": "split-server", "fed server": "fed-server",
        "body store": "store-body", "client store": "store-client",
    }  # fmt: skip
    found: dict[str, set[str]] = {role: set() for role in TALKS}
    for row in re.findall(r"^\| (.*?) \| (.*?) \|$", guide.partition("\nSo neither")[0], re.MULTILINE)[2:-1]:
        sources, targets = ([words.get(one, one) for one in cell.split(", ")] for cell in row)
        for source in sources:
            found[source] |= set(targets)
    assert found == TALKS


@pytest.mark.parametrize("name", [FULLEST, "trial", "keda"])
def test_every_pair_of_roles_may_talk_as_the_design_says(name: str) -> None:
    policies = of_kind(case(name), "NetworkPolicy")
    for source, target in itertools.product(TALKS, TALKS):
        for port in (*sorted(set(PORTS.values())), 22):
            expected = target in TALKS[source] and PORTS.get(target) == port
            assert talks(policies, source, target, port) == expected, f"{source} to {target}:{port}"


def test_split_servers_and_fed_server_do_not_reach_each_other_s_store_elsewhere() -> None:
    policies = of_kind(case("external"), "NetworkPolicy")
    stores = {"10.1.0.9": "split-server", "10.2.0.9": "fed-server", "10.3.0.7": "coordinator"}
    for (address, owner), role in itertools.product(stores.items(), TALKS):
        port = 5432 if owner == "coordinator" else 443
        assert allowed(policies, "Egress", labels(role), address, port) == (role == owner), f"{role} to {address}"
        assert not allowed(policies, "Egress", labels(role), address, port + 1)


def test_nobody_goes_out_or_comes_in_from_outside_who_is_not_named() -> None:
    for name in ("defaults", "trial", "ingress"):
        policies = of_kind(case(name), "NetworkPolicy")
        for role, port in itertools.product(TALKS, (53, 80, 443, 8000)):
            assert not allowed(policies, "Egress", labels(role), "93.184.216.34", port)
            assert not allowed(policies, "Ingress", labels(role), "93.184.216.34", port)
            assert not allowed(policies, "Ingress", labels(role), {"app": "somebody else's"}, port)
            assert not allowed(policies, "Egress", labels(role), {"app": "somebody else's"}, port)


def test_those_outside_who_are_named_reach_what_they_are_for() -> None:
    policies = of_kind(case(FULLEST), "NetworkPolicy")
    for role, port in PORTS.items():
        expected = role in ("coordinator", "split-server", "fed-server")
        assert allowed(policies, "Ingress", labels(role), "10.4.4.4", port) == expected
    sources = {
        one["metadata"]["name"]: one["spec"]["ingress"][0]["from"]
        for one in policies
        if "-from" in str(one["metadata"]["name"])
    }
    namespaces = {
        name: [str(peer["namespaceSelector"]["matchLabels"]) for peer in peers if "namespaceSelector" in peer]
        for name, peers in sources.items()
    }
    asks = {
        name.removeprefix("trial-microsfl-").removesuffix("-from")
        for name, them in namespaces.items()
        if any("keda" in one for one in them)
    }
    assert asks == {"coordinator"}
    assert allowed(policies, "Egress", labels("split-server"), "10.9.0.1", 4318)
    assert not allowed(policies, "Egress", labels("fed-server"), "10.9.0.1", 4318)


@pytest.mark.parametrize("index", range(len(of_kind(case(FULLEST), "NetworkPolicy"))))
def test_each_policy_counts(index: int) -> None:
    """Without any one of them, somebody may talk who may not, or may not who should."""
    policies = of_kind(case(FULLEST), "NetworkPolicy")
    left = copy.deepcopy(policies)
    del left[index]

    def seen(given: list[Json]) -> list[bool]:
        pairs = itertools.product(TALKS, TALKS, sorted(set(PORTS.values())))
        inside = [talks(given, source, target, port) for source, target, port in pairs]
        return inside + [allowed(given, "Egress", labels(role), "93.184.216.34", 80) for role in TALKS]

    assert seen(policies) != seen(left), policies[index]["metadata"]["name"]


def test_without_policies_everybody_may_talk() -> None:
    """Of the evaluator: it refuses nothing by itself."""
    assert of_kind(case("minimal"), "NetworkPolicy") == []
    assert all(talks([], source, target, 1) for source, target in itertools.product(TALKS, TALKS))
    assert CASES["minimal"]["networkPolicy"] == {"enabled": False}
