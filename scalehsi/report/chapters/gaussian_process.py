"""Drawing of maps that a Gaussian process reconstructed: how sure they are, at which lengths, and without seams."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.plots.digest import Digest
from scalehsi.plots.lengthscales import draw_scan
from scalehsi.plots.uncertainty import NEEDED, _drawn, draw_lengths, draw_seam, draw_uncertainty
from scalehsi.report.page import Chapter, Drawing, paragraph, table
from scalehsi.schema import ABUNDANCES_STD, InputError


def chapter(result: xr.Dataset, view: Digest, scan: xr.Dataset | None = None) -> Chapter | None:
    """The part of the page on a Gaussian process; None for other results. `scan` is that of its lengths."""
    if any(name not in result for name in NEEDED):
        if scan is not None:
            raise InputError(f"scan= belongs to the report of a ParallelGP, and this result is of {view.model}")
        return None
    deviation = _drawn(result[ABUNDANCES_STD], result, view)
    y, x = (float(v) for v in result["lengthscale"].values)
    nm = [float(v) for v in result["lengthscale_nm"].values] if "lengthscale_nm" in result else None
    lengths = (
        f"{nm[0]:.3g} nm along y and {nm[1]:.3g} nm along x ({y:.3g} and {x:.3g} pixels)"
        if nm
        else (f"{y:.3g} pixels along y and {x:.3g} along x")
    )
    words = (
        "All maps were reconstructed together from noisy ones, as smooth functions of the place that share one "
        f"covariance: values stay alike over {lengths}. Each map has its own noise, and maps of the same structure "
        "help each other. The standard deviation says how far the map may be wrong at a point if the model is right; "
        "it holds none of the noise of a single measurement."
    )
    drawings = [
        Drawing(
            "gaussian",
            "uncertainty.png",
            draw_uncertainty(view, deviation),
            f"Mean, standard deviation and a profile of {', '.join(view.names)}.",
            "Left: the mean. Middle: its standard deviation, larger where less was measured and at the edges. Right: "
            "the row through the middle, with the band that holds the true value with a probability of 95 %.",
        ),
        Drawing(
            "gaussian",
            "lengths.png",
            draw_lengths(result),
            "Likelihood of the maps at each length of the covariance.",
            "How much less likely the measured maps are with another length, the same along y and x. Several valleys "
            "mean structures of several sizes: set lengthscale=(low, high) around the one that is wanted.",
        ),
    ]
    body = paragraph(words) + _table(result, view, deviation)
    if scan is not None:
        drawings.append(
            Drawing(
                "gaussian",
                "scan.png",
                draw_scan(scan),
                "Length scale of each component against its upper limit, and the likelihood behind it.",
                "Left: the length that each component ends at when it may not be longer than the limit; a plateau is a "
                "length that it shows, the dotted line the limit itself. Right: the likelihood at each length, with "
                f"its basins. {scan.attrs.get('advice', '')}".strip(),
            )
        )
    if "seam_difference" in result:
        seam = result["seam_difference"]
        worst, mean = float(seam.max()), float(seam.mean())
        body += paragraph(
            f"The maps were made tile by tile, each with {int(seam.attrs.get('halo', 0))} pixels around it. Around one "
            "corner where four tiles meet they were made again as one tile: the largest difference is "
            f"{100 * worst:.2g} % of the standard deviation, the mean one {100 * mean:.2g} %."
        )
        drawings.append(
            Drawing(
                "gaussian",
                "seams.png",
                draw_seam(seam),
                "Difference of tiled maps from those of one tile, around a corner of tiles.",
                "Lines: borders of the tiles. A seam would show as a step along them.",
            )
        )
    return Chapter("gaussian", "How sure are the maps?", body, drawings)


def _table(result: xr.Dataset, view: Digest, deviation: NumpyArray) -> str:
    """Noise of a pixel before, and deviation of the map after."""
    rows = []
    for k, name in enumerate(view.names):
        noise = float(result["noise_std"].values[k])
        after = float(np.nanmedian(deviation[k]))
        rows.append((name, f"{noise:.3g}", f"{after:.3g}", f"{noise / after:.1f}" if after else "-"))
    head = ("Component", "Noise of a pixel", "Standard deviation of the map (median)", "Smaller by")
    return table(head, rows, numbers=range(1, len(head)))
