"""Which run is meant: the name of one at a coordinator, or a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import (
    InvalidSetting,
    MicrosflError,
    OperationError,
    RunNotFound,
    Unauthenticated,
    Unreachable,
    UnsafeConnection,
    did_you_mean,
)
from ..launch.control import Control, Json
from .folder import SeenFolder, run_folders

COORDINATOR = "http://localhost:8000"
UP_FOLDER = Path("microsfl-data")  # of `microsfl up`
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Asked:
    """Where to look. coordinator: None for the usual address, where there may be none. credential: file of the one to
    show there; None for the one that is kept for it."""

    coordinator: str | None = None
    folder: Path = Path("runs")
    credential: str | None = None

    @property
    def url(self) -> str:
        return (self.coordinator or COORDINATOR).rstrip("/")

    def control(self, name: str, patience_s: float = PATIENCE_S) -> Control:
        """The coordinator, which is asked once: whoever waits at a terminal can ask again.

        Raises:
            InvalidSetting: when this is no URL of one.
        """
        if not self.url.startswith(("http://", "https://")):
            raise InvalidSetting(f"'{self.url}' is not a coordinator's URL; write it like http://host:8000.")
        return Control(self.url, name, 0.0, patience_s, self.credential)

    def runs(self, patience_s: float = PATIENCE_S) -> list[Json] | None:
        """The runs of the coordinator; None when none of this user's is at the usual address.

        patience_s: how long its answer is waited for.

        Raises:
            Unreachable, UnsafeConnection: when the one that was named does not answer, or not safely.
            Unauthenticated: when it is named, and there is no credential for it that is right.
        """
        try:
            return self.control("", patience_s=patience_s).runs()
        except (OperationError, Unauthenticated, UnsafeConnection) as error:
            if self.coordinator is None:  # or it is somebody else's
                return None
            if isinstance(error, OperationError):
                raise Unreachable(silent(self.url, error)) from None
            raise


def silent(url: str, error: MicrosflError) -> str:
    """That no coordinator answers, in a sentence that says what to do."""
    reason = str(error).rpartition("last: ")[2].rstrip(".")
    return (
        f"No coordinator answers at {url} ({reason}). Start one (`microsfl up`), or name another with --coordinator or "
        "MICROSFL_COORDINATOR."
    )


def find_run(run: str, asked: Asked) -> SeenFolder | Control:
    """The run called so: a run folder by its path, or by its name in the folder of run folders; else a name at the
    coordinator; else the newest run folder with a run of this name.

    Raises:
        RunNotFound: naming those that there are.
        InvalidSetting: when it is a folder, but not that of a run.
        Unreachable: when the coordinator that was named does not answer.
    """
    for path in (Path(run), asked.folder / run):
        if path.is_dir():
            return _run_folder(path)
    there = asked.runs()
    if any(one["name"] == run for one in there or []):
        return asked.control(run)
    named = dict(_named(asked.folder))
    if run in named:
        return named[run]
    names = {*named, *(one["name"] for one in there or [])}
    where = f"at {asked.url}" if there is not None else f"at a coordinator: none answers at {asked.url}"
    raise RunNotFound(f"There is no run '{run}' in {asked.folder}/, and none {where}.{did_you_mean(run, names)}")


def _named(below: Path) -> Iterator[tuple[str, SeenFolder]]:
    """(name of the run, folder), the newest of a name last."""
    for folder in reversed(run_folders(below)):
        with suppress(MicrosflError):  # one that cannot be read is no reason to hide the others
            yield folder.name(), folder


def _run_folder(path: Path) -> SeenFolder:
    folder = SeenFolder(path)
    if folder.is_of_a_run or folder.is_starting:
        return folder
    if folder.is_standing:
        raise InvalidSetting(
            f"{path} is the folder of `microsfl up`, which may have many runs: `microsfl runs` lists them, "
            "`microsfl status NAME` shows one."
        )
    raise InvalidSetting(f"{path} is not a run folder: it has no run.toml.")
