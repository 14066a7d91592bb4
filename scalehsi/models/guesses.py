"""What a coarse acquisition says of each fine pixel, and how much that is worth.

The maps of the coarse acquisition become smooth maps with the same means over footprints
(`scalehsi.kernels.grids`), in which each fine pixel is looked up: nothing of the size of the fine map is made. With
a panchromatic image the detail that it has within footprints is added, by as much as the coarse map follows the image
around there, and as the fine pixels bear out.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from scalehsi.kernels import informed
from scalehsi.kernels.classic import leftover
from scalehsi.kernels.grids import spline_at, spline_of_means
from scalehsi.models.rasters import Pair

Float = np.ndarray[Any, np.dtype[np.float64]]

BEYOND: Final = 0.5
"""So many coarse pixels beyond the edge of the field a guess is still made."""
AROUND: Final = 1.5
"""Standard deviation in coarse pixels of the window in which a map is compared with an image."""
FLAT: Final = 1e-2
"""Variance of an image within the window, relative to all of it, below which it tells nothing."""
TRUST: Final = 2.0
"""Detail of an image is not raised beyond this."""


class Guess(NamedTuple):
    """A guess of the abundances of fine pixels; small, picklable, and looked up by pixel number.

    Attributes
    ----------
    coefficients : array, shape (rows, columns, K)
        Of the splines of the coarse maps.
    pixels : ((float, float), (float, float))
        For y and x: fine pixel i is coarse pixel ``a + b i``.
    columns : int
        Of the fine map.
    slopes : array, shape (rows, columns, K), or None
        Abundance for a unit of the image's detail, at coarse pixels.
    """

    coefficients: Float
    pixels: tuple[Pair, Pair]
    columns: int
    slopes: Float | None = None

    def at(self, numbers: np.ndarray[Any, Any], detail: Float | None = None) -> Float:
        """The guess for pixels of these row-major numbers, (P, K); NaN beyond the coarse field.

        ``detail`` (P,) is that of the image.
        """
        (ay, by), (ax, bx) = self.pixels
        y, x = ay + by * (numbers // self.columns), ax + bx * (numbers % self.columns)
        rows, columns = self.coefficients.shape[:2]
        edge = 0.5 + BEYOND
        inside = (y >= -edge) & (y <= rows - 1 + edge) & (x >= -edge) & (x <= columns - 1 + edge)
        found = spline_at(self.coefficients, y, x)
        if self.slopes is not None and detail is not None:
            found += spline_at(self.slopes, y, x) * np.asarray(detail, dtype=np.float64).reshape(-1, 1)
        return np.where(inside[:, None], np.maximum(found, 0.0), np.nan)


def make_guess(maps: Float, pixels: tuple[Pair, Pair], columns: int, slopes: Float | None = None) -> Guess:
    """A guess from coarse maps (rows, columns, K); pixels of NaN are filled from those around."""
    return Guess(spline_of_means(filled_in(maps)), pixels, columns, slopes)


def filled_in(maps: Float) -> Float:
    """Maps whose pixels of NaN have the mean of what lies around, wider where nothing does."""
    there = np.isfinite(maps).all(axis=-1)
    if there.all() or not there.any():
        return np.nan_to_num(maps)
    found, width = np.where(there[..., None], np.nan_to_num(maps), 0.0), 1.0
    missing = ~there
    while missing.any():
        level = gaussian_filter(there.astype(np.float64), width, mode="constant")
        near = gaussian_filter(np.where(there[..., None], maps, 0.0), width, mode="constant", axes=(0, 1))
        reached = missing & (level > 1e-6)
        found[reached] = near[reached] / level[reached][:, None]
        missing &= ~reached
        width *= 2
    return found


def slopes_of(maps: Float, image: Float) -> Float:
    """How coarse maps follow a coarse image around each pixel: slopes of local regressions, (rows, columns, K).

    Parameters
    ----------
    maps : array, shape (rows, columns, K)
    image : array, shape (rows, columns)
        Means over the footprints; NaN where there is none.
    """
    there = np.isfinite(image) & np.isfinite(maps).all(axis=-1)
    if not there.any():
        return np.zeros(maps.shape)
    weight = there.astype(np.float64)
    seen = np.where(there, image, 0.0)

    def around(values: Float) -> Float:
        return np.asarray(gaussian_filter(values, AROUND, mode="constant", axes=(0, 1)))

    level = np.maximum(around(weight), 1e-9)
    mean = around(seen) / level
    variance = around(seen**2) / level - mean**2
    known = np.where(there[..., None], np.nan_to_num(maps), 0.0)
    both = around(known * seen[..., None]) / level[..., None] - (around(known) / level[..., None]) * mean[..., None]
    floor = FLAT * float(np.var(image[there])) + 1e-300
    return np.asarray(both / (np.maximum(variance, 0.0) + floor)[..., None])


def trusted(guess: Guess, x: Float, numbers: Any, detail: Float, *, back: Float) -> Float:
    """Factors (K,) by which a sample of fine pixels follows the detail of the image: 1 as the coarse maps, 0 not."""
    assert guess.slopes is not None
    plain = guess._replace(slopes=None).at(numbers)
    inside = np.isfinite(plain).all(axis=1)
    (ay, by), (ax, bx) = guess.pixels
    y, x_ = ay + by * (numbers // guess.columns), ax + bx * (numbers % guess.columns)
    added = spline_at(guess.slopes, y, x_) * np.asarray(detail, dtype=np.float64).reshape(-1, 1)
    left = x @ back - plain
    above, below = (left * added)[inside].sum(axis=0), np.square(added)[inside].sum(axis=0)
    return np.clip(np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0), 0.0, TRUST)


def worth(guess: Guess, x: Float, numbers: Any, detail: Float | None, *, s: Float, counts: bool) -> Float:
    """Weights (K,) of a guess, from a sample of fine pixels; nothing where none of them has one."""
    at = guess.at(numbers, detail)
    inside = np.isfinite(at).all(axis=1)
    if inside.sum() < 2 * len(s):
        return np.zeros(len(s))
    tell = informed.weights_of_counts if counts else informed.weights_of_squares
    return tell(np.asarray(x[inside], dtype=np.float64), at[inside], s=s)[0]


def sharpened(
    x: Any,
    detail: Any = None,
    *,
    tile: Any,
    s: Float,
    channels: slice,
    counts: bool,
    guess: Guess | None,
    weight: Float | None,
    to_axis: Any = None,
    residual: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block of the fine cube: abundances with the guess, and what they leave.

    ``s`` (K, E) has the channels of the slice; ``to_axis`` brings a spectrum of them to the axis of the result.
    """
    own = x[:, channels]
    at = None if guess is None else guess.at(tile.index, None if detail is None else detail[:, 0])
    solve = informed.from_counts if counts else informed.from_values
    c = solve(own, at, s=s, weight=weight)
    if not residual:
        return {"abundances": c}, {}
    left, sums = leftover(own, c, s=s)
    spectrum = sums["residual_spectrum"]
    return {"abundances": c, **left}, {"residual_spectrum": spectrum if to_axis is None else to_axis(spectrum)}
