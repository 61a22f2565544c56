"""core/partition.py: every sample to exactly one client, the same way every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.partition import Share, batches, label_counts, partition
from microsfl.errors import ImpossiblePartition, InvalidSetting
from microsfl.spec import PARTITIONS
from microsfl.zoo.deal import OWN

IntArray = npt.NDArray[np.int64]

DIVIDING = [name for name in PARTITIONS if name != OWN]

USUAL: dict[str, Any] = {"clients": 4, "scheme": "iid", "alpha": 0.5, "shards_per_client": 2, "seed": 0}


def label_array(classes: int, min_size: int, max_size: int) -> st.SearchStrategy[IntArray]:
    one = st.integers(0, classes - 1)
    return st.lists(one, min_size=min_size, max_size=max_size).map(lambda found: np.array(found, dtype=np.int64))


def ten_classes(each: int) -> IntArray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(10), each))


def divided(train: IntArray, test: IntArray, **changes: Any) -> list[Share]:
    return partition(train, test, **{**USUAL, **changes})


def test_every_scheme_of_the_specification_exists() -> None:
    for scheme in DIVIDING:
        assert len(divided(ten_classes(20), ten_classes(5), scheme=scheme)) == 4


@settings(max_examples=150, deadline=None)
@given(
    train=label_array(5, 1, 120),
    test=label_array(5, 0, 40),
    scheme=st.sampled_from(DIVIDING),
    clients=st.integers(1, 12),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 1e3, 1e300]),
    shards_per_client=st.integers(1, 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_sample_goes_to_exactly_one_client_or_the_division_is_refused(
    train: IntArray, test: IntArray, **how: Any
) -> None:
    try:
        shares = partition(train, test, **how)
    except ImpossiblePartition:
        too_many_shards = how["scheme"] == "shards" and how["clients"] * how["shards_per_client"] > len(train)
        skewed = how["scheme"].startswith("dirichlet") and how["alpha"] < 1e3
        too_few = how["scheme"].startswith("dirichlet") and len(train) < 10 * how["clients"]
        assert how["clients"] > len(train) or too_many_shards or skewed or too_few
        return
    assert len(shares) == how["clients"]
    assert np.array_equal(np.sort(np.concatenate([share.train for share in shares])), np.arange(len(train)))
    assert np.array_equal(np.sort(np.concatenate([share.test for share in shares])), np.arange(len(test)))
    for share in shares:
        assert share.train.size > 0
        assert share.train.dtype == share.test.dtype == np.int64
        assert np.all(np.diff(share.train) > 0)
        assert np.all(np.diff(share.test) > 0)


@pytest.mark.parametrize("scheme", DIVIDING)
def test_equal_seeds_give_equal_shares_and_others_do_not(scheme: str) -> None:
    train, test = ten_classes(30), ten_classes(10)

    def once(seed: int, disturb: int) -> tuple[list[list[int]], list[list[int]]]:
        np.random.seed(disturb)  # global state must play no part
        shares = divided(train, test, scheme=scheme, seed=seed)
        return [share.train.tolist() for share in shares], [share.test.tolist() for share in shares]

    first, again, other = once(3, disturb=1), once(3, disturb=2), once(4, disturb=1)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_iid_sizes_differ_by_at_most_one() -> None:
    shares = divided(ten_classes(11), ten_classes(3), clients=7)
    assert {share.train.size for share in shares} == {15, 16}
    assert {share.test.size for share in shares} == {4, 5}


def skew(counts: IntArray) -> float:
    """Mean over clients of the part that its most frequent class has."""
    return float((counts.max(axis=1) / counts.sum(axis=1)).mean())


def test_smaller_alpha_skews_the_labels_more() -> None:
    labels = ten_classes(200)
    found = [
        skew(label_counts(labels, divided(labels, labels, scheme="dirichlet-label", alpha=alpha), 10))
        for alpha in (0.1, 1.0, 100.0)
    ]
    assert found[0] > 0.3 > found[1] > 0.15 > found[2]


def test_dirichlet_label_makes_the_test_share_look_like_the_train_share() -> None:
    train, test = ten_classes(100), ten_classes(50)
    shares = divided(train, test, scheme="dirichlet-label", alpha=0.3)
    on_train = label_counts(train, shares, 10)
    on_test = label_counts(test, [Share(share.test, share.test) for share in shares], 10)
    assert on_train.sum(axis=0).tolist() == [100] * 10
    # Largest remainders: each count is within one of its proportion, for both splits.
    assert np.abs(on_train / 2 - on_test).max() <= 1.5


def test_dirichlet_size_skews_sizes_and_not_labels() -> None:
    train, test = ten_classes(500), ten_classes(100)
    shares = divided(train, test, scheme="dirichlet-size", alpha=0.5)
    sizes = np.array([share.train.size for share in shares])
    assert sizes.max() > 2 * sizes.min()
    assert np.abs(sizes / 5 - [share.test.size for share in shares]).max() <= 1.2
    counts = label_counts(train, shares, 10)
    assert skew(counts[sizes > 100]) < 0.2


def test_shards_give_each_client_few_classes_and_tests_of_those() -> None:
    train, test = ten_classes(40), ten_classes(10)
    shares = divided(train, test, scheme="shards", clients=5, shards_per_client=2)
    for share in shares:
        assert share.train.size == 80
        assert len(np.unique(train[share.train])) == 2
        assert set(test[share.test]) == set(train[share.train])


def test_rounding_favours_no_client() -> None:
    """Three test samples in equal proportions for four clients, twenty times: each time someone gets none."""
    train, test = np.zeros(8, dtype=np.int64), np.repeat(np.arange(1, 21), 3)
    sizes = [share.test.size for share in divided(train, test, scheme="shards")]
    assert min(sizes) > 8
    assert max(sizes) < 20


def test_shards_deal_test_classes_that_the_train_set_lacks() -> None:
    shares = divided(np.zeros(8, dtype=np.int64), np.full(8, 3), scheme="shards")
    assert [share.test.size for share in shares] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clients": 41}, "41 is more than the 40 train samples"),
        ({"clients": 0}, "data.clients = 0"),
        ({"clients": -2}, "data.clients = -2"),
        ({"scheme": "dirichlet-labels"}, r"'dirichlet-labels' is unknown. Did you mean 'dirichlet-label'\?"),
        ({"scheme": "dirichlet-label", "alpha": 0.0}, "data.alpha = 0.0"),
        ({"scheme": "dirichlet-size", "alpha": -1.0}, "data.alpha = -1.0"),
        ({"scheme": "dirichlet-label", "alpha": float("nan")}, "data.alpha = nan"),
        ({"scheme": "dirichlet-label", "alpha": float("inf")}, "data.alpha = inf"),
        ({"scheme": "shards", "shards_per_client": 11}, "44 shards of 40 train samples"),
        ({"scheme": "shards", "shards_per_client": 0}, "shards_per_client = 0"),
    ],
)
def test_what_cannot_be_divided_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ImpossiblePartition, match=says):
        divided(ten_classes(4), ten_classes(1), **changes)


@pytest.mark.parametrize("scheme", ["dirichlet-label", "dirichlet-size"])
def test_a_draw_that_always_leaves_someone_empty_says_who_and_what_to_do(scheme: str) -> None:
    with pytest.raises(ImpossiblePartition, match=r"client \d+.*larger alpha, fewer clients or another seed"):
        divided(np.zeros(100, dtype=np.int64), np.zeros(0, dtype=np.int64), scheme=scheme, clients=20, alpha=1e-3)


def test_a_draw_that_leaves_someone_empty_is_repeated() -> None:
    """At this skew a single draw is almost never good, so that sixty seeds succeed shows that draws are repeated."""
    labels = np.repeat(np.arange(3), 20)
    for seed in range(60):
        shares = divided(labels, labels, scheme="dirichlet-label", clients=6, alpha=0.2, seed=seed)
        assert min(share.train.size for share in shares) >= 1


def test_label_counts() -> None:
    labels = np.array([0, 2, 2, 1, 0])
    shares = [Share(np.array([0, 1, 2]), np.array([0])), Share(np.array([3, 4]), np.array([1]))]
    counts = label_counts(labels, shares, 4)
    assert counts.tolist() == [[1, 0, 2, 0], [1, 1, 0, 0]]
    assert counts.dtype == np.int64


@settings(max_examples=150, deadline=None)
@given(
    samples=st.integers(0, 70), batch_size=st.integers(1, 20), epochs=st.integers(1, 3), seed=st.integers(0, 2**31 - 1)
)
def test_each_epoch_visits_each_sample_once(samples: int, batch_size: int, epochs: int, seed: int) -> None:
    found = batches(samples, batch_size=batch_size, epochs=epochs, seed=seed)
    per_epoch = len(found) // epochs
    assert len(found) == per_epoch * epochs
    for epoch in range(epochs):
        own = found[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(index for batch in own for index in batch.tolist()) == list(range(samples))
        assert all(batch.size == batch_size for batch in own[:-1])
        if batch_size > 1 and samples > 1:
            assert 2 <= own[-1].size <= batch_size + 1
    again = batches(samples, batch_size=batch_size, epochs=epochs, seed=seed)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in found]


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (1, 4, [1]), (5, 4, [5]), (3, 1, [1, 1, 1]), (0, 4, [])],
)
def test_a_leftover_of_one_joins_the_batch_before_it(samples: int, batch_size: int, sizes: list[int]) -> None:
    assert [batch.size for batch in batches(samples, batch_size=batch_size, epochs=1, seed=0)] == sizes


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = batches(50, batch_size=50, epochs=2, seed=0)
    (other,) = batches(50, batch_size=50, epochs=1, seed=1)
    assert len({tuple(order.tolist()) for order in (first, second, other)}) == 3


@pytest.mark.parametrize(("batch_size", "epochs"), [(0, 1), (-3, 1), (4, 0)])
def test_batches_refuses_what_is_not_positive(batch_size: int, epochs: int) -> None:
    with pytest.raises(InvalidSetting, match=f"batch_size = {batch_size} and epochs = {epochs}"):
        batches(5, batch_size=batch_size, epochs=epochs, seed=0)
