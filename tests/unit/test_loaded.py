"""`microsfl.load_run`: a run folder as an object."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import microsfl
from microsfl.errors import InvalidSetting, StoreCorrupt
from microsfl.simulate.training import train
from microsfl.zoo.datasets import load_data


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def simulated(strategy: str) -> Path:
        tables = {"run": {"rounds": 2}, "data": {"clients": 2}, "strategy": {"name": strategy}}
        return train(microsfl.RunSpec.parse(tables), tmp_path_factory.mktemp("run") / strategy)[2]

    return simulated


@pytest.mark.parametrize("strategy", ["filesync", "fedavg", "cse-fsl"])
def test_the_model_predicts_as_the_run_measured(strategy: str, folder_of: Callable[[str], Path]) -> None:
    run = microsfl.load_run(folder_of(strategy))
    model = run.model()
    assert not model.training
    x, y = load_data("digits", None).test[:]
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    # The clients of the run test on all test samples together.
    assert accuracy == pytest.approx(run.summary["accuracy"], abs=1e-6)
    assert run.spec.strategy.name == strategy


def test_metrics_have_a_row_for_each_round_and_client(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = microsfl.load_run(str(folder_of("fedavg")))
    frame = run.metrics
    assert frame[["round", "client"]].values.tolist() == [[r, f"client-0{c}"] for r in range(2) for c in range(2)]
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pandas" else found(name, *rest)
    )
    rows = run.metrics
    assert [row["client"] for row in rows] == list(frame["client"])
    assert [row["test_accuracy"] for row in rows] == pytest.approx(list(frame["test_accuracy"]))
    assert {row["bytes_saved"] for row in rows} == {None}


def test_what_cannot_be_loaded_is_said(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"no summary\.json"):
        microsfl.load_run(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"run": "demo"}))
    with pytest.raises(InvalidSetting, match="cannot be read"):
        microsfl.load_run(tmp_path)
    with pytest.raises(InvalidSetting, match="stay with the clients"):
        microsfl.load_run(folder_of("local")).model()


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"{}")])
def test_a_damaged_model_is_not_used(damage: Callable[[Path], Any], folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("filesync")
    damage(folder / "model" / "body.safetensors")
    with pytest.raises(StoreCorrupt, match=r"body\.safetensors is missing or not what the run wrote"):
        microsfl.load_run(folder).model()
