"""The commits of an area in a few words each."""

from __future__ import annotations

import pytest

from microsfl.errors import VersionNotFound
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import history, keys
from microsfl.sync.commits import Chain, Commit, LeftOut, Taken
from microsfl.sync.history import commits_after

RUN = "toy"


def filled(commits: int, units: int = 3) -> ObjectStore:
    """A store with version 0 and commits of two clients each, every second of which closes its round."""
    store = open_store("memory://")
    chain = Chain(store, RUN, keys.BODY)
    file = chain.write(0, "weights", b"0")
    assert chain.create(Commit(version=0, weights=file))
    for version in range(1, commits + 1):
        taken = [Taken(client=c, unit=u, batches=2, samples=8, version=0) for c in ("a", "b") for u in range(units)]
        left_out = (LeftOut(client="c", unit=7, reason="stale"),)
        commit = Commit(
            version=version, parent=version - 1, round=(version - 1) // 2, closes=version % 2 == 0, weights=file,
            contributions=tuple(taken), left_out=left_out,
        )  # fmt: skip
        assert chain.create(commit)
    return store


def test_contributions_are_added_up_for_each_client() -> None:
    told = commits_after(filled(3), RUN, keys.BODY, 1)
    assert told["newest"] == 3
    assert [one["version"] for one in told["commits"]] == [2, 3]
    assert told["commits"][0] == {
        "version": 2, "parent": 1, "round": 0, "closes": True,
        "contributions": [{"client": client, "units": 3, "batches": 6, "samples": 24} for client in "ab"],
        "left_out": [{"client": "c", "unit": 7, "reason": "stale"}],
    }  # fmt: skip


@pytest.mark.parametrize("after", [3, 4, 10**9])
def test_after_the_newest_there_is_nothing(after: int) -> None:
    assert commits_after(filled(3), RUN, keys.BODY, after) == {"commits": [], "newest": 3}


def test_an_answer_is_bounded_and_leads_on_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(9)
    for name, limit, most in (("COMMITS", 4, 4), ("ENTRIES", 7, 2), ("ENTRIES", 1, 1)):
        monkeypatch.setattr(history, name, limit)
        seen: list[int] = []
        while (seen or [0])[-1] < 9:
            part = commits_after(store, RUN, keys.BODY, (seen or [0])[-1])["commits"]
            assert 1 <= len(part) <= most
            seen += [one["version"] for one in part]
        assert seen == list(range(1, 10))


def test_what_is_gone_is_not_remembered() -> None:
    store = filled(2)
    commits_after(store, RUN, keys.BODY, 0)
    for version in range(3):
        store.delete(keys.commit(RUN, keys.BODY, version))
    with pytest.raises(VersionNotFound):
        commits_after(store, RUN, keys.BODY, 0)
