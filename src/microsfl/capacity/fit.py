"""From what short runs, or one finished run, took to what a unit, a client's round and a sync take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..launch.profile_rows import REQUEST, ROLES, Row
from ..profile.summary import SERVER_PHASES
from .calibration import Round, Unit
from .probe import Seen

Kind = tuple[str, str, str]  # task, role, phase

COMPUTE = ("data", "front", "aux", "tail", "other")
OUTSIDE = ("hand-out", "upload")


class Sums:
    """Seconds of a round of a run: of its rounds, the one in which the phases took least, as others may have kept the
    machine busy."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._found: defaultdict[tuple[str, str, str], defaultdict[int, float]] = defaultdict(
            lambda: defaultdict(float)
        )
        for row in rows:
            self._found[row.task, row.role, row.phase][row.round] += row.seconds or row.count or 0.0

    def of(self, task: str, role: str, phases: Sequence[str]) -> float:
        rounds: defaultdict[int, float] = defaultdict(float)
        for phase in phases:
            for number, seconds in self._found[task, role, phase].items():
                rounds[number] += seconds
        return min(rounds.values(), default=0.0)

    def client(self, phases: Sequence[str], task: str = "train") -> float:
        return self.of(task, "client", phases)

    def request(self, kind: str, parts: Sequence[str], task: str = "train") -> float:
        return self.of(task, REQUEST, [f"{kind}-{part}" for part in parts])

    def server(self, kind: str, phases: Sequence[str], task: str = "train") -> float:
        return self.of(task, ROLES[kind], phases)


def fit(one: Seen, many: Seen) -> tuple[Unit, Round]:
    """What a unit and a round take.

    one: a run of one client with many units a round. many: of several clients with few. Processor time is divided by
    who used it: what differs between them, by their numbers of units and clients, belongs to one of these.
    """
    seconds, others = Sums(one.rows), Sums(many.rows)
    unit = _unit(one, seconds, many)
    return unit, _round(one, seconds, many, others, unit)


def _unit(one: Seen, seconds: Sums, many: Seen) -> Unit:
    """Nothing waits for anything else with one client: what is neither client's nor server's work is waiting."""
    units = one.units
    compute = seconds.client(COMPUTE) / units
    coding = seconds.request("split", ("encode", "decode")) / units
    server_compute = seconds.server("split", ["compute"]) / units
    store = seconds.server("split", ["store"]) / units
    held = seconds.server("split", SERVER_PHASES[1:]) / units
    cycle = seconds.client((*COMPUTE, "waiting", "turn")) / units
    client, server = _per_unit(one, many, "client"), _server_cpu(one, seconds) / units
    if client is None:  # the system does not tell: half of what lies between the two is each one's
        between = max(0.0, cycle - compute - coding - held) / 2
        client, server = compute + coding + between, held + between
    if not held:
        server = 0.0
    works = max(client, compute + coding), max(server, held)
    return Unit(
        samples=one.samples,
        client_compute=compute,
        client=works[0],
        client_cpu=client,
        server_compute=server_compute,
        server=works[1],
        server_cpu=server,
        store=store,
        wait=max(cycle - sum(works), -min(works) / 2) if held else 0.0,
    )


def _round(one: Seen, seconds: Sums, many: Seen, others: Sums, unit: Unit) -> Round:
    synced = seconds.of("round", "coordinator", ["sync"])
    turnaround = seconds.of("round", "coordinator", ["training"]) - one.units * (unit.client + unit.server + unit.wait)
    reduces = _line(one.units, _sync(seconds, "split"), many.units, _sync(others, "split"))
    aggregates = _line(one.clients, _sync(seconds, "fed"), many.clients, _sync(others, "fed"))
    coordinator = _line(one.clients, _cpu(one, "coordinator"), many.clients, _cpu(many, "coordinator"))
    fed = _line(one.clients, _cpu(one, "fed-server"), many.clients, _cpu(many, "fed-server"))
    client = _cpu(many, "client") / many.clients - many.units / many.clients * unit.client_cpu
    evaluation = seconds.client(["model"], "evaluate") + seconds.server("split", ["compute"], "evaluate")
    return Round(
        client=max(client, 0.0),
        evaluation=evaluation,
        evaluated=one.evaluated,
        coordinator=coordinator[1],
        coordinator_fixed=coordinator[0],
        fed_server=max(0.0, fed[1] - aggregates[1]),
        turnaround=max(0.0, turnaround),
        sync=max(0.0, synced - max(_sync(seconds, "split"), _sync(seconds, "fed"))),
        reduce=reduces[0],
        reduce_each=reduces[1],
        aggregate=aggregates[0],
        aggregate_each=aggregates[1],
    )


def _sync(seconds: Sums, kind: str) -> float:
    """Of one round, on the server that closes it."""
    return seconds.server(kind, SERVER_PHASES[1:], "sync")


def _cpu(seen: Seen, role: str) -> float:
    """Of one round."""
    return 0.0 if seen.cpu is None else seen.cpu.get(role, 0.0) / seen.rounds


def _server_cpu(seen: Seen, seconds: Sums) -> float:
    """Of one round, without closing it and without evaluation: as much of it as of the seconds of all three."""
    tasks = {task: seconds.server("split", SERVER_PHASES[1:], task) for task in ("train", "sync", "evaluate")}
    total = sum(tasks.values())
    return _cpu(seen, "split-server") * tasks["train"] / total if total else 0.0


def _per_unit(one: Seen, many: Seen, role: str) -> float | None:
    """Seconds of a core for a unit, of a process that also does something for each client once a round."""
    if one.cpu is None or many.cpu is None:
        return None
    units, few = one.units / one.clients, many.units / many.clients
    each, fewer = _cpu(one, role) / one.clients, _cpu(many, role) / many.clients
    steep = (each - fewer) / (units - few) if units > few else 0.0
    return min(max(steep, 0.5 * each / units), each / units)


def _line(x: float, y: float, other_x: float, other_y: float) -> tuple[float, float]:
    """(at 0, for each) of the line through two points, neither below 0."""
    each = (other_y - y) / (other_x - x) if other_x != x else 0.0
    each = min(max(0.0, each), y / x, other_y / other_x)
    return min(y - each * x, other_y - each * other_x), each
