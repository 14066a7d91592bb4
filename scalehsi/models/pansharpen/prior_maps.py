"""Prior maps of the fine pixels from the coarse acquisition, and the weight of this prior.

The maps of the coarse acquisition are interpolated by splines with the same means over footprints
(`scalehsi.kernels.resampling.footprints`), which are evaluated block by block. The detail of a panchromatic image
within
the footprints is added with the local slope of the coarse map against the image, as far as the fine pixels confirm it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.kernels.priors.prior_maps import (
    abundances_of_counts,
    abundances_of_intensities,
    weights_of_counts,
    weights_of_intensities,
)
from scalehsi.kernels.resampling.footprints import spline_at, spline_of_means
from scalehsi.models.pansharpen.overview import Sample
from scalehsi.registration.rasters import Pair
from scalehsi.schema import COMPONENT, X, Y

EDGE_PIXELS: Final = 0.5
"""The prior extends this many coarse pixels beyond the edge of the field."""
REGRESSION_WIDTH: Final = 1.5
"""Standard deviation in coarse pixels of the window in which a map is compared with an image."""
LEAST_VARIANCE: Final = 1e-2
"""Variance of an image within the window, relative to its total variance, below which its slopes are damped."""
LARGEST_IMAGE_GAIN: Final = 2.0
"""Largest factor of the detail of an image."""


class Guess(NamedTuple):
    """Prior of the abundances of fine pixels, stored as splines of the coarse maps.

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
        """The prior (P, K) of pixels at rows ``i`` and columns ``j``; NaN outside the coarse field.

        ``detail`` (P,) is the detail of the image.
        """
        y, x = self.places(i, j)
        rows, columns = self.coefficients.shape[:2]
        edge = 0.5 + EDGE_PIXELS
        inside = (y >= -edge) & (y <= rows - 1 + edge) & (x >= -edge) & (x <= columns - 1 + edge)
        found = spline_at(self.coefficients, y, x)
        if self.slopes is not None and detail is not None:
            found += spline_at(self.slopes, y, x) * np.asarray(detail, dtype=np.float64).reshape(-1, 1)
        return np.where(inside[:, None], np.maximum(found, 0.0), np.nan)

    def places(self, i: np.ndarray[Any, Any], j: np.ndarray[Any, Any]) -> tuple[Float, Float]:
        """Positions of fine pixels in units of coarse pixels."""
        (ay, by), (ax, bx) = self.pixels
        return ay + by * i, ax + bx * j

    def upsampled(self, grid: Sequence[tuple[int, ...]], detail: xr.DataArray | None = None) -> xr.DataArray:
        """The prior of all fine pixels, (y, x, component) float32: lazy, with chunks of these sizes along y and x."""
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
    """The prior from coarse maps (rows, columns, K); NaN pixels are filled from their neighbours."""
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
    """Maps with NaN pixels replaced by a Gaussian average of their neighbours, wider where there are none."""
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
    """Local slopes of coarse maps against a coarse image, (rows, columns, K).

    Parameters
    ----------
    maps : array, shape (rows, columns, K)
    image : array, shape (rows, columns)
        Means over the footprints; NaN outside the image.
    """
    there = np.isfinite(image) & np.isfinite(maps).all(axis=-1)
    if not there.any():
        return np.zeros(maps.shape)
    weight = there.astype(np.float64)
    seen = np.where(there, image, 0.0)

    def around(values: Float) -> Float:
        return np.asarray(gaussian_filter(values, REGRESSION_WIDTH, mode="constant", axes=(0, 1)))

    level = np.maximum(around(weight), 1e-9)
    mean = around(seen) / level
    variance = around(seen**2) / level - mean**2
    known = np.where(there[..., None], np.nan_to_num(maps), 0.0)
    both = around(known * seen[..., None]) / level[..., None] - (around(known) / level[..., None]) * mean[..., None]
    floor = LEAST_VARIANCE * float(np.var(image[there])) + 1e-300
    return np.asarray(both / (np.maximum(variance, 0.0) + floor)[..., None])


def trusted(guess: Guess, slopes: Float, seen: Sample, detail: Float, *, back: Float) -> Float:
    """Factors (K,) of the image detail from a sample of fine pixels: 1 like the coarse maps, 0 without relation.

    guess: the prior without the image. slopes: of the coarse maps. seen: the sample. detail: of the image at the
    sample.
    back: unmixing matrix (E, K).
    """
    plain = guess._replace(slopes=None).at(seen.rows, seen.columns)
    inside = np.isfinite(plain).all(axis=1)
    added = spline_at(slopes, *guess.places(seen.rows, seen.columns)) * np.asarray(detail, dtype=np.float64)[:, None]
    left = seen.values @ back - plain
    above, below = (left * added)[inside].sum(axis=0), np.square(added)[inside].sum(axis=0)
    return np.clip(np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0), 0.0, LARGEST_IMAGE_GAIN)


def worth(guess: Guess, seen: Sample, detail: Float | None, *, s: Float, counts: bool) -> Float:
    """Weights (K,) of the prior from a sample of fine pixels; zero where the sample is outside the coarse field.

    guess: the prior. seen: the sample. detail: of the image at the sample. s: endmembers. counts: Poisson likelihood.
    """
    at = guess.at(seen.rows, seen.columns, detail)
    inside = np.isfinite(at).all(axis=1)
    if inside.sum() < 2 * len(s):
        return np.zeros(len(s))
    estimate = weights_of_counts if counts else weights_of_intensities
    return estimate(seen.values[inside], at[inside], s=s)[0]


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
    """The last pass over a block of the fine cube: abundances with the prior (P, K), and their residual.

    x: pixels. guess: the prior. s: endmembers (K, F) on the channels of the cube. counts: Poisson likelihood. weight:
    of the prior (K,). to_axis: rebins a spectrum to the axis of the result. residual: also the residual.
    """
    solve = abundances_of_counts if counts else abundances_of_intensities
    c = solve(x, guess, s=s, weight=weight)
    if not residual:
        return {"abundances": c}, {}
    left, sums = residual_of_block(x, c, s=s)
    spectrum = sums["residual_spectrum"]
    return {"abundances": c, **left}, {"residual_spectrum": spectrum if to_axis is None else to_axis(spectrum)}
