"""Measure how reproducible PSNMF of measured EDX maps is: over seeds and over halves of the counts; with compositions.

Run with: python -m tests.bench.psnmf_real DATA [--reports FOLDER]

The folder DATA has ``edx_88ESLP`` and ``edx_FePt`` as .hspy files. There is no truth, so the spectra are compared
between seeds, and between fits of two random halves of the counts, each with half the dose of the map.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.metrics import match, spectral_angle
from tests.bench.machine import markdown

GOAL = 5.0
CASES = {
    "edx_88ESLP": ("edx_88ESLP/88_ES-LP_G8_selection2_cropped2.hspy", (2, 3)),
    "edx_FePt, bare core": ("edx_FePt/bare_core.hspy", (2,)),
    "edx_FePt, core and shell": ("edx_FePt/core_shell.hspy", (2, 3)),
}
ELEMENTS = {"edx_88ESLP": ("Mg", "Si", "Al", "Ca", "Fe", "Nd", "Sm", "U")}
EXTRA = ("Cu", "Ga")
"""Elements of the grid and of the ion beam that cut the sample."""


def angles(first: xr.Dataset, second: xr.Dataset) -> list[float]:
    """Return the angles between matched spectra of two results in degrees."""
    a, b = first["endmembers"], second["endmembers"]
    order = match(a, b)
    pairs = zip(a.values, b.values[order], strict=True)
    return [float(np.degrees(spectral_angle(x, y))) for x, y in pairs]


def formatted(values: list[float]) -> str:
    return " ".join(f"{v:.2f}" for v in values)


def rows(data: Path, reports: Path | None) -> Iterator[dict[str, object]]:
    for name, (file, counts) in CASES.items():
        cube = hsi.open_cube(data / file).compute()
        elements = ELEMENTS.get(name, ("Fe", "Pt"))
        cube.attrs["elements"] = [*elements, *EXTRA]
        halves = [hsi.prepare.thin(cube, seed=seed) for seed in (0, 1)]
        for n in counts:
            model = hsi.PSNMF(n)
            result = hsi.fit(cube, model, seed=0)
            seeds = [angles(result, hsi.fit(cube, model, seed=seed)) for seed in (1, 2)]
            split = [angles(*(hsi.fit(half, model, seed=0) for half in pair)) for pair in halves]
            composed = hsi.quantify(result, elements, extra=EXTRA)
            yield {
                "map": name,
                "pixels": " x ".join(str(cube.sizes[d]) for d in ("y", "x")),
                "counts a pixel": f"{float(cube.sum()) / (cube.sizes['y'] * cube.sizes['x']):.0f}",
                "K": n,
                "bin": int(result["bin_factor"][0]),
                "seeds (degrees)": f"{max(max(each) for each in seeds):.2f}",
                "halves (degrees)": " / ".join(map(formatted, split)),
                "goal": GOAL,
                "at%": _formulae(composed),
            }
            if reports is not None:
                place = reports / f"{Path(file).stem}_{n}"
                hsi.report(result, place, cube=cube, overwrite=True)


def _formulae(found: xr.Dataset) -> str:
    """Format the largest contents of each component."""
    out = []
    for k in range(found.sizes["component"]):
        one = found["atomic_percent"].isel(component=k).fillna(0)
        largest = one.sortby(one, ascending=False)[:4]
        parts = zip(largest["element"].values, largest.values, strict=True)
        out.append(" ".join(f"{e} {v:.1f}" for e, v in parts if v >= 0.5))
    return "; ".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--reports", type=Path, help="Folder for a report of each fit.")
    given = parser.parse_args()
    print(markdown(list(rows(given.data, given.reports))))


if __name__ == "__main__":
    main()
