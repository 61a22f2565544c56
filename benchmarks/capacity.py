"""Up to 10,000 clients and 1,000 split servers, simulated: the figure of docs/guides/capacity.md.

    python -m benchmarks.capacity --calibrate   # measure this machine first; writes benchmarks/capacity.json
    python -m benchmarks.capacity               # simulate; docs/guides/capacity.png and its table; some minutes

The paper's MLP with a trainable front (`throughput`), 640 samples in ten batches of 64 a client and round, each client
and each server on a machine of its own. What a unit, a client's round and a sync take is measured: it comes from
benchmarks/capacity.json. What is assumed: `LINK`. "At a tenth": a client's round and its signs of life ask a tenth
of the coordinator, or of the fed server, which no setting does today.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from microsfl import RunSpec
from microsfl.capacity.calibration import Calibration
from microsfl.capacity.measure import measure
from microsfl.capacity.prediction import predict
from microsfl.capacity.quantities import duration, rate, shown_seconds
from microsfl.capacity.simulation import simulate
from microsfl.capacity.site import Site
from microsfl.capacity.workload import workload
from microsfl.launch.preflight import resolve

from . import throughput
from .pages import write_between

PAGE, BEGIN = Path("docs/guides/capacity.md"), "<!-- begin: python -m benchmarks.capacity -->"
CALIBRATION = Path("benchmarks/capacity.json")
SAMPLES = 640
LINK = {"up": rate("20Mbit/s"), "down": rate("100Mbit/s"), "rtt": duration("40ms"), "server_link": rate("10Gbit/s")}
CLIENTS = (100, 1_000, 10_000)
REPLICAS = (1, 3, 10, 30, 100, 300, 1_000)
SIMULATED = (1, 10, 100, 300, 1_000)
MOST_CLIENTS = 1_000  # of a split server: with more, a round takes many minutes, and to simulate it nearly as long
TENTH = 10
COLOURS = ("#9ecae1", "#6baed6", "#1f5fa8")
STATIONS = {"split servers": "#a63d40", "coordinator": "#e9b44c", "fed server": "#5a9e6f"}


@dataclass(frozen=True)
class Case:
    """What is simulated, and what was taken away of it before."""

    title: str
    coordinator: int = 1
    fed_server: int = 1

    def of(self, calibration: Calibration) -> Calibration:
        took = calibration.round
        return replace(
            calibration,
            heartbeat=calibration.heartbeat / self.coordinator,
            round=replace(
                took,
                coordinator=took.coordinator / self.coordinator,
                fed_server=took.fed_server / self.fed_server,
                aggregate_each=took.aggregate_each / self.fed_server,
            ),
        )


CASES = (
    Case("as it is"),
    Case("coordinator at a tenth", coordinator=TENTH),
    Case("and fed server at a tenth", coordinator=TENTH, fed_server=TENTH),
)


def specification(clients: int) -> RunSpec:
    values = throughput.specification({}, quick=True).model_dump(mode="json")
    values["data"]["clients"] = clients
    values["data"]["path"] = None
    return RunSpec.parse(values)


def scan(calibration: Calibration, quick: bool = False) -> list[dict[str, Any]]:
    """A row for each case, number of clients and number of split servers; simulated where it says so."""
    rows = []
    for case in CASES:
        known = case.of(calibration)
        for clients in CLIENTS[: 2 if quick else None]:
            planned = workload(resolve(specification(clients)), SAMPLES)
            for replicas in REPLICAS:
                if replicas > clients:
                    continue
                site = Site(replicas, spread="two", **LINK)
                predicted = predict(planned, known, site)
                row = {
                    "case": case.title, "clients": clients, "replicas": replicas, "predicted_s": predicted.round,
                    "busy": predicted.utilisation,
                }  # fmt: skip
                if replicas in SIMULATED and replicas * MOST_CLIENTS >= clients:
                    began_at = time.perf_counter()
                    played = simulate(planned, known, site)
                    row |= {"simulated_s": played.round, "busy": played.busy, "events": played.events}
                    print(_line(row, time.perf_counter() - began_at), flush=True)
                rows.append(row)
    return rows


def _line(row: Mapping[str, Any], took_s: float) -> str:
    busy = ", ".join(f"{name} {share:.0%}" for name, share in row["busy"].items())
    where = f"{row['clients']:,} clients, {row['replicas']:,} split servers"
    seconds = f"{row['simulated_s']:.1f} s simulated, {row['predicted_s']:.1f} s predicted"
    return f"{row['case']}, {where}: {seconds}; {row['events']:,} events in {took_s:.0f} s; busy: {busy}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The simulated rounds of the most clients, as docs/guides/capacity.md shows them."""
    most = max(row["clients"] for row in rows)
    lines = [
        "| | split servers | a round, simulated | predicted ÷ simulated | "
        + " | ".join(f"{name}, % of the time at work" for name in STATIONS)
        + " |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(STATIONS),
    ]
    for row in rows:
        if row["clients"] == most and "simulated_s" in row:
            shares = " | ".join(f"{100 * row['busy'].get(name, 0.0):.0f}" for name in STATIONS)
            ratio, seconds = row["predicted_s"] / row["simulated_s"], shown_seconds(row["simulated_s"])
            lines.append(f"| {row['case']} | {row['replicas']:,} | {seconds} | {ratio:.2f} | {shares} |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Above, seconds of a round against split servers; below, how busy they are with the most clients."""
    figure = Figure(figsize=(11.0, 6.4), layout="constrained", dpi=130)
    above, below = figure.subplots(2, len(CASES), sharex=True, sharey="row")
    for case, times, shares in zip(CASES, above, below, strict=True):
        own = [row for row in rows if row["case"] == case.title]
        _times(times, own)
        _shares(shares, own)
        times.set_title(case.title, loc="left", fontsize=10, fontweight="bold")
        shares.set_xlabel("split servers", fontsize=9)
    above[0].set_ylabel("seconds of a round", fontsize=9)
    below[0].set_ylabel("% of the time at work", fontsize=9)
    above[0].legend(frameon=False, fontsize=8)
    below[0].legend(frameon=False, fontsize=8)
    return figure


def _times(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for clients, colour in zip(CLIENTS, COLOURS, strict=True):
        own = [row for row in rows if row["clients"] == clients]
        axes.loglog([row["replicas"] for row in own], [row["predicted_s"] for row in own], color=colour, lw=1.5)
        played = [row for row in own if "simulated_s" in row]
        axes.loglog(
            [row["replicas"] for row in played], [row["simulated_s"] for row in played], "o", color=colour, ms=5,
            label=f"{clients:,} clients",
        )  # fmt: skip
    _plain(axes)


def _shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    most = max(row["clients"] for row in rows)
    own = [row for row in rows if row["clients"] == most and "simulated_s" in row]
    for name, colour in STATIONS.items():
        shares = [100 * row["busy"].get(name, 0.0) for row in own]
        axes.semilogx([row["replicas"] for row in own], shares, "o-", color=colour, ms=4, label=name)
    axes.set_ylim(0, 105)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", lw=0.8)
    axes.set_axisbelow(True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrate", action="store_true", help=f"measure first, and write {CALIBRATION}")
    parser.add_argument("--quick", action="store_true", help="without the largest number of clients")
    parser.add_argument("--output", type=Path, default=Path("docs/guides/capacity.png"))
    given = parser.parse_args()
    if given.calibrate:
        measure(workload(resolve(specification(20)))).write(CALIBRATION)
    rows = scan(Calibration.read(CALIBRATION), given.quick)
    draw(rows).savefig(given.output)
    if not given.quick:
        write_between(PAGE, BEGIN, table(rows))


if __name__ == "__main__":
    main()
