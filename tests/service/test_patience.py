"""Deadlines, quorums, leases and giving up, over real HTTP with a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from microsfl.records import Records
from microsfl.services.roster import CLIENT_LEASE_S, SERVER_LEASE_S
from tests.service.control_plane import CLIENTS, Api, Json, StandIn, coordinator, spec


@dataclass
class World:
    """A coordinator whose clock stands still unless it is turned."""

    records: Records
    plane: StandIn
    now: float = 1000.0
    running: ExitStack = field(default_factory=ExitStack)
    api: Api = field(init=False)

    def restart(self) -> None:
        self.running.close()
        self.api = self.running.enter_context(coordinator(self.records, clock=lambda: self.now))
        self.api.register_servers(self.plane.url)

    def begin(self, **run: Any) -> None:
        """A started run of all clients."""
        self.api.register_clients(*CLIENTS)
        self.api.post("/runs", spec(**run))
        self.api.post("/runs/demo/start")
        self.api.wait_for(lambda run: run["phase"] == "training")

    def turn(self, seconds: float, *alive: str) -> None:
        """Let time pass, during which these clients say that they are there."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + CLIENT_LEASE_S / 2)
            self.api.register_clients(*alive)

    def do(self, *clients: str) -> None:
        for task in self.api.poll(*clients):
            assert self.api.report(task)

    def phase(self, phase: str, round_: int = 0) -> Json:
        return self.api.wait_for(lambda run: (run["phase"], run["round"]) == (phase, round_))

    def absent(self, round_: int = 0) -> list[Json]:
        rows: list[Json] = self.api.get("/runs/demo/rounds")["rounds"][round_]["absent"]
        return rows


@pytest.fixture
def world(records: Records, plane: StandIn) -> Iterator[World]:
    made = World(records, plane)
    with made.running:
        made.restart()
        yield made


def test_a_late_client_is_left_out_and_may_come_back(world: World) -> None:
    world.begin(deadline_s=40, quorum=0.6)
    late = world.api.poll("c1")[0]
    world.do("c0", "c2")
    world.turn(45, *CLIENTS)
    assert world.phase("evaluating")["progress"] == {"c0": "evaluate", "c1": "left_out", "c2": "evaluate"}
    assert not world.api.report(late)
    assert ("/v1/aggregate", {"run": "demo", "round": 0, "clients": ["c0", "c2"], "last": None}) in world.plane.calls
    world.do("c0", "c2")
    assert world.phase("training", 1)["away"] == ["c1"]
    assert world.absent() == [{"client": "c1", "phase": "training", "reason": "late: no report within 40 s"}]
    assert [row["client"] for row in world.api.get("/runs/demo/metrics")["metrics"]] == ["c0", "c2"]

    assert world.api.poll("c1")[0]["round"] == 1
    assert world.api.get("/runs/demo")["away"] == []
    world.do("c0", "c2")
    assert world.api.get("/runs/demo")["phase"] == "training"  # it is waited for again
    world.do("c1")
    world.phase("evaluating", 1)
    world.do(*CLIENTS)
    assert world.api.wait_for(lambda run: run["state"] == "finished")["round"] == 1
    assert world.absent(1) == []


def test_who_is_late_gets_nothing_new_while_it_is_at_it(world: World) -> None:
    world.begin(deadline_s=40, quorum=0.6)
    late = world.api.poll("c1")[0]
    world.do("c0", "c2")
    world.turn(45, *CLIENTS)
    world.phase("evaluating")
    world.do("c0", "c2")
    world.phase("training", 1)
    told = {"clients": list(CLIENTS), "wait_s": 0}
    at_it = [{name: late[name] for name in ("run", "client", "kind", "round")}]
    assert [one["client"] for one in world.api.post("/tasks/poll", {**told, "in_hand": at_it})["tasks"]] == ["c0", "c2"]
    assert world.api.get("/runs/demo")["away"] == ["c1"]
    assert [one["client"] for one in world.api.post("/tasks/poll", told)["tasks"]] == list(CLIENTS)
    assert world.api.get("/runs/demo")["away"] == []


def test_who_stays_away_costs_no_further_deadline(world: World) -> None:
    world.begin(deadline_s=40, quorum=0.6, rounds=3)
    for round_ in range(3):
        world.do("c0", "c2")
        if round_ == 0:
            world.turn(45, *CLIENTS)
        world.phase("evaluating", round_)
        world.do("c0", "c2")
    world.api.wait_for(lambda run: run["state"] == "finished")
    assert world.absent(2) == [{"client": "c1", "phase": "training", "reason": "late: not back from an earlier round"}]


def test_with_a_quorum_a_client_that_fails_is_left_out_of_its_round(world: World) -> None:
    world.begin(deadline_s=1000, quorum=0.6)
    task = world.api.poll("c1")[0]
    assert world.api.fail(task)
    failed = {"client": "c1", "phase": "training", "reason": "failed: no /data (dataset_not_found)"}
    assert world.absent() == [failed]
    assert world.api.poll("c1", wait_s=0) == []
    assert not world.api.fail(task)
    assert world.api.get("/runs/demo")["progress"] == {"c0": "train", "c1": "left_out", "c2": "train"}
    world.restart()
    world.api.register_clients(*CLIENTS)
    world.do("c0", "c2")
    assert world.phase("evaluating")["progress"] == {"c0": "evaluate", "c1": "left_out", "c2": "evaluate"}
    world.do("c0")
    assert world.api.fail(world.api.poll("c2")[0], "internal", "broke")
    world.phase("training", 1)
    assert world.absent() == [
        failed,
        {"client": "c2", "phase": "evaluating", "reason": "failed: broke (internal)"},
    ]
    assert [task["round"] for task in world.api.poll(*CLIENTS)] == [1, 1, 1]


def test_clients_that_fail_end_a_run_whose_quorum_is_gone_and_it_can_be_resumed(world: World) -> None:
    world.begin(deadline_s=1000, quorum=0.6)
    for task in world.api.poll("c1", "c2"):
        assert world.api.fail(task)
    run = world.api.get("/runs/demo")
    assert (run["state"], run["reason"]) == (
        "failed",
        "the quorum of round 0 is 2, and at most 1 of 3 clients can train: "
        "c1: no /data (dataset_not_found); c2: no /data (dataset_not_found)",
    )
    assert [one["client"] for one in world.absent()] == ["c1"]
    world.api.post("/runs/demo/resume")
    world.api.wait_for(lambda run: run["phase"] == "training")
    assert world.absent() == []
    assert len(world.api.poll(*CLIENTS)) == 3


def test_a_run_gives_up_on_the_one_whose_turn_it_is_though_the_others_are_alive(world: World) -> None:
    world.begin(give_up_s=100, strategy="sl")
    [task] = world.api.poll(*CLIENTS)
    world.turn(101, *set(CLIENTS) - {task["client"]})
    reason = world.api.wait_for(lambda run: run["state"] == "failed")["reason"]
    assert reason.endswith(f"missing: {task['client']} (last heard of 101 s ago)")


def test_a_silent_client_is_left_out_before_the_deadline(world: World) -> None:
    world.begin(deadline_s=1000, quorum=0.6)
    world.do("c0", "c2")
    world.turn(CLIENT_LEASE_S + 5, "c0", "c2")
    world.phase("evaluating")
    assert world.absent() == [{"client": "c1", "phase": "training", "reason": "silent: last heard of 20 s ago"}]
    alive = {one["id"]: one["alive"] for one in world.api.get("/participants")["participants"]}
    assert alive == {"c0": True, "c1": False, "c2": True, "fed": False, "split-0": False}


def test_below_the_quorum_the_run_waits_for_it(world: World) -> None:
    world.begin(deadline_s=40, quorum=0.6)
    world.do("c0")
    world.turn(45, *CLIENTS)
    run = world.api.wait_for(lambda run: run["overdue"])
    assert (run["phase"], run["progress"]) == ("training", {"c0": "done", "c1": "train", "c2": "train"})
    world.do("c2")
    assert world.phase("evaluating")["overdue"] is False


def test_a_late_evaluation_holds_nobody_up(world: World) -> None:
    world.begin(deadline_s=40)
    world.do(*CLIENTS)
    world.phase("evaluating")
    world.do("c0")
    world.turn(45, "c0", "c1")
    world.phase("training", 1)
    assert world.absent() == [
        {"client": "c1", "phase": "evaluating", "reason": "late: no report within 40 s"},
        {"client": "c2", "phase": "evaluating", "reason": "silent: last heard of 45 s ago"},
    ]
    assert world.api.get("/runs/demo/rounds")["rounds"][0]["ended_at"] == world.now


def test_a_run_gives_up_on_its_quorum_and_names_who_is_missing(world: World) -> None:
    world.begin(deadline_s=40, quorum=0.6, give_up_s=100)
    world.do("c0")
    world.turn(45, *CLIENTS)
    world.api.wait_for(lambda run: run["overdue"])
    world.turn(90, "c0", "c1")
    assert world.api.get("/runs/demo")["state"] == "running"
    world.turn(10, "c0", "c1")
    assert world.api.wait_for(lambda run: run["state"] == "failed")["reason"] == (
        "no progress for 100 s (run.give_up_s) in training of round 0: 1 of 3 clients have trained, the quorum is 2; "
        "missing: c1, c2 (last heard of 100 s ago)"
    )


def test_without_a_deadline_only_who_is_silent_makes_a_run_give_up(world: World) -> None:
    world.begin(give_up_s=100)
    world.do("c0", "c2")
    world.turn(300, "c1")
    world.turn(99)
    assert world.api.get("/runs/demo")["state"] == "running"
    world.turn(1)
    reason = world.api.wait_for(lambda run: run["state"] == "failed")["reason"]
    assert reason.endswith("2 of 3 clients have trained, the quorum is 3; missing: c1 (last heard of 100 s ago)")


def test_a_run_gives_up_on_clients_that_never_come(world: World) -> None:
    world.api.register_clients("c0")
    world.api.post("/runs", spec(give_up_s=30))
    world.api.post("/runs/demo/start")
    world.turn(30, "c0")
    assert world.api.wait_for(lambda run: run["state"] == "failed")["reason"] == (
        "waited 30 s (run.give_up_s) for 3 clients to begin with; 1 are there (c0)"
    )


def test_a_restart_keeps_the_deadline_but_leaves_time_to_report(world: World) -> None:
    world.begin(deadline_s=40, quorum=0.6)
    world.do("c0")
    world.running.close()
    world.now += 1000
    world.restart()
    world.api.register_clients(*CLIENTS)
    world.do("c1")
    assert world.api.get("/runs/demo")["phase"] == "training"
    world.turn(CLIENT_LEASE_S, *CLIENTS)
    world.phase("evaluating")
    assert [one["client"] for one in world.absent()] == ["c2"]
    world.restart()
    assert [one["client"] for one in world.absent()] == ["c2"]


def test_a_registration_answers_with_the_servers_that_are_alive(world: World) -> None:
    other = {"id": "other", "role": "split-server", "address": "http://other:1"}
    known = world.api.post("/participants", other)
    assert known["split_servers"] == ["http://other:1", world.plane.url]
    assert (known["fed_server"], known["alive"]) == (world.plane.url, True)
    world.now += SERVER_LEASE_S + 1
    assert world.api.post("/participants", other)["split_servers"] == ["http://other:1"]
