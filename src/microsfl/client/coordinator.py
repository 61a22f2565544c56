"""The coordinator, as its clients and whoever directs a run see it. Imports no torch."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..spec import RunSpec
from .http import Way, json_object

Json = dict[str, Any]


@dataclass
class Coordinator:
    """The coordinator's JSON API, and the servers that it knew when it was last asked."""

    http: Way
    url: str
    split_servers: list[str] = field(default_factory=list)
    fed_server: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, client: str, info: Json) -> None:
        """Register, or say that the client is still there; learns which servers there are."""
        me = {"id": client, "role": "client", "address": None, "info": info}
        self.learn(self._ask("POST", "/api/participants", me))

    def poll(self, clients: Sequence[str], wait_s: float, in_hand: Sequence[Json] = ()) -> list[Json]:
        """Open tasks of these clients; waits for one up to `wait_s` seconds.

        in_hand: tasks, as they came, that some of them are at: these get others once they have reported.
        """
        known = [{name: task[name] for name in ("run", "client", "kind", "round")} for task in in_hand]
        question = {"clients": list(clients), "wait_s": wait_s, "in_hand": known}
        answer = self._ask("POST", "/api/tasks/poll", question, wait_s)
        self.learn(answer)
        return list(answer["tasks"])

    def report(self, run: str, report: Json) -> bool:
        """Hand in a task's result; False when it came too late or twice."""
        return bool(self._ask("POST", f"/api/runs/{run}/reports", report)["accepted"])

    def runs(self) -> list[Json]:
        """All runs, oldest first."""
        return list(self._ask("GET", "/api/runs")["runs"])

    def run(self, name: str) -> Json:
        return self._ask("GET", f"/api/runs/{name}")

    def spec(self, name: str) -> RunSpec:
        return RunSpec.parse(self.run(name)["spec"])

    def participants(self) -> list[Json]:
        """All participants; also learns the servers' addresses."""
        answer = self._ask("GET", "/api/participants")
        self.learn(answer)
        return list(answer["participants"])

    def learn(self, servers: Json) -> None:
        with self.lock:
            self.split_servers = list(servers["split_servers"])
            self.fed_server = servers["fed_server"]

    def _ask(self, method: str, path: str, values: Json | None = None, wait_s: float = 0.0) -> Json:
        body = None if values is None else json.dumps(values, allow_nan=False).encode()
        return json_object(self.http.request(method, lambda: [self.url], path, body, "application/json", wait_s))
