"""`microsfl gc`: a run goes on as if nothing had been removed, whenever it is removed and whoever dies meanwhile."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from microsfl.cli import main
from microsfl.errors import InvalidSetting, StoreCorrupt, StoreUnavailable
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain
from microsfl.sync.inventory import Inventory, classify, take_stock
from microsfl.sync.retention import Plan, carry_out, plan
from microsfl.sync.runs import create_run
from microsfl.sync.verify import verify
from tests.s3_server import environment_for, s3_server
from tests.world import MODELS, World, spec_of, toy_data

ROUNDS = 4
CLIENTS = 3
NEVER = {"spec", "commit", "seal", "mark", "unknown"}


def spec(sync: str | int = "round", **run: Any) -> RunSpec:
    return spec_of(
        run={"rounds": ROUNDS, **run},
        data={"clients": CLIENTS},
        model={"name": f"{MODELS}dropout"},
        strategy={"sync": sync, "max_staleness": 2, "body_optimizer": {"name": "Adam", "lr": 0.01}},
    )


def world_in(folder: Path, specification: RunSpec, **options: Any) -> World:
    world = World(specification, folder=folder, **options)
    for number in range(CLIENTS):
        world.join(f"c{number}", toy_data(samples=17 + number, seed=number))
    return world


def settle(world: World) -> None:
    """Until what the replicas store behind their answers is stored."""
    for replica in world.split.replicas:
        assert replica.close
        replica.close()


def stores(folder: Path) -> dict[str, ObjectStore]:
    return {area: open_store(f"file://{folder}/{area}") for area in (keys.BODY, keys.CLIENT)}


def plans(folder: Path, keep: int = 2) -> list[tuple[ObjectStore, Plan]]:
    return [
        (store, plan(store, stock, area, keep))
        for store in stores(folder).values()
        for stock in take_stock(store)
        for area in stock.areas
    ]


def collect(folder: Path, keep: int = 2) -> set[str]:
    """Remove what can go; the keys of what went."""
    before = listed(folder)
    for store, one in plans(folder, keep):
        carry_out(store, one)
    return before - listed(folder)


def listed(folder: Path) -> set[str]:
    return {key for store in stores(folder).values() for key in store.list("runs")}


def kinds(removed: set[str]) -> set[str]:
    return {classify("toy", key).kind for key in removed}


def chain_bytes(folder: Path) -> list[bytes]:
    return [
        commit.to_bytes()
        for area, store in stores(folder).items()
        for commit in Chain(store, "toy", area).back(Chain(store, "toy", area).head())
    ]


@pytest.fixture(scope="module", params=["round", 4])
def sync(request: pytest.FixtureRequest) -> str | int:
    return request.param  # type: ignore[no-any-return]


def spread_of(sync: str | int) -> dict[str, Any]:
    """With commits inside the round it depends on who is asked when they are made, so there is one to ask."""
    return {"replicas": 2, "spread": "random"} if sync == "round" else {}


@pytest.fixture(scope="module")
def undisturbed(sync: str | int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing was removed from."""
    folder = tmp_path_factory.mktemp("undisturbed")
    world = world_in(folder, spec(sync), **spread_of(sync))
    world.run()
    settle(world)
    return folder


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(undisturbed, tmp_path / "finished")


@pytest.mark.parametrize("caches", [True, False])
def test_removing_after_every_round_changes_no_commit(
    sync: str | int, caches: bool, undisturbed: Path, tmp_path: Path
) -> None:
    world = world_in(tmp_path, spec(sync), caches=caches, **spread_of(sync))
    removed = set()
    for number in range(ROUNDS):
        world.round(number)
        removed |= collect(tmp_path)
        assert verify(stores(tmp_path)).errors == 0
    assert chain_bytes(tmp_path) == chain_bytes(undisturbed)
    assert {"weights", "optimizer", "contribution", "update"} <= kinds(removed)


def test_removing_within_a_round_changes_no_commit(sync: str | int, undisturbed: Path, tmp_path: Path) -> None:
    """Before every tenth request, whatever it is about; no replica has anything in memory."""
    world = world_in(tmp_path, spec(sync), caches=False, **spread_of(sync))

    def collect_first(_path: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        if len(world.split.requests) % 10 == 0:
            collect(tmp_path)
        return ask(order[0])

    world.split.faults = collect_first
    world.run()
    assert chain_bytes(tmp_path) == chain_bytes(undisturbed)


@pytest.mark.parametrize("sync", ["round", 1])
def test_removing_and_verifying_beside_a_living_run(sync: str | int, tmp_path: Path) -> None:
    """Real threads: the clients, the replicas' compute threads, one that removes and one that verifies."""
    world = world_in(tmp_path, spec(sync), replicas=3, spread="random", caches=False)
    world.split.faults = lambda _path, _body, ask, order: order[0].compute.submit(ask, order[0]).result()
    over, errors, removed = threading.Event(), [], set()

    def again_and_again(work: Callable[[], Any]) -> None:
        while not over.is_set():
            work()

    def look() -> None:
        errors.extend(one for _, one in verify(stores(tmp_path)).findings if one.severity == "error")

    with ThreadPoolExecutor(2 + CLIENTS) as pool:
        beside = [
            pool.submit(again_and_again, lambda: removed.update(collect(tmp_path))),
            pool.submit(again_and_again, look),
        ]
        try:
            for number in range(ROUNDS):
                tasks = [(trainer, world.task(client, number)) for client, trainer in world.trainers.items()]
                list(pool.map(lambda pair: pair[0].train(pair[1]), tasks))
                world.close(number)
        finally:
            over.set()
        for one in beside:
            one.result()
    assert errors == []
    assert {"weights", "contribution", "update"} <= kinds(removed)


def test_after_every_process_died_the_run_goes_on_from_what_is_left(sync: str | int, tmp_path: Path) -> None:
    removed, whole = tmp_path / "removed", tmp_path / "whole"
    for number in range(ROUNDS):
        for folder in (removed, whole):
            world = world_in(folder, spec(sync))
            world.round(number)
            settle(world)
        assert collect(removed) or not number
    assert chain_bytes(removed) == chain_bytes(whole)
    assert len(listed(removed)) < len(listed(whole)) / 2


def test_what_goes_and_what_stays_of_a_living_run(tmp_path: Path) -> None:
    world = world_in(tmp_path, spec())
    for number in range(3):
        world.round(number)
    world.trainers["c0"].train(world.task("c0", 3))
    settle(world)
    removed = collect(tmp_path)
    assert not kinds(removed) & NEVER
    went = [classify("toy", key) for key in removed]
    assert {one.number for one in went if one.kind in ("weights", "optimizer")} == {0, 1}
    assert {one.number for one in went if one.kind in ("contribution", "update")} == {0, 1}
    stock = [one for store in stores(tmp_path).values() for one in take_stock(store)]
    left = [one for inventory in stock for one in inventory.of("contribution", "update", "weights")]
    assert {one.number for one in left} == {2, 3}


def test_of_a_finished_run_the_newest_versions_and_updates_stay(finished: Path) -> None:
    heads = {area: Chain(store, "toy", area).head() for area, store in stores(finished).items()}
    removed = collect(finished)
    assert not kinds(removed) & NEVER
    left = [one for store in stores(finished).values() for stock in take_stock(store) for one in stock.entries]
    assert {one.kind for one in left} >= {"spec", "commit", "seal", "mark", "weights", "update"}
    assert {one.number for one in left if one.kind == "update"} == {ROUNDS - 1}
    assert not [one for one in left if one.kind in ("contribution", "activations")]
    for area, head in heads.items():
        kept = {one.number for one in left if one.kind == "weights" and one.area == area}
        assert kept <= {head.version, head.version - 1, head.version - 2}
        assert Chain(stores(finished)[area], "toy", area).read(head.weights)
    assert verify(stores(finished)).findings == ()


def test_keeping_more_removes_less(finished: Path) -> None:
    amounts = [sum(len(one.removals) for _, one in plans(finished, keep)) for keep in range(2, 40)]
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[0] > amounts[3]


def test_planning_removes_nothing_and_removing_again_finds_nothing(finished: Path) -> None:
    before = listed(finished)
    planned = {removal.key for _, one in plans(finished) for removal in one.removals}
    assert listed(finished) == before
    assert collect(finished) == planned
    assert collect(finished) == set()


def test_the_sizes_are_those_of_the_files(finished: Path) -> None:
    for store, one in plans(finished):
        assert [removal.size_bytes for removal in one.removals] == [len(store.get(r.key)) for r in one.removals]


def test_a_client_that_was_away_keeps_its_newest_update(tmp_path: Path) -> None:
    """Its optimizer's state comes from there when it is back, however long ago that was."""
    world = world_in(tmp_path, spec(rounds=9))
    world.round(0)
    away = world.trainers.pop("c1")
    for number in range(1, 4):
        world.round(number)
    removed = collect(tmp_path)
    assert keys.update("toy", 0, "c0") in removed
    assert keys.update("toy", 0, "c1") not in removed
    world.trainers["c1"] = away
    world.round(4)
    assert keys.update("toy", 0, "c1") in collect(tmp_path)


def test_files_that_lost_the_race_go_and_files_of_the_next_version_stay(finished: Path) -> None:
    store = stores(finished)[keys.BODY]
    chain = Chain(store, "toy", keys.BODY)
    head = chain.head().version
    lost, coming = chain.write(head, "weights", b"lost"), chain.write(head + 1, "weights", b"coming")
    removed = collect(finished)
    assert lost.key in removed
    assert coming.key not in removed


def test_a_file_of_an_old_version_that_a_kept_commit_names_stays(tmp_path: Path) -> None:
    """A round without contributions leaves the weights where they are."""
    world = world_in(tmp_path, spec(rounds=9))
    world.round(0)
    old = world.chain.head().weights
    for number in range(1, 4):
        world.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": number})
    assert world.chain.head().weights == old
    assert keys.version("toy", keys.BODY, 1) in old.key
    collect(tmp_path)
    assert world.chain.read(old)
    assert verify(stores(tmp_path)).errors == 0


def test_a_stranger_stays(finished: Path) -> None:
    store = stores(finished)[keys.BODY]
    for key in ("runs/toy/notes.txt", "runs/toy/rounds/0/gradients/notes.txt", "runs/toy/body/0/weights.safetensors"):
        store.put(key, b"mine")
        collect(finished)
        assert store.get(key) == b"mine"


def test_a_closed_round_without_its_seal_is_left_alone(finished: Path) -> None:
    store = stores(finished)[keys.BODY]
    store.delete(keys.seal("toy", 1))
    removed = collect(finished)
    assert not [key for key in removed if key.startswith(keys.gradients("toy", 1))]
    assert [key for key in removed if key.startswith(keys.gradients("toy", 0))]


@pytest.mark.parametrize("keep", [1, 0, -3])
def test_too_few_are_refused(finished: Path, keep: int) -> None:
    with pytest.raises(InvalidSetting, match=f"--keep {keep} is too few"):
        plans(finished, keep)


@pytest.mark.parametrize("damage", ["gap", "unreadable", "parent", "no specification"])
def test_nothing_goes_from_a_run_that_is_not_whole(finished: Path, damage: str) -> None:
    store = stores(finished)[keys.BODY]
    newest = Chain(store, "toy", keys.BODY).head().version
    if damage == "gap":
        store.delete(keys.commit("toy", keys.BODY, 1))
    elif damage == "unreadable":
        store.put(keys.commit("toy", keys.BODY, newest), b"{")
    elif damage == "parent":
        commit = Chain(store, "toy", keys.BODY).get(newest).model_copy(update={"parent": newest})
        store.put(keys.commit("toy", keys.BODY, newest), commit.to_bytes())
    else:
        store.put(keys.spec("toy"), b"{")
    with pytest.raises(StoreCorrupt, match="runs/toy"):
        plans(finished)


class Dying:
    """A store whose process dies before its n-th change."""

    def __init__(self, inner: ObjectStore, changes: int) -> None:
        self.inner, self.left = inner, changes
        self.get, self.exists, self.list, self.put = inner.get, inner.exists, inner.list, inner.put

    def create(self, key: str, value: bytes) -> bool:
        self._count()
        return self.inner.create(key, value)

    def delete(self, key: str) -> None:
        self._count()
        self.inner.delete(key)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailable("died")


@pytest.mark.parametrize("changes", [0, 1, 2, 9])
def test_dying_half_way_leaves_a_sound_run(finished: Path, tmp_path: Path, changes: int) -> None:
    whole = shutil.copytree(finished, tmp_path / "whole")
    collect(whole)
    for store, one in plans(finished):
        with pytest.raises(StoreUnavailable):
            carry_out(Dying(store, changes), one)
    assert verify(stores(finished)).errors == 0
    collect(finished)
    assert listed(finished) == listed(whole)
    assert verify(stores(finished)).errors == 0


def test_marks_replace_each_other(tmp_path: Path) -> None:
    world = world_in(tmp_path, spec(rounds=9))
    for number in range(6):
        world.round(number)
        collect(tmp_path)
    for store in stores(tmp_path).values():
        [stock] = take_stock(store)
        [mark] = stock.of("mark")
        assert (mark.number, mark.rounds) == (5, 5)


def test_a_file_that_goes_without_a_mark_is_an_error_and_with_it_not(finished: Path) -> None:
    store = stores(finished)[keys.BODY]
    [stock] = take_stock(store)
    gone = next(stock.of("contribution")).key
    content = store.get(gone)
    store.delete(gone)
    assert [finding.file for _, finding in verify(stores(finished)).findings] == [gone]
    store.put(gone, content)
    collect(finished)
    assert verify(stores(finished)).findings == ()


def test_partial_sums_of_a_closed_round_are_noted_and_go(tmp_path: Path) -> None:
    """A replica that adds up a part may store it after the round was closed; of an open round they are needed."""
    world = world_in(tmp_path, spec(rounds=9))
    for number in range(2):
        world.round(number)
    settle(world)
    store = stores(tmp_path)[keys.BODY]
    closed, needed = (keys.partial("toy", number, "0" * 64) for number in (1, 2))
    for key in (closed, needed):
        store.create(key, b"whatever")
    report = verify(stores(tmp_path))
    assert report.errors == 0
    assert [(finding.file, finding.meaning) for _, finding in report.findings if finding.file in (closed, needed)] == [
        (closed, "A partial sum of a closed round. Harmless; microsfl gc removes it.")
    ]
    gone = collect(tmp_path)
    assert closed in gone
    assert needed not in gone


def test_what_is_removed_is_told_with_its_size_without_being_read(finished: Path) -> None:
    for store, one in plans(finished):
        assert {removal.key: removal.size_bytes for removal in one.removals} == {
            removal.key: len(store.get(removal.key)) for removal in one.removals
        }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "get", never_of_a_tensor_file(ObjectStore.get))
        assert any(one.removals for _, one in plans(finished))


def never_of_a_tensor_file(get: Callable[[ObjectStore, str], bytes]) -> Callable[[ObjectStore, str], bytes]:
    def checked(store: ObjectStore, key: str) -> bytes:
        assert not key.endswith(".safetensors")
        return get(store, key)

    return checked


def test_a_run_without_a_version_has_nothing_to_remove() -> None:
    store = open_store("memory://")
    store.put("runs/toy/rounds/0/gradients/c0/0.safetensors", b"early")
    create_run(store, spec())
    [stock] = take_stock(store)
    assert isinstance(stock, Inventory)
    assert plan(store, stock, keys.BODY).removals == ()


# The command line


def microsfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_a_dry_run_says_what_would_go_and_the_real_one_what_went(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listed(finished)
    assert microsfl("gc", str(finished), "--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert listed(finished) == before
    assert microsfl("gc", str(finished)) == 0
    done = capsys.readouterr().out.splitlines()
    gone = len(before - listed(finished))
    assert said[:-1] == done[:-1]
    assert done[-1].startswith(f"Removed {gone} files, ")
    assert said[-1] == done[-1].replace("Removed", "Would remove").rstrip(".") + "; nothing was removed."
    assert microsfl("verify", str(finished)) == 0


def test_as_json_every_removal_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listed(finished)
    assert microsfl("gc", str(finished), "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["dry_run"] is True
    assert microsfl("gc", str(finished), "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {**planned, "dry_run": False}
    removals = [one for area in done["areas"] for one in area["removals"]]
    assert done["files"] == len(removals) == len(before - listed(finished))
    assert done["size_bytes"] == sum(one["size_bytes"] for one in removals)
    assert {area["area"] for area in done["areas"]} == {keys.BODY, keys.CLIENT}


def test_too_few_and_a_broken_run_are_one_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("gc", str(finished), "--keep", "1") == 2
    assert "too few" in capsys.readouterr().err
    assert microsfl("gc", str(finished), "--keep", "many") == 2
    assert "many" in capsys.readouterr().err
    stores(finished)[keys.CLIENT].delete(keys.commit("toy", keys.CLIENT, 1))
    before = listed(finished)
    assert microsfl("gc", str(finished)) == 1
    error = capsys.readouterr().err
    assert "runs/toy/client/1/commit.json" in error
    assert error.count("\n") == 1
    assert listed(finished) == before, "the body's area was planned first, and nothing of it may have gone"


def test_it_is_the_same_on_s3(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = f"bucket-{uuid.uuid4().hex}"  # moto keeps them for as long as this process lives
    with s3_server(bucket) as endpoint:
        for name, value in environment_for(endpoint).items():
            monkeypatch.setenv(name, value)
        for area, store in stores(finished).items():
            there = open_store(f"s3://{bucket}/ours/{area}")
            for key in store.list("runs"):
                there.create(key, store.get(key))
        assert microsfl("verify", f"s3://{bucket}/ours") == 0
        assert microsfl("gc", f"s3://{bucket}/ours") == 0
        assert microsfl("verify", f"s3://{bucket}/ours") == 0
        gone = collect(finished)
        assert f"Removed {len(gone)} files" in capsys.readouterr().out
        left = {key for area in stores(finished) for key in open_store(f"s3://{bucket}/ours/{area}").list("runs")}
    assert left == listed(finished)
