"""Writes cli, endpoints, errors, metrics and settings.md of docs/reference/ from the code: `python docs/generate.py`.

A test runs `pages` and compares, so that a new error or setting without its row here does not pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import tomli_w
from starlette.applications import Starlette

from microsfl.cli import cli
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
from microsfl.records import Records
from microsfl.services import coordinator, coordinator_endpoints, fed_server, split_server
from microsfl.services.coordinator_points import ENDED_RUNS
from microsfl.services.gate import Endpoints
from microsfl.services.meter import with_paths
from microsfl.services.replica import create_app
from microsfl.store.objects import open_store
from microsfl.telemetry.catalog import METRICS
from microsfl.telemetry.histogram import REDUCE_BOUNDS, REQUEST_BOUNDS
from microsfl.trust.scopes import GRANTS, Role, Scope

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
    "unauthenticated": "Log in, or show the credential of this coordinator: `microsfl enrol` makes one of an "
    "invitation. If it was revoked, ask for another invitation.",
    "forbidden": "Ask an operator for an invitation with the role, the clients or the run that the message names.",
    "over_norm": "At a client that is in order: use a smaller learning rate, or raise `limits.max_norm` or "
    "`limits.max_update_norm`. Otherwise look at what this client sends.",
    "over_quota": "Raise `limits.batches_per_round` where clients have that much data. An optimizer's state is bounded "
    "by the weights that it is of.",
    "too_many_requests": "Come again after the seconds in `Retry-After`, as microsfl's own client does; or raise "
    "`max_requests_per_caller` or `max_requests_per_s` on the server.",
    "overloaded": "Come again after the seconds in `Retry-After`, as microsfl's own client does; start more split "
    "servers, or raise `max_requests` or `max_connections`.",
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
    "unsafe_connection": "Do what the message says; [TLS](../guides/security.md#tls) has the whole picture. A "
    "process raises it about a server that it calls; no server answers with it.",
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
PEM = "a file in PEM"
PATHS = "a list of package.module:function"
ALLOWED = {
    "host": "an IPv4 or IPv6 address, or a host name",
    "tls_cert": PEM,
    "tls_key": PEM,
    "tls_client_ca": PEM,
    "tls_ca": PEM,
    "tls_client_cert": PEM,
    "tls_client_key": PEM,
    "metrics_host": "an IPv4 or IPv6 address, or a host name",
    "otel_endpoint": URL,
    "credential": "a file that nobody else may read",
    "federation": "a folder that nobody else may read",
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

# Values of labels, where they are not said with the metric.
LABELS = {
    "area": "the area of the store: `body` (split servers) or `client` (fed server)",
    "verb": "`write`, `create`, `read`, `look_up`, `list` or `delete`",
    "path": "the route, as `/v1/runs/{run}`; `other` for a path that leads nowhere",
    "method": "the HTTP method; `other` for an unusual one",
    "status": "the HTTP status",
    "phase": "on a server `queue`, `decode`, `compute`, `store` or `encode`; of a client those of "
    "[the profile](../guides/profiling.md#a-client)",
    "cache": "`graphs`, `versions` or `write_behind`",
    "state": "`created`, `waiting`, `running`, `finished`, `failed` or `stopped`",
    "alive": "`true` or `false`",
    "run": "the run's name",
    "role": "`coordinator`, `split-server`, `fed-server` or `client`",
    "call": "the path of the call, as `/v1/reduce`",
    "kind": "`train` or `evaluate`",
    "outcome": "`done`, `failed`, `abandoned` or `broken`",
    "to": "`coordinator`, or `server` for split servers and the fed server",
    "version": "of microsfl",
    "python": "its version",
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
surroundings failed. A status of 4xx means that sending the same request again does not help, but for 429; a client
tries again after that and after a 5xx, on the next server in turn, and not before the time that `Retry-After` names.

{table}

An unknown path answers 404 with the code `no_such_path`, a known path with another method 405 with
`method_not_allowed`; they have no class of their own.
"""

CLI = """\
# Command line

{generated}

`--help` of each command says the same. [The guide](../guides/terminal.md) shows how to look at runs from a terminal,
what `--json` prints, and how to install completion.

{commands}

## Exit codes

{codes}

An error is one line on standard error, `microsfl: error: …`, without a traceback; a traceback is a bug. Which error has
which code is in [errors.md](errors.md). What a command prints for people or with `--json` goes to standard output,
progress and errors go to standard error.

{details}
"""

# What the shell is told, and when.
EXIT_CODES = (
    (0, "Done. `status --follow`: the run finished. `up` and the roles: they were told to end, by Ctrl-C or SIGTERM."),
    (
        1,
        "The surroundings failed: a store, a database, a coordinator, a process. The run failed or was stopped (`run`, "
        "`resume`, `status --follow`, there also when its processes are gone); no cell finished (`compare`); a file is "
        "damaged or missing (`verify`); there is a problem (`doctor`); whoever read the output has gone.",
    ),
    (2, "The input is wrong: a flag, a setting, a file, the name of a run. Trying again does not help."),
    (130, "Ctrl-C (SIGINT), but for `up` and the roles. `run` has stopped its run and ended its processes by then."),
    (
        143,
        "SIGTERM, but for `up` and the roles. `run`, `resume` and `compare` end their processes first; other commands "
        "end by the signal itself, which a shell reports with the same number.",
    ),
)

METRICS_PAGE = """\
# Metrics

{generated}

Every service answers `GET /metrics` in the text format of Prometheus, and in OpenMetrics when asked for it: the
coordinator, each split server and the fed server on the port that it listens on anyhow. A client process opens no port;
with `metrics_port` it opens one for its metrics alone. The names below are stable. Times are in seconds, sizes in
bytes, and the name of a counter ends in `_total`; counters begin at 0 when their process does.
[The guide to operating](../guides/operating.md) says how to collect them and what to look at.

{table}

A histogram has `_bucket`, `_sum` and `_count`. Its bounds are {request} seconds; those of `microsfl_reduce_seconds`
and `microsfl_data_plane_seconds` are {reduce}. Metrics of a run are shown for every run that has not ended and for the
{ended} newest of the others; when a run is gone, so are they.

Where the system allows it, each process also has the usual `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_start_time_seconds`, `process_open_fds` and
`process_max_fds`.

## Labels

{labels}
"""

ENDPOINTS_PAGE = """\
# Endpoints

{generated}

Every endpoint of every service, and who may use it. A request says who sends it with a token, in a header
`Authorization: Bearer …`, which the coordinator gives for a credential
([who is who](../guides/security.md#who-is-who)). A token is for one kind of service; what is shown to one opens none of
the others. What is asked and answered is in [wire.md](wire.md).

A caller needs any of the scopes of an endpoint; the last column has the roles that have one. Besides that,

- a path with a run's name is open to those who are invited to that run;
- whoever acts for a participant, as by registering, polling, reporting, or sending units and updates, must be allowed
  to act as it;
- in a browser, the dashboard's session is the token for the coordinator, and a page of another origin can change
  nothing.

An endpoint without a scope is served by no process: each checks its own table when it starts. A service that was
started with `--allow-anybody` lets everybody do everything.

## Scopes

{scopes}

{services}

## Client

A client process listens nowhere. With `metrics_port` it answers `GET /metrics` on a port of its own, to everybody who
reaches that: by default, to nobody but its own machine.
"""

# What each scope is for.
SCOPES = {
    Scope.PUBLIC: "nothing is needed; where a secret is, it is in the body",
    Scope.READ: "look at runs, rounds, participants and metrics",
    Scope.CONTROL: "create, start, stop and resume runs",
    Scope.ADMIN: "invite and revoke, and log a browser in by a link",
    Scope.REGISTER: "say that one is there, as oneself",
    Scope.TRAIN: "take tasks and hand in results, as oneself, in the runs that one is invited to",
    Scope.UNITS: "send units of work to split servers, as oneself",
    Scope.MODEL: "have the weights of the body",
    Scope.CLIENT_SIDE: "have the weights of front and tail, and send one's own",
    Scope.DOWNLOAD: "have the weights of one run, for a minute: the token is in the address of a link",
    Scope.DIRECT: "prepare, close and commit rounds",
}
ROLE_NAMES = {Role.LINK: "a link"}

SETTINGS = """\
# Settings

{generated}

A **run** has a specification that never changes after the run was created. Its tables `run`, `data`, `model`,
`strategy`, `privacy`, `wire` and `limits` say what is computed; `servers`, `store` and `records` say where
`microsfl run` does it. A **process** has settings of its own, such as the port it listens on; they hold for every run
that it serves.

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
        REFERENCE / "cli.md": CLI.format(
            generated=GENERATED,
            commands=table(("command", "what it does"), [(_link(name), _first(one)) for name, one in _commands()]),
            codes=table(("code", "when"), EXIT_CODES),
            details="\n\n".join(command_section(name, command) for name, command in _commands()),
        ),
        REFERENCE / "endpoints.md": ENDPOINTS_PAGE.format(
            generated=GENERATED,
            scopes=table(
                ("scope", "what it is for", "roles"), [(f"`{one}`", SCOPES[one], _roles((one,))) for one in Scope]
            ),
            services="\n\n".join(f"## {title}\n\n{endpoints_table(*service)}" for title, service in services().items()),
        ),
        REFERENCE / "errors.md": ERRORS.format(generated=GENERATED, table=errors_table()),
        REFERENCE / "metrics.md": METRICS_PAGE.format(
            generated=GENERATED,
            table=metrics_table(),
            labels=labels_table(),
            request=", ".join(f"{bound:g}" for bound in REQUEST_BOUNDS),
            reduce=", ".join(f"{bound:g}" for bound in REDUCE_BOUNDS),
            ended=ENDED_RUNS,
        ),
        REFERENCE / "settings.md": SETTINGS.format(
            generated=GENERATED, run=run_settings_table(), process=process_settings_table()
        ),
    }


def _commands() -> list[tuple[str, click.Command]]:
    """All of them, those of a group after it."""
    found: list[tuple[str, click.Command]] = []
    for name, command in sorted(cli.commands.items()):
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", one) for inner, one in sorted(command.commands.items())]
    return found


def _link(command: str) -> str:
    return f"[`{command}`](#{command.replace(' ', '-')})"


def _first(command: click.Command) -> str:
    return (command.help or "").split("\n\n")[0].replace("\n", " ").strip()


def command_section(name: str, command: click.Command) -> str:
    """Usage, help and options of a command."""
    context = click.Context(command, info_name=f"microsfl {name}")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    records = [one for parameter in command.get_params(context) if (one := parameter.get_help_record(context))]
    rows = [
        (f"`{flags}`", " ".join(meaning.split())) for flags, meaning in records if meaning and "--help" not in flags
    ]
    options = table(("option", "meaning"), rows) if rows else "It has no options."
    return "\n\n".join([f"## {name}", f"`{usage}`", *(_escaped(one) for one in paragraphs), options])


def _escaped(text: str) -> str:
    """[compare] in a help text is no link."""
    return text.replace("[", "\\[").replace("]", "\\]")


def services() -> dict[str, tuple[Endpoints, set[tuple[str, str]]]]:
    """Each service's table of scopes, and what it really serves."""
    store, at = open_store("memory://"), "memory://"
    split = split_server.create_replica(SplitServerSettings(store_url=at), store)
    fed = fed_server.create_replica(FedServerSettings(store_url=at), store)
    with TemporaryDirectory() as folder, closing(Records(f"sqlite:///{folder}/records.db")) as records:
        there = {
            "Coordinator": (coordinator_endpoints.ENDPOINTS, served(coordinator.create_app(records))),
            "Split server": (split.endpoints, served(create_app(split, 1))),
            "Fed server": (fed.endpoints, served(create_app(fed, 1))),
        }
    split.close()
    return there


def served(app: Starlette) -> set[tuple[str, str]]:
    """(method, path) of every route."""
    return {
        (method, route.path)
        for route in with_paths(app.routes)
        for method in (getattr(route, "methods", None) or {"GET"}) - {"HEAD"}
    }


def endpoints_table(scopes: Endpoints, there: set[tuple[str, str]]) -> str:
    """A row for each endpoint. Raises ValueError for one without a scope, or a scope of none."""
    if scopes.keys() != there:
        raise ValueError(f"Endpoints and their scopes differ: {sorted(scopes.keys() ^ there)}.")
    rows = [
        (f"`{method}`", f"`{path}`", ", ".join(f"`{one}`" for one in wanted), _roles(wanted))
        for (method, path), wanted in scopes.items()
    ]
    return table(("method", "path", "scope", "roles"), rows)


def _roles(wanted: Iterable[Scope]) -> str:
    if Scope.PUBLIC in wanted:
        return "everybody"
    return ", ".join(ROLE_NAMES.get(role, role.value) for role in Role if GRANTS[role] & {*wanted})


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


def metrics_table() -> str:
    """A row for each metric."""
    rows = [
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), ", ".join(one.of), one.help)
        for one in METRICS
    ]
    return table(("metric", "type", "labels", "roles", "meaning"), rows)


def labels_table() -> str:
    """A row for each label. Raises ValueError for one without a meaning, or a meaning without a label."""
    used = dict.fromkeys(label for one in METRICS for label in one.labels)
    if used.keys() != LABELS.keys():
        raise ValueError(f"Labels and their meanings differ: {sorted(used.keys() ^ LABELS.keys())}.")
    return table(("label", "values"), [(f"`{label}`", LABELS[label]) for label in used])


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
