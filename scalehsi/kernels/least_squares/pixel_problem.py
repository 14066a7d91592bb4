"""The quadratic problem that all pixels of a least-squares pass share: its scaling, and its part for known abundances.

The abundances of a pixel minimise ``1/2 c' G c - b' c`` with ``b = x (s w)' - shift``. If those of F components are
given, the other R = K - F solve the same problem with the given part subtracted: ``b_R - G_RF c_F``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.kernels.quadratic.block_pivoting import ASYMMETRIC, NON_NEGATIVE, SIMPLEX
from scalehsi.kernels.quadratic.nnls import with_ridge


class Problem(NamedTuple):
    """Problem of a pixel: kind (see `block_pivoting`), weighted (K, E) = ``s w``, gram (K, K), shift (K,)."""

    kind: int
    weighted: Float
    gram: Float
    shift: Float


class SplitProblem(NamedTuple):
    """Problem split into R components with unknown abundances and F with given ones.

    Attributes
    ----------
    order : array of int, shape (K,)
        Numbers of the components, the unknown ones first.
    unknown : Problem
        Problem of the unknown components, except that ``weighted`` (K, E) has the rows of all, in that order.
    known_gram : array, shape (F, R)
        Rows of the Gram matrix: ``b`` decreases by these for a unit of a given abundance.
    """

    order: Int
    unknown: Problem
    known_gram: Float

    @property
    def inverse_order(self) -> Int:
        """Position of each component in ``order``."""
        return np.argsort(self.order)


def make_problem(s: Any, w: Any, gram: Any, shift: Any, *, simplex: bool) -> Problem:
    """Assemble the problem of a pass from the arguments of the block functions.

    Parameters
    ----------
    s : array, shape (K, E)
    w : array, shape (E,), or None
        Weight of each channel; None for ones.
    gram : array, shape (K, K), or None
        None for ``s w s'``.
    shift : array, shape (K,), or None
        Linear cost of the abundances; None for zeros.
    simplex : bool
        True if the abundances of a pixel sum to one.

    Raises
    ------
    ValueError
        For the simplex with a matrix that is not symmetric.
    """
    # float64: rounded to float32, the Gram matrix of similar spectra may be indefinite, and Cholesky would return NaN.
    ends = arrays.to_host(s).astype(np.float64)
    weighted = ends if w is None else ends * arrays.to_host(w)
    matrix = weighted @ ends.T if gram is None else arrays.to_host(gram).astype(np.float64)
    asymmetric = not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0)
    if simplex and asymmetric:
        raise ValueError("a matrix that is not symmetric has no solution on the simplex")
    linear = np.zeros(len(ends)) if shift is None else arrays.to_host(shift).astype(np.float64)
    return Problem(SIMPLEX if simplex else ASYMMETRIC if asymmetric else NON_NEGATIVE, weighted, matrix, linear)


def scaled(problem: Problem, known: Sequence[int] | Int | None = None) -> tuple[Problem, Float]:
    """Scale every component to unit length, so that one tolerance suits all; also returns the lengths (K,).

    On the simplex the unit of abundances is fixed, so the loss is scaled instead. The unit of given abundances is also
    fixed: their sums are then the same bits for all endmembers.

    Parameters
    ----------
    problem : Problem
    known : sequence of int, or None
        Numbers of the components whose abundances are given.
    """
    length = np.sqrt(np.diag(problem.gram))
    unit = np.where(length > 0, length, 1.0)
    unit[np.array([] if known is None else known, dtype=np.int64)] = 1.0
    if problem.kind == SIMPLEX:
        unit = np.full_like(unit, length.max(initial=0.0) or 1.0)
    safe = with_ridge(problem.gram / np.outer(unit, unit))
    if problem.kind == SIMPLEX:
        one = float(unit[0])
        scaled_loss = problem._replace(weighted=problem.weighted / one**2, gram=safe, shift=problem.shift / one**2)
        return scaled_loss, np.ones_like(unit)
    return problem._replace(weighted=problem.weighted / unit[:, None], gram=safe, shift=problem.shift / unit), unit


def split_known(problem: Problem, known: Sequence[int] | Int | None) -> SplitProblem:
    """Split off the components whose abundances are given.

    Parameters
    ----------
    problem : Problem
    known : sequence of int, or None
        Numbers of the components whose abundances are given.

    Raises
    ------
    ValueError
        On the simplex, where the sum of the unknown abundances differs between pixels.

    Examples
    --------
    >>> parts = split_known(make_problem(np.eye(3), None, None, None, simplex=False), [1])
    >>> parts.order.tolist(), parts.unknown.gram.shape, parts.known_gram.shape
    ([0, 2, 1], (2, 2), (1, 2))
    """
    given = np.array([] if known is None else known, dtype=np.int64)
    if given.size and problem.kind == SIMPLEX:
        raise ValueError("on the simplex the abundances of all components are solved together; none can be given")
    free = np.setdiff1d(np.arange(len(problem.gram)), given)
    order = np.concatenate([free, given])
    unknown = problem._replace(
        weighted=np.ascontiguousarray(problem.weighted[order]),
        gram=np.ascontiguousarray(problem.gram[np.ix_(free, free)]),
        shift=np.ascontiguousarray(problem.shift[free]),
    )
    return SplitProblem(order, unknown, np.ascontiguousarray(problem.gram[np.ix_(free, given)].T))
