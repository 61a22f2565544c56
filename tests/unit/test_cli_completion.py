"""Shell completion: the scripts, and what they are answered."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from microsfl.cli import cli
from microsfl.schema import settings
from microsfl.spec import RunSpec
from tests.unit.watched import microsfl, run_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("microsfl.watch.find.COORDINATOR", "http://127.0.0.1:9")
    monkeypatch.delenv("MICROSFL_COORDINATOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(*words: str, kind: str = "plain") -> list[str]:
    """What TAB offers after these words, of which the last has been begun."""
    asked = ShellComplete(cli, {}, "microsfl", "_MICROSFL_COMPLETE")
    return [one.value for one in asked.get_completions(list(words[:-1]), words[-1]) if one.type == kind]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("there is no bash, which click asks for its version")
    assert microsfl("completion", shell) == 0
    script = capsys.readouterr().out
    assert f"_MICROSFL_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_puts_no_blank_behind_the_key_of_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert microsfl("completion", "bash") == 0
    assert "[[ $value == *= ]] && compopt -o nospace" in capsys.readouterr().out


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("completion", "csh") == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


def test_commands_and_keys_are_completed() -> None:
    assert completed("sta") == ["status"]
    assert completed("run", "--set", "run.rou") == ["run.rounds="]
    assert len(completed("compare", "--set", "")) == len(list(settings(RunSpec)))


def test_runs_and_roles_are_completed(here: Path) -> None:
    folder = run_folder(here / "runs/first-20260101", "first", "finished")
    (folder / "logs/split-server-0.log").touch()
    (here / "elsewhere").mkdir()
    assert completed("status", "fi") == ["first-20260101"]
    assert completed("status", "--folder", "elsewhere", "fi") == []
    assert completed("logs", "first-20260101", "split") == ["split-server", "split-server-0"]
    assert completed("logs", "gone", "split") == ["split-server"]
    for command in ("status", "logs", "resume", "verify", "gc"):
        assert completed(command, "else", kind="dir") == ["else"]


def test_every_command_that_prints_for_people_has_json() -> None:
    # A role and `up` print the line that says that they are ready; `completion` a script.
    without = {"coordinator", "split-server", "fed-server", "client", "up", "completion"}
    groups = {name: one.commands for name, one in cli.commands.items() if isinstance(one, click.Group)}
    inner = {f"{name} {under}": one for name, group in groups.items() for under, one in group.items()}
    commands = {**inner, **{name: one for name, one in cli.commands.items() if name not in groups}}
    flags = {name: {flag for one in command.params for flag in one.opts} for name, command in commands.items()}
    assert {name for name, found in flags.items() if "--json" not in found} == without
    assert inner
