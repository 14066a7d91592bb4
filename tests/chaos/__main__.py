"""Do the runs beside each other, keep their log, and print the table."""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tests.chaos
from tests.chaos.runs import CLIENT, WORKERS, Chaos, Drawn, Run


def table(lines: list[dict[str, Any]]) -> str:
    """Right runs of all runs by command and by what was sent to whom, and how the disturbed commands ended."""
    cells: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for line in lines:
        row = f"{line['name']}, {'local cluster' if line['local'] else 'threads'}"
        for key in ((row, line["sent"]), (row, "all"), ("all", line["sent"]), ("all", "all")):
            cells[key].append(not line["wrong"])
    columns = [*CLIENT, *WORKERS, "all"]
    rows = [*sorted({row for row, _ in cells} - {"all"}), "all"]
    text = [f"| right of runs | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        found = [cells[row, column] for column in columns]
        text.append(f"| {row} | " + " | ".join(f"{sum(c)} of {len(c)}" if c else "" for c in found) + " |")
    ends = Counter(str(line["status"]) for line in lines if not line["late"])
    text.append("")
    text.append(
        f"In {sum(line['late'] for line in lines)} runs the command had ended before the signal. In the others:"
    )
    text.append("exit statuses of the disturbed commands: " + ", ".join(f"{k} ({n})" for k, n in sorted(ends.items())))
    longest = max((line["seconds"] for line in lines), default=0.0)
    text.append(f"The longest time from the signal to the end was {longest:.0f} s.")
    return "\n".join(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=tests.chaos.__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--only-run", type=int, help="this run alone, even if the log has it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the names of the commands")
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--minutes", type=float, default=1e9, help="no further run begins after this time")
    parser.add_argument("--log", type=Path, help="file of JSON lines to which each run is added")
    parser.add_argument("--keep", type=Path, help="an empty folder to work in, which keeps the files of wrong runs")
    options = parser.parse_args(arguments)
    # A shell starts programs in the background with SIGINT ignored, and so would be theirs.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    numbers = range(options.first, options.first + options.runs)
    if options.only_run is not None:
        numbers = range(options.only_run, options.only_run + 1)
    lines: dict[int, dict[str, Any]] = {}
    if options.log and options.log.exists() and options.only_run is None:
        lines = {
            x["run"]: x
            for x in map(json.loads, options.log.read_text().splitlines())
            if x["run"] in numbers and x["seed"] == options.seed
        }
    code = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    sources = (file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    harness = hashlib.sha256(b"".join(sources)).hexdigest()[:8]
    end = time.monotonic() + 60 * options.minutes
    writing = threading.Lock()

    def one(number: int) -> None:
        if time.monotonic() > end:
            return
        drawn = Drawn.of(number, options.seed, options.only)
        run = Run(chaos, drawn)
        try:
            run.all()
        except Exception as error:
            run.wrong.append(f"the harness failed: {type(error).__name__}: {error}")
        line = {**asdict(drawn), "status": run.status, "late": run.late, "seconds": round(run.seconds, 2)}
        line["wrong"] = run.wrong
        with writing:
            lines[number] = line
            if options.log:
                with options.log.open("a") as log:
                    log.write(json.dumps({**line, "commit": code, "harness": harness}) + "\n")
            for each in run.wrong:
                print(f"run {number}, {drawn}: {each}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="chaos") as folder, ThreadPoolExecutor(options.jobs) as pool:
        chaos = Chaos(options.keep or Path(folder))
        chaos.prepare()
        list(pool.map(one, [number for number in numbers if number not in lines]))
    signal.signal(signal.SIGINT, before)
    print(table([lines[number] for number in sorted(lines)]))
    return 1 if any(line["wrong"] for line in lines.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
