"""Poisson NMF over a block of counts: solve the abundances, accumulate the sums, update the endmembers."""

from scalehsi.kernels.poisson.passes import (
    MIN_ENDMEMBER,
    NEWTON_FLOOR,
    STRIP_PIXELS,
    abundances,
    improve,
    improve_multiplicative,
    objective,
    update,
    update_from,
)

__all__ = [
    "MIN_ENDMEMBER",
    "NEWTON_FLOOR",
    "STRIP_PIXELS",
    "abundances",
    "improve",
    "improve_multiplicative",
    "objective",
    "update",
    "update_from",
]
