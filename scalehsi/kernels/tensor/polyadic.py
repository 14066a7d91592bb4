"""Update of the factors of a canonical polyadic decomposition from the sums of a pass, without the data.

``z = sum c_pk x_p`` (K, n_1, ..., n_d) and ``m = c' c`` (K, K) are those of
`scalehsi.kernels.least_squares.passes.update`. For the abundances of the pass they hold all that the data say about the
factors, so the alternation runs to its end on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.least_squares.endmember_update import least_squares
from scalehsi.kernels.tensor.products import contracted, mode_products

MAX_SWEEPS: Final = 30
TOLERANCE: Final = 1e-6
"""Sweeps end when no factor of unit length changes by more."""
RIDGE: Final = 1e-9
"""Of signed factors, relative to the diagonal: two components may cancel each other."""
LEAST_CORCONDIA: Final = -100.0


def improve(z: Float, m: Float, factors: Sequence[Float], *, signed: bool = False) -> list[Float]:
    """Compute the best factors for the abundances of a pass, by alternating least squares.

    Parameters
    ----------
    z : array, shape (K, n_1, ..., n_d)
    m : array, shape (K, K)
    factors : sequence of arrays, shapes (K, n_i)
        Those of the pass. A component that no pixel uses keeps them.
    signed : bool, default False
        True if factors may be negative.

    Returns
    -------
    list of arrays, shapes (K, n_i)
        Of unit length, but for the last.
    """
    new = [np.array(factor, dtype=np.float64) for factor in factors]
    for _ in range(MAX_SWEEPS):
        before = [unit_rows(factor) for factor in new]
        for mode in range(len(new)):
            gram = m * gram_of([factor for i, factor in enumerate(new) if i != mode])
            right = contracted(z, new, mode)
            new[mode] = _signed(right, gram, new[mode]) if signed else least_squares(right, gram, new[mode])
            if mode < len(new) - 1:
                new[mode] = unit_rows(new[mode])
        moved = max(float(np.abs(unit_rows(a) - b).max()) for a, b in zip(new, before, strict=True))
        if moved <= TOLERANCE:
            break
    return new


def gram_of(factors: Sequence[Float]) -> Float:
    """Gram matrix (K, K) of the outer products of factors (K, n_i); ones without any."""
    found = np.ones((1, 1))
    for factor in factors:
        found = found * (factor @ factor.T)
    return found


def unit_rows(factor: Float) -> Float:
    """Rows of unit length; rows of zeros stay."""
    length = np.linalg.norm(factor, axis=1, keepdims=True)
    return np.asarray(factor / np.where(length > 0, length, 1.0))


def _signed(right: Float, gram: Float, factor: Float) -> Float:
    """Solve ``gram f = right`` (K, n) with a small ridge; components without weight keep their factor."""
    used = np.diag(gram) > 0
    new = factor.copy()
    inner = gram[np.ix_(used, used)]
    if used.any():
        new[used] = np.linalg.solve(inner + RIDGE * np.diag(np.diag(inner)), right[used])
    return new


def corcondia(z: Float, m: Float, factors: Sequence[Float]) -> float:
    """Core consistency in per cent: 100 where the data have no mixed terms between the components.

    The core that fits the sums best would be the identity for the right model; one component too many gives it large
    other elements (Bro and Kiers 2003, doi:10.1002/cem.801).

    Parameters
    ----------
    z, m, factors
        As in `improve`; factors of unit length, at which the pass was made.

    Returns
    -------
    float
        At least -100; 100 for one component.
    """
    k, length = len(m), np.sqrt(np.maximum(np.diag(m), 0.0))
    if not length.all():
        return LEAST_CORCONDIA
    scale = np.outer(length, length)
    inverse = np.linalg.pinv(m / scale, rcond=1e-12) / scale
    inverses: list[Float | None] = [np.asarray(np.linalg.pinv(factor.T)) for factor in factors]
    core = mode_products(np.tensordot(inverse, z, axes=1), inverses)
    core[(np.arange(k),) * core.ndim] -= 1.0
    return max(LEAST_CORCONDIA, 100.0 * (1.0 - float((core**2).sum()) / k))
