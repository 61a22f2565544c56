"""zoo/models.py: equal weights everywhere, and no import that was not permitted."""

from __future__ import annotations

import random
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from microsfl.core.cut import cut_model, stages
from microsfl.errors import InvalidSetting, ModelNotAllowed
from microsfl.spec import MODELS
from microsfl.zoo.datasets import load_data, take
from microsfl.zoo.models import ZOO, build_model


def built(name: str, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10, seed: int = 0, **more: Any) -> nn.Module:
    return build_model(name, input_shape=shape, classes=classes, seed=seed, **{"allowed": (), **more})


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An importable module of the user's, `own_models`."""
    module = types.ModuleType("own_models")
    monkeypatch.setitem(sys.modules, "own_models", module)
    return module


def test_the_zoo_is_what_the_specification_names() -> None:
    assert tuple(ZOO) == MODELS


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (7,)),
        ("mlp", (1, 8, 8)),
        ("mlp", (1, 28, 28)),
        ("cnn", (1, 2, 2)),
        ("cnn", (1, 8, 8)),
        ("cnn", (1, 28, 28)),
        ("cnn", (3, 32, 32)),
        ("cnn", (2, 19, 50)),
        ("resnet18", (1, 8, 8)),
        ("resnet18", (3, 32, 32)),
        ("resnet18", (3, 96, 65)),
    ],
)
def test_logits_for_every_shape_of_sample(name: str, shape: tuple[int, ...]) -> None:
    logits = built(name, shape, classes=5)(torch.rand(2, *shape))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "front", "body", "tail"),
    [
        ("mlp", ["flatten", "fc1"], ["relu1", "fc2", "relu2"], ["fc3"]),
        ("linear-front", ["flatten", "fc1"], ["fc2", "relu"], ["fc3"]),
        ("cnn", ["conv1", "relu1", "pool1"], ["conv2", "relu2", "pool2", "flatten", "fc1", "relu3"], ["fc2"]),
        ("resnet18", ["stem"], ["layer1", "layer2", "layer3", "layer4", "pool"], ["head"]),
    ],
)
def test_default_cuts(name: str, front: list[str], body: list[str], tail: list[str]) -> None:
    model = built(name)
    parts = cut_model(model, "auto", u_shaped=True)
    assert [list(part.stages()) for part in (parts.front, parts.body, parts.tail)] == [front, body, tail]
    vanilla = cut_model(model, "auto", u_shaped=False)
    assert list(vanilla.front.stages()) == front
    assert list(vanilla.body.stages()) == body + tail


@pytest.mark.parametrize("name", ["mlp", "linear-front"])
def test_the_linear_models_have_the_sizes_of_the_paper(name: str) -> None:
    shapes = [tuple(weight.shape) for key, weight in built(name, (1, 28, 28)).named_parameters() if "weight" in key]
    assert shapes == [(64, 784), (64, 64), (10, 64)]


def test_resnet18_has_the_published_number_of_parameters() -> None:
    """11,689,512 for 1000 classes on ImageNet: He et al. 2015, as counted by every public implementation."""
    model = built("resnet18", (3, 224, 224), classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_689_512


def test_resnet18_halves_the_image_as_in_the_paper() -> None:
    x, sides = torch.rand(1, 3, 224, 224), {}
    for name, stage in stages(built("resnet18", (3, 224, 224)).eval()).items():
        x = stage(x)
        sides[name] = x.shape[-1]
    assert sides == {"stem": 56, "layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7, "pool": 512, "head": 10}


@pytest.mark.parametrize("name", MODELS)
def test_equal_seeds_give_bit_equal_weights_and_other_seeds_do_not(name: str) -> None:
    first, second, other = (built(name, seed=seed).state_dict() for seed in (5, 5, 6))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_every_global_generator_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    built("cnn", seed=9)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_a_failing_factory_leaves_the_generator_as_it_was(own: types.ModuleType) -> None:
    def failing(*_: Any) -> nn.Module:
        torch.rand(3)
        raise RuntimeError("the user's own")

    own.model = failing
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="the user's own"):
        built("own_models:model", allowed=["own_models:model"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["mlp", "linear-front", "cnn"])
def test_the_model_learns_the_digits(name: str) -> None:
    data = load_data("digits", None)
    x, y = take(data.train, np.arange(len(data.train)))
    model = built(name, data.input_shape, data.classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    test_x, test_y = take(data.test, np.arange(len(data.test)))
    assert (model(test_x).argmax(dim=1) == test_y).float().mean() > 0.9


@pytest.mark.parametrize(("name", "shape"), [("cnn", (784,)), ("cnn", (1, 1, 9)), ("resnet18", (28, 28))])
def test_a_shape_that_is_no_image_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidSetting, match=rf"'{name}' needs images.*\[{shape[0]}"):
        built(name, shape)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match=r"'resnet_18' is unknown. Did you mean 'resnet18'\?"):
        built("resnet_18")


def test_an_allowed_function_is_called_with_shape_and_classes(own: types.ModuleType) -> None:
    seen: list[Any] = []

    def linear(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        seen.append((input_shape, classes))
        return nn.Linear(input_shape[0], classes)

    own.linear = linear
    model = build_model("own_models:linear", input_shape=[4], classes=3, seed=0, allowed={"own_models:linear"})
    assert isinstance(model, nn.Linear)
    assert seen == [((4,), 3)]


@pytest.mark.parametrize(
    "allowed", [(), ("own_models",), ("own_models:*",), ("own_models:model2",), ("OWN_MODELS:model",)]
)
def test_only_the_exact_text_is_allowed_and_nothing_else_is_imported(
    monkeypatch: pytest.MonkeyPatch, allowed: tuple[str, ...]
) -> None:
    def forbidden(name: str) -> Any:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr("pkgutil.resolve_name", forbidden)
    with pytest.raises(ModelNotAllowed, match=r"'own_models:model' may not be imported.*allow_models"):
        built("own_models:model", allowed=allowed)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_package_here:model", "cannot be imported: No module named"),
        ("own_models:missing", "cannot be imported: .*missing"),
        ("own_models:number", "is int; it must be a function"),
        ("own_models:one_argument", r"does not take \(input_shape, classes\)"),
        ("own_models:tensor", "returned Tensor; it must return an nn.Module"),
        ("own models:model", "cannot be imported"),
    ],
)
def test_what_is_wrong_with_an_own_model_is_said(own: types.ModuleType, name: str, says: str) -> None:
    def tensor(input_shape: tuple[int, ...], classes: int) -> Tensor:
        return torch.zeros(*input_shape, classes)

    own.number, own.tensor, own.one_argument = 3, tensor, lambda shape: nn.Linear(shape[0], 1)
    with pytest.raises(InvalidSetting, match=says):
        built(name, allowed=[name])
