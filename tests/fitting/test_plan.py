"""The plan against what happens: blocks, passes, readings and bytes as they are counted, and ways out that lead out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import Capacity, map_fold, open_blocks
from scalehsi.blocks.compute import PROCESS_BYTES, WORKER_SHARE
from scalehsi.blocks.stored_chunks import reading
from scalehsi.chunks import MiB
from scalehsi.fitting.model import Model
from scalehsi.schema import InputError
from tests.helpers import CountingStore, counts_cube, raise_if_dask_computes

pytestmark = pytest.mark.long

MODELS: dict[str, Model] = {
    "frobenius": hsi.NMF(3, loss="frobenius", max_iter=4, tol=0, compress=False),
    "weighted": hsi.NMF(2, weighting="poisson", max_iter=2, tol=0),
    "poisson": hsi.NMF(4, loss="poisson", bin_factor=1, max_iter=3, tol=0),
    "pca": hsi.PCA(3),
    "sketch": hsi.PCA(2, solver="randomized", power=1, oversample=3),
}


def use(
    monkeypatch: pytest.MonkeyPatch, *, memory: int, threads: int = 1, workers: int = 1, remote: bool = False
) -> None:
    """Let the scheduler offer so much: ``memory`` and ``threads`` of one worker."""
    here = Capacity(workers, threads * workers, memory * workers, remote=remote)
    for place in ("scalehsi.blocks.opening.capacity", "scalehsi.fitting.plan.capacity"):
        monkeypatch.setattr(place, lambda: here)


def large(side: int, channels: int, *, chunk: int, dtype: str = "u2") -> xr.DataArray:
    """A lazy cube of any size."""
    values = da.zeros((side, side, channels), chunks=(chunk, chunk, channels), dtype=dtype)
    return hsi.make_cube(values, energy=np.arange(float(channels)), energy_units="eV")


# Figures and reality.


def test_a_fit_in_a_subspace_keeps_its_numbers_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = large(4000, 1024, chunk=16)
    use(monkeypatch, memory=2**33)
    small, full = (hsi.plan(cube, hsi.NMF(3, loss="frobenius", compress=flag)) for flag in ("auto", False))
    assert not small.resident
    # The survey, which ends before these numbers are kept, is the larger part of the other plan.
    assert 0 <= 4 * 17 * 4000 * 4000 - (small.worker_bytes - full.worker_bytes) < 8 * MiB


def test_bins_of_counts_are_surveyed_too() -> None:
    cube = counts_cube((30, 20, 16))
    bins, single = (hsi.plan(cube, hsi.NMF(3, loss="poisson", bin_factor=b)) for b in ("auto", 1))
    assert bins.passes == single.passes + 1


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
        assert plan.blocks == len(open_blocks(cube))
        result = hsi.fit(cube, model, progress=listen)
    assert set(passes) == {plan.blocks}
    assert len(passes) == plan.passes
    assert plan.maps_bytes == result.abundances.nbytes + result.residual.nbytes
    assert plan.cube_bytes == cube.nbytes
    assert plan.model == model.name


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("name", ["frobenius", "pca"])
def test_a_streamed_cube_is_read_each_pass_and_a_resident_one_once(
    name: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counts_cube((128, 128, 128))
    store = CountingStore(counts.values)
    cube = counts.copy(data=da.from_array(store, chunks=(32, 32, 128), asarray=True))
    use(monkeypatch, memory=int(cube.nbytes * (3 if resident else 1.9)))
    monkeypatch.setattr("scalehsi.fitting.survey.SAMPLE_PIXELS", 300)  # for a quick start
    for what in ("BASE_BYTES", "JUDGED_COPIES"):
        monkeypatch.setattr(f"scalehsi.fitting.plan.{what}", 0)  # more than this small cube
    with dask.config.set(scheduler="synchronous"):
        plan = hsi.plan(cube, MODELS[name])
        assert not store.reads
        hsi.fit(cube, MODELS[name])
    assert plan.resident is resident
    assert len(store.reads) == 16
    assert set(store.reads.values()) == {1 if resident else plan.passes}
    assert plan.reads == (1 if resident else plan.passes)


@pytest.mark.parametrize("name", MODELS)
def test_what_the_blocks_of_a_pass_send_is_what_was_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, model = counts_cube((9, 8, 64)).chunk({"y": 2}), MODELS[name]
    if name == "sketch":
        model = replace(model, oversample=16)  # as wide as they mostly are
    sent: list[int] = []

    def weighed(*args: Any, **kwargs: Any) -> Any:
        handles, sums = map_fold(*args, **kwargs)
        sent.append(sum(np.asarray(v).nbytes for v in sums.values()))
        return handles, sums

    for module in ("nmf.model", "pca"):
        monkeypatch.setattr(f"scalehsi.models.{module}.map_fold", weighed)
    with dask.config.set(scheduler="synchronous"):
        plan = hsi.plan(cube, model)
        hsi.fit(cube, model)
    assert 0.8 < plan.reduced_bytes / plan.blocks / max(sent) < 1.25


def test_nothing_is_read_and_a_terabyte_is_planned() -> None:
    cube = large(100_000, 2048, chunk=64)
    with raise_if_dask_computes(0):
        plan = hsi.plan(cube, MODELS["frobenius"])
    assert plan.cube_bytes == 2 * 2048 * 10**10
    assert not plan.resident
    assert plan.worker_bytes <= plan.memory


def test_a_plan_prints_three_lines_and_travels_as_json() -> None:
    plan = hsi.plan(counts_cube((30, 20, 16)), MODELS["frobenius"])
    lines = str(plan).splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"NMF: 9\.38 kiB in 1 blocks of up to 9\.38 kiB, kept in the workers' memory", lines[0])
    assert "1 worker(s)" in lines[1]
    assert "at most 6 passes, 1 of them from the store" in lines[2]
    assert json.loads(json.dumps(plan.to_dict()))["passes"] == 6


def test_the_mask_does_not_change_the_plan() -> None:
    cube = counts_cube((30, 20, 16))
    masked = cube.assign_coords(mask=(("y", "x"), np.arange(600).reshape(30, 20) % 2 == 0))
    with dask.config.set(scheduler="synchronous"):
        plans = [hsi.plan(c, MODELS["pca"]).to_dict() for c in (cube, masked)]
    for plan in plans:
        del plan["memory"]  # what is free just now
    assert plans[0] == plans[1]


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["frobenius", "pca"])
def test_on_a_cluster_the_plan_counts_its_workers(name: str, client: Any) -> None:
    cube, model = counts_cube((30, 20, 16)).chunk({"y": 4, "x": 10}), MODELS[name]
    totals: set[int] = set()
    plan = hsi.plan(cube, model)
    assert (plan.workers, plan.threads) == (2, 2)
    assert plan.memory == int(WORKER_SHARE * 1024 * MiB) - PROCESS_BYTES
    hsi.fit(cube, model, progress=lambda record: totals.add(record.total))
    assert totals == {0, plan.blocks}


# Refusals, and the ways out.

TIGHT: dict[str, tuple[xr.DataArray, Model, dict[str, Any]]] = {
    "sums of many channels": (large(500, 2048, chunk=50), hsi.PCA(3), {"memory": 64 * MiB}),
    "many threads": (large(2000, 1024, chunk=64), hsi.PCA(3), {"memory": 256 * MiB, "threads": 16}),
    "large chunks": (large(4000, 1024, chunk=160), hsi.NMF(3, loss="frobenius"), {"memory": 125 * MiB}),
    "large chunks, many threads": (large(4000, 1024, chunk=120), hsi.NMF(3), {"memory": 300 * MiB, "threads": 4}),
    "a cluster": (large(500, 2048, chunk=50), hsi.PCA(3), {"memory": 64 * MiB, "workers": 4, "remote": True}),
    "resident with more": (large(172, 2048, chunk=43), hsi.PCA(3), {"memory": 64 * MiB}),
    "whole chunks with more": (large(1960, 2048, chunk=196), hsi.PCA(3), {"memory": 64 * MiB}),
}


def test_a_cube_that_leaves_no_room_for_the_passes_is_read_again_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, memory=2600 * MiB, threads=32)
    cube = large(800, 1024, chunk=80)
    assert open_blocks(cube).resident
    plan = hsi.plan(cube, hsi.PCA(5))
    assert not plan.resident
    assert plan.reads == plan.passes
    assert plan.worker_bytes <= plan.memory


def test_a_sample_of_64_bit_numbers_is_as_large_as_one_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, memory=2**30)
    plans = {dtype: hsi.plan(large(2000, 1024, chunk=16, dtype=dtype), MODELS["frobenius"]) for dtype in ("i8", "f4")}
    wider = plans["i8"].block_bytes - plans["f4"].block_bytes + plans["i8"].reading_bytes - plans["f4"].reading_bytes
    assert plans["i8"].worker_bytes - plans["f4"].worker_bytes == wider


def test_maps_wait_in_the_workers_where_they_are_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = large(1600, 64, chunk=400)
    for memory, copies in ((2**30, 2), (2**28, 0)):
        use(monkeypatch, memory=memory)
        plan = hsi.plan(cube, MODELS["frobenius"])
        with monkeypatch.context() as patch:
            patch.setattr("scalehsi.fitting.plan.MAP_COPIES", 0)
            without = hsi.plan(cube, MODELS["frobenius"])
        assert plan.maps_bytes == 4 * 4 * 1600**2
        # Without maps the survey is the larger part, by a little.
        assert 0 <= copies * plan.maps_bytes - (plan.worker_bytes - without.worker_bytes) < 2 * MiB


def test_threads_share_one_sample_and_one_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = large(2000, 1024, chunk=45)
    plans = []
    for threads in (1, 2):
        use(monkeypatch, memory=2**30, threads=threads)
        plans.append(hsi.plan(cube, MODELS["frobenius"]))
    one, two = plans
    assert one.block_bytes == two.block_bytes
    assert two.worker_bytes - one.worker_bytes == two.reading_bytes - one.reading_bytes + one.block_bytes


def test_fits_of_other_cubes_run_one_after_another_and_are_not_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, memory=2**30, remote=True)
    spatial = large(2000, 1024, chunk=32)
    spectral = counts_cube((60, 60, 1024))
    alone = hsi.plan(spectral, hsi.NMF(3))
    plan = hsi.plan({"spatial": spatial, "spectral": spectral}, hsi.PanSharpen(3))
    outer = hsi.plan(spatial, hsi.NMF(3))
    assert alone.worker_bytes <= plan.worker_bytes < alone.worker_bytes + outer.worker_bytes


def stored(path: Path, chunks: tuple[int, int, int], *, side: int = 96, channels: int = 256) -> xr.DataArray:
    """A cube of a store with these chunks, of float32."""
    cube = counts_cube((side, side, channels)).astype("f4").rename("cube")
    encoding = {"cube": {"chunks": chunks}}
    cube.to_dataset().to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return hsi.open_cube(path)


def test_stored_chunks_are_decoded_whole_and_wait_for_all_their_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, memory=12 * MiB)
    layouts = {"pixels": (24, 24, 256), "one": (96, 96, 256), "energy": (96, 96, 4)}
    found = {}
    for name, chunks in layouts.items():
        cube = stored(tmp_path / name, chunks)
        if name == "energy":
            # As a larger cube is joined.
            raw = xr.open_zarr(tmp_path / name, chunks={}, consolidated=False)["cube"]
            cube = cube.copy(data=raw.data.rechunk((24, 24, 256)))
        found[name] = reading(cube.data, open_blocks(cube, resident=False).grid, file_bytes=1000)
    total = 96 * 96 * 256 * 4
    assert found["pixels"].shared == 0
    assert found["one"].shared == found["energy"].shared == total
    assert found["one"].block == total + 1000  # decoded beside what the task returns
    assert found["pixels"].block < total // 2


def refusal(monkeypatch: pytest.MonkeyPatch, cube: xr.DataArray, model: Model, offer: dict[str, Any]) -> str:
    use(monkeypatch, **offer)
    with pytest.raises(InputError, match=r"needs .* a worker.*; .* is there; .*give each worker") as caught:
        hsi.plan(cube, model)
    return str(caught.value)


@pytest.mark.parametrize("name", TIGHT)
def test_who_follows_the_advice_can_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, model, offer = TIGHT[name]
    message = refusal(monkeypatch, cube, model, offer)
    given = int(re.search(r"give each worker (\d+) MiB", message)[1]) * MiB  # type: ignore[index]
    # A worker process itself takes some of what it is given.
    usable = int(WORKER_SHARE * given) - PROCESS_BYTES if offer.get("remote") else given
    use(monkeypatch, **(offer | {"memory": usable}))
    plan = hsi.plan(cube, model)
    assert plan.worker_bytes <= plan.memory
    assert usable < 4 * offer["memory"] + 400 * MiB
    if found := re.search(r"use (\d+) thread\(s\) a worker", message):
        use(monkeypatch, **(offer | {"threads": int(found[1])}))
        hsi.plan(cube, model)
    if found := re.search(r"--chunk-mb (\d+) and fit that", message):
        use(monkeypatch, **offer)
        pixels = int(found[1]) * MiB // (cube.shape[-1] * cube.dtype.itemsize)
        hsi.plan(cube.chunk({"y": int(pixels**0.5), "x": int(pixels**0.5)}), model)


def test_the_ways_out_are_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = {name: refusal(monkeypatch, *case) for name, case in TIGHT.items()}
    assert {n for n, m in messages.items() if "thread(s)" in m} >= {"many threads"}
    assert {n for n, m in messages.items() if "--chunk-mb" in m} >= {"large chunks"}
    assert messages["sums of many channels"].count(" or ") == 0


def test_what_is_no_cube_or_no_model_is_said() -> None:
    with pytest.raises(InputError, match=r"a model such as scalehsi\.NMF\(n_components=3\) is expected, got str"):
        hsi.plan(counts_cube((3, 4, 5)), "NMF")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a cube ends in the dims"):
        hsi.plan(counts_cube((3, 4, 5)).transpose("energy", "y", "x"), MODELS["pca"])
    with pytest.raises(InputError, match="more than the 5 channels"):
        hsi.plan(counts_cube((3, 4, 5)), hsi.NMF(6))
