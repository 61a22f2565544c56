"""core/cut.py: a cut model is the model, whatever the cut."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from microsfl.core.cut import Chain, Parts, cut_model, default_cut, stages
from microsfl.errors import InvalidCut, UnknownLayer
from microsfl.zoo.models import build_model

LAYERS: tuple[Callable[[], nn.Module], ...] = (lambda: nn.Linear(5, 5), nn.ReLU, nn.Tanh, lambda: nn.LayerNorm(5))


class Masked(nn.Module):
    """Declared stages; a mask travels with the hidden state from the first to the last."""

    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return self.table(tokens), mask

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            return hidden + self.linear(hidden) * mask[..., None], mask

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
            return self.linear((hidden * mask[..., None]).sum(dim=1))

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = self.Embed(), self.Block(), self.Head()

    def stages(self) -> dict[str, nn.Module]:
        return {"embed": self.embed, "block": self.block, "head": self.head}

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden, mask = self.embed(tokens, mask)
        hidden, mask = self.block(hidden, mask)
        return self.head(hidden, mask)


def plain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"layer{number}", layer) for number, layer in enumerate(layers)))


def through(parts: Parts, *inputs: Tensor) -> Any:
    value: Any = inputs
    for part in (parts.front, parts.body, parts.tail):
        value = part(*value) if isinstance(value, tuple) else part(value)
    return value


def gradients(model: nn.Module, output: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Of the sum of squares of the output, for the input and each parameter."""
    wanted = {"input": x, **dict(model.named_parameters())}
    return dict(zip(wanted, torch.autograd.grad(output.square().sum(), list(wanted.values())), strict=True))


@st.composite
def cut_sequentials(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[str, ...], bool]:
    kinds = draw(st.lists(st.integers(0, len(LAYERS) - 1), min_size=3, max_size=7))
    torch.manual_seed(draw(st.integers(0, 99)))
    model = plain(*(LAYERS[kind]() for kind in kinds))
    u_shaped = draw(st.booleans())
    front_end = draw(st.integers(0, len(kinds) - (3 if u_shaped else 2)))
    body_end = draw(st.integers(front_end + 1, len(kinds) - 2)) if u_shaped else len(kinds) - 1
    return model, (f"layer{front_end}", f"layer{body_end}"), u_shaped


@settings(max_examples=60, deadline=None)
@given(cut_sequentials())
def test_any_cut_of_a_sequential_is_exactly_the_model(case: tuple[nn.Sequential, tuple[str, ...], bool]) -> None:
    model, cut, u_shaped = case
    parts = cut_model(model, cut, u_shaped=u_shaped)
    x = torch.randn(4, 5, requires_grad=True)
    assert torch.equal(through(parts, x), model(x))
    assert torch.equal(parts.joined()(x), model(x))
    whole, cut_up = gradients(model, model(x), x), gradients(model, through(parts, x), x)
    assert whole.keys() == cut_up.keys() == {"input", *dict(model.named_parameters())}
    assert all(torch.equal(whole[name], cut_up[name]) for name in whole)


@settings(max_examples=30, deadline=None)
@given(cut_sequentials())
def test_the_parts_hold_each_stage_once_and_in_order(case: tuple[nn.Sequential, tuple[str, ...], bool]) -> None:
    model, cut, u_shaped = case
    parts = cut_model(model, cut, u_shaped=u_shaped)
    held = [*parts.front.stages(), *parts.body.stages(), *parts.tail.stages()]
    assert held == list(stages(model)) == list(parts.joined().stages())
    assert list(parts.front.stages())[-1] == cut[0]
    assert list(parts.body.stages())[-1] == cut[1]
    assert bool(parts.tail.stages()) == u_shaped


def test_parts_share_the_models_parameters_and_their_names() -> None:
    model = build_model("mlp", input_shape=(6,), classes=3, seed=0, allowed=())
    parts = cut_model(model, "auto", u_shaped=True)
    assert list(parts.front.state_dict()) == ["fc1.weight", "fc1.bias"]
    assert list(parts.body.state_dict()) == ["fc2.weight", "fc2.bias"]
    assert list(parts.tail.state_dict()) == ["fc3.weight", "fc3.bias"]
    assert list(parts.joined().state_dict()) == list(model.state_dict())
    own = dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in parts.joined().named_parameters())


def test_an_empty_chain_returns_its_input() -> None:
    x = torch.ones(2)
    assert Chain({})(x) is x
    assert Chain({})(x, x) == (x, x)


def test_parts_are_in_the_mode_of_their_stages() -> None:
    model = plain(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    assert cut_model(model, ["layer0"], u_shaped=False).joined().training
    model.eval()
    parts = cut_model(model, ["layer0"], u_shaped=False)
    assert not any(part.training for part in (parts.front, parts.body, parts.joined()))


def test_tuples_cross_both_cuts_as_arguments() -> None:
    torch.manual_seed(0)
    model = Masked()
    tokens, mask = torch.randint(9, (2, 5)), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).float()
    parts = cut_model(model, ["embed", "block"], u_shaped=True)
    crossing = parts.front(tokens, mask)
    assert isinstance(crossing, tuple)
    assert crossing[1] is mask
    assert torch.equal(through(parts, tokens, mask), model(tokens, mask))
    assert torch.equal(parts.joined()(tokens, mask), model(tokens, mask))
    assert not torch.equal(model(tokens, mask), model(tokens, torch.ones_like(mask)))


def test_a_module_used_twice_runs_twice() -> None:
    square = nn.Hardtanh(-1.0, 1.0)
    model = plain(square, nn.Linear(3, 3), square, nn.Linear(3, 3), square)
    x = 10 * torch.randn(4, 3)
    assert torch.equal(through(cut_model(model, ["layer0"], u_shaped=False), x), model(x))
    assert len(stages(model)) == 5


def test_a_joined_model_can_be_cut_again() -> None:
    model = build_model("mlp", input_shape=(4,), classes=2, seed=0, allowed=())
    joined = cut_model(model, "auto", u_shaped=True).joined()
    parts = cut_model(joined, ["relu1", "fc2"], u_shaped=True)
    x = torch.randn(3, 4)
    assert list(parts.tail.stages()) == ["relu2", "fc3"]
    assert torch.equal(through(parts, x), model(x))


@pytest.mark.parametrize(("cut", "u_shaped"), [("auto", True), (("layer2",), False)])
def test_resnet_cut_equals_the_whole(cut: Any, u_shaped: bool) -> None:
    model = build_model("resnet18", input_shape=(1, 8, 8), classes=10, seed=1, allowed=())
    twin = copy.deepcopy(model)
    parts = cut_model(twin, cut, u_shaped=u_shaped)
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    whole, cut_up = model(x), through(parts, x)
    torch.testing.assert_close(cut_up, whole, rtol=1e-6, atol=1e-6)
    expected, got = gradients(model, whole, x), gradients(twin, cut_up, x)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-6, atol=1e-6, msg=name)
    for name, buffer in model.named_buffers():  # running statistics moved alike
        torch.testing.assert_close(parts.joined().get_buffer(name), buffer, rtol=1e-6, atol=1e-6, msg=name)


def test_vanilla_ignores_a_second_name() -> None:
    model = plain(*(nn.Linear(2, 2) for _ in range(4)))
    parts = cut_model(model, ["layer1", "no such layer"], u_shaped=False)
    assert list(parts.front.stages()) == ["layer0", "layer1"]
    assert list(parts.body.stages()) == ["layer2", "layer3"]
    assert not parts.tail.stages()


def test_one_name_may_be_plain_text() -> None:
    parts = cut_model(plain(nn.Linear(2, 2), nn.Linear(2, 2)), "layer0", u_shaped=False)
    assert list(parts.body.stages()) == ["layer1"]


def test_an_unknown_layer_names_the_nearest() -> None:
    model = build_model("mlp", input_shape=(4,), classes=2, seed=0, allowed=())
    with pytest.raises(UnknownLayer, match=r"'rellu1'.*Did you mean 'relu1'\?.*flatten"):
        cut_model(model, ["rellu1", "fc2"], u_shaped=True)


@pytest.mark.parametrize(
    ("cut", "u_shaped", "says"),
    [
        (["layer1", "layer0"], True, "wrong order: 'layer0' comes before 'layer1'"),
        (["layer1", "layer1"], True, "no layer for the body"),
        (["layer2"], False, "no layer for the body"),
        (["layer0", "layer2"], True, r"no layer for the tail.*u_shaped = false"),
        (["layer0"], True, "must name two layers"),
        ([], False, "must name one layer"),
        (["layer0", "layer1", "layer2"], True, "must name two layers"),
    ],
)
def test_an_impossible_cut_is_refused_in_words(cut: list[str], u_shaped: bool, says: str) -> None:
    with pytest.raises(InvalidCut, match=says):
        cut_model(plain(*(nn.Linear(2, 2) for _ in range(3))), cut, u_shaped=u_shaped)


def test_tied_weights_across_a_cut_are_refused_by_name() -> None:
    first, last = nn.Linear(3, 3), nn.Linear(3, 3)
    last.weight = first.weight
    model = plain(first, nn.ReLU(), nn.Linear(3, 3), last)
    with pytest.raises(InvalidCut, match=r"'layer0.weight' in the front and 'layer3.weight' in the tail"):
        cut_model(model, ["layer0", "layer2"], u_shaped=True)
    with pytest.raises(InvalidCut, match=r"'layer0.weight' in the front and 'layer3.weight' in the body"):
        cut_model(model, ["layer1"], u_shaped=False)


def test_weights_tied_within_a_part_are_fine() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = plain(nn.Linear(3, 3), first, second)
    parts = cut_model(model, ["layer0"], u_shaped=False)
    assert len(list(parts.body.parameters())) == 3


def test_a_model_without_stages_is_told_what_to_do() -> None:
    with pytest.raises(InvalidCut, match=r"Bilinear does not say.*stages\(\)"):
        stages(nn.Bilinear(2, 2, 2))


def test_a_sequential_with_its_own_forward_must_declare_its_stages() -> None:
    class Doubled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(InvalidCut, match="own forward"):
        stages(Doubled(nn.Linear(2, 2)))


def test_an_attribute_named_stages_is_not_a_declaration() -> None:
    class Staged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.Sequential(nn.Linear(2, 2))

    with pytest.raises(InvalidCut, match="does not say"):
        stages(Staged())


class Declares(nn.Module):
    """Declares what the test gives it."""

    def __init__(self, declared: Any) -> None:
        super().__init__()
        self.declared = declared

    def stages(self) -> Any:
        return self.declared


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"a.b": nn.ReLU()}, r"'a\.b'.*without '\.'"),
        ({"": nn.ReLU()}, "not empty"),
        ({7: nn.ReLU()}, "named 7"),
        ({"forward": nn.ReLU()}, "rename it"),
        ({"training": nn.ReLU()}, "rename it"),
        ({"a": torch.relu}, "must be an nn.Module"),
        ([nn.ReLU()], "returned list"),
    ],
)
def test_a_bad_declaration_is_refused(declared: Any, says: str) -> None:
    with pytest.raises(InvalidCut, match=says):
        stages(Declares(declared))


def test_a_parameter_outside_of_all_stages_is_refused() -> None:
    class Forgetful(Masked):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(4))

    with pytest.raises(InvalidCut, match="'position' of Forgetful belongs to none"):
        cut_model(Forgetful(), ["embed", "block"], u_shaped=True)


def test_default_cut_of_each_shape() -> None:
    model = build_model("mlp", input_shape=(4,), classes=2, seed=0, allowed=())
    assert default_cut(model, u_shaped=True) == ("fc1", "relu2")
    assert default_cut(model, u_shaped=False) == ("fc1",)


def test_a_model_without_default_cut_is_told_its_stages() -> None:
    model = plain(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(InvalidCut, match=r"model\.cut.*layer0, layer1"):
        cut_model(model, "auto", u_shaped=True)


@pytest.mark.parametrize("declared", ["layer0", ("layer0",), ("layer0", 1), ("a", "b", "c")])
def test_a_malformed_default_cut_is_refused(declared: Any) -> None:
    model = plain(nn.Linear(2, 2), nn.Linear(2, 2))
    model.default_cut = declared
    with pytest.raises(InvalidCut, match="tuple of two layer names"):
        default_cut(model, u_shaped=False)
