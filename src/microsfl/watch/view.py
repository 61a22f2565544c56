"""How one run is, now and at each change: as its coordinator tells, or as its folder does once that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import MicrosflError, OperationError, Unreachable
from ..launch.control import Control
from .find import silent
from .folder import SeenFolder
from .rows import Json, row_of

# What a run does not leave, or not so that it could be seen coming: the last two are those of a folder.
ENDED = ("finished", "failed", "stopped", "interrupted", "unfinished")
WATCH_S = 2.0  # longest wait for a change, so that who fell silent is seen as well
POLL_S = 0.5  # between two looks at files
PAUSE_S = 0.25  # least time between two looks at a run, whose every report is a change
AGAIN_S = 60.0  # how long a coordinator is asked again, which may be started again just now

TO_DO = {"train": "training", "evaluate": "evaluating", "done": "done", "left_out": "left out"}


@dataclass(frozen=True)
class Seen:
    """What there was to see. run: as a coordinator tells of it."""

    run: Json
    participants: list[Json]
    processes: list[Json]
    coordinator: str | None
    folder: SeenFolder | None

    @property
    def ended(self) -> bool:
        return self.run["state"] in ENDED

    def to_json(self) -> Json:
        """What `microsfl status --json` prints."""
        return {
            **row_of(self.run, coordinator=self.coordinator, folder=self.folder.path if self.folder else None),
            "history": self.run["history"],
            "participants": self.participants,
            "processes": self.processes,
        }


def look(target: SeenFolder | Control, before: Seen | None = None, wait_s: float = 0.0) -> Seen:
    """The run now or, `before` being given, as soon as something has changed, and after `wait_s` at the latest.

    Raises:
        Unreachable: when the coordinator does not answer.
    """
    if isinstance(target, Control):
        try:
            return _asked(target, None, before, wait_s)
        except Unreachable as error:
            raise Unreachable(silent(target.url, error)) from None
    url = target.coordinator()
    if url is not None:
        with suppress(MicrosflError):  # it does not have the run yet, or has just ended
            return _asked(Control(url, target.name(), 0.0), target, before, wait_s)
    if before is not None:
        time.sleep(POLL_S)
    return Seen(target.run(), [], target.processes(), None, target)


def follow(target: SeenFolder | Control) -> Iterator[Seen]:
    """The run now and after each change, until it has ended.

    Raises:
        Unreachable: when the coordinator stays away.
    """
    seen = look(target)
    if isinstance(target, Control):
        target = Control(target.url, target.name, AGAIN_S)
    while not seen.ended:
        yield seen
        looked_at = time.monotonic()
        seen = look(target, seen, WATCH_S)
        if not seen.ended:
            time.sleep(max(0.0, PAUSE_S - (time.monotonic() - looked_at)))
    yield seen


def _asked(control: Control, folder: SeenFolder | None, before: Seen | None, wait_s: float) -> Seen:
    """Of the history only what is new is asked for."""
    known = before.run["history"] if before and "revision" in before.run else []
    since = before.run["revision"] if before and "revision" in before.run else 0
    run = control.watch(since, wait_s, known[-1]["round"] + 1 if known else 0)
    run = {**run, "history": known + run["history"]}
    found: list[Json] = []
    with suppress(OperationError):
        found = control.participants()
    return Seen(run, participants_of(run, found), folder.processes() if folder else [], control.url, folder)


def participants_of(run: Json, found: list[Json]) -> list[Json]:
    """The run's clients, or all before it has any, and the servers, with what each is doing, and the last round that is
    over in which a client was an outlier, or null."""
    clients = set(run["clients"])
    stood_out = {client: one["round"] for one in run["history"] for client in one.get("outliers", ())}
    return [
        {
            **{name: one[name] for name in ("id", "role", "address", "alive", "last_seen")},
            "doing": doing(run, one),
            "outlier_in": stood_out.get(one["id"]),
        }
        for one in found
        if one["role"] != "client" or not clients or one["id"] in clients
    ]


def doing(run: Json, participant: dict[str, Any]) -> str:
    """What a participant is at, in a word or two."""
    if not participant["alive"]:
        return "silent"
    if participant["role"] != "client":
        return str(participant.get("doing") or "up")
    if run["state"] in ENDED:
        return str(participant.get("doing") or "idle")
    if participant["id"] in run["away"]:
        return "away"
    if run["state"] == "waiting":
        return "waiting for the others"
    return TO_DO.get(run["progress"].get(participant["id"], ""), "not in this round" if run["phase"] else "idle")
