"""The loss of ``NMF(loss="auto")``: from the kind of values, their number and their noise, in the first reading.

The likelihood of counts where single counts decide, least squares weighted for counting noise where there are many of
them, plain least squares for everything else.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from scalehsi.fitting.survey import Survey
from scalehsi.models.nmf.settings import Settings

CHOICE: Final = "choice"
"""In the state: the loss that "auto" chose, its weighting and the reason."""
CHOSEN: Final = ("loss", "weighting", "loss_reason")
"""Attributes of a result that say what was minimised, and why."""
MOST_COUNTS: Final = 100.0
"""Counts of a voxel from which weighted least squares are used. Spectra are as good from 8 counts on, at less cost."""
SPARSE: Final = 0.3
"""Values that are not whole numbers are counts in another unit where less than this share of them is not zero."""
SMOOTHED_BELOW: Final = 0.7
"""Values with a smaller variance index are smoothed or correlated: no single counts."""
GAIN_ABOVE: Final = 1.5
"""Values with a larger variance index are no single counts, ..."""
STRUCTURE: Final = 0.15
"""... where this many times the counts of a voxel (at most MOST_STRUCTURE of them) are added for differences between
neighbours that are not noise: grains of 4 pixels raise the index by 0.12 times the counts of a voxel, measured at 8."""
MOST_STRUCTURE: Final = 10.0

WORDS: Final = {
    ("poisson", None): "the Poisson likelihood",
    ("frobenius", "poisson"): "least squares weighted for counting noise",
    ("frobenius", None): "plain least squares",
}


class Choice(NamedTuple):
    """A loss, its weighting, and one sentence that says why."""

    loss: str
    weighting: str | None
    reason: str


def choose(model: Settings, seen: Survey) -> Choice:
    """The loss for a surveyed cube, among those that the other settings allow."""
    loss, weighting, why = _of_data(seen)
    possible, limits = model.possible_losses, ""
    if loss == "poisson" and "poisson" not in possible:
        loss, weighting, limits = "frobenius", "poisson", "need least squares"
    elif loss == "frobenius" and "frobenius" not in possible:
        loss, weighting, limits = "poisson", None, "need the likelihood"
    if weighting and not model.weightable:
        # The likelihood weighs counts by itself.
        loss, weighting, limits = ("poisson" if "poisson" in possible else "frobenius"), None, "forbid weights"
    weighting = model.weighting or weighting
    why += f"; the other settings {limits}" if limits else ""
    return Choice(loss, weighting, f"loss='auto' chose {WORDS[loss, weighting]}: {why}.")


def _of_data(seen: Survey) -> Choice:
    """The loss that suits the data, and why."""
    if seen.negative:
        return Choice("frobenius", None, f"{seen.negative} values are negative")
    phi, mean = seen.variance_index, float(seen.spectrum.sum()) / max(1, seen.filled * len(seen.spectrum))
    noise = "" if math.isnan(phi) else f", variance over mean is {phi:.2f}"
    if not seen.whole and seen.density >= SPARSE:
        return Choice("frobenius", None, "the values are not whole numbers")
    kind = "counts" if seen.whole else "sparse values"
    many = f"{kind}, {mean:.{0 if mean >= 10 else 2}f} a voxel{noise}"
    single = math.isnan(phi) or SMOOTHED_BELOW <= phi <= GAIN_ABOVE + STRUCTURE * min(mean, MOST_STRUCTURE)
    if single and mean < MOST_COUNTS:
        return Choice("poisson", None, many)
    return Choice("frobenius", "poisson", many)
