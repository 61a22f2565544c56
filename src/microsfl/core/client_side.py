"""The client's side of one unit: front forward, tail step, front backward; stepped each batch or once a round."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import NotFinite, TensorMismatch
from .codec import Scalars, make_optimizer, pack_optimizer, unpack_optimizer
from .randomness import seeded
from .reduce import OptimizerRule
from .step import Tensors, check_labels, check_like, in_order, is_samplewise, name_outputs

OptimizerState = tuple[dict[str, Tensor], Scalars]


@dataclass
class Stepper:
    """A part's optimizer with its rhythm: "batch" steps after each backward, "round" once on the mean, "never" not.

    proximal_mu: adds FedProx's term mu * (w - w at the round's begin) to each gradient that is stepped on: Li et al.
    2020, arXiv:1812.06127, the gradient of mu/2 * |w - w_t|^2. 0: none.
    """

    part: nn.Module
    rule: OptimizerRule
    rhythm: str
    proximal_mu: float = 0.0
    batches: int = 0
    optimizer: torch.optim.Optimizer | None = field(init=False, default=None)
    anchors: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.rhythm == "never":
            self.part.requires_grad_(False)
        parameters = self._parameters()
        if parameters:
            self.optimizer = make_optimizer(self.rule.name, parameters, self.rule.options)

    def begin_round(self, factor: float) -> None:
        """The weights are those that the round begins with; its learning rate is `factor` times the rule's."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.rule.options["lr"] * factor
        if self.proximal_mu:
            self.anchors = [parameter.detach().clone() for parameter in self._parameters()]

    def after_backward(self, batches: int) -> None:
        """Gradients of `batches` more batches, each a mean over its samples, were added up in `.grad`."""
        self.batches += batches
        if self.rhythm == "batch":
            self.step()

    def step(self) -> None:
        """Step on the mean over the batches since the last step; nothing when there was none."""
        if self.optimizer is None or not self.batches:
            return
        if self.batches > 1:
            for parameter in self.part.parameters():
                if parameter.grad is not None:
                    parameter.grad /= self.batches
        for parameter, anchor in zip(self._parameters(), self.anchors, strict=True) if self.anchors else ():
            if parameter.grad is not None:
                parameter.grad += self.proximal_mu * (parameter.detach() - anchor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.batches = 0

    def reset(self) -> None:
        """Forget gradients that no step has used."""
        self.batches = 0
        if self.optimizer is not None:
            self.optimizer.zero_grad()

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.part.parameters() if parameter.requires_grad]

    def state(self) -> OptimizerState:
        return ({}, {}) if self.optimizer is None else pack_optimizer(self.optimizer)

    def load(self, state: OptimizerState) -> None:
        if self.optimizer is not None:
            unpack_optimizer(self.optimizer, *state)


@dataclass(frozen=True)
class TailResult:
    """losses: mean loss of each batch. gradients: dL/d(output) of the unit, by output name."""

    losses: list[float]
    gradients: Tensors


def front_forward(
    front: nn.Module,
    x: Tensor,
    seeds: Sequence[int],
    device: torch.device,
    *,
    front_is_trained: bool,
    protected: Callable[[Tensors, int], Tensors] | None = None,
) -> Tensors:
    """Training forward of the front, with its graph: activations "0", "1", … of a whole unit.

    The batches are computed together where that gives the same numbers, else one by one.

    Args:
        x: inputs [batches * samples, …]. seeds: one a batch.
        front_is_trained: a frozen front is in evaluation mode, as it must not change in any way.
        protected: what becomes of the activations of a batch, given its place in the unit, before they leave.
    """
    front.train(front_is_trained)
    x = x.to(device)
    if is_samplewise(front):
        outputs = name_outputs(front(x))
        if protected is None:
            return outputs
        parts = {name: tensor.chunk(len(seeds)) for name, tensor in outputs.items()}
        batches = [{name: chunks[place] for name, chunks in parts.items()} for place in range(len(seeds))]
    else:
        batches = [_train_call(front, (piece,), seed) for piece, seed in zip(x.chunk(len(seeds)), seeds, strict=True)]
    if protected is not None:
        batches = [protected(one, place) for place, one in enumerate(batches)]
    return _joined(batches)


def front_backward(activations: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    """Add the front's gradient to its parameters' `.grad`.

    Args:
        gradients: the cut-layer gradient, for every activation that needs one.

    Raises:
        TensorMismatch: when names, shapes or dtypes do not fit the activations.
    """
    needed = differentiable(activations)
    if set(needed) != set(gradients):
        raise TensorMismatch(f"Cut-layer gradients came for {sorted(gradients)}; {needed} need one.")
    for name in needed:
        check_like(gradients[name], activations[name], f"cut-layer gradient '{name}'")
    torch.autograd.backward([activations[n] for n in needed], [gradients[n].to(activations[n]) for n in needed])


def tail_step(
    stepper: Stepper,
    outputs: Mapping[str, Tensor],
    differentiable: Iterable[str],
    labels: Tensor,
    seeds: Sequence[int],
) -> TailResult:
    """Tail forward, loss, backward and (in the rhythm "batch") step, batch by batch.

    Args:
        outputs: the body's outputs of the whole unit, [batches * samples, …].
        differentiable: names of the outputs that a gradient is wanted for.
        labels: int64 [batches * samples]. seeds: one a batch.

    Raises:
        NotFinite: when a loss is not.
        TensorMismatch: when the labels do not fit the model.
    """
    stepper.part.train()
    wanted = in_order(differentiable)
    order = in_order(outputs)
    here = next(iter(outputs.values())).device
    parts = {name: outputs[name].detach().chunk(len(seeds)) for name in order}
    losses: list[float] = []
    batches: list[Tensors] = []
    for i, (y, seed) in enumerate(zip(labels.to(here).chunk(len(seeds)), seeds, strict=True)):
        leaves = {name: parts[name][i].requires_grad_(name in wanted) for name in order}
        logits = _train_call(stepper.part, tuple(leaves.values()), seed)["0"]
        loss, value = _loss(logits, y)
        loss.backward()  # type: ignore[no-untyped-call]
        stepper.after_backward(1)
        losses.append(value)
        batches.append({name: _gradient(leaves[name]) for name in wanted})
    return TailResult(losses, _joined(batches))


def auxiliary_step(front: Stepper, aux: Stepper, activations: Mapping[str, Tensor], labels: Tensor, seed: int) -> float:
    """One batch on the loss of the auxiliary head alone: backward through head and front, and a step of both.

    Mu and Shen 2025 (CSE-FSL), arXiv:2507.15816: so a client trains without waiting for a cut-layer gradient.

    Args:
        activations: of the front, with their graph; the head takes the first that needs a gradient.
        labels: int64 [samples].

    Raises:
        NotFinite: when the loss is not.
        TensorMismatch: when the labels do not fit the model.
    """
    aux.part.train()
    first = activations[in_order(differentiable(activations))[0]]
    loss, value = _loss(_train_call(aux.part, (first,), seed)["0"], labels)
    loss.backward()  # type: ignore[no-untyped-call]
    for stepper in (front, aux):
        stepper.after_backward(1)
    return value


def evaluate(
    front: nn.Module, tail: nn.Module, predict: Callable[[Tensors], Tensors], x: Tensor, y: Tensor
) -> tuple[float, int]:
    """(summed cross entropy, right answers) of the joined model on one batch; `predict` is the body."""
    front.eval()
    tail.eval()
    with torch.no_grad():
        outputs = predict(name_outputs(front(x)))
        logits = tail(*(outputs[name] for name in in_order(outputs)))
        check_labels(y, logits)
        return functional.cross_entropy(logits, y, reduction="sum").item(), int((logits.argmax(1) == y).sum())


def exchanged(parts: Mapping[str, nn.Module], *, front_is_frozen: bool) -> Tensors:
    """The tensors that clients exchange, detached, named <part>.<…>.

    Args:
        parts: what a client holds, "front", "tail" and perhaps "aux". A front that never changes is not exchanged.
    """
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        if not (part == "front" and front_is_frozen)
        for name, tensor in module.state_dict().items()
    }


def load_exchanged(parts: Mapping[str, nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Give the parts the weights that `exchanged` took; a part without any keeps its own.

    Raises:
        TensorMismatch: when names or shapes do not fit.
    """
    for part, module in parts.items():
        prefix = f"{part}."
        state = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        try:
            if state:
                module.load_state_dict(state)
        except RuntimeError as error:
            raise TensorMismatch(f"The weights do not fit the {part}: {error}") from None


def pack_steppers(steppers: Mapping[str, Stepper]) -> OptimizerState:
    """(tensors, scalars) of several parts' optimizers, named <part>.<parameter index>.<state name>."""
    tensors: Tensors = {}
    scalars: Scalars = {}
    for part, stepper in steppers.items():
        own_tensors, own_scalars = stepper.state()
        tensors |= {f"{part}.{name}": tensor for name, tensor in own_tensors.items()}
        scalars |= {f"{part}.{name}": scalar for name, scalar in own_scalars.items()}
    return tensors, scalars


def unpack_steppers(steppers: Mapping[str, Stepper], state: OptimizerState) -> None:
    """Give the parts' optimizers the state that `pack_steppers` took, and forget gradients that no step has used."""
    for part, stepper in steppers.items():
        tensors, scalars = (
            {n.removeprefix(f"{part}."): v for n, v in group.items() if n.startswith(f"{part}.")} for group in state
        )
        stepper.load((tensors, scalars))
        stepper.reset()


def differentiable(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that need a gradient."""
    return [name for name, tensor in tensors.items() if tensor.requires_grad]


def _loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """The mean cross entropy of a batch, with its graph and as a number."""
    labels = labels.to(logits.device)
    check_labels(labels, logits)
    loss = functional.cross_entropy(logits, labels)
    value = loss.item()
    if not math.isfinite(value):
        raise NotFinite("The training loss is not finite: training diverges. A smaller learning rate may help.")
    return loss, value


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _joined(batches: Sequence[Tensors]) -> Tensors:
    """The tensors of several batches, those of a name one after the other."""
    if len(batches) == 1:
        return batches[0]
    return {name: torch.cat([one[name] for one in batches]) for name in batches[0]}


def _train_call(part: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> Tensors:
    if is_samplewise(part):  # and so draws no random number
        return name_outputs(part(*inputs))
    with seeded(seed, inputs):
        return name_outputs(part(*inputs))
