"""Measure relevance with soft orthogonality on three phases and on two Mn sites, with the published program.

Run with: python -m tests.bench.priors, or as the part "priors" of tests.bench.nmf
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import time
import warnings

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.arrays import Float
from tests import ard_so
from tests.bench.machine import markdown
from tests.paths import DATA
from tests.scenes import diode

Row = dict[str, object]

SITES = DATA / "eels_Mn3O4" / "SI_data.npz"
WEIGHT, COMPONENTS = 0.5, 3
"""The settings in the example of the published program."""


def phases(seeds: range = range(10)) -> list[Row]:
    """Measure relevant components of ten, and angles to the truth, also those of plain NMF with K = 3."""
    rows: list[Row] = []
    for seed in seeds:
        cube, truth = diode(seed=seed)
        begin = time.process_time()
        result = hsi.fit(cube, hsi.NMF(10, loss="frobenius", ard="exponential", orthogonality=WEIGHT), seed=seed)
        taken = time.process_time() - begin
        count = result.sizes["component"]
        plain = angles(hsi.fit(cube, hsi.NMF(3, loss="frobenius"), seed=seed), truth)
        row: Row = {"seed": seed, "relevant of 10": count, "plain NMF, K = 3, degrees": listed(plain)}
        if count >= 3:
            ours = angles(result, truth)
            row |= {"ARD-SO, degrees": listed(ours), "largest ratio of a phase": f"{(ours / plain).max():.2f}"}
        rows.append(row | {"iterations": result.sizes["iteration"], "CPU s": f"{taken:.2f}"})
    return rows


def sites() -> list[Row]:
    """Compare spectra of two Mn sites: ours, the published updates in plain numpy, and the published program."""
    if not SITES.exists():
        return [{"program": "the shared data are not beside this checkout"}]
    values = np.load(SITES)["X"]
    cube = hsi.make_cube(values, energy=np.arange(values.shape[-1]) * 1.0, energy_units="eV")
    x = values.reshape(-1, values.shape[-1])
    begin = time.process_time()
    result = hsi.fit(
        cube, hsi.NMF(COMPONENTS, loss="frobenius", ard="exponential", orthogonality=WEIGHT, max_iter=500), seed=0
    )
    ours = result["endmembers"].values
    rows = [site_row(f"ours, {result.sizes['iteration']} iterations", ours, ours, time.process_time() - begin)]
    begin = time.process_time()
    # From random pixels the published updates end with two or three components; from our spectra they must not move.
    unchanged, _, _ = ard_so.fit(x, ours.copy(), w=WEIGHT, passes=5000)
    rows.append(site_row("published updates in numpy, from ours", unchanged, ours, time.process_time() - begin))
    for iterations in (50, 5000):
        begin = time.process_time()
        found = malspy(values, iterations)
        if found is not None:
            name = f"malspy NMF_ARD_SO, best of 5, at most {iterations} iterations"
            rows.append(site_row(name, found, ours, time.process_time() - begin))
    return rows


def malspy(values: Float, iterations: int) -> Float | None:
    """Return spectra (K, E) of the published program with the same settings; None where it is not installed."""
    if importlib.util.find_spec("malspy") is None:
        return None
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = importlib.import_module("malspy").NMF_ARD_SO(
            n_components=COMPONENTS, wo=WEIGHT, reps=5, max_itr=iterations
        )
        return np.asarray(program.fit(values.copy()).S_.T)


def site_row(name: str, s: Float, ours: Float, taken: float) -> Row:
    row: Row = {"program": name, "components": len(s)}
    if len(s) == 2:
        between = np.rad2deg(hsi.metrics.spectral_angle(s[:1], s[1:]))
        row["between the two, degrees"] = listed(between)
    if len(s) == len(ours):
        one, two = (xr.DataArray(rows, dims=("component", "energy")) for rows in (ours, s))
        order = np.asarray(hsi.metrics.match(one, two))
        row["to ours, degrees"] = listed(np.rad2deg(hsi.metrics.spectral_angle(ours, s[order])))
    return row | {"CPU s": f"{taken:.2f}"}


def angles(result: xr.Dataset, truth: xr.Dataset) -> Float:
    return np.rad2deg(np.asarray(hsi.metrics.score(result, truth)["spectral_angle"].values))


def listed(values: Float) -> str:
    return " ".join(f"{v:.2f}" for v in values)


def table() -> list[Row]:
    """Return both tables in one, for `tests.bench.nmf`."""
    return [*phases(), *sites()]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(f"## Three phases\n\n{markdown(phases())}\n\n## Mn3O4\n\n{markdown(sites())}")
