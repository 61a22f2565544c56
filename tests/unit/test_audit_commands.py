"""`microsfl pretrain`, a run with its front, and `microsfl audit-privacy` on that run; and what they refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from microsfl.audit.attacks import cases, sendings_of_a_sample
from microsfl.audit.finished import attack_data, read_run
from microsfl.audit.pictures import spread_over_classes
from microsfl.audit.report import recovered
from microsfl.cli import main
from microsfl.launch.spec_file import read_spec, to_toml
from microsfl.zoo.parts import build_parts

CONFIG = """
run = {name = "small", rounds = 2}
data = {clients = 2, public = 0.2, partition = "iid"}
model = {name = "linear-front", front_weights = "front.safetensors"}
strategy = {front_update = "never"}
privacy = {noise_std = 0.1}
"""


def microsfl(*arguments: str | Path) -> int:
    """Exit code of the command, run in this process."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.toml, front.safetensors as `pretrain` made it, and the folder run/ of a run that began with it."""
    folder = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "config.toml").write_text(CONFIG)
        assert microsfl("pretrain", "config.toml", "--output", "front.safetensors", "--epochs", "2") == 0
        assert microsfl("run", "--simulate", "config.toml", "--output", "run") == 0
    return folder


def audited(folder: Path, output: Path, *more: str) -> dict[str, Any]:
    assert microsfl("audit-privacy", folder, "--output", output, "--epochs", "2", "--samples", "150", *more) == 0
    report: dict[str, Any] = json.loads((output / "privacy.json").read_text())
    return report


def test_a_run_keeps_the_front_that_was_pretrained(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    front = load_file(made / "front.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in front.items()} == {
        "fc1.weight": (64, 64),
        "fc1.bias": (64,),
    }
    after = load_file(made / "run" / "model" / "front.safetensors")
    assert all(torch.equal(front[name], after[name]) for name in front)
    again = made / "again.safetensors"
    assert microsfl("pretrain", made / "config.toml", "--output", again, "--epochs", "2") == 0
    out, err = capsys.readouterr()
    assert out.split() == [hashlib.sha256(again.read_bytes()).hexdigest(), str(again)]
    assert again.read_bytes() == (made / "front.safetensors").read_bytes()
    assert "epoch 2/2  accuracy 0." in err
    assert microsfl("pretrain", made / "config.toml", "--output", again, "--epochs", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(again), "sha256": out.split()[0]}


def test_an_audit_writes_a_report_a_picture_and_figures(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = audited(made / "run", tmp_path)
    rows = {row["case"]: row for row in report["inversion"]}
    assert list(rows) == ["this run", "noise averaged", "untrained front", "mean input"]
    assert rows["mean input"]["recovered"] == 0
    assert rows["noise averaged"]["mse"] < rows["this run"]["mse"] < rows["mean input"]["mse"]
    assert rows["this run"]["ssim"] > rows["mean input"]["ssim"]
    assert (report["attacker"]["samples"], report["victims"]["samples"]) == (150, 150)
    assert 0 < report["distance_correlation"]["independent"] < report["distance_correlation"]["value"] < 1
    assert report["labels"]["from_gradients"] > 0.9 > report["labels"]["chance"]
    width, height = struct.unpack(">II", (tmp_path / "privacy.png").read_bytes()[16:24])
    assert width > height > 400
    page = (tmp_path / "privacy.md").read_text()
    assert "](privacy.png)" in page
    assert "can average the noise away" in page
    out = capsys.readouterr().out
    assert f"{report['labels']['from_gradients']:.3f} from gradients" in out
    assert str(tmp_path / "privacy.md") in out


def changed(made: Path, output: Path, *assignments: str) -> Path:
    """A copy of the run folder whose specification says something else."""
    shutil.copytree(made / "run", output)
    (output / "run.toml").write_text(to_toml(read_spec(output / "run.toml", assignments)))
    return output


def test_noise_that_can_be_drawn_again_is_counted_as_none(made: Path, tmp_path: Path) -> None:
    run = read_run(changed(made, tmp_path / "run", "privacy.noise_seed=run"))
    assert [(case.name, case.protection.noise_std) for case in cases(run, 0)] == [
        ("this run", 0.1),
        ("noise subtracted", 0.0),
        ("untrained front", 0.1),
    ]


def test_a_frozen_front_lets_the_noise_be_averaged_over_every_sending(made: Path) -> None:
    deviations = {case.name: case.protection.noise_std for case in cases(read_run(made / "run"), 0)}
    assert deviations == {"this run": 0.1, "noise averaged": pytest.approx(0.1 / 2**0.5), "untrained front": 0.1}


def test_a_front_that_is_trained_is_not_the_same_for_long_enough_to_average(made: Path, tmp_path: Path) -> None:
    run = read_run(changed(made, tmp_path / "run", "strategy.front_update=batch", "strategy.unit=1"))
    assert [case.name for case in cases(run, 0)] == ["this run", "untrained front"]


def test_the_untrained_front_is_neither_the_runs_nor_the_one_it_began_with(made: Path) -> None:
    run = read_run(made / "run")
    *_, untrained = cases(run, 0)
    initial = build_parts(run.spec, ()).front
    weights = [front.state_dict()["fc1.weight"] for front in (untrained.front, run.parts.front, initial)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_how_often_a_sample_travels(made: Path) -> None:
    spec = read_run(made / "run").spec
    assert sendings_of_a_sample(spec) == 2
    more = read_spec(made / "run" / "run.toml", ("run.rounds=6", "strategy.local_epochs=3", "run.participants=1"))
    assert sendings_of_a_sample(more) == 9


@pytest.mark.parametrize("public", [0.2, 0.0])
def test_attacker_and_victims_share_no_sample(made: Path, public: float) -> None:
    spec = read_spec(made / "run" / "run.toml", (f"data.public={public}",))
    attacker, victims = attack_data(spec, samples=10_000, seed=0)
    both = torch.cat([attacker.x, victims.x])
    # Digits have no two equal images in one split.
    assert len(torch.unique(both.flatten(1), dim=0)) == len(both)
    assert len(both) == (1442 if public else 355)
    assert ("public" in attacker.what, "clients" in victims.what) == ((True, True) if public else (True, False))
    few, _ = attack_data(spec, samples=30, seed=0)
    assert len(few.x) == 30


def test_a_vanilla_cut_and_vectors_are_audited_without_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "def data():\n"
        "    draw = torch.Generator().manual_seed(0)\n"
        "    x = torch.randn(300, 6, generator=draw)\n"
        "    both = TensorDataset(x[:200], (x[:200, 0] > 0).long()), TensorDataset(x[200:], (x[200:, 0] > 0).long())\n"
        "    return both\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = [
        "data.dataset=flat:data",
        "run.rounds=1",
        "data.clients=2",
        "model.u_shaped=false",
        "data.partition=iid",
    ]
    assert microsfl("run", "--simulate", "--output", "run", *(f"--set={one}" for one in settings)) == 0
    report = audited(tmp_path / "run", tmp_path / "report")
    assert report["labels"] == {"travel": True}
    assert {row["ssim"] for row in report["inversion"]} == {None}
    assert "half of the test set" in report["attacker"]["data"]
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["privacy.json", "privacy.md"]
    page = (tmp_path / "report" / "privacy.md").read_text()
    assert "**accuracy 1** by construction" in page
    assert "SSIM" not in page


def test_pictures_show_every_class() -> None:
    labels = torch.tensor([3, 3, 3, 1, 1, 0, 3, 0])
    assert spread_over_classes(labels, 5) == [5, 3, 0, 7, 4]
    assert spread_over_classes(labels, 99) == [5, 3, 0, 7, 4, 1, 2, 6]


def test_what_is_recovered() -> None:
    assert recovered(0.0, 0.5) == 1
    assert recovered(0.5, 0.5) == 0
    assert recovered(0.0, 0.0) is None


def wrong(made: Path, tmp_path: Path, how: str) -> Path:
    if how == "nothing there":
        return tmp_path / "missing"
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    if how == "not finished":
        (folder / "summary.json").unlink()
    elif how == "no model":
        (folder / "model" / "body.safetensors").unlink()
    elif how == "another model":
        shutil.copy(folder / "model" / "tail.safetensors", folder / "model" / "front.safetensors")
    elif how == "no cut":
        (folder / "run.toml").write_text('strategy = {name = "fedavg"}\n')
    return folder


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nothing there", "is not a run folder"),
        ("not finished", "is not finished: it has no summary.json"),
        ("no model", "body.safetensors cannot be read"),
        ("another model", "front.safetensors is not that part of the run's model"),
        ("no cut", "'fedavg' does not cut the model: no smashed data crosses a cut"),
    ],
)
def test_what_cannot_be_audited_is_said(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, says: str
) -> None:
    assert microsfl("audit-privacy", wrong(made, tmp_path, how)) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "data.public=0"], "There is no public data: set data.public"),
        (["--set", "data.public=0.001"], "public samples are too few"),
        (["--dataset", "other:wide"], "are of shape [7] in 2 classes"),
        (["--dataset", "nothing"], "'nothing' is unknown"),
        (["--set", "strategy.name=fedavg", "--set", "strategy.front_update=batch", "--set", "privacy.noise_std=0",
          "--set", "model={name = 'linear-front'}"], "'fedavg' does not cut the model, so there is no front"),
        (["--device", "toaster"], "'toaster' is none of cpu"),
        (["--lr", "0"], "--lr"),
        (["--lr", "1e30", "--epochs", "1"], "no numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_pretrained_is_said(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str],
    says: str,
) -> None:  # fmt: skip
    (tmp_path / "other.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def wide():\n    return (TensorDataset(torch.rand(30, 7), torch.arange(30) % 2),) * 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "front.safetensors"
    assert microsfl("pretrain", made / "config.toml", "--output", out, *more) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_other_public_data_of_the_same_shape_will_do(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "front.safetensors"
    assert microsfl("pretrain", made / "config.toml", "--set=data.public=0", "--dataset=digits", "--epochs=1",
                    "--decoder-steps=1", "--output", out) == 0  # fmt: skip
    assert load_file(out).keys() == {"fc1.weight", "fc1.bias"}
