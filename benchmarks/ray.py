"""What replicas add when Ray places them: the simulated device of `scaling`, on a node of Ray on this machine.

    python -m benchmarks.ray [--output docs/guides/ray-scaling] [--quick]

writes the curve to ray-scaling.csv (a row for each number of replicas and round) and ray-scaling.png. The cases, the
clients and the ratio are those of `scaling`, with 1, 2, 4 and 8 split servers held by actors. Tensors go over HTTP as
without Ray; what is measured is that actors cost the processes that they hold nothing.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure as Picture

import microsfl
from microsfl.launch.ray.cluster import Cluster

from . import scaling
from .federated import round_speeds
from .figures import Figure

REPLICAS = (1, 2, 4, 8)
QUICK = (1, 8)
TARGET = 0.85  # with 8
CPUS = 16  # of Ray's, which only place: 8 split servers, 4 processes of clients, and room
COLUMNS = ("replicas", "round", "units_per_s", "efficiency")

Curve = Mapping[int, list[float]]  # replicas -> units/s of each round


def measure(quick: bool) -> Iterator[Figure]:
    found = curve(quick)
    one = max(found[1])
    for replicas, speeds in found.items():
        if replicas > 1:
            yield Figure(
                f"Ray, simulated device, {replicas} replicas: throughput ÷ ({replicas} × one replica)",
                tuple(speed / (replicas * one) for speed in speeds),
                TARGET,
                at_least=True,
                note=f"{median(speeds):.1f} units/s, one replica {one:.1f}",
            )


def curve(quick: bool) -> Curve:
    with ray_here():
        return {
            replicas: [
                speed / scaling.BATCH
                for speed in round_speeds(scaling.specification(replicas, 2 if quick else 6), microsfl.RayFederation)
            ]
            for replicas in (QUICK if quick else REPLICAS)
        }


@contextmanager
def ray_here() -> Iterator[None]:
    """A node that all federations are placed on."""
    cluster = Cluster(None)
    cluster.open(CPUS)
    try:
        yield
    finally:
        cluster.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/guides/ray-scaling"))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    found = curve(given.quick)
    write(found, given.output.with_suffix(".csv"))
    draw(found).savefig(given.output.with_suffix(".png"), dpi=130)
    for replicas, speeds in found.items():
        print(f"{replicas} replicas: {median(speeds):.1f} units/s, {efficiency(found, replicas):.3f} of linear")


def efficiency(found: Curve, replicas: int) -> float:
    """Median throughput ÷ (replicas × the fastest round of one replica)."""
    return median(found[replicas]) / (replicas * max(found[1]))


def write(found: Curve, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for replicas, speeds in found.items():
            for number, speed in enumerate(speeds, 1):
                writer.writerow((replicas, number, f"{speed:.3f}", f"{speed / (replicas * max(found[1])):.4f}"))


def draw(found: Curve) -> Picture:
    picture = Picture(figsize=(6.0, 3.6), layout="constrained")
    axes = picture.subplots()
    replicas = list(found)
    axes.plot(replicas, [count * max(found[1]) for count in replicas], color="#c3cad2", label="linear")
    axes.plot(replicas, [median(found[count]) for count in replicas], "o-", color="#1f5fa8", label="measured")
    axes.set_xticks(replicas)
    axes.set_xlabel("split servers")
    axes.set_ylabel("units/s")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return picture


if __name__ == "__main__":
    main()
