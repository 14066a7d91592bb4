"""Measure how often `scalehsi.select_rank` finds the number of phases of simulated scenes.

Run with: python -m tests.bench.rank [--only plain rare gain drift noise halves cost] [--seeds N] [--real FOLDER]

Prints one line for each figure that is asked for, beside the one that was measured. ``--real`` names a folder with
measured cubes (core_shell.hspy, ...), for which the numbers are printed alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

import scalehsi as hsi
from scalehsi.cube import make_cube
from tests.bench.machine import markdown
from tests.fitting.judge.scenes import scene

SIZE = 48
DOSES = (("edx", 20.0), ("edx", 100.0), ("edx", 500.0), ("eels", 2e3), ("eels", 2e4))
FIRST_SEED = 500

Row = tuple[str, str, str]


def plain(seeds: int) -> list[Row]:
    """1 to 6 phases at five doses."""
    rows: list[Row] = []
    right = above = n = 0
    for kind, counts in DOSES:
        own = []
        for k in range(1, 7):
            for seed in range(seeds):
                made = scene(kind, counts, k, seed=FIRST_SEED + seed, size=SIZE)
                own.append(hsi.select_rank(made.cube, halves=False).attrs["significant"] - k)
        right, above, n = right + own.count(0), above + sum(d > 0 for d in own), n + len(own)
        rows.append((f"significant, {kind} {counts:g} counts", "", f"{own.count(0)} of {len(own)}"))
    return [*rows, ("significant, all doses", f"{85 * n // 90} of {n}, none above", f"{right} of {n}, {above} above")]


def rare(seeds: int) -> list[Row]:
    """One phase in 1 % of the pixels."""
    own = []
    for kind, counts in (DOSES[1], DOSES[4]):
        for k in (3, 4, 5):
            for seed in range(seeds):
                made = scene(kind, counts, k, layout="rare", seed=FIRST_SEED + seed, size=SIZE)
                own.append(hsi.select_rank(made.cube, halves=False).attrs["significant"] - k)
    return [("significant, a rare phase", f"{15 * len(own) // 18} of {len(own)}", f"{own.count(0)} of {len(own)}")]


def gain(seeds: int) -> list[Row]:
    """Counts times 5."""
    right, index = [], []
    for k in (1, 3, 5):
        for seed in range(seeds):
            made = scene("eels", 2e4, k, seed=FIRST_SEED + seed, size=SIZE, gain=5.0)
            found = hsi.select_rank(made.cube, halves=False).attrs
            right.append(found["significant"] == k)
            index.append(found["noise_index"])
    measured = f"{sum(right)} of {len(right)}, {min(index):.2f} to {max(index):.2f}"
    return [("significant at a gain of 5, and the index", f"{len(right)} of {len(right)}, 5 +- 0.1", measured)]


def drift(seeds: int) -> list[Row]:
    """Half a channel of drift, which adds components."""
    said, clean = [], []
    for counts in (2e4, 2e5):
        for k in (1, 3):
            for seed in range(seeds):
                for shift, out in ((0.5, said), (0.0, clean)):
                    made = scene("eels", counts, k, seed=FIRST_SEED + seed, size=SIZE, drift=shift)
                    out.append("drift" in hsi.select_rank(made.cube, halves=False).attrs["warnings"])
    return [
        ("drift of 0.5 channels is named", "", f"{sum(said)} of {len(said)}"),
        ("drift named without drift", f"0 of {len(clean)}", f"{sum(clean)} of {len(clean)}"),
    ]


def noise(seeds: int) -> list[Row]:
    """Noise alone: with a mean one component, without none."""
    with_mean, without = [], []
    energy = np.arange(200.0) + 100
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for values, out in (
            (rng.poisson(2.0, (SIZE, SIZE, 200)).astype("u1"), with_mean),
            (rng.standard_normal((SIZE, SIZE, 200)).astype("f4"), without),
        ):
            cube = make_cube(values, energy=energy, energy_units="eV")
            out.append(hsi.select_rank(cube, halves=False).attrs["significant"])
    return [
        ("significant, noise with a mean", "1 in each", f"{with_mean.count(1)} of {len(with_mean)}"),
        ("significant, noise of mean zero", "0 in each", f"{without.count(0)} of {len(without)}"),
    ]


def halves(seeds: int) -> list[Row]:
    """Components that come out the same from both halves, and what the other criteria say."""
    names = ("resolved", "deviance", "relevance", "malinowski", "significant")
    right = dict.fromkeys(names, 0)
    n = 0
    for kind, counts in (DOSES[1], DOSES[4]):
        for k in range(1, 7):
            for seed in range(max(1, seeds // 3)):
                made = scene(kind, counts, k, seed=FIRST_SEED + seed, size=SIZE)
                found = hsi.select_rank(made.cube).attrs
                n += 1
                for name in names:
                    right[name] += found[name] == k
    return [(f"{name}, EDX 100 and EELS 2e4", "", f"{right[name]} of {n}") for name in names]


def cost(seeds: int) -> list[Row]:
    """Time and readings beside one NMF of 8 components."""
    made = scene("edx", 500.0, 4, seed=seeds, size=96)
    seconds = []
    for _ in range(2):  # the first compiles
        seconds = []
        for call in (lambda: hsi.fit(made.cube, hsi.NMF(8)), lambda: hsi.select_rank(made.cube)):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
    lazy = scene("edx", 100.0, 2, seed=seeds, size=144).cube.chunk({"y": 16})
    with mock.patch("scalehsi.blocks.compute.free_memory", return_value=int(1.8 * lazy.nbytes)):
        streamed = hsi.select_rank(lazy, range(1, 4), halves=False).attrs["readings"]
    ratio = f"{seconds[1] / seconds[0]:.2f} ({seconds[1]:.1f} s of processor time)"
    return [
        ("time over that of NMF with 8", "at most 1.5", ratio),
        ("readings without halves, streamed", "at most 4", str(streamed)),
    ]


def real(folder: Path) -> list[Row]:
    """Numbers of measured cubes."""
    rows = []
    for path in sorted(folder.rglob("*.hspy")):
        cube = hsi.open_cube(path)
        if cube.sizes["energy"] < 16 or cube.sizes["y"] * cube.sizes["x"] < 50:
            continue
        found = hsi.select_rank(cube, range(1, 8))
        bins = ", ".join(str(int((row > 1).sum())) for row in found["eigenvalue"].values)
        words = f"bins {bins}; resolved {found.attrs['resolved']}, index {found.attrs['noise_index']:.2f}"
        rows.append((path.stem, "", words))
    return rows


PARTS: dict[str, Callable[[int], list[Row]]] = {
    "plain": plain, "rare": rare, "gain": gain, "drift": drift, "noise": noise, "halves": halves, "cost": cost,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.only:
        rows += PARTS[name](args.seeds)
    if args.real:
        rows += real(args.real)
    print(markdown([{"what": what, "asked": asked, "measured": measured} for what, asked, measured in rows]))


if __name__ == "__main__":
    main()
