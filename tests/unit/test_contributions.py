"""The sum of many contributions: equal to its definition in every bit, whoever adds up what, in bounded memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.core.reduce import OptimizerRule, Reduction, StepRule
from microsfl.core.schedule import Schedule
from microsfl.core.unit import UnitKey
from microsfl.errors import StoreCorrupt
from microsfl.store.objects import ObjectStore, open_store
from microsfl.store.verbs import Store
from microsfl.sync import contributions, keys, partials
from microsfl.sync.contributions import Adder, Sum
from microsfl.wire.messages import Contribution
from microsfl.wire.tensors import encode

RUN, ROUND, VERSION = "toy", 3, 5
GROUP = 4


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contributions, "GROUP", GROUP)


def unit(number: int) -> UnitKey:
    return UnitKey(RUN, ROUND, f"c{number % 3}", number // 3)


def contribution(number: int, *, version: int = VERSION) -> Contribution:
    """Values of sizes so different that another order of additions gives other bits."""
    random = torch.Generator().manual_seed(number)
    weight = torch.randn(5, 3, generator=random) * 10.0 ** float(torch.randint(-6, 7, (), generator=random))
    gradients = {"w": weight, "half": torch.randn(4, generator=random).bfloat16()}
    if number % 4:
        gradients["now and then"] = torch.randn(2, generator=random)
    return Contribution(
        run=RUN, round=ROUND, client=unit(number).client, unit=unit(number).unit, batches=1 + number % 3,
        samples=(1 + number % 3) * (1 + number % 5), version=version, gradients=gradients,
        buffers={"mean": torch.randn(3, generator=random), "count": torch.tensor(number)},
    )  # fmt: skip


def stored(store: ObjectStore, numbers: Sequence[int]) -> list[UnitKey]:
    for number in numbers:
        store.create(keys.contribution(unit(number)), contribution(number).pack(hashed=True))
    return sorted(unit(number) for number in numbers)


def rule(reduce: str = "mean-batches", discount: float = 0.0) -> StepRule:
    return StepRule(OptimizerRule("SGD", {"lr": 1.0}), Schedule("constant", rounds=9), reduce, discount)


def adder(store: Any, step: StepRule | None = None, max_staleness: int | None = 0) -> Adder:
    return Adder(store, step or rule(), VERSION, max_staleness)


def total(one: Adder, units: Sequence[UnitKey], parts: int = 1) -> Sum:
    found = Sum(one.step.reduction())
    for group in partials.sums(one, units, parts):
        found.merge(group)
    return found


def leave(one: Adder, units: Sequence[UnitKey], part: int, parts: int, at_most: int = 10**9) -> list[str]:
    """What a replica stores that adds up a part, and is then told that the round is over; in the order of time."""
    stored: list[str] = []

    class Noted:
        def __init__(self) -> None:
            self.size, self.read_into, self.exists, self.readers = (
                one.store.size, one.store.read_into, one.store.exists, one.store.readers,
            )  # fmt: skip

        def create(self, key: str, value: bytes) -> bool:
            stored.append(key)
            return one.store.create(key, value)

    noted = Adder(cast(Store, Noted()), one.step, one.version, one.max_staleness)
    assert partials.leave(noted, units, part, parts, lambda: len(stored) == at_most) == len(stored)
    return stored


def bits(found: Sum) -> dict[str, Any]:
    """All of a sum, its floats as they are in every bit."""
    means = {"gradients": found.reduction.gradients, "buffers": found.reduction.buffers}
    arrays = {f"{kind}.{name}": array for kind, mean in means.items() for name, array in mean.sums.items()}
    return {
        "arrays": {name: array.tobytes() for name, array in arrays.items()},
        "dtypes": {kind: mean.dtypes for kind, mean in means.items()},
        "weights": [mean.weight.hex() for mean in means.values()] + [found.reduction.divisor.hex()],
        "says": (found.taken, found.left_out),
    }  # fmt: skip


def by_definition(units: Sequence[UnitKey], step: StepRule) -> Sum:
    """Naive: contributions as they were made, element by element in Python's floats, group by group."""
    of_unit = {contribution(number).key: contribution(number) for number in range(200)}
    found = Sum(step.reduction())
    sums: dict[str, list[float]] = {}
    for first in range(0, len(units), GROUP):
        group: dict[str, list[float]] = {}
        for key in units[first : first + GROUP]:
            one = of_unit[key]
            scale = one.samples / one.batches if step.reduce == "mean-samples" else 1.0
            for name, tensor in one.gradients.items():
                terms = [scale * value for value in tensor.double().flatten().tolist()]
                group[name] = [a + b for a, b in zip(group[name], terms, strict=True)] if name in group else terms
        for name, terms in group.items():
            sums[name] = [a + b for a, b in zip(sums[name], terms, strict=True)] if name in sums else terms
    for name, values in sums.items():
        shape = contribution(1).gradients[name].shape
        found.reduction.gradients.sums[name] = torch.tensor(values, dtype=torch.float64).reshape(shape).numpy()
    return found


@pytest.mark.parametrize("reduce", ["mean-batches", "mean-samples", "sum"])
@pytest.mark.parametrize("count", [1, GROUP, GROUP + 1, 5 * GROUP, 23])
def test_the_sum_is_that_of_groups_in_sorted_order_in_every_bit(reduce: str, count: int) -> None:
    store = open_store("memory://")
    units = stored(store, range(count))
    found, expected = total(adder(store, rule(reduce)), units), by_definition(units, rule(reduce))
    for name, array in expected.reduction.gradients.sums.items():
        assert found.reduction.gradients.sums[name].tobytes() == array.tobytes()
    assert [(one.client, one.unit) for one in found.taken] == [(one.client, one.unit) for one in units]


def test_another_order_or_other_groups_give_other_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the tests: these values show it when a sum is made in another way."""
    store = open_store("memory://")
    units = stored(store, range(23))
    expected = bits(total(adder(store), units))["arrays"]
    assert bits(total(adder(store), units[::-1]))["arrays"] != expected
    monkeypatch.setattr(contributions, "GROUP", GROUP + 1)
    assert bits(total(adder(store), units))["arrays"] != expected


@given(
    count=st.integers(1, 30), parts=st.integers(2, 6), done=st.dictionaries(st.integers(1, 5), st.integers(0, 5)),
    reduce=st.sampled_from(["mean-batches", "mean-samples", "sum"]), discount=st.sampled_from([0.0, 0.5]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_parts_that_others_add_up_or_do_not_change_no_bit(
    count: int, parts: int, done: dict[int, int], reduce: str, discount: float
) -> None:
    store = open_store("memory://")
    units = stored(store, range(count))
    one = adder(store, rule(reduce, discount))
    expected = bits(total(one, units))
    for part, at_most in done.items():
        if part < parts:
            leave(one, units, part, parts, at_most)
    assert bits(total(one, units, parts)) == expected


class Slow:
    """A store of which several reads at a time are worth it, and whose reads end in the opposite order."""

    def __init__(self, store: ObjectStore, readers: int) -> None:
        self.store, self.readers = store, readers
        self.size, self.get, self.exists, self.create = store.size, store.get, store.exists, store.create
        self.turn = threading.Barrier(readers)
        self.lock = threading.Lock()
        self.memories: dict[int, int] = {}

    def read_into(self, key: str, buffer: memoryview) -> int:
        with self.lock:
            self.memories[id(buffer.obj)] = len(buffer)
        mine = self.turn.wait(30)
        for _ in range(self.readers - 1 - mine):  # the last to come reads first
            self.turn.wait(30)
        size = self.store.read_into(key, buffer)
        for _ in range(mine + 1):
            self.turn.wait(30)
        return size


@pytest.mark.parametrize("readers", [2, 4])
def test_the_order_in_which_reads_end_changes_no_bit(readers: int) -> None:
    store = open_store("memory://")
    units = stored(store, range(2 * GROUP))
    expected = bits(total(adder(store), units))
    assert bits(total(adder(Slow(store, readers)), units)) == expected


@pytest.mark.parametrize(("limit", "rooms"), [(10**9, 4), (3, 3), (1, 2), (0, 2)])
def test_what_is_read_ahead_is_bounded_in_bytes(limit: int, rooms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """limit: in contributions; two are always allowed, and twice as many as there are readers at most."""
    store = open_store("memory://")
    units = stored(store, range(GROUP))
    size = store.size(keys.contribution(units[0])) + contributions.SLACK_BYTES
    monkeypatch.setattr(contributions, "AHEAD_BYTES", limit * size)
    slow = Slow(store, 2)
    slow.memories.clear()
    adder(slow).group(units)
    assert len(slow.memories) <= rooms
    assert sum(slow.memories.values()) <= max(limit, 2) * size


def test_of_a_folder_one_file_at_a_time_is_read_into_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}")
    units = stored(store, range(3 * GROUP))
    made: list[int] = []
    fit = contributions.Room._fit
    monkeypatch.setattr(contributions.Room, "_fit", lambda room, size: (made.append(size), fit(room, size))[1])
    adder(store).group(units)
    assert len(made) == 1


def test_a_file_that_is_larger_than_the_first_is_read_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contributions, "SLACK_BYTES", 0)
    store = open_store("memory://")
    units = stored(store, range(GROUP))
    big = contribution(200).model_copy(update={"client": "z", "unit": 0, "gradients": {"big": torch.ones(9999)}})
    store.create(keys.contribution(big.key), big.pack(hashed=True))
    found = adder(store).group([*units, big.key])
    assert found.reduction.gradients.sums["big"].tolist() == [1.0] * 9999


def test_what_is_too_old_is_left_out_with_the_reason_and_adds_nothing() -> None:
    store = open_store("memory://")
    units = stored(store, range(3))
    old = contribution(150, version=VERSION - 2)
    store.create(keys.contribution(old.key), old.pack(hashed=True))
    everything = sorted([*units, old.key])
    found = adder(store, max_staleness=1).group(everything)
    assert bits(found)["arrays"] == bits(adder(store).group(units))["arrays"]
    [left] = found.left_out
    assert (left.client, left.unit) == (old.client, old.unit)
    assert "2 commits before; max_staleness is 1" in left.reason
    assert [*adder(store, max_staleness=None).group(everything).left_out] == []


# Damage.

DAMAGED = 1  # which stands third in the sorted order


def replaced(content: bytes) -> tuple[ObjectStore, list[UnitKey]]:
    store = open_store("memory://")
    units = stored(store, range(GROUP + 2))
    assert units[2] == unit(DAMAGED)
    store.put(keys.contribution(units[2]), content)
    return store, units


@pytest.mark.parametrize(
    "content",
    [
        b"",
        contribution(DAMAGED).pack(hashed=True)[:-1],
        contribution(DAMAGED).pack(hashed=True)[:-1] + b"\x01",
        contribution(DAMAGED).pack(),
        contribution(8).pack(hashed=True),
        contribution(DAMAGED).model_copy(update={"run": "other"}).pack(hashed=True),
        encode({}, {"type": "Contribution", "run": RUN, "round": ROUND, "client": "c1", "unit": 0}, hashed=True),
    ],
    ids=["empty", "torn", "changed", "no hash", "another unit", "another run", "no counts"],
)  # fmt: skip
def test_a_damaged_contribution_is_refused_with_its_name(content: bytes) -> None:
    store, units = replaced(content)
    with pytest.raises(StoreCorrupt, match=keys.contribution(units[2])):
        total(adder(store), units)
    with pytest.raises(StoreCorrupt, match=keys.contribution(units[2])):
        contributions.read(store, units[2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["gradients", "buffers"])
def test_a_contribution_that_is_not_finite_is_refused_with_its_name(value: float, where: str) -> None:
    """None is written; but should one stand there, the sum shows it, and then it is looked for."""
    one = contribution(DAMAGED)
    tensors = {**getattr(one, where), "x": torch.tensor([1.0, value])}
    store, units = replaced(one.model_copy(update={where: tensors}).pack(hashed=True))
    with pytest.raises(StoreCorrupt, match=rf"{keys.contribution(units[2])}.*NaN or an infinite"):
        total(adder(store), units)


def test_a_contribution_that_is_gone_is_not_found() -> None:
    store = open_store("memory://")
    units = stored(store, range(3))
    store.delete(keys.contribution(units[1]))
    with pytest.raises(FileNotFoundError):
        total(adder(store), units)


# Partial sums in the store.


def left(store: ObjectStore) -> list[str]:
    return list(store.list(keys.partials(RUN, ROUND)))


def test_each_part_takes_its_own_groups_first_and_then_all_others() -> None:
    for groups in range(12):
        for parts in range(1, 7):
            turns = [partials._turns(groups, part, parts) for part in range(parts)]
            assert all(sorted(one) == list(range(groups)) for one in turns)
            if groups >= parts:
                assert sorted(one[0] for one in turns) == [one[0] for one in turns]
                assert len({one[0] for one in turns}) == parts
                assert turns[0][0] == 0  # where the one that closes the round begins


def test_who_is_done_with_its_part_goes_on_with_others_until_the_round_is_over() -> None:
    store = open_store("memory://")
    units = stored(store, range(6 * GROUP))
    groups = contributions.in_groups(units)
    names = [partials._key(adder(store), group) for group in groups]
    own, then = names[2:4], [names[1], names[0], names[5], names[4]]
    assert leave(adder(store), units, 1, 3, at_most=2) == own
    assert leave(adder(store), units, 1, 3) == then
    assert leave(adder(store), units, 1, 3) == []


def test_a_partial_stands_for_its_contributions_and_no_others() -> None:
    """What came late moves all the groups after it: none of the partials before is used, and nothing counts twice."""
    store = open_store("memory://")
    units = stored(store, range(1, 4 * GROUP))
    assert sorted(leave(adder(store), units, 1, 2)) == left(store)
    more = stored(store, range(4 * GROUP))
    assert more[0] not in units
    expected = bits(total(adder(store), more))
    assert bits(total(adder(store), more, 2)) == expected
    assert len(expected["says"][0]) == len({(one.client, one.unit) for one in expected["says"][0]}) == 4 * GROUP


def test_a_partial_is_used_where_there_is_one() -> None:
    """The test of the test: a partial that says something else changes the sum."""
    store = open_store("memory://")
    units = stored(store, range(2 * GROUP))
    one = adder(store)
    expected = bits(total(one, units))
    [name] = leave(one, units, 1, 2, at_most=1)
    store.put(name, partials._packed(one.group(units[: GROUP - 1])))
    assert bits(total(one, units, 2)) != expected
    assert bits(total(one, units, 1)) == expected  # who closes the round alone does not look


@pytest.mark.parametrize("damage", [b"", b"{}", encode({}, {"type": "Partial"}, hashed=True)])
def test_a_partial_that_cannot_be_read_is_as_good_as_none(damage: bytes) -> None:
    store = open_store("memory://")
    units = stored(store, range(3 * GROUP))
    expected = bits(total(adder(store), units))
    for name in leave(adder(store), units, 1, 2):
        store.put(name, damage)
    assert bits(total(adder(store), units, 2)) == expected


def test_what_only_partials_have_is_kept_while_the_next_is_read() -> None:
    store = open_store("memory://")
    for number in range(4 * GROUP):
        name = f"of group {number // GROUP}"
        changes = {"client": "c", "unit": 10 + number, "gradients": {name: torch.ones(9) * number}}
        one = contribution(0).model_copy(update=changes)
        store.create(keys.contribution(one.key), one.pack(hashed=True))
    units = [UnitKey(RUN, ROUND, "c", 10 + number) for number in range(4 * GROUP)]
    expected = bits(total(adder(store), units))
    leave(adder(store), units, 1, 2, at_most=2)
    assert bits(total(adder(store), units, 2)) == expected


def test_a_partial_of_another_version_is_another_file() -> None:
    store = open_store("memory://")
    units = stored(store, range(2 * GROUP))
    [first] = leave(adder(store), units, 1, 2, at_most=1)
    [second] = leave(Adder(store, rule(), VERSION + 1, 1), units, 1, 2, at_most=1)
    assert first != second


def test_reductions_merge_to_what_their_terms_give() -> None:
    """Means, divisors and names that only one of them has."""
    both, one, other = Reduction("mean-samples"), Reduction("mean-samples"), Reduction("mean-samples")
    first = ({"a": torch.ones(2), "b": torch.ones(3)}, {"n": torch.tensor(4)})
    second = ({"a": torch.full((2,), 3.0), "c": torch.ones(1)}, {"n": torch.tensor(8)})
    both.add(*first, batches=1, samples=4)
    both.add(*second, batches=2, samples=4)
    one.add(*first, batches=1, samples=4)
    other.add(*second, batches=2, samples=4)
    one.merge(other)
    assert all(torch.equal(value, one.gradient()[name]) for name, value in both.gradient().items())
    assert torch.equal(one.buffers.result()["n"], both.buffers.result()["n"])
    assert one.divisor == both.divisor
