"""The client area on a store: averages, server optimizers and handed-on weights as chains of files."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from microsfl.core.average import average
from microsfl.core.server_optimizer import ServerOptimizer
from microsfl.core.turns import chosen
from microsfl.errors import ClientNotFound, InputError, NotFinite, StoreCorrupt
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import keys
from microsfl.sync.client_side import AverageRule, ClientSync
from microsfl.sync.inventory import take_stock
from microsfl.sync.retention import carry_out, plan
from microsfl.sync.runs import create_run
from microsfl.sync.verify import verify
from microsfl.wire.messages import Update
from microsfl.wire.tensors import decode, encode
from tests.unit import reference
from tests.world import spec_of

RUN, CLIENTS = "toy", ("one", "three", "two")
Weights = dict[str, torch.Tensor]


def weights_of(seed: int, shift: float = 0.0) -> Weights:
    """A front, a tail and BatchNorm's statistics and counter."""
    drawn = torch.randn(8, generator=torch.Generator().manual_seed(seed)) + shift
    return {
        "front.w": drawn[:4].reshape(2, 2), "tail.w": drawn[4:6],
        "tail.running_mean": drawn[6:], "tail.num_batches": torch.tensor(seed),
    }  # fmt: skip


def rule(name: str = "none", **changes: Any) -> AverageRule:
    optimizer = ServerOptimizer(name, lr=0.5 if name == "FedAvgM" else 0.05)
    return AverageRule(optimizer=optimizer, trained=frozenset({"front.w", "tail.w"}), **changes)


class Area:
    """A client area in memory, with a run of three clients."""

    def __init__(self, rule: AverageRule) -> None:
        self.rule = rule
        self.store: ObjectStore = open_store("memory://")
        create_run(self.store, spec_of(run={"rounds": 9}))
        self.restart()
        self.sync.initialize()

    def restart(self) -> None:
        """A fed server that knows nothing."""
        self.sync = ClientSync(self.store, RUN, weights_of(0), self.rule)

    def upload(self, round_: int, clients: Sequence[str] = CLIENTS) -> dict[str, Weights]:
        """What each client sends in the round; three times as many samples for "two"."""
        sent = {client: weights_of(100 * round_ + number + 1, 0.3) for number, client in enumerate(CLIENTS)}
        for client in clients:
            samples = 30 if client == "two" else 10
            self.sync.upload(Update(run=RUN, round=round_, client=client, samples=samples, weights=sent[client]))
        return {client: sent[client] for client in clients}

    def head(self) -> Weights:
        return decode(self.sync.weights(None)[1]).tensors


@pytest.mark.parametrize("kind", ["mean", "median", "trimmed-mean"])
def test_each_average_is_committed_as_it_is(kind: str) -> None:
    area = Area(rule(average=kind, trim=0.4))
    sent = area.upload(0)
    commit = area.sync.aggregate(0, ["two", "one", "three", "one"])
    expected = average(kind, [(sent[client], 30 if client == "two" else 10) for client in CLIENTS], 0.4)
    assert area.sync.weights(None)[1] == encode(expected)
    assert [one.client for one in commit.contributions] == list(CLIENTS)  # once each, sorted
    assert (commit.closes, commit.optimizer) == (True, None)


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdam", "FedYogi"])
@pytest.mark.parametrize("restarts", [False, True])
def test_server_optimizers_go_on_from_their_files(name: str, restarts: bool) -> None:
    """Three rounds against one coordinate at a time in plain Python, whether the fed server lives or not."""
    area = Area(rule(name))
    optimizer = area.rule.optimizer
    state: dict[tuple[str, int], reference.ServerOptimizer] = {}
    expected = {key: tensor.clone() for key, tensor in weights_of(0).items()}
    for round_ in range(3):
        sent = area.upload(round_)
        if restarts:
            area.restart()
        commit = area.sync.aggregate(round_, CLIENTS)
        assert commit.optimizer is not None
        assert hashlib.sha256(area.store.get(commit.optimizer.key)).hexdigest() == commit.optimizer.sha256
        for key, before in expected.items():
            means = torch.stack([sent[one].get(key) * (3 if one == "two" else 1) for one in CLIENTS]).sum(0) / 5
            if key not in area.rule.trained:
                expected[key] = means.round() if key.endswith("num_batches") else means
                continue
            for index, (old, mean) in enumerate(zip(before.flatten().tolist(), means.flatten().tolist(), strict=True)):
                one = state.setdefault((key, index), reference.ServerOptimizer(**vars(optimizer)))
                expected[key].view(-1)[index] = one.step(old, mean)
        for key, tensor in area.head().items():
            torch.testing.assert_close(tensor, expected[key].to(tensor.dtype), rtol=1e-5, atol=1e-5)
        assert area.sync.aggregate(round_, CLIENTS) == commit


@pytest.mark.parametrize("name", ["none", "FedAdam"])
def test_two_fed_servers_at_once_and_any_order_give_the_same_files(name: str) -> None:
    first, second = Area(rule(name)), Area(rule(name))
    for round_ in range(2):
        first.upload(round_)
        second.upload(round_, random.Random(round_).sample(CLIENTS, 3))
        other = ClientSync(second.store, RUN, weights_of(0), second.rule)
        other.aggregate(round_, CLIENTS[::-1])
        commits = [first.sync.aggregate(round_, CLIENTS), second.sync.aggregate(round_, CLIENTS)]
        assert commits[0] == commits[1] == other.aggregate(round_, [])


def test_fedavgm_without_momentum_is_plain_averaging() -> None:
    plain, stepped = Area(rule()), Area(AverageRule(optimizer=ServerOptimizer("FedAvgM", beta1=0.0), trained=TRAINED))
    for round_ in range(3):
        for area in (plain, stepped):
            area.upload(round_)
            area.sync.aggregate(round_, CLIENTS)
        for key, tensor in plain.head().items():
            torch.testing.assert_close(stepped.head()[key], tensor, rtol=0, atol=1e-6)


TRAINED = frozenset({"front.w", "tail.w"})


@pytest.mark.parametrize("last", CLIENTS)
def test_the_last_one_s_weights_are_handed_on_bit_for_bit(last: str) -> None:
    area = Area(rule(handed_on=True))
    sent = area.upload(0)
    for client in CLIENTS:
        assert area.sync.handed_on(0, client) == encode(sent[client])
    commit = area.sync.aggregate(0, CLIENTS, last)
    assert area.sync.weights(None)[1] == encode(sent[last])
    assert [(one.client, one.samples) for one in commit.contributions] == [("one", 10), ("three", 10), ("two", 30)]
    other = CLIENTS[CLIENTS.index(last) - 1]
    assert area.sync.aggregate(0, CLIENTS, other) == commit  # who comes too late changes nothing


@pytest.mark.parametrize("uploaded", [CLIENTS, ("one", "three")])
def test_after_an_adoption_the_order_of_turns_says_who_was_last(uploaded: tuple[str, ...]) -> None:
    last = set()
    for seed in range(6):
        area = Area(rule(handed_on=True, seed=seed))
        sent = area.upload(0, uploaded)
        area.sync.aggregate(0, [])
        in_turn = [one for one in chosen(seed, 0, CLIENTS, 3, turns=True) if one in uploaded]
        assert area.sync.weights(None)[1] == encode(sent[in_turn[-1]])
        last.add(in_turn[-1])
    assert len(last) > 1


def test_who_did_not_upload_cannot_hand_on() -> None:
    area = Area(rule(handed_on=True))
    area.upload(0, ["one"])
    for client, round_ in (("two", 0), ("one", 1)):
        with pytest.raises(ClientNotFound, match=client):
            area.sync.handed_on(round_, client)
    for clients in (["one", "two"], []):
        with pytest.raises(ClientNotFound, match="two"):
            area.sync.aggregate(0, clients, "two")
    area.upload(0, ["two"])
    with pytest.raises(InputError, match="'two' trained last, but is none of the clients"):
        area.sync.aggregate(0, ["one"], "two")
    assert area.sync.chain.status() == {"run": RUN, "version": 0, "open_round": 0, "sealed": False}


def test_a_step_that_diverges_is_refused_by_name() -> None:
    area = Area(AverageRule(optimizer=ServerOptimizer("FedAvgM", lr=1e39), trained=TRAINED))
    area.upload(0)
    with pytest.raises(NotFinite, match=r"server_optimizer\.lr"):
        area.sync.aggregate(0, CLIENTS)
    assert area.sync.chain.head().version == 0


def test_state_files_are_verified_and_kept_as_long_as_they_are_needed() -> None:
    area = Area(rule("FedYogi"))
    for round_ in range(4):
        area.upload(round_)
        area.sync.aggregate(round_, CLIENTS)
    (stock,) = take_stock(area.store)
    carry_out(area.store, plan(area.store, stock, keys.CLIENT))
    left = [one.number for one in take_stock(area.store)[0].of("optimizer", area=keys.CLIENT)]
    head = area.sync.chain.head()
    assert head.optimizer is not None
    assert left == [head.version - 1, head.version]
    assert verify({"client": area.store}).errors == 0
    area.store.put(head.optimizer.key, area.store.get(head.optimizer.key)[:-1] + b"\1")
    findings = [finding for _, finding in verify({"client": area.store}).findings if finding.severity == "error"]
    assert [one.file for one in findings] == [head.optimizer.key]
    area.upload(4)
    with pytest.raises(StoreCorrupt, match="optimizer"):
        area.sync.aggregate(4, CLIENTS)
