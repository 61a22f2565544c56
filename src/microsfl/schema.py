"""Settings as tables of pydantic: their dotted names, assignments to them, and errors in their terms."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .errors import InvalidSetting, UnknownSetting


class Table(BaseModel):
    """A table of the configuration file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted name, pydantic FieldInfo) of every setting, in order; an optimizer's tables count as one setting."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            yield from settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def assign(values: dict[str, Any], assignment: str) -> None:
    """Set `key=value` (as after `--set`) in nested tables; the value is read as TOML, else taken as text.

    Raises:
        InvalidSetting: when it is not of the form key=value.
    """
    key, equals, text = assignment.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise InvalidSetting(f"'{assignment}' is not of the form table.key=value, as in run.rounds=10.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = text.strip()
    place(values, key.strip(), value)


def place(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of `table.key` in nested tables.

    Raises:
        InvalidSetting: when the key is none, or goes through a value.
    """
    path = key.split(".")
    if not all(path):
        raise InvalidSetting(f"'{key}' is not of the form table.key, as in run.rounds.")
    table = values
    for name in path[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InvalidSetting(f"'{key}': '{name}' is a value, not a table.")
    table[path[-1]] = value


def setting_error(root: type[BaseModel], error: ValidationError, listed_by: str) -> UnknownSetting | InvalidSetting:
    """The first thing that pydantic found wrong, in the words of whoever set it.

    Args:
        listed_by: the command that shows all settings.
    """
    errors = error.errors()
    first, name = errors[0], _place(errors[0])
    if first["type"] == "extra_forbidden":
        return UnknownSetting(f"'{name}' is not a setting.{_nearest(root, name)} `{listed_by}` lists them all.")
    # A value that may be of several types has an error for each of them.
    messages = [str(one["msg"]).removeprefix("Value error, ") for one in errors if _place(one) == name]
    message = ", or ".join(dict.fromkeys(messages))
    given = first.get("input")
    shown = "" if isinstance(given, BaseModel | dict) or "is unknown" in message else f" (got {given!r:.60})"
    return InvalidSetting(f"{name}: {message}{shown}" if name else message)


def _place(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"] if not _is_union_tag(part))


def _is_union_tag(part: int | str) -> bool:
    """Pydantic adds the tried alternative of a union to the place of an error."""
    return (isinstance(part, str) and not part.isidentifier()) or part in ("int", "constrained-int", "tuple")


def _nearest(root: type[BaseModel], name: str) -> str:
    names = [known for known, _ in settings(root)]
    names += {known.split(".", 1)[0] for known in names}
    leaf = name.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    same_leaf = [
        known for known in names if difflib.SequenceMatcher(None, known.rsplit(".", 1)[-1], leaf).ratio() > 0.8
    ]
    hint = (near or same_leaf)[:1]
    return f" Did you mean '{hint[0]}'?" if hint else ""
