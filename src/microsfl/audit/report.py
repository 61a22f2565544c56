"""What an audit found, as JSON and as a page to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..spec import RunSpec
from .attacks import MEAN_INPUT, THIS_RUN, Dependence, Inverted
from .finished import Samples
from .labels import KNOWN_PER_CLASS, LabelInference

Json = dict[str, Any]


def as_json(
    spec: RunSpec,
    data: tuple[Samples, Samples],
    inverted: Sequence[Inverted],
    dependence: Dependence,
    labels: LabelInference | None,
    attack: Json,
) -> Json:
    """Everything of the report, JSON values alone.

    Args:
        data: the attacker's and the victims'. inverted: this run first, and the mean input among them.
        labels: None when the labels travel. attack: what the attacks were set to, by name.
    """
    attacker, victims = data
    guessed = next(one.quality.mse for one in inverted if one.name == MEAN_INPUT)
    return {
        "run": spec.run.name,
        "strategy": spec.strategy.name,
        "model": spec.model.model_dump(mode="json"),
        "front_update": spec.strategy.front_update,
        "privacy": spec.privacy.model_dump(mode="json"),
        "attack": attack,
        "attacker": {"data": attacker.what, "samples": len(attacker.x)},
        "victims": {"data": victims.what, "samples": len(victims.x)},
        "inversion": [
            {
                "case": one.name,
                "what": one.what,
                **asdict(one.quality),
                "recovered": recovered(one.quality.mse, guessed),
            }
            for one in inverted
        ],
        "distance_correlation": asdict(dependence),
        "labels": {"travel": labels is None, **({} if labels is None else asdict(labels))},
    }


def recovered(mse: float, guessed: float) -> float | None:
    """The share of the mean input's squared error that a reconstruction takes away: 1 is perfect, 0 no better than
    that guess, below 0 worse. None when the guess is right already."""
    return 1 - mse / guessed if guessed else None


def as_markdown(report: Json, *, picture: str | None) -> str:
    """privacy.md."""
    sections = [
        f"# What run {report['run']} gives away",
        _setting(report),
        "## Inputs from smashed data",
        _inversion(report),
        *([f"![originals and reconstructions]({picture})"] if picture else []),
        "## Dependence of smashed data on inputs",
        _dependence(report["distance_correlation"]),
        "## Labels from gradients",
        _labels(report["labels"]),
        "## What this shows and what it cannot",
        _limits(report),
    ]
    return "\n\n".join(sections) + "\n"


def _setting(report: Json) -> str:
    privacy, attack, attacker, victims = (report[name] for name in ("privacy", "attack", "attacker", "victims"))
    protection = [f"noise of standard deviation {privacy['noise_std']:g}"] if privacy["noise_std"] else []
    protection += [f"clipping to a norm of {privacy['clip_norm']:g}"] if privacy["clip_norm"] else []
    front = "a frozen front" if report["front_update"] == "never" else "a front that was trained along"
    return (
        f"Strategy {report['strategy']}, model {report['model']['name']} with {front}; smashed data with "
        f"{' and '.join(protection) or 'neither noise nor clipping'}. The attacker has "
        f"{attacker['samples']:,} samples ({attacker['data']}) and the victims are {victims['samples']:,} samples "
        f"({victims['data']}). Seed {attack['seed']}, {attack['epochs']} epochs."
    )


def _inversion(report: Json) -> str:
    rows = report["inversion"]
    with_ssim = rows[0]["ssim"] is not None
    head = ["smashed data of", "MSE", *(["SSIM"] if with_ssim else []), "recovered", ""]
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 2), "---"])]
    for row in rows:
        ssim = [f"{row['ssim']:.3f}"] if with_ssim else []
        lines.append(_row([row["case"], f"{row['mse']:.4f}", *ssim, share(row["recovered"]), row["what"]]))
    own = next(row for row in rows if row["case"] == THIS_RUN)
    return (
        "\n".join(lines)
        + "\n\nMSE is the mean squared error of a value"
        + (", SSIM the structural similarity (1: the same image)" if with_ssim else "")
        + ", recovered the share of the mean input's squared error that the reconstruction takes away (0: no better "
        f"than guessing the mean). {_verdict(own['recovered'])}"
    )


def _verdict(share_recovered: float | None) -> str:
    if share_recovered is None:
        return "All inputs are alike, so there is nothing to recover."
    if share_recovered > 0.5:
        return "**This attack rebuilds most of what the inputs are.**"
    if share_recovered > 0.1:
        return "**This attack rebuilds part of what the inputs are.**"
    return "This attack gets little more than the mean input."


def _dependence(found: Json) -> str:
    return (
        f"Distance correlation between inputs and smashed data: **{found['value']:.3f}** on {found['samples']:,} "
        f"samples (1: one is a rotation, shift or scaling of the other). As many samples that have nothing to do "
        f"with each other come to {found['independent']:.3f}, for the estimate is biased upwards: that is its zero."
    )


def _labels(found: Json) -> str:
    if found["travel"]:
        return (
            "The cut is not U-shaped: the labels travel with the activations, so that a split server knows all of them "
            "(**accuracy 1** by construction). `model.u_shaped = true` keeps them on the client."
        )
    return (
        "The labels stay on the client, but the gradients that it sends for the body's outputs depend on them. With "
        f"{KNOWN_PER_CLASS} samples of each class whose labels it knows, a split server that gives every other one the "
        "label of the nearest mean direction is right for\n\n"
        + "\n".join(
            [
                _row(["it looks at", "accuracy"]),
                _row(["---", "---:"]),
                _row(["the gradients", f"{found['from_gradients']:.3f}"]),
                _row(["the body's outputs, which it computes itself", f"{found['from_outputs']:.3f}"]),
                _row(["nothing: the most frequent class", f"{found['chance']:.3f}"]),
            ]
        )
        + f"\n\non {found['samples']:,} samples, with the trained model."
    )


def _limits(report: Json) -> str:
    privacy = report["privacy"]
    points = [
        "These are attacks of a given strength: what they find leaks; **what they do not find may leak to a better "
        "one**. None of these figures is a guarantee such as differential privacy.",
        "The attacker is taken to know the front: it has its weights, or a client that works with it, and data of the "
        "same kind. A split server alone does not have the front unless it was published; one that has to do without "
        "will do worse.",
        "The front is the one that the run ended with. A front that was trained along was another one in each round, "
        "and all of them were seen.",
        "Mean figures hide the worst case: single samples can be rebuilt far better than the mean.",
    ]
    if privacy["noise_std"] and privacy["noise_seed"] == "run":
        points.append(
            "privacy.noise_seed = 'run': the noise can be drawn again from the run's specification, which every split "
            "server has. Count the row 'noise subtracted', not the one of this run."
        )
    elif privacy["noise_std"]:
        points.append(
            "A train sample is sent again in every epoch with new noise. Who recognizes it can average the noise away, "
            "most easily where the front is frozen."
        )
    return "\n".join(f"- {point}" for point in points)


def share(value: float | None) -> str:
    """In percent, as a table shows it."""
    return "–" if value is None else f"{value:.0%}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
