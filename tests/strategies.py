"""Cubes of any shape, cut in any way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st

from scalehsi.schema import MASK
from tests.helpers import counts_cube


@dataclass(frozen=True)
class Case:
    """A cube, the same counts in memory, and how to open it.

    ``cube`` is lazy or not, with a mask or not; ``counts`` are its values; ``used`` is the mask, all True without one.
    """

    cube: xr.DataArray
    counts: np.ndarray[Any, Any]
    used: np.ndarray[Any, np.dtype[np.bool_]]
    block_bytes: int | None
    resident: bool | None

    @property
    def options(self) -> dict[str, Any]:
        return {"block_bytes": self.block_bytes, "resident": self.resident}


@st.composite
def partitions(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Chunk sizes that add up to ``size``, ragged ones too."""
    sizes: list[int] = []
    while (left := size - sum(sizes)) > 0:
        sizes.append(draw(st.integers(1, left)))
    return tuple(sizes)


@st.composite
def cases(draw: st.DrawFn, *, dtypes: tuple[str, ...] = ("u1", "u2", "i4"), max_side: int = 7) -> Case:
    """Cubes of three to five dims with one to seven pixels along each."""
    leading = draw(st.lists(st.integers(1, 3), max_size=2))
    plane = [draw(st.integers(1, max_side)) for _ in range(2)]
    shape = (*leading, *plane, draw(st.integers(1, 5)))
    cube = counts_cube(shape, seed=draw(st.integers(0, 99)), dtype=draw(st.sampled_from(dtypes)))
    counts = cube.values
    used = np.ones(shape[:-1], dtype=bool)
    if draw(st.booleans()):
        bits = draw(st.lists(st.booleans(), min_size=used.size, max_size=used.size))
        used = np.array(bits).reshape(used.shape)
        used.flat[draw(st.integers(0, used.size - 1))] = True
        mask: Any = xr.DataArray(used, dims=cube.dims[:-1])
        if draw(st.booleans()):
            mask = mask.chunk({mask.dims[-1]: draw(partitions(shape[-2]))})
        cube = cube.assign_coords({MASK: mask})
    if draw(st.booleans()):
        chunks = {dim: draw(partitions(size)) for dim, size in zip(cube.dims, shape, strict=True)}
        held = cube.coords[MASK] if MASK in cube.coords else None
        cube = cube.chunk(chunks)
        if held is not None:
            cube = cube.assign_coords({MASK: held})
    pixel = shape[-1] * cube.dtype.itemsize
    block = draw(st.none() | st.integers(1, used.size).map(lambda pixels: pixels * pixel))
    return Case(cube, counts, used, block, draw(st.sampled_from([True, False, None])))


@st.composite
def with_halo(draw: st.DrawFn) -> tuple[Case, int]:
    """A case and a halo, often wider than a block or the whole map."""
    return draw(cases()), draw(st.integers(1, 4))
