"""The command line: help without torch, wrong input in one line, and where a setting comes from."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import pytest

from microsfl import __version__
from microsfl.cli import main
from microsfl.config import ClientSettings, CoordinatorSettings, ProcessSettings, SplitServerSettings
from microsfl.errors import MicrosflError, UnknownSetting
from microsfl.launch.options import role_command, to_flags
from microsfl.launch.reference import settings_reference
from microsfl.launch.spec_file import read_spec, to_toml
from microsfl.spec import RunSpec

Settings = TypeVar("Settings", bound=ProcessSettings)

COMMANDS = (
    "run", "up", "compare", "profile", "pretrain", "audit-privacy", "config", "coordinator", "split-server",
    "fed-server", "client", "plan", "runs", "status", "logs", "doctor", "completion", "admin", "enrol", "rotate",
)  # fmt: skip

HELP_OF_ALL = """
import sys
from microsfl.cli import main
for arguments in ([], *([command] for command in sys.argv[1:])):
    try:
        main([*arguments, "--help"])
    except SystemExit as end:
        assert end.code == 0, arguments
assert "torch" not in sys.modules, "help imports torch"
"""


def microsfl(*arguments: str) -> int:
    """Exit code of the command, run in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def assignments(*values: str) -> tuple[str, ...]:
    return tuple(f"--set={value}" for value in values)


@pytest.fixture(autouse=True)
def stdin_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are parsed in this process, which is not to end when its own standard input does."""
    monkeypatch.setattr("microsfl.launch.options.end_with_parent", lambda: None)


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty working directory, from which only a coordinator may be started, and none may be left."""
    started = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            assert command[3] == "coordinator", "wrong input started a process"
            super().__init__(command, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr("microsfl.launch.forks.can_fork", lambda: False)  # this process has imported torch anyway
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert [process.returncode for process in started if process.returncode is None] == []


def test_help_of_every_command_comes_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, *COMMANDS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert all(f"Usage: microsfl {command} " in done.stdout for command in COMMANDS)
    assert "--graph-cache-mb" in done.stdout
    assert "MICROSFL_STORE_URL" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("--version") == 0
    assert capsys.readouterr().out.strip() == f"microsfl, version {__version__}"


WRONG: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "setting": (assignments("run.round=3"), ("'run.round'", "Did you mean 'run.rounds'?")),
    "value": (assignments("run.rounds=0"), ("run.rounds", "greater than or equal to 1", "got 0")),
    "assignment": (assignments("rounds"), ("'rounds'", "run.rounds=10")),
    "layer": (assignments('model.cut=["fc1","relu9"]'), ("'relu9'", "Did you mean 'relu2'?")),
    "no body": (assignments('model.cut=["relu2","relu2"]'), ("no layer for the body", "flatten, fc1, relu1")),
    "dataset": (assignments("data.dataset=mnits"), ("'mnits'", "Did you mean 'mnist'?")),
    "strategy": (assignments("strategy.name=fillesync"), ("'fillesync'", "Did you mean 'filesync'?")),
    "dataset path": (assignments("data.dataset=mnist", "data.path=/not/there"), ("'/not/there'", "is not there")),
    "dataset files": (assignments("data.dataset=mnist", "data.path=."), ("train-images-idx3-ubyte", "data.path")),
    "own dataset": (assignments("data.dataset=nowhere:data"), ("'nowhere:data'", "No module named")),
    "own model": (assignments("model.name=nowhere:net"), ("'nowhere:net'", "No module named")),
    "too many clients": (assignments("data.clients=3000"), ("3000", "1442 train samples")),
    "empty client": (assignments("data.clients=40", "data.alpha=0.0001"), ("without a train sample", "larger alpha")),
    "alpha": (assignments("data.alpha=0"), ("data.alpha", "greater than 0")),
    "classes": (assignments("model.classes=5"), ("model.classes = 5", "label 9", "use 10 or auto")),
    "shape": (assignments("model.input_shape=[3,8,8]"), ("[3, 8, 8]", "[1, 8, 8]")),
    "optimizer": (assignments("strategy.client_optimizer={name='SGD',lr=1,momentun=1}"), ("momentun", "optim.SGD")),
    "device": (assignments("servers.device=cuda:63"), ("'cuda:63'", "not on this machine")),
    "store of one process": (assignments("store.body=memory://"), ("store.body = 'memory://'", "file://")),
    "store": (assignments("store.client=file:///dev/null/x"), ("file:///dev/null/x", "cannot be made")),
    "unmanaged": (assignments("run.managed=false"), ("run.managed = true", "microsfl.Federation")),
    "run name": (assignments("run.name=../x"), ("'../x'", "letters, digits")),
    "output": (("--output=/dev/null/x",), ("/dev/null/x", "cannot be made")),
    "no file": (("nothing.toml",), ("nothing.toml", "does not exist")),
    "flag": (("--ouput=x",), ("--ouput", "--output")),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_run_ends_with_2_and_one_line_and_leaves_nothing(
    case: str, no_process: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = WRONG[case]
    assert microsfl("run", *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("microsfl: error: ")
    assert output.err.count("\n") == 1
    assert [words for words in expected if words not in output.err] == []
    assert [path for path in no_process.rglob("*") if path.is_file()] == []


def test_a_file_that_is_not_toml_is_named(no_process: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (no_process / "wrong.toml").write_text("[run\n")
    assert microsfl("run", "wrong.toml") == 2
    assert "wrong.toml cannot be read as TOML" in capsys.readouterr().err


def test_a_store_that_has_the_run_already_is_refused(no_process: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (no_process / "store/runs/demo").mkdir(parents=True)
    kept = no_process / "store/runs/demo/run.json"
    kept.write_text("{}")
    url = (no_process / "store").as_uri()
    assert microsfl("run", f"--set=store.body={url}") == 2
    assert "already holds a run 'demo'" in capsys.readouterr().err
    assert kept.read_text() == "{}"


def test_an_empty_folder_is_left_empty_by_a_run_that_does_not_begin(no_process: Path) -> None:
    assert microsfl("run", "--output=.", '--set=model.cut=["a","b"]') == 2
    assert no_process.exists()
    assert list(no_process.iterdir()) == []
    assert microsfl("run", "--output=new", '--set=model.cut=["a","b"]') == 2
    assert list(no_process.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused(no_process: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (no_process / "mine.txt").write_text("mine")
    assert microsfl("run", "--output=.") == 2
    assert "not empty (it has mine.txt)" in capsys.readouterr().err
    assert (no_process / "mine.txt").read_text() == "mine"


def test_a_port_in_use_and_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        records = f"--records-url=sqlite:///{tmp_path}/records.db"
        busy = process("coordinator", f"--port={port}", records)
    assert busy.returncode == 2
    assert f"microsfl: error: Cannot listen on 127.0.0.1:{port}" in busy.stderr
    assert "--port 0" in busy.stderr
    file = tmp_path / "file"
    file.write_text("kept")
    store = process("split-server", "--port=0", f"--store-url={file.as_uri()}/inside")
    assert store.returncode == 2
    assert store.stderr.startswith(f"microsfl: error: The store {file.as_uri()}/inside cannot be made")
    assert "Traceback" not in busy.stderr + store.stderr
    assert file.read_text() == "kept"


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "microsfl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def parsed(role: str, settings: type[Settings], *arguments: str) -> Settings:
    """The settings that a role's command would start with."""
    group, started = click.Group(), []
    role_command(group, role, settings)(started.append)
    group.main([role, *arguments], standalone_mode=False)
    return started[0]


def test_flag_goes_before_environment_before_file_before_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "roles.toml"

    def coordinator(*arguments: str) -> int:
        return parsed("coordinator", CoordinatorSettings, *arguments).port

    assert coordinator() == 8000
    file.write_text("[coordinator]\nport = 7001\n[client]\nids = ['a']\n")
    assert coordinator("--config", str(file)) == 7001
    monkeypatch.setenv("MICROSFL_PORT", "7002")
    assert coordinator("--config", str(file)) == 7002
    assert coordinator("--config", str(file), "--port", "7003") == 7003
    monkeypatch.setenv("MICROSFL_PORT", "")
    assert coordinator("--config", str(file)) == 7001


@pytest.mark.parametrize(
    "arguments", [("--ids", "a,b", "--ids=c"), ("--ids=a, b ,c",), ("--ids=a", "--ids=b", "--ids=c")]
)
def test_a_list_is_repeated_or_comma_separated(arguments: tuple[str, ...]) -> None:
    assert parsed("client", ClientSettings, *arguments).ids == ("a", "b", "c")


def test_a_list_comes_from_the_environment_and_a_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "roles.toml"
    for text in ("ids = ['a', 'b']", "ids = 'a,b'"):
        file.write_text(f"[client]\n{text}\n")
        assert parsed("client", ClientSettings, f"--config={file}").ids == ("a", "b")
    monkeypatch.setenv("MICROSFL_IDS", "c,d")
    assert parsed("client", ClientSettings, f"--config={file}").ids == ("c", "d")


def test_a_flag_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROSFL_EXIT_WITH_PARENT", "true")
    assert parsed("client", ClientSettings, "--ids=a").exit_with_parent
    assert not parsed("client", ClientSettings, "--ids=a", "--no-exit-with-parent").exit_with_parent


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("[split-server]\nstore-url = 'file:///x'", "'store-url' in [split-server]", "'store_url'"),
        ("[split_server]\nport = 1", "[split_server] is no role", "'split-server'"),
        ("[split-server]\nids = ['a']", "'ids' in [split-server]", "'id'"),
    ],
)
def test_an_unknown_name_in_a_file_is_refused_with_the_nearest(
    text: str, wrong: str, right: str, tmp_path: Path
) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(text)
    with pytest.raises(UnknownSetting) as error:
        parsed("split-server", SplitServerSettings, f"--config={file}")
    assert wrong in str(error.value)
    assert f"Did you mean {right}?" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("client",), ("--ids", "MICROSFL_IDS")),
        (("split-server",), ("--store-url",)),
        (("coordinator", "--port=70000"), ("port", "65535", "70000")),
        (("coordinator", "--log-level=loud"), ("log_level", "'debug', 'info'", "'loud'")),
        (("client", "--ids=a,a"), ("ids", "only once")),
        (("client", "--ids=../a"), ("'../a'", "letters, digits")),
        (("coordnator",), ("coordnator", "coordinator")),
    ],
)
def test_a_wrong_role_ends_with_2_and_one_line(
    arguments: tuple[str, ...], expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert microsfl(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("microsfl: error: ")
    assert said.count("\n") == 1
    assert [words for words in expected if words not in said] == []


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("client", ClientSettings(ids=("a", "b"), allow_models=("x:y",), retry_s=2.5, exit_with_parent=True)),
        ("client", ClientSettings(ids=("a",), dataset=None, path="/x y", exit_with_parent=False)),
        ("coordinator", CoordinatorSettings(port=0, records_url="sqlite:////x/a=b.db")),
    ],
)
def test_settings_as_flags_give_the_same_settings(role: str, settings: ProcessSettings) -> None:
    assert parsed(role, type(settings), *to_flags(settings)) == settings


def test_config_show_lists_every_setting_as_a_file_of_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("config", "--show") == 0
    shown = capsys.readouterr().out
    assert RunSpec.parse(tomllib.loads(shown)) == RunSpec()
    assert microsfl("config", "--show", "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    spec = RunSpec().model_dump(mode="json")
    assert {one["name"]: one["default"] for one in entries} == {
        f"{table}.{key}": value for table, values in spec.items() for key, value in values.items()
    }
    assert all(one["description"] and one["allowed"] for one in entries)
    assert max(len(line) for line in shown.splitlines()) <= 110


@pytest.mark.parametrize(
    "name", ["data.dataset", "data.partition", "model.name", "strategy.name", "strategy.reduce", "servers.device"]
)
def test_the_allowed_values_that_are_shown_are_allowed(name: str) -> None:
    (entry,) = (one for one in settings_reference() if one.name == name)
    table, key = name.split(".")
    for value in entry.allowed.split(", "):
        if value != "…":
            RunSpec.parse({table: {key: value}})
    with pytest.raises(MicrosflError):
        RunSpec.parse({table: {key: "something-else"}})


def test_config_prints_what_it_resolves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[run]\nrounds = 7\nseed = 1\n[strategy]\nsync = 10\n")
    assert microsfl("config", str(file), "--set", "run.rounds=8") == 0
    spec = RunSpec.parse(tomllib.loads(capsys.readouterr().out))
    assert (spec.run.rounds, spec.run.seed, spec.strategy.sync) == (8, 1, 10)
    assert (spec.model.input_shape, spec.model.classes, spec.strategy.unit) == ((1, 8, 8), 10, 1)


def test_a_specification_survives_its_file(tmp_path: Path) -> None:
    spec = RunSpec.parse(
        {
            "data": {"path": 'a "quoted" \\ path', "alpha": 1e-5},
            "model": {"cut": ["fc1", "relu2"]},
            "strategy": {"body_optimizer": {"name": "Adam", "lr": 0.1, "betas": [0.5, 0.9]}},
        }
    )
    (tmp_path / "run.toml").write_text(to_toml(spec))
    assert read_spec(tmp_path / "run.toml") == spec


def test_a_child_imports_what_its_parent_does_and_has_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from microsfl.launch.forks import child_environment

    monkeypatch.setenv("MICROSFL_PORT", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = child_environment()
    # Where this user's credentials are is the same for all; what is in them is not in the environment.
    assert {name for name in environment if name.startswith("MICROSFL_")} <= {"MICROSFL_HOME"}
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == os.getcwd()
    assert environment["PYTHONPATH"].split(os.pathsep)[-1] == "/elsewhere"
