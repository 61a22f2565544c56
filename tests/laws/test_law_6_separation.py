"""Law 6: the coordinator has no torch and sees no tensor; the two areas are apart; labels stay home in a U-shape."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from microsfl.wire.tensors import decode
from tests.world import World, spec_of, toy_data


@pytest.mark.parametrize("module", ["microsfl", "microsfl.services.coordinator", "microsfl.cli"])
def test_law_6_coordinator_and_command_line_start_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def tensors_sent(u_shaped: bool) -> list[dict[str, torch.Tensor]]:
    """Every tensor that went to a split server during a run."""
    spec = spec_of(model={"u_shaped": u_shaped})
    world = World(spec)
    world.join("one", toy_data())
    sent: list[dict[str, torch.Tensor]] = []

    def listen(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        if path in order[0].messages:
            sent.append(decode(body or b"").tensors)
        return ask(order[0])

    world.split.faults = listen
    world.run()
    world.trainers["one"].evaluate(world.task("one", spec.run.rounds, "evaluate"))
    return sent


def has_labels(tensors: dict[str, torch.Tensor]) -> bool:
    """Labels are the only integers in this model; activations and their gradients are floating point."""
    return any(not tensor.dtype.is_floating_point for tensor in tensors.values())


def test_law_6_labels_do_not_leave_a_u_shaped_client() -> None:
    sent = tensors_sent(u_shaped=True)
    assert sent
    assert not any(has_labels(tensors) for tensors in sent)
    assert {name for tensors in sent for name in tensors} == {"activations.0", "gradients.0"}


def test_law_6_labels_do_travel_in_a_vanilla_cut() -> None:
    """The test of the test."""
    assert any(has_labels(tensors) for tensors in tensors_sent(u_shaped=False))


def test_law_6_each_area_holds_only_its_own_files() -> None:
    """Body area: nothing of front or tail. Client area: nothing of the body, no activation, no gradient."""
    spec = spec_of()
    world = World(spec)
    world.join("one", toy_data())
    world.run()
    for store, foreign_folders, foreign_names in (
        (world.body_store, ("/client/", "/updates/"), ("front.", "tail.")),
        (world.client_store, ("/body/", "/activations/", "/gradients/"), ("body.", "activations.", "gradients.")),
    ):
        paths = list(store.list("runs"))
        assert paths
        assert not [path for path in paths if any(folder in path for folder in foreign_folders)]
        files = [decode(store.get(path)).tensors for path in paths if path.endswith(".safetensors")]
        assert not [name for tensors in files for name in tensors if name.startswith(foreign_names)]
