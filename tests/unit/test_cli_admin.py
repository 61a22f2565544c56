"""The commands about who takes part, over a coordinator's real HTTP: what they print, write and refuse."""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from microsfl.admin.people import rotate
from microsfl.cli import cli, main
from microsfl.cli.options import Duration
from microsfl.client.entitled import asking
from microsfl.client.http import Http
from microsfl.errors import InvalidSetting, Unauthenticated, Unreachable
from microsfl.trust.credential import Credential, kept_for
from microsfl.trust.files import read_private
from microsfl.trust.keys import FILE, Federation
from microsfl.trust.secret import digest
from microsfl.trust.ticket import Ticket
from microsfl.trust.tickets import credential_for, forget, remember
from microsfl.trust.tokens import Audience
from tests.service.federated import Site, federated

URL = "http://control:8000"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MICROSFL_CREDENTIAL", "MICROSFL_TOKEN", "MICROSFL_COORDINATOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MICROSFL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with federated(tmp_path) as site:
        site.credential("operator").write(kept_for(site.url))
        yield site


def microsfl(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(one) for one in arguments])
    return int(end.value.code or 0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The federation's folder


def test_init_makes_a_folder_and_a_credential_that_nobody_else_reads(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clinics"
    assert microsfl("admin", "init", folder, "--coordinator", f"{URL}/", "--json") == 0
    kept = home / "credentials" / "control-8000.json"
    assert json.loads(capsys.readouterr().out) == {
        "federation": "clinics", "folder": str(folder), "credential": str(kept),
    }  # fmt: skip
    assert (mode(folder), mode(folder / FILE), mode(kept)) == (0o700, 0o600, 0o600)
    operator = Credential.read(kept)
    assert (operator.coordinator, operator.id) == (URL, "operator")
    assert operator.secret not in (folder / FILE).read_text()
    made = Federation.read(folder)
    assert (made.name, len(made.keys), made.first["operator"]["role"]) == ("clinics", 1, "operator")


def test_init_with_members_makes_a_credential_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, kept = tmp_path / "clinics", tmp_path / "kept"
    flags = [
        f"--member={one}" for one in ("split-server:split:split-*", "fed-server:fed", "client:sites:a,b", "viewer:me")
    ]
    at = ("--credential", kept / "operator.json", "--coordinator", URL, *flags)
    assert microsfl("admin", "init", folder, *at) == 0
    assert str(kept) in capsys.readouterr().out
    made = Federation.read(folder).first
    assert {name: (one["role"], one["acts_as"]) for name, one in made.items()} == {
        "operator": ("operator", ["*"]), "split": ("split-server", ["split-*"]), "fed": ("fed-server", ["fed"]),
        "sites": ("client", ["a", "b"]), "me": ("viewer", ["me"]),
    }  # fmt: skip
    for name, one in made.items():
        credential = Credential.read(kept / f"{name}.json")
        assert (credential.id, digest(credential.secret), mode(kept / f"{name}.json")) == (name, one["hash"], 0o600)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("fed", "is not ROLE:ID"),
        ("operator:second", "is not ROLE:ID"),
        ("client:a b", "is not allowed"),
        ("fed-server:fed:a", "only clients and split servers"),
        ("client:sites:site-*", "each client is a data owner"),
        ("viewer:operator", "same id"),
    ],
)
def test_init_refuses_members_that_cannot_be(
    tmp_path: Path, member: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept" / "it.json"
    assert microsfl("admin", "init", tmp_path / "clinics", "--credential", kept, "--member", member) == 2
    assert said in capsys.readouterr().err
    assert not kept.exists()
    assert not (tmp_path / "clinics").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes root, to give files to somebody else")
@pytest.mark.parametrize(
    ("owner", "mode", "reads", "allowed"),
    [
        (0, 0o440, 1000, True),  # as a cluster hands a secret to a process
        (0, 0o444, 1000, False),
        (0, 0o460, 1000, False),
        (0, 0o440, 0, False),
        (1000, 0o440, 1000, False),
        (1000, 0o400, 1000, True),
    ],
)
def test_a_secret_of_root_s_may_be_readable_by_the_group_of_who_reads_it(
    owner: int, mode: int, reads: int, allowed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        os.chmod(folder, 0o711)
        file = Path(folder) / "secret"
        file.write_text("kept")
        os.chown(file, owner, 1000)
        file.chmod(mode)
        child = os.fork()
        if child == 0:
            os._exit(_read_as(reads, file))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if allowed else 1)


def _read_as(user: int, file: Path) -> int:
    try:
        os.setgroups([])
        os.setgid(1000)
        os.setuid(user)
        return 0 if read_private(file) == "kept" else 2
    except InvalidSetting as error:
        return 1 if "others may read it" in str(error) else 3
    except BaseException:  # noqa: BLE001 - the child must not go on with the test
        return 4


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, credential = tmp_path / "clinics", tmp_path / "operator.json"
    assert microsfl("admin", "init", folder, "--credential", credential, "--coordinator", URL) == 0
    before = (folder / FILE).read_bytes(), credential.read_bytes()
    assert microsfl("admin", "init", folder, "--credential", tmp_path / "x.json", "--coordinator", URL) == 2
    assert "is a federation already" in capsys.readouterr().err
    other = tmp_path / "other"
    assert microsfl("admin", "init", other, "--credential", credential, "--coordinator", URL) == 2
    assert "There is a credential" in capsys.readouterr().err
    assert ((folder / FILE).read_bytes(), credential.read_bytes()) == before
    assert not (other / FILE).exists()
    assert not (tmp_path / "x.json").exists()


def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    assert microsfl("admin", "init", tmp_path / "f", "--name", "a b", "--coordinator", URL) == 2
    assert microsfl("admin", "init", tmp_path / "f", "--coordinator", "control:8000") == 2
    assert not (tmp_path / "f").exists()


def test_rotate_keys_adds_one_and_keeps_the_rest_unless_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clinics"
    assert microsfl("admin", "rotate-keys", folder) == 2
    assert "is no federation" in capsys.readouterr().err
    microsfl("admin", "init", folder, "--coordinator", URL, "--json")
    [first] = Federation.read(folder).keys
    capsys.readouterr()
    assert microsfl("admin", "rotate-keys", folder, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["still_right"] == [first]
    assert list(Federation.read(folder).keys) == [first, said["signs"]]
    assert microsfl("admin", "rotate-keys", folder, "--at-once") == 0
    assert len(Federation.read(folder).keys) == 1
    assert "operator" in Federation.read(folder).first


# In and out


def enrolled(site: Site, token: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
    return microsfl("enrol", "--coordinator", site.url, "--credential", path)


def test_an_invited_site_enrols_and_is_listed_until_it_is_revoked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--coordinator", site.url)
    assert microsfl("admin", "invite", "clinic", "--acts-as", "ward-a", "--run", "mine", "--expires", "2d", *at) == 0
    said = capsys.readouterr()
    token = said.out.strip()
    assert said.out == f"{token}\n"  # alone, so that it can be piped
    assert token.startswith("msfl_")
    assert token not in said.err
    assert f"microsfl enrol --coordinator {site.url}" in said.err
    path = tmp_path / "clinic.json"
    assert enrolled(site, token, path, monkeypatch) == 0
    assert mode(path) == 0o600
    assert Credential.read(path).id == "clinic"
    assert Credential.read(path).secret not in capsys.readouterr().out
    assert _identity(site, "clinic", capsys) == ("client", ["ward-a"], ["mine"], True)

    assert enrolled(site, token, tmp_path / "again.json", monkeypatch) == 2
    assert "was used" in capsys.readouterr().err
    assert not (tmp_path / "again.json").exists()
    assert microsfl("admin", "identities", *at) == 0
    assert "enrolled" in next(line for line in capsys.readouterr().out.splitlines() if "clinic" in line)
    assert microsfl("admin", "revoke", "clinic", *at) == 0
    assert microsfl("admin", "identities", *at) == 0
    assert "revoked" in next(line for line in capsys.readouterr().out.splitlines() if "clinic" in line)
    assert microsfl("admin", "revoke", "nobody", *at) == 2


def _identity(site: Site, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[Any, ...]:
    capsys.readouterr()
    assert microsfl("admin", "identities", "--json", "--coordinator", site.url) == 0
    [one] = [one for one in json.loads(capsys.readouterr().out)["identities"] if one["id"] == name]
    return one["role"], one["acts_as"], one["runs"], one["enrolled"]


def test_a_token_comes_from_a_file_the_environment_or_standard_input(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("enrol", "--coordinator", site.url, "--credential")
    file = tmp_path / "token"
    file.write_text(site.invite("a") + "\n")
    assert microsfl(*at, tmp_path / "a.json", "--token-file", file) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(site.invite("b").encode())))
    assert microsfl(*at, tmp_path / "b.json", "--token-file", "-") == 0
    monkeypatch.setenv("MICROSFL_TOKEN", site.invite("c"))
    assert microsfl(*at, tmp_path / "c.json") == 0
    monkeypatch.delenv("MICROSFL_TOKEN")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert microsfl(*at, tmp_path / "d.json") == 2
    assert {Credential.read(tmp_path / f"{name}.json").id for name in "abc"} == {"a", "b", "c"}


def test_no_command_takes_a_secret_as_an_argument() -> None:
    """Other users of a machine see the arguments of processes."""
    commands = [*cli.commands.values()]
    assert isinstance(cli.commands["admin"], click.Group)
    commands += cli.commands["admin"].commands.values()
    flags = {flag for command in commands for parameter in command.params for flag in parameter.opts}
    assert not {flag for flag in flags if "secret" in flag or "token" in flag} - {"--token-file"}


def test_an_invitation_is_not_used_up_when_the_credential_cannot_be_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token, there = site.invite("clinic"), tmp_path / "there.json"
    there.write_text("{}")
    assert enrolled(site, token, there, monkeypatch) == 2
    assert "There is a credential" in capsys.readouterr().err
    assert enrolled(site, token, there / "below.json", monkeypatch) == 2
    assert enrolled(site, token, tmp_path / "new.json", monkeypatch) == 0


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)])
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["7", "0d", "-1d", "1.5h", "7 days", "d", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="like 30m, 12h or 7d"):
        Duration().convert(text, None, None)


def test_who_has_no_credential_is_told_how_to_get_one(
    site: Site, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    kept_for(site.url).unlink()
    assert home.exists()
    for words in (("admin", "identities"), ("runs",), ("status", "demo"), ("admin", "login-link")):
        assert microsfl(*words, "--coordinator", site.url) == 2
        assert "microsfl enrol" in capsys.readouterr().err


def test_somebody_else_s_coordinator_at_the_usual_place_is_none(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_for(site.url).unlink()
    monkeypatch.setattr("microsfl.watch.find.COORDINATOR", site.url)
    assert microsfl("runs", "--json") == 0
    assert json.loads(capsys.readouterr().out)["coordinator"] is None


def test_each_command_that_asks_shows_the_credential_it_is_given(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_for(site.url).unlink()
    for name in ("viewer", "client", "operator"):
        site.credential(name).write(tmp_path / f"{name}.json")
    at = ("--coordinator", site.url, "--credential")
    assert microsfl("runs", *at, tmp_path / "viewer.json") == 0
    assert microsfl("runs", *at, tmp_path / "client.json") == 2
    assert "A client may not" in capsys.readouterr().err
    assert microsfl("admin", "identities", *at, tmp_path / "viewer.json") == 2
    assert microsfl("admin", "identities", *at, tmp_path / "operator.json") == 0
    capsys.readouterr()
    assert microsfl("admin", "login-link", *at, tmp_path / "operator.json") == 0
    code = capsys.readouterr().out.strip().partition(f"{site.url}/#login=")[2]
    assert site.cookie({"code": code})
    assert microsfl("run", "--credential", tmp_path / "operator.json") == 2
    assert "--credential is for --coordinator" in capsys.readouterr().err


# A new secret


def test_rotate_gives_a_new_secret_and_ends_the_old_one(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "viewer.json"
    site.credential("viewer").write(path)
    assert microsfl("rotate", "--coordinator", site.url, "--credential", path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"id": "viewer", "credential": str(path)}
    new = Credential.read(path)
    assert new.secret != site.secrets["viewer"]
    assert mode(path) == 0o600
    assert site.ask_token("viewer", secret=new.secret)[0] == 200
    assert site.ask_token("viewer")[0] == 401


@pytest.mark.parametrize("at", ["before it is written", "before it is used"])
def test_whenever_a_rotation_is_cut_off_what_is_in_the_file_is_right(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "viewer.json"
    site.credential("viewer").write(path)

    def cut_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if at == "before it is written":
            patched.setattr(Credential, "write", cut_off)
        else:
            patched.setattr(Ticket, "header", cut_off)
        with pytest.raises(KeyboardInterrupt):
            rotate(path)
    assert (Credential.read(path).secret == site.secrets["viewer"]) == (at == "before it is written")
    assert site.ask_token("viewer", secret=Credential.read(path).secret)[0] == 200
    rotate(path)  # and it can be done again
    assert site.ask_token("viewer", secret=Credential.read(path).secret)[0] == 200


def test_a_process_that_runs_goes_on_with_the_new_secret(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "viewer.json"
    site.credential("viewer").write(path)
    found = credential_for(site.url, str(path))
    assert found is not None
    ticket = Ticket(found, asking(Http(), site.url), read=lambda: credential_for(site.url, str(path)))
    assert ticket.header(Audience.COORDINATOR)
    rotate(path)
    ticket.forget(Audience.COORDINATOR)
    assert ticket.header(Audience.COORDINATOR)
    site.as_("operator").post("/identities/viewer/revoke")
    ticket.forget(Audience.COORDINATOR)
    with pytest.raises(Unauthenticated):
        ticket.header(Audience.COORDINATOR)


def test_rotate_without_a_coordinator_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    Credential("http://127.0.0.1:1", "one", "secret").write(path)
    with pytest.raises(Unreachable):
        rotate(path)
    assert Credential.read(path).secret == "secret"


# Which credential


def test_one_machine_has_one_credential_for_each_port(tmp_path: Path) -> None:
    assert kept_for("http://localhost:8000") == kept_for("http://127.0.0.1:8000") == kept_for("http://[::1]:8000")
    assert kept_for("http://localhost:8000") != kept_for("http://localhost:8001")
    assert kept_for("http://control:8000") != kept_for("http://localhost:8000")
    assert kept_for("https://control").name == "control-https.json"
    assert tmp_path in kept_for("http://control:8000").parents


def test_a_file_goes_before_the_one_of_this_process_before_the_environment_before_the_kept_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def credential(name: str) -> Credential:
        return Credential(URL, name, "secret")

    def shown(path: Path | None = None) -> str | None:
        found = credential_for(URL, None if path is None else str(path))
        return None if found is None else found.id

    assert shown() is None
    credential("kept").write(kept_for(URL))
    assert shown() == "kept"
    credential("environment").write(tmp_path / "environment.json")
    monkeypatch.setenv("MICROSFL_CREDENTIAL", str(tmp_path / "environment.json"))
    assert shown() == "environment"
    remember(credential("process"))
    try:
        assert shown() == "process"
        credential("file").write(tmp_path / "file.json")
        assert shown(tmp_path / "file.json") == "file"
    finally:
        forget(URL)
    assert shown() == "environment"


def test_a_credential_is_shown_to_its_own_coordinator_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.json"
    Credential("http://127.0.0.1:8000", "one", "secret").write(path)
    monkeypatch.setenv("MICROSFL_CREDENTIAL", str(path))
    for same in ("http://127.0.0.1:8000", "http://localhost:8000"):
        assert credential_for(same) is not None
    for other in ("http://127.0.0.1:8001", "http://evil.example:8000", "http://evil.example"):
        with pytest.raises(InvalidSetting, match="may not see it"):
            credential_for(other)


@pytest.mark.skipif(os.name != "posix", reason="files have no such modes")
def test_a_credential_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open.json"
    Credential(URL, "one", "secret").write(path)
    path.chmod(0o640)
    with pytest.raises(InvalidSetting, match="chmod 600"):
        Credential.read(path)
