"""What `microsfl run --on ray` starts: the processes of a run, held by actors of a Ray that the test starts."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import microsfl
from microsfl.errors import InvalidSetting
from microsfl.launch.kept import Kept
from microsfl.launch.ray.cluster import Cluster
from tests.integration.launched import Finished, all_up, command, is_alive, pids, processes, run, until
from tests.integration.ray_nodes import ENVIRONMENT

# Without importing it: that is to be done by who starts it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra microsfl[ray] is not installed"),
]

CPUS = 12
START_S = 300.0  # Ray's processes and ours, on a machine with much else to do
# 200 clients with a batch of at most eight samples each, in two processes.
MANY: dict[str, dict[str, Any]] = {
    "run": {"name": "many", "rounds": 5},
    "data": {"clients": 200, "partition": "iid", "batch_size": 8},
    "servers": {"split": 2, "clients_per_process": 100, "spread": "random"},
    "ray": {"min": 1, "max": 6},
}


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """A node of its own, to which this process is connected: federations are placed on it."""
    cluster = Cluster(None)
    cluster.open(CPUS)
    assert cluster.is_here
    import ray

    yield ray
    cluster.close()


def spec_of(**tables: dict[str, Any]) -> microsfl.RunSpec:
    return microsfl.RunSpec.parse({name: {**MANY.get(name, {}), **tables.get(name, {})} for name in {**MANY, **tables}})


def hashes(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())["weights_sha256"]


def test_law_2_and_3_replicas_come_go_and_are_killed_and_the_weights_are_those_of_a_local_run(
    ray_here: Any, tmp_path: Path
) -> None:
    from microsfl.launch.results import results_of
    from microsfl.launch.summary import summarize

    spec = spec_of()
    with microsfl.RayFederation(spec, folder=tmp_path / "ray") as federation:
        federation.stop_scaling()  # the test says how many
        in_the_middle(federation, 1)
        with frozen(federation):
            federation.scale(6)
            until(lambda: len(up(federation)) == 6, "six split servers are up", START_S)
        in_the_middle(federation, 2)
        by_name = {one.name: one for one in up(federation)}
        ray_here.kill(by_name["split-server-1"].actor, no_restart=False)  # type: ignore[attr-defined]
        os.kill(by_name["split-server-2"].actor_pid, signal.SIGKILL)  # type: ignore[attr-defined]
        os.kill(by_name["split-server-3"].process.pid, signal.SIGKILL)
        with frozen(federation):
            killed = [by_name[f"split-server-{number}"] for number in (1, 2, 3)]
            until(
                lambda: all(one.restarts == 1 and one.state == "up" for one in killed),
                "Ray started them again",
                START_S,
            )
        in_the_middle(federation, 3)
        with frozen(federation):
            federation.scale(1)
            until(lambda: len(up(federation)) == 1, "one split server is left")
        *_, last = federation.follow()
        assert last["state"] == "finished"
        results = results_of(federation, federation.control.rounds(), federation.control.metrics())
        summary = summarize(results.spec, results.rounds, results.metrics, results.settled, results.model)
    assert {one["name"] for one in processes(tmp_path / "ray")} >= {f"split-server-{number}" for number in range(6)}
    assert {one["state"] for one in processes(tmp_path / "ray")} == {"ended"}
    for number in range(6):
        assert "ready" in (tmp_path / f"ray/logs/split-server-{number}.log").read_text()

    local = run(tmp_path / "local", "--json", *assignments(MANY))
    assert local.process.returncode == 0, local.process.stderr
    assert summary["weights_sha256"] == local.summary["weights_sha256"]
    assert summary["contributions"] == local.summary["contributions"]


@pytest.mark.usefixtures("ray_here")
def test_it_says_what_the_cluster_lacks(tmp_path: Path) -> None:
    """At once, and nothing is left."""
    for ray_table, said in (
        ({"cpus": 100}, f"the least that this run needs is .* CPU .there: {CPUS}."),
        ({"resources": {"tpu": 1.0}}, "2 tpu .there: 0."),
        ({"gpus": 8}, "GPU .there: 0."),
    ):
        spec = spec_of(ray={"min": 2, "max": 2, **ray_table})
        with pytest.raises(InvalidSetting, match=said), microsfl.RayFederation(spec, folder=tmp_path / "run"):
            pass
        assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("ray_here")
def test_a_node_with_another_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microsfl.launch.ray.processes.__version__", "0.0.9")
    said = f"microsfl {microsfl.__version__} is installed on the node 127.0.0.1, and 0.0.9 where the run was started"
    with (
        pytest.raises(InvalidSetting, match=re.escape(said)),
        microsfl.RayFederation(spec_of(), folder=tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("ray_here")
def test_a_split_server_without_a_place_is_told_of_and_can_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microsfl.launch.ray.held.PLACED_S", 1.0)
    spec = spec_of(run={"rounds": 100_000}, data={"clients": 2}, servers={"split": 1}, ray={"max": 2, "cpus": CPUS - 2})
    with microsfl.RayFederation(spec, folder=tmp_path / "run") as federation:
        federation.stop_scaling()
        federation.scale(2)
        wanted = f"split-server-1 waits for a place: it wants {CPUS - 2} CPU"
        until(lambda: any(one.startswith(wanted) for one in federation.supervisor.reports), "it is told")
        federation.scale(1)
        until(lambda: federation.children[-1].state == "ended", "it is not waited for any more")
        assert federation.control.watch(0, 0.0)["state"] in ("waiting", "running")


@pytest.mark.usefixtures("ray_here")
def test_there_are_more_split_servers_while_units_wait(tmp_path: Path) -> None:
    """Each unit takes a simulated device 50 ms, and 16 clients wait for one replica: the coordinator wants more."""
    spec = spec_of(
        run={"name": "waiting", "rounds": 100},
        data={"dataset": "benchmarks.data:vectors", "clients": 16},
        model={"name": "benchmarks.models:waiting"},
        servers={"split": 1, "clients_per_process": 16},
        ray={"min": 1, "max": 3},
    )
    with microsfl.RayFederation(spec, folder=tmp_path / "run") as federation:
        assert len(up(federation)) == 1
        until(lambda: len(up(federation)) == 3, "three split servers are up", START_S)
        assert federation.control.watch(0, 0.0)["state"] == "running"
    assert "split-server-2 is added" in federation.supervisor.reports


def test_law_5_everything_is_killed_and_resumed(tmp_path: Path) -> None:
    """The command starts a Ray of its own; killed, it takes everything with it."""
    folder = tmp_path / "run"
    begun = subprocess.Popen(
        [sys.executable, "-m", "microsfl", "run", "--on", "ray", "--output", str(folder), "--set", "run.rounds=60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert begun.stderr is not None
    assert begun.stdout is not None
    try:
        until(lambda: begun.poll() is not None or all_up(folder), "every process is up", START_S)
        assert "dashboard at" in begun.stderr.readline()
        os.kill(only(folder, "split-server-0")["actor_pid"], signal.SIGKILL)
        until(lambda: only(folder, "split-server-0")["restarts"] == 1, "Ray started it again", START_S)
        there = pids(folder)
        assert all(is_alive(pid) for pid in there)
    finally:
        begun.kill()
        begun.wait()
        begun.stderr.close()
    assert begun.stdout.read() == ""  # Ray has told of the actor elsewhere
    begun.stdout.close()
    until(lambda: not any(is_alive(pid) for pid in there), "every process has ended")
    resumed = subprocess.run(
        [sys.executable, "-m", "microsfl", "resume", str(folder), "--on", "ray", "--json"],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    local = run(tmp_path / "local", "--json", "--set", "run.rounds=60")
    assert json.loads(resumed.stdout)["weights_sha256"] == local.summary["weights_sha256"]


def test_on_two_nodes_all_that_is_sent_is_encrypted(finished: Finished, tmp_path: Path) -> None:
    """A cluster that others started, and a store that both nodes see; `finished` is the same run without Ray."""
    environment = {**os.environ, **ENVIRONMENT}
    cluster = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.ray_nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert cluster.stdout is not None
    try:
        address = cluster.stdout.readline().strip()

        def on_both(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command(tmp_path / "run", "--on", f"ray:{address}", "--set", "run.rounds=3", "--json"), *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=START_S,
                check=False,
            )

        refused = on_both()
        assert refused.returncode == 2
        assert "store.body = 'auto' is a folder of this machine, and the Ray cluster has 2 nodes" in refused.stderr
        stores = [f"store.{area}={(tmp_path / area).as_uri()}" for area in ("body", "client")]
        done = on_both(*(part for store in stores for part in ("--set", store)))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["weights_sha256"] == finished.summary["weights_sha256"]
        addresses = [one["address"] for one in processes(tmp_path / "run") if one["role"] != "client"]
        assert len(addresses) == 4
        assert all(one.startswith("https://") for one in addresses)
    finally:
        cluster.communicate(timeout=60)


def in_the_middle(federation: microsfl.RayFederation, round_: int) -> None:
    """Return when some clients are done with a round, or with a later one, and others are not."""
    run = federation.control.watch(0, 0.0)
    while not (run["round"] >= round_ and {"done"} < set(run["progress"].values())):
        assert run["state"] in ("waiting", "running"), run["reason"]
        run = federation.control.watch(run["revision"], 10.0)


@contextmanager
def frozen(federation: microsfl.RayFederation) -> Iterator[None]:
    """No client does anything, so that the run stays where it is."""
    there = [one.process.pid for one in federation.children if one.role == "client"]
    for pid in there:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in there:
            os.kill(pid, signal.SIGCONT)


def only(folder: Path, name: str) -> dict[str, Any]:
    return next(one for one in processes(folder) if one["name"] == name)


def up(federation: microsfl.RayFederation) -> list[Kept]:
    return [one for one in federation.children if one.role == "split-server" and one.state == "up"]


def assignments(tables: dict[str, dict[str, Any]]) -> list[str]:
    given = [f"{table}.{name}={value}" for table, values in tables.items() for name, value in values.items()]
    return [part for one in given for part in ("--set", one)]
