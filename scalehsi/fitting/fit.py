"""Fit a model to a cube: checks, loop, checkpoint, last pass and provenance for every method."""

from __future__ import annotations

import json
import logging
import numbers
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import xarray as xr

from scalehsi import arrays
from scalehsi.blocks import Blocks, branch, open_blocks
from scalehsi.blocks.lost_workers import workers_watched
from scalehsi.checks import is_number, require
from scalehsi.fitting.checkpoint import Checkpoint, Saved, Saver
from scalehsi.fitting.judge.convergence import still_turning
from scalehsi.fitting.judge.order import inherited, judge, ordered
from scalehsi.fitting.last_pass import add_maps, add_residual, label
from scalehsi.fitting.loop import Ended, recorded_inner_fits, run_loop
from scalehsi.fitting.model import Inputs, Model
from scalehsi.fitting.plan import plan
from scalehsi.fitting.progress import Bar, Listener, Tracker
from scalehsi.fitting.sources import provenance, select_inputs
from scalehsi.fitting.survey import read_fingerprint
from scalehsi.interrupt import Stop, stoppable, uninterrupted
from scalehsi.result import check_result, make_result, names_of_components
from scalehsi.schema import ABUNDANCES, COMPONENT, DataChanged, InputError, Interrupted, WorkersLost

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
    start: xr.Dataset | None = None,
) -> xr.Dataset:
    """Fit a model to a cube, on the threads of this process or on the connected cluster.

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
        Minutes between two writes, in place of ``checkpoint_every``.
    resume : bool, default False
        Resume from the checkpoint if it holds a state, start from the beginning if it is empty. The numbers are those
        of an uninterrupted run: bit for bit on the same scheduler and chunks.
    progress : bool or callable, default False
        True draws a bar on a terminal. A callable gets a `Progress` record for every block and iteration.
    residual : bool, default True
        Also give the residual of each pixel and the mean residual spectrum, for 2 P E K flops in the last pass.
    start : xarray.Dataset, optional
        A result of the same method and number of components, from where NMF and the networks go on: with more pixels of
        the acquisition, or other settings. Stands for the setting ``start`` of the model; components keep their order
        and names.

    Returns
    -------
    xarray.Dataset
        ``endmembers`` (component, energy) in the cube's intensity unit, ``abundances`` (component, ..., y, x),
        ``objective`` (iteration), ``residual`` (..., y, x) root mean square over channels, ``residual_spectrum``
        (energy) mean of data minus model, and the method's own; ``attrs["status"]`` and ``attrs["advice"]`` say how it
        ended, ``attrs["readings"]`` how often the whole cube was read, ``attrs["inner_fits"]`` how fits inside the fit
        ended. Maps of up to 64 MiB are computed; larger ones
        are lazy and read the cube when used (`scalehsi.save` does it once).

    Raises
    ------
    InputError
        When cube, model and checkpoint do not fit together; says what was got, what was expected and what to type.
    WorkersLost
        When the cluster's scheduler is lost, or all its workers for 30 s; the checkpoint (if any) is written.
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
    model = model if start is None else _started(model, start)
    inputs = select_inputs(cube, model)
    if resume and checkpoint is None:
        raise InputError(
            "resume=True needs the folder to resume from; give checkpoint='run.ckpt' (--checkpoint run.ckpt)"
        )
    if inputs.cube.attrs.get("stabilised"):
        log.warning("fit: after anscombe mixtures are no sums of spectra any more; fit the counts, without that step")
    needs = plan(cube, model)  # refuses what would not fit in memory
    require(is_number(seed, numbers.Integral) and seed >= 0, f"seed is a whole number of at least 0, got {seed!r}")
    store = None if checkpoint is None else Checkpoint(checkpoint, model=model, seed=seed, inputs=inputs)
    bar = Bar() if progress is True else None
    saver = Saver(store, every=checkpoint_every, minutes=checkpoint_minutes)
    saved: Saved | None = None
    try:
        with stoppable(), workers_watched():
            saved = None if store is None else store.prepare(resume=resume)
            saver.iteration = 0 if saved is None else len(saved.objective)
            beside = tuple(inputs.beside.values())
            view = open_blocks(inputs.cube, device=_device(device, model), resident=needs.resident, beside=beside)
            tracker = Tracker(bar or (progress if callable(progress) else None), model.max_iter)
            view.report = tracker.report
            for name, each in inputs.others.items():
                kept = False if beside else None
                branch(view, name, partial(open_blocks, each, device=view.device, resident=kept))
            views = {inputs.name: view, **{name: view.branches[name] for name in inputs.others}}
            if store is not None:
                _keep_fingerprints(views, store)
            with recorded_inner_fits([] if saved is None else saved.inner) as inner:
                if saved is not None and store is not None:
                    _check_values(views, saved, store)
                ended = run_loop(view, model, seed, saved=saved, saver=saver, tracker=tracker)
                tracker.enter("maps", len(ended.objective))
                result = _finished(view, model, inputs, ended, seed=seed, residual=residual)
                result.attrs["readings"] = _readings(view, apart=inputs.others)
                named = cube if isinstance(cube, xr.Dataset) else start
                if named is not None and len(names_of_components(named.attrs)) == result.sizes[COMPONENT]:
                    result.attrs["components"] = named.attrs["components"]
                if inputs.others:
                    result.attrs["sources"] = provenance(inputs)
                if inner:
                    result.attrs["inner_fits"] = json.dumps(inner)
                    failed = [each["purpose"] for each in inner if each["status"] == "nonfinite"]
                    if failed:
                        result.attrs["advice"] += f" An inner fit became non-finite: {', '.join(failed)}."
                return result
    except DataChanged as error:
        where = saver.flush()
        hint = f"; the state before is in {where}" if where else ""
        raise DataChanged(f"{error}{hint}") from None
    except InputError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError) as error:
        if saved is None or store is None:
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(
            f"the state in {str(store.path)!r} does not continue this fit ({reason}); remove it to start again"
        ) from error
    except WorkersLost as error:
        where = saver.flush()
        hint = f"; the state is in {where}: fit again with resume=True (--resume)" if where else ""
        raise WorkersLost(f"{error}{hint}") from error.__cause__
    except Stop as stop:
        where = saver.flush()
        done = f"after {saver.iteration} iterations"
        hint = (
            f"; the state is in {where}: fit again with resume=True (--resume)" if where else "; no checkpoint was set"
        )
        raise Interrupted(f"stopped by {stop} {done}{hint}", checkpoint=where, iteration=saver.iteration) from None
    finally:
        with uninterrupted():
            if store is not None:
                store.release()
            if bar is not None:
                bar.close()


def _started(model: Model, start: xr.Dataset) -> Model:
    """The model with a result as its start."""
    if "start" not in {f.name for f in fields(model)}:
        raise InputError(f"{model.name} does not start from a result; NMF and the networks do, leave start= out")
    given: dict[str, Any] = {"start": check_result(start)}
    return replace(model, **given)


def _keep_fingerprints(views: Mapping[str, Blocks], store: Checkpoint) -> None:
    """Let the first reading of each input compute its fingerprint, for the checkpoint."""
    for view in views.values():
        view.keeps_fingerprint = True
    store.fingerprints = lambda: {name: v.fingerprint for name, v in views.items() if v.fingerprint is not None}


def _check_values(views: Mapping[str, Blocks], saved: Saved, store: Checkpoint) -> None:
    """Refuse to resume with other values, or another mask, than those of the checkpoint; reads each input once.

    views: the inputs by name. saved: what was read from the store.
    """
    for name, view in views.items():
        before = saved.fingerprints.get(name)
        if before is not None and read_fingerprint(view) != before:
            raise InputError(
                f"the checkpoint {str(store.folder)!r} is of other data: shape and dtype of the {name} are the same, "
                "its values or its mask are not; fit the same data, or give another folder"
            )


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


def _finished(view: Blocks, model: Model, inputs: Inputs, ended: Ended, *, seed: int, residual: bool) -> xr.Dataset:
    """The result of a fit whose loop has ended, with the maps of the last pass.

    view: the fitted cube. inputs: the data of the fit. ended: state, objective, status and advice of the loop.
    seed: for the provenance. residual: also the residual of each pixel and channel.
    """
    variables = model.finish(view, ended.state)
    status, advice = model.final_status(variables, ended.status, ended.advice)
    evidence = None
    if ABUNDANCES not in variables:
        evidence = add_maps(view, model, ended.state, variables, residual=residual)
    elif inputs.frame is None:
        evidence = add_residual(view, model, ended.state, variables, residual=residual)
    frame = view.cube if inputs.frame is None else inputs.frame
    label(variables, frame)
    if evidence is not None:
        chosen = model.attributes(variables)
        evidence = replace(evidence, loss=chosen.get("loss", evidence.loss), settings={**evidence.settings, **chosen})
    turning = still_turning(ended.turn, ended.status, flat=ended.flat, max_iter=model.max_iter)
    found = [*model.warnings(variables), *([] if evidence is None else judge(evidence))]
    found += [*([] if turning is None else [turning]), *inherited(view.cube.attrs)]
    result = make_result(
        {**variables, **inputs.carried},
        cube=frame,
        model=model.name,
        settings=model.to_settings(),
        seed=seed,
        objective=ended.objective,
        status=status,
        advice=advice,
        warnings=ordered(found),
    )
    if evidence is not None:
        result.attrs["variance_index"] = evidence.variance_index
    result.attrs |= model.attributes(variables)
    return result


def _readings(view: Blocks, *, apart: Collection[str] = ()) -> int:
    """Full readings of the cube, by its own passes and by those over its branches except the named ones."""
    own = [made for name, made in view.branches.items() if name not in apart and not made.derived]
    return view.reads + sum(map(_readings, own))
