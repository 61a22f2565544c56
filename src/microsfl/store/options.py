"""What may follow the `?` of a store's URL, so that one string says everything about a store."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Self
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InvalidSetting


def below(url: str, folder: str) -> str:
    """The URL of a folder in a store, with the store's options."""
    place, mark, options = url.partition("?")
    return f"{place.rstrip('/')}/{folder}{mark}{options}"


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, url: str, query: str) -> Self:
        """The options in the query of `url`.

        Raises:
            InvalidSetting: naming the option, and never its value, which may be a secret in the wrong place.
        """
        pairs = parse_qsl(query, keep_blank_values=True)
        doubled = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        try:
            options = cls.model_validate(dict(pairs))
        except ValidationError as error:
            wrong = str(error.errors()[0]["loc"][0])
        else:
            if not doubled:
                return options
            wrong = doubled[0]
        known = ", ".join(f"{name} (default {field.default})" for name, field in cls.model_fields.items())
        raise InvalidSetting(
            f"Store URL '{shown(url)}': '{wrong:.40}' is no option of it, is given twice or has a value that is not "
            f"allowed. Known: {known}."
        )


class FolderOptions(Options):
    fsync: bool = False  # writes are on the disk when they return


class S3Options(Options):
    retry_s: Annotated[float, Field(ge=0, le=3600)] = 30.0  # how long to go on trying; 0: one try
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 30.0  # of one request, transfer included


def shown(url: str) -> str:
    """A URL without what may be a secret: user, password and options."""
    return re.sub(r"//[^/]*@", "//***@", url.partition("?")[0])[:100]
