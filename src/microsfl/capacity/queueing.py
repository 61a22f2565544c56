"""Closed queueing networks: clients that go round between stations, each busy with one of them at a time.

Approximate mean value analysis after Schweitzer 1979 and Bard 1979: who arrives finds the queue that there is on
average without itself. As service times hardly vary here, whom it finds being served has half of it left (the residual
time of a constant; Reiser 1979), and not all as with exponential times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

ITERATIONS = 2000
CLOSE = 1e-9
GRID = 1.15  # step of the populations that are computed; those in between are interpolated


@dataclass(frozen=True)
class Station:
    """demand: seconds that a customer's cycle needs of one server of it. servers: how many there are, each with a queue
    of its own. assigned: whether each customer keeps to one of them; else it goes to any, at random."""

    name: str
    demand: float
    servers: int = 1
    assigned: bool = False


@dataclass(frozen=True)
class Flow:
    """With a population: throughput in cycles a second, seconds of one cycle, utilisation of each station, and seconds
    of a cycle at each station, waiting included."""

    throughput: float
    cycle: float
    utilisation: dict[str, float]
    residence: dict[str, float]


def solve(population: int, think: float, stations: Sequence[Station]) -> Flow:
    """What so many customers do, each with `think` seconds of its own in a cycle."""
    present = [one for one in stations if one.demand > 0]
    if not present and think <= 0:
        return Flow(float("inf"), 0.0, {}, {})
    queues = [population / len(present)] * len(present) if present else []
    residence = [one.demand for one in present]
    throughput = 0.0
    for _ in range(ITERATIONS):
        residence = [_residence(one, population, queue, throughput) for one, queue in zip(present, queues, strict=True)]
        now = population / (think + sum(residence))
        # Never more than the busiest station takes: the residual time above may promise a little too much.
        now = min([now, *(_most(one, population) for one in present)])
        after = [now * one for one in residence]
        moved = max((abs(new - old) for new, old in zip(after, queues, strict=True)), default=0.0)
        queues = [(new + old) / 2 for new, old in zip(after, queues, strict=True)]
        if moved < CLOSE * population and abs(now - throughput) <= CLOSE * now:
            throughput = now
            break
        throughput = now
    return Flow(
        throughput,
        population / throughput,
        {one.name: throughput * one.demand / _used(one, population) for one in present},
        {one.name: spent for one, spent in zip(present, residence, strict=True)},
    )


def bound(population: int, think: float, stations: Sequence[Station]) -> float:
    """The most cycles a second that are possible (asymptotic bounds: Denning and Buzen 1978)."""
    alone = think + sum(one.demand for one in stations)
    limits = [_most(one, population) for one in stations if one.demand > 0]
    return min([*limits, *([population / alone] if alone > 0 else [])], default=float("inf"))


def _residence(station: Station, population: int, queue: float, throughput: float) -> float:
    """Seconds at a station of which all customers' mean number there is `queue`."""
    servers = _used(station, population)
    group = ceil(population / servers) if station.assigned else population
    others = max(0.0, group - 1) / group  # what is left of them without who arrives
    waiting, busy = queue / servers * others, min(1.0, throughput * station.demand / servers) * others
    return station.demand * (1 + max(0.0, waiting - busy / 2))


def _used(station: Station, population: int) -> int:
    """Servers that anybody asks."""
    return min(station.servers, population) if station.assigned else station.servers


def _most(station: Station, population: int) -> float:
    return _used(station, population) / station.demand


def round_seconds(work: Sequence[float], slots: int, cycle: Callable[[int], float]) -> tuple[float, float]:
    """(seconds until all are through, mean number of those at work) for customers with so many cycles each.

    Args:
        work: cycles of each customer. slots: customers that are at work at a time; the next begins when one is through.
        cycle: seconds of a cycle with that many at work.
    """
    waiting = sorted((one for one in work if one > 0), reverse=True)
    # In its own time, which runs as fast as all who are at work get on, each is through after its cycles.
    ends = sorted(waiting[:slots])
    rest = waiting[slots:]
    now = seconds = busy = 0.0
    while ends:
        count, end = len(ends), ends.pop(0)
        step = (end - now) * cycle(count)
        seconds, busy, now = seconds + step, busy + step * count, end
        if rest:
            later = now + rest.pop(0)
            ends.insert(bisect_left(ends, later), later)
    return seconds, busy / seconds if seconds else 0.0


class Cycles:
    """Seconds of a cycle by the number of customers at work: solved for some numbers, interpolated in between."""

    def __init__(self, solved: Callable[[int], Flow]) -> None:
        self._solved, self._known = solved, dict[int, Flow]()

    def flow(self, population: int) -> Flow:
        if population not in self._known:
            self._known[population] = self._solved(population)
        return self._known[population]

    def __call__(self, population: int) -> float:
        low, high = _grid(population)
        first = self.flow(low).cycle
        if low == high:
            return first
        return first + (population - low) / (high - low) * (self.flow(high).cycle - first)


def _grid(population: int) -> tuple[int, int]:
    low = 1
    while True:
        high = max(low + 1, int(low * GRID))
        if population < high:
            return (low, low) if population == low else (low, high)
        low = high
