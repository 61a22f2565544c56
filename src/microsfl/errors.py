"""Every error that microsfl raises on purpose: one code, one HTTP status, one public sentence each.

    MicrosflError
    ├── InputError                    the caller is wrong; the command line exits with 2
    │   ├── UnknownSetting  InvalidSetting  InvalidId
    │   ├── UnknownLayer  InvalidCut  ModelNotAllowed  ImpossiblePartition  DatasetNotFound
    │   ├── MalformedMessage  MessageTooLarge  MessageTooSlow  TensorMismatch  NotFinite  OverNorm  OverQuota
    │   ├── Unauthenticated  Forbidden  CrossOrigin  RunNotFound  VersionNotFound  RoundNotFound  ClientNotFound
    │   ├── RunExists  RunNotActive  RoundClosed  ActivationsMissing  UnitMissing  UnsupportedFormat
    │   └── PortInUse  StoreNotWritable  UnsafeConnection
    └── OperationError                the surroundings failed; the command line exits with 1
        └── StoreUnavailable  StoreCorrupt  Unreachable  RunFailed  TooManyRequests  Overloaded

Over HTTP an error is `{"error": {"code": …, "message": …}}` with the status below; `from_wire` turns that back
into the same class on the other side. `docs/reference/errors.md` lists them all (a test compares).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

LONGEST = 1500  # characters of a message that leave the process: it names what was sent, and that may be a megabyte


class MicrosflError(Exception):
    """Base of every error below; `str(error)` is a sentence fit for the user."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    summary: ClassVar[str] = "Something failed that should not have; the log has the details."
    exit_code: ClassVar[int] = 1
    retry_after_s: ClassVar[int] = 0  # what the header `Retry-After` says; 0: there is none

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.summary)

    def to_wire(self) -> dict[str, Any]:
        text = str(self)[:LONGEST].encode("utf-8", "backslashreplace").decode()  # a name may have half a character
        return {"error": {"code": self.code, "message": text}}


class InputError(MicrosflError):
    code = "invalid_input"
    status = 400
    summary = "The request is wrong; sending it again will not help."
    exit_code = 2


class UnknownSetting(InputError):
    code = "unknown_setting"
    status = 422
    summary = "A setting has a name that does not exist."


class InvalidSetting(InputError):
    code = "invalid_setting"
    status = 422
    summary = "A setting has a value that is not allowed."


class InvalidId(InputError):
    code = "invalid_id"
    status = 422
    summary = "A run, client or participant id has characters or a length that is not allowed."


class UnknownLayer(InputError):
    code = "unknown_layer"
    status = 422
    summary = "A cut names a layer that the model does not have."


class InvalidCut(InputError):
    code = "invalid_cut"
    status = 422
    summary = "The cut leaves no front or no body, or its layers are in the wrong order."


class ModelNotAllowed(InputError):
    code = "model_not_allowed"
    status = 403
    summary = "The model's import path is not on this server's allow-list."

    @classmethod
    def of(cls, name: str, setting: str) -> ModelNotAllowed:
        """The error about the function `name`, which the server's `setting` does not list."""
        return cls(
            f"'{name}' may not be imported on this server. Whoever runs the server can permit it by adding exactly "
            f"this text to the server's setting {setting}."
        )


class ImpossiblePartition(InputError):
    code = "impossible_partition"
    status = 422
    summary = "The data cannot be divided as asked."


class DatasetNotFound(InputError):
    code = "dataset_not_found"
    status = 404
    summary = "The data set is not at the path that was given."


class MalformedMessage(InputError):
    code = "malformed_message"
    status = 400
    summary = "The body is not a valid microsfl message (truncated, not safetensors, or fields missing)."


class MessageTooLarge(InputError):
    code = "message_too_large"
    status = 413
    summary = "The body, its header, or its number of tensors is over the limit."


class MessageTooSlow(InputError):
    code = "message_too_slow"
    status = 408
    summary = "The body did not come within the time that the server waits for one."


class TensorMismatch(InputError):
    code = "tensor_mismatch"
    status = 422
    summary = "A tensor has the wrong name, dtype or shape."


class NotFinite(InputError):
    code = "not_finite"
    status = 422
    summary = "A tensor has a NaN or an infinite value."


class OverNorm(InputError):
    code = "over_norm"
    status = 422
    summary = "A gradient or an update is longer than the run, or arithmetic, allows."


class OverQuota(InputError):
    code = "over_quota"
    status = 422
    summary = "The client would leave more in a round than the run allows."


class Unauthenticated(InputError):
    code = "unauthenticated"
    status = 401
    summary = "There is no token, or it is not right any more."


class Forbidden(InputError):
    code = "forbidden"
    status = 403
    summary = "The caller is known, and may not do this."


class CrossOrigin(InputError):
    code = "cross_origin"
    status = 403
    summary = "A web page of another site may not change anything here."


class RunNotFound(InputError):
    code = "run_not_found"
    status = 404
    summary = "There is no such run."


class VersionNotFound(InputError):
    code = "version_not_found"
    status = 404
    summary = "The run has no such committed version."


class RoundNotFound(InputError):
    code = "round_not_found"
    status = 404
    summary = "The run has no such round."


class ClientNotFound(InputError):
    code = "client_not_found"
    status = 404
    summary = "There is no such client in the run."


class RunExists(InputError):
    code = "run_exists"
    status = 409
    summary = "A run of this name exists with another specification."


class RunNotActive(InputError):
    code = "run_not_active"
    status = 409
    summary = "The run is not running, so it takes no such request."


class RoundClosed(InputError):
    code = "round_closed"
    status = 409
    summary = "The round is closed: its contributions are committed and no further one is taken."


class ActivationsMissing(InputError):
    code = "activations_missing"
    status = 409
    summary = "Neither this replica nor the store has the unit's activations; send them again."


class UnitMissing(InputError):
    code = "unit_missing"
    status = 409
    summary = (
        "A client's copy of the body is computed from all of its earlier units of the round, and one is not there."
    )


class UnsupportedFormat(InputError):
    code = "unsupported_format"
    status = 409
    summary = "The run was stored by a version of microsfl whose format this version does not read."


class PortInUse(InputError):
    code = "port_in_use"
    status = 500
    summary = "The address to listen on is taken."


class StoreNotWritable(InputError):
    code = "store_not_writable"
    status = 500
    summary = "The store cannot be written."


class UnsafeConnection(InputError):
    code = "unsafe_connection"
    status = 500
    summary = "A server cannot be called safely: its certificate is not trusted, or it is plain HTTP to elsewhere."


class OperationError(MicrosflError):
    code = "operation_failed"
    status = 503
    summary = "Something that this process depends on failed; trying again later may help."


class StoreUnavailable(OperationError):
    code = "store_unavailable"
    status = 503
    summary = "The store did not answer or refused the operation."


class StoreCorrupt(OperationError):
    code = "store_corrupt"
    status = 500
    summary = "A file in the store does not have the content that its commit names."


class Unreachable(OperationError):
    code = "unreachable"
    status = 503
    summary = "No server answered within the retry budget."


class RunFailed(OperationError):
    code = "run_failed"
    status = 500
    summary = "The run ended before its last round."


class TooManyRequests(OperationError):
    code = "too_many_requests"
    status = 429
    summary = "The caller has too many requests under way, or sends too many a second; later ones are taken."
    retry_after_s = 1


class Overloaded(OperationError):
    code = "overloaded"
    status = 503
    summary = "The server has as many requests or connections as it takes; later ones are taken."
    retry_after_s = 1


def all_errors(root: type[MicrosflError] = MicrosflError) -> list[type[MicrosflError]]:
    """Every class of the tree, parents before children."""
    found = [root]
    for child in root.__subclasses__():
        found += all_errors(child)
    return found


def from_wire(status: int, payload: Any) -> MicrosflError:
    """The error that the other side raised, from its JSON; an unknown shape becomes an `OperationError`."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(error, dict):
        return OperationError(f"The server answered {status} without an error that microsfl knows.")
    by_code = {cls.code: cls for cls in all_errors()}
    return by_code.get(str(error.get("code")), OperationError)(str(error.get("message")))


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """A sentence that names the nearest right word, and all of them when they are few."""
    names = sorted(right)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    shown = ", ".join(names[:24]) + (", …" if len(names) > 24 else "")
    return f"{hint} Known: {shown}." if names else hint
