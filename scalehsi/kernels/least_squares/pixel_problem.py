"""The quadratic problem that all pixels of a least-squares pass share: its scaling, and its part for known abundances.

The abundances of a pixel minimise ``1/2 c' G c - b' c`` with ``b = x (s w)' - shift``. If those of F components are
given, the other R = K - F solve the same problem with the given part subtracted: ``b_R - G_RF c_F``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.kernels.quadratic.block_pivoting import ASYMMETRIC, NON_NEGATIVE, SIGNED, SIMPLEX
from scalehsi.kernels.quadratic.nnls import with_ridge

LEAST_DIFFERENCE: Final = 0.01
"""Smallest principal difference of endmembers, relative to their mean, for which float32 leaves less than 1e-6."""


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


def make_problem(s: Any, w: Any, gram: Any, shift: Any, *, simplex: bool, signed: bool = False) -> Problem:
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
    signed : bool, default False
        True if abundances may be negative.

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
    kind = SIGNED if signed else SIMPLEX if simplex else ASYMMETRIC if asymmetric else NON_NEGATIVE
    return Problem(kind, weighted, matrix, linear)


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


class Centred(NamedTuple):
    """Products of a pixel on the simplex that lose nothing in float32.

    Attributes
    ----------
    centre : array, shape (E,)
        Subtracted from the pixel.
    basis : array, shape (D, E)
        Orthonormal in weighted channels, times the roots of the weights; D is K - 1, and 2 at least.
    mixing : array, shape (D, K)
        The right-hand side of the problem is ``b = (x - centre) basis' mixing - shift``.
    shift : array, shape (K,)
    """

    centre: Any
    basis: Any
    mixing: Float
    shift: Float


def centred(problem: Problem, s: Any, w: Any, dtype: Any) -> Centred:
    """Centre the problem of a pixel on the simplex at the mean endmember.

    Where abundances sum to one, only differences of endmembers count, and float32 products with similar spectra would
    make fractions wrong by 5e-5. Those with an orthonormal basis leave 3e-7 (on the scenes of the unmixing benchmark).

    Parameters
    ----------
    problem : Problem
        On the simplex.
    s : array, shape (K, E)
    w : array, shape (E,), or None
    dtype : dtype
        Of the products; float64 in place of float32 for endmembers that are nearly dependent.
    """
    ends = arrays.to_host(s).astype(np.float64)
    root = np.ones(ends.shape[1]) if w is None else np.sqrt(arrays.to_host(w).astype(np.float64))
    flat = np.divide(problem.weighted, root, out=np.zeros(ends.shape), where=root > 0)
    middle = flat.mean(axis=0)
    left, sizes, right = np.linalg.svd(flat - middle, full_matrices=False)
    # Differences from their mean have one direction less; the products take two at least.
    rank = max(len(sizes) - 1, 1)
    if sizes[rank - 1] < LEAST_DIFFERENCE * np.linalg.norm(middle):
        dtype = np.float64
    centre = ends.mean(axis=0).astype(dtype)
    basis, mixing = np.zeros((max(rank, 2), ends.shape[1]), dtype), np.zeros((max(rank, 2), len(ends)))
    basis[:rank] = right[:rank] * root
    mixing[:rank] = (left * sizes).T[:rank]
    return Centred(centre, basis, mixing, problem.shift - problem.weighted @ centre.astype(np.float64))


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
