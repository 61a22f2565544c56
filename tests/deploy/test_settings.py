"""What chart and compose file say to a process is something that it listens to: a setting that is renamed is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from microsfl.store.objects import open_store
from tests.deploy.chart import CASES, FULL, WORKLOADS, Json, case, containers, named, of_kind, pod_of, role_of
from tests.deploy.roles import SETTINGS, unknown

# What is filled in by the cluster or from a Secret.
ELSEWHERE = {"POD_IP": "10.0.0.7", "MICROSFL_ID": f"{FULL}-split-server-abc", "MICROSFL_IDS": f"{FULL}-client-0"}


def of_chart(name: str) -> Iterator[tuple[str, Json]]:
    for workload in of_kind(case(name), *WORKLOADS):
        role = role_of(workload)
        if role in SETTINGS or role == "run":
            yield role, containers(pod_of(workload))[0]


@pytest.mark.parametrize("name", CASES)
def test_every_variable_of_the_chart_is_a_setting_of_its_role(name: str) -> None:
    for role, container in of_chart(name):
        names = [one["name"] for one in container["env"]]
        assert len(set(names)) == len(names)
        assert unknown(role, set(names)) == set(), role


def test_a_variable_that_is_none_is_found() -> None:
    assert unknown("split-server", {"MICROSFL_DRAIN_SECONDS", "MICROSFL_DRAIN_S"}) == {"MICROSFL_DRAIN_SECONDS"}
    assert unknown("coordinator", {"AWS_ACCESS_KEY_ID"}) == {"AWS_ACCESS_KEY_ID"}


def parsed(role: str, container: Json) -> Any:
    """The settings as the process makes them of its environment."""
    given: dict[str, Any] = {}
    kind = SETTINGS[role]
    for one in container["env"]:
        setting = one["name"].removeprefix("MICROSFL_").lower()
        if one["name"].startswith("MICROSFL_"):
            value = one.get("value") or ELSEWHERE.get(one["name"], "postgresql+psycopg://a@b/c")
            lists = "tuple" in str(kind.model_fields[setting].annotation)
            given[setting] = tuple(value.split(",")) if lists else value
    return kind.parse(given)


@pytest.mark.parametrize("name", CASES)
def test_the_settings_are_ones_that_the_roles_take(name: str) -> None:
    for role, container in of_chart(name):
        if role in SETTINGS:
            settings = parsed(role, container)
            assert not getattr(settings, "allow_anybody", False)
            assert settings.insecure_http == (name == "insecure")
            if role in ("split-server", "fed-server"):
                open_store(settings.store_url)


def test_ports_are_those_that_the_containers_declare() -> None:
    for role, container in of_chart("defaults"):
        assert [one["containerPort"] for one in container["ports"]] == [parsed(role, container).port]


def test_each_replica_has_an_address_of_its_own() -> None:
    """The shell's part of the command, run here as it would be there, with `echo` in the place of the process."""
    import subprocess

    container = pod_of(named(case("defaults"), "Deployment", "split-server"))["containers"][0]
    assert container["command"] == ["tini", "--", "sh", "-c"]
    script = container["args"][0].replace("$$", "$").replace("exec microsfl", "echo")  # $$ is Kubernetes' for $
    for address, dashed in (("10.0.0.7", "10-0-0-7"), ("fd00::1:7", "fd00--1-7")):
        done = subprocess.run(
            ["sh", "-c", script], env={"POD_IP": address, "PATH": "/usr/bin:/bin"}, capture_output=True
        )
        assert done.stdout.decode().split() == [
            "split-server", "--address", f"https://{dashed}.{FULL}-split-server-pods.clinics.svc.cluster.local:8100",
        ]  # fmt: skip


def test_commands_are_ones_that_there_are() -> None:
    from microsfl.cli import cli

    for name in ("everything", "trial"):
        for role, container in of_chart(name):
            words = container.get("args", [])
            command = "split-server" if role == "split-server" else words[0]
            assert command == role
            flags = {flag for one in cli.commands[command].params for flag in one.opts}
            assert set(re.findall(r"(?<!\S)--[a-z-]+", " ".join(words))) <= flags


def test_the_operators_notes_name_commands_that_there_are() -> None:
    from microsfl.cli import cli
    from tests.deploy.chart import notes

    said = re.search(r"microsfl admin (\S+) (.*)", notes({}))
    assert said is not None
    admin: Any = cli.commands["admin"]
    flags = {flag for one in admin.commands[said[1]].params for flag in one.opts}
    assert set(re.findall(r"--[a-z-]+", said[2])) <= flags
