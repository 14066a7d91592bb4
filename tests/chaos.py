"""Random signals to the processes of random commands: ``python -m tests.chaos --runs 200 [--seed S]``.

A run starts a command, sends SIGINT, SIGTERM or SIGKILL to the client, a worker or a nanny at a random time, and looks
at what is left: exit status, messages, processes, files. Then it runs the command again, with ``--resume`` where there
is a checkpoint, and compares the numbers with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import xarray as xr

MARK: Final = "SCALEHSI_CHAOS"
"""Environment variable by which the processes of a run are found."""
LONGEST_SECONDS: Final = 60.0
ORPHAN_SECONDS: Final = 10.0
WAIT_FOR_WORKER_SECONDS: Final = 20.0
LOCAL: Final = ("--cluster", "local", "--workers", "2", "--memory", "600MiB")
MODEL: Final = ("-k", "3", "--set", "loss=poisson", "--set", "bin_factor=1", "--set", "tol=0", "--set", "max_iter=8")
HIDDEN: Final = (".partial", ".old")
BAD_WORDS: Final = ("Traceback", "Exception ignored", "not foreseen", "never retrieved")


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes
    ----------
    words : tuple of str
        With the names of what `Chaos.prepare` has made.
    made : tuple of str
        Stores or folders that it writes.
    again : tuple of str
        What is added when it runs again.
    resumed : bool
        True for a fit that goes on from a checkpoint which is there already.
    """

    words: tuple[str, ...]
    made: tuple[str, ...]
    again: tuple[str, ...] = ("--overwrite",)
    resumed: bool = False


COMMANDS: Final = {
    "fit": Command(("fit", "cube.zarr", "out.zarr", *MODEL), ("out.zarr",)),
    "fit --checkpoint": Command(
        ("fit", "cube.zarr", "out.zarr", *MODEL, "--checkpoint", "ck"), ("out.zarr",), ("--overwrite", "--resume")
    ),
    "fit --resume": Command(
        ("fit", "cube.zarr", "out.zarr", *MODEL, "--checkpoint", "ck", "--resume"), ("out.zarr",), resumed=True
    ),
    "convert": Command(("convert", "cube.zarr", "out.zarr", "--chunk-mb", "0.01"), ("out.zarr",)),
    "prepare": Command(("prepare", "cube.zarr", "out.zarr", "--step", "bin:y=2,x=2"), ("out.zarr",)),
    "project": Command(("project", "result.zarr", "cube.zarr", "out.zarr"), ("out.zarr",)),
    "reconstruct": Command(("reconstruct", "result.zarr", "out.zarr"), ("out.zarr",)),
    "report": Command(("report", "result.zarr", "page"), ("page",)),
    "simulate": Command(
        ("simulate", "chequerboard", "out.zarr", "--set", "shape=16,16", "--set", "n_channels=64"),
        ("out.zarr", "out_truth.zarr"),
    ),
}
NO_CLUSTER: Final = ("report", "simulate")


@dataclass
class Chaos:
    """A folder with the inputs and the right numbers of all commands, and random runs in it."""

    folder: Path
    random: random.Random
    only: str = ""
    """A part of the names of the commands that run."""
    seconds: dict[tuple[str, bool], float] = field(default_factory=dict)
    """How long an undisturbed run takes, by command and whether it has a local cluster."""

    def prepare(self) -> None:
        """Write the inputs of the commands."""
        inputs = self.folder / "inputs"
        inputs.mkdir()
        scene = ("--set", "shape=16,16", "--set", "n_channels=64", "--set", "counts_per_pixel=400", "--set", "seed=1")
        self._right(("simulate", "chequerboard", "cube.zarr", *scene), inputs)
        self._right(("fit", "cube.zarr", "result.zarr", *MODEL), inputs)
        short = [w.replace("max_iter=8", "max_iter=4") for w in MODEL]
        self._right(("fit", "cube.zarr", "short.zarr", *short, "--checkpoint", "ck"), inputs)

    def _right(self, words: tuple[str, ...], folder: Path) -> None:
        done = subprocess.run([sys.executable, "-m", "scalehsi", *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def _time(self, name: str, *, local: bool) -> None:
        """Keep what an undisturbed run writes, and its seconds."""
        folder = self._place(name)
        begin = time.monotonic()
        self._right(COMMANDS[name].words + (LOCAL if local else ()), folder)
        self.seconds[name, local] = time.monotonic() - begin
        folder.rename(self._right_folder(name, local=local))

    def _right_folder(self, name: str, *, local: bool) -> Path:
        return self.folder / f"right {name} {local}"

    def _place(self, name: str) -> Path:
        """A new folder with the inputs of a command."""
        place = self.folder / "run"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for each in ("cube.zarr", "result.zarr", *(["ck"] if COMMANDS[name].resumed else [])):
            shutil.copytree(self.folder / "inputs" / each, place / each)
        return place

    def run(self) -> tuple[tuple[str, str, str], list[str]]:
        """One random run; what was run, and what was wrong with it."""
        name = self.random.choice([each for each in COMMANDS if self.only in each])
        local = name not in NO_CLUSTER and self.random.random() < 0.4
        target = self.random.choice(("client", "worker")) if local else "client"
        number = self.random.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
        if target == "worker":
            number = self.random.choice((signal.SIGTERM, signal.SIGKILL))
        if (name, local) not in self.seconds:
            self._time(name, local=local)
        after = self.random.uniform(0.0, 1.1) * self.seconds[name, local]
        found = Run(self, name, local=local, target=target, number=number, after=after).all()
        place = "local cluster" if local else "threads"
        return (f"{name}, {place}", target, number.name), found


@dataclass
class Run:
    """One run of a command that gets a signal; ``all`` gives what was wrong."""

    chaos: Chaos
    name: str
    local: bool
    target: str
    number: signal.Signals
    after: float
    wrong: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        self.folder = self.chaos._place(self.name)
        self.command = COMMANDS[self.name]
        status, err = self._disturbed()
        self._check_end(status, err)
        self._check_files(complete=status == 0)
        again = tuple(w for w in self.command.again if w != "--overwrite" or self._exists())
        usual = 3 * self.chaos.seconds[self.name, self.local]
        status, err = self._start(self.command.words + again).wait_for_end(LONGEST_SECONDS + usual)
        if status != 0:
            self.wrong.append(f"the next run ended with {status}: {err[-500:]}")
        self._check_files(complete=True)
        self._check_left()
        return self.wrong

    def _exists(self) -> bool:
        return any((self.folder / made).exists() for made in self.command.made)

    def _start(self, words: tuple[str, ...]) -> Started:
        where = LOCAL if self.local else ()
        return Started([sys.executable, "-m", "scalehsi", *words, *where], self.folder)

    def _disturbed(self) -> tuple[int | None, str]:
        started = self._start(self.command.words)
        time.sleep(self.after)
        if self.target == "client":
            started.process.send_signal(self.number)
        else:
            end = time.monotonic() + WAIT_FOR_WORKER_SECONDS
            while started.process.poll() is None and time.monotonic() < end:
                if workers := list(started.workers()):
                    self.chaos.random.choice(workers).send_signal(self.number)
                    break
                time.sleep(0.02)
        # Without a worker the command goes on, so it needs its usual time too.
        usual = 3 * self.chaos.seconds[self.name, self.local] if self.target == "worker" else 0.0
        found = started.wait_for_end(LONGEST_SECONDS + usual)
        left = started.left_after(ORPHAN_SECONDS)
        if left:
            self.wrong.append(f"processes left: {left}")
        return found

    def _check_end(self, status: int | None, err: str) -> None:
        """The exit status and the words of the disturbed command."""
        if status is None:
            self.wrong.append(f"it did not end within {LONGEST_SECONDS:g} s")
        allowed = {0} if self.target == "worker" else {0, -signal.SIGKILL if self.number == signal.SIGKILL else 130}
        if self.target == "worker" and status == 2 and "the local workers did not start" in err:
            return  # killed before it was connected
        if status not in allowed:
            self.wrong.append(f"exit status {status}: {err[-500:]}")
        self.wrong += [f"{word!r} in {err[-3000:]}" for word in BAD_WORDS if word in err]
        state = self.folder / "ck" / "state.npz"
        if status == 130 and "iterations" in err and state.exists() and "'ck'" not in err:
            self.wrong.append(f"the checkpoint is not named in {err!r}")

    def _check_files(self, *, complete: bool) -> None:
        """What is there is whole and right; with ``complete`` it is there."""
        right = self.chaos._right_folder(self.name, local=self.local)
        for made in self.command.made:
            path = self.folder / made
            if not path.exists():
                if complete:
                    self.wrong.append(f"there is no {made}")
            elif differs := difference(path, right / made):
                self.wrong.append(f"{made}: {differs}")

    def _check_left(self) -> None:
        """No temporary files after the next run."""
        names = {p.name for p in self.folder.iterdir()}
        right = {p.name for p in self.chaos._right_folder(self.name, local=self.local).iterdir()}
        if names - right - {"tmp"}:
            self.wrong.append(f"files left: {sorted(names - right)}")
        inside = [p.name for p in (self.folder / "ck").glob("*")] if (self.folder / "ck").exists() else []
        if [n for n in inside if n.endswith(HIDDEN)]:
            self.wrong.append(f"files left in the checkpoint: {inside}")
        # Dask keeps the locks of its folder for scratch data.
        temporary = [p for p in (self.folder / "tmp").rglob("*") if p.is_file() and p.suffix != ".lock"]
        if temporary:
            self.wrong.append(f"temporary files left: {temporary}")


class Started:
    """A process and those that it starts."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        (folder / "tmp").mkdir(exist_ok=True)
        self.log = tempfile.TemporaryFile("w+")  # a pipe would stay open in orphans
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, MARK: self.mark, "TMPDIR": str(folder / "tmp")},
        )

    def wait_for_end(self, seconds: float) -> tuple[int | None, str]:
        try:
            status: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        return status, text

    def processes(self) -> Iterator[psutil.Process]:
        """The other processes of this run."""
        for each in psutil.process_iter():
            try:
                if each.pid != self.process.pid and each.environ().get(MARK) == self.mark:
                    if each.status() != psutil.STATUS_ZOMBIE:
                        yield each
            except psutil.Error:
                continue

    def workers(self) -> Iterator[psutil.Process]:
        for each in self.processes():
            try:
                if any("spawn_main" in word for word in each.cmdline()):
                    yield each
            except psutil.Error:
                continue

    def left_after(self, seconds: float) -> list[str]:
        """Processes that are still there after this time; they are killed."""
        end = time.monotonic() + seconds
        while left := list(self.processes()):
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        names = []
        for each in left:
            names.append(" ".join(each.cmdline())[:200])
            each.kill()
        return names


def difference(made: Path, right: Path) -> str:
    """In what a store, or the folder of a report, differs from the right one; empty where it does not."""
    if (right / "zarr.json").exists():
        try:
            with xr.open_zarr(made, consolidated=False) as one, xr.open_zarr(right, consolidated=False) as other:
                if set(one.variables) != set(other.variables):
                    return f"variables {sorted(map(str, one.variables))}"
                for name in one.variables:
                    if not np.array_equal(one[name].values, other[name].values, equal_nan=one[name].dtype.kind == "f"):
                        return f"other values of {name}"
        except Exception as error:
            return f"cannot be read: {error}"
        return ""
    names = [sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()) for top in (made, right)]
    if names[0] != names[1]:
        return f"files {names[0]}"
    whole = all("</html>" in p.read_text() for p in made.glob("*.html"))
    return "" if whole else "half a page"


def table(right: Counter[tuple[str, str, str]], runs: Counter[tuple[str, str, str]]) -> str:
    lines = ["| command | signal to | signal | runs | right |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(key)} | {runs[key]} | {right[key]} |" for key in sorted(runs)]
    lines.append(f"| all | | | {runs.total()} | {right.total()} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the names of the commands")
    parser.add_argument("--minutes", type=float, default=1e9, help="no further run begins after this time")
    options = parser.parse_args(arguments)
    right: Counter[tuple[str, str, str]] = Counter()
    runs: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        chaos = Chaos(Path(folder), random.Random(options.seed), options.only)
        chaos.prepare()
        end = time.monotonic() + 60 * options.minutes
        for number in range(options.runs):
            if time.monotonic() > end:
                break
            key, wrong = chaos.run()
            runs[key] += 1
            right[key] += not wrong
            for each in wrong:
                print(f"run {number}, {' '.join(key)}: {each}", file=sys.stderr, flush=True)
    print(table(right, runs))
    return 0 if right.total() == runs.total() else 1


if __name__ == "__main__":
    sys.exit(main())
