"""Energy drift: do the spectra of a map shift along energy, from region to region or from pixel to pixel?"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from scipy.special import chdtri

from scalehsi.arrays import Float, Int
from scalehsi.fitting.judge.channels import has_zero_loss, stands_on_background
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.judge.noise import removed_background, variance_index
from scalehsi.fitting.judge.shifts import Shifts, Spread, spread_of, window_shifts
from scalehsi.fitting.judge.words import number, prepare
from scalehsi.physics.eels_edges import EDGES
from scalehsi.physics.peaks import rise_at
from scalehsi.result import ResultWarning

REGION_CHI: Final = 2.2
PIXEL_CHI: Final = 1.3
CHANCE: Final = 1e-6
"""Probability of noise to reach the threshold of chi: what few regions or pixels are measured by."""
LEAST_RMS: Final = 0.04
"""Channels."""
CONSENSUS: Final = 0.75
CONSENSUS_OF_EELS: Final = 0.4
CONSENSUS_ON_BACKGROUND: Final = 0.5
EELS_SCALES: Final = (1, 4, 16)
"""Channels that are added up, as a derivative sees only shifts below the width of a feature."""
LEAST_CHANNELS: Final = 32
LEAST_SUMS: Final = 64
"""Sums of channels that are needed to look at shifts between them: with fewer, windows agree by chance."""
LEAST_COUNTS: Final = 25.0
"""Channels with fewer counts over the whole map do not count."""
MEAN_NOISE: Final = 0.1
"""Share of the noise that is taken from the mean spectrum: where a wrong model is zero, the data still scatter."""
PIXEL_WINDOWS: Final = 4
FAST: Final = 2.0
"""Shifts of pixels that are this many times those of regions cancel within a region."""
MEDIAN_CHI2: Final = 0.455
"""Of the square of a standard normal deviate."""
ALONG: Final = 0.8
"""Correlation of shifts with the row, above which the drift goes along the rows."""
ENDS: Final = (0.03, 0.97)
ZERO_LOSS_CHANNELS: Final = 4
"""Channels on both sides of a pixel's maximum that its centroid is taken over."""
ZERO_LOSS_SPAN: Final = 0.5
"""Channels."""
MOST_BINNED: Final = 16
"""Channels that the remedy adds up, at most."""


class _Found(NamedTuple):
    """span: of the shifts in channels. where: words that follow. zero_loss: it is the zero loss that moves."""

    span: float
    where: str
    zero_loss: bool = False


def drift(evidence: Evidence) -> ResultWarning | None:
    """Do spectra shift along energy over the map?

    Regions: least squares of each region's spectrum on the fitted spectra and on the derivative of its model, cut into
    windows of channels. The shifts must be above noise (chi > 2.2, or what few regions reach once in 1e6), at least
    0.04 channels (rms), and alike in all windows (consensus >= 0.75; 0.4 for EELS, 0.5 on its background). EELS also
    with 4 and 16 channels added up, and between sampled pixels (chi > 1.3). A zero loss in range must not move over
    more than 0.5 channels.

    Found, of 10 ramps each (32 x 32 pixels, 3 and 5 components): all of 0.5 channels (rms) in EDX of 100 counts, 0.2 in
    EDX of 500, 0.15 in EELS of 2000, 0.1 in EELS of 20 000. The size is right to 35 % in 39 of 40 ramps of EDX and in
    37 of 40 of EELS, whose edges are as sharp as the channels.
    False alarms without drift: 0 of 195 fits of NMF and PSNMF with the right number of components (EDX of 20 to 500
    counts, EELS of 2000 and 20 000; smooth phases, grains, rare phases), 0 of 96 of EELS and 0 of 80 of EDX with one
    too many or too few, whose windows agree to 0.68 at most where those of planted drifts agree to 0.91.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    ResultWarning or None
        Code "drift".
    """
    phi = variance_index(evidence)
    finite = np.isfinite(evidence.mean).all() and np.isfinite(evidence.endmembers).all()
    if phi is None or evidence.signed or not finite or evidence.mean.size < LEAST_CHANNELS:
        return None
    with np.errstate(all="ignore"):
        found = _zero_loss_drift(evidence, phi) or _spectral_drift(evidence, phi)
        if found is None or not 0 < found.span < math.inf:
            return None
        return ResultWarning("drift", _text(evidence, found), _remedy(evidence, found))


def region_spread(evidence: Evidence, phi: float, scale: int = 1) -> Spread | None:
    """Shifts of the regions in channels; None where it cannot be known. scale: channels that are added up."""
    regions = evidence.regions
    return _spread(evidence, regions.data, regions.abundances, regions.pixels, phi=phi, scale=scale)


def pixel_spread(evidence: Evidence, phi: float) -> Spread | None:
    """Shifts of the sampled pixels in channels; None where it cannot be known. The mean may change its slope too."""
    if not evidence.bins:
        return None
    sample = evidence.bins[0]
    tilted = evidence.mean * np.linspace(-1.0, 1.0, evidence.mean.size)
    rows = (sample.data, sample.abundances, sample.pixels)
    return _spread(evidence, *rows, phi=phi, windows=PIXEL_WINDOWS, besides=tilted[None])


def _spread(
    evidence: Evidence,
    data: Float,
    abundances: Float,
    pixels: Int,
    *,
    phi: float,
    scale: int = 1,
    windows: int = 8,
    besides: Float | None = None,
) -> Spread | None:
    """Shifts of spectra that are sums over pixels; zeros with no information for those that cannot be used.

    data: (n, E). abundances: (n, K). pixels: (n,). phi: variance index. scale: channels that are added up. windows: at
    most. besides: spectra whose amounts are fitted too, (B, E).
    """
    there = (pixels > 0) & np.isfinite(data).all(axis=1) & np.isfinite(abundances).all(axis=1)
    there &= (data.sum(axis=1) > 0) & (abundances @ evidence.endmembers.sum(axis=1) > 0)
    if evidence.mean.size // scale < (LEAST_CHANNELS if scale == 1 else LEAST_SUMS) or there.sum() < 4:
        return None
    maps, spectra = abundances[there], evidence.endmembers
    if evidence.offset.any():
        maps, spectra = np.column_stack([maps, pixels[there]]), np.vstack([spectra, evidence.offset])
    total = data[there].sum(axis=1, keepdims=True) / evidence.mean.sum()
    levels = np.hstack([(1.0 - MEAN_NOISE) * maps, MEAN_NOISE * total, pixels[there, None]])
    noise = phi * np.vstack([spectra, evidence.mean, removed_background(evidence, phi)])
    errors = np.zeros((len(spectra), len(spectra)))
    errors[: len(evidence.endmembers), : len(evidence.endmembers)] = _errors(evidence, phi) / float(total.sum())
    free = spectra if besides is None else np.vstack([spectra, besides])
    found = window_shifts(
        _binned(data[there], scale),
        maps,
        _binned(spectra, scale),
        free=_binned(free, scale),
        errors=errors,
        levels=levels,
        noise=_binned(noise, scale),
        least=LEAST_COUNTS * phi**2 * float(total.sum()) / evidence.pixels,
        windows=windows if evidence.mean.size // scale >= 128 else min(windows, 4),
    )
    spread = spread_of(Shifts(found.shift * scale, found.information / scale**2, found.variance * scale**2))
    if spread is None:
        return None
    shift, information = np.zeros(len(there)), np.zeros(len(there))
    shift[there], information[there] = spread.shift, spread.information
    return spread._replace(shift=shift, information=information)


def _errors(evidence: Evidence, phi: float) -> Float:
    """Covariance of the spectra's noise, over that of the mean pixel, (K, K): of least squares with these maps.

    Never more than third differences along energy show, as a fit may have smoothed its spectra. phi: variance index.
    """
    expected = np.linalg.pinv(evidence.outer[0], hermitian=True) if np.isfinite(evidence.outer[0]).all() else 0.0
    found = np.asarray(np.broadcast_to(expected, evidence.outer[0].shape))
    mean = evidence.mean[: evidence.mean.size - 3] + evidence.mean[3:]
    used = (mean > 0) & (evidence.pixels * mean >= 2 * LEAST_COUNTS * phi)
    rough = np.diff(evidence.endmembers, n=3, axis=1)[:, used] ** 2 / (10.0 * phi * mean[used])
    sizes = np.diag(found)[:, None]
    if not used.any() or not (sizes > 0).all():
        return np.zeros_like(found)
    return found * min(1.0, float(np.median(rough / sizes)) / MEDIAN_CHI2)


def _spectral_drift(evidence: Evidence, phi: float) -> _Found | None:
    """Shifts of regions; or of pixels, for EELS, where these are larger."""
    eels = evidence.signal == "EELS"
    least = CONSENSUS_OF_EELS if eels else CONSENSUS
    if stands_on_background(evidence):
        least = CONSENSUS_ON_BACKGROUND

    def alarms(spread: Spread | None, chi: float) -> bool:
        return spread is not None and spread.consensus >= least and _is_above_noise(spread, chi)

    spreads = [region_spread(evidence, phi, scale) for scale in (EELS_SCALES if eels else (1,))]
    regions = max((s for s in spreads if s is not None and alarms(s, REGION_CHI)), key=lambda s: s.chi, default=None)
    pixels = pixel_spread(evidence, phi) if eels else None
    if pixels is not None and alarms(pixels, PIXEL_CHI) and (regions is None or pixels.rms > FAST * regions.rms):
        return _Found(_span(pixels), " from pixel to pixel")
    return None if regions is None else _Found(_span(regions), _where(evidence, regions))


def _zero_loss_drift(evidence: Evidence, phi: float) -> _Found | None:
    """The centroid of the zero loss in sampled pixels."""
    if not has_zero_loss(evidence) or not evidence.bins:
        return None
    rows = evidence.bins[0].data
    rows = np.maximum(rows[np.isfinite(rows).all(axis=1)], 0.0)
    near = rows.argmax(axis=1)[:, None] + np.arange(-ZERO_LOSS_CHANNELS, ZERO_LOSS_CHANNELS + 1)
    inside = (near >= 0) & (near < rows.shape[1])
    values = np.where(inside, np.take_along_axis(rows, np.clip(near, 0, rows.shape[1] - 1), axis=1), 0.0)
    total = values.sum(axis=1)
    if (total > 0).sum() < 4:
        return None
    values, near, total = values[total > 0], near[total > 0], total[total > 0]
    centroid = (values * near).sum(axis=1) / total
    variance = phi * (values * (near - centroid[:, None]) ** 2).sum(axis=1) / total**2
    low, high = np.quantile(centroid, ENDS)
    noise = 2 * 1.88 * math.sqrt(float(np.median(variance)))
    span = math.sqrt(max(0.0, float(high - low) ** 2 - noise**2))
    return _Found(span, _everywhere(evidence), zero_loss=True) if span > ZERO_LOSS_SPAN else None


def _is_above_noise(spread: Spread, chi: float) -> bool:
    """Whether shifts are neither noise nor too small to matter. chi: threshold for many regions or pixels."""
    free = int((spread.information > 0).sum()) - 1
    return bool(spread.chi > max(chi, chdtri(free, CHANCE) / free) and spread.rms >= LEAST_RMS)


def _span(spread: Spread) -> float:
    """From 3 to 97 % of the shifts in channels, less their noise."""
    order = np.argsort(spread.shift)
    weight = spread.information[order] / spread.information.sum()
    low, high = np.interp(ENDS, np.cumsum(weight) - weight / 2, spread.shift[order])
    return float(high - low) * math.sqrt(max(0.0, 1.0 - 1.0 / spread.chi))


def _where(evidence: Evidence, spread: Spread) -> str:
    """Along the rows, or between which regions. spread: of the regions."""
    rows, columns = evidence.regions.shape
    if min(rows, columns) == 1:
        return _everywhere(evidence)
    weight = spread.information
    row = np.repeat(np.arange(rows), columns).astype(np.float64)
    centred = row - (row * weight).sum() / weight.sum()
    signal = (spread.shift**2 * weight).sum() * (1.0 - 1.0 / spread.chi)
    norm = math.sqrt(float((centred**2 * weight).sum() * signal))
    if norm > 0 and abs(float((centred * spread.shift * weight).sum())) > ALONG * norm:
        return " over the map, along the rows"
    if len(evidence.shape) != 2:
        return " over the map"
    known = np.flatnonzero(weight > 0.25 * np.median(weight[weight > 0]))
    ends = (known[spread.shift[known].argmin()], known[spread.shift[known].argmax()])
    return " over the map, most between {} and {}".format(*(_centre(evidence, int(r)) for r in ends))


def _centre(evidence: Evidence, region: int) -> str:
    """The place of the middle pixel of a region of a two-dimensional map."""
    at = divmod(region, evidence.regions.shape[1])
    middle = [int((i + 0.5) * size / n) for i, n, size in zip(at, evidence.regions.shape, evidence.shape, strict=True)]
    return evidence.place(middle[0] * evidence.shape[1] + middle[1])


def _everywhere(evidence: Evidence) -> str:
    return " along the line" if min(evidence.regions.shape) == 1 else " over the map"


def _text(evidence: Evidence, found: _Found) -> str:
    channels = f"{number(found.span)} channels"
    axis = evidence.energy_ev
    if axis is None:
        size = channels
    else:
        size = f"{number(found.span * abs(float(axis[-1] - axis[0])) / (len(axis) - 1))} eV ({channels})"
    text = f"Spectra shift by at least {size}{found.where}."
    if len(evidence.endmembers) > 1:
        text += " Components that are copies of one spectrum are this shift, not phases."
    if not found.zero_loss and _is_single_edge(evidence):
        text += " A single edge may also have a chemical shift; the zero loss decides."
    return text


def _remedy(evidence: Evidence, found: _Found) -> str:
    """Channels as wide as the shift."""
    wide = min(max(2, math.ceil(found.span)), MOST_BINNED)
    return prepare(evidence, f"bin:energy={wide}")


def _is_single_edge(evidence: Evidence) -> bool:
    """Whether an EELS fit has one component, or the mean spectrum no more than one known edge."""
    axis = evidence.energy_ev
    if evidence.signal != "EELS":
        return False
    if len(evidence.endmembers) == 1 or axis is None:
        return True
    onsets = [edge.onset_ev for edge in EDGES.values() if axis[0] < edge.onset_ev < axis[-1]]
    return sum(rise_at(axis, evidence.mean, onset) > 0 for onset in onsets) <= 1


def _binned(rows: Float, factor: int) -> Float:
    """Sums of ``factor`` channels; channels at the end that do not fill a group are left out. rows: (..., E)."""
    if factor == 1:
        return rows
    n = rows.shape[-1] // factor
    found: Float = rows[..., : n * factor].reshape(*rows.shape[:-1], n, factor).sum(axis=-1)
    return found
