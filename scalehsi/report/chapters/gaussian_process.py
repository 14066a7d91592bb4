"""Chapter on maps reconstructed by a Gaussian process: standard deviation, length scales, and borders of tiles."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.plots.digest import Digest, map_scale
from scalehsi.plots.lengthscales import draw_scan
from scalehsi.plots.maps import map_unit
from scalehsi.plots.style import length_text, number_text
from scalehsi.plots.uncertainty import (
    REQUIRED_VARIABLES,
    at_drawn_resolution,
    draw_lengths,
    draw_seam,
    draw_uncertainty,
)
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph, Part, Table
from scalehsi.schema import ABUNDANCES_STD, InputError

ORDER: Final = 110


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The standard deviations and length scales; None for results of other methods.

    Raises
    ------
    InputError
        When a length-scale scan is given for the result of another method.
    """
    result, scan = context.result, context.scan
    if any(name not in result for name in REQUIRED_VARIABLES):
        if scan is not None:
            raise InputError(f"scan= belongs to the report of a ParallelGP, and this result is of {view.model}")
        return None
    deviation = at_drawn_resolution(result[ABUNDANCES_STD], result, view)
    words = (
        "All maps were reconstructed together from noisy maps, as smooth functions of position that share one "
        f"covariance, with a length scale of {_lengths(result)}. Each map has its own noise, and maps of the same "
        "structure improve each other. The standard deviation is the uncertainty of the map at a point if the model is "
        "right. It does not include the noise of a single measurement."
    )
    parts: list[Part] = [Paragraph(words), _table(result, view, deviation)]
    drawings = [
        Drawing(
            "uncertainty.png",
            partial(draw_uncertainty, view, deviation),
            f"Mean, standard deviation and a profile of {', '.join(view.names)}.",
            "Left: mean. Middle: its standard deviation, which is larger where fewer pixels were measured and at the "
            "edges. Right: the middle row, with the band that contains the true value with a probability of 95 %.",
        ),
        Drawing(
            "lengths.png",
            partial(draw_lengths, result),
            "Likelihood of the maps at each length scale of the covariance.",
            "Loss of likelihood with other length scales, equal along y and x. Several minima mean structures of "
            "several sizes; lengthscale=(low, high) selects one of them.",
        ),
    ]
    if scan is not None:
        caption = (
            "Left: length scale of each component for each upper limit. A plateau is a length scale that the component "
            "shows; the dotted line is the limit. Right: likelihood at each length scale, with its minima. "
            f"{scan.attrs.get('advice', '')}".strip()
        )
        alt = "Length scale of each component against its upper limit, and the likelihood."
        drawings.append(Drawing("scan.png", partial(draw_scan, scan), alt, caption))
    if "seam_difference" in result:
        seam = result["seam_difference"]
        largest, mean = float(seam.max()), float(seam.mean())
        parts.append(
            Paragraph(
                f"The maps were computed in tiles with {int(seam.attrs.get('halo', 0))} pixels around each. Around one "
                "corner of four tiles they were computed again as one tile. The largest difference is "
                f"{100 * largest:.2g} % of the standard deviation, the mean one is {100 * mean:.2g} %."
            )
        )
        alt = "Difference of tiled maps from those of one tile, around a corner of four tiles."
        caption = "Lines: borders of the tiles. An error of the tiling would be a step along them."
        drawings.append(Drawing("seams.png", partial(draw_seam, seam), alt, caption))
    return Chapter("gaussian", "Uncertainty of the maps", parts, drawings)


def _lengths(result: xr.Dataset) -> str:
    """The length scales along y and x, in nm where the result has lengths."""
    y, x = (float(value) for value in result["lengthscale"].values)
    if "lengthscale_nm" not in result:
        return f"{y:.3g} pixels along y and {x:.3g} along x"
    y_nm, x_nm = (float(value) for value in result["lengthscale_nm"].values)
    return f"{length_text(y_nm)} along y and {length_text(x_nm)} along x ({y:.3g} and {x:.3g} pixels)"


def _table(result: xr.Dataset, view: Digest, deviation: NumpyArray) -> Table:
    """Noise of a pixel before the reconstruction, and standard deviation (K, ny, nx) of the map after it."""
    rows = []
    for k, (name, scale) in enumerate(zip(view.names, map_scale(view), strict=True)):
        noise = float(result["noise_std"].values[k]) * float(scale)
        after = float(np.nanmedian(deviation[k])) * float(scale)
        factor = f"{noise / after:.1f} times" if after else "-"
        rows.append((name, number_text(noise), number_text(after), factor))
    head = (f"Component ({map_unit(view)})", "Noise of a pixel", "Standard deviation of the map (median)", "Smaller by")
    return Table(head, rows, numbers=range(1, len(head)))
