"""BLU: truncated normal numbers, calibrated deviations on data of its own model, the benchmark, and R-hat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import truncnorm

import scalehsi as hsi
from scalehsi.cube import make_cube
from scalehsi.kernels.extraction.gibbs import position, truncated_normal
from scalehsi.metrics import coverage
from scalehsi.models.blu import largest_r_hat
from scalehsi.result import result_warnings
from scalehsi.schema import InputError
from tests.bench.unmixing_scenes import scene, scores_of

pytestmark = pytest.mark.long


def codes(result: xr.Dataset) -> list[str]:
    return [w.code for w in result_warnings(result)]


def gaussian(concentration: float, *, seed: int = 3) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """A cube of the model itself: fractions of a Dirichlet distribution, Gaussian noise; its spectra and maps."""
    rng = np.random.default_rng(seed)
    e = np.arange(60.0)
    s = np.stack([1 + np.exp(-((e - c) ** 2) / 60) for c in (15, 30, 45)]) * 100
    maps = rng.dirichlet([concentration] * 3, (24, 24))
    cube = make_cube(maps @ s + rng.normal(0, 2, (24, 24, 60)), energy=e, energy_units="eV")
    spectra = xr.DataArray(s, dims=("component", "energy"), coords={"energy": cube.energy})
    return cube, spectra, xr.DataArray(maps, dims=("y", "x", "component")).transpose("component", "y", "x")


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 9.0), (2.5, 3.5), (6.0, np.inf), (-9.0, -7.0), (-0.1, 8.0), (-np.inf, 0.5)]
)
def test_truncated_normal_numbers_have_their_distribution(low: float, high: float) -> None:
    state = np.array([position(np.uint64(1), np.uint64(2), np.uint64(3))], dtype=np.uint64)
    drawn = np.array([truncated_normal(0.0, 1.0, low, high, state) for _ in range(4000)])
    assert ((drawn >= low) & (drawn <= high)).all()
    law = truncnorm(low, high)
    error = np.sqrt(law.var() / len(drawn))
    assert abs(drawn.mean() - law.mean()) < 5 * error
    assert drawn.std() == pytest.approx(law.std(), rel=0.1)


@pytest.mark.parametrize("concentration", [0.2, 1.0])
def test_deviations_are_errors_on_data_of_the_model(concentration: float) -> None:
    cube, spectra, maps = gaussian(concentration)
    model = hsi.BLU(3, weighting=None, concentration=concentration, sweeps=600, burn_in=200)
    result = hsi.fit(cube, model, seed=0)
    order = hsi.metrics.match(spectra, result["endmembers"])
    found = result.isel(component=order).drop_vars("component")
    bands = coverage(maps, found["abundances"], found["abundances_std"])
    assert (bands > 0.88).all()
    assert (bands < 0.98).all()
    within = abs(found["endmembers"] - spectra) <= 3 * found["endmembers_std"]
    assert float(within.mean()) >= 0.95
    assert float(result["noise_std"]) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_benchmark_is_met_and_bands_cover_the_truth(seeds: int) -> None:
    found, bands = [], []
    for seed in range(seeds):
        made = scene(3, seed=seed)
        result = hsi.fit(made.cube, hsi.BLU(3), seed=seed)
        found.append(scores_of(made, result))
        spectra = xr.DataArray(made.spectra, dims=("component", "energy"), coords={"energy": made.cube.energy})
        best = result.isel(component=hsi.metrics.match(spectra, result["endmembers"]))
        maps = best["abundances"].transpose("y", "x", "component").values
        deviation = best["abundances_std"].transpose("y", "x", "component").values
        bands.append(coverage(made.maps, maps, deviation))
        assert ("chains_differ" in codes(result)) == (float(result["r_hat"]) >= 1.05)
    sad, nmse = np.mean(found, axis=0)
    assert sad <= 0.0070
    assert nmse <= 0.013
    assert 0.88 <= np.mean(bands) <= 0.98


@pytest.mark.slow
def test_the_published_prior_meets_its_table() -> None:
    made = scene(3)
    sad, nmse = scores_of(made, hsi.fit(made.cube, hsi.BLU(3, concentration=1.0), seed=0))
    assert sad <= 0.009
    assert nmse <= 0.018


@pytest.mark.slow
def test_four_components_meet_the_table() -> None:
    found = [scores_of(m, hsi.fit(m.cube, hsi.BLU(4), seed=0)) for m in (scene(4, seed=seed) for seed in range(3))]
    sad, nmse = np.mean(found, axis=0)
    assert sad <= 0.026
    assert nmse <= 0.020


def test_few_sweeps_are_said_and_many_are_not() -> None:
    cube, _, _ = gaussian(0.2)
    short = hsi.fit(cube, hsi.BLU(3, weighting=None, sweeps=20, burn_in=0), seed=0)
    (found,) = [w for w in result_warnings(short) if w.code == "chains_differ"]
    assert "R-hat is" in found.text
    assert found.remedy == "BLU(3, sweeps=60)"
    long = hsi.fit(cube, hsi.BLU(3, weighting=None, sweeps=1500, burn_in=500), seed=0)
    assert float(long["r_hat"]) < 1.05
    assert "chains_differ" not in codes(long)


def test_r_hat_is_one_for_one_distribution_and_large_for_two() -> None:
    draws = np.random.default_rng(0).standard_normal((2, 4000, 1, 1))
    assert largest_r_hat(draws) == pytest.approx(1.0, abs=2e-3)
    assert largest_r_hat(draws + np.array([0.0, 5.0])[:, None, None, None]) > 2


def test_random_numbers_are_counted_on_the_pixel() -> None:
    cube, _, _ = gaussian(1.0)
    model: Any = hsi.BLU(3, weighting=None, sweeps=30, burn_in=10)
    whole, again = hsi.fit(cube, model, seed=4), hsi.fit(cube.chunk({"y": 7, "x": 5}), model, seed=4)
    np.testing.assert_allclose(whole["abundances"], again["abundances"], atol=1e-3)
    np.testing.assert_array_equal(whole["endmembers"], hsi.fit(cube, model, seed=4)["endmembers"])
    assert not np.allclose(whole["endmembers"], hsi.fit(cube, model, seed=5)["endmembers"], rtol=1e-6)


def test_data_below_zero_are_refused() -> None:
    cube, _, _ = gaussian(1.0)
    with pytest.raises(InputError, match="BLU: the mean spectrum is nowhere above 0; keep the background"):
        hsi.fit(cube - 1000, hsi.BLU(3, weighting=None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sweeps": 5}, "sweeps is a whole number of at least 20, got 5"),
        ({"burn_in": 595}, "burn_in=595 leaves 5 of 600 sweeps; 10 are needed"),
        ({"chains": 0}, "chains is a whole number of at least 1, got 0"),
        ({"concentration": 0}, "concentration is a number above 0 and at most 10, got 0"),
        ({"constraint": "nnls"}, "BLU has fractions that sum to one"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.BLU(3, **settings)
