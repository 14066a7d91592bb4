"""Fuzz for a given time: ``python -m tests.fuzz --minutes 10``.

Each round runs the tests with another seed of hypothesis. A round that finds something prints the lines of pytest and
the command that repeats it.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--examples", type=int, default=100, help="of each test in a round")
    options = parser.parse_args(arguments)
    begin, seed, passed, failed = time.monotonic(), options.seed, 0, 0
    while time.monotonic() - begin < 60 * options.minutes:
        words = ["-m", "pytest", "tests/fuzz", "-q", "-p", "no:cacheprovider", "--hypothesis-show-statistics"]
        words += ["-m", "not slow", f"--hypothesis-seed={seed}"]
        environment = {**os.environ, "FUZZ_EXAMPLES": str(options.examples)}
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
        passed += sum(map(int, re.findall(r"(\d+) passing", done.stdout)))
        if done.returncode:
            failed += 1
            print(done.stdout + done.stderr, f"FUZZ_EXAMPLES={options.examples} python {' '.join(words)}", flush=True)
        seed += 1
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{seed - options.seed} rounds, {failed} with a find; {passed} examples passed in "
        f"{(time.monotonic() - begin) / 60:.1f} minutes, {(used.ru_utime + used.ru_stime) / 60:.1f} of the processor"
    )
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
