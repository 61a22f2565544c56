"""A run in TensorBoard's event files, through TensorBoard's own writer: without torch and without TensorFlow."""

from __future__ import annotations

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ..spec import RunSpec
from .rows import Figures, flat
from .tracker import State

FOLDER = "tensorboard"


class TensorBoard:
    """tensorboard/ in the run folder.

    A resumed run is written from its first round on, in a file of its own, which takes the place of those before.
    """

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.spec, self.path = spec, folder / FOLDER
        self.writer: EventFileWriter | None = None
        self.first: int | None = None

    def begin(self) -> None:
        self.writer = EventFileWriter(str(self.path))
        rows = "".join(f"| {name} | {_cell(value)} |\n" for name, value in flat(self.spec).items())
        self._add(Summary(value=[_text("specification", f"| setting | value |\n| --- | --- |\n{rows}")]), 0)
        self._flush()

    def log(self, step: int, figures: Figures, clients: Figures) -> None:
        if self.first is None and figures:
            self.first = step
            self._write(Event(session_log=SessionLog(status=SessionLog.START), step=step, wall_time=time.time()))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in {**figures, **clients}.items()]
        self._add(Summary(value=values), step)
        self._flush()

    def end(self, state: State) -> None:
        self._add(Summary(value=[_text("state", state)]), self.spec.run.rounds)
        if self.writer is not None:
            self.writer.close()

    def _add(self, summary: Summary, step: int) -> None:
        self._write(Event(summary=summary, step=step, wall_time=time.time()))

    def _write(self, event: Event) -> None:
        assert self.writer is not None
        self.writer.add_event(event)

    def _flush(self) -> None:
        assert self.writer is not None
        self.writer.flush()


def _text(tag: str, text: str) -> Summary.Value:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=metadata, tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
