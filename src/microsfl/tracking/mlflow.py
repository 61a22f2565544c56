"""A run in MLflow: on the server that MLFLOW_TRACKING_URI names, or in a database in the run folder."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .. import __version__
from ..spec import RunSpec
from .rows import Figures, flat, without_secrets
from .tracker import State

FOLDER = "mlflow"
NOTE = "mlflow.json"  # in the run folder: which run of MLflow's it is, for when it is resumed
EXPERIMENT = "microsfl"
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
TEXTS = ("run.toml", "summary.json", "metrics.csv")
FOLDERS = ("plots", "model")
METRICS_AT_ONCE, PARAMS_AT_ONCE, PARAM_LENGTH = 1000, 100, 6000  # MLflow's limits

# MLflow would try for minutes while the run waits, and would report on itself to its makers. Whoever sets these in the
# environment has his way.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
TALKATIVE = ("mlflow", "urllib3.connectionpool")


@contextmanager
def quick_and_quiet() -> Iterator[None]:
    """MLflow with our defaults, and without its log on standard error."""
    missing = {name: value for name, value in DEFAULTS.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    os.environ.update(missing)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


with quick_and_quiet():
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient


class Mlflow:
    """A run of MLflow's. A run that is resumed goes on in the same one, where the run folder says which that is."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.is_local = not os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / FOLDER / 'mlflow.db').as_posix()}"
        self.run_id = ""
        self._client: MlflowClient | None = None
        self._logged: set[int] = set()
        self._times: dict[int, int] = {}  # so that a round that is logged again is the same to MLflow

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            if self.is_local:
                (self.folder / FOLDER).mkdir(exist_ok=True)
            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def begin(self) -> None:
        with quick_and_quiet():
            if not self.run_id and self._found():
                return
            if not self.run_id:
                self.run_id = self.client.create_run(
                    self._experiment(), run_name=self.spec.run.name, tags={"microsfl.version": __version__}
                ).info.run_id
                note = {"tracking_uri": without_secrets(self.uri), "run_id": self.run_id}
                (self.folder / NOTE).write_text(json.dumps(note) + "\n", "utf-8")
            params = [Param(name, value[:PARAM_LENGTH]) for name, value in flat(self.spec).items()]
            for start in range(0, len(params), PARAMS_AT_ONCE):
                self.client.log_batch(self.run_id, params=params[start : start + PARAMS_AT_ONCE])

    def log(self, step: int, figures: Figures, clients: Figures) -> None:
        if step in self._logged:
            return
        # The round's own come last: where they are, everything is.
        metrics = [*self._metrics(step, clients), *self._metrics(step, figures)]
        with quick_and_quiet():
            for start in range(0, len(metrics), METRICS_AT_ONCE):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + METRICS_AT_ONCE])

    def end(self, state: State) -> None:
        with quick_and_quiet():
            try:
                self._upload()
            finally:
                self.client.set_terminated(self.run_id, STATUS[state])

    def _metrics(self, step: int, figures: Mapping[str, float]) -> list[Metric]:
        at = self._times.setdefault(step, int(time.time() * 1000))
        return [Metric(name, value, at, step) for name, value in figures.items()]

    def _found(self) -> bool:
        """Whether there is a run of before to go on with."""
        note = self.folder / NOTE
        if not note.exists():
            return False
        before = json.loads(note.read_text("utf-8"))
        if before["tracking_uri"] != without_secrets(self.uri):
            return False
        run_id = before["run_id"]
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        self._logged = {one.step for one in self.client.get_metric_history(run_id, "samples")}
        self.run_id = run_id
        return True

    def _experiment(self) -> str:
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        at = (self.folder / FOLDER / "artifacts").as_uri() if self.is_local else None
        return str(self.client.create_experiment(name, artifact_location=at))

    def _upload(self) -> None:
        for name in TEXTS:
            if (self.folder / name).exists():
                text = (self.folder / name).read_text("utf-8")
                self.client.log_text(self.run_id, without_secrets(text), name)
        for name in FOLDERS:
            if (self.folder / name).exists():
                self.client.log_artifacts(self.run_id, str(self.folder / name), name)
