"""`microsfl verify` and `microsfl gc` on the stores of every strategy: nothing to complain about, nothing missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microsfl.errors import InvalidSetting
from microsfl.launch.maintenance import collect_garbage, store_urls, verify_stores
from microsfl.spec import TRAITS
from microsfl.store.objects import open_store
from microsfl.sync.inventory import take_stock
from microsfl.sync.retention import carry_out, plan
from microsfl.sync.verify import verify
from tests.world import World, spec_of, toy_data

STORED = sorted(name for name, traits in TRAITS.items() if traits.federated)
MOMENTUM = {"name": "SGD", "lr": 0.05, "momentum": 0.9}


def world_of(name: str, folder: Path, **options: Any) -> World:
    optimizers = {"client_optimizer": MOMENTUM, **({"body_optimizer": MOMENTUM} if TRAITS[name].split else {})}
    spec = spec_of(run={"rounds": 4}, data={"clients": 2}, strategy={"name": name, **optimizers})
    world = World(spec, folder=folder, **options)
    for number in range(spec.run_clients):
        world.join(f"c{number}", toy_data(samples=17, seed=number))
    return world


def settle(world: World) -> None:
    """Until what the replicas store behind their answers is stored."""
    for replica in world.split.replicas:
        replica.close()


def areas(folder: Path) -> list[str]:
    """Those that hold a run."""
    return [area for area in ("body", "client") if (folder / area / "runs").is_dir()]


def findings(folder: Path) -> list[Any]:
    return list(verify({area: open_store(f"file://{folder}/{area}") for area in areas(folder)}).findings)


@pytest.mark.parametrize("name", STORED)
def test_a_finished_run_of_any_strategy_has_no_findings(name: str, tmp_path: Path) -> None:
    world = world_of(name, tmp_path)
    world.run()
    settle(world)
    assert areas(tmp_path) == (["body", "client"] if TRAITS[name].split else ["client"])
    assert findings(tmp_path) == []


@pytest.mark.parametrize("name", STORED)
def test_a_run_goes_on_whatever_gc_removes_between_its_rounds(name: str, tmp_path: Path) -> None:
    """Every process is new after each round and each removal, so that all that it needs has to be in the store."""
    undisturbed = world_of(name, tmp_path / "calm")
    undisturbed.run()
    cleaned, removed = tmp_path / "cleaned", 0
    for number in range(4):
        world = world_of(name, cleaned, caches=False)
        world.round(number)
        settle(world)
        for area in areas(cleaned):
            store = open_store(f"file://{cleaned}/{area}")
            (stock,) = take_stock(store)
            found = plan(store, stock, area)
            carry_out(store, found)
            removed += len(found.removals)
        assert [one for _, one in findings(cleaned) if one.severity == "error"] == []
    assert removed > 0
    assert world.client_hash() == undisturbed.client_hash()
    assert not TRAITS[name].split or world.body_hash() == undisturbed.body_hash()


@pytest.mark.parametrize("name", ["fedavg", "sflv1"])
def test_the_commands_take_the_folder_of_any_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = world_of(name, tmp_path / "store")
    world.run()
    settle(world)
    assert verify_stores([str(tmp_path)], None, as_json=False) == 0
    collect_garbage([str(tmp_path)], None, 2, dry_run=False)
    assert verify_stores([str(tmp_path)], "toy", as_json=False) == 0
    assert "toy (client): " in capsys.readouterr().out


def test_a_run_folder_without_a_store_is_told_so(tmp_path: Path) -> None:
    """As a simulation leaves it, or a strategy that keeps everything on the clients."""
    (tmp_path / "run.toml").write_text("[strategy]\nname = 'local'\n")
    with pytest.raises(InvalidSetting, match="has no store"):
        store_urls(str(tmp_path))
