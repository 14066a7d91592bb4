"""Counts that are too few: added up over bins of pixels for the spectra, and kept without their zeros."""

from __future__ import annotations

import math
import numbers
from typing import Any, Final

import xarray as xr

from scalehsi.blocks import Blocks, branch, capacity, open_blocks
from scalehsi.checks import is_number, require
from scalehsi.fitting.survey import Survey
from scalehsi.kernels import cuda
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.prepare import bin as add_up
from scalehsi.schema import MASK, X, Y

COUNTS: Final = 866.0
"""Counts of a bin to aim at: the middle of 500 to 1500, where spectra come out best (measured at 18 and 147 counts)."""
ENOUGH: Final = 500.0
"""A pixel with so many counts is left alone."""
DENSE: Final = 0.15
"""Share of filled values from which on a dense block of single bytes is as small."""
BYTES: Final = 4
"""Of a filled value: its channel in two, its counts in one or two."""
BYTES_ON_GPU: Final = 10
"""The same there, by pixels and by channels, with the number of the pixel."""


def check(bin_factor: Any, *, squares: bool) -> None:
    """Refuse what is neither a whole number nor "auto"."""
    whole = is_number(bin_factor, numbers.Integral) and bin_factor >= 1
    require(whole or bin_factor == "auto", f"bin_factor is 'auto' or a whole number of at least 1, got {bin_factor!r}")
    require(not (squares and whole and bin_factor > 1), "bin_factor belongs to loss='poisson'; bin the cube instead")


def factor(bin_factor: int | str, view: Blocks, seen: Survey, *, squares: bool, least: int, whole: bool = False) -> int:
    """How many pixels along y and x make a bin.

    Parameters
    ----------
    bin_factor : int or "auto"
    view : Blocks
    seen : Survey
    squares : bool
        True for least squares, which takes pixels as they are.
    least : int
        Bins that must be left.
    whole : bool, default False
        True counts the bins without masked pixels only.
    """
    if squares:
        return 1
    rows, columns = view.shape[-2:]
    if isinstance(bin_factor, str):
        counts = float(seen.spectrum.sum()) / max(1, seen.filled)
        wanted = 1 if counts >= ENOUGH else max(1, round(math.sqrt(COUNTS / max(counts, 1e-9))))
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


FINE: Final = 400.0
"""Counts of a bin on which a mixture of counts is fitted: below 300 its spectra suffer (measured)."""
FINE_BYTES: Final = 64 * 2**20
"""What the mixture carries of its bins, at most; more of them become larger."""


def check_pair(bin_factor: Any) -> None:
    """Refuse what is neither "auto", a whole number nor a pair of them along y and x."""
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
    """Pixels of a bin along y and x, or None where these are still to be found."""
    if isinstance(bin_factor, str):
        return None
    pair = bin_factor if isinstance(bin_factor, (tuple, list)) else (bin_factor,) * 2
    return int(pair[0]), int(pair[1])


def fine(coarse: tuple[int, int], counts: float, components: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Bins of some 400 counts, at most as large as the coarse ones unless there were too many of them.

    Examples
    --------
    >>> fine((12, 12), 147.0, 3, (180, 180)), fine((9, 9), 18.0, 3, (180, 180)), fine((4, 4), 3.0, 3, (180, 180))
    ((2, 2), (5, 5), (4, 4))
    """
    wanted = max(1, math.ceil(math.sqrt(FINE / max(counts, 1e-9))))
    least = math.ceil(math.sqrt(4 * components * math.prod(shape) / FINE_BYTES))
    return tuple(max(least, min(wanted, side)) for side in coarse)  # type: ignore[return-value]


def sparse(view: Blocks, seen: Survey) -> bool:
    """Whether the counts of a view are kept without their zeros.

    On the CPU where they are so few that it is smaller, and none are to look for at each pass. On a GPU its kernels
    take no others, and sorting them by channel costs more than a pass, so always where they fit.
    """
    bytes_ = BYTES if view.device == "cpu" else BYTES_ON_GPU
    size = (bytes_ * seen.density * view.n_energies + 8) * math.prod(view.shape)
    return (view.device == "cuda" or seen.density < DENSE) and size <= capacity().memory // 2


def binned(view: Blocks, rows: int, columns: int | None = None, *, whole: bool = False) -> Blocks:
    """The view itself, or that of the cube with pixels added up; opened once, and kept with the view.

    With ``whole`` bins with a masked pixel are left out: on the simplex a bin must have the counts of all its pixels.
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


def without_zeros(view: Blocks) -> Blocks:
    """The view with `Counts` for blocks, on a GPU `cuda.Resident`; what it held densely may go once these are made."""
    make = Counts.from_dense if view.device == "cpu" else cuda.resident
    return branch(view, "sparse", lambda: view.derive(make, name="nmf-counts"))
