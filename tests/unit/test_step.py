"""A unit of work on the body against the same layers computed plainly."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from microsfl.core.cut import Chain
from microsfl.core.step import (
    body_backward,
    body_forward,
    body_predict,
    body_step,
    graph_bytes,
    is_samplewise,
    persistent_buffers,
)
from microsfl.core.unit import UnitKey, batch_seed, seed_of
from microsfl.errors import TensorMismatch


def make(*layers: nn.Module) -> Chain:
    return Chain({f"l{number}": layer for number, layer in enumerate(layers)})


def linear() -> Chain:
    return make(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def normalized() -> Chain:
    return make(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


def naively(body: nn.Module, x: torch.Tensor, seeds: list[int], upstream: torch.Tensor) -> list[torch.Tensor]:
    """[outputs, cut-layer gradient, gradient of each parameter], one batch after the other, in plain autograd."""
    x = x.clone().requires_grad_()
    outputs = []
    for batch, seed in zip(x.chunk(len(seeds)), seeds, strict=True):
        torch.manual_seed(seed)
        outputs.append(body(batch))
    together = torch.cat(outputs)
    together.backward(upstream)
    assert x.grad is not None
    return [together.detach(), x.grad, *(p.grad for p in body.parameters() if p.grad is not None)]


@given(
    batches=st.integers(1, 4),
    samples=st.integers(2, 5),
    seed=st.integers(0, 99),
    kind=st.sampled_from([linear, normalized]),
)
@settings(max_examples=40, deadline=None)
def test_a_unit_equals_its_batches_computed_plainly(batches: int, samples: int, seed: int, kind: Any) -> None:
    torch.manual_seed(seed)
    body, x, upstream = kind(), torch.randn(batches * samples, 4), torch.randn(batches * samples, 3)
    seeds = [seed_of(seed, number) for number in range(batches)]
    buffers = {name: buffer.clone() for name, buffer in persistent_buffers(body).items()}
    forward = body_forward(body, {"0": x}, needs_grad=("0",), seeds=seeds)
    gradients = body_backward(forward, {"0": upstream})
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in persistent_buffers(body).items())
    assert all(parameter.grad is None for parameter in body.parameters())
    expected = naively(body, x, seeds, upstream)
    ours = [forward.answer()["0"], gradients.inputs["0"], *gradients.body.values()]
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for name, buffer in persistent_buffers(body).items():  # which the naive version has moved by now
        assert torch.equal(forward.buffers[name], buffer)


def test_the_random_state_of_the_process_is_left_alone() -> None:
    before = torch.get_rng_state()
    forward = body_forward(normalized(), {"0": torch.ones(4, 4)}, seeds=[1, 2])
    body_backward(forward, {"0": torch.ones(4, 3)})
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.set_rng_state(before)
    body_forward(normalized(), {"0": torch.ones(4, 4)}, seeds=[3])
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), expected)


def test_the_same_unit_computed_again_is_the_same_to_the_bit() -> None:
    body, x = normalized(), torch.randn(8, 4)
    first = body_forward(body, {"0": x}, needs_grad=("0",), seeds=[1, 2])
    one = body_backward(first, {"0": torch.ones(8, 3)})
    two = body_backward(body_forward(body, {"0": x}, needs_grad=("0",), seeds=[1, 2]), {"0": torch.ones(8, 3)})
    assert all(torch.equal(gradient, two.body[name]) for name, gradient in one.body.items())
    assert torch.equal(one.inputs["0"], two.inputs["0"])


def test_the_vanilla_step_is_the_sum_of_the_batches_mean_losses() -> None:
    body, x, y = linear(), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    gradients, losses = body_step(body_forward(body, {"0": x}, needs_grad=("0",), seeds=[1, 2]), y, 2)
    means = [nn.functional.cross_entropy(body(a), b) for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]
    torch.testing.assert_close(losses, torch.stack(means).detach())
    sum(means).backward()  # type: ignore[union-attr]
    for name, parameter in body.named_parameters():
        torch.testing.assert_close(gradients.body[name], parameter.grad)


def test_an_input_without_needs_grad_gets_none() -> None:
    gradients = body_backward(body_forward(linear(), {"0": torch.ones(2, 4)}, seeds=[1]), {"0": torch.ones(2, 3)})
    assert gradients.inputs == {}
    assert len(gradients.body) == 4


def test_prediction_changes_nothing_and_uses_running_statistics() -> None:
    body, x = normalized(), torch.randn(3, 4)
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    answer = body_predict(body, {"0": x})["0"]
    assert torch.equal(answer, body_predict(body, {"0": x})["0"])
    assert torch.equal(answer[:1], body_predict(body, {"0": x[:1]})["0"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())


@pytest.mark.parametrize(
    ("module", "samplewise"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), True),
        (make(nn.Flatten(), nn.Conv2d(1, 1, 1)), True),
        (nn.Flatten(start_dim=0), False),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), False),
        (nn.BatchNorm1d(2), False),
        (nn.Softmax(dim=0), False),
        (type("Own", (nn.Module,), {})(), False),
        (type("OwnLinear", (nn.Linear,), {})(2, 2), False),
        (type("Declared", (nn.Module,), {"samplewise": True})(), True),
    ],
)
def test_only_what_is_known_to_be_samplewise_is_computed_together(module: nn.Module, samplewise: bool) -> None:
    assert is_samplewise(module) is samplewise


def test_a_graph_weighs_what_it_keeps_alive_without_the_body_s_weights() -> None:
    body, x = linear(), torch.ones(100, 4)
    size = graph_bytes(body, {"0": x}, ("0",), [1])
    kept = {"input": 100 * 4 * 4, "first output, kept by the ReLU": 100 * 6 * 4, "output": 100 * 3 * 4}
    assert sum(kept.values()) <= size <= 2 * sum(kept.values())


@pytest.mark.parametrize("shape", [(2, 5), (4,), (), (0, 4)])
@pytest.mark.parametrize("body", [linear, normalized])
def test_activations_that_do_not_fit_are_described(shape: tuple[int, ...], body: Any) -> None:
    with pytest.raises(TensorMismatch, match="float32"):
        body_forward(body(), {"0": torch.ones(shape)}, seeds=[1])


def test_gradients_that_do_not_fit_are_described() -> None:
    def forward() -> Any:
        return body_forward(linear(), {"0": torch.ones(2, 4)}, seeds=[1])

    for wrong, word in (
        ({"0": torch.ones(2, 4)}, r"float32\[2, 3\]"),
        ({"0": torch.ones(2, 3, dtype=torch.float64)}, "float64"),
        ({}, "need one"),
        ({"0": torch.ones(2, 3), "1": torch.ones(1)}, "need one"),
    ):
        with pytest.raises(TensorMismatch, match=word):
            body_backward(forward(), wrong)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (torch.tensor([0, 3]), "3 classes"),
        (torch.tensor([-1, 0]), "-1"),
        (torch.tensor([0]), r"int64\[1\]"),
        (torch.tensor([0.0, 1.0]), "float32"),
    ],
)
def test_labels_that_do_not_fit_are_described(labels: torch.Tensor, word: str) -> None:
    with pytest.raises(TensorMismatch, match=word):
        body_step(body_forward(linear(), {"0": torch.ones(2, 4)}, seeds=[1]), labels, 1)


def test_seeds_follow_the_batch_and_not_the_unit() -> None:
    """Batch 3 of a round has one seed, as the fourth of unit 0 and as the first of unit 3."""
    assert batch_seed("body", 0, UnitKey("r", 1, "c", 0), 3) == batch_seed("body", 0, UnitKey("r", 1, "c", 3), 0)
    seeds = {
        batch_seed(part, seed, UnitKey("r", round_, client, 0), 0)
        for part, seed, round_, client in itertools.product(("front", "body"), (0, 1), (0, 1), ("a", "b"))
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
