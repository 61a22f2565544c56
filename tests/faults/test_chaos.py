"""Laws 3 and 4 under SIGKILL: real processes die by a schedule that a seed decides, several at once, and come back.

A failing seed is replayed with `python -m tests.faults.chaos --schedules 1 --first-seed SEED`.
"""

from __future__ import annotations

import pytest

from tests.faults.chaos import Cluster, Outcome, acknowledged, audit, schedule, spec_of


@pytest.mark.parametrize("seed", range(10))
def test_law_3_the_weights_are_those_of_the_calm_run(seed: int, living: Cluster, calm: Outcome) -> None:
    spec = spec_of(f"chaos-{seed}")
    outcome = living.run(spec, schedule(seed))
    print(f"seed {seed}: {dict(outcome.kills)}")  # noqa: T201  (shown when the test fails)
    assert outcome.hashes == calm.hashes
    audit(outcome.commits, outcome.stored, acknowledged(spec))


@pytest.mark.parametrize("seed", [10, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (11, 12))])
def test_law_4_with_commits_inside_the_round_nothing_is_counted_twice(seed: int, living: Cluster) -> None:
    spec = spec_of(f"chaos-sync-{seed}", sync=4)
    outcome = living.run(spec, schedule(seed))
    audit(outcome.commits, outcome.stored, acknowledged(spec))


def test_the_audit_finds_a_contribution_that_counts_twice(calm: Outcome) -> None:
    """The test of the test: one contribution is put into a second commit by hand."""
    first = next(commit for commit in calm.commits if commit.contributions)
    other = next(commit for commit in calm.commits if commit is not first)
    forged = other.model_copy(update={"round": first.round, "contributions": first.contributions[:1]})
    with pytest.raises(AssertionError, match="more than once"):
        audit([*calm.commits, forged], calm.stored, calm.stored)


def test_the_audit_finds_a_contribution_that_was_lost(calm: Outcome) -> None:
    """The test of the test: one that was acknowledged is in no commit, then not even in the store."""
    unit = min(calm.stored)
    commits = [
        commit.model_copy(
            update={
                "contributions": tuple(
                    one for one in commit.contributions if (commit.round, one.client, one.unit) != unit
                )
            }
        )
        for commit in calm.commits
    ]
    with pytest.raises(AssertionError, match="stored but not settled"):
        audit(commits, calm.stored, calm.stored)
    with pytest.raises(AssertionError, match="acknowledged but not stored"):
        audit(commits, calm.stored - {unit}, calm.stored)


def test_the_schedules_do_kill() -> None:
    """The test of the test: over the seeds every role dies, and several processes at once."""
    kills = [names for seed in range(13) for _, names in schedule(seed)]
    assert {name.split("-")[0] for names in kills for name in names} == {"coordinator", "fed", "clients", "split"}
    assert max(len(names) for names in kills) == 3
