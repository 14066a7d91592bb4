"""Does another start lead elsewhere: to spectra that fit better, or to others that fit as well?"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import scipy

from scalehsi.arrays import Bool, Float
from scalehsi.fitting.judge.evidence import Bins, Evidence
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.statistics.noise_edge import noise_edge
from scalehsi.result import ResultWarning

BETTER: Final = 1.0
"""Fall of the squares, in units of the largest squared singular value of noise, that another start must bring."""
AS_GOOD: Final = 0.1
"""Rise of the squares, in the same unit, up to which another start fits as well."""
APART_DEG: Final = 5.0
"""Angle between spectra above which they are others."""
ALIKE_DEG: Final = 2.0
"""Angle below which both starts have met, and are followed no further."""
PIXELS: Final = 512
"""Sampled pixels that both are fitted to."""
ROUNDS: Final = 6
STEPS: Final = 5
"""Iterations of a round; the angle is looked at after each round."""
LEAST_BINS: Final = 64
"""Bins that the other start is chosen from, at least."""
LEAST_COUNTS: Final = 25.0
"""Channels with fewer counts in the sample are left out."""
COSTS: Final = ("sparsity", "smoothness", "spectral_smoothness", "orthogonality", "ard", "simplex", "missing")
"""Settings with which a fit minimises more than the misfit, or under other constraints."""

Rows = np.ndarray[Any, np.dtype[np.float32]]


class Starts(NamedTuple):
    """Where two starts led. gain: what the other takes off the squares, over noise. degrees: between the spectra."""

    gain: float
    degrees: float


def not_unique(evidence: Evidence) -> ResultWarning | None:
    """Warn where another start fits as well with other spectra, or better.

    The spectra of the result, and those of the most extreme of the sampled bins, are fitted to 512 sampled pixels by up
    to 30 exact iterations of weighted least squares. Thresholds: the other start is better by 1 ("other_start_better"),
    or at most 0.1 worse with a spectrum more than 5 degrees away ("not_unique"), in units of the largest squared
    singular value of noise. Only for NMF without priors and constraints.

    Measured on 64 weighted fits of 32 x 32 pixels (EDX of 100 and 500 counts, EELS of 2e3 and 2e4 on their background,
    smooth phases and grains, 2 to 5 components): 34 of the 37 EELS fits whose spectra are wrong by more than 5 degrees,
    none of the 3 right ones, none of the 24 EDX fits. The angle is 0.7 to 1.0 of the true error. 40 fits from five
    kinds of starts, rare phases among them, were never worse than another start by more than 0.2: "other_start_better"
    is for fits in which a component died (planted: 4 of 4).

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    ResultWarning or None
        Code "not_unique" or "other_start_better".
    """
    found = two_starts(evidence)
    if found is None:
        return None
    if found.gain > BETTER:
        text = (
            f"Another start fits better by {found.gain:.2g} times what noise alone can reach, with spectra "
            f"{found.degrees:.0f} degrees away: the fit ended in a local minimum."
        )
        return ResultWarning("other_start_better", text, 'start="multistart"')
    if found.gain >= -AS_GOOD and found.degrees > APART_DEG:
        text = f"Another start fits as well with spectra {found.degrees:.0f} degrees away: the data do not decide."
        overlap = "orthogonality=0.1"
        return ResultWarning(
            "not_unique", text, overlap if evidence.loss == "frobenius" else f'loss="frobenius", {overlap}'
        )
    return None


def two_starts(evidence: Evidence) -> Starts | None:
    """Where the result's own spectra and another start lead; None where they meet, or where this cannot be known."""
    phi, s, settings = evidence.variance_index, evidence.endmembers, evidence.settings
    special = evidence.priors_on_maps or evidence.signed or settings.get("fixed") is not None or evidence.offset.any()
    if evidence.model != "NMF" or special or any(settings.get(name) for name in COSTS) or len(s) < 2:
        return None
    if not evidence.bins or evidence.bins[0].width != 1 or not (np.isfinite(phi) and phi > 0 and np.isfinite(s).all()):
        return None
    mean = evidence.mean
    used = (mean > 0) & (float(evidence.bins[0].pixels.sum()) * mean >= LEAST_COUNTS * phi)
    weights = np.where(used, 1.0 / np.sqrt(np.where(used, mean, 1.0)), 0.0)[used]
    x = _whitened(evidence, evidence.bins[0], used, weights, PIXELS)
    wide = max((b for b in evidence.bins if len(b.index) >= LEAST_BINS), key=lambda b: b.width, default=None)
    if wide is None or min(x.shape) <= 2 * len(s):
        return None
    own, other = s[:, used] * weights, _extremes(_whitened(evidence, wide, used, weights, PIXELS), len(s))
    if len(other) < len(s):
        return None
    for _ in range(ROUNDS):
        own, misfit = _fitted(x, own)
        other, others = _fitted(x, other)
        degrees = _degrees(own / weights, other / weights)
        if degrees < ALIKE_DEG:
            return None
    return Starts((misfit - others) / (phi * noise_edge(*x.shape)), degrees)


def _whitened(evidence: Evidence, bins: Bins, used: Bool, weights: Float, most: int) -> Rows:
    """Spectra of sampled bins whose noise is white, in float32: at most this many, evenly spread, without empty ones.

    used (E,): channels. weights: of these. most: bins.
    """
    total = bins.data.sum(axis=1) / float(evidence.mean.sum())
    rows = np.flatnonzero(np.isfinite(total) & (total > 0))
    rows = rows[np.arange(min(len(rows), most)) * len(rows) // max(min(len(rows), most), 1)]
    scale = (1.0 / np.sqrt(total[rows])).astype(np.float32)
    return np.asarray(bins.data[np.ix_(rows, used)] * scale[:, None] * weights.astype(np.float32), dtype=np.float32)


def _extremes(x: Rows, k: int) -> Float:
    """The k rows of x (n, E) that span the most, each the farthest from the span of those before; of positive rows.

    Successive projections (Araujo et al. 2001, doi:10.1016/S0169-7439(01)00119-8) of rows with equal sums.
    """
    total = x.sum(axis=1)
    rest = (x[total > 0] / total[total > 0, None]).astype(np.float64)
    found: list[int] = []
    for _ in range(min(k, len(rest))):
        found.append(int(np.argmax(np.einsum("pe,pe->p", rest, rest))))
        direction = rest[found[-1]] / max(float(np.linalg.norm(rest[found[-1]])), 1e-300)
        rest -= np.outer(rest @ direction, direction)
    return np.asarray(np.maximum(x[total > 0][found], 0.0), dtype=np.float64)


def _fitted(x: Rows, s: Float) -> tuple[Float, float]:
    """Spectra (K, E) after some exact steps for maps and spectra in turn, and the misfit less ``sum x^2``."""
    for _ in range(STEPS):
        c = nnls(s @ s.T, (x @ s.T.astype(np.float32)).astype(np.float64))
        right, gram = (c.T.astype(np.float32) @ x).astype(np.float64), c.T @ c
        s = nnls(gram, right.T).T
    return s, float(np.sum(gram * (s @ s.T)) - 2.0 * np.sum(right * s))


def _degrees(a: Float, b: Float) -> float:
    """Largest angle between matched spectra."""
    one, two = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-300) for m in (a, b))
    between = np.degrees(np.arccos(np.clip(one @ two.T, -1.0, 1.0)))
    return float(between[scipy.optimize.linear_sum_assignment(between)].max())
