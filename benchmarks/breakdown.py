"""Where the time of a batch goes: the figure of docs/concepts/performance.md, from the profiles of real runs.

    python -m benchmarks.breakdown [--output docs/concepts/performance.png]

The cases of `throughput` and the ResNet of `resnet`, with real processes; what a client's thread does while a batch is
trained, as `microsfl profile` divides it, all rounds together. A bar is 100 %; its label says how long a batch takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

import microsfl
from microsfl.launch.profile_rows import read_rows
from microsfl.launch.training import train
from microsfl.profile.summary import Profile, summarize

from . import resnet, throughput
from .places import new_folder

# What is shown of a batch: name -> (colour, phases of a client and parts of its waiting).
PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "client computes": ("#1f5fa8", ("data", "front", "aux", "tail")),
    "client encodes, decodes": ("#6baed6", ("encode", "decode")),
    "client waits for its turn": ("#c3cad2", ("turn",)),
    "wire": ("#f4a259", ("wire",)),
    "server: queue": ("#b8b0d8", ("server queue",)),
    "server encodes, decodes": ("#d9879b", ("server decode", "server encode")),
    "server computes": ("#a63d40", ("server compute",)),
    "server: store": ("#e9b44c", ("server store",)),
    "weights handed out, uploaded": ("#5a9e6f", ("hand-out", "upload")),
    "other": ("#8b95a1", ("other",)),
}
QUICKER = {"run": {"rounds": 4}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/concepts/performance.png"))
    output: Path = parser.parse_args().output
    cases = {name: throughput.specification(tables, quick=False) for name, _, tables in throughput.CASES}
    found = {name: profiled(spec) for name, spec in {**cases, "ResNet-18": resnet.specification(quick=False)}.items()}
    draw(found).savefig(output, dpi=130)
    for name, (seconds, parts) in found.items():
        shares = ", ".join(f"{part} {share:.0%}" for part, share in parts.items() if share >= 0.005)
        print(f"{name}: {1e3 * seconds:.2f} ms a batch of one client: {shares}")


def profiled(spec: microsfl.RunSpec) -> tuple[float, dict[str, float]]:
    """(seconds a batch of one client, shares of `PARTS`) of a run."""
    spec = spec.model_copy(update={"run": spec.run.model_copy(update=QUICKER["run"])})
    with new_folder() as folder:
        _, metrics, path = train(spec, folder / "run")
        profile = summarize(read_rows(path))
    phases = client_phases(profile)
    total = sum(phases.values())
    batches = sum(row["batches"] for row in metrics)
    return total / batches, {
        part: sum(phases.get(name, 0.0) for name in names) / total for part, (_, names) in PARTS.items()
    }


def client_phases(profile: Profile) -> dict[str, float]:
    """Seconds of all clients while they train, with their waiting divided as their requests are."""
    phases: dict[str, float] = {}
    for client in profile.clients.values():
        for phase, seconds in client.training.items():
            parts = profile.waits().items() if phase == "waiting" else [(phase, 1.0)]
            for part, share in parts:
                phases[part] = phases.get(part, 0.0) + share * seconds
    return phases


def draw(found: Mapping[str, tuple[float, Mapping[str, float]]]) -> Figure:
    figure = Figure(figsize=(9.0, 1.4 + 0.55 * len(found)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{name}\n{_duration(seconds)}" for name, (seconds, _) in found.items()]
    left = [0.0] * len(found)
    for part, (colour, _) in PARTS.items():
        widths = [100 * parts[part] for _, parts in found.values()]
        if max(widths) < 0.1:
            continue
        axes.barh(labels, widths, left=left, color=colour, label=part, edgecolor="white", linewidth=0.5)
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width >= 6:
                axes.text(start + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=8)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of a batch's time, as its client sees it")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s a batch" if seconds >= 0.1 else f"{1e3 * seconds:.1f} ms a batch"


if __name__ == "__main__":
    main()
