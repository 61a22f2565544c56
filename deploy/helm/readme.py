"""Write the table of values in the chart's README, from values.yaml and its schema: python -m deploy.helm.readme"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "microsfl"
BEGIN, END = "<!-- values -->\n", "<!-- end of values -->\n"

Json = dict[str, Any]


def table(values: Json, schema: Json) -> str:
    """A row for each value that can be given."""
    rows = ["| value | default | meaning |\n", "| --- | --- | --- |\n"]
    for path, default, part in _leaves(values, schema, ""):
        allowed = f" One of {', '.join(f'`{one}`' for one in part['enum'])}." if "enum" in part else ""
        rows.append(f"| `{path}` | `{json.dumps(default)}` | {part['description']}{allowed} |\n")
    return "".join(rows)


def _leaves(values: Json, schema: Json, prefix: str) -> Iterator[tuple[str, Any, Json]]:
    for name, default in values.items():
        part = schema["properties"][name]
        if part.get("additionalProperties") is False and "requests" not in part["properties"]:
            yield from _leaves(default, part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default, part


def main() -> None:
    file = CHART / "README.md"
    before, _, rest = file.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    file.write_text(f"{before}{BEGIN}{table(values, schema)}{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
