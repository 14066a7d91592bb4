"""Maps as a TIFF stack that ImageJ and Fiji open with names and scale."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile
import xarray as xr

from scalehsi.cube import length_factor
from scalehsi.schema import InputError, X, Y


def tiff_of_maps(maps: xr.DataArray, names: Sequence[str]) -> bytes:
    """The bytes of an ImageJ hyperstack: a channel for each map, a frame for each position along leading dims.

    Lazy maps are computed one at a time.

    Parameters
    ----------
    maps : DataArray, dims (something, ..., y, x)
        Pixels that were not used stay NaN.
    names : sequence of str
        Of the maps along the first dim.
    """
    leading = maps.dims[1:-2]
    frames = list(itertools.product(*(range(maps.sizes[d]) for d in leading)))
    labels = [_label(name, leading, frame) for frame in frames for name in names]
    target = io.BytesIO()
    options: dict[str, Any] = {"axes": "TCYX", "Labels": labels, "mode": "grayscale"}
    pixel = [_pixel(maps, dim) for dim in (X, Y)]
    if None not in pixel:
        unit = str(maps[X].attrs["units"]).replace("µ", "u").replace("μ", "u")
        options |= {"unit": unit}
    try:
        tifffile.imwrite(
            target,
            _planes(maps, frames),
            shape=(len(frames), len(names), maps.sizes[Y], maps.sizes[X]),
            dtype=np.float32,
            imagej=True,
            resolution=None if None in pixel else tuple(1.0 / float(size or 1.0) for size in pixel),
            metadata=options,
        )
    except ValueError as error:
        size = 4 * maps.size / 1e9
        raise InputError(f"maps of {size:.1f} GB do not fit in a TIFF of ImageJ ({error}); choose components") from None
    return target.getvalue()


def _planes(maps: xr.DataArray, frames: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray[Any, Any]]:
    for frame in frames:
        for k in range(maps.shape[0]):
            yield np.asarray(maps[(k, *frame)].values, dtype=np.float32)


def _label(name: str, dims: Sequence[Any], frame: tuple[int, ...]) -> str:
    return ", ".join([name, *(f"{d} {i}" for d, i in zip(dims, frame, strict=True))])


def _pixel(maps: xr.DataArray, dim: str) -> float | None:
    """Size of a pixel along a dim in the unit of its coordinate; None where that is no length."""
    if dim not in maps.coords or length_factor(str(maps[dim].attrs.get("units", ""))) is None or maps.sizes[dim] < 2:
        return None
    values = np.asarray(maps[dim].values, dtype=np.float64)
    return float(abs(values[-1] - values[0]) / (values.size - 1)) or None
