"""Chequerboard scenes of the unmixing benchmark: exact recipes of spectra, maps and counts, and harder variants.

Three components of 200 channels (Pt, Co, Ru) or four of 903 (C, BN, oxide, B) on 64 x 64 pixels, as in Brun et al.
2025, and an EDX-like scene without pure pixels. Maps are blocks of 8 x 8 pixels, smoothed over 9 x 9.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter
from scipy.optimize import linear_sum_assignment

from scalehsi.arrays import Float
from scalehsi.cube import make_cube
from scalehsi.metrics import spectral_angle

SIZE: Final = 64
NAMES: Final = {3: ("Pt", "Co", "Ru"), 4: ("C", "BN", "oxide", "B")}


class Truth(NamedTuple):
    """A scene: its cube, the spectra (K, E) in counts, and the fractions (y, x, K)."""

    cube: xr.DataArray
    spectra: Float
    maps: Float


def _step(energy: Float, onset: float, width: float) -> Float:
    return (1 + np.tanh((energy - onset) / width)) / 2


def _gauss(energy: Float, centre: float, sigma: float) -> Float:
    return np.exp(-(((energy - centre) / sigma) ** 2) / 2)


def _decay(energy: Float, onset: float, power: float) -> Float:
    return (np.maximum(energy, onset) / onset) ** -power


def axis(k: int) -> Float:
    """Energies of the scene of k components, in eV."""
    return 200 + 3.33 * np.arange(200) if k == 3 else 170 + 0.5 * np.arange(903)


def spectra(k: int) -> Float:
    """Spectra (k, E) of the scene of k components, in arbitrary units."""
    return _three(axis(3)) if k == 3 else _four(axis(4))


def _three(e: Float) -> Float:
    co = 0.80 * (e / 200) ** -2.9 + 0.010 * _step(e, 779, 3) * _decay(e, 779, 3)
    co += 0.030 * _gauss(e, 782, 4) + 0.012 * _gauss(e, 797, 4.5)
    ru = 1.00 * (e / 200) ** -3.2 + 0.110 * (1 - np.exp(-np.maximum(e - 279, 0) / 45)) * _decay(e, 279, 2.5)
    ru += 0.008 * _step(e, 461, 3) * _decay(e, 461, 3) + 0.004 * _step(e, 483, 3) * _decay(e, 483, 3)
    ru += 0.006 * _gauss(e, 465, 5) + 0.003 * _gauss(e, 487, 5)
    return np.stack([1.30 * (e / 200) ** -2.4, co, ru])


def _four(e: Float) -> Float:
    def edge(onset: float, a: float, p: float, s: float, w: float = 0.8) -> Float:
        rise = a * _step(e, onset + 2.5, 1.5) * _decay(e, onset, 3) + p * _gauss(e, onset + 1.5, w)
        return rise + s * _gauss(e, onset + 9, 3.5) + 0.4 * s * _gauss(e, onset + 24, 7)

    carbon = (e / 170) ** -2.8 + edge(284, 0.10, 0.05, 0.08)
    nitride = 1.20 * (e / 170) ** -2.6 + edge(188, 0.25, 0.30, 0.22) + edge(401, 0.040, 0.020, 0.030)
    oxide = 0.80 * (e / 170) ** -3.0 + edge(532, 0.016, 0.004, 0.018)
    boron = 0.90 * (e / 170) ** -2.7 + edge(188, 0.30, 0.02, 0.15, w=2.0)
    return np.stack([carbon, nitride, oxide, boron])


def fractions(rng: np.random.Generator, k: int, *, mode: Any = "reflect") -> Float:
    """Fractions (y, x, k) that sum to one; ``mode`` is the border of the 9 x 9 mean, "wrap" leaves few pure pixels."""
    labels = rng.integers(0, k, (8, 8))
    while np.unique(labels).size < k:
        labels = rng.integers(0, k, (8, 8))
    large = np.kron(labels, np.ones((8, 8)))
    maps = np.stack([uniform_filter((large == i).astype(float), size=9, mode=mode) for i in range(k)], axis=-1)
    maps = np.clip(maps, 0, None)
    return np.asarray(maps / maps.sum(axis=-1, keepdims=True))


def scene(k: int, *, dose: float = 1e5, seed: int = 0, variant: str = "plain") -> Truth:
    """A scene of k = 3 or 4 components.

    dose: mean counts of a pixel. seed: of maps and counts. variant: "plain"; "no pure" (pixels above 0.8 become equal
    mixtures); "thickness" (a wedge of 0.5 to 1.5); "drift" (0 to 6 channels along x); "outliers" (0.2 % of the pixels
    have a spike).
    """
    rng = np.random.default_rng(seed)
    maps, m = fractions(rng, k), spectra(k)
    if variant == "no pure":
        maps[maps.max(axis=-1) > 0.8] = 1 / k
    thickness = np.linspace(0.5, 1.5, SIZE)[:, None] if variant == "thickness" else np.ones((SIZE, 1))
    x = thickness[..., None] * (maps @ m)
    if variant == "drift":
        shifts = np.linspace(0.0, 6.0, SIZE)
        at = np.arange(m.shape[1])
        x = np.stack([[np.interp(at - s, at, row) for row in x[:, j]] for j, s in enumerate(shifts)], axis=1)
    gain = dose / x.sum(axis=-1).mean()
    counts = rng.poisson(gain * x)
    if variant == "outliers":
        hit = rng.choice(SIZE * SIZE, 8, replace=False)
        counts.reshape(-1, m.shape[1])[hit, rng.integers(0, m.shape[1], 8)] += int(0.3 * dose)
    cube = make_cube(
        counts.astype("u2" if counts.max() < 65536 else "u4"), energy=axis(k), energy_units="eV", signal="EELS",
        attrs={"title": f"chequerboard of {', '.join(NAMES[k])}, {variant}"},
    )  # fmt: skip
    return Truth(cube, gain * m, maps)


def edx_scene(*, dose: float = 1e3, background: float = 0.02, seed: int = 0) -> Truth:
    """An EDX-like scene of three phases whose lines partly overlap, without pure pixels; 400 channels of 25 eV."""
    rng = np.random.default_rng(seed)
    e = 0.025 * np.arange(400)
    lines = (
        ((1.00, 1.49), (0.35, 0.525), (0.05, 6.4)),
        ((0.80, 6.4), (0.11, 7.06), (0.50, 0.705), (0.15, 0.525)),
        ((1.00, 1.74), (0.30, 0.39), (0.10, 0.525)),
    )
    m = np.stack([sum(a * _gauss(e, c, 0.06) for a, c in each) + background * np.exp(-e / 3) for each in lines])
    maps = fractions(rng, 3)
    maps[maps.max(axis=-1) > 0.8] = 1 / 3
    x = maps @ m
    gain = dose / x.sum(axis=-1).mean()
    counts = rng.poisson(gain * x).astype("u2")
    return Truth(make_cube(counts, energy=e, energy_units="keV", signal="EDS"), gain * m, maps)


def scores(truth: Truth, m: Float, a: Float) -> tuple[float, float]:
    """Mean spectral angle in radians, and mean NMSE of the maps, of matched components.

    truth: the scene. m (K, E): estimated spectra. a (y, x, K): estimated maps.
    """
    angles = spectral_angle(truth.spectra[:, None], np.asarray(m)[None])
    rows, order = linear_sum_assignment(np.nan_to_num(angles, nan=np.pi))
    error = ((np.asarray(a)[..., order] - truth.maps) ** 2).sum(axis=(0, 1)) / (truth.maps**2).sum(axis=(0, 1))
    return float(angles[rows, order].mean()), float(error.mean())


def scores_of(truth: Truth, result: xr.Dataset) -> tuple[float, float]:
    """`scores` of a result."""
    maps = result["abundances"].transpose("y", "x", "component").values
    return scores(truth, result["endmembers"].values, maps)
