"""The limit: the same model, data, batches and optimizer steps in one process, in plain PyTorch, without a network.

Plain is the loop that anybody would write, with modules and torch.optim. On the paper's MLP, whose operations are tiny,
a loop with tensors alone is faster by a quarter; fused or foreach optimizers are not.

A process of its own that waits between the measurements, so that a federation can be measured in between. It reads
orders and writes answers, a JSON line each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import microsfl
from microsfl.core.partition import batches
from microsfl.zoo.datasets import labels, load_data
from microsfl.zoo.deal import deal
from microsfl.zoo.parts import build_parts


class Limit:
    """The process, as long as a `with` block lasts. threads: that one operation of torch uses."""

    def __init__(self, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def speeds(self, spec: microsfl.RunSpec, rounds: int) -> list[float]:
        """Samples per second of each round; one more is trained first and not counted.

        Raises:
            RuntimeError: when the process ended; why is on standard error.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"spec": spec.model_dump(mode="json"), "rounds": rounds}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that measures the limit ended")
        return list(json.loads(answer))


def rounds_of(spec: microsfl.RunSpec) -> Iterator[float]:
    """Train round after round; samples per second of each.

    Every batch of every client trains one and the same model. Front and tail are stepped after each batch (unless
    the front is frozen), the body once a round, on the mean gradient. A strategy without a cut has everything in
    the tail.
    """
    import torch
    from torch.nn.functional import cross_entropy

    data = load_data(spec.data.dataset, spec.data.path)
    spec = spec.resolved(input_shape=data.input_shape, classes=data.classes)
    x, y = data.train[: len(data.train)]  # type: ignore[index]
    shares = deal(spec, labels(data.train), labels(data.test)).shares
    parts = build_parts(spec, ())
    frozen = spec.strategy.front_update == "never"
    parts.front.requires_grad_(not frozen)
    own = [p for part in (parts.front, parts.tail) for p in part.parameters() if p.requires_grad]
    body = list(parts.body.parameters())
    model = torch.nn.Sequential(parts.front, parts.body, parts.tail)
    client, server = spec.strategy.client_optimizer, spec.strategy.body_optimizer
    stepped = [getattr(torch.optim, client.name)(own, **client.options)] if own else []
    shared = [getattr(torch.optim, server.name)(body, **server.options)] if body else []
    epochs = spec.strategy.local_epochs
    for round_ in range(sys.maxsize):
        began_at = time.perf_counter()
        count = 0
        for number, share in enumerate(shares):
            seed = round_ * len(shares) + number
            for batch in batches(len(share.train), batch_size=spec.data.batch_size, epochs=epochs, seed=seed):
                chosen = torch.from_numpy(share.train[batch])
                torch.autograd.backward(cross_entropy(model(x[chosen]), y[chosen]))
                for optimizer in stepped:
                    optimizer.step()
                    optimizer.zero_grad()
                count += 1
        for parameter in body:
            parameter.grad = parameter.grad / count if parameter.grad is not None else None
        for optimizer in shared:
            optimizer.step()
            optimizer.zero_grad()
        yield epochs * len(x) / (time.perf_counter() - began_at)


def main() -> None:
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        measured = rounds_of(microsfl.RunSpec.parse(order["spec"]))
        next(measured)
        print(json.dumps([next(measured) for _ in range(order["rounds"])]), flush=True)


if __name__ == "__main__":
    main()
