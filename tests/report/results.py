"""Small results of every kind for the tests of report and figures, with the variables of `scalehsi.fit`.

Each is computed once; tests get copies that share the arrays.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr


def computed_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a function returns for its arguments, and return shallow copies of it."""
    kept = functools.cache(make)

    @functools.wraps(make)
    def copies(*arguments: Any, **options: Any) -> Any:
        found = kept(*arguments, **options)
        return tuple(each.copy() for each in found) if isinstance(found, tuple) else found.copy()

    return copies


LINES = {
    "O Ka": 0.525,
    "Mg Ka": 1.254,
    "Al Ka": 1.487,
    "Si Ka": 1.740,
    "Ca Ka": 3.691,
    "Ca Kb": 4.013,
    "Fe Ka": 6.399,
    "Fe Kb": 7.058,
    "Cu Ka": 8.041,
    "Cu Kb": 8.905,
}
PHASES = (
    {"O Ka": 0.2, "Mg Ka": 1.0, "Si Ka": 0.9, "Al Ka": 0.08, "Fe Ka": 0.05},
    {"O Ka": 0.2, "Mg Ka": 1.2, "Fe Ka": 0.5, "Fe Kb": 0.07},
    {"O Ka": 0.2, "Si Ka": 1.0, "Ca Ka": 0.8, "Ca Kb": 0.1, "Fe Ka": 0.03},
)


def eds_spectra(energy: np.ndarray) -> np.ndarray:
    """Spectra of three phases, each summing to one, (3, E)."""
    spectra = []
    for phase in PHASES:
        spectrum = 2e-4 * np.exp(-energy / 4.0)
        for name, height in phase.items():
            sigma = np.sqrt(0.13**2 + 2.43e-3 * (LINES[name] - 5.895)) / 2.355
            spectrum += height * np.exp(-0.5 * ((energy - LINES[name]) / sigma) ** 2) * 0.01 / sigma
        spectra.append(spectrum / spectrum.sum())
    return np.array(spectra)


def grains(size: int) -> np.ndarray:
    """Fractions of three phases: a matrix, a round grain, a small grain, (3, size, size)."""
    y, x = np.mgrid[:size, :size] / size
    second = 1 / (1 + np.exp((np.hypot(y - 0.65, x - 0.65) - 0.22) * 60))
    third = 1 / (1 + np.exp((np.hypot(y - 0.25, x - 0.3) - 0.12) * 60))
    return np.array([1 - np.maximum(second, third), second * (1 - third), third])


def axes(size: int, step: float, units: str, energy: np.ndarray, energy_units: str) -> dict:
    pixels = np.arange(size) * step
    return {
        "component": [1, 2, 3],
        "y": ("y", pixels, {"units": units}),
        "x": ("x", pixels, {"units": units}),
        "energy": ("energy", energy, {"units": energy_units}),
    }


@computed_once
def eds_result(size: int = 60, *, counts: float = 150.0, step: float = 10.0, units: str = "nm", seed: int = 0) -> tuple:
    """A good NMF result of a simulated EDS map and its truth."""
    rng = np.random.default_rng(seed)
    energy = 0.2 + 0.01 * np.arange(1000)
    true_spectra, maps = eds_spectra(energy), grains(size) * counts
    data = rng.poisson(np.einsum("kyx,ke->yxe", maps, true_spectra)).astype(np.float32)
    spectra = rng.poisson(true_spectra * maps.sum((1, 2))[:, None]) / maps.sum((1, 2))[:, None]
    model = np.einsum("kyx,ke->yxe", maps, spectra)
    coords = axes(size, step, units, energy, "keV")
    result = xr.Dataset(
        {
            "endmembers": (("component", "energy"), spectra, {"units": "counts"}),
            "abundances": (("component", "y", "x"), np.maximum(maps + rng.normal(0, 3, maps.shape), 0).astype("f4")),
            "objective": ("iteration", 1e5 + 2e4 * np.exp(-np.arange(60) / 5)),
            "residual": (("y", "x"), np.sqrt(((data - model) ** 2).mean(-1))),
            "residual_spectrum": ("energy", (data - model).mean((0, 1))),
            "mean_spectrum": ("energy", data.mean((0, 1))),
        },
        coords=coords,
        attrs={
            "model": "NMF",
            "settings": json.dumps({"n_components": 3, "loss": "frobenius", "tol": 1e-4, "max_iter": 300}),
            "seed": 7,
            "versions": json.dumps({"scalehsi": "0.1.0", "numpy": "2.4.6"}),
            "source": "mantle.zarr",
            "history": ["opened mantle.hspy", "cropped energy 0.2:10.2", "fit NMF to y 60, x 60, energy 1000"],
            "status": "converged",
            "advice": "The objective settled within the tolerance.",
            "warnings": "[]",
            "signal": "EDS",
            "title": "Mantle minerals",
            "elements": ["O", "Mg", "Al", "Si", "Ca", "Fe"],
            "beam_energy_keV": 200.0,
        },
    )
    truth = xr.Dataset(
        {
            "endmembers": (("component", "energy"), true_spectra[[2, 0, 1]]),
            "abundances": (("component", "y", "x"), maps[[2, 0, 1]]),
        },
        coords={name: result[name] for name in ("y", "x", "energy")},
        attrs={"model": "truth", "signal": "EDS", "components": ["CaPv", "Brg", "Fp"]},
    )
    return result, truth


@computed_once
def eels_result() -> xr.Dataset:
    """An NMF result of four EELS spectra: background, carbon, calcium with carbon, oxygen."""
    rng = np.random.default_rng(1)
    energy = 240.0 + 0.5 * np.arange(800)
    background = (energy / 240) ** -3.0

    def edge(onset: float, height: float) -> np.ndarray:
        return height * np.where(energy > onset, (np.maximum(energy, onset) / onset) ** -4.0, 0.0)

    def white_line(at: float) -> np.ndarray:
        return 0.5 * np.exp(-0.5 * ((energy - at) / 1.2) ** 2)

    spectra = np.array(
        [
            background,
            0.1 * background + edge(284.2, 0.5),
            0.1 * background + edge(346.4, 0.2) + white_line(347.5) + white_line(351.0),
            0.1 * background + edge(532.0, 0.3),
        ]
    )
    spectra = np.maximum(spectra + rng.normal(0, 2e-3, spectra.shape), 0)
    y, x = np.mgrid[:40, :50]
    maps = [np.full((40, 50), 2e4), 4e3 * (x < 20), 3e3 * (y > 25), 2e3 * (x > 30)]
    return xr.Dataset(
        {
            "endmembers": (("component", "energy"), spectra),
            "abundances": (("component", "y", "x"), np.array(maps) * rng.normal(1, 0.03, (4, 40, 50))),
            "objective": ("iteration", 1e8 / np.arange(1, 301)),
            "residual": (("y", "x"), rng.normal(120, 4, (40, 50))),
            "residual_spectrum": ("energy", rng.normal(0, 3, 800)),
            "mean_spectrum": ("energy", np.einsum("ke,k->e", spectra, [m.mean() for m in maps])),
        },
        coords={
            "y": ("y", 0.5 * np.arange(40), {"units": "nm"}),
            "x": ("x", 0.5 * np.arange(50), {"units": "nm"}),
            "energy": ("energy", energy, {"units": "eV"}),
        },
        attrs={
            "model": "NMF",
            "settings": json.dumps({"n_components": 4, "max_iter": 300}),
            "seed": 0,
            "status": "max_iter",
            "warnings": "[]",
            "signal": "EELS",
            "elements": ["C", "Ca", "O"],
            "history": [],
        },
    )


@computed_once
def pca_result() -> xr.Dataset:
    """A PCA result: signed components, eigenvalues, no iterations."""
    good, _ = eds_result()
    good = good.coarsen(energy=4).mean()
    rng = np.random.default_rng(2)
    data = np.einsum("kyx,ke->yxe", good.abundances.values, 4 * good.endmembers.values).reshape(3600, -1)
    data = rng.poisson(np.maximum(data, 0)).astype(float)
    weight = np.sqrt(data.mean(0) + 1e-3)
    eigenvalues, vectors = np.linalg.eigh((data / weight).T @ (data / weight) / 3600)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    rank = eigenvalues.size
    rest = np.cumsum(eigenvalues[::-1])[::-1]
    left = np.arange(rank, 0, -1) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        indicator = np.sqrt(np.append(rest[1:], 0) / (3600 * left)) / left**2
    loadings, scores = vectors[:, :4].T * weight, (data / weight) @ vectors[:, :4]
    return xr.Dataset(
        {
            "endmembers": (("component", "energy"), loadings),
            "abundances": (("component", "y", "x"), scores.T.reshape(4, 60, 60)),
            "eigenvalues": ("rank", eigenvalues),
            "explained_variance_ratio": ("rank", eigenvalues / eigenvalues.sum()),
            "malinowski_ind": ("rank", indicator),
            "objective": ("iteration", np.zeros(0)),
            "residual": good.residual,
            "residual_spectrum": good.residual_spectrum,
            "mean_spectrum": good.mean_spectrum,
        },
        coords={name: good[name] for name in ("y", "x", "energy")},
        attrs={**good.attrs, "model": "PCA", "settings": json.dumps({"n_components": 4})},
    )


@computed_once
def series_result() -> xr.Dataset:
    """A 4-D result with three times, at which the grain of the second component grows."""
    good, _ = eds_result()
    growth = xr.DataArray([0.3, 0.6, 1.0], dims="time", coords={"time": ("time", [0.0, 2.5, 5.0], {"units": "s"})})
    maps = good.abundances * xr.where(good.component == 2, growth, 1.0)
    return good.assign(
        abundances=maps.transpose("component", "time", "y", "x"),
        residual=(good.residual * xr.ones_like(growth)).transpose("time", "y", "x"),
    )


@computed_once
def masked_result() -> xr.Dataset:
    """A result whose mask keeps a round region."""
    good, _ = eds_result()
    y, x = np.mgrid[:60, :60]
    mask = xr.DataArray(np.hypot(y - 30, x - 30) < 28, dims=("y", "x"))
    return good.assign(abundances=good.abundances.where(mask), residual=good.residual.where(mask)).assign_coords(
        mask=mask
    )


@computed_once
def counts_of_truth() -> xr.DataArray:
    """A cube of counts drawn from the truth of `eds_result`."""
    truth = eds_result()[1]
    drawn = np.random.default_rng(3).poisson(np.einsum("kyx,ke->yxe", truth.abundances, truth.endmembers))
    coords = {name: truth[name] for name in ("y", "x", "energy")}
    attrs = {"signal": "EDS", "elements": ["O", "Mg", "Al", "Si", "Ca", "Fe"]}
    return xr.DataArray(drawn.astype("u2"), dims=("y", "x", "energy"), coords=coords, attrs=attrs)


def bin_scan() -> xr.Dataset:
    """A scan of bin sizes, as `scalehsi.scan_bins` returns it."""
    return xr.Dataset(
        {
            "score": ("bin", [-0.8, -0.02, 0.0, -0.5, -11.0]),
            "score_error": ("bin", [0.03, 0.02, 0.0, 0.05, 0.3]),
            "stability": ("bin", [3.0, 2.5, 2.4, 3.1, 4.0]),
        },
        coords={"bin": [2, 4, 8, 12, 24]},
        attrs={"chosen": 8},
    )


def blurred() -> xr.Dataset:
    """The result of another method: worse spectra in another order, and worse maps."""
    result, _ = eds_result()
    mixed = 0.7 * result.endmembers + 0.3 * result.endmembers.mean("component")
    noise = np.random.default_rng(5).gamma(2.0, 10.0, result.abundances.shape)
    return result.assign(endmembers=mixed, abundances=result.abundances + noise).isel(component=[1, 2, 0])


def with_bin_scan(result: xr.Dataset, used: int, refined: int) -> xr.Dataset:
    """A result that chose bins of the side ``used`` by a scan, and refined its spectra on bins of another side."""
    kept = {f"bin_{name}": values for name, values in bin_scan().data_vars.items()}
    return result.assign(kept).assign(bin_factor=("axis", [used] * 2), fine_bin_factor=("axis", [refined] * 2))
