"""One unit of work on the body: forward, backward with or without recomputation, and the vanilla step.

Every function is pure: the body's parameters, buffers and `.grad` are left as they were, the global random state
too. What the forward changed in the buffers is returned. Tensors carry the samples of all batches of the unit along
dimension 0; all batches of a unit have the same number of samples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import TensorMismatch
from .randomness import seeded

Tensors = dict[str, Tensor]

# Modules whose output for a sample depends on that sample alone and on no random number. Only for these do several
# batches computed as one give the same numbers as one by one; a module that is not listed is never computed so.
SAMPLEWISE: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm,
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Hardtanh, nn.Hardswish,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d,
)  # fmt: skip


def is_samplewise(module: nn.Module) -> bool:
    """True when several batches can be computed as one: every leaf is listed and only containers hold them.

    A container is nn.Sequential (whose forward is known) or a class that says so itself with `samplewise = True`.
    """
    if type(module) in SAMPLEWISE or (type(module) is nn.Flatten and module.start_dim >= 1):
        return True
    known = type(module) is nn.Sequential or getattr(module, "samplewise", False) is True
    return known and all(is_samplewise(child) for child in module.children())


@dataclass(frozen=True)
class Forward:
    """A body forward with its autograd graph.

    body: whose parameters the graph leads to. inputs: leaves, named as they came. outputs: named "0", "1", … in order.
    buffers: the persistent buffers as this forward left them (empty for a body without buffers).
    """

    body: nn.Module
    inputs: Tensors
    outputs: Tensors
    buffers: Tensors

    def answer(self) -> Tensors:
        """The outputs, detached."""
        return {name: tensor.detach() for name, tensor in self.outputs.items()}

    def differentiable(self) -> list[str]:
        """Names of the outputs that a gradient can be given for."""
        return [name for name, tensor in self.outputs.items() if tensor.requires_grad]


@dataclass(frozen=True)
class Gradients:
    """body: gradient of each parameter that has one, summed over the unit's batches. inputs: the cut-layer gradient."""

    body: Tensors
    inputs: Tensors


def body_forward(
    body: nn.Module, inputs: Mapping[str, Tensor], *, needs_grad: Collection[str] = (), seeds: Sequence[int]
) -> Forward:
    """Training forward of one unit.

    Args:
        inputs: tensors [batches * samples, …] named "0", "1", …, given to the body in that order.
        needs_grad: names of the inputs that get a gradient.
        seeds: one a batch; torch's generators are seeded with it before the batch, where batches go one by one.

    Raises:
        TensorMismatch: when the body does not take these tensors, or they do not divide into equal batches.
    """
    _check_inputs(inputs, needs_grad, len(seeds))
    leaves = {name: inputs[name].detach().requires_grad_(name in needs_grad) for name in in_order(inputs)}
    buffers = {name: tensor.clone() for name, tensor in persistent_buffers(body).items()}
    _set_mode(body, training=True)
    if is_samplewise(body):
        outputs = _call(body, list(leaves.values()), buffers)
    else:
        chunks = [
            _run(body, buffers, chunk, seed) for chunk, seed in zip(_split(leaves, len(seeds)), seeds, strict=True)
        ]
        outputs = tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*chunks, strict=True))
    _check_outputs(leaves, outputs)
    return Forward(body, leaves, name_outputs(outputs), buffers)


def graph_bytes(
    body: nn.Module, inputs: Mapping[str, Tensor], needs_grad: Collection[str], seeds: Sequence[int]
) -> int:
    """Bytes that the graph of such a forward keeps alive, the body's own tensors not counted (it runs one to see)."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*body.parameters(), *body.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward = body_forward(body, inputs, needs_grad=needs_grad, seeds=seeds)
    for tensor in (*forward.inputs.values(), *forward.outputs.values(), *forward.buffers.values()):
        note(tensor)
    return sum(size for pointer, size in kept.items() if pointer not in own)


def body_backward(forward: Forward, output_gradients: Mapping[str, Tensor]) -> Gradients:
    """Gradients of one unit from those of its outputs. Consumes the graph of `forward`.

    Args:
        output_gradients: dL/d(output) for every differentiable output, of the output's shape; batches of the unit are
            separate losses, so the body gradient comes as their sum.

    Raises:
        TensorMismatch: when names, shapes or dtypes differ from the outputs'.
    """
    names = forward.differentiable()
    if set(names) != set(output_gradients):
        raise TensorMismatch(f"Gradients came for {sorted(output_gradients)}; the outputs that need one are {names}.")
    for name in names:
        check_like(output_gradients[name], forward.outputs[name], f"gradient of output '{name}'")
    return _gradients(forward, [forward.outputs[n] for n in names], [output_gradients[n] for n in names])


def body_step(forward: Forward, labels: Tensor, batches: int) -> tuple[Gradients, Tensor]:
    """Loss and gradients of one unit of a vanilla cut. Consumes the graph of `forward`.

    Args:
        labels: [batches * samples] int64, or whatever cross entropy takes as target.

    Returns:
        The gradients, and the mean cross entropy of each batch, [batches] float32.

    Raises:
        TensorMismatch: when the labels do not fit the outputs.
    """
    logits = forward.outputs["0"]
    check_labels(labels, logits)
    losses = [functional.cross_entropy(o, y) for o, y in zip(logits.chunk(batches), labels.chunk(batches), strict=True)]
    total = torch.stack(losses)
    return _gradients(forward, [total], [torch.ones_like(total)]), total.detach().float()


def body_predict(body: nn.Module, inputs: Mapping[str, Tensor]) -> Tensors:
    """Evaluation forward, without a graph: no dropout, running statistics used and not changed."""
    _set_mode(body, training=False)
    with torch.no_grad():
        return name_outputs(_call(body, [inputs[name] for name in in_order(inputs)]))


def persistent_buffers(module: nn.Module) -> Tensors:
    """The buffers that belong to the module's state (BatchNorm's running statistics, say)."""
    if next(module.buffers(), None) is None:
        return {}
    saved = module.state_dict(keep_vars=True).keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in saved}


def check_like(tensor: Tensor, wanted: Tensor, what: str) -> None:
    """Raises TensorMismatch unless shape and dtype are the wanted ones."""
    if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
        raise TensorMismatch(f"The {what} is {_describe(tensor)}; it should be {_describe(wanted)}.")


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Raises TensorMismatch unless `labels` are class numbers for `logits` [samples, classes, …]."""
    if logits.ndim < 2 or labels.dtype != torch.int64 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise TensorMismatch(f"The labels are {_describe(labels)}, which does not fit outputs {_describe(logits)}.")
    if labels.numel():
        low, high = (int(end) for end in torch.aminmax(labels))
        if low < 0 or high >= logits.shape[1]:
            raise TensorMismatch(f"The labels run from {low} to {high}; the model has {logits.shape[1]} classes.")


def name_outputs(outputs: Tensor | tuple[Tensor, ...]) -> Tensors:
    """Tensors that cross a cut, named by their position."""
    return {str(i): t for i, t in enumerate(outputs if isinstance(outputs, tuple) else (outputs,))}


def _set_mode(body: nn.Module, *, training: bool) -> None:
    """`body.train(training)`, which costs as much as a small body's forward, where it changes anything."""
    if any(module.training != training for module in body.modules()):
        body.train(training)


def _gradients(forward: Forward, ends: list[Tensor], end_gradients: list[Tensor]) -> Gradients:
    parameters = {name: p for name, p in forward.body.named_parameters() if p.requires_grad}
    leaves = {name: t for name, t in forward.inputs.items() if t.requires_grad}
    wanted = [*parameters.values(), *leaves.values()]
    if not wanted or not ends:
        return Gradients({}, {})
    found = torch.autograd.grad(ends, wanted, end_gradients, allow_unused=True)
    of_body, of_inputs = found[: len(parameters)], found[len(parameters) :]
    return Gradients(
        body={name: g for name, g in zip(parameters, of_body, strict=True) if g is not None},
        inputs={
            name: torch.zeros_like(leaf) if g is None else g
            for (name, leaf), g in zip(leaves.items(), of_inputs, strict=True)
        },
    )


def _run(body: nn.Module, buffers: Tensors, inputs: list[Tensor], seed: int) -> tuple[Tensor, ...]:
    """One training call under its own random numbers, changing `buffers` in place of the body's own."""
    with seeded(seed, inputs):
        return _call(body, inputs, buffers)


def _call(body: nn.Module, inputs: list[Tensor], buffers: Tensors | None = None) -> tuple[Tensor, ...]:
    try:
        outputs = torch.func.functional_call(body, buffers, tuple(inputs)) if buffers else body(*inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(_describe(t) for t in inputs)
        raise TensorMismatch(f"The body does not take {shapes}: {str(error).splitlines()[0]}") from error
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check_inputs(inputs: Mapping[str, Tensor], needs_grad: Collection[str], batches: int) -> None:
    for name, tensor in inputs.items():
        if tensor.ndim == 0 or not tensor.shape[0] or tensor.shape[0] % batches:
            raise TensorMismatch(
                f"Input '{name}' is {_describe(tensor)}; its first dimension does not divide into {batches} batches of "
                "one sample or more."
            )
        if name in needs_grad and not tensor.dtype.is_floating_point:
            raise TensorMismatch(f"Input '{name}' is {_describe(tensor)}, which takes no gradient.")


def _check_outputs(inputs: Mapping[str, Tensor], outputs: tuple[Tensor, ...]) -> None:
    """A body that is given one sample without its batch dimension may compute it all the same."""
    samples, first = next(iter(inputs.values())).shape[0], outputs[0]
    if first.ndim == 0 or first.shape[0] != samples:
        raise TensorMismatch(
            f"The body makes {_describe(first)} of {samples} samples; samples stand along the first dimension."
        )


def _split(leaves: Tensors, batches: int) -> list[list[Tensor]]:
    if batches == 1:
        return [list(leaves.values())]
    return [list(parts) for parts in zip(*(t.chunk(batches) for t in leaves.values()), strict=True)]


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def in_order(names: Iterable[str]) -> list[str]:
    """Names of tensors that cross a cut, in the order in which the part takes them: "2" before "10"."""
    return sorted(names, key=_order)


def _order(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isascii() and name.isdecimal() else (1 << 30, name)
