"""What is going on, for people: the runs at a glance, and what each participant does now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from .. import __version__
from ..core.commands import at_work
from ..core.run_state import Phase
from ..records import Participant
from .api import Progress, participant_json, progress_of
from .director import Director
from .roster import CLIENT, FED_SERVER
from .run import Run
from .shown import About, Glance, Overview, ParticipantNow, Participants

FRESH_S = 0.25
# What a client of several runs is shown at.
RANK: tuple[Progress, ...] = ("train", "evaluate", "done", "left_out")


class View:
    """The runs and the participants as JSON text, made once for however many look on, and anew when it is old."""

    def __init__(self, director: Director, started_at: float) -> None:
        self._director, self._about = director, About(version=__version__, started_at=started_at)
        self._runs: tuple[int, str] = (-1, "")
        self._participants: tuple[float, str, str] = (-FRESH_S, "", "")

    def overview(self) -> str:
        """`Overview` as JSON."""
        changes = self._director.changes
        if self._runs[0] != changes:
            runs = [glance(run) for run in self._director.runs()]
            self._runs = changes, Overview(runs=runs, coordinator=self._about).model_dump_json()
        return self._runs[1]

    def participants(self) -> tuple[str, str]:
        """`Participants` as JSON, and the same without the times of the last signs of life."""
        made_at, text, lasting = self._participants
        if time.monotonic() - made_at >= FRESH_S:
            now = participants_of(self._director)
            text = now.model_dump_json()
            lasting = now.model_dump_json(exclude={"participants": {"__all__": {"last_seen"}}})
            self._participants = time.monotonic(), text, lasting
        return text, lasting


def glance(run: Run) -> Glance:
    """A run in a line."""
    state, spec = run.state, run.spec
    last = next(
        (row for round_ in range(state.round, -1, -1) if (row := run.rounds.get(round_, {})).get("ended_at")), {}
    )
    return Glance(
        name=run.name,
        state=state.status,
        phase=state.phase,
        round=state.round,
        rounds=state.rounds,
        strategy=spec.strategy.name,
        dataset=spec.data.dataset,
        clients=spec.run_clients,
        accuracy=last.get("accuracy"),
        loss=last.get("loss"),
        reason=state.reason,
        created_at=run.created_at,
        ended_at=run.ended_at,
        managed=spec.run.managed,
    )


def participants_of(director: Director) -> Participants:
    """Everybody who ever registered, with what each is at."""
    active = [run for run in director.runs() if run.state.phase is not None]
    clients = dict(_of_clients(active))
    return Participants(
        participants=[_now(one, director.roster.alive(one.id), active, clients) for one in director.roster.all()]
    )


def _now(one: Participant, alive: bool, active: Sequence[Run], clients: dict[str, str]) -> ParticipantNow:
    if not alive:
        doing = "away"
    elif one.role == CLIENT:
        doing = clients.get(one.id, "idle")
    else:
        doing = _of_server(one.role, active)
    health = "alive" if alive else "silent"
    return ParticipantNow(**vars(participant_json(one, alive)), doing=doing, health=health)


def _of_clients(active: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """(client, what it is at), what matters most last."""
    found = [(progress, client, run) for run in active for client, progress in progress_of(run.state).items()]
    turns = {run.name: set(at_work(run.state)) for run in active if run.state.phase is not Phase.SYNCING}
    for progress, client, run in sorted(found, key=lambda one: RANK.index(one[0]), reverse=True):
        where = f"round {run.state.round + 1} of {run.name}"
        if run.state.phase is Phase.SYNCING and progress != "left_out":
            yield client, f"waiting for the sync of {where}"
        elif progress in ("train", "evaluate") and client not in turns[run.name]:
            yield client, f"waiting for its turn in {where}"
        else:
            words = {"train": "training", "evaluate": "evaluating", "done": "done with", "left_out": "left out of"}
            yield client, f"{words[progress]} {where}"


def _of_server(role: str, active: Sequence[Run]) -> str:
    if role == FED_SERVER:
        averaging = [run for run in active if run.state.phase is Phase.SYNCING and not run.state.aggregated]
        if averaging:
            return "averaging " + ", ".join(f"round {run.state.round + 1} of {run.name}" for run in averaging)
    served = [run.name for run in active if (run.state.federated if role == FED_SERVER else run.state.split)]
    return f"serving {', '.join(served)}" if served else "idle"
