"""Writes what the fuzzer of the wire begins with: one valid body of each kind, and each hostile one that is known.

python -m tests.fuzz.seeds FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from microsfl.wire import messages
from tests.attacks.test_wire_attacks import MALFORMED

LONGEST = 4096


def seeds() -> Iterator[bytes]:
    unit = {"run": "demo", "round": 3, "client": "clinic-a", "unit": 7, "batches": 2}
    one = {"0": torch.tensor([[1.0, -2.5], [0.0, 4.0]])}
    valid = (
        messages.Forward(**unit, needs_grad=("0",), activations={**one, "1": torch.tensor([[True], [False]])}),
        messages.Forward(
            **unit, version=1, at_least=1, sticky=False, activations={"0.int8": torch.zeros(2, dtype=torch.int8)}
        ),
        messages.Backward(**unit, version=2, gradients=one, activations=one),
        messages.Step(**unit, activations=one, labels={"0": torch.tensor([0, 1])}),
        messages.Outputs(version=2, differentiable=("0",), outputs=one),
        messages.Gradients(version=1, newest=2, gradients=one, losses={"0": torch.ones(2)}),
        messages.Predict(run="demo", version=None, activations={"0": torch.ones(1, 2, dtype=torch.bfloat16)}),
        messages.Update(
            run="demo", round=0, client="c", samples=4, scalars={"front.lr": 0.1, "n": 3, "on": True, "x": None},
            weights={"front.w": torch.ones(2, dtype=torch.float16)}, optimizer={"front.step": torch.tensor(3.0)},
        ),
        messages.Stored(round=4),
        messages.Contribution(**unit, samples=4, version=2, gradients=one, buffers={"n": torch.tensor(5)}),
        messages.Activations(**unit, needs_grad=("0",), activations=one),
    )  # fmt: skip
    for message in valid:
        yield message.pack()
        yield message.pack(hashed=True)
    yield from MALFORMED.values()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, body in enumerate(one for one in seeds() if len(one) <= LONGEST):
        (folder / f"seed-{number:03}").write_bytes(body)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
