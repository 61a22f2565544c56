"""The compose file: valid, hardened, without secrets, and with settings that there are; and its script, really run."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from microsfl.spec import RunSpec
from microsfl.trust.credential import Credential
from microsfl.trust.keys import Federation
from microsfl.trust.secret import digest
from microsfl.trust.tokens import Caller
from tests.deploy.roles import SETTINGS, unknown

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/compose"
FILE = FOLDER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = [name for name, one in SERVICES.items() if "build" in one]
ROLES = {"clients": "client", "run-balanced": "run", "run-skewed": "run"}


def unknown_fields(given: Any, kept: Any, path: str = "") -> set[str]:
    """What the specification's model does not keep; fields that begin with x- are anybody's."""
    if isinstance(given, list) and isinstance(kept, list):
        return set().union(*(unknown_fields(*pair, path) for pair in zip(given, kept, strict=True)))
    if not isinstance(given, dict) or not isinstance(kept, dict):
        return set()
    names = {name for name in given if not name.startswith("x-")}
    lost = {f"{path}.{name}" for name in names - kept.keys()}
    return lost.union(*(unknown_fields(given[name], kept[name], f"{path}.{name}") for name in names & kept.keys()))


def test_it_is_valid() -> None:
    specification = pytest.importorskip("compose_spec").ComposeSpecification

    def unknown_in(given: dict[str, Any]) -> set[str]:
        return unknown_fields(given, specification.model_validate(given).model_dump(mode="json", by_alias=True))

    assert unknown_in(COMPOSE) == set()
    assert unknown_in({"services": {"store": {"image": "a:1", "restarts": "always"}}}) == {".services.store.restarts"}
    with pytest.raises(ValueError, match="profiles"):
        specification.model_validate({"services": {"store": {"image": "a:1", "profiles": 1}}})


def test_podman_compose_reads_it() -> None:
    pytest.importorskip("podman_compose", reason="podman-compose is not installed")
    command = [sys.executable, "-m", "podman_compose", "-f", str(FILE), "--profile", "skewed", "config"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "podman" in done.stderr and not shutil.which("podman"):
        pytest.skip("podman-compose wants podman for every command")
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {"coordinator", "clients", "run-skewed"}


def test_docker_compose_reads_it() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no docker with its compose plugin")
    done = subprocess.run(["docker", "compose", "-f", FILE, "config", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_images_have_versions_and_ours_are_targets_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE))
    for name, one in SERVICES.items():
        assert re.search(r":\d[\w.-]*$", one["image"]), name
        if name in OURS:
            target = one["build"]["target"]
            assert target in targets
            assert one["image"].startswith(f"microsfl-{target}:")
            assert (FOLDER / one["build"]["context"]).resolve() == ROOT


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_rights(name: str) -> None:
    one = SERVICES[name]
    assert "no-new-privileges:true" in one["security_opt"]
    assert not one.get("privileged")
    assert "network_mode" not in one or one["network_mode"] == "none"
    if name in OURS:
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert "/tmp" in one["tmpfs"]
    assert ("user" in one and one["user"].startswith("0")) == (name == "init")
    assert "cap_add" not in one or name == "init"
    assert not any(str(volume).startswith(("/", "docker.sock")) for volume in one.get("volumes", []))


def test_nothing_secret_stands_in_the_file() -> None:
    for name, one in SERVICES.items():
        for variable, value in one.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", variable)
            assert not secret or variable.endswith("_FILE"), f"{name}: {variable}"
            assert not re.search(r"//[^/]*:[^/@]+@", str(value)), f"{name}: {variable}"


@pytest.mark.parametrize("name", [one for one in OURS if one != "init"])
def test_every_variable_is_a_setting_of_its_role(name: str) -> None:
    role = ROLES.get(name, name)
    given = {one for one in SERVICES[name].get("environment", {}) if one != "PGPASSFILE"}  # which libpq reads
    assert unknown(role, given) == set()
    if role in SETTINGS:
        lists = {"ids", "split_servers", "allow_models", "allow_datasets"}
        values = {one.removeprefix("MICROSFL_").lower(): value for one, value in SERVICES[name]["environment"].items()}
        known = {
            one: tuple(value.split(",")) if one in lists else value
            for one, value in values.items()
            if one in SETTINGS[role].model_fields
        }
        settings = SETTINGS[role].parse(known)
        assert not settings.insecure_http
        assert not getattr(settings, "allow_anybody", False)


def test_each_volume_of_secrets_is_its_owner_s_alone() -> None:
    users: dict[str, set[str]] = {name: set() for name in COMPOSE["volumes"]}
    for name, one in SERVICES.items():
        for volume in one.get("volumes", []):
            source, _, rest = volume.partition(":")
            if source in users and name != "init":
                users[source].add(name)
                assert rest.endswith(":ro") or source in ("runs", "records-data", "store-data")
    assert users == {
        "keys": set(),
        "coordinator": {"coordinator"},
        "split-server": {"split-server"},
        "fed-server": {"fed-server"},
        "clients": {"clients"},
        "operator": {"run-balanced", "run-skewed"},
        "records": {"records"},
        "store": {"store"},
        "runs": {"run-balanced", "run-skewed"},
        "records-data": {"records"},
        "store-data": {"store"},
    }


def test_only_servers_reach_the_stores_and_only_the_coordinator_the_database() -> None:
    def on(network: str) -> set[str]:
        return {name for name, one in SERVICES.items() if network in one.get("networks", [])}

    assert on("store") == {"store", "buckets", "split-server", "fed-server"}
    assert on("records") == {"records", "coordinator"}
    assert "store" not in on("control")
    assert all(COMPOSE["networks"][name]["internal"] for name in ("store", "records"))


def test_every_order_of_start_will_do() -> None:
    """What a role waits for, it waits for itself: it is started again until its files are there."""
    for name in OURS:
        one = SERVICES[name]
        assert set(one.get("depends_on", {})) <= {"init"}
        assert all(not each["required"] for each in one.get("depends_on", {}).values())
        assert name == "init" or one["restart"] in ("unless-stopped", "on-failure")


@pytest.mark.parametrize("name", ["balanced", "skewed"])
def test_the_runs_are_specifications(name: str) -> None:
    spec = RunSpec.parse(tomllib.loads((FOLDER / f"{name}.toml").read_text()))
    assert (spec.run.name, spec.data.partition == "iid") == (name, name == "balanced")
    assert len(SERVICES["clients"]["environment"]["MICROSFL_IDS"].split(",")) == spec.data.clients


def test_haproxy_reads_its_configuration() -> None:
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    done = subprocess.run(["haproxy", "-c", "-f", FOLDER / "haproxy.cfg"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The script that makes what is secret


@pytest.fixture
def made(tmp_path: Path) -> Path:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("init.sh hands files to the users of other images, which takes root")
    folder = tmp_path / "made"
    for volume in SERVICES["init"]["volumes"]:
        if ":/made/" in volume:
            (folder / volume.partition(":/made/")[2]).mkdir(parents=True)
    return folder


def run_init(made: Path) -> None:
    script = made.parent / "init.sh"
    script.write_text((FOLDER / "init.sh").read_text().replace("/made", str(made)))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["sh", str(script)], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tree(made: Path) -> dict[str, bytes]:
    return {str(one.relative_to(made)): one.read_bytes() for one in made.rglob("*") if one.is_file()}


def test_init_makes_everything_once_and_keeps_what_was_changed_since(made: Path) -> None:
    """It was killed once, when there were credentials and no federation yet; they are made anew."""
    (made / "keys/credentials").mkdir()
    (made / "keys/credentials/operator.json").write_text("{}")
    run_init(made)
    before = tree(made)
    first = Federation.read(made / "coordinator/federation").first
    credentials = {"split": "split-server", "fed": "fed-server", "sites": "clients", "operator": "operator"}
    for name, volume in credentials.items():
        credential = Credential.read(made / volume / f"{name}.json")
        assert (credential.coordinator, credential.tls_ca) == (
            "https://coordinator:8000",
            before["keys/pki/ca.pem"].decode(),
        )
        assert first[name]["hash"] == digest(credential.secret)
    hosts = Caller("sites", first["sites"]["role"], frozenset(first["sites"]["acts_as"]), frozenset())
    for one in SERVICES["clients"]["environment"]["MICROSFL_IDS"].split(","):
        hosts.must_be(one)
    identities = json.loads(before["store/s3.json"])["identities"]
    assert [(one["name"], one["actions"][0]) for one in identities] == [
        ("body", "Read:microsfl-body"), ("client", "Read:microsfl-client"),
    ]  # fmt: skip
    for role, area in (("split-server", "body"), ("fed-server", "client")):
        [key] = next(one["credentials"] for one in identities if one["name"] == area)
        assert f"AWS_SECRET_ACCESS_KEY={key['secretKey']}\n" in before[f"{role}/store.env"].decode()
    assert (
        before["coordinator/pgpass"].decode() == f"records:5432:microsfl:microsfl:{before['records/password'].decode()}"
    )
    for role, name in (("coordinator", "coordinator"), ("split-server", "split"), ("fed-server", "fed-server")):
        ssl.create_default_context().load_cert_chain(made / role / f"{name}.pem", made / role / f"{name}.key")
    for one in made.rglob("*"):
        if one.is_file() and one.name != "s3.json" and one.suffix != ".pem":
            assert stat.S_IMODE(one.stat().st_mode) & 0o077 == 0, one
    owners = {one: (made / one).stat().st_uid for one in ("keys", "coordinator", "split-server", "records", "runs")}
    assert owners == {"keys": 0, "coordinator": 10001, "split-server": 10001, "records": 999, "runs": 10001}
    rotated = made / "fed-server/fed.json"
    rotated.write_text(rotated.read_text().replace('"id": "fed"', '"id": "changed"'))
    run_init(made)
    after = tree(made)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]} - {"fed-server/fed.json"}
    assert {Path(name).suffix for name in changed} == {".pem", ".key"}  # certificates are made anew
    assert "keys/pki/ca.pem" not in changed
    assert Credential.read(rotated).id == "changed"
