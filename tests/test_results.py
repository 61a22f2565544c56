"""The pages under docs/results/ say what their files say, and the files bear out what is claimed."""

from __future__ import annotations

import csv

import pytest

from experiments import results

Rows = dict[tuple[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def mnist() -> Rows:
    """The rows with 20 clients in a round, by partition and method."""
    with (results.RESULTS / "mnist.csv").open() as file:
        return {(row["partition"], row["method"]): row for row in csv.DictReader(file) if row["participants"] == "20"}


@pytest.mark.parametrize("name", ["mnist", "shards"])
def test_pages_are_as_their_files_have_them(name: str) -> None:
    """`python -m experiments.results NAME` writes them again."""
    assert (results.RESULTS / f"{name}.md").read_text("utf-8") == results.page(name)


@pytest.mark.parametrize("partition", ["dirichlet-size-5", "dirichlet-label-0.5"])
def test_the_recommended_settings_do_what_is_claimed(partition: str, mnist: Rows) -> None:
    """Not a test of the code but of the claim: it fails when a new measurement does not bear it out."""
    ours = float(mnist[partition, "filesync"]["accuracy"])
    assert ours >= 0.93
    assert ours >= max(float(mnist[partition, other]["accuracy"]) for other in ("fedavg", "fedavg-sgd"))
    assert ours >= float(mnist[partition, "centralized"]["accuracy"]) - 0.01
    assert float(mnist[partition, "filesync"]["largest_drop"]) < 0.02
    assert {mnist[partition, method]["seeds"] for method in ("filesync", "fedavg", "centralized")} == {"3"}


def test_the_largest_drop_is_that_after_the_first_rounds() -> None:
    assert results.largest_drop([0.9, 0.1, 0.5, 0.5, 0.5, 0.5, 0.6, 0.57, 0.7]) == pytest.approx(0.03)
    assert results.largest_drop([0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2]) == pytest.approx(-0.1)
