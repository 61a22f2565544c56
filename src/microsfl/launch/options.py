"""Flags of the role commands, made from the settings classes in `config.py`.

A value comes from the first of: flag, environment (`MICROSFL_<NAME>`), file (`--config`, in the table named after the
role), default. That order is click's own: command line, environment, `default_map`, default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from ..config import ProcessSettings
from ..errors import InvalidSetting, UnknownSetting, did_you_mean
from ..process import end_with_parent

ROLES = ("coordinator", "split-server", "fed-server", "client")


def _not_simulated(context: click.Context, _: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    if context.params.get("simulate"):  # it is eager, so it was read before
        raise click.UsageError("--simulate is for a run in this process, --coordinator for one on other machines.")
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--coordinator: '{url}' is not a URL; write it like http://host:8000.")
    return url.rstrip("/")


on_coordinator = click.option(
    "--coordinator",
    metavar="URL",
    callback=_not_simulated,
    help="On a coordinator that is there, with the servers and clients that others started. Stopped, the run goes on "
    "there, and the same command follows it again.",
)

Settings = TypeVar("Settings", bound=ProcessSettings)
Main = Callable[[Settings], None]


def role_command(group: click.Group, role: str, settings: type[Settings]) -> Callable[[Main[Settings]], click.Command]:
    """Decorate `function(settings)` as the command `role` of `group`, with a flag for each setting."""

    def decorate(function: Main[Settings]) -> click.Command:
        def start(**given: Any) -> None:
            parsed = settings.parse({name: value for name, value in given.items() if value is not None})
            if parsed.exit_with_parent:  # before the imports, during which the parent may be gone already
                end_with_parent()
            function(parsed)

        options = [option_of(name, field) for name, field in settings.model_fields.items()]
        command = click.Command(role, callback=start, params=[*options, _file(role, settings)], help=function.__doc__)
        group.add_command(command)
        return command

    return decorate


def read_role_table(file: Path, role: str, settings: type[ProcessSettings]) -> dict[str, Any]:
    """The table of `role` in a TOML file; empty when the file has none.

    Raises:
        InvalidSetting: when the file is not TOML, or the role's entry is not a table.
        UnknownSetting: for a table that is no role's, or a key that is no setting of the role.
    """
    tables = read_toml(file)
    _check_names(tables, ROLES, f"{file}: [{{}}] is no role.")
    table = tables.get(role, {})
    if not isinstance(table, dict):
        raise InvalidSetting(f"{file}: {role} must be a table, [{role}].")
    _check_names(table, settings.model_fields, f"{file}: '{{}}' in [{role}] is not a setting.")
    return {name: _listed(settings.model_fields[name], value) for name, value in table.items()}


def read_toml(file: Path) -> dict[str, Any]:
    """The file's tables.

    Raises:
        InvalidSetting: when it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(f"{file} cannot be read as TOML: {error}.") from None


def to_flags(settings: ProcessSettings) -> list[str]:
    """The flags that give a role these settings, for all that were set explicitly."""
    flags: list[str] = []
    for name in sorted(settings.model_fields_set):
        value, flag = getattr(settings, name), name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            flags += [f"--{flag}={one}" for one in value]
        elif value is not None:
            flags.append(f"--{flag}={value}")
    return flags


def option_of(name: str, field: FieldInfo) -> click.Option:
    """The flag of a setting."""
    flag = f"--{name.replace('_', '-')}"
    common: dict[str, Any] = {
        **({"required": True} if field.is_required() else {"default": field.default}),
        "help": field.description,
        "envvar": f"MICROSFL_{name.upper()}",
        "show_envvar": True,
        "show_default": not field.is_required() and field.default not in (None, ()),
    }
    if field.annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], **common)
    if _is_list(field):
        common["help"] += " Several: comma separated, or the flag repeated."
        return click.Option(
            [flag], type=click.UNPROCESSED, multiple=True, callback=_split, metavar="TEXT[,…]", **common
        )
    # The settings class checks the value, whichever place it came from.
    return click.Option([flag], type=click.UNPROCESSED, metavar=_metavar(field), **common)


def _file(role: str, settings: type[ProcessSettings]) -> click.Option:
    def load(context: click.Context, _: click.Parameter, file: Path | None) -> None:
        if file is not None:
            context.default_map = read_role_table(file, role, settings)

    return click.Option(
        ["--config"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=load,
        envvar="MICROSFL_CONFIG",
        show_envvar=True,
        help=f"TOML file with these settings in the table [{role}]; flags and environment go before it.",
    )


def _split(_: click.Context, __: click.Parameter, given: Iterable[Any]) -> tuple[str, ...]:
    return tuple(part.strip() for value in given for part in str(value).split(",") if part.strip())


def _check_names(given: Iterable[str], known: Iterable[str], complaint: str) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            raise UnknownSetting(complaint.format(name) + did_you_mean(name, names))


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _listed(field: FieldInfo, value: Any) -> Any:
    return [value] if _is_list(field) and not isinstance(value, list) else value


def _metavar(field: FieldInfo) -> str:
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return f"[{'|'.join(choices)}]"
    return {int: "INTEGER", float: "NUMBER"}.get(field.annotation, "TEXT")  # type: ignore[arg-type]
