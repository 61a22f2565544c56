"""The tables of a specification, all but the strategy's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, field_validator, model_validator

from ..schema import Table
from .names import DATASETS, DEVICE_PATTERN, MODELS, PARTITIONS, SPREAD, Positive, Spread, check_id, known


class RunTable(Table):
    name: Annotated[str, AfterValidator(check_id)] = Field(
        "demo", description="The run's name; part of every key in the store."
    )
    rounds: Positive = Field(20, description="Global rounds.")
    seed: StrictInt = Field(0, ge=0, lt=2**31, description="Decides partition, initial weights, order and dropout.")
    participants: Literal["all"] | Positive = Field(
        "all", description="Clients that train in a round, drawn anew for each by the seed; all evaluate."
    )
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
        1.0,
        description="Share of those who train in a round that must be done before late, lost or failing ones are left "
        "out.",
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
    dataset: Annotated[str, known(DATASETS, import_path=True)] = Field(
        "digits",
        description="digits, mnist, or package.module:function returning (train, test) torch data sets.",
    )
    path: str | None = Field(None, description="Folder of the data set's files, for mnist; none: download it.")
    clients: Positive = Field(5, description="How many clients take part.")
    public: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of the train samples that no client gets: public data, to pre-train a front or to audit "
        "privacy with.",
    )
    partition: Annotated[str, known(PARTITIONS, import_path=False)] = Field(
        "dirichlet-label",
        description="How samples are divided: iid, dirichlet-label, dirichlet-size, shards. own: not at all, each "
        "client has data of its own and uses all of it.",
    )
    alpha: float = Field(0.5, gt=0, allow_inf_nan=False, description="Dirichlet concentration; smaller is more skewed.")
    shards_per_client: Positive = Field(2, description="For partition = shards: label-sorted shards a client.")
    batch_size: Positive = Field(32, description="Samples in a mini-batch.")


class ModelTable(Table):
    name: Annotated[str, known(MODELS, import_path=True)] = Field(
        "mlp",
        description="mlp, linear-front, cnn, resnet18, or package.module:function(input_shape, classes) -> nn.Module.",
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
    front_weights: str | None = Field(
        None, description="Safetensors file that the front begins with, as `microsfl pretrain` writes it."
    )
    front_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="Hash of that file; filled in when the run begins, and checked by whoever loads it."
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


class PrivacyTable(Table):
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Largest L2 norm of a sample in a tensor that leaves the front; larger ones are scaled down to it. "
        "0: no bound.",
    )
    noise_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0, description="Standard deviation of the Gaussian noise added to the smashed data, after clipping."
    )
    noise_seed: Literal["private", "run"] = Field(
        "private",
        description="private: each client draws noise that nobody else can. run: drawn from the run's seed, for "
        "experiments that are to be repeated; who knows the specification can subtract it.",
    )

    @property
    def protects(self) -> bool:
        """False when activations leave the front as they are."""
        return self.clip_norm > 0 or self.noise_std > 0


WireFormat = Literal["float32", "bfloat16", "float16", "int8"]


class WireTable(Table):
    activations: WireFormat = Field(
        "float32",
        description="What float32 activations and the body's outputs travel as, in training and in evaluation. int8: "
        "with a scale for each channel. float32: as they are.",
    )
    gradients: WireFormat = Field(
        "float32", description="What output gradients and cut-layer gradients travel as, where they are float32."
    )
    error_feedback: bool = Field(
        True,
        description="Add what rounding took from a unit's output gradients to those of the client's next unit in the "
        "round.",
    )


class LimitsTable(Table):
    max_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Largest L2 norm of a unit's body gradient, over its number of batches. 0: no bound but that of "
        "arithmetic.",
    )
    max_update_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Largest L2 norm of the difference between the client-side weights that a client hands in and "
        "those that the round began with. 0: no bound but that of arithmetic.",
    )
    on_excess: Literal["refuse", "clip"] = Field(
        "refuse",
        description="What is done with more: refuse, so that the client's round fails, or clip, which scales it down "
        "to the bound before it is stored.",
    )
    batches_per_round: Positive = Field(
        100_000, description="Batches that a client has in a round at most, all its local epochs together."
    )


class ServersTable(Table):
    split: Positive = Field(2, description="Split servers that `microsfl run` starts.")
    clients_per_process: Literal["auto"] | Positive = Field(
        "auto",
        description="Clients hosted by one process of `microsfl run`; auto: as many processes as cores.",
    )
    restarts: Annotated[StrictInt, Field(ge=0)] = Field(
        5, description="How often `microsfl run` starts a process again that ended without being told to."
    )
    threads: Positive = Field(
        1,
        description="Threads of one torch operation of a split server: more than 1 where a batch takes long and there "
        "are cores to spare.",
    )
    spread: Spread = Field("two", description=SPREAD)
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


class RayTable(Table):
    """How `microsfl run --on ray` places the processes; it decides nothing else."""

    min: Literal["auto"] | Positive = Field(
        "auto", description="With --on ray: fewest split servers, however little there is to do; auto: servers.split."
    )
    max: Literal["auto"] | Positive = Field(
        "auto",
        description="With --on ray: most split servers. Between the two, as many as the backlog needs; auto: "
        "servers.split, or ray.min where that is more.",
    )
    cpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1, description="With --on ray: CPUs that Ray keeps for a split server."
    )
    gpus: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        "auto", description="With --on ray: GPUs that it keeps for one; auto: 1 when servers.device is cuda, else none."
    )
    client_cpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1, description="With --on ray: CPUs that it keeps for a process of clients (servers.clients_per_process)."
    )
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(  # a table, so the last
        {}, description="With --on ray: resources of the cluster's own names that it keeps for a split server."
    )

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min != "auto" and self.max != "auto" and self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}.")
        return self

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # the resources are a dict, which has none

    def bounds(self, split: int) -> tuple[int, int]:
        """Fewest and most split servers, of a run that is to begin with so many."""
        fewest = min(split, self.max if self.max != "auto" else split) if self.min == "auto" else self.min
        return fewest, max(split, fewest) if self.max == "auto" else self.max


class StoreTable(Table):
    body: str = Field("auto", description="URL of the body area; auto: a folder in the run folder.")
    client: str = Field("auto", description="URL of the client area; auto: a folder in the run folder.")


class RecordsTable(Table):
    url: str = Field(
        "auto", description="SQLAlchemy URL of the coordinator's database; auto: SQLite in the run folder."
    )
