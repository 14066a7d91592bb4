"""The digest of a result: maps averaged in blocks, and positions along leading dims."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.plots.digest import digest
from tests.report.results import series_result


def test_large_maps_are_averaged_in_blocks() -> None:
    rng = np.random.default_rng(0)
    maps = da.from_array(rng.random((2, 11, 2001)).astype("f4"), chunks=(2, 4, 300))
    result = xr.Dataset(
        {"endmembers": (("component", "energy"), np.ones((2, 4))), "abundances": (("component", "y", "x"), maps)},
        coords={"x": ("x", 0.5 * np.arange(2001), {"units": "nm"}), "energy": np.arange(4.0)},
        attrs={"model": "NMF"},
    )
    view = digest(result)
    assert view.block == 3
    assert view.maps.shape == (2, 1, 4, 667)
    np.testing.assert_allclose(view.maps[0, 0, 1, 5], np.asarray(maps)[0, 3:6, 15:18].mean(), rtol=1e-5)
    np.testing.assert_allclose(view.totals, 4 * np.asarray(maps, "f8").sum((1, 2)), rtol=1e-5)
    assert view.pixel_nm == (1.5, 1.5)
    assert view.pixels_total == 11 * 2001


def test_four_places_are_chosen_evenly() -> None:
    series = series_result().isel(time=[0, 1, 2] * 3, y=slice(6)).drop_vars(["residual", "time"])
    tilts = xr.DataArray([1.0, 3.0], dims="tilt", coords={"tilt": [-30, 30]})
    result = series.assign(abundances=(series.abundances * tilts).transpose("component", "tilt", ...))
    view = digest(result)
    assert view.positions == ("tilt = -30, time 0", "tilt = -30, time 6", "tilt = 30, time 2", "tilt = 30, time 8")
    expected = result.abundances.isel(tilt=1, time=2).values
    np.testing.assert_allclose(view.maps[:, 2], expected, rtol=1e-6)
    np.testing.assert_allclose(view.totals, 4 * digest(series).totals, rtol=1e-5)
