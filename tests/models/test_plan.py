"""The plan against what happens: blocks, passes, readings and bytes as they are counted, and ways out that lead out."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import CountingStore, counts_cube, raise_if_dask_computes, random_mask

import scalehsi as hsi
from scalehsi.blocks import Capacity, map_fold, open_blocks
from scalehsi.chunks import MiB
from scalehsi.models.base import Model
from scalehsi.schema import InputError

GiB = 1024 * MiB

MODELS: dict[str, Model] = {
    "frobenius": hsi.NMF(3, max_iter=4, tol=0),
    "weighted": hsi.NMF(2, weighting="poisson", max_iter=2, tol=0),
    "poisson": hsi.NMF(4, loss="poisson", max_iter=3, tol=0),
    "pca": hsi.PCA(3),
    "sketch": hsi.PCA(2, solver="randomized", power=1, oversample=3),
}


def use(monkeypatch: pytest.MonkeyPatch, *, memory: int, threads: int = 1, workers: int = 1) -> None:
    """Let the scheduler offer this much; ``memory`` of one worker, ``threads`` in all."""
    here = Capacity(workers, threads, memory * workers, remote=False)
    for place in ("scalehsi.blocks.view.capacity", "scalehsi.models.plan.capacity", "scalehsi.models.fit.capacity"):
        monkeypatch.setattr(place, lambda: here)


def large(side: int, channels: int, *, chunk: int, dtype: str = "u2") -> xr.DataArray:
    """A cube that nobody can compute by accident."""
    values = da.zeros((side, side, channels), chunks=(chunk, chunk, channels), dtype=dtype)
    return hsi.make_cube(values, energy=np.arange(float(channels)), energy_units="eV")


# Figures and reality.


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("name", MODELS)
def test_blocks_passes_and_maps_are_those_of_the_fit(name: str, scheduler: str) -> None:
    cube, model = counts_cube((30, 20, 16)).chunk({"y": 4, "x": 10}), MODELS[name]
    passes: list[int] = []

    def listen(record: Any) -> None:
        if record.total and record.done == record.total:
            passes.append(record.total)

    with dask.config.set(scheduler=scheduler, num_workers=3):
        plan = hsi.plan(cube, model)
        assert (plan.workers, plan.threads) == (1, 3 if scheduler == "threads" else 1)
        result = hsi.fit(cube, model, progress=listen)
        assert plan.blocks == len(open_blocks(cube))
    assert set(passes) == {plan.blocks}
    assert len(passes) <= plan.passes <= len(passes) + 2
    assert plan.maps_bytes == result.abundances.nbytes + result.residual.nbytes
    assert plan.cube_bytes == cube.nbytes
    assert plan.model == model.name


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("name", ["frobenius", "pca"])
def test_a_streamed_cube_is_read_each_pass_and_a_resident_one_once(
    name: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counts_cube((40, 20, 32))
    store = CountingStore(counts.values)
    cube = counts.copy(data=da.from_array(store, chunks=(10, 10, 32), asarray=True))
    # Twice the cube and more keeps it; less streams it.
    use(monkeypatch, memory=int(cube.nbytes * (2.5 if resident else 1.8)))
    with dask.config.set(scheduler="synchronous"):
        plan = hsi.plan.__wrapped__(cube, MODELS[name]) if hasattr(hsi.plan, "__wrapped__") else None
        view = open_blocks(cube)
        assert view.resident is resident
        try:
            plan = hsi.plan(cube, MODELS[name])
        except InputError:
            plan = None
        hsi.fit(cube, MODELS[name])
    readings = Counter(store.reads.values())
    assert len(store.reads) == 8
    (times,) = readings
    if resident:
        assert times == 1
    else:
        assert times > 1
    if plan is not None:
        assert plan.resident is resident
        assert times <= plan.reads


@pytest.mark.parametrize("name", MODELS)
def test_what_a_block_sends_is_what_was_planned(name: str) -> None:
    cube, model = counts_cube((6, 5, 64)), MODELS[name]
    sent: list[int] = []

    def weigh(sums: dict[str, Any]) -> None:
        sent.append(sum(np.asarray(v).nbytes for k, v in sums.items() if not k.startswith("sample")))

    view = open_blocks(cube)
    state = model.init(view, 0)
    for step in range(2):
        _, sums = map_fold(*_pass(model, view, state))
        weigh(sums)
        state, _ = model.step(view, state)
        if model.name == "PCA":
            break
        del step
    planned = model.cost(cube.shape, 1).sums_bytes
    assert 0.75 * max(sent) <= planned <= 1.5 * max(sent)


def _pass(model: Model, view: Any, state: Any) -> Any:
    raise NotImplementedError
