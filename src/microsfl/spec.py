"""RunSpec: everything that decides a run's result, in one immutable, serializable value.

The specification travels as JSON and is stored once per run (`run.json`). This module imports no torch: the
coordinator and the command line check it before any tensor exists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .errors import InvalidId, InvalidSetting, did_you_mean
from .schema import Table, setting_error

ID_PATTERN = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}"

# torch.optim's optimizers that step without a closure and on dense gradients (LBFGS and SparseAdam do not).
OPTIMIZERS = (
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD",
)  # fmt: skip
STRATEGIES = ("filesync",)
PARTITIONS = ("iid", "dirichlet-label", "dirichlet-size", "shards")
DATASETS = ("digits", "mnist")
MODELS = ("mlp", "cnn", "resnet18")
REDUCTIONS = ("mean-batches", "mean-samples", "sum")
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:\d+)?)$"
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_id(value: str, what: str = "id") -> str:
    """`value`, if it can name a run, client or participant in a key, a URL and a file name alike.

    Raises:
        InvalidId: for anything but 1-64 letters, digits, `-`, `_` and single dots, starting with a letter or digit.
    """
    if not re.fullmatch(ID_PATTERN, value):
        shown = repr(value[:40]) + ("…" if len(value) > 40 else "")
        raise InvalidId(
            f"{what} {shown} ({len(value)} characters) is not allowed: use 1 to 64 letters, digits, '-', '_' or "
            "single dots, starting with a letter or a digit."
        )
    return value


def _known(names: Sequence[str], *, import_path: bool) -> AfterValidator:
    def check(value: str) -> str:
        if value in names or (import_path and IMPORT_PATH.fullmatch(value)):
            return value
        other = " Or name your own as 'package.module:function'." if import_path else ""
        raise ValueError(f"'{value}' is unknown.{did_you_mean(value, names)}{other}")

    return AfterValidator(check)


Positive = Annotated[StrictInt, Field(ge=1)]


class RunTable(Table):
    name: Annotated[str, AfterValidator(check_id)] = Field(
        "demo", description="The run's name; part of every key in the store."
    )
    rounds: Positive = Field(20, description="Global rounds.")
    seed: StrictInt = Field(0, ge=0, lt=2**31, description="Decides partition, initial weights, order and dropout.")
    managed: bool = Field(
        True,
        description="true: the coordinator hands out the rounds to registered clients. "
        "false: your own training loops drive the run through RemoteBody.",
    )
    deadline_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0,
        description="Seconds for a round's training, and for its evaluation, until late clients are left out; 0: none.",
    )
    quorum: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of the clients that must have trained before late or lost ones are left out."
    )
    give_up_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        600,
        description="Seconds that a run waits for clients without progress before it fails, with everything kept. "
        "Where there is no deadline_s, a sign of life of a client is progress.",
    )

    @model_validator(mode="after")
    def _quorum_needs_a_deadline(self) -> Self:
        if self.quorum < 1 and not self.deadline_s:
            raise ValueError(f"quorum = {self.quorum:g} leaves nobody out without a deadline; set run.deadline_s too.")
        return self


class DataTable(Table):
    dataset: Annotated[str, _known(DATASETS, import_path=True)] = Field(
        "digits",
        description="digits, mnist, or package.module:function returning (train, test) torch data sets.",
    )
    path: str | None = Field(None, description="Folder of the data set's files, for mnist; none: download it.")
    clients: Positive = Field(5, description="How many clients take part.")
    partition: Annotated[str, _known(PARTITIONS, import_path=False)] = Field(
        "dirichlet-label",
        description="How samples are divided: iid, dirichlet-label, dirichlet-size, shards.",
    )
    alpha: float = Field(0.5, gt=0, allow_inf_nan=False, description="Dirichlet concentration; smaller is more skewed.")
    shards_per_client: Positive = Field(2, description="For partition = shards: label-sorted shards a client.")
    batch_size: Positive = Field(32, description="Samples in a mini-batch.")


class ModelTable(Table):
    name: Annotated[str, _known(MODELS, import_path=True)] = Field(
        "mlp",
        description="mlp, cnn, resnet18, or package.module:function(input_shape, classes) -> nn.Module.",
    )
    cut: Literal["auto"] | tuple[str, ...] = Field(
        "auto",
        description="The last layer of the front and the last layer of the body, by name; one name when "
        "u_shaped is false. auto: the cut that the model declares.",
    )
    u_shaped: bool = Field(
        True,
        description="true: the tail and the labels stay on the client. false: labels travel with the activations.",
    )
    input_shape: Literal["auto"] | tuple[Positive, ...] = Field(
        "auto", description="Shape of one sample, [channels, height, width]; auto: the data set's."
    )
    classes: Literal["auto"] | Positive = Field("auto", description="Number of classes; auto: the data set's.")

    @field_validator("cut")
    @classmethod
    def _one_or_two_names(cls, value: Any) -> Any:
        if value != "auto" and len(value) not in (1, 2):
            raise ValueError(f"{list(value)} names {len(value)} layers; name one (front) or two (front, body).")
        return value


class OptimizerTable(BaseModel):
    """`name` and `lr`; every further key goes to the torch.optim class as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, _known(OPTIMIZERS, import_path=False)] = Field(
        description="A class of torch.optim that needs no closure."
    )
    lr: float = Field(gt=0, allow_inf_nan=False, description="Learning rate.")

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for the torch.optim class."""
        return {"lr": self.lr, **(self.__pydantic_extra__ or {})}


class StrategyTable(Table):
    name: Annotated[str, _known(STRATEGIES, import_path=False)] = Field(
        "filesync",
        description="filesync: a shared body, stepped on the averaged gradient files at each commit.",
    )
    sync: Literal["round"] | Positive = Field(
        "round",
        description="When gradients become a new version: once a round, or as soon as this many batches wait.",
    )
    reduce: Annotated[str, _known(REDUCTIONS, import_path=False)] = Field(
        "mean-batches", description="How body gradients are combined: mean-batches, mean-samples or sum."
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
        "auto: 1 then, else 16 with sync = 'round', or sync / clients.",
    )
    front_update: Literal["batch", "round", "never"] = Field(
        "batch", description="When the front is stepped; never: it is frozen, in evaluation mode, and not exchanged."
    )
    tail_update: Literal["batch", "round"] = Field("batch", description="When the tail is stepped.")
    body_optimizer: OptimizerTable = Field(
        default_factory=lambda: OptimizerTable(name="Adam", lr=0.02),
        description="The body's optimizer: name, lr and any option of that torch.optim class.",
    )
    client_optimizer: OptimizerTable = Field(
        default_factory=lambda: OptimizerTable(name="SGD", lr=0.2),
        description="The optimizer of front and tail on each client; its state stays there from round to round.",
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


class ServersTable(Table):
    split: Positive = Field(2, description="Split servers that `microsfl run` starts.")
    clients_per_process: Literal["auto"] | Positive = Field(
        "auto",
        description="Clients hosted by one process of `microsfl run`; auto: as many processes as cores.",
    )
    restarts: Annotated[StrictInt, Field(ge=0)] = Field(
        5, description="How often `microsfl run` starts a process again that ended without being told to."
    )
    spread: Literal["sticky", "random"] = Field(
        "sticky",
        description="Which replica a client asks: mostly the same one, or any, at random, each time.",
    )
    graph_cache_mb: float = Field(
        256,
        ge=0,
        allow_inf_nan=False,
        description="Bound of a split server's cache of autograd graphs, in MB (10^6 bytes).",
    )
    weights_cache_mb: float = Field(
        512,
        ge=0,
        allow_inf_nan=False,
        description="Bound of a split server's cache of versions, in MB (10^6 bytes).",
    )
    device: str = Field(
        "cpu", pattern=DEVICE_PATTERN, description="Where split servers compute: cpu, cuda, mps or auto."
    )
    client_device: str = Field(
        "cpu", pattern=DEVICE_PATTERN, description="Where clients compute: cpu, cuda, mps or auto."
    )


class StoreTable(Table):
    body: str = Field("auto", description="URL of the body area; auto: a folder in the run folder.")
    client: str = Field("auto", description="URL of the client area; auto: a folder in the run folder.")


class RecordsTable(Table):
    url: str = Field(
        "auto", description="SQLAlchemy URL of the coordinator's database; auto: SQLite in the run folder."
    )


class RunSpec(Table):
    """A whole run. Immutable; equal specifications are equal values."""

    run: RunTable = RunTable()
    data: DataTable = DataTable()
    model: ModelTable = ModelTable()
    strategy: StrategyTable = StrategyTable()
    servers: ServersTable = ServersTable()
    store: StoreTable = StoreTable()
    records: RecordsTable = RecordsTable()

    @model_validator(mode="after")
    def _cut_fits_shape(self) -> Self:
        if self.model.u_shaped and self.model.cut != "auto" and len(self.model.cut) != 2:
            raise ValueError(
                f"model.cut = {list(self.model.cut)} names one layer, but a U-shaped cut needs two, the last of the "
                "front and the last of the body; or set model.u_shaped = false."
            )
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunSpec:
        """The specification from nested tables.

        Raises:
            UnknownSetting: for a key that does not exist; the message names the nearest right one.
            InvalidSetting: for a value that is not allowed; the message names it and what would be right.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise setting_error(cls, error, "microsfl config --show") from None
        except InvalidId as error:
            raise InvalidSetting(f"run.name: {error}") from None

    def resolved(self, *, input_shape: Sequence[int], classes: int) -> RunSpec:
        """The specification with every `auto` that decides a result replaced by its value."""
        strategy, model = self.strategy, self.model
        staleness = 0 if strategy.sync == "round" else 4 * self.data.clients
        return self.model_copy(
            update={
                "model": model.model_copy(
                    update={
                        "input_shape": tuple(input_shape) if model.input_shape == "auto" else model.input_shape,
                        "classes": classes if model.classes == "auto" else model.classes,
                    }
                ),
                "strategy": strategy.model_copy(
                    update={
                        "unit": self._auto_unit() if strategy.unit == "auto" else strategy.unit,
                        "max_staleness": staleness if strategy.max_staleness == "auto" else strategy.max_staleness,
                    }
                ),
            }
        )

    def _auto_unit(self) -> int:
        strategy = self.strategy
        if strategy.front_update == "batch":
            return 1
        if strategy.sync == "round":
            return 16
        return max(1, strategy.sync // self.data.clients)

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The settings that decide a result and still say `auto`; a run exists only with none."""
        deciding = {
            "model.input_shape": self.model.input_shape,
            "model.classes": self.model.classes,
            "strategy.unit": self.strategy.unit,
            "strategy.max_staleness": self.strategy.max_staleness,
        }
        return tuple(name for name, value in deciding.items() if value == "auto")

    @property
    def decisive(self) -> RunSpec:
        """What decides the result of an undisturbed run: not where and on how many processes it is computed, and not
        how long it waits for whom."""
        patience = RunTable().model_dump(include={"deadline_s", "quorum", "give_up_s"})
        run = self.run.model_copy(update=patience)
        data = self.data.model_copy(update={"path": None})
        return RunSpec(run=run, data=data, model=self.model, strategy=self.strategy)

    def to_json(self) -> str:
        """Canonical JSON: equal specifications give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
