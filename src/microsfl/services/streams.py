"""Server-sent events: what is new, at most four times a second, for as long as somebody reads and the coordinator runs.

A stream sends what its reader does not have. A row that changed is another object (`run.take`), so that a run of many
rounds and clients is compared, not written, at each change.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from ..errors import OperationError
from ..records import Row
from ..trust.tokens import Caller
from .api import MetricsRow, round_json, run_json
from .bells import ANY_RUN
from .director import Director
from .overview import View

PAUSE_S = 0.25
LOOK_S = 1.0  # servers' figures, and who fell silent, ring no bell
LAST_SEEN_S = 5.0  # how old the times of signs of life may be that a reader has
HEARTBEAT_S = 10.0
RETRY_MS = 1000
ROWS = 2000  # rows in an event

BEGIN = f"retry: {RETRY_MS}\n\n"
STILL_HERE = ": still here\n\n"
COLUMNS = tuple(MetricsRow.model_fields)


def frame(event: str, data: str, number: int | None = None) -> str:
    """An event; `data` is JSON, and so has no line break in it."""
    id_ = "" if number is None else f"id: {number}\n"
    return f"{id_}event: {event}\ndata: {data}\n\n"


async def of_everything(
    director: Director, view: View, caller: Caller, admitted: Callable[[], bool] = lambda: True
) -> AsyncIterator[str]:
    """The overview and the participants, as the caller may see them, now and after each change, for as long as the
    reader is admitted."""
    yield BEGIN
    overview = lasting = ""
    told_at = spoke_at = -HEARTBEAT_S
    while not director.bells.closed and admitted():
        changes, now = director.changes, time.monotonic()
        frames = []
        if (now_there := view.overview(caller)) != overview:
            overview = now_there
            frames.append(frame("overview", overview))
        text, without_times = view.participants(caller)
        if without_times != lasting or now - told_at >= LAST_SEEN_S:
            lasting, told_at = without_times, now
            frames.append(frame("participants", text))
        if not frames and now - spoke_at >= HEARTBEAT_S:
            frames = [STILL_HERE]
        for one in frames:
            spoke_at = now
            yield one
        await asyncio.sleep(PAUSE_S)
        if director.changes == changes:
            await director.bells.wait([ANY_RUN], LOOK_S)


async def of_run(
    director: Director, name: str, from_round: int, admitted: Callable[[], bool] = lambda: True
) -> AsyncIterator[str]:
    """The run with its rounds and metrics from `from_round` on, then what is new of them, for as long as the reader is
    admitted."""
    yield BEGIN
    reader, revision, spoke_at = Reader(director, name, from_round), 0, time.monotonic()
    while not director.bells.closed and admitted():
        before, revision = revision, director.run(name).revision
        try:
            async for one in reader.news():
                yield one
        except OperationError:  # the database is away: the reader comes again, and says what it has
            return
        if revision != before:
            spoke_at = time.monotonic()
        elif time.monotonic() - spoke_at >= HEARTBEAT_S:
            spoke_at = time.monotonic()
            yield STILL_HERE
        await asyncio.sleep(PAUSE_S)
        await director.watch(name, revision, LOOK_S)


class Reader:
    """What one reader of a run has; the ids of events are the first round of which it does not have everything."""

    def __init__(self, director: Director, name: str, from_round: int) -> None:
        self._director, self._name, self._round = director, name, from_round
        self._revision = 0
        self._rounds: dict[int, Row] = {}
        self._metrics: dict[tuple[int, str], Row] = {}

    async def news(self) -> AsyncIterator[str]:
        """Events that bring it up to date.

        Raises:
            StoreUnavailable: when the records of earlier rounds cannot be read.
        """
        run = self._director.run(self._name)
        if run.revision == self._revision:
            return
        self._revision, current = run.revision, run.state.round
        self._round = first = min(self._round, current)
        reports = [{**row, "round": current, "client": client} for client, row in run.reports.items()]
        yield frame("run", run_json(run, first).model_dump_json())
        changed = [row for number, row in run.rounds.items() if number >= first and self._rounds.get(number) is not row]
        self._rounds.update((row["round"], row) for row in changed)
        for start in range(0, len(changed), ROWS):
            told = ",".join(round_json(row).model_dump_json() for row in changed[start : start + ROWS])
            yield frame("rounds", f'{{"rounds":[{told}]}}')
        step = max(1, ROWS // max(1, len(run.state.clients)))
        for start in range(first, current, step):
            end = min(start + step, current)
            rows = await self._director.metrics_between(self._name, start, end)
            async for one in self._fresh(rows, end):
                yield one
        self._round = current
        self._metrics = {key: row for key, row in self._metrics.items() if key[0] == current}
        async for one in self._fresh(reports, current):
            yield one

    async def _fresh(self, rows: Iterable[Row], number: int) -> AsyncIterator[str]:
        """An event with those rows of whole rounds that are new or changed."""
        told = {(row["round"], row["client"]): {name: row.get(name) for name in COLUMNS} for row in rows}
        fresh = {key: row for key, row in told.items() if self._metrics.get(key) != row}
        self._metrics |= fresh
        if fresh:
            yield frame("metrics", await asyncio.to_thread(_written, list(fresh.values())), number)


def _written(rows: Sequence[Row]) -> str:
    return json.dumps({"metrics": rows}, separators=(",", ":"))
