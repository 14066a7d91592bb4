"""The quadratic problem that all pixels of a least-squares pass share, and the part of it that is left to solve.

A pixel's abundances minimise ``1/2 c' G c - b' c`` with ``b = x (s w)' - shift``. Those of some components may be
given; then the others solve the same problem with what the given ones explain taken from ``b``: ``b_R - G_RF c_F``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.kernels.quadratic.block_pivoting import COUPLED, FREE, SIMPLEX
from scalehsi.kernels.quadratic.nnls import RIDGE


class Problem(NamedTuple):
    """``weighted`` is ``s w`` (K, E), ``gram`` (K, K), ``shift`` (K,); ``kind`` as in `block_pivoting`."""

    kind: int
    weighted: Float
    gram: Float
    shift: Float


class Parts(NamedTuple):
    """A problem in two: R components whose abundances are sought, F whose are given.

    ``order`` (K,) holds the numbers of the components, those sought first. ``sought`` is the problem of the first, but
    its ``weighted`` (K, E) has all rows in that order. ``pull`` (F, R) is what a unit of a given abundance takes from
    ``b``.
    """

    order: Int
    sought: Problem
    pull: Float

    @property
    def back(self) -> Int:
        """Where each component is in ``order``."""
        return np.argsort(self.order)


def make_problem(s: Any, w: Any, gram: Any, shift: Any, *, simplex: bool) -> Problem:
    """The problem of a pass, as the block functions are told of it.

    Parameters
    ----------
    s : array, shape (K, E)
    w : array, shape (E,), or None
    gram : array, shape (K, K), or None
        None for ``s w s'``.
    shift : array, shape (K,), or None
    simplex : bool

    Raises
    ------
    ValueError
        For the simplex with a matrix that is not symmetric.
    """
    # In float64: rounded to float32, the Gram matrix of similar spectra is no longer positive, and Cholesky makes NaN.
    ends = arrays.to_host(s).astype(np.float64)
    weighted = ends if w is None else ends * arrays.to_host(w)
    matrix = weighted @ ends.T if gram is None else arrays.to_host(gram).astype(np.float64)
    coupled = not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0)
    if simplex and coupled:
        raise ValueError("a matrix that is not symmetric has no solution on the simplex")
    linear = np.zeros(len(ends)) if shift is None else arrays.to_host(shift).astype(np.float64)
    return Problem(SIMPLEX if simplex else COUPLED if coupled else FREE, weighted, matrix, linear)


def scaled(problem: Problem, known: Sequence[int] | Int | None = None) -> tuple[Problem, Float]:
    """In units in which every component has length one, so that tolerances mean the same for all; and the lengths.

    On the simplex abundances have a unit of their own, so there it is the loss that is scaled. So have those that are
    given, and keep it: their sums are then the same bits whatever the endmembers are.
    """
    length = np.sqrt(np.diag(problem.gram))
    unit = np.where(length > 0, length, 1.0)
    unit[np.array([] if known is None else known, dtype=np.int64)] = 1.0
    if problem.kind == SIMPLEX:
        unit = np.full_like(unit, length.max(initial=0.0) or 1.0)
    gram = problem.gram / np.outer(unit, unit)
    safe = gram + np.diag(np.where(np.diag(gram) > 0, RIDGE * np.diag(gram), 1.0))
    if problem.kind == SIMPLEX:
        one = float(unit[0])
        made = problem._replace(weighted=problem.weighted / one**2, gram=safe, shift=problem.shift / one**2)
        return made, np.ones_like(unit)
    return problem._replace(weighted=problem.weighted / unit[:, None], gram=safe, shift=problem.shift / unit), unit


def parted(problem: Problem, known: Sequence[int] | Int | None) -> Parts:
    """Take the components whose abundances are given out of a problem.

    Parameters
    ----------
    problem : Problem
    known : sequence of int, or None
        Numbers of the components whose abundances are given.

    Raises
    ------
    ValueError
        On the simplex, where what is left of the sum differs from pixel to pixel.

    Examples
    --------
    >>> parts = parted(make_problem(np.eye(3), None, None, None, simplex=False), [1])
    >>> parts.order.tolist(), parts.sought.gram.shape, parts.pull.shape
    ([0, 2, 1], (2, 2), (1, 2))
    """
    given = np.array([] if known is None else known, dtype=np.int64)
    if given.size and problem.kind == SIMPLEX:
        raise ValueError("on the simplex the abundances of all components are sought")
    free = np.setdiff1d(np.arange(len(problem.gram)), given)
    order = np.concatenate([free, given])
    rest = problem._replace(
        weighted=np.ascontiguousarray(problem.weighted[order]),
        gram=np.ascontiguousarray(problem.gram[np.ix_(free, free)]),
        shift=np.ascontiguousarray(problem.shift[free]),
    )
    return Parts(order, rest, np.ascontiguousarray(problem.gram[np.ix_(free, given)].T))
