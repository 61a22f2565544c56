"""`microsfl profile`: what is told of a run's time, what is written of it, and what is printed and drawn."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from microsfl.cli import main
from microsfl.errors import InvalidSetting
from microsfl.launch.profile_rows import COLUMNS, FILE, Row, read_rows, tidy
from microsfl.launch.run_folder import RunFolder
from microsfl.profile.picture import draw
from microsfl.profile.report import ROWS, tables
from microsfl.profile.summary import CLIENT_PHASES, ROUND_PHASES, SERVER_PHASES, WAITS, Profile, summarize
from microsfl.simulate.training import train
from microsfl.spec import RunSpec
from microsfl.wire.timing import read_timing

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guides" / "profiling.md").read_text()
WIRE = (DOCS / "reference" / "wire.md").read_text()

Json = dict[str, Any]

TOLD: list[Json] = [
    {
        "round": 0, "task": "train", "participant": "a", "role": "client",
        "spent": {
            "front": 1.0, "waiting": 10.0, "split/requests": 4, "split/encode": 0.5, "split/wire": 3.0,
            "split/server": 16.0, "split/decode": 0.5, "split/s0/requests": 4, "split/s0/queue": 8.0,
            "split/s0/compute": 8.0, "split/s0/hits": 1, "split/s0/misses": 1, "fed/wire": 7.0, "fed/f/store": 2.0,
        },
    },
    {
        "round": 0, "task": "train", "participant": "b", "role": "client",
        "spent": {"front": 4.0, "split/s0/requests": 1, "split/s0/queue": 0.0},
    },
    {"round": 0, "task": "evaluate", "participant": "a", "role": "client", "spent": {"model": 0.25}},
    {
        "round": 0, "task": "sync", "participant": "coordinator", "role": "coordinator",
        "spent": {"split/s0/requests": 1, "split/s0/compute": 1.0},
    },
    {
        "round": 0, "task": "round", "participant": "coordinator", "role": "coordinator",
        "spent": {"training": 12.0, "sync": 2.0, "evaluation": 2.0},
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = RunSpec.parse({"run": {"rounds": 2}, "data": {"clients": 3, "batch_size": 16}})
    return train(spec, tmp_path_factory.mktemp("profile") / "run")[2]


def microsfl(*arguments: str) -> int:
    """Exit code of the command, run in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def folder_of(path: Path, told: list[Json]) -> Path:
    RunFolder(path).write_profile(told)
    return path


def told_by(count: int) -> Profile:
    """A profile of as many clients and servers."""
    spent = {"front": 1.0, "strange": 2.0, **{f"split/s{number}/compute": 1.0 for number in range(count)}}
    about = {"round": 0, "task": "train", "role": "client", "spent": spent}
    return summarize(tidy({**about, "participant": f"c{number:03}"} for number in range(count)))


# Rows


def test_each_value_is_a_row_and_servers_are_summed_over_who_asked_them(tmp_path: Path) -> None:
    rows = read_rows(folder_of(tmp_path, TOLD))
    assert Row(0, "train", "a", "client", "front", 1.0) in rows
    assert Row(0, "train", "a", "request", "split-wire", 3.0) in rows
    assert Row(0, "train", "a", "request", "split-requests", None, 4) in rows
    assert Row(0, "train", "s0", "split-server", "requests", None, 5) in rows
    assert Row(0, "train", "s0", "split-server", "queue", 8.0) in rows
    assert Row(0, "sync", "s0", "split-server", "compute", 1.0) in rows
    assert Row(0, "train", "f", "fed-server", "store", 2.0) in rows
    assert len(rows) == len(set(rows))
    with (tmp_path / FILE).open(newline="") as file:
        assert tuple(csv.DictReader(file).fieldnames or ()) == COLUMNS


def test_a_profile_is_what_its_rows_add_up_to() -> None:
    profile = summarize(tidy(TOLD))
    assert {name: one.seconds for name, one in profile.clients.items()} == {"a": 11.0, "b": 4.0}
    server = profile.servers["s0"]
    assert (server.role, server.requests, server.hits, server.misses, server.busy_s) == ("split-server", 6, 1, 1, 9.0)
    assert profile.servers["f"].role == "fed-server"
    assert profile.seconds == 16.0
    waits = profile.waits()
    assert tuple(waits) == WAITS
    assert sum(waits.values()) == pytest.approx(1)
    assert {part: share for part, share in waits.items() if share} == {
        "encode": 0.025, "wire": 0.15, "server queue": 0.4, "server compute": 0.4, "decode": 0.025,
    }  # fmt: skip


def test_names_that_nobody_knows_are_kept_and_shown() -> None:
    profile = told_by(1)
    assert profile.clients["c000"].training == {"front": 1.0, "strange": 2.0}
    assert profile.waits() == {} or sum(profile.waits().values()) == pytest.approx(1)
    drawn = draw(profile)
    assert "strange" in {text.get_text() for legend in drawn.legends for text in legend.get_texts()}


HEAD = ",".join(COLUMNS)


@pytest.mark.parametrize(
    "content",
    [
        "", "\0", "round,task\n0,train\n", f"{HEAD}\nx,train,a,client,front,1,\n",
        f"{HEAD}\n0,train,a,client,front,x,\n", f"{HEAD}\n0,train,a\n",
    ],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InvalidSetting, match=r"profile\.csv is not a profile"):
        read_rows(tmp_path)


# A real run


def test_the_phases_of_each_task_add_up_to_its_seconds(simulated: Path) -> None:
    found: defaultdict[tuple[int, str, str], float] = defaultdict(float)
    requests: defaultdict[tuple[int, str, str], float] = defaultdict(float)
    for row in read_rows(simulated):
        if row.role == "client":
            found[row.round, row.participant, row.task] += row.seconds or 0.0
        if row.role == "request":
            requests[row.round, row.participant, row.task] += row.seconds or 0.0
    with (simulated / "metrics.csv").open(newline="") as file:
        metrics = list(csv.DictReader(file))
    expected = {
        (int(row["round"]), row["client"], task): float(row[column])
        for row in metrics
        for task, column in (("train", "seconds"), ("evaluate", "eval_seconds"))
    }
    assert found == pytest.approx(expected, abs=1e-4)  # each phase is rounded to a microsecond
    # One after the other, in one thread: no request goes on while another does.
    assert all(requests[task] <= seconds for task, seconds in expected.items())


def test_the_servers_answered_every_request_of_the_clients(simulated: Path) -> None:
    rows = read_rows(simulated)
    asked = [row.count or 0 for row in rows if row.phase in ("split-requests", "fed-requests")]
    answered = [row.count or 0 for row in rows if row.phase == "requests" and row.task != "sync"]
    assert sum(asked) == sum(answered) > 0
    closing = [(row.participant, row.count) for row in rows if row.phase == "requests" and row.task == "sync"]
    assert closing == [("fed-server", 1), ("split-server-0", 1)] * 2
    hits = sum(row.count or 0 for row in rows if row.phase == "hits")
    with (simulated / "metrics.csv").open(newline="") as file:
        assert hits == sum(int(row["batches"]) for row in csv.DictReader(file))  # each graph was found again


def test_what_is_printed_names_all_of_it(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("profile", str(simulated)) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for word in ("training", "sync", "evaluation", "client-02", "split-server-0", "fed-server", "waiting", "wire"):
        assert word in printed
    # Without an auxiliary head, and in one thread.
    assert [phase for phase in CLIENT_PHASES if phase not in printed] == ["aux", "turn"]


def test_json_has_every_number(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("profile", str(simulated), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(summarize(read_rows(simulated)).to_json()))
    assert printed["clients"].keys() == {"client-00", "client-01", "client-02"}
    one = printed["clients"]["client-00"]
    assert sum(one["training"].values()) == pytest.approx(one["seconds"])
    assert [row["round"] for row in printed["rounds"]] == [0, 1]
    assert printed["servers"]["split-server-0"]["recomputed"] == 0


def test_the_picture_is_drawn(simulated: Path, tmp_path: Path) -> None:
    assert microsfl("profile", str(simulated), "--plot", str(tmp_path / "p.png")) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "plot", "said"),
    [
        ("nowhere", None, "There is no folder"),
        (".", None, "is not a run folder: it has no profile.csv and no run.toml"),
        ("killed", None, "its run is still going on, was killed, or is of an older microsfl"),
        ("empty", None, "is empty: no client had reported anything"),
        ("told", "p.docx", "name a file that ends in .png, .svg, .pdf"),
        ("told", "missing/p.png", "cannot be written"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, plot: str | None, said: str
) -> None:
    folder_of(tmp_path / "told", TOLD)
    folder_of(tmp_path / "empty", [])
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "run.toml").touch()
    options = () if plot is None else ("--plot", str(tmp_path / plot))
    assert microsfl("profile", str(tmp_path / name), *options) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("microsfl: error: ")
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_run_that_was_stopped_in_its_first_round_shows_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert microsfl("profile", str(folder_of(tmp_path, TOLD[:1]))) == 0
    printed = capsys.readouterr().out
    assert "1 client while training" in printed
    assert "rounds" not in printed


# What the documentation says


def test_the_guide_has_every_phase_and_no_other() -> None:
    def named(title: str) -> list[str]:
        text = GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]
        return re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)

    assert set(named("A client")) == {*CLIENT_PHASES, "model"}
    assert named("A server") == [*SERVER_PHASES]
    assert [*re.findall(r"`(\w+)`", GUIDE.split("A row for each number: ")[1].split(".")[0])] == [*COLUMNS]
    assert all(f"`{part}`" in GUIDE for part in ROUND_PHASES)


def test_the_header_in_the_reference_is_one() -> None:
    [shown] = re.findall(r"^server-timing: (.*)$", WIRE, re.MULTILINE)
    timing = read_timing(shown)
    assert timing is not None
    assert timing.header() == shown


def test_many_participants_are_cut_short() -> None:
    profile = told_by(ROWS + 5)
    assert [table.row_count for table in tables(profile)][1:] == [ROWS + 1] * 2
    assert len(draw(told_by(300)).axes[0].get_yticklabels()) < 45
