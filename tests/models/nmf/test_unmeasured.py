"""A pixel of which nothing was measured has no abundance: NaN in maps and residual, as a masked one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from tests.scenes import smooth_scene

SETTINGS: list[dict[str, Any]] = [
    {"loss": "frobenius"},
    {"loss": "poisson"},
    {"loss": "poisson", "simplex": True},
    {"loss": "poisson", "ard": "exponential"},
    {},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("size", "seed"), [(12, 0), (17, 1)])
def test_pixels_without_any_voxel_are_nan(settings: dict[str, Any], size: int, seed: int) -> None:
    cube, _ = smooth_scene(2, counts=600, seed=seed, size=size, channels=60)
    rng = np.random.default_rng(seed)
    x = cube.values.astype("f4")
    x[rng.random(x.shape) < 0.2] = np.nan
    empty = np.zeros((size, size), dtype=bool)
    empty[rng.integers(0, size, 5), rng.integers(0, size, 5)] = True
    empty[-1] = True
    x[empty] = np.nan
    x[0, 0, 1:] = np.nan
    x[0, 0, 0], empty[0, 0] = 4.0, False
    gappy = cube.copy(data=x)
    model = hsi.NMF(2, missing=True, **settings)
    result = hsi.fit(gappy, model, seed=0)
    for name in ("abundances", "residual"):
        missing = np.isnan(result[name]).transpose(..., "y", "x").values
        np.testing.assert_array_equal(missing, np.broadcast_to(empty, missing.shape))
    assert np.isfinite(result["residual_spectrum"]).all()
    assert np.isfinite(result["endmembers"]).all()
    np.testing.assert_array_equal(np.isnan(hsi.project(result, gappy)), np.isnan(result["abundances"]))
    if "ard" not in settings:
        masked = gappy.fillna(1.0).where(np.isfinite(gappy) | xr.DataArray(empty, dims=("y", "x")))
        masked = masked.assign_coords(mask=(("y", "x"), ~empty))
        other = hsi.fit(masked, model, seed=0)
        np.testing.assert_array_equal(np.isnan(other["abundances"]), np.isnan(result["abundances"]))


def test_pixels_of_zeros_are_measured() -> None:
    cube, _ = smooth_scene(2, counts=600, size=12, channels=60)
    x = cube.values.astype("f4")
    x[3, 3] = 0
    for settings in SETTINGS:
        result = hsi.fit(cube.copy(data=x), hsi.NMF(2, missing=True, max_iter=5, **settings), seed=0)
        assert (result["abundances"].values[:, 3, 3] >= 0).all()
        assert np.isfinite(result["residual"]).all()
