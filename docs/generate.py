"""Writes docs/reference/errors.md and docs/reference/settings.md from the code: `python docs/generate.py`.

A test runs `pages` and compares, so that a new error or setting without its row here does not pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from microsfl.config import (
    ClientSettings,
    CoordinatorSettings,
    FedServerSettings,
    ProcessSettings,
    SplitServerSettings,
)
from microsfl.errors import all_errors
from microsfl.launch.reference import allowed_values as allowed_by_schema
from microsfl.launch.reference import settings_reference

REFERENCE = Path(__file__).parent / "reference"

# What to do about each error, by code.
ADVICE = {
    "internal": "A bug. The log of the process that answered has the details; please report it with them.",
    "message_too_slow": "Send it again; on a slow line, in smaller units (`strategy.unit`).",
    "unsupported_format": "Use the version of microsfl that wrote the run, or start a new run under another name.",
    "invalid_input": "Correct what the message names.",
    "unknown_setting": "Use the name that the message suggests; `microsfl config --show` lists the settings of a run.",
    "invalid_setting": "Use a value that the message allows; all of them are in [settings.md](settings.md).",
    "invalid_id": "Use 1 to 64 letters, digits, `-`, `_` or single dots, starting with a letter or a digit.",
    "unknown_layer": "Name one of the layers that the message lists in `model.cut`.",
    "invalid_cut": "Change `model.cut`, or the stages that the model declares, as the message says.",
    "model_not_allowed": "Whoever runs the process adds the exact import path to its `allow_models` (for a data set: "
    "to the client's `allow_datasets`).",
    "impossible_partition": "Use fewer clients, a larger `data.alpha`, fewer shards or another seed.",
    "dataset_not_found": "Point `data.path` (at a client: `path`) to the folder that has the files named.",
    "malformed_message": "Send what [wire.md](wire.md) describes; another version may write another format.",
    "message_too_large": "Send smaller batches or units, or raise `max_body_mb` on the server. The limits on headers, "
    "numbers of tensors and JSON bodies are fixed.",
    "tensor_mismatch": "Build the part from the same specification on both sides; the message names the tensor and "
    "what it should be.",
    "not_finite": "Use a smaller learning rate, and look for NaN in the data.",
    "cross_origin": "Open the dashboard at the coordinator's own address, and send requests from there.",
    "run_not_found": "Create the run first, or correct its name. From a split server or fed server: its store is not "
    "the one that the run was created in.",
    "version_not_found": "Ask for `newest` or an existing version. When an answer named it: this replica's store is "
    "not the store of the replica that answered.",
    "round_not_found": "Close the rounds before it first; `GET /v1/runs/{run}` says which round is open.",
    "client_not_found": "Register the client, or upload its update, before naming it.",
    "run_exists": "Choose another `run.name`, or send the specification that the run has.",
    "run_not_active": "A `RemoteBody` raises it: start the run, or name one that is running. No server of this version "
    "answers with it.",
    "round_closed": "Go on with the open round, which `GET /v1/runs/{run}` names; a client drops the task.",
    "activations_missing": "Send the backward again with the activations; microsfl's own client does so by itself.",
    "unit_missing": "Send the units of a round in order, each after the answer to the one before, as microsfl's own "
    "client does.",
    "port_in_use": "Choose another `--port`, or `--port 0` for a free one.",
    "store_not_writable": "Check that the place exists, that this process may write there and that there is room.",
    "operation_failed": "Try again later; the message says what failed.",
    "store_unavailable": "Check the store or database that the message names. Clients try again by themselves.",
    "store_corrupt": "Restore the file that the message names from a copy. microsfl does not overwrite it.",
    "unreachable": "Start the server, or correct its address; `retry_s` is how long a client keeps trying.",
    "run_failed": "Read the reason in the message, and `logs/` in the run folder.",
}

ROLES: dict[str, type[ProcessSettings]] = {
    "coordinator": CoordinatorSettings,
    "split-server": SplitServerSettings,
    "fed-server": FedServerSettings,
    "client": ClientSettings,
}

# Allowed values of process settings that a schema cannot tell.
URL = "a URL with http:// or https://"
ID = "1 to 64 letters, digits, `-`, `_` or single dots, starting with a letter or a digit"
PATHS = "a list of package.module:function"
ALLOWED = {
    "host": "an IPv4 or IPv6 address, or a host name",
    "records_url": "an SQLAlchemy URL",
    "id": ID,
    "ids": f"a list of at least one id, each once: {ID}",
    "coordinator": URL,
    "address": URL,
    "store_url": "file:///absolute/folder, s3://bucket/prefix; memory:// for one process alone",
    "allow_models": PATHS,
    "allow_datasets": PATHS,
    "dataset": "digits, mnist, package.module:function",
    "path": "a folder",
    "device": "cpu, cuda, cuda:0, cuda:1, …, mps, auto",
}

GENERATED = "<!-- Written by `python docs/generate.py` from the code. -->"

ERRORS = """\
# Errors

{generated}

Every error that microsfl raises on purpose has one class in `microsfl.errors`, one code and one HTTP status. Its
message names what is wrong and, where it can, what would be right. Over HTTP each of them is the same JSON:

```json
{{"error": {{"code": "round_closed", "message": "Round 3 of run 'demo' is closed."}}}}
```

microsfl's own client turns that back into the same class. On the command line the message stands on one line of
standard error, without a traceback, and the exit code is the one in the table: 2 when the input is wrong, 1 when the
surroundings failed. A status of 4xx means that sending the same request again does not help; a client tries again after
a 5xx, on the next server in turn.

{table}

An unknown path answers 404 with the code `no_such_path`, a known path with another method 405 with
`method_not_allowed`; they have no class of their own.
"""

SETTINGS = """\
# Settings

{generated}

A **run** has a specification that never changes after the run was created. Its tables `run`, `data`, `model`,
`strategy`, `privacy` and `wire` say what is computed; `servers`, `store` and `records` say where `microsfl run` does
it. A **process** has settings of its own, such as the port it listens on; they hold for every run that it serves.

## Settings of a run

From a TOML file and `--set` on top: `microsfl run mnist.toml --set run.rounds=10`. The part before the dot is a table
of the file. `microsfl config --show` prints this list; `microsfl config mnist.toml` prints a specification with every
`auto` that decides the result replaced by its value. An unknown setting is refused with the nearest right name.

{run}

## Settings of a process

Each role is a command, `microsfl coordinator`, `split-server`, `fed-server` or `client`. A setting comes from the first
of: flag (`--store-url`), environment (`MICROSFL_STORE_URL`), file (`--config`, or `MICROSFL_CONFIG`; in the table named
after the role), default. A list is comma separated in a flag or in the environment.

{process}

The client's `retry_s` also says how long it waits for a coordinator that is not there yet.
"""


def pages() -> dict[Path, str]:
    """Path -> content of the generated pages."""
    return {
        REFERENCE / "errors.md": ERRORS.format(generated=GENERATED, table=errors_table()),
        REFERENCE / "settings.md": SETTINGS.format(
            generated=GENERATED, run=run_settings_table(), process=process_settings_table()
        ),
    }


def errors_table() -> str:
    """A row for each class. Raises KeyError for one without advice, ValueError for advice without a class."""
    classes = all_errors()
    unknown = ADVICE.keys() - {cls.code for cls in classes}
    if unknown:
        raise ValueError(f"There is advice for {sorted(unknown)}, which no error has as its code.")
    rows = [
        (f"`{cls.code}`", f"`{cls.__name__}`", cls.status, cls.exit_code, cls.summary, ADVICE[cls.code])
        for cls in classes
    ]
    return table(("code", "class", "status", "exit", "meaning", "what to do"), rows)


def run_settings_table() -> str:
    """A row for each setting of a run."""
    rows = [(f"`{one.name}`", _default(one.default), one.description, one.allowed) for one in settings_reference()]
    return table(("setting", "default", "meaning", "allowed"), rows)


def process_settings_table() -> str:
    """A row for each setting of a process, with the roles that have it; equal ones of several roles share a row."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for role, settings in ROLES.items():
        properties = settings.model_json_schema()["properties"]
        for name, field in settings.model_fields.items():
            allowed = ALLOWED.get(name) or allowed_by_schema(properties[name])
            default = "required" if field.is_required() else _default(field.default)
            found.setdefault((name, field.description or "", allowed), {})[role] = default
    rows = [
        (f"`{name}`", f"`MICROSFL_{name.upper()}`", ", ".join(defaults), _by_role(defaults), meaning, allowed)
        for (name, meaning, allowed), defaults in found.items()
    ]
    return table(("setting", "environment", "roles", "default", "meaning", "allowed"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _by_role(defaults: dict[str, str]) -> str:
    values = list(defaults.values())
    return values[0] if len(set(values)) == 1 else ", ".join(f"{role}: {value}" for role, value in defaults.items())


def _default(value: Any) -> str:
    """As TOML, which is how a file says it."""
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return f"`{{{', '.join(tomli_w.dumps({name: item}).strip() for name, item in value.items())}}}`"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content, "utf-8")
