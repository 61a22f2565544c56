"""Which of several clients send what is far from what the others send, by the length of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers, p. 13: the modified z-score 0.6745 (x - median) / MAD,
# where MAD is the median of |x - median|, and 0.6745 makes it a standard deviation of what is normally distributed.
# Who has more than 3.5, either way, is labelled.
NORMAL = 0.6745
LABELLED = 3.5
# Half of the values being alike, MAD is 0; then sqrt(pi / 2) times the mean of |x - median| stands for a standard
# deviation, as of what is normally distributed, too.
MEAN_TO_DEVIATION = 1.253314
# Among fewer clients nobody can tell who is the odd one.
FEWEST = 4
# Clients whose data differs differ. Who is within this factor of the median is not worth a word.
FACTOR = 2.0


@dataclass(frozen=True)
class Outlier:
    """norm: of what the client sent. median: of all clients' norms. score: see above; below 0: it sent too little."""

    client: str
    norm: float
    median: float
    score: float


def scores(values: Mapping[str, float]) -> dict[str, float]:
    """The modified z-score of each value; all 0 where they are all alike."""
    middle = median(list(values.values()))
    away = [abs(value - middle) for value in values.values()]
    deviation = median(away) / NORMAL or MEAN_TO_DEVIATION * sum(away) / len(away)
    return {name: (value - middle) / deviation if deviation else 0.0 for name, value in values.items()}


def outliers(norms: Mapping[str, float]) -> list[Outlier]:
    """The clients that are outliers by their norms, by name."""
    if len(norms) < FEWEST:
        return []
    middle = median(list(norms.values()))
    return [
        Outlier(client, norms[client], middle, score)
        for client, score in sorted(scores(norms).items())
        if abs(score) > LABELLED and not middle / FACTOR <= norms[client] <= middle * FACTOR
    ]


def median(values: Sequence[float]) -> float:
    """The middle one of one value or more, or the mean of the two in the middle."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
