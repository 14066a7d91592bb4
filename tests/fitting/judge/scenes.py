"""Scenes of the judge's tests and of its benchmark: counts of K phases with their truth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from scalehsi.arrays import Float, Int
from scalehsi.cube import make_cube
from scalehsi.physics.eels_edges import eels_spectrum
from scalehsi.physics.xray_spectra import eds_spectrum

EDX_ELEMENTS = ("O", "Mg", "Al", "Si", "S", "Ca", "Ti", "Cr", "Fe", "Co", "Ni", "Zn")
EELS_ELEMENTS = ("C", "N", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni")
EDX_KEV = 0.2 + 0.02 * np.arange(500)
EELS_EV = 260.0 + 2.0 * np.arange(307)
SOFTMAX = 2.5
LAYOUTS = ("smooth", "grains", "rare")


class Scene(NamedTuple):
    """Counts of pixels (y, x, E) and their truth: expected counts are ``maps @ spectra``."""

    counts: Int
    maps: Float
    spectra: Float
    signal: str

    @property
    def cube(self) -> xr.DataArray:
        edx = self.signal == "EDS"
        energy, unit = (EDX_KEV, "keV") if edx else (EELS_EV, "eV")
        energy = energy[: self.counts.shape[-1]]
        return make_cube(self.counts, energy=energy, energy_units=unit, pixel_size=1.0, signal=self.signal)

    @property
    def expected(self) -> Float:
        return np.asarray(self.maps @ self.spectra)


def scene(
    kind: str,
    counts: float,
    k: int,
    *,
    layout: str = "smooth",
    seed: int = 0,
    size: int = 32,
    vary: float = 0.3,
    drift: float = 0.0,
    gain: float = 1.0,
) -> Scene:
    """A map of k phases.

    kind: "edx" or "eels". counts: mean of a pixel. layout: of `LAYOUTS`. vary: of the totals. drift: root mean square
    in channels of a shift that grows along the rows. gain: variance over mean.
    """
    rng = np.random.default_rng([seed, k, LAYOUTS.index(layout), int(counts)])
    energy = EDX_KEV if kind == "edx" else EELS_EV
    made = phases(kind, k, rng)
    spectra = unit_spectra(made, energy)
    maps = fractions(layout, k, size, rng)
    maps = maps * (1 + vary * np.clip(smooth_field(size, rng), -1.5, 1.5) / 1.5)[..., None]
    maps *= counts / (maps @ spectra).sum(axis=-1).mean()
    expected = maps @ spectra
    if drift:
        rows = np.sqrt(3) * drift * np.linspace(-1, 1, size) * (energy[1] - energy[0])
        expected = np.stack([maps[i] @ unit_spectra(made, energy - shift) for i, shift in enumerate(rows)])
    x = rng.poisson(expected / gain)
    whole = x.astype("u4" if x.max() > 65535 else "u2")
    return Scene(whole if gain == 1 else gain * x, maps, spectra, "EDS" if kind == "edx" else "EELS")


def phases(kind: str, k: int, rng: np.random.Generator) -> list[Callable[[Float], Float]]:
    """Spectra of k phases as functions of the energy.

    EDX: three random elements. EELS: two and oxygen, on backgrounds of exponents 2.5 to 3.5.
    """
    found: list[Callable[[Float], Float]] = []
    for _ in range(k):
        elements = list(
            rng.choice(EDX_ELEMENTS if kind == "edx" else EELS_ELEMENTS, 3 - (kind == "eels"), replace=False)
        )
        elements += ["O"] * (kind == "eels")
        composition = dict(zip(elements, rng.uniform(20, 60, 3), strict=True))
        if kind == "edx":
            found.append(partial(eds_spectrum, composition, continuum=2.0))
        else:
            found.append(partial(eels_spectrum, composition, exponent=rng.uniform(2.5, 3.5)))
    return found


def unit_spectra(made: list[Callable[[Float], Float]], energy: Float) -> Float:
    """Spectra on an energy axis, unit sum."""
    s = np.array([each(energy) for each in made])
    return np.asarray(s / s.sum(axis=1, keepdims=True))


def smooth_field(size: int, rng: np.random.Generator, width: float = 5.0) -> Float:
    """A smooth random field of mean zero and variance one, (size, size)."""
    field = gaussian_filter(rng.standard_normal((size, size)), width, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def fractions(layout: str, k: int, size: int, rng: np.random.Generator) -> Float:
    """Fractions of k phases, (size, size, k). "rare": the last phase has 70 % of 1 % of the pixels."""
    if layout == "grains":
        at = rng.uniform(0, size, (6 * k, 2))
        grid = np.stack(np.mgrid[:size, :size], axis=-1)
        nearest = ((grid[:, :, None] - at) ** 2).sum(axis=-1).argmin(axis=-1)
        return np.asarray(np.eye(k)[nearest % k])
    common = max(1, k - 1) if layout == "rare" else k
    weight = np.exp(SOFTMAX * np.stack([smooth_field(size, rng) for _ in range(common)], axis=-1))
    found = np.zeros((size, size, k))
    found[..., :common] = weight / weight.sum(axis=-1, keepdims=True)
    if layout == "rare" and k > 1:
        field = smooth_field(size, rng, 2.0)
        there = field >= np.sort(field, axis=None)[-max(2, round(0.01 * size**2))]
        found[there] = 0.3 * found[there]
        found[there, -1] = 0.7
    return found


def angles(truth: Float, found: Float) -> Float:
    """Degrees between matched spectra."""
    a, b = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-300) for m in (truth, found))
    between = np.degrees(np.arccos(np.clip(a @ b.T, -1, 1)))
    return np.asarray(between[linear_sum_assignment(between)])
