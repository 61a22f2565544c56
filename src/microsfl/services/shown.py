"""The JSON of what people look at. Times are UTC unix seconds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ..core.run_state import Phase, Status
from .api import Count, ParticipantJson, Request


class ParticipantNow(ParticipantJson):
    doing: str = Field(description="what it is at, in words")
    health: Literal["alive", "silent"]


class Participants(BaseModel):
    participants: list[ParticipantNow]
    split_servers: list[str] = Field(description="URLs to ask, as in the answer to a poll")
    fed_server: str | None


class Glance(BaseModel):
    """A run in a line."""

    name: str
    state: Status
    phase: Phase | None
    round: int
    rounds: int
    strategy: str
    dataset: str
    clients: int
    accuracy: float | None = Field(description="of the last round that is over")
    loss: float | None
    reason: str | None
    created_at: float
    ended_at: float | None
    managed: bool


class About(BaseModel):
    version: str
    started_at: float


class Overview(BaseModel):
    runs: list[Glance]
    coordinator: About


class TakenJson(BaseModel):
    """What a client contributed to a commit."""

    client: str
    units: int
    batches: int
    samples: int


class LeftOutJson(BaseModel):
    client: str
    unit: int
    reason: str


class CommitJson(BaseModel):
    version: int
    parent: int | None
    round: int
    closes: bool = Field(description="it ended its round")
    created_at: float | None = Field(None, description="known of those that end a round")
    contributions: list[TakenJson]
    left_out: list[LeftOutJson]


class Commits(BaseModel):
    commits: list[CommitJson] = Field(description="oldest first, as many as fit; ask for the next with ?after=")
    newest: int = Field(description="the newest version there is")
    files: Literal["there", "gone"]
    message: str | None = Field(description="why there is nothing to see")


class ClassCounts(Request):
    class_counts: list[Annotated[list[Count], Field(min_length=1, max_length=100_000)]] = Field(
        min_length=1, max_length=100_000, description="train samples of each class, a list for each client, in order"
    )


class PartitionJson(BaseModel):
    classes: int | None = Field(description="null: not known, or not yet who the clients are")
    clients: dict[str, list[int]]


class Specification(BaseModel):
    spec: dict[str, Any]


class WeightsLink(BaseModel):
    part: Literal["body", "client-side"]
    url: str


class WeightsJson(BaseModel):
    parts: list[WeightsLink]


class SettingJson(BaseModel):
    key: str
    default: Any
    meaning: str
    allowed: str


class SettingsJson(BaseModel):
    settings: list[SettingJson]
