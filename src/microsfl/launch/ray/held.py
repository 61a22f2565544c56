"""The launcher's side of an actor that holds a process: started, listened to, and ended in any case."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError, RayTaskError

from ...config import ProcessSettings
from ...errors import MicrosflError, RunFailed
from ..kept import READY_S, Kept
from .holder import LOG_BYTES, Parcel, Said

NOBODY_SAW = 255  # exit code of a process that ended with its actor or its node
AGAIN_S = 0.2  # between two looks for an actor that Ray is starting again
PLACED_S = 30.0  # after which an actor without a place is told of

Report = Callable[[str], None]


class Held(Kept):
    """A process that an actor holds. Ray starts both again, as often as it was told to.

    Args:
        actor: handle of a `Holder`.
        parcel: what the process needs on the node with a given address.
        needs: what it was placed by, in words.
        report: told of what the user should know.
    """

    def __init__(
        self,
        role: str,
        name: str,
        settings: ProcessSettings,
        log: Path,
        actor: Any,
        parcel: Callable[[str], Parcel],
        needs: str,
        report: Report,
    ) -> None:
        super().__init__(role, name, settings, log)
        log.touch()
        self.actor = actor
        self.process = self._held = HeldProcess(actor)
        self.node: str | None = None
        self.actor_pid: int | None = None
        self._parcel, self._needs, self._report = parcel, needs, report
        self._heard_of_end = "ended with its actor"
        self._problem: MicrosflError | None = None
        threading.Thread(target=self._keep, name=f"{name}-held", daemon=True).start()

    @property
    def refused(self) -> bool:
        """Ray starts it again as long as it may: once it has ended, it stays so."""
        return self.state == "ended"

    def failure(self) -> RunFailed:
        if self.node is None:
            return RunFailed(f"{self.name} had no place after {READY_S:g} s: it wants {self._needs}. {free()}")
        return super().failure()

    def wait_ready(self) -> None:
        try:
            super().wait_ready()
        except MicrosflError as error:
            raise self._problem or (error if self.node else self.failure()) from None

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "node": self.node, "actor_pid": self.actor_pid}

    def _keep(self) -> None:
        """Until it has ended for good: start the process whenever there is a new actor, and follow it."""
        try:
            while not self._held.has_ended:
                try:
                    self._live()
                except ActorDiedError:
                    return
                except (ActorUnavailableError, RayActorError):
                    self.up_since = None  # Ray is starting it again
                    time.sleep(AGAIN_S)
        except (RayError, MicrosflError) as error:  # what `Holder.start` raises, or Ray is gone
            cause = error.cause if isinstance(error, RayTaskError) else error
            self._problem = cause if isinstance(cause, MicrosflError) else RunFailed(f"{self.name}: {error}")
        finally:
            self.up_since = None
            self._held.ended()
            if not self._ready.done():
                self._ready.set_result("")

    def _live(self) -> None:
        """Start the process where the actor is, and follow it until it has ended."""
        where = self.actor.node.remote()
        if not ray.wait([where], timeout=PLACED_S)[0]:
            self._report(f"{self.name} waits for a place: it wants {self._needs}. {free()}")
        self.node = ray.get(where)
        parcel = self._parcel(self.node)
        said: Said = ray.get(self.actor.start.remote(parcel))
        if said.exit_code is not None and said.pid == self._held.pid:
            time.sleep(AGAIN_S)  # the actor is about to end as well
            return
        self._held.pid, self.actor_pid = said.pid, said.actor_pid
        if said.up:
            self._begins(said)
        self._follow()

    def _begins(self, said: Said) -> None:
        if self._was_up:
            self.restarts += 1
            self._report(f"{self.name} {self._heard_of_end}; Ray started it again on {self.node}")
        self._heard_of_end = "ended with its actor"
        what = f"at {said.address}" if said.address else "up"
        self._is_up(what)
        if not self._ready.done():
            self._ready.set_result(what)

    def _follow(self) -> None:
        offset = 0
        while True:
            said: Said = ray.get(self.actor.follow.remote(offset))
            with self.log.open("ab") as log:
                log.write(said.log)
            offset += len(said.log)
            if said.exit_code is not None and len(said.log) < LOG_BYTES:
                break
        self.up_since, self._held.code = None, said.exit_code
        self._heard_of_end = f"ended with {self._words(said.exit_code)}"
        if said.is_final or self._held.is_to_end or not self._was_up:
            self._held.kill()

    @staticmethod
    def _words(code: int) -> str:
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class HeldProcess:
    """The process as a `Process`, as far as one can be from afar."""

    stdout = None

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.pid = 0  # none yet
        self.code: int | None = None
        self.is_to_end = False
        self._ended = threading.Event()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """The exit code once it has ended for good; None while it lives, or Ray starts it again."""
        if not self._ended.is_set():
            return None
        return NOBODY_SAW if self.code is None else self.code

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired when it lives on."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.poll() or 0

    def terminate(self) -> None:
        """Ask it to end; one that was not started yet will not be."""
        self.is_to_end = True
        if not self.pid:
            self.kill()
            return
        with suppress(RayError):
            self._actor.end.remote()

    def kill(self) -> None:
        """End process and actor; Ray does not start them again."""
        self.is_to_end = True
        with suppress(RayError, ValueError):
            ray.kill(self._actor, no_restart=True)
        self.ended()

    def ended(self) -> None:
        self._ended.set()


def free() -> str:
    """What the cluster has, in a sentence."""
    total, left = ray.cluster_resources(), ray.available_resources()
    named = [name for name in ("CPU", "GPU", *sorted(total)) if is_told(name) and total.get(name)]
    said = ", ".join(f"{left.get(name, 0.0):g} of {total[name]:g} {name}" for name in dict.fromkeys(named))
    return f"Free: {said or 'nothing'}."


def is_told(resource: str) -> bool:
    """Whether a resource of Ray's is one that people ask for."""
    return resource not in ("memory", "object_store_memory") and not resource.startswith("node:")
