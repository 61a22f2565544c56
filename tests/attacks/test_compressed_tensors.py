"""Hostile compressed tensors: each is refused by a named error, and the store keeps what it had."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from microsfl.config import SplitServerSettings
from microsfl.core.formats import COMPRESSED, compressed
from microsfl.errors import NotFinite, TensorMismatch
from microsfl.services.split_server import SplitServer
from microsfl.store.objects import open_store
from microsfl.wire.messages import Backward, Forward, Predict, Step
from tests.world import ALLOWED, MODELS, spec_of

ONES = torch.ones(8, 16)  # what crosses either cut
BYTES = torch.ones(8, 16, dtype=torch.int8)
HALVES = torch.ones(8, 16, dtype=torch.float16)
SCALE = torch.ones(16)
ONE = torch.ones(())
KEY = {"run": "toy", "round": 0, "client": "one", "unit": 0}

# format of the run -> case -> (tensors that cross the cut, error)
HOSTILE: dict[str, dict[str, tuple[dict[str, Tensor], type[Exception]]]] = {
    "float32": {
        "compressed, though the run does not": ({"0.bfloat16": ONES.bfloat16()}, TensorMismatch),
        "the same in int8": ({"0.int8": BYTES, "0.scale": SCALE}, TensorMismatch),
        "a scale alone": ({"0": ONES, "0.scale": SCALE}, TensorMismatch),
    },
    "bfloat16": {
        "as it is": ({"0": ONES}, TensorMismatch),
        "another format": ({"0.float16": HALVES, "0.scale": ONE}, TensorMismatch),
        "not what its name says": ({"0.bfloat16": HALVES}, TensorMismatch),
        "a scale that it does not have": ({"0.bfloat16": ONES.bfloat16(), "0.scale": ONE}, TensorMismatch),
        "twice": ({"0.bfloat16": ONES.bfloat16(), "0": torch.ones(8, 16, dtype=torch.int64)}, TensorMismatch),
        "without a name": ({".bfloat16": ONES.bfloat16()}, TensorMismatch),
    },
    "float16": {
        "no scale": ({"0.float16": HALVES}, TensorMismatch),
        "a scale for each channel": ({"0.float16": HALVES, "0.scale": SCALE}, TensorMismatch),
        "a scale of another dtype": ({"0.float16": HALVES, "0.scale": ONE.double()}, TensorMismatch),
        "a negative scale": ({"0.float16": HALVES, "0.scale": -ONE}, TensorMismatch),
        "too large": ({"0.float16": HALVES, "0.scale": 1e35 * ONE}, NotFinite),
        "an infinity": ({"0.float16": 1 / (HALVES - 1), "0.scale": ONE}, NotFinite),
    },
    "int8": {
        "no scale": ({"0.int8": BYTES}, TensorMismatch),
        "a scale alone": ({"0.scale": SCALE}, TensorMismatch),
        "another tensor's scale": ({"0.int8": BYTES, "1.scale": SCALE}, TensorMismatch),
        "a scale too few": ({"0.int8": BYTES, "0.scale": SCALE[1:]}, TensorMismatch),
        "one scale for all": ({"0.int8": BYTES, "0.scale": ONE}, TensorMismatch),
        "scales in a column": ({"0.int8": BYTES, "0.scale": SCALE[:, None]}, TensorMismatch),
        "a scale of whole numbers": ({"0.int8": BYTES, "0.scale": SCALE.long()}, TensorMismatch),
        "a negative scale": ({"0.int8": BYTES, "0.scale": -SCALE}, TensorMismatch),
        "too large": ({"0.int8": BYTES, "0.scale": 3e38 * SCALE}, NotFinite),
        "not a number": ({"0.int8": BYTES, "0.scale": 0 * SCALE / 0}, NotFinite),
        "not what its name says": ({"0.int8": BYTES.to(torch.uint8), "0.scale": SCALE}, TensorMismatch),
        "a scale of a scale": ({"0.int8": BYTES, "0.scale": SCALE, "0.scale.scale": ONE}, TensorMismatch),
        "a compressed scale": ({"0.int8": BYTES, "0.scale": SCALE, "0.scale.int8": BYTES}, TensorMismatch),
        "as it is": ({"0": ONES}, TensorMismatch),
        "nothing": ({}, TensorMismatch),
    },
}
CASES = [(format_, name) for format_, cases in HOSTILE.items() for name in cases]


def server_of(format_: str, **model: Any) -> SplitServer:
    store = open_store("memory://")
    settings = SplitServerSettings(store_url="memory://", allow_models=ALLOWED, write_behind_mb=0)
    server = SplitServer(settings, store)
    spec = spec_of(model={"name": f"{MODELS}sixteen", **model}, wire={"activations": format_, "gradients": format_})
    server.prepare({"spec": spec.model_dump(mode="json")})
    return server


def contents(server: SplitServer) -> dict[str, bytes]:
    return {key: server.store.get(key) for key in server.store.list("runs")}


@pytest.mark.parametrize(("format_", "case"), CASES)
def test_hostile_activations_are_refused(format_: str, case: str) -> None:
    tensors, error = HOSTILE[format_][case]
    server, vanilla = server_of(format_), server_of(format_, u_shaped=False)
    before = contents(server), contents(vanilla)
    with pytest.raises(error):
        server.forward(Forward.unpack(Forward(**KEY, activations=tensors).pack()))
    with pytest.raises(error):
        server.predict(Predict.unpack(Predict(run="toy", activations=tensors).pack()))
    labels = {"0": torch.zeros(8, dtype=torch.int64)}
    with pytest.raises(error):
        vanilla.step(Step.unpack(Step(**KEY, activations=tensors, labels=labels).pack()))
    assert (contents(server), contents(vanilla)) == before


@pytest.mark.parametrize(("format_", "case"), CASES)
def test_hostile_gradients_are_refused_and_the_unit_can_go_on(format_: str, case: str) -> None:
    tensors, error = HOSTILE[format_][case]
    server = server_of(format_)
    server.forward(Forward(**KEY, activations=compressed({"0": ONES}, format_)))
    before = contents(server)
    with pytest.raises(error):
        server.backward(Backward.unpack(Backward(**KEY, version=0, gradients=tensors).pack()))
    assert contents(server) == before
    good = compressed({"0": ONES}, format_)
    server.backward(Backward(**KEY, version=0, gradients=good, activations=good))
    assert len(contents(server)) == len(before) + 1


@pytest.mark.parametrize("format_", sorted(COMPRESSED))
def test_what_is_not_finite_is_refused_whatever_it_is_compressed_to(format_: str) -> None:
    server = server_of(format_)
    for value in (float("nan"), float("inf"), -float("inf"), 3.4028e38):
        activations = ONES.clone()
        activations[3, 2] = value
        request = Forward(**KEY, activations=compressed({"0": activations}, format_))
        with pytest.raises(NotFinite):
            server.forward(Forward.unpack(request.pack()))
