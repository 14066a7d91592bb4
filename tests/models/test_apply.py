"""Using a result: maps of another acquisition and the denoised cube, lazily and in bounded pieces."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

import scalehsi as hsi
from scalehsi.chunks import WORK_BLOCK_BYTES
from scalehsi.cube import make_cube
from scalehsi.fitting.model import Model
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes, random_mask

MODELS: dict[str, Model] = {
    "frobenius": hsi.NMF(3, loss="frobenius", max_iter=4),
    "weighted": hsi.NMF(3, weighting="poisson", max_iter=4),
    "poisson": hsi.NMF(3, loss="poisson", max_iter=4),
    "pca": hsi.PCA(3),
    "pca centred": hsi.PCA(3, centre=True, weighting=None),
}


def scene(seed: int = 0, *, shape: tuple[int, ...] = (8, 7), mask: Any = None) -> xr.DataArray:
    """Counts of three phases on 20 channels; the phases do not depend on the seed, their places do."""
    s = 30 * np.random.default_rng(0).random((3, 20)) ** 3
    rng = np.random.default_rng(seed + 1)
    counts = rng.poisson(rng.dirichlet([0.4] * 3, shape) @ s).astype("u1")
    attrs = {"title": "a title", "elements": ["Si"], "history": ["read"]}
    return make_cube(
        counts,
        energy=0.2 + 0.01 * np.arange(20),
        energy_units="keV",
        signal="EDS",
        mask=mask,
        pixel_size=2,
        attrs=attrs,
    )


@pytest.fixture(scope="module", params=MODELS)
def fitted(request: pytest.FixtureRequest) -> xr.Dataset:
    return hsi.fit(scene(), MODELS[request.param])


# project


def test_projecting_the_fitted_cube_gives_its_maps(fitted: xr.Dataset) -> None:
    maps = hsi.project(fitted, scene())
    assert maps.name == "abundances"
    assert maps.dims == ("component", "y", "x")
    assert maps.attrs["model"] == fitted.attrs["model"]
    assert_array_equal(maps.component, fitted.component)
    assert_allclose(maps, fitted.abundances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunks", [{"y": 8, "x": 7, "energy": 20}, {"y": 3, "x": 2}, {"y": 1, "energy": 6}])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_projection_is_lazy_and_the_same_for_any_chunks(
    fitted: xr.Dataset, chunks: dict[str, int], scheduler: str
) -> None:
    other = scene(5)
    with raise_if_dask_computes(0):
        maps = hsi.project(fitted, other.chunk(chunks))
    assert isinstance(maps.data, da.Array)
    with dask.config.set(scheduler=scheduler):
        assert_allclose(maps, hsi.project(fitted, other), rtol=1e-5, atol=1e-6)


def test_another_acquisition_is_solved_pixel_by_pixel() -> None:
    result, other = hsi.fit(scene(), MODELS["frobenius"]), scene(9, shape=(2, 3, 4))
    maps = hsi.project(result, other)
    assert maps.dims == ("component", "frame", "y", "x")
    assert_array_equal(maps.y, other.y)
    s = result.endmembers.values
    want = [optimize.nnls(s.T, row)[0] for row in other.values.reshape(-1, 20).astype(float)]
    assert_allclose(maps.values.reshape(3, -1).T, want, rtol=1e-4, atol=1e-5)


def test_pixels_that_the_mask_leaves_out_are_nan_and_change_no_other(fitted: xr.Dataset) -> None:
    used = random_mask((8, 7))
    maps = hsi.project(fitted, scene(mask=used)).values
    assert np.isnan(maps[:, ~used]).all()
    assert_allclose(maps[:, used], hsi.project(fitted, scene()).values[:, used], rtol=1e-5, atol=1e-6)


def test_empty_pixels_and_single_pixels_are_projected(fitted: xr.Dataset) -> None:
    cube = scene()
    cube[0, 0] = 0
    maps = hsi.project(fitted, cube[:1, :1])
    assert maps.shape == (3, 1, 1)
    if fitted.attrs["model"] == "NMF":
        assert not maps.values.any()
    assert np.isfinite(maps).all()


def test_an_axis_that_differs_is_refused_with_both_axes(fitted: xr.Dataset) -> None:
    cube = scene()
    with pytest.raises(InputError, match=r"has 20 channels, 0\.2 to 0\.39, that of the cube 19, 0\.2 to 0\.38; bring"):
        hsi.project(fitted, cube[..., :-1])
    for axis in (cube.energy + 0.01, 1000 * cube.energy, cube.energy[::-1].values):
        with pytest.raises(InputError, match=r"bring the cube onto it with cube\.sel"):
            hsi.project(fitted, cube.assign_coords(energy=("energy", np.asarray(axis))))
    near = cube.assign_coords(energy=("energy", cube.energy.values * (1 + 1e-9)))
    assert_allclose(hsi.project(fitted, near), hsi.project(fitted, cube))


def test_what_is_no_result_or_of_an_unknown_model_is_said(fitted: xr.Dataset) -> None:
    with pytest.raises(InputError, match="got a DataArray"):
        hsi.project(scene(), scene())
    with pytest.raises(InputError, match=r"a cube is an xarray\.DataArray, got a Dataset"):
        hsi.project(fitted, fitted)
    with pytest.raises(InputError, match="there is no model 'Magic'"):
        hsi.project(fitted.assign_attrs(model="Magic"), scene())
    with pytest.raises(InputError, match="got a DataArray"):
        hsi.reconstruct(scene())


# reconstruct


def test_the_reconstruction_is_maps_times_spectra_with_the_axes_of_the_cube(fitted: xr.Dataset) -> None:
    cube = hsi.reconstruct(fitted)
    assert cube.dims == ("y", "x", "energy")
    assert cube.dtype == np.float32
    assert [cube[d].attrs["units"] for d in cube.dims] == ["nm", "nm", "keV"]
    for dim in cube.dims:
        assert_array_equal(cube[dim], scene()[dim])
    assert "component" not in cube.coords
    assert (cube.attrs["signal"], cube.attrs["title"], cube.attrs["elements"]) == ("EDS", "a title", "Si")
    model = fitted.attrs["model"]
    assert cube.attrs["history"] == [*fitted.attrs["history"].splitlines(), f"reconstruct from {model}, 3 components"]
    want = np.einsum("kyx,ke->yxe", fitted.abundances.values, fitted.endmembers.values)
    want += fitted["offset"].values if "offset" in fitted else 0
    assert_allclose(cube, want, rtol=1e-5, atol=1e-5)
    assert_allclose(hsi.reconstruct(fitted, dtype="f8"), want, rtol=1e-12, atol=1e-12)


def test_what_the_reconstruction_leaves_is_the_residual_of_the_fit(fitted: xr.Dataset) -> None:
    rest = scene() - hsi.reconstruct(fitted)
    assert_allclose(np.sqrt((rest**2).mean("energy")), fitted.residual, rtol=1e-4, atol=1e-5)
    assert_allclose(rest.mean(("y", "x")), fitted.residual_spectrum, atol=1e-4)


@pytest.mark.parametrize("chunks", [{}, {"component": 1, "y": 3}, {"y": 1, "x": 2}])
def test_reconstruction_is_lazy_and_the_same_for_any_chunks(fitted: xr.Dataset, chunks: dict[str, int]) -> None:
    with raise_if_dask_computes(0):
        cube = hsi.reconstruct(fitted.assign(abundances=fitted.abundances.chunk(chunks)))
        window = cube.sel(energy=slice(0.245, 0.305)).sum("energy")
    assert isinstance(cube.data, da.Array)
    assert_allclose(cube, hsi.reconstruct(fitted), rtol=1e-6)
    assert_allclose(window, cube.values[..., 5:11].sum(axis=-1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("chunked", ["as stored", "in memory", "in one piece"])
def test_blocks_of_a_large_reconstruction_stay_small(chunked: str) -> None:
    # Maps are stored in chunks of 16 MiB; times E / K they would be tens of gigabytes each.
    size = {"as stored": 1182, "in memory": 3000, "in one piece": 3000}[chunked]
    zeros = da.zeros((3, 3000, 3000), chunks=(3, size, size), dtype="f4")
    maps = np.broadcast_to(np.float32(0), zeros.shape) if chunked == "in memory" else zeros
    result = xr.Dataset(
        {"endmembers": (("component", "energy"), np.ones((3, 2048))), "abundances": (("component", "y", "x"), maps)},
        coords={"energy": np.arange(2048.0)},
        attrs={"model": "NMF"},
    )
    cube = hsi.reconstruct(result)
    assert cube.shape == (3000, 3000, 2048)
    largest = np.prod([max(c) for c in cube.data.chunks]) * 4
    assert WORK_BLOCK_BYTES / 4 < largest <= 4 * WORK_BLOCK_BYTES
    assert cube[1500:1502, 7:9].sum().compute() == 0.0


def test_pixels_that_the_mask_left_out_stay_out() -> None:
    used = random_mask((8, 7))
    cube = hsi.reconstruct(hsi.fit(scene(mask=used), MODELS["poisson"]))
    assert np.isnan(cube.values[~used]).all()
    assert np.isfinite(cube.values[used]).all()


def test_whole_numbers_cannot_hold_a_reconstruction(fitted: xr.Dataset) -> None:
    with pytest.raises(InputError, match="dtype=uint16: a cube of floats is expected; type dtype='float32'"):
        hsi.reconstruct(fitted, dtype="u2")
