#!/usr/bin/env python3
"""The coverage-guided fuzzer of the wire's decoder (`pip install 'microsfl[fuzz]'`), from the repository's root:

    python -m tests.fuzz.seeds /tmp/seeds
    python -m tests.fuzz.fuzz_wire /tmp/found /tmp/seeds tests/fuzz/corpus -max_total_time=600 -max_len=4096

It ends with the input that broke something in a file `crash-…`, which belongs into the corpus. To keep what reaches
something new, run this file by its own name, because it starts itself again:

    PYTHONPATH=. tests/fuzz/fuzz_wire.py -merge=1 tests/fuzz/corpus /tmp/found
"""

from __future__ import annotations

import random
import sys

import atheris
import xxhash

with atheris.instrument_imports(include=["microsfl.wire", "microsfl.spec.names", "json"]):
    from microsfl.wire import messages, tensors  # noqa: F401

from tests.fuzz.wire_target import check

MARK = b'"xxh3_128":"'
WORDS = (
    b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"fields"', b'"microsfl"', b'"xxh3_128":"', b'"F32"',
    b'"BF16"', b'"BOOL"', b'"I64"', b"[0,0]", b"[0,8]", b"9223372036854775807", b"-1", b"1e999", b"NaN", b"null",
    b"true", b'\\"type\\"', b'\\"run\\"', b'\\"unit\\"', b'\\"version\\"', b"\\ud800", b"\xff", b"{", b"}", b"[", b"]",
)  # fmt: skip


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Most bodies that are changed anywhere have no header any more. So the header alone is changed now and then, and
    its length made right again."""
    draw = random.Random(seed)
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.3 or len(data) < 9 or size > len(data) - 8:
        return atheris.Mutate(data, longest)
    head, rest = data[8 : 8 + size], data[8 + size :]
    what = draw.randrange(4)
    if what == 0:
        rest = atheris.Mutate(rest, max(1, longest - size - 8))
    elif what == 1:
        head = atheris.Mutate(head, max(1, longest - len(rest) - 8))
    else:
        begin = draw.randrange(len(head) + 1)
        head = head[:begin] + draw.choice(WORDS) + head[begin + draw.choice((0, 0, 1, 4, 12)) :]
    whole = (len(head).to_bytes(8, "little") + head + rest)[:longest]
    return with_digest(whole) if draw.random() < 0.5 else whole


def with_digest(body: bytes) -> bytes:
    """The body with the right hash, where it has the place for one: behind it is what is read out of files."""
    place = body.find(MARK) + len(MARK)
    if place < len(MARK) or len(body) < place + 32:
        return body
    blank = body[:place] + b"0" * 32 + body[place + 32 :]
    return body[:place] + xxhash.xxh3_128(blank).hexdigest().encode() + body[place + 32 :]


def main() -> None:
    atheris.Setup(sys.argv, lambda data: check(data) and None, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
