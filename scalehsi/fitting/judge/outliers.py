"""Warn of single voxels and pixels that stand out; join what the blocks of a map found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Bool, Float, Int
from scalehsi.fitting.judge.channels import has_zero_loss
from scalehsi.fitting.judge.evidence import Bright, Evidence, Extremes, Voxels
from scalehsi.fitting.judge.noise import removed_background, variance_index
from scalehsi.fitting.judge.words import at_energy, number
from scalehsi.kernels.statistics.outlier_loops import CANDIDATE, TOP_VALUES
from scalehsi.kernels.statistics.outliers import BRIGHT, MOST, Outliers, standard_deviations
from scalehsi.result import ResultWarning

SPIKE: Final = 7.0
"""Standard deviations above all predictions: 1e10 voxels of noise give 0.01 of them."""
OWN_SHARE: Final = 0.1
"""Part of a component's squared abundances from which on it may be the spike of its pixel."""
ZERO_LOSS_EV: Final = 10.0
"""Half width of the range around 0 in which spikes are not looked for if it has the zero-loss peak."""
BELOW: Final = 0.5
"""Values within this many standard deviations of the largest are those just below it,"""
LEAST_BELOW: Final = 2.0
"""and within this many single counts."""
HOT_PIXEL: Final = 12.0
"""Standard deviations of a pixel's total above the largest of its neighbours."""
LOOKED_UP: Final = 400
"""Candidates at the borders of blocks whose neighbours are read from the cube, at most."""

Reader = Callable[[Int, Int], Float]


def spike(evidence: Evidence) -> ResultWarning | None:
    """Warn of voxels that are far above all around them, such as cosmic rays.

    Threshold: 7 standard deviations above the largest of three predictions: the same spectrum 4 to 7 channels away, the
    total of the pixel, the neighbouring pixels. Left out are voxels that the model explains by a component that other
    pixels have too (grains of one pixel), hot pixels, and the zero loss, whose shifts look like spikes.

    Planted, 10 maps of 32 x 32 pixels each: 30 standard deviations in EDX of 100 and 500 counts and EELS of 2e3, 20 in
    EELS of 2e4 at gains of 1 and 4.6: all, at the right voxel. Clean: 0 of 190 fits (EDX of 20 to 500 counts, EELS of
    2e3 and 2e4, 1 to 5 components, by weighted least squares, Poisson likelihood and PSNMF).
    """
    phi, spikes = variance_index(evidence), evidence.spikes
    if phi is None or not len(spikes.index):
        return None
    z = spike_strength(evidence, phi)
    hot = np.isin(spikes.index, evidence.bright.index[_hot(evidence, phi)])
    found = np.flatnonzero((z >= SPIKE) & ~hot & ~_in_zero_loss(evidence) & ~_in_a_component(evidence, phi))
    if not len(found):
        return None
    found = found[np.argsort(-z[found], kind="stable")]
    first = found[0]
    where = f"{at_energy(evidence, int(spikes.channel[first]))} at {evidence.place(int(spikes.index[first]))}"
    if len(found) == 1:
        text = f"One value is {number(z[first])} times its noise above all around it: {where}: a cosmic ray"
    else:
        span = f"{number(z[found[-1]])} to {number(z[first])}"
        many = f"At least {len(found)}" if len(found) == MOST else str(len(found))
        text = f"{many} values are {span} times their noise above all around them, most of all {where}: cosmic rays"
    return ResultWarning("spike", f"{text}, which can become a component.", _without(evidence, spikes.index[found]))


def spike_strength(evidence: Evidence, phi: float) -> Float:
    """By how many standard deviations each of the evidence's spikes is above what is expected.

    The model is expected too, if the spike is above 5 standard deviations without it; not where abundances sum to one,
    as the model then lacks the thickness. phi: variance index.
    """
    spikes = evidence.spikes
    z = _above(evidence, phi, spikes.expected)
    return z if evidence.simplex else np.where(z >= CANDIDATE, np.fmax(z, _above(evidence, phi, spikes.model)), z)


def _above(evidence: Evidence, phi: float, expected: Float) -> Float:
    """By how many standard deviations the evidence's spikes are above what is expected. phi: variance index."""
    removed = removed_background(evidence, phi)[evidence.spikes.channel]
    return standard_deviations(evidence.spikes.value, expected, phi, removed)


def _in_a_component(evidence: Evidence, phi: float) -> Bool:
    """Which of the evidence's spikes the model explains, by a component that does not rest on this pixel."""
    spikes = evidence.spikes
    explained = _above(evidence, phi, spikes.model) < SPIKE
    own = evidence.peak_index[spikes.component] == spikes.index
    return np.asarray(explained & ~(own & (evidence.peak_share[spikes.component] > OWN_SHARE)))


def _in_zero_loss(evidence: Evidence) -> Bool:
    """Which of the evidence's spikes are in the zero-loss peak."""
    energy = evidence.energy_ev
    if energy is None or not has_zero_loss(evidence):
        return np.zeros(len(evidence.spikes.index), dtype=bool)
    return np.asarray(np.abs(energy[evidence.spikes.channel]) < ZERO_LOSS_EV)


def hot_pixel(evidence: Evidence) -> ResultWarning | None:
    """Warn of pixels that are much brighter than all their neighbours.

    Threshold: a total of more than 2.3 times the largest of the 4 neighbours', and 12 standard deviations above it.
    What spikes add to a pixel's total is left out.

    Planted, 10 maps each: 3 times as bright all from 100 counts on, 5 times 3 of 10 at 20 counts; twice as bright none.
    Clean: 0 of 190 fits.
    """
    phi, bright = variance_index(evidence), evidence.bright
    found = _hot(evidence, phi) if phi is not None else np.zeros(0, dtype=np.int64)
    if not len(found):
        return None
    first = found[0]
    around = float(bright.neighbour[first])
    bare = around <= 0
    times = (
        "bright beside the empty pixels of" if bare else f"{number(bright.total[first] / around)} times as bright as"
    )
    place = evidence.place(int(bright.index[first]))
    if len(found) == 1:
        text = f"The pixel {place} is {times} its neighbours."
    else:
        many = f"At least {len(found)}" if len(found) == MOST else str(len(found))
        text = f"{many} pixels are much brighter than their neighbours; {place} is {times} its neighbours."
    return ResultWarning("hot_pixel", text, _without(evidence, bright.index[found]))


def _hot(evidence: Evidence, phi: float) -> Int:
    """Rows of the evidence's bright pixels that are hot, the most extreme first. phi: variance index."""
    spikes, bright = evidence.spikes, evidence.bright
    excess = np.where(_above(evidence, phi, spikes.expected) >= SPIKE, spikes.value - spikes.expected, 0.0)
    total = bright.total - np.array([excess[spikes.index == index].sum() for index in bright.index])
    z = standard_deviations(total, bright.neighbour, phi, float(removed_background(evidence, phi).sum()))
    found = np.flatnonzero((total > BRIGHT * bright.neighbour) & (z > HOT_PIXEL))
    return found[np.argsort(-z[found], kind="stable")]


def _without(evidence: Evidence, index: Int) -> str:
    """The command that leaves pixels out."""
    pixels, shape = math.prod(evidence.shape), tuple(map(int, evidence.shape))
    numbers = sorted({int(i) for i in index})
    every = f"np.arange({pixels}).reshape{shape}"
    where = f"{every} != {numbers[0]}" if len(numbers) == 1 else f"~np.isin({every}, {numbers})"
    return f"hsi.prepare.mask(cube, where={where})"


def joined(
    sums: Mapping[str, Any], *, shape: Sequence[int], phi: float = float("nan"), read: Reader | None = None
) -> dict[str, Any]:
    """The largest values, spikes and bright pixels of a map, from those of its blocks.

    Parameters
    ----------
    sums : mapping
        ``judge_outliers``: the list of all blocks' `Outliers`. Without it there is nothing.
    shape : sequence of int
        Sizes of the map's pixel dims.
    phi : float
        Variance index, for the order of the spikes; 1 when it is not known.
    read : callable, optional
        ``read(index, channel)`` returns these voxels of the cube, NaN for pixels that are not in use. Spikes at the
        border of a block are compared with their neighbours in other blocks; without it they are not.

    Returns
    -------
    dict
        ``extremes``, ``spikes`` and ``bright``, of `Evidence`. They are the same for all chunkings, except: spikes, and
        their number, below about 6 standard deviations, as the noise is estimated in each block; and if one block has
        more than 100.
    """
    parts: list[Outliers] = list(sums.get("judge_outliers", ()))
    phi = phi if math.isfinite(phi) and phi > 0 else 1.0
    return {
        "extremes": _extremes(parts, phi),
        "spikes": _spikes(parts, shape, phi, read),
        "bright": _bright(parts, shape),
    }


def _column(parts: Sequence[Outliers], name: str, dtype: str = "d") -> np.ndarray[Any, Any]:
    return np.concatenate([np.zeros(0, dtype=dtype), *(getattr(part, name) for part in parts)]).astype(dtype)


def _extremes(parts: Sequence[Outliers], phi: float) -> Extremes:
    values, place = np.unique(_column(parts, "top_values"), return_inverse=True)
    counts = np.bincount(place, weights=_column(parts, "top_counts"), minlength=len(values)).astype(np.int64)
    values, counts = values[-TOP_VALUES:], counts[-TOP_VALUES:]
    voxels, negative = sum(part.voxels for part in parts), sum(part.negative for part in parts)
    least = min((part.least for part in parts), default=math.inf)
    if not len(values):
        # Nothing is above zero, so that no value is counted.
        return Extremes(0.0, 0, 0, negative, voxels, least)
    largest = float(values[-1])
    span = max(BELOW * math.sqrt(phi * largest), LEAST_BELOW * phi)
    inside = values >= max(largest - span, values[0] if len(values) == TOP_VALUES else 0.0)
    width = largest - float(values[inside][0])
    steps = max(1.0, width / float(np.diff(values[inside]).min())) if width > 0 else 1.0
    return Extremes(largest, int(counts[-1]), int(counts[inside][:-1].sum()), negative, voxels, least, steps)


def _spikes(parts: Sequence[Outliers], shape: Sequence[int], phi: float, read: Reader | None) -> Voxels:
    """shape, phi and read as in `joined`."""
    index, channel = _column(parts, "pixel", "q"), _column(parts, "channel", "q")
    value, expected, model = (_column(parts, name) for name in ("value", "expected", "model"))
    component = _column(parts, "component", "q")
    z = standard_deviations(value, expected, phi)
    number = sum(part.number for part in parts)
    if read is not None and len(index):
        outside = np.concatenate([part.outside for part in parts])
        looked = np.flatnonzero(outside.any(axis=1) & (z >= SPIKE))
        looked = looked[np.argsort(-z[looked], kind="stable")[:LOOKED_UP]]
        row, direction = np.nonzero(outside[looked])
        row = looked[row]
        if len(row):
            beside = read(_step(index[row], direction, shape), channel[row])
            np.fmax.at(expected, row, np.asarray(beside, dtype=np.float64))
            z = standard_deviations(value, expected, phi)
            fell = np.isin(np.arange(len(z)), looked) & (z < CANDIDATE)
            number -= int(fell.sum())
            z[fell] = -np.inf
    order = np.lexsort((channel, index, -z))[:MOST]
    order = order[z[order] > -np.inf]
    return Voxels(index[order], channel[order], value[order], expected[order], model[order], component[order], number)


def _step(index: Int, direction: Int, shape: Sequence[int]) -> Int:
    """The pixel beside each pixel: left, right, above or below."""
    return np.asarray(index + np.array([-1, 1, -shape[-1], shape[-1]])[direction])


def _bright(parts: Sequence[Outliers], shape: Sequence[int]) -> Bright:
    """shape as in `joined`."""
    index, total, around = (_column(parts, f"border_{name}") for name in ("index", "total", "neighbour"))
    index = index.astype(np.int64)
    order = np.argsort(index)
    index, total, around = index[order], total[order], around[order]
    nx, pixels = shape[-1], math.prod(tuple(shape)[-2:])
    x, y = index % nx, index % pixels // nx
    ends = x > 0, x < nx - 1, y > 0, y < pixels // nx - 1
    for direction, inside in enumerate(ends):
        beside = _step(index, np.full(len(index), direction), shape)
        at = np.minimum(np.searchsorted(index, beside), max(len(index) - 1, 0))
        known = inside & (index[at] == beside) if len(index) else inside
        around[known] = np.fmax(around[known], total[at[known]])
    high = (total > BRIGHT * around) & (total > 0) & np.isfinite(around)
    index = np.concatenate([index[high], _column(parts, "bright_index", "q")])
    total = np.concatenate([total[high], _column(parts, "bright_total")])
    around = np.concatenate([around[high], _column(parts, "bright_neighbour")])
    rise = np.sqrt(total) - np.sqrt(np.maximum(around, 0.0))
    order = np.lexsort((index, -rise))[:MOST]
    return Bright(index[order], total[order], around[order])
