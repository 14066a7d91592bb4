"""Follow an acquisition while it runs: the maps of a result in each block as it is written, and a residual alarm."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from scipy.special import ndtri

from scalehsi.arrays import Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.checks import is_number, require
from scalehsi.cube import navigation_dims
from scalehsi.fitting.energy_axis import check_axis
from scalehsi.fitting.model import Model
from scalehsi.io.growing_store import GrowingCube, Window
from scalehsi.models.apply import projected_result
from scalehsi.models.catalogue import model_class
from scalehsi.result import check_result, map_dims, settings_of, total_signal
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, MASK, RESIDUAL, InputError

QUANTILE: Final = 0.999
"""Of the residual of counting noise: above it, in blocks running, the alarm is raised."""
BLOCKS_RUNNING: Final = 3


@dataclass(frozen=True)
class Live:
    """An acquisition as far as it has come.

    Attributes
    ----------
    result : xarray.Dataset
        The spectra of the model with ``abundances`` and ``residual`` of the pixels so far, NaN elsewhere. The boolean
        coordinate ``mask`` is True where pixels were projected: ``cube.assign_coords(mask=live.result.mask)`` lets a
        fit use these alone.
    blocks, expected : int
        Blocks that were projected, and those of the whole scan.
    new : tuple of str
        Windows of the blocks that are new in this look, such as ``"0:16, 32:48"`` along y and x.
    alarm : str
        A sentence where the residual of three blocks running is above that of counting noise and of every block of the
        fit; empty otherwise. It is raised once, and again after a block without.
    troubles : tuple of str
        A sentence for each block that cannot be read for 10 s.
    restarted : bool
        True where another store has taken the place of the one before: earlier maps are void.
    complete : bool
        True where every block was projected, and the writer has marked the store as complete.
    """

    result: xr.Dataset
    blocks: int
    expected: int
    new: tuple[str, ...]
    alarm: str
    troubles: tuple[str, ...]
    restarted: bool
    complete: bool


def watch(
    path: str | os.PathLike[str],
    result: xr.Dataset,
    *,
    interval: float = 0.2,
    until_idle: float | None = None,
    waiting: Callable[[str], None] | None = None,
) -> Iterator[Live]:
    """Follow a cube that is being acquired: ``for live in scalehsi.watch("scan.zarr", result): ...``.

    Each new block of the scan is projected on the spectra of the result, within milliseconds. The store may not be
    there yet, may grow, or be replaced by another one; a block that is half written is tried again.

    Parameters
    ----------
    path : path
        A Zarr store with named axes and without shards, whose chunks are blocks of the scan.
    result : xarray.Dataset
        A result of `scalehsi.fit` for the same energy axis, of a method that looks at single pixels.
    interval : float, default 0.2
        Seconds between two looks at the files.
    until_idle : float, optional
        Stop after this time in s without anything new. By default only the mark that `scalehsi.save` and
        `scalehsi.simulate.acquire` leave in a complete store ends it.
    waiting : callable, optional
        Called with the reason why there is no cube yet, when it changes.

    Returns
    -------
    iterator of Live
        The next one comes when there is anything new.

    Raises
    ------
    InputError
        When the energy axes differ, the store has shards, or the method looks at neighbours.

    Notes
    -----
    The alarm compares the sum of squared residuals of a block with its counts. For counts x of mean m both are m on
    average, and the variance of the first is m + 2 m^2; the bound is its 99.9 % quantile above the ratio of the fit,
    or the largest ratio of any such block of the fit, if that is more.

    Examples
    --------
    >>> import tempfile
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, max_iter=10), seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     blocks = sum(1 for _ in hsi.simulate.acquire(cube, folder + "/scan.zarr", block=8))
    ...     *_, last = hsi.watch(folder + "/scan.zarr", result)
    >>> blocks, last.blocks, last.complete
    (4, 4, True)
    """
    require(is_number(interval, (int, float)) and interval > 0, f"interval is a time in s above 0, got {interval!r}")
    idle = until_idle is None or (is_number(until_idle, (int, float)) and until_idle > 0)
    require(idle, f"until_idle is a time in s above 0, got {until_idle!r}")
    return _looks(Watch(path, result), interval, until_idle, waiting)


def _looks(
    following: Watch, interval: float, until_idle: float | None, waiting: Callable[[str], None] | None
) -> Iterator[Live]:
    """The looks of `watch`, whose arguments these are."""
    last, said = time.monotonic(), ""
    while True:
        now = time.monotonic()
        live = following.look(now)
        if live is not None:
            yield live
            if live.new or live.restarted:
                last = time.monotonic()
            if live.complete:
                return
        reason = following.store.waiting
        if waiting is not None and reason not in ("", said):
            waiting(reason)
        said = reason
        if until_idle is not None and time.monotonic() - last >= until_idle:
            return
        time.sleep(interval)


class Watch:
    """The acquisition behind `watch`, one look at a time.

    Parameters
    ----------
    path, result
        As in `watch`.
    """

    def __init__(self, path: str | os.PathLike[str], result: xr.Dataset) -> None:
        self.projector = BlockProjector(result)
        self.store = GrowingCube(Path(path))
        self.maps: dict[str, Float] = {}
        self.used: Any = None
        self._number = 0
        self._running = 0
        self._complete = False

    def look(self, now: float) -> Live | None:
        """Project what is new, and return the state; None where nothing is. now: seconds of any clock."""
        restarted = False
        if self.store.look() and self.store.cube is not None:
            restarted = self._number not in (0, self.store.number)
            self._prepare(self.store.cube, keep=self._number == self.store.number)
            self._number = self.store.number
        if self.store.cube is None:
            return None
        troubles: list[str] = []
        new, alarm = [], ""
        for window, x in self.store.new_blocks(now, troubles):
            new.append(", ".join(f"{part.start}:{part.stop}" for part in window))
            alarm = self._add(window, x) or alarm
        whole = len(self.store.seen) == self.store.expected
        complete = self.store.complete and whole
        if not (new or troubles or restarted or complete != self._complete):
            return None
        self._complete = complete
        return Live(
            *(self.result(), len(self.store.seen), self.store.expected),
            new=tuple(new),
            alarm=alarm,
            troubles=tuple(troubles),
            restarted=restarted,
            complete=complete,
        )

    def result(self) -> xr.Dataset:
        """The spectra with copies of the maps so far."""
        cube = self.store.cube
        assert cube is not None
        dims = navigation_dims(cube)
        coords = {d: cube[d] for d in dims if d in cube.coords}
        fitted = self.projector.fitted
        maps = xr.DataArray(self.maps[ABUNDANCES].copy(), dims=(COMPONENT, *dims), coords=coords)
        maps = maps.assign_coords({COMPONENT: fitted[COMPONENT]}) if COMPONENT in fitted.coords else maps
        maps.attrs = dict(fitted[ABUNDANCES].attrs)
        made = projected_result(fitted, maps, cube, origin="the watched model")
        units = {
            "long_name": "root mean square residual over the channels",
            "units": fitted[ENDMEMBERS].attrs.get("units"),
        }
        made[RESIDUAL] = (dims, self.maps[RESIDUAL].copy(), {k: v for k, v in units.items() if v})
        return made.assign_coords({MASK: (dims, np.isfinite(self.maps[RESIDUAL]))})

    def _prepare(self, cube: xr.DataArray, *, keep: bool) -> None:
        """Make room for the maps of a cube; keep: those of the pixels that it had before."""
        self.projector.check(cube)
        before, shape = self.maps, tuple(cube.shape[:-1])
        count = self.projector.fitted.sizes[COMPONENT]
        self.maps = {
            ABUNDANCES: np.full((count, *shape), np.nan, dtype=np.float32),
            RESIDUAL: np.full(shape, np.nan, dtype=np.float32),
        }
        self.used = np.asarray(cube[MASK].values) if MASK in cube.coords else None
        if keep and before:
            common = tuple(slice(0, min(pair)) for pair in zip(shape, before[RESIDUAL].shape, strict=True))
            for name, values in before.items():
                self.maps[name][(..., *common)] = values[(..., *common)]
        else:
            self._running, self._complete = 0, False

    def _add(self, window: Window, x: Any) -> str:
        """Project a block x (..., y, x, E) into its window of the maps; a sentence where it completes an alarm."""
        used = np.ones(x.shape[:-1], dtype=bool) if self.used is None else self.used[window]
        rows = np.ascontiguousarray(x[used])
        if not len(rows):
            return ""
        maps, residual = self.projector(rows)
        block = np.full((*used.shape, maps.shape[1]), np.nan, dtype=np.float32)
        block[used] = maps
        self.maps[ABUNDANCES][(slice(None), *window)] = np.moveaxis(block, -1, 0)
        self.maps[RESIDUAL][window] = np.nan
        self.maps[RESIDUAL][window][used] = residual
        ratio, bound = self.projector.misfit(rows, residual, used.shape)
        self._running = self._running + 1 if ratio > bound else 0
        if self._running != BLOCKS_RUNNING:
            return ""
        place = ", ".join(f"{d} {part.start}:{part.stop}" for d, part in zip(self._dims, window, strict=True))
        return (
            f"the residual is {ratio:.2g} times the counts in {BLOCKS_RUNNING} blocks running (at most {bound:.2g} is "
            f"expected), the last at pixels {place}: the model lacks a spectrum, or the axis has drifted; "
            "fit what came so far with start=result (--start RESULT)"
        )

    @property
    def _dims(self) -> tuple[str, ...]:
        assert self.store.cube is not None
        return navigation_dims(self.store.cube)


class BlockProjector:
    """Abundances and residual of the pixels of a block by the method of a result, without a task graph.

    Parameters
    ----------
    result : Dataset
        Of a method that looks at single pixels.
    """

    def __init__(self, result: xr.Dataset) -> None:
        self.fitted = check_result(result)
        kind = model_class(str(result.attrs["model"]))
        model = kind.from_settings(settings_of(result))
        if model.halo or kind.rows_of is not Model.rows_of:
            raise InputError(
                f"{model.name} looks at more than a pixel at a time, so its blocks cannot be projected one by one; "
                "watch with a result of NMF, and project the complete cube with scalehsi.project"
            )
        self.fn, shared = model.projector(result)
        self.shared = {**shared, "residual": True}
        self.channels = result[ENDMEMBERS].sizes["energy"]
        self._squares, self._counts = self._sums_of_fit()
        self._ratios: dict[tuple[int, ...], tuple[float, float]] = {}

    def __call__(self, x: Any) -> tuple[Float, Float]:
        """Abundances (P, K) and residual (P,) of the pixels x (P, E)."""
        with one_blas_thread():
            pixels, _ = self.fn(x, **self.shared)
        return np.asarray(pixels[ABUNDANCES]), np.asarray(pixels[RESIDUAL])

    def check(self, cube: xr.DataArray) -> None:
        """Refuse a cube of other energies, and compile the kernels for its dtype."""
        check_axis("the result", self.fitted[ENDMEMBERS], cube)
        self(np.ones((2, self.channels), dtype=cube.dtype))

    def misfit(self, x: Any, residual: Float, shape: tuple[int, ...]) -> tuple[float, float]:
        """Sum of squared residuals of a block over its counts, and the bound of the alarm; infinite without counts.

        x (P, E), residual (P,): of the used pixels. shape: pixels of the whole block along each dim.
        """
        wide = x.astype(np.float64)
        counts, second = float(wide.sum()), float((wide**2).sum())
        squares = float((residual.astype(np.float64) ** 2).sum()) * self.channels
        if not counts > 0 or self._counts is None:
            return 0.0, math.inf
        if shape not in self._ratios:
            self._ratios[shape] = self._ratios_of_fit(shape)
        usual, worst = self._ratios[shape]
        spread = math.sqrt(max(2.0 * second - counts, counts)) / counts
        return squares / counts, max(worst, usual * (1.0 + float(ndtri(QUANTILE)) * spread))

    def _sums_of_fit(self) -> tuple[Any, Any]:
        """Squared residuals and counts of the pixels of the fit; None where it has no residual, or no counts."""
        if RESIDUAL not in self.fitted:
            return None, 1.0
        counts = (self.fitted[ABUNDANCES] * total_signal(self.fitted)).sum(COMPONENT)
        both = xr.Dataset({"squares": self.fitted[RESIDUAL].astype(np.float64) ** 2 * self.channels, "counts": counts})
        both = both.reset_coords(drop=True).compute()
        if not float(both["counts"].sum()) > 0 or bool((self.fitted[ENDMEMBERS] < 0).any()):
            return None, None
        return both["squares"], both["counts"]

    def _ratios_of_fit(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Squared residuals over counts in the fit: of all pixels, and the largest of blocks of this shape."""
        if self._squares is None:
            return 1.0, 0.0
        usual = float(self._squares.sum() / self._counts.sum())
        sizes = dict(zip(reversed(map_dims(self.fitted)), reversed(shape), strict=False))
        whole = {d: min(n, self._squares.sizes[d]) for d, n in sizes.items()}
        sums = [each.fillna(0.0).coarsen(whole, boundary="trim").sum() for each in (self._squares, self._counts)]
        ratios = (sums[0] / sums[1].where(sums[1] > 0)).fillna(0.0)
        return usual, float(ratios.max())
