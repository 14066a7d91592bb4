"""The noise of the data: its variance index, and the noise of a background that was taken off."""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.fitting.judge.evidence import Evidence

NEGATIVE_SHARE: Final = 0.01
"""From this share of negative values on, a background was taken off the data, and its noise is still there."""
MEDIAN_DEVIATION: Final = 0.6745
"""Median of the absolute value of a standard normal number."""
LEAST_VARIANCE_INDEX: Final = 1e-9
"""Relative to the mean value; below this, data are a simulation without noise."""


def variance_index(evidence: Evidence) -> float | None:
    """The variance index phi; None where it is not known, and for data without noise."""
    phi, level = evidence.variance_index, float(np.abs(evidence.mean).mean()) if evidence.mean.size else 0.0
    return float(phi) if np.isfinite(phi) and np.isfinite(level) and phi > LEAST_VARIANCE_INDEX * level else None


def removed_background(evidence: Evidence, phi: float) -> Float:
    """What was taken off each channel of a pixel, as the noise that it left tells; zero without negative values.

    The noise of y counts over a background b that was subtracted is ``sqrt(phi (y + b))``, whatever is left of the
    background. It is estimated from the residuals of the sampled pixels, by their median, which spikes do not change.

    evidence: of the fit. phi: variance index. Returns an array of shape (E,) in the unit of the data.
    """
    extremes = evidence.extremes
    none = np.zeros(len(evidence.mean))
    if extremes.negative < NEGATIVE_SHARE * max(extremes.voxels, 1) or not evidence.bins:
        return none
    sample = evidence.bins[0]
    single = sample.pixels == 1
    if not single.any():
        return none
    residual = sample.data[single] - sample.abundances[single] @ evidence.endmembers - evidence.offset
    deviation = np.nanmedian(np.abs(residual), axis=0) / MEDIAN_DEVIATION
    removed = deviation**2 / phi - np.maximum(evidence.mean, 0.0)
    return np.where(np.isfinite(removed), np.maximum(removed, 0.0), 0.0)
