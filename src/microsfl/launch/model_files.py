"""The trained model as the files of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..client.addresses import Addresses
from ..client.choice import Choice
from ..client.transport import FedServer, SplitServers
from ..core.cut import Parts
from ..spec import RunSpec, Traits
from ..wire.tensors import decode, encode
from ..zoo.parts import build_parts, load_front
from .control import Control
from .run_folder import write_parts

Json = dict[str, Any]


def model_files(body: bytes | None, exchanged: bytes | None, initial: Parts) -> dict[str, bytes]:
    """The content of front, body and tail's safetensors files, of those parts that the model has.

    Args:
        body: the weights file of its last commit, kept as it is, so that its hash is the commit's. None: the strategy
            does not cut the model.
        exchanged: the weights file of what clients exchange, named front.<…> and tail.<…>. None: the weights never
            leave the clients, and there is no model.
        initial: the model as the run began; a part that is not exchanged is as it was then.
    """
    if exchanged is None:
        return {}
    tensors = decode(exchanged).tensors
    front = _named(tensors, "front.") or dict(initial.front.state_dict())
    return {
        **({"front": encode(front)} if front else {}),
        **({} if body is None else {"body": body}),
        "tail": encode(_named(tensors, "tail.")),
    }


def fetched(question: Json) -> Json:
    """Write the files of a run of `spec`, whose servers still answer, to `folder`; `coordinator` is its URL,
    `credential` the file of one to show there."""
    spec = RunSpec.parse(question["spec"])
    parts = build_parts(spec, [spec.model.name])
    load_front(spec, parts.front)
    weights = newest(
        Control(question["coordinator"], spec.run.name, credential=question.get("credential")), spec.strategy.traits
    )
    write_parts(Path(question["folder"]), model_files(*weights, parts))
    return {}


def newest(control: Control, traits: Traits) -> tuple[bytes | None, bytes | None]:
    """The newest weights files: of the body, and of what clients exchange; None for what the strategy lacks."""
    control.participants()
    split = SplitServers(control.ways.body, Choice("sticky", 0), Addresses(lambda: control.split_servers))
    fed = FedServer(control.ways.client_side, lambda: control.fed_server)
    body = split.weights(control.name)[1] if traits.split else None
    return body, fed.weights(control.name)[1] if traits.federated else None


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
