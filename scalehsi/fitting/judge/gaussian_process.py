"""Judge a Gaussian process of maps: lengths at the end of their interval, noise that looks like structure, small maps.

The arguments are small arrays along y and x, in pixels. An axis of one pixel has no length and stays out.

Rates were measured on draws of "matern52" with white noise. Clean: 24 fits of 1 to 4 maps of 28 x 28 and 32 x 32
pixels, lengths 2.5 to 6, noise 0.1 to 1 of the signal: no warning of any kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from scalehsi.result import ResultWarning

NEAR_AN_END: Final = 0.03
"""Relative distance from an end of the interval up to which a length sits at it."""
NOISE_LENGTH_PIXELS: Final = 1.0
"""Up to this length structure varies from pixel to pixel, as noise does."""
LEAST_GAIN_NATS: Final = 15.0
LEAST_PATCHES: Final = 4.0
"""Squares of one length by one length that the maps must hold."""
LEAST_PIXELS: Final = 50
"""Measured pixels of a map."""

Interval = tuple[float, float]


def judge(
    lengths: Sequence[float],
    bounds: Sequence[Interval] | None,
    shape: tuple[int, int],
    *,
    frames: int,
    pixels: Sequence[int],
    gain: float,
) -> list[ResultWarning]:
    """All warnings of a fit; lengths of maps without structure mean nothing, and are not judged.

    lengths, bounds, shape: as in `length_at_bound`. frames, pixels: as in `maps_too_small`. gain: as in
    `noise_not_identifiable`.
    """
    noise = noise_not_identifiable(lengths, shape, gain)
    small = maps_too_small(lengths, shape, frames, pixels, structure=gain >= LEAST_GAIN_NATS)
    bound = length_at_bound(lengths, bounds, shape) if gain >= LEAST_GAIN_NATS else None
    return [found for found in (small, bound, noise) if found is not None]


def length_at_bound(
    lengths: Sequence[float], bounds: Sequence[Interval] | None, shape: tuple[int, int]
) -> ResultWarning | None:
    """A length that ended at an end of the interval that the user gave.

    Threshold: within 3 % of an end. An interval narrower than 6 % fixes the length, which is not blamed; neither are
    the default ends, where `noise_not_identifiable` and `maps_too_small` say more. Found: length 6 in (10, 11) 8 of 8,
    length 8 in (1, 3) 8 of 8; clean 0 of 24.

    Parameters
    ----------
    lengths : sequence of float
        Along y and x.
    bounds : ((low, high), (low, high)) or None
        Along y and x; None where no interval was given.
    shape : (int, int)
        Pixels of the maps along y and x.
    """
    ended, wider = [], []
    for length, (low, high), size in zip(lengths, bounds or (), shape, strict=False):
        if size < 2 or high * (1 - NEAR_AN_END) <= low * (1 + NEAR_AN_END):
            continue
        below, above = length <= low * (1 + NEAR_AN_END), length >= high * (1 - NEAR_AN_END)
        if below or above:
            ended.append(f"{length:.3g}, the end of ({low:g}, {high:g})")
        # No length is below half a pixel or longer than the maps.
        reach = max(float(size), high)
        wider.append((max(0.5, low / 10) if below else low, min((5 if above else 2) * high, reach)))
    if not ended:
        return None
    which = ended[0] if len(set(ended)) == 1 else " and ".join(ended)
    least, most = min(low for low, _ in wider), max(high for _, high in wider)
    text = f"The length ended at {which} pixels: the interval decided it, not the maps."
    helps = least < min(low for low, _ in bounds or ()) or most > max(high for _, high in bounds or ())
    return ResultWarning("length_at_bound", text, f"lengthscale=({least:.3g}, {most:.3g})" if helps else "")


def noise_not_identifiable(lengths: Sequence[float], shape: tuple[int, int], gain: float) -> ResultWarning | None:
    """A length of a pixel or less, or no structure at all: what varies from pixel to pixel may be noise or structure.

    Thresholds: the geometric mean of the lengths up to 1 pixel; a gain below 15 nats, as noise alone gains some, with
    lengths that mean nothing. Found: length 0.5 8 of 8, white noise 8 of 8 (it gains up to 10 nats); clean 0 of 24
    (lengths from 2.4, gains from 93 nats).

    Parameters
    ----------
    lengths, shape
        As in `length_at_bound`.
    gain : float
        Logarithm of the evidence above that of noise alone, in nats.
    """
    if gain < LEAST_GAIN_NATS:
        text = (
            f"Structure makes the maps only exp({max(gain, 0.0):.1f}) times as likely as noise alone does, and exp(15) "
            "would be clear: noise and structure look alike; do not use the deviation."
        )
        return ResultWarning("noise_not_identifiable", text, "")
    used = [length for length, size in zip(lengths, shape, strict=True) if size > 1]
    mean = math.prod(used) ** (1 / len(used)) if used else math.inf
    if mean > NOISE_LENGTH_PIXELS:
        return None
    text = f"Length {mean:.2g} pixels: noise and structure look alike; do not use the deviation."
    return ResultWarning("noise_not_identifiable", text, f"lengthscale=(2, {max(2, min(20, *shape_sides(shape)))})")


def maps_too_small(
    lengths: Sequence[float], shape: tuple[int, int], frames: int, pixels: Sequence[int], *, structure: bool = True
) -> ResultWarning | None:
    """Maps with too few pixels, or too few lengths along their sides, for noise and lengths to be known.

    Thresholds: fewer than 50 measured pixels in a map; an area, in lengths along y times lengths along x, below 4.
    Found: length 30 in 24 x 24 pixels 8 of 8, 5 x 5 pixels 8 of 8; clean 0 of 24.

    Parameters
    ----------
    lengths, shape
        As in `length_at_bound`.
    frames : int
        Frames of maps (time, tilt) that the fit read; their areas add up.
    pixels : sequence of int
        Measured pixels of each map in the fit.
    structure : bool
        False where the lengths mean nothing.
    """
    counts = np.asarray(pixels)
    few = np.flatnonzero(counts < LEAST_PIXELS)
    if few.size == counts.size:
        text = f"The maps have {int(counts.max())} measured pixels, fewer than {LEAST_PIXELS}"
        return ResultWarning("maps_too_small", f"{text}: noise and deviations are a guess.", "")
    if few.size:
        which = ", ".join(f"{k + 1} ({int(counts[k])} pixels)" for k in few)
        text = f"Fewer than {LEAST_PIXELS} pixels were measured in component {which}: its noise is a guess."
        return ResultWarning("maps_too_small", text, "")
    if not structure:
        return None
    patches = float(frames) * math.prod(n / length for length, n in zip(lengths, shape, strict=True) if n > 1)
    if patches >= LEAST_PATCHES:
        return None
    text = (
        f"The maps hold only {patches:.2g} squares of one length ({lengths[0]:.3g} x {lengths[1]:.3g} pixels), fewer "
        f"than {LEAST_PATCHES:.0f}: their length and mean are not determined."
    )
    return ResultWarning("maps_too_small", text, f"lengthscale=(1, {max(2.0, min(shape_sides(shape)) / 4):.3g})")


def shape_sides(shape: tuple[int, int]) -> list[int]:
    """Sides of maps that are longer than a pixel; a side of one pixel where there are none."""
    return [n for n in shape if n > 1] or [1]
