"""The chain of commits on a store, and what happens when its files are not what they should be."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microsfl.errors import (
    RoundClosed,
    RoundNotFound,
    RunExists,
    RunNotFound,
    StoreCorrupt,
    UnsupportedFormat,
    VersionNotFound,
)
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain, Commit, LeftOut, Taken
from microsfl.sync.runs import create_run, load_run
from microsfl.sync.seals import check_open, seal

RUN = "toy"


def chain_of(store: ObjectStore, rounds: list[bool]) -> Chain:
    """A chain with version 0 and one commit per entry, which says whether that commit closes its round."""
    chain = Chain(store, RUN, keys.BODY)
    assert chain.create(Commit(version=0, weights=chain.write(0, "weights", b"0")))
    for closes in rounds:
        head = chain.head()
        taken = Taken(client="c", unit=head.version, batches=1, samples=1, version=0)
        commit = Commit(
            version=head.version + 1, parent=head.version, round=head.open_round, closes=closes,
            weights=head.weights, contributions=(taken,),
        )  # fmt: skip
        assert chain.create(commit)
    return chain


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_process_that_just_started_finds_the_head(rounds: list[bool], known: int) -> None:
    store = open_store("memory://")
    writer = chain_of(store, rounds)
    fresh = Chain(store, RUN, keys.BODY)
    assert fresh.head().version == len(rounds)
    assert fresh.head().open_round == sum(rounds)
    behind = Chain(store, RUN, keys.BODY)
    behind._head = writer.get(min(known, len(rounds)))  # one that saw the chain at some earlier moment
    assert behind.head() == fresh.head()


@given(st.lists(st.booleans(), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_settled_is_what_the_commits_of_the_round_list(rounds: list[bool]) -> None:
    store = open_store("memory://")
    chain_of(store, rounds)
    commits = list(Chain(store, RUN, keys.BODY).back(Chain(store, RUN, keys.BODY).head()))
    for number in range(sum(rounds) + 1):
        expected = set().union(*(commit.settled for commit in commits if commit.round == number))
        assert Chain(store, RUN, keys.BODY).settled(number) == expected


def test_settled_follows_the_chain_as_it_grows() -> None:
    store = open_store("memory://")
    writer = chain_of(store, [False])
    reader = Chain(store, RUN, keys.BODY)
    assert reader.settled(0) == {("c", 0)}
    head = writer.head()
    left = LeftOut(client="late", unit=7, reason="too old")
    assert writer.create(Commit(version=2, parent=1, round=0, weights=head.weights, left_out=(left,)))
    assert reader.settled(0) == {("c", 0), ("late", 7)}
    assert reader.settled(1) == set()


def test_rounds_are_open_closed_or_not_begun() -> None:
    chain = chain_of(open_store("memory://"), [True, False, True, False])
    assert [chain.closing(0).version, chain.closing(1).version] == [1, 3]  # type: ignore[union-attr]
    assert chain.closing(2) is None
    with pytest.raises(RoundNotFound, match="round 2 is open"):
        chain.closing(3)
    chain.check_round(2)
    with pytest.raises(RoundClosed):
        chain.check_round(1)
    with pytest.raises(RoundNotFound):
        chain.check_round(3)


def test_of_racing_commits_exactly_one_becomes_the_version() -> None:
    store = open_store("memory://")
    first = chain_of(store, [])
    wins: Counter[int] = Counter()
    barrier = threading.Barrier(6)

    def race(me: int) -> None:
        chain = Chain(store, RUN, keys.BODY)
        barrier.wait()
        for _ in range(20):
            head = chain.head()
            taken = (Taken(client=f"c{me}", unit=head.version, batches=1, samples=1, version=0),)
            draft = Commit(version=head.version + 1, parent=head.version, weights=head.weights, contributions=taken)
            wins[me] += chain.create(draft)

    threads = [threading.Thread(target=race, args=(me,)) for me in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    head = first.head()
    assert head.version == sum(wins.values()) > 0
    assert [commit.parent for commit in first.back(head)] == [*range(head.version - 1, -1, -1), None]


def test_versions_that_are_not_there_are_named() -> None:
    chain = Chain(open_store("memory://"), RUN, keys.BODY)
    with pytest.raises(VersionNotFound):
        chain.head()
    chain = chain_of(open_store("memory://"), [False])
    with pytest.raises(VersionNotFound, match="no body version 7; the newest is 1"):
        chain.head(at_least=7)
    with pytest.raises(VersionNotFound, match="no body version 2"):
        chain.get(2)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 0}', b'{"format": 2, "version": 0}', b"\xff"], ids=repr
)
def test_a_damaged_commit_is_refused_with_its_name(content: bytes) -> None:
    store = open_store("memory://")
    store.put(keys.commit(RUN, keys.BODY, 0), content)
    with pytest.raises(StoreCorrupt, match=r"runs/toy/body/0/commit\.json"):
        Chain(store, RUN, keys.BODY).head()


def test_a_commit_under_another_version_s_name_is_refused() -> None:
    store = open_store("memory://")
    chain_of(store, [])
    store.put(keys.commit(RUN, keys.BODY, 1), store.get(keys.commit(RUN, keys.BODY, 0)))
    with pytest.raises(StoreCorrupt, match="says that it is version 0 after None"):
        Chain(store, RUN, keys.BODY).head()


def test_a_commit_of_another_run_is_refused() -> None:
    store = open_store("memory://")
    chain_of(store, [])
    store.put(keys.commit("other", keys.BODY, 0), store.get(keys.commit(RUN, keys.BODY, 0)))
    with pytest.raises(StoreCorrupt, match="names the file 'runs/toy/body/0/weights"):
        Chain(store, "other", keys.BODY).head()


def test_a_file_with_other_content_than_its_commit_says_is_refused_with_both_hashes() -> None:
    store = open_store("memory://")
    chain = chain_of(store, [])
    weights = chain.head().weights
    assert chain.read(weights) == b"0"
    store.put(weights.key, b"1")
    with pytest.raises(StoreCorrupt, match=weights.sha256):
        chain.read(weights)
    store.delete(weights.key)
    with pytest.raises(StoreCorrupt, match="is not there"):
        chain.read(weights)


def test_a_sealed_round_acknowledges_nothing_more() -> None:
    store = open_store("memory://")
    check_open(store, RUN, 0)
    seal(store, RUN, 0)
    seal(store, RUN, 0)
    with pytest.raises(RoundClosed):
        check_open(store, RUN, 0)
    check_open(store, RUN, 1)


def test_a_specification_is_kept_once() -> None:
    store = open_store("memory://")
    spec = RunSpec.parse({"run": {"name": "a"}})
    with pytest.raises(RunNotFound):
        load_run(store, "a")
    create_run(store, spec)
    create_run(store, spec)
    assert load_run(store, "a") == spec
    with pytest.raises(RunExists):
        create_run(store, RunSpec.parse({"run": {"name": "a", "rounds": 3}}))
    assert load_run(store, "a") == spec


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "spec": {"run": {"name": 1}}}', b"\xff"], ids=repr
)
def test_a_damaged_specification_is_refused_with_its_name(content: bytes) -> None:
    store = open_store("memory://")
    store.put(keys.spec("a"), content)
    with pytest.raises(StoreCorrupt, match=r"runs/a/run\.json"):
        load_run(store, "a")


@pytest.mark.parametrize("number", [0, 2, "x"])
def test_a_specification_of_another_format_is_refused_in_a_clear_sentence(number: object) -> None:
    store = open_store("memory://")
    store.put(keys.spec("a"), json.dumps({"format": number, "spec": {}}).encode())
    with pytest.raises(UnsupportedFormat, match=f"stored in format {number!r} .* reads format 1"):
        load_run(store, "a")
