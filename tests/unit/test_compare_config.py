"""`[compare]`: what it may say, the cells that it comes to, and that their data and initial weights are the same."""

from __future__ import annotations

import hashlib
from itertools import groupby
from typing import Any

import pytest

from microsfl.compare.config import parse_comparison
from microsfl.compare.grid import Cell, cells
from microsfl.core.partition import Share
from microsfl.errors import InvalidSetting, MicrosflError, UnknownSetting
from microsfl.launch.preflight import resolve
from microsfl.spec import TRAITS, RunSpec
from microsfl.zoo.datasets import labels, load_data
from microsfl.zoo.deal import deal
from microsfl.zoo.parts import build_parts

Values = dict[str, Any]


def grid(compare: Values, **base: Values) -> list[Cell]:
    return cells(parse_comparison({**base, "compare": compare}))


def method(**tables: Any) -> Values:
    return {"methods": ["mine"], "method": {"mine": tables}}


def test_nothing_said_compares_every_strategy() -> None:
    found = grid({})
    assert {cell.spec.strategy.name for cell in found} == set(TRAITS)
    assert {cell.seed for cell in found} == {0, 1, 2}
    assert {cell.group for cell in found} == {("dirichlet-label-0.5", 5, "all")}


def test_cells_are_the_product_of_all_that_is_named() -> None:
    found = grid(
        {
            "methods": ["sl", "fedavg"],
            "partitions": ["iid", {"partition": "dirichlet-label", "alpha": 5}, {"partition": "shards"}],
            "clients": [4, 6],
            "participants": ["all", 3],
            "seeds": [7, 1],
        },
        data={"alpha": 0.1, "shards_per_client": 3},
    )
    assert len({cell.id for cell in found}) == len(found) == 2 * 3 * 2 * 2 * 2
    assert {cell.partition for cell in found} == {"iid", "dirichlet-label-5", "shards-3"}
    for cell in found:
        assert cell.spec.run.name == cell.id
        assert (cell.spec.run.seed, cell.spec.data.clients, cell.spec.run.participants) == (
            cell.seed, cell.clients, cell.participants,
        )  # fmt: skip
        assert cell.spec.data.alpha == (5 if cell.partition == "dirichlet-label-5" else 0.1)
    # All of one seed come before any of the next.
    assert [seed for seed, _ in groupby(cell.seed for cell in found)] == [7, 1]


def test_a_method_s_tables_go_before_the_base_and_a_strategy_keeps_its_name() -> None:
    table = {"label": "as published", "run": {"rounds": 9}, "strategy": {"name": "filesync", "reduce": "sum"}}
    tuned = {"strategy": {"client_optimizer": {"name": "Adam", "lr": 0.5}}}
    base = {"strategy": {"client_optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9}, "local_epochs": 2}}
    compare = {"methods": ["old", "sl", "fedavg"], "method": {"old": table, "sl": tuned}, "seeds": [0]}
    old, sl, fedavg = grid(compare, run={"rounds": 4}, **base)
    assert (old.label, old.method, old.spec.strategy.name, old.spec.strategy.reduce) == (
        "as published", "old", "filesync", "sum",
    )  # fmt: skip
    assert (old.spec.run.rounds, sl.spec.run.rounds) == (9, 4)
    assert sl.spec.strategy.name == "sl"
    assert sl.spec.strategy.client_optimizer.options == {"lr": 0.5}
    assert fedavg.spec.strategy.client_optimizer.options == {"lr": 0.1, "momentum": 0.9}
    assert {cell.spec.strategy.local_epochs for cell in (old, sl, fedavg)} == {2}


def test_what_means_nothing_for_a_method_is_dropped_from_the_base_and_named() -> None:
    base = {
        "model": {"cut": ["fc1", "relu2"]},
        "strategy": {"sync": 10, "send_every": 3, "proximal_mu": 0.1, "body_optimizer": {"name": "SGD", "lr": 0.3}},
    }
    found = {cell.method: cell for cell in grid({"seeds": [0]}, **base)}
    cut = {"model.cut", "strategy.sync", "strategy.send_every", "strategy.body_optimizer"}
    assert {name: set(cell.dropped) for name, cell in found.items()} == {
        "filesync": {"strategy.send_every"},
        "cse-fsl": set(),
        "sflv1": {"strategy.sync", "strategy.send_every"},
        "sflv2": {"strategy.sync", "strategy.send_every"},
        "sl": {"strategy.sync", "strategy.send_every"},
        "fedavg": cut,
        "local": {*cut, "strategy.proximal_mu"},
        "centralized": {*cut, "strategy.proximal_mu"},
    }
    assert found["filesync"].spec.strategy.sync == 10
    assert found["sl"].spec.strategy.sync == "round"
    assert found["cse-fsl"].spec.strategy.send_every == 3
    assert found["sl"].spec.strategy.proximal_mu == 0.1
    assert found["fedavg"].spec.strategy.body_optimizer == RunSpec().strategy.body_optimizer
    assert "does not cut" in found["fedavg"].dropped["model.cut"]


def test_participants_mean_nothing_to_a_pooled_method_which_stays_in_its_group() -> None:
    pooled, averaged = grid({"methods": ["centralized", "fedavg"], "participants": [3], "seeds": [0]})
    assert pooled.spec.run.participants == "all"
    assert pooled.group == averaged.group == ("dirichlet-label-0.5", 5, "3")
    assert "run.participants" in pooled.dropped


WRONG: dict[str, tuple[Values, type[MicrosflError], tuple[str, ...]]] = {
    "key": ({"compare": {"sedes": [1]}}, UnknownSetting, ("'compare.sedes'", "'compare.seeds'", "compare --help")),
    "method": (
        {"compare": {"methods": ["fedvag"]}}, InvalidSetting, ("compare: methods", "'fedvag'", "Did you mean 'fedavg'")
    ),
    "twice": ({"compare": {"methods": ["sl", "sl"]}}, InvalidSetting, ("compare.methods", "sl is there twice")),
    "none": ({"compare": {"seeds": []}}, InvalidSetting, ("compare.seeds", "empty")),
    "seed": ({"compare": {"seeds": [-1]}}, InvalidSetting, ("compare.seeds.0", "greater than or equal to 0")),
    "clients": ({"compare": {"clients": [0]}}, InvalidSetting, ("compare.clients.0", "greater than or equal to 1")),
    "participants": ({"compare": {"participants": ["some"]}}, InvalidSetting, ("compare.participants.0", "'all'")),
    "more participants": (
        {"compare": {"participants": [9], "methods": ["fedavg"]}}, InvalidSetting,
        ("Method 'fedavg'", "run.participants = 9", "data.clients = 5"),
    ),
    "partition": (
        {"compare": {"partitions": ["idd"]}}, InvalidSetting, ("compare.partitions.0", "'idd'", "Did you mean 'iid'")
    ),
    "partition's key": (
        {"compare": {"partitions": [{"partition": "iid", "alfa": 1}]}}, UnknownSetting, ("compare.partitions.0.alfa",)
    ),
    "partition's setting": (
        {"compare": {"partitions": [{"partition": "iid", "alpha": 1}]}}, InvalidSetting,
        ("alpha means nothing", "'iid'"),
    ),
    "equal partitions": (
        {"compare": {"partitions": ["dirichlet-size", {"partition": "dirichlet-size", "alpha": 0.5}]}}, InvalidSetting,
        ("compare.partitions", "dirichlet-size-0.5"),
    ),
    "method's model": (
        {"compare": method(model={"name": "cnn"})}, InvalidSetting, ("model.name", "cut, front_weights")
    ),
    "method's data": ({"compare": method(data={"alpha": 1})}, InvalidSetting, ("data.alpha", "the same data")),
    "method's unknown table": (
        {"compare": method(stategy={})}, UnknownSetting, ("'compare.method.mine.stategy'",)
    ),
    "method's unknown setting": (
        {"compare": method(strategy={"snyc": 1})}, UnknownSetting, ("Method 'mine'", "strategy.snyc", "strategy.sync")
    ),
    "method's senseless setting": (
        {"compare": {"methods": ["sl"], "method": {"sl": {"strategy": {"sync": 5}}}}}, InvalidSetting,
        ("Method 'sl'", "strategy.sync means nothing"),
    ),
    "method's strategy": (
        {"compare": method(strategy={"name": "fedvag"})}, InvalidSetting, ("Method 'mine'", "'fedvag'", "'fedavg'")
    ),
    "method's name": (
        {"compare": {"methods": ["a b"], "method": {"a b": {}}}}, InvalidSetting, ("'a b'", "cannot name a folder")
    ),
    "equal labels": (
        {"compare": {"methods": ["sl", "mine"], "method": {"mine": {"label": "sl"}}}}, InvalidSetting, ("label 'sl'",)
    ),
    "base": ({"data": {"clinets": 3}}, UnknownSetting, ("data.clinets", "data.clients")),
    "store": ({"store": {"body": "file:///x"}}, InvalidSetting, ("[store]", "of its own")),
    "unmanaged": ({"run": {"managed": False}}, InvalidSetting, ("run.managed", "cannot be compared")),
    "no table": ({"run": 3}, InvalidSetting, ("run must be a table",)),
    "compare is no table": ({"compare": 3}, InvalidSetting, ("compare",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_by_name(case: str) -> None:
    values, kind, words = WRONG[case]
    with pytest.raises(kind) as error:
        cells(parse_comparison(values))
    assert [word for word in words if word not in str(error.value)] == []


def test_cells_of_one_seed_and_partition_have_the_same_data_and_the_same_initial_weights() -> None:
    compare = {"partitions": ["iid", "dirichlet-label"], "clients": [3, 5], "seeds": [0, 1]}
    data = load_data("digits", None)
    train, test = labels(data.train), labels(data.test)
    weights: dict[int, set[str]] = {}
    shares: dict[tuple[Any, ...], set[bytes]] = {}
    for cell in grid(compare):
        spec = resolve(cell.spec)
        weights.setdefault(cell.seed, set()).add(fingerprint(spec))
        if spec.strategy.traits.pooled:
            assert [len(share.train) for share in deal(spec, train, test).shares] == [len(train)]
        else:
            found = deal(spec, train, test).shares
            shares.setdefault((cell.seed, *cell.group), set()).add(b"".join(as_bytes(one) for one in found))
    assert {seed: len(found) for seed, found in weights.items()} == {0: 1, 1: 1}
    assert weights[0] != weights[1]
    assert {len(found) for found in shares.values()} == {1}
    assert len({one for found in shares.values() for one in found}) == len(shares) == 8


@pytest.mark.parametrize(
    "own",
    [
        {"model": {"front_weights": "front-{seed}.safetensors"}},
        {"servers": {"split": 8}},
        {"run": {"deadline_s": 60, "quorum": 0.5}},
        {"data": {"batch_size": 8}},
    ],
)
def test_methods_that_differ_in_anything_are_not_the_same_work(own: Values) -> None:
    compare = {"methods": ["one", "other"], "seeds": [0], "method": {"one": {}, "other": own}}
    one, other = grid(compare)
    assert one.work != other.work
    assert one.work == grid({**compare, "methods": ["one"]})[0].work


def fingerprint(spec: RunSpec) -> str:
    """A hash of the whole model's initial weights."""
    state = build_parts(spec, []).joined().state_dict()
    content = b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(state.items()))
    return hashlib.sha256(content).hexdigest()


def as_bytes(share: Share) -> bytes:
    return share.train.tobytes() + b"|" + share.test.tobytes() + b"||"
