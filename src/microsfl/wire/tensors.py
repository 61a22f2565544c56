"""Named tensors and a few fields <-> bytes: the safetensors format, read strictly (docs/reference/wire.md).

    8 bytes      N, length of the header, unsigned little-endian
    N bytes      JSON object, padded with spaces to a multiple of 8:
                 "__metadata__": {"microsfl": "2", "fields": "<JSON object>"}   (absent in weights files)
                 (in contributions, updates and hand-over files also "xxh3_128", of all the file)
                 "<name>": {"dtype": "F32", "shape": [64, 10], "data_offsets": [begin, end]}
    the rest     the tensors' bytes, little-endian, row-major, without gaps

Written here rather than with the safetensors library because its decoder drops the metadata and has no limits of its
own; the tests compare both byte by byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from ..errors import MalformedMessage, MessageTooLarge, NotFinite, TensorMismatch

VERSION = "2"
HEADER_LIMIT_BYTES = 1_000_000
TENSOR_LIMIT = 4096
DIMENSION_LIMIT = 8
NAME_LIMIT = 256
SIZE_LIMIT = 2**48
TABLES_KEPT = 32

# In the order in which safetensors lays tensors out: widest first, so that every tensor is aligned.
DTYPES: dict[str, torch.dtype] = {
    "I64": torch.int64, "F64": torch.float64, "F32": torch.float32, "I32": torch.int32, "BF16": torch.bfloat16,
    "F16": torch.float16, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}
_NUMPY: dict[torch.dtype, str] = {
    torch.int64: "<i8", torch.float64: "<f8", torch.float32: "<f4", torch.int32: "<i4", torch.float16: "<f2",
    torch.int16: "<i2", torch.int8: "i1", torch.uint8: "u1", torch.bool: "?",
}  # fmt: skip

_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_PLAIN = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Packet:
    """What one body holds. The tensors own their memory."""

    tensors: dict[str, Tensor]
    fields: dict[str, Any]


def encode(tensors: Mapping[str, Tensor], fields: Mapping[str, Any] | None = None, *, hashed: bool = False) -> bytes:
    """The bytes of a packet: equal values give equal bytes. Tensors may be on any device; none is changed.

    Args:
        tensors: of a dtype in `DTYPES`, any shape.
        fields: JSON values; None writes no metadata, as in weights files.
        hashed: put a hash of the whole into the metadata, as in files that no commit names by their hash yet.

    Raises:
        TensorMismatch: when a tensor has another dtype.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            raise TensorMismatch(f"Tensor '{name}' is {tensor.dtype}; these can travel: {', '.join(DTYPES)}.")
    order = sorted(tensors, key=lambda name: (_RANK[tensors[name].dtype], name)) if len(tensors) > 1 else list(tensors)
    header: dict[str, Any] = {}
    if fields is not None:
        header["__metadata__"] = {"fields": _SORTED.encode(fields), "microsfl": VERSION}
    begin = 0
    for name in order:
        tensor = tensors[name]
        end = begin + tensor.nbytes
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
        begin = end
    data = [_raw(tensors[name]) for name in order]
    if hashed:
        header["__metadata__"]["xxh3_128"] = _NO_DIGEST
    head = _PLAIN.encode(header).encode()
    head += b" " * (-len(head) % 8)
    head = len(head).to_bytes(8, "little") + head
    if hashed:
        head = _with_digest(head, _digest(head, data))
    return b"".join([head, *data])


def decode(body: Buffer, *, hashed: bool = False) -> Packet:
    """The packet in `body`. Floating-point tensors are checked to be finite.

    Args:
        hashed: the metadata must have the hash that `encode(…, hashed=True)` puts there, and it must be right.

    Raises:
        MalformedMessage: for anything that is not exactly one packet.
        MessageTooLarge: when the header or the number of tensors is over its limit.
        NotFinite: when a tensor has a NaN or an infinity.
    """
    found = opened(body, hashed=hashed)
    tensors = {entry.name: entry.tensor(found.data) for entry in found.entries}
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    return Packet(tensors, found.fields)


class Opened(NamedTuple):
    """A packet whose tensors are left where they are. entries: in the order of their places in `data`."""

    fields: dict[str, Any]
    entries: tuple[Entry, ...]
    data: memoryview


def opened(body: Buffer, *, hashed: bool = False) -> Opened:
    """The packet in `body`, as `decode` reads it, without a look at the tensors' values.

    Raises:
        MalformedMessage, MessageTooLarge.
    """
    view = memoryview(body)
    head = _head(view)
    data = view[len(head) :]
    if hashed:
        _check_digest(head, data)
    metadata, entries = _read_header(head, hashed=hashed)
    fields = _read_fields(metadata)
    if (entries[-1].end if entries else 0) != len(data):
        raise MalformedMessage(f"The tensors end at byte {entries[-1].end if entries else 0}, the data at {len(data)}.")
    return Opened(fields, entries, data)


def fields_of(body: Buffer) -> dict[str, Any] | None:
    """The fields of a packet of which there may be only the beginning; None while its header is not there.

    Raises:
        MalformedMessage, MessageTooLarge.
    """
    view = memoryview(body)
    size = int.from_bytes(view[:8], "little")
    if len(view) < 8 or len(view) - 8 < size <= HEADER_LIMIT_BYTES:
        return None
    return _read_fields(_read_header(_head(view), hashed=False)[0])


def check_finite(name: str, tensor: Tensor) -> None:
    """Raises NotFinite, naming the tensor, when it has a NaN or an infinity."""
    if not tensor.dtype.is_floating_point or math.isfinite(tensor.detach().sum().item()):
        return  # a NaN or an infinity would have made the sum one; at a quarter of what it costs to look for them
    low, high = torch.aminmax(tensor)  # one pass; both are NaN when any element is
    if not math.isfinite(low) or not math.isfinite(high):
        raise NotFinite(f"Tensor '{name}' {list(tensor.shape)} has a NaN or an infinite value.")


# Not a cryptographic hash: it tells a file that a power cut has torn, and costs a fiftieth of SHA-256. No name and no
# text in a header can hold the mark, because there its quotes are escaped.
_MARK = b'"xxh3_128":"'
_NO_DIGEST = "0" * 32


def _digest(head: bytes, data: Iterable[Buffer]) -> str:
    """XXH3-128 of a file in which the digits of the hash itself are zeros; `head` is what comes before `data`."""
    digest = xxhash.xxh3_128(_with_digest(head, _NO_DIGEST))
    for piece in data:
        digest.update(piece)
    return digest.hexdigest()


def _with_digest(head: bytes, digest: str) -> bytes:
    before, mark, after = head.partition(_MARK)
    return before + mark + digest.encode() + after[len(digest) :]


def _check_digest(head: bytes, data: memoryview) -> None:
    said = head.partition(_MARK)[2][: len(_NO_DIGEST)].decode("ascii", "replace")
    found = _digest(head, [data])
    if said != found:
        raise MalformedMessage(f"The content has xxh3_128 {found}; it says itself that it is {said!r}.")


def _raw(tensor: Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


class Entry(NamedTuple):
    """Where a tensor is, and what it is: bytes `begin` to `end` of a packet's data."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    @classmethod
    def read(cls, name: str, value: Any) -> Entry:
        if not name or len(name) > NAME_LIMIT:
            raise MalformedMessage(f"A tensor's name has {len(name)} characters; 1 to {NAME_LIMIT} are allowed.")
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise MalformedMessage(f"Tensor '{name}' needs exactly dtype, shape and data_offsets.")
        code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(code, str) or code not in DTYPES:
            raise MalformedMessage(f"Tensor '{name}' has dtype {code!r:.40}; known: {', '.join(DTYPES)}.")
        if not _naturals(shape) or len(shape) > DIMENSION_LIMIT:
            raise MalformedMessage(f"Tensor '{name}' has no valid shape of at most {DIMENSION_LIMIT} dimensions.")
        if not _naturals(offsets) or len(offsets) != 2:
            raise MalformedMessage(f"Tensor '{name}' has no valid data_offsets.")
        entry = cls(name, DTYPES[code], tuple(shape), *offsets)
        if math.prod(max(1, size) for size in shape) >= SIZE_LIMIT:  # also of nothing: strides are products, too
            raise MalformedMessage(f"Tensor '{name}' has a shape beyond all sizes.")
        if math.prod(shape) * entry.dtype.itemsize != entry.end - entry.begin:
            raise MalformedMessage(f"Tensor '{name}' is {code}{shape}, which does not fill its data_offsets.")
        return entry

    def tensor(self, data: memoryview) -> Tensor:
        """The tensor, in memory of its own."""
        if self.begin == self.end:
            return torch.empty(self.shape, dtype=self.dtype)
        # Copied into torch's own, 64-byte aligned memory: the same numbers at another alignment take another path
        # through the BLAS kernels and can differ in the last bit, and a replay has to be bit-identical.
        own = torch.empty(self.end - self.begin, dtype=torch.uint8)
        own.numpy()[:] = np.frombuffer(data, np.uint8, self.end - self.begin, self.begin)
        return own.view(self.dtype).reshape(self.shape)

    def array(self, data: memoryview) -> np.ndarray:
        """The values, where they are, in any alignment: for who computes with them one by one. bfloat16 is widened."""
        if self.dtype is torch.bfloat16:  # which numpy does not know: the upper half of a float32
            upper = np.frombuffer(data, "<u2", (self.end - self.begin) // 2, self.begin)
            return (upper.astype("<u4") << 16).view("<f4").reshape(self.shape)
        return np.frombuffer(data[self.begin : self.end], _NUMPY[self.dtype]).reshape(self.shape)


def _head(view: memoryview) -> bytes:
    """The header, with its length before it."""
    size = int.from_bytes(view[:8], "little")
    if len(view) < 8 or (size <= HEADER_LIMIT_BYTES and size > len(view) - 8):
        raise MalformedMessage(f"The body ends after {len(view)} bytes, before its header does.")
    if size > HEADER_LIMIT_BYTES:
        raise MessageTooLarge(f"The header is {size} bytes long; the limit is {HEADER_LIMIT_BYTES}.")
    if bytes(view[8:9]) != b"{":
        raise MalformedMessage("The header does not begin with '{'; this is not safetensors.")
    return bytes(view[: 8 + size])


def _read_header(head: bytes, *, hashed: bool) -> tuple[Any, tuple[Entry, ...]]:
    """The metadata, None where there are none, and the table of the tensors."""
    end = head.find(_MARK) + len(_MARK) + len(_NO_DIGEST) + 2 if hashed else -1
    if head[end - 2 : end + 2] == b'"},"':  # the hash ends the metadata, and what comes then is the table
        header = _parsed(head[8:end] + b"}")
        if header.keys() == {"__metadata__"}:
            return header["__metadata__"], _read_table(b"{" + head[end + 1 :])
    header = _parsed(head[8:])
    return header.pop("__metadata__", None), _entries(header)


@lru_cache(TABLES_KEPT)
def _read_table(text: bytes) -> tuple[Entry, ...]:
    """The table of a header that has its metadata elsewhere: in files of one kind the tables are alike."""
    header = _parsed(text)
    if "__metadata__" in header:
        raise MalformedMessage("The header is not valid JSON: a name stands twice.")
    return _entries(header)


def _entries(header: dict[str, Any]) -> tuple[Entry, ...]:
    """The table in `header`, in the order of the tensors' places, which are one after the other."""
    if len(header) > TENSOR_LIMIT:
        raise MessageTooLarge(f"The body has {len(header)} tensors; the limit is {TENSOR_LIMIT}.")
    entries = sorted((Entry.read(name, value) for name, value in header.items()), key=lambda entry: entry.begin)
    position = 0
    for entry in entries:
        if entry.begin != position or entry.end < entry.begin:
            raise MalformedMessage(f"Tensor '{entry.name}' starts at {entry.begin}; it should start at {position}.")
        position = entry.end
    return tuple(entries)


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _read_json(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"The header is not valid JSON: {error}.") from None
    return found


def _read_fields(metadata: Any) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedMessage("__metadata__ must map text to text.")
    if "fields" not in metadata:
        return {}
    if metadata.get("microsfl") != VERSION:
        raise MalformedMessage(
            f"The message is of format {metadata.get('microsfl')!r:.40}; this side reads '{VERSION}'."
        )
    try:
        fields = _read_json(metadata["fields"])
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"The message's fields are not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise MalformedMessage("The message's fields are not a JSON object.")
    return fields


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


def _read_json(text: str) -> Any:
    """Raises ValueError, also for what could not be written as JSON again: numbers over all bounds, half characters."""
    found = _STRICT.decode(text)
    if "\\u" in text:
        _PLAIN.encode(found).encode()
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
