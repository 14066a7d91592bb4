"""The scan of length scales: acceptance on scenes with two scales, schedulers, sizes, and bad input."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

import scalehsi as hsi
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.io import open_dataset
from scalehsi.kernels.gaussian_process import likelihood
from scalehsi.kernels.gaussian_process.posterior import predict
from scalehsi.schema import InputError

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def atoms() -> xr.Dataset:
    return hsi.lengthscale_scan(hsi.simulate.maps(kind="atoms", pixel_size_nm=0.05).maps)


def test_two_basins_and_straight_lines(atoms: xr.Dataset) -> None:
    """Figure 3 of the paper: the short basin for every limit from just above it to half of the long one."""
    short, long = atoms["basin"].sel(component=1).values
    assert 2 < short < 3.5
    assert 10 < long < 20
    converged = atoms["converged"]
    assert {1.5, 4.0, 24.0} <= set(converged["limit"].values.tolist())
    for component, place in ((1, short), (3, float(atoms["basin"].sel(component=3)[0]))):
        own = converged.sel(component=component)
        for limit, value in zip(own["limit"].values, own.values, strict=True):
            if 1.2 * place <= limit <= long / 2:
                assert value == pytest.approx(place, rel=0.1)
            elif limit < place:
                assert value == pytest.approx(limit)
    assert float(converged.sel(component=1, limit=24)) == pytest.approx(long, rel=0.1)
    # Weak ones follow the limit.
    weak = converged.sel(component=5)
    np.testing.assert_allclose(weak.values[:8], weak["limit"].values[:8])
    assert bool(atoms["follows"].sel(component=2))
    assert float(atoms["evidence"].sel(component=5)) < 0.05 * float(atoms["evidence"].sel(component=1))
    low, high = atoms["recommended"].values
    assert 0.5 <= low < 0.8
    assert 2.6 < high < 4
    np.testing.assert_allclose(atoms["recommended_nm"], [[0.05 * low, 0.05 * high]] * 2)


def fine(a: np.ndarray) -> np.ndarray:
    return a - gaussian_filter(a, 4, mode="nearest")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_weak_lattice_is_found_together_and_not_alone(seed: int) -> None:
    scene = hsi.simulate.maps(kind="atoms", seed=seed)
    y, truth = (np.moveaxis(v.values, 0, -1).astype(float) for v in scene)
    interval = tuple(hsi.lengthscale_scan(scene.maps)["recommended"].values)
    with one_blas_thread():
        for bounds in ((0.6, 2.5), interval):
            together, alone = (
                predict(part, likelihood.fit([part], bounds=(bounds, bounds)))[0] for part in (y, y[..., 4:5])
            )
            like = [hsi.metrics.similarity(fine(m), fine(truth[..., 4])) for m in (together[..., 4], alone[..., 0])]
            assert like[0] >= 0.75
            assert like[1] <= 0.45


def test_noise_and_smooth_lengths_are_found() -> None:
    scan = hsi.lengthscale_scan(hsi.simulate.maps(noise=[0.1, 0.3, 0.5]).maps)
    np.testing.assert_allclose(scan["noise"], [0.1, 0.3, 0.5], rtol=0.08)
    assert (scan["loss"].min("length") == 0).all()
    assert (scan["basin"].isel(basin_number=0) > 5).all()


def test_scales_schedulers_and_chunks_do_not_matter() -> None:
    maps = hsi.simulate.maps((40, 36), kind="atoms", seed=3).maps
    one = hsi.lengthscale_scan(maps)
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(hsi.lengthscale_scan(maps.chunk({"x": 7})), one)
    scaled = hsi.lengthscale_scan(1e4 * maps - 3e5)
    np.testing.assert_allclose(scaled["converged"], one["converged"], rtol=1e-3)
    np.testing.assert_allclose(scaled["noise"], 1e4 * one["noise"], rtol=1e-3)


def test_missing_pixels_are_left_out() -> None:
    whole, half = (hsi.simulate.maps(missing=share, noise=0.1, seed=1).maps for share in (0.0, 0.5))
    filled = half.where(half.notnull(), 1e6)
    seen, scattered = hsi.lengthscale_scan(whole), hsi.lengthscale_scan(half)
    assert "24 x 24" in scattered.attrs["read"]
    np.testing.assert_allclose(scattered["noise"], 0.1, rtol=0.15)
    np.testing.assert_allclose(scattered["basin"].isel(basin_number=0), seen["basin"].isel(basin_number=0), rtol=0.5)
    assert not np.allclose(hsi.lengthscale_scan(filled)["noise"], 0.1, rtol=0.5)
    radial = hsi.lengthscale_scan(whole, [3, 6, 12], kernel="matern52-radial", lengths=np.geomspace(1, 12, 8))
    np.testing.assert_allclose(radial["noise"], 0.1, rtol=0.1)


def test_only_tiles_of_large_maps_are_read() -> None:
    read: list[tuple[int, ...]] = []
    scene = hsi.simulate.maps((4096, 4096), kind="atoms", chunk=64).maps

    def spy(block: np.ndarray) -> np.ndarray:
        read.append(block.shape)
        return block

    maps = scene.copy(data=scene.data.map_blocks(spy, dtype=scene.dtype, meta=scene.data._meta))
    scan = hsi.lengthscale_scan(maps, [2, 4, 8], lengths=np.geomspace(0.5, 8, 9), seed=1)
    assert len(read) == 16
    assert scan.attrs["read"] == "16 tiles of 64 x 64 pixels"
    again, other = (hsi.lengthscale_scan(scene, [2, 4, 8], lengths=np.geomspace(0.5, 8, 9), seed=s) for s in (1, 2))
    np.testing.assert_array_equal(again["loss"], scan["loss"])
    assert not np.array_equal(other["loss"], scan["loss"])
    np.testing.assert_allclose(other["converged"], scan["converged"], rtol=0.15)


def test_results_frames_lines_and_flat_maps() -> None:
    maps = hsi.simulate.maps((32, 32)).maps.compute()
    result = xr.Dataset({"abundances": maps}, attrs={"model": "truth"})
    xr.testing.assert_identical(hsi.lengthscale_scan(result, [2, 6]), hsi.lengthscale_scan(maps, [2, 6]))
    one = hsi.lengthscale_scan(maps[0], [2, 6])
    np.testing.assert_allclose(one["converged"][0], hsi.lengthscale_scan(maps, [2, 6])["converged"][0], rtol=1e-6)
    frames = xr.concat([maps, maps], "time").transpose("component", "time", "y", "x")
    np.testing.assert_allclose(
        hsi.lengthscale_scan(frames, [2, 6])["converged"], hsi.lengthscale_scan(maps, [2, 6])["converged"], rtol=1e-4
    )
    line = hsi.lengthscale_scan(maps[:, :1], [2, 6])
    assert np.isfinite(line["converged"]).all()
    assert line["recommended_nm"].shape == (2, 2)
    flat = maps.copy()
    flat[1] = 3.0
    scan = hsi.lengthscale_scan(flat, [2, 6])
    assert float(scan["evidence"][1]) == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(scan["basin"][1]).all()
    nothing = hsi.lengthscale_scan(flat[1:2], [2, 6])
    assert np.isnan(nothing["recommended"]).all()
    assert "No component" in nothing.attrs["advice"]


def test_a_scan_is_stored_and_read_again(tmp_path: Path, atoms: xr.Dataset) -> None:
    back = open_dataset(hsi.save(atoms, tmp_path / "scan.zarr"))
    xr.testing.assert_allclose(back.compute()[["converged", "basin"]], atoms[["converged", "basin"]])
    assert back.attrs["advice"] == atoms.attrs["advice"]


MAPS = hsi.simulate.maps((12, 12)).maps.compute()


@pytest.mark.parametrize(
    ("maps", "more", "words"),
    [
        (MAPS, {"limits": [0.5, 2]}, "of at least 1, got 0.5"),
        (MAPS, {"limits": [4, 2]}, r"limits rise.*type limits=sorted"),
        (MAPS, {"limits": []}, "limits are at least 1, got 0"),
        (MAPS, {"limits": 4}, "limits are numbers of pixels"),
        (MAPS, {"limits": [2, float("nan")]}, "limits are numbers of pixels"),
        (MAPS, {"lengths": [1, 2]}, "lengths are at least 5"),
        (MAPS, {"lengths": [0, 1, 2, 3, 9]}, "lengths are pixels above 0"),
        (MAPS, {"lengths": [0.5, 1, 2, 3, 4]}, "do not cover 1 to the last limit 6"),
        (MAPS, {"kernel": "matern53"}, "did you mean 'matern52'"),
        (MAPS, {"seed": -1}, "seed is a whole number"),
        (MAPS * np.nan, {}, "all are NaN or masked"),
        (MAPS.where(MAPS.component != 2), {}, "component 2 is NaN or masked everywhere"),
        (MAPS[:, :1, :1], {}, "1 x 1 pixels show no length scale"),
        (MAPS[:, :0], {}, "the maps are empty along"),
        (MAPS[:0], {}, "the maps are empty along"),
        (MAPS.rename(y="rows"), {}, "rename them with maps.rename"),
        (MAPS.values, {}, "wrap an array"),
        (MAPS.to_dataset(name="other"), {}, "lacks abundances"),
        (MAPS.astype(str), {}, "maps hold real numbers"),
    ],
)
def test_bad_input_is_refused_in_one_line(maps, more, words) -> None:
    with pytest.raises(InputError, match=words) as caught:
        hsi.lengthscale_scan(maps, **more)
    assert "\n" not in str(caught.value)
