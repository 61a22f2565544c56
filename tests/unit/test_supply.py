"""What `make audit` makes of pip-audit's answer: silence is no good news."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WELL = {"name": "click", "version": "8.1", "vulns": []}
ILL = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "not found on PyPI"}
OWN = {"name": "microsfl", "skip_reason": "editable"}


def test_what_is_known_fails(audit: Any) -> None:
    code, said = audit.verdict([WELL, ILL, OWN])
    assert (code, said) == (1, ["old 1.0: PYSEC-1, fixed in 1.1", "2 packages looked up, 1 known vulnerabilities"])


def test_nothing_known_is_well_and_what_was_not_looked_up_is_named(audit: Any) -> None:
    assert audit.verdict([WELL, OWN]) == (0, ["1 packages looked up, 0 known vulnerabilities"])
    assert audit.verdict([WELL, UNKNOWN])[1][-1] == "not looked up: torch"


def test_nothing_looked_up_is_not_well(audit: Any) -> None:
    code, said = audit.verdict([UNKNOWN, OWN])
    assert (code, said[0][:12]) == (3, "not audited:")
    assert audit.verdict([])[0] == 3


@pytest.mark.slow
def test_the_bill_of_materials_names_what_is_installed(tmp_path: Path) -> None:
    """As `make sbom` writes it."""
    pytest.importorskip("cyclonedx_py")
    file = tmp_path / "sbom.json"
    words = ["environment", "--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--of", "JSON"]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *words, "-o", str(file), sys.executable], check=True)
    found = json.loads(file.read_text())
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "microsfl")
    names = {one["name"].lower() for one in found["components"]}
    assert {"torch", "fastapi", "cryptography", "pyjwt", "sqlalchemy", "obstore"} <= names
    assert all(one.get("version") for one in found["components"])
