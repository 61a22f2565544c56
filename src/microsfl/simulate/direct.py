"""Requests without sockets: the replica's functions, called with the bytes that HTTP would carry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..services.replica import Json, Replica
from ..wire.timing import HEADER, Timing

# (path, body, how to ask a replica, the replicas in the order in which the client wants to ask them) -> the answer.
Faults = Callable[[str, bytes | None, Callable[[Replica], "Answer"], Sequence[Replica]], "Answer"]


@dataclass(frozen=True)
class Answer:
    """An answer as the transport reads it: the body, and the headers that say what is not in it."""

    data: bytes
    headers: dict[str, str]
    server: str = ""
    by_another: bool = False


class Direct:
    """Stands where `client.http.Http` stands; an address is a replica's number, in decimal.

    `faults`, where there is one, decides what becomes of a request. What a replica refuses is raised as it is.
    """

    def __init__(self, replicas: Sequence[Replica], faults: Faults | None = None) -> None:
        self.replicas = list(replicas)
        self.faults = faults

    def request(
        self, method: str, servers: Callable[[], Sequence[str]], path: str, body: bytes | None = None, *_: Any
    ) -> Answer:
        """The answer of the first of `servers()`."""
        addresses = list(servers())
        order = [self.replicas[int(address)] for address in addresses]

        def ask(replica: Replica) -> Answer:
            return answer(replica, method, path, body)

        found = self.faults(path, body, ask, order) if self.faults else ask(order[0])
        return replace(found, server=addresses[0])


def answer(replica: Replica, method: str, path: str, body: bytes | None) -> Answer:
    """What a replica answers to one request."""
    if path in replica.messages:
        return _answer(replica.answer(path, body or b""))
    if method == "POST":
        return _json(replica.calls[path](json.loads(body or b"{}")))
    _, _, _, run, *rest = path.split("/")  # "/v1/runs/{run}/…"
    match rest:
        case []:
            return _json(replica.status(run))
        case ["rounds", round_, "updates", client]:
            return _answer(replica.call(None, replica.update, run, int(round_), client))
        case ["rounds", round_, "updates", client, "weights"]:
            return _answer(replica.call(None, replica.handed_on, run, int(round_), client))
        case ["versions", number, "weights"]:
            wanted = None if number == "newest" else int(number)
            (version, content), timing = replica.call(None, replica.weights, run, wanted)
            return _answer((content, timing), {"x-microsfl-version": str(version)})
    raise LookupError(f"{method} {path} is no request that a replica knows.")


def _answer(measured: tuple[bytes, Timing], headers: Mapping[str, str] | None = None) -> Answer:
    content, timing = measured
    return Answer(content, {HEADER: timing.header(), **(headers or {})})


def _json(values: Json) -> Answer:
    return Answer(json.dumps(values).encode(), {})
