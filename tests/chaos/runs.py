"""The commands, what is sent to them, and what is looked at afterwards."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from tests.chaos.processes import Started

LONGEST_SECONDS: Final = 60.0
ORPHAN_SECONDS: Final = 10.0
STARTING_PART: Final = 0.25
"""The part of the signals to workers that they get while they start; the others come while they compute."""
WAIT_FOR_WORKER_SECONDS: Final = 20.0
PROGRAM: Final = (sys.executable, "-m", "scalehsi")
CONNECTED: Final = "computing on"
"""What a command says when its workers have started."""
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
CLIENT: Final = ("client SIGINT", "client SIGTERM", "client SIGKILL", "client SIGINT twice")
WORKERS: Final = ("worker SIGTERM", "worker SIGKILL", "all SIGINT", "all SIGTERM")
"""What is sent to whom; a terminal sends Ctrl-C to all processes of a command."""
SECOND_SECONDS: Final = 2.0
"""The longest time between two Ctrl-C."""


@dataclass
class Drawn:
    """What happens in a run: the command, what is sent to whom, and when, as a part of the usual time."""

    run: int
    seed: int
    name: str
    local: bool
    sent: str
    part: float

    @classmethod
    def of(cls, run: int, seed: int, only: str) -> Drawn:
        drawn = random.Random(f"{seed} {run}")
        name = drawn.choice([each for each in COMMANDS if only in each])
        local = name not in NO_CLUSTER and drawn.random() < 0.4
        sent = drawn.choice(CLIENT + WORKERS if local else CLIENT)
        return cls(run, seed, name, local, sent, drawn.uniform(0.0, 1.0))


@dataclass
class Chaos:
    """A folder with the inputs and the right numbers of all commands."""

    folder: Path
    seconds: dict[tuple[str, bool], float] = field(default_factory=dict)
    """The shortest time of an undisturbed run, by command and whether it has a local cluster."""
    connected: dict[str, float] = field(default_factory=dict)
    """The part of this time after the workers have started."""
    lock: threading.Lock = field(default_factory=threading.Lock)

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
        done = subprocess.run([*PROGRAM, *words], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def usual_seconds(self, name: str, *, local: bool) -> float:
        """How long the command takes; the first call keeps what it writes."""
        with self.lock:
            if (name, local) not in self.seconds:
                folder = self.place(name, "right")
                begin = time.monotonic()
                started = Started([*PROGRAM, *COMMANDS[name].words, *(LOCAL if local else ())], folder)
                if local:
                    started.wait_for_words(CONNECTED, LONGEST_SECONDS)
                middle = time.monotonic()
                status, err = started.wait_for_end(5 * LONGEST_SECONDS)
                assert status == 0, err
                end = time.monotonic()
                self.seconds[name, local] = end - begin
                if local:
                    self.connected[name] = end - middle
                folder.rename(self.right_folder(name, local=local))
            return self.seconds[name, local]

    def right_folder(self, name: str, *, local: bool) -> Path:
        return self.folder / f"right {name} {local}"

    def place(self, name: str, folder: str) -> Path:
        """A new folder with the inputs of a command."""
        place = self.folder / folder
        place.mkdir()
        for each in ("cube.zarr", "result.zarr", *(["ck"] if COMMANDS[name].resumed else [])):
            shutil.copytree(self.folder / "inputs" / each, place / each)
        return place


@dataclass
class Run:
    """One run of a command that gets a signal; ``all`` gives what was wrong."""

    chaos: Chaos
    drawn: Drawn
    wrong: list[str] = field(default_factory=list)
    status: int | None = None
    late: bool = False
    """The command had ended before the signal."""
    seconds: float = 0.0
    """From the signal to the end of the command."""

    def all(self) -> list[str]:
        self.name, self.local = self.drawn.name, self.drawn.local
        self.target, self.sent = self.drawn.sent.split(" ", 1)
        self.usual = self.chaos.usual_seconds(self.name, local=self.local)
        self.folder = self.chaos.place(self.name, f"run {self.drawn.run}")
        self.command = COMMANDS[self.name]
        self.status, err = self._disturbed()
        self._check_end(self.status, err)
        self._check_files(complete=self.status == 0)
        if self.status == 130 and self.sent in ("SIGINT", "SIGTERM"):
            self._check_left()  # a command that may clean up does so itself
        again = tuple(w for w in self.command.again if w != "--overwrite" or self._exists())
        begin = time.monotonic()
        status, err = self._start(self.command.words + again).wait_for_end(LONGEST_SECONDS + 3 * self.usual)
        if status != 0:
            self.wrong.append(f"the next run ended with {status}: {err[-500:]}")
        elif "--resume" not in again:
            self.chaos.seconds[self.name, self.local] = min(self.usual, time.monotonic() - begin)
        self._check_files(complete=True)
        self._check_left()
        if not self.wrong:
            shutil.rmtree(self.folder)
        return self.wrong

    def _exists(self) -> bool:
        return any((self.folder / made).exists() for made in self.command.made)

    def _start(self, words: tuple[str, ...]) -> Started:
        where = LOCAL if self.local else ()
        return Started([*PROGRAM, *words, *where], self.folder)

    def _disturbed(self) -> tuple[int | None, str]:
        started = self._start(self.command.words)
        if self.target == "worker" and self.drawn.part > STARTING_PART:
            started.wait_for_words(CONNECTED, LONGEST_SECONDS)
            time.sleep((self.drawn.part - STARTING_PART) / (1.0 - STARTING_PART) * self.chaos.connected[self.name])
        else:
            time.sleep(self.drawn.part * self.usual)
        sent = time.monotonic()
        self.late = started.process.poll() is not None
        number = signal.Signals[self.sent.split()[0]]
        if self.target == "client":
            started.process.send_signal(number)
        elif self.target == "all":
            started.send_to_all(number)
        else:
            while started.process.poll() is None and time.monotonic() < sent + WAIT_FOR_WORKER_SECONDS:
                if workers := list(started.workers()):
                    workers[self.drawn.run % len(workers)].send_signal(number)
                    break
                time.sleep(0.02)
        if "twice" in self.sent:
            time.sleep(SECOND_SECONDS * (10 * self.drawn.part % 1))
            started.process.send_signal(number)
        # After the loss of a worker the command goes on, so it needs its usual time too.
        found = started.wait_for_end(LONGEST_SECONDS + (3 * self.usual if self.target == "worker" else 0.0))
        self.seconds = time.monotonic() - sent
        left = started.left_after(ORPHAN_SECONDS)
        if left:
            self.wrong.append(f"processes left: {left}")
        return found

    def _check_end(self, status: int | None, err: str) -> None:
        """The exit status and the words of the disturbed command."""
        if status is None:
            self.wrong.append(f"it did not end within {LONGEST_SECONDS:g} s")
        if self._before_our_first_line(status, err):
            return
        allowed = {0} if self.target == "worker" else {0, -signal.SIGKILL if self.sent == "SIGKILL" else 130}
        if self.target == "worker" and status == 1 and "the local workers did not start" in err:
            return  # killed before it was connected
        if status not in allowed:
            self.wrong.append(f"exit status {status}: {err[-500:]}")
        self.wrong += [f"{word!r} in {err[-3000:]}" for word in BAD_WORDS if word in err]
        state = self.folder / "ck" / "state.npz"
        if status == 130 and "iterations" in err and state.exists() and "'ck'" not in err and "is complete" not in err:
            self.wrong.append(f"the checkpoint is not named in {err!r}")

    def _before_our_first_line(self, status: int | None, err: str) -> bool:
        """Whether Python itself answered the signal while it started."""
        silent = status in (-signal.SIGINT, -signal.SIGTERM) and not err
        shown = status in (1, -signal.SIGINT) and "KeyboardInterrupt" in err and "/scalehsi/" not in err
        return self.sent != "SIGKILL" and (silent or shown)

    def _check_files(self, *, complete: bool) -> None:
        """What is there is whole and right; with ``complete`` it is there."""
        right = self.chaos.right_folder(self.name, local=self.local)
        for made in self.command.made:
            path = self.folder / made
            if not path.exists():
                if complete:
                    self.wrong.append(f"there is no {made}")
            elif differs := difference(path, right / made):
                self.wrong.append(f"{made}: {differs}")

    def _check_left(self) -> None:
        """No temporary files."""
        names = {p.name for p in self.folder.iterdir()}
        right = {p.name for p in self.chaos.right_folder(self.name, local=self.local).iterdir()}
        if names - right - {"tmp"}:
            self.wrong.append(f"files left: {sorted(names - right)}")
        inside = [p.name for p in (self.folder / "ck").glob("*")] if (self.folder / "ck").exists() else []
        if [n for n in inside if n.endswith(HIDDEN)]:
            self.wrong.append(f"files left in the checkpoint: {inside}")
        # Dask keeps the locks of its folder for scratch data.
        temporary = [p for p in (self.folder / "tmp").rglob("*") if p.is_file() and p.suffix != ".lock"]
        if temporary:
            self.wrong.append(f"temporary files left: {temporary}")


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
