"""The modes of a tensor: groups of dims of a cube, one of them the pixels, and the cube with the others as channels.

A pass over pixels needs all frames and energies of a pixel in one row. So the cube is turned, lazily and block by
block, into one of dims ``(..., y, x, energy)`` whose channels are those of every frame in turn.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import open_blocks
from scalehsi.checks import require
from scalehsi.chunks import work_chunks
from scalehsi.schema import ENDMEMBERS, ENERGY, MASK, MODE_FACTORS, InputError, X, Y, suggest

Group = tuple[str, ...]

EXAMPLE: Final = "modes=['frame', ('y', 'x'), 'energy'] (--set modes=frame,y+x,energy)"
MODES: Final = "modes"


class Modes(NamedTuple):
    """The modes of a tensor.

    Attributes
    ----------
    groups : tuple of tuples of str
        Dims of each mode.
    length : dict of str to int
        Size of each dim of the cube.
    """

    groups: tuple[Group, ...]
    length: dict[str, int]

    @property
    def pixels(self) -> Group:
        """Dims of the long mode, which has the abundances: y, x, and others that vary as they do."""
        return next(group for group in self.groups if X in group)

    @property
    def short(self) -> tuple[Group, ...]:
        """Dims of each short mode but the energies."""
        return tuple(group for group in self.groups if X not in group and group != (ENERGY,))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the short modes, the energies last."""
        return (*("_".join(group) for group in self.short), ENERGY)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the short modes, the energies last."""
        return (*(math.prod(self.length[d] for d in group) for group in self.short), self.length[ENERGY])

    def __str__(self) -> str:
        return ",".join(map("+".join, self.groups))


def groups_of(modes: Any) -> tuple[Group, ...] | None:
    """The setting ``modes`` as groups of dims; None where it is not given.

    Examples
    --------
    >>> groups_of("frame,y+x,energy") == groups_of(["frame", ["y", "x"], "energy"])
    True
    """
    if modes is None:
        return None
    if isinstance(modes, str):
        modes = [part.split("+") for part in modes.split(",")]
    require(isinstance(modes, Sequence), f"modes is a list of dims and groups of dims, got {modes!r}; type {EXAMPLE}")
    found = tuple((m,) if isinstance(m, str) else tuple(m) if isinstance(m, Sequence) else (m,) for m in modes)
    good = all(group and all(isinstance(dim, str) for dim in group) for group in found)
    require(good, f"modes is a list of dims and groups of dims, got {modes!r}; type {EXAMPLE}")
    return tuple(tuple(dim.strip() for dim in group) for group in found)


def modes_of(setting: Any, cube: xr.DataArray, *, model: str) -> Modes:
    """The modes of a cube.

    Parameters
    ----------
    setting : None, str or sequence
        None: every leading dim is a mode, y and x together are the pixels.
    cube : DataArray
    model : str
        Its name, for messages.

    Raises
    ------
    InputError
        For fewer than three modes, for more than one long mode, and for dims that are in none or in two.
    """
    dims = tuple(map(str, cube.dims))
    groups = groups_of(setting) or (*((d,) for d in dims[:-3]), (Y, X), (ENERGY,))
    listed = [d for group in groups for d in group]
    for d in listed:
        require(d in dims, f"modes has {d!r}, which is no dim of the cube; {suggest(d, dims)}")
        require(listed.count(d) == 1, f"modes has {d!r} twice; each dim belongs to one mode, as in {EXAMPLE}")
    missing = [d for d in dims if d not in listed]
    require(not missing, f"modes lacks {', '.join(map(repr, missing))}; each dim belongs to one mode, as in {EXAMPLE}")
    require(
        len(groups) >= 3,
        f"{model} needs at least three modes, got {len(groups)} ({', '.join('+'.join(g) for g in groups)}): "
        "this is a matrix, fit scalehsi.NMF to it",
    )
    (pixels,) = (group for group in groups if X in group)
    require(
        Y in pixels,
        f"y and x are two long modes; one can be long, so type them as one mode ('y', 'x'), as in {EXAMPLE}",
    )
    require((ENERGY,) in groups, f"energy is a mode of its own, as it has the spectra; type {EXAMPLE}")
    # Pixels are in the order of the cube, which ends in y and x.
    ordered = tuple(tuple(d for d in dims if d in group) if group == pixels else group for group in groups)
    return Modes(ordered, {d: cube.sizes[d] for d in dims})


def stacked(cube: xr.DataArray, modes: Modes) -> xr.DataArray:
    """The cube with all short modes as its channels, lazy; a pixel is used where its mask is True in each of them.

    Parameters
    ----------
    cube : DataArray
        A cube in memory is not copied.
    modes : Modes

    Returns
    -------
    DataArray
        Dims (..., y, x, energy); channels are numbered. ``attrs["modes"]`` has the modes.
    """
    flat = tuple(d for group in modes.short for d in group)
    order = (*modes.pixels, *flat, ENERGY)
    shape = tuple(cube.sizes[d] for d in modes.pixels)
    channels = math.prod(modes.sizes)
    turned = cube.variable.transpose(*order)
    if cube.chunks is None:
        open_blocks(cube)  # refuses what is too large to be sent to worker processes
        grid = work_chunks((*shape, channels), cube.dtype.itemsize)
        turned = turned.chunk(dict(zip(modes.pixels, grid, strict=True)), name=f"tensor-{uuid.uuid4().hex}")
    data = turned.chunk({d: -1 for d in (*flat, ENERGY)}).data
    coords: dict[str, Any] = {d: cube[d] for d in modes.pixels if d in cube.coords}
    coords[ENERGY] = (ENERGY, np.arange(channels), {"units": "channel"})
    if MASK in cube.coords:
        coords[MASK] = cube[MASK].all(list(flat)).transpose(*modes.pixels).variable
    dims = (*modes.pixels, ENERGY)
    attrs = {**cube.attrs, MODES: modes}
    return xr.DataArray(data.reshape((*shape, channels)), dims=dims, coords=coords, attrs=attrs, name=cube.name)


def split(packed: Float, sizes: Sequence[int]) -> list[Float]:
    """Parts of the last axis, one for each mode."""
    return np.split(packed, np.cumsum(sizes)[:-1], axis=-1)


def marginals(mean: Float, sizes: Sequence[int]) -> list[Float]:
    """Mean of a flattened tensor over all modes but one, for each of them."""
    whole = mean.reshape(tuple(sizes))
    return [whole.mean(axis=tuple(a for a in range(whole.ndim) if a != axis)) for axis in range(whole.ndim)]


def by_mode(parts: Sequence[Float], modes: Modes, first: Sequence[str], ending: str) -> dict[str, xr.DataArray]:
    """Variables of the short modes but the energies, with the dims of their groups.

    parts: arrays (..., n_i), one for each mode. first: dims before those of the mode. ending: of the names.
    """
    found = {}
    for values, group, name in zip(parts, modes.short, modes.names, strict=False):
        shape = (*values.shape[:-1], *(modes.length[d] for d in group))
        found[f"{name}{ending}"] = xr.DataArray(values.reshape(shape), dims=(*first, *group))
    return found


def stored_modes(result: xr.Dataset) -> Modes:
    """The modes of a result."""
    return Modes(groups_of(result[ENDMEMBERS].attrs[MODES]) or (), {str(d): n for d, n in result.sizes.items()})


def flat_rows(result: xr.Dataset, modes: Modes, ending: str = MODE_FACTORS) -> list[Float]:
    """Variables of the short modes but the energies, with each group of dims flattened."""
    found = []
    for name, group in zip(modes.names, modes.short, strict=False):
        values = result[f"{name}{ending}"].transpose(..., *group).values
        found.append(np.asarray(values, dtype=np.float64).reshape(*values.shape[: values.ndim - len(group)], -1))
    return found


def check_lengths(cube: xr.DataArray, modes: Modes) -> None:
    """Refuse a cube whose short modes have other sizes than those of a result."""
    for d in (d for group in modes.short for d in group):
        got, want = cube.sizes.get(d), modes.length[d]
        if got != want:
            raise InputError(f"the result has {want} along {d!r}, the cube {got}; give a cube with the same {d!r}")
