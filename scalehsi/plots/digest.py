"""Reduce a result of any size to arrays that fit in memory and on a figure, in one pass over its maps.

A result may be lazy. Maps are averaged in square blocks down to the resolution of a figure, and sums are taken over all
pixels. Both are computed together, so that each block of abundances is read or computed once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.plots.coordinates import (
    component_names,
    drawn_pixel_nm,
    energy_axis,
    iteration_axis,
    shown_positions,
    word_list,
)
from scalehsi.result import ResultWarning, advice_alone, check_result, result_warnings, settings_of
from scalehsi.schema import (
    ABUNDANCES,
    ADVICE,
    BACKGROUND,
    COMPONENT,
    ENDMEMBERS,
    ENERGY,
    ENERGY_UNITS,
    MEAN_SPECTRUM,
    OBJECTIVE,
    RESIDUAL,
    RESIDUAL_SPECTRUM,
    InputError,
    X,
    Y,
)

MAX_MAP_SIDE_PIXELS: Final = 800
"""Longest side of a drawn map, after the block mean."""

MAX_MAP_VALUES: Final = 10_000_000
"""Drawn pixels of all maps together (40 MB)."""

SIGNED_TOLERANCE: Final = 1e-3
"""A result is signed when its lowest value is below minus this fraction of its largest magnitude."""

POSITION: Final = "position"
UNSMOOTHED: Final = "unsmoothed_endmembers"


@dataclasses.dataclass(frozen=True, eq=False)
class Digest:
    """A result reduced to what figures and report need.

    Letters: K components, E channels, N positions along the leading dims (1 without leading dims).

    Attributes
    ----------
    names : tuple of str, length K
    energy : array (E,)
        In ``energy_unit``.
    endmembers : array (K, E)
    background : array (K, E) or None
        What the model has beside the endmembers: the backgrounds of edges.
    maps : array (K, N, ny, nx), float32
        Abundances, averaged in square blocks of ``block`` pixels; NaN where no pixel was used.
    totals : array (K,)
        Intensity of each component: the sum of its map over all pixels times the sum of its spectrum, its background
        included.
    shares : array (K,)
        Fraction of the total intensity, or of the variance where the result has it; NaN where undefined.
    signed : bool
        Whether the endmembers have negative values, as those of PCA and ICA do: directions, not spectra.
    positions : tuple of str, length N
        The shown positions along the leading dims, such as ``time = 5 s``; ``("",)`` without leading dims.
    pixel_nm : (float, float) or None
        Height and width of a drawn pixel in nm; None when the result has no lengths.
    warnings : tuple of ResultWarning or None
        What the fit warns of; None for results of versions that did not look for faults.
    loss : str
        The setting of that name of the model; empty when the model has none.
    residual : array (N, ny, nx) or None
        RMS residual of a pixel.
    unsmoothed : array (K, E) or None
        The spectra before the model smoothed them; their noise is counting noise.
    relative_residual : array (N, ny, nx) or None
        ``residual`` over the expected counting noise, the square root of the model's counts per channel; None where
        intensities are no counts.
    """

    model: str
    title: str
    signal: str
    source: str
    status: str
    advice: str
    warnings: tuple[ResultWarning, ...] | None
    names: tuple[str, ...]
    energy: NumpyArray
    energy_unit: str
    intensity_unit: str
    elements: tuple[str, ...]
    endmembers: NumpyArray
    background: NumpyArray | None
    unsmoothed: NumpyArray | None
    maps: NumpyArray
    totals: NumpyArray
    shares: NumpyArray
    signed: bool
    positions: tuple[str, ...]
    pixel_nm: tuple[float, float] | None
    block: int
    pixels_used: int
    pixels_total: int
    mean_spectrum: NumpyArray | None
    residual_spectrum: NumpyArray | None
    residual: NumpyArray | None
    relative_residual: NumpyArray | None
    iteration: NumpyArray | None
    objective: NumpyArray | None
    eigenvalues: NumpyArray | None
    explained: NumpyArray | None
    malinowski: NumpyArray | None
    loss: str

    @property
    def units_per_kev(self) -> float:
        """Energy units of the axis in a keV; 1 when it has no energy unit."""
        return 1e3 / ENERGY_UNITS.get(self.energy_unit, 1e3)

    @property
    def energy_kev(self) -> NumpyArray:
        """The energy axis in keV; unchanged when it has no energy unit."""
        return self.energy / self.units_per_kev

    @property
    def counts_per_pixel(self) -> float:
        """Mean intensity of a used pixel, summed over the channels; NaN when unknown."""
        return math.nan if self.mean_spectrum is None else float(np.nansum(self.mean_spectrum))


def check_shapes(result: Any) -> xr.Dataset:
    """Return the result if its spectra and maps have the expected dims.

    Raises
    ------
    InputError
        When it is not a result of scalehsi, or its spectra or maps have other dims or are empty.
    """
    checked: xr.Dataset = check_result(result)
    for name, last in ((ENDMEMBERS, (ENERGY,)), (ABUNDANCES, (Y, X))):
        dims = checked[name].dims
        if dims[0] != COMPONENT or dims[-len(last) :] != last:
            raise InputError(f"{name} has dims {dims}; expected (component, ..., {', '.join(last)})")
        if 0 in checked[name].shape:
            raise InputError(f"{name} is empty: its sizes are {dict(checked[name].sizes)}")
    return checked


def digest(result: xr.Dataset | Digest) -> Digest:
    """Reduce a result to its digest; a digest is returned unchanged.

    Parameters
    ----------
    result : xarray.Dataset or Digest
        As `scalehsi.fit` returns it; may be lazy. It is read once.

    Returns
    -------
    Digest
    """
    if isinstance(result, Digest):
        return result
    result = check_shapes(result)
    places, words = shown_positions(result)
    block = _block_side(result, len(places))
    small = {name: np.asarray(variable.values) for name, variable in _reduce(result, places, block).items()}
    endmembers, sums = small[ENDMEMBERS].astype(np.float64), small["sums"].astype(np.float64)
    finite = np.nan_to_num(endmembers, posinf=0.0, neginf=0.0)
    explained = small.get("explained_variance_ratio")
    # Maps alone say nothing: those of positive spectra go below zero by noise in least squares and Gaussian processes.
    signed = _is_signed(finite.min(), finite.max()) or (
        explained is not None and _is_signed(small["lowest"], small["highest"])
    )
    background = small.get(BACKGROUND)
    totals = sums * _strength(endmembers, background) / _points_per_pixel(result)
    attrs = result.attrs
    status = str(attrs.get("status", ""))
    signal = str(attrs.get("signal", ""))
    residual = small.get(RESIDUAL)
    relative = None
    unit = str(result[ENDMEMBERS].attrs.get("units", "")) or ("counts" if signal == "EDS" else "intensity")
    if residual is not None and unit == "counts" and not signed:
        whole = endmembers if background is None else endmembers + background
        relative = _relative(residual, small["maps"], whole)
    return Digest(
        model=str(attrs.get("model", "model unknown")),
        title=str(attrs.get("title", "") or ""),
        signal=signal,
        source=str(attrs.get("source", "") or ""),
        status=status,
        advice=advice_alone(result) or ADVICE.get(status, ""),
        warnings=tuple(result_warnings(result)) if "warnings" in attrs else None,
        names=component_names(result),
        energy=energy_axis(result),
        energy_unit=str(result[ENERGY].attrs.get("units", "")) if ENERGY in result.coords else "channel",
        intensity_unit=unit,
        elements=word_list(attrs.get("elements")),
        endmembers=endmembers,
        background=background,
        unsmoothed=small.get(UNSMOOTHED),
        maps=small["maps"],
        totals=totals,
        shares=_shares(totals, explained, signed=signed),
        signed=signed,
        positions=words,
        pixel_nm=drawn_pixel_nm(result, block),
        block=block,
        pixels_used=int(small["used"]),
        pixels_total=math.prod(result[ABUNDANCES].shape[1:]),
        mean_spectrum=small.get(MEAN_SPECTRUM),
        residual_spectrum=small.get(RESIDUAL_SPECTRUM),
        residual=residual,
        relative_residual=relative,
        iteration=iteration_axis(result),
        objective=small[OBJECTIVE] if OBJECTIVE in small and small[OBJECTIVE].size else None,
        eigenvalues=small.get("eigenvalues"),
        explained=explained,
        malinowski=small.get("malinowski_ind"),
        loss=str(result.attrs.get("loss") or settings_of(result).get("loss", "")),
    )


def intensity_maps(view: Digest) -> NumpyArray:
    """The maps in intensity per pixel, abundance times the sum of the spectrum, (K, N, ny, nx).

    The scale of an abundance is arbitrary, because a spectrum can be doubled and its map halved; this product is not.
    """
    maps: NumpyArray = view.maps * map_scale(view).astype(np.float32)[:, None, None, None]
    return maps


def map_scale(view: Digest) -> NumpyArray:
    """What turns an abundance into what maps show, (K,): the sum of the spectrum, or 1 for scores."""
    scale: NumpyArray = np.ones(len(view.names)) if view.signed else np.nansum(view.endmembers, axis=1)
    return scale


def intensity_spectra(view: Digest, *, smoothed: bool = True) -> NumpyArray:
    """The spectra in intensity per channel of the whole map, endmember times the sum of its abundances, (K, E).

    With ``smoothed=False`` the spectra before smoothing are used, where the result has them.
    """
    strength = _strength(view.endmembers, view.background)
    safe = np.where(strength > 0, strength, 1.0)
    rows = view.endmembers if smoothed or view.unsmoothed is None else view.unsmoothed
    spectra: NumpyArray = rows * (np.where(strength > 0, view.totals, 0.0) / safe)[:, None]
    return spectra


def _strength(endmembers: NumpyArray, background: NumpyArray | None) -> NumpyArray:
    """Sum over the channels of each spectrum with its background, (K,)."""
    own: NumpyArray = np.nansum(endmembers, axis=1)
    return own if background is None else own + np.nansum(background, axis=1)


def _reduce(result: xr.Dataset, places: list[dict[str, int]], block: int) -> Mapping[Any, xr.DataArray]:
    """Compute all reductions of the result together.

    `places` are the indices along the leading dims at which maps are shown; `block` is the side of the averaged blocks.
    """
    abundances = result[ABUNDANCES].reset_coords(drop=True)
    abundances = abundances.where(abs(abundances) < np.inf)  # infinite values of a foreign store
    pixel_dims = [dim for dim in abundances.dims if dim != COMPONENT]
    lazy: dict[str, xr.DataArray] = {
        "maps": block_mean(maps_at(abundances, places), block),
        "sums": abundances.sum(pixel_dims),
        "used": abundances.isel(component=0).notnull().sum(),
        "lowest": abundances.min(),
        "highest": abundances.max(),
    }
    if RESIDUAL in result:
        squares = maps_at(result[RESIDUAL].reset_coords(drop=True), places).astype(np.float64) ** 2
        lazy[RESIDUAL] = block_mean(squares, block) ** 0.5
    whole = (
        *(ENDMEMBERS, BACKGROUND, UNSMOOTHED, MEAN_SPECTRUM, RESIDUAL_SPECTRUM, OBJECTIVE),
        *("eigenvalues", "explained_variance_ratio", "malinowski_ind"),
    )
    lazy |= {name: result[name] for name in whole if name in result}
    # Variables without coordinates: nothing is aligned, and names cannot clash.
    together = xr.Dataset({name: array.variable for name, array in lazy.items()})
    return together.compute().data_vars


def _block_side(result: xr.Dataset, places: int) -> int:
    """Side in pixels of the square blocks that are averaged into one drawn pixel."""
    ny, nx = result.sizes[Y], result.sizes[X]
    block = math.ceil(max(ny, nx) / MAX_MAP_SIDE_PIXELS)
    while result.sizes[COMPONENT] * places * math.ceil(ny / block) * math.ceil(nx / block) > MAX_MAP_VALUES:
        block += 1
    return block


def maps_at(maps: xr.DataArray, places: list[dict[str, int]]) -> xr.DataArray:
    """The maps at positions along the leading dims, stacked along a new dim `position` before y and x."""
    stacked = xr.concat([maps.drop_vars(list(maps.coords)).isel(place) for place in places], dim=POSITION)
    return stacked.transpose(..., POSITION, Y, X)


def block_mean(maps: xr.DataArray, block: int) -> xr.DataArray:
    """Mean of square blocks of pixels, ignoring NaN; incomplete blocks at the edges are kept."""
    maps = maps.astype(np.float32)
    return maps if block == 1 else maps.coarsen({Y: block, X: block}, boundary="pad").mean()


def _points_per_pixel(result: xr.Dataset) -> float:
    """Points of the maps in a measured pixel: more than one where a Gaussian process has upsampled them."""
    finer = settings_of(result).get("upsample") or 1
    return float(np.prod(np.broadcast_to(np.asarray(finer, dtype=np.float64), 2)))


def _shares(totals: NumpyArray, explained: NumpyArray | None, *, signed: bool) -> NumpyArray:
    """Fraction of each component: of the variance if ``explained`` is given, else of the intensity if not signed."""
    if explained is not None and explained.size >= totals.size:
        return np.asarray(explained[: totals.size], dtype=np.float64)
    whole = float(np.nansum(totals))
    if signed or not whole > 0:
        return np.full(totals.size, np.nan)
    return totals / whole


def _relative(residual: NumpyArray, maps: NumpyArray, endmembers: NumpyArray) -> NumpyArray:
    """RMS residual (N, ny, nx) over the square root of the model's mean counts per channel; 1 is Poisson noise.

    `maps` (K, N, ny, nx) and `endmembers` (K, E) are the model.
    """
    strength = np.nansum(endmembers, axis=1)
    counts = np.einsum("knyx,k->nyx", maps.astype(np.float64), strength) / endmembers.shape[1]
    ratio: NumpyArray = np.full(residual.shape, np.nan)
    np.divide(residual, np.sqrt(np.maximum(counts, 0.0)), out=ratio, where=counts > 0)
    return ratio


def _is_signed(lowest: Any, highest: Any) -> bool:
    """Whether the lowest value is negative beyond rounding, compared with the largest magnitude."""
    return bool(lowest < -SIGNED_TOLERANCE * max(abs(highest), abs(lowest))) if math.isfinite(lowest) else False
