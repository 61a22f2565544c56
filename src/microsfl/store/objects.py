"""Stores behind the verbs of `store.verbs`: a local folder, memory, S3."""

from __future__ import annotations

import copy
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import MemoryStore

from ..errors import InvalidSetting, StoreNotWritable, StoreUnavailable
from . import s3
from .backends import Backend, Obstore
from .folder import Folder, make_folder
from .options import FolderOptions, S3Options, shown
from .retry import NO_RETRY, Failure, Retry
from .tally import Tally

T = TypeVar("T")

_KEY = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


class ObjectStore:
    """The verbs of `store.verbs.Store` on a back end.

    Every verb raises StoreUnavailable when the back end fails and, where that may pass, the retry budget is spent. The
    message names verb, key, URL and reason.
    """

    def __init__(self, backend: Backend, url: str, retry: Retry = NO_RETRY) -> None:
        self.backend = backend
        self.url = url
        self.retry = retry
        self.tally = Tally()

    @property
    def readers(self) -> int:
        """Reads at a time that are worth it: more than 1 where to read is to wait."""
        return self.backend.readers

    def put(self, key: str, value: bytes) -> None:
        self._try("write", key, self.backend.put, value, writes=True)

    def create(self, key: str, value: bytes) -> bool:
        return self._try("create", key, self.backend.create, value, writes=True)

    def get(self, key: str) -> bytes:
        return self._try("read", key, self.backend.get)

    def read_into(self, key: str, buffer: memoryview) -> int:
        return self._try("read", key, self.backend.read_into, buffer)

    def size(self, key: str) -> int:
        return self._try("look up", key, self.backend.size)

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        try:
            return iter(sorted(self._try("list", prefix, self.backend.list)))
        except FileNotFoundError:
            return iter(())

    def delete(self, key: str) -> None:
        try:
            self._try("delete", key, self.backend.delete)
        except FileNotFoundError:
            return

    def probe(self, within_s: float | None = None) -> None:
        """Use every verb on one small value, and see that a second create of it is refused.

        Args:
            within_s: a shorter retry budget than the store's own.

        Raises:
            StoreNotWritable: when the store refuses, or does not keep create-if-absent; naming URL and reason.
            StoreUnavailable: when it does not answer, or only with failures that may pass.
        """
        patient = copy.copy(self)
        if within_s is not None:
            patient.retry = Retry(min(within_s, self.retry.budget_s))
        try:
            patient._probe(f"probe-{uuid.uuid4().hex}")
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, Exception) and self.backend.failure(cause).passes:
                raise
            raise StoreNotWritable(f"The store {self.url} cannot be used: {error}") from None

    def _probe(self, key: str) -> None:
        list(self.list(key))
        self.exists(key)
        first, second = b"first", b"second"
        # The first create may say False: when its answer was lost, the try after it finds what it wrote.
        self.create(key, first)
        try:
            twice = self.create(key, second)
            kept = self.get(key)
        finally:
            self.delete(key)
        if twice or kept != first:
            raise StoreNotWritable(
                f"The store {self.url} cannot be used: it lets a key be created twice (it does not keep "
                "'If-None-Match: *'), and then a contribution could be lost or count twice. Use a store that has "
                "conditional writes."
            )

    def _try(self, verb: str, key: str, call: Callable[..., T], *arguments: Any, writes: bool = False) -> T:
        """call(key, …), again while it fails in a way that passes and the budget lasts.

        Raises:
            FileNotFoundError: when a key that is read is not there.
            StoreUnavailable.
        """
        _check(key)
        began, tries, is_lost = time.monotonic(), 0, False
        try:
            while True:
                tries += 1
                try:
                    return call(key, *arguments)
                except (BaseError, OSError) as error:
                    if not writes and self.backend.is_missing(error):
                        raise FileNotFoundError(key) from None
                    failed, spent_s = self.backend.failure(error), time.monotonic() - began
                    pause_s = self.retry.pause_s(tries, spent_s) if failed.passes else None
                    if pause_s is None:
                        is_lost = True
                        raise StoreUnavailable(self._complaint(verb, key, failed, tries, spent_s)) from error
                time.sleep(pause_s)
        finally:
            self.tally.add(verb, time.monotonic() - began, tries, is_lost)

    def _complaint(self, verb: str, key: str, failed: Failure, tries: int, spent_s: float) -> str:
        after = f" (after {tries} tries in {spent_s:.1f} s)" if tries > 1 else ""
        return f"Cannot {verb} '{key}' in {self.url}: {failed.reason}{after}"


def open_store(url: str, environment: Mapping[str, str] | None = None) -> ObjectStore:
    """The store at `url`: file:///folder[?fsync=true], s3://bucket/prefix[?retry_s=30&timeout_s=30] or memory://.

    Args:
        environment: where S3's endpoint, region and credentials are; default: this process's.

    Raises:
        InvalidSetting: for a URL of no known kind, an option that it does not have, a wrong S3 environment.
        StoreNotWritable: when a file:// folder cannot be made.
    """
    parts = urlsplit(url)
    if url == "memory://":
        return ObjectStore(Obstore(MemoryStore()), url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/") and not parts.fragment:
        return _folder_store(Path(unquote(parts.path)), url, FolderOptions.parse(url, parts.query))
    prefix = parts.path.strip("/")
    if parts.scheme == "s3" and s3.BUCKET.fullmatch(parts.netloc) and (not prefix or _KEY.fullmatch(prefix)):
        options = S3Options.parse(url, parts.query)
        client = s3.connect(parts.netloc, prefix, options.timeout_s, os.environ if environment is None else environment)
        return ObjectStore(s3.Bucket(client), url, Retry(options.retry_s))
    raise InvalidSetting(
        f"Store URL '{shown(url)}' is not known; use file:///absolute/folder, s3://bucket/prefix, or memory:// within "
        "one process."
    )


def _folder_store(folder: Path, url: str, options: FolderOptions) -> ObjectStore:
    try:
        if options.fsync:
            make_folder(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreNotWritable(f"The store {url} cannot be made: {str(error).splitlines()[0]}") from None
    return ObjectStore(Folder(folder, fsync=options.fsync), url)


def _check(key: str) -> None:
    """Keys are made from checked ids; this is the last line of defence against one that leaves the store."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"'{key:.100}' is no store key")
