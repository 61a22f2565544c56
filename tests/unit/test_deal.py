"""Who has which samples: clients' shares and public data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.partition import partition
from microsfl.spec import RunSpec
from microsfl.zoo.deal import Deal, deal

LABELS = np.arange(120, dtype=np.int64) % 4
TEST = np.arange(40, dtype=np.int64) % 4


def dealt(strategy: str = "filesync", **data: object) -> Deal:
    return deal(RunSpec.parse({"data": data, "strategy": {"name": strategy}}), LABELS, TEST)


@settings(deadline=None)
@given(st.floats(0, 0.9), st.integers(1, 6), st.sampled_from(["iid", "dirichlet-label", "dirichlet-size", "shards"]))
def test_each_sample_is_public_or_has_one_client(public: float, clients: int, scheme: str) -> None:
    found = dealt(public=public, clients=clients, partition=scheme, alpha=100.0)
    everything = np.concatenate([found.public, *(share.train for share in found.shares)])
    assert sorted(everything) == list(range(120))
    assert len(found.public) == (max(1, round(120 * public)) if public else 0)
    assert sorted(np.concatenate([share.test for share in found.shares])) == list(range(40))
    assert all((np.diff(share.train) > 0).all() for share in found.shares)


def test_without_public_data_the_shares_are_those_of_the_partition() -> None:
    shares = partition(LABELS, TEST, clients=5, scheme="dirichlet-label", alpha=0.5, shards_per_client=2, seed=0)
    assert [(one.train.tolist(), one.test.tolist()) for one in dealt().shares] == [
        (one.train.tolist(), one.test.tolist()) for one in shares
    ]


@pytest.mark.parametrize("public", [0.0, 0.25])
def test_pooled_data_is_what_the_clients_have_together(public: float) -> None:
    pooled, divided = dealt("centralized", public=public), dealt("fedavg", public=public)
    assert len(pooled.shares) == 1
    assert len(divided.shares) == 5
    assert pooled.public.tolist() == divided.public.tolist()
    assert pooled.shares[0].train.tolist() == sorted(np.concatenate([one.train for one in divided.shares]).tolist())
    assert pooled.shares[0].test.tolist() == list(range(40))


def test_the_public_samples_are_drawn_by_the_seed() -> None:
    def public(seed: int) -> list[int]:
        spec = RunSpec.parse({"data": {"public": 0.3}, "run": {"seed": seed}})
        return deal(spec, LABELS, TEST).public.tolist()

    assert public(0) == public(0) != public(1)
    assert public(0) != list(range(36))
