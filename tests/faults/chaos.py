"""Randomized kill schedules on a living federation: which processes are killed when is decided by a seed alone.

    python -m tests.faults.chaos --schedules 200

runs that many, and ends with 1 when one of them gave other weights than the undisturbed run. With
`--sync K` the weights depend on who came first, and the audit alone decides.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import microsfl
from microsfl.core.partition import partition
from microsfl.launch.control import Control
from microsfl.spec import RunSpec
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain, Commit
from microsfl.zoo.datasets import labels, load_data
from microsfl.zoo.deal import client_ids

DEADLINE_S = 180.0
CLIENTS = 5
SPLIT_SERVERS = 3
NO_LIMIT = 10**6

Kill = tuple[float, tuple[str, ...]]
Unit = tuple[int, str, int]  # round, client, number of the unit


def schedule(seed: int) -> list[Kill]:
    """[(seconds since the event before, names of the processes to kill then), …]."""
    draw = random.Random(seed)
    names = [
        "coordinator",
        "fed-server",
        "clients-0",
        "clients-1",
        *(f"split-server-{n}" for n in range(SPLIT_SERVERS)),
    ]
    return [(draw.uniform(0.0, 1.2), tuple(draw.sample(names, draw.randint(1, 3)))) for _ in range(draw.randint(1, 4))]


def spec_of(name: str, **strategy: Any) -> RunSpec:
    tables = {
        "run": {"name": name, "rounds": 8},
        "data": {"clients": CLIENTS, "batch_size": 16},
        "strategy": {"body_optimizer": {"lr": 0.02}, "client_optimizer": {"momentum": 0.9, "lr": 0.05}, **strategy},
        "servers": {"split": SPLIT_SERVERS, "clients_per_process": 3, "restarts": NO_LIMIT, "spread": "random"},
    }
    return RunSpec.parse(tables).resolved(input_shape=(1, 8, 8), classes=10)


@dataclass
class Outcome:
    """What a run left, and what was done to it."""

    body: str
    client: str
    commits: list[Commit]
    stored: set[Unit]
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def hashes(self) -> tuple[str, str]:
        return self.body, self.client


@dataclass
class Cluster:
    """Supervised processes that live through many runs."""

    federation: microsfl.Federation

    def run(self, spec: RunSpec, kills: list[Kill]) -> Outcome:
        """Start a run, kill by the schedule while it goes on, and see it finish."""
        _, done = self.disturbed(spec, kills)
        return self.outcome(spec, done)

    def disturbed(self, spec: RunSpec, kills: list[Kill]) -> tuple[Control, Counter[str]]:
        """The same for a run of any strategy: how to ask for what it came to, and how many of each role were killed."""
        control = Control(self.federation.coordinator, spec.run.name)
        control.create(spec)
        control.start()
        done: Counter[str] = Counter()
        for pause_s, names in kills:
            time.sleep(pause_s)  # the schedule itself; nothing is waited for by it
            if self._is_over(spec, control):
                break  # a kill that comes too late for this run would count for nothing
            for child in self.federation.children:
                if child.name in names and child.state != "ended":
                    os.kill(child.process.pid, signal.SIGKILL)
                    done[child.role] += 1
        self.finish(control)
        return control, done

    def _is_over(self, spec: RunSpec, control: Control) -> bool:
        if spec.strategy.traits.split:  # the store can be asked whoever is dead
            return self._chain(spec).head().open_round == spec.run.rounds
        return bool(control.run(spec.run.name)["state"] == "finished")

    def outcome(self, spec: RunSpec, kills: Counter[str] | None = None) -> Outcome:
        body = self._chain(spec)
        client = Chain(open_store(self.federation.store_url("client")), spec.run.name, keys.CLIENT)
        commits = list(body.back(body.head()))
        return Outcome(
            body.head().weights.sha256,
            client.head().weights.sha256,
            commits,
            self.stored(spec.run.name),
            kills or Counter(),
        )

    def _chain(self, spec: RunSpec) -> Chain:
        return Chain(open_store(self.federation.store_url("body")), spec.run.name, keys.BODY)

    def stored(self, run: str) -> set[Unit]:
        """The units whose contributions stand in the body area."""
        keys_ = open_store(self.federation.store_url("body")).list(f"runs/{run}/rounds")
        parts = [key.split("/") for key in keys_ if "/gradients/" in key]
        return {(int(part[3]), part[5], int(part[6].removesuffix(".safetensors"))) for part in parts}

    def wait(self, control: Control, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The run, as soon as the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        run = control.run(control.name)
        while not condition(run):
            ended = run["state"] in ("finished", "failed", "stopped")
            if ended or time.monotonic() > deadline:
                raise AssertionError(
                    f"{control.name}: {run['state']}, {run['phase']}, {run['reason']}, {run['progress']}"
                )
            run = control.watch(run["revision"], 1.0)
        return run

    def finish(self, control: Control) -> None:
        self.wait(control, lambda run: run["state"] == "finished")

    def pause(self, seconds: float) -> None:
        """How long a fault lasts; nothing is waited for by it."""
        time.sleep(seconds)


@contextmanager
def cluster(folder: Path, **tables: dict[str, str]) -> Iterator[Cluster]:
    """The processes; the run that a federation starts with is finished before anything is killed.

    `tables` say where stores and records are; by default in the folder.
    """
    spec = RunSpec.parse({**spec_of("warm-up").model_dump(mode="json"), **tables})
    with microsfl.Federation(spec, folder=folder) as federation:
        for _ in federation.follow():
            pass
        yield Cluster(federation)


def audit(commits: list[Commit], stored: set[Unit], acknowledged: set[Unit]) -> None:
    """Every acknowledged contribution is stored, and in exactly one commit or left out with a reason; no other is."""
    settled = Counter(
        (commit.round, one.client, one.unit) for commit in commits for one in (*commit.contributions, *commit.left_out)
    )
    twice = [unit for unit, times in settled.items() if times > 1]
    assert not twice, f"settled more than once: {twice}"
    assert settled.keys() == stored, f"stored but not settled, or not stored: {sorted(settled.keys() ^ stored)[:5]}"
    assert stored == acknowledged, f"acknowledged but not stored, or not known: {sorted(stored ^ acknowledged)[:5]}"
    assert all(one.reason for commit in commits for one in commit.left_out)


def acknowledged(spec: RunSpec) -> set[Unit]:
    """What the clients of a finished run must have seen acknowledged: a client reports a round after all of its units.

    It is worked out from the data alone, so that a store which lost a file cannot agree with itself.
    """
    data = load_data("digits", None)
    shares = partition(
        labels(data.train),
        labels(data.test),
        clients=CLIENTS,
        scheme=spec.data.partition,
        alpha=spec.data.alpha,
        shards_per_client=spec.data.shards_per_client,
        seed=spec.run.seed,
    )
    return {
        (round_, client, unit)
        for client, share in zip(client_ids(CLIENTS), shares, strict=True)
        for unit in range(-(-len(share.train) // spec.data.batch_size))
        for round_ in range(spec.run.rounds)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sync", type=int, default=0, help="commit every K batches, and audit instead of comparing")
    arguments = parser.parse_args()
    strategy = {"sync": arguments.sync} if arguments.sync else {}
    kills: Counter[str] = Counter()
    good, began_at = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "run") as living:
        expected = living.run(spec_of("calm", **strategy), [])
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.schedules):
            spec = spec_of(f"chaos-{seed}", **strategy)
            outcome = living.run(spec, schedule(seed))
            audit(outcome.commits, outcome.stored, acknowledged(spec))
            kills += outcome.kills
            well = bool(arguments.sync) or outcome.hashes == expected.hashes
            good += well
            print(f"seed {seed}: {sum(outcome.kills.values())} kills, {'good' if well else 'WRONG'}", flush=True)
    seconds = time.monotonic() - began_at
    what = "pass the audit" if arguments.sync else "pass the audit and have equal weights"
    print(f"{arguments.schedules} schedules, {kills.total()} kills {dict(kills)}, {good} {what}, {seconds:.0f} s")
    return 0 if good == arguments.schedules else 1


if __name__ == "__main__":
    sys.exit(main())
