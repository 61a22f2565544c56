"""The address that logs a browser in: on a terminal, new before it is over, and in no log."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from microsfl.errors import Forbidden
from microsfl.launch import progress, standing
from microsfl.launch.login_link import GOOD_FOR_S, LoginLink
from microsfl.launch.supervisor import Supervisor
from microsfl.spec import RunSpec

URL = "http://127.0.0.1:8000"
RUN: dict[str, Any] = {
    "name": "demo", "state": "running", "phase": "training", "round": 0, "rounds": 3, "history": [], "progress": {},
}  # fmt: skip


class StandIn:
    """A coordinator that numbers its links."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.url, self.made, self.refuses = URL, 0, refuses

    def login_link(self) -> str:
        if self.refuses:
            raise Forbidden
        self.made += 1
        return f"{URL}/#login=code-{self.made}"


def shown(control: Any) -> Any:
    return SimpleNamespace(spec=RunSpec(), control=control, children=[], supervisor=Supervisor([], 0, lambda: None))


def test_a_link_is_made_once_and_again_before_it_is_over() -> None:
    now = [0.0]
    link, control = LoginLink(lambda: now[0]), StandIn()
    found: Any = control
    assert [link.of(found), link.of(found)] == 2 * [f"{URL}/#login=code-1"]
    now[0] = GOOD_FOR_S + 1
    assert link.of(found) == f"{URL}/#login=code-2"
    refusing: Any = StandIn(refuses=True)
    assert LoginLink().of(refusing) == URL


def test_a_terminal_shows_it_and_a_log_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    control = StandIn()
    screen = progress.Screen(shown(control))
    screen.show(RUN)
    console = Console(file=io.StringIO(), width=80)
    console.print(screen.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"dashboard at {URL}/#login=code-1" in text  # in one line, to be copied
    made = control.made
    progress.Lines(shown(control)).show(RUN)
    said = capsys.readouterr().err
    assert f"dashboard at {URL}" in said
    assert "login" not in said
    assert control.made == made


def test_up_shows_it_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "Control", lambda *_: StandIn())
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True))
    assert f"{URL}/#login=code-1" in standing._how_to_look(URL)
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: False))
    assert "#login" not in standing._how_to_look(URL)
    assert f"microsfl admin login-link --coordinator {URL}" in standing._how_to_look(URL)
