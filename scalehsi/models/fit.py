"""The one fit loop: iterations, tolerance, status, progress, checkpoints, resume and provenance for every model."""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import Blocks, Pixels, branch, capacity, map_fold, map_pixels, open_blocks, open_surrounded
from scalehsi.checks import is_number, require
from scalehsi.kernels.pixel_rows.residual import leftover
from scalehsi.models.base import Model, Sources, State, Variables
from scalehsi.models.checkpoint import Checkpoint, Saved
from scalehsi.models.progress import Bar, Listener, Tracker
from scalehsi.models.sources import provenance, sources
from scalehsi.result import make_result
from scalehsi.schema import (
    ABUNDANCES,
    COMPONENT,
    ENDMEMBERS,
    ENERGY,
    RESIDUAL,
    RESIDUAL_SPECTRUM,
    InputError,
    Interrupted,
    Status,
)

WINDOW: Final = 5
"""Iterations over which the tolerance is judged, so that one small step does not end a fit."""
PATIENCE: Final = 12
"""Rejected steps in a row after which a fit counts as stagnated."""
HOME_BYTES: Final = 64 * 2**20
"""Maps up to this size come home when the fit ends; larger ones stay lazy and are computed where they are used."""
GRAPH_BYTES: Final = 8 * 2**20
"""Arrays above this are not put inside graphs that travel to other processes."""

log = logging.getLogger("scalehsi")


def fit(
    cube: xr.DataArray | Mapping[str, xr.DataArray],
    model: Model,
    *,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    checkpoint_minutes: float | None = None,
    resume: bool = False,
    progress: bool | Listener = False,
    residual: bool = True,
) -> xr.Dataset:
    """Fit a model to a cube, on this process's threads or on the cluster that is connected.

    Parameters
    ----------
    cube : xarray.DataArray, shape (..., y, x, E)
        Counts or intensities. Lazy cubes of any size; they are kept in the workers' memory when they fill at most half
        of it, and read again each pass otherwise. A boolean coordinate ``mask`` over the pixel dims (True = use) is
        honoured. For models of several acquisitions a mapping of them by name, such as
        ``{"spatial": a, "spectral": b}``; for `ParallelGP` a result or maps ``(component, ..., y, x)``.
    model : Model
        For example ``scalehsi.NMF(n_components=3)``.
    seed : int, default 0
        Random numbers are counted on the seed and the absolute pixel: neither chunks nor schedulers change a result.
    device : {"auto", "cpu", "cuda"}
        "cuda" without a usable GPU is an error; "auto" takes one if there is one and the model with these settings runs
        on it (``model.devices``), and logs its choice. Whole fits with "cuda" have run through CUDA kernels compiled
        for a CPU, but not on a GPU yet.
    checkpoint : path, optional
        A folder for the state. It is written every ``checkpoint_every`` iterations, and when the process gets SIGTERM
        or SIGINT, as queues send before a job's wall time ends.
    checkpoint_every : int, default 1
        States are small (endmembers, not maps), so every iteration is seldom too often.
    checkpoint_minutes : float, optional
        Write at most once in so many minutes instead.
    resume : bool, default False
        Go on from the checkpoint if it holds a state, start afresh if it is empty. The numbers are those of an
        uninterrupted run: bit for bit on the same scheduler and chunks.
    progress : bool or callable, default False
        True draws a bar on a terminal. A callable gets a `Progress` record for every block and iteration.
    residual : bool, default True
        Also give the residual of each pixel and the mean residual spectrum, for 2 P E K flops in the last pass.

    Returns
    -------
    xarray.Dataset
        ``endmembers`` (component, energy) in the cube's intensity unit, ``abundances`` (component, ..., y, x),
        ``objective`` (iteration), ``residual`` (..., y, x) root mean square over channels, ``residual_spectrum``
        (energy) mean of data minus model, and the method's own; ``attrs["status"]`` and ``attrs["advice"]`` say how it
        ended, ``attrs["readings"]`` how often the whole cube was read. Maps of up to 64 MiB are computed; larger ones
        are lazy and read the cube when used (`scalehsi.save` does it once).

    Raises
    ------
    InputError
        When cube, model or checkpoint do not fit; with what was got, what was expected and what to type.
    Interrupted
        After SIGINT or SIGTERM, when the checkpoint (if any) is written. A KeyboardInterrupt.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(n_components=4, max_iter=20), seed=0)
    >>> result["abundances"].dims, result["endmembers"].sizes["component"]
    (('component', 'y', 'x'), 4)
    """
    given = sources(cube, model)
    if resume and checkpoint is None:
        raise InputError(
            "resume=True needs the folder to resume from; give checkpoint='run.ckpt' (--checkpoint run.ckpt)"
        )
    require(is_number(seed, numbers.Integral) and seed >= 0, f"seed is a whole number of at least 0, got {seed!r}")
    store = None if checkpoint is None else Checkpoint(checkpoint, model=model, seed=seed, given=given)
    saved = None if store is None else store.prepare(resume=resume)
    view = open_blocks(given.cube, device=_device(device, model))
    bar = Bar() if progress is True else None
    tracker = Tracker(bar or (progress if callable(progress) else None), model.max_iter)
    view.report = tracker.report
    for name, each in given.beside.items():
        branch(view, name, partial(open_blocks, each, device=view.device))
    saver = _Saver(store, every=checkpoint_every, minutes=checkpoint_minutes)
    try:
        with _stoppable():
            state, history, status, advice = _iterate(view, model, seed, saved, saver, tracker)
            tracker.enter("maps", len(history))
            result = _finish(view, model, given, state, history, (status, advice), seed=seed, residual=residual)
            result.attrs["readings"] = _readings(view, apart=given.beside)
            if given.beside:
                result.attrs["sources"] = provenance(given)
            return result
    except _Stop as stop:
        where = saver.flush()
        done = f"after {saver.iteration} iterations"
        hint = (
            f"; the state is in {where}: fit again with resume=True (--resume)" if where else "; no checkpoint was set"
        )
        raise Interrupted(f"stopped by {stop} {done}{hint}", checkpoint=where, iteration=saver.iteration) from None
    finally:
        if bar is not None:
            bar.close()


def _device(wanted: str, model: Model) -> arrays.Device:
    """The device that will be used; "auto" chooses among those that the model runs on."""
    if wanted == "auto" and len(model.devices) == 1:
        return model.devices[0]
    device = arrays.resolve_device(wanted)
    if device not in model.devices:
        raise InputError(
            f"{model.name} with these settings runs on {' or '.join(model.devices)}, not on {device}; "
            f"fit with device={model.devices[0]!r}"
        )
    return device


def _iterate(
    view: Blocks, model: Model, seed: int, saved: Saved | None, saver: _Saver, tracker: Tracker
) -> tuple[State, list[float], Status, str]:
    status: Status | None = None
    advice = ""
    if saved is None:
        tracker.enter("start", 0)
        state, history, rejected = model.init(view, seed), [], 0
    else:
        state, history, rejected = saved.state, list(saved.objective), saved.rejected
        log.info("resumed after iteration %d", len(history))
        saver.iteration = len(history)
        # The tolerance may have changed since: judge again.
        status = "converged" if saved.done else _judge(history, model.tol, rejected=rejected)
    tracker.enter("iterate", len(history))
    while status is None and len(history) < model.max_iter:
        new, stats = model.step(view, state)
        if not np.isfinite(stats.objective):
            return state, history, "nonfinite", ""
        state = new
        advice = stats.advice
        history.append(float(stats.objective))
        rejected = 0 if stats.progressing else rejected + 1
        status = "converged" if stats.done else None
        if status is None and stats.settled:
            status = _judge(history, model.tol, rejected=rejected)
        saver.keep(Saved(state, list(history), stats.done, rejected), final=status is not None)
        tracker.finished(len(history), history[-1])
    return state, history, status or "max_iter", advice if status == "converged" else ""


def settle(view: Blocks, model: Model, seed: int, *, state: State | None = None) -> tuple[State, list[float]]:
    """Run the loop of a model to its end, as a part of another model: no checkpoint, no result, no word about it.

    From the given state, or from the model's first one.
    """
    state, history, rejected = model.init(view, seed) if state is None else state, [], 0
    while len(history) < model.max_iter:
        new, stats = model.step(view, state)
        if not np.isfinite(stats.objective):
            break
        state = new
        history.append(float(stats.objective))
        rejected = 0 if stats.progressing else rejected + 1
        if stats.done or (stats.settled and _judge(history, model.tol, rejected=rejected)):
            break
    return state, history


def _judge(history: list[float], tol: float, *, rejected: int) -> Status | None:
    """Converged when the mean relative gain of the last iterations is at most ``tol``; None to go on."""
    if rejected >= PATIENCE:
        return "stagnated"
    if len(history) <= WINDOW or rejected:
        return None
    gain = history[-1 - WINDOW] - history[-1]
    return "converged" if gain <= tol * WINDOW * max(abs(history[-1]), np.finfo(float).tiny) else None


def _finish(
    view: Blocks,
    model: Model,
    given: Sources,
    state: State,
    history: list[float],
    ending: tuple[Status, str],
    *,
    seed: int,
    residual: bool,
) -> xr.Dataset:
    """The last pass, and all that was found put together."""
    variables = model.finish(view, state)
    status, advice = model.ending(variables, *ending)
    if ABUNDANCES not in variables:
        _add_maps(view, model, state, variables, residual=residual)
    elif residual and given.frame is None:
        _add_residual(view, model, state, variables)
    frame = view.cube if given.frame is None else given.frame
    _label(variables, frame)
    return make_result(
        {**variables, **given.carried},
        cube=frame,
        model=model.name,
        settings=model.to_settings(),
        seed=seed,
        objective=history,
        status=status,
        advice=advice,
    )


def _add_maps(view: Blocks, model: Model, state: State, variables: Variables, *, residual: bool) -> None:
    """The maps by the model's block function, and what they leave."""
    frame = xr.Dataset(variables, attrs={"model": model.name})
    n = frame.sizes[COMPONENT]
    wanted = [ABUNDANCES, *([RESIDUAL] if residual else [])]
    home = _map_bytes(view, n + residual) <= HOME_BYTES
    name = f"{model.name.lower()}-maps"
    seen: dict[str, Any] = {"halo": model.halo, "tile": model.halo > 0}
    # A halo is read along: the cube's own blocks with it would be a second copy.
    target = view
    if model.halo:
        target = branch(view, "maps", lambda: open_surrounded(view.cube, device=view.device, packed=model.packed))
    fn, shared, along = model.last_pass(target, frame)
    shared = {**shared, "residual": residual}
    handles, sums = map_fold(fn, target, *along, shared=shared, keep=wanted if home else (), name=name, **seen)
    if not home:
        lazy = target if model.halo else open_blocks(view.cube, device=view.device, resident=False)
        lazy.branches.update(view.branches)
        along = model.last_pass(lazy, frame)[-1]
        handles = map_pixels(fn, lazy, *along, shared=shared, keep=wanted, name=name, **seen)
    variables[ABUNDANCES] = _maps(handles[ABUNDANCES], {COMPONENT: n}, home=home)
    if residual:
        pixels = float(state["pixels"])
        variables[RESIDUAL] = _maps(handles[RESIDUAL], {}, home=home)
        variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / pixels, dims=(ENERGY,))


def _add_residual(view: Blocks, model: Model, state: State, variables: Variables) -> None:
    """What the maps leave where the model brought them itself."""
    maps = variables[ABUNDANCES]
    rows = maps.fillna(0.0).transpose(*[d for d in maps.dims if d != COMPONENT], COMPONENT)
    s = np.asarray(variables[ENDMEMBERS].values, dtype=np.float64)
    name = f"{model.name.lower()}-residual"
    handles, sums = map_fold(leftover, view, rows, shared={"s": s}, keep=[RESIDUAL], name=name)
    variables[RESIDUAL] = _maps(handles[RESIDUAL], {}, home=True)
    variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / float(state["pixels"]), dims=(ENERGY,))


def _readings(view: Blocks, *, apart: Collection[str] = ()) -> int:
    """Full readings of the cube: by its own passes, and by those over what was made of it, but for these branches."""
    own = [made for name, made in view.branches.items() if name not in apart and not made.derived]
    return view.reads + sum(map(_readings, own))


def _map_bytes(view: Blocks, columns: int) -> int:
    return int(np.prod(view.shape)) * columns * 4


def _maps(handle: Pixels, columns: dict[str, int], *, home: bool) -> xr.DataArray:
    """Maps as the cube is: lazy ones chunked like the blocks for a lazy cube, numpy for a cube in memory."""
    lazy = handle.to_dataarray(columns)
    if not home:
        return lazy
    here = lazy.compute()
    wrap = handle.view.cube.chunks is not None and (not capacity().remote or here.nbytes <= GRAPH_BYTES)
    return here.chunk(dict(zip(lazy.dims, lazy.chunks or (), strict=True))) if wrap else here


def _label(variables: dict[str, xr.DataArray], cube: xr.DataArray) -> None:
    unit = str(cube.attrs.get("units", "counts" if cube.dtype.kind == "u" else "intensity"))
    words = {
        ENDMEMBERS: ("endmember spectrum", unit),
        ABUNDANCES: ("abundance", ""),
        RESIDUAL: ("root mean square residual over the channels", unit),
        RESIDUAL_SPECTRUM: ("mean of data minus model", unit),
    }
    for name, (text, units) in words.items():
        if name in variables:
            variables[name].attrs = {"long_name": text, "units": units, **variables[name].attrs}


@dataclass
class _Saver:
    """Decides when the last state goes to disk, and writes what is pending when the process is told to stop."""

    store: Checkpoint | None
    every: int
    minutes: float | None
    iteration: int = 0
    pending: Saved | None = None
    written: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"checkpoint_every is a whole number of at least 1, got {self.every}")
        self.written = time.monotonic()

    def keep(self, saved: Saved, *, final: bool) -> None:
        self.iteration = len(saved.objective)
        self.pending = saved
        due = self.iteration % self.every == 0
        if self.minutes is not None:
            due = time.monotonic() - self.written >= 60 * self.minutes
        if final or due:
            self.flush()

    def flush(self) -> str | None:
        """Write the pending state; give the folder's name if it holds one."""
        if self.store is None:
            return None
        if self.pending is not None:
            self.store.write(self.pending)
            self.pending = None
            self.written = time.monotonic()
        return str(self.store.folder) if self.store.exists() else None


class _Stop(BaseException):
    """A signal asked to stop; raised in the main thread, out of whatever it waits for."""


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `_Stop`, once: a second signal does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _: FrameType | None) -> None:
        restore()
        raise _Stop(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
