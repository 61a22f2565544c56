"""A run's specification in the store: created once, read by every replica."""

from __future__ import annotations

import json
from typing import Protocol

from ..errors import InvalidSetting, RunExists, RunNotFound, StoreCorrupt, UnknownSetting, UnsupportedFormat
from ..spec import RunSpec
from ..store.verbs import Create, Get, List
from . import keys

# Raised when a file of a run changes its meaning; docs/concepts/architecture.md describes format 1.
FORMAT = 1


def runs_in(store: List) -> list[str]:
    """Names of the runs that the store holds, sorted."""
    return sorted(name for path in store.list("runs") if (name := keys.run_of(path)) is not None)


class SpecStore(Create, Get, Protocol):
    """What a specification needs of a store."""


def create_run(store: SpecStore, spec: RunSpec) -> None:
    """Keep what is decisive of `spec` under its run's name; keeping an equal one again changes nothing.

    Raises:
        RunExists: when the name has another specification.
        UnsupportedFormat, StoreCorrupt: when what stands under the name cannot be read.
    """
    decisive = spec.decisive
    content = json.dumps({"format": FORMAT, "spec": json.loads(decisive.to_json())}, sort_keys=True)
    if not store.create(keys.spec(spec.run.name), content.encode()) and load_run(store, spec.run.name) != decisive:
        raise RunExists(f"Run '{spec.run.name}' exists with another specification; choose another run.name.")


def load_run(store: Get, run: str) -> RunSpec:
    """What is decisive of a run's specification.

    Raises:
        RunNotFound: when there is no such run.
        UnsupportedFormat: when a newer or older version wrote it.
        StoreCorrupt: when it cannot be read.
    """
    key = keys.spec(run)
    try:
        content = json.loads(store.get(key))
        if content["format"] != FORMAT:
            raise UnsupportedFormat(
                f"Run '{run}' is stored in format {content['format']!r:.20} and this version of microsfl reads format "
                f"{FORMAT}: use the version that wrote it."
            )
        return RunSpec.parse(content["spec"])
    except FileNotFoundError:
        raise RunNotFound(f"There is no run '{run}'.") from None
    except (ValueError, TypeError, KeyError, UnknownSetting, InvalidSetting) as error:
        raise StoreCorrupt(f"'{key}' is not a specification that this version reads: {error}") from None
