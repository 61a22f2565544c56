"""`microsfl up` as a process: a run over HTTP from settings to results, a restart, the next on the folder, the end."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launched import DEADLINE_S, is_alive, pids, processes, until
from tests.service.control_plane import Api
from tests.service.test_streams import Stream


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "microsfl", "up", "--folder", str(folder), "--port", "0", *arguments]


@contextmanager
def up(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Api]]:
    """Started as a script does in the background, with SIGINT ignored, and ready."""
    with (folder.parent / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command(folder, *arguments),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("microsfl up ready at http://127.0.0.1:"), (folder.parent / "said.txt").read_text()
        yield process, Api(line.split()[-1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def finished(event: str, data: Any) -> bool:
    return event == "run" and data["state"] == "finished"


def create(api: Api, **run: Any) -> str:
    """A run of small pieces, from the settings that somebody fills in."""
    resolved = api.post("/resolve", {"run": run, "data": {"clients": 2}})["spec"]
    name: str = api.post("/runs", resolved)["name"]
    return name


@pytest.mark.slow
def test_a_run_over_http_a_kill_and_the_next_one_on_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with up(folder, "--clients", "2") as (process, api):
        known = processes(folder)
        assert {one["role"]: one["state"] for one in known} == dict.fromkeys(
            ("coordinator", "split-server", "fed-server", "client"), "up"
        )
        assert api.pool.request("GET", api.url + "/").status == 200
        assert create(api, name="first", rounds=4) == "first"
        with closing(Stream(api, "/runs/first/events")) as stream:
            assert next(stream.events())[1]["state"] == "created"
            api.post("/runs/first/start")
            server = next(one for one in known if one["role"] == "split-server")
            os.kill(server["pid"], signal.SIGKILL)
            stream.until(finished)
            if (3, None) not in stream.rows("rounds"):  # what a change brought comes after the run itself
                stream.until(lambda event, data: event == "rounds" and data["rounds"][-1]["round"] == 3)
            assert len(stream.rows("rounds")) == 4
        until(lambda: "split-server" in {one["role"] for one in processes(folder) if one["restarts"]}, "a restart")
        parcel = zipfile.ZipFile(io.BytesIO(api.pool.request("GET", api.url + "/api/runs/first/results.zip").data))
        summary = json.loads(parcel.read("first/summary.json"))
        assert (summary["rounds"], summary["commits"], summary["clients"]) == (4, 4, 2)
        assert [one["version"] for one in api.get("/runs/first/commits")["commits"]] == [1, 2, 3, 4]
        assert api.get("/runs/first/partition")["classes"] == 10

        create(api, name="second", rounds=15)
        api.post("/runs/second/start")
        api.wait_for(lambda run: run["round"] > 0, "second")
        living = pids(folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
        assert not any(is_alive(pid) for pid in living)
        said = (tmp_path / "said.txt").read_text()
        assert f"{server['name']} ended with signal 9; started again (1 time)" in said

    with up(folder, "--clients", "2") as (process, api):
        assert [run["name"] for run in api.get("/overview")["runs"]] == ["first", "second"]
        with closing(Stream(api, "/runs/second/events?from_round=14")) as stream:
            stream.until(finished)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
        assert {one["state"] for one in processes(folder)} == {"ended"}


def test_what_cannot_be_had_is_refused_in_a_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*command(tmp_path / "data"), "--port", str(port)],
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"microsfl: error: coordinator: Cannot listen on 127.0.0.1:{port} (Address already in use). Choose another "
        "with --port, or --port 0 for a free one.\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_a_folder_is_had_once(tmp_path: Path) -> None:
    from microsfl.errors import InvalidSetting, StoreNotWritable
    from microsfl.launch.standing import StandingFolder

    first = StandingFolder(tmp_path / "data")
    with pytest.raises(InvalidSetting, match="is in use by another `microsfl up`"):
        StandingFolder(tmp_path / "data")
    first.release()
    StandingFolder(tmp_path / "data").release()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreNotWritable, match="cannot be made or written"):
        StandingFolder(tmp_path / "file")
