"""Make a scene: a lazy cube of Poisson counts from a layout of abundances and spectra, with its truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scalehsi.arrays import Float
from scalehsi.chunks import MiB, smallest_unsigned, storage_layout
from scalehsi.cube import make_cube
from scalehsi.kernels.statistics.counted_random import draw_counts
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y
from scalehsi.simulate.shapes.phase_layouts import Window

Layout = Callable[[Window], Float]
"""A picklable function from a `Window` to abundances, shape (K, h, w), that depends on absolute positions only."""

BEAM_ENERGY_KEV: Final = 200.0
LARGE_CUBE_BYTES: Final = 16 * 1024 * MiB
"""Larger cubes have four stored chunks in a chunk."""
TILE_PIXELS: Final = 256
"""Side of the squares of pixels that are computed at once inside a chunk."""


class Scene(NamedTuple):
    """A simulated spectrum image and its truth.

    Parameters
    ----------
    cube : xarray.DataArray
        Lazy counts, dims ``(y, x, energy)``, in the smallest sufficient type of unsigned integers.
    truth : xarray.Dataset
        ``endmembers`` (component, energy) are the expected counts of a pixel at abundance one; ``abundances``
        (component, y, x) are lazy. Their product is the expectation of the cube. The attributes are the ``kind``, the
        ``settings`` and ``composition`` (JSON), the names of the ``components`` and the ``seed``.
    """

    cube: xr.DataArray
    truth: xr.Dataset


@dataclass(frozen=True)
class _Recipe:
    """All settings that a chunk is computed from; sent to workers, so small and picklable."""

    layout: Layout
    spectra: Float
    shape: tuple[int, int]
    chunk: tuple[int, int]
    seed: int
    dtype: np.dtype[Any]
    stream: int = 0

    def window(self, row: int, column: int) -> Window:
        """Return the pixels of the chunk in this row and column of chunks."""
        y, x = row * self.chunk[0], column * self.chunk[1]
        return Window(y, min(y + self.chunk[0], self.shape[0]), x, min(x + self.chunk[1], self.shape[1]))


def make_scene(
    kind: str,
    *,
    layout: Layout,
    spectra: Float,
    largest_abundance: float,
    compositions: Mapping[str, Mapping[str, float]],
    energy: Float,
    energy_units: str,
    signal: str,
    title: str,
    settings: Mapping[str, Any],
    chunk: int | Sequence[int] | None = None,
    stream: int = 0,
) -> Scene:
    """Wrap a layout and spectra as a lazy cube of Poisson counts, with its truth.

    Parameters
    ----------
    kind : str
        Name of the kind of scene.
    layout : callable
        Takes a `Window` and returns abundances, shape (K, h, w). It must be picklable, and the numbers of a pixel must
        not depend on the window.
    spectra : array, shape (K, E)
        Expected counts of a pixel at abundance one.
    largest_abundance : float
        Upper bound of all abundances, from which the type of the counts is chosen.
    compositions : mapping
        Atomic per cent by element, for the name of each component.
    energy : array, shape (E,)
        Energy axis.
    energy_units : {"eV", "keV"}
        Unit of the energy axis.
    signal, title : str
        Attributes of the cube.
    settings : mapping
        Settings of the scene, stored in the attributes: at least ``shape``, ``seed``, ``pixel_size_nm`` and
        ``counts_per_pixel``.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x.
    stream : int, default 0
        Stream of random numbers; another one draws other counts of the same scene.

    Returns
    -------
    Scene
        The lazy cube and its truth.
    """
    shape: tuple[int, int] = settings["shape"]
    components, channels = spectra.shape
    mean = float(spectra.max()) * largest_abundance
    # A count beyond ten standard deviations and twenty above the largest mean practically never occurs.
    dtype = smallest_unsigned(math.ceil(mean + 10 * math.sqrt(mean) + 20))
    steps = _chunk(chunk, (*shape, channels), dtype.itemsize)
    recipe = _Recipe(layout, spectra, shape, steps, settings["seed"], dtype, stream)
    cuts = [(step,) * (n // step) + ((n % step,) if n % step else ()) for n, step in zip(shape, steps, strict=True)]
    lazy = partial(_lazy, recipe=recipe, name=f"simulate-{kind}")
    counts = lazy(_count_block, chunks=(*cuts, (channels,)), dtype=dtype)
    maps = lazy(_abundance_block, chunks=((components,), *cuts), dtype=np.dtype(np.float32))

    elements = list(dict.fromkeys(element for mixture in compositions.values() for element in mixture))
    shared = {
        "signal": signal,
        "beam_energy_keV": BEAM_ENERGY_KEV,
        "title": title,
        "elements": elements,
        "counts_per_pixel": settings["counts_per_pixel"],
        "history": [f"simulate.{kind}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"],
    }
    cube = make_cube(
        counts,
        energy=energy,
        energy_units=energy_units,
        pixel_size=settings["pixel_size_nm"],
        signal=signal,
        attrs=shared,
    )
    number = (COMPONENT, np.arange(1, components + 1), {"long_name": "component"})
    truth = xr.Dataset(
        {ENDMEMBERS: ((COMPONENT, ENERGY), spectra, {"units": "counts"}), ABUNDANCES: ((COMPONENT, Y, X), maps)},
        coords={COMPONENT: number, Y: cube[Y], X: cube[X], ENERGY: cube[ENERGY]},
        attrs={
            **shared,
            "model": "truth",
            "kind": kind,
            "components": list(compositions),
            "composition": json.dumps(compositions),
            "settings": json.dumps(settings),
            "seed": settings["seed"],
        },
    )
    return Scene(cube, truth)


def _chunk(chunk: int | Sequence[int] | None, shape: tuple[int, int, int], itemsize: int) -> tuple[int, int]:
    """Return the pixels of a chunk along y and x, for a cube of ``shape`` with this many bytes for a count."""
    if chunk is not None:
        steps = pair("chunk", chunk if isinstance(chunk, Sequence) else (chunk, chunk))
    else:
        stored = storage_layout(shape, itemsize).chunks
        # The chunks of the store; in a very large cube four of them, which keeps its graph small.
        side = 2 if math.prod(shape) * itemsize > LARGE_CUBE_BYTES else 1
        steps = stored[0] * side, stored[1] * side
    return min(steps[0], shape[0]), min(steps[1], shape[1])


def _lazy(
    function: Callable[..., NDArray[Any]], *, recipe: _Recipe, name: str, chunks: Any, dtype: np.dtype[Any]
) -> da.Array:
    """Return a dask array whose chunks ``function`` computes from ``recipe`` and their position.

    ``name`` begins the names of the tasks; ``chunks`` and ``dtype`` are those of the array.
    """
    meta = np.empty((0, 0, 0), dtype=dtype)
    token = f"{name}{function.__name__}"
    array: da.Array = da.map_blocks(function, recipe, chunks=chunks, dtype=dtype, meta=meta, token=token)
    return array


def _tiles(window: Window) -> list[tuple[Window, slice, slice]]:
    """Divide a window into squares of at most `TILE_PIXELS`, whose abundances take little memory beside the counts."""
    return [
        (
            Window(y, min(y + TILE_PIXELS, window.y1), x, min(x + TILE_PIXELS, window.x1)),
            slice(y - window.y0, min(y + TILE_PIXELS, window.y1) - window.y0),
            slice(x - window.x0, min(x + TILE_PIXELS, window.x1) - window.x0),
        )
        for y in range(window.y0, window.y1, TILE_PIXELS)
        for x in range(window.x0, window.x1, TILE_PIXELS)
    ]


def _count_block(recipe: _Recipe, block_id: tuple[int, int, int]) -> NDArray[Any]:
    """Compute the counts of one chunk, shape (h, w, E)."""
    window = recipe.window(block_id[0], block_id[1])
    out = np.empty((window.y1 - window.y0, window.x1 - window.x0, recipe.spectra.shape[1]), dtype=recipe.dtype)
    for tile, rows, columns in _tiles(window):
        # The absolute number of a pixel, row by row over the whole scene, is its position in the random stream.
        pixels = np.arange(tile.y0, tile.y1)[:, None] * recipe.shape[1] + np.arange(tile.x0, tile.x1)
        abundances = np.moveaxis(recipe.layout(tile), 0, -1).reshape(pixels.size, -1)
        settings: dict[str, Any] = {"seed": recipe.seed, "dtype": recipe.dtype, "stream": recipe.stream}
        counts = draw_counts(abundances, recipe.spectra, pixels.ravel(), **settings)
        out[rows, columns] = counts.reshape(*pixels.shape, -1)
    return out


def _abundance_block(recipe: _Recipe, block_id: tuple[int, int, int]) -> NDArray[np.float32]:
    """Compute the abundances of one chunk, shape (K, h, w)."""
    window = recipe.window(block_id[1], block_id[2])
    out = np.empty((len(recipe.spectra), window.y1 - window.y0, window.x1 - window.x0), dtype=np.float32)
    for tile, rows, columns in _tiles(window):
        out[:, rows, columns] = recipe.layout(tile)
    return out


def pair(name: str, value: Any) -> tuple[int, int]:
    """Check that the setting ``name`` is two whole numbers of at least one, along y and x, and return them.

    Examples
    --------
    >>> pair("shape", [64, 32])
    (64, 32)
    """
    values = [] if isinstance(value, str) else list(value) if isinstance(value, Sequence | np.ndarray) else []
    if len(values) != 2 or not all(_is_whole(v) and v >= 1 for v in values):
        raise InputError(
            f"{name} must be two whole numbers of at least 1 (y and x), got {value!r}; type {name}=(64, 64)"
        )
    return int(values[0]), int(values[1])


def whole(name: str, value: Any, *, least: int, most: int = 2**63 - 1) -> int:
    """Check that the setting ``name`` is a whole number from ``least`` to ``most``, and return it.

    Examples
    --------
    >>> whole("n_channels", 0, least=2)
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: n_channels must be a whole number of at least 2, got 0; type n_channels=2
    """
    if not _is_whole(value) or not least <= value <= most:
        upper = "" if most == 2**63 - 1 else f" and at most {most}"
        raise InputError(
            f"{name} must be a whole number of at least {least}{upper}, got {value!r}; type {name}={least}"
        )
    return int(value)


def real(name: str, value: Any, *, above: float = 0.0, most: float = math.inf, closed: bool = False) -> float:
    """Check that the setting ``name`` is a finite number, and return it.

    It must be in ``(above, most]``, or in ``[above, most]`` when ``closed``.

    Examples
    --------
    >>> real("mixing", 2, most=0.9, closed=True)
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: mixing must be a number from 0 to 0.9, got 2
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not (above < value <= most or (closed and value == above)):
        bounds = f"above {above:g}" if not closed else f"of at least {above:g}"
        if math.isfinite(most):
            bounds = f"from {above:g} to {most:g}" if closed else f"{bounds} and at most {most:g}"
        raise InputError(f"{name} must be a number {bounds}, got {value!r}")
    return float(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
