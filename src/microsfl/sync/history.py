"""The commits of an area in a few words each, for people to read."""

from __future__ import annotations

from typing import Any

from .commits import Chain, Commit, CommitStore

COMMITS = 200
ENTRIES = 5000

Json = dict[str, Any]


def commits_after(store: CommitStore, run: str, area: str, version: int) -> Json:
    """{"commits", "newest"}: the commits that follow on a version, oldest first, as many as fit into an answer; and the
    number of the newest version. Looks at the files as they are now.

    Raises:
        VersionNotFound: when the run has no version in this store, or one of them went meanwhile.
        StoreCorrupt: when a file is not the commit that it should be.
    """
    chain = Chain(store, run, area)
    newest, entries = chain.head().version, 0
    commits: list[Json] = []
    for number in range(version + 1, min(newest, version + COMMITS) + 1):
        commit = told(chain.get(number))
        entries += len(commit["contributions"]) + len(commit["left_out"])
        if commits and entries > ENTRIES:
            break
        commits.append(commit)
    return {"commits": commits, "newest": newest}


def told(commit: Commit) -> Json:
    """A commit, with the contributions of each client taken together."""
    clients: dict[str, Json] = {}
    for one in commit.contributions:
        known = clients.setdefault(one.client, {"client": one.client, "units": 0, "batches": 0, "samples": 0})
        known["units"] += 1
        known["batches"] += one.batches
        known["samples"] += one.samples
    return {
        "version": commit.version,
        "parent": commit.parent,
        "round": commit.round,
        "closes": commit.closes,
        "contributions": list(clients.values()),
        "left_out": [one.model_dump() for one in commit.left_out],
    }
