"""A fit on worker processes: the numbers of threads, also when a worker is killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.fitting.progress import Progress

MODEL = hsi.NMF(4, loss="poisson", max_iter=8, tol=0)


@pytest.fixture
def stored(tmp_path: Path) -> xr.DataArray:
    cube, _ = hsi.simulate.chequerboard((48, 40), n_channels=64, seed=3, chunk=12)
    hsi.save(cube, tmp_path / "cube.zarr")
    return hsi.open_cube(tmp_path / "cube.zarr")


@pytest.mark.cluster
def test_two_processes_give_the_numbers_of_threads(client: Any, stored: xr.DataArray) -> None:
    result = hsi.fit(stored, MODEL)
    with dask.config.set(scheduler="threads"):
        reference = hsi.fit(stored, MODEL)
    assert float(hsi.metrics.spectral_angle(result["endmembers"], reference["endmembers"]).max()) < 1e-4
    np.testing.assert_allclose(result["objective"], reference["objective"], rtol=1e-5)
    np.testing.assert_allclose(result["abundances"], reference["abundances"], rtol=1e-3, atol=1e-4)


@pytest.mark.cluster
def test_kill_9_of_a_worker_changes_nothing_but_the_time(client: Any, stored: xr.DataArray) -> None:
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.iteration == 3 and not killed:
            pid = next(iter(client.run(os.getpid).values()))
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    result = hsi.fit(stored, MODEL, progress=kill)
    assert killed
    with dask.config.set(scheduler="threads"):
        reference = hsi.fit(stored, MODEL)
    assert result.attrs["status"] == reference.attrs["status"]
    np.testing.assert_allclose(result["objective"], reference["objective"], rtol=1e-5)
    assert float(hsi.metrics.spectral_angle(result["endmembers"], reference["endmembers"]).max()) < 1e-4
