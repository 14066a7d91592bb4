"""Composition of every pixel as lazy maps, from the components of a result or from the counts of a cube."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import map_pixels, open_blocks
from scalehsi.physics.cliff_lorimer import atomic_fractions, fraction_errors, mixture_composition, to_mass_fractions
from scalehsi.quantify.measure import Measured
from scalehsi.quantify.options import Options, Setup
from scalehsi.quantify.sources import Spectra, abundance_sums, of_cube, of_result
from scalehsi.quantify.spectra import ELEMENT, attributes, element_coords, labels, measure_all, prepare
from scalehsi.result import map_dims
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY

QUANTITY: Final = "quantity"
NAMES: Final = ("atomic_percent", "weight_percent", "intensity")
ERRORS: Final = ("atomic_percent_std", "weight_percent_std", "intensity_std")


def result_maps(result: xr.Dataset, options: Options, *, counts: Any = None) -> xr.Dataset:
    """Maps of composition from the abundances of a result.

    The lines of a pixel are the sum of those of its components, each with the absorption of its own composition.
    `counts` are total counts of each component, where its spectrum was normalised.
    """
    sums = abundance_sums(result)
    spectra = of_result(result, None, counts=counts, weights=sums)
    setup, extras = prepare(spectra, options)
    found = measure_all(spectra, setup)
    counted = np.stack([np.where(one.verdict.shown, np.maximum(one.fit.intensity, 0.0), 0.0) for one in found])
    strength = sums.values[:, None]
    counted = np.where(strength > 0, counted / np.where(strength > 0, strength, 1.0), 0.0)
    atoms = counted / np.stack([one.transmission for one in found]) * setup.factors
    # Scaled to one, so that float32 keeps its digits.
    atoms /= float(atoms.max())
    dims = map_dims(result)
    maps = result[ABUNDANCES].transpose(*dims, COMPONENT)
    maps = maps if maps.chunks is None else maps.chunk({COMPONENT: -1})
    made = xr.apply_ufunc(
        _compose,
        maps,
        kwargs={"atoms": atoms, "counts": counted, "masses": setup.masses, "absent": _absent(found)},
        input_core_dims=[[COMPONENT]],
        output_core_dims=[[QUANTITY, ELEMENT]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {QUANTITY: len(NAMES), ELEMENT: len(setup.peaks)}},
    )
    out = _dataset(made, NAMES, setup, spectra, dims)
    out.attrs |= attributes(setup, spectra, extras, found)
    out.attrs["errors"] = "Maps of a result have none: they are as sure as its abundances and spectra are."
    return out


def _absent(found: Sequence[Measured]) -> Any:
    """The positions of the elements that no spectrum shows: their maps are NaN."""
    return np.flatnonzero(~np.any([one.verdict.shown for one in found], axis=0))


def _compose(maps: Any, *, atoms: Any, counts: Any, masses: Any, absent: Any) -> Any:
    """Composition and net counts (..., 3, n) from abundances (..., K), NaN for the `absent` elements; other arguments
    as in `mixture_composition`."""
    made = mixture_composition(maps.reshape(-1, maps.shape[-1]), atoms, counts, masses)
    made[:, :2] *= 100
    made[..., absent] = np.nan
    return made.reshape(*maps.shape[:-1], *made.shape[1:])


def cube_maps(cube: xr.DataArray, options: Options) -> xr.Dataset:
    """Maps of composition of a cube, with the errors of each pixel.

    The sum of all pixels is fitted first (one reading). Its weights and its linear operator from a spectrum to net
    counts are then used for all pixels.
    """
    spectra = of_cube(cube, None)
    setup, extras = prepare(spectra, options)
    (found,) = measure_all(spectra, setup)
    falling = float(cube[ENERGY][0]) > float(cube[ENERGY][-1])
    operator = found.fit.operator[:, ::-1] if falling else found.fit.operator
    keep = [*NAMES, *(ERRORS if spectra.counted else ())]
    handles = map_pixels(
        _quantify_block,
        open_blocks(cube, resident=False),
        shared=_shared(operator, found, setup, errors=spectra.counted),
        keep=keep,
        name="quantify",
    )
    parts = [handles[name].to_dataarray({ELEMENT: len(setup.peaks)}) for name in keep]
    dims = tuple(str(d) for d in cube.dims if d != ENERGY)
    made = xr.concat(parts, dim=QUANTITY).transpose(*dims, QUANTITY, ELEMENT)
    out = _dataset(made, keep, setup, spectra, dims)
    out.attrs |= attributes(setup, spectra, extras, [found])
    return out


def _shared(operator: Float, found: Measured, setup: Setup, *, errors: bool) -> dict[str, Any]:
    """Arguments of `_quantify_block` from the operator (n, E) and the quantification of the sum."""
    first, second = np.triu_indices(len(operator))
    factors = np.where(found.verdict.shown, setup.factors, 0.0)
    return {
        "operator": np.ascontiguousarray(operator.T, dtype=np.float32),
        "products": (operator[first] * operator[second]).T.astype(np.float32) if errors else None,
        "factors": factors,
        "masses": setup.masses,
        "attenuation": setup.attenuation if setup.mass_path > 0 else None,
        "mass_path": setup.mass_path,
        "per_count": factors / found.transmission,
        "absent": _absent([found]),
    }


def _quantify_block(
    x: Any,
    *,
    operator: Any,
    products: Any,
    factors: Any,
    masses: Any,
    attenuation: Any,
    mass_path: float,
    per_count: Any,
    absent: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Block function: composition (P, n) of the pixels (P, E).

    `operator` (E, n) leads to net counts, `products` (E, n (n + 1) / 2) to their covariances, None for no errors;
    `per_count` (n,) are atoms for one count with the absorption of the sum; `absent` are the positions of the elements
    without a peak in the sum; the others are as in `atomic_fractions`.
    """
    counts = np.asarray(arrays.to_host(x), dtype=np.float32)
    intensity = counts @ operator
    atomic = atomic_fractions(intensity, factors, masses=masses, attenuation=attenuation, mass_path=mass_path)
    weight = to_mass_fractions(atomic, masses)
    made = {"atomic_percent": 100 * atomic, "weight_percent": 100 * weight, "intensity": intensity}
    if products is not None:
        made |= _errors(counts @ products, intensity, atomic, weight, per_count, masses)
    for values in made.values():
        values[:, absent] = np.nan
    return made, {}


def _errors(flat: Any, intensity: Any, atomic: Any, weight: Any, factors: Any, masses: Any) -> dict[str, Any]:
    """Standard errors of pixels.

    `flat` (P, n (n + 1) / 2) is the upper triangle of the covariance of each pixel; `intensity`, `atomic` and `weight`
    (P, n) are net counts and fractions; `factors` (n,) are atoms for one count, `masses` (n,) atomic weights.
    """
    n = intensity.shape[1]
    first, second = np.triu_indices(n)
    covariance = np.empty((len(flat), n, n), dtype=np.float32)
    covariance[:, first, second] = flat
    covariance[:, second, first] = flat
    positive = np.maximum(intensity, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        atoms = factors / (positive @ factors)[:, None]
        grams = factors * masses / (positive @ (factors * masses))[:, None]
        return {
            "atomic_percent_std": 100 * fraction_errors(atomic, atoms, covariance),
            "weight_percent_std": 100 * fraction_errors(weight, grams, covariance),
            "intensity_std": np.sqrt(np.maximum(covariance[:, np.arange(n), np.arange(n)], 0)),
        }


def _dataset(made: xr.DataArray, names: Any, setup: Setup, spectra: Spectra, dims: tuple[str, ...]) -> xr.Dataset:
    """The Dataset of maps from `made` (..., quantity, element): its variables by `names`, and the dims of a map."""
    out = xr.Dataset(coords=element_coords(setup))
    made = made.drop_vars(COMPONENT, errors="ignore")
    for number, name in enumerate(names):
        values = made.isel({QUANTITY: number}, drop=True).transpose(ELEMENT, *dims)
        out[name] = values.assign_attrs(labels(name, counted=spectra.counted))
    return out
