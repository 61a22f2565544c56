"""The run specification: what it refuses and in which words, and what `auto` stands for."""

from __future__ import annotations

from typing import Any

import pytest

from microsfl.errors import InputError, InvalidId, InvalidSetting, UnknownSetting
from microsfl.schema import assign
from microsfl.spec import RunSpec, check_id

REFUSED: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"data": {"clinets": 3}}, UnknownSetting, r"'data\.clinets' .* 'data\.clients'"),
    ({"dta": {}}, UnknownSetting, "'dta' .* 'data'"),
    ({"run": {"rounds": 0}}, InvalidSetting, r"run\.rounds: .*1 \(got 0\)"),
    ({"run": {"rounds": "x"}}, InvalidSetting, r"run\.rounds: .*integer.*'x'"),
    ({"run": {"rounds": True}}, InvalidSetting, r"run\.rounds"),
    ({"run": {"name": "../x"}}, InvalidSetting, r"run\.name: .*'\.\./x'"),
    ({"data": {"dataset": "digit"}}, InvalidSetting, "'digit' is unknown. Did you mean 'digits'"),
    ({"data": {"partition": "iids"}}, InvalidSetting, "Did you mean 'iid'"),
    ({"data": {"alpha": 0}}, InvalidSetting, r"data\.alpha: .*greater than 0 \(got 0\)"),
    ({"data": {"alpha": float("nan")}}, InvalidSetting, r"data\.alpha"),
    ({"model": {"name": "mpl"}}, InvalidSetting, "Did you mean 'mlp'"),
    ({"model": {"cut": ["a", "b", "c"]}}, InvalidSetting, r"model\.cut: .*names 3 layers"),
    ({"model": {"cut": ["fc1"]}}, InvalidSetting, "U-shaped cut needs two"),
    ({"strategy": {"name": "filesinc"}}, InvalidSetting, "Did you mean 'filesync'"),
    ({"strategy": {"sync": "rund"}}, InvalidSetting, r"strategy\.sync: .*'round'.*or .*integer.*'rund'"),
    ({"strategy": {"sync": 0}}, InvalidSetting, r"strategy\.sync"),
    ({"strategy": {"unit": 4}}, InvalidSetting, "unit = 4 cannot be with front_update = 'batch'"),
    ({"strategy": {"body_optimizer": {"name": "adam", "lr": 0.1}}}, InvalidSetting, "Did you mean 'Adam'"),
    ({"strategy": {"body_optimizer": {"name": "SGD"}}}, InvalidSetting, r"body_optimizer\.lr: Field required"),
    ({"strategy": {"body_optimizer": {"lr": -1}}}, InvalidSetting, r"body_optimizer\.lr: .*greater than 0"),
    ({"strategy": {"trim": 0.2}}, InvalidSetting, r"trim means nothing without strategy\.average = 'trimmed-mean'"),
    (
        {"strategy": {"step_factor": 0.2}},
        InvalidSetting,
        "step_factor means nothing without .*'step'",
    ),
    ({"strategy": {"server_optimizer": {"lr": 0.1}}}, InvalidSetting, "server_optimizer: .*lr .* name = 'none'"),
    ({"strategy": {"server_optimizer": {"name": "FedAvgM", "tau": 0.1}}}, InvalidSetting, "tau .* name = 'FedAvgM'"),
    (
        {"data": {"clients": 7}, "strategy": {"average": "trimmed-mean"}},
        InvalidSetting,
        r"trim = 0\.1 of 7 clients cuts nobody off; use 0\.15 or more",
    ),
    (
        {"strategy": {"proximal_mu": 0.1, "front_update": "never", "tail_update": "round"}},
        InvalidSetting,
        r"proximal_mu = 0\.1 pulls nothing",
    ),
    (
        {"model": {"u_shaped": False}, "strategy": {"proximal_mu": 0.1, "front_update": "round"}},
        InvalidSetting,
        "proximal_mu",
    ),
    ({"servers": {"device": "gpu"}}, InvalidSetting, r"servers\.device: .*cuda.*'gpu'"),
    ({"data": 3}, InvalidSetting, "data: .*got 3"),
]


@pytest.mark.parametrize(("values", "kind", "words"), REFUSED, ids=[str(values) for values, _, _ in REFUSED])
def test_what_is_wrong_is_named_with_what_would_be_right(values: Any, kind: type[InputError], words: str) -> None:
    with pytest.raises(kind, match=words):
        RunSpec.parse(values)


def test_equal_specifications_are_equal_text_and_come_back() -> None:
    spec = RunSpec.parse({"strategy": {"body_optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9}}})
    again = RunSpec.parse(spec.model_dump(mode="json"))
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert again.strategy.body_optimizer.options == {"lr": 0.1, "momentum": 0.9}


def test_options_without_a_name_are_the_default_optimizer_s() -> None:
    strategy = RunSpec.parse(
        {"strategy": {"body_optimizer": {"lr": 0.5}, "client_optimizer": {"momentum": 0.9}}}
    ).strategy
    assert (strategy.body_optimizer.name, strategy.body_optimizer.options) == ("Adam", {"lr": 0.5})
    assert (strategy.client_optimizer.name, strategy.client_optimizer.options) == ("SGD", {"lr": 0.2, "momentum": 0.9})


def test_the_server_optimizer_s_rate_is_one_of_its_kind() -> None:
    for name, lr in (("FedAvgM", 1.0), ("FedAdam", 0.01), ("FedYogi", 0.01)):
        spec = RunSpec.parse({"strategy": {"server_optimizer": {"name": name}}})
        assert spec.strategy.server_optimizer.lr == lr
        assert RunSpec.parse(spec.model_dump(mode="json")) == spec
    given = RunSpec.parse({"strategy": {"server_optimizer": {"name": "FedAdam", "lr": 1.0}}})
    assert RunSpec.parse(given.model_dump(mode="json")).strategy.server_optimizer.lr == 1.0


@pytest.mark.parametrize(
    ("strategy", "unit", "staleness"),
    [
        ({}, 1, 0),
        ({"front_update": "never"}, 16, 0),
        ({"front_update": "round", "sync": 20}, 4, 20),
        ({"sync": 20}, 1, 20),
        ({"front_update": "never", "sync": 3}, 1, 20),
        ({"front_update": "never", "unit": 7, "max_staleness": 2}, 7, 2),
    ],
)
def test_auto_becomes_a_value(strategy: dict[str, Any], unit: int, staleness: int) -> None:
    spec = RunSpec.parse({"data": {"clients": 5}, "strategy": strategy})
    assert "model.classes" in spec.unresolved
    resolved = spec.resolved(input_shape=(1, 8, 8), classes=10)
    assert resolved.unresolved == ()
    assert (resolved.strategy.unit, resolved.strategy.max_staleness) == (unit, staleness)
    assert (resolved.model.input_shape, resolved.model.classes) == ((1, 8, 8), 10)
    assert resolved.resolved(input_shape=(9,), classes=9) == resolved


def test_what_is_decisive_leaves_the_deployment_out() -> None:
    here = RunSpec.parse({"servers": {"split": 7}, "store": {"body": "file:///x"}, "records": {"url": "sqlite://"}})
    assert here.decisive == RunSpec() != here


@pytest.mark.parametrize(
    ("assignment", "values"),
    [
        ("run.rounds=3", {"run": {"rounds": 3}}),
        ("data.alpha=0.5", {"data": {"alpha": 0.5}}),
        ("run.name=first", {"run": {"name": "first"}}),
        ('model.cut=["a", "b"]', {"model": {"cut": ["a", "b"]}}),
        ("model.u_shaped=false", {"model": {"u_shaped": False}}),
        ("strategy.body_optimizer.lr=1e-3", {"strategy": {"body_optimizer": {"lr": 1e-3}}}),
        ("data.path=/a=b", {"data": {"path": "/a=b"}}),
    ],
)
def test_assignments_are_read_as_toml_or_else_as_text(assignment: str, values: dict[str, Any]) -> None:
    found: dict[str, Any] = {}
    assign(found, assignment)
    assert found == values


@pytest.mark.parametrize("assignment", ["rounds", "=3", "run..rounds=3", ".=1"])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(InvalidSetting, match=r"run\.rounds=10"):
        assign({}, assignment)


@pytest.mark.parametrize("good", ["a", "A-1_b", "client-00", "x" * 64, "v1.2"])
def test_ids_that_can_be_keys_are_taken(good: str) -> None:
    assert check_id(good) == good


@pytest.mark.parametrize("bad", ["", ".", "..", "a..b", ".a", "-a", "a/b", "a\\b", "a b", "a\n", "a\0", "é", "x" * 65])
def test_ids_that_cannot_are_refused(bad: str) -> None:
    with pytest.raises(InvalidId):
        check_id(bad)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"strategy": {"name": "local"}, "run": {"participants": 2}}, "run.participants"),
        ({"run": {"managed": False}, "privacy": {"noise_std": 0.1}}, "your own loop"),
        ({"run": {"managed": False}, "model": {"front_weights": "front.safetensors"}}, "your own loop"),
        ({"strategy": {"name": "fedavg"}, "wire": {"activations": "int8"}}, "wire.activations means nothing here"),
        ({"strategy": {"name": "local"}, "wire": {"gradients": "bfloat16"}}, "wire.gradients means nothing here"),
        ({"strategy": {"name": "centralized"}, "wire": {"error_feedback": False}}, "wire.error_feedback means"),
        (
            {"strategy": {"front_update": "never"}, "model": {"u_shaped": False}, "wire": {"gradients": "int8"}},
            "no gradient crosses the cut",
        ),
        (
            {"strategy": {"name": "cse-fsl"}, "model": {"u_shaped": False}, "wire": {"gradients": "float16"}},
            "no gradient crosses the cut",
        ),
        ({"wire": {"error_feedback": False}}, "wire.gradients is not 'float32'"),
        ({"wire": {"activations": "int8", "error_feedback": False}}, "wire.gradients is not 'float32'"),
        (
            {"model": {"u_shaped": False}, "wire": {"gradients": "int8", "error_feedback": False}},
            "that a client of a U-shaped cut sends",
        ),
    ],
)
def test_what_nobody_would_look_at_is_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        RunSpec.parse(tables)


@pytest.mark.parametrize(
    "tables",
    [
        {"wire": {"gradients": "int8", "error_feedback": False}},
        {"strategy": {"front_update": "never"}, "wire": {"gradients": "int8"}},
        {"strategy": {"name": "cse-fsl"}, "wire": {"gradients": "int8"}},
        {"model": {"u_shaped": False}, "wire": {"gradients": "int8"}},
        {"strategy": {"front_update": "never"}, "model": {"u_shaped": False}, "wire": {"activations": "int8"}},
    ],
)
def test_formats_of_what_crosses_a_cut_are_taken(tables: dict[str, Any]) -> None:
    assert RunSpec.parse(tables).decisive.wire == RunSpec.parse(tables).wire


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidSetting, match=r"wire\.activations.*int8"):
        RunSpec.parse({"wire": {"activations": "int4"}})


def test_a_specification_can_be_told_apart_by_its_hash_also_with_resources_of_ray() -> None:
    one, same = (RunSpec.parse({"ray": {"resources": {"tpu": 1}}}) for _ in range(2))
    assert len({one, same, RunSpec()}) == 2
