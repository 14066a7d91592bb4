"""The digest of a result: everything that figures and page need, in memory, from one pass over the maps.

A result may be lazy and of any size. Maps are averaged in square blocks down to what a picture can show, sums are taken
over all pixels, and all of it is computed in one go, so each block of abundances is read or computed once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.plots.coordinates import energy_of, iterations_of, names_of, pixel_nm_of, places_of, words_of
from scalehsi.result import check_result, settings_of
from scalehsi.schema import (
    ABUNDANCES,
    ADVICE,
    COMPONENT,
    ENDMEMBERS,
    ENERGY,
    MEAN_SPECTRUM,
    OBJECTIVE,
    RESIDUAL,
    RESIDUAL_SPECTRUM,
    InputError,
    X,
    Y,
)

MAX_PIXELS: Final = 800
"""Longest side of a map, in pixels, after the block mean."""

MAX_VALUES: Final = 10_000_000
"""All drawn pixels of all maps together (40 MB)."""

SIGNED_TOLERANCE: Final = 1e-3
"""A result counts as signed when its lowest value is below minus this part of its largest."""

POSITION: Final = "position"
UNSMOOTHED: Final = "unsmoothed_endmembers"


@dataclasses.dataclass(frozen=True, eq=False)
class Digest:
    """A result made small enough to draw.

    Letters: K components, E channels, N positions along the leading dims (1 when there are none).

    Attributes
    ----------
    names : tuple of str, length K
    energy : array (E,)
        In ``energy_unit``.
    endmembers : array (K, E)
    maps : array (K, N, ny, nx), float32
        Abundances as stored, averaged in blocks of ``block`` pixels; NaN where no pixel was used.
    totals : array (K,)
        Sum of the map times sum of the spectrum, over all pixels: the intensity that a component explains.
    shares : array (K,)
        Part of the total intensity (of the variance, for PCA); NaN where it has no meaning.
    signed : bool
        Whether endmembers or maps have negative values, as PCA and ICA do.
    positions : tuple of str, length N
        Where the maps lie along the leading dims, in words; ``("",)`` when there are none.
    pixel_nm : tuple of float, or None
        Step (y, x) of a drawn pixel in nm; None when the result has no lengths.
    poisson : bool
        Whether the fit maximised the Poisson likelihood.
    residual : array (N, ny, nx) or None
        RMS residual of a pixel.
    unsmoothed : array (K, E) or None
        The spectra before the model smoothed them, whose noise is that of counts.
    relative_residual : array (N, ny, nx) or None
        ``residual`` over what counting noise alone would leave: the square root of model counts per channel.
    """

    model: str
    title: str
    signal: str
    source: str
    status: str
    advice: str
    names: tuple[str, ...]
    energy: NumpyArray
    energy_unit: str
    intensity_unit: str
    elements: tuple[str, ...]
    endmembers: NumpyArray
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
    poisson: bool

    @property
    def energy_kev(self) -> NumpyArray:
        """The energy axis in keV (as it is, when it has no energy unit)."""
        return self.energy * {"eV": 1e-3, "meV": 1e-6, "MeV": 1e3}.get(self.energy_unit, 1.0)

    @property
    def counts_per_pixel(self) -> float:
        """Mean intensity of a used pixel, summed over the channels; NaN when unknown."""
        return math.nan if self.mean_spectrum is None else float(np.nansum(self.mean_spectrum))


def check_shapes(result: Any) -> xr.Dataset:
    """Give the result back when it has what a report needs.

    Raises
    ------
    InputError
        When it is no result of scalehsi, or its spectra or maps have other dims.
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
    """Reduce a result to what can be drawn; a digest is given back as it is.

    Parameters
    ----------
    result : xarray.Dataset
        As `scalehsi.fit` returns it; may be lazy. It is read once.

    Returns
    -------
    Digest
    """
    if isinstance(result, Digest):
        return result
    result = check_shapes(result)
    places, words = places_of(result)
    block = _block(result, len(places))
    small = {name: np.asarray(variable.values) for name, variable in _reduce(result, places, block).items()}
    endmembers, sums = small[ENDMEMBERS].astype(np.float64), small["sums"].astype(np.float64)
    lowest, highest = float(small["lowest"]), float(small["highest"])
    signed = _is_signed(lowest, highest) or _is_signed(_least(endmembers), _most(endmembers))
    strength = np.nansum(endmembers, axis=1)
    totals = sums * strength
    attrs = result.attrs
    status = str(attrs.get("status", ""))
    signal = str(attrs.get("signal", ""))
    residual = small.get(RESIDUAL)
    return Digest(
        model=str(attrs.get("model", "model unknown")),
        title=str(attrs.get("title", "") or ""),
        signal=signal,
        source=str(attrs.get("source", "") or ""),
        status=status,
        advice=str(attrs.get("advice", "") or ADVICE.get(status, "")),
        names=names_of(result),
        energy=energy_of(result),
        energy_unit=str(result[ENERGY].attrs.get("units", "")) if ENERGY in result.coords else "channel",
        intensity_unit=str(result[ENDMEMBERS].attrs.get("units", "")) or ("counts" if signal == "EDS" else "intensity"),
        elements=words_of(attrs.get("elements")),
        endmembers=endmembers,
        unsmoothed=small.get(UNSMOOTHED),
        maps=small["maps"],
        totals=totals,
        shares=_shares(totals, small.get("explained_variance_ratio"), signed=signed),
        signed=signed,
        positions=words,
        pixel_nm=pixel_nm_of(result, block),
        block=block,
        pixels_used=int(small["used"]),
        pixels_total=math.prod(result[ABUNDANCES].shape[1:]),
        mean_spectrum=small.get(MEAN_SPECTRUM),
        residual_spectrum=small.get(RESIDUAL_SPECTRUM),
        residual=residual,
        relative_residual=None if signed or residual is None else _relative(residual, small["maps"], endmembers),
        iteration=iterations_of(result),
        objective=small[OBJECTIVE] if OBJECTIVE in small and small[OBJECTIVE].size else None,
        eigenvalues=small.get("eigenvalues"),
        explained=small.get("explained_variance_ratio"),
        malinowski=small.get("malinowski_ind"),
        poisson=settings_of(result).get("loss") == "poisson",
    )


def intensity_maps(view: Digest) -> NumpyArray:
    """The maps in intensity per pixel: abundance times the sum of the spectrum, (K, N, ny, nx).

    The scale of an abundance is arbitrary (a spectrum may be doubled and its map halved); this product is not.
    """
    scale = np.nansum(view.endmembers, axis=1).astype(np.float32)
    maps: NumpyArray = view.maps * scale[:, None, None, None]
    return maps


def intensity_spectra(view: Digest, *, smoothed: bool = True) -> NumpyArray:
    """The spectra in intensity per channel over the whole map: endmember times the sum of its abundances, (K, E)."""
    strength = np.nansum(view.endmembers, axis=1)
    safe = np.where(strength > 0, strength, 1.0)
    rows = view.endmembers if smoothed or view.unsmoothed is None else view.unsmoothed
    spectra: NumpyArray = rows * (np.where(strength > 0, view.totals, 0.0) / safe)[:, None]
    return spectra


def _reduce(result: xr.Dataset, places: list[dict[str, int]], block: int) -> Mapping[Any, xr.DataArray]:
    """Every reduction of the result in one computation."""
    abundances = result[ABUNDANCES].reset_coords(drop=True)
    pixel_dims = [dim for dim in abundances.dims if dim != COMPONENT]
    lazy: dict[str, xr.DataArray] = {
        "maps": block_mean(take(abundances, places), block),
        "sums": abundances.sum(pixel_dims),
        "used": abundances.isel(component=0).notnull().sum(),
        "lowest": abundances.min(),
        "highest": abundances.max(),
    }
    if RESIDUAL in result:
        squares = take(result[RESIDUAL].reset_coords(drop=True), places).astype(np.float64) ** 2
        lazy[RESIDUAL] = block_mean(squares, block) ** 0.5
    whole = (
        *(ENDMEMBERS, UNSMOOTHED, MEAN_SPECTRUM, RESIDUAL_SPECTRUM, OBJECTIVE),
        *("eigenvalues", "explained_variance_ratio", "malinowski_ind"),
    )
    lazy |= {name: result[name] for name in whole if name in result}
    # Coordinates are read apart; without them nothing can clash or be aligned.
    together = xr.Dataset({name: array.variable for name, array in lazy.items()})
    return together.compute().data_vars


def _block(result: xr.Dataset, places: int) -> int:
    """Side of the square blocks that are averaged into one drawn pixel."""
    ny, nx = result.sizes[Y], result.sizes[X]
    block = math.ceil(max(ny, nx) / MAX_PIXELS)
    while result.sizes[COMPONENT] * places * math.ceil(ny / block) * math.ceil(nx / block) > MAX_VALUES:
        block += 1
    return block


def take(maps: xr.DataArray, places: list[dict[str, int]]) -> xr.DataArray:
    """The maps at the chosen places, along a dim `position` just before y and x."""
    stacked = xr.concat([maps.drop_vars(list(maps.coords)).isel(place) for place in places], dim=POSITION)
    return stacked.transpose(..., POSITION, Y, X)


def block_mean(maps: xr.DataArray, block: int) -> xr.DataArray:
    """Mean of square blocks, over the pixels that are not NaN; ragged edges are kept."""
    maps = maps.astype(np.float32)
    return maps if block == 1 else maps.coarsen({Y: block, X: block}, boundary="pad").mean()


def _shares(totals: NumpyArray, explained: NumpyArray | None, *, signed: bool) -> NumpyArray:
    if explained is not None and explained.size >= totals.size:
        return np.asarray(explained[: totals.size], dtype=np.float64)
    whole = float(np.nansum(totals))
    if signed or not whole > 0:
        return np.full(totals.size, np.nan)
    return totals / whole


def _relative(residual: NumpyArray, maps: NumpyArray, endmembers: NumpyArray) -> NumpyArray:
    """RMS residual over the square root of the model's mean counts per channel; 1 is what Poisson counts leave."""
    strength = np.nansum(endmembers, axis=1)
    counts = np.einsum("knyx,k->nyx", maps.astype(np.float64), strength) / endmembers.shape[1]
    ratio: NumpyArray = np.full(residual.shape, np.nan)
    np.divide(residual, np.sqrt(np.maximum(counts, 0.0)), out=ratio, where=counts > 0)
    return ratio


def _is_signed(lowest: float, highest: float) -> bool:
    return lowest < -SIGNED_TOLERANCE * max(abs(highest), abs(lowest)) if math.isfinite(lowest) else False


def _least(values: NumpyArray) -> float:
    return float(np.min(values, initial=0.0, where=np.isfinite(values)))


def _most(values: NumpyArray) -> float:
    return float(np.max(values, initial=0.0, where=np.isfinite(values)))
