"""Where a new run begins: at its first round, or where the store says that an earlier coordinator left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ..core.run_state import Head, Phase, RunState, adopt, quorum_of
from ..errors import InvalidSetting, Unreachable
from ..records import Row
from ..spec import RunSpec
from ..trust.tokens import Audience
from .data_plane import DataPlane
from .roster import FED_SERVER, SPLIT_SERVER, Roster

AUDIENCES = {SPLIT_SERVER: Audience.BODY, FED_SERVER: Audience.CLIENT_SIDE}


def check_resolved(spec: RunSpec) -> None:
    """Raises InvalidSetting when a value that decides the result is still "auto"."""
    if spec.unresolved:
        raise InvalidSetting(f"{', '.join(spec.unresolved)} must not be 'auto' any more when a run is created.")


async def prepare(data_plane: DataPlane, roster: Roster, spec: RunSpec) -> RunState:
    """Have the run written to each area of the store that it has; the state to begin with, by what is there.

    Raises:
        Unreachable: when there is no split server or no fed server that it needs, or none answers.
        StoreCorrupt: when the two areas do not belong together.
        MicrosflError: whatever the data plane has against the specification.
    """
    traits = spec.strategy.traits
    needed = {SPLIT_SERVER: traits.split, FED_SERVER: traits.federated}
    missing = [role for role, is_needed in needed.items() if is_needed and not roster.servers(role)]
    if missing:
        raise Unreachable(f"No {' and no '.join(missing)} has registered with this coordinator; start one.")
    heads: dict[str, Head] = {}
    for role in (role for role, is_needed in needed.items() if is_needed):
        area = await data_plane.prepare(partial(roster.servers, role), spec, AUDIENCES[role])
        heads[role] = Head(area.version, area.open_round, area.sealed)
    state = fresh(spec)
    if not state.managed:
        return state  # its rounds are its user's affair
    return adopt(state, heads.get(SPLIT_SERVER), heads.get(FED_SERVER))


def fresh(spec: RunSpec) -> RunState:
    """The state of a run that has not begun."""
    traits = spec.strategy.traits
    return RunState(
        rounds=spec.run.rounds,
        needed=spec.run_clients,
        quorum=quorum_of(spec.run.quorum, spec.participants),
        managed=spec.run.managed,
        seed=spec.run.seed,
        participants=spec.participants,
        turns=traits.turns,
        handed_on=traits.client_side == "handed-on",
        split=traits.split,
        federated=traits.federated,
    )


def go_on(state: RunState, rounds: Mapping[int, Row]) -> RunState:
    """Where a run goes on whose records are still there: a round that is evaluated in them is not evaluated again."""
    evaluated = [round_ for round_, row in rounds.items() if row.get("ended_at") is not None]
    if not (state.split or state.federated):  # nothing but the records knows which rounds are over
        return replace(state, round=min(max(evaluated, default=-1) + 1, state.rounds - 1))
    if state.begins is not Phase.EVALUATING or state.round not in evaluated or state.round + 1 == state.rounds:
        return state
    return replace(state, round=state.round + 1, begins=Phase.TRAINING, reduced=False, aggregated=False)
