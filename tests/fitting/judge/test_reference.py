"""The reference that the detectors' tests start from, against sums that are known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fitting.judge.reference import evidence_of


def counts(shape: tuple[int, ...], gain: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of two smooth phases, times a gain; their maps and spectra."""
    rng = np.random.default_rng(seed)
    e, x = np.arange(60), np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    s = 50 * np.stack([1 + np.exp(-((e - at) ** 2) / 18) for at in (20, 40)])
    c = np.stack([x, 1 - x], axis=-1)
    return gain * rng.poisson(c @ s / gain), c, s


@pytest.mark.parametrize("gain", [1.0, 4.6])
def test_variance_index(gain: float) -> None:
    """It is the gain of the detector."""
    assert evidence_of(*counts((24, 20), gain)).variance_index == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize("shape", [(24, 20), (1, 90), (90, 1), (2, 19, 13)])
def test_sums(shape: tuple[int, ...]) -> None:
    """Regions hold each pixel once; bins are sums of their pixels; the masked pixels are nowhere."""
    x, c, s = counts(shape)
    mask = np.random.default_rng(1).random(shape) < 0.8
    found = evidence_of(x, c, s, mask=mask)
    np.testing.assert_allclose(found.regions.data.sum(axis=0), x[mask].sum(axis=0))
    np.testing.assert_allclose(found.regions.abundances.sum(axis=0), c[mask].sum(axis=0))
    assert found.regions.pixels.sum() == found.pixels == mask.sum()
    assert found.regions.shape == ((8, 8) if min(shape[-2:]) > 1 else (1, 25) if shape[0] == 1 else (25, 1))
    assert [bins.width for bins in found.bins] == [1, 2, 4, 8]
    for bins in found.bins:
        assert bins.pixels.max() <= bins.width ** (2 if min(shape[-2:]) > 1 else 1)
        i = np.unravel_index(bins.index[0], shape)
        window = (*i[:-2], *(slice(a, a + min(bins.width, n)) for a, n in zip(i[-2:], shape[-2:], strict=True)))
        np.testing.assert_allclose(bins.data[0], x[window][mask[window]].sum(axis=0))
        np.testing.assert_allclose(bins.abundances[0], c[window][mask[window]].sum(axis=0))


def test_outer_is_scaled_to_the_whole_map() -> None:
    """Maps of bins of a flat scene: 1024 of 2304 pixels stand for all."""
    x = np.full((48, 48, 40), 2.0)
    c, s = np.full((48, 48, 1), 3.0), np.full((1, 40), 2 / 3)
    np.testing.assert_allclose(evidence_of(x, c, s).outer[:, 0, 0], 48 * 48 * 9.0)
