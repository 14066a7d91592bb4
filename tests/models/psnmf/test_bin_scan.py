"""The scan of bin sizes: the components that there are, sizes that the truth confirms, and no surprise by chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.fitting.loop import run_loop
from scalehsi.models.psnmf import bin_scan as scanning
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    cube, truth = hsi.simulate.phases((96, 96), counts_per_pixel=100, n_channels=400, seed=3)
    return cube.compute(), truth.compute()


@pytest.fixture(scope="module")
def found(scene: Any) -> xr.Dataset:
    return hsi.scan_bins(scene[0], [2, 4, 8, 16, 32], n_components=3)


def test_the_counts_show_three_components(scene: Any) -> None:
    for cube in (scene[0], hsi.simulate.phases((96, 96), counts_per_pixel=30, n_channels=400, seed=4)[0].compute()):
        scan = hsi.scan_bins(cube, [8])
        assert scan.attrs["rank"] == scan.attrs["n_components"] == 3
        values = scan["eigenvalue"].values
        assert values[2] > 2 > scanning.SIGNIFICANT_RATIO > values[3]
        assert (np.diff(values) <= 0).all()


@pytest.mark.parametrize("components", [1, 2])
def test_fewer_components_are_counted_too(components: int) -> None:
    rng = np.random.default_rng(0)
    spectra = rng.gamma(0.5, size=(components, 200))
    spectra *= 60 / spectra.sum(axis=1, keepdims=True)
    maps = rng.dirichlet(np.ones(components), (16, 16)).repeat(3, axis=0).repeat(3, axis=1)
    counts = rng.poisson(maps @ spectra).astype("u1")
    cube = hsi.make_cube(counts, energy=np.arange(200) * 0.1, energy_units="keV", signal="EDS")
    assert hsi.scan_bins(cube, [3]).attrs["rank"] == components


def test_a_size_that_mixes_the_phases_scores_worst(found: xr.Dataset) -> None:
    assert found["bin"].values.tolist() == [2, 4, 8, 16, 32]
    assert float(found["score"].max()) == 0.0
    assert int(found["score"].values.argmin()) == 4
    assert not bool(found["plausible"][4])
    assert found.attrs["chosen"] in found["bin"].values[found["plausible"].values]
    assert (found["stability"] >= 0).all()
    assert float(found["score_error"][int(found["score"].values.argmax())]) == 0.0


def test_the_chosen_bin_is_near_to_the_best_by_the_truth(scene: Any, found: xr.Dataset) -> None:
    cube, truth = scene

    def angle(size: int) -> float:
        view = open_blocks(hsi.prepare.bin(cube, y=size, x=size))
        spectra = xr.DataArray(run_loop(view, hsi.PSNMF(3).coarse, 0).state["kept"], dims=("component", "energy"))
        t = truth["endmembers"].drop_vars("energy")
        order = hsi.metrics.match(t, spectra)
        return float(np.degrees(hsi.metrics.spectral_angle(t.values, spectra.values[order])).mean())

    errors = {size: angle(size) for size in (4, 8, 16, 32)}
    assert errors[32] > 3 * min(errors.values())
    # Of a map this small the first guess may be coarse; it is no mixture of the phases.
    assert errors[found.attrs["chosen"]] < errors[16] / 3


@pytest.mark.parametrize("chunks", [{"y": 31, "x": 17}, {"y": 96, "x": 5}], ids=str)
def test_chunks_change_nothing(scene: Any, found: xr.Dataset, chunks: dict[str, int]) -> None:
    got = hsi.scan_bins(scene[0].chunk(chunks), [2, 4, 8, 16, 32], n_components=3)
    assert_allclose(got["score"], found["score"], rtol=2e-3, atol=2e-3)
    assert_allclose(got["eigenvalue"], found["eigenvalue"], rtol=1e-6)
    assert got.attrs["chosen"] == found.attrs["chosen"]


def test_another_seed_divides_the_counts_anew_and_agrees(scene: Any, found: xr.Dataset) -> None:
    other = hsi.scan_bins(scene[0], [2, 4, 8, 16, 32], n_components=3, seed=1)
    assert not np.array_equal(other["score"], found["score"])
    assert not bool(other["plausible"][4])


def test_sizes_are_those_with_counts_and_room(scene: Any) -> None:
    scan = hsi.scan_bins(scene[0], n_components=2)
    sizes = scan["bin"].values
    assert (sizes**2 * scan.attrs["counts_per_pixel"] >= scanning.LEAST_COUNTS).all()
    assert sizes.max() * scanning.BINS_PER_MAP <= 96
    tiny = hsi.scan_bins(scene[0][:10, :10], n_components=1)
    assert tiny["bin"].values.tolist() == [1]


def test_masked_pixels_count_for_nothing(scene: Any) -> None:
    cube = scene[0]
    used = np.zeros((96, 96), dtype=bool)
    used[:64] = True
    bad = cube.copy(deep=True)
    bad[64:] = 9
    got = hsi.scan_bins(bad.assign_coords(mask=(("y", "x"), used)), [4, 8], n_components=3)
    want = hsi.scan_bins(cube[:64], [4, 8], n_components=3)
    assert got.attrs["counts_per_pixel"] == pytest.approx(want.attrs["counts_per_pixel"])
    assert_allclose(got["score"], want["score"], rtol=2e-3, atol=2e-3)
    assert_allclose(got["eigenvalue"], want["eigenvalue"], rtol=1e-5)


def test_of_a_large_map_windows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "WINDOW_SIDE", 48)
    monkeypatch.setattr(scanning, "BLOCK_ROWS", 24)
    lazy, _ = hsi.simulate.phases((200, 150), counts_per_pixel=60, n_channels=300, seed=1, grain_scale=0.5, chunk=25)
    with raise_if_dask_computes(0):
        region = scanning._windows(lazy)
    assert region.shape == (4 * 48, 48, 300)
    for i, (y, x) in enumerate([(50, 38), (50, 112), (150, 38), (150, 112)]):
        want = lazy[y - 24 : y + 24, x - 24 : x + 24]
        assert_array_equal(region[48 * i : 48 * (i + 1)], want)
    scan = hsi.scan_bins(lazy, [4, 8])
    assert scan.attrs["rank"] == 3
    assert scan.attrs["counts_per_pixel"] == pytest.approx(float(region.sum()) / (4 * 48 * 48))
    frames = xr.concat([lazy, lazy[::-1].assign_coords(y=lazy["y"])], dim="time").transpose("time", ...)
    assert scanning._windows(frames).shape == (4 * 48, 48, 300)


@pytest.mark.parametrize(
    ("change", "bins", "message"),
    [
        (lambda c: c, [97], "a bin of 97 x 97 pixels is larger than the map of 96 x 96; take smaller bins"),
        (lambda c: c, [], "bins is a list of whole numbers of at least 1"),
        (lambda c: c, [0], "bins is a list of whole numbers of at least 1"),
        (lambda c: c, [2.5], "bins is a list of whole numbers of at least 1"),
        (lambda c: c.astype("f4"), None, r"scan_bins needs counts, .* this cube has float32; .*astype\('uint16'\)"),
        (lambda c: c.astype("i4") - 1, None, "values are negative, which counts never are"),
        (lambda c: c * 0, None, "every count of the cube is zero"),
    ],
)
def test_what_cannot_be_scanned_is_refused(scene: Any, change: Any, bins: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.scan_bins(change(scene[0]), bins)


def test_signed_counts_are_counts(scene: Any) -> None:
    cube = scene[0][:48, :48]
    got, want = (hsi.scan_bins(c, [4, 8], n_components=2) for c in (cube.astype("i2"), cube))
    assert_allclose(got["score"], want["score"])


@pytest.mark.parametrize("bins", [3, np.int64(3), 2.5, "auto", {3, 4}, {"y": 3}])
def test_bins_that_are_no_list_are_refused_in_one_line(bins: Any) -> None:
    cube = xr.DataArray(np.ones((16, 16, 20), "u2"), dims=("y", "x", "energy"), coords={"energy": np.arange(20.0)})
    with pytest.raises(InputError, match=r"a list of sizes such as \[2, 4, 8\], got .*n_components=") as refused:
        hsi.scan_bins(cube, bins)
    assert "\n" not in str(refused.value)
