"""What one unit, one client's round and one sync take here: measured once, and kept in a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ..errors import InvalidSetting, StoreNotWritable

FORMAT = "microsfl calibration 1"


@dataclass(frozen=True)
class Unit:
    """Seconds of one unit. samples: in it.

    client_compute: data, front, tail, auxiliary head and their optimizers. client: all that the client's process works
    on it. server_compute: forward and backward of the body. server: all that the split server's process works on it.
    store: of that, waiting for the store. wait: between asking and being answered, in which nobody works: threads and
    sockets that wake up; below 0 where one process still works when the other goes on. client_cpu, server_cpu: seconds
    of a core that the two processes need, which is less where a device or a store is waited for.
    """

    samples: int
    client_compute: float
    client: float
    client_cpu: float
    server_compute: float
    server: float
    server_cpu: float
    store: float
    wait: float


@dataclass(frozen=True)
class Round:
    """Seconds that come once a round.

    client: a client's process for each of its clients: its task, the weights it fetches and hands in. evaluation:
    computing on `evaluated` samples, the split server's part included. coordinator: the coordinator for each client;
    coordinator_fixed: whatever their number. fed_server: the fed server for each client. turnaround: from the round's
    begin to the first unit and from the last to the report, of one client alone. sync: of a sync, what is none of the
    following. reduce, reduce_each: closing a round of the body, and for each contribution in it. aggregate,
    aggregate_each: the same of client-side weights.
    """

    client: float
    evaluation: float
    evaluated: int
    coordinator: float
    coordinator_fixed: float
    fed_server: float
    turnaround: float
    sync: float
    reduce: float
    reduce_each: float
    aggregate: float
    aggregate_each: float


@dataclass(frozen=True)
class Calibration:
    """unit, round: as above. heartbeat: seconds of the coordinator for one sign of life. resident: bytes of
    memory of a split server that has little to do. about: the model and how it was
    trained. machine, source: on what and by what it was measured."""

    unit: Unit
    round: Round
    heartbeat: float
    resident: float
    about: dict[str, Any]
    machine: str
    source: str
    notes: list[str] = field(default_factory=list)

    def check_for(self, about: dict[str, Any]) -> None:
        """Raises InvalidSetting when it is of another model, or of another way to train it."""
        for name, value in about.items():
            if self.about.get(name) != value:
                raise InvalidSetting(
                    f"The calibration is of {name} = {self.about.get(name)!r}; this run has {value!r}. Leave it out to "
                    "measure again, or write a new one with --calibrate FILE."
                )

    def write(self, path: Path) -> None:
        """Raises StoreNotWritable."""
        try:
            path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise StoreNotWritable(f"{path} cannot be written: {error.strerror}.") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InvalidSetting when the file is not one that `write` wrote."""
        try:
            values = json.loads(path.read_text("utf-8"))
            if values.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not '{FORMAT}'")
            return cls(**{**values, "unit": _numbers(Unit, values["unit"]), "round": _numbers(Round, values["round"])})
        except OSError as error:
            raise InvalidSetting(f"{path} cannot be read: {error.strerror}.") from None
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InvalidSetting(
                f"{path} is no calibration: {error}. `microsfl plan --calibrate` writes one."
            ) from None


def _numbers(kind: type[Any], values: dict[str, Any]) -> Any:
    """A table of numbers, none below 0 but one."""
    for one in fields(kind):
        value, least = values[one.name], -1e9 if one.name == "wait" else 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
            raise ValueError(f"{one.name} = {value!r} is no number of seconds")
    return kind(**values)
