"""What is known of a Ray without one: addresses, needs, bounds, what goes to a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from microsfl.cli import cli
from microsfl.config import SplitServerSettings
from microsfl.errors import InvalidSetting
from microsfl.launch.ray.certificates import Certificates
from microsfl.launch.ray.cluster import Cluster, Needs, address_in
from microsfl.launch.ray.processes import RayProcesses
from microsfl.spec import RunSpec


@pytest.mark.parametrize(
    ("on", "address"),
    [
        ("ray", None),
        ("ray:auto", "auto"),
        ("ray:10.0.0.7:6379", "10.0.0.7:6379"),
        ("ray:head.example.org:6379", "head.example.org:6379"),
        ("ray:[fd00::7]:6379", "[fd00::7]:6379"),
        ("ray://head:10001", "ray://head:10001"),
    ],
)
def test_an_address_is_taken_as_ray_has_it(on: str, address: str | None) -> None:
    assert address_in(on) == address


@pytest.mark.parametrize("on", ["", "slurm", "ray:", "ray:head", "ray://", "ray://head", "ray:head:66000", "rays:auto"])
def test_what_is_no_address_is_refused(on: str) -> None:
    with pytest.raises(InvalidSetting, match="write ray, ray://host:10001"):
        address_in(on)


@pytest.mark.parametrize(
    ("table", "bounds"),
    [
        ({}, (2, 2)),
        ({"min": 1}, (1, 2)),
        ({"max": 6}, (2, 6)),
        ({"max": 1}, (1, 1)),
        ({"min": 4}, (4, 4)),
        ({"min": 3, "max": 5}, (3, 5)),
    ],
)
def test_bounds_hold_what_is_given(table: dict[str, int], bounds: tuple[int, int]) -> None:
    assert RunSpec.parse({"ray": table}).ray.bounds(2) == bounds


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="min = 3 is above max = 2"):
        RunSpec.parse({"ray": {"min": 3, "max": 2}})


def test_where_a_run_is_placed_decides_nothing() -> None:
    assert RunSpec.parse({"ray": {"max": 7, "cpus": 2}}).decisive == RunSpec().decisive


def test_a_cluster_is_checked_as_a_whole_and_node_by_node() -> None:
    cluster = Cluster(None)
    cluster.nodes = [node("10.0.0.1", CPU=4.0), node("10.0.0.2", CPU=4.0, GPU=1.0, tpu=2.0)]
    cluster.check([Needs(2.0)] * 4)
    cluster.check([Needs(1.0, 1.0, {"tpu": 2.0})])
    with pytest.raises(InvalidSetting, match=r"needs is 10 CPU \(there: 8\)"):
        cluster.check([Needs(2.0)] * 5)
    with pytest.raises(InvalidSetting, match=r"No node of the Ray cluster has 6 CPU at once"):
        cluster.check([Needs(6.0)])


def test_only_one_node_on_loopback_is_here() -> None:
    cluster = Cluster(None)
    for nodes, is_here in (
        ([node("127.0.0.1")], True),
        ([node("10.0.0.1")], False),
        ([node("127.0.0.1"), node("127.0.0.1")], False),
    ):
        cluster.nodes = nodes
        assert cluster.is_here is is_here


def test_a_parcel_has_the_node_s_certificate_and_its_files_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MICROSFL_CLIENT_AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"the secret of {name}")
    credential = tmp_path / "credential.json"
    credential.write_text("the credential")
    settings = SplitServerSettings(store_url="s3://bucket/body", credential=str(credential), port=0)
    processes = RayProcesses(5, None, Cluster(None), {})
    processes.certificates = Certificates(tmp_path / "pki")
    parcel = processes.parcel("split-server", "split-server-0", settings, "body", "10.0.0.2")
    assert parcel.settings == {"store_url": "s3://bucket/body", "port": 0, "host": "10.0.0.2"}
    assert parcel.files.keys() == {"credential", "tls_cert", "tls_key"}
    assert parcel.files["credential"] == b"the credential"
    assert "CERTIFICATE" in parcel.files["tls_cert"].decode()
    assert "the secret of AWS_SECRET_ACCESS_KEY" in parcel.secrets.values()
    shown = repr(parcel)
    assert "the secret" not in shown
    assert "the credential" not in shown
    assert "KEY" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--on", "slurm"], "--on: 'slurm' is nowhere"),
        (["--on", "ray:127.0.0.1:1"], "nothing answers at 127.0.0.1:1"),
        (["--on", "ray", "--simulate"], "--simulate starts none"),
        (["--on", "ray", "--coordinator", "http://127.0.0.1:1"], "--coordinator starts none"),
    ],
)
def test_what_cannot_be_is_told(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["run", "--output", str(tmp_path / "run"), *arguments], standalone_mode=False)
    assert said in str(done.exception)
    assert not (tmp_path / "run").exists()


def node(address: str, **resources: float) -> dict[str, Any]:
    return {"NodeManagerAddress": address, "Resources": resources, "Alive": True}
