"""Update of a Tucker decomposition from the sums of a pass, without the data.

Letters as in `scalehsi.kernels.tensor.products`; r_i is the rank of short mode i, R that of the pixels. The spectra of
pixel component j are ``w_j = g_j x u_1 x ... x u_d`` with a core g (R, r_1, ..., r_d) and factors u_i (r_i, n_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.sparse.linalg import eigsh

from scalehsi.arrays import Float
from scalehsi.kernels.least_squares.endmember_update import least_squares
from scalehsi.kernels.tensor.products import mode_products, unfolded

MAX_SWEEPS: Final = 100
TOLERANCE: Final = 1e-10
"""Sweeps of orthogonal iteration end when the squared length of the core grows by less, relative to itself."""
ROUNDS: Final = 5
"""Of the factors and the core of a non-negative decomposition, for each pass."""
DENSE_SIZE: Final = 256
CORE_STEPS: Final = 30
"""Accelerated gradient steps of the core in a round."""


def spectra(core: Float, factors: Sequence[Float]) -> Float:
    """Spectra of the pixel components, shape (R, n_1 ... n_d).

    core (R, r_1, ..., r_d), factors (r_i, n_i).
    """
    return mode_products(core, [factor.T for factor in factors]).reshape(len(core), -1)


def leading(matrix: Float, rank: int) -> Float:
    """The strongest left singular vectors of a matrix (n, L), as rows (rank, n).

    From the smaller of both Gram matrices; large ones by Lanczos iterations from a fixed start.
    """
    if matrix.shape[1] < matrix.shape[0]:
        return np.asarray(np.linalg.svd(matrix, full_matrices=False)[0][:, :rank].T)
    gram = matrix @ matrix.T
    if len(gram) <= max(DENSE_SIZE, 4 * rank):
        return np.asarray(np.linalg.eigh(gram)[1][:, ::-1][:, :rank].T)
    values, vectors = eigsh(gram, k=rank, v0=np.ones(len(gram)))
    return np.asarray(vectors[:, np.argsort(-values)].T)


def orthogonal(z: Float, q: Float, factors: Sequence[Float]) -> tuple[Float, list[Float]]:
    """Higher-order orthogonal iteration of the data projected on the subspace of the pixels.

    Parameters
    ----------
    z : array, shape (R, n_1, ..., n_d)
        ``sum_p q_p x_p`` of the pass, with ``q_p`` the projection of a pixel on the spectra.
    q : array, shape (R, R)
        ``sum_p q_p q_p'``.
    factors : sequence of arrays, shapes (r_i, n_i)
        Where to start; orthonormal rows.

    Returns
    -------
    core : array, shape (R, r_1, ..., r_d)
        In rows of falling length, which are orthogonal; its squared length is that of the projected data.
    factors : list of arrays, shapes (r_i, n_i)
        With orthonormal rows.
    """
    values, vectors = np.linalg.eigh((q + q.T) / 2)
    root = np.where(values > 1e-12 * max(values.max(), 1e-300), 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
    small = np.tensordot((vectors * root) @ vectors.T, z, axes=1)
    new, power = list(factors), -1.0
    for _ in range(MAX_SWEEPS):
        for mode, factor in enumerate(new):
            others = [None if i == mode else each for i, each in enumerate(new)]
            rows = unfolded(mode_products(small, others), mode + 1)
            new[mode] = leading(rows, len(factor))
        core = mode_products(small, new)
        grown, power = float((core**2).sum()) - power, float((core**2).sum())
        if grown <= TOLERANCE * power:
            break
    left = leading(unfolded(core, 0), len(core))
    return np.tensordot(left, core, axes=1), new


def orthonormal(core: Float) -> Float:
    """A core whose rows are orthonormal and span those of a core (R, r_1, ..., r_d) with orthogonal rows."""
    rows = unfolded(core, 0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if (length <= 1e-12 * max(float(length.max(initial=0.0)), 1e-300)).any():
        rows = np.linalg.qr(rows.T)[0].T
        return np.asarray(rows.reshape(core.shape))
    return np.asarray((rows / length).reshape(core.shape))


def non_negative(z: Float, m: Float, core: Float, factors: Sequence[Float]) -> tuple[Float, list[Float]]:
    """Better core and factors, all non-negative, for the abundances of a pass.

    Each factor is solved exactly for the others, the core by accelerated gradients (Beck and Teboulle 2009,
    doi:10.1137/080716542).

    Parameters
    ----------
    z : array, shape (R, n_1, ..., n_d)
    m : array, shape (R, R)
        Sums of the pass, as for `scalehsi.kernels.tensor.polyadic.improve`.
    core : array, shape (R, r_1, ..., r_d)
    factors : sequence of arrays, shapes (r_i, n_i)

    Returns
    -------
    core : array, shape (R, r_1, ..., r_d)
    factors : list of arrays, shapes (r_i, n_i)
    """
    new = [np.array(factor, dtype=np.float64) for factor in factors]
    for _ in range(ROUNDS):
        for mode, factor in enumerate(new):
            others = [None if i == mode else each for i, each in enumerate(new)]
            base = mode_products(core, [None if each is None else each.T for each in others])
            rows = unfolded(base, mode + 1)
            mixed = unfolded(np.tensordot(m, base, axes=1), mode + 1)
            new[mode] = least_squares(rows @ unfolded(z, mode + 1).T, mixed @ rows.T, factor)
        core = _core(mode_products(z, new), m, [factor @ factor.T for factor in new], core)
    return core, new


def _core(right: Float, m: Float, grams: Sequence[Float], core: Float) -> Float:
    """Minimise ``1/2 <g, m g grams> - <right, g>`` over ``g >= 0`` from a core (R, r_1, ..., r_d).

    right: as the core. m (R, R) and grams (r_i, r_i): matrices of its modes.
    """
    power = float(np.linalg.eigvalsh(m)[-1]) * float(np.prod([np.linalg.eigvalsh(gram)[-1] for gram in grams]))
    if power <= 0:
        return core
    new, extrapolated, momentum = core, core, 1.0
    for _ in range(CORE_STEPS):
        gradient = np.tensordot(m, mode_products(extrapolated, list(grams)), axes=1) - right
        step = np.maximum(extrapolated - gradient / power, 0.0)
        if float((gradient * (step - new)).sum()) > 0:  # against the last step: restart
            extrapolated, momentum = new, 1.0
            gradient = np.tensordot(m, mode_products(new, list(grams)), axes=1) - right
            step = np.maximum(new - gradient / power, 0.0)
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        extrapolated = step + (momentum - 1) / following * (step - new)
        new, momentum = step, following
    return new
