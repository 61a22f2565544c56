"""The messages of the data plane: which fields and which tensors each one carries (docs/reference/wire.md).

A message is a frozen value; `pack` and `unpack` turn it into the (fields, tensors) of a packet and back. Tensors that
cross a cut keep their names ("0", "1", …) behind a prefix that says what they are, and behind the name, where they are
compressed, how (`core.formats`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from ..core.unit import UnitKey
from ..errors import MalformedMessage
from ..spec import check_id
from .tensors import Buffer, decode, encode

Tensors = dict[str, Tensor]

ROUND_LIMIT = 10**9
BATCHES_LIMIT = 4096

Natural = Annotated[int, Field(ge=0, le=ROUND_LIMIT)]
Samples = Annotated[int, Field(ge=1, le=ROUND_LIMIT)]
Norm = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _id(what: str) -> AfterValidator:
    def check(value: str) -> str:
        return check_id(value, what)

    return AfterValidator(check)


class Message(BaseModel):
    """Base of the messages: strict types, no unknown fields; every dict of tensors is a field of its own."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)

    _groups: ClassVar[tuple[str, ...]] = ()  # fields that are dicts of tensors
    _defaults: ClassVar[tuple[tuple[str, Any], ...]] = ()  # the other fields

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls._groups = tuple(name for name, info in cls.model_fields.items() if info.annotation == Tensors)
        others = ((name, info) for name, info in cls.model_fields.items() if name not in cls._groups)
        cls._defaults = tuple((name, info.get_default(call_default_factory=True)) for name, info in others)

    def pack(self, *, hashed: bool = False) -> bytes:
        """The message as a packet; with its hash, as it is to stand in a file. A field at its default is left out."""
        fields: dict[str, Any] = {"type": type(self).__name__}
        for name, default in self._defaults:
            value = getattr(self, name)
            if value != default:
                fields[name] = value
        tensors = {f"{name}.{key}": tensor for name in self._groups for key, tensor in getattr(self, name).items()}
        return encode(tensors, fields, hashed=hashed)

    @classmethod
    def unpack(cls, body: Buffer, *, hashed: bool = False) -> Self:
        """The message in `body`; out of a file, where it has its hash.

        Raises:
            MalformedMessage, MessageTooLarge, NotFinite: see `wire.tensors.decode`; also when a field is missing,
                unknown or of the wrong type.
            InvalidId: when run or client cannot be an id.
        """
        packet = decode(body, hashed=hashed)
        values = dict(packet.fields)
        kind = values.pop("type", None)
        if kind != cls.__name__:
            raise MalformedMessage(f"The message is of type {kind!r:.60}; {cls.__name__!r} is wanted here.")
        groups: dict[str, Tensors] = {name: {} for name in cls._groups}
        for name, tensor in packet.tensors.items():
            group, _, key = name.partition(".")
            if group not in groups or not key:
                raise MalformedMessage(f"Tensor '{name}' does not belong into a {cls.__name__}.")
            groups[group][key] = tensor
        values.update((name, tuple(value)) for name, value in values.items() if isinstance(value, list))
        try:
            return cls.model_validate(values | groups)
        except pydantic.ValidationError as error:
            raise MalformedMessage(f"{cls.__name__}: {_first(error)}") from None


def _first(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']} (got {first.get('input')!r:.60})"


class UnitMessage(Message):
    """What every request about a unit says: its key, and how many equal batches it has."""

    run: Annotated[str, _id("run")]
    round: Natural
    client: Annotated[str, _id("client")]
    unit: Natural
    batches: Annotated[int, Field(ge=1, le=BATCHES_LIMIT)] = 1

    @property
    def key(self) -> UnitKey:
        return UnitKey(self.run, self.round, self.client, self.unit)


class Forward(UnitMessage):
    """Client -> split server. `needs_grad` names the activations that get a cut-layer gradient.

    version: compute with this one; null: with the newest, but none older than `at_least`. sticky: the backward will
    come to the same replica, unless that fails: handing the activations to the store is not urgent.
    """

    version: Natural | None = None
    at_least: Natural = 0
    needs_grad: tuple[str, ...] = ()
    sticky: bool = True
    activations: Tensors


class Outputs(Message):
    """Split server -> client. `version` was computed with; `differentiable` names the outputs that take a gradient."""

    version: Natural
    differentiable: tuple[str, ...] = ()
    outputs: Tensors


class Backward(UnitMessage):
    """Client -> split server. `activations` come along when the server asked for them again."""

    version: Natural
    needs_grad: tuple[str, ...] = ()
    gradients: Tensors
    activations: Tensors = Field(default_factory=dict)


class Step(UnitMessage):
    """Client -> split server, vanilla cut. `labels` holds one tensor, "0", int64 [batches * samples]."""

    version: Natural | None = None
    at_least: Natural = 0
    needs_grad: tuple[str, ...] = ()
    activations: Tensors
    labels: Tensors


class Gradients(Message):
    """Split server -> client: the contribution is stored. `newest` is the newest version that the server knows.

    gradients: the cut-layer gradient. losses: {"0": float32 [batches]} after a Step.
    """

    version: Natural
    newest: Natural
    gradients: Tensors = Field(default_factory=dict)
    losses: Tensors = Field(default_factory=dict)


class Predict(Message):
    """Client -> split server: evaluation forward with `version`, or with the newest when null. Answered by Outputs."""

    run: Annotated[str, _id("run")]
    version: Natural | None = None
    at_least: Natural = 0
    activations: Tensors


class Update(Message):
    """Client -> fed server: client-side weights after a round, named front.<…>, tail.<…> and perhaps aux.<…>.

    norm: of the difference to the weights that the round began with, before it was clipped, as the fed server found it;
    0: not known. optimizer, scalars: state of the client's optimizers, named likewise. It is not averaged: it is kept
    so that a client that comes back without its memory can go on as if nothing had been.
    """

    run: Annotated[str, _id("run")]
    round: Natural
    client: Annotated[str, _id("client")]
    samples: Samples
    norm: Norm = 0.0
    scalars: dict[str, float | int | bool | None] = Field(default_factory=dict)
    weights: Tensors
    optimizer: Tensors = Field(default_factory=dict)


class Stored(Message):
    """Fed server -> client: the update of this round is durable."""

    round: Natural


class Contribution(UnitMessage):
    """The file that a unit leaves: body gradient (sum over its batches) and buffers after the unit's forward.

    samples: in all batches together. version: of the body that computed it. norm: the L2 norm of the gradient over the
    number of batches, before it was clipped; 0: not known.
    """

    samples: Samples
    version: Natural
    norm: Norm = 0.0
    gradients: Tensors
    buffers: Tensors = Field(default_factory=dict)


class Activations(UnitMessage):
    """The hand-over file: what another replica needs to compute the unit again."""

    needs_grad: tuple[str, ...] = ()
    activations: Tensors
