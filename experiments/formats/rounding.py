"""How far rounding moves the gradients that are stepped on: the tables of docs/decisions/0010-wire-formats.md.

    python -m experiments.formats.rounding FOLDER_OF_MNIST

Four rounds of training in one process, a step of every part each batch. For every batch the body's gradient is computed
from the exact output gradient and from what would arrive of it, the front's likewise from the cut-layer gradient.
Reported is |difference| ÷ |exact|, for one batch on average and for the sum over a round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import click
import numpy as np
import torch
from torch import Tensor, nn

from microsfl.compare.markdown import markdown_table
from microsfl.core.cut import cut_model
from microsfl.core.formats import COMPRESSED, ErrorFeedback, compress, expand, expanded
from microsfl.core.randomness import generator
from microsfl.zoo.datasets import load_data, take
from microsfl.zoo.models import build_model

CPU = torch.device("cpu")
ROUNDS = 4
SET_UPS = (("digits", "mlp", 32, 40), ("mnist", "linear-front", 64, 42), ("mnist", "cnn", 64, 30))  # batch, batches

Sent = Callable[[Tensor], Tensor]  # a gradient to what arrives of it


@dataclass
class Errors:
    """Of one way to send a gradient."""

    batches: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    exact: Tensor | float = 0.0
    rough: Tensor | float = 0.0

    def add(self, exact: Tensor, rough: Tensor) -> None:
        self.batches.append(float((exact - rough).norm() / exact.norm()))
        self.exact, self.rough = self.exact + exact, self.rough + rough

    def end_round(self) -> None:
        exact, rough = torch.as_tensor(self.exact), torch.as_tensor(self.rough)
        self.rounds.append(float((exact - rough).norm() / exact.norm()))
        self.exact = self.rough = 0.0


def nearest(format_: str) -> Sent:
    return lambda gradient: expand(*compress(gradient, format_))


def at_random() -> Sent:
    random = generator(0)
    return lambda gradient: expand(*compress(gradient, "int8", random))


def with_feedback(format_: str) -> Sent:
    feedback = ErrorFeedback(format_, is_on=True)
    return lambda gradient: expanded(feedback.compressed({"0": gradient}), format_, CPU)["0"]


def ways() -> dict[str, Sent]:
    found = {f"{format_}, to the nearest": nearest(format_) for format_ in COMPRESSED}
    found |= {f"{format_}, error feedback": with_feedback(format_) for format_ in COMPRESSED}
    return {**found, "int8, at random": at_random()}


def measured(data: str, model: str, batch: int, count: int, path: str) -> tuple[dict[str, Errors], dict[str, Errors]]:
    """Errors of the body's gradient and of the front's, by the way in which what they are computed from was sent."""
    loaded = load_data(data, path if data == "mnist" else None)
    x, y = take(loaded.train, np.arange(batch * count))
    whole = build_model(model, input_shape=loaded.input_shape, classes=10, seed=0, allowed=())
    parts = cut_model(whole, "auto", u_shaped=True)
    front, body = list(parts.front.parameters()), list(parts.body.parameters())
    optimizer = torch.optim.Adam([*front, *body, *parts.tail.parameters()], lr=0.003)
    order = generator(0)
    of_body, of_front = ({name: Errors() for name in ways()} for _ in range(2))
    for _ in range(ROUNDS):
        to_body, to_front = ways(), ways()
        for indices in torch.randperm(len(x), generator=order).split(batch):
            activations = parts.front(x[indices])
            outputs = parts.body(activations)
            leaf = outputs.detach().requires_grad_()
            optimizer.zero_grad()
            nn.functional.cross_entropy(parts.tail(leaf), y[indices]).backward()  # type: ignore[no-untyped-call]
            assert leaf.grad is not None
            cut = torch.autograd.grad(outputs, activations, leaf.grad, retain_graph=True)[0]
            compare(outputs, body, leaf.grad, to_body, of_body)
            compare(activations, front, cut, to_front, of_front)
            outputs.backward(leaf.grad)
            optimizer.step()
        for errors in (*of_body.values(), *of_front.values()):
            errors.end_round()
    return of_body, of_front


def compare(
    ends: Tensor, parameters: Sequence[Tensor], gradient: Tensor, sent: dict[str, Sent], errors: dict[str, Errors]
) -> None:
    exact = flat(torch.autograd.grad(ends, parameters, gradient, retain_graph=True))
    for name, way in sent.items():
        errors[name].add(exact, flat(torch.autograd.grad(ends, parameters, way(gradient), retain_graph=True)))


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


def main(arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    tables: list[dict[str, dict[str, str]]] = [{}, {}]
    for data, model, batch, count in SET_UPS:
        for table, found in zip(tables, measured(data, model, batch, count, arguments[0]), strict=True):
            for name, errors in found.items():
                one, whole = (sum(values) / len(values) for values in (errors.batches, errors.rounds))
                table.setdefault(name, {})[f"{data}, {model}"] = f"{100 * one:.2f} / {100 * whole:.2f}"
    for title, table in zip(("body, from output gradients", "front, from cut-layer gradients"), tables, strict=True):
        click.echo(f"\nPercent off, a batch / a round: {title}\n")
        rows = [{"sent": name, **table[name]} for name in sorted(table)]
        click.echo("\n".join(markdown_table(list(rows[0]), rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
