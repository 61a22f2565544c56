"""A run folder as an object. torch, matplotlib and pandas are imported when they are needed."""

from __future__ import annotations

import csv
import json
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidSetting
from ..launch.preflight import check_matplotlib
from ..launch.profile_rows import read_rows
from ..launch.readable import rounded
from ..spec import RunSpec
from .trained import check_content, check_finished, read_parts, spec_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..core.cut import Chain, Parts

PLOTS = ("accuracy", "loss", "partition", "timeline")
TEXT = {"client"}  # columns of metrics.csv that are no numbers
WHOLE = {
    "round", "samples", "test_samples", "bytes_up", "bytes_down", "batches", "eval_bytes_up", "eval_bytes_down",
    "bytes_saved",
}  # fmt: skip

Json = dict[str, Any]


class Run:
    """A run that came to its end, as its folder has it.

        run = microsfl.load_run("runs/first")
        run.metrics.groupby("round").test_accuracy.mean()
        run.model()(x).argmax(1)
        run.plot("loss")

    Args:
        path: the run folder.

    Raises:
        InvalidSetting: when it is no run folder, or its run is not finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._spec = spec_of(path)
        check_finished(path)

    @property
    def name(self) -> str:
        return self._spec.run.name

    @property
    def spec(self) -> RunSpec:
        """The specification, every `auto` that decides a result resolved."""
        return self._spec

    @cached_property
    def summary(self) -> Json:
        """summary.json."""
        return dict(json.loads((self.path / "summary.json").read_text("utf-8")))

    @property
    def accuracy(self) -> float | None:
        """After the last round, 0 to 1, weighted by test samples."""
        found: float | None = self.summary["accuracy"]
        return found

    @property
    def rounds(self) -> Any:
        """The history: a row for each round. A pandas DataFrame when pandas is installed, else a list of dicts."""
        return _framed(self.summary["history"])

    @property
    def metrics(self) -> Any:
        """metrics.csv: a row for each round and client.

        A pandas DataFrame when pandas is installed, else a list of dicts, in which None is a value that there is not.
        """
        return _framed(self._metrics)

    @property
    def profile(self) -> Any:
        """profile.csv: where the time of clients and servers went. As `metrics`, a DataFrame or a list of dicts."""
        return _framed([vars(row) for row in read_rows(self.path)])

    def parts(self) -> Parts:
        """Front, body and tail with their trained weights, in eval mode; new modules each time.

        Raises:
            InvalidSetting: when the strategy leaves no model behind.
            StoreCorrupt: when a file is missing, or is not the one that the run wrote.
        """
        check_content(self.path, self.summary["weights_sha256"])
        parts = read_parts(self._spec, self.path)
        for part in (parts.front, parts.body, parts.tail):
            part.eval()
        return parts

    def model(self) -> Chain:
        """The whole trained model, an `nn.Module` in eval mode: [n, *input_shape] float32 to logits [n, classes].

        Raises:
            InvalidSetting: when the strategy leaves no model behind.
            StoreCorrupt: when a file is missing, or is not the one that the run wrote.
        """
        return self.parts().joined().eval()

    def plot(self, what: str = "accuracy") -> Figure:
        """A matplotlib figure. what: accuracy, loss, partition (train samples by class) or timeline.

        Raises:
            InvalidSetting: when there is no such plot.
            OperationError: when matplotlib is not installed.
        """
        if what not in PLOTS:
            raise InvalidSetting(f"There is no plot {what!r:.60}; there are {', '.join(PLOTS)}.")
        check_matplotlib("`Run.plot` draws")
        from ..launch import plots

        history = self.summary["history"]
        if what == "accuracy":
            return plots.accuracy(history, self._metrics)
        if what == "loss":
            return plots.loss(history)
        if what == "timeline":
            return plots.timeline(_with_ends(history, self._metrics), self._metrics)
        from ..launch.rehearsal import rehearse

        return plots.partition(rehearse(self._spec).class_counts)

    @cached_property
    def _metrics(self) -> list[Json]:
        return _read(self.path / "metrics.csv")

    def __repr__(self) -> str:
        return (
            f"<Run '{self.name}': accuracy {rounded(self.accuracy)} after {self.summary['rounds']} rounds, {self.path}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        summary = self.summary
        rows = {
            "run": self.name,
            "strategy": f"{summary['strategy']} on {summary['dataset']}, {summary['clients']} clients",
            "accuracy": f"{rounded(summary['accuracy'])} after {summary['rounds']} rounds",
            "loss": rounded(summary["loss"]),
            "folder": str(self.path),
        }
        cells = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
        return f"<table>{''.join(cells)}</table>"


def load_run(path: str | Path) -> Run:
    """The finished run of a run folder.

    Raises:
        InvalidSetting: when it is no run folder, or its run is not finished.
    """
    return Run(Path(path))


def _framed(rows: list[Json]) -> Any:
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def _read(file: Path) -> list[Json]:
    try:
        with file.open(encoding="utf-8", newline="") as table:
            return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(table)]
    except OSError as error:
        raise InvalidSetting(f"{file} cannot be read: {error.strerror}.") from None


def _value(name: str, text: str) -> Any:
    if name in TEXT:
        return text
    if text == "":
        return None
    return int(text) if name in WHOLE else float(text)


def _with_ends(history: list[Json], metrics: list[Json]) -> list[Json]:
    """The rounds with the time when the last evaluation of each was over."""
    ends: dict[int, float] = {}
    for row in metrics:
        if row["eval_started_at"] is not None:
            end = row["eval_started_at"] + row["eval_seconds"]
            ends[row["round"]] = max(end, ends.get(row["round"], end))
    return [{**row, "ended_at": ends[row["round"]]} for row in history if row["round"] in ends]
