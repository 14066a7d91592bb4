"""ParallelGP in `fit`: against the kernels, tiles against the whole, chunks, missing pixels, upsampling, refusals."""

import json
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

import scalehsi as hsi
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.kernels.gaussian_process import likelihood, posterior, radial_solver
from scalehsi.models.gp import engines
from scalehsi.models.gp.tiles import smooth_tile
from scalehsi.models.gp.upsampling import Upsampling
from scalehsi.schema import InputError

pytestmark = pytest.mark.long


def make_maps(shape=(40, 36), components=3, noise=0.3, seed=0, length=3.0):
    """Smooth maps of unit variance, noisy and true, with coordinates in nm."""
    rng = np.random.default_rng(seed)
    truth = np.stack([gaussian_filter(rng.standard_normal(shape), length, mode="wrap") for _ in range(components)])
    truth = truth / truth.std(axis=(1, 2), keepdims=True)
    axes = {d: (d, 2.0 * np.arange(n), {"units": "nm"}) for d, n in zip("yx", shape, strict=True)}
    dims = ("component", "y", "x")
    noisy = truth + noise * rng.standard_normal(truth.shape)
    return xr.DataArray(noisy, dims=dims, coords=axes), xr.DataArray(truth, dims=dims, coords=axes)


@pytest.fixture(scope="module")
def maps():
    return make_maps()


@pytest.fixture(scope="module")
def smooth(maps):
    return hsi.fit(maps[0], hsi.ParallelGP())


def similarities(truth, found):
    return [np.corrcoef(t.values.ravel(), f.values.ravel())[0, 1] for t, f in zip(truth, found, strict=True)]


def test_the_fit_equals_the_kernels(maps, smooth):
    y = np.ascontiguousarray(np.moveaxis(maps[0].values, 0, -1))
    with one_blas_thread():
        hyper = likelihood.fit([y])
        mean, std = posterior.predict(y, hyper)
    assert np.allclose(smooth["abundances"], np.moveaxis(mean, -1, 0), atol=1e-5)
    assert np.allclose(smooth["abundances_std"], np.moveaxis(std, -1, 0), atol=1e-5)
    assert np.allclose(smooth["lengthscale"], hyper.lengths)
    assert np.allclose(smooth["noise_std"], hyper.noise)
    assert float(smooth["evidence"]) == pytest.approx(-hyper.loss)
    assert float(smooth["objective"][-1]) == pytest.approx(hyper.loss)
    assert float(smooth["evidence_history"].max()) == pytest.approx(-hyper.loss)
    assert smooth["lengthscale_history"].shape == (smooth.sizes["evaluation"], 2)
    assert float(smooth["length_scan"].min()) >= hyper.loss


def test_maps_are_recovered_with_their_noise(maps, smooth):
    assert min(similarities(maps[1], smooth["abundances"])) > 0.97
    assert np.allclose(smooth["noise_std"], 0.3, rtol=0.1)
    off = (smooth["abundances"] - maps[1]) / smooth["abundances_std"]
    assert 0.9 < float((abs(off) < 1.96).mean()) <= 1.0


def test_the_result_describes_itself(maps, smooth, tmp_path):
    assert smooth["abundances"].dims == smooth["abundances_std"].dims == ("component", "y", "x")
    assert smooth.attrs["model"] == "ParallelGP"
    assert smooth.attrs["status"] == "converged"
    assert np.allclose(smooth["lengthscale_nm"], 2.0 * smooth["lengthscale"])
    assert "residual" not in smooth
    hsi.save(smooth, tmp_path / "g.zarr")
    back = hsi.open_result(tmp_path / "g.zarr")
    assert np.array_equal(back["abundances"], smooth["abundances"])
    with pytest.raises(InputError, match="no spectra"):
        hsi.reconstruct(back)


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_tiled_maps_equal_the_whole(noise):
    noisy, _ = make_maps((96, 80), 2, noise)
    fixed = (3.0, 3.0)
    whole = hsi.fit(noisy, hsi.ParallelGP(tile=None, lengthscale=fixed))
    tiled = hsi.fit(noisy, hsi.ParallelGP(tile=32, lengthscale=fixed))
    off = abs(tiled["abundances"] - whole["abundances"]) / whole["abundances_std"]
    assert float(off.max()) < 0.01
    assert float(off.mean()) < 0.001
    assert np.allclose(tiled["abundances_std"], whole["abundances_std"], rtol=1e-3)
    assert float(tiled["seam_difference"].max()) < 0.01
    assert "seam_difference" not in whole
    bare = hsi.fit(noisy, hsi.ParallelGP(tile=32, halo=0.5, lengthscale=fixed))
    assert float(bare["seam_difference"].max()) > 0.1


@pytest.mark.parametrize("chunks", [{"y": 11, "x": 36}, {"component": 1, "y": 40, "x": 7}])
def test_chunks_and_schedulers_change_nothing(maps, smooth, chunks):
    with dask.config.set(scheduler="synchronous"):
        again = hsi.fit(maps[0].chunk(chunks), hsi.ParallelGP())
    for name in ("abundances", "abundances_std", "lengthscale"):
        assert np.allclose(again[name], smooth[name], rtol=1e-6, atol=1e-6), name


@pytest.mark.parametrize("tile", [None, 16])
def test_the_upsampled_grid_contains_the_pixels(maps, tile):
    # With an odd factor there is a point at the centre of each pixel.
    model = hsi.ParallelGP(upsample=3, tile=tile, lengthscale=(3.0, 3.0))
    fine = hsi.fit(maps[0], model)
    plain = hsi.fit(maps[0], hsi.ParallelGP(tile=tile, lengthscale=(3.0, 3.0)))
    middle = fine.isel(y=slice(1, None, 3), x=slice(1, None, 3))
    for name in ("abundances", "abundances_std"):
        assert np.allclose(middle[name].values, plain[name].values, atol=1e-5), name
    assert np.allclose(middle["y"], plain["y"])
    assert float(fine["y"][1] - fine["y"][0]) == pytest.approx(2.0 / 3)


@pytest.mark.parametrize("upsample", [2.5, (1.0, 1.7), (3, 1)])
@pytest.mark.parametrize("gaps", [False, True])
def test_any_upsampling_by_tiles_and_whole(maps, upsample, gaps):
    noisy = maps[0]
    if gaps:
        noisy = noisy.where(np.random.default_rng(3).random(noisy.shape[1:]) < 0.8)
    fixed = {"lengthscale": (2.0, 2.0), "upsample": upsample, "uncertainty": "density"}
    whole, tiled = (hsi.fit(noisy, hsi.ParallelGP(tile=tile, **fixed)) for tile in (None, 17))
    pair = upsample if isinstance(upsample, tuple) else (upsample, upsample)
    for d, factor in zip("yx", pair, strict=True):
        assert np.allclose(np.diff(whole[d]), 2.0 / factor)
    assert whole["abundances"].shape == tiled["abundances"].shape
    off = abs(tiled["abundances"] - whole["abundances"]) / whole["abundances_std"]
    assert float(off.max()) < 0.02
    assert float(tiled["seam_difference"].max()) < 0.02
    # Linear interpolation between the points nearly reproduces the values on the pixels.
    plain = hsi.fit(noisy, hsi.ParallelGP(tile=None, lengthscale=(2.0, 2.0)))
    near = whole["abundances"].interp(y=plain["y"], x=plain["x"], kwargs={"fill_value": "extrapolate"})
    assert float(abs(near - plain["abundances"]).max()) < 0.5
    assert np.corrcoef(near.values.ravel(), plain["abundances"].values.ravel())[0, 1] > 0.99


def test_missing_pixels_are_filled_and_less_certain(maps):
    noisy, truth = maps
    gone = np.random.default_rng(1).random(noisy.shape[1:]) < 0.5
    holes = hsi.fit(noisy.where(~gone), hsi.ParallelGP(lengthscale=(4.0, 7.0)))
    assert np.isfinite(holes["abundances"]).all()
    full = hsi.fit(noisy, hsi.ParallelGP(lengthscale=(4.0, 7.0)))
    assert min(np.array(similarities(truth, holes["abundances"])) - similarities(truth, full["abundances"])) > -0.03
    assert float(holes["abundances_std"].mean() / full["abundances_std"].mean()) > 1.1
    at = holes["abundances_std"].values[:, gone].mean() / holes["abundances_std"].values[:, ~gone].mean()
    assert at > 1.0
    assert int(holes["solver_steps"]) > 0
    assert float(holes["solver_residual"]) <= 1e-5


def test_a_mask_is_missing_pixels(maps):
    noisy = maps[0]
    used = np.ones(noisy.shape[1:], dtype=bool)
    used[5:9, 6:12] = False
    masked = noisy.where(used, 1e6).assign_coords(mask=(("y", "x"), used))
    model = hsi.ParallelGP(lengthscale=(5.0, 5.0))
    one, other = hsi.fit(masked, model), hsi.fit(noisy.where(used), model)
    assert np.allclose(one["abundances"], other["abundances"], atol=1e-4)


def test_leading_dims_share_the_hyperparameters(maps):
    noisy, truth = maps
    frames = xr.concat([noisy, 2 * noisy], "time").transpose("component", "time", "y", "x")
    found = hsi.fit(frames, hsi.ParallelGP())
    assert found["abundances"].dims == ("component", "time", "y", "x")
    assert found.sizes["time"] == 2
    assert min(similarities(truth, found["abundances"].isel(time=0))) > 0.96


def test_a_fit_of_a_result_keeps_the_spectra():
    cube, truth = hsi.simulate.phases((40, 40), counts_per_pixel=60, seed=1)
    result = hsi.fit(cube, hsi.NMF(3, loss="poisson", max_iter=15))
    before = dict(result["abundances"].attrs)
    found = hsi.fit(result, hsi.ParallelGP(upsample=2))
    assert result["abundances"].attrs == before
    assert np.array_equal(found["endmembers"], result["endmembers"])
    cube_again = hsi.reconstruct(found)
    assert cube_again.shape == (80, 80, cube.sizes["energy"])
    assert any("fit NMF" in line for line in found.attrs["history"].splitlines())
    parent = json.loads(found.attrs["parent"])
    assert (parent["model"], parent["loss"], parent["settings"]["max_iter"]) == ("NMF", "poisson", 15)
    assert parent["warnings"] == json.loads(result.attrs["warnings"])
    plain = hsi.fit(result, hsi.ParallelGP())
    before, after = hsi.metrics.score(result, truth), hsi.metrics.score(plain, truth)
    assert bool((after["map_similarity"] > before["map_similarity"]).all())
    clipped = hsi.fit(result, hsi.ParallelGP(nonnegative=True))
    assert float(plain["abundances"].min()) < 0 <= float(clipped["abundances"].min())
    with pytest.raises(InputError, match="project the result"):
        hsi.project(found, cube)


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (3, 3), (5, 40)])
def test_thin_maps(shape):
    rng = np.random.default_rng(0)
    noisy = xr.DataArray(rng.standard_normal((2, *shape)), dims=("component", "y", "x"))
    found = hsi.fit(noisy, hsi.ParallelGP(upsample=2))
    assert found["abundances"].shape == (2, 2 * shape[0], 2 * shape[1])
    assert np.isfinite(found["abundances"]).all()
    assert np.isfinite(found["abundances_std"]).all()


def test_constant_maps_and_one_component():
    found = hsi.fit(xr.DataArray(np.full((1, 12, 10), 3.0), dims=("component", "y", "x")), hsi.ParallelGP())
    assert np.allclose(found["abundances"], 3.0, atol=1e-3)
    assert np.isfinite(found["abundances_std"]).all()


def test_checkpoints(maps, smooth, tmp_path):
    first = hsi.fit(maps[0], hsi.ParallelGP(), checkpoint=tmp_path / "run.ckpt")
    again = hsi.fit(maps[0], hsi.ParallelGP(), checkpoint=tmp_path / "run.ckpt", resume=True)
    assert np.array_equal(first["abundances"], again["abundances"])
    assert np.array_equal(first["abundances"], smooth["abundances"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lengthscale": (5, 2)}, "upside down"),
        ({"lengthscale": (0, 2)}, "above 0"),
        ({"lengthscale": 3}, "lengthscale is None"),
        ({"lengthscale": ((1, 2), (3,))}, "lengthscale is None"),
        ({"kernel": "matern53"}, "did you mean 'matern52'"),
        ({"kernel": "periodic"}, "takes its period"),
        ({"upsample": 0}, "points a pixel of at least 1"),
        ({"upsample": 0.5}, "points a pixel of at least 1"),
        ({"upsample": 1.5, "kernel": "matern52-radial"}, "one whole number"),
        ({"rank": 0}, "rank is a whole number"),
        ({"engine": "cholesky"}, "is not known"),
        ({"engine": "structured", "kernel": "matern52-radial"}, "engine='iterative'"),
        ({"engine": "iterative"}, "matern52-radial"),
        ({"tile": 0}, "tile is 'auto'"),
        ({"halo": -1}, "halo is 'auto'"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(InputError, match=words) as caught:
        hsi.ParallelGP(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((2, 3, 4)), "xarray.DataArray"),
        (xr.DataArray(np.full((2, 5, 5), np.nan), dims=("component", "y", "x")), "no pixel of the maps was measured"),
        (xr.DataArray(np.zeros((5, 5, 3)), dims=("y", "x", "energy")), "fit it first"),
        (xr.DataArray(np.zeros((2, 5)), dims=("component", "y")), "dims"),
        (xr.DataArray(np.zeros((2, 0, 5)), dims=("component", "y", "x")), "empty"),
        (xr.DataArray(np.zeros((2, 5, 5), complex), dims=("component", "y", "x")), "real numbers"),
    ],
)
def test_data_that_are_refused(given, words):
    with pytest.raises(InputError, match=words) as caught:
        hsi.fit(given, hsi.ParallelGP())
    assert "\n" not in str(caught.value)


def test_a_covariance_that_does_not_decay_takes_no_tiles(maps):
    with pytest.raises(InputError, match="tile=None"):
        hsi.fit(maps[0], hsi.ParallelGP(kernel="periodic(6)", tile=16))


@pytest.mark.parametrize("missing", [False, True])
def test_the_kernel_of_distance_is_similar_to_the_product(maps, missing):
    noisy, truth = maps
    if missing:
        noisy = noisy.where(np.random.default_rng(2).random(noisy.shape[1:]) < 0.7)
    fixed = (4.0, 4.0)
    product = hsi.fit(noisy, hsi.ParallelGP(lengthscale=fixed))
    distance = hsi.fit(noisy, hsi.ParallelGP("matern52-radial", lengthscale=fixed, draws=16))
    assert np.allclose(
        similarities(truth, distance["abundances"]), similarities(truth, product["abundances"]), atol=0.01
    )
    assert int(distance["solver_steps"]) > 0
    assert float(distance["solver_residual"]) <= 1e-5
    ratio = distance["abundances_std"].mean() / product["abundances_std"].mean()
    assert 0.7 < float(ratio) < 1.3


def test_the_dense_engine_is_similar(maps):
    pytest.importorskip("gpytorch")
    noisy, truth = maps[0].isel(y=slice(0, 14), x=slice(0, 12)), maps[1].isel(y=slice(0, 14), x=slice(0, 12))
    dense = hsi.fit(noisy, hsi.ParallelGP(engine="dense", lengthscale=(1.0, 8.0), max_iter=60))
    quick = hsi.fit(noisy, hsi.ParallelGP(lengthscale=(1.0, 8.0)))
    assert dense["training_loss"].size == 60
    assert float(dense["training_loss"][-1]) < float(dense["training_loss"][0])
    assert "60 steps" in dense.attrs["advice"]
    assert np.allclose(similarities(truth, dense["abundances"]), similarities(truth, quick["abundances"]), atol=0.02)


@pytest.mark.parametrize("gaps", [False, True])
def test_tiles_of_another_library_are_the_same(maps, gaps):
    """The path of a tile on a GPU, with torch on the CPU in its place."""
    torch = pytest.importorskip("torch")
    y = np.ascontiguousarray(np.moveaxis(maps[0].values, 0, -1))
    hyper = likelihood.fit([y], bounds=((3.0, 3.0), (3.0, 3.0)))
    if gaps:
        y[np.random.default_rng(0).random(y.shape[:2]) < 0.2] = np.nan
    tile = SimpleNamespace(shape=y.shape[:2], index=np.arange(y[..., 0].size))
    engine = engines.Engine("structured", "density", 8, 0)
    shared = {"hyper": hyper, "upsampling": Upsampling.of(2), "extent": y.shape[:2], "clip": True}
    shared["engine"] = engine
    shared["tile"] = tile
    rows, _ = smooth_tile(y.reshape(-1, y.shape[-1]), **shared)
    there, _ = smooth_tile(torch.asarray(y.reshape(-1, y.shape[-1])), **shared)
    for name, values in rows.items():
        assert isinstance(there[name], torch.Tensor)
        assert np.allclose(there[name].numpy(), values, atol=1e-5), name


def test_a_solver_that_did_not_converge_is_reported(maps, monkeypatch):
    monkeypatch.setattr(radial_solver, "MAX_STEPS", 3)
    found = hsi.fit(maps[0], hsi.ParallelGP("matern52-radial", lengthscale=(4.0, 4.0)))
    assert found.attrs["status"] == "max_iter"
    assert "after 3 steps" in found.attrs["advice"]
    assert float(found["solver_residual"]) > 1e-5
