"""Laws 2, 3 and 4 where tensors travel in fewer bits: rounding depends on the unit and on those before it in the round,
and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.client.local_model import computing
from microsfl.client.trainer import EVALUATION_BATCH
from microsfl.core.formats import COMPRESSED
from microsfl.spec import RunSpec
from microsfl.sync import keys
from microsfl.wire.messages import Activations, Backward, Forward, Gradients, Outputs, Predict
from tests.laws.test_law_2_statelessness import commits
from tests.laws.test_law_4_exactly_once import Unruly, audit, world_with_clients
from tests.world import MODELS, World, spec_of, toy_data

CLIENTS = 3
INT8 = {"activations": "int8", "gradients": "int8"}
MOMENTUM = {"name": "SGD", "lr": 0.05, "momentum": 0.9}


def spec_with(wire: dict[str, Any], **tables: dict[str, Any]) -> RunSpec:
    return spec_of(**{"data": {"clients": CLIENTS}, "model": {"name": f"{MODELS}dropout"}, **tables}, wire=wire)


def finished(spec: RunSpec, **options: Any) -> list[bytes]:
    world = world_with_clients(spec, **options)
    world.run()
    return commits(world)


@pytest.mark.parametrize("format_", sorted(COMPRESSED))
@pytest.mark.parametrize("u_shaped", [True, False], ids=["u-shaped", "vanilla"])
@pytest.mark.parametrize("model", ["dropout", "batchnorm", "masked"])
def test_law_2_with_compressed_tensors(model: str, u_shaped: bool, format_: str) -> None:
    wire = {"activations": format_, "gradients": format_}
    spec = spec_with(wire, model={"name": MODELS + model, "u_shaped": u_shaped})
    expected = finished(spec)
    assert finished(spec, replicas=3, spread="random") == expected
    assert finished(spec, replicas=8, spread="random", caches=False) == expected
    assert finished(spec, replicas=1, caches=False) == expected


@given(
    activations=st.sampled_from(["float32", *COMPRESSED]), gradients=st.sampled_from(["float32", *COMPRESSED]),
    unit=st.integers(1, 4), front=st.sampled_from(["round", "never", "batch"]), seed=st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_law_2_with_formats_of_any_kind(activations: str, gradients: str, unit: int, front: str, seed: int) -> None:
    unit = 1 if front == "batch" else unit
    wire = {"activations": activations, "gradients": gradients}
    spec = spec_with(wire, run={"seed": seed}, strategy={"unit": unit, "front_update": front})
    assert finished(spec, replicas=4, spread="random", caches=False) == finished(spec)


def test_law_2_the_formats_and_the_feedback_decide() -> None:
    """The test of the test: what should differ does."""
    one = {"activations": "int8", "gradients": "float32"}
    wires = [{}, one, INT8, {**INT8, "error_feedback": False}, {**INT8, "gradients": "bfloat16"}]
    assert len({tuple(finished(spec_with(wire))) for wire in wires}) == len(wires)
    assert len({spec_with(wire).decisive.to_json() for wire in wires}) == len(wires)


def test_law_2_what_is_handed_over_is_what_travelled() -> None:
    world = World(spec_with(INT8))
    world.join("c0", toy_data())
    sent: list[Forward] = []

    def keep(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        if path == "/v1/forward":
            sent.append(Forward.unpack(body or b""))
        if path == "/v1/backward":
            order[0].close()  # what is about to be written is written
            world.split.replicas[0] = order[0] = world.new_replica()
        return ask(order[0])

    world.split.faults = keep
    left: list[Activations] = []
    delete = world.body_store.delete

    def note(key: str) -> None:
        if "/activations/" in key and world.body_store.exists(key):
            left.append(Activations.unpack(world.body_store.get(key), hashed=True))
        delete(key)

    world.body_store.delete = note  # type: ignore[method-assign]
    world.round(0)
    world.body_store.delete = delete  # type: ignore[method-assign]
    assert sent
    found = {one.unit: one.activations for one in left}
    for request in sent:
        assert request.activations.keys() == {"0.int8", "0.scale"}
        assert all(torch.equal(tensor, found[request.unit][name]) for name, tensor in request.activations.items())


def test_law_2_units_in_flight_change_no_bit() -> None:
    """What rounding took is carried from unit to unit in their order, however many are under way."""
    spec = spec_with(INT8, strategy={"unit": 2, "front_update": "round"})
    found = []

    def one_computes(_path: str, _body: bytes | None, ask: Any, order: Any) -> Any:
        with computing:  # torch's random numbers belong to a process, and here servers and clients share one
            return ask(order[0])

    for in_flight in (0, 5):
        world = World(spec, replicas=2)
        for number in range(CLIENTS):
            world.join(f"c{number}", toy_data(samples=97 + number, seed=number)).in_flight = in_flight
        world.split.faults = one_computes
        world.run()
        found.append(commits(world))
    assert found[0] == found[1]


def test_law_3_a_client_that_dies_within_a_round_begins_it_anew() -> None:
    """What rounding took belongs to the round: who comes back without it sends the same."""
    strategy = {"client_optimizer": MOMENTUM, "body_optimizer": MOMENTUM}
    spec = spec_with(INT8, run={"rounds": 3}, strategy=strategy)
    expected = finished(spec)
    for at in range(1, 14):
        world, count = world_with_clients(spec, replicas=2), 0

        def dies(path: str, _body: bytes | None, ask: Any, order: Any, at: int = at) -> Any:
            nonlocal count
            count += path == "/v1/backward"
            answer = ask(order[0])
            if path == "/v1/backward" and count == at:
                raise ConnectionError
            return answer

        world.split.faults = dies
        for number in range(spec.run.rounds):
            for client in world.chosen(number):
                try:
                    world.trainers[client].train(world.task(client, number))
                except ConnectionError:
                    world.join(client, world.data[client]).train(world.task(client, number))
            world.close(number)
        assert count > 13
        assert commits(world) == expected


@given(seed=st.integers(0, 2**32), u_shaped=st.booleans())
@settings(max_examples=10, deadline=None)
def test_law_4_an_unruly_network_changes_no_bit_of_int8(seed: int, u_shaped: bool) -> None:
    spec = spec_with(INT8, model={"name": f"{MODELS}dropout", "u_shaped": u_shaped})
    world = world_with_clients(spec, replicas=3, spread="random")
    world.split.faults = unruly = Unruly(world, seed)
    world.run()
    assert commits(world) == finished(spec)
    audit(world, unruly.acknowledged)


@pytest.mark.parametrize("strategy", ["sflv1", "sflv2", "sl", "cse-fsl"])
def test_strategies_that_cut_compress_alike(strategy: str) -> None:
    spec = spec_with(INT8, strategy={"name": strategy})
    expected = finished(spec)
    assert finished(spec, replicas=3, spread="random", caches=False) == expected
    assert finished(spec_with({}, strategy={"name": strategy})) != expected


def test_everything_that_crosses_a_cut_is_compressed_and_nothing_else() -> None:
    world = world_with_clients(spec_with({"activations": "int8", "gradients": "bfloat16"}))
    crossed: dict[str, set[str]] = {}

    def look(path: str, body: bytes | None, ask: Any, order: Any) -> Any:
        answer = ask(order[0])
        asked: Any = {"/v1/forward": Forward, "/v1/backward": Backward, "/v1/predict": Predict}.get(path)
        if asked:
            answered: Any = Gradients if asked is Backward else Outputs
            request, response = asked.unpack(body or b""), answered.unpack(answer.data)
            groups = ("activations", "gradients", "outputs")
            found = [
                *(getattr(request, name, {}) for name in groups),
                *(getattr(response, name, {}) for name in groups),
            ]
            crossed.setdefault(path, set()).update(name for tensors in found for name in tensors)
        return answer

    world.split.faults = look
    world.round(0)
    assert world.trainers["c0"].evaluate(world.task("c0", 0, "evaluate"))["test_samples"] < EVALUATION_BATCH
    assert crossed == {
        "/v1/forward": {"0.int8", "0.scale"},
        "/v1/backward": {"0.bfloat16"},
        "/v1/predict": {"0.int8", "0.scale"},
    }
    stored = [world.body_store.get(key) for key in world.body_store.list(keys.gradients("toy", 0))]
    assert stored
    assert all(b"int8" not in content and b'"BF16"' not in content for content in stored)


def test_what_was_not_sent_is_counted_as_it_would_have_travelled() -> None:
    """cse-fsl reports the bytes that sending every batch would have cost more: a quarter of them, and the scales."""
    strategy = {"name": "cse-fsl", "send_every": 2}
    saved = {}
    for wire in ({}, INT8):
        world = World(spec_with(wire, strategy=strategy))
        world.join("c0", toy_data(samples=64))
        saved[bool(wire)] = world.trainers["c0"].train(world.task("c0", 0))["bytes_saved"]
    # Four of eight batches of 8 samples and 8 features travel there and back; a gradient of each would have come back.
    floats, numbers = 3 * 4 * 64 + 8 * 64, 3 * 4 + 8
    assert saved == {False: 4 * floats, True: floats + 4 * 8 * numbers}
