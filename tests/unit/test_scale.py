"""How many split servers are recommended, from what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microsfl.services.load import Load
from microsfl.services.scale import DOWN_AFTER_S, MEAN_OVER_S, Scale
from microsfl.services.standing_by import HEARTBEAT_S

loads = st.lists(st.floats(0, 50), max_size=8)


@dataclass
class Story:
    """A coordinator's clock, and replicas of which each has so many requests on average."""

    now: float = 1_000.0
    runs: int = 1
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scale = Scale(lambda: self.runs, lambda: self.now)

    def goes_on(self, load: dict[str, float], for_s: float = MEAN_OVER_S + 2 * HEARTBEAT_S) -> None:
        for _ in range(round(for_s / HEARTBEAT_S)):
            self.now += HEARTBEAT_S
            for name, mean in load.items():
                self.seconds[name] = self.seconds.get(name, 0.0) + mean * HEARTBEAT_S
                self.scale.heard(name, self.info(name))

    def info(self, name: str) -> dict[str, float]:
        return {"load_s": self.seconds[name], "decode_s": 0.0, "compute_s": 0.0, "store_s": 0.0, "encode_s": 0.0}


@given(loads)
def test_each_has_as_many_requests_as_it_should(means: list[float]) -> None:
    story = Story()
    story.goes_on({f"s{number}": mean for number, mean in enumerate(means)})
    assert story.scale.load == pytest.approx(sum(means), abs=1e-6)
    wanted = story.scale.replicas(0, 1000)
    assert wanted >= 1
    assert sum(means) <= 2 * wanted + 1e-6  # enough
    assert wanted == 1 or sum(means) > 2 * (wanted - 1) - 1e-6  # and no more than that
    assert story.scale.replicas(0, 1000, per_replica=4.0) <= wanted


@given(loads, st.integers(0, 5), st.integers(5, 9))
def test_it_stays_within_bounds(means: list[float], least: int, most: int) -> None:
    story = Story()
    story.goes_on({f"s{number}": mean for number, mean in enumerate(means)})
    assert least <= story.scale.replicas(least, most) <= most


def test_none_without_a_run_and_one_at_once_with_the_first() -> None:
    story = Story(runs=0)
    assert story.scale.replicas(0, 9) == 0
    story.runs = 1
    assert story.scale.replicas(0, 9) == 1


def test_up_at_once_and_down_after_a_while() -> None:
    story = Story()
    story.goes_on({"a": 8.0})
    assert story.scale.replicas(0, 9) == 4
    story.goes_on({"a": 0.5}, DOWN_AFTER_S - MEAN_OVER_S)
    assert story.scale.replicas(0, 9) == 4
    story.goes_on({"a": 0.5}, 2 * MEAN_OVER_S + HEARTBEAT_S)
    assert story.scale.replicas(0, 9) == 1
    story.runs = 0
    story.goes_on({"a": 0.0}, DOWN_AFTER_S + HEARTBEAT_S)
    assert story.scale.replicas(0, 9) == 0


def test_one_that_is_gone_counts_no_more() -> None:
    story = Story()
    story.goes_on({"a": 8.0, "b": 8.0})
    assert story.scale.load == pytest.approx(16.0)
    story.goes_on({"b": 8.0})
    assert story.scale.load == pytest.approx(8.0)


def test_one_that_starts_anew_begins_anew() -> None:
    story = Story()
    story.goes_on({"a": 8.0})
    story.seconds["a"] = 0.0
    story.goes_on({"a": 1.0}, HEARTBEAT_S)
    assert story.scale.load == 0.0  # nothing is known of it yet
    story.goes_on({"a": 1.0}, HEARTBEAT_S)
    assert story.scale.load == pytest.approx(1.0)


@pytest.mark.parametrize(
    "info",
    [{}, {"load_s": "many"}, {"load_s": float("nan"), "decode_s": 0, "compute_s": 0, "store_s": 0, "encode_s": 0}],
)
def test_what_it_does_not_understand_is_left_out(info: dict[str, object]) -> None:
    story = Story()
    story.scale.heard("a", info)
    story.scale.heard("a", info)
    assert story.scale.load == 0.0


def test_a_load_is_the_time_of_all_requests_those_under_way_included() -> None:
    now = [0.0]
    load = Load(lambda: now[0])
    with load.one():
        now[0] = 1.0
        with load.one(), load.without():  # a body that has not come yet
            now[0] = 3.0
        assert (load.now, load.seconds) == (1, 3.0)
        with load.one():
            now[0] = 4.0
            assert (load.now, load.seconds) == (2, 5.0)
    now[0] = 9.0
    assert (load.now, load.seconds) == (0, 5.0)
