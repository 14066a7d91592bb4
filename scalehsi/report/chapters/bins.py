"""Drawing of a scan of bins: how well each size predicts counts that were held out, and how far its spectra vary."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from scalehsi.plots.bins import draw_bins, scan_of
from scalehsi.report.page import Chapter, Drawing, paragraph


def chapter(result: xr.Dataset) -> Chapter | None:
    """The part of the page on the bins; None where no sizes were compared."""
    if "bin_score" not in result or result.sizes["bin"] < 2:
        return None
    scan = scan_of(result)
    fine = "" if "fine_bin_factor" not in result else _fine_words(np.asarray(result["fine_bin_factor"].values))
    words = (
        "One pixel holds too few counts to find spectra by, so neighbours were added up in bins: in small bins "
        "spectra are noisy, in large ones phases mix. How large they should be was decided without knowing the truth: "
        "the counts were divided at random in two halves, and the spectra of one half had to predict the other. "
        f"{_choice(scan)}{fine} The maps are of single pixels."
    )
    drawing = Drawing(
        "bins",
        "bins.png",
        draw_bins(scan),
        "Score of each size of bins, and the angle between spectra found in both halves of the counts.",
        "Left: how well bins of each size predict counts that were held out, below the best; bars are standard errors. "
        "The shaded size was used. Right: largest angle between the spectra that both halves of the counts give, a "
        "measure of noise: with half of the counts, so the spectra of this report vary less.",
    )
    return Chapter("bins", "How large should the bins be?", paragraph(words), [drawing])


def _choice(scan: xr.Dataset) -> str:
    size = scan.attrs.get("chosen")
    if size is None:
        return ""
    tried = ", ".join(f"{int(b)}" for b in scan["bin"].values)
    best = int(scan["bin"].values[int(np.argmax(scan["score"].values))])
    words = f"Of sides of {tried} pixels, {best} did best."
    if best == size:
        return words.replace("did best", "did best and was used")
    return f"{words} {size} was used: the middle of those that are as good within the error."


def _fine_words(sides: Any) -> str:
    rows, columns = (int(side) for side in np.asarray(sides).flat[:2])
    if rows == columns == 1:
        return " The spectra were then refined on single pixels, which hold enough counts for it."
    return f" The spectra were then refined on bins of {rows} × {columns} pixels, under the rule that most are pure."
