"""The identities and certificates that the chart makes: real processes start with them, as the chart starts them."""

from __future__ import annotations

import json
import re
import shutil
import ssl
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import urllib3
from cryptography import x509

from microsfl.trust.credential import Credential
from microsfl.trust.keys import Federation
from microsfl.trust.secret import digest
from microsfl.trust.tokens import Caller
from tests.deploy.chart import (
    CASES,
    CHART,
    FULL,
    WORKLOADS,
    Json,
    case,
    containers,
    contents,
    documents,
    environment,
    named,
    of_kind,
    pod_of,
    render,
    role_of,
)
from tests.integration.launched import until
from tests.service.test_roles import Process, role

pytestmark = pytest.mark.slow  # real processes, over and over

Owners = dict[tuple[str, str], set[str]]


COORDINATOR = f"https://{FULL}-coordinator.clinics.svc:8000"


def place(folder: Path, workload: Json, objects: tuple[Json, ...], coordinator: str) -> dict[str, str]:
    """Write the Secrets that a pod mounts below the folder, as the kubelet does; the environment that goes with it.

    coordinator: where it is, for that of the cluster.
    """
    pod, container = pod_of(workload), pod_of(workload)["containers"][0]
    volumes = {one["name"]: one["secret"] for one in pod["volumes"] if "secret" in one}
    secrets = {one["metadata"]["name"]: contents(one) for one in of_kind(objects, "Secret")}
    found = environment(container)
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            continue
        volume, there = volumes[mount["name"]], folder / mount["mountPath"].strip("/").replace("/", "-")
        there.mkdir()
        data = secrets[volume["secretName"]]
        for item in volume.get("items", [{"key": key, "path": key} for key in data]):
            (there / item["path"]).touch(mode=0o600)
            (there / item["path"]).write_text(data[item["key"]].replace(COORDINATOR, coordinator))
        found = {name: value.replace(mount["mountPath"], str(there)) for name, value in found.items()}
    return found


@pytest.fixture
def started(tmp_path: Path) -> Iterator[dict[str, Process]]:
    """Coordinator, split server and fed server, with what their pods have but for addresses, database and store."""
    objects = case("trial")
    here = {"MICROSFL_HOST": "127.0.0.1", "MICROSFL_PORT": "0"}
    processes: dict[str, Process] = {}
    with ExitStack() as until_then:
        for name in ("coordinator", "split-server", "fed-server"):
            folder = tmp_path / name
            folder.mkdir()
            url = processes["coordinator"].address or "" if processes else ""
            given = place(folder, named(objects, "Deployment", name), objects, url) | here
            if name == "coordinator":
                given |= {"MICROSFL_RECORDS_URL": f"sqlite:///{folder}/records.db"}
            else:
                given |= {"MICROSFL_COORDINATOR": url, "MICROSFL_STORE_URL": f"file://{folder}/store"}
            if name == "fed-server":
                del given["MICROSFL_ADDRESS"]
            if name == "split-server":
                given["MICROSFL_ID"] = f"{FULL}-split-server-7d9f8b6c5-x2v4w"
            processes[name] = until_then.enter_context(role(folder, name, environment=given))
        yield processes


def ask(process: Process, path: str, ca: str, **headers: str) -> tuple[int, Any]:
    context = ssl.create_default_context(cadata=ca)
    with urllib3.PoolManager(ssl_context=context) as pool:
        answer = pool.request("GET", f"{process.address}{path}", headers=headers)
        return answer.status, answer.json()


def test_the_roles_start_with_what_the_chart_makes_and_know_each_other(started: dict[str, Process]) -> None:
    secrets = {one["metadata"]["name"]: contents(one) for one in of_kind(case("trial"), "Secret")}
    ca = secrets[f"{FULL}-coordinator-tls"]["ca.crt"]
    until(
        lambda: all(ask(started[name], "/v1/ready", ca)[0] == 200 for name in ("split-server", "fed-server")), "servers"
    )
    assert ask(started["coordinator"], "/api/ready", ca)[0] == 200
    viewer = secrets[f"{FULL}-viewer-identity"]
    basic = urllib3.make_headers(basic_auth=f"{viewer['id']}:{viewer['secret']}")["authorization"]
    status, scale = ask(started["coordinator"], "/api/scale?min=0&max=16&per_replica=2", ca, authorization=basic)
    assert (status, scale["replicas"], scale["alive"]) == (200, 0, 1)
    assert ask(started["coordinator"], "/api/scale?min=0&max=16&per_replica=2", ca)[0] == 401
    wrong = urllib3.make_headers(basic_auth=f"viewer:{viewer['secret']}x")["authorization"]
    assert ask(started["coordinator"], "/api/scale?min=0&max=16&per_replica=2", ca, authorization=wrong)[0] == 401


def test_the_federation_knows_each_member_by_its_secret(tmp_path: Path) -> None:
    secrets = {one["metadata"]["name"]: contents(one) for one in of_kind(case("trial"), "Secret")}
    (tmp_path / "federation.json").touch(mode=0o600)
    (tmp_path / "federation.json").write_text(secrets[f"{FULL}-coordinator-identity"]["federation.json"])
    made = Federation.read(tmp_path)
    assert (made.name, len(made.keys)) == ("trial", 1)
    found = {}
    for name, data in secrets.items():
        if "credential.json" in data:
            (tmp_path / name).touch(mode=0o600)
            (tmp_path / name).write_text(data["credential.json"])
            credential = Credential.read(tmp_path / name)
            assert credential.coordinator == COORDINATOR
            assert (credential.id, credential.secret) == (data["id"], data["secret"])
            assert made.first[credential.id]["hash"] == digest(credential.secret)
            found[credential.id] = (made.first[credential.id]["role"], made.first[credential.id]["acts_as"])
    assert found == {
        "operator": ("operator", ["*"]),
        "viewer": ("viewer", ["viewer"]),
        "fed-server": ("fed-server", [f"{FULL}-fed-server"]),
        "split-server": ("split-server", [f"{FULL}-split-server-*"]),
        "clients-5": ("client", [f"{FULL}-client-{number}" for number in range(5)]),
    }
    assert made.first.keys() == found.keys()
    assert len({data["secret"] for data in secrets.values() if "secret" in data}) == len(found)


def test_pods_act_as_what_their_identity_may_be() -> None:
    secrets = {one["metadata"]["name"]: contents(one) for one in of_kind(case("trial"), "Secret")}
    first = json.loads(secrets[f"{FULL}-coordinator-identity"]["federation.json"])["first"]

    def caller(name: str) -> Caller:
        one = first[name]
        return Caller(name, one["role"], frozenset(one["acts_as"]), frozenset(one["runs"]))

    clients = named(case("trial"), "StatefulSet", "client")
    for number in range(clients["spec"]["replicas"]):
        caller("clients-5").must_be(f"{clients['metadata']['name']}-{number}")
    caller("split-server").must_be(f"{named(case('trial'), 'Deployment', 'split-server')['metadata']['name']}-abc-xyz")
    fed = pod_of(named(case("trial"), "Deployment", "fed-server"))["containers"][0]
    caller("fed-server").must_be(environment(fed)["MICROSFL_ID"])


def test_certificates_are_for_the_names_by_which_servers_are_called() -> None:
    objects = case("ingress")
    for name, host in (("coordinator", "control"), ("split-server", "split"), ("fed-server", "fed")):
        certificate = x509.load_pem_x509_certificate(
            contents(named(objects, "Secret", f"{name}-tls"))["tls.crt"].encode()
        )
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
        assert {f"{FULL}-{name}.clinics.svc", "localhost", f"{host}.example.org"} <= set(found)
        assert (f"*.{FULL}-split-server-pods.clinics.svc.cluster.local" in found) == (name == "split-server")
    issued = named(case("external"), "Certificate", "split-server")["spec"]
    assert f"*.{FULL}-split-server-pods.clinics.svc.cluster.local" in issued["dnsNames"]


# Who has which secret


def mounted(objects: tuple[Json, ...]) -> Owners:
    """(Secret, key or "*") -> the roles that get it, as a file or as a variable."""
    found: Owners = defaultdict(set)
    for workload in of_kind(objects, *WORKLOADS):
        pod, who = pod_of(workload), role_of(workload)
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                for item in volume["secret"].get("items", [{"key": "*"}]):
                    found[volume["secret"]["secretName"], item["key"]].add(who)
        for container in containers(pod):
            assert "envFrom" not in container
            for one in container.get("env", []):
                chosen = one.get("valueFrom", {}).get("secretKeyRef")
                if chosen:
                    found[chosen["name"], chosen["key"]].add(who)
    return found


def test_every_secret_is_its_owner_s_alone() -> None:
    owners = {key: roles for key, roles in mounted(case("trial")).items() if key[1] != "ca.crt"}
    assert {(name.removeprefix(f"{FULL}-"), key): roles for (name, key), roles in owners.items()} == {
        ("coordinator-identity", "federation.json"): {"coordinator"},
        ("split-server-identity", "credential.json"): {"split-server"},
        ("fed-server-identity", "credential.json"): {"fed-server"},
        ("clients-5-identity", "credential.json"): {"client"},
        ("operator-identity", "credential.json"): {"run"},
        ("coordinator-tls", "*"): {"coordinator"},
        ("split-server-tls", "*"): {"split-server"},
        ("fed-server-tls", "*"): {"fed-server"},
        ("store-body", "accessKeyId"): {"split-server"},
        ("store-body", "secretAccessKey"): {"split-server"},
        ("store-body", "s3.json"): {"store-body"},
        ("store-client", "accessKeyId"): {"fed-server"},
        ("store-client", "secretAccessKey"): {"fed-server"},
        ("store-client", "s3.json"): {"store-client"},
        ("database", "url"): {"coordinator"},
        ("database", "password"): {"database"},
    }


@pytest.mark.parametrize("name", CASES)
def test_no_role_has_the_key_of_another_s_store(name: str) -> None:
    def keys(who: str) -> set[str]:
        return {secret for (secret, key), roles in mounted(case(name)).items() if who in roles and "ccess" in key}

    assert not keys("split-server") & keys("fed-server")
    assert all(not keys(who) for who in ("coordinator", "client", "run", "database"))


# What is there already


def upgraded(there: tuple[Json, ...] | list[Json], values: Json, folder: Path) -> list[Json]:
    """As with a cluster that has these objects: `lookup`, which finds nothing without one, looks into a value here."""
    from helm_python import Chart

    shutil.copytree(CHART, folder)
    for file in (folder / "templates").glob("*.yaml"):
        file.write_text(re.sub(r'lookup "v1" "Secret" \S+ ', "index $.Values.global.there ", file.read_text()))
    secrets = {one["metadata"]["name"]: one for one in of_kind(there, "Secret")}
    files = Chart.load(str(folder)).render({**values, "global": {"there": secrets}}, name="trial", namespace="clinics")
    return [one for file, text in files.items() if file.endswith(".yaml") for one in documents(text)]


def test_an_upgrade_keeps_what_is_secret_and_adds_whom_it_has_to(tmp_path: Path) -> None:
    before = render({})
    same = {one["metadata"]["name"]: one["data"] for one in of_kind(upgraded(before, {}, tmp_path / "a"), "Secret")}
    assert same == {one["metadata"]["name"]: one["data"] for one in of_kind(before, "Secret")}

    more = upgraded(before, {"clients": {"enabled": True, "sites": 2}}, tmp_path / "b")
    after = {one["metadata"]["name"]: one["data"] for one in of_kind(more, "Secret")}
    assert {name for name in after if after[name] != same.get(name)} == {
        f"{FULL}-clients-2-identity", f"{FULL}-coordinator-identity",
    }  # fmt: skip
    old, new = (
        json.loads(contents(named(objects, "Secret", "coordinator-identity"))["federation.json"])
        for objects in (before, more)
    )
    assert new["keys"] == old["keys"]
    assert new["first"].pop("clients-2")["acts_as"] == [f"{FULL}-client-0", f"{FULL}-client-1"]
    assert new == old
