"""Counts that are too few: added up over bins of pixels for the spectra, and kept without their zeros."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any, Final

from scalehsi.blocks import Blocks, capacity, open_blocks
from scalehsi.kernels.counts import Counts
from scalehsi.models.base import is_number, require
from scalehsi.models.survey import Survey
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
        while whole and wanted > 1 and MASK in view.cube.coords and int(_unmasked(view, wanted).sum()) < least:
            wanted -= 1
        return min(wanted, rows, columns)
    require(
        bin_factor <= min(rows, columns),
        f"bin_factor={bin_factor} is more than the {rows} x {columns} pixels of the cube; take fewer",
    )
    return int(bin_factor)


def sparse(view: Blocks, seen: Survey) -> bool:
    """Whether the counts of a view are so few that they are kept without their zeros: smaller, and none to look for."""
    size = (BYTES * seen.density * view.n_energies + 8) * math.prod(view.shape)
    return view.device == "cpu" and seen.density < DENSE and size <= capacity().memory // 2


def binned(view: Blocks, bins: int, *, whole: bool = False) -> Blocks:
    """The view itself, or that of the cube with pixels added up; opened once, and kept with the view.

    With ``whole`` bins with a masked pixel are left out: on the simplex a bin must have the counts of all its pixels.
    """
    if bins == 1:
        return view

    def make() -> Blocks:
        cube = add_up(view.cube, **{Y: bins, X: bins})
        if whole and MASK in view.cube.coords:
            cube = cube.assign_coords({MASK: _unmasked(view, bins)})
        return open_blocks(cube, device=view.device)

    return branch(view, f"bin-{bins}-whole" if whole else f"bin-{bins}", make)


def _unmasked(view: Blocks, bins: int) -> Any:
    """Which bins have no masked pixel."""
    windows: Any = view.cube[MASK].coarsen({Y: bins, X: bins}, boundary="trim")
    return windows.all()


def without_zeros(view: Blocks) -> Blocks:
    """The view with `Counts` for blocks; what it held densely may go once these are made."""
    return branch(view, "sparse", lambda: view.derive(Counts.from_dense, name="nmf-counts"))


def branch(view: Blocks, name: str, make: Callable[[], Blocks]) -> Blocks:
    """What was made of a view under that name, made now if it was not yet; it lives as long as the view."""
    if name not in view.branches:
        view.branches[name] = make()
    made = view.branches[name]
    made.report = view.report
    return made
