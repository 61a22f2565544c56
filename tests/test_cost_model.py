"""The cost model of docs/concepts/performance.md, run as it stands there, against what a training counts.

`microsfl plan` counts with the same functions.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.capacity import cost
from microsfl.sync import keys
from microsfl.zoo.parts import build_parts
from tests.world import ALLOWED, MODELS, World, spec_of, toy_data

MODULE = inspect.getsource(cost)
PAGE = Path(__file__).parent.parent / "docs" / "concepts" / "performance.md"
HEADER_BYTES = 1000  # of a message, at most: its fields, and names, shapes and offsets of its tensors


@pytest.fixture(scope="module")
def model() -> SimpleNamespace:
    """The functions of the page."""
    found = re.findall(r"^```python cost-model\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    assert found[0] == MODULE[MODULE.index("from math import ceil") :]  # what `microsfl plan` counts with
    functions: dict[str, Any] = {}
    exec(found[0], functions)
    return SimpleNamespace(**functions)


@dataclass
class Round:
    """What a round of one client came to."""

    world: World
    activations: int  # bytes of one sample
    outputs: int

    @classmethod
    def of(cls, samples: int, batch: int, unit: int, *, u_shaped: bool, front: str) -> Round:
        optimizer = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
        spec = spec_of(
            run={"rounds": 1},
            data={"batch_size": batch},
            model={"name": f"{MODELS}plain", "u_shaped": u_shaped},
            strategy={"unit": unit, "front_update": front, "client_optimizer": optimizer},
        )
        world = World(spec)
        world.join("one", toy_data(samples)).train(world.task("one", 0))
        parts = build_parts(spec, ALLOWED)
        activations = parts.front(torch.zeros(1, 6))
        return cls(world, activations.nbytes, parts.body(activations).nbytes)

    def size(self, kind: str) -> int:
        """Bytes of tensors: "weights" and "optimizer" as uploaded, "body" of the body's parameters."""
        if kind == "body":
            return sum(parameter.nbytes for parameter in build_parts(self.world.spec, ALLOWED).body.parameters())
        trainer = self.world.trainers["one"]
        held = trainer.model.weights() if kind == "weights" else trainer.model.optimizers()[0]
        return sum(tensor.nbytes for tensor in held.values())


def assert_counted(measured: int, tensors: int, messages: int) -> None:
    """The tensors to the byte, and for each message a header of a plausible size."""
    assert tensors < measured <= tensors + HEADER_BYTES * messages


@given(
    samples=st.integers(1, 40),
    batch=st.integers(1, 12),
    unit=st.integers(1, 5),
    u_shaped=st.booleans(),
    front=st.sampled_from(["never", "round", "batch"]),
)
@settings(max_examples=40, deadline=None)
def test_bytes_requests_and_files_are_those_of_the_cost_model(
    model: SimpleNamespace, samples: int, batch: int, unit: int, u_shaped: bool, front: str
) -> None:
    unit = 1 if front == "batch" else unit
    one = Round.of(samples, batch, unit, u_shaped=u_shaped, front=front)
    world, trainer = one.world, one.world.trainers["one"]
    up, down, requests = model.crossing(
        samples, batch, unit, one.activations, one.outputs, u_shaped=u_shaped, front_trained=front != "never"
    )
    assert len(world.split.requests) == requests
    assert_counted(trainer.split.traffic.up, up, requests)
    assert_counted(trainer.split.traffic.down, down, requests)

    up, down, requests = model.hand_out(one.size("weights"), one.size("optimizer"))
    assert len(world.fed.requests) == requests
    assert_counted(trainer.fed.traffic.up, up, requests)
    assert_counted(trainer.fed.traffic.down, down, requests)

    files, size = model.body_files(samples, batch, unit, one.size("body"))
    stored = [world.body_store.get(path) for path in world.body_store.list(keys.gradients(world.spec.run.name, 0))]
    assert len(stored) == files
    assert_counted(sum(map(len, stored)), size, files)


def test_a_wrong_model_is_found(model: SimpleNamespace) -> None:
    """One batch too few, or the labels forgotten, and the bytes do not fit any more."""
    one = Round.of(40, 4, 2, u_shaped=False, front="never")
    up, _, requests = model.crossing(40, 4, 2, one.activations, one.outputs, u_shaped=False, front_trained=False)
    assert requests != model.crossing(32, 4, 2, 1, 1, u_shaped=False, front_trained=False)[2]
    with pytest.raises(AssertionError):
        assert_counted(one.world.trainers["one"].split.traffic.up, up + HEADER_BYTES * requests, 0)
