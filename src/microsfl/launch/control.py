"""The coordinator's API for whoever directs a run."""

from __future__ import annotations

from typing import Any

from ..client.coordinator import Coordinator
from ..client.entitled import Ways
from ..client.http import Http
from ..errors import RunExists
from ..spec import RunSpec

PATIENCE_S = 5.0  # how long an answer is waited for before it is asked for again
RETRY_S = 60.0  # all servers are on this machine, and are started again there when they end

Json = dict[str, Any]


class Control(Coordinator):
    """The coordinator as the one who directs the run called `name` sees it."""

    def __init__(
        self,
        url: str,
        name: str,
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
        credential: str | None = None,
    ) -> None:
        self.ways = Ways.of(Http(retry_s, patience_s), url, credential)
        super().__init__(self.ways.coordinator, url)
        self.name, self.credential = name, credential

    def create(self, spec: RunSpec, *, resume: bool = False) -> None:
        """Create the run; with `resume`, also go on with one that the records or the stores have.

        Raises:
            RunExists: when there is one of this name that was started before and is not to be resumed.
            InputError: whatever a server has against the specification.
        """
        run = self._ask("POST", "/api/runs", spec.model_dump(mode="json"))
        if resume:
            self._ask("POST", f"/api/runs/{self.name}/resume")
        elif run["state"] != "created":
            raise RunExists(f"The coordinator's records already have a run '{self.name}'; choose another run.name.")

    def create_or_find(self, spec: RunSpec) -> None:
        """Create the run and start it, unless the coordinator has it already, with the same specification.

        Raises:
            RunExists: when there is one of this name with another specification.
            InputError: whatever a server has against the specification.
        """
        if self._ask("POST", "/api/runs", spec.model_dump(mode="json"))["state"] == "created":
            self.start()

    def login_link(self) -> str:
        """An address that logs a browser in to the dashboard, once."""
        return f"{self.url}/#login={self._ask('POST', '/api/login-links')['code']}"

    def tell_class_counts(self, class_counts: list[list[int]]) -> None:
        """How the run's data is divided, for the dashboard."""
        self._ask("POST", f"/api/runs/{self.name}/partition", {"class_counts": class_counts})

    def start(self) -> None:
        self._ask("POST", f"/api/runs/{self.name}/start")

    def stop(self) -> None:
        """End the run; of no effect on one that has ended."""
        self._ask("POST", f"/api/runs/{self.name}/stop")

    def replicas_wanted(self, least: int, most: int) -> int:
        """How many split servers the coordinator recommends for the backlog that there is, within these bounds."""
        return int(self._ask("GET", f"/api/scale?min={least}&max={most}")["replicas"])

    def watch(self, after: int, wait_s: float, history_from: int = 0) -> Json:
        """The run as soon as its revision is above `after`, or after `wait_s` seconds; its history from a round on."""
        query = f"after={after}&wait_s={wait_s:g}&history_from={history_from}"
        return self._ask("GET", f"/api/runs/{self.name}?{query}", wait_s=wait_s)

    def metrics(self) -> list[Json]:
        """A row for each round and client."""
        return list(self._ask("GET", f"/api/runs/{self.name}/metrics")["metrics"])

    def profile(self) -> list[Json]:
        """Where the time went: a row for each round, participant and task."""
        return list(self._ask("GET", f"/api/runs/{self.name}/profile")["profile"])

    def rounds(self) -> list[Json]:
        return list(self._ask("GET", f"/api/runs/{self.name}/rounds")["rounds"])
