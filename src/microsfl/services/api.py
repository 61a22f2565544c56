"""The JSON of the coordinator's API: what it takes, checked, and what it answers. Times are UTC unix seconds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints, model_validator

from ..config import HttpUrl
from ..core.commands import Evaluate, Task, Train, missing, takes_part
from ..core.run_state import Phase, RunState, Status
from ..records import Participant, Row
from ..records.recorded import outliers_of
from ..spec import check_id
from .run import Run
from .run import absent as absent_of

MAX_WAIT_S = 30.0
MAX_INFO_CHARS = 10_000
MAX_COUNT = 2**63 - 1

RunName = Annotated[str, AfterValidator(lambda value: check_id(value, "run name"))]
ClientId = Annotated[str, AfterValidator(lambda value: check_id(value, "client id"))]
ParticipantId = Annotated[str, AfterValidator(lambda value: check_id(value, "participant id"))]
# A URL without spaces or control characters, which not every database would keep.
Address = Annotated[HttpUrl, StringConstraints(max_length=2000, pattern=r"^[!-~]+$")]
Count = Annotated[StrictInt, Field(ge=0, le=MAX_COUNT)]
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


class InHand(Request):
    """A task that a client was given before."""

    run: RunName
    client: ClientId
    kind: Literal["train", "evaluate"]
    round: Count

    def task(self) -> Task:
        return Train(self.client, self.round) if self.kind == "train" else Evaluate(self.client, self.round)


class Poll(Request):
    clients: list[ClientId] = Field(min_length=1, max_length=10_000, description="The clients that one process hosts.")
    wait_s: WaitS = 0
    in_hand: list[InHand] = Field(
        [],
        max_length=10_000,
        description="What some of them are at; they get the next task once they have reported it.",
    )


class Problem(Request):
    code: str
    message: str


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    role: Literal["coordinator"] = "coordinator"
    version: str


class Ready(BaseModel):
    status: str = Field(description="`ready`, or why it is not")


class ParticipantJson(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    role: Role
    address: str | None
    info: dict[str, Any]
    first_seen: float
    last_seen: float
    restarts: int = Field(description="how often it came back as another process")
    alive: bool = Field(description="heard of within its lease")


class TrustJson(BaseModel):
    """What a service needs to check tokens by itself."""

    federation: str
    keys: dict[str, Any] = Field(description="a JSON Web Key Set of public keys")
    revoked: dict[str, float] = Field(description="identity -> time: its tokens from before are not right any more")


class Registered(ParticipantJson):
    trust: TrustJson | None = Field(None, description="null: nobody needs a token here")
    split_servers: list[str] = Field(description="URLs to ask, as in the answer to a poll")
    fed_server: str | None


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
    outliers: list[str] = Field([], description="clients that sent what is far longer or shorter than the others' did")


class Absence(BaseModel):
    client: str
    phase: Phase
    reason: str


class OutlierJson(BaseModel):
    """A client that sent what is far longer or shorter than what the others did."""

    client: str
    norm: float = Field(description="of its body gradients a batch, or of its update of client-side weights")
    median: float = Field(description="of all clients of the round")
    score: float = Field(description="modified z-score; more than 3.5 either way is an outlier")


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
    body_outliers: list[OutlierJson] = Field([], description="clients whose contributions to the body are outliers")
    client_outliers: list[OutlierJson] = Field([], description="clients whose client-side weights are outliers")


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
    history: list[RoundResult] = Field(description="of the rounds that are over, from ?history_from=ROUND on")
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
    return RoundRow.model_validate({**row, **outliers_of(row), "absent": absent_of(row)})


def run_json(run: Run, history_from: int = 0) -> RunJson:
    state = run.state
    over = (row for round_, row in run.rounds.items() if round_ >= history_from and row.get("ended_at"))
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
        progress=progress_of(state),
        overdue=state.overdue,
        away=sorted(state.away),
        spec=run.spec_json,
        history=[RoundResult.model_validate({**row, **outliers_of(row)}) for row in over],
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


def progress_of(state: RunState) -> dict[str, Progress]:
    """What each client that has a part in the phase has to do."""
    if state.phase is None:
        return {}
    evaluating = state.phase is Phase.EVALUATING
    clients = state.clients if evaluating else sorted(state.chosen)
    to_do: dict[str, Progress] = dict.fromkeys(missing(state), "evaluate" if evaluating else "train")
    without = {one for one in clients if one in state.gave_up}
    if state.phase is not Phase.TRAINING:
        without |= {one for one in clients if not takes_part(state, one)}
    return {one: "left_out" if one in without else to_do.get(one, "done") for one in clients}
