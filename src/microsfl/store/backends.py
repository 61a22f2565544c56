"""What is below a store: the verbs without a second try, each raising what the system below it raises."""

from __future__ import annotations

from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import MemoryStore, S3Store

from .retry import Failure


class Backend(Protocol):
    """Its keys are checked. readers: see `store.verbs.Store`."""

    readers: int

    def put(self, key: str, value: bytes) -> None: ...

    def create(self, key: str, value: bytes) -> bool: ...

    def get(self, key: str) -> bytes: ...

    def read_into(self, key: str, buffer: memoryview) -> int: ...

    def size(self, key: str) -> int: ...

    def list(self, prefix: str) -> list[str]:
        """Keys below a folder, in any order; none where there is no such folder."""

    def delete(self, key: str) -> None: ...

    def is_missing(self, error: Exception) -> bool:
        """Whether an error says that there is no such key."""

    def failure(self, error: Exception) -> Failure:
        """What any other error means."""


class Obstore:
    """A back end of the obstore library."""

    readers = 1

    def __init__(self, backend: MemoryStore | S3Store) -> None:
        self.backend = backend

    def put(self, key: str, value: bytes) -> None:
        obstore.put(self.backend, key, value, use_multipart=False)

    def create(self, key: str, value: bytes) -> bool:
        try:
            obstore.put(self.backend, key, value, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self.backend, key).bytes())

    def read_into(self, key: str, buffer: memoryview) -> int:
        content = memoryview(obstore.get(self.backend, key).bytes())
        if len(content) > len(buffer):
            raise BufferError(key)
        buffer[: len(content)] = content
        return len(content)

    def size(self, key: str) -> int:
        return obstore.head(self.backend, key)["size"]

    def list(self, prefix: str) -> list[str]:
        return [entry["path"] for page in obstore.list(self.backend, prefix) for entry in page]

    def delete(self, key: str) -> None:
        obstore.delete(self.backend, key)

    def is_missing(self, error: Exception) -> bool:
        return isinstance(error, FileNotFoundError)

    def failure(self, error: Exception) -> Failure:
        lines = str(error).strip().splitlines()
        return Failure(lines[0][:200] if lines else type(error).__name__, passes=False)
