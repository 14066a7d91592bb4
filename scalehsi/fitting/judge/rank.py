"""Does the fit have as many components as the data hold above their noise: too many, or too few?

Both detectors compare squared singular values of weighted matrices with the largest that noise reaches (`noise_edge`),
for single pixels and for bins: bins lower the noise but not smooth maps, and single pixels keep small phases.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float, Int
from scalehsi.fitting.judge.evidence import BIN_WIDTHS, Bins, Evidence
from scalehsi.kernels.statistics.noise_edge import noise_edge
from scalehsi.result import ResultWarning

SIGNIFICANT: Final = 1.10
"""A component has at least this many times what noise can reach."""
MISSING: Final = 1.15
"""Least strength of a pattern in the residual for a warning, relative to what noise can reach."""
MISSING_SHARE: Final = 0.05
"""And at least this part of the weakest component."""
LEAST_SHARE: Final = 1e-3
"""Components with less of the model's counts are switched off (by relevance determination) and do not count."""
NEARLY_ALL: Final = 1.3
"""A sample of bins is all of them when the map has fewer than this many times their pixels."""
DRAWS: Final = 5
"""Draws of noise that a pattern is compared with; fewer where it is `SURE` times as strong as the first."""
SURE: Final = 3.0
LANCZOS_STEPS: Final = 12
"""Steps in the search of the strongest pattern in a residual."""
LEAST_COUNTS: Final = 25
"""Channels with fewer counts in all are left out: their noise is far from normal."""


class Strengths(NamedTuple):
    """Squared singular values of the fitted matrix, strongest first, for the widths of bins that fit.

    Attributes
    ----------
    width : array, shape (W,)
    value : array, shape (W, K)
        In the unit of weighted data, whose noise has variance one.
    ratio : array, shape (W, K)
        Value over the largest one of noise.
    counted : array of int
        The components that are not switched off, K of them.
    """

    width: Int
    value: Float
    ratio: Float
    counted: Int


def below_noise(evidence: Evidence) -> ResultWarning | None:
    """Warn where the fit has more components than the data show above their noise.

    The squared singular values of the fitted matrix, weighted so that its noise is white, are divided by the largest
    one of noise, for bins of 1, 2, 4 and 8 pixels; of each rank the largest ratio counts. Threshold: below 1.10 a
    component is not above the noise. Components with less than 1e-3 of the counts stay out.

    Measured on 32 x 32 pixels, 100 counts of EDX and 2e3 and 2e4 of EELS, 1 to 3 phases, weighted and Poisson NMF and
    PSNMF: true K 0 of 108 alarms (weakest true component 10.5), one or two too many 216 of 216 (strongest surplus one
    1.00). With relevance determination 14 of the 108 fits kept too many and got the warning, none of the others did.
    """
    found = strengths(evidence)
    if found is None or len(found.counted) < 2:
        return None
    ratio = found.ratio.max(axis=0)
    held = max(1, int(np.sum(ratio >= SIGNIFICANT)))
    surplus = len(ratio) - held
    if not surplus:
        return None
    weakest = found.counted[np.sort(np.argsort(_own_power(evidence, found.counted))[:surplus])] + 1
    words = f"Component {weakest[0]} is" if surplus == 1 else f"Components {_listed(weakest)} are at most"
    text = f"{words} {ratio[held]:.2g} of what noise alone can reach: the data hold {held}."
    return ResultWarning("below_noise", text, f"n_components={held}")


def missing_component(evidence: Evidence) -> ResultWarning | None:
    """Warn where the residual holds a pattern that no mixture of the spectra gives.

    Residuals of sampled pixels and bins are weighted and projected off the span of the spectra, which removes what
    shrinkage of abundances and wrong totals leave. Threshold: the largest eigenvalue is 1.15 times that of noise, and
    5 % of the weakest component's where there are two or more. What noise can reach is that of equal variances; a
    pattern above it is also compared with counts drawn from the model, whose noise is uneven where a rare phase has
    peaks of its own.

    Measured on the same fits: one too few 72 of 72 (least 10.7), true K 0 of 108 (largest 0.99). With relevance
    determination 6 of 108, all where spectra are wrong by 40 to 58 degrees.
    """
    found = strengths(evidence)
    if found is None:
        return None
    best, where, enough = 0.0, 0.0, False
    for bins in evidence.bins:
        pattern = _residual_pattern(evidence, bins)
        if pattern is None or not pattern.ratio > best:
            continue
        best, where = pattern.ratio, pattern.energy
        enough = _weighs(evidence, found, bins, pattern)
    if not (best > MISSING and enough):
        return None
    cause = "A phase is missing, or thickness varies"
    if evidence.signal == "EELS":
        cause += " (plural scattering)"
    unit = evidence.energy_unit
    place = f"{where:.4g} {unit}" if unit else f"channel {where:.0f}"
    text = f"The residual is no noise: a pattern {best:.2g} times stronger, largest at {place}. {cause}."
    if below_noise(evidence) is not None:
        # More components were no help: one of those that are there is spent on noise.
        return ResultWarning("missing_component", text, "seed=1")
    return ResultWarning("missing_component", text, f"n_components={len(evidence.endmembers) + 1}")


def strengths(evidence: Evidence) -> Strengths | None:
    """Squared singular values of the fitted matrix from K x K matrices alone; None where noise is not known."""
    phi, s = evidence.variance_index, evidence.endmembers
    used = _channels(evidence)
    counted = _counted(evidence)
    if not used.any() or not len(counted) or not np.isfinite(s).all():
        return None
    root = np.sqrt(1.0 / evidence.mean[used]) * s[np.ix_(counted, used)]
    gram = root @ root.T
    rows = {bins.width: _rows(evidence, bins) for bins in evidence.bins}
    kept, values, edges = [], [], []
    for width, outer in zip(BIN_WIDTHS, evidence.outer, strict=False):
        if width in rows and rows[width] >= 1 and np.isfinite(outer).all():
            kept.append(width)
            values.append(_product_eigenvalues(outer[np.ix_(counted, counted)], gram))
            edges.append(phi * noise_edge(rows[width], int(used.sum())))
    if not kept:
        return None
    value = np.array(values)
    return Strengths(np.array(kept), value, value / np.array(edges)[:, None], counted)


def _channels(evidence: Evidence, *, pixels: int | None = None) -> Bool:
    """Channels with enough counts in a number of pixels, by default all; none where the noise is not known."""
    phi = evidence.variance_index
    if not (np.isfinite(phi) and phi > 0):
        return np.zeros(len(evidence.mean), dtype=bool)
    pixels = evidence.pixels if pixels is None else pixels
    return np.asarray((evidence.mean > 0) & (pixels * evidence.mean >= LEAST_COUNTS * phi))


def _counted(evidence: Evidence) -> Int:
    """Numbers of the components that are not switched off."""
    k = len(evidence.endmembers)
    if evidence.signed or not evidence.bins:
        return np.arange(k)
    totals = np.abs(evidence.endmembers.sum(axis=1))
    # Wide bins cover more of a large map than single pixels.
    share = [b.abundances.sum(axis=0) * totals / max(float(b.data.sum()), 1e-300) for b in evidence.bins]
    return np.flatnonzero(np.max(share, axis=0) >= LEAST_SHARE)


def _rows(evidence: Evidence, bins: Bins) -> float:
    """Bins of that width in the whole map."""
    n = len(bins.index)
    whole = evidence.pixels / float(bins.pixels.mean()) if n else 0.0
    # Pixels at the edges of the map are in no bin.
    return float(n) if whole < NEARLY_ALL * n else whole


def _product_eigenvalues(a: Float, b: Float) -> Float:
    """Eigenvalues of the product of two positive semi-definite matrices (K, K), largest first."""
    value, vector = np.linalg.eigh(a)
    root = vector * np.sqrt(np.maximum(value, 0.0))
    return np.asarray(np.maximum(np.linalg.eigvalsh(root.T @ b @ root)[::-1], 0.0))


def _own_power(evidence: Evidence, counted: Int) -> Float:
    """Squared size of what each component adds and no mixture of the others' maps or spectra can replace."""
    used = _channels(evidence)
    root = np.sqrt(1.0 / evidence.mean[used]) * evidence.endmembers[np.ix_(counted, used)]
    maps, spectra = evidence.outer[0][np.ix_(counted, counted)], root @ root.T
    own = [np.diag(np.linalg.pinv(m, rcond=1e-12, hermitian=True)) for m in (maps, spectra)]
    return np.asarray(np.where(np.minimum(*own) > 0, 1.0 / np.maximum(own[0] * own[1], 1e-300), 0.0))


class Pattern(NamedTuple):
    """The strongest pattern in a residual: squared singular value, over that of noise, and where it is largest."""

    value: float
    ratio: float
    energy: float


def _residual_pattern(evidence: Evidence, bins: Bins) -> Pattern | None:
    """The strongest pattern of sampled bins that is not in the span of the spectra; None where there is no noise."""
    # A sample of a large map has far fewer counts than the map: its noise must be near normal, too.
    used = _channels(evidence, pixels=int(bins.pixels.sum()))
    total = bins.data.sum(axis=1) / (float(evidence.mean.sum()) or 1.0)
    kept = np.isfinite(total) & (total > 0)
    channels = np.where(used, 1.0 / np.sqrt(np.where(used, evidence.mean, 1.0)), 0.0)
    ends = evidence.endmembers * channels
    free = int(used.sum()) - len(ends)
    if free < 1 or not kept.any() or not np.isfinite(ends).all():
        return None
    x = bins.data if kept.all() else bins.data[kept]
    if evidence.offset.any():
        x = x - bins.pixels[kept, None] * evidence.offset
    rows, basis = 1.0 / np.sqrt(total[kept]), np.linalg.qr(ends.T)[0]
    value, spectrum = _strongest(x, rows, channels, basis)
    phi = evidence.variance_index
    noise = phi * noise_edge(len(x), free)
    if value > MISSING * noise:
        model = np.maximum(np.nan_to_num(bins.abundances[kept] @ evidence.endmembers), 0.0)
        rng = np.random.default_rng(0)
        for _ in range(DRAWS):
            drawn = phi * rng.poisson(model / phi) - model
            noise = max(noise, _strongest(drawn, rows, channels, basis)[0])
            if not MISSING * noise < value < SURE * noise:
                break
    place = evidence.energy[int(np.argmax(np.abs(spectrum) * np.where(used, np.sqrt(np.maximum(evidence.mean, 0)), 0)))]
    return Pattern(value, value / noise, float(place))


def _strongest(x: Any, rows: Float, channels: Float, basis: Float) -> tuple[float, Float]:
    """Largest squared singular value of weighted rows that are projected off some spectra, and its right vector (E,).

    By 12 steps of Lanczos' method: a pattern above `MISSING` is found to 1e-4, the edge of noise up to 5 % too low. The
    products are those of float32, whose rounding is far below the noise.

    x (n, E). rows (n,), channels (E,): weights. basis (E, K): orthonormal, in weighted channels, projected off.
    """
    x, squares = x.astype(np.float32, copy=False), (rows**2).astype(np.float32)
    space = np.zeros((min(LANCZOS_STEPS, *x.shape), x.shape[1]))
    images = np.zeros_like(space)
    vector = np.random.default_rng(0).standard_normal(x.shape[1]) * (channels > 0)
    least = 0.0
    for step in range(len(space)):
        for _ in range(2):
            vector -= basis @ (basis.T @ vector)
            vector -= space[:step].T @ (space[:step] @ vector)
        length = float(np.linalg.norm(vector))
        if not length > least:
            break  # the rows hold no further direction
        space[step] = vector / length
        image = x.T @ (squares * (x @ (channels * space[step]).astype(np.float32)))
        vector = images[step] = channels * image
        least = 1e-5 * float(np.linalg.norm(vector))
    value, mixture = np.linalg.eigh(space @ images.T)
    return max(float(value[-1]), 0.0), mixture[:, -1] @ space


def _weighs(evidence: Evidence, found: Strengths, bins: Bins, pattern: Pattern) -> bool:
    """Whether a pattern of the sampled bins is strong beside the weakest component of the fit.

    A single component is the mean, beside which all differences between phases are small: it is no measure.
    """
    if len(found.counted) < 2:
        return True
    weakest = found.value[found.width == bins.width, -1]
    whole = pattern.value * _rows(evidence, bins) / len(bins.index)
    return not len(weakest) or bool(whole >= MISSING_SHARE * weakest[0])


def _listed(numbers: Int) -> str:
    """``2, 3 and 4``."""
    words = [str(n) for n in numbers]
    return f"{', '.join(words[:-1])} and {words[-1]}"
