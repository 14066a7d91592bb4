"""What a coarse acquisition says of each fine pixel, and how much that is worth.

The maps of the coarse acquisition become smooth maps with the same means over footprints
(`scalehsi.kernels.resampling.footprints`), in which fine pixels are looked up block by block. With a panchromatic
image the detail that
it has within footprints is added, by as much as the coarse map follows the image around there, and as the fine pixels
bear out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.pixel_rows.residual import leftover
from scalehsi.kernels.priors.prior_maps import from_counts, from_values, weights_of_counts, weights_of_squares
from scalehsi.kernels.resampling.footprints import spline_at, spline_of_means
from scalehsi.models.pansharpen.overview import Sample
from scalehsi.registration.rasters import Pair
from scalehsi.schema import COMPONENT, X, Y

BEYOND: Final = 0.5
"""So many coarse pixels beyond the edge of the field a guess is still made."""
AROUND: Final = 1.5
"""Standard deviation in coarse pixels of the window in which a map is compared with an image."""
FLAT: Final = 1e-2
"""Variance of an image within the window, relative to all of it, below which it tells nothing."""
TRUST: Final = 2.0
"""Detail of an image is not raised beyond this."""


class Guess(NamedTuple):
    """A guess of the abundances of fine pixels: small, as it is made of coarse ones.

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
    slopes: Float | None = None

    def at(self, i: np.ndarray[Any, Any], j: np.ndarray[Any, Any], detail: Float | None = None) -> Float:
        """The guess for pixels (P,) of these rows and columns, (P, K); NaN beyond the coarse field.

        ``detail`` (P,) is that of the image.
        """
        y, x = self.places(i, j)
        rows, columns = self.coefficients.shape[:2]
        edge = 0.5 + BEYOND
        inside = (y >= -edge) & (y <= rows - 1 + edge) & (x >= -edge) & (x <= columns - 1 + edge)
        found = spline_at(self.coefficients, y, x)
        if self.slopes is not None and detail is not None:
            found += spline_at(self.slopes, y, x) * np.asarray(detail, dtype=np.float64).reshape(-1, 1)
        return np.where(inside[:, None], np.maximum(found, 0.0), np.nan)

    def places(self, i: np.ndarray[Any, Any], j: np.ndarray[Any, Any]) -> tuple[Float, Float]:
        """Where fine pixels lie, in coarse ones."""
        (ay, by), (ax, bx) = self.pixels
        return ay + by * i, ax + bx * j

    def upsampled(self, grid: Sequence[tuple[int, ...]], detail: xr.DataArray | None = None) -> xr.DataArray:
        """The guess of all fine pixels, (y, x, component) float32: lazy, in chunks of these sizes along y and x."""
        chunks = dict(zip((Y, X), grid, strict=True))
        i, j = (xr.DataArray(np.arange(sum(chunks[d])), dims=(d,)).chunk({d: chunks[d]}) for d in (Y, X))
        with_image = detail is not None and self.slopes is not None
        more = [detail.chunk(chunks)] if detail is not None and with_image else []
        coarse = [self.coefficients, self.slopes] if with_image else [self.coefficients]
        cores = ["coarse_y", "coarse_x", COMPONENT]
        found: xr.DataArray = xr.apply_ufunc(
            partial(_block, self.pixels),
            i,
            j,
            *more,
            *[xr.DataArray(values, dims=cores).chunk() for values in coarse],
            input_core_dims=[[]] * (2 + len(more)) + [cores] * len(coarse),
            output_core_dims=[[COMPONENT]],
            dask="parallelized",
            output_dtypes=[np.float32],
        )
        return found


def make_guess(maps: Float, pixels: tuple[Pair, Pair], slopes: Float | None = None) -> Guess:
    """A guess from coarse maps (rows, columns, K); pixels of NaN are filled from those around."""
    return Guess(spline_of_means(filled_in(maps)), pixels, slopes)


def _block(pixels: tuple[Pair, Pair], i: Any, j: Any, *given: Any) -> Any:
    """A block of the upsampled guess (h, w, K), of its rows (h, 1), its columns (w,) and, with an image, detail."""
    shape = np.broadcast_shapes(i.shape, j.shape)
    rows, columns = (np.broadcast_to(each, shape).ravel() for each in (i, j))
    if len(given) == 1:
        found = Guess(given[0], pixels).at(rows, columns)
    else:
        found = Guess(given[1], pixels, given[2]).at(rows, columns, np.broadcast_to(given[0], shape).ravel())
    return found.reshape(*shape, -1).astype(np.float32)


def filled_in(maps: Float) -> Float:
    """Maps whose pixels of NaN have the mean of what lies around, wider where nothing does."""
    there: Bool = np.asarray(np.isfinite(maps).all(axis=-1))
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


def trusted(guess: Guess, slopes: Float, seen: Sample, detail: Float, *, back: Float) -> Float:
    """Factors (K,) by which a sample of fine pixels follows the detail of the image: 1 as the coarse maps, 0 not."""
    plain = guess._replace(slopes=None).at(seen.rows, seen.columns)
    inside = np.isfinite(plain).all(axis=1)
    added = spline_at(slopes, *guess.places(seen.rows, seen.columns)) * np.asarray(detail, dtype=np.float64)[:, None]
    left = seen.values @ back - plain
    above, below = (left * added)[inside].sum(axis=0), np.square(added)[inside].sum(axis=0)
    return np.clip(np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0), 0.0, TRUST)


def worth(guess: Guess, seen: Sample, detail: Float | None, *, s: Float, counts: bool) -> Float:
    """Weights (K,) of a guess, from a sample of fine pixels; nothing where none of them has one."""
    at = guess.at(seen.rows, seen.columns, detail)
    inside = np.isfinite(at).all(axis=1)
    if inside.sum() < 2 * len(s):
        return np.zeros(len(s))
    tell = weights_of_counts if counts else weights_of_squares
    return tell(seen.values[inside], at[inside], s=s)[0]


def sharpened(
    x: Any,
    guess: Any = None,
    *,
    s: Float,
    counts: bool,
    weight: Float | None,
    to_axis: Any = None,
    residual: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block of the fine cube: abundances with the guess (P, K), and what they leave.

    ``s`` (K, F) has the channels of the cube; ``to_axis`` brings a spectrum of them to the axis of the result.
    """
    solve = from_counts if counts else from_values
    c = solve(x, guess, s=s, weight=weight)
    if not residual:
        return {"abundances": c}, {}
    left, sums = leftover(x, c, s=s)
    spectrum = sums["residual_spectrum"]
    return {"abundances": c, **left}, {"residual_spectrum": spectrum if to_axis is None else to_axis(spectrum)}
