"""Estimate the noise of a cube: gain, read-out, and the correlation of its channels."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import check_cube, navigation_dims
from scalehsi.kernels.preparation.noise import Noise, noise_of_triples
from scalehsi.schema import ENERGY, MASK, InputError, X, Y

LEAST_PIXELS: Final = 5
"""Along an axis, for triples of neighbours along it."""
MOST_TRIPLES: Final = (256, 1024)
MOST_VALUES: Final = 2**18
"""Along each axis: as many triples as have this many values, but 256 at least and 1024 at most."""


def estimate_noise(cube: xr.DataArray) -> Noise:
    """Gain g and read-out noise rho of a cube, ``variance = g mean + rho^2``, from neighbouring pixels.

    Some 256 triples of neighbours along each of y and x are read (up to 1024 of few channels): of a lazy cube every
    chunk once. Accurate to 2 % at 200 counts a channel, 3 % at 4; read-out noise above all counts cannot be separated.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, 5 pixels or more along y or x; masked pixels are not used.

    Returns
    -------
    Noise
        ``gain``, ``readout``, ``index_of_sums`` (variance over mean of sums of 1, 2, 4, 8, 16, 32 channels),
        ``correlation`` (of channels 1, 2, 3, 5 apart), and ``window_gain``, the index of sums of 8; in 4 digits.

    Raises
    ------
    InputError
        When there are too few pixels, or their values are not finite.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> counts = np.random.default_rng(0).poisson(50.0, (20, 20, 64))
    >>> found = estimate_noise(make_cube(counts, energy=range(64), energy_units="eV"))
    >>> bool(abs(found.gain - 1) < 0.05), found.readout < 3
    (True, True)
    """
    check_cube(cube)
    triples = sample_triples(cube)
    if not triples.size:
        sizes = " x ".join(str(cube.sizes[d]) for d in navigation_dims(cube))
        raise InputError(f"noise: {sizes} pixels are too few; {LEAST_PIXELS} along one axis at least, none masked")
    found = noise_of_triples(*spectra_of(cube, triples))
    if not math.isfinite(found.gain):
        raise InputError("noise: the pixels that were read have no intensity; give gain= and readout=")
    rounded: Any = [
        round_digits(value) if isinstance(value, float) else tuple(map(round_digits, value)) for value in found
    ]
    return Noise(*rounded)


def given_or_estimated(
    cube: xr.DataArray, step: str, *, gain: float | None, readout: float | None = 0.0
) -> tuple[float, float]:
    """The gain and read-out that were given, checked, and else those of the cube.

    step: begins the messages. gain, readout: None to estimate.
    """
    for name, value in (("gain", gain), ("readout", readout)):
        low = "above 0" if name == "gain" else "of 0 or more"
        good = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (good and (value > 0 if name == "gain" else value >= 0)):
            raise InputError(f"{step}: {name}={value!r}; a number {low} is expected")
    if gain is not None and readout is not None:
        return float(gain), float(readout)
    found = estimate_noise(cube)
    return float(found.gain if gain is None else gain), float(found.readout if readout is None else readout)


def round_digits(value: float, digits: int = 4) -> float:
    """A figure of the whole cube to 4 digits, so that the order of a sum does not change what is made with it.

    Examples
    --------
    >>> round_digits(4.0712345), round_digits(0.000123456)
    (4.071, 0.0001235)
    """
    return float(f"{value:.{digits}g}")


def sample_triples(cube: xr.DataArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Absolute pixel numbers (n, 3) of neighbours along y or x, all of them used."""
    shape = tuple(cube.sizes[d] for d in navigation_dims(cube))
    number = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    used = np.asarray(cube[MASK].values) if MASK in cube.coords else np.ones(shape, dtype=bool)
    found = []
    for axis, dim in ((-1, X), (-2, Y)):
        if cube.sizes[dim] < LEAST_PIXELS:
            continue
        n = cube.sizes[dim]
        three = [np.moveaxis(number, axis, -1)[..., k : n - 2 + k].reshape(-1) for k in range(3)]
        good = np.all([used.reshape(-1)[part] for part in three], axis=0)
        rows = np.stack(three, axis=1)[good]
        rows = rows[np.argsort(rows[:, 1])]
        most = int(np.clip(MOST_VALUES // cube.sizes[ENERGY], *MOST_TRIPLES))
        if len(rows) > most:
            rows = rows[(np.arange(most) * len(rows) + len(rows) // 2) // most]
        found.append(rows)
    return np.concatenate(found) if found else np.empty((0, 3), dtype=np.int64)


def spectra_of(cube: xr.DataArray, triples: np.ndarray[Any, Any]) -> tuple[Float, Float, Float]:
    """The spectra (n, E) of the first, second and third pixel of each triple."""
    dims = navigation_dims(cube)
    needed, where = np.unique(triples, return_inverse=True)
    places = np.unravel_index(needed, tuple(cube.sizes[d] for d in dims))
    index = {d: xr.DataArray(place, dims="pixel") for d, place in zip(dims, places, strict=True)}
    values = np.asarray(cube.drop_vars(MASK, errors="ignore").isel(index).transpose("pixel", ENERGY).values)
    values = values.astype(np.float32)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        place = " ".join(f"{d}={int(p[first])}" for d, p in zip(dims, places, strict=True))
        raise InputError(
            f"noise: {int((~np.isfinite(values)).sum())} values are not finite, first at {place}; mask these pixels"
        )
    rows = where.reshape(triples.shape)
    return values[rows[:, 0]], values[rows[:, 1]], values[rows[:, 2]]
