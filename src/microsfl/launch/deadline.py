"""Whether a round can be over before its deadline: compared with what its training takes this machine to compute."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

from torch.nn import functional

from ..core.cut import Parts
from ..core.partition import IntArray, Share, batches
from ..core.randomness import seeded
from ..core.run_state import quorum_of
from ..core.turns import chosen
from ..errors import InvalidSetting
from ..spec import RunSpec
from ..zoo.datasets import Samples, take

TRIES = 5  # batches that are timed
ROUNDS = 100  # rounds that are looked at, where clients are drawn anew for each


def check_deadline(spec: RunSpec, parts: Parts, train: Samples, shares: Sequence[Share]) -> None:
    """Refuse a deadline before which the quorum cannot have trained.

    It only counts forward and backward of the batches of the client that completes the quorum or, where clients take
    turns, of all who make it up; nothing that is sent, stored or waited for.

    Raises:
        InvalidSetting: naming the deadline and the least that a round takes.
    """
    turns = spec.strategy.traits.turns
    one_s = fastest_batch_s(spec, parts, train, max(shares, key=lambda share: len(share.train)))
    count = needed_batches(spec, [len(_batches(spec, share)) for share in shares])
    if spec.run.deadline_s < count * one_s:
        whose = "clients that train one after another" if turns else "one client"
        raise InvalidSetting(
            f"run.deadline_s = {spec.run.deadline_s:g} is shorter than a round can be: on this machine the {count} "
            f"batches of {whose} take {count * one_s:.2g} s at least. Use several times that, or 0 for no deadline."
        )


def needed_batches(spec: RunSpec, counts: Sequence[int]) -> int:
    """Batches one after another until the quorum has trained, in the round where it takes most.

    Args:
        counts: batches of each client in a round.
    """
    strategy, everybody = spec.strategy, spec.participants == len(counts)
    needed = quorum_of(spec.run.quorum, spec.participants)
    found = 0
    for round_ in range(1 if everybody else min(spec.run.rounds, ROUNDS)):
        # Ids only decide the draw, and a run whose clients have other ids draws others: any draw will do.
        ids = {f"client-{number:0{len(str(len(counts)))}}": count for number, count in enumerate(counts)}
        who = chosen(spec.run.seed, round_, list(ids), spec.participants, turns=strategy.traits.turns)
        quickest = sorted(ids[client] for client in who)[:needed]
        found = max(found, sum(quickest) if strategy.traits.turns else quickest[-1])
    # Only what is sent goes through the whole model.
    return -(-found // strategy.send_every) if strategy.traits.auxiliary else found


def fastest_batch_s(spec: RunSpec, parts: Parts, train: Samples, share: Share) -> float:
    """Seconds of forward and backward of the whole model on one real batch, the fastest of a few."""
    model = copy.deepcopy(parts)
    model.front.requires_grad_(spec.strategy.front_update != "never")
    joined, fastest = model.joined().train(), float("inf")
    for number, indices in enumerate(_batches(spec, share)[:TRIES]):
        x, y = take(train, share.train[indices])
        with seeded(number, (x,)):
            began = time.perf_counter()
            functional.cross_entropy(joined(x), y).backward()  # type: ignore[no-untyped-call]
            fastest = min(fastest, time.perf_counter() - began)
    return fastest


def _batches(spec: RunSpec, share: Share) -> list[IntArray]:
    size, epochs = spec.data.batch_size, spec.strategy.local_epochs
    return batches(len(share.train), batch_size=size, epochs=epochs, seed=spec.run.seed)
