"""The parts that processes build: the whole model on a client, a front from a file, the auxiliary head."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from microsfl.core.step import is_samplewise
from microsfl.errors import InvalidCut, InvalidSetting, MicrosflError
from microsfl.launch.preflight import resolve
from microsfl.spec import RunSpec
from microsfl.wire.tensors import encode
from microsfl.zoo.parts import build_parts, client_side, load_front
from tests.world import ALLOWED, MODELS, World, spec_of


def digits(model: str = "mlp", strategy: str = "cse-fsl", **settings: Any) -> RunSpec:
    tables = {"model": {"name": model, **settings}, "strategy": {"name": strategy}}
    return RunSpec.parse(tables).resolved(input_shape=(1, 8, 8), classes=10)


@pytest.mark.parametrize("strategy", ["fedavg", "local", "centralized"])
def test_without_a_cut_the_whole_model_is_the_tail(strategy: str) -> None:
    whole, cut = (build_parts(spec_of(strategy={"name": name}), ALLOWED) for name in (strategy, "filesync"))
    assert not list(whole.front.stages())
    assert not list(whole.body.stages())
    assert {name: tensor.tolist() for name, tensor in whole.tail.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in cut.joined().state_dict().items()
    }


def unstaged(_shape: tuple[int, ...], _classes: int) -> nn.Module:
    return nn.Bilinear(2, 2, 2)


def test_a_model_that_does_not_say_what_its_stages_are_is_refused_without_a_cut_too() -> None:
    name = f"{__name__}:unstaged"
    with pytest.raises(InvalidCut, match="Bilinear"):
        build_parts(spec_of(model={"name": name}, strategy={"name": "fedavg"}), [name])


@pytest.mark.parametrize(
    ("model", "cut", "features"),
    [
        ("mlp", "auto", 64),
        ("cnn", ["conv1", "fc1"], 16 * 4 * 4),
        ("cnn", "auto", 16 * 4 * 4),
        ("resnet18", "auto", 1024),
    ],
)
def test_the_auxiliary_head_is_one_linear_layer_on_at_most_4x4_positions(
    model: str, cut: str | list[str], features: int
) -> None:
    spec = digits(model, cut=cut)
    parts = build_parts(spec, ALLOWED)
    state = torch.get_rng_state()
    aux, again = (client_side(spec, parts)["aux"] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert aux[-1].in_features == features
    assert aux(parts.front(torch.zeros(3, 1, 8, 8))).shape == (3, 10)
    assert is_samplewise(aux)
    assert all(torch.equal(one, other) for one, other in zip(aux.parameters(), again.parameters(), strict=True))


def test_a_mask_goes_by_the_auxiliary_head_and_a_front_without_weights_cannot_have_one() -> None:
    masked = spec_of(model={"name": f"{MODELS}masked"}, strategy={"name": "cse-fsl"})
    assert client_side(masked, build_parts(masked, ALLOWED))["aux"][-1].in_features == 5
    nothing = digits(cut=["flatten", "relu2"])
    with pytest.raises(InvalidSetting, match="nothing to train"):
        client_side(nothing, build_parts(nothing, ()))


def front_file(folder: Path, spec: RunSpec, **changes: torch.Tensor) -> tuple[Path, str]:
    """A file of ones for the run's front, and its hash."""
    state = {n: torch.ones_like(t) for n, t in build_parts(spec, ALLOWED).front.state_dict().items()}
    content = encode({**state, **changes})
    path = folder / "front.safetensors"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def with_front(path: Path | None, sha256: str | None, **strategy: Any) -> RunSpec:
    front = {"front_weights": None if path is None else str(path), "front_sha256": sha256}
    return spec_of(model=front, strategy=strategy)


@pytest.mark.parametrize("front_update", ["batch", "never"])
def test_a_run_begins_with_the_front_of_the_file(tmp_path: Path, front_update: str) -> None:
    """And only with the front: the body is as it is without."""
    path, sha256 = front_file(tmp_path, spec_of())
    spec = with_front(path, sha256, front_update=front_update)
    parts = build_parts(spec, ALLOWED)
    plain = build_parts(spec_of(), ALLOWED)
    load_front(spec, parts.front)
    assert all((tensor == 1).all() for tensor in parts.front.state_dict().values())
    assert all(
        torch.equal(one, other) for one, other in zip(parts.body.parameters(), plain.body.parameters(), strict=True)
    )
    weights = World(spec).weights()  # as servers begin it
    fronts = [tensor for name, tensor in weights.items() if name.startswith("front.")]
    assert all((tensor == 1).all() for tensor in fronts)
    assert bool(fronts) == (front_update == "batch")


def test_the_file_may_lie_elsewhere_on_this_machine_and_no_split_server_needs_it(tmp_path: Path) -> None:
    path, sha256 = front_file(tmp_path, spec_of())
    spec = with_front(tmp_path / "not-here", sha256, front_update="never")
    parts = build_parts(spec, ALLOWED)
    load_front(spec, parts.front, str(path))
    assert (parts.front.state_dict()["0.bias"] == 1).all()
    World(spec)
    load_front(spec_of(), parts.front, "a site's setting means nothing for a run without such a front")


def test_another_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path, found = front_file(tmp_path, spec_of())
    spec = with_front(path, "0" * 64)
    with pytest.raises(InvalidSetting) as caught:
        load_front(spec, build_parts(spec, ALLOWED).front)
    assert all(part in str(caught.value) for part in (str(path), found, "0" * 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.weight": torch.ones(5, 7)}, r"'0\.weight' of .*\[5, 7\].*\[5, 6\]"),
        ({"9.weight": torch.ones(1)}, r"differ in \['9\.weight'\]"),
    ],
)
def test_a_front_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, changes: dict[str, torch.Tensor], message: str
) -> None:
    path, sha256 = front_file(tmp_path, spec_of(), **changes)
    spec = with_front(path, sha256)
    with pytest.raises(MicrosflError, match=message):
        load_front(spec, build_parts(spec, ALLOWED).front)


def test_no_file_another_format_and_an_unknown_hash_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "front.safetensors"
    for spec, message in (
        (with_front(path, "0" * 64), "not there"),
        (with_front(None, "0" * 64), "set front_weights"),
        (with_front(path, None), "front_sha256"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            load_front(spec, build_parts(spec, ALLOWED).front)
    path.write_bytes(b"weights")
    spec = with_front(path, hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(InvalidSetting, match="no safetensors"):
        load_front(spec, build_parts(spec, ALLOWED).front)


def test_the_hash_is_filled_in_before_a_run_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "front.safetensors"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    model = {"front_weights": str(path)}
    assert resolve(RunSpec.parse({"model": model})).model.front_sha256 == sha256
    for wrong, message in (
        ({**model, "front_sha256": "0" * 64}, sha256),
        ({"front_weights": str(tmp_path / "none")}, "not there"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            resolve(RunSpec.parse({"model": wrong}))
