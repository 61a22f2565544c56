"""How long a run waits, and for whom: what the clock and the clients' signs of life mean to its state."""

from __future__ import annotations

from ..core.commands import at_work, missing
from ..core.rounds import ClientLost, DeadlinePassed, Event, Failed, TaskFailed, left_out
from ..core.run_state import Phase, RunState, Status
from .roster import CLIENT_LEASE_S, Roster
from .run import Run

# When a phase that waits for clients began, by the column of the rounds table.
BEGAN = {Phase.TRAINING: "started_at", Phase.EVALUATING: "synced_at"}


def due(run: Run, roster: Roster, now: float) -> list[Event]:
    """What time has brought about, for `rounds.step`, in this order; what does not fit any more changes nothing."""
    state = run.state
    if state.status is Status.WAITING:
        return _no_quorum_to_begin(run, roster, now)
    if state.phase not in BEGAN:
        return []
    news: list[Event] = []
    if run.spec.run.deadline_s:
        lost = [one for one in missing(state) if one not in state.away and not roster.alive(one)]
        news += map(ClientLost, lost)
        if not state.overdue and now >= _deadline(run, roster):
            news.append(DeadlinePassed(state.round, state.phase))
    return news or _end_of_patience(run, roster, now)


def absences(run: Run, roster: Roster, event: Event, after: RunState, now: float) -> list[tuple[str, str]]:
    """Whom the round goes on without from this step on, from the state that the run has to `after`; and why."""
    if after.ended and after.status is not Status.FINISHED:
        return []  # it does not go on
    failed = [(event.task.client, f"failed: {event.reason}")] if isinstance(event, TaskFailed) else []
    return failed + [(client, _reason(run, roster, client, now)) for client in left_out(run.state, after)]


def _reason(run: Run, roster: Roster, client: str, now: float) -> str:
    if not roster.alive(client):
        return f"silent: last heard of {roster.silent_s(client):.0f} s ago"
    if now >= _deadline(run, roster):
        return f"late: no report within {run.spec.run.deadline_s:g} s"
    return "late: not back from an earlier round"


def _deadline(run: Run, roster: Roster) -> float:
    """When the phase is over for who is late."""
    deadline_s = run.spec.run.deadline_s
    assert run.state.phase is not None
    began = run.rounds[run.state.round].get(BEGAN[run.state.phase]) or run.progress_at
    # While the coordinator was down nobody could report: after a restart there is time to do so.
    return max(began + deadline_s, roster.began_at + min(deadline_s, CLIENT_LEASE_S))


def _end_of_patience(run: Run, roster: Roster, now: float) -> list[Event]:
    state, settings = run.state, run.spec.run
    if settings.deadline_s and not state.overdue:
        return []
    quiet_s = now - run.progress_at
    if quiet_s < settings.give_up_s:
        return []
    late = at_work(state)
    if not settings.deadline_s:  # nobody said how long a round may take, so whoever is alive may still be at it
        quiet_s = min([quiet_s, *(roster.silent_s(client) for client in late)])
        if quiet_s < settings.give_up_s:
            return []
    quorum = f"{len(state.trained)} of {len(state.chosen)} clients have trained"
    if state.phase is Phase.TRAINING:
        quorum += f", the quorum is {state.quorum or len(state.chosen)}"
    waited = f"no progress for {quiet_s:.0f} s (run.give_up_s) in {state.phase} of round {state.round}"
    return [Failed(f"{waited}: {quorum}; missing: {', '.join(_named(roster, client) for client in late)}")]


def _no_quorum_to_begin(run: Run, roster: Roster, now: float) -> list[Event]:
    quiet_s = now - run.progress_at
    if quiet_s < run.spec.run.give_up_s:
        return []
    there = roster.clients()
    names = f" ({', '.join(there)})" if there else ""
    return [
        Failed(
            f"waited {quiet_s:.0f} s (run.give_up_s) for {run.state.needed} clients to begin with; "
            f"{len(there)} are there{names}"
        )
    ]


def _named(roster: Roster, client: str) -> str:
    silent_s = roster.silent_s(client)
    return client if roster.alive(client) else f"{client} (last heard of {silent_s:.0f} s ago)"
