"""Tests of least-squares passes: sums, objective and abundances against plain numpy, scipy and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from sklearn.decomposition import NMF

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import least_squares
from scalehsi.kernels.least_squares import fused_pass, passes
from scalehsi.kernels.pixel_rows.strips import strips

seeds = st.integers(0, 10_000)
DTYPES = ["u1", "u2", "i4", "f4", "f8", ">u2", "f2"]
WEIGHTS = ["none", "channels", "channels and pixels"]


@pytest.fixture(params=["wide", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the float64 pass of small blocks, and with the compiled passes of large ones.

    The latter read float32, uint8, uint16 and float64, and slabs of other dtypes.
    """
    name: str = request.param
    if name == "compiled":
        monkeypatch.setattr(passes, "MAX_FLOAT64_VALUES", 0)
        monkeypatch.setattr(passes, "PIXELS_PER_SLAB", 32)
    return name


def scene(
    seed: int = 0, *, pixels: int = 60, components: int = 3, channels: int = 20, empty: bool = True
) -> tuple[Float, Float]:
    """Endmembers (K, E) and counts (P, E); a pixel and a channel are empty."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 4 + 0.01
    x = rng.poisson(rng.gamma(0.7, 20.0, (pixels, components)) @ s).clip(0, 255).astype(np.float64)
    if empty:
        x[pixels // 2] = 0.0
        x[:, channels // 3] = 0.0
    return s, x


def options(kind: str, x: Float) -> dict[str, Any]:
    if kind == "none":
        return {}
    w = 1.0 / np.maximum(x.mean(axis=0), 0.05)
    return {"w": w} if kind == "channels" else {"w": w, "weigh_pixels": True}


def twin(x: Float, s: Float, *, w: Float | None = None, weigh_pixels: bool = False) -> dict[str, Any]:
    """The same pass in plain numpy and scipy, all in float64."""
    w = np.ones(x.shape[1]) if w is None else w
    mean = x.mean(axis=1)
    v = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0) if weigh_pixels else np.ones(len(x))
    root = np.sqrt(w)
    c = np.stack([optimize.nnls((s * root).T, row * root)[0] for row in x])
    rest = x - c @ s
    return {
        "c": c,
        "N": (c * v[:, None]).T @ x,
        "M": (c * v[:, None]).T @ c,
        "C": v @ c,
        "norm": (v[:, None] * w * x**2).sum(),
        "objective": 0.5 * (v[:, None] * w * rest**2).sum(),
        "residual": np.sqrt((rest**2).mean(axis=1)),
        "residual_spectrum": rest.sum(axis=0),
    }


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {k: sum(p[k] for p in parts) for k in parts[0]}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_objective_are_those_of_plain_numpy_for_any_dtype(dtype: str, weights: str, path: str) -> None:
    s, x = scene()
    want = twin(x, s, **options(weights, x))
    pixels, sums = least_squares.update(x.astype(dtype), s=s, **options(weights, x))
    assert pixels == {}
    for name in ("N", "M", "C", "norm"):
        assert_allclose(sums[name], want[name], rtol=1e-5, atol=1e-6 * np.abs(want[name]).max(), err_msg=name)
    value = least_squares.objective(sums, s, options(weights, x).get("w"))
    assert_allclose(value, want["objective"], rtol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_abundances_and_residuals_are_those_of_plain_numpy_for_any_dtype(dtype: str, weights: str, path: str) -> None:
    s, x = scene(1)
    want = twin(x, s, **options(weights, x))
    pixels, sums = least_squares.abundances(x.astype(dtype), s=s, **options(weights, x))
    assert pixels["abundances"].dtype == np.float32
    assert_allclose(pixels["abundances"], want["c"], rtol=1e-4, atol=1e-5 * want["c"].max())
    assert_allclose(pixels["residual"], want["residual"], rtol=1e-4, atol=1e-5)
    spectrum = want["residual_spectrum"]
    assert_allclose(sums["residual_spectrum"], spectrum, rtol=1e-4, atol=1e-5 * x.sum(axis=0).max())
    assert_allclose(sums["objective"], want["objective"], rtol=1e-6)


def test_abundances_are_those_of_scikit_learn_with_fixed_endmembers() -> None:
    s, x = scene(2)
    model = NMF(n_components=3, init="random", max_iter=1000, tol=1e-12, random_state=0).fit(x)
    model.components_ = s
    found = least_squares.abundances(x, s=s)[0]["abundances"]
    assert_allclose(found, model.transform(x), rtol=1e-4, atol=1e-4 * found.max())


def test_alternation_ends_no_higher_than_scikit_learn() -> None:
    s, x = scene(3, pixels=150, channels=30)
    model = NMF(n_components=3, init="custom", solver="cd", max_iter=2000, tol=1e-9)
    model.fit_transform(x, W=np.full((150, 3), x.mean()), H=s.copy())
    for _ in range(300):
        _, sums = least_squares.update(x, s=s)
        s = least_squares.improve(sums, s)
    assert least_squares.objective(least_squares.update(x, s=s)[1], s) <= 0.5 * model.reconstruction_err_**2 * (
        1 + 1e-4
    )


@given(seed=seeds, weights=st.sampled_from(WEIGHTS), components=st.integers(1, 5), channels=st.integers(1, 12))
def test_alternation_never_raises_the_objective(seed: int, weights: str, components: int, channels: int) -> None:
    s, x = scene(seed, components=components, channels=channels)
    before = np.inf
    for _ in range(6):
        _, sums = least_squares.update(x, s=s, **options(weights, x))
        value = least_squares.objective(sums, s, options(weights, x).get("w"))
        assert value <= before + 1e-10 * sums["norm"]
        s, before = least_squares.improve(sums, s), value
        assert (s >= 0).all()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_improved_endmembers_are_the_best_for_the_abundances_of_the_pass(weights: str) -> None:
    s, x = scene(4)
    kind = options(weights, x)
    c = twin(x, s, **kind)["c"]
    v = 1.0 / np.where(x.any(axis=1), x.mean(axis=1), np.inf) if kind.get("weigh_pixels") else np.ones(len(x))
    root = np.sqrt(v)[:, None]
    want = np.stack([optimize.nnls(c * root, column)[0] for column in (x * root).T]).T
    found = least_squares.improve(least_squares.update(x, s=s, **kind)[1], s)
    assert_allclose(found, want, rtol=1e-6, atol=1e-9)


def test_a_component_that_no_pixel_uses_keeps_its_spectrum() -> None:
    s, x = scene(5, empty=False)
    x[:, 0] = 0.0
    s = np.vstack([s, 1000.0 * (np.arange(20) == 0)])
    _, sums = least_squares.update(x, s=s)
    assert sums["M"][3, 3] == 0.0
    assert_array_equal(least_squares.improve(sums, s)[3], s[3])


@pytest.mark.parametrize("channels", [40, 700])
@pytest.mark.parametrize("noise", [0.3, 0.03, 0.003])
def test_the_objective_of_single_precision_sums_is_accurate_for_small_residuals(channels: int, noise: float) -> None:
    # It is a small difference of large sums: an error of 1e-8 of the data's power would hide progress of the spectra.
    rng = np.random.default_rng(0)
    s, c = rng.random((4, channels)), rng.random((1500, 4))
    x = ((c @ s) * (1 + noise * rng.standard_normal((1500, channels)))).clip(0).astype("f4")
    _, sums = least_squares.update(x, s=s)
    exact = twin(x.astype(np.float64), s)["objective"]
    assert abs(least_squares.objective(sums, s) - exact) <= 1.5e-8 * sums["norm"]


@given(seed=seeds, size=st.integers(1, 7))
def test_nearly_equal_endmembers_give_finite_abundances_that_fit(seed: int, size: int) -> None:
    # In float32 their Gram matrix is indefinite, and Cholesky would return NaN.
    s, x = scene(seed, channels=60, empty=False)
    rng = np.random.default_rng(seed)
    s[1] = s[0] * (1 + 10.0**-size * rng.standard_normal(60)).clip(0)
    x = rng.random((30, 3)) @ s
    pixels, sums = least_squares.abundances(x.astype("f4"), s=s)
    assert np.isfinite(pixels["abundances"]).all()
    assert sums["objective"] <= 1e-7 * (x**2).sum()


@given(seed=seeds, cut=st.integers(1, 599), weights=st.sampled_from(WEIGHTS))
def test_sums_over_two_blocks_are_those_over_one(path: str, seed: int, cut: int, weights: str) -> None:
    s, x = scene(seed, pixels=600)  # more than two strips
    kind = options(weights, x)
    for fn in (least_squares.update, least_squares.abundances):
        pixels, whole = fn(x.astype("u1"), s=s, **kind)
        halves = [fn(part.astype("u1"), s=s, **kind) for part in (x[:cut], x[cut:])]
        for name, value in joined([sums for _, sums in halves]).items():
            assert_allclose(value, whole[name], rtol=1e-6, atol=1e-6 * np.abs(whole[name]).max())
        for name, rows in pixels.items():
            assert_allclose(np.concatenate([p[name] for p, _ in halves]), rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("components", "channels", "pixels"), [(1, 1, 1), (1, 9, 4), (3, 1, 4), (2, 9, 1), (5, 3, 7)])
def test_one_component_one_channel_one_pixel(components: int, channels: int, pixels: int, path: str) -> None:
    s, x = scene(6, components=components, channels=channels, pixels=pixels, empty=False)
    want = twin(x, s)
    _, sums = least_squares.update(x.astype("u1"), s=s)
    assert_allclose(least_squares.objective(sums, s), want["objective"], rtol=1e-5, atol=1e-6 * want["norm"])
    pixels_, _ = least_squares.abundances(x.astype("u1"), s=s)
    assert pixels_["abundances"].shape == (pixels, components)
    assert pixels_["residual"].shape == (pixels,)
    assert least_squares.improve(sums, s).shape == s.shape


@pytest.mark.parametrize("weigh_pixels", [False, True])
def test_a_block_of_zeros_gives_zeros(weigh_pixels: bool, path: str) -> None:
    s, x = scene()
    pixels, sums = least_squares.abundances(np.zeros_like(x, dtype="u1"), s=s, weigh_pixels=weigh_pixels)
    assert not pixels["abundances"].any()
    assert not pixels["residual"].any()
    assert sums["objective"] == 0.0
    _, sums = least_squares.update(np.zeros_like(x, dtype="u1"), s=s, weigh_pixels=weigh_pixels)
    assert_array_equal(least_squares.improve(sums, s), s)


@pytest.mark.parametrize(("dtype", "value"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1), ("i2", -32768)])
def test_the_largest_counts_do_not_overflow(dtype: str, value: int, path: str) -> None:
    x = np.full((300, 64), value, dtype=dtype)
    s = np.ones((1, 64))
    _, sums = least_squares.update(x, s=s)
    assert_allclose(sums["norm"], 300 * 64 * float(value) ** 2, rtol=1e-6)
    assert_allclose(sums["N"], 300 * float(max(value, 0)) ** 2, rtol=1e-6)


@given(seed=seeds, factor=st.sampled_from([1e-6, 1e4]), order=st.permutations(range(3)))
def test_abundances_follow_the_unit_of_the_data_and_the_order_of_endmembers(
    seed: int, factor: float, order: list[int]
) -> None:
    s, x = scene(seed)
    one = least_squares.abundances(x, s=s)[0]["abundances"]
    other = least_squares.abundances(factor * x, s=s[order])[0]["abundances"]
    assert_allclose(other, factor * one[:, order], rtol=1e-4, atol=1e-5 * factor * one.max())


def test_without_residual_only_abundances_are_returned(path: str) -> None:
    s, x = scene()
    pixels, sums = least_squares.abundances(x, s=s, residual=False)
    assert (set(pixels), sums) == ({"abundances"}, {})
    assert_array_equal(pixels["abundances"], least_squares.abundances(x, s=s)[0]["abundances"])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_every_library_and_device_returns_the_same_and_keeps_its_arguments(
    dtype: str, weights: str, put: Any, path: str
) -> None:
    s, x = scene(7, pixels=300)
    counts = x.astype(dtype)
    given_ = {"s": s, **options(weights, x)}
    here = {k: put(v) for k, v in given_.items()}
    block = put(counts)
    for fn in (least_squares.update, least_squares.abundances):
        want, found = fn(counts, **given_), fn(block, **here)
        for expected, got in zip(want, found, strict=True):
            assert set(expected) == set(got)
            for name, value in expected.items():
                assert_allclose(
                    arrays.to_host(got[name]), value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=name
                )
    assert all(isinstance(v, np.ndarray | np.floating) for v in least_squares.update(block, **here)[1].values())
    assert_array_equal(arrays.to_host(block), counts)
    for name, value in given_.items():
        if isinstance(value, np.ndarray):
            assert_array_equal(arrays.to_host(here[name]), value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strips_are_few_rows_converted_to_floats_one_at_a_time(dtype: str) -> None:
    x = np.arange(1400).reshape(700, 2).astype(dtype)
    seen = list(strips(x))
    assert [part.stop - part.start for part, _ in seen] == [256, 256, 188]
    assert {strip.dtype for _, strip in seen} == {np.dtype("f8" if dtype == "f8" else "f4")}
    assert_array_equal(np.concatenate([strip for _, strip in seen]), x)
    if dtype in ("f4", "f8"):
        assert np.shares_memory(seen[0][1], x)


def test_pure_kernels_do_not_change_the_sums_that_they_improve_upon() -> None:
    s, x = scene()
    _, sums = least_squares.update(x, s=s)
    before = {k: np.copy(v) for k, v in sums.items()}
    least_squares.improve(sums, s)
    least_squares.objective(sums, s)
    for name, value in before.items():
        assert_array_equal(sums[name], value)


@pytest.mark.parametrize(
    ("dtype", "pass_name", "worked_in"),
    [
        ("u1", "update_pass", "u1"),
        ("u2", "update_pass", "u2"),
        ("f4", "update_pass", "f4"),
        ("f8", "update_pass", "f8"),
        ("i4", "update_pass", "f4"),
        (">u2", "update_pass", "f4"),
    ],
)
def test_large_blocks_are_not_converted_if_the_pass_reads_their_dtype(
    monkeypatch: pytest.MonkeyPatch, dtype: str, pass_name: str, worked_in: str
) -> None:
    s, x = scene()
    seen: list[str] = []
    real = getattr(fused_pass, pass_name)
    monkeypatch.setattr(fused_pass, pass_name, lambda slab, *rest: seen.append(slab.dtype.str[1:]) or real(slab, *rest))
    least_squares.update(x.astype(dtype), s=s)
    assert seen == (["f8"] if pass_name == "update_pass" else [])
    monkeypatch.setattr(passes, "MAX_FLOAT64_VALUES", 0)
    seen.clear()
    least_squares.update(x.astype(dtype), s=s)
    assert seen == [worked_in]
