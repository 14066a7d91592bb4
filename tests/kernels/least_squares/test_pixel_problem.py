"""Tests of least squares with known abundances of some components, against plain numpy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import least_squares
from scalehsi.kernels.least_squares.pixel_problem import make_problem, split_known

pytestmark = pytest.mark.long

KNOWN = [[0], [2], [3, 1], [0, 1, 2, 3]]


def scene(seed: int = 0, *, pixels: int = 70, channels: int = 20) -> tuple[Float, Float, Float]:
    """Endmembers (4, E), counts (P, E), and abundances (P, 4) that differ from those of the counts."""
    rng = np.random.default_rng(seed)
    s = rng.random((4, channels)) ** 3 + 0.01
    x = rng.poisson(rng.gamma(0.7, 20.0, (pixels, 4)) @ s).clip(0, 255).astype(np.float64)
    x[pixels // 2] = 0.0
    return s, x, rng.gamma(0.7, 10.0, (pixels, 4))


def twin(x: Float, s: Float, maps: Float, known: list[int], w: Float, v: Float) -> dict[str, Any]:
    """The same pass in plain numpy and scipy, pixel by pixel from the data."""
    free = [k for k in range(len(s)) if k not in known]
    c, root = np.zeros((len(x), len(s))), np.sqrt(w)
    c[:, known] = maps[:, known]
    if free:
        rest = (x - c @ s) * root
        c[:, free] = np.stack([optimize.nnls((s[free] * root).T, row)[0] for row in rest])
    return {
        "c": c,
        "N": (c * v[:, None]).T @ x,
        "M": (c * v[:, None]).T @ c,
        "C": v @ c,
        "objective": 0.5 * (v[:, None] * w * (x - c @ s) ** 2).sum(),
        "residual": np.sqrt(((x - c @ s) ** 2).mean(axis=1)),
    }


@pytest.mark.parametrize("known", KNOWN, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dtype", "pixels"), [("u1", 70), ("f4", 9000), ("f8", 70), (">u2", 7000)])
def test_unknown_abundances_are_the_best_for_the_known_ones(
    dtype: str, pixels: int, weighted: bool, known: list[int]
) -> None:
    s, x, maps = scene(pixels=pixels)
    w = 1.0 / np.maximum(x.mean(axis=0), 0.05) if weighted else np.ones(20)
    mean = x.mean(axis=1)
    v = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0) if weighted else np.ones(pixels)
    options: dict[str, Any] = {"s": s, "known": known} | ({"w": w, "weigh_pixels": True} if weighted else {})
    want = twin(x, s, maps, known, w, v)
    _, sums = least_squares.update(x.astype(dtype), maps[:, known], **options)
    for name in ("N", "M", "C"):
        assert_allclose(sums[name], want[name], rtol=2e-5, atol=2e-6 * np.abs(want[name]).max(), err_msg=name)
    value = least_squares.objective(sums, s, w if weighted else None)
    assert_allclose(value, want["objective"], rtol=1e-5)
    pixels_, _ = least_squares.abundances(x.astype(dtype), maps[:, known], **options)
    assert_allclose(pixels_["abundances"], want["c"], rtol=1e-3, atol=1e-4 * want["c"].max())
    assert_array_equal(pixels_["abundances"][:, known], maps[:, known].astype("f4"))
    assert_allclose(pixels_["residual"], want["residual"], rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 10_000), known=st.sampled_from(KNOWN))
def test_giving_the_abundances_of_the_pass_changes_nothing(seed: int, known: list[int]) -> None:
    s, x, _ = scene(seed)
    free, whole = least_squares.abundances(x, s=s)
    maps = free["abundances"][:, known].astype(np.float64)
    given_pixels, sums = least_squares.abundances(x, maps, s=s, known=known)
    scale = float(free["abundances"].max())
    assert_allclose(given_pixels["abundances"], free["abundances"], atol=1e-4 * scale)
    assert_allclose(sums["objective"], whole["objective"], rtol=1e-5, atol=1e-9 * (x**2).sum())


@given(seed=st.integers(0, 10_000), known=st.sampled_from(KNOWN))
def test_alternation_with_known_maps_never_raises_the_objective(seed: int, known: list[int]) -> None:
    s, x, maps = scene(seed)
    before = np.inf
    for _ in range(6):
        _, sums = least_squares.update(x, maps[:, known], s=s, known=known)
        value = least_squares.objective(sums, s)
        assert value <= before + 1e-10 * sums["norm"]
        s, before = least_squares.improve(sums, s), value


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_costs_apply_to_unknown_abundances_only(known: list[int]) -> None:
    s, x, maps = scene(2)
    shift = np.array([3.0, 1.0, 2.0, 0.5])
    c = least_squares.abundances(x, maps[:, known], s=s, known=known, shift=shift)[0]["abundances"].astype(np.float64)
    free = [k for k in range(4) if k not in known]
    pull = (x - c @ s) @ s[free].T - shift[free]
    scale = float(np.abs(x @ s.T).max())
    assert (pull <= 1e-5 * scale).all()  # the conditions of an optimum over c >= 0
    assert (np.abs(pull[c[:, free] > 1e-6]) <= 1e-5 * scale).all()


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_every_library_and_device_takes_known_abundances(known: list[int], put: Any) -> None:
    s, x, maps = scene(3, pixels=300)
    here = put(maps[:, known])
    for fn in (least_squares.update, least_squares.abundances):
        want, found = fn(x, maps[:, known], s=s, known=known), fn(put(x), here, s=put(s), known=known)
        for expected, got in zip(want, found, strict=True):
            assert set(expected) == set(got)
            for name, value in expected.items():
                close = {"rtol": 1e-4, "atol": 1e-4 * np.abs(value).max()}
                assert_allclose(arrays.to_host(got[name]), value, err_msg=name, **close)
    assert_array_equal(arrays.to_host(here), maps[:, known])


def test_given_abundances_need_components_and_no_simplex() -> None:
    s, x, maps = scene()
    for rows, known in ((maps[:, :2], [0]), (maps[:, :1], None), (None, [0]), (maps[:5, :1], [0])):
        with pytest.raises(ValueError, match="given abundances have the shape"):
            least_squares.update(x, rows, s=s, known=known)
    with pytest.raises(ValueError, match="on the simplex"):
        split_known(make_problem(s, None, None, None, simplex=True), [0])
