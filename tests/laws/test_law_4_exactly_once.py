"""Law 4: duplicated, reordered, delayed and replayed requests change nothing; every acknowledged contribution is in
exactly one commit, or is listed with the reason as left out."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.unit import UnitKey
from microsfl.errors import InputError, RoundClosed, RunExists
from microsfl.sync import contributions, keys
from microsfl.sync.seals import seal
from microsfl.wire.messages import Backward, Gradients, Step
from tests.world import MODELS, World, spec_of, toy_data

CLIENTS = 3


class Unruly:
    """A network and a cluster that do their worst, decided by one seed.

    Requests are repeated at once on another replica, kept and replayed later (rounds later, too), and replicas are
    replaced by fresh ones that know nothing. Errors that replays get are nobody's to see.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.kept: list[Any] = []
        self.acknowledged: set[tuple[int, str, int]] = set()
        self.replays = 0

    def __call__(self, path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        self._replay()
        if self.random.random() < 0.2:
            self.world.split.replicas[self.random.randrange(len(order))] = self.world.new_replica()
        answer = ask(order[0])
        self._note(path, body)
        if self.random.random() < 0.3:
            self._again(ask)
        if self.random.random() < 0.5:
            self.kept.append(ask)
        return answer

    def _replay(self) -> None:
        while self.kept and self.random.random() < 0.4:
            self._again(self.kept.pop(self.random.randrange(len(self.kept))))

    def _again(self, ask: Any) -> None:
        self.replays += 1
        with contextlib.suppress(InputError):
            ask(self.random.choice(self.world.split.replicas))

    def _note(self, path: str, body: bytes | None) -> None:
        if path in ("/v1/backward", "/v1/step"):
            kind = Backward if path == "/v1/backward" else Step
            key = kind.unpack(body or b"").key
            self.acknowledged.add((key.round, key.client, key.unit))


def world_with_clients(spec: Any, **options: Any) -> World:
    world = World(spec, **options)
    for number in range(CLIENTS):
        world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
    return world


def audit(world: World, acknowledged: set[tuple[int, str, int]]) -> None:
    """Reads the store alone: each acknowledged contribution is in exactly one commit, or left out exactly once."""
    settled: Counter[tuple[int, str, int]] = Counter()
    for commit in world.commits():
        for one in (*commit.contributions, *commit.left_out):
            settled[commit.round, one.client, one.unit] += 1
    assert {unit for unit, times in settled.items() if times != 1} == set()
    assert acknowledged <= settled.keys()
    assert all(one.reason for commit in world.commits() for one in commit.left_out)


@given(seed=st.integers(0, 2**32), u_shaped=st.booleans())
@settings(max_examples=25, deadline=None)
def test_law_4_an_unruly_network_changes_no_bit(seed: int, u_shaped: bool) -> None:
    spec = spec_of(data={"clients": CLIENTS}, model={"name": f"{MODELS}dropout", "u_shaped": u_shaped})
    calm = world_with_clients(spec)
    calm.run()
    world = world_with_clients(spec, replicas=3, spread="random")
    world.split.faults = unruly = Unruly(world, seed)
    world.run()
    assert (world.body_hash(), world.client_hash()) == (calm.body_hash(), calm.client_hash())
    audit(world, unruly.acknowledged)
    assert len(unruly.acknowledged) == sum(len(commit.contributions) for commit in world.commits())


def test_law_4_the_unruly_network_does_replay() -> None:
    """The test of the test."""
    world = world_with_clients(spec_of(data={"clients": CLIENTS}), replicas=3, spread="random")
    world.split.faults = unruly = Unruly(world, 1)
    world.run()
    assert unruly.replays > 10


@given(seed=st.integers(0, 2**32), sync=st.integers(1, 7), staleness=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_law_4_with_commits_inside_the_round(seed: int, sync: int, staleness: int) -> None:
    spec = spec_of(data={"clients": CLIENTS}, strategy={"sync": sync, "max_staleness": staleness})
    world = world_with_clients(spec, replicas=3, spread="random")
    world.split.faults = unruly = Unruly(world, seed)
    world.run()
    audit(world, unruly.acknowledged)


@pytest.mark.parametrize("sync", [1, 4, "round"])
def test_law_4_with_clients_and_replicas_at_the_same_time(sync: int | str) -> None:
    """Real threads: every client in one, every replica on its own compute thread, racing for the commits."""
    spec = spec_of(run={"rounds": 3}, data={"clients": CLIENTS}, strategy={"sync": sync, "max_staleness": 1})
    world = world_with_clients(spec, replicas=3, spread="random")
    acknowledged: set[tuple[int, str, int]] = set()

    def on_its_thread(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        answer = order[0].compute.submit(ask, order[0]).result()
        if path == "/v1/backward":
            key = Backward.unpack(body or b"").key
            acknowledged.add((key.round, key.client, key.unit))
        return answer

    world.split.faults = on_its_thread
    for number in range(spec.run.rounds):
        tasks = [(trainer, world.task(client, number)) for client, trainer in world.trainers.items()]
        threads = [threading.Thread(target=trainer.train, args=(task,)) for trainer, task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        world.close(number)
    assert len(acknowledged) == (2 + 3 + 3) * spec.run.rounds  # 17, 18 and 19 samples in batches of 8
    audit(world, acknowledged)


def test_law_4_stale_contributions_are_listed_with_the_reason() -> None:
    spec = spec_of(data={"clients": CLIENTS}, strategy={"sync": 1, "max_staleness": 0})
    world = world_with_clients(spec)
    held: list[Any] = []

    def hold_back(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        """c0's first backward is computed on version 0 and delivered when others have moved the body on."""
        if path == "/v1/backward" and not held and Backward.unpack(body or b"").client == "c0":
            held.append(ask)
            world.trainers["c1"].train(world.task("c1", 0))
        return ask(order[0])

    world.split.faults = hold_back
    world.trainers["c0"].train(world.task("c0", 0))
    world.trainers["c2"].train(world.task("c2", 0))
    world.close(0)
    left_out = [one for commit in world.commits() for one in commit.left_out]
    assert [(one.client, one.unit) for one in left_out] == [("c0", 0)]
    assert "max_staleness is 0" in left_out[0].reason


def test_law_4_a_contribution_after_the_seal_is_not_acknowledged() -> None:
    """It was written before the close listed, or it is refused: there is no third case."""
    spec = spec_of(data={"clients": 1})
    world = World(spec)
    world.join("one", toy_data())
    late: list[Any] = []

    def deliver_late(path: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        if path == "/v1/backward" and not late:
            late.append(ask)
        return ask(order[0])

    world.split.faults = deliver_late
    world.round(0)
    before = [commit.to_bytes() for commit in world.commits()]
    world.body_store.delete(keys.contribution(UnitKey("toy", 0, "one", 0)))  # as if it had never arrived
    with pytest.raises(RoundClosed):
        late[0](world.new_replica())
    assert [commit.to_bytes() for commit in world.commits()] == before


@pytest.mark.parametrize("path", ["/v1/backward", "/v1/step"])
def test_law_4_nothing_is_acknowledged_between_the_seal_and_the_commit(path: str) -> None:
    """Whoever closes has listed already: a contribution that comes now might be in no commit, so it gets no answer."""
    spec = spec_of(data={"clients": 1}, model={"u_shaped": path == "/v1/backward"})
    world = World(spec)
    world.join("one", toy_data())
    acknowledged: list[str] = []

    def seal_first(asked: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        if asked == path:
            seal(world.body_store, "toy", 0)
        answer = ask(order[0])
        acknowledged.append(asked)
        return answer

    world.split.faults = seal_first
    with pytest.raises(RoundClosed):
        world.trainers["one"].train(world.task("one", 0))
    assert path not in acknowledged


def test_law_4_a_list_that_another_commit_overtook_counts_nothing_twice() -> None:
    """Two replicas list the same contributions; the slower one commits after the faster one did."""
    spec = spec_of(data={"clients": CLIENTS}, strategy={"sync": 1000, "max_staleness": 5})
    world = world_with_clients(spec, replicas=2)
    for client, trainer in world.trainers.items():
        trainer.train(world.task(client, 0))
    slow, fast = (replica.calls["/v1/reduce"].__self__._run("toy").sync for replica in world.split.replicas)  # type: ignore[attr-defined]
    listed = slow._waiting(0)
    fast._commit(0, listed, closes=False)
    slow._commit(0, listed, closes=False)
    world.close(0)
    audit(world, {(0, unit.client, unit.unit) for unit in listed})
    assert [len(commit.contributions) for commit in world.commits()] == [0, len(listed), 0]


@given(seed=st.integers(0, 2**32), parts=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_law_4_partial_sums_count_nothing_twice(seed: int, parts: int) -> None:
    """Others add up parts of a round at any moment and more than once, also while a late contribution comes in that
    nobody was promised: what is committed is what one replica alone makes of the files that it finds."""
    spec = spec_of(run={"rounds": 1}, data={"clients": CLIENTS}, model={"name": f"{MODELS}batchnorm"})
    helped, alone = world_with_clients(spec, replicas=parts), world_with_clients(spec)
    for world in (helped, alone):
        for client, trainer in world.trainers.items():
            trainer.train(world.task(client, 0))
    draw = random.Random(seed)
    units = sorted(helped.body_store.list(keys.gradients("toy", 0)))
    late = draw.choice(units)
    content = helped.body_store.get(late)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contributions, "GROUP", 2)
        helped.body_store.delete(late)
        for place in range(2 * parts):
            if place == parts:
                helped.body_store.create(late, content)
            if draw.random() < 0.6:
                part = draw.randrange(parts)
                shared = {"run": "toy", "round": 0, "parts": draw.choice([parts, parts + 1])}
                helped.split.replicas[part].calls["/v1/partials"]({**shared, "part": part})
        helped.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": 0, "parts": parts})
        alone.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": 0})
    assert helped.body_hash() == alone.body_hash()
    assert [commit.to_bytes() for commit in helped.commits()] == [commit.to_bytes() for commit in alone.commits()]
    audit(helped, {(0, *keys.unit_of(path)) for path in units})


def test_law_4_who_closes_while_others_add_up_loses_nothing() -> None:
    """Real threads: three replicas add up their parts while the fourth closes the round, and one asks for it again."""
    spec = spec_of(data={"clients": CLIENTS})
    world, alone = world_with_clients(spec, replicas=4), world_with_clients(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contributions, "GROUP", 1)
        for number in range(spec.run.rounds):
            for one in (world, alone):
                for client, trainer in one.trainers.items():
                    trainer.train(one.task(client, number))
            alone.close(number)
            call = {"run": "toy", "round": number, "parts": 4}
            asked = [
                replica.compute.submit(replica.calls["/v1/partials"], {**call, "part": part})
                for part, replica in enumerate(world.split.replicas)
                if part
            ]
            first, second = (world.split.replicas[place] for place in (0, 1))
            closing = [replica.compute.submit(replica.calls["/v1/reduce"], call) for replica in (first, second)]
            versions = {one.result()["version"] for one in closing}
            assert versions == {number + 1}
            assert all(one.result()["sums"] >= 0 for one in asked)
            world.close(number)
    assert world.body_hash() == alone.body_hash()
    assert [commit.contributions for commit in world.commits()] == [commit.contributions for commit in alone.commits()]


def test_law_4_the_first_contribution_of_a_unit_is_the_one_that_counts() -> None:
    """A client that comes back with other numbers for a unit that is done changes nothing."""
    world = World(spec_of(data={"clients": 1}))
    world.join("one", toy_data())
    again: list[Backward] = []

    def keep(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        if path == "/v1/backward":
            again.append(Backward.unpack(body or b""))
        return ask(order[0])

    world.split.faults = keep
    world.trainers["one"].train(world.task("one", 0))
    stored = {path: world.body_store.get(path) for path in world.body_store.list(keys.gradients("toy", 0))}
    assert len(stored) == len(again)
    for request in again:
        other = {
            "gradients": {name: 2 * tensor for name, tensor in request.gradients.items()},
            "activations": {"0": torch.ones(8, 5)},
        }
        answer, _ = world.new_replica().answer("/v1/backward", request.model_copy(update=other).pack())
        assert Gradients.unpack(answer).version == 0
    assert {path: world.body_store.get(path) for path in stored} == stored


def test_law_4_whoever_asks_for_another_run_of_that_name_changes_nothing() -> None:
    """What is refused must not be what a replica goes on to compute with."""
    of = spec_of(strategy={"sync": 1}, data={"clients": CLIENTS})
    other = {"name": "sflv1", "body_optimizer": {"name": "SGD", "lr": 9.0}, "server_optimizer": {"name": "FedAvgM"}}
    world, undisturbed = world_with_clients(of), world_with_clients(of)
    for number in range(of.run.rounds):
        for replica in (*world.split.replicas, *world.fed.replicas):
            with pytest.raises(RunExists):
                replica.calls["/v1/runs"]({"spec": json.loads(spec_of(strategy=other).to_json())})
        world.round(number)
    undisturbed.run()
    assert (world.body_hash(), world.client_hash()) == (undisturbed.body_hash(), undisturbed.client_hash())


def test_law_4_the_audit_finds_a_contribution_counted_twice() -> None:
    """The test of the test: a commit forged by hand that takes a contribution a second time."""
    world = world_with_clients(spec_of(data={"clients": CLIENTS}))
    world.run()
    head = world.chain.head()
    taken = next(commit for commit in world.commits() if commit.contributions)
    forged = head.model_copy(
        update={"version": head.version + 1, "parent": head.version, "round": 0, "contributions": taken.contributions}
    )
    assert world.chain.create(forged)
    with pytest.raises(AssertionError):
        audit(world, set())
