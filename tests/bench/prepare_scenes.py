"""Scenes for `tests.bench.prepare`: power laws, O K and Mn L edges, thickness, counting noise; lines of its table."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from scalehsi.cube import make_cube
from scalehsi.physics.eels_edges import EDGES, eels_spectrum
from tests.paths import DATA

Row = dict[str, object]
PLAIN: dict[str, Any] = {"gain": 1.0, "window_gain": 1.0}

ENERGY = 400.0 + np.arange(512.0)
EXPONENTS = (2.7, 3.1, 3.5)
BOTH = ({"O": 1.0}, {"Mn": 1.0}, {"O": 1.0, "Mn": 1.0})
JUMP = 0.15


def scene(dose: float, size: int = 48, *, phases: Any = BOTH, flicker: float = 0.0, seed: int = 0) -> tuple[Any, Any]:
    """Mean counts (y, x, 512) and the background in them; three bands, boundaries 1.5 pixels wide, thickness +-30 %.

    dose: mean counts of a pixel. phases: elements of each. flicker: of the beam, relative.
    """
    rng = np.random.default_rng(seed)
    backgrounds, spectra = [], []
    for exponent, elements in zip(EXPONENTS, phases, strict=True):
        law = (ENERGY / 532.0) ** -exponent
        whole = law.copy()
        for element in elements:
            edge = eels_spectrum({element: 1.0}, ENERGY, background=0.0)
            onset = EDGES[element].onset_ev
            whole += edge / edge[np.searchsorted(ENERGY, onset + 40)] * JUMP * (onset / 532.0) ** -exponent
        backgrounds.append(law / whole.sum())
        spectra.append(whole / whole.sum())
    label = np.arange(size)[:, None] * 3 // size + np.zeros((1, size), int)
    shares = np.array([gaussian_filter((label == k).astype(float), 1.5 / 2.355) for k in range(3)])
    shares /= shares.sum(axis=0)
    wedge = gaussian_filter(rng.normal(size=(size, size)), size / 12)
    thick = (1 + 0.3 * wedge / np.abs(wedge).max()) * (1 + flicker * rng.normal(size=(size, size)))
    scale = dose * thick[..., None]
    return tuple(np.einsum("kyx,ke->yxe", shares, np.array(s)) * scale for s in (spectra, backgrounds))  # type: ignore[return-value]


def measured(mean: Any, *, gain: float = 1.0, readout: float = 0.0, seed: int = 1) -> Any:
    """Counts of a mean, as whole numbers of 0 or more."""
    rng = np.random.default_rng(seed)
    x = gain * rng.poisson(mean / gain) + (rng.normal(0, readout, mean.shape) if readout else 0.0)
    return np.maximum(np.rint(x), 0).astype("u4")


def zero_loss(step: float, counts: float, drift: Any, *, seed: int = 0) -> tuple[Any, Any]:
    """Energies and counts of zero-loss peaks of 1.06 eV with a plasmon, t / lambda 0.4."""
    energy = np.arange(-20.0, 180.0, step)
    d, half, sd = np.asarray(drift)[..., None], step / 2, 1.06 / 2.3548
    zero = ndtr((energy + half - d) / sd) - ndtr((energy - half - d) / sd)
    plasmon = step / (5 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((energy - 22 - d) / 5) ** 2)
    mean = counts * (np.exp(-0.4) * zero + (1 - np.exp(-0.4)) * plasmon)
    return energy, np.random.default_rng(seed).poisson(mean).astype("u4")


def core_loss(counts: float, drift: Any, *, seed: int = 0) -> tuple[Any, Any]:
    """Energies and counts of O K and Mn L in channels of 0.5 eV."""
    fine = np.arange(380.0, 780.0, 0.05)
    whole = (fine / 532) ** -3.0
    for element in ("O", "Mn"):
        edge, onset = eels_spectrum({element: 1.0}, fine, background=0.0), EDGES[element].onset_ev
        whole = whole + edge / edge[np.searchsorted(fine, onset + 40)] * JUMP * (onset / 532) ** -3.0
    energy = 400.0 + 0.5 * np.arange(700)
    mean = np.interp(energy - np.asarray(drift)[..., None], fine, whole)
    return energy, np.random.default_rng(seed).poisson(mean * counts / mean[0, 0].sum()).astype("u4")


def row(what: str, asked: str, found: object, good: bool | None = None) -> Row:
    """A line of the table; ``good``: whether the figure is what was asked."""
    text = f"{found:.4g}" if isinstance(found, float) else str(found)
    return {"what": what, "asked": asked, "measured": text, "": {True: "yes", False: "NO", None: ""}[good]}


def cube_of(values: Any, energy: Any = ENERGY) -> xr.DataArray:
    return make_cube(values, energy=energy, energy_units="eV", signal="EELS")


def cuzn() -> xr.DataArray | None:
    path = DATA / "eels_CuZn_HAADF" / "compact.npz"
    return cube_of(np.load(path)["counts"], 700 + 8.0 * np.arange(162)) if path.exists() else None
