"""The coordinator's calls to the data plane: small JSON requests to whichever replica answers.

Every endpoint called here is idempotent, so that a request may be sent again, to the same server or to another one.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self, TypeVar

import urllib3
from cachetools import LRUCache
from pydantic import BaseModel, NonNegativeInt, PrivateAttr, StringConstraints, ValidationError

from ..errors import (
    InputError,
    MicrosflError,
    StoreCorrupt,
    Unauthenticated,
    Unreachable,
    UnsafeConnection,
    from_wire,
)  # fmt: skip
from ..process import event
from ..records import Row
from ..spec import RunSpec
from ..telemetry.histogram import REDUCE_BOUNDS, Histogram
from ..trust.tls import Outbound
from ..trust.tokens import Audience
from ..wire.retry_after import retry_after_s
from ..wire.timing import HEADER, Timing, read_timing
from .api import OutlierJson
from .hedge import Failed, first_answer
from .pool import Pool
from .shown import CommitJson
from .spent import spent_there

BUDGET_S = 600.0
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 120.0
PATIENCE_S = 15.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
RUNS_REMEMBERED = 256

# From so many contributions to the body in a round on, all split servers add up parts of those of the next.
SHARED_FROM = 256

Servers = Callable[[], Sequence[str]]


class Prepared(BaseModel):
    """Where an area of the store stands: its newest version, the round that is open, and whether that is sealed."""

    version: NonNegativeInt
    open_round: NonNegativeInt = 0
    sealed: bool = False


class Committed(BaseModel):
    """What a call that closes a round came to. commit_sha256: of the commit's file; servers of before do not say it."""

    commit_sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None

    outliers: list[OutlierJson] = []
    _timing: Timing | None = PrivateAttr(None)

    @property
    def timing(self) -> Timing | None:
        """What it took on the server, where that says so."""
        return self._timing

    def with_timing(self, timing: Timing | None) -> Self:
        self._timing = timing
        return self


class ReduceAnswer(Committed):
    """Of the body; counts of contributions, and of batches in them."""

    version: NonNegativeInt
    contributions: NonNegativeInt
    left_out: NonNegativeInt
    batches: NonNegativeInt


class PartialsAnswer(BaseModel):
    """How many partial sums a split server has stored."""

    sums: NonNegativeInt


class AggregateAnswer(Committed):
    version: NonNegativeInt
    clients: NonNegativeInt | None = None


class CommitsAnswer(BaseModel):
    commits: list[CommitJson]
    newest: NonNegativeInt


Answer = TypeVar("Answer", bound=BaseModel)


def reduced_row(answer: ReduceAnswer) -> Row:
    """The columns of the round that it brings."""
    counts = answer.model_dump(include={"contributions", "left_out", "batches"})
    return {**counts, "reduce_spent": spent_there("split", answer.timing), "body_outliers": _outliers(answer)}


def aggregated_row(answer: AggregateAnswer) -> Row:
    """The columns of the round that it brings."""
    return {"aggregate_spent": spent_there("fed", answer.timing), "client_outliers": _outliers(answer)}


def _outliers(answer: Committed) -> str | None:
    return json.dumps([one.model_dump() for one in answer.outliers]) if answer.outliers else None


class DataPlane:
    """Calls with retries: the next replica at once, then a growing pause with jitter, until `budget_s` is spent. Beside
    one that hangs, another is asked (`hedge.py`).

    `servers` is asked for the URLs before each attempt, so that a server which registers meanwhile is found. Every
    method raises what a server has against the request itself (4xx), or the store (`StoreCorrupt`), as it came, and
    `Unreachable` when the budget is spent.
    """

    def __init__(
        self, budget_s: float = BUDGET_S, read_timeout_s: float = READ_TIMEOUT_S, outbound: Outbound | None = None
    ) -> None:
        self.budget_s = budget_s
        self.token: Callable[[Audience], str] | None = None  # the coordinator's own, where servers want one
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        self._pool = Pool(outbound or Outbound(), timeout, connections=8)
        self._contributions: LRUCache[str, int] = LRUCache(RUNS_REMEMBERED)  # in the last round of each run
        self._helping: set[asyncio.Task[None]] = set()
        # How long an answer is waited for before another server is asked beside, or four times the slowest one so far.
        self.patience_s = PATIENCE_S
        self._slowest_s: dict[str, float] = {}
        # By path, for the metrics: seconds of calls that were answered, and tries after the first one.
        self.seconds: dict[str, Histogram] = {}
        self.retries: Counter[str] = Counter()

    async def prepare(self, servers: Servers, spec: RunSpec, audience: Audience) -> Prepared:
        """Have the run's specification and its version 0 written, unless they are there already."""
        message = {"spec": spec.model_dump(mode="json")}
        return await self._call(servers, "/v1/runs", message, Prepared, audience=audience)

    async def reduce(self, servers: Servers, run: str, round_: int) -> ReduceAnswer:
        """Have a split server close the round and commit the body.

        Where the round before had many contributions, the other servers are asked to add up a part each. Whether they
        do is not waited for: the one that closes the round adds up what it does not find.
        """
        message: dict[str, Any] = {"run": run, "round": round_}
        urls, first = servers(), random.randrange(1 << 16)
        if len(urls) > 1 and self._contributions.get(run, 0) >= SHARED_FROM:
            message["parts"] = len(urls)
            for part in range(1, len(urls)):
                url = urls[(first + part) % len(urls)] + "/v1/partials"
                task = asyncio.create_task(self._ask_for_help(url, {**message, "part": part}))
                self._helping.add(task)
                task.add_done_callback(self._helping.discard)
        answer = await self._call(servers, "/v1/reduce", message, ReduceAnswer, first)
        self._contributions[run] = answer.contributions
        return answer

    async def _ask_for_help(self, url: str, message: dict[str, Any]) -> None:
        try:
            await asyncio.to_thread(self._ask, url, message, PartialsAnswer)
        except (_TryAgain, MicrosflError) as error:
            event("no help with a reduce", url=url, error=str(error))

    async def aggregate(
        self, servers: Servers, run: str, round_: int, clients: Sequence[str], last: str | None
    ) -> AggregateAnswer:
        """Have the fed server make a version of the client-side weights of `clients`, or of whoever has an update there
        when it is none; where they are handed on, those of `last` are the new ones."""
        message = {"run": run, "round": round_, "clients": list(clients), "last": last}
        return await self._call(servers, "/v1/aggregate", message, AggregateAnswer, audience=Audience.CLIENT_SIDE)

    async def commits(self, servers: Servers, run: str, after: int, within_s: float) -> CommitsAnswer:
        """The commits of the body that follow on a version, as the store has them now."""
        return await self._call(
            servers, f"/v1/runs/{run}/commits?after={after}", None, CommitsAnswer, within_s=within_s
        )

    async def _call(
        self,
        servers: Servers,
        path: str,
        message: dict[str, Any] | None,
        answer: type[Answer],
        first: int | None = None,
        *,
        within_s: float | None = None,
        audience: Audience = Audience.BODY,
    ) -> Answer:
        """Ask one server after another, with POST, or with GET where there is no message."""
        budget_s = self.budget_s if within_s is None else within_s
        began = time.monotonic()
        deadline = began + budget_s
        first, attempt = random.randrange(1 << 16) if first is None else first, 0
        while True:
            urls = list(servers())
            try:
                if not urls:
                    raise _TryAgain("none is registered")
                place = (first + attempt) % len(urls)
                url, *others = urls[place:] + urls[:place]
                found = await first_answer(
                    lambda one: asyncio.to_thread(self._ask, one + path, message, answer, audience),
                    url,
                    others,
                    max(self.patience_s, 4 * self._slowest_s.get(path, 0.0)),
                    servers,
                )
                took_s = time.monotonic() - began
                if message is not None:
                    self.seconds.setdefault(path, Histogram(REDUCE_BOUNDS)).observe(took_s)
                    self._slowest_s[path] = max(took_s, self._slowest_s.get(path, 0.0))
                return found
            except _TryAgain as error:
                pause_s = _pause_s(attempt, len(urls))
                if pause_s:  # all replicas of this turn have been asked
                    pause_s = max(pause_s, error.after_s)
                if time.monotonic() + pause_s > deadline:
                    raise Unreachable(f"No server answered {path} within {budget_s:g} s; last: {error}.") from None
                event("data plane call failed", path=path, attempt=attempt, error=str(error))
            await asyncio.sleep(pause_s)
            attempt += 1
            if message is not None:
                self.retries[path] += 1

    def _ask(
        self, url: str, message: dict[str, Any] | None, answer: type[Answer], audience: Audience = Audience.BODY
    ) -> Answer:
        try:
            method = "POST" if message is not None else "GET"
            response = self._pool.request(method, url, json=message, headers=self._headers(audience))
            payload = response.json()
        except (urllib3.exceptions.HTTPError, UnsafeConnection, ValueError) as broken:
            raise _TryAgain(f"{url}: {broken}") from None
        if response.status >= 300:
            error = from_wire(response.status, payload)
            refused = response.status < 500 and isinstance(error, InputError)
            # Of a new key, a replica hears with its next heartbeat.
            if isinstance(error, StoreCorrupt) or (refused and not isinstance(error, Unauthenticated)):
                raise error  # no other replica would say anything else
            raise _TryAgain(
                f"{url}: {response.status} {error}",
                retry_after_s(response.headers.get("retry-after", ""), LONGEST_PAUSE_S),
            )
        try:
            found = answer.model_validate(payload)
        except ValidationError as invalid:
            wrong = ", ".join(".".join(map(str, problem["loc"])) for problem in invalid.errors())
            raise _TryAgain(f"{url} answered without a valid {wrong or 'object'}") from None
        if isinstance(found, Committed):
            found.with_timing(read_timing(response.headers.get(HEADER)))
        return found

    def _headers(self, audience: Audience) -> dict[str, str]:
        return {} if self.token is None else {"authorization": f"Bearer {self.token(audience)}"}


class _TryAgain(Failed):
    """This attempt came to nothing; another may do better, `after_s` seconds later."""

    def __init__(self, problem: str, after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.after_s = after_s


def _pause_s(attempt: int, replicas: int) -> float:
    """Seconds before the next attempt; it doubles with each turn through the replicas."""
    turns, place = divmod(attempt + 1, max(replicas, 1))
    if place:
        return 0.0  # a replica of this turn has not been asked yet
    return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (turns - 1))
