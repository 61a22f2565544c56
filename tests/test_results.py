"""The pages under docs/results/ say what their files say, and the files bear out what is claimed."""

from __future__ import annotations

import csv
import tomllib

import pytest

from experiments import results
from experiments.formats import __main__ as formats
from microsfl.compare.config import parse_comparison
from microsfl.compare.grid import cells

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


def test_the_cost_of_the_formats_is_as_its_file_has_it() -> None:
    """`python -m experiments.formats` writes it again."""
    assert formats.PAGE.read_text("utf-8") == formats.page()


def test_no_format_costs_half_a_point_of_accuracy() -> None:
    """As the page says: a test of the claim, not of the code."""
    with formats.TABLE.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 7
    assert all(abs(float(row["difference"])) < 0.005 for row in rows)
    bytes_of = {(row["data"], row["label"]): float(row["bytes_per_round"]) for row in rows}
    for data, most in (("digits", 0.5), ("mnist", 0.5), ("shards", 0.26)):
        assert bytes_of[data, "int8"] < most * bytes_of[data, "float32"]


@pytest.mark.parametrize("name", sorted(formats.TITLES))
def test_the_formats_are_compared_with_all_else_alike(name: str) -> None:
    values = tomllib.loads((formats.ROOT / "experiments" / "formats" / f"{name}.toml").read_text())
    specs = [cell.spec.decisive for cell in cells(parse_comparison(values))]
    assert len({spec.wire.model_dump_json() for spec in specs}) == 7
    assert len({spec.model_copy(update={"wire": specs[0].wire, "run": specs[0].run}).to_json() for spec in specs}) == 1
