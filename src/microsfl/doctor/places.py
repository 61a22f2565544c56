"""Checks of what a process reaches by URL: stores, the database, a coordinator and its clock."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import __version__
from ..client.connections import Answer, Connections
from ..errors import MicrosflError
from ..records.database import masked
from ..records.glance import glance
from ..records.schema import HEAD
from ..store.objects import open_store
from ..store.options import shown
from .finding import Finding

PROBE_S = 10.0
CONNECT_S, READ_S = 3.0, 5.0
# The Date header counts whole seconds, and an answer takes its time.
CLOCK_OK_S, CLOCK_WRONG_S = 3.0, 60.0


def here(folder: Path) -> Iterator[Finding]:
    """Can a store be in this folder, where `microsfl run` makes its run folders?"""
    try:
        with tempfile.TemporaryDirectory(prefix=".microsfl-doctor-", dir=folder) as place:
            open_store(Path(place).resolve().as_uri()).probe(PROBE_S)
    except (OSError, MicrosflError) as error:
        advice = (
            "Change to a folder that you may write in, on a disk with hard links or O_EXCL (not every network disk)."
        )
        yield Finding("folder", "problem", f"{folder} cannot hold a store: {error}", advice)
    else:
        yield Finding("folder", "ok", f"{folder} is writable, and keeps create-if-absent")


def store(url: str) -> Iterator[Finding]:
    """Every verb on one small value, which is removed again; a second create of it has to be refused."""
    name = f"store {shown(url)}"
    try:
        if urlsplit(url).scheme == "memory":
            yield Finding(name, "warning", "lives and dies with its process", "Use file:// or s3:// for several roles.")
            return
        with _no_new_folder(url):
            open_store(url).probe(PROBE_S)
    except MicrosflError as error:
        advice = "Check the URL, that the place exists and may be written, and for s3:// the AWS_… variables."
        yield Finding(name, "problem", str(error), advice)
    else:
        yield Finding(name, "ok", "reads, writes, lists, deletes, and keeps create-if-absent")


@contextmanager
def _no_new_folder(url: str) -> Iterator[None]:
    """Take the folders away again that opening a store in them has made."""
    parts = urlsplit(url)
    folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
    new = [one for one in (folder, *folder.parents) if not one.exists()] if folder else []
    try:
        yield
    finally:
        with suppress(OSError):  # somebody else has put something there meanwhile
            for one in new:
                one.rmdir()


def records(url: str) -> Iterator[Finding]:
    """The database and its version; nothing is made or migrated."""
    name = f"records {masked(url)}"
    try:
        found = glance(url)
    except MicrosflError as error:
        yield Finding(name, "problem", str(error), "Check the URL, and that the database is up.")
        return
    if found is None or found.version is None:
        what = "not there yet" if found is None else "reachable, without tables yet"
        yield Finding(name, "ok", f"{what}; the coordinator makes what it needs")
    elif found.is_newest:
        yield Finding(name, "ok", f"reachable, schema version {found.version}")
    elif found.is_known:
        what = f"reachable, schema version {found.version}"
        yield Finding(name, "ok", f"{what}; the coordinator brings it to {HEAD} when it starts")
    else:
        what = f"schema version {found.version}, and this microsfl knows versions up to {HEAD}"
        yield Finding(name, "problem", what, "Use a newer microsfl, or another database.")


def coordinator(url: str, *, named: bool) -> Iterator[Finding]:
    """Is it there, of this version, and does its clock agree? Where nobody named one, none need be there."""
    name = f"coordinator {url}"
    try:
        answer = Connections().request("GET", f"{url}/api/health", None, {}, connect_s=CONNECT_S, read_s=READ_S)
    except (OSError, http.client.HTTPException, MicrosflError) as error:
        if named:
            advice = "Start it (`microsfl coordinator`, `microsfl up`), correct the URL, or open the way to it."
            yield Finding(name, "problem", f"does not answer: {error or type(error).__name__}", advice)
        else:
            yield Finding(name, "ok", "none there, and none was named with --coordinator")
        return
    health = _health(answer)
    if health.get("role") != "coordinator":
        what = "something else than a coordinator of microsfl answers"
        yield Finding(name, "problem" if named else "warning", what, "Correct the URL, or use another port.")
        return
    version = health.get("version")
    if version != __version__:
        what = f"has version {version}, and this is {__version__}"
        yield Finding(name, "warning", what, "Install the same version on every machine.")
    else:
        yield Finding(name, "ok", f"answers, version {version}")
    yield from clock(answer.headers.get("date"), time.time())


def clock(date: str | None, now: float) -> Iterator[Finding]:
    """Ours against the coordinator's, by the Date header of its answer."""
    theirs = None
    with suppress(TypeError, ValueError):
        theirs = parsedate_to_datetime(str(date)).timestamp()
    if theirs is None:
        yield Finding("clock", "warning", "the coordinator does not tell its time", "Compare the clocks by hand.")
        return
    apart = now - theirs - 0.5  # the header is half a second behind on average
    found = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the coordinator's"
    advice = "Set both clocks, for example with NTP: times in timelines and logs will not fit together."
    if abs(apart) <= CLOCK_OK_S:
        yield Finding("clock", "ok", "agrees with the coordinator's")
    else:
        yield Finding("clock", "problem" if abs(apart) > CLOCK_WRONG_S else "warning", found, advice)


def _health(answer: Answer) -> dict[str, object]:
    with suppress(ValueError):
        found = json.loads(answer.data)
        if isinstance(found, dict):
            return found
    return {}
