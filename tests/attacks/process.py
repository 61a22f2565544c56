"""A split server as a process, and a stand-in for the coordinator that tells it what tokens are checked with."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from microsfl.trust.keys import jwks
from microsfl.trust.scopes import Role
from microsfl.trust.tokens import Audience, Caller, Signer
from tests.service.control_plane import served

ROOT = Path(__file__).parents[2]
ALLOWED = ("tests.toys:plain", "tests.toys:repeated")


@dataclass
class Live:
    """A split server process. signer: makes the tokens that it takes; None: it takes everybody."""

    url: str
    pid: int
    signer: Signer | None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def token(self, name: str, role: Role = Role.CLIENT, runs: str = "*") -> str:
        assert self.signer is not None
        return self.signer.token(Caller(name, role, frozenset({name}), frozenset({runs})), Audience.BODY)

    def prepare(self, spec: dict[str, Any]) -> None:
        """Create the run, as the coordinator does."""
        headers = {} if self.signer is None else {"authorization": f"Bearer {self.token('c', Role.COORDINATOR)}"}
        answer = urllib3.request("POST", f"{self.url}/v1/runs", json={"spec": spec}, headers=headers)
        assert answer.status == 200, answer.data


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def split_server(store: Path, *flags: str, identities: bool = False) -> Iterator[Live]:
    """The process, ready for requests; with identities, those whose tokens `Live.token` makes."""
    with contextlib.ExitStack() as stack:
        signer, first = None, ["--allow-anybody"]
        if identities:
            signer = Signer("test", "key", Ed25519PrivateKey.generate())
            first = ["--coordinator", stack.enter_context(served(_coordinator(signer)))]
        models = [flag for name in ALLOWED for flag in ("--allow-models", name)]
        command = [sys.executable, "-m", "microsfl", "split-server", "--port", "0", "--store-url", f"file://{store}"]
        process = stack.enter_context(
            subprocess.Popen([*command, *first, *models, *flags], stdout=subprocess.PIPE, text=True, env=environment())
        )
        stack.callback(_end, process)
        assert process.stdout is not None
        ready = next((line for line in process.stdout if " ready at " in line), None)
        assert ready is not None
        live = Live(ready.split()[-1], process.pid, signer)
        if signer is not None:  # it has the keys once its first heartbeat was answered
            headers = {"authorization": f"Bearer {live.token('c', Role.COORDINATOR)}"}
            retries = urllib3.Retry(20, status_forcelist=[503], backoff_factor=0.1, respect_retry_after_header=False)
            known = urllib3.request("GET", f"{live.url}/v1/runs/x", headers=headers, retries=retries)
            assert known.status == 404
        yield live


def _coordinator(signer: Signer) -> Starlette:
    trust = {"federation": signer.federation, "keys": jwks({signer.kid: signer.key.public_key()}), "revoked": {}}

    async def register(_: Request) -> JSONResponse:
        return JSONResponse({"trust": trust})

    return Starlette(routes=[Route("/api/participants", register, methods=["POST"])])


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
