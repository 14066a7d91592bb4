"""Measure what the warnings of a fit find and what they blame wrongly, through the public functions alone.

Run with: python -m tests.bench.trust [--only clean rank drift outliers psnmf composition stop cost] [--seeds N]

Prints one line for each figure that is asked for, then a table: the size of each fault at which 90 % are found, and how
often its warning comes on clean scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from tests.bench import trust_clean, trust_faults, trust_psnmf, trust_time
from tests.bench.machine import markdown
from tests.bench.trust_report import Report

PARTS: dict[str, Callable[[Report, int], None]] = {
    "clean": trust_clean.clean,
    "rank": trust_clean.rank,
    "drift": trust_faults.drift,
    "outliers": trust_faults.outliers,
    "psnmf": trust_psnmf.psnmf,
    "gp": trust_psnmf.gaussian_process,
    "composition": trust_psnmf.composition,
    "stop": trust_time.stop,
    "cost": trust_time.cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--seeds", type=int, default=10, help="scenes of each kind of fault")
    args = parser.parse_args()
    report = Report()
    for name in args.only:
        start = time.perf_counter()
        PARTS[name](report, args.seeds)
        print(f"   ({name}: {time.perf_counter() - start:.0f} s)\n", flush=True)
    if report.rows:
        print(markdown(report.table()))


if __name__ == "__main__":
    main()
