"""Products of the factors of a tensor: one for each short mode, such as frames and energies.

Letters: K components, n_i size of short mode i, d short modes. A component's spectra are the outer product of its
factors, one number for each frame and energy; they are flattened to a row of ``n_1 ... n_d`` channels, as the kernels
of matrices take them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scalehsi.arrays import Float


def outer(factors: Sequence[Float]) -> Float:
    """Flattened outer products of the rows of all factors.

    Parameters
    ----------
    factors : sequence of arrays, shapes (K, n_i)

    Returns
    -------
    array, shape (K, n_1 ... n_d)

    Examples
    --------
    >>> outer([np.array([[1.0, 2.0]]), np.array([[1.0, 10.0]])]).tolist()
    [[1.0, 10.0, 2.0, 20.0]]
    """
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, :, None] * factor[:, None, :]).reshape(len(found), -1)
    return found


def contracted(z: Float, factors: Sequence[Float], mode: int) -> Float:
    """Contract the sums of each component with its own factors, in all modes but one.

    Parameters
    ----------
    z : array, shape (K, n_1, ..., n_d)
    factors : sequence of arrays, shapes (K, n_i)
    mode : int
        The mode that stays.

    Returns
    -------
    array, shape (K, n_mode)
    """
    for axis in reversed(range(len(factors))):
        if axis != mode:
            z = np.einsum("k...i,ki->k...", np.moveaxis(z, axis + 1, -1), factors[axis])
    return z


def mode_products(z: Float, matrices: Sequence[Float | None]) -> Float:
    """Multiply each short mode of a tensor by a matrix.

    Parameters
    ----------
    z : array, shape (K, n_1, ..., n_d)
    matrices : sequence of arrays, shapes (r_i, n_i), or None
        None leaves the mode as it is.

    Returns
    -------
    array, shape (K, r_1, ..., r_d)
    """
    for axis, matrix in enumerate(matrices, start=1):
        if matrix is not None:
            z = np.moveaxis(np.moveaxis(z, axis, -1) @ matrix.T, -1, axis)
    return z


def unfolded(z: Float, axis: int) -> Float:
    """The tensor as a matrix whose rows run along one axis."""
    return np.asarray(np.moveaxis(z, axis, 0).reshape(z.shape[axis], -1))
