"""What a run's profile comes to: of each client, of each server and of each round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..launch.profile_rows import REQUEST, ROLES, Row

# In the order in which they are shown. A client's phases while it trains add up to the seconds of its rounds.
CLIENT_PHASES = ("data", "front", "aux", "tail", "turn", "waiting", "hand-out", "upload", "other")
SERVER_PHASES = ("queue", "decode", "compute", "store", "encode")
ROUND_PHASES = ("training", "sync", "evaluation")
# What a client waits for: its own part of the requests to the split servers, and the phases there.
WAITS = ("encode", "wire", *(f"server {phase}" for phase in SERVER_PHASES), "decode")

Json = dict[str, Any]
Seconds = Mapping[str, float]


@dataclass
class Client:
    """training, evaluating: seconds by phase. requests: those to the split servers while it trained, by part."""

    training: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    evaluating: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    requests: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    count: int = 0

    @property
    def seconds(self) -> float:
        """Of its training."""
        return sum(self.training.values())


@dataclass
class Server:
    """phases: seconds of all requests, the sync's included. training: only of those while clients trained."""

    role: str
    phases: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    training: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    requests: int = 0
    hits: int = 0
    misses: int = 0
    failovers: int = 0

    @property
    def busy_s(self) -> float:
        """In which its one compute thread was at work."""
        return sum(seconds for phase, seconds in self.phases.items() if phase != "queue")


@dataclass(frozen=True)
class Profile:
    """By id, and rounds by number: seconds of their parts, of those that are over."""

    clients: dict[str, Client]
    servers: dict[str, Server]
    rounds: dict[int, Seconds]

    @property
    def seconds(self) -> float:
        """Of all rounds together."""
        return sum(sum(parts.values()) for parts in self.rounds.values())

    def waits(self) -> dict[str, float]:
        """Shares of what a client's request to a split server takes, over all of them while clients train; they add up
        to 1, or there are none. What several requests took at the same time counts several times."""
        found = dict.fromkeys(WAITS, 0.0)
        for client in self.clients.values():
            for part in ("encode", "wire", "decode"):
                found[part] += client.requests[part]
        for server in self.servers.values():
            for phase in SERVER_PHASES if server.role == ROLES["split"] else ():
                found[f"server {phase}"] += server.training[phase]
        total = sum(found.values())
        return {part: seconds / total for part, seconds in found.items()} if total > 0 else {}

    def to_json(self) -> Json:
        """With every number that the tables are made of."""
        return {
            "seconds": self.seconds,
            "rounds": [{"round": number, **parts} for number, parts in self.rounds.items()],
            "clients": {
                name: {
                    "seconds": one.seconds,
                    "training": dict(one.training),
                    "requests": one.count,
                    "request_seconds": dict(one.requests),
                    "evaluating": dict(one.evaluating),
                }
                for name, one in self.clients.items()
            },
            "servers": {
                name: {
                    "role": one.role,
                    "requests": one.requests,
                    "phases": dict(one.phases),
                    "graph_hits": one.hits,
                    "recomputed": one.misses,
                    "failovers": one.failovers,
                }
                for name, one in self.servers.items()
            },
        }


def summarize(rows: Iterable[Row]) -> Profile:
    """Rows that say something else than what is known here are passed over."""
    clients: defaultdict[str, Client] = defaultdict(Client)
    servers: dict[str, Server] = {}
    rounds: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.role == "client":
            phases = clients[row.participant].training if row.task == "train" else clients[row.participant].evaluating
            phases[row.phase] += row.seconds or 0.0
        elif row.role == REQUEST and row.task == "train":
            _add_request(clients[row.participant], row)
        elif row.role in ROLES.values():
            _add_served(servers.setdefault(row.participant, Server(row.role)), row)
        elif row.role == "coordinator" and row.phase in ROUND_PHASES:
            rounds[row.round][row.phase] = row.seconds or 0.0
    return Profile(dict(sorted(clients.items())), dict(sorted(servers.items(), key=_split_first)), dict(rounds))


def _add_request(client: Client, row: Row) -> None:
    kind, _, part = row.phase.partition("-")
    if kind != "split":
        return
    if part == "requests":
        client.count += row.count or 0
    else:
        client.requests[part] += row.seconds or 0.0


def _add_served(server: Server, row: Row) -> None:
    match row.phase:
        case "requests" | "hits" | "misses" | "failovers":
            setattr(server, row.phase, getattr(server, row.phase) + (row.count or 0))
        case phase:
            server.phases[phase] += row.seconds or 0.0
            if row.task == "train":
                server.training[phase] += row.seconds or 0.0


def _split_first(item: tuple[str, Server]) -> tuple[bool, str]:
    return item[1].role != ROLES["split"], item[0]
