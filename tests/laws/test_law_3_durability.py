"""Law 3: whatever process dies, at whatever moment, and comes back knowing nothing: the run goes on to the same bits.

Here a process dies between two of its operations on the store or the network, for every such moment; real processes
under SIGKILL are in tests/faults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.store.objects import ObjectStore
from tests.laws.test_law_2_statelessness import commits
from tests.world import MODELS, World, spec_of, toy_data

CLIENTS = 3
# In three rounds: 24 contributions, 9 updates, 6 seals, and 15 files of versions and commits.
WRITES = 54
MOMENTUM = {"name": "SGD", "lr": 0.05, "momentum": 0.9}


class Killed(BaseException):
    """What a process experiences of its SIGKILL: no handler of an ordinary error sees it."""


class Mortal:
    """Counts the operations of all processes, and lets whoever makes operation number `at` die before or after it."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.count = at, after, 0

    def wrap(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*arguments: Any) -> Any:
            self.count += 1
            dies = self.count == self.at
            if dies and not self.after:
                raise Killed
            result = operation(*arguments)
            if dies:
                raise Killed
            return result

        return mortal

    def watch(self, store: ObjectStore) -> None:
        # All that lasts is created; what is put and deleted are the hand-over copies, on a thread of their own.
        store.create = self.wrap(store.create)  # type: ignore[method-assign]


def make(spec: Any) -> World:
    world = World(spec, replicas=2)
    for number in range(CLIENTS):
        world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
    return world


def restart_everything(world: World) -> None:
    """Every process is new: only the store and the clients' own data are left."""
    for number in range(len(world.split.replicas)):
        world.split.replicas[number] = world.new_replica()
    world.new_fed_server()
    for client, data in world.data.items():
        world.join(client, data)


def run_through(world: World, restart: Callable[[World], None]) -> int:
    """Run all rounds; after a death, restart and do the open round again from its start. The number of deaths."""
    deaths, number = 0, 0
    while number < world.spec.run.rounds:
        try:
            world.round(number)
            number += 1
        except Killed:
            deaths += 1
            restart(world)
            body, client = world.chain.status(), world.client_chain.status()
            number = min(body["open_round"], client["open_round"])
            if body["open_round"] != client["open_round"] or body["sealed"] or client["sealed"]:
                world.close(number)  # its closing had begun: closing again brings it to its end
                number += 1
    return deaths


def spec(**model: Any) -> Any:
    strategy = {"body_optimizer": MOMENTUM, "client_optimizer": MOMENTUM}
    return spec_of(run={"rounds": 3}, data={"clients": CLIENTS}, model=model, strategy=strategy)


def undisturbed(of: Any) -> list[bytes]:
    world = make(of)
    world.run()
    return commits(world)


@given(at=st.integers(1, WRITES), after=st.booleans(), u_shaped=st.booleans())
@settings(max_examples=60, deadline=None)
def test_law_3_a_death_at_any_operation_on_the_store_changes_no_bit(at: int, after: bool, u_shaped: bool) -> None:
    of = spec(name=f"{MODELS}dropout", u_shaped=u_shaped)
    world = make(of)
    mortal = Mortal(at, after)
    for store in (world.body_store, world.client_store):
        mortal.watch(store)
    run_through(world, restart_everything)
    assert commits(world) == undisturbed(of)


def test_law_3_every_process_new_before_every_round() -> None:
    of = spec(name=f"{MODELS}batchnorm")
    world = make(of)
    for number in range(of.run.rounds):
        restart_everything(world)
        world.round(number)
    assert commits(world) == undisturbed(of)


@pytest.mark.parametrize("phase", ["uploaded", "in the middle"])
def test_law_3_a_client_that_comes_back_replays_its_round(phase: str) -> None:
    """Its optimizer has momentum: going on with a fresh one, or one that stepped twice, would show."""
    of = spec(name=f"{MODELS}dropout")
    world = make(of)
    world.round(0)
    if phase == "uploaded":
        world.trainers["c1"].train(world.task("c1", 1))
    else:
        next(world.trainers["c1"].steps(world.task("c1", 1)))
    world.join("c1", world.data["c1"])
    world.round(1)
    world.round(2)
    assert commits(world) == undisturbed(of)


def test_law_3_the_deaths_do_happen() -> None:
    """The test of the test."""
    world = make(spec())
    mortal = Mortal(40, after=True)
    for store in (world.body_store, world.client_store):
        mortal.watch(store)
    assert run_through(world, restart_everything) == 1
    assert mortal.count > WRITES


def test_law_5_from_the_store_alone_the_run_goes_on_and_repeats_no_finished_round() -> None:
    """A new federation of new processes on the files that the old one left after two of three rounds."""
    of = spec(name=f"{MODELS}dropout")
    old = make(of)
    old.round(0)
    old.round(1)
    before = commits(old)
    restart_everything(old)
    assert old.chain.head().open_round == old.client_chain.head().open_round == 2
    old.round(2)
    assert commits(old) == undisturbed(of)
    assert set(before) <= set(commits(old))
