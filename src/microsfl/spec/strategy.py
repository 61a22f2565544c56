"""The strategy's table: how front, body and tail are trained and brought together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationInfo, field_validator, model_validator

from ..schema import Table
from .names import AVERAGES, OPTIMIZERS, REDUCTIONS, SERVER_OPTIMIZERS, Positive, known
from .traits import TRAITS, Traits


class OptimizerTable(BaseModel):
    """`name` and `lr`; every further key goes to the torch.optim class as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, known(OPTIMIZERS, import_path=False)] = Field(
        description="A class of torch.optim that needs no closure."
    )
    lr: float = Field(gt=0, allow_inf_nan=False, description="Learning rate.")

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for the torch.optim class."""
        return {"lr": self.lr, **(self.__pydantic_extra__ or {})}


class ServerOptimizerTable(BaseModel):
    """An optimizer of the average: Reddi et al. 2021 (arXiv:2003.00295); FedAvgM: Hsu et al. 2019 (arXiv:1909.06335)"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, known(SERVER_OPTIMIZERS, import_path=False)] = Field("none", description="Which one.")
    lr: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Learning rate; for FedAdam and FedYogi 0.01 unless it is given."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Momentum; for FedAvgM too.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Of the second moment.")
    tau: float = Field(
        1e-3, gt=0, allow_inf_nan=False, description="Adaptivity: added to the root of the second moment."
    )

    @model_validator(mode="before")
    @classmethod
    def _lr_of_its_kind(cls, values: Any) -> Any:
        """An adaptive step is about lr long in every coordinate, however small the average's: 1 would be far off."""
        adaptive = isinstance(values, dict) and values.get("name") in ("FedAdam", "FedYogi")
        return {"lr": 0.01, **values} if adaptive else values

    @model_validator(mode="after")
    def _uses_what_it_is_given(self) -> Self:
        for key in {"none": ("lr", "beta1", "beta2", "tau"), "FedAvgM": ("beta2", "tau")}.get(self.name, ()):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} means nothing with name = '{self.name}': leave it out, or choose another name."
                )
        return self


class StrategyTable(Table):
    name: Annotated[str, known(tuple(TRAITS), import_path=False)] = Field(
        "filesync",
        description="filesync: a shared body, stepped on the averaged gradient files at each commit. sflv1: a copy of "
        "the body a client, averaged each round. sflv2: clients take turns at one body, a commit per unit. sl: the "
        "same, and the client-side model is handed on. cse-fsl: filesync with fronts trained on an auxiliary head. "
        "fedavg: the whole model on the client. local: the same, never averaged. centralized: one client, all data.",
    )
    sync: Literal["round"] | Positive = Field(
        "round",
        description="When gradients become a new version: once a round, or as soon as this many batches wait. "
        "For filesync and cse-fsl.",
    )
    reduce: Annotated[str, known(REDUCTIONS, import_path=False)] = Field(
        "mean-batches", description="How body gradients are combined: mean-batches, mean-samples or sum."
    )
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="Largest norm of the combined body gradient; a larger one is scaled down to it. 0: no bound."
    )
    staleness_discount: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="With sync = K, a contribution s versions old counts (1 + s) ** -staleness_discount; 0.5 is "
        "FedBuff's. 0: all count alike.",
    )
    max_staleness: Literal["auto"] | Annotated[StrictInt, Field(ge=0)] = Field(
        "auto",
        description="Contributions computed on a version older than this many commits are left out. "
        "auto: 0 for sync = round, else four versions a client.",
    )
    local_epochs: Positive = Field(1, description="Passes over its data that a client makes in a round.")
    unit: Literal["auto"] | Positive = Field(
        "auto",
        description="Batches that travel in one request. Only 1 is possible while the front is stepped each batch. "
        "auto: 1 then, and for every strategy but filesync; else as many as make about 256 KiB, with sync = K at most "
        "K / clients.",
    )
    front_update: Literal["batch", "round", "never"] = Field(
        "batch", description="When the front is stepped; never: it is frozen, in evaluation mode, and not exchanged."
    )
    tail_update: Literal["batch", "round"] = Field("batch", description="When the tail is stepped.")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant",
        description="Learning rates over the rounds, of body and clients: constant, cosine (down to 0 after the last "
        "round), step (times step_factor every step_rounds rounds).",
    )
    warmup_rounds: Annotated[StrictInt, Field(ge=0)] = Field(
        0, description="Rounds over which the learning rates rise to their full value."
    )
    step_rounds: Positive = Field(10, description="For schedule = step: rounds between two steps.")
    step_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="For schedule = step.")
    proximal_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="FedProx: pull of the client-side weights to those that the round began with."
    )
    average: Annotated[str, known(AVERAGES, import_path=False)] = Field(
        "mean",
        description="How client-side weights become one: mean (weighted by samples), median, trimmed-mean (both by "
        "coordinate, every client alike).",
    )
    trim: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.1, description="For average = trimmed-mean: share of the clients that is cut off at either end."
    )
    send_every: Positive = Field(
        5, description="For cse-fsl: a client sends the activations of every so many-th batch, and trains on all."
    )
    body_optimizer: OptimizerTable = Field(
        default_factory=lambda: OptimizerTable(name="Adam", lr=0.02),
        description="The body's optimizer: name, lr and any option of that torch.optim class.",
    )
    client_optimizer: OptimizerTable = Field(
        default_factory=lambda: OptimizerTable(name="SGD", lr=0.2),
        description="The optimizer of what a client trains; each client goes on with its own state in the next round.",
    )
    server_optimizer: ServerOptimizerTable = Field(
        default_factory=ServerOptimizerTable,
        description="How the fed server steps on the average: none takes it as it is; FedAvgM, FedAdam and FedYogi "
        "step on its difference to the weights before.",
    )

    @field_validator("body_optimizer", "client_optimizer", mode="before")
    @classmethod
    def _keep_what_is_not_given(cls, value: Any, info: ValidationInfo) -> Any:
        """Options without a name are options of the default optimizer."""
        default = cls.model_fields[str(info.field_name)].get_default(call_default_factory=True).model_dump()
        keeps = isinstance(value, dict) and value.get("name", default["name"]) == default["name"]
        return {**default, **value} if keeps else value

    @model_validator(mode="after")
    def _unit_is_possible(self) -> Self:
        if self.front_update == "batch" and self.unit not in ("auto", 1):
            raise ValueError(
                f"unit = {self.unit} cannot be with front_update = 'batch', whose every batch waits for the step "
                "before it: use unit = 1, or front_update = 'round' or 'never'."
            )
        return self

    @property
    def traits(self) -> Traits:
        """What kind of strategy this is."""
        return TRAITS[self.name]

    @property
    def commit_batches(self) -> Literal["round"] | int:
        """When contributions to a shared body become a version: "round", or as soon as this many batches wait."""
        return 1 if self.traits.turns else self.sync
