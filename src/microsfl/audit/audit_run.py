"""`microsfl audit-privacy`: from a run folder to a report in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import StoreNotWritable
from ..launch.preflight import check_matplotlib
from .attacks import Dependence, Inverted, cases, dependence, guess, invert, labels_of
from .finished import FinishedRun, Samples, attack_data, device_of, moved, on, read_run
from .inversion import is_image
from .labels import LabelInference
from .progress import Stages, stages
from .report import Json, as_json, as_markdown, share

PICTURE = "privacy.png"


def audit_run(
    folder: Path, output: Path | None, *, path: str | None, epochs: int, samples: int, seed: int, device: str
) -> Json:
    """Attack the finished run of a run folder; write privacy.md, privacy.json and privacy.png; what is in the JSON.

    Args:
        output: folder to write to; default: the run folder. path: of the data set's files, if not where they were.
        epochs: of each inversion decoder. samples: at most so many for the attacker, and as many victims.

    Raises:
        InvalidSetting: when there is no finished run there, or nothing of it crosses a cut.
        StoreNotWritable: when the report cannot be written.
    """
    place = device_of(device)
    run = read_run(folder, path)
    images = is_image(_shape(run))
    if images:
        check_matplotlib("The audit draws its pictures")
    run = replace(run, parts=moved(run.parts, place))
    attacker, victims = (on(place, one) for one in attack_data(run.spec, samples=samples, seed=seed))
    with stages() as stage:
        inverted = _inverted(run, attacker, victims, epochs, seed, stage)
        depends, labels = _others(run, attacker, victims, seed, stage)
    attack = {"epochs": epochs, "samples": samples, "seed": seed}
    report = as_json(run.spec, (attacker, victims), inverted, depends, labels, attack)
    _write(output or folder, report, victims, inverted if images else [])
    return report


def print_report(report: Json, folder: Path) -> None:
    """The figures, on standard output."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("smashed data of")
    for name in ("MSE", "SSIM", "recovered"):
        table.add_column(name, justify="right")
    for row in report["inversion"]:
        ssim = "–" if row["ssim"] is None else f"{row['ssim']:.3f}"
        table.add_row(row["case"], f"{row['mse']:.4f}", ssim, share(row["recovered"]))
    Console().print(table)
    depends, labels = report["distance_correlation"], report["labels"]
    found = (
        "1 (they travel)"
        if labels["travel"]
        else f"{labels['from_gradients']:.3f} from gradients, {labels['from_outputs']:.3f} from the body's outputs, "
        f"{labels['chance']:.3f} by chance"
    )
    click.echo(f"  {'dependence':<12} {depends['value']:.3f} ({depends['independent']:.3f} if independent)")
    click.echo(f"  {'labels':<12} {found}")
    click.echo(f"  {'report':<12} {folder / 'privacy.md'}")


def _inverted(
    run: FinishedRun, attacker: Samples, victims: Samples, epochs: int, seed: int, stage: Stages
) -> list[Inverted]:
    return [
        *(
            invert(case, attacker, victims, epochs=epochs, seed=seed, on_epoch=stage(f"inversion: {case.name}", epochs))
            for case in cases(run, seed)
        ),
        guess(attacker, victims),
    ]


def _others(
    run: FinishedRun, attacker: Samples, victims: Samples, seed: int, stage: Stages
) -> tuple[Dependence, LabelInference | None]:
    done = stage("distance correlation", 1)
    depends = dependence(run, victims, seed)
    done()
    if not run.spec.model.u_shaped:
        return depends, None
    done = stage("label inference", 1)
    labels = labels_of(run, attacker, victims, seed)
    done()
    return depends, labels


def _shape(run: FinishedRun) -> tuple[int, ...]:
    shape = run.spec.model.input_shape
    return shape if isinstance(shape, tuple) else ()


def _write(folder: Path, report: Json, victims: Samples, inverted: list[Inverted]) -> None:
    """privacy.json, privacy.md and, when there is anything to show, privacy.png."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if inverted:
            from .pictures import write_grid

            write_grid(folder / PICTURE, victims, inverted)
        (folder / "privacy.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", "utf-8")
        (folder / "privacy.md").write_text(as_markdown(report, picture=PICTURE if inverted else None), "utf-8")
    except OSError as error:
        raise StoreNotWritable(f"The report cannot be written to {folder}: {error.strerror}.") from None
