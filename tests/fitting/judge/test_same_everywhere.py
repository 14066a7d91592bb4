"""The list of warnings is the same for every chunking, on threads and on a cluster."""

from __future__ import annotations

from typing import Any

import dask
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.result import result_warnings
from tests.fitting.judge.scenes import scene

CHUNKS: tuple[dict[str, int], ...] = ({"y": 32}, {"y": 11, "x": 32}, {"y": 16, "x": 7})


def faulty() -> xr.DataArray:
    """EELS with drift, a spike and a hot pixel, one component too few."""
    made = scene("eels", 2e3, 4, seed=31, drift=0.5)
    made.counts[9, 20] *= 5
    made.counts[25, 6, 100] += 400
    return made.cube.assign_attrs(source="faulty.zarr")


@pytest.mark.cluster
@pytest.mark.long
def test_warnings_do_not_depend_on_chunks_and_schedulers(client: Any) -> None:
    model = hsi.NMF(3, weighting="poisson", max_iter=10)
    cubes = [faulty().chunk({**chunks, "energy": -1}) for chunks in CHUNKS]
    lists = []
    for cube in cubes:
        # Heartbeats of a busy machine may come so late that the scheduler drops a worker, which then joins again.
        client.wait_for_workers(2, timeout=300)
        lists.append(result_warnings(hsi.fit(cube, model, seed=0)))
    with dask.config.set(scheduler="threads"):
        lists += [result_warnings(hsi.fit(cube, model, seed=0)) for cube in cubes]
    codes = [w.code for w in lists[0]]
    assert {"spike", "hot_pixel", "drift", "background_on"} <= set(codes)
    for other in lists[1:]:
        assert other == lists[0]
    remedy = next(w.remedy for w in lists[0] if w.code == "drift")
    assert remedy.startswith("scalehsi prepare faulty.zarr faulty-prepared.zarr --step bin:energy=")
