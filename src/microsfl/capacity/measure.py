"""A calibration: measured now on this machine, or read from what a finished run took."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import click

from ..errors import InvalidSetting
from ..launch.federation import client_groups, cores
from ..launch.forks import Forks
from ..launch.profile_rows import read_rows
from ..launch.spec_file import read_spec
from ..profile.summary import SERVER_PHASES
from ..spec import RunSpec
from .calibration import Calibration, Round, Unit
from .fit import COMPUTE, Sums, fit
from .prediction import predict
from .probe import probe
from .processor import machine
from .site import Site
from .workload import Workload, as_json, workload

STEPS = 30


def measure(planned: Workload, forks: Forks | None = None) -> Calibration:
    """Two short runs on this machine.

    Raises:
        RunFailed: when one of them does.
    """
    click.echo("Measuring on this machine with two short runs; --calibrate FILE keeps what is measured.", err=True)
    one, many = probe(planned.spec, forks)
    unit, round_ = fit(one, many)
    notes = [] if one.cpu is not None else ["This system does not tell the processor time of other processes."]
    return Calibration(unit, round_, one.beat_s, one.resident, as_json(planned), machine(), "two short runs", notes)


def here(spec: RunSpec) -> Site:
    """This machine, as `microsfl run` uses it."""
    return Site(
        replicas=spec.servers.split, cores=cores(), processes=len(client_groups(spec)), spread=spec.servers.spread
    )


def from_run(folder: Path) -> Calibration:
    """What a finished run took, by its profile: `run.toml`, `metrics.csv` and `profile.csv` of its folder.

    Its seconds have in them that its processes waited for each other's cores. So they are made smaller, all by the same
    factor, until the prediction for the run itself takes as long as it took.

    Raises:
        InvalidSetting: when the folder has no profile, or too little of one.
    """
    rows = [row for row in read_rows(folder) if row.round]
    spec = read_spec(folder / "run.toml")
    planned = workload(spec)
    units = sum(map(planned.units, planned.train))
    trained = _batches(folder)
    if not rows or not trained:
        raise InvalidSetting(
            f"The run in {folder} has no second round: its first one, which warms up, says too little."
        )
    seconds = Sums(rows)
    measured = seconds.of("round", "coordinator", ["training"])
    site = here(spec)
    raw = _raw(seconds, planned, units, site)
    low, high = 0.02, 1.0
    if _trains(planned, raw, site) > measured:
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if _trains(planned, _scaled(raw, middle), site) > measured else (middle, high)
    return _scaled(raw, high)


def _trains(planned: Workload, calibration: Calibration, site: Site) -> float:
    found = predict(planned, calibration, site)
    return found.training + found.exchange


def _raw(seconds: Sums, planned: Workload, units: int, site: Site) -> Calibration:
    clients, split = len(planned.train), planned.spec.strategy.traits.split
    wire = seconds.request("split", ["wire"]) / units / 2  # half of it is either side's
    compute = seconds.client(COMPUTE) / units
    held = seconds.server("split", SERVER_PHASES[1:]) / units
    client = compute + seconds.request("split", ["encode", "decode"]) / units + wire
    server = held + wire if split else 0.0
    server_compute = seconds.server("split", ["compute"]) / units
    # More than all cores could have worked: it is a device that computes.
    training = seconds.of("round", "coordinator", ["training"])
    on_device = held * units > 0.9 * training * (site.cores or 1)
    samples = round(planned.epochs * sum(planned.train) / units)
    unit = Unit(
        samples, compute, client, client, server_compute, server, server - server_compute * on_device,
        seconds.server("split", ["store"]) / units, 0.0,
    )  # fmt: skip
    fed = seconds.server("fed", SERVER_PHASES[1:]) / clients
    contributions = sum(map(planned.sent, planned.train))
    evaluation = seconds.client(["model"], "evaluate") + seconds.server("split", ["compute"], "evaluate")
    reduce, aggregate = (seconds.server(kind, SERVER_PHASES[1:], "sync") for kind in ("split", "fed"))
    round_ = Round(
        client=(seconds.client(["hand-out", "upload"]) + seconds.client(["hand-out"], "evaluate")) / clients / 4,
        evaluation=evaluation / max(1, len(planned.test)),
        evaluated=max(1, round(sum(planned.test) / max(1, len(planned.test)))),
        coordinator=0.0,
        coordinator_fixed=0.0,
        fed_server=fed,
        turnaround=0.0,
        sync=max(0.0, seconds.of("round", "coordinator", ["sync"]) - max(reduce, aggregate)),
        reduce=reduce / 2,
        reduce_each=reduce / 2 / contributions if contributions else 0.0,
        aggregate=aggregate / 2,
        aggregate_each=aggregate / 2 / clients,
    )
    notes = ["A profile does not tell what the coordinator worked: that is left out."]
    return Calibration(unit, round_, 0.0, 0, as_json(planned), machine(), f"run '{planned.spec.run.name}'", notes)


def _scaled(raw: Calibration, factor: float) -> Calibration:
    """All seconds of cores times `factor`; a device's stay as they are."""
    unit = raw.unit
    device = unit.server - unit.server_cpu
    return replace(
        raw,
        unit=replace(
            unit,
            client_compute=unit.client_compute * factor,
            client=unit.client * factor,
            client_cpu=unit.client_cpu * factor,
            server_compute=device if device else unit.server_compute * factor,
            server=device + unit.server_cpu * factor,
            server_cpu=unit.server_cpu * factor,
        ),
        round=replace(
            raw.round, client=raw.round.client * factor, fed_server=raw.round.fed_server * factor,
            evaluation=raw.round.evaluation * (1.0 if device else factor),
        ),
    )  # fmt: skip


def _batches(folder: Path) -> int:
    try:
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
            return sum(int(row["batches"] or 0) for row in csv.DictReader(file) if row["round"] not in ("", "0"))
    except (OSError, KeyError, ValueError) as error:
        raise InvalidSetting(f"{folder / 'metrics.csv'} does not say what was trained: {error}.") from None
