"""Bins of pixels for sparse counts: their size, the binned cube, and blocks stored without zeros."""

from __future__ import annotations

import math
import numbers
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, branch, capacity, open_blocks
from scalehsi.checks import is_number, require
from scalehsi.fitting.survey import Survey
from scalehsi.kernels import cuda
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.prepare import bin as add_up
from scalehsi.schema import MASK, X, Y

COUNTS_PER_BIN: Final = 866.0
"""Target: the geometric middle of 500 to 1500 counts, where spectra are best (measured at 18 and 147 counts)."""
COUNTS_WITHOUT_BINS: Final = 500.0
"""Pixels with this many counts are not binned."""
DENSE_SHARE: Final = 0.15
"""Above this share of non-zero values a dense block of single bytes is as small as a sparse one."""
BYTES_PER_VALUE: Final = 4
"""Of a non-zero value: two for its channel, one or two for its counts."""
GPU_BYTES_PER_VALUE: Final = 10
"""The same on a GPU, where values are sorted by pixel and by channel."""


def check(bin_factor: Any, *, squares: bool) -> None:
    """Refuse a bin factor that is neither a whole number nor "auto"."""
    whole = is_number(bin_factor, numbers.Integral) and bin_factor >= 1
    require(whole or bin_factor == "auto", f"bin_factor is 'auto' or a whole number of at least 1, got {bin_factor!r}")
    require(not (squares and whole and bin_factor > 1), "bin_factor belongs to loss='poisson'; bin the cube instead")


def factor(bin_factor: int | str, view: Blocks, seen: Survey, *, squares: bool, least: int, whole: bool = False) -> int:
    """Pixels of a bin along y and x.

    Parameters
    ----------
    bin_factor : int or "auto"
    view : Blocks
    seen : Survey
    squares : bool
        True for least squares, which is not fitted on bins.
    least : int
        Smallest number of bins.
    whole : bool, default False
        True: only bins without a masked pixel count.
    """
    if squares:
        return 1
    rows, columns = view.shape[-2:]
    if isinstance(bin_factor, str):
        counts = float(seen.spectrum.sum()) / max(1, seen.filled)
        wanted = 1 if counts >= COUNTS_WITHOUT_BINS else max(1, round(math.sqrt(COUNTS_PER_BIN / max(counts, 1e-9))))
        others = math.prod(view.shape[:-2])
        while wanted > 1 and others * (rows // wanted) * (columns // wanted) < least:
            wanted -= 1
        while (
            whole
            and wanted > 1
            and MASK in view.cube.coords
            and int(_unmasked(view, {Y: wanted, X: wanted}).sum()) < least
        ):
            wanted -= 1
        return min(wanted, rows, columns)
    require(
        bin_factor <= min(rows, columns),
        f"bin_factor={bin_factor} is more than the {rows} x {columns} pixels of the cube; take fewer",
    )
    return int(bin_factor)


MIXTURE_COUNTS_PER_BIN: Final = 400.0
"""Target for the bins of a mixture model: below 300 its spectra become worse (measured)."""
MIXTURE_STATE_BYTES: Final = 64 * 2**20
"""Largest state of the mixture model; bins become larger where there would be too many."""


def check_pair(bin_factor: Any) -> None:
    """Refuse a bin factor that is neither "auto", a whole number nor a pair of them along y and x."""
    pair = bin_factor if isinstance(bin_factor, (tuple, list)) else (bin_factor,) * 2
    whole = len(pair) == 2 and all(is_number(n, numbers.Integral) and n >= 1 for n in pair)
    require(
        whole or bin_factor == "auto",
        f"bin_factor is 'auto', a whole number of at least 1 or two of them (y, x), got {bin_factor!r}",
    )


def check_room(bin_factor: Any, cube: xr.DataArray) -> None:
    """Refuse bins that are larger than the map."""
    given = sides(bin_factor)
    if given is not None:
        rows, columns = cube.shape[-3:-1]
        require(
            given[0] <= rows and given[1] <= columns,
            f"bin_factor={bin_factor!r} is more than the {rows} x {columns} pixels of the map; take smaller bins",
        )


def sides(bin_factor: Any) -> tuple[int, int] | None:
    """Pixels of a bin along y and x, or None for "auto"."""
    if isinstance(bin_factor, str):
        return None
    pair = bin_factor if isinstance(bin_factor, (tuple, list)) else (bin_factor,) * 2
    return int(pair[0]), int(pair[1])


def mixture_sides(coarse: tuple[int, int], counts: float, components: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Pixels along y and x of the bins of a mixture model, with some 400 counts each.

    coarse: bins of the first stage; the bins are not larger, except where their state would not fit. counts: of a
    pixel. components: K. shape: of the map.

    Examples
    --------
    >>> [mixture_sides(sides, counts, 3, (180, 180)) for sides, counts in (((12, 12), 147), ((9, 9), 18), ((4, 4), 3))]
    [(2, 2), (5, 5), (4, 4)]
    """
    wanted = max(1, math.ceil(math.sqrt(MIXTURE_COUNTS_PER_BIN / max(counts, 1e-9))))
    least = math.ceil(math.sqrt(4 * components * math.prod(shape) / MIXTURE_STATE_BYTES))
    return tuple(max(least, min(wanted, side)) for side in coarse)  # type: ignore[return-value]


def sparse(view: Blocks, seen: Survey) -> bool:
    """Whether the counts of a view are stored without zeros.

    On the CPU: where that needs less memory. On a GPU: always where it fits, because the Poisson kernels take only
    sparse counts, and sorting them by channel costs more than a pass.
    """
    bytes_ = BYTES_PER_VALUE if view.device == "cpu" else GPU_BYTES_PER_VALUE
    size = (bytes_ * seen.density * view.n_energies + 8) * math.prod(view.shape)
    return (view.device == "cuda" or seen.density < DENSE_SHARE) and size <= capacity().memory // 2


def fits_without_zeros(view: Blocks, density: float) -> bool:
    """Whether the workers can keep the counts of a cube without zeros, beside its blocks. density: of the values."""
    size = (BYTES_PER_VALUE * density * view.n_energies + 8) * math.prod(view.shape)
    return size <= room_without_zeros(view, capacity().memory)


def room_without_zeros(view: Blocks, memory: int) -> int:
    """Bytes that counts without zeros may fill. memory: of all workers."""
    return memory * 3 // 4 - int(view.cube.nbytes) if view.resident else memory * 2 // 5


def binned(view: Blocks, rows: int, columns: int | None = None, *, whole: bool = False) -> Blocks:
    """The view itself, or a view of the binned cube, which is opened once and stored in ``view.branches``.

    rows, columns: pixels of a bin along y and x. whole: leave out bins with a masked pixel, because on the simplex a
    bin must have the counts of all its pixels.
    """
    factors = {Y: rows, X: rows if columns is None else columns}
    if set(factors.values()) == {1}:
        return view

    def make() -> Blocks:
        cube = add_up(view.cube, **factors)
        if whole and MASK in view.cube.coords:
            cube = cube.assign_coords({MASK: _unmasked(view, factors)})
        return open_blocks(cube, device=view.device)

    name = "-".join(map(str, factors.values()))
    return branch(view, f"bin-{name}-whole" if whole else f"bin-{name}", make)


def _unmasked(view: Blocks, factors: dict[Any, int]) -> Any:
    """Which bins have no masked pixel."""
    windows: Any = view.cube[MASK].coarsen(factors, boundary="trim")
    return windows.all()


def used_pixels(view: Blocks, rows: int, columns: int) -> Float:
    """How many pixels of each bin (..., y, x) are used. rows, columns: pixels of a bin along y and x."""
    used = view.cube[MASK] if MASK in view.cube.coords else xr.DataArray(np.ones(view.shape), dims=view.cube.dims[:-1])
    windows: Any = used.coarsen({Y: rows, X: columns}, boundary="trim")
    return np.asarray(windows.sum().values, dtype=np.float64)


def without_zeros(view: Blocks) -> Blocks:
    """The view with blocks of `Counts`, on a GPU `cuda.DeviceCounts`; its dense blocks may be released afterwards."""
    make = Counts.from_dense if view.device == "cpu" else cuda.counts_to_device
    return branch(view, "sparse", lambda: view.derive(make, name="nmf-counts"))
