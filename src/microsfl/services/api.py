"""The JSON of the coordinator's API: what it takes, checked, and what it answers. Times are UTC unix seconds."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints, model_validator

from ..config import HttpUrl
from ..core.commands import Evaluate, Task, Train, missing, takes_part
from ..core.rounds import Evaluated, Event, TaskFailed, Trained
from ..core.run_state import Phase, RunState, Status
from ..records import Participant, Row
from ..spec import check_id
from .run import Run
from .run import absent as absent_of

MAX_WAIT_S = 30.0
MAX_INFO_CHARS = 10_000
MAX_REASON_CHARS = 1_000
MAX_COUNT = 2**63 - 1

RunName = Annotated[str, AfterValidator(lambda value: check_id(value, "run name"))]
ClientId = Annotated[str, AfterValidator(lambda value: check_id(value, "client id"))]
ParticipantId = Annotated[str, AfterValidator(lambda value: check_id(value, "participant id"))]
# A URL without spaces or control characters, which not every database would keep.
Address = Annotated[HttpUrl, StringConstraints(max_length=2000, pattern=r"^[!-~]+$")]
Count = Annotated[StrictInt, Field(ge=0, le=MAX_COUNT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WaitS = Annotated[float, Field(ge=0, le=MAX_WAIT_S, description="Longest time to wait for news, in seconds.")]
Role = Literal["client", "split-server", "fed-server"]
Progress = Literal["train", "evaluate", "done", "left_out"]


class Request(BaseModel):
    """A body: every field is known, and has its type without conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Registration(Request):
    id: ParticipantId
    role: Role
    address: Address | None = Field(None, description="URL of a server; a client has none.")
    info: dict[str, Any] = Field({}, description="Anything small about the process, for people to read.")

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if (self.role == "client") != (self.address is None):
            raise ValueError("address: a server needs one, a client has none")
        if len(str(self.info)) > MAX_INFO_CHARS:
            raise ValueError(f"info: is longer than {MAX_INFO_CHARS} characters")
        return self


class Poll(Request):
    clients: list[ClientId] = Field(min_length=1, max_length=10_000, description="The clients that one process hosts.")
    wait_s: WaitS = 0


class Problem(Request):
    code: str
    message: str


class TrainMetrics(Request):
    train_loss: Finite | None = Field(description="Mean over the round's samples; null when there was none.")
    samples: Count
    batches: Count
    seconds: Seconds
    bytes_up: Count
    bytes_down: Count
    bytes_saved: Count | None = Field(None, description="That were not sent, because the front trains by itself.")
    started_at: Seconds

    def row(self) -> Row:
        return self.model_dump()


class EvaluateMetrics(Request):
    test_loss: Finite | None = Field(description="Mean over the test samples; null when there is none.")
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    test_samples: Count
    seconds: Seconds
    bytes_up: Count
    bytes_down: Count
    started_at: Seconds

    def row(self) -> Row:
        """The columns; what training has too is told apart by its prefix."""
        own = ("test_loss", "test_accuracy", "test_samples")
        return {name if name in own else f"eval_{name}": value for name, value in self.model_dump().items()}


MetricsOf = TypeVar("MetricsOf", TrainMetrics, EvaluateMetrics)


class _Report(Request, Generic[MetricsOf]):
    """A client's word on its task: metrics when it is done, an error when it cannot be."""

    client: ClientId
    round: Count
    metrics: MetricsOf | None = None
    error: Problem | None = None

    @model_validator(mode="after")
    def _metrics_or_error(self) -> Self:
        if (self.metrics is None) == (self.error is None):
            raise ValueError("a report has either metrics or an error")
        return self


class TrainReport(_Report[TrainMetrics]):
    kind: Literal["train"]


class EvaluateReport(_Report[EvaluateMetrics]):
    kind: Literal["evaluate"]


Report = Annotated[TrainReport | EvaluateReport, Field(discriminator="kind")]


def event_of(report: TrainReport | EvaluateReport) -> Event:
    """What the report means to the run."""
    client, round_ = report.client, report.round
    training = isinstance(report, TrainReport)
    if report.error is None:
        return Trained(client, round_) if training else Evaluated(client, round_)
    said = f"{report.error.message} ({report.error.code})"[:MAX_REASON_CHARS]
    task = Train(client, round_) if training else Evaluate(client, round_)
    return TaskFailed(task, said)


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    role: Literal["coordinator"] = "coordinator"
    version: str


class ParticipantJson(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    role: Role
    address: str | None
    info: dict[str, Any]
    first_seen: float
    last_seen: float
    alive: bool = Field(description="heard of within its lease")


class Registered(ParticipantJson):
    split_servers: list[str] = Field(description="URLs to ask, as in the answer to a poll")
    fed_server: str | None


class Participants(BaseModel):
    participants: list[ParticipantJson]


class RoundResult(BaseModel):
    """A round that is over. Means weigh by samples, except `accuracy_mean`; null is a mean of nothing."""

    round: int
    accuracy: float | None = Field(None, description="0 to 1, weighted by test samples")
    accuracy_mean: float | None = Field(None, description="plain mean over the clients that have test samples")
    loss: float | None = None
    train_loss: float | None = None
    samples: int | None = None
    seconds: float | None = Field(None, description="wall time of training and sync, without evaluation")
    samples_per_s: float | None = None


class Absence(BaseModel):
    client: str
    phase: Phase
    reason: str


class RoundRow(RoundResult):
    """A round, over or not; null is what has not happened yet."""

    body_version: int | None = None
    client_version: int | None = None
    contributions: int | None = Field(None, description="in the round's last commit")
    left_out: int | None = Field(None, description="contributions that the commit settled without using them")
    batches: int | None = None
    started_at: float | None = None
    synced_at: float | None = None
    ended_at: float | None = None
    absent: list[Absence] = Field([], description="clients that the round went on without")


class Rounds(BaseModel):
    rounds: list[RoundRow]


class MetricsRow(BaseModel):
    round: int
    client: str
    train_loss: float | None
    samples: int | None
    batches: int | None
    seconds: float | None
    bytes_up: int | None
    bytes_down: int | None
    bytes_saved: int | None = Field(description="not sent, where the front trains by itself; null for other strategies")
    started_at: float | None
    test_loss: float | None
    test_accuracy: float | None
    test_samples: int | None
    eval_seconds: float | None
    eval_bytes_up: int | None
    eval_bytes_down: int | None
    eval_started_at: float | None


class Metrics(BaseModel):
    metrics: list[MetricsRow]


class RunJson(BaseModel):
    name: str
    state: Status
    phase: Phase | None = Field(description="of the current round; null unless a managed run is running")
    round: int = Field(description="the current or last round, from 0")
    rounds: int
    reason: str | None = Field(description="why the run failed")
    revision: int = Field(description="grows with every change; wait for the next with ?after=")
    body_version: int
    client_version: int
    clients: list[str] = Field(description="in index order; empty until the run begins")
    progress: dict[str, Progress] = Field(
        description="what each client that has a part in a running round's phase has to do; with turns, sooner or later"
    )
    overdue: bool = Field(description="the phase's deadline has passed; the run waits for its quorum")
    away: list[str] = Field(description="clients that were left out or fell silent, and have not asked for work since")
    spec: dict[str, Any]
    history: list[RoundResult]
    created_at: float


class Runs(BaseModel):
    runs: list[RunJson]


class TaskJson(BaseModel):
    kind: Literal["train", "evaluate"]
    run: str
    round: int
    client: str
    index: int = Field(description="position of the client in the run's list of clients")
    body_version: int
    client_version: int
    after: str | None = Field(
        description="where client-side weights are handed on: the client whose update of this round to train on from; "
        "null: begin with the client version"
    )


class PollAnswer(BaseModel):
    tasks: list[TaskJson]
    split_servers: list[str]
    fed_server: str | None


class ReportAnswer(BaseModel):
    accepted: bool = Field(description="false: it was not this client's turn, or no longer; nothing changed")


class ErrorJson(BaseModel):
    """The shape of every error."""

    error: Problem


def participant_json(participant: Participant, alive: bool) -> ParticipantJson:
    return ParticipantJson(**vars(participant), alive=alive)


def round_json(row: Row) -> RoundRow:
    return RoundRow.model_validate({**row, "absent": absent_of(row)})


def run_json(run: Run) -> RunJson:
    state = run.state
    return RunJson(
        name=run.name,
        state=state.status,
        phase=state.phase,
        round=state.round,
        rounds=state.rounds,
        reason=state.reason,
        revision=run.revision,
        body_version=state.body_version,
        client_version=state.client_version,
        clients=list(state.clients),
        progress=_progress(state),
        overdue=state.overdue,
        away=sorted(state.away),
        spec=run.spec.model_dump(mode="json"),
        history=[RoundResult.model_validate(row) for row in run.rounds.values() if row.get("ended_at")],
        created_at=run.created_at,
    )


def task_json(run: Run, task: Task) -> TaskJson:
    state = run.state
    return TaskJson(
        kind=task.kind,
        run=run.name,
        round=task.round,
        client=task.client,
        index=state.clients.index(task.client),
        body_version=state.body_version,
        client_version=state.client_version,
        after=state.last if isinstance(task, Train) else None,
    )


def _progress(state: RunState) -> dict[str, Progress]:
    if state.phase is None:
        return {}
    evaluating = state.phase is Phase.EVALUATING
    clients = state.clients if evaluating else sorted(state.chosen)
    to_do: dict[str, Progress] = dict.fromkeys(missing(state), "evaluate" if evaluating else "train")
    without = {one for one in clients if one in state.gave_up}
    if state.phase is not Phase.TRAINING:
        without |= {one for one in clients if not takes_part(state, one)}
    return {one: "left_out" if one in without else to_do.get(one, "done") for one in clients}
