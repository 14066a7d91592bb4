"""Spectra that were given for a projection: read, checked, and brought onto the channels of a cube."""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import BlockFunction
from scalehsi.checks import choice, require
from scalehsi.cube import energy_factor, same_axis
from scalehsi.io.reference_spectra import open_spectra
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.resampling.energy_axis import common_channels, rebin
from scalehsi.kernels.subspace import moments
from scalehsi.models.pca import LEAST_MEAN
from scalehsi.result import check_result
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, InputError

CONSTRAINTS: Final = ("nnls", "fcls", "poisson", "ls")


def spectra_of(given: Any) -> xr.DataArray:
    """The spectra (component, energy) of a result, a DataArray, an array, a file, or a list of files."""
    if isinstance(given, xr.Dataset):
        return check_result(given)[ENDMEMBERS].transpose(COMPONENT, ENERGY)
    if isinstance(given, str | os.PathLike):
        return open_spectra(given)
    if isinstance(given, list | tuple) and given and all(isinstance(each, str | os.PathLike) for each in given):
        return _joined([open_spectra(each) for each in given], [str(each) for each in given])
    if isinstance(given, xr.DataArray):
        require(
            set(given.dims) in ({COMPONENT, ENERGY}, {ENERGY}),
            f"spectra are a DataArray of dims ('component', 'energy'), got {tuple(given.dims)}",
        )
        return given.transpose(COMPONENT, ENERGY) if COMPONENT in given.dims else given.expand_dims(COMPONENT)
    rows = np.asarray(given)
    require(
        rows.dtype.kind in "buif", f"a result, spectra or files of spectra are expected, got {type(given).__name__}"
    )
    rows = np.atleast_2d(rows)
    require(rows.ndim == 2, f"spectra have the shape (component, energy), got {rows.shape}")
    return xr.DataArray(rows, dims=(COMPONENT, ENERGY))


def _joined(parts: list[xr.DataArray], names: list[str]) -> xr.DataArray:
    """The spectra of several files, which have to be on one axis."""
    first = parts[0]
    for part, name in zip(parts[1:], names[1:], strict=True):
        same = same_axis(_in_unit_of(part, first), first[ENERGY])
        require(same, f"{names[0]!r} and {name!r} have other energy axes; project them one by one with resample=True")
    return xr.concat([part.assign_coords({ENERGY: first[ENERGY]}) for part in parts], COMPONENT)


def _in_unit_of(spectra: xr.DataArray, other: xr.DataArray) -> Float:
    """The energies of spectra in the unit of another axis, where both name a unit of energy."""
    here, there = (energy_factor(str(each[ENERGY].attrs.get("units", ""))) for each in (spectra, other))
    return np.asarray(spectra[ENERGY].values, dtype=np.float64) * (here / there if here and there else 1.0)


def on_axis(spectra: xr.DataArray, cube: xr.DataArray, *, resample: bool) -> Float:
    """Spectra (K, E) on the channels of a cube; another axis is refused unless they may be resampled.

    spectra: (component, energy), with or without energies. cube: with the channels. resample: whether counts may be
    distributed into the cube's channels.
    """
    values = np.asarray(spectra.values, dtype=np.float64)
    require(np.isfinite(values).all(), "the spectra have NaN or Inf; fill or crop them")
    empty = np.flatnonzero(~values.any(axis=1))
    require(
        not empty.size,
        f"spectrum {int(empty[0]) + 1 if empty.size else 0} of {len(values)} is zero in all channels; leave it out",
    )
    channels = int(cube.sizes[ENERGY])
    if ENERGY not in spectra.coords or ENERGY not in cube.coords:
        require(
            values.shape[1] == channels,
            f"the spectra have {values.shape[1]} channels, the cube {channels}; give them with their energies",
        )
        return values
    axis, wanted = _in_unit_of(spectra, cube), np.asarray(cube[ENERGY].values, dtype=np.float64)
    if same_axis(wanted, axis):
        return values
    if not resample:
        raise InputError(
            f"the spectra have {axis.size} channels, {axis[0]:g} to {axis[-1]:g}, the cube {channels}, "
            f"{wanted[0]:g} to {wanted[-1]:g}; type resample=True (--resample) to distribute their counts into the "
            "channels of the cube"
        )
    lost = int(np.count_nonzero(~common_channels(wanted, axis)))
    require(
        not lost,
        f"the spectra do not reach {lost} of the {channels} channels of the cube; crop the cube with "
        f"hsi.prepare.crop(cube, energy=({axis.min():g}, {axis.max():g}))",
    )
    return rebin(values, axis=axis, to=wanted)


def channel_weights(mean: Any) -> Float:
    """One over the mean of each channel (E,), with a floor of a hundredth of the average.

    Examples
    --------
    >>> channel_weights(np.array([4.0, 0.0])).tolist()
    [0.25, 50.0]
    """
    values = np.asarray(mean, dtype=np.float64)
    average = float(np.abs(values).mean())
    return np.asarray(1.0 / np.maximum(values, LEAST_MEAN["channels"] * (average or 1.0)))


def solver(s: Float, constraint: str, w: Float | None) -> tuple[BlockFunction, dict[str, Any]]:
    """The block function that solves abundances for spectra, and its shared arguments.

    s (K, E): the spectra. constraint: one of `CONSTRAINTS`. w (E,): weight of the squared residual of each channel;
    None for ones. The likelihood of "poisson" has its own weights.
    """
    choice("constraint", constraint, CONSTRAINTS)
    if constraint == "ls":
        weighted = s if w is None else s * w
        loadings = np.linalg.pinv(weighted @ s.T, hermitian=True) @ weighted
        return moments.scores, {"loadings": loadings.T, "offset": np.zeros(s.shape[1]), "basis": s}
    if constraint == "poisson":
        require((s >= 0).all(), "constraint='poisson' needs spectra that are not negative; type constraint='nnls'")
        return poisson.abundances, {"s": s}
    return least_squares.abundances, {"s": s, "w": w, **({"simplex": True} if constraint == "fcls" else {})}
