"""Correct the detector: dark spectrum, afterglow of the pixel before, gain of the channels."""

from __future__ import annotations

import numbers
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_cube
from scalehsi.checks import is_number
from scalehsi.cube import check_cube, navigation_dims, with_history
from scalehsi.io.open import open_cube
from scalehsi.kernels.preparation.detector import afterglow_of, relative_gain
from scalehsi.prepare.sums import logger, used_pixels
from scalehsi.schema import ENERGY, MASK, InputError, X, Y

EXPOSURES: Final = ("exposure_s", "live_time_s", "dwell_time_s", "real_time_s")
"""Attributes that may hold the exposure time of a pixel."""
FEW_EXPOSURES: Final = 10.0
GAINS: Final = (0.5, 2.0)
LATER_STEPS: Final = ("spikes(", "align(", "background(", "bin(")


def subtract_dark(cube: xr.DataArray, dark: Any, scale: float | None = None, afterglow: float = 0) -> xr.DataArray:
    """Subtract a dark spectrum, and the afterglow of the pixel that was scanned before.

    ``x_n - scale dark - afterglow (x_(n-1) - scale dark)``, n in scan order, row after row, with the measured
    predecessor. The noise of the dark spectrum is the same in all pixels: it is in no map, and in every mean spectrum.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    dark : array, shape (E,), or DataArray, or path
        Spectrum of the closed detector; of a cube the mean of all pixels.
    scale : float, optional
        Exposure of a pixel over that of the dark spectrum. Default: from ``attrs["exposure_s"]`` (or live, dwell, real
        time) of both.
    afterglow : float, 0 to 0.5, default 0
        Part of a pixel's counts that the next one has; see `estimate_afterglow`. Each block then also reads the last
        pixel of the row before.

    Returns
    -------
    xarray.DataArray
        float32, lazy; negative values stay, and ``attrs["negative_values"]`` is 1. Masked pixels are unchanged.

    Raises
    ------
    InputError
        When the dark spectrum has other channels, or exposures are not known.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.full((2, 2, 3), 50, "u2"), energy=[1, 2, 3], energy_units="eV")
    >>> float(subtract_dark(cube, [100, 100, 200], scale=0.1)[0, 0, 2])
    30.0
    """
    check_cube(cube)
    spectrum, attrs = _reference(cube, dark, "dark")
    scale = _scale(cube, attrs, scale)
    if not is_number(afterglow, numbers.Real) or not 0 <= afterglow <= 0.5:
        raise InputError(f"dark: afterglow={afterglow!r}; a number from 0 to 0.5 is expected, such as 0.01")
    if scale > 1.0 / FEW_EXPOSURES:
        logger.warning(
            "dark: the dark spectrum was exposed %.3g times as long as a pixel; below %g its noise shows in means",
            1.0 / scale,
            FEW_EXPOSURES,
        )
    _warn_order(cube, "dark")
    plain = cube.drop_vars(MASK, errors="ignore")
    level = (spectrum * scale).astype(np.float32)
    made = map_cube(_subtract_block, plain, dtype=np.float32, shared={"dark": level})
    if afterglow:
        made = made - np.float32(afterglow) * _above_dark(_predecessors(plain), level)
    made = _only_used(made, cube)
    made.attrs = {**cube.attrs, "negative_values": 1}
    words = f"dark=given, scale={scale:.10g}" + (f", afterglow={float(afterglow):.10g}" if afterglow else "")
    return with_history(made, f"dark({words})")


def estimate_afterglow(cube: xr.DataArray, vacuum: Any, dark: Any = None, scale: float | None = None) -> float:
    """Part of a pixel's counts that is seen again in the next one, from vacuum pixels behind bright ones.

    Never take it from the specimen: there its statistics cannot tell before from after.

    Parameters
    ----------
    cube : xarray.DataArray
        As measured, in one reading.
    vacuum : array of bool, shape (..., y, x)
        True for pixels beside the specimen; those whose predecessor is on it are used.
    dark, scale : as in `subtract_dark`
        Without a dark spectrum the estimate is too high.

    Returns
    -------
    float
        For ``subtract_dark(afterglow=...)``, to 4 digits.

    Raises
    ------
    InputError
        When no vacuum pixel follows a bright one.
    """
    check_cube(cube)
    empty = np.asarray(vacuum, dtype=bool).reshape(-1)
    if empty.size != used_pixels(cube).size:
        raise InputError(f"afterglow: vacuum has {empty.size} pixels, the cube {used_pixels(cube).size}")
    dims = navigation_dims(cube)
    plain = cube.drop_vars(MASK, errors="ignore")
    number = np.flatnonzero(empty[1:] & ~empty[:-1]) + 1
    per_frame = cube.sizes[Y] * cube.sizes[X]
    number = number[number % per_frame != 0]
    if not number.size:
        raise InputError("afterglow: no vacuum pixel follows one of the specimen; mark some with vacuum=")
    shape = tuple(cube.sizes[d] for d in dims)

    def spectra(pixels: Any) -> Float:
        places = np.unravel_index(pixels, shape)
        index = {d: xr.DataArray(p, dims="pixel") for d, p in zip(dims, places, strict=True)}
        return np.asarray(plain.isel(index).transpose("pixel", ENERGY).values, dtype=np.float64)

    level = np.zeros(cube.sizes[ENERGY])
    if dark is not None:
        spectrum, attrs = _reference(cube, dark, "dark")
        level = spectrum * _scale(cube, attrs, scale)
    part, _ = afterglow_of(spectra(number), spectra(number - 1), level)
    return float(f"{part:.4g}")


def correct_gain(cube: xr.DataArray, reference: Any) -> xr.DataArray:
    """Divide each channel by its gain: a flat reference spectrum over its running median of 51 channels.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, after the dark spectrum was subtracted and before any alignment.
    reference : array, shape (E,), or DataArray, or path
        Spectrum of an even illumination, with far more counts than a pixel; of a cube the mean of all pixels.

    Returns
    -------
    xarray.DataArray
        float32, lazy. Masked pixels are unchanged.

    Raises
    ------
    InputError
        When the reference has other channels, or a gain is outside 0.5 to 2.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> pattern = np.where(np.arange(100) % 10 == 3, 1.1, 1.0)
    >>> cube = make_cube(100 * pattern * np.ones((2, 2, 1)), energy=range(100), energy_units="eV")
    >>> flat = correct_gain(cube, 1e6 * pattern)
    >>> bool(flat.std() < 0.01 * cube.std())
    True
    """
    check_cube(cube)
    spectrum, _ = _reference(cube, reference, "gain")
    if not (spectrum > 0).any():
        raise InputError("gain: no channel of the reference is above 0; give the spectrum of an even illumination")
    gain = relative_gain(spectrum)
    outside = np.flatnonzero((gain < GAINS[0]) | (gain > GAINS[1]))
    if outside.size:
        e = int(outside[0])
        energy = float(cube[ENERGY][e])
        raise InputError(
            f"gain: {gain[e]:.3g} at {energy:g} {cube[ENERGY].attrs.get('units', '')}; from 0.5 to 2 is expected: "
            "give the spectrum of an even illumination, or crop the cube"
        )
    _warn_order(cube, "gain")
    plain = cube.drop_vars(MASK, errors="ignore")
    made = map_cube(_divide_block, plain, dtype=np.float32, shared={"gain": gain})
    made = _only_used(made, cube)
    made.attrs = dict(cube.attrs)
    return with_history(made, f"gain(reference=given); sd {float(gain.std()):.4g}")


def _reference(cube: xr.DataArray, given: Any, name: str) -> tuple[Float, dict[str, Any]]:
    """A spectrum (E,) for the channels of a cube, and its attributes.

    given: an array, a DataArray or a path. name: of the step.
    """
    if isinstance(given, (str, bytes)) or hasattr(given, "__fspath__"):
        given = open_cube(given)
    attrs: dict[str, Any] = {}
    if isinstance(given, xr.DataArray):
        attrs = dict(given.attrs)
        given = given.mean([d for d in given.dims if d != ENERGY]).values if ENERGY in given.dims else given.values
    values = np.asarray(given, dtype=np.float64)
    channels = int(cube.sizes[ENERGY])
    if values.ndim != 1 or values.size != channels:
        number = values.shape[-1] if values.ndim else 1
        raise InputError(f"{name}: {number} channels for {channels}; crop or bin it as the cube")
    if not np.isfinite(values).all():
        raise InputError(f"{name}: the spectrum holds NaN or Inf; replace them")
    return values, attrs


def _scale(cube: xr.DataArray, attrs: dict[str, Any], given: float | None) -> float:
    """Exposure of a pixel over that of the dark spectrum, with ``attrs``."""
    if given is not None:
        if not is_number(given, numbers.Real) or not float(given) > 0:
            raise InputError(f"dark: scale={given!r}; a number above 0 is expected")
        return float(given)
    for name in EXPOSURES:
        times = cube.attrs.get(name), attrs.get(name)
        if all(is_number(t, numbers.Real) and t > 0 for t in times):
            return float(times[0]) / float(times[1])  # type: ignore[arg-type]
    raise InputError("dark: no exposure times in the files; give scale=")


def _warn_order(cube: xr.DataArray, step: str) -> None:
    """Say when a later step of the usual order was done before."""
    lines = [str(line) for line in cube.attrs.get("history", ())]
    done = [word.rstrip("(") for word in LATER_STEPS if any(line.startswith(word) for line in lines)]
    if done:
        logger.warning("%s: this comes before %s, which was done already", step, ", ".join(done))


def _predecessors(cube: xr.DataArray) -> xr.DataArray:
    """The measured spectrum of the pixel before, row after row, in float32; zero for the first of a frame."""
    line = cube.shift({X: 1}, fill_value=0)
    row = cube.isel({X: [-1]}).shift({Y: 1}, fill_value=0).assign_coords({X: cube[X][:1]} if X in cube.coords else {})
    first = xr.DataArray(np.arange(cube.sizes[X]) == 0, dims=X)
    joined = xr.where(first, row.isel({X: 0}, drop=True), line).transpose(*cube.dims)
    return joined.astype(np.float32)


def _only_used(made: xr.DataArray, cube: xr.DataArray) -> xr.DataArray:
    """The prepared values where the mask has True, those of the cube elsewhere, with its coordinates and name."""
    if MASK in cube.coords:
        plain = cube.drop_vars(MASK)
        made = made.where(cube[MASK].drop_vars(MASK), plain).astype(np.float32)
    made = made.transpose(*cube.dims).assign_coords(cube.coords)
    made.name = cube.name
    for dim in map(str, cube.dims):
        if dim in cube.coords:
            made[dim].attrs = dict(cube[dim].attrs)
    return made


def _above_dark(before: xr.DataArray, level: Any) -> xr.DataArray:
    """What the pixels before had above the dark level (E,); the first pixel of a frame has none before it."""
    dark = xr.DataArray(level, dims=ENERGY)
    start = xr.DataArray(np.arange(before.sizes[Y]) == 0, dims=Y) & xr.DataArray(
        np.arange(before.sizes[X]) == 0, dims=X
    )
    return xr.where(start, np.float32(0), before - dark).transpose(*before.dims)


def _subtract_block(x: Any, *, dark: Any) -> Any:
    return np.asarray(x, dtype=np.float32) - dark


def _divide_block(x: Any, *, gain: Float) -> Any:
    return (np.asarray(x, dtype=np.float32) / gain).astype(np.float32)
