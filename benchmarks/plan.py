"""How right `microsfl plan` is: what it predicts ÷ what a run then takes, for the cases of the other benchmarks.

Each case is calibrated as the command does it, by two short runs; then predicted, simulated, and run by real processes.
What is compared is the seconds of a round from its beginning until all clients hold its weights: training, weights out
and in, and sync, as the coordinator's clock shows them; of the measured rounds but the first, the median. A
repetition is a case's only one. `digits` is compared with its evaluation, as its test set is not one sample.

    python -m benchmarks --only plan            # less than 4 minutes; writes benchmarks/plan.json
    python -m benchmarks --only plan --quick    # fewer and smaller cases; writes nothing
    python -m benchmarks.plan                   # puts the figures of benchmarks/plan.json into docs/guides/capacity.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import microsfl
from microsfl.capacity.calibration import Calibration
from microsfl.capacity.measure import here
from microsfl.capacity.measure import measure as calibrate
from microsfl.capacity.prediction import Prediction, predict
from microsfl.capacity.quantities import shown_seconds
from microsfl.capacity.simulation import Simulated, simulate
from microsfl.capacity.workload import Workload, as_json, workload
from microsfl.launch.preflight import resolve
from microsfl.launch.readable import counted

from . import resnet, scaling, throughput
from .figures import Figure
from .pages import write_between
from .places import new_folder

LEAST, MOST = 0.7, 1.4
REPLICAS = (1, 2, 4, 8, 16)
ROUNDS = 4
RESULTS = Path(__file__).parent / "plan.json"  # what docs/guides/capacity.md shows
PAGE = Path("docs/guides/capacity.md")
BEGIN = "<!-- begin: python -m benchmarks.plan -->"
QUICK = ("trainable front", "simulated device, 4 replicas", "digits")


def cases(quick: bool) -> dict[str, microsfl.RunSpec]:
    """Those of the other benchmarks, with fewer rounds."""
    found = {f"MLP, {name}": throughput.specification(tables, quick) for name, _, tables in throughput.CASES}
    found["ResNet-18"] = resnet.specification(quick)
    for replicas in REPLICAS:
        found[f"simulated device, {counted(replicas, 'replica')}"] = scaling.specification(replicas, ROUNDS)
    found["digits"] = microsfl.RunSpec.parse({})
    wanted = {name: spec for name, spec in found.items() if not quick or any(one in name for one in QUICK)}
    return {name: _short(spec, 3 if quick or name == "ResNet-18" else ROUNDS) for name, spec in wanted.items()}


def measure_case(spec: microsfl.RunSpec, known: Calibration | None) -> tuple[Calibration, Prediction, Simulated, float]:
    """(calibration, prediction, simulation, measured seconds of a round)."""
    spec = resolve(spec)
    planned = workload(spec)
    calibration = known or calibrate(planned)
    site = here(spec)
    predicted, simulated = predict(planned, calibration, site), simulate(planned, calibration, site)
    return calibration, predicted, simulated, measured_round(spec, planned)


def measured_round(spec: microsfl.RunSpec, planned: Workload) -> float:
    """Median seconds of the rounds of a run but the first."""
    with new_folder() as folder, microsfl.Federation(spec, folder=folder / "run") as federation:
        for _ in federation.follow():
            pass
        rounds = federation.control.rounds()[1:]
    end = "ended_at" if evaluates(planned) else "synced_at"
    return median(one[end] - one["started_at"] for one in rounds)


def evaluates(planned: Workload) -> bool:
    """Whether there is more to evaluate than the one sample of a benchmark."""
    return sum(planned.test) > 1


def seconds(found: Prediction | Simulated, planned: Workload) -> float:
    return found.round - (0.0 if evaluates(planned) else found.evaluation)


def _short(spec: microsfl.RunSpec, rounds: int) -> microsfl.RunSpec:
    return spec.model_copy(update={"run": spec.run.model_copy(update={"rounds": rounds})})


def compare(quick: bool) -> Iterator[dict[str, Any]]:
    """A row for each case: seconds of a round, predicted, simulated and measured."""
    known: dict[str, Calibration] = {}
    for name, spec in cases(quick).items():
        planned = workload(resolve(spec))
        about = json.dumps({**as_json(planned), "batch": planned.batch})
        calibration, predicted, simulated, took = measure_case(spec, known.get(about))
        known[about] = calibration  # of the simulated device, the same for any number of replicas
        yield {
            "case": name,
            "predicted_s": round(seconds(predicted, planned), 4),
            "simulated_s": round(seconds(simulated, planned), 4),
            "measured_s": round(took, 4),
        }


def measure(quick: bool) -> Iterator[Figure]:
    rows = []
    for row in compare(quick):
        rows.append(row)
        for how in ("predicted", "simulated"):
            ratio = row[f"{how}_s"] / row["measured_s"]
            note = f"{row[f'{how}_s']:.3f} s, measured {row['measured_s']:.3f} s"
            name = f"plan, {row['case']}: {how} ÷ measured"
            yield Figure(name, (ratio,), LEAST if ratio < 1 else MOST, at_least=ratio < 1, note=note)
    if not quick:
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """As docs/guides/capacity.md shows it."""
    lines = ["| case | measured | predicted ÷ measured | simulated ÷ measured |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        took = row["measured_s"]
        shares = (f"{row[how] / took:.2f}" for how in ("predicted_s", "simulated_s"))
        lines.append(f"| {row['case']} | {shown_seconds(took)} | {' | '.join(shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_between(PAGE, BEGIN, table(json.loads(RESULTS.read_text("utf-8"))))
