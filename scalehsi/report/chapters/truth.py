"""Chapter that compares a result with the truth of simulated data."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from scalehsi.plots.digest import Digest
from scalehsi.plots.truth import draw_comparison, match_components, truth_name
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph, Table

ORDER: Final = 60


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The scores of each component; None without a truth."""
    truth = context.truth_view
    if truth is None:
        return None
    pairs = match_components(view, truth)
    angles = [pair.angle for pair in pairs]
    words = f"Spectral angles to the truth are {np.mean(angles):.2f}° on average and {np.max(angles):.2f}° at most. "
    missing = len(truth.names) - len(pairs)
    if missing:
        words += f"{missing} of the truth's components have no match, as the result has only {len(view.names)}. "
    words += (
        "Maps are compared as shares of each pixel's intensity. The error is the squared error relative to the truth."
    )
    rows = [
        (
            truth_name(truth, pair.truth),
            view.names[pair.estimate],
            f"{pair.angle:.2f}",
            _number(pair.similarity),
            _number(pair.nmse),
        )
        for pair in pairs
    ]
    head = ("Truth", "Component", "Spectral angle (°)", "Correlation of maps", "Error of maps")
    drawing = Drawing(
        "truth.png",
        partial(draw_comparison, view, truth),
        "Spectra and maps of the truth beside those of the result.",
        "Spectra scaled to the same sum; coloured: estimate, black and dashed: truth. Maps: share of each pixel's "
        f"intensity, from 0 (dark) to 1 (bright){f', {view.positions[0]}' if view.positions[0] else ''}.",
    )
    table = Table(head, rows, numbers=(2, 3, 4))
    return Chapter("truth", "Comparison with the truth", [Paragraph(words), table], [drawing])


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "not compared"
