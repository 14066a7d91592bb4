"""What several test files use. It is importable in worker processes, because pytest puts this folder on the path."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask._task_spec import Task

from scalehsi.blocks import map_fold
from scalehsi.cube import make_cube


class CountingScheduler:
    """A scheduler in the calling thread that counts the runs that have work to do, and refuses one too many.

    A run that only hands out what was computed before has no work.
    """

    def __init__(self, max_computes: int = 0) -> None:
        self.max_computes = max_computes
        self.computes = 0

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        graph = dict(dsk.__dask_graph__() if hasattr(dsk, "__dask_graph__") else dsk)
        if any(isinstance(node, Task) or (isinstance(node, tuple) and callable(node[0])) for node in graph.values()):
            self.computes += 1
            if self.computes > self.max_computes:
                raise RuntimeError(f"compute number {self.computes}, at most {self.max_computes} are allowed")
        return dask.get(graph, keys, **kwargs)


@contextmanager
def raise_if_dask_computes(max_computes: int = 0) -> Iterator[CountingScheduler]:
    """Let Dask compute at most so often inside the block."""
    scheduler = CountingScheduler(max_computes)
    with dask.config.set(scheduler=scheduler):
        yield scheduler


class CountingStore:
    """Stands for a store on disk: counts how often each chunk is read."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.reads: Counter[tuple[tuple[int, int], ...]] = Counter()
        self._lock = threading.Lock()

    def __getitem__(self, window: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        got: np.ndarray[Any, Any] = self.values[window]
        if got.size:
            with self._lock:
                self.reads[tuple(s.indices(n)[:2] for s, n in zip(window, self.shape, strict=True))] += 1
        return got


def counts_cube(shape: tuple[int, ...], *, seed: int = 0, dtype: str = "u1", mask: Any = None) -> xr.DataArray:
    """Poisson counts in memory."""
    counts = np.random.default_rng(seed).poisson(3.0, shape).astype(dtype)
    return make_cube(counts, energy=np.arange(shape[-1]) * 0.1, energy_units="keV", signal="EDS", mask=mask)


def random_mask(shape: tuple[int, ...], *, seed: int = 1, share: float = 0.7) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True for about so large a share of the pixels, and for one at least."""
    mask = np.random.default_rng(seed).random(shape) < share
    mask.flat[0] = True
    return mask


# Block functions.


def moments(x: Any, *aligned: Any, **shared: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Integer sums of every kind, and per pixel the total and the first two channels; exact on any chunking."""
    wide = x.astype(np.int64)
    pixels = {"total": wide.sum(axis=1), "two": x[:, :2]}
    sums = {"n": x.shape[0], "spectrum": x.sum(axis=0), "gram": wide.T @ wide}
    for i, rows in enumerate(aligned):
        sums[f"aligned_{i}"] = (rows.reshape(rows.shape[0], -1) * wide[:, :1]).sum(axis=0)
    return pixels, sums


def update(x: Any, c: Any = None, *, s: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A step of an iteration in floats: new rows from old ones and from what is shared."""
    scores = x.astype(np.float64) @ s.T
    new = scores if c is None else 0.5 * c + scores / (1.0 + np.abs(s).sum())
    return {"c": new}, {"cx": new.T @ x, "cc": new.T @ new, "n": x.shape[0]}


def iterate(view: Any, *, passes: int, fn: Any = update, components: int = 3, **options: Any) -> dict[str, Any]:
    """Some passes as a model makes them: rows kept by the workers, sums home, spectra shared."""
    s = np.linspace(0.0, 1.0, components * view.n_energies).reshape(components, view.n_energies)
    handles, sums = map_fold(fn, view, shared={"s": s}, keep=["c"], name="nmf-update", **options)
    for _ in range(passes - 1):
        s = sums["cx"] / (1.0 + np.abs(sums["cx"]).max())
        handles, sums = map_fold(fn, view, handles["c"], shared={"s": s}, keep=["c"], name="nmf-update", **options)
    return {**sums, "maps": handles["c"].to_dataarray({"component": components}, dtype="f8").values}


def assert_same(got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """The same names and the same bits."""
    assert set(got) == set(want)
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


class Once:
    """True the first time it is asked under a name, in whatever process: a file marks that it happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __call__(self, name: str) -> bool:
        try:
            with (Path(self.folder) / name).open("x"):
                return True
        except FileExistsError:
            return False


class FailEveryThird:
    """A block function whose every third block raises the first time it is computed in a pass."""

    def __init__(self, folder: Path) -> None:
        self.once = Once(folder)

    def __call__(self, x: Any, c: Any = None, *, tile: Any, s: Any) -> Any:
        # The shared arguments identify the pass, the first pixel identifies the block.
        name = f"{zlib.crc32(s.tobytes())}-{tile.index[0]}"
        if self.once(f"seen-{name}"):
            # A number that no other process has: two that look at once must not count alike.
            number = next(n for n in itertools.count() if self.once(f"number-{n}"))
            if number % 3 == 2 and self.once(f"failed-{name}"):
                raise OSError("the file system hiccups")
        return update(x, c, s=s)


class KillWorker:
    """A block function that kills its own process once, in the middle of the given pass."""

    def __init__(self, folder: Path, *, at_call: int) -> None:
        self.once = Once(folder)
        self.at_call = at_call

    def __call__(self, x: Any, c: Any = None, *, tile: Any, s: Any) -> Any:
        folder = Path(self.once.folder)
        with (folder / f"call-{os.getpid()}").open("a") as log:
            log.write("x")
        calls = sum(file.stat().st_size for file in folder.glob("call-*"))
        if calls >= self.at_call and self.once("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return update(x, c, s=s)
