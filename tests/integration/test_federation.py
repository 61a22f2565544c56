"""A federation as its people make it: invited, enrolled, trained, with new keys and secrets while a run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from microsfl.launch.control import Control
from microsfl.launch.preflight import resolve
from microsfl.spec import RunSpec
from microsfl.trust.credential import Credential
from microsfl.trust.keys import Federation

WITHIN_S = 120.0


class Machine:
    """Commands in a folder of its own, with credentials of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MICROSFL_")}
        self.environment = {**kept, "MICROSFL_HOME": str(folder / "home")}

    def microsfl(self, *arguments: str, given: str = "") -> str:
        """What it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "microsfl", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, *arguments: str) -> Iterator[str]:
        """A role, from the moment that it is ready; where it is."""
        with (self.folder / f"{arguments[0]}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "microsfl", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert " ready " in line, (self.folder / f"{arguments[0]}.log").read_text()
            yield line.split()[-1]
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.slow
def test_sites_are_invited_and_train_while_keys_and_secrets_change(tmp_path: Path) -> None:
    control, server, clinic = (Machine(tmp_path / name) for name in ("control", "server", "clinic"))
    federation, operator = tmp_path / "federation", tmp_path / "operator.json"
    # The credential is for the port that the coordinator really got; 0 takes a free one.
    with ExitStack() as stack:
        control.microsfl("admin", "init", str(federation), "--coordinator", "http://x", "--credential", str(operator))
        started = control.running("coordinator", "--port", "0", "--federation", str(federation))
        url = stack.enter_context(started)
        found = Credential.read(operator)
        Credential(url, found.id, found.secret).write(operator)
        asks, at = ("--coordinator", url, "--credential", str(operator)), ("--coordinator", url)

        def joined(machine: Machine, name: str, role: str) -> str:
            token = control.microsfl("admin", "invite", name, "--role", role, *asks)
            machine.microsfl("enrol", *at, "--credential", f"{name}.json", given=token)
            return f"{name}.json"

        for name, area in (("split-server", "body"), ("fed-server", "client")):
            credential = joined(server, name, name)
            store = f"file://{tmp_path}/{area}"
            role = (name, "--port", "0", "--id", name, "--store-url", store, *at, "--credential", credential)
            stack.enter_context(server.running(*role))
        credential = joined(clinic, "clinic", "client")
        stack.enter_context(clinic.running("client", "--ids", "clinic", *at, "--credential", credential))

        watched = Control(url, "long", credential=str(operator))
        long = {"run": {"name": "long", "rounds": 100_000}, "data": {"clients": 1}}
        watched.create_or_find(resolve(RunSpec.parse(long)))
        reached(watched, 2)
        old = list(Federation.read(federation).keys)
        clinic.microsfl("rotate", *at, "--credential", credential)
        control.microsfl("admin", "rotate-keys", str(federation))
        assert list(Federation.read(federation).keys)[:-1] == old
        reached(watched, watched.run("long")["round"] + 5)
        # Every token there is ends at once, and the client comes again with its new secret.
        control.microsfl("admin", "rotate-keys", str(federation), "--at-once")
        assert not set(old) & Federation.read(federation).keys.keys()
        now = reached(watched, watched.run("long")["round"] + 20)
        assert now["state"] == "running"
        assert not any(row["absent"] for row in watched.rounds())

        control.microsfl("admin", "revoke", "clinic", *asks)
        there = json.loads(control.microsfl("admin", "identities", "--json", *asks))["identities"]
        assert {one["id"]: one["enrolled"] for one in there} == {
            "operator": True, "split-server": True, "fed-server": True, "clinic": False,
        }  # fmt: skip
        said = clinic.folder / "client.log"
        seen = watched.run("long")["revision"]
        while "was revoked" not in said.read_text():
            seen = watched.watch(seen, 1.0)["revision"]


def reached(control: Control, round_: int) -> dict[str, object]:
    """The run, once it is in that round."""
    now = control.watch(0, 0.0)
    while now["round"] < round_:
        assert now["state"] in ("waiting", "running"), now
        now = control.watch(now["revision"], 10.0)
    return now
