"""Processor time of the first minutes: commands in a fresh environment, with nothing compiled, and again.

Each command is a process of its own. The cache of compiled functions is an empty folder at first; "later" is the least
of three runs after it. Waiting for a busy machine does not count.

Run with: python -m tests.bench.first_touch [--demo] [--package FOLDER]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.paths import ROOT

GOALS = {
    "--help": ("", 0.3),
    "info of 10 MB": ("", 1.5),
    "fit, least squares": (6.0, 3.0),
    "fit, counts": (12.0, 3.0),
    "report": ("", 5.0),
    "demo": ("", 60.0),
}
"""Goals in seconds of processor time: of the first run, and of later ones."""


def seconds(words: list[str], folder: Path, package: Path) -> float:
    """Processor time of one command, that of its threads and child processes included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "NUMBA_CACHE_DIR": str(folder / "compiled"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "scalehsi", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help="the demo too: two minutes")
    parser.add_argument("--package", type=Path, default=ROOT, help="a checkout to measure, such as an older one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, package = Path(name), given.package.resolve()
        shape = ["--set", "shape=64,64", "--set", "n_channels=1024"]
        seconds(["simulate", "chequerboard", "map.zarr", *shape], folder, package)
        # 160 x 160 x 400 bytes
        seconds(
            ["simulate", "phases", "ten.zarr", "--set", "shape=160,160", "--set", "n_channels=400"], folder, package
        )
        fit = ["fit", "map.zarr", "{}.zarr", "-k", "3", "--overwrite", "--set"]
        commands = {
            "--help": ["--help"],
            "info of 10 MB": ["info", "ten.zarr"],
            "fit, least squares": [*fit, "loss=frobenius"],
            "fit, counts": [*fit, "loss=poisson"],
            "report": ["report", "least.zarr", "page", "--overwrite"],
        }
        if given.demo:
            commands["demo"] = ["demo", "--overwrite"]
        print("| command | first, s | goal | later, s | goal |\n|---|---|---|---|---|")
        for case, words in commands.items():
            if case.startswith("fit"):
                words = [word.format("least" if "least" in case else "counts") for word in words]
                clear(folder / "compiled")
            first = seconds(words, folder, package)
            later = min(seconds(words, folder, package) for _ in range(1 if case == "demo" else 3))
            goal, goal_later = GOALS[case]
            print(f"| {case} | {first:.2f} | {goal} | {later:.2f} | {goal_later} |", flush=True)


def clear(cache: Path) -> None:
    """Remove the files of a cache, as in an environment where nothing ran yet."""
    for file in sorted(cache.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()


if __name__ == "__main__":
    main()
