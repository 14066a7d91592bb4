"""Tests of VCA: pure pixels are found at any intensity, and blocks agree with the whole cube."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi.arrays import Float
from scalehsi.kernels.extraction.vca import (
    coordinates,
    corners,
    directions,
    extremes,
    farther,
    projection,
    spectra_of,
    vca,
)

seeds = st.integers(0, 10_000)


def mixtures(seed: int, n: int, *, pixels: int = 200, channels: int = 40, wedge: float = 0.5) -> tuple[Float, Float]:
    """Pixels of varying intensity, of which the first N are pure, and the pure spectra."""
    rng = np.random.default_rng(seed)
    spectra = rng.random((n, channels)) ** 4 + 0.01
    shares = rng.dirichlet(np.ones(n), pixels) * 0.9 + 0.1 / n
    shares[:n] = np.eye(n)
    return shares @ spectra * rng.uniform(1 - wedge, 1 + wedge, (pixels, 1)), spectra


def degrees(a: Float, b: Float) -> Float:
    cosine = a @ b.T / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@given(seed=seeds, n=st.integers(2, 7))
def test_pure_pixels_are_found_at_any_intensity(seed: int, n: int) -> None:
    x, _ = mixtures(seed, n)
    found, spectra = vca(x, n, seed=seed)
    assert sorted(found) == list(range(n))
    assert_allclose(spectra, x[found], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_noise_outside_the_few_dimensions_is_removed(dtype: str) -> None:
    clean, spectra = mixtures(0, 4, pixels=2000, channels=300, wedge=0.0)
    x = np.random.default_rng(0).poisson(400 * clean).astype(dtype)
    found, got = vca(x, 4, seed=0)
    assert len(set(found.tolist())) == 4
    raw = degrees(x[found].astype(float), spectra).min(axis=0)
    better = degrees(got, spectra).min(axis=0)
    assert better.mean() < raw.mean()
    assert better.max() < 12


def test_the_ratio_of_signal_to_noise_decides_how_the_cloud_is_projected() -> None:
    clean, _ = mixtures(1, 3)
    noisy = clean + np.random.default_rng(0).normal(0, 0.5, clean.shape)
    assert projection(clean, 3, seed=0).divided
    assert not projection(noisy, 3, seed=0).divided
    assert projection(clean, 3, seed=0).basis.shape == (40, 3)
    assert projection(noisy, 3, seed=0).basis.shape == (40, 2)


def test_faint_pixels_are_no_corners() -> None:
    x, _ = mixtures(2, 3)
    x[150:] = 1e-3 * np.random.default_rng(0).random((50, 40))
    found, _ = vca(x, 3, seed=0)
    assert sorted(found) == [0, 1, 2]


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(
    "kind", ["one pixel", "two pixels", "equal pixels", "one channel", "rank one", "zeros", "noise"]
)
def test_data_without_corners_yield_pixels_without_repetition(n: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    x = {
        "one pixel": rng.random((1, 8)),
        "two pixels": rng.random((2, 8)),
        "equal pixels": np.ones((20, 8)),
        "one channel": rng.random((20, 1)),
        "rank one": np.outer(rng.random(20), rng.random(8)),
        "zeros": np.zeros((20, 8)),
        "noise": rng.normal(size=(20, 8)),
    }[kind]
    found, spectra = vca(x, n, seed=0)
    assert len(set(found.tolist())) == len(found) <= min(n, len(x))
    assert spectra.shape == (len(found), x.shape[1])
    assert np.isfinite(spectra).all()
    assert (spectra >= 0).all()
    if kind in ("one pixel", "two pixels"):
        assert len(found) == min(n, len(x))


@given(
    seed=seeds, cuts=st.lists(st.integers(1, 199), max_size=5), n=st.integers(1, 4), noise=st.sampled_from([0.0, 0.5])
)
def test_extremes_of_blocks_are_those_of_the_whole(seed: int, cuts: list[int], n: int, noise: float) -> None:
    x, _ = mixtures(3, n)
    x = x + noise * np.abs(np.random.default_rng(seed).normal(size=x.shape))
    cloud = projection(x, n, seed=0)
    points, bright = coordinates(x, cloud)
    axes = directions(points, corners(points, n, seed=0), seed=seed)
    shared = {"cloud": cloud, "axes": axes, "scale": np.ones(40)}
    index = np.arange(200) + 1000
    edges = [0, *sorted(set(cuts)), 200]
    parts = [extremes(x[a:b], index=index[a:b], **shared)[1] for a, b in pairwise(edges)]
    got = reduce(farther, parts)
    values = np.where(bright[:, None], points @ axes, -np.inf)
    assert_allclose(got["far"], values.max(axis=0), rtol=1e-9, atol=1e-12)
    assert_allclose(got["point"], points[got["pixel"] - 1000], rtol=1e-9, atol=1e-12)
    backwards = reduce(farther, parts[::-1])
    for name in got:
        assert_array_equal(got[name], backwards[name])


def test_of_equally_far_pixels_the_first_is_returned() -> None:
    x = np.tile([[1.0, 0.0], [0.0, 1.0]], (3, 1))
    cloud = projection(x, 2, seed=0)
    points, _ = coordinates(x, cloud)
    axes = directions(points, np.array([0, 1]), seed=0)
    shared = {"cloud": cloud, "axes": axes, "scale": np.ones(2)}
    parts = [extremes(x[i : i + 2], index=np.arange(i, i + 2), **shared)[1] for i in (4, 0, 2)]
    assert reduce(farther, parts)["pixel"].max() <= 1


def test_extremes_run_on_any_array_library(put: Callable[[Any], Any]) -> None:
    x, _ = mixtures(4, 3)
    cloud = projection(x, 3, seed=0)
    points, _ = coordinates(x, cloud)
    axes = directions(points, corners(points, 3, seed=0), seed=0)
    _, got = extremes(put(x), index=np.arange(200), cloud=cloud, axes=put(axes), scale=put(np.full(40, 2.0)))
    _, want = extremes(x / 2, index=np.arange(200), cloud=cloud, axes=axes, scale=np.ones(40))
    assert_array_equal(got["pixel"], want["pixel"])
    assert_allclose(got["far"], want["far"], rtol=1e-9)


def test_a_rare_pure_pixel_that_the_sample_lacks_is_an_extreme() -> None:
    x, spectra = mixtures(5, 4, pixels=5000)
    sample = x[4:800]
    cloud = projection(sample, 4, seed=0)
    points, _ = coordinates(sample, cloud)
    found = corners(points, 4, seed=0)
    axes = directions(points, found, seed=0)
    _, far = extremes(x, index=np.arange(5000), cloud=cloud, axes=axes, scale=np.ones(40))
    assert set(range(4)) <= set(far["pixel"].tolist())
    together = np.concatenate([points[found], far["point"]])
    got = spectra_of(together[corners(together, 4, seed=0)], cloud)
    assert degrees(got, spectra).min(axis=0).max() < 0.1
