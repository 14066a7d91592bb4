"""Align the energy axes of all pixels: measure a shift for each, smooth it, and take it off."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_cube
from scalehsi.checks import choice
from scalehsi.cube import check_cube, energy_factor, navigation_dims, with_history
from scalehsi.io.open import open_cube
from scalehsi.kernels.preparation.energy_shifts import shift_fourier, shift_split, shift_whole
from scalehsi.kernels.preparation.smooth_shifts import fill_from_neighbours, smooth_median, smooth_scan
from scalehsi.prepare.edge_windows import Range, window_channels, window_ends
from scalehsi.prepare.noise import round_digits
from scalehsi.prepare.shift_maps import Measured, core_loss_shifts, pixel_totals, zero_loss_shifts
from scalehsi.prepare.sums import logger, used_pixels, with_map
from scalehsi.schema import ENERGY, InputError

WAYS: Final = ("auto", "fourier", "split", "whole")
SMOOTHINGS: Final = ("none", "median", "scan")
FEW_COUNTS: Final = 20.0
"""Mean counts of a channel below which counts are split: Fourier shifts would make some negative."""
QUIET: Final = 0.1
"""Noise of the shifts, in channels, below which they are not smoothed."""
FOLLOWS: Final = 0.5
"""Correlation of shifts and totals from which on the shifts may be those of the specimen."""
AGREES: Final = 0.7
"""Correlation of the shifts of both cubes below which those of the low losses do not serve."""
SEED: Final = 0


class _Applied(NamedTuple):
    """Shifts (..., y, x) and their noise in channels, the method for the history, the energy of the zero-loss peak."""

    shifts: Float
    words: str
    zero: float = 0.0
    noise: float = 0.0


def align(
    cube: xr.DataArray,
    *,
    zero_loss: bool = False,
    window: Range | None = None,
    low_loss: xr.DataArray | str | None = None,
    shifts: xr.DataArray | np.ndarray[Any, Any] | None = None,
    smooth: str | None = None,
    how: str = "auto",
    crop: bool = True,
    width: float = 1.0,
) -> xr.DataArray:
    """Take the energy shift of each pixel off, so that a feature has one energy in all pixels.

    Exactly one of ``zero_loss``, ``window``, ``low_loss`` and ``shifts`` says where the shifts come from. They are
    measured at the call, in one reading for a zero-loss peak and four for a window; the shifted cube is lazy.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, a rising axis of even steps.
    zero_loss : bool, default False
        Fit a Gaussian to the zero-loss peak; the axis gets its 0 there.
    window : (low, high), optional
        Window of a core-loss edge, in the unit of the axis, with some background on both sides: weighted least squares
        against the mean of the aligned spectra. Chemical shifts are taken off like drift: choose an edge that is alike
        everywhere.
    low_loss : xarray.DataArray or path, optional
        The low losses of the same scan, whose zero-loss shifts are taken.
    shifts : array, shape (..., y, x), optional
        In the unit of the axis; positive where the feature lies too high.
    smooth : {"none", "median", "scan"}, optional
        Of the shifts: "median" of 3 x 3 pixels and a Gaussian of 2; "scan" a curve in scan order, as drift makes it,
        and an offset a column. Default: none where their noise is below 0.1 channel, else the median.
    how : {"auto", "fourier", "split", "whole"}
        How the shifts are applied. "fourier": phases, float32; the noise stays white, edges stay sharp; 60 ns a value.
        "split": counts are divided at random between two channels; they stay Poisson counts, and edges lose 3 %.
        "whole": whole channels alone. "auto": "split" for unsigned counts below 20 a channel, else "fourier".
    crop : bool, default True
        Leave out the channels at both ends that some pixel lacks.
    width : float, default 1.0
        Half width of the fit of the zero-loss peak, in FWHM; 0.7 makes it less sensitive to thickness.

    Returns
    -------
    xarray.DataArray
        With the coordinate ``energy_shift`` over the pixels, in the unit of the axis. The shifts of masked pixels are
        0, and these pass unchanged.

    Raises
    ------
    InputError
        When there is no zero loss on the axis, the cubes have other pixels, the shifts reach beyond the axis, or the
        axis is uneven.

    Notes
    -----
    Warnings (of the logger ``scalehsi``): shifts that are noise, or that follow the specimen; low losses that do not
    move with the edges; pixels without a peak.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> energy, drift = np.arange(-20.0, 60.0, 0.5), np.linspace(-1, 1, 30).reshape(5, 6, 1)
    >>> cube = make_cube(1e4 * np.exp(-((energy - drift) ** 2)), energy=energy, energy_units="eV")
    >>> aligned = align(cube, zero_loss=True)
    >>> bool(abs(aligned.energy_shift - drift[..., 0]).max() < 0.01), aligned.sizes["energy"]
    (True, 156)
    """
    check_cube(cube)
    step = _step_of_axis(cube)
    choice("align: how", how, WAYS)
    if smooth is not None:
        choice("align: smooth", smooth, SMOOTHINGS)
    given = {"zero_loss": zero_loss or None, "window": window, "low_loss": low_loss, "shifts": shifts}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"align: {' and '.join(named) or 'nothing'} is given; give one of zero_loss=True, window=(low, high), "
            "low_loss= and shifts="
        )
    if not 0.2 <= float(width) <= 5.0:
        raise InputError(f"align: width={width!r}; a number from 0.2 to 5 is expected")
    used = used_pixels(cube)
    if shifts is not None:
        found = _Applied(_given(cube, shifts) / step, "shifts=given")
    else:
        found = _measure(cube, step, used, zero_loss=zero_loss, window=window, low_loss=low_loss, width=width)
    values = found.shifts
    if shifts is None:
        values, way = _smoothed(values, used, smooth, found.noise)
        found = found._replace(words=f"{found.words}, smooth={way}")
    elif smooth not in (None, "none"):
        values = smooth_scan(values) if smooth == "scan" else smooth_median(values)
        found = found._replace(words=f"{found.words}, smooth={smooth}")
    # To 1e-4 channels, so that the order of sums does not change what is made with them.
    values = np.where(used, np.round(values, 4), 0.0)
    return _apply(cube, values, found, step, used, how=how, crop=crop)


def _step_of_axis(cube: xr.DataArray) -> float:
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    if energy.size < 8:
        raise InputError(f"align: {energy.size} channels are too few; 8 at least")
    steps = np.diff(energy)
    if not (steps > 0).all():
        raise InputError("align: the energy axis falls; type cube.sortby('energy') first")
    if steps.max() > 1.01 * steps.min():
        raise InputError("align: the energy axis has uneven steps; resample it to even ones first")
    return float(steps.mean())


def _given(cube: xr.DataArray, shifts: Any) -> Float:
    """Shifts (..., y, x) of the user, checked, in the unit of the axis."""
    dims = navigation_dims(cube)
    shape = tuple(cube.sizes[d] for d in dims)
    if isinstance(shifts, xr.DataArray) and set(shifts.dims) == set(dims):
        shifts = shifts.transpose(*dims)
    values = np.asarray(shifts, dtype=np.float64)
    if values.shape != shape:
        raise InputError(f"align: shifts of shape {shape} are expected, got {values.shape}")
    if not np.isfinite(values[used_pixels(cube)]).all():
        raise InputError("align: the shifts hold NaN or Inf; mask these pixels, or type shifts.fillna(0)")
    return np.nan_to_num(values)


def _measure(
    cube: xr.DataArray, step: float, used: Any, *, zero_loss: bool, window: Any, low_loss: Any, width: float
) -> _Applied:
    """The shifts in channels; the arguments are those of `align`, step of the axis, used (..., y, x)."""
    if window is not None:
        channels = window_channels(cube, "align", "window", window, 8)
        window = window_ends(cube, window)
        found = core_loss_shifts(cube, channels)
        _warn_of_window(cube, found, used)
        words = f"window={float(window[0]):.10g}:{float(window[1]):.10g}"
        return _Applied(found.shifts, words, noise=found.bound)
    if zero_loss:
        found = zero_loss_shifts(cube, width=width)
        return _Applied(found.shifts, f"zero_loss=True, width={float(width):g}", found.zero, found.bound)
    partner = _partner(cube, low_loss)
    found = zero_loss_shifts(partner, width=width, used=used)
    ratio = _step_of_axis(partner) / step
    _compare(cube, found.shifts * ratio, used)
    return _Applied(found.shifts * ratio, f"low_loss=given, width={float(width):g}", noise=found.bound * ratio)


def _partner(cube: xr.DataArray, low_loss: Any) -> xr.DataArray:
    """The low-loss cube of the same pixels, in the unit of the cube's axis."""
    if not isinstance(low_loss, xr.DataArray):
        low_loss = open_cube(low_loss)
    check_cube(low_loss)
    sizes = [" x ".join(str(c.sizes[d]) for d in navigation_dims(c)) for c in (low_loss, cube)]
    if sizes[0] != sizes[1]:
        raise InputError(f"align: low_loss has {sizes[0]} pixels, the cube {sizes[1]}")
    units = [str(c[ENERGY].attrs.get("units", "")) for c in (low_loss, cube)]
    if units[0] != units[1]:
        factors = [energy_factor(unit) for unit in units]
        if None in factors:
            raise InputError(f"align: low_loss has the energy unit {units[0]!r}, the cube {units[1]!r}")
        axis = low_loss[ENERGY] * (factors[0] / factors[1])  # type: ignore[operator]
        low_loss = low_loss.assign_coords({ENERGY: axis.assign_attrs(units=units[1])})
    return low_loss


def _warn_of_window(cube: xr.DataArray, found: Measured, used: Any) -> None:
    """Say when shifts are noise, or follow the specimen."""
    spread = _robust(found.shifts[used])
    if found.bound > spread:
        logger.warning(
            "align: the shifts are noise: %.2g channels are found, %.2g are its smallest error; bin or smooth",
            spread,
            found.bound,
        )
    elif spread > 0 and used.sum() > 2:
        totals = pixel_totals(cube)
        follows = float(np.corrcoef(found.shifts[used], totals[used])[0, 1]) if totals[used].std() > 0 else 0.0
        if abs(follows) > FOLLOWS:
            logger.warning(
                "align: the shifts follow the specimen (correlation %.2f with the intensity), as chemical shifts do; "
                "use the zero-loss peak or an edge that is alike everywhere",
                follows,
            )


def _compare(cube: xr.DataArray, shifts: Float, used: Any) -> None:
    """Say when the edges of a cube do not move as its low losses; shifts (..., y, x): of these, in channels."""
    channels = int(cube.sizes[ENERGY])
    found = core_loss_shifts(cube, (channels // 20, channels - channels // 20))
    own, other = found.shifts[used], shifts[used]
    spread = _robust(own)
    if own.size < 8 or spread < 1.5 * found.bound:
        return
    agrees = float(np.corrcoef(_clipped(own), _clipped(other))[0, 1]) if other.std() > 0 else 0.0
    left = _robust(own - other)
    if agrees < AGREES or left > spread:
        logger.warning(
            "align: the cube does not move with its low losses (correlation %.2f; its shifts spread %.2g channels, "
            "%.2g after this); use window=",
            agrees,
            spread,
            left,
        )


def _clipped(values: Float) -> Float:
    """Values within 4 robust standard deviations of their median."""
    middle, spread = float(np.median(values)), max(_robust(values), 1e-12)
    return np.clip(values, middle - 4 * spread, middle + 4 * spread)


def _robust(values: Float) -> float:
    """A standard deviation from the median deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def _smoothed(shifts: Float, used: Any, smooth: str | None, noise: float) -> tuple[Float, str]:
    """Shifts without gaps, smoothed, and how; noise: of a shift, in channels."""
    filled = fill_from_neighbours(np.where(used, shifts, np.nan))
    if smooth is None:
        smooth = "none" if noise < QUIET else "median"
    ways = {"none": lambda s: s, "median": smooth_median, "scan": smooth_scan}
    return np.asarray(ways[smooth](filled)), smooth


def _apply(
    cube: xr.DataArray, shifts: Float, found: _Applied, step: float, used: Any, *, how: str, crop: bool
) -> xr.DataArray:
    """The cube with its ``shifts`` (..., y, x), in channels, taken off; other arguments as in `align`."""
    channels, most = int(cube.sizes[ENERGY]), float(np.abs(shifts).max(initial=0.0))
    if most * 2 >= channels:
        raise InputError(f"align: shifts reach {most:.0f} of {channels} channels")
    whole = cube.dtype.kind in "ui"
    if how == "auto":
        how = "fourier"
        if cube.dtype.kind == "u":
            how = "split" if float(pixel_totals(cube)[used].mean()) / channels < FEW_COUNTS else "fourier"
    if how == "split" and not whole:
        raise InputError(f"align: how=split divides counts, whole numbers, got {cube.dtype}; type how=fourier")
    number = np.arange(shifts.size, dtype=np.int64).reshape(shifts.shape)
    shared = {"how": how, "most": most}
    dtype = np.dtype(np.float32) if how == "fourier" else cube.dtype
    made = map_cube(_shift_block, cube, np.where(used, shifts, 0.0), number, dtype=dtype, shared=shared)
    units = str(cube[ENERGY].attrs.get("units", ""))
    made = with_map(made, "energy_shift", (shifts * step).astype(np.float32), "energy shift that was taken off", units)
    edge = math.ceil(most - 1e-9)
    if crop and edge:
        made = made.isel({ENERGY: slice(edge, channels - edge)})
    if found.zero:
        axis = made[ENERGY]
        made = made.assign_coords({ENERGY: (ENERGY, axis.values - found.zero, axis.attrs)})
    numbers = [round_digits(float(v) * step) for v in (shifts[used].mean(), shifts[used].std(), np.ptp(shifts[used]))]
    words = (
        f"{found.words}, how={how}, crop={crop}; mean {numbers[0]:g}, sd {numbers[1]:g}, range {numbers[2]:g} {units}"
    )
    return with_history(made, f"align({words.strip()})")


def _shift_block(x: Any, shifts: Any, number: Any, *, how: str, most: float) -> Any:
    """A block (..., y, x, E) with its shifts (..., y, x) taken off; number: absolute pixels."""
    rows, by = x.reshape(-1, x.shape[-1]), np.asarray(shifts).reshape(-1)
    if how == "fourier":
        made = shift_fourier(rows, by, most=most)
    elif how == "split":
        made = shift_split(rows, by, np.asarray(number).reshape(-1), seed=SEED)
    else:
        made = shift_whole(rows, by)
    return made.reshape(x.shape)
