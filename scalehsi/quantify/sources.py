"""Sources of a quantification (spectra, results, cubes) in one form: spectra in counts on a rising axis in keV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.cube import check_cube, energy_kev, history_of
from scalehsi.physics.peaks import noise
from scalehsi.result import check_result, map_dims, names_of_components
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError

REGION: Final = "region"
UNSMOOTHED: Final = "unsmoothed_endmembers"
"""Endmembers of a result before smoothing: smoothed ones would seem to have smaller errors."""

MAX_NEGATIVE: Final = 1e-3
"""Spectra with negative values beyond this fraction of their largest value are not spectra of counts."""

COPIED_ATTRS: Final = ("signal", "title", "elements", "beam_energy_keV", "components", "source", "variance_index")
"""Attributes of the source that its composition has too."""

ASSUMED_COUNTS: Final = 1e6
"""Spectra whose noise is not that of counts are judged as if they held at most this many."""

NO_COUNTS: Final = "The counts behind these spectra are not known, so no errors can be given; name them with counts=."


class Spectra(NamedTuple):
    """Spectra to quantify. S spectra, E channels.

    Attributes
    ----------
    values : array (S, E)
        Counts where they are known.
    energies : array (E,), keV
        Rising.
    template : xarray.DataArray
        One number for each spectrum, shape (S,) or (); the composition takes its dims and coordinates.
    counted : bool
        Whether the values are counts, which determine their errors.
    axis : xarray.DataArray
        The energy coordinate of the source, for spectra in the output.
    attrs : dict
        Signal, title, elements, beam energy and history of the source.
    """

    values: Float
    energies: Float
    template: xr.DataArray
    counted: bool
    axis: xr.DataArray
    attrs: dict[str, Any]

    @property
    def variance_index(self) -> float:
        """Variance of counts relative to their expected value: 1, or more where a fit found more."""
        index = float(self.attrs.get("variance_index", 1.0))
        return max(index, 1.0) if np.isfinite(index) else 1.0

    @property
    def noise_units(self) -> Float:
        """Variance of the noise of each spectrum relative to its expected values (S,), to judge peaks with.

        It is the variance index for sums of counts. Other spectra, such as endmembers, are mean values of an unknown
        number of pixels: their noise is estimated from second differences, and is at most that of counts.
        """
        totals = np.maximum(self.values.sum(axis=1), 1e-300)
        if self.counted and (self.values == np.rint(self.values)).all():
            return np.full(len(self.values), self.variance_index)
        estimated = np.array([(noise(self.energies, row) ** 2).sum() for row in self.values]) / totals
        units: Float = np.maximum(estimated, totals / ASSUMED_COUNTS)
        return np.minimum(units, self.variance_index) if self.counted else units

    def on_source_axis(self, rows: Float) -> xr.DataArray:
        """Rows (S, E) on the axis of the source."""
        dims = (*self.template.dims, ENERGY)
        falling = float(self.axis[0]) > float(self.axis[-1])
        values = (rows[:, ::-1] if falling else rows).reshape(*self.template.shape, -1)
        return xr.DataArray(values, dims=dims, coords={**self.template.coords, ENERGY: self.axis})


def spectrum_names(template: xr.DataArray, attrs: Mapping[str, Any]) -> list[str]:
    """Names of the spectra of a source or of a quantification: those of the components where `attrs` hold them.

    `template` has one number for each spectrum; a single spectrum is the sum of all pixels.
    """
    if not template.dims:
        return ["Sum of all pixels"]
    dim = str(template.dims[0])
    labels = [str(v) for v in (template[dim].values if dim in template.coords else range(1, template.size + 1))]
    given = names_of_components(attrs)
    if dim == COMPONENT and len(given) == len(labels):
        return list(given)
    return [f"{dim.capitalize()} {label}" if label.isdigit() else label for label in labels]


def of_spectra(data: xr.DataArray, *, counts: Any = None) -> Spectra:
    """Read one spectrum, or several along one further dim.

    Parameters
    ----------
    data : xarray.DataArray
    counts : float or sequence of float, optional
        Total counts of each spectrum, to which it is scaled.

    Raises
    ------
    InputError
        When there are other dims, no energies, negative values, NaN, or an EELS signal.
    """
    if ENERGY not in data.dims or data.ndim > 2:
        raise InputError(f"spectra have the dims (energy,) or (something, energy), got {data.dims}")
    others = [d for d in data.dims if d != ENERGY]
    rows = np.asarray(data.transpose(*others, ENERGY).values, dtype=np.float64)
    attrs = dict(data.attrs)
    template = data.isel({ENERGY: 0}, drop=True)
    rows = rows.reshape(-1, rows.shape[-1])
    return _spectra(rows, data, template, counted=_holds_counts(data), counts=counts, attrs=attrs)


def of_result(
    result: xr.Dataset,
    regions: Mapping[str, xr.DataArray] | None,
    *,
    counts: Any = None,
    weights: xr.DataArray | None = None,
) -> Spectra:
    """Read the spectra of a result's components, scaled to the counts of the whole map, or those of regions.

    Parameters
    ----------
    result : xarray.Dataset
    regions : mapping of str to mask, or None
    counts : float or sequence of float, optional
        Total counts of each spectrum, to which it is scaled.
    weights : xarray.DataArray, optional
        Sums of the maps of `abundance_sums`; without them the maps are read once.
    """
    if weights is None:
        weights = abundance_sums(result, regions)
    spectra = raw_endmembers(result)
    units = str(result[ENDMEMBERS].attrs.get("units", ""))
    attrs = dict(result.attrs)
    if "components" in attrs and len(names_of_components(attrs)) != weights.sizes.get(COMPONENT, -1):
        attrs.pop("components")
    if regions is None:
        rows = spectra.values * weights.values[:, None]
        template = xr.zeros_like(result[COMPONENT], dtype=float) if COMPONENT in result.coords else weights * 0.0
    else:
        rows = weights.transpose(REGION, COMPONENT).values @ spectra.values
        template = _one_for_each(regions)
    return _spectra(rows, spectra, template.drop_attrs(), counted=units == "counts", counts=counts, attrs=attrs)


def abundance_sums(result: xr.Dataset, regions: Mapping[str, xr.DataArray] | None = None) -> xr.DataArray:
    """Sums of the abundances over the whole map (component) or over regions (region, component)."""
    check_result(result)
    refuse_eels(result.attrs)
    spectra = raw_endmembers(result)
    lowest, highest = float(spectra.min()), float(spectra.max())
    if lowest < -MAX_NEGATIVE * max(highest, 0.0):
        raise InputError(
            f"the components of {result.attrs['model']} have negative values: they are directions, no spectra of "
            "phases, and have no composition; fit hsi.NMF or hsi.PSNMF"
        )
    maps = result[ABUNDANCES].fillna(0).astype(np.float64)
    dims = list(map_dims(result))
    if regions is None:
        return maps.sum(dims).compute()
    pixels = result[ABUNDANCES].isel({COMPONENT: 0})
    sums = [maps.where(_with_dims_of(mask, pixels), 0.0).sum(dims) for mask in regions.values()]
    return xr.concat(sums, dim=REGION).compute()


def raw_endmembers(result: xr.Dataset) -> xr.DataArray:
    """The endmembers (component, energy) of a result before smoothing."""
    spectra = result[UNSMOOTHED if UNSMOOTHED in result else ENDMEMBERS]
    return spectra.transpose(COMPONENT, ENERGY).astype(np.float64)


def of_cube(cube: xr.DataArray, regions: Mapping[str, xr.DataArray] | None, *, counts: Any = None) -> Spectra:
    """Read the sum of all used pixels of a cube, or the sums of its regions. Cost: one reading of the data.

    Parameters
    ----------
    cube : xarray.DataArray
    regions : mapping of str to mask, or None
    counts : float or sequence of float, optional
        Total counts of each sum, to which it is scaled.
    """
    check_cube(cube)
    refuse_eels(cube.attrs)
    pixel = cube.isel({ENERGY: 0}, drop=True)
    masks = [] if regions is None else [_with_dims_of(mask, pixel) for mask in regions.values()]
    _, sums = map_fold(_sum_block, open_blocks(cube, resident=False), *masks, name="quantify-sum")
    if not sums:
        raise InputError("the mask of the cube leaves no pixel; nothing can be quantified")
    rows = np.asarray(sums["spectra"], dtype=np.float64)
    template = xr.DataArray(0.0) if regions is None else _one_for_each(regions)
    return _spectra(rows, cube, template, counted=_holds_counts(cube), counts=counts, attrs=dict(cube.attrs))


def _one_for_each(regions: Mapping[str, Any]) -> xr.DataArray:
    """A zero for each region, with their names as coordinate."""
    return xr.DataArray(np.zeros(len(regions)), dims=REGION, coords={REGION: list(regions)})


def _holds_counts(data: xr.DataArray) -> bool:
    return data.dtype.kind in "ui" or str(data.attrs.get("units", "")) == "counts"


def _sum_block(x: Any, *masks: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Block function: the sum of the pixels (P, E) of a block, or one sum for each mask (P,)."""
    if not masks:
        return {}, {"spectra": x.sum(axis=0, dtype=np.float64)[None]}
    return {}, {"spectra": np.stack([x[np.asarray(mask) > 0].sum(axis=0, dtype=np.float64) for mask in masks])}


def check_regions(regions: Any) -> dict[str, xr.DataArray]:
    """Return regions by name, from one mask, a mapping of masks, or a mask with the dim ``region``.

    Raises
    ------
    InputError
        When a mask is not a boolean DataArray, or none is given.
    """
    if isinstance(regions, xr.DataArray):
        if REGION in regions.dims:
            names = regions[REGION].values if REGION in regions.coords else range(1, regions.sizes[REGION] + 1)
            found = {str(name): regions.isel({REGION: i}, drop=True) for i, name in enumerate(names)}
        else:
            found = {str(regions.name or REGION): regions}
    elif isinstance(regions, Mapping):
        found = {str(name): mask for name, mask in regions.items()}
    else:
        raise InputError(
            f"regions is a {type(regions).__name__}; give a boolean DataArray over (y, x), or several by name: "
            "{'grain': map > 0.5}"
        )
    if not found:
        raise InputError("regions is empty; name at least one, such as {'grain': map > 0.5}")
    for name, mask in found.items():
        if not isinstance(mask, xr.DataArray) or mask.dtype != bool:
            kind = f"holds {mask.dtype}" if isinstance(mask, xr.DataArray) else f"is a {type(mask).__name__}"
            raise InputError(f"region {name!r} {kind}; a boolean DataArray is expected, such as map > 0.5")
    return found


def _with_dims_of(mask: xr.DataArray, pixels: xr.DataArray) -> xr.DataArray:
    """A mask with the dims of the pixels, in their order and without coordinates: pixels correspond by position."""
    dims = [d for d in pixels.dims if d != COMPONENT]
    sizes = {d: pixels.sizes[d] for d in dims}
    if dict(mask.sizes) != sizes:
        raise InputError(f"a region has the sizes {dict(mask.sizes)}, the pixels have {sizes}; crop or bin both alike")
    return xr.DataArray(mask.transpose(*dims).data, dims=dims)


def refuse_eels(attrs: Mapping[str, Any]) -> None:
    """Refuse a source whose signal is EELS."""
    if str(attrs.get("signal", "")).upper() == "EELS":
        raise InputError("the signal is EELS, and only X-ray lines can be quantified; EDS is expected")


def _spectra(
    rows: Float, data: xr.DataArray, template: xr.DataArray, *, counted: bool, counts: Any, attrs: dict[str, Any]
) -> Spectra:
    """Check spectra, and put them on a rising axis.

    `rows` (S, E) are the spectra on the energy axis of `data`; `template`, `counted` and `attrs` are fields of
    `Spectra`; `counts` are total counts of each spectrum or None.
    """
    refuse_eels(attrs)
    energies = rising_kev(data)
    if float(data[ENERGY][0]) > float(data[ENERGY][-1]):
        rows = rows[:, ::-1]
    if not np.isfinite(rows).all():
        raise InputError("the spectra hold NaN or Inf; repair them with spectra.fillna(0), or leave those channels out")
    largest = rows.max(axis=1)
    if (rows.min(axis=1) < -MAX_NEGATIVE * np.maximum(largest, 0)).any():
        raise InputError("the spectra have negative values; counts before subtraction of a background are expected")
    if not (largest > 0).any():
        raise InputError("the spectra are all zero; there is nothing to quantify")
    rows = np.maximum(rows, 0.0)
    if counts is not None:
        wanted = np.broadcast_to(np.asarray(counts, dtype=np.float64), (len(rows),))
        if not (np.isfinite(wanted) & (wanted > 0)).all():
            raise InputError(f"counts={counts!r}; the total counts of each spectrum are expected, above 0")
        total = rows.sum(axis=1)
        rows = rows * np.where(total > 0, wanted / np.where(total > 0, total, 1.0), 0.0)[:, None]
        counted = True
    copied: dict[str, Any] = {k: attrs[k] for k in COPIED_ATTRS if k in attrs}
    copied["history"] = history_of(attrs)
    return Spectra(np.ascontiguousarray(rows), energies, template, counted, data[ENERGY], copied)


def rising_kev(data: xr.DataArray | xr.Dataset) -> Float:
    """Return the energy axis in keV, from low to high.

    Raises
    ------
    InputError
        When the axis has no unit of energy.
    """
    axis = energy_kev(data)
    if axis is None:
        units = data[ENERGY].attrs.get("units", "") if ENERGY in data.coords else ""
        raise InputError(
            f"the energy axis is in {units!r}, which is no unit of energy; "
            "type data.energy.attrs['units'] = 'keV' once it is calibrated"
        )
    return axis[::-1] if axis.size > 1 and axis[0] > axis[-1] else axis
