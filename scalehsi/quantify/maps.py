"""Composition of every pixel: lazy maps, from a result's components or from a cube's counts."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.blocks import map_pixels, open_blocks
from scalehsi.physics.cliff_lorimer import atomic_shares, mass_shares, mixed_shares, share_errors
from scalehsi.quantify.options import Options, Setup
from scalehsi.quantify.sources import Spectra, abundance_sums, of_cube, of_result
from scalehsi.quantify.spectra import ELEMENT, Measured, attributes, element_coords, measure, prepare
from scalehsi.result import map_dims
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY

QUANTITY: Final = "quantity"
NAMES: Final = ("atomic_percent", "weight_percent", "intensity")
ERRORS: Final = ("atomic_percent_std", "weight_percent_std", "intensity_std")
WORDS: Final = {
    "atomic_percent": ("atomic per cent", "at%"),
    "weight_percent": ("mass per cent", "wt%"),
    "intensity": ("net counts", "counts"),
}


def result_maps(result: xr.Dataset, options: Options, *, counts: Any = None) -> xr.Dataset:
    """Maps of composition from the abundances of a result.

    The lines of a pixel are the sum of those of its components, each with the absorption of its own composition.
    """
    sums = abundance_sums(result)
    spectra = of_result(result, None, counts=counts, weights=sums)
    setup = prepare(spectra, options)
    rows, leaving = [], []
    for x, strength in zip(spectra.values, sums.values, strict=True):
        found = measure(x, setup)
        rows.append(np.maximum(found.fit.intensity, 0.0) / strength if strength > 0 else found.fit.intensity * 0.0)
        leaving.append(found.leaving)
    counted = np.stack(rows)
    # In units in which float32 keeps its digits.
    atoms = counted / np.stack(leaving) * setup.factors
    atoms /= float(atoms.max())
    dims = map_dims(result)
    maps = result[ABUNDANCES].transpose(*dims, COMPONENT)
    maps = maps if maps.chunks is None else maps.chunk({COMPONENT: -1})
    made = xr.apply_ufunc(
        _compose,
        maps,
        kwargs={"atoms": atoms, "counts": counted, "masses": setup.masses},
        input_core_dims=[[COMPONENT]],
        output_core_dims=[[QUANTITY, ELEMENT]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {QUANTITY: len(NAMES), ELEMENT: len(setup.peaks)}},
    )
    out = _dataset(made, NAMES, setup, spectra, dims)
    out.attrs["errors"] = "Maps of a result have none: they are as sure as its abundances and spectra are."
    return out


def _compose(maps: Any, *, atoms: Any, counts: Any, masses: Any) -> Any:
    """Abundances (..., K) to composition and net counts (..., 3, n)."""
    made = mixed_shares(maps.reshape(-1, maps.shape[-1]), atoms, counts, masses)
    made[:, :2] *= 100
    return made.reshape(*maps.shape[:-1], *made.shape[1:])


def cube_maps(cube: xr.DataArray, options: Options) -> xr.Dataset:
    """Maps of composition of a cube, pixel by pixel, with the errors of each.

    The sum of all pixels is fitted first (one reading). That gives the weights and the linear way from a spectrum to
    its net counts, which then does all pixels.
    """
    spectra = of_cube(cube, None)
    setup = prepare(spectra, options)
    found = measure(spectra.values[0], setup)
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
    return _dataset(made, keep, setup, spectra, dims)


def _shared(operator: Float, found: Measured, setup: Setup, *, errors: bool) -> dict[str, Any]:
    first, second = np.triu_indices(len(operator))
    return {
        "operator": np.ascontiguousarray(operator.T, dtype=np.float32),
        "products": (operator[first] * operator[second]).T.astype(np.float32) if errors else None,
        "factors": setup.factors,
        "masses": setup.masses,
        "attenuation": setup.attenuation if setup.mass_path > 0 else None,
        "mass_path": setup.mass_path,
        "leaving": found.leaving,
    }


def _quantify_block(
    x: Any, *, operator: Any, products: Any, factors: Any, masses: Any, attenuation: Any, mass_path: float, leaving: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Composition of the pixels of a block; rows (P, n)."""
    counts = np.asarray(arrays.to_host(x), dtype=np.float32)
    intensity = counts @ operator
    shares = atomic_shares(intensity, factors, masses=masses, attenuation=attenuation, mass_path=mass_path)
    weights = mass_shares(shares, masses)
    made = {"atomic_percent": 100 * shares, "weight_percent": 100 * weights, "intensity": intensity}
    if products is not None:
        made |= _errors(counts @ products, intensity, shares, weights, factors / leaving, masses)
    return made, {}


def _errors(flat: Any, intensity: Any, shares: Any, weights: Any, factors: Any, masses: Any) -> dict[str, Any]:
    """Standard errors, from the upper triangle of each pixel's covariance (P, n (n + 1) / 2)."""
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
            "atomic_percent_std": 100 * share_errors(shares, atoms, covariance),
            "weight_percent_std": 100 * share_errors(weights, grams, covariance),
            "intensity_std": np.sqrt(np.maximum(covariance[:, np.arange(n), np.arange(n)], 0)),
        }


def _dataset(made: xr.DataArray, names: Any, setup: Setup, spectra: Spectra, dims: tuple[str, ...]) -> xr.Dataset:
    out = xr.Dataset(coords=element_coords(setup))
    made = made.drop_vars(COMPONENT, errors="ignore")
    for number, name in enumerate(names):
        base = name.removesuffix("_std")
        text, units = WORDS[base]
        units = units if units != "counts" or spectra.counted else "intensity"
        values = made.isel({QUANTITY: number}, drop=True).transpose(ELEMENT, *dims)
        out[name] = values.assign_attrs(
            {"long_name": f"standard error of {text}" if name.endswith("_std") else text, "units": units}
        )
    out.attrs = attributes(setup, spectra.attrs, counted=spectra.counted)
    return out
