"""scalehsi gp: from a result and from maps, onto a finer grid, and what is refused."""

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gp")
    cube, _ = hsi.simulate.phases((24, 24), counts_per_pixel=80, seed=1)
    hsi.save(hsi.fit(cube, hsi.NMF(3, max_iter=5)), folder / "result.zarr")
    hsi.save(hsi.simulate.maps((20, 18)).maps, folder / "maps.zarr")
    hsi.save(cube, folder / "cube.zarr")
    return folder


def test_a_result_onto_a_finer_grid(run, stores, answer):
    found = answer("gp", stores / "result.zarr", stores / "fine.zarr", "--upsample", 2, "--lengthscale", "1.5:6")
    fine, coarse = hsi.open_result(stores / "fine.zarr"), hsi.open_result(stores / "result.zarr")
    assert found["sizes"] == {"y": 48, "x": 48}
    assert fine.sizes["y"] == 2 * coarse.sizes["y"]
    assert all(1.5 <= length <= 6 for length in found["lengthscale"])
    assert np.allclose(found["lengthscale_nm"], 10 * np.array(found["lengthscale"]))
    assert np.array_equal(fine["endmembers"], coarse["endmembers"])
    status, out, _ = run("gp", stores / "result.zarr", stores / "scanned.zarr", "--scan", "--report", stores / "page")
    assert status == 0
    assert "length along y and x" in out
    assert {"uncertainty.png", "lengths.png", "scan.png"} <= {p.name for p in (stores / "page").iterdir()}
    scan = hsi.lengthscale_scan(coarse)
    assert scan.attrs["advice"].startswith("Fit with lengthscale=(")
    assert "Fit with --lengthscale " in out
    with pytest.raises(hsi.InputError, match="belongs to the report of a ParallelGP"):
        hsi.report(coarse, stores / "never", scan=scan)


def test_maps_alone(answer, stores):
    found = answer("gp", stores / "maps.zarr", stores / "smooth.zarr", "--set", "tile=10", "--set", "isotropic=true")
    assert found["lengthscale"][0] == pytest.approx(found["lengthscale"][1])
    made = xr.open_zarr(stores / "smooth.zarr", consolidated=False)
    assert made["abundances_std"].shape == (3, 20, 18)
    assert float(made["seam_difference"].max()) < 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lengthscale", "5:2"], "upside down"),
        (["--lengthscale", "5"], "--lengthscale 2:5"),
        (["--kernel", "matern"], "is not known"),
        (["--set", "halos=2"], "did you mean 'halo'"),
    ],
)
def test_what_is_refused(run, stores, words, message):
    status, _, problem = run("gp", stores / "result.zarr", stores / "never.zarr", *words)
    assert status == 2
    assert message in problem
    assert not (stores / "never.zarr").exists()


def test_maps_alone_have_no_report(run, stores):
    status, _, problem = run("gp", stores / "maps.zarr", stores / "never.zarr", "--report", stores / "never")
    assert status == 2
    assert "leave --report out" in problem
    assert not (stores / "never.zarr").exists()


def test_a_cube_has_no_maps(run, stores):
    status, _, problem = run("gp", stores / "cube.zarr", stores / "never.zarr")
    assert status == 2
    assert "holds no maps" in problem
