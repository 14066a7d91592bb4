"""Counts depend on seed and pixel alone, and follow the Poisson distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scalehsi.kernels.statistics.counted_random import CountedRandom, draw_counts

SPECTRA = np.array([[3.0, 0.0, 1.0, 0.5, 0.0], [0.0, 2.0, 0.1, 0.0, 0.0]])


def some_pixels(count, scale=1.0):
    abundances = scale * np.random.default_rng(1).dirichlet([1.0, 1.0], size=count)
    return abundances, np.arange(count, dtype=np.int64) + 10**12


def test_positions_are_independent_of_the_order_of_visits():
    source = CountedRandom(3, 0)
    visits = {
        position: source.at(*position).random(3).tolist() for position in [(5,), (1,), (-1, 2), (5, 1), (0, 0, 1)]
    }
    again = {position: CountedRandom(3, 0).at(*position).random(3).tolist() for position in reversed(visits)}
    assert visits == again
    assert len({tuple(numbers) for numbers in visits.values()}) == 5


def test_half_used_words_do_not_leak_into_the_next_position():
    source = CountedRandom(3, 0)
    source.at(1).integers(0, 2**31, dtype=np.uint32)  # leaves half of a 64-bit word behind
    assert source.at(2).integers(0, 2**31, dtype=np.uint32) == CountedRandom(3, 0).at(2).integers(
        0, 2**31, dtype=np.uint32
    )


@pytest.mark.parametrize("pair", [((0, 0), (1, 0)), ((0, 0), (0, 1)), ((0, 1), (1, 0))])
def test_seeds_and_streams_differ(pair):
    first, second = (CountedRandom(*key).at(7).random(4) for key in pair)
    assert not (first == second).any()


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["few counts", "many counts"])
def test_any_split_of_the_pixels_draws_the_same_counts(scale):
    abundances, pixels = some_pixels(500, scale)
    whole = draw_counts(abundances, SPECTRA, pixels, seed=5, dtype="u2")
    order = np.random.default_rng(0).permutation(500)
    for part in np.array_split(order, 7):
        given = np.asfortranarray(abundances[part])
        np.testing.assert_array_equal(draw_counts(given, SPECTRA, pixels[part], seed=5, dtype="u2"), whole[part])


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["few counts", "many counts"])
def test_every_channel_is_a_poisson_number(scale):
    count = 20_000
    abundances = np.tile([[0.7 * scale, 0.3 * scale]], (count, 1))
    counts = draw_counts(abundances, SPECTRA, np.arange(count), seed=2, dtype="u2").astype(float)
    mean = abundances[0] @ SPECTRA
    assert (counts[:, mean == 0] == 0).all()
    drawn, expected = counts[:, mean > 0], mean[mean > 0]
    assert np.abs((drawn.mean(axis=0) - expected) / np.sqrt(expected / count)).max() < 4
    index = ((count - 1) * drawn.var(axis=0, ddof=1) / expected - count) / np.sqrt(2 * count)
    assert np.abs(index).max() < 5
    covariance = np.corrcoef(drawn.T) - np.eye(len(expected))
    assert np.abs(covariance).max() < 5 / np.sqrt(count)


def test_totals_follow_the_poisson_distribution():
    count = 5000
    counts = draw_counts(np.ones((count, 1)), np.full((1, 8), 0.5), np.arange(count), seed=4, dtype="u1").sum(axis=1)
    edges = np.arange(11)
    observed = np.array([(counts == n).sum() for n in edges[:-1]] + [(counts >= 10).sum()])
    expected = count * np.append(stats.poisson.pmf(edges[:-1], 4.0), stats.poisson.sf(9, 4.0))
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_nothing_expected_gives_nothing():
    counts = draw_counts(np.zeros((3, 2)), SPECTRA, np.arange(3), seed=0, dtype="u1")
    assert counts.dtype == np.uint8
    assert counts.sum() == 0
    assert draw_counts(np.ones((2, 1)), np.zeros((1, 4)), np.arange(2), seed=0, dtype="u1").sum() == 0


@pytest.mark.parametrize("channels", [2, 4000], ids=["per channel", "per count"])
def test_a_count_that_does_not_fit_is_never_truncated(channels):
    spectra = np.zeros((1, channels))
    spectra[0, 0] = 1000.0
    with pytest.raises(OverflowError, match="does not fit in the dtype, which ends at 255"):
        draw_counts(np.ones((1, 1)), spectra, np.zeros(1, np.int64), seed=0, dtype="u1")
