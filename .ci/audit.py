"""Looks up known vulnerabilities of the packages of this environment: `make audit`.

pip-audit says "No known vulnerabilities found" also where it could look up nothing: behind a mirror that has files and
no advisories. Here that is a failure of its own. Exits with 0 when nothing is known, 1 when something is, 3 when
nothing could be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

OWN = "microsfl"  # installed from this folder: no index has it
NOT_AUDITED = 3


def verdict(dependencies: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code, and what to say, from pip-audit's JSON."""
    skipped = [one["name"] for one in dependencies if "skip_reason" in one and one["name"] != OWN]
    audited = [one for one in dependencies if "skip_reason" not in one]
    found = [
        f"{one['name']} {one['version']}: {hit['id']}, fixed in {', '.join(hit['fix_versions']) or 'no version'}"
        for one in audited
        for hit in one["vulns"]
    ]
    if not audited:
        return NOT_AUDITED, [f"not audited: none of {len(skipped)} packages could be looked up; this needs PyPI itself"]
    said = [*found, f"{len(audited)} packages looked up, {len(found)} known vulnerabilities"]
    if skipped:
        said.append(f"not looked up: {', '.join(sorted(skipped))}")
    return int(bool(found)), said


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--local", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        code, said = verdict(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        code, said = NOT_AUDITED, [f"not audited: the index cannot be reached ({last[0][:200]})"]
    print("\n".join(said))
    return code


if __name__ == "__main__":
    sys.exit(main())
