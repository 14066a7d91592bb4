"""Measure the energy shift of each pixel: at the zero-loss peak, or at an edge in a window."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.cube import energy_factor, navigation_dims
from scalehsi.kernels.preparation.edge_shifts import Reference, find_shifts, make_reference, shift_bound
from scalehsi.kernels.preparation.energy_shifts import shift_fourier
from scalehsi.kernels.preparation.noise import noise_of_triples
from scalehsi.kernels.preparation.power_law import channel_sums
from scalehsi.kernels.preparation.zero_loss import peak_width, zero_loss_positions
from scalehsi.prepare.noise import round_digits, sample_triples, spectra_of
from scalehsi.prepare.sums import logger, pixel_sums, used_pixels
from scalehsi.schema import ENERGY, InputError

ROUNDS: Final = 3
MARGIN: Final = 24
"""Channels around a window that the reference needs, and the largest shift against the mean spectrum."""
FEW_TRIPLES: Final = 64
NEAR_ZERO_EV: Final = 30.0
"""The zero-loss peak is sought this far around 0, and up to this share of the axis where it lies elsewhere."""


class Measured(NamedTuple):
    """Shifts of the pixels.

    Attributes
    ----------
    shifts : array, shape (..., y, x)
        In channels, with mean 0 over the pixels; NaN where there is none.
    zero : float
        Mean energy of the zero-loss peak, in the unit of the axis.
    bound : float
        Smallest possible standard deviation of the shifts, in channels.
    positions : array, shape (..., y, x)
        Energy of the zero-loss peak.
    """

    shifts: Float
    zero: float = 0.0
    bound: float = 0.0
    positions: Float | None = None


def zero_loss_shifts(cube: xr.DataArray, *, width: float = 1.0, used: Any = None) -> Measured:
    """Position of the zero-loss peak of each pixel, from two readings: the mean spectrum, and the fits.

    cube: low losses, a rising axis. width: half width of the fit, in FWHM. used (..., y, x): pixels that count.
    """
    used = used_pixels(cube) if used is None else used
    energy, settings = zero_loss_settings(cube, "align", width=width)
    gain = settings["gain"]
    found = pixel_sums(cube, zero_loss_positions, 3, shared=settings, name="zero-loss")
    place = np.where(used, found[..., 0], np.nan)
    missing = int((used & ~np.isfinite(place)).sum())
    if missing == used.sum():
        raise InputError("align: no pixel has a zero-loss peak of 20 counts; give window= or bin the cube")
    if missing:
        logger.warning("align: %d of %d pixels have no zero-loss peak: from their neighbours", missing, used.sum())
    middle = float(np.nanmean(place))
    step = (energy[-1] - energy[0]) / (energy.size - 1)
    zero = float(f"{energy[0] + step * middle:.6g}")
    shifts = place - (zero - energy[0]) / step
    # sigma / sqrt(electrons): the bound of a Gaussian's centre.
    electrons = np.sqrt(2.0 * np.pi) * found[..., 1] * found[..., 2] / gain
    bound = float(np.nanmedian(found[..., 1] / np.sqrt(electrons)))
    return Measured(shifts, zero, bound, energy[0] + step * place)


def zero_loss_settings(cube: xr.DataArray, step: str, *, width: float = 1.0) -> tuple[Float, dict[str, Any]]:
    """The energy axis (E,), and the arguments of `zero_loss_positions`, from the mean spectrum: one reading.

    cube: low losses. step: begins the messages. width: half width of the fit, in FWHM.
    """
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    units = str(cube[ENERGY].attrs.get("units", ""))
    remedy = "give window= or low_loss=" if step == "align" else "the low-loss cube is needed"
    near = NEAR_ZERO_EV / (energy_factor(units) or 1.0)
    if energy[0] > 0.1 * near or energy[-1] < 0:
        raise InputError(f"{step}: no zero loss, the axis starts at {energy[0]:.6g} {units}; {remedy}")
    mean = _mean_spectrum(cube)
    top, fwhm = peak_width(mean)
    if not mean[top] > 0 or not 0 < top < mean.size - 1:
        raise InputError(f"{step}: no zero loss, the mean spectrum has no peak; {remedy}")
    reach = max(int(8 * fwhm), mean.size // 4)
    places = {"low": max(top - reach, 0), "high": top + reach}
    return energy, {"fwhm": fwhm, "width": float(width), "gain": _gain(cube), **places}


def core_loss_shifts(cube: xr.DataArray, channels: tuple[int, int]) -> Measured:
    """Shift of each pixel in a window, from four readings of it (one, where the workers' memory holds it).

    cube: a rising axis. channels: of the window.
    """
    size = int(cube.sizes[ENERGY])
    first, last = channels
    low, high = max(first - MARGIN, 0), min(last + MARGIN, size)
    inside = (max(first - low, 2), min(last - low, high - low - 2))
    view = open_blocks(cube.isel({ENERGY: slice(low, high)}))
    _, sums = map_fold(_mean_block, view, name="align-mean")
    reference = make_reference(sums["spectrum"] / max(int(sums["n"]), 1))
    handles: dict[str, Any] = {}
    centre = 0.0
    for _ in range(ROUNDS):
        shared = {"reference": tuple(reference), "inside": inside, "centre": centre}
        aligned = (handles["shift"],) if handles else ()
        handles, sums = map_fold(_align_block, view, *aligned, shared=shared, keep=["shift"], name="align-edge")
        n = max(int(sums["n"]), 1)
        # The reference keeps the mean energy of all pixels.
        centre = float(f"{float(sums['shift']) / n:.6g}")
        reference = make_reference(shift_fourier((sums["spectrum"] / n)[None], np.array([-centre]))[0])
    maps = handles["shift"].to_dataarray(dtype=np.float64).transpose(*navigation_dims(cube))
    shifts = np.asarray(maps.values)
    shifts = shifts - float(np.nanmean(shifts)) if np.isfinite(shifts).any() else np.zeros(shifts.shape)
    counts = float(reference.values[slice(*inside)].sum())
    return Measured(shifts, bound=shift_bound(reference, inside, counts, _gain(cube, windows=True)))


def pixel_totals(cube: xr.DataArray) -> Float:
    """The total (..., y, x) of each pixel, from one reading; NaN where the mask leaves a pixel out."""
    size = int(cube.sizes[ENERGY])
    return pixel_sums(cube, partial(channel_sums, windows=[(0, size)]), 1, shared={}, name="totals")[..., 0]


def _mean_spectrum(cube: xr.DataArray) -> Float:
    _, sums = map_fold(_mean_block, open_blocks(cube, resident=False), name="mean-spectrum")
    return np.asarray(sums["spectrum"] / max(int(sums["n"]), 1), dtype=np.float64)


def _mean_block(x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sum of the spectra x (P, E), and their number."""
    return {}, {"spectrum": np.asarray(x).sum(axis=0, dtype=np.float64), "n": len(x)}


def _align_block(
    x: Any, start: Any = None, *, reference: Any, inside: tuple[int, int], centre: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shifts of the spectra x (P, E) against a reference, and the sum of the aligned spectra.

    start (P,): shifts of the round before. reference: the fields of a `Reference`. inside: channels of the window.
    centre: mean shift of the round before.
    """
    begin = np.zeros(len(x)) if start is None else np.asarray(start) - centre
    found = find_shifts(x, begin, Reference(*reference), first=inside[0], last=inside[1], limit=float(MARGIN))
    good = np.isfinite(found)
    clean = np.where(good, found, 0.0)
    moved = shift_fourier(np.asarray(x)[good], clean[good], most=float(MARGIN))
    sums = {"spectrum": moved.sum(axis=0, dtype=np.float64), "n": int(good.sum()), "shift": float(clean.sum())}
    return {"shift": found}, sums


def _gain(cube: xr.DataArray, *, windows: bool = False) -> float:
    """Variance over mean of a channel, or of ``windows`` of channels; 1 where it cannot be estimated."""
    triples = sample_triples(cube)
    # A few triples are enough for the weights of a fit.
    some = triples[:: max(1, len(triples) // FEW_TRIPLES)]
    found = noise_of_triples(*spectra_of(cube, some)) if len(some) else None
    gain = 1.0 if found is None else found.window_gain if windows else found.gain
    return round_digits(gain) if np.isfinite(gain) and gain > 0 else 1.0
