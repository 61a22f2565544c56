"""Cutting a model into front, body and tail.

The parts are chains over the model's own stages: nothing is copied, so a step on a part is a step on the model.
A tuple that leaves a stage enters the next one as positional arguments; that is how a mask crosses a cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ..errors import InvalidCut, UnknownLayer, did_you_mean


class Chain(nn.Module):
    """Named stages run in order; keys of the state dict are `<stage>.<parameter>`.

    Unlike `nn.Sequential`, a stage that returns a tuple hands its items to the next stage as separate arguments.
    """

    samplewise = True  # see core.step.is_samplewise: it only hands on what its stages return

    def __init__(self, named_stages: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, stage in named_stages.items():
            self.add_module(name, stage)
        # A fresh module would claim to be in training mode even over stages that are not.
        self.training = all(stage.training for stage in named_stages.values())

    def stages(self) -> dict[str, nn.Module]:
        """The stages by name, in order; a chain can be cut again."""
        return _registered(self)

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the last stage returns, a tensor or a tuple; the input itself when there is no stage."""
        value: Tensor | tuple[Tensor, ...] = tensors[0] if len(tensors) == 1 else tensors
        for stage in self.stages().values():
            value = stage(*value) if isinstance(value, tuple) else stage(value)
        return value


@dataclass(frozen=True)
class Parts:
    """A cut model. `tail` is empty for the vanilla cut; in a model that is not cut, all but the tail is.

    The parts share the model's modules and parameters.
    """

    front: Chain
    body: Chain
    tail: Chain

    def joined(self) -> Chain:
        """The whole model with its stage names in order, on the same modules in the mode (train, eval) they are in."""
        return Chain({**self.front.stages(), **self.body.stages(), **self.tail.stages()})


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """The stages of `model` by name, in the order in which they run.

    A model declares them through a method `stages()` that returns a mapping; an `nn.Sequential` needs none.

    Raises:
        InvalidCut: when the model declares no stages, or one whose name or type is not allowed.
    """
    declared = getattr(model, "stages", None)
    if callable(declared) and not isinstance(declared, nn.Module):
        return _checked(model, declared())
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        return _checked(model, _registered(model))
    raise InvalidCut(
        f"{type(model).__name__} does not say what its stages are: use an nn.Sequential (with its own forward), "
        "or give the model a method stages() that returns {name: module} in the order in which they run."
    )


def default_cut(model: nn.Module, *, u_shaped: bool) -> tuple[str, ...]:
    """The cut that the model declares in its attribute `default_cut`.

    Returns:
        (last layer of the front, last layer of the body), without the second one for the vanilla cut.

    Raises:
        InvalidCut: when the model declares none, or not as a tuple of two names.
    """
    declared = getattr(model, "default_cut", None)
    if declared is None:
        raise InvalidCut(
            f"{type(model).__name__} declares no default_cut: set model.cut to the last layer of the front"
            f"{' and the last layer of the body' if u_shaped else ''}, out of {', '.join(stages(model))}."
        )
    if not isinstance(declared, tuple | list) or [type(name) for name in declared] != [str, str]:
        raise InvalidCut(
            f"default_cut of {type(model).__name__} is {declared!r:.80}; it must be a tuple of two layer names, "
            "the last of the front and the last of the body."
        )
    return tuple(declared) if u_shaped else tuple(declared[:1])


def cut_model(model: nn.Module, cut: Literal["auto"] | Sequence[str], *, u_shaped: bool) -> Parts:
    """Cut `model` without copying.

    Args:
        model: an `nn.Sequential`, or a module with a method `stages()` (see `stages`).
        cut: names of the last layer of the front and of the last layer of the body; "auto" for the model's
            own `default_cut`.
        u_shaped: false for the vanilla cut: everything after the front is body, and a second name is ignored.

    Raises:
        UnknownLayer: for a name that is no stage of the model.
        InvalidCut: when a part would be empty, the names are in the wrong order or too few or many, a parameter
            belongs to no stage, or one parameter belongs to two parts.
    """
    named = stages(model)
    _refuse_lost_parameters(model, named)
    names = list(named)
    front_end, body_end = _ends(names, _cut_names(model, cut, u_shaped=u_shaped))
    parts = Parts(
        front=_chain(named, names[:front_end]),
        body=_chain(named, names[front_end:body_end]),
        tail=_chain(named, names[body_end:]),
    )
    _refuse_ties(parts)
    return parts


def without_body(parts: Parts) -> Parts:
    """The same model with the body as the beginning of the tail."""
    return Parts(front=parts.front, body=Chain({}), tail=Chain({**parts.body.stages(), **parts.tail.stages()}))


def uncut(model: nn.Module) -> Parts:
    """The whole of `model` as tail, without copying: what a client computes that computes everything.

    Raises:
        InvalidCut: when the model does not say what its stages are, or a parameter belongs to none of them.
    """
    named = stages(model)
    _refuse_lost_parameters(model, named)
    return Parts(front=Chain({}), body=Chain({}), tail=Chain(named))


def _registered(model: nn.Module) -> dict[str, nn.Module]:
    # Not named_children(): it leaves out the second occurrence of a module, such as one ReLU used twice.
    return {name: stage for name, stage in model._modules.items() if stage is not None}


def _checked(model: nn.Module, declared: object) -> dict[str, nn.Module]:
    owner, empty = type(model).__name__, Chain({})
    if not isinstance(declared, Mapping):
        raise InvalidCut(f"stages() of {owner} returned {type(declared).__name__}; it must return {{name: module}}.")
    for name, stage in declared.items():
        if not isinstance(name, str) or not name or "." in name:
            raise InvalidCut(f"{owner} has a stage named {name!r:.60}; a stage's name is text without '.', not empty.")
        if hasattr(empty, name):
            raise InvalidCut(f"{owner} has a stage named '{name}', which every module has as an attribute; rename it.")
        if not isinstance(stage, nn.Module):
            raise InvalidCut(f"Stage '{name}' of {owner} is {type(stage).__name__}; it must be an nn.Module.")
    return dict(declared)


def _cut_names(model: nn.Module, cut: str | Sequence[str], *, u_shaped: bool) -> tuple[str, ...]:
    if cut == "auto":
        return default_cut(model, u_shaped=u_shaped)
    names = (cut,) if isinstance(cut, str) else tuple(cut)
    if u_shaped and len(names) != 2:
        raise InvalidCut(
            f"model.cut = {list(names)} must name two layers, the last of the front and the last of the body, "
            "because the cut is U-shaped."
        )
    if len(names) not in (1, 2):
        raise InvalidCut(f"model.cut = {list(names)} must name one layer, the last of the front.")
    return names if u_shaped else names[:1]


def _ends(names: list[str], cut: tuple[str, ...]) -> tuple[int, int]:
    """Positions just after the front and just after the body."""
    for name in cut:
        if name not in names:
            raise UnknownLayer(f"model.cut names '{name}', which is no layer of the model.{did_you_mean(name, names)}")
    order = f"The layers are, in order: {', '.join(names)}."
    front_end = names.index(cut[0]) + 1
    body_end = names.index(cut[1]) + 1 if len(cut) == 2 else len(names)
    if body_end < front_end:
        raise InvalidCut(f"model.cut is in the wrong order: '{cut[1]}' comes before '{cut[0]}'. {order}")
    if body_end == front_end:
        raise InvalidCut(f"model.cut leaves no layer for the body: the front already ends at '{cut[0]}'. {order}")
    if len(cut) == 2 and body_end == len(names):
        raise InvalidCut(
            f"model.cut leaves no layer for the tail: the body ends at the last layer, '{cut[1]}'. Name an earlier "
            f"one, or set model.u_shaped = false. {order}"
        )
    return front_end, body_end


def _chain(named: dict[str, nn.Module], names: list[str]) -> Chain:
    return Chain({name: named[name] for name in names})


def _refuse_lost_parameters(model: nn.Module, named: dict[str, nn.Module]) -> None:
    kept = {id(parameter) for stage in named.values() for parameter in stage.parameters()}
    lost = [name for name, parameter in model.named_parameters() if id(parameter) not in kept]
    if lost:
        raise InvalidCut(
            f"Parameter '{lost[0]}' of {type(model).__name__} belongs to none of its stages, so no part would use "
            "it: put the layer that owns it into stages()."
        )


def _refuse_ties(parts: Parts) -> None:
    """A shared parameter would be stepped on two sides and drift apart."""
    seen: dict[int, tuple[str, str]] = {}
    for side, part in (("front", parts.front), ("body", parts.body), ("tail", parts.tail)):
        for name, parameter in part.named_parameters(remove_duplicate=False):
            other_side, other = seen.setdefault(id(parameter), (side, name))
            if other_side != side:
                raise InvalidCut(
                    f"'{other}' in the {other_side} and '{name}' in the {side} are the same parameter, which cannot "
                    "be trained on both sides of a cut: cut so that both are in one part, or untie them."
                )
