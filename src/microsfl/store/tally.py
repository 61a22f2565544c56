"""What was done with a store: operations, seconds, tries and failures, by verb."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(slots=True)
class Done:
    """Of one verb. retries: tries after the first one of an operation. errors: operations that failed for good."""

    operations: int = 0
    seconds: float = 0.0
    retries: int = 0
    errors: int = 0


class Tally:
    """For any number of threads. Verbs are those of `ObjectStore`'s messages, with `_` for a blank."""

    def __init__(self) -> None:
        self._verbs: dict[str, Done] = {}
        self._lock = threading.Lock()

    def add(self, verb: str, seconds: float, tries: int, failed: bool) -> None:
        with self._lock:
            done = self._verbs.get(verb)
            if done is None:
                done = self._verbs[verb] = Done()
            done.operations += 1
            done.seconds += seconds
            done.retries += tries - 1
            done.errors += failed

    def by_verb(self) -> Mapping[str, Done]:
        with self._lock:
            return {verb.replace(" ", "_"): replace(done) for verb, done in self._verbs.items()}
