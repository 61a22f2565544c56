"""A run's specification in the store: created once, read by every replica."""

from __future__ import annotations

import json
from typing import Protocol

from ..errors import InputError, RunExists, RunNotFound, StoreCorrupt
from ..spec import RunSpec
from ..store.verbs import Create, Get
from . import keys


class SpecStore(Create, Get, Protocol):
    """What a specification needs of a store."""


def create_run(store: SpecStore, spec: RunSpec) -> None:
    """Keep what is decisive of `spec` under its run's name; keeping an equal one again changes nothing.

    Raises:
        RunExists: when the name has another specification.
    """
    key = keys.spec(spec.run.name)
    decisive = spec.decisive
    if not store.create(key, decisive.to_json().encode()) and load_run(store, spec.run.name) != decisive:
        raise RunExists(f"Run '{spec.run.name}' exists with another specification; choose another run.name.")


def load_run(store: SpecStore, run: str) -> RunSpec:
    """What is decisive of a run's specification.

    Raises:
        RunNotFound, StoreCorrupt.
    """
    key = keys.spec(run)
    try:
        return RunSpec.parse(json.loads(store.get(key)))
    except FileNotFoundError:
        raise RunNotFound(f"There is no run '{run}'.") from None
    except (ValueError, InputError) as error:
        raise StoreCorrupt(f"'{key}' is not a specification that this version reads: {error}") from None
