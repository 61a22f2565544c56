"""RemoteBody: the body on the split servers as an ordinary module in a user's own training loop."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..core.formats import ErrorFeedback, compressed, expanded
from ..core.step import name_outputs
from ..core.unit import UnitKey, seed_of
from ..errors import InputError, RunNotActive, Unreachable
from ..spec import RunSpec, check_id
from ..wire.messages import Backward, Forward, Outputs, Predict, Tensors
from ..wire.tensors import decode
from .addresses import Addresses
from .choice import Choice
from .coordinator import Coordinator
from .entitled import Ways
from .http import Http
from .transport import SplitServers

SERVERS_FRESH_S = 10.0


class RemoteBody(nn.Module):
    """The body of a run, computed and trained by its split servers.

        outputs = tail(body(front(x)))
        criterion(outputs, y).backward()      # the cut-layer gradient comes back, the body's gradient is stored there

    In training mode each call is a unit of one batch; its backward stores a contribution, and the run's `sync` decides
    when contributions become a new version (see also `close_round`). In evaluation mode, or under `torch.no_grad()`,
    the call predicts and leaves no trace. There are no parameters on this side: nothing to give to an optimizer.

    Args:
        run: name of a run that exists and was started with `run.managed = false`.
        coordinator: URL, as http://localhost:8000. With https, `MICROSFL_TLS_CA` names the file of the CA to trust,
            unless the credential has it or the system does; `MICROSFL_TLS_CLIENT_CERT` and `MICROSFL_TLS_CLIENT_KEY`
            name what to show to servers that want a certificate.
        client: this participant's id. Units are numbered by it from 0 on in each round, and a unit counts once: with a
            given id, a script that starts over replays its units. Default: a new id, so that nothing is a replay.
        retry_s: seconds to keep trying, on all split servers in turn, when none answers.
        credential: file of the credential to show; default: that of the `Federation` in this process, or the one that
            this user keeps for the coordinator.

    Raises:
        RunNotFound, InvalidId, Unreachable, UnsafeConnection. InputError: when the run is managed. RunNotActive: when
            it is not running.
    """

    def __init__(
        self,
        run: str,
        coordinator: str,
        *,
        client: str | None = None,
        retry_s: float = 60.0,
        credential: str | None = None,
    ) -> None:
        super().__init__()
        self.run = check_id(run, "run")
        self.client = check_id(client or f"body-{uuid.uuid4().hex[:12]}", "client")
        url = coordinator.rstrip("/")
        ways = Ways.of(Http(retry_s), url, credential)
        control = Coordinator(ways.coordinator, url)
        state = control.run(run)
        if state["spec"]["run"]["managed"]:
            raise InputError(f"Run '{run}' is managed: the coordinator drives it. Start one with run.managed = false.")
        if state["state"] != "running":
            raise RunNotActive(
                f"Run '{run}' is {state['state']}, not running; POST /api/runs/{run}/start starts a new one."
            )
        self._wire = RunSpec.parse(state["spec"]).wire
        self._gradients = ErrorFeedback(self._wire.gradients, is_on=self._wire.error_feedback)
        self._control = control
        self._asked_at = -SERVERS_FRESH_S
        self._servers = SplitServers(
            ways.body, Choice("two", seed_of("favourite", self.client)), Addresses(self._addresses)
        )
        self._newest = 0
        self._unit = 0
        self.round: int = self._servers.status(run)["open_round"]
        self._anchor = torch.zeros((), requires_grad=True)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The body's outputs for tensors [samples, …]; they come back on the device of the first input.

        Raises:
            TensorMismatch: when the body does not take these tensors.
            NotFinite, RoundClosed, Unreachable.
        """
        if not (self.training and torch.is_grad_enabled()):
            sent = self._sent(inputs)
            answer = self._servers.predict(Predict(run=self.run, at_least=self._newest, activations=sent))
            outputs = self._outputs(answer, inputs[0].device)
        else:
            outputs = _Crossing.apply(self, self._anchor, *inputs)  # type: ignore[no-untyped-call]
        return outputs if len(outputs) > 1 else outputs[0]

    def close_round(self) -> int:
        """Commit whatever still waits in this round, for all participants, and go on to the next; the new version."""
        answer = self._servers.call("/v1/reduce", {"run": self.run, "round": self.round})
        self._newest = max(self._newest, answer["version"])
        self.round, self._unit = self.round + 1, 0
        self._gradients.forget()
        return self._newest

    def weights(self) -> Tensors:
        """The newest version's state dict, to keep or to load into a local body."""
        return decode(self._servers.weights(self.run)[1]).tensors

    def extra_repr(self) -> str:
        return f"run={self.run!r}, client={self.client!r}, round={self.round}"

    def _addresses(self) -> list[str]:
        if time.monotonic() - self._asked_at > SERVERS_FRESH_S or not self._control.split_servers:
            self._asked_at = time.monotonic()
            with suppress(Unreachable):  # the servers go on without the coordinator
                self._control.participants()
        return self._control.split_servers

    def _send(self, inputs: tuple[Tensor, ...], needs_grad: tuple[str, ...]) -> tuple[UnitKey, Tensors, Outputs]:
        key = UnitKey(self.run, self.round, self.client, self._unit)
        self._unit += 1
        sent = self._sent(inputs)
        request = Forward(**vars(key), needs_grad=needs_grad, at_least=self._newest, activations=sent)
        return key, sent, self._servers.forward(request)

    def _send_back(
        self, key: UnitKey, version: int, needs_grad: tuple[str, ...], gradients: Tensors, sent: Tensors
    ) -> Tensors:
        given = self._gradients.compressed(gradients)
        request = Backward(**vars(key), version=version, needs_grad=needs_grad, gradients=given)
        answer = self._servers.backward(request, sent)
        self._newest = max(self._newest, answer.newest)
        return expanded(answer.gradients, self._wire.gradients, next(iter(gradients.values())).device)

    def _sent(self, inputs: tuple[Tensor, ...]) -> Tensors:
        """What crosses the cut, as it travels."""
        detached = {name: tensor.detach() for name, tensor in name_outputs(inputs).items()}
        return compressed(detached, self._wire.activations)

    def _outputs(self, answer: Outputs, device: torch.device) -> tuple[Tensor, ...]:
        outputs = expanded(answer.outputs, self._wire.activations, device)
        return tuple(outputs[name] for name in sorted(outputs, key=int))


class _Crossing(torch.autograd.Function):
    """Autograd across the cut. `_anchor` needs a gradient, so that backward is called also for a frozen front."""

    @staticmethod
    def forward(ctx: Any, body: RemoteBody, _anchor: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.needs_grad = tuple(str(i) for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed)
        ctx.body = body
        ctx.key, ctx.sent, answer = body._send(inputs, ctx.needs_grad)
        ctx.version = answer.version
        ctx.names = answer.differentiable
        outputs = body._outputs(answer, inputs[0].device)
        ctx.mark_non_differentiable(*(o for i, o in enumerate(outputs) if str(i) not in answer.differentiable))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given = {name: gradients[int(name)].contiguous() for name in ctx.names}
        back = ctx.body._send_back(ctx.key, ctx.version, ctx.needs_grad, given, ctx.sent)
        count = len(ctx.needs_input_grad) - 2
        return None, None, *(back.get(str(i)) for i in range(count))
