"""Where a new run begins: at its first round, or where the store says that an earlier coordinator left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ..core.run_state import Head, Phase, RunState, adopt, quorum_of
from ..errors import InvalidSetting, Unreachable
from ..records import Row
from ..spec import RunSpec
from .data_plane import DataPlane
from .roster import FED_SERVER, SPLIT_SERVER, Roster


def check_resolved(spec: RunSpec) -> None:
    """Raises InvalidSetting when a value that decides the result is still "auto"."""
    if spec.unresolved:
        raise InvalidSetting(f"{', '.join(spec.unresolved)} must not be 'auto' any more when a run is created.")


async def prepare(data_plane: DataPlane, roster: Roster, spec: RunSpec) -> RunState:
    """Have the run written to both areas of the store; the state that it has to begin with, by what is there.

    Raises:
        Unreachable: when there is no split server or no fed server, or none answers.
        StoreCorrupt: when the two areas do not belong together.
        MicrosflError: whatever the data plane has against the specification.
    """
    missing = [role for role in (SPLIT_SERVER, FED_SERVER) if not roster.servers(role)]
    if missing:
        raise Unreachable(f"No {' and no '.join(missing)} has registered with this coordinator; start one.")
    body = await data_plane.prepare(partial(roster.servers, SPLIT_SERVER), spec)
    client = await data_plane.prepare(partial(roster.servers, FED_SERVER), spec)
    quorum = quorum_of(spec.run.quorum, spec.data.clients)
    fresh = RunState(spec.run.rounds, spec.data.clients, quorum, managed=spec.run.managed)
    if not fresh.managed:
        return fresh  # its rounds are its user's affair
    return adopt(fresh, *(Head(area.version, area.open_round, area.sealed) for area in (body, client)))


def go_on(state: RunState, rounds: Mapping[int, Row]) -> RunState:
    """Where a run goes on whose records are still there: a round that is evaluated in them is not evaluated again."""
    evaluated = rounds.get(state.round, {}).get("ended_at") is not None
    if state.begins is not Phase.EVALUATING or not evaluated or state.round + 1 == state.rounds:
        return state
    return replace(state, round=state.round + 1, begins=Phase.TRAINING, reduced=False, aggregated=False)
