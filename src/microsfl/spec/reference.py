"""Every setting of a run with its default, meaning and allowed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import AVERAGES, DATASETS, MODELS, OPTIMIZERS, PARTITIONS, REDUCTIONS, SERVER_OPTIMIZERS, TRAITS, RunSpec

OWN = "package.module:function"
OPTIMIZER = f"name: {', '.join(OPTIMIZERS)}; lr: number > 0; any further option of that torch.optim class"
DEVICES = "cpu, cuda, cuda:0, cuda:1, …, mps, auto"

# What a validator checks and the schema cannot tell.
ALLOWED = {
    "run.name": "1 to 64 letters, digits, '-', '_' or single dots, starting with a letter or a digit",
    "data.dataset": ", ".join((*DATASETS, OWN)),
    "data.partition": ", ".join(PARTITIONS),
    "model.name": ", ".join((*MODELS, OWN)),
    "model.cut": "auto, [front, body], or [front] when u_shaped = false",
    "strategy.name": ", ".join(TRAITS),
    "strategy.reduce": ", ".join(REDUCTIONS),
    "strategy.body_optimizer": OPTIMIZER,
    "strategy.client_optimizer": OPTIMIZER,
    "strategy.average": ", ".join(AVERAGES),
    "strategy.server_optimizer": f"name: {', '.join(SERVER_OPTIMIZERS)}; lr, beta1, beta2, tau: numbers",
    "model.front_sha256": "not set, 64 hexadecimal digits",
    "servers.device": DEVICES,
    "servers.client_device": DEVICES,
    "ray.resources": "names with a number > 0 each, as {tpu = 1}",
    "store.body": "auto, file:///absolute/folder, s3://bucket/prefix",
    "store.client": "auto, file:///absolute/folder, s3://bucket/prefix",
    "records.url": "auto, an SQLAlchemy URL as sqlite:////absolute/file.db",
}


@dataclass(frozen=True)
class Entry:
    """One setting. `default` is a JSON value; None stands for "not set"."""

    name: str
    default: Any
    description: str
    allowed: str


def settings_reference() -> list[Entry]:
    """All settings of a run, in the order of the configuration file."""
    definitions = RunSpec.model_json_schema()["$defs"]
    entries = []
    for table, model in RunSpec():
        properties = definitions[type(model).__name__]["properties"]
        for key, default in model.model_dump(mode="json").items():
            name, schema = f"{table}.{key}", properties[key]
            entries.append(Entry(name, default, schema["description"], ALLOWED.get(name) or allowed_values(schema)))
    return entries


def allowed_values(schema: dict[str, Any]) -> str:
    """The allowed values that a JSON schema describes, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed_values(one) for one in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    match schema["type"]:
        case "array":
            return f"a list, each {allowed_values(schema['items'])}" if "items" in schema else "a list"
        case "integer" | "number" as kind:
            return _range("whole number" if kind == "integer" else "number", schema)
        case kind:
            return {"boolean": "true, false", "null": "not set", "string": "text"}[kind]


def _range(kind: str, schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:,}" for name, sign in signs.items() if name in schema]
    return f"{kind} {' and '.join(bounds)}".rstrip()
