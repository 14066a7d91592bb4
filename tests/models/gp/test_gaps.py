"""Gaps of one map cost only that map; maps of nothing, infinite values and tiny maps are refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.kernels.gaussian_process import missing_pixels, posterior
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.models.gp import model
from scalehsi.schema import InputError

pytestmark = pytest.mark.long

PATTERNS = ["random", "rows", "corner"]


def smooth_maps(shape: tuple[int, ...], count: int, seed: int, length: float = 4.0) -> np.ndarray:
    """Draws (count, ..., y, x) of a Gaussian process of unit variance."""
    rng = np.random.default_rng(seed)
    distances = [np.subtract.outer(np.arange(n), np.arange(n)) for n in shape[-2:]]
    rows, columns = (
        np.linalg.cholesky(covariance("matern52", d, length)[0] + 1e-9 * np.eye(len(d))) for d in distances
    )
    return rows @ rng.standard_normal((count, *shape)) @ columns.T


def scene(shape: tuple[int, ...], count: int, seed: int, pattern: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True maps, noisy ones, and where map 2 (and 4) lacks its pixels."""
    truth, rng = smooth_maps(shape, count, seed), np.random.default_rng([seed, 1])
    if seed % 2 and count > 1:
        truth[1] = 0.8 * truth[0] + 0.6 * truth[1]
    gone = np.zeros(truth.shape, dtype=bool)
    height, width = shape[-2:]
    for t in range(1, count, 2):
        if pattern == "random":
            gone[t] = rng.random(shape) < 0.6
        elif pattern == "rows":
            gone[t, ..., ::2, :] = True
        else:
            gone[t] = True
            gone[t, ..., : -(-height // 2), : -(-width // 2)] = False
    return truth, truth + 0.1 * rng.standard_normal(truth.shape), gone


def maps_of(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("component", *(("time",) if values.ndim == 4 else ()), "y", "x"))


def error_of(result: xr.Dataset, truth: np.ndarray) -> float:
    """Root mean square error of the first map."""
    return float(np.sqrt(((result["abundances"].values[0] - truth[0]) ** 2).mean()))


def ratio(shape: tuple[int, ...], count: int, seed: int, pattern: str, **how: object) -> float:
    """Error of the complete first map beside gappy ones, over that of the same map alone."""
    truth, noisy, gone = scene(shape, count, seed, pattern)
    model = hsi.ParallelGP(**how)
    alone, beside = (hsi.fit(maps_of(y), model) for y in (noisy[:1], np.where(gone, np.nan, noisy)))
    assert np.isfinite(beside["abundances"]).all()
    assert np.isfinite(beside["abundances_std"]).all()
    return error_of(beside, truth) / error_of(alone, truth)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_complete_map_beside_a_gappy_one_is_no_worse_than_alone(pattern: str) -> None:
    assert ratio((16, 18), 2, 1, pattern) < 1.1


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("shape", "count"), [((20, 20), 2), ((16, 18), 4)])
def test_in_the_mean_over_seeds_it_costs_nothing(shape: tuple[int, int], count: int, pattern: str) -> None:
    assert np.mean([ratio(shape, count, seed, pattern) for seed in range(4)]) < 1.05


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_with_a_kernel_of_distance(pattern: str) -> None:
    how = {"kernel": "matern52-radial", "lengthscale": (2.0, 8.0)}
    assert np.mean([ratio((18, 18), 2, seed, pattern, **how) for seed in range(3)]) < 1.05


@pytest.mark.parametrize(("shape", "how"), [((1, 70), {}), ((3, 14, 15), {}), ((18, 16), {"upsample": 1.5})])
def test_line_scans_series_and_upsampled_maps(shape: tuple[int, ...], how: dict[str, float]) -> None:
    truth, noisy, gone = scene(shape, 2, 2, "random")
    found = hsi.fit(maps_of(np.where(gone, np.nan, noisy)), hsi.ParallelGP(lengthscale=(4.0, 4.0), **how))
    full = hsi.fit(maps_of(noisy), hsi.ParallelGP(lengthscale=(4.0, 4.0), **how))
    # The deviation of the complete map hardly grows, that of the other does where it was not measured.
    grown = (found["abundances_std"] / full["abundances_std"]).values
    assert 0.8 < np.median(grown[0]) < 1.2
    assert np.median(grown[1]) > 1.2
    if not how:
        alone = hsi.fit(maps_of(noisy[:1]), hsi.ParallelGP(lengthscale=(4.0, 4.0)))
        assert error_of(found, truth) < 1.1 * error_of(alone, truth)
        off = (found["abundances"].values - truth) / found["abundances_std"].values
        assert 0.85 < (np.abs(off[gone]) < 1.96).mean()


def test_tiles_with_gaps_of_their_own() -> None:
    _, noisy, gone = scene((30, 24), 2, 0, "random")
    broken = maps_of(np.where(gone, np.nan, noisy))
    whole, tiled = (hsi.fit(broken, hsi.ParallelGP(tile=tile, lengthscale=(2.0, 2.0))) for tile in (None, 15))
    off = abs(tiled["abundances"] - whole["abundances"]) / whole["abundances_std"]
    assert float(off.max()) < 0.05
    assert float(off.mean()) < 0.005
    assert float(tiled["seam_difference"].max()) < 0.05


def test_the_fit_equals_a_plain_gaussian_process_of_the_measured_values() -> None:
    _, noisy, gone = scene((9, 10), 3, 3, "random")
    broken = np.where(gone, np.nan, noisy)
    found = hsi.fit(maps_of(broken), hsi.ParallelGP(lengthscale=(3.0, 3.0), draws=200))
    k = [covariance("matern52", np.subtract.outer(np.arange(n), np.arange(n)), 3.0)[0] for n in (9, 10)]
    prior = np.kron(found["coupling"].values, np.kron(*k))
    noise, mean = (np.repeat(found[name].values, 90) for name in ("noise_std", "map_mean"))
    keep = ~gone.ravel()
    gain = np.linalg.solve(prior[np.ix_(keep, keep)] + np.diag(noise[keep] ** 2), prior[keep]).T
    expected = mean + gain @ (broken.ravel()[keep] - mean[keep])
    std = np.sqrt(np.diag(prior) - np.einsum("ij,ij->i", gain, prior[:, keep]))
    assert (np.abs(found["abundances"].values.ravel() - expected) / std).max() < 0.01
    np.testing.assert_allclose(found["abundances_std"].values.ravel(), std, rtol=0.2)
    assert np.sqrt(((found["abundances_std"].values.ravel() / std - 1) ** 2).mean()) < 0.05
    assert found["fitted_pixels"].values.tolist() == (~gone).sum(axis=(1, 2)).tolist()


def test_the_engines_agree_on_gaps_of_their_own() -> None:
    pytest.importorskip("gpytorch")
    from scalehsi.models.gp import dense

    _, noisy, gone = scene((8, 9), 3, 1, "random")
    y, seen = np.moveaxis(noisy, 0, -1), np.moveaxis(~gone, 0, -1)
    factor = np.array([[1.0], [0.7], [-0.4]])
    signal = factor @ factor.T + np.diag([0.05, 0.2, 0.1])
    hyper = Hyper("matern52", (2.5, 3.5), signal, np.array([0.1, 0.3, 0.2]), np.zeros(3), 0.0, np.empty((0, 2)), 0)
    expected, std = dense.predict(np.where(seen, y, np.nan), seen, hyper, upsample=2)
    filled = missing_pixels.fill(y, seen, hyper)
    mean, _ = posterior.predict(filled.maps, hyper, upsample=2)
    assert (np.abs(mean - expected) / std).max() < 0.01
    drawn = missing_pixels.deviation((8, 9), seen, hyper, count=200, upsample=2)
    assert np.sqrt(((drawn / std - 1) ** 2).mean()) < 0.05
    # With all values the likelihood of single values is that of whole pixels.
    _, whole = dense.fit(y, np.ones_like(seen), steps=3, bounds=((2.0, 4.0), (2.0, 4.0)))
    almost = np.ones_like(seen)
    almost[0, 0, 0] = False
    _, less = dense.fit(y, almost, steps=3, bounds=((2.0, 4.0), (2.0, 4.0)))
    assert abs(whole[0] - less[0]) < 5.0
    broken = xr.DataArray(np.where(gone, np.nan, noisy), dims=("component", "y", "x"))
    found = hsi.fit(broken, hsi.ParallelGP(engine="dense", max_iter=20))
    assert found["training_loss"].values[-1] < found["training_loss"].values[0]
    assert np.isfinite(found["abundances_std"]).all()


@pytest.mark.parametrize(
    ("empty", "words"),
    [([1], "component 2 is NaN or masked everywhere"), ([0, 2], "components 1, 3 are NaN or masked")],
)
def test_a_map_of_nothing_is_named(empty: list[int], words: str) -> None:
    noisy = scene((12, 13), 3, 0, "random")[1]
    noisy[empty] = np.nan
    with pytest.raises(InputError, match=words):
        hsi.fit(maps_of(noisy), hsi.ParallelGP())
    with pytest.raises(InputError, match=words):
        hsi.lengthscale_scan(maps_of(noisy))
    rest = hsi.fit(maps_of(noisy).dropna("component", how="all"), hsi.ParallelGP(lengthscale=(3.0, 3.0)))
    assert rest.sizes["component"] == 3 - len(empty)


def test_a_map_that_was_measured_in_one_frame_alone_is_smoothed() -> None:
    truth, noisy, _ = scene((4, 12, 13), 2, 0, "random")
    noisy[1, 1:] = np.nan
    found = hsi.fit(maps_of(noisy), hsi.ParallelGP(lengthscale=(4.0, 4.0)))
    assert found["fitted_pixels"].values.tolist() == [4 * 156, 156]
    assert np.sqrt(((found["abundances"].values[0] - truth[0]) ** 2).mean()) < 0.09
    assert float(found["abundances_std"][1, 2].mean()) > 3 * float(found["abundances_std"][1, 0].mean())


def test_a_map_that_was_measured_in_a_corner_of_large_maps_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "ONE_WINDOW_PIXELS", 100)
    monkeypatch.setattr(model, "WINDOW_SIDE_PIXELS", 10)
    monkeypatch.setattr(model, "MAX_WINDOWS", 2)
    _, noisy, _ = scene((52, 60), 2, 0, "random")
    noisy[1, 10:] = noisy[1, :, 10:] = np.nan
    found = hsi.fit(maps_of(noisy).chunk(y=20), hsi.ParallelGP(lengthscale=(4.0, 4.0), draws=2))
    assert found["fitted_pixels"].values.tolist() == [300, 90]
    assert np.isfinite(found["abundances"]).all()


@pytest.mark.parametrize("shape", [(12, 13), (2, 9, 10)])
@pytest.mark.parametrize("kernel", ["matern52", "matern52-radial"])
def test_an_infinite_value_is_refused_with_its_place(shape: tuple[int, ...], kernel: str) -> None:
    noisy = scene(shape, 3, 0, "random")[1]
    noisy[(1, *(0,) * (len(shape) - 2), 4, 7)] = np.inf
    with pytest.raises(InputError, match="infinite, in component 2 at pixel y = 4, x = 7") as caught:
        hsi.fit(maps_of(noisy), hsi.ParallelGP(kernel))
    assert "\n" not in str(caught.value)
    # A masked value is not read.
    used = xr.DataArray(np.isfinite(noisy).all(axis=0), dims=maps_of(noisy).dims[1:])
    found = hsi.fit(maps_of(noisy).assign_coords(mask=used), hsi.ParallelGP(kernel, lengthscale=(3.0, 3.0)))
    assert np.isfinite(found["abundances"]).all()


def test_an_infinite_value_outside_the_windows_of_the_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "ONE_WINDOW_PIXELS", 100)
    monkeypatch.setattr(model, "WINDOW_SIDE_PIXELS", 10)
    noisy = smooth_maps((45, 25), 1, 0)
    noisy[0, 44, 2] = -np.inf
    with pytest.raises(InputError, match="component 1 at pixel y = 44, x = 2"):
        hsi.fit(maps_of(noisy), hsi.ParallelGP(lengthscale=(4.0, 4.0)))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 8), (2, 4), (3, 1, 1)])
def test_maps_of_fewer_than_nine_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot tell noise from structure"):
        hsi.fit(maps_of(np.random.default_rng(0).standard_normal((2, *shape))), hsi.ParallelGP())


def test_maps_with_fewer_than_nine_measured_pixels_are_refused() -> None:
    noisy = np.random.default_rng(0).standard_normal((2, 10, 10))
    noisy[:, 2:] = noisy[:, :, 4:] = np.nan
    with pytest.raises(InputError, match="maps of 8 measured pixels"):
        hsi.fit(maps_of(noisy), hsi.ParallelGP())


def test_a_scan_of_lengths_leaves_the_complete_map_as_it_is() -> None:
    _, noisy, gone = scene((20, 21), 3, 0, "random")
    full, broken = (hsi.lengthscale_scan(maps_of(y), [3, 6]) for y in (noisy, np.where(gone, np.nan, noisy)))
    for name in ("loss", "noise", "converged"):
        np.testing.assert_allclose(broken[name][[0, 2]], full[name][[0, 2]], rtol=1e-6, atol=1e-6)
        assert not np.allclose(broken[name][1], full[name][1], rtol=1e-3) or name == "converged"
