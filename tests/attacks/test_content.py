"""Poisoned content: shapes, counts and lengths that a run cannot have are refused, and the store keeps what it had."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.core.norms import LARGEST, Bound, norm
from microsfl.core.outliers import outliers, scores
from microsfl.core.unit import UnitKey
from microsfl.errors import (
    ActivationsMissing,
    InputError,
    MalformedMessage,
    NotFinite,
    OverNorm,
    OverQuota,
    RoundNotFound,
    TensorMismatch,
)
from microsfl.services.fed_server import FedServer
from microsfl.services.split_server import SplitServer
from microsfl.spec import RunSpec
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.wire.messages import Backward, Contribution, Forward, Message, Predict, Step, Update
from microsfl.wire.tensors import decode, encode
from tests.attacks.inside import inside
from tests.attacks.test_wire_attacks import packet
from tests.world import ALLOWED, spec_of

ONES = torch.ones(8, 5)
LABELS = {"0": torch.zeros(8, dtype=torch.int64)}
KEY: dict[str, Any] = {"run": "toy", "round": 0, "client": "one", "unit": 0}


def split_of(spec: RunSpec, store: str = "memory://") -> SplitServer:
    server = SplitServer(SplitServerSettings(store_url=store, allow_models=ALLOWED), open_store(store))
    server.prepare({"spec": spec.model_dump(mode="json")})
    return server


def fed_of(spec: RunSpec) -> FedServer:
    server = FedServer(FedServerSettings(store_url="memory://", allow_models=ALLOWED), open_store("memory://"))
    server.prepare({"spec": spec.model_dump(mode="json")})
    return server


def contents(server: SplitServer | FedServer) -> dict[str, bytes]:
    return {key: server.store.get(key) for key in server.store.list("runs")}


def step(activation: Tensor = ONES, **changes: Any) -> Step:
    labels = {"0": torch.zeros(len(activation) if activation.ndim else 1, dtype=torch.int64)}
    return Step(**{**KEY, "activations": {"0": activation}, "labels": labels, **changes})


# Shapes, dtypes and numbers

IMPOSSIBLE: dict[str, tuple[Step, type[InputError]]] = {
    "a feature too many": (step(torch.ones(8, 6)), TensorMismatch),
    "a dimension too many": (step(torch.ones(8, 1, 5)), TensorMismatch),
    "no dimension": (step(torch.ones(())), TensorMismatch),
    "another dtype": (step(ONES.double()), TensorMismatch),
    "whole numbers": (step(ONES.long()), TensorMismatch),
    "another name": (step(activations={"1": ONES}), TensorMismatch),
    "a tensor too many": (step(activations={"0": ONES, "1": ONES}), TensorMismatch),
    "hundreds of tensors": (step(activations={str(i): ONES for i in range(500)}), TensorMismatch),
    "none": (step(activations={}), TensorMismatch),
    "more samples than a batch has": (step(torch.ones(10, 5)), TensorMismatch),
    "more batches than a unit has": (step(batches=2), TensorMismatch),
    "a round that the run does not have": (step(round=2), RoundNotFound),
    "a unit that nobody can have": (step(unit=100_000), OverQuota),
    "labels of another length": (step(labels={"0": torch.zeros(7, dtype=torch.int64)}), TensorMismatch),
    "labels that are no classes": (step(labels={"0": torch.full((8,), 3)}), TensorMismatch),
    "labels of another dtype": (step(labels={"0": torch.zeros(8)}), TensorMismatch),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_of_the_run_is_refused(case: str) -> None:
    message, error = IMPOSSIBLE[case]
    vanilla = split_of(spec_of(model={"u_shaped": False}))
    before, computed = contents(vanilla), dict(vanilla.counts)
    with pytest.raises(error):
        vanilla.step(Step.unpack(message.pack()))
    assert contents(vanilla) == before
    if "labels" not in case:  # those need the outputs
        assert vanilla.counts == computed
        server = split_of(spec_of())
        before = contents(server)
        same = message.model_dump(exclude={"labels", "version", "at_least"})
        with pytest.raises(error):
            server.forward(Forward(**same))
        with pytest.raises(error if message.activations else ActivationsMissing):
            server.backward(Backward(**{**same, "version": 0}, gradients={"0": torch.ones(8, 4)}))
        assert contents(server) == before


@pytest.mark.parametrize("activation", [torch.ones(8, 6), ONES.double(), torch.ones(5000, 5)])
def test_a_prediction_that_cannot_be_of_the_run_is_refused(activation: Tensor) -> None:
    with pytest.raises(TensorMismatch):
        split_of(spec_of()).predict(Predict(run="toy", activations={"0": activation}))


def test_what_a_client_can_leave_in_a_round_is_bounded_by_the_run() -> None:
    server = split_of(spec_of(model={"u_shaped": False}, limits={"batches_per_round": 3}))
    before = len(contents(server))
    for unit in range(10):
        with nullcontext() if unit < 3 else pytest.raises(OverQuota, match=r"limits\.batches_per_round"):
            server.step(step(unit=unit))
    assert len(contents(server)) == before + 3


def test_the_last_batch_may_have_a_sample_more() -> None:
    server = split_of(spec_of(model={"u_shaped": False}))
    assert server.step(step(torch.ones(9, 5))).version == 0


def test_a_body_larger_than_any_of_the_run_is_refused_before_it_has_come() -> None:
    """The limit of the server is far above; the beginning says which run it is of."""
    spec = spec_of(model={"u_shaped": False})
    largest = split_of(spec).largest("toy")
    assert largest is not None
    assert largest < 1_500_000
    body = step(torch.ones(400_000, 5)).pack()
    assert len(body) > 8_000_000
    with inside(spec, max_body_bytes=64_000_000) as live:
        before = live.contents()
        with socket.create_connection(("127.0.0.1", live.port), timeout=20) as one:
            head = f"POST /v1/step HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            one.sendall(head.encode() + body[: largest + 100_000])  # the rest never comes
            answer = b""
            while b"}}" not in answer:
                answer += one.recv(4096) or pytest.fail(f"it said no more than {answer!r}")
        assert b" 413 " in answer.splitlines()[0]
        assert b"message_too_large" in answer
        assert live.contents() == before


# Headers

BOMBS = {
    "nothing, times more than is": packet({"a": {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]}}),
    "the same the other way round": packet({"a": {"dtype": "F32", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}),
    "nothing, in large": packet({"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}),
    "a number of a million digits": packet(b'{"a":' + b"9" * 900_000 + b"}"),
    "an infinity in other words": packet({"__metadata__": {"microsfl": "2", "fields": '{"a": 1e999}'}}),
    "fields nested deep": packet({"__metadata__": {"microsfl": "2", "fields": '{"a":' + "[" * 200_000}}),
    "a shape of a hundred thousand dimensions": packet(
        {"a": {"dtype": "F32", "shape": [1] * 100_000, "data_offsets": [0, 4]}}, b"\0" * 4
    ),
    "thousands of names for the same bytes": packet(
        {str(i): {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for i in range(4000)}, b"\0" * 4
    ),
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_a_header_that_means_more_than_it_is_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(body)


# Lengths


def of_unit(server: SplitServer, unit: int = 0) -> Contribution:
    return Contribution.unpack(server.store.get(keys.contribution(UnitKey("toy", 0, "one", unit))), hashed=True)


def backward(server: SplitServer, factor: float = 1.0, **changes: Any) -> None:
    gradients = {"0": factor * torch.ones(8, 4)}
    server.backward(Backward(**{**KEY, **changes}, version=0, gradients=gradients, activations={"0": ONES}))


@pytest.mark.parametrize("strategy", ["filesync", "sflv1", "sflv2"])
@pytest.mark.parametrize("factor", [1e25, 3e38])
def test_a_gradient_beyond_arithmetic_is_refused_without_any_setting(strategy: str, factor: float) -> None:
    server = split_of(spec_of(strategy={"name": strategy}))
    before = contents(server)
    with pytest.raises((OverNorm, NotFinite)):
        backward(server, factor)
    assert contents(server) == before
    backward(server)
    server.reduce({"run": "toy", "round": 0})


def test_a_gradient_over_the_bound_is_refused_and_nothing_is_stored() -> None:
    plain = split_of(spec_of())
    backward(plain)
    length = of_unit(plain).norm
    assert length == pytest.approx(norm(of_unit(plain).gradients.values()))
    for bound, is_refused in ((0.9 * length, True), (1.1 * length, False)):
        server = split_of(spec_of(limits={"max_norm": bound}))
        before = contents(server)
        if is_refused:
            with pytest.raises(OverNorm, match="this run takes at most"):
                backward(server)
            assert contents(server) == before
        else:
            backward(server)
            assert all(torch.equal(a, of_unit(plain).gradients[n]) for n, a in of_unit(server).gradients.items())


def test_a_gradient_over_the_bound_is_clipped_before_it_is_stored_and_a_replay_gives_the_same() -> None:
    spec = spec_of(limits={"max_norm": 0.5, "on_excess": "clip"})
    first, second, plain = split_of(spec), split_of(spec), split_of(spec_of())
    for server in (first, first, second, plain):
        backward(server, 3.0)
    stored, whole = of_unit(first), of_unit(plain)
    assert norm(stored.gradients.values()) == pytest.approx(0.5, rel=1e-6)
    assert stored.norm == whole.norm > 0.5
    for name, tensor in stored.gradients.items():
        assert torch.allclose(tensor / 0.5, whole.gradients[name] / whole.norm, rtol=1e-5)
    assert contents(first) == contents(second)


def test_the_bound_is_of_the_mean_over_the_batches() -> None:
    gradient = {"w": torch.full((4,), 3.0)}
    assert Bound(2.0).applied(gradient, "gradient", over=3)[1] == 2.0
    with pytest.raises(OverNorm):
        Bound(1.99).applied(gradient, "gradient", over=3)
    assert norm(Bound(1.0, clips=True).applied(gradient, "gradient", over=3)[0].values()) == pytest.approx(3.0)


@pytest.mark.parametrize("size", [1, 7, 16_384, 16_385, 1_000_000])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e25, 3e38])
def test_a_norm_is_that_of_float64(size: int, scale: float) -> None:
    tensor = torch.linspace(0.1, 1.0, size) * scale
    assert norm([tensor]) == pytest.approx(float(tensor.double().square().sum().sqrt()), rel=2e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(NotFinite, match="'bad'"):
        Bound().applied({"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, "gradient")
    with pytest.raises(OverNorm):
        Bound().applied({"w": torch.tensor([2 * LARGEST])}, "gradient")


# Updates


def update(server: FedServer, factor: float = 0.0, client: str = "one", **changes: Any) -> Update:
    """What the round began with, every weight moved by `factor`."""
    began = decode(server.weights("toy", None)[1]).tensors
    weights = {name: tensor + factor for name, tensor in began.items()}
    values = {"run": "toy", "round": 0, "client": client, "samples": 8, "weights": weights, **changes}
    return Update.unpack(Update(**values).pack())


def stored(server: FedServer, client: str = "one") -> Update:
    return Update.unpack(server.store.get(keys.update("toy", 0, client)), hashed=True)


def bad(change: Callable[[dict[str, Tensor]], object]) -> Callable[[FedServer], Message]:
    def make(server: FedServer) -> Message:
        weights = dict(update(server).weights)
        change(weights)
        return Update(run="toy", round=0, client="one", samples=8, weights=weights)

    return make


def first(weights: dict[str, Tensor]) -> str:
    return min(weights)


REFUSED_UPDATES: dict[str, tuple[Callable[[FedServer], Message], type[InputError]]] = {
    "NaN": (bad(lambda w: w.update({first(w): w[first(w)] * math.nan})), NotFinite),
    "an infinity": (bad(lambda w: w.update({first(w): w[first(w)] + math.inf})), NotFinite),
    "beyond arithmetic": (bad(lambda w: w.update({first(w): w[first(w)] + 1e30})), OverNorm),
    "another shape": (bad(lambda w: w.update({first(w): torch.ones(3, 3, 3)})), TensorMismatch),
    "another dtype": (bad(lambda w: w.update({first(w): w[first(w)].double()})), TensorMismatch),
    "a weight too few": (bad(lambda w: w.pop(first(w))), TensorMismatch),
    "a weight too many": (bad(lambda w: w.update({"front.more": torch.ones(1)})), TensorMismatch),
    "a state larger than any optimizer's": (
        lambda server: update(server, optimizer={"x": torch.zeros(1_000_000)}), OverQuota,
    ),
    "a state of too many numbers": (
        lambda server: update(server, scalars={f"tail.{i}": i for i in range(10_000)}), OverQuota,
    ),
    "a bound that it passes": (lambda server: update(server, 10.0), OverNorm),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_UPDATES)
def test_an_update_that_cannot_be_taken_is_refused(case: str) -> None:
    make, error = REFUSED_UPDATES[case]
    server = fed_of(spec_of(limits={"max_update_norm": 1.0}))
    before = contents(server)
    with pytest.raises(error):
        server.upload(Update.unpack(make(server).pack()))
    assert contents(server) == before
    server.upload(update(server, 1e-3))
    assert len(contents(server)) == len(before) + 1


def test_an_update_over_the_bound_is_clipped_towards_what_the_round_began_with() -> None:
    spec = spec_of(limits={"max_update_norm": 1.0, "on_excess": "clip"})
    one, two = fed_of(spec), fed_of(spec)
    for server in (one, two, one):
        server.upload(update(server, 10.0, norm=1e-9))  # what the client says of its length is not believed
    began = decode(one.weights("toy", 0)[1]).tensors
    moved = {name: tensor - began[name] for name, tensor in stored(one).weights.items()}
    assert norm(moved.values()) == pytest.approx(1.0, rel=1e-5)
    count = sum(tensor.numel() for tensor in moved.values())
    assert stored(one).norm == pytest.approx(10 * math.sqrt(count), rel=1e-5)
    assert contents(one) == contents(two)


# Outliers


def test_the_modified_z_score_is_that_of_iglewicz_and_hoaglin() -> None:
    values = {str(i): value for i, value in enumerate([1.0, 2.0, 3.0, 4.0, 100.0])}
    assert scores(values)["4"] == pytest.approx(0.6745 * 97 / 1.0)
    assert scores(values)["2"] == 0
    assert set(scores({"a": 1.0, "b": 1.0}).values()) == {0.0}


def test_who_is_an_outlier() -> None:
    norms = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 1.05, "e": 50.0}
    assert [(one.client, one.norm, one.median) for one in outliers(norms)] == [("e", 50.0, 1.05)]
    assert [one.client for one in outliers({**norms, "e": 0.01})] == ["e"]
    assert outliers({**norms, "e": 1.9}) == []  # far by the others' spread, and not worth a word
    assert [one.client for one in outliers({**dict.fromkeys("abcdefgh", 1.0), "i": 50.0})] == ["i"]  # the MAD is 0
    assert outliers({"a": 1.0, "b": 1.0, "c": 90.0}) == []  # of three nobody can tell


@pytest.mark.parametrize("sync", ["round", 2])
def test_a_client_with_poisoned_gradients_is_reported(sync: str | int) -> None:
    strategy = {"sync": sync, "body_optimizer": {"name": "SGD", "lr": 1e-6}}
    server = split_of(spec_of(data={"clients": 6}, strategy=strategy))
    for number, client in enumerate(("a", "b", "c", "d", "e", "poisoned")):
        for unit in range(2):
            backward(server, 400.0 if client == "poisoned" else 1.0 + number / 50, client=client, unit=unit)
    [told] = server.reduce({"run": "toy", "round": 0})["outliers"]
    assert told["client"] == "poisoned"
    assert told["norm"] == pytest.approx(400 * told["median"], rel=0.1)
    assert told["score"] > 3.5
    assert server.reduce({"run": "toy", "round": 0})["outliers"] == [told]


def test_a_client_with_a_poisoned_update_is_reported() -> None:
    server = fed_of(spec_of(data={"clients": 5}))
    for number, client in enumerate(("a", "b", "c", "d", "poisoned")):
        server.upload(update(server, 9.0 if client == "poisoned" else 0.01 + number / 5000, client))
    answer = server.aggregate({"run": "toy", "round": 0, "clients": []})
    assert [one["client"] for one in answer["outliers"]] == ["poisoned"]


def test_a_contribution_of_before_norms_can_be_read() -> None:
    server = split_of(spec_of())
    backward(server)
    path = keys.contribution(UnitKey("toy", 0, "one", 0))
    packed = decode(server.store.get(path), hashed=True)
    without = {name: value for name, value in packed.fields.items() if name != "norm"}
    server.store.put(path, encode(packed.tensors, without, hashed=True))
    assert server.reduce({"run": "toy", "round": 0})["contributions"] == 1
