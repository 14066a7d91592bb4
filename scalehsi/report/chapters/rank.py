"""Chapter on the number of components: eigenvalues and Malinowski's indicator."""

from __future__ import annotations

from functools import partial
from typing import Final

from scalehsi.plots.digest import Digest
from scalehsi.plots.quality import draw_scree
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing

ORDER: Final = 50


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The eigenvalues; None for a result without them."""
    if view.eigenvalues is None:
        return None
    drawing = Drawing(
        "scree.png",
        partial(draw_scree, view),
        "Eigenvalues and Malinowski's indicator against the number of components.",
        "Left: variance along each principal axis. Components with signal are above the straight line of the noise, "
        "and the bend gives their number. Right: Malinowski's indicator, whose minimum is an estimate of that number. "
        "The components in this result are shaded.",
    )
    return Chapter("rank", "How many components?", [], [drawing])
