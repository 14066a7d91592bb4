"""Can the maps be trusted: are they the best for these spectra, of more than one pixel, and pure somewhere?"""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.fitting.judge.evidence import OPTIMAL_PIXELS, Evidence
from scalehsi.fitting.judge.totals import thickness_spread
from scalehsi.kernels import least_squares, poisson
from scalehsi.result import ResultWarning

GAIN: Final = 2.0
"""Misfit that exact abundances take off, over what the noise of abundances amounts to."""
PIXEL_SHARE: Final = 0.5
"""Part of the sum of a component's squared abundances that is in one pixel."""
FEW_PIXELS: Final = 20
"""In maps of fewer pixels one of them may well be half of a component."""
PURE: Final = 0.7
"""Fraction of a component in its purest 2 x 2 pixels."""
MIXING_SPREAD: Final = 0.25
"""Counts that vary by more than this over the map make mixtures of pure pixels on the simplex."""
LEAST_MODEL: Final = 1e-3
"""Models below this part of the mean spectrum are raised to it, so that the misfit of a count stays finite."""


def maps_not_optimal(evidence: Evidence) -> ResultWarning | None:
    """Warn where other abundances would fit the spectra of the result better than its maps do.

    The abundances of up to 512 pixels are solved exactly under the loss and the constraints of the result. Threshold:
    the misfit falls by more than 2 times what the noise of K abundances amounts to. Not with priors or known maps, not
    for directions, not with missing voxels.

    Measured on 130 clean fits of weighted and Poisson NMF: 0 alarms, no gain at all. Maps of zeros and ones, and
    half-way to them, at 100 counts of EDX and 2e3 of EELS: 36 of 36.
    """
    gain = _gain(evidence)
    if gain is None or not gain > GAIN:
        return None
    text = f"Solving the pixels again would fit better by {gain:.2g} times the noise: the maps are not the best ones."
    textbook = evidence.settings.get("solver", "exact") != "exact"
    return ResultWarning("maps_not_optimal", text, 'solver="exact"' if textbook else "seed=1")


def one_pixel_component(evidence: Evidence) -> ResultWarning | None:
    """Warn where a component rests on one pixel: a spike or a hot pixel that became a component.

    Threshold: a pixel holds more than half of the sum of squared abundances, in a map of at least 20 pixels.

    Measured on 195 clean fits: 4 alarms, all weighted fits of 20 counts with spectra 58 to 89 degrees wrong. Right ones
    have 0.02 at most.
    """
    share = np.nan_to_num(evidence.peak_share)
    if evidence.pixels < FEW_PIXELS or not len(share) or not share.max() > PIXEL_SHARE:
        return None
    k = int(np.argmax(share))
    pixel = int(evidence.peak_index[k])
    text = f"Component {k + 1} rests on one pixel ({100 * share[k]:.0f} %), {evidence.place(pixel)}."
    size = int(np.prod(evidence.shape))
    without = f"np.arange({size}).reshape{tuple(map(int, evidence.shape))} != {pixel}"
    return ResultWarning("one_pixel_component", text, f"hsi.prepare.mask(cube, where={without})")


def bins_too_large(evidence: Evidence) -> ResultWarning | None:
    """Warn where the bins of PSNMF hid a component: nowhere in the map is it pure.

    Threshold: of some component the 99.5th percentile over 2 x 2 pixels of its fraction is below 0.7. Only for the
    mixture of PSNMF, which takes bins for mostly pure. A thickness that varies by more than 25 % makes mixtures on the
    simplex as well, and is said instead.

    Measured with particles of 2 pixels, 60 and 300 counts, bins of 4 and 12: 10 of the 10 fits whose spectra are wrong
    by 10 to 55 degrees. Right fits of particles of 2, 3 and 6 pixels 0 of 9; clean scenes 0 of 65 PSNMF fits.
    Missed are phases of few common peaks, whose mixtures look pure.
    """
    settings = evidence.settings
    mixture = settings.get("loss") == "poisson" and settings.get("settings", "default") == "default"
    purity = evidence.purity[np.isfinite(evidence.purity)]
    if evidence.model != "PSNMF" or not mixture or len(purity) < max(2, len(evidence.endmembers)):
        return None
    k = int(np.argmin(purity))
    if not purity[k] < PURE or thickness_spread(evidence) > MIXING_SPREAD:
        return None
    most = f"at most {100 * purity[k]:.0f} %"
    text = f"No 2 x 2 pixels are pure in component {k + 1} ({most}): its spectrum is a mixture; the bins are too large."
    return ResultWarning("bins_too_large", text, f'NMF({len(purity)}, loss="poisson")')


def _gain(evidence: Evidence) -> float | None:
    """Misfit that exact abundances take off, in units of the noise; None where it cannot be estimated."""
    phi, s = evidence.variance_index, evidence.endmembers
    special = evidence.signed or evidence.priors_on_maps or evidence.settings.get("fixed") is not None
    if special or evidence.settings.get("missing") or evidence.offset.any() or not evidence.bins:
        return None
    sample = evidence.bins[0]
    total = sample.data.sum(axis=1) / max(float(evidence.mean.sum()), 1e-300)
    rows = np.flatnonzero(np.isfinite(total) & (total > 0) & np.isfinite(sample.abundances).all(axis=1))
    known = np.isfinite(phi) and phi > 0 and np.isfinite(s).all() and s.any()
    if sample.width != 1 or not known or not len(rows):
        return None
    some = rows[np.arange(min(len(rows), OPTIMAL_PIXELS)) * len(rows) // min(len(rows), OPTIMAL_PIXELS)]
    x, c, total = sample.data[some], sample.abundances[some], total[some]
    if evidence.loss == "poisson" and x.min() >= 0:
        return _poisson_gain(evidence, x, c) / (phi * len(s))
    return _squares_gain(evidence, x, c, total) / phi if evidence.loss == "frobenius" else None


def _poisson_gain(evidence: Evidence, x: Float, c: Float) -> float:
    """Mean fall of the deviance of pixels x (n, E) from abundances c (n, K) to the best ones."""
    s = evidence.endmembers
    best = poisson.abundances(x, s=s, simplex=evidence.simplex, residual=False)[0]["abundances"]
    least = LEAST_MODEL * np.maximum(evidence.mean, 1e-6 * evidence.mean.mean())
    now, then = (np.maximum(a.astype(np.float64) @ s, least) for a in (c, best))
    return float(np.mean(np.sum(2 * (now - then - x * np.log(now / then)), axis=1)))


def _squares_gain(evidence: Evidence, x: Float, c: Float, total: Float) -> float:
    """Mean fall of the squares of pixels x (n, E) of relative totals (n,) from abundances c (n, K) to the best ones.

    In units of what noise whose variance is the mean spectrum adds to the abundances' own squares.
    """
    s, mean = evidence.endmembers, np.maximum(evidence.mean, 0.0)
    weighted = evidence.settings.get("weighting") == "poisson"
    w = 1.0 / np.maximum(mean, 1e-6 * max(float(mean.mean()), 1e-300)) if weighted else np.ones(len(mean))
    best = least_squares.abundances(x, s=s, w=w, simplex=evidence.simplex, residual=False)[0]["abundances"]
    now, then = (((x - a.astype(np.float64) @ s) ** 2) @ w for a in (c, best))
    noise = np.trace(np.linalg.pinv((s * w) @ s.T, hermitian=True) @ ((s * w**2 * mean) @ s.T))
    return float(np.mean((now - then) / total) / noise) if noise > 0 else 0.0
