"""Drawing of an element's map as measured and as denoised, and the table of how near each comes to the truth."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from scalehsi import metrics
from scalehsi.cube import check_cube
from scalehsi.metrics.denoising import RAW
from scalehsi.plots.denoised import Band, Window, _all_lines, band_of, draw_denoised, weakest
from scalehsi.plots.digest import Digest
from scalehsi.report.page import Chapter, Drawing, paragraph, table


def chapter(
    cube: xr.DataArray,
    results: Mapping[str, xr.Dataset],
    view: Digest,
    *,
    window: Window | None = None,
    truth: xr.Dataset | None = None,
) -> Chapter:
    """The part of the page on denoising: maps of an element, and with a truth how near to it all elements come."""
    check_cube(cube)
    band = band_of(cube, window if window is not None else weakest(cube, view))
    words = (
        "The maps times the spectra are a spectrum image without most of the noise. Below are the counts in a window "
        f"at {band.label} ({band.low:.4g} to {band.high:.4g} {view.energy_unit}), as measured and as modelled, on one "
        "colour scale. The continuum under the line is part of them."
    )
    body, correlations = paragraph(words), {}
    if truth is not None:
        windows = {**_all_lines(cube), band.name: (band.low, band.high)}
        judged = metrics.denoise_report(cube, results, windows=windows, truth=truth)
        here = judged["correlation"].sel(window=band.name)
        correlations = dict(zip(judged["method"].values.tolist(), here.values.tolist(), strict=True))
        body += _table(judged)
    else:
        body += paragraph(
            "Whether they are right cannot be seen from this map alone: fit both halves of hsi.prepare.thin(cube), and "
            "let hsi.metrics.denoise_report judge one by the other."
        )
    drawing = Drawing(
        "denoised",
        "denoised.png",
        draw_denoised(cube, results, band, view, truth=truth, correlations=correlations),
        f"Map of {band.label} as measured and as modelled by {', '.join(results)}.",
        "Measured: every pixel by itself, with its counting noise; values beyond the colour scale are clipped. The "
        "others: the same window of the modelled spectrum of each pixel.",
    )
    return Chapter("denoised", "What denoising brings", body, [drawing])


def _table(judged: xr.Dataset) -> str:
    """Correlations line by line and the error of the cube, a column for each method."""
    names = judged["method"].values.tolist()
    rows = [
        (Band(str(name), 0, 0, slice(0)).label, *(f"{v:.3f}" for v in judged["correlation"].sel(window=name).values))
        for name in judged["window"].values
    ]
    rows.append(("Whole cube, error", *(f"{100 * v:.1f} %" for v in judged["cube_error"].values)))
    head = ("Correlation with truth", *("measured" if name == RAW else name for name in names))
    return table(head, rows, numbers=range(1, len(head)))
