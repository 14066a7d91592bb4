"""Chapter on the quality of the fit: course of the objective, residual map and residual spectrum."""

from __future__ import annotations

from functools import partial
from typing import Final

from scalehsi.plots.digest import Digest
from scalehsi.plots.quality import draw_objective, draw_residual
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph

ORDER: Final = 40


def chapter(view: Digest, context: Context) -> Chapter | None:
    """Objective and residual; None for a result with neither."""
    parts, drawings = [], []
    if view.objective is not None and view.objective.size > 1:
        drawings.append(
            Drawing(
                "objective.png",
                partial(draw_objective, view),
                "Objective against iteration.",
                "The value that the fit minimises, at each iteration. If it falls by orders of magnitude, its distance "
                "from the lowest value is drawn on a logarithmic scale; this choice of zero causes the drop at the "
                "end. At the end of a good fit, a further iteration would change little.",
            )
        )
    else:
        parts.append(
            Paragraph(
                "The result has fewer than two values of the objective, as that of a model without iterations, so its "
                "course is not drawn."
            )
        )
    if view.residual is not None or view.residual_spectrum is not None:
        alt = "Residual map and mean residual spectrum."
        drawings.append(Drawing("residual.png", partial(draw_residual, view), alt, _residual_caption(view)))
    return Chapter("quality", "How good is the fit?", parts, drawings) if drawings else None


def _residual_caption(view: Digest) -> str:
    words = []
    if view.residual is not None:
        words.append(
            "Map: RMS of data minus model in each pixel. The residual of a good fit is noise without structure. "
            "Grains, edges or gradients mean that a phase is missing, or that a spectrum changes across the map."
        )
    if view.relative_residual is not None:
        words.append(
            "The residual in counts is larger where the intensity is higher, even for a perfect fit. In units of "
            "counting noise (second map) a perfect fit of Poisson counts is flat and close to 1; a detector gain only "
            "shifts this level."
        )
    if view.residual_spectrum is not None:
        words.append(
            "Spectrum: mean of the data (top), and mean of data minus model (bottom). The residual of a good fit is "
            "noise around zero. A peak means a missing line or phase; a negative and a positive swing mean a peak that "
            "shifts."
        )
        if view.unsmoothed is not None:
            words.append(
                "The model smoothed its spectra by about the width of a peak, which lowers the tops of lines: swings "
                "of about a percent of a line come from that."
            )
        elif view.loss == "poisson":
            words.append(
                "A converged Poisson fit has no residual in the sum of any channel, so only the map can show a missing "
                "phase. The residual spectrum shows how far the fit was from convergence."
            )
    return " ".join(words)
