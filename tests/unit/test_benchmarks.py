"""What the benchmarks are made of; nothing is timed here."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks.figures import Figure, write_latest

SLOW = Figure("slow", (0.3, 0.1, 0.2, 0.4), 0.25, at_least=True)
LARGE = Figure("large", (1.0, 3.0, 2.0), 1.5, at_least=False, note="[about]")


@pytest.fixture
def latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command writes its figures."""
    file = tmp_path / "latest.json"
    monkeypatch.setattr(command, "write_latest", lambda figures: write_latest(figures, file))
    return file


def use(monkeypatch: pytest.MonkeyPatch, **modules: object) -> None:
    """Let the registry have these benchmarks alone."""
    monkeypatch.setattr(command, "REGISTRY", tuple(modules))
    monkeypatch.setattr(command, "import_module", lambda name: modules[name.removeprefix("benchmarks.")])


def measuring(*figures: Figure, error: Exception | None = None) -> SimpleNamespace:
    def measure(quick: bool) -> Iterator[Figure]:  # noqa: ARG001
        yield from figures
        if error is not None:
            raise error

    return SimpleNamespace(measure=measure)


def test_a_figure_is_the_median_of_its_repetitions() -> None:
    assert (SLOW.min, SLOW.median, SLOW.max) == (0.1, 0.25, 0.4)
    assert (LARGE.min, LARGE.median, LARGE.max) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("at_least", "target", "ok"),
    [(True, 0.2, True), (True, 0.25, True), (True, 0.26, False), (False, 0.24, False), (False, 0.25, True)],
)
def test_the_median_decides_about_the_target(at_least: bool, target: float, ok: bool) -> None:
    assert Figure("it", SLOW.values, target, at_least).ok is ok


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Figure("it", (), 1.0, at_least=True)


def test_latest_is_a_list_of_figures(tmp_path: Path) -> None:
    write_latest([SLOW, LARGE], tmp_path / "latest.json")
    assert json.loads((tmp_path / "latest.json").read_text()) == [
        {"name": "slow", "median": 0.25, "min": 0.1, "max": 0.4, "target": 0.25, "ok": True},
        {"name": "large", "median": 2.0, "min": 1.0, "max": 3.0, "target": 1.5, "ok": False},
    ]


@pytest.mark.parametrize("name", command.REGISTRY)
def test_every_benchmark_measures_and_says_what(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    assert list(inspect.signature(module.measure).parameters) == ["quick"]
    assert module.__doc__
    assert len(module.__doc__.splitlines()) > 3


def test_the_list_is_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(command.REGISTRY)


def test_an_unknown_name_is_refused(latest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "wire", "guesses"]) != 0
    assert "guesses" in capsys.readouterr().err
    assert not latest.exists()


def test_a_missed_target_is_told_and_no_failure(
    latest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, one=measuring(SLOW, LARGE))
    assert command.main([]) == 0
    said = capsys.readouterr()
    assert "1 of 2 targets are met; missed: large." in said.out
    assert "[about]" in said.err
    assert [row["name"] for row in json.loads(latest.read_text())] == ["slow", "large"]


def test_a_failure_is_told_and_the_others_go_on(
    latest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, broken=measuring(SLOW, error=RuntimeError("out of [luck]")), whole=measuring(LARGE))
    assert command.main([]) != 0
    said = capsys.readouterr()
    assert "failed: broken." in said.out
    assert "broken failed: RuntimeError: out of [luck]" in said.err
    assert [row["name"] for row in json.loads(latest.read_text())] == ["slow", "large"]


def test_only_the_named_ones_are_measured(latest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one=measuring(SLOW), other=measuring(LARGE))
    assert command.main(["--only", "other"]) == 0
    assert [row["name"] for row in json.loads(latest.read_text())] == ["large"]


def test_a_busy_machine_is_told() -> None:
    assert command.busy(0.1, 2) == ""
    assert "3.0 processes were at work on its 2 cores" in command.busy(3.0, 2)
