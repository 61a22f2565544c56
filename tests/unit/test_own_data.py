"""`data.partition = "own"`: each client has data of its own and uses all of it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from microsfl.client.agent import Runs
from microsfl.config import ClientSettings
from microsfl.errors import InvalidSetting
from microsfl.launch.preflight import resolve
from microsfl.simulate.simulation import simulate
from microsfl.spec import RunSpec
from microsfl.zoo.datasets import load_data
from microsfl.zoo.deal import deal

SIZES = {"client-00": 40, "client-01": 60, "client-02": 50}


def samples(count: int, classes: int, width: int = 4) -> TensorDataset:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(count))
    return TensorDataset(x, torch.arange(count) % classes)


def of_each(client: str) -> tuple[TensorDataset, TensorDataset]:
    """The second client alone has the class 2."""
    classes = 3 if client == "client-01" else 2
    return samples(SIZES[client], classes), samples(10, classes)


@pytest.fixture(autouse=True)
def _site(monkeypatch: pytest.MonkeyPatch) -> None:
    site: Any = ModuleType("own_site")
    site.of_each = of_each
    site.same = lambda: (samples(40, 2), samples(10, 2))
    site.wide = lambda: (samples(40, 2, width=5), samples(10, 2, width=5))
    site.more = lambda: (samples(40, 7), samples(10, 7))
    site.either = lambda path=None, client="nobody": (samples(40, 2) if (path, client) == ("p", "a") else None, None)
    monkeypatch.setitem(sys.modules, "own_site", site)


def spec_of(**data: Any) -> RunSpec:
    chosen = {"dataset": "own_site:of_each", "partition": "own", "clients": 3, "batch_size": 10, **data}
    return RunSpec.parse({"data": chosen, "run": {"rounds": 2}})


def test_a_simulated_client_trains_on_all_that_its_function_returns() -> None:
    results = simulate(spec_of())
    assert results.spec.model.classes == 3
    assert results.spec.model.input_shape == (4,)
    assert results.class_counts.tolist() == [[20, 20, 0], [20, 20, 20], [25, 25, 0]]
    assert {row["client"]: row["samples"] for row in results.metrics} == SIZES
    assert {row["test_samples"] for row in results.metrics} == {10}


def runs_of(**settings: Any) -> Runs:
    nobody: Any = SimpleNamespace()
    return Runs(ClientSettings(ids=("client-01",), coordinator="http://127.0.0.1:1", **settings), nobody)


def test_a_client_process_trains_on_all_that_its_function_returns() -> None:
    runs = runs_of(allow_datasets=("own_site:of_each",))
    for number, (client, size) in enumerate(SIZES.items()):
        data = runs.local_data(resolve(spec_of()), client, number)
        assert len(data.share.train) == len(data.train) == size
        assert len(data.share.test) == 10


def test_a_site_s_own_function_goes_before_the_run_s() -> None:
    resolved = resolve(spec_of())
    assert len(runs_of(dataset="own_site:same").local_data(resolved, "client-01", 1).share.train) == 40


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("wide", r"'own_site:wide' of client client-01 has samples of shape \[5\], but the run's are \[4\]"),
        ("more", r"'own_site:more' of client client-01 has the label 6, but the run's model has 3 classes"),
    ],
)
def test_data_that_does_not_fit_the_run_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(InvalidSetting, match=complaint):
        runs_of(dataset=f"own_site:{name}").local_data(resolve(spec_of()), "client-01", 1)


def test_the_same_data_for_several_clients_of_one_machine_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"'own_site:same' is the same for each of the 3 clients"):
        resolve(spec_of(dataset="own_site:same"))
    assert resolve(spec_of(dataset="own_site:same", clients=1)).model.classes == 2


def test_where_shape_and_classes_are_given_no_data_is_looked_at() -> None:
    values = {"data": {"dataset": "not.here:load", "partition": "own"}, "model": {"input_shape": [4], "classes": 2}}
    assert resolve(RunSpec.parse(values)).unresolved == ()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"data": {"partition": "own", "public": 0.1}}, "data.public is set aside before"),
        ({"data": {"partition": "own"}, "strategy": {"name": "centralized"}}, "'centralized' pools the data"),
    ],
)
def test_what_means_nothing_with_own_data_is_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidSetting, match=complaint):
        RunSpec.parse(values)


def test_a_function_for_each_client_needs_own_data() -> None:
    with pytest.raises(InvalidSetting, match=r"set data\.partition = 'own'"):
        resolve(spec_of(partition="iid"))


def test_path_and_client_are_told_apart() -> None:
    with pytest.raises(InvalidSetting, match="the test set"):
        load_data("own_site:either", "p", "a")
    with pytest.raises(InvalidSetting, match="the train set"):
        load_data("own_site:either", "p", None)


def test_own_data_is_not_dealt() -> None:
    with pytest.raises(InvalidSetting, match="divides nothing"):
        deal(spec_of(), torch.zeros(3).long().numpy(), torch.zeros(3).long().numpy())
