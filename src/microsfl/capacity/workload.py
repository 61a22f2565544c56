"""What a run asks of clients, servers, links and store, in numbers: read from its specification, model and data."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.codec import make_optimizer, pack_optimizer
from ..core.cut import Parts
from ..core.formats import size_bytes
from ..core.step import body_predict, graph_bytes, name_outputs
from ..errors import InvalidSetting
from ..launch.rehearsal import rehearse
from ..spec import OptimizerTable, RunSpec
from ..zoo.parts import build_parts, client_side, load_front
from . import cost

EVALUATION_BATCH = 512  # samples that a client evaluates in one request


@dataclass(frozen=True)
class Sizes:
    """Bytes. activations, outputs: of one sample at the two cuts, as they travel. gradient: those of a gradient ÷ those
    of what it is the gradient of. body, body_optimizer: parameters of the body, and its optimizer's state. client_side,
    client_optimizer: weights that clients exchange, and the state of their optimizers. graph: of the body's forward of
    a unit, without its parameters.
    """

    activations: float
    outputs: float
    gradient: float
    body: int
    body_optimizer: int
    client_side: int
    client_optimizer: int
    graph: int


@dataclass(frozen=True)
class Workload:
    """A run. train, test: samples of each client that trains in a round. evaluating: clients that evaluate."""

    spec: RunSpec
    train: tuple[int, ...]
    test: tuple[int, ...]
    evaluating: int
    sizes: Sizes

    @property
    def unit(self) -> int:
        unit = self.spec.strategy.unit
        return unit if isinstance(unit, int) else 1

    @property
    def epochs(self) -> int:
        return self.spec.strategy.local_epochs

    @property
    def batch(self) -> int:
        return self.spec.data.batch_size

    @property
    def samples_per_unit(self) -> int:
        """Of a unit of full length, or of a client's only one."""
        return min(self.unit * self.batch, max(self.train))

    def units(self, samples: int) -> int:
        """That a client with so many samples trains on in a round, sent to the body or not."""
        return cost.units(samples, self.batch, self.unit, self.epochs)

    def sent(self, samples: int) -> int:
        """Of these, what is sent to the body."""
        strategy = self.spec.strategy
        if not strategy.traits.split:
            return 0
        units = self.units(samples)
        return -(-units // strategy.send_every) if strategy.traits.auxiliary else units

    def crossing(self, samples: int) -> tuple[float, float, int]:
        """(bytes up, bytes down, requests) between one client and the split servers in a round."""
        strategy = self.spec.strategy
        if not strategy.traits.split:
            return 0.0, 0.0, 0
        if strategy.traits.auxiliary:  # every so-many-th batch, whose cut-layer gradient nobody waits for
            sent = min(self.sent(samples) * self.batch, samples * self.epochs)
            return self._crossing(sent, 1, front_trained=False)
        return self._crossing(samples, self.epochs, front_trained=strategy.front_update != "never")

    def _crossing(self, samples: int, epochs: int, *, front_trained: bool) -> tuple[float, float, int]:
        """Gradients may travel in another format: up goes that of the outputs, down that of the activations."""
        sizes, about = self.sizes, {"u_shaped": self.spec.model.u_shaped, "front_trained": front_trained}
        asked = (samples, self.batch, self.unit)
        outputs, gradient = sizes.outputs, sizes.gradient
        up, _, requests = cost.crossing(*asked, sizes.activations, outputs * gradient, epochs=epochs, **about)
        _, down, _ = cost.crossing(*asked, sizes.activations * gradient, outputs, epochs=epochs, **about)
        return up, down, requests

    def handed(self) -> tuple[int, int, int]:
        """(bytes up, bytes down, requests) between one client and the fed server in a round."""
        if not self.spec.strategy.traits.federated:
            return 0, 0, 0
        return cost.hand_out(self.sizes.client_side, self.sizes.client_optimizer)


def workload(spec: RunSpec, samples: int | None = None) -> Workload:
    """Of a resolved specification. The user's own model and data may be imported.

    Args:
        samples: that each client has, whatever the data set has; default: the run's division of the data set.

    Raises:
        InputError: what is wrong with the specification.
    """
    if samples is None:
        rehearsal = rehearse(spec, devices=False)
        parts = rehearsal.parts
        train = [len(share.train) for share in rehearsal.shares]
        test = [len(share.test) for share in rehearsal.shares]
    else:
        parts = build_parts(spec, [spec.model.name])
        load_front(spec, parts.front)
        train, test = [samples] * spec.run_clients, [0] * spec.run_clients
    chosen = max(1, spec.participants)
    evaluating = len(train)
    # A round draws who trains; over many rounds, a client of any size as often as another.
    train = sorted(train)[:: max(1, len(train) // chosen)][:chosen]
    return Workload(spec, tuple(train), tuple(test), evaluating, sizes_of(spec, parts))


def sizes_of(spec: RunSpec, parts: Parts) -> Sizes:
    """Of the parts of a run's model, which are left as they are."""
    if spec.model.input_shape == "auto":
        raise InvalidSetting("model.input_shape must be known; 'auto' is resolved before a run is planned.")
    strategy = spec.strategy
    unit = strategy.unit if isinstance(strategy.unit, int) else 1
    split = strategy.traits.split
    activations, outputs, graph = _crossing(spec, parts, spec.data.batch_size, spec.model.input_shape)
    held = client_side(spec, parts)
    exchanged = {name: part for name, part in held.items() if name != "front" or strategy.front_update != "never"}
    wire = spec.wire
    sent = size_bytes(activations, wire.activations, scales=False)
    plain = sum(tensor.nbytes for tensor in activations.values())
    back = size_bytes(activations, wire.gradients, scales=False)
    return Sizes(
        activations=sent / spec.data.batch_size if split else 0.0,
        outputs=size_bytes(outputs, wire.activations, scales=False) / spec.data.batch_size if split else 0.0,
        gradient=(back / sent) if split and sent and plain else 1.0,
        body=_bytes(parts.body),
        body_optimizer=_optimizer_bytes(parts.body, strategy.body_optimizer) if split else 0,
        client_side=sum(_state_bytes(part) for part in exchanged.values()) if strategy.traits.federated else 0,
        client_optimizer=sum(_optimizer_bytes(part, strategy.client_optimizer) for part in exchanged.values()),
        graph=graph * unit,
    )


def _crossing(
    spec: RunSpec, parts: Parts, batch: int, shape: tuple[int, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Activations and outputs of a batch, and the bytes that the body's graph of it keeps."""
    front, body = copy.deepcopy(parts.front).eval(), copy.deepcopy(parts.body)
    with torch.no_grad():
        activations = {
            name: tensor[:batch] for name, tensor in name_outputs(front(torch.zeros(max(2, batch), *shape))).items()
        }
    if not spec.strategy.traits.split:
        return activations, {}, 0
    needs_grad = [name for name in activations if activations[name].is_floating_point()]
    kept = graph_bytes(body, activations, needs_grad if spec.strategy.front_update != "never" else [], [0])
    return activations, body_predict(body, activations), kept


def _bytes(part: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in part.parameters())


def _state_bytes(part: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in part.state_dict().values())


def _optimizer_bytes(part: nn.Module, rule: OptimizerTable) -> int:
    """Of its state after a first step."""
    parameters = [parameter for parameter in copy.deepcopy(part).parameters() if parameter.requires_grad]
    if not parameters:
        return 0
    optimizer = make_optimizer(rule.name, parameters, rule.options)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return sum(tensor.nbytes for tensor in pack_optimizer(optimizer)[0].values())


def as_json(workload: Workload) -> dict[str, Any]:
    """What a calibration is for: it says nothing about another model or another way to train it."""
    spec = workload.spec
    return {
        "model": spec.model.name,
        "cut": spec.model.cut if spec.model.cut == "auto" else list(spec.model.cut),
        "u_shaped": spec.model.u_shaped,
        "strategy": spec.strategy.name,
        "front_update": spec.strategy.front_update,
        "body_bytes": workload.sizes.body,
        "client_bytes": workload.sizes.client_side,
    }
