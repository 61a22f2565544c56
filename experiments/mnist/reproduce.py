"""The published experiment, all of it: pre-trains a front for each seed, compares, and writes docs/results/mnist.md.

    python -m experiments.mnist.reproduce --data-path FOLDER_OF_MNIST --output runs/mnist

Stopped, the same command goes on. Some 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

from experiments import results

HERE = Path(__file__).parent
RECIPE = ["--adversary", "network", "--adversarial-weight", "10", "--epochs", "20"]  # of the fronts, as published


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for fronts and cells")
    parser.add_argument("--data-path", help="folder of MNIST's four files; default: download them")
    parser.add_argument("--jobs", type=int, help="simulations at a time; default: as many as cores")
    arguments = parser.parse_args()
    data = ["--set", f"data.path={Path(arguments.data_path).resolve()}"] if arguments.data_path else []
    jobs = ["--jobs", str(arguments.jobs)] if arguments.jobs else []
    arguments.output.mkdir(parents=True, exist_ok=True)
    comparison = (HERE / "compare.toml").resolve()
    for seed in tomllib.loads(comparison.read_text("utf-8"))["compare"]["seeds"]:
        front = f"front-{seed}.safetensors"
        if not (arguments.output / front).exists():
            chance = ["--set", f"run.seed={seed}", "--seed", str(seed)]
            recipe = str((HERE / "front.toml").resolve())
            microsfl(["pretrain", recipe, *data, *chance, *RECIPE, "--output", front], arguments.output)
    microsfl(["compare", str(comparison), *data, *jobs, "--output", "cells"], arguments.output)
    results.main(["mnist", str(arguments.output / "cells")])
    return 0


def microsfl(command: list[str], folder: Path) -> None:
    """Run the command in `folder`, where compare.toml looks for the fronts."""
    subprocess.run([sys.executable, "-m", "microsfl", *[str(part) for part in command]], cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
