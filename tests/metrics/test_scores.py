"""Tests of scores: small angles, errors and similarities of maps, and the matching of components."""

from __future__ import annotations

import itertools
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scalehsi import metrics
from scalehsi.arrays import Float
from scalehsi.schema import InputError

seeds = st.integers(0, 10_000)


def spectra(seed: int = 0, *, components: int = 3, channels: int = 12, first: float = 1.0) -> xr.DataArray:
    values = np.random.default_rng(seed).random((components, channels)) ** 3
    energy = ("energy", first + 0.1 * np.arange(channels), {"units": "keV"})
    return xr.DataArray(values, dims=("component", "energy"), coords={"energy": energy})


def unmixing(seed: int = 0, *, shape: tuple[int, ...] = (6, 5), components: int = 3) -> xr.Dataset:
    maps = np.random.default_rng(seed + 1).dirichlet([0.5] * components, shape)
    dims = ("component", *(f"frame_{i}" for i in range(len(shape) - 2)), "y", "x")
    data = xr.Dataset(
        {
            "endmembers": spectra(seed, components=components),
            "abundances": (dims, np.moveaxis(maps, -1, 0)),
        },
        coords={"component": np.arange(1, components + 1)},
        attrs={"model": "NMF"},
    )
    return data


# The angle.


def exact_angle(a: Float, b: Float) -> float:
    """The angle of two vectors in extended precision, by Kahan's formula."""
    one, two = a.astype(np.longdouble), b.astype(np.longdouble)
    one, two = one / np.sqrt((one**2).sum()), two / np.sqrt((two**2).sum())
    return float(2 * np.arctan2(np.sqrt(((one - two) ** 2).sum()), np.sqrt(((one + two) ** 2).sum())))


@pytest.mark.parametrize("angle", [1e-7, 1e-5, 1e-2, 1.0, 3.0])
def test_angles_keep_their_digits_down_to_tiny_ones(angle: float) -> None:
    rng = np.random.default_rng(0)
    a = rng.random(2000)
    away = rng.standard_normal(2000)
    away -= a * (away @ a) / (a @ a)
    b = 1e3 * (np.cos(angle) * a / np.linalg.norm(a) + np.sin(angle) * away / np.linalg.norm(away))
    assert_allclose(metrics.spectral_angle(a, b), exact_angle(a, b), rtol=1e-8)
    assert_allclose(metrics.spectral_angle(a, b), angle, rtol=1e-6)


@given(seed=seeds, left=st.sampled_from([1e-6, 1.0, 1e9]), right=st.sampled_from([1e-3, 7.0]))
def test_the_angle_does_not_depend_on_scale_and_order(seed: int, left: float, right: float) -> None:
    a, b = spectra(seed).values[:2]
    angle = metrics.spectral_angle(a, b)
    assert_allclose(metrics.spectral_angle(right * b, left * a), angle, rtol=1e-9)
    assert_allclose(angle, np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), rtol=1e-6)
    assert metrics.spectral_angle(a, left * a) < 1e-15


def test_opposite_and_orthogonal_spectra() -> None:
    assert_allclose(metrics.spectral_angle([1.0, 2.0], [-2.0, -4.0]), np.pi)
    assert_allclose(metrics.spectral_angle([1, 0, 0], [0, 0, 5]), np.pi / 2)


def test_a_spectrum_of_zeros_has_no_angle() -> None:
    a = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = metrics.spectral_angle(a, np.array([1.0, 1.0]))
    assert_allclose(found, [np.pi / 4, np.nan])
    assert np.isnan(metrics.spectral_angle([0.0, 0.0], [0.0, 0.0]))


def test_counts_are_not_wrapped_and_lists_are_taken() -> None:
    a, b = np.array([250, 3], "u1"), np.array([3, 250], "u1")
    assert_allclose(metrics.spectral_angle(a, b), metrics.spectral_angle([250.0, 3.0], [3.0, 250.0]))


def test_arrays_are_compared_along_their_last_axis_and_broadcast() -> None:
    a = spectra().values
    found = metrics.spectral_angle(a[:, None], a[None])
    assert found.shape == (3, 3)
    assert_allclose(found, [[exact_angle(p, q) for q in a] for p in a], rtol=1e-7, atol=1e-15)


def test_dataarrays_are_compared_along_energy_whatever_the_order_of_dims() -> None:
    a, b = spectra(0), spectra(1)
    found = metrics.spectral_angle(a, b.transpose("energy", "component"))
    assert found.dims == ("component",)
    assert_allclose(found, [exact_angle(p, q) for p, q in zip(a.values, b.values, strict=True)], rtol=1e-9)
    assert metrics.sad is metrics.spectral_angle


def test_lazy_spectra_give_lazy_angles() -> None:
    cube = spectra(components=20).chunk({"component": 6})
    found = metrics.spectral_angle(cube, spectra()[0])
    assert isinstance(found.data, da.Array)
    assert_allclose(found, metrics.spectral_angle(spectra(components=20), spectra()[0]))


def test_spectra_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match="12 and 11 channels; crop both alike"):
        metrics.spectral_angle(spectra(), spectra(channels=11))
    with pytest.raises(InputError, match=r"interpolate one with spectra\.interp"):
        metrics.spectral_angle(spectra(), spectra(first=1.05))
    with pytest.raises(InputError, match="spectra have a dim 'energy', got the dims"):
        metrics.spectral_angle(spectra(), spectra().rename(energy="loss"))
    with pytest.raises(InputError, match=r"one length are expected along the last axis, got \(2,\) and \(3,\)"):
        metrics.spectral_angle([1.0, 2.0], [1.0, 2.0, 3.0])


# Errors.


@given(seed=seeds)
def test_errors_are_those_of_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 4, 5))
    assert_allclose(metrics.mse(a, b), np.mean((a - b) ** 2))
    assert_allclose(metrics.nmse(a, b), np.linalg.norm(a - b) ** 2 / np.linalg.norm(a) ** 2)
    assert metrics.nmse(a, a) == 0.0
    assert_allclose(metrics.nmse(3 * a, 3 * b), metrics.nmse(a, b))
    assert_allclose(metrics.mse(xr.DataArray(a), b), metrics.mse(a, b))


def test_unsigned_counts_do_not_wrap_in_errors() -> None:
    a, b = np.array([1, 200], "u1"), np.array([3, 100], "u1")
    assert metrics.mse(a, b) == (4 + 10_000) / 2
    assert_allclose(metrics.nmse(xr.DataArray(a), xr.DataArray(b)), 10_004 / 40_001)


def test_coordinates_that_differ_in_their_last_digit_leave_nothing_out() -> None:
    a = xr.DataArray([1.0, 2.0], dims="y", coords={"y": [0.0, 0.3]})
    b = xr.DataArray([1.0, 4.0], dims="y", coords={"y": [0.0, 0.1 + 0.2]})
    assert metrics.mse(a, b) == 2.0


def test_masked_pixels_are_left_out_of_both_sides() -> None:
    truth, estimate = np.array([3.0, 4.0, 100.0]), np.array([3.0, 3.0, np.nan])
    for wrap in (np.asarray, xr.DataArray, da.from_array):
        assert_allclose(float(metrics.mse(wrap(truth), wrap(estimate))), 0.5)
        assert_allclose(float(metrics.nmse(wrap(truth), wrap(estimate))), 1 / 25)


def test_dims_are_paired_by_name_and_lazy_cubes_stay_lazy() -> None:
    a = xr.DataArray(np.arange(12.0).reshape(3, 4), dims=("y", "x"))
    assert metrics.mse(a, a.transpose("x", "y")) == 0.0
    lazy = metrics.nmse(a.chunk({"y": 1}), a.chunk({"x": 2}) + 1)
    assert isinstance(lazy.data, da.Array)
    assert_allclose(lazy, 12 / (a**2).sum())


def test_errors_of_two_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"two of one shape are expected, got \(2,\) and \(3,\)"):
        metrics.mse([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"got \('y',\) \(2,\) and \('x',\) \(2,\)"):
        metrics.nmse(xr.DataArray([1.0, 2.0], dims="y"), xr.DataArray([1.0, 2.0], dims="x"))


@given(seed=seeds, scale=st.floats(0.1, 10), offset=st.floats(-5, 5))
def test_similarity_is_pearsons_correlation_and_does_not_depend_on_scale_and_offset(
    seed: int, scale: float, offset: float
) -> None:
    a, b = np.random.default_rng(seed).random((2, 5, 4))
    assert_allclose(metrics.similarity(a, b), np.corrcoef(a.ravel(), b.ravel())[0, 1], atol=1e-12)
    assert_allclose(metrics.similarity(a, scale * a + offset), 1.0)
    assert_allclose(metrics.similarity(a, -a), -1.0)


def test_similarity_leaves_masked_pixels_out_and_is_nan_for_a_constant_map() -> None:
    a = np.array([1.0, 2.0, 4.0, np.nan, 7.0])
    b = np.array([2.0, 4.0, 8.0, 3.0, np.nan])
    assert_allclose(metrics.similarity(a, b), 1.0)
    assert np.isnan(metrics.similarity(a, np.full(5, 0.1)))
    assert np.isnan(metrics.similarity(np.full(7, 0.1), np.arange(7.0)))
    assert np.isnan(metrics.similarity([np.nan, np.nan], [1.0, 2.0]))
    with pytest.raises(InputError, match="two of one shape are expected"):
        metrics.similarity(np.ones((2, 3)), np.ones((3, 2)))


# Matching of components.


@given(seed=seeds, order=st.permutations(range(4)))
def test_match_finds_any_permutation_whatever_the_scale(seed: int, order: list[int]) -> None:
    truth = spectra(seed, components=4)
    found = truth[order] * np.array([1e-3, 1.0, 7.0, 1e4])[:, None]
    assert metrics.match(truth, found).tolist() == [order.index(k) for k in range(4)]


@given(seed=seeds)
def test_match_is_the_best_of_all_permutations(seed: int) -> None:
    truth, other = spectra(seed, components=4), spectra(seed + 1, components=5)
    angles = metrics.spectral_angle(truth.values[:, None], other.values[None])
    best = min(sum(angles[k, p] for k, p in enumerate(chosen)) for chosen in itertools.permutations(range(5), 4))
    found = metrics.match(truth, other)
    assert len(set(found.tolist())) == 4
    assert_allclose(angles[range(4), found].sum(), best)


def test_match_gives_an_empty_spectrum_the_remaining_component() -> None:
    truth = spectra()
    found = truth[[2, 0, 1]].copy()
    found[0] = 0.0
    assert metrics.match(truth, found).tolist() == [1, 2, 0]


def test_match_takes_any_spectrum_before_an_empty_one() -> None:
    truth = spectra(components=2)
    found = xr.concat([0 * truth[0], truth[1], spectra(1)[0]], dim="component")
    assert metrics.match(truth, found).tolist() == [2, 1]


def test_match_needs_as_many_components_as_the_truth() -> None:
    with pytest.raises(InputError, match="the truth has 3 components, the estimate 2; fit with n_components=3"):
        metrics.match(spectra(), spectra(components=2))


# The table of all scores.


def test_the_truth_scores_perfectly_in_any_order_scale_and_layout() -> None:
    truth = unmixing()
    result = truth.isel(component=[2, 0, 1])
    scale = xr.DataArray([10.0, 0.1, 3.0], dims="component")
    result = result.assign(endmembers=result.endmembers * scale, abundances=result.abundances / scale)
    result["abundances"] = result.abundances.transpose("x", "component", "y")
    table = metrics.score(result.assign_coords(component=[1, 2, 3]), truth)
    assert table.matched.values.tolist() == [2, 3, 1]
    assert table.component.values.tolist() == [1, 2, 3]
    assert table.spectral_angle.attrs["units"] == "rad"
    for name, want in {"spectral_angle": 0, "map_similarity": 1, "map_mse": 0, "map_nmse": 0}.items():
        assert_allclose(table[name], want, atol=1e-12)


def test_scores_are_those_of_the_single_metrics() -> None:
    truth, result = unmixing(0), unmixing(0)
    result["endmembers"] = result.endmembers + 0.02 * spectra(5)
    rng = np.random.default_rng(3)
    result["abundances"] = result.abundances * rng.uniform(0.8, 1.2, result.abundances.shape)
    table = metrics.score(result, truth)
    ours, theirs = metrics.signal_shares(result), metrics.signal_shares(truth)
    assert_allclose(table.spectral_angle, metrics.spectral_angle(result.endmembers, truth.endmembers))
    for k in range(3):
        assert_allclose(table.map_mse[k], metrics.mse(theirs[k], ours[k]))
        assert_allclose(table.map_nmse[k], metrics.nmse(theirs[k], ours[k]))
        assert_allclose(table.map_similarity[k], metrics.similarity(theirs[k], ours[k]))


def _only(result: xr.Dataset, used: np.ndarray[Any, Any]) -> xr.Dataset:
    """The used pixels as the only ones, in one row."""
    maps = result["abundances"].values[:, used]
    return result.drop_vars("abundances").assign(abundances=(("component", "y", "x"), maps[:, None]))


def test_masked_pixels_do_not_count_in_a_score() -> None:
    truth = unmixing()
    result = truth.copy(deep=True)
    result["abundances"] = result.abundances * np.random.default_rng(0).uniform(0.9, 1.1, result.abundances.shape)
    used = xr.DataArray(np.random.default_rng(1).random((6, 5)) < 0.7, dims=("y", "x"))
    masked = result.assign(abundances=result.abundances.where(used))
    table = metrics.score(masked, truth)
    few = metrics.score(*(_only(d, used.values) for d in (result, truth)))
    for name in ("map_similarity", "map_mse", "map_nmse"):
        assert np.isfinite(table[name]).all()
        assert_allclose(table[name], few[name])


def test_scores_of_more_dims_more_components_and_without_maps() -> None:
    truth = unmixing(shape=(2, 4, 3))
    assert_allclose(metrics.score(truth, truth).map_mse, 0.0, atol=1e-15)
    more = unmixing(components=4)
    more["endmembers"][:3] = truth.endmembers.values
    table = metrics.score(more, truth.drop_vars("abundances"))
    assert set(table.data_vars) == {"spectral_angle", "matched"}
    assert table.matched.values.tolist() == [1, 2, 3]


def test_names_of_the_true_phases_label_the_table() -> None:
    truth = unmixing().assign_coords(component=["Brg", "Fp", "CaPv"])
    assert metrics.score(unmixing(), truth).component.values.tolist() == ["Brg", "Fp", "CaPv"]


def test_results_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(InputError, match="the truth has no variable 'endmembers'; is it the store"):
        metrics.score(unmixing(), unmixing().drop_vars("endmembers"))
    with pytest.raises(InputError, match=r"the maps have sizes .*'y': 6.*those of the truth .*'y': 5.*bin both alike"):
        metrics.score(unmixing(), unmixing(shape=(5, 5)))
    with pytest.raises(InputError, match="it lacks abundances"):
        metrics.score(unmixing().drop_vars("abundances"), unmixing())


def test_shares_take_out_the_scale_and_leave_empty_pixels_empty() -> None:
    result = unmixing()
    result["abundances"][:, 0, 0] = 0.0
    shares = metrics.signal_shares(result)
    assert np.isnan(shares[:, 0, 0]).all()
    assert_allclose(np.nansum(shares, axis=0)[1:], 1.0)
    scale = xr.DataArray([5.0, 0.2, 1.0], dims="component")
    other = result.assign(endmembers=result.endmembers * scale, abundances=result.abundances / scale)
    assert_allclose(metrics.signal_shares(other), shares)


def three_maps(shape: tuple[int, int] = (40, 50), seed: int = 0) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """A truth, and estimates whose errors are their deviations, half of them and twice of them."""
    rng = np.random.default_rng(seed)
    dims, axis = ("component", "y", "x"), {"component": ["a", "b", "c"]}
    truth = xr.DataArray(rng.standard_normal((3, *shape)), dims=dims, coords=axis)
    std = xr.DataArray(rng.uniform(0.1, 2.0, (3, *shape)), dims=dims, coords=axis)
    scale = xr.DataArray([1.0, 0.5, 2.0], dims="component", coords=axis)
    return truth, truth + (scale * std * rng.standard_normal((3, *shape))).transpose(*dims), std


def test_coverage_is_the_level_where_deviations_are_right() -> None:
    truth, mean, std = three_maps((200, 200))
    found = metrics.coverage(truth, mean, std)
    assert found.component.values.tolist() == ["a", "b", "c"]
    assert_allclose(found, [0.95, 0.99991, 0.6729], atol=0.01)
    assert metrics.coverage(truth[0], mean[0], std[0], level=0.5) == pytest.approx(0.5, abs=0.01)
    plain = metrics.coverage(*(v.values[0] for v in (truth, mean, std)))
    assert plain == float(found[0])
    lazy = metrics.coverage(truth.chunk(x=30), mean.chunk(y=7), std)
    assert_allclose(lazy, found)
    turned = metrics.coverage(truth, mean.transpose("x", "component", "y"), std.transpose("y", "x", "component"))
    assert_allclose(turned, found)


def test_coverage_leaves_missing_values_out() -> None:
    truth, mean, std = three_maps()
    gone = mean.copy()
    gone[0, :20], gone[1] = np.nan, np.nan
    found = metrics.coverage(truth, gone, std)
    assert float(found[0]) == metrics.coverage(truth[0, 20:], mean[0, 20:], std[0, 20:])
    assert np.isnan(found[1])


@pytest.mark.parametrize("level", [0.0, 1.0, 95, True, "high"])
def test_levels_out_of_range_are_refused(level: Any) -> None:
    with pytest.raises(InputError, match=r"type level=0\.95"):
        metrics.coverage(*three_maps(), level=level)


def test_bands_that_do_not_match_are_refused() -> None:
    truth, mean, std = three_maps()
    with pytest.raises(InputError, match="are mean and std mixed up"):
        metrics.coverage(truth, std, mean)
    with pytest.raises(InputError, match="crop or bin both alike"):
        metrics.coverage(truth, mean[:, 1:], std)


def test_similarities_are_those_of_each_map() -> None:
    truth, mean, _ = three_maps()
    found = metrics.similarities(truth, mean.transpose("x", "component", "y"))
    assert found.component.values.tolist() == ["a", "b", "c"]
    assert_allclose(found, [metrics.similarity(t, m) for t, m in zip(truth, mean, strict=True)])
    # The normalised cross-correlation at no shift.
    t, m = (v.values[0] - v.values[0].mean() for v in (truth, mean))
    assert_allclose(found[0], (t * m).sum() / np.sqrt((t * t).sum() * (m * m).sum()))
    with pytest.raises(InputError, match="wrap arrays with xarray"):
        metrics.similarities(truth.values, mean)
