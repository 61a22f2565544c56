"""Print what microsfl needs besides torch, with the extras that are named: for a role that computes nothing."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
wanted = [*project["dependencies"], *(one for extra in sys.argv[1:] for one in project["optional-dependencies"][extra])]
sys.stdout.write("".join(f"{one}\n" for one in wanted if not re.match(r"torch\b", one)))
