"""Warn of what is wrong with values or channels all over the map: a full detector, dead channels, a background."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.judge.noise import removed_background, variance_index
from scalehsi.fitting.judge.words import at_energy, number, prepare
from scalehsi.kernels.statistics.outliers import standard_deviations
from scalehsi.physics.eels_edges import EDGES
from scalehsi.physics.peaks import usual_fwhm
from scalehsi.result import ResultWarning

LEAST_AT_LARGEST: Final = 5
"""Voxels that must have the largest value; chance gives 1 or 2."""
PILED_UP: Final = 3.0
"""They must also be this many times those of a value just below."""
DTYPE_ENDS: Final = {"uint8": 255, "uint16": 65535}
FEW_COUNTS: Final = 1.5
"""Where the largest value is a single count, every filled voxel has it."""
DEAD: Final = 0.6
"""A dead channel has less than this part of the least of its 2 + 2 neighbours."""
HOT: Final = 1.7
"""A hot one has more than this many times the largest."""
CHANNEL_SIGMAS: Final = 6.0
OFFSETS: Final = 3.0
"""Channels up to this many times the most negative one are not compared: offsets of the detector decide them."""
REGION_SHARE: Final = 0.9
"""Part of the regions with enough counts that must show a dead or hot channel."""
EDGE_EV: Final = 10.0
"""Distance from an edge, or from the zero loss, within which a channel may be higher than its neighbours."""
HOT_AT_EDGE: Final = 2.5
"""What a hot channel there has where channels divide the peaks of edges, which are 2 eV wide or wider."""
SHARP_EV: Final = 2.0
"""Peaks of edges up to this width count as edges of their own: the white lines L2."""
FINE_EV: Final = 1.5
"""Width of such channels."""
LINE_CHANNELS: Final = 3.0
"""X-ray lines narrower than this many channels may be one of them alone."""
STROBE_EV: Final = 100.0
"""Below it EDX spectra have the peak of the detector's noise."""
LEAST_EDX_COUNTS: Final = 400.0
"""Counts of a pixel from which on channels of EDX spectra are compared."""
GAIN: Final = (0.7, 1.5)
"""Range of the variance index of single counts."""
BACKGROUND: Final = 0.2
"""Mean of the first 5 % of the channels, relative to the largest of the mean spectrum."""
FIRST_SHARE: Final = 0.05
LEAST_RISE: Final = 0.02
"""Rise above the falling background, within 2 % of the axis, that is an edge."""
CORE_LOSS_EV: Final = 30.0
"""Axes that start below have the zero loss or plasmons, and no background of the kind that is fitted and taken off."""
ZERO_LOSS: Final = 100.0
"""Strongest channel over the median one."""
NEGATIVE_DEPTH: Final = 8.0
"""Standard deviations below zero that noise does not reach."""


def saturated(evidence: Evidence) -> ResultWarning | None:
    """Warn where many voxels have the largest value: the detector was full.

    Thresholds: at least 5 voxels, and more than 3 times those of a value just below plus 3; or 2 voxels at the end of
    the data type, 255 or 65535. Not where the largest value is a single count, nor for data without noise.

    Cut at 0.7 of the largest value: 10 of 10 (EDX of 500 counts, EELS of 2e4), at 0.9 1 and 8 of 10; none of EDX of 100
    counts and EELS of 2e3, whose largest values are below 30. Clean: 0 of 150 scenes.
    """
    phi, found = variance_index(evidence), evidence.extremes
    if phi is None or not found.largest > FEW_COUNTS * phi:
        return None
    below = found.below / max(found.steps, 1.0)
    piled = found.at_largest >= LEAST_AT_LARGEST and found.at_largest > PILED_UP * below + 3
    at_end = DTYPE_ENDS.get(evidence.dtype) == found.largest and found.at_largest > 1
    if not (piled or at_end) or _noise_free(evidence):
        return None
    text = (
        f"{found.at_largest} values sit at the largest one, {found.largest:.6g}: the detector was full; "
        "peaks are cut there."
    )
    return ResultWarning("saturated", text, f'hsi.prepare.mask(cube, where=cube.max("energy") < {found.largest:.10g})')


def _noise_free(evidence: Evidence) -> bool:
    """Whether fractional values repeat in the sampled pixels, as only those of a simulation do."""
    data = evidence.bins[0].data if evidence.bins else np.zeros((0, 1))
    if not data.size or evidence.dtype.startswith(("u", "i")):
        return False
    column = data[:, int(np.argmax(data.max(axis=0)))]
    lower = column[column < column.max()]
    whole = bool((lower == np.rint(lower)).all())
    return not whole and len(np.unique(lower)) < 0.5 * len(lower)


def dead_channel(evidence: Evidence) -> ResultWarning | None:
    """Warn of single channels that lie far below or above their neighbours.

    Thresholds: a sum over the map below 0.6 times the least, or above 1.7 times the largest, of 2 + 2 neighbours, with
    6 standard deviations, and half as much in 90 % of the regions with enough counts. Not for EDX below 400 counts a
    pixel. Hot channels may be peaks: within 10 eV of an edge 2.5 times are expected, or nothing is said where channels
    are wider than 1.5 eV; nor about the zero loss, X-ray lines narrower than 3 channels, and axes without a unit.

    In 1024 pixels, 10 of each: dead or half in EELS 10; 3 times in EELS 10; dead in EDX of 500 counts 9, 3 times 4 (20
    to 60 counts a channel in all). Clean: 0 of 150 scenes.
    """
    phi, n = variance_index(evidence), len(evidence.mean)
    if phi is None or n < 5 or not np.isfinite(evidence.mean).all():
        return None
    if evidence.signal == "EDS" and evidence.mean.sum() / phi < LEAST_EDX_COUNTS:
        return None
    least, largest = _around(evidence.mean)
    total, removed = evidence.mean * evidence.pixels, removed_background(evidence, phi) * evidence.pixels
    low = standard_deviations(np.maximum(least, 0.0) * evidence.pixels, total, phi, removed)
    high = standard_deviations(total, largest * evidence.pixels, phi, removed)
    level = max(-OFFSETS * float(evidence.mean.min()), 0.0)
    dead = (evidence.mean < DEAD * least) & (least > level) & (low > CHANNEL_SIGMAS)
    hot = (evidence.mean > _hot_limits(evidence) * largest) & (largest > level) & (high > CHANNEL_SIGMAS)
    for channels in (dead, hot):
        for e in np.flatnonzero(channels):
            channels[e] = _in_all_regions(evidence, int(e), phi, dead=channels is dead)
    found = np.flatnonzero(dead | hot)
    if not len(found):
        return None
    worst = int(found[np.argmax(np.where(dead, low, high)[found])])
    kind = "dead" if dead[worst] else "hot"
    times = float(evidence.mean[worst] / (least if dead[worst] else largest)[worst])
    what = f"at {at_energy(evidence, worst)} has {number(times)} times the intensity of its neighbours: it is {kind}."
    first = "The channel" if len(found) == 1 else f"{len(found)} channels stand apart from their neighbours; that"
    text = f"{first} {what}"
    return ResultWarning("dead_channel", text, _without_channels(evidence, found))


def _around(mean: Float) -> tuple[Float, Float]:
    """The least and the largest of the 2 + 2 neighbours of each channel; the two channels at each end have none."""
    n = len(mean)
    beside = np.stack([mean[i : n - 4 + i] for i in (0, 1, 3, 4)])
    least, largest = np.full(n, -np.inf), np.full(n, np.inf)
    least[2:-2], largest[2:-2] = beside.min(axis=0), beside.max(axis=0)
    return least, largest


def _in_all_regions(evidence: Evidence, e: int, phi: float, *, dead: bool) -> bool:
    """Whether a channel stands apart in nearly all regions with enough counts, as an edge of one phase does not."""
    beside = evidence.regions.data[:, [e - 2, e - 1, e + 1, e + 2]]
    around = beside.min(axis=1) if dead else beside.max(axis=1)
    ratio = evidence.regions.data[:, e] / np.where(around > 0, around, 1.0)
    enough = around > 4 * CHANNEL_SIGMAS**2 * phi
    apart = ratio < 0.5 * (1 + DEAD) if dead else ratio > 0.5 * (1 + HOT)
    return bool(not enough.any() or apart[enough].mean() >= REGION_SHARE)


def _hot_limits(evidence: Evidence) -> Float:
    """How many times its neighbours a hot channel has at least; infinite where a peak may be as narrow."""
    energy, n = evidence.energy_ev, len(evidence.mean)
    if energy is None:
        return np.full(n, np.inf)
    width = np.abs(np.gradient(energy))
    if evidence.signal == "EDS":
        line = 1000.0 * np.asarray(usual_fwhm(np.maximum(energy, 0.0) / 1000.0))
        return np.where((line < LINE_CHANNELS * width) | (energy < STROBE_EV), np.inf, HOT)
    peaks = [
        edge.onset_ev + p[0] for edge in EDGES.values() for p in ((0.0, 0.0, 0.0), *edge.peaks) if p[1] <= SHARP_EV
    ]
    near = (np.abs(energy[:, None] - np.array(peaks)) <= EDGE_EV + width[:, None]).any(axis=1)
    limits = np.where(near, np.where(width <= FINE_EV, HOT_AT_EDGE, np.inf), HOT)
    return np.where(np.abs(energy) <= EDGE_EV, np.inf, limits)


def _without_channels(evidence: Evidence, channels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    """The command that takes some channels for missing."""
    kept = f"cube.where(~cube.energy.isin(cube.energy[{channels.tolist()}]))"
    return f"hsi.fit({kept}, hsi.NMF({len(evidence.endmembers)}, missing=True))"


def gain(evidence: Evidence) -> ResultWarning | None:
    """Warn where the Poisson likelihood was used for values that are not single counts.

    Threshold: a variance index outside 0.7 to 1.5 with ``loss="poisson"``. Clean: 0 of 150 scenes.
    """
    phi = variance_index(evidence)
    if phi is None or evidence.loss != "poisson" or GAIN[0] <= phi <= GAIN[1]:
        return None
    if phi > 1:
        why = f"values are not single counts; Poisson errors are {math.sqrt(phi):.2g} times too small."
    else:
        why = f"values were smoothed or are correlated; Poisson errors are {1 / math.sqrt(phi):.2g} times too large."
    return ResultWarning("gain", f"Variance over mean is {number(phi)}: {why}", 'loss="frobenius", weighting="poisson"')


def stands_on_background(evidence: Evidence) -> bool:
    """Whether core-loss spectra still stand on their background.

    Threshold: from 30 eV up, a mean of the first 5 % of the channels above 0.2 of the largest channel. Raw 0.56 to 0.90
    (4 measured sets).
    """
    return _background_share(evidence) > BACKGROUND


def _background_share(evidence: Evidence) -> float:
    """Mean of the first 5 % of the channels over the largest; 0 where this says nothing."""
    energy, mean = evidence.energy_ev, evidence.mean
    if evidence.signal != "EELS" or energy is None or not len(mean) or not np.isfinite(mean).all():
        return 0.0
    if energy.min() < CORE_LOSS_EV or mean.max() <= 0 or evidence.model == "BackgroundNMF":
        return 0.0
    first = np.argsort(energy)[: max(1, int(FIRST_SHARE * len(mean)))]
    return float(mean[first].mean() / mean.max())


def background_on(evidence: Evidence) -> ResultWarning | None:
    """Warn where core-loss spectra still stand on their background; see `stands_on_background`."""
    share = _background_share(evidence)
    if not share > BACKGROUND:
        return None
    text = (
        f"The spectra still stand on their background ({100 * share:.0f} % of the largest intensity): "
        "components will share it out."
    )
    return ResultWarning("background_on", text, _crop_to_edge(evidence))


def _crop_to_edge(evidence: Evidence) -> str:
    """The command that crops to shortly before the first edge, where the mean spectrum falls less than before.

    Nothing where there is no edge, or the first one is at the beginning.
    """
    n, energy = len(evidence.mean), evidence.energy
    width = max(1, n // 50)
    smooth = np.convolve(np.maximum(evidence.mean, 0.0), np.ones(width) / width, mode="valid")
    if len(smooth) <= 6 * width or not (np.diff(energy) > 0).all():
        return ""
    low, high = np.maximum(smooth[:-width], 1e-300), np.maximum(smooth[width:], 1e-300)
    middle = energy[: len(smooth)] + 0.5 * (energy[width - 1] - energy[0])
    steps = np.log(middle[width:] / middle[:-width])
    exponent = max(0.0, -float(np.median((np.log(high / low) / steps)[: 5 * width])))
    noise = np.sqrt(2.0 * np.nan_to_num(evidence.variance_index) / (low * width * max(evidence.pixels, 1)))
    above = np.log(high / low) + exponent * steps > np.maximum(LEAST_RISE, CHANNEL_SIGMAS * noise)
    first = int(np.argmax(above)) - width if above.any() else 0
    return prepare(evidence, f"crop:energy={float(energy[first]):.4g}:") if first > 0 else ""


def has_zero_loss(evidence: Evidence) -> bool:
    """Whether the strongest channel is within 30 eV of 0 and above 100 times the median one (2 series: 240, 980)."""
    return _zero_loss_ratio(evidence) > ZERO_LOSS


def _zero_loss_ratio(evidence: Evidence) -> float:
    """The strongest channel over the median one; 0 where the strongest is not at the zero loss."""
    energy, mean = evidence.energy_ev, evidence.mean
    if evidence.signal != "EELS" or energy is None or not len(mean) or not np.isfinite(mean).all():
        return 0.0
    strongest, usual = int(np.argmax(mean)), float(np.median(mean))
    if abs(energy[strongest]) > CORE_LOSS_EV or mean[strongest] <= 0:
        return 0.0
    return float(mean[strongest]) / max(usual, 1e-12 * float(mean[strongest]))


def zero_loss(evidence: Evidence) -> ResultWarning | None:
    """Warn where the zero-loss peak is fitted with the rest; see `has_zero_loss`."""
    ratio = _zero_loss_ratio(evidence)
    energy = evidence.energy_ev
    if not ratio > ZERO_LOSS or energy is None:
        return None
    text = f"The zero-loss peak is {number(ratio)} times the usual channel and decides the fit."
    start = 20.0 if energy.max() > 40.0 else 0.25 * float(energy.max())
    unit = float(evidence.energy[-1] / energy[-1]) if energy[-1] else 1.0
    remedy = prepare(evidence, f"crop:energy={start * unit:.4g}:") if start > 0 else ""
    return ResultWarning("zero_loss", text, remedy)


def negative_values(evidence: Evidence) -> ResultWarning | None:
    """Warn where values are further below zero than noise reaches: too much was taken off.

    Threshold: the least value is 8 standard deviations of the noisiest channel below zero. Quiet for two low-loss
    series with 3 and 8 % of negative values after dark correction.
    """
    phi, found = variance_index(evidence), evidence.extremes
    if phi is None or not found.negative:
        return None
    noise = math.sqrt(phi * float((np.maximum(evidence.mean, 0.0) + removed_background(evidence, phi)).max()))
    depth = -found.least / max(noise, 1e-300)
    if not depth > NEGATIVE_DEPTH:
        return None
    share = 100 * found.negative / max(found.voxels, 1)
    text = (
        f"{share:.2g} % of the values are negative, down to {number(depth)} times the noise below zero: too much "
        "background was taken off. Clipping them would lift weak edges."
    )
    return ResultWarning("negative_values", text, "")
