"""Chapter on the factors of a tensor: what each component does over the frames."""

from __future__ import annotations

from functools import partial
from typing import Final

from scalehsi.plots.digest import Digest
from scalehsi.plots.mode_factors import draw_mode_factors, factor_names
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph
from scalehsi.schema import CORE, RELATIVE_RESIDUAL

ORDER: Final = 22


def chapter(view: Digest, context: Context) -> Chapter | None:
    """Factors of all short modes; None for a result that is no tensor."""
    result = context.result
    names = factor_names(result)
    if not names:
        return None
    dims = [" and ".join(map(str, result[name].dims[1:])) for name in names]
    modes = ", ".join(dims)
    words = [
        f"The stack was factorised as a tensor: spectra and maps are those of all positions along {modes} together, "
        f"and the curves below say how they change along {modes}."
    ]
    if CORE in result:
        words.append(
            "Factors of a Tucker decomposition can be rotated into each other: they compress the data and are no "
            "phases. The spectra above are averages."
        )
    else:
        words.append("The spectra above are those of a component of strength 1. A component is spectrum x map x curve.")
    if RELATIVE_RESIDUAL in result:
        words.append(
            f"The length of the residual is {100 * float(result[RELATIVE_RESIDUAL]):.3g} % of that of the data."
        )
    if "corcondia" in result:
        words.append(
            f"Core consistency: {float(result['corcondia']):.0f} %. Near 100 % the data are a sum of such products; "
            "below 80 % there is a component too many, or maps move."
        )
    drawing = Drawing(
        "mode-factors.png",
        partial(draw_mode_factors, view, result),
        f"Strength of {', '.join(view.names)} along {modes}.",
        "One curve a component, in the colours of the spectra. Its mean is 1, so the amount is in the map."
        if CORE not in result
        else "One curve a factor.",
    )
    return Chapter("mode-factors", f"Changes along {modes}", [Paragraph(" ".join(words))], [drawing])
