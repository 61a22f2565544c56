"""Every line of the threat model names a test that there is, or says that it is a limit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"\[`(test_\w+)`\]\((tests/[\w/]+\.py)\)")


def lines(text: str) -> list[str]:
    """The rows of the tables under the threat model, without their heads."""
    model = text.split("\n## Threat model\n")[1].split("\n## ")[0]
    rows = [line for line in model.splitlines() if line.startswith("|")]
    return [line for line in rows if not line.startswith("|---") and "| shown by |" not in line]


def complaints(text: str) -> list[str]:
    found = []
    for line in lines(text):
        named = NAMED.findall(line)
        if not named and not line.endswith("| limit |"):
            found.append(f"names no test: {line[:60]}")
        for name, file in named:
            tree = ast.parse((ROOT / file).read_text())
            if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
                found.append(f"{file} has no {name}")
    return found


def test_every_line_of_the_threat_model_is_shown_by_a_test_or_is_a_limit() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert len(lines(text)) > 40
    assert complaints(text) == []


def test_a_line_without_a_test_and_a_test_that_is_gone_are_found() -> None:
    """The test of the test."""
    head = "\n## Threat model\n\n| it | shown by |\n|---|---|\n"
    assert complaints(f"{head}| cannot | limit |\n") == []
    assert complaints(f"{head}| cannot | believe me |\n") == ["names no test: | cannot | believe me |"]
    gone = "| cannot | [`test_gone`](tests/attacks/test_secrets.py) |"
    assert complaints(f"{head}{gone}\n") == ["tests/attacks/test_secrets.py has no test_gone"]
