"""Convergence: spectra that still turn while the objective is flat."""

from __future__ import annotations

import math

from scalehsi.fitting.turning import LARGEST_TURN_DEG, TURN_ITERATIONS
from scalehsi.result import ResultWarning
from scalehsi.schema import Status

MORE_ITERATIONS = 4
"""The remedy is this many times the limit."""


def still_turning(turn: float, status: Status, *, flat: bool, max_iter: int) -> ResultWarning | None:
    """A fit that met its iteration limit with a flat objective, and endmembers that still turn.

    Warns above 0.03 degrees in five iterations.

    Parameters
    ----------
    turn : float
        Largest turn of an endmember in the last five iterations, in degrees; NaN or infinity where it is not known.
    status : str
        How the fit ended.
    flat : bool
        Whether the gain of the objective is below the tolerance.
    max_iter : int
        The limit.

    Examples
    --------
    >>> still_turning(0.41, "max_iter", flat=True, max_iter=200)
    ResultWarning(code='still_turning', text='The objective is flat, but spectra still turn by 0.4 degrees in 5 \
iterations.', remedy='max_iter=800')
    >>> still_turning(0.41, "converged", flat=True, max_iter=200)
    """
    if status != "max_iter" or not flat or not math.isfinite(turn) or turn <= LARGEST_TURN_DEG:
        return None
    return ResultWarning(
        "still_turning",
        f"The objective is flat, but spectra still turn by {turn:.1g} degrees in {TURN_ITERATIONS} iterations.",
        f"max_iter={MORE_ITERATIONS * max_iter}",
    )
