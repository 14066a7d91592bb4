"""Whole geometric fits with ``device="cuda"`` against the CPU's: on a GPU where there is one, else on the stand-in."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest

import scalehsi as hsi

pytestmark = pytest.mark.emulated


@pytest.mark.parametrize("constraint", ["fcls", "nnls"])
def test_a_fit_on_a_gpu_is_that_on_the_cpu(device: Any, constraint: str) -> None:
    made, _ = hsi.simulate.chequerboard((12, 10), n_channels=48, n_components=3, counts_per_pixel=2000, seed=3)
    cube = made.compute()
    model = hsi.VCA(3, constraint=constraint)
    want = hsi.fit(cube, model, device="cpu", seed=0)
    with dask.config.set(scheduler="synchronous"):
        got = hsi.fit(cube, model, device="cuda", seed=0)
    np.testing.assert_array_equal(got["vertex_pixel"], want["vertex_pixel"])
    np.testing.assert_allclose(got["endmembers"], want["endmembers"], atol=1e-4 * float(want["endmembers"].max()))
    np.testing.assert_allclose(got["abundances"], want["abundances"], atol=1e-4)
