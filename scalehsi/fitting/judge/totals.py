"""Does the model hold as many counts as the data: over the map, by component, and by region?"""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.result import ResultWarning

TOTAL: Final = 0.05
"""Relative error of the model's total."""
COMPONENT_TOTAL: Final = 0.10
"""The same, each pixel weighted by its abundance of one component."""
REGION_TOTAL: Final = 0.10
"""The same of a region, which must also be significant."""
REGION_SIGMAS: Final = 8.0
THICKNESS_SPREAD: Final = 0.05
"""Range of 90 % of the regions' data over model, relative to the median."""
NORMAL_RANGE: Final = 3.29
"""Range of 90 % of a normal distribution, in standard deviations."""
CERTAIN_RANGE: Final = 1.5
"""The range must be this many times that of noise, which 64 regions give within 11 % (one standard deviation)."""
CANCELLED: Final = 0.5
"""Where negative values cancel this part of the mean spectrum, its total says nothing."""


def totals(evidence: Evidence) -> ResultWarning | None:
    """Warn where the total of the model is not that of the data.

    Thresholds: 5 % over the map; 10 % weighted by the abundance of a component; where abundances do not sum to one
    also 10 % and 8 standard deviations of the counts in one of 8 x 8 regions.

    Measured on 195 clean fits (EDX of 20, 100 and 500 counts, EELS of 2e3 and 2e4, 1 to 5 phases, totals +-30 %,
    weighted and Poisson NMF, PSNMF): 2 alarms, both weighted fits of 20 counts with spectra 58 and 78 degrees wrong.
    """
    if not _readable(evidence):
        return None
    overall = float(evidence.total[1] / evidence.total[0] - 1)
    component, part = _worst_component(evidence)
    region, local = (-1, 0.0) if evidence.simplex else _worst_region(evidence)
    said = []
    if abs(part) > COMPONENT_TOTAL:
        said.append(f"component {component + 1}: {_amount(part)}")
    if abs(local) > REGION_TOTAL:
        said.append(f"around {_centre(evidence, region)}: {_amount(local)}")
    if abs(overall) <= TOTAL and not said:
        return None
    than = f"{_amount(overall)} than" if overall < 1 else f"{overall + 1:.3g} times"
    more = f" ({', '.join(said)})" if said else ""
    text = f"The model holds {than} the data{more}; maps and spectra are off by as much."
    return ResultWarning("totals", text, _remedy(evidence))


def thickness_in_simplex(evidence: Evidence) -> ResultWarning | None:
    """Warn where abundances sum to one although the counts vary over the map.

    Threshold: 90 % of the 8 x 8 regions have data over model within more than 5 % of the median; the range that the
    regions' own noise makes is taken off in quadrature, and must be exceeded by half.

    Measured: wedges of one phase from 1 to 1.2, 1.5, 2, 3 and 4 are found, 2 of 2 each; of one thickness with 3 to 30
    counts a pixel, 16 x 16 pixels, 0 of 30.
    """
    spread = thickness_spread(evidence)
    if not spread > THICKNESS_SPREAD:
        return None
    text = f"Abundances sum to one, but the counts vary by {_percent(spread)}: thickness is not in the model."
    return ResultWarning("thickness_in_simplex", text, _free_totals(evidence))


def thickness_spread(evidence: Evidence) -> float:
    """Range of 90 % of the regions' data over model, relative to the median; 0 where noise alone may make it."""
    if not (evidence.simplex and _readable(evidence)):
        return 0.0
    kept, data, model = _by_region(evidence)
    if kept.sum() < 2:
        return 0.0
    ratio = data[kept] / model[kept]
    noise = _noise(evidence, data[kept]) / model[kept]
    low, middle, high = np.percentile(ratio, [5, 50, 95])
    chance = NORMAL_RANGE * float(np.sqrt(np.mean(noise**2)))
    if not high - low > CERTAIN_RANGE * chance:
        return 0.0
    return float(np.sqrt(max((high - low) ** 2 - chance**2, 0.0)) / max(middle, 1e-300))


def _readable(evidence: Evidence) -> bool:
    """Whether totals can be compared: they are finite, positive, and not the rest of values that cancel."""
    mean, (data, model) = evidence.mean, evidence.total
    whole = bool(np.isfinite(mean).all()) and float(mean.sum()) > CANCELLED * float(np.abs(mean).sum())
    return whole and bool(np.isfinite(model)) and data > 0 and not evidence.signed


def _worst_component(evidence: Evidence) -> tuple[int, float]:
    """Number of the component whose pixels' total is most wrong, and the relative error there."""
    data, model = evidence.component_total
    error = np.where(data > 0, model / np.where(data > 0, data, 1.0) - 1, 0.0)
    error = np.where(np.isfinite(error), error, 0.0)
    return _largest(error)


def _worst_region(evidence: Evidence) -> tuple[int, float]:
    """Number of the region that is most wrong among those where it is significant, and the relative error."""
    kept, data, model = _by_region(evidence)
    if not np.isfinite(evidence.variance_index):
        return -1, 0.0
    # Where the data are empty the model's own counts say what noise would be.
    noise = _noise(evidence, np.maximum(data, model))
    certain = kept & (np.abs(model - data) > REGION_SIGMAS * noise)
    level = float(evidence.total[0]) / max(evidence.pixels, 1) * evidence.regions.pixels
    # A nearly empty region is compared with a hundredth of the mean.
    error = np.where(certain, (model - data) / np.maximum(data, np.maximum(0.01 * level, 1e-300)), 0.0)
    return _largest(error)


def _largest(error: Float) -> tuple[int, float]:
    if not error.size:
        return -1, 0.0
    worst = int(np.argmax(np.abs(error)))
    return worst, float(error[worst])


def _by_region(evidence: Evidence) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Float, Float]:
    """Which regions count, and the totals of data and model in all of them."""
    regions = evidence.regions
    data = regions.data.sum(axis=1)
    model = regions.abundances @ evidence.endmembers.sum(axis=1) + regions.pixels * float(evidence.offset.sum())
    kept = (regions.pixels > 0) & (model > 0) & np.isfinite(data) & np.isfinite(model)
    return kept, np.where(kept, data, 0.0), np.where(kept, model, 0.0)


def _noise(evidence: Evidence, total: Float) -> Float:
    """Standard deviation of a total; 0 where the variance index is not known."""
    return np.asarray(np.sqrt(np.nan_to_num(evidence.variance_index) * np.maximum(total, 0.0)))


def _centre(evidence: Evidence, region: int) -> str:
    """The place of the pixel in the middle of a region."""
    y, x = (1, *evidence.shape)[-2:]
    rows, columns = evidence.regions.shape
    row, column = divmod(region, columns)
    middle = min(int((row + 0.5) * y / rows), y - 1) * x + min(int((column + 0.5) * x / columns), x - 1)
    return evidence.place(middle)


def _amount(error: float) -> str:
    return f"{_percent(abs(error))} {'more' if error > 0 else 'less'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"


def _free_totals(evidence: Evidence) -> str:
    """Abundances of networks always sum to one; those of NMF follow the counts of a pixel."""
    settable = not evidence.settings or "simplex" in evidence.settings
    return "simplex=False" if settable else f"hsi.NMF({len(evidence.endmembers)})"


def _remedy(evidence: Evidence) -> str:
    """Poisson abundances of any total give each pixel its own; costs take a part of it away."""
    if evidence.simplex:
        return _free_totals(evidence)
    if evidence.settings.get("sparsity"):
        return "sparsity=0"
    counts = evidence.dtype.startswith(("u", "i")) and evidence.extremes.negative == 0
    return 'loss="poisson"' if counts and evidence.loss == "frobenius" else ""
