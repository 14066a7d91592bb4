"""Chapter on denoising: the map of an X-ray line as measured and as modelled, and with a truth the errors of both."""

from __future__ import annotations

from functools import partial
from typing import Final

import xarray as xr

from scalehsi import metrics
from scalehsi.cube import check_cube
from scalehsi.metrics.denoising import RAW
from scalehsi.plots.denoised import draw_denoised, element_windows, energy_window, line_label, weakest_line
from scalehsi.plots.digest import Digest
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph, Part, Table
from scalehsi.schema import InputError

ORDER: Final = 80


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The map of a line of all results; None without a cube.

    Raises
    ------
    InputError
        When a line is given without a cube, or the cube does not fit the results.
    """
    cube, truth = context.cube, context.truth
    if cube is None:
        if context.line is not None:
            raise InputError(
                f"line={context.line!r} is drawn from the cube, as measured and as denoised; give cube= too"
            )
        return None
    check_cube(cube)
    window = energy_window(cube, context.line if context.line is not None else weakest_line(cube, view))
    results = context.all_results(view)
    parts: list[Part] = [
        Paragraph(
            "The maps times the spectra are a spectrum image without most of the noise. Below are the counts in a "
            f"window at {window.label} ({window.low:.4g} to {window.high:.4g} {view.energy_unit}), as measured and as "
            "modelled, on one colour scale. They include the continuum under the line."
        )
    ]
    correlations: dict[str, float] = {}
    if truth is not None:
        windows = {**element_windows(cube), window.name: (window.low, window.high)}
        judged = metrics.denoise_report(cube, results, windows=windows, truth=truth)
        here = judged["correlation"].sel(window=window.name)
        correlations = dict(zip(judged["method"].values.tolist(), here.values.tolist(), strict=True))
        parts.append(_table(judged))
    else:
        parts.append(
            Paragraph(
                "This map alone does not show which method is right. To compare them without a truth, fit both halves "
                "of hsi.prepare.thin(cube) and give the results to hsi.metrics.denoise_report."
            )
        )
    drawing = Drawing(
        "denoised.png",
        partial(draw_denoised, cube, results, window, view, truth=truth, correlations=correlations),
        f"Map of {window.label} as measured and as modelled by {', '.join(results)}.",
        "Measured: the counts of each pixel, with their counting noise; values beyond the colour scale are clipped. "
        "The others: the same window of the modelled spectrum of each pixel.",
    )
    return Chapter("denoised", "Effect of denoising", parts, [drawing])


def _table(judged: xr.Dataset) -> Table:
    """Correlation with the truth for each line, and the error of the whole cube; one column for each method."""
    names = judged["method"].values.tolist()
    rows = [
        (line_label(str(name)), *(f"{value:.3f}" for value in judged["correlation"].sel(window=name).values))
        for name in judged["window"].values
    ]
    rows.append(("Whole cube, error", *(f"{100 * value:.1f} %" for value in judged["cube_error"].values)))
    head = ("Correlation with truth", *("measured" if name == RAW else name for name in names))
    return Table(head, rows, numbers=range(1, len(head)))
