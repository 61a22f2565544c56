"""Stores behind one URL, on obstore: `file:///folder` and `memory://`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore

from ..errors import InvalidSetting, StoreNotWritable, StoreUnavailable

_KEY = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


class ObjectStore:
    """The verbs of `store.verbs.Store` on an obstore back end."""

    def __init__(self, backend: LocalStore | MemoryStore, url: str) -> None:
        self.backend = backend
        self.url = url

    def put(self, key: str, value: bytes) -> None:
        try:
            obstore.put(self.backend, _checked(key), value, use_multipart=False)
        except (BaseError, OSError) as error:
            raise self._unavailable("write", key, error) from error

    def create(self, key: str, value: bytes) -> bool:
        try:
            obstore.put(self.backend, _checked(key), value, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise self._unavailable("create", key, error) from error
        return True

    def get(self, key: str) -> bytes:
        try:
            return bytes(obstore.get(self.backend, _checked(key)).bytes())
        except (NotFoundError, FileNotFoundError):
            raise FileNotFoundError(key) from None
        except (BaseError, OSError) as error:
            raise self._unavailable("read", key, error) from error

    def exists(self, key: str) -> bool:
        try:
            obstore.head(self.backend, _checked(key))
        except (NotFoundError, FileNotFoundError):
            return False
        except (BaseError, OSError) as error:
            raise self._unavailable("look up", key, error) from error
        return True

    def list(self, prefix: str) -> Iterator[str]:
        try:
            pages = list(obstore.list(self.backend, _checked(prefix)))
        except (NotFoundError, FileNotFoundError):
            return iter(())
        except (BaseError, OSError) as error:
            raise self._unavailable("list", prefix, error) from error
        return iter(sorted(entry["path"] for page in pages for entry in page))

    def delete(self, key: str) -> None:
        try:
            obstore.delete(self.backend, _checked(key))
        except (NotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise self._unavailable("delete", key, error) from error

    def probe(self) -> None:
        """Write and remove one small value.

        Raises:
            StoreNotWritable: when that fails, naming the URL.
        """
        key = f"probe-{uuid.uuid4().hex}"
        try:
            self.create(key, b"microsfl")
            self.delete(key)
        except StoreUnavailable as error:
            raise StoreNotWritable(f"The store {self.url} cannot be written: {error}") from None

    def _unavailable(self, verb: str, key: str, error: Exception) -> StoreUnavailable:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return StoreUnavailable(f"Cannot {verb} '{key}' in {self.url}: {reason:.200}")


def open_store(url: str) -> ObjectStore:
    """The store at `url`.

    Raises:
        InvalidSetting: for a URL of no known kind.
        StoreNotWritable: when a file:// folder cannot be made.
    """
    parts = urlsplit(url)
    if url == "memory://":
        return ObjectStore(MemoryStore(), url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return ObjectStore(_local(Path(unquote(parts.path)), url), url)
    raise InvalidSetting(
        f"Store URL '{url:.100}' is not known; use file:///absolute/folder, or memory:// within one process."
    )


def _local(folder: Path, url: str) -> LocalStore:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder)
    except (OSError, BaseError) as error:
        raise StoreNotWritable(f"The store {url} cannot be made: {str(error).splitlines()[0]}") from None


def _checked(key: str) -> str:
    """Keys are made from checked ids; this is the last line of defence against one that leaves the store."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"'{key:.100}' is no store key")
    return key
