"""Chapter on the bin size of PSNMF: prediction of held-out counts for each size, and the choice."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.plots.bins import bin_scan_in, draw_bins
from scalehsi.plots.digest import Digest
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph

ORDER: Final = 90


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The scan of bin sizes; None for a result without one."""
    result = context.result
    if "bin_score" not in result or result.sizes["bin"] < 2:
        return None
    scan = bin_scan_in(result)
    words = (
        "A single pixel has too few counts for the estimation of spectra, so neighbouring pixels were added up in "
        "bins. Spectra are noisy in small bins, and phases mix in large ones. The size was chosen without the truth: "
        "the counts were divided at random into two halves, and the spectra of one half predicted the other. "
        f"{_choice(scan)}{_refinement(result)} The maps are of single pixels."
    )
    drawing = Drawing(
        "bins.png",
        partial(draw_bins, scan),
        "Score of each bin size, and the angle between spectra from both halves of the counts.",
        "Left: prediction of held-out counts by bins of each size, below the best; bars are standard errors. The used "
        "size is shaded. Right: largest angle between the spectra of both halves of the counts, a measure of their "
        "noise. The spectra of this report, from all counts, have less noise.",
    )
    return Chapter("bins", "How large should the bins be?", [Paragraph(words)], [drawing])


def _choice(scan: xr.Dataset) -> str:
    """Which bin sizes were compared, and which one was used."""
    size = scan.attrs.get("chosen")
    if size is None:
        return ""
    tried = ", ".join(f"{int(b)}" for b in scan["bin"].values)
    best = int(scan["bin"].values[int(np.argmax(scan["score"].values))])
    words = f"Of bins with sides of {tried} pixels, {best} predicted best"
    if best == size:
        return f"{words} and was used."
    return f"{words}. {size} was used, the middle of the sizes that are equally good within the error."


def _refinement(result: xr.Dataset) -> str:
    """The bins on which the spectra were refined; empty if they were not."""
    if "fine_bin_factor" not in result:
        return ""
    rows, columns = (int(side) for side in result["fine_bin_factor"].values.flat[:2])
    if rows == columns == 1:
        return " The spectra were then refined on single pixels, which have enough counts for that."
    return f" The spectra were then refined on bins of {rows} × {columns} pixels, most of which are assumed to be pure."
