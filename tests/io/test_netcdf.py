"""Results in files of xarray: netCDF by each of its engines and back, Zarr without a warning, and no empty units."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.cube import history_of
from scalehsi.result import plain_attrs, result_warnings

pytestmark = pytest.mark.long

ENGINES = {"scipy": "scipy", "netcdf4": "netCDF4", "h5netcdf": "h5netcdf"}
"""The engines, and the module that each needs."""


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    made = hsi.simulate.phases((16, 16), n_channels=600, counts_per_pixel=400, seed=0).cube.compute()
    mask = xr.DataArray(np.arange(256).reshape(16, 16) > 5, dims=("y", "x"))
    return made.assign_coords(mask=mask)


@pytest.fixture(scope="module")
def results(cube: xr.DataArray) -> dict[str, xr.Dataset]:
    nmf = hsi.fit(cube, hsi.NMF(3, max_iter=5))
    coarse = cube.drop_vars("mask").coarsen(y=4, x=4).sum()
    coarse = coarse.astype("u4").assign_attrs(cube.attrs)
    both: Any = {"spatial": cube.drop_vars("mask"), "spectral": coarse}
    return {
        "NMF": nmf,
        "PCA": hsi.fit(cube, hsi.PCA(3)),
        "PSNMF": hsi.fit(cube, hsi.PSNMF(3, bin_factor=4)),
        "PanSharpen": hsi.fit(both, hsi.PanSharpen(3)),
        "ParallelGP": hsi.fit(nmf, hsi.ParallelGP()),
        "a file's lists": nmf.assign_attrs(plain_attrs({**nmf.attrs, "elements": []})),
    }


NAMES = ("NMF", "PCA", "PSNMF", "PanSharpen", "ParallelGP", "a file's lists")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_result_goes_to_netcdf_and_back(
    engine: str, name: str, results: dict[str, xr.Dataset], cube: xr.DataArray, tmp_path: Path
) -> None:
    pytest.importorskip(ENGINES[engine])
    result = results[name]
    result.to_netcdf(tmp_path / "r.nc", engine=engine)
    with xr.open_dataset(tmp_path / "r.nc", engine=engine) as back:
        back = back.load()
    xr.testing.assert_allclose(back, result, rtol=1e-12)
    assert history_of(back.attrs) == history_of(result.attrs)
    assert result_warnings(back) == result_warnings(result)
    assert np.array_equal(hsi.reconstruct(back), hsi.reconstruct(result), equal_nan=True)
    if name not in ("ParallelGP", "PanSharpen"):
        assert np.array_equal(hsi.project(back, cube), hsi.project(result, cube), equal_nan=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_result_that_was_read_back_has_a_report(engine: str, results: dict[str, xr.Dataset], tmp_path: Path) -> None:
    pytest.importorskip(ENGINES[engine])
    results["NMF"].to_netcdf(tmp_path / "r.nc", engine=engine)
    with xr.open_dataset(tmp_path / "r.nc", engine=engine) as back:
        page = hsi.report(back, tmp_path / engine).read_text()
    assert "Mg" in page
    assert history_of(results["NMF"].attrs)[0].replace("'", "&#39;") in page


@pytest.mark.parametrize("name", NAMES)
def test_no_unit_is_empty_and_attributes_are_plain(name: str, results: dict[str, xr.Dataset]) -> None:
    result = results[name]
    assert [str(v) for v in result.variables if result[v].attrs.get("units", "px") == ""] == []
    assert all(isinstance(v, str | int | float) for v in result.attrs.values()), result.attrs


def test_the_cube_keeps_its_attributes(cube: xr.DataArray) -> None:
    given = cube.assign_coords(x=cube.x.assign_attrs(units=""), y=cube.y.assign_attrs(units=""))
    result = hsi.fit(given, hsi.NMF(2, max_iter=2))
    assert "units" not in result.x.attrs
    assert given.x.attrs["units"] == ""
    assert isinstance(given.attrs["history"], list)


def test_xarray_opens_a_store_without_a_warning(
    results: dict[str, xr.Dataset], cube: xr.DataArray, tmp_path: Path
) -> None:
    for name, data in {"cube": cube, "result": results["NMF"]}.items():
        hsi.save(data, tmp_path / f"{name}.zarr")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opened = xr.open_zarr(tmp_path / f"{name}.zarr")
            assert opened.sizes["energy"] == 600
            opened.close()


def test_what_xarray_adds_to_a_store_is_seen(results: dict[str, xr.Dataset], tmp_path: Path) -> None:
    store = hsi.save(results["NMF"], tmp_path / "r.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results["NMF"][["residual"]].rename(residual="extra").to_zarr(store, mode="a")
    assert "extra" in hsi.open_result(store)
    assert "extra" in xr.open_zarr(store)
