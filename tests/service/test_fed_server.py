"""The fed server by strategy: what clients exchange, what version 0 is, and the rule that a specification gives."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from microsfl.config import FedServerSettings
from microsfl.errors import InvalidSetting
from microsfl.services.fed_server import FedServer
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore, open_store
from microsfl.wire.messages import Update
from microsfl.wire.tensors import decode, encode
from microsfl.zoo.parts import build_parts
from tests.world import ALLOWED, spec_of


def fed_server(store: ObjectStore, **settings: Any) -> FedServer:
    return FedServer(FedServerSettings(store_url="memory://", allow_models=ALLOWED, **settings), store)


def prepared(spec: RunSpec, **settings: Any) -> FedServer:
    server = fed_server(open_store("memory://"), **settings)
    server.prepare({"spec": json.loads(spec.to_json())})
    return server


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("filesync", {"front", "tail"}),
        ("sl", {"front", "tail"}),
        ("cse-fsl", {"front", "tail", "aux"}),
        ("fedavg", {"tail"}),
        ("centralized", {"tail"}),
    ],
)
def test_version_0_is_what_clients_of_the_strategy_hold(strategy: str, parts: set[str]) -> None:
    spec = spec_of(strategy={"name": strategy}, model={"name": "tests.toys:batchnorm"})
    server = prepared(spec)
    weights = decode(server.weights("toy", None)[1]).tensors
    assert {name.split(".")[0] for name in weights} == parts
    stepped = server.runs["toy"].rule.trained & weights.keys()
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert {name.rsplit(".", 1)[1] for name in weights.keys() - stepped} == statistics


def test_all_of_the_specification_s_rule_takes_effect() -> None:
    optimizer = {"name": "FedYogi", "lr": 0.03, "beta1": 0.8, "beta2": 0.95, "tau": 0.01}
    strategy = {"name": "fedavg", "average": "trimmed-mean", "trim": 0.4, "server_optimizer": optimizer}
    server = prepared(spec_of(data={"clients": 5}, strategy=strategy, run={"seed": 7}))
    rule = server.runs["toy"].rule
    assert (rule.average, rule.trim, rule.handed_on, rule.seed) == ("trimmed-mean", 0.4, False, 7)
    assert vars(rule.optimizer) == optimizer
    assert prepared(spec_of(strategy={"name": "sl"}, data={"clients": 2})).runs["toy"].rule.handed_on


def test_a_fed_server_that_restarts_goes_on_where_weights_are_handed_on() -> None:
    store = open_store("memory://")
    spec = spec_of(strategy={"name": "sl"}, data={"clients": 2})
    status = fed_server(store).prepare({"spec": json.loads(spec.to_json())})
    first = decode(fed_server(store).weights("toy", 0)[1]).tensors
    sent = {client: {n: t + number for n, t in first.items()} for number, client in enumerate(("one", "two"), 1)}
    for client in ("two", "one"):
        fed_server(store).upload(Update(run="toy", round=0, client=client, samples=8, weights=sent[client]))
    call = {"run": "toy", "round": 0, "clients": ["one", "two"], "last": "one"}
    for _ in range(2):
        answer = fed_server(store).aggregate(call)
        commit = hashlib.sha256(store.get("runs/toy/client/1/commit.json")).hexdigest()
        assert answer == {"version": status["version"] + 1, "clients": 2, "commit_sha256": commit, "outliers": []}
    assert fed_server(store).weights("toy", None) == (1, encode(sent["one"]))
    assert fed_server(store).handed_on("toy", 0, "two") == encode(sent["two"])


@pytest.mark.parametrize("where", ["in the specification", "in the settings"])
def test_a_front_that_is_trained_on_begins_with_its_file(tmp_path: Path, where: str) -> None:
    front = {n: t + 1 for n, t in build_parts(spec_of(), ALLOWED).front.state_dict().items()}
    file = tmp_path / "front.safetensors"
    file.write_bytes(encode(front))
    named = str(file) if where == "in the specification" else "/nowhere/front.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    spec = spec_of(model={"front_weights": named, "front_sha256": digest})
    call = {"spec": json.loads(spec.to_json())}
    server = prepared(spec, **({} if named == str(file) else {"front_weights": str(file)}))
    weights = decode(server.weights("toy", 0)[1]).tensors
    assert all(torch.equal(weights[f"front.{name}"], tensor) for name, tensor in front.items())
    file.unlink()  # the run has begun: its weights are in the store
    assert fed_server(server.store).prepare(call)["version"] == 0
    assert fed_server(server.store).weights("toy", None) == (0, encode(weights))
    fresh = open_store("memory://")
    with pytest.raises(InvalidSetting, match="not there"):
        fed_server(fresh).prepare(call)
    assert list(fresh.list("runs")) == []
