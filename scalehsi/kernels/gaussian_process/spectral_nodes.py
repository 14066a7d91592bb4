"""Likelihood of maps with a common spatial covariance: best signal covariance B and noise D from grouped eigenvalues.

In the eigenvectors of the spatial covariance, with eigenvalues ``g``, the rotated maps ``z`` are independent with
covariance ``g B + D``. Similar eigenvalues are grouped at some 200 nodes, with weights that are linear in ``log g``
between two nodes, so that the likelihood stays smooth. It needs only the number of directions ``n_b`` and the sum
``S_b = sum z z'`` of each node, at any number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy

from scalehsi.arrays import Float

NODE_COUNT: Final = 200
SMALLEST_EIGENVALUE: Final = 1e-7
"""Relative to the largest. Smaller eigenvalues share the last node, as they are noise alone."""
MIN_NOISE_VARIANCE: Final = 1e-6
"""Of a map, relative to its variance."""
MAX_DESCENTS: Final = 5
RESTART_GAIN_NATS: Final = 0.01
"""The descent is restarted until it gains less than this."""


def group_eigenvalues(g: Float, z: Sequence[Float]) -> tuple[Float, Float, Float]:
    """Group directions of similar eigenvalue at nodes: numbers (b,), eigenvalues (b,), sums of products (b, T, T).

    Parameters
    ----------
    g : array
        Eigenvalues of the spatial covariance, one for each direction.
    z : sequence of arrays, shape (T, ...)
        Maps in these directions, in the order of ``g``; one array for each tile.
    """
    g = g.reshape(-1)
    maps = z[0].shape[0]
    top = float(g.max())
    g = np.maximum(g, SMALLEST_EIGENVALUE * top)
    low, high = np.log(float(g.min())), np.log(top)
    count = NODE_COUNT if high > low else 1
    step = (high - low) / max(1, count - 1)
    position = (np.log(g) - low) / step if step > 0 else np.zeros_like(g)
    left = np.minimum(position.astype(np.int64), max(0, count - 2))
    right_weight = np.clip(position - left, 0.0, 1.0) if count > 1 else np.zeros_like(g)
    numbers = np.bincount(left, weights=1 - right_weight, minlength=count)
    sums = np.zeros((count, maps, maps))
    flat = [tile.reshape(maps, -1) for tile in z]
    if count > 1:
        numbers += np.bincount(left + 1, weights=right_weight, minlength=count)
    for i in range(maps):
        for j in range(i + 1):
            product = np.sum([tile[i] * tile[j] for tile in flat], axis=0)
            found = np.bincount(left, weights=product * (1 - right_weight), minlength=count)
            if count > 1:
                found += np.bincount(left + 1, weights=product * right_weight, minlength=count)
            sums[:, i, j] = sums[:, j, i] = found
    used = numbers > 1e-9
    values = np.exp(low + step * np.arange(count))
    return np.asarray(len(z) * numbers[used], dtype=np.float64), values[used], sums[used]


def fit_signal_and_noise(numbers: Float, g: Float, sums: Float, *, rank: int) -> tuple[float, Float, Float]:
    """Find the best B (T, T) and D (T,) for grouped eigenvalues; the negative log likelihood comes first.

    L and w are optimised directly, as their logarithms would lose a weak map. D is optimised by its logarithm: beside
    a map with next to no noise, whose slope by D is a million times the others, a descent would end tens of nats too
    high.

    Parameters
    ----------
    numbers, g, sums
        As `group_eigenvalues` returns them.
    rank : int
        Columns of L in ``B = L L' + diag(w)``.
    """
    maps = sums.shape[1]
    total = float(numbers.sum())
    variance = np.maximum(np.einsum("bii->i", sums) / total, 1e-12)
    # The directions of the smallest eigenvalues show the noise.
    tail = numbers * (g <= np.quantile(g, 0.5))
    start_noise = np.clip(
        np.einsum("bii,b->i", sums, (tail > 0).astype(float)) / max(float(tail.sum()), 1.0), 1e-5, 1.0
    )
    weight = g * numbers / float((g * numbers).sum())
    start_signal = np.clip(variance - start_noise, 0.05, None) / max(float((numbers * g).sum() / total), 1e-12)
    factor = np.zeros((maps, rank))
    covariance = np.einsum("bij,b->ij", sums, weight / np.maximum(numbers, 1e-300) / g)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    for r in range(rank):
        factor[:, r] = vectors[:, -1 - r] * np.sqrt(max(float(values[-1 - r]), 0.1 * float(start_signal.mean())))
    x = np.concatenate([factor.ravel(), 0.3 * start_signal, np.log(start_noise)])
    n_l, diagonal = maps * rank, np.arange(maps)

    def loss(x: Float) -> tuple[float, Float]:
        big_l, w, d = x[:n_l].reshape(maps, rank), x[n_l : n_l + maps], np.exp(x[n_l + maps :])
        # In the common eigenvectors of B and D, D^-1/2 B D^-1/2 = U s U', all nodes are diagonal.
        root = np.sqrt(d)
        s, u = np.linalg.eigh((big_l @ big_l.T + np.diag(w)) / np.outer(root, root))
        to_independent = u / root[:, None]
        h = 1.0 / (1.0 + np.outer(g, np.maximum(s, 0.0)))
        product = to_independent.T @ sums @ to_independent
        value = 0.5 * float(numbers @ (np.log(d).sum() - np.log(h).sum(axis=1)) + np.einsum("bii,bi->", product, h))
        gamma = -0.5 * (h[:, :, None] * h[:, None, :]) * product
        gamma[:, diagonal, diagonal] += 0.5 * numbers[:, None] * h
        by_b = to_independent @ np.tensordot(g, gamma, axes=1) @ to_independent.T
        by_d = np.diag(to_independent @ gamma.sum(axis=0) @ to_independent.T)
        return value, np.concatenate([(2 * by_b @ big_l).ravel(), np.diag(by_b), by_d * d])

    # No map has more noise than variance. Without this bound a line search may try exp(1000).
    most = np.log(10.0 * np.maximum(variance, MIN_NOISE_VARIANCE))
    box = [(None, None)] * n_l + [(0.0, None)] * maps + [(np.log(MIN_NOISE_VARIANCE), float(top)) for top in most]
    value = loss(x)[0]
    for _ in range(MAX_DESCENTS):
        options = {"maxiter": 400, "ftol": 1e-3 / max(abs(value), 1.0), "gtol": 1e-6 * total, "maxcor": 20}
        found = scipy.optimize.minimize(loss, x, jac=True, method="L-BFGS-B", bounds=box, options=options)
        gain, value, x = value - float(found.fun), float(found.fun), found.x
        # Near the end, the curvature estimated far away slows a descent down: restart it without that estimate.
        if gain < RESTART_GAIN_NATS:
            break
    big_l, w, d = x[:n_l].reshape(maps, rank), x[n_l : n_l + maps], np.exp(x[n_l + maps :])
    constant = 0.5 * total * maps * float(np.log(2 * np.pi))
    return value + constant, big_l @ big_l.T + np.diag(w), d
