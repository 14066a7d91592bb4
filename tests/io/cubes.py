"""Cubes, results and measurements that the tests of opening, saving and converting share."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.cube import make_cube

CHUNK_MB = 4


def counts_of(
    shape: tuple[int, ...] = (12, 14, 20), dtype: str = "u2", most: int = 200, **options: Any
) -> xr.DataArray:
    data = np.random.default_rng(2).integers(0, most, shape).astype(dtype)
    options = {"signal": "EELS", "attrs": {"beam_energy_keV": 200.0}, **options}
    return make_cube(data, energy=500 + 0.5 * np.arange(shape[-1]), energy_units="eV", **options)


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def result_of(cube: xr.DataArray) -> xr.Dataset:
    shape = (2, *cube.shape[:-1])
    return xr.Dataset(
        {
            "endmembers": (("component", "energy"), np.ones((2, cube.sizes["energy"]))),
            "abundances": (("component", *map(str, cube.dims[:-1])), da.ones(shape, chunks=(2, 5, 5))),
        },
        coords={"energy": cube.energy},
        attrs={"model": "NMF", "settings": "{}", "history": ["fit"], "status": "converged"},
    )


def noisy(shape: tuple[int, ...], chunks: tuple[int, ...]) -> xr.DataArray:
    def block(block_info: Any = None) -> np.ndarray[Any, Any]:
        place = block_info[None]["array-location"]
        sizes = [b - a for a, b in place]
        return np.random.default_rng(place[0][0] * 7 + place[1][0]).integers(0, 200, sizes, dtype="u2")

    blocks = da.core.normalize_chunks(chunks, shape)
    data = da.map_blocks(block, chunks=blocks, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    return make_cube(data, energy=np.arange(shape[-1]), energy_units="eV")


def peak_of(work: Callable[[], object]) -> int:
    """The largest number of bytes that Python had allocated at one time during some work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
