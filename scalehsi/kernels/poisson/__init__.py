"""Poisson NMF over a block of counts: solve the pixels, sum what the endmembers need, improve the endmembers."""

from scalehsi.kernels.poisson.passes import (
    FLOOR,
    STRIP,
    TINY,
    abundances,
    improve,
    improve_multiplicative,
    objective,
    update,
    update_from,
)

__all__ = [
    "FLOOR",
    "STRIP",
    "TINY",
    "abundances",
    "improve",
    "improve_multiplicative",
    "objective",
    "update",
    "update_from",
]
