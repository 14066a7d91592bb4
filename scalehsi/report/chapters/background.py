"""Chapter on edges and their backgrounds, of BackgroundNMF."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from scalehsi.plots.background import draw_background
from scalehsi.plots.digest import Digest
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph
from scalehsi.schema import ENDMEMBERS, ENERGY_UNITS

ORDER: Final = 25


def chapter(view: Digest, context: Context) -> Chapter | None:
    """Edges and backgrounds; None for a result without a background."""
    result = context.result
    if view.background is None or "edge_share" not in result:
        return None
    said = result[ENDMEMBERS].attrs
    start, onset = float(said["window_start_ev"]), float(said["onset_ev"])
    exponents, shares = (np.asarray(result[name].values) for name in ("exponent", "edge_share"))
    listed = [f"{name} {r:.2f}" for name, r in zip(view.names, exponents, strict=True) if np.isfinite(r)]
    words = (
        "The cube was unmixed with its background: each component is an edge, which is zero up to the onset, on a "
        f"background that falls as power laws do, fitted from {start:.4g} to {onset:.4g} eV in all pixels together. "
        f"Mean exponents: {', '.join(listed)}. The spectra above are the edges alone."
    )
    unit = ENERGY_UNITS.get(view.energy_unit, 1.0)
    drawing = Drawing(
        "background.png",
        partial(draw_background, view, window=(start / unit, onset / unit), shares=shares),
        f"Spectra of {', '.join(view.names)} as edges on their backgrounds.",
        "Dashed: background. Coloured area: edge. Shaded: the window in which the backgrounds were fitted. A component "
        "whose edge is below 2 % of its signal has none.",
    )
    return Chapter("background", "Edges and their backgrounds", [Paragraph(words)], [drawing])
