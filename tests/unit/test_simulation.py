"""Simulated runs by themselves: that they equal the services is shown in tests/integration/test_simulation.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from microsfl.errors import InvalidSetting, NotFinite, UnknownLayer
from microsfl.launch.preflight import resolve
from microsfl.launch.rehearsal import rehearse
from microsfl.launch.resuming import find
from microsfl.launch.spec_file import read_spec
from microsfl.services.api import MetricsRow, RoundRow
from microsfl.simulate import simulate
from microsfl.simulate.federation import Federation
from microsfl.simulate.simulation import Simulation
from microsfl.simulate.training import train
from microsfl.spec import TRAITS, RunSpec
from microsfl.store.objects import ObjectStore
from microsfl.zoo.datasets import load_data


def spec_of(name: str, **tables: dict[str, Any]) -> RunSpec:
    values: dict[str, Any] = {
        "run": {"rounds": 2},
        "data": {"clients": 3, "batch_size": 16, "public": 0.8},  # the fewer samples, the sooner it is over
        "strategy": {"name": name},
    }
    for table, settings in tables.items():
        values[table] = {**values.get(table, {}), **settings}
    return RunSpec.parse(values)


def kept(store: ObjectStore) -> list[str]:
    """What a store has of rounds and versions, without commits and seals."""
    return sorted(key for key in store.list("runs/demo") if key.endswith(".safetensors"))


@pytest.mark.parametrize("strategy", TRAITS)
def test_every_strategy_runs_and_keeps_no_more_after_more_rounds(strategy: str) -> None:
    spec = resolve(spec_of(strategy, run={"rounds": 3}))
    data = load_data("digits", None)
    federation = Federation(spec, rehearse(spec, data))
    found: list[tuple[int, int]] = []
    simulation = Simulation(
        spec,
        federation,
        lambda *_: found.append((len(kept(federation.body_store)), len(kept(federation.client_store)))),
    )
    simulation.run()
    federation.close()
    rows = simulation.metrics()
    assert [row["round"] for row in simulation.rounds()] == [0, 1, 2]
    assert [(row["round"], row["client"]) for row in rows] == [
        (round_, client) for round_ in range(3) for client in federation.trainers
    ]
    assert all(row["test_samples"] for row in rows)
    assert found[1] == found[2]
    traits = TRAITS[strategy]
    assert found[-1][0] <= 2 * traits.split  # weights and optimizer of the newest version
    assert found[-1][1] <= (1 + len(federation.trainers)) * traits.federated  # weights, and each client's newest update


def test_rows_have_the_columns_of_the_coordinator_s_api() -> None:
    seen: list[int] = []
    done = simulate(spec_of("cse-fsl", run={"participants": 2}), on_round=lambda row, _: seen.append(row["round"]))
    assert seen == [0, 1]
    assert {frozenset(row) for row in done.rounds} == {frozenset(RoundRow.model_fields)}
    assert {frozenset(row) for row in done.metrics} == {frozenset(MetricsRow.model_fields)}
    for round_ in range(2):
        rows = [row for row in done.metrics if row["round"] == round_]
        assert sorted(row["samples"] is None for row in rows) == [False, False, True]  # two train, all evaluate
        assert all(row["test_accuracy"] is not None for row in rows)
        assert done.rounds[round_]["samples"] == sum(row["samples"] or 0 for row in rows)
    assert all(row["bytes_saved"] > 0 for row in done.metrics if row["samples"])
    assert done.rounds[-1]["batches"] == sum(one.batches for one in done.commits[-1].contributions)


def test_clients_take_their_units_in_turn_so_that_a_commit_every_k_batches_is_deterministic() -> None:
    spec = spec_of("filesync", strategy={"sync": 6})
    one, two = simulate(spec), simulate(spec)
    assert one.model == two.model
    first = one.commits[0].contributions
    assert [(unit.client, unit.unit) for unit in first] == [(f"client-0{c}", u) for c in range(3) for u in range(2)]


def test_divergence_is_reported_as_such() -> None:
    with pytest.raises(NotFinite, match="diverges"):
        simulate(spec_of("fedavg", strategy={"client_optimizer": {"lr": 1e30}}))


def test_the_threads_of_the_caller_are_as_before() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    simulate(spec_of("local", run={"rounds": 1}), on_round=lambda *_: seen.append(torch.get_num_threads()))
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_the_folder_of_a_simulated_run_is_complete_and_cannot_be_resumed(tmp_path: Path) -> None:
    for name, parts in (("sl", {"front", "body", "tail"}), ("fedavg", {"tail"}), ("local", set[str]())):
        summary, metrics, folder = train(spec_of(name), tmp_path / name)
        assert {path.name for path in folder.iterdir()} - {"logs"} == {
            "run.toml", "summary.json", "metrics.csv", "profile.csv", "model", "plots", "simulated.txt",
        }  # fmt: skip
        assert json.loads((folder / "summary.json").read_text()) == summary
        assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + len(metrics)
        assert {path.stem for path in (folder / "model").iterdir()} == set(summary["weights_sha256"]) == parts
        assert read_spec(folder / "run.toml").model_dump(mode="json") == summary["spec"]
        assert summary["simulated"]
        with pytest.raises(InvalidSetting, match="was simulated"):
            find(str(folder), None, None, None)


def test_a_refused_specification_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UnknownLayer):
        train(spec_of("filesync", model={"cut": ["no", "layer"]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_own_loops_cannot_be_simulated_and_nobody_is_late() -> None:
    with pytest.raises(InvalidSetting, match=r"run\.managed"):
        simulate(spec_of("filesync", run={"managed": False}))
    patient = simulate(spec_of("fedavg", run={"deadline_s": 1e-9, "quorum": 0.5}))
    assert patient.model == simulate(spec_of("fedavg")).model
    assert not any(row["absent"] for row in patient.rounds)
