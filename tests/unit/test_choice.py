"""Which split server a client asks, and which servers there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microsfl.client.addresses import LOOK_UP_EVERY_S, Addresses
from microsfl.client.choice import Choice, Loads
from microsfl.spec.names import Spread

SPREADS: tuple[Spread, ...] = ("sticky", "random", "two")
names = st.lists(st.sampled_from([f"http://s{n}" for n in range(9)]), unique=True)


@given(st.sampled_from(SPREADS), st.integers(0, 1000), names)
def test_all_of_them_are_asked_each_once(spread: Spread, favourite: int, servers: list[str]) -> None:
    choice = Choice(spread, favourite)
    for _ in range(3):
        assert sorted(choice.order(servers)) == sorted(servers)


@given(st.sampled_from(SPREADS), st.integers(1, 4))
def test_servers_that_share_an_address_are_one(spread: Spread, count: int) -> None:
    assert Choice(spread, 0).order(["https://split:8100"] * count) == ["https://split:8100"]


@given(st.integers(0, 1000), names.filter(bool))
def test_sticky_keeps_to_one(favourite: int, servers: list[str]) -> None:
    choice = Choice("sticky", favourite)
    assert {choice.order(servers)[0] for _ in range(5)} == {sorted(servers)[favourite % len(servers)]}


def test_two_stays_where_it_is_while_no_other_has_less_to_do() -> None:
    choice, servers = Choice("two", 1), ["a", "b", "c"]
    assert {choice.order(servers)[0] for _ in range(20)} == {"b"}
    for server in servers:
        choice.loads.told(server, 3)
    assert {choice.order(servers)[0] for _ in range(20)} == {"b"}


def test_two_leaves_for_one_that_has_less_to_do() -> None:
    choice = Choice("two", 0)
    choice.loads.told("a", 5)
    assert choice.order(["a", "b"])[0] == "b"
    choice.loads.told("b", 4)
    assert choice.order(["a", "b"])[0] == "b"
    choice.loads.told("b", 7)
    assert choice.order(["a", "b"])[0] == "a"


def test_two_goes_for_one_request_less_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = Choice("two", 0)
    choice.loads.told("a", 1)
    monkeypatch.setattr("microsfl.client.choice.CURIOUS", 0.0)
    assert {choice.order(["a", "b"])[0] for _ in range(20)} == {"a"}
    monkeypatch.setattr("microsfl.client.choice.CURIOUS", 1.0)
    assert choice.order(["a", "b"])[0] == "b"


def test_what_is_under_way_from_here_counts_once() -> None:
    loads = Loads()
    loads.asked("a")
    loads.asked("a")
    loads.told("a", 3)  # two of them are ours
    assert loads.of("a") == 3
    loads.over("a")
    loads.over("a")
    assert loads.of("a") == 1


def test_what_was_told_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = Loads()
    loads.told("a", 5)
    monkeypatch.setattr("microsfl.client.choice.FRESH_S", 0.0)
    assert loads.of("a") == 0


def test_the_backward_goes_where_the_forward_was_once() -> None:
    choice, servers = Choice("two", 0), ["a", "b", "c"]
    choice.went("unit", "c")
    assert choice.order(servers, back="unit") == ["c", "a", "b"]
    assert choice.order(servers, back="unit")[0] == "a"  # it failed there, or it is another one's
    choice.went("unit", "gone")
    assert choice.order(servers, back="unit")[0] == "a"


def test_two_choices_share_units_among_all() -> None:
    """Many units at a time, none of which is answered: each server has about as many."""
    choice, servers = Choice("two", 0), [f"s{n}" for n in range(4)]
    asked: Counter[str] = Counter()
    for _ in range(400):
        server = choice.order(servers)[0]
        choice.loads.asked(server)
        asked[server] += 1
    assert max(asked.values()) - min(asked.values()) <= 10
    assert sum(asked.values()) == 400


class Names:
    """What a name stands for now."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked, self.now = list(addresses), 0, 0.0

    def look_up(self, name: str, port: int) -> Sequence[str]:
        assert (name, port) == ("split.example", 8100)
        self.asked += 1
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses


def test_a_name_stands_for_all_its_addresses_as_they_come_and_go() -> None:
    found = Names("10.0.0.1", "10.0.0.2")
    told = ["dns+https://split.example:8100", "https://other:8100"]
    addresses = Addresses(lambda: told, found.look_up, lambda: found.now)
    assert addresses() == [
        "https://split.example:8100#10.0.0.1", "https://split.example:8100#10.0.0.2", "https://other:8100",
    ]  # fmt: skip
    found.addresses = ["10.0.0.3"]
    addresses()
    assert found.asked == 1  # it is not looked up for each request
    found.now = LOOK_UP_EVERY_S
    assert addresses() == ["https://split.example:8100#10.0.0.3", "https://other:8100"]
    found.addresses, found.now = [], 2 * LOOK_UP_EVERY_S
    assert addresses() == ["https://split.example:8100#10.0.0.3", "https://other:8100"]  # its last ones stay


def test_a_name_that_is_not_known_yet_is_looked_up_again() -> None:
    found = Names()
    addresses = Addresses(lambda: ["dns+https://split.example:8100"], found.look_up, lambda: found.now)
    assert addresses() == []
    found.addresses, found.now = ["10.0.0.1"], LOOK_UP_EVERY_S
    assert addresses() == ["https://split.example:8100#10.0.0.1"]
