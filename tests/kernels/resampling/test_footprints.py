"""Means over footprints, and splines with these means, against sums over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.kernels.resampling.footprints import box_means, box_sums, spline_at, spline_of_means, summed_area


def box_by_hand(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Fraction of each pixel along an axis that lies between two edges; pixel i reaches from i - 0.5 to i + 0.5."""
    i = np.arange(len(values))
    return np.clip(np.minimum(i + 0.5, high) - np.maximum(i - 0.5, low), 0.0, 1.0)


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    y=st.floats(-4, 10),
    x=st.floats(-4, 10),
    sides=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)),
)
def test_boxes_count_fractions_of_pixels(seed, shape, y, x, sides):
    values = np.random.default_rng(seed).random((*shape, 2))
    rows = box_by_hand(values, y - sides[0] / 2, y + sides[0] / 2)
    columns = box_by_hand(values[0], x - sides[1] / 2, x + sides[1] / 2)
    want = np.einsum("i,j,ijk->k", rows, columns, values)
    got = box_sums(summed_area(values), np.array([y]), np.array([x]), height=sides[0], width=sides[1])
    np.testing.assert_allclose(got[0, 0], want, atol=1e-9)


def test_means_leave_out_pixels_that_were_not_measured():
    values = np.array([[1.0, 2.0, 5.0], [3.0, 4.0, 7.0]])
    there = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    tables = summed_area(values * there), summed_area(there)
    means, covered = box_means(*tables, np.array([0.5, 40.0]), np.array([0.5]), height=2, width=2)
    np.testing.assert_allclose(means, [[2.0], [0.0]])
    np.testing.assert_allclose(covered, [[0.5], [0.0]])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 5)])
def test_the_spline_has_the_means_that_were_given(shape):
    means = np.random.default_rng(0).random((*shape, 3))
    n = 24
    y, x = ((np.arange(size * n) + 0.5) / n - 0.5 for size in shape)
    v, u = np.meshgrid(y, x, indexing="ij")
    values = spline_at(spline_of_means(means), v.ravel(), u.ravel()).reshape(shape[0], n, shape[1], n, 3)
    np.testing.assert_allclose(values.mean(axis=(1, 3)), means, atol=2e-3)


def test_a_smooth_map_is_recovered_better_than_by_interpolation():
    def scene(v):
        return np.cos(2 * np.pi * v / 9) + 2

    fine = (np.arange(36 * 16) + 0.5) / 16 - 0.5
    means = scene(fine).reshape(36, 16).mean(axis=1)[:, None, None]
    inside = (fine > 5) & (fine < 30)
    got = spline_at(spline_of_means(means), fine, np.zeros_like(fine))[:, 0]
    linear = np.interp(fine, np.arange(36), means[:, 0, 0])
    errors = [np.abs(each - scene(fine))[inside].max() for each in (got, linear)]
    assert errors[0] < 0.003
    assert errors[0] < 0.1 * errors[1]


def test_beyond_the_edge_a_spline_is_mirrored():
    coefficients = np.random.default_rng(1).random((4, 3, 1))
    inside, beyond = (spline_at(coefficients, np.array([v]), np.array([1.0])) for v in (-0.2, -0.8))
    np.testing.assert_allclose(inside, beyond)
