"""Run the commands on hostile stores, each in a process of its own, and print what is wrong: `python -m tests.hostile`.

Right is exit 0, or exit 2 with one line; without a traceback, without code run, without a file written elsewhere, under
1 GB of memory and 10 s.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.hostile.kinds import KINDS, plant, planted

SECONDS = 10
"""Of the processor; a run that waits is stopped after `WAIT_SECONDS`."""
WAIT_SECONDS = 100
BYTES = 1_000_000_000
HARD_BYTES = 3 * BYTES
"""Limit of the address space beyond what the process has: it stops a run that would fill the machine."""
LONGEST_LINE = 3000

COMMANDS: dict[str, dict[str, list[str]]] = {
    "cube": {
        "info": ["info", "map.zarr"],
        "plan": ["plan", "map.zarr", "-k", "2"],
        "fit": ["fit", "map.zarr", "out.zarr", "-k", "2", "--set", "max_iter=2"],
        "project": ["project", "G/result.zarr", "map.zarr", "out.zarr"],
        "quantify": ["quantify", "map.zarr", "-e", "Fe,O"],
        "report": ["report", "G/result.zarr", "page", "--cube", "map.zarr", "--line", "1,2"],
        "convert": ["convert", "map.zarr", "out.zarr"],
        "prepare": ["prepare", "map.zarr", "out.zarr", "--step", "bin:y=2,x=2"],
        "truth": ["compare", "map.zarr", "G/result.zarr"],
        "gp": ["gp", "map.zarr", "out.zarr"],
    },
    "result": {
        "info": ["info", "result.zarr"],
        "project": ["project", "result.zarr", "G/map.zarr", "out.zarr"],
        "reconstruct": ["reconstruct", "result.zarr", "out.zarr"],
        "quantify": ["quantify", "result.zarr", "-e", "Fe,O"],
        "gp": ["gp", "result.zarr", "out.zarr"],
        "report": ["report", "result.zarr", "page"],
        "beside": ["report", "G/result.zarr", "page", "--beside", "other=result.zarr"],
        "compare": ["compare", "G/truth.zarr", "result.zarr"],
        "truth": ["compare", "result.zarr", "G/result.zarr"],
        "fit": ["fit", "result.zarr", "out.zarr", "-k", "2"],
    },
    "checkpoint": {
        "resume": [
            *["fit", "G/map.zarr", "out.zarr", "-k", "2", "--set", "max_iter=3"],
            *["--checkpoint", "run.ckpt", "--resume"],
        ],
        "fit": ["fit", "G/map.zarr", "out.zarr", "-k", "2", "--set", "max_iter=3", "--checkpoint", "run.ckpt"],
        "info": ["info", "run.ckpt"],
    },
}


class Ran(NamedTuple):
    """How a run ended: its exit status (negative for a signal), memory, time, last line, and what is wrong."""

    status: int
    peak: int
    seconds: float
    line: str
    wrong: str


def run(kind: str, command: str, good: Path, root: Path, *, debug: bool = False) -> Ran:
    """Run a command on a hostile kind in a fork of this process.

    Parameters
    ----------
    kind, command : str
    good : Path
        The folder of `plant`.
    root : Path
        An empty folder to work in.
    debug : bool
        Show the traceback of an error.
    """
    place, outside = root / "work", root / "outside"
    place.mkdir()
    outside.mkdir()
    os.environ["HOSTILE_MARK"] = str(outside / "code-ran")
    _in_a_fork(lambda: planted(kind, good, place))
    words = [w.replace("G/", f"{good}/") for w in COMMANDS[KINDS[kind].subject][command]]
    out, err, trace = root / "stdout", root / "stderr", root / "trace"
    start = time.monotonic()
    child = os.fork()
    if not child:
        _child(words + (["--debug"] if debug else []), place, out, err, trace)
    status, usage, late = _wait(child, start)
    seconds = usage.ru_utime + usage.ru_stime
    late = late or seconds > SECONDS or time.monotonic() - start > WAIT_SECONDS
    text = err.read_text(errors="replace")
    lines = [x for x in text.splitlines() if x.strip()]
    errors = [x for x in lines if x.startswith("scalehsi")]
    wrong = []
    if late:
        wrong.append("time")
    if usage.ru_maxrss * 1024 > BYTES:
        wrong.append("memory")
    if "Traceback" in text and not debug:
        wrong.append("traceback")
    if "not foreseen" in text:
        wrong.append("not foreseen")
    if status not in (0, 2) and not late:
        wrong.append(f"exit {status}")
    if status == 2 and (len(errors) != 1 or max(map(len, lines)) > LONGEST_LINE):
        wrong.append("not one line")
    if list(outside.iterdir()):
        wrong.append(f"outside: {[p.name for p in outside.iterdir()]}")
    if set(p.name for p in root.iterdir()) - {"work", "outside", "stdout", "stderr", "trace"}:
        wrong.append("written beside")
    if status == 2 and (place / "out.zarr").exists():
        wrong.append("half a store")
    shown = text if debug else (errors[-1] if errors else lines[-1] if lines else "")
    if late:
        shown += trace.read_text(errors="replace")[-1500:] if debug else ""
    return Ran(status, usage.ru_maxrss * 1024, seconds, shown, ", ".join(wrong))


def _child(words: list[str], place: Path, out: Path, err: Path, trace: Path) -> None:
    status = 99
    try:
        os.setpgrp()
        os.chdir(place)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        faulthandler.dump_traceback_later(WAIT_SECONDS - 2, file=trace.open("w"))
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + HARD_BYTES, now + HARD_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 2, SECONDS + 2))
        from scalehsi.cli.app import main

        status = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(child: int, start: float) -> tuple[int, Any, bool]:
    while True:
        pid, code, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(code), usage, False
        if time.monotonic() - start > WAIT_SECONDS:
            os.killpg(child, signal.SIGKILL)
            _, code, usage = os.wait4(child, 0)
            return os.waitstatus_to_exitcode(code), usage, True
        time.sleep(0.01)


def prepare(folder: Path) -> None:
    """Load all that commands import, so that a fork starts at once; no threads are started."""
    import importlib
    import pkgutil

    import scalehsi

    with contextlib.suppress(ImportError):
        import rsciio  # noqa: F401
    for module in pkgutil.walk_packages(scalehsi.__path__, "scalehsi."):
        if "cuda" not in module.name and "__main__" not in module.name:
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    _in_a_fork(lambda: plant(folder))


def _in_a_fork(make: Callable[[], Any]) -> None:
    """Call a function in a process of its own, so that this one stays without threads and can be forked."""
    child = os.fork()
    if not child:
        status = 1
        try:
            make()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("see above")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=0, help="a sample of this many; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="kinds whose name contains this")
    parser.add_argument("--command", default="")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--all", action="store_true", help="also show what is right")
    options = parser.parse_args()
    cases = [
        (k, c) for k, v in KINDS.items() for c in COMMANDS[v.subject] if options.kind in k and options.command in c
    ]
    if options.runs and options.runs < len(cases):
        cases = random.Random(options.seed).sample(cases, options.runs)
    root = Path(tempfile.mkdtemp(prefix="hostile-"))
    good = root / "good"
    good.mkdir()
    prepare(good)
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    peak, slowest = 0, 0.0
    for number, (kind, command) in enumerate(cases):
        place = root / str(number)
        place.mkdir()
        try:
            ran = run(kind, command, good, place, debug=options.debug)
        except Exception as error:
            ran = Ran(-99, 0, 0, f"planting failed: {type(error).__name__}: {error}", "planting")
        shutil.rmtree(place, ignore_errors=True)
        subject = KINDS[kind].subject
        table[f"{subject} {command}"]["right" if not ran.wrong else ran.wrong] += 1
        if "memory" not in ran.wrong:
            peak = max(peak, ran.peak)
        slowest = max(slowest, ran.seconds)
        if ran.wrong or options.all or options.debug:
            print(
                f"{kind:32} {command:11} {ran.status:4} {ran.peak / 1e6:6.0f} MB {ran.seconds:5.1f} s "
                f"[{ran.wrong}] {ran.line if options.debug else ran.line[:230]}",
                flush=True,
            )
    shutil.rmtree(root, ignore_errors=True)
    print(f"\n{'command':24} right wrong")
    for name, counts in table.items():
        print(f"{name:24} {counts['right']:5} {sum(counts.values()) - counts['right']:5}")
    total, right = sum(sum(c.values()) for c in table.values()), sum(c["right"] for c in table.values())
    print(f"{total} runs, {right} right; at most {peak / 1e6:.0f} MB and {slowest:.1f} s of the processor")


if __name__ == "__main__":
    main()
