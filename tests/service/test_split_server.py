"""The split server's functions where strategies differ in what they ask of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from microsfl.config import SplitServerSettings
from microsfl.core.unit import UnitKey
from microsfl.errors import InvalidSetting
from microsfl.services.split_server import SplitServer
from microsfl.spec import TRAITS, RunSpec
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.runs import create_run
from microsfl.wire.messages import Backward, Contribution, Forward, Outputs, Step
from microsfl.wire.tensors import decode
from tests.world import ALLOWED, spec_of

WITHOUT_A_BODY = sorted(name for name, traits in TRAITS.items() if not traits.split)
ACTIVATIONS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def server_of(spec: RunSpec) -> SplitServer:
    store = open_store("memory://")
    server = SplitServer(SplitServerSettings(store_url="memory://", allow_models=ALLOWED), store)
    server.prepare({"spec": spec.model_dump(mode="json")})
    return server


def contribution(server: SplitServer, unit: int) -> Contribution:
    path = keys.contribution(UnitKey("toy", 0, "one", unit))
    return Contribution.unpack(server.store.get(path), hashed=True)


def about(unit: int) -> dict[str, Any]:
    return {"run": "toy", "round": 0, "client": "one", "unit": unit, "activations": {"0": ACTIVATIONS}}


@pytest.mark.parametrize("name", WITHOUT_A_BODY)
def test_a_run_without_a_body_is_refused(name: str) -> None:
    spec = spec_of(strategy={"name": name})
    with pytest.raises(InvalidSetting, match=f"strategy.name = '{name}' does not cut the model"):
        server_of(spec)
    store = open_store("memory://")
    create_run(store, spec)
    server = SplitServer(SplitServerSettings(store_url="memory://", allow_models=ALLOWED), store)
    with pytest.raises(InvalidSetting, match="a split server has no work in run 'toy'"):
        server.step(Step(**about(0), labels={"0": torch.zeros(8, dtype=torch.int64)}))


def test_a_step_without_cut_layer_gradients_contributes_the_same() -> None:
    """cse-fsl: the client does not wait for a gradient, and the body gets all of it."""
    server = server_of(spec_of(model={"u_shaped": False}, strategy={"name": "cse-fsl"}))
    labels = {"0": torch.arange(8) % 3}
    with_it = server.step(Step(**about(0), labels=labels, needs_grad=("0",)))
    without = server.step(Step(**about(5), labels=labels))
    assert (list(with_it.gradients), without.gradients) == (["0"], {})
    assert torch.equal(with_it.losses["0"], without.losses["0"])
    first, second = contribution(server, 0), contribution(server, 5)
    assert (
        first.gradients.keys()
        == second.gradients.keys()
        == dict(server.runs["toy"].sync.template.named_parameters()).keys()
    )
    assert all(torch.equal(first.gradients[name], tensor) for name, tensor in second.gradients.items())


@pytest.mark.parametrize("held", [True, False], ids=["graph in the cache", "computed again"])
def test_a_backward_without_cut_layer_gradients_contributes_the_same(held: bool) -> None:
    server = server_of(spec_of(strategy={"name": "cse-fsl"}))
    answers = []
    for unit, needs_grad in ((0, ("0",)), (5, ())):
        outputs: Outputs = server.forward(Forward(**about(unit), needs_grad=needs_grad))
        assert outputs.differentiable == ("0",)
        if not held:
            server.graphs.clear()
        again = {**about(unit), "activations": {} if held else {"0": ACTIVATIONS}}
        gradients = {"0": torch.ones_like(outputs.outputs["0"])}
        answers.append(server.backward(Backward(**again, version=0, needs_grad=needs_grad, gradients=gradients)))
    assert [list(answer.gradients) for answer in answers] == [["0"], []]
    first, second = contribution(server, 0), contribution(server, 5)
    assert first.gradients
    assert all(torch.equal(first.gradients[name], tensor) for name, tensor in second.gradients.items())


def moved(server: SplitServer, version: int) -> float:
    """How far the body moved from the version before to this one."""
    before, after = (decode(server.weights("toy", number)[1]).tensors for number in (version - 1, version))
    return sum(float((after[name] - tensor).square().sum()) for name, tensor in before.items()) ** 0.5


def backward(server: SplitServer, unit: int) -> None:
    server.backward(Backward(**about(unit), version=0, gradients={"0": torch.ones(8, 4)}))


@pytest.mark.parametrize(
    ("settings", "factor"),
    [({"clip_norm": 1000.0}, 1.0), ({"clip_norm": 0.5}, None), ({"warmup_rounds": 2}, 0.5)],
    ids=["not clipped", "clipped", "in the warm-up"],
)
@pytest.mark.parametrize("name", ["filesync", "sflv1", "sflv2"])
def test_bound_and_schedule_reach_the_step(name: str, settings: dict[str, Any], factor: float | None) -> None:
    """Plain SGD at rate 1 moves the body as far as its gradient is long."""
    lengths = []
    for given in ({}, settings):
        optimizer = {"name": "SGD", "lr": 1.0}
        server = server_of(spec_of(run={"rounds": 4}, strategy={"name": name, "body_optimizer": optimizer, **given}))
        backward(server, 0)
        server.reduce({"run": "toy", "round": 0})
        lengths.append(moved(server, 1))
    assert lengths[1] == pytest.approx(lengths[0] * factor if factor else 0.5, rel=1e-5)
    assert lengths[0] > 1


def test_the_discount_of_stale_contributions_reaches_the_step() -> None:
    optimizer = {"name": "SGD", "lr": 1.0}
    strategy = {"sync": 1, "max_staleness": 5, "staleness_discount": 0.5, "body_optimizer": optimizer}
    server = server_of(spec_of(strategy=strategy))
    for unit in range(3):
        backward(server, unit)  # the same gradient, 0, 1 and 2 versions old
    lengths = [moved(server, version) for version in (1, 2, 3)]
    assert [length / lengths[0] for length in lengths] == pytest.approx([1, 2**-0.5, 3**-0.5], rel=1e-5)
