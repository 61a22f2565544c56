"""Records of runs that never were, in a database as the coordinator writes it: for pages with much to show."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from microsfl.core.run_state import Phase, RunState, Status, to_json
from microsfl.records import Participant, Records, RunRecord
from microsfl.spec import RunSpec

Row = dict[str, Any]

ROUND_S = 4.0
ROUNDS_AT_A_TIME = 25  # in one transaction


@dataclass(frozen=True)
class Story:
    """A run's name and size, and how it ended. absent: reasons that some rounds have for going on without a client."""

    name: str
    clients: int
    rounds: int
    status: Status = Status.FINISHED
    reason: str | None = None
    absent: tuple[str, ...] = ("late: no report within 5 s",)
    began_at: float = 1_790_000_000.0

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"client-{number:02}" for number in range(self.clients))

    def spec(self) -> RunSpec:
        values = {"run": {"name": self.name, "rounds": self.rounds, "deadline_s": 5}, "data": {"clients": self.clients}}
        return RunSpec.parse(values).resolved(input_shape=(1, 8, 8), classes=10)

    def state(self) -> RunState:
        state = RunState(
            rounds=self.rounds,
            needed=self.clients,
            status=self.status,
            round=self.rounds - 1,
            clients=self.ids,
            chosen=self.ids,
            body_version=self.rounds,
            client_version=self.rounds,
            reason=self.reason,
        )
        return replace(state, phase=Phase.TRAINING) if self.status is Status.RUNNING else state


def fill(records: Records, story: Story) -> None:
    """Keep the run with all its rounds, and its clients as participants that were last heard of when it ended."""
    ended_at = story.began_at + ROUND_S * story.rounds
    info = {"version": "0.1.0", "device": "cpu"}
    records.save_participants(Participant(one, "client", None, info, story.began_at, ended_at) for one in story.ids)
    state = to_json(story.state())
    records.add_run(RunRecord(story.name, story.spec().to_json(), state, 1, story.began_at))
    draw = random.Random(story.name)
    for first in range(0, story.rounds, ROUNDS_AT_A_TIME):
        numbers = range(first, min(first + ROUNDS_AT_A_TIME, story.rounds))
        gone = {round_: _absent(story, round_) for round_ in numbers}
        records.save_progress(
            story.name,
            state,
            1,
            rounds={round_: _round(story, round_, gone[round_]) for round_ in numbers},
            metrics={(r, c): row for r in numbers for c, row in _reports(story, r, gone[r], draw)},
        )


def _absent(story: Story, round_: int) -> tuple[str, str] | None:
    """(client, reason) of whom every fifth round went on without."""
    if round_ % 5 != 4 or not story.absent:
        return None
    number = round_ // 5
    return story.ids[number % story.clients], story.absent[number % len(story.absent)]


def _learnt(story: Story, round_: int) -> float:
    """From 0 to 1."""
    return 1 - math.exp(-6 * (round_ + 1) / story.rounds)


def _round(story: Story, round_: int, gone: tuple[str, str] | None) -> Row:
    at, learnt, count = story.began_at + ROUND_S * round_, _learnt(story, round_), story.clients
    absent = [{"client": gone[0], "phase": "training", "reason": gone[1]}] if gone else []
    return {
        "body_version": round_ + 1,
        "client_version": round_ + 1,
        "contributions": 9 * count,
        "left_out": len(absent),
        "batches": 9 * count,
        "started_at": at,
        "trained_at": at + 2.3,
        "synced_at": at + 2.6,
        "ended_at": at + 3.4,
        "accuracy": 0.1 + 0.87 * learnt,
        "accuracy_mean": 0.1 + 0.86 * learnt,
        "loss": 2.3 - 2.2 * learnt,
        "train_loss": 2.2 - 2.12 * learnt,
        "samples": 280 * count,
        "seconds": 2.6,
        "samples_per_s": 280 * count / 2.6,
        "absent": json.dumps(absent) if absent else None,
        "body_outliers": _outlier(story, round_ % 7 == 3),
        "client_outliers": _outlier(story, round_ % 7 in (2, 3)),
    }


def _outlier(story: Story, is_one: bool) -> str | None:
    told = {"client": story.ids[-1], "norm": 9.0, "median": 1.0, "score": 12.5}
    return json.dumps([told]) if is_one else None


def _reports(story: Story, round_: int, gone: tuple[str, str] | None, draw: random.Random) -> Iterator[tuple[str, Row]]:
    at, learnt = story.began_at + ROUND_S * round_, _learnt(story, round_)
    for number, client in enumerate(story.ids):
        off = draw.gauss(0, 0.015) + 0.04 * math.sin(number)
        row: Row = {
            "test_loss": max(0.02, 2.3 - 2.2 * learnt - 2 * off),
            "test_accuracy": min(1.0, max(0.0, 0.1 + 0.87 * learnt + off)),
            "test_samples": 70,
            "eval_seconds": 0.5,
            "eval_bytes_up": 90_000,
            "eval_bytes_down": 80_000,
            "eval_started_at": at + 2.7,
        }
        if gone is None or client != gone[0]:
            row |= {
                "train_loss": 2.2 - 2.12 * learnt,
                "samples": 280,
                "batches": 9,
                "seconds": 0.6 + 1.5 * (number * 37 % 100) / 100 + 0.1 * draw.random(),
                "bytes_up": 900_000,
                "bytes_down": 850_000,
                "started_at": at + 0.05,
            }
        yield client, row


def commits_of(*stories: Story) -> Starlette:
    """A stand-in for a split server, which the coordinator asks for the commits of these runs."""

    async def commits(request: Request) -> JSONResponse:
        story = next(one for one in stories if one.name == request.path_params["run"])
        first = int(request.query_params.get("after", 0)) + 1
        answer = [_commit(story, version) for version in range(first, story.rounds + 1)]
        return JSONResponse({"commits": answer, "newest": story.rounds})

    return Starlette(routes=[Route("/v1/runs/{run}/commits", commits)])


def _commit(story: Story, version: int) -> Row:
    gone = _absent(story, version - 1)
    there = [one for one in story.ids if gone is None or one != gone[0]]
    return {
        "version": version,
        "parent": version - 1,
        "round": version - 1,
        "closes": True,
        "contributions": [{"client": one, "units": 9, "batches": 9, "samples": 280} for one in there],
        "left_out": [{"client": gone[0], "unit": 0, "reason": gone[1]}] if gone else [],
    }
