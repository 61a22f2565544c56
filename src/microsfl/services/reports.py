"""What a client reports of a task, checked, and what that means to the run."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import Field, PlainSerializer, model_validator

from ..core.commands import Evaluate, Train
from ..core.rounds import Evaluated, Event, TaskFailed, Trained
from ..records import Row
from .api import ClientId, Count, Problem, Request
from .spent import Spent, to_text

MAX_REASON_CHARS = 1_000

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SpentText = Annotated[Spent, PlainSerializer(to_text)]
SPENT = Field(None, description="Where the seconds went: seconds and counts by name, which nobody has to know.")


class TrainMetrics(Request):
    train_loss: Finite | None = Field(description="Mean over the round's samples; null when there was none.")
    samples: Count
    batches: Count
    seconds: Seconds
    bytes_up: Count
    bytes_down: Count
    bytes_saved: Count | None = Field(None, description="That were not sent, because the front trains by itself.")
    started_at: Seconds
    spent: SpentText | None = SPENT

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
    spent: SpentText | None = SPENT

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
