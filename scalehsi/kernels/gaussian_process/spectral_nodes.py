"""The likelihood of maps that share a spatial covariance, from a few nodes: its best B and D, at any number of pixels.

In the eigenvectors of the spatial covariance, of eigenvalues ``g``, the rotated maps ``z`` are independent with
covariance ``g B + D``. Eigenvalues that are close share a node, with weights that are linear in ``log g`` between two
nodes, so that nothing jumps: ``n_b`` directions and ``S_b = sum z z'`` of some 200 nodes are all there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.optimize import minimize

from scalehsi.arrays import Float

NODES: Final = 200
SPREAD: Final = 1e-7
"""Eigenvalues below this part of the largest share the last node: they are noise alone."""
LEAST_NOISE: Final = 1e-6
"""Of a map, relative to its variance."""
STARTS: Final = 5
SETTLED: Final = 0.01
"""In nats."""


def nodes(g: Float, z: Sequence[Float]) -> tuple[Float, Float, Float]:
    """Numbers (b,), eigenvalues (b,) and sums of products (b, T, T) of the nodes.

    Parameters
    ----------
    g : array
        Eigenvalues of the spatial covariance, one for each direction.
    z : sequence of arrays, shape (T, ...)
        Maps in these directions, in the same order; tiles that share their directions come one by one.
    """
    g = g.reshape(-1)
    maps = z[0].shape[0]
    top = float(g.max())
    g = np.maximum(g, SPREAD * top)
    low, high = np.log(float(g.min())), np.log(top)
    count = NODES if high > low else 1
    step = (high - low) / max(1, count - 1)
    place = (np.log(g) - low) / step if step > 0 else np.zeros_like(g)
    left = np.minimum(place.astype(np.int64), max(0, count - 2))
    right_share = np.clip(place - left, 0.0, 1.0) if count > 1 else np.zeros_like(g)
    numbers = np.bincount(left, weights=1 - right_share, minlength=count)
    sums = np.zeros((count, maps, maps))
    flat = [tile.reshape(maps, -1) for tile in z]
    if count > 1:
        numbers += np.bincount(left + 1, weights=right_share, minlength=count)
    for i in range(maps):
        for j in range(i + 1):
            product = np.sum([tile[i] * tile[j] for tile in flat], axis=0)
            found = np.bincount(left, weights=product * (1 - right_share), minlength=count)
            if count > 1:
                found += np.bincount(left + 1, weights=product * right_share, minlength=count)
            sums[:, i, j] = sums[:, j, i] = found
    used = numbers > 1e-9
    values = np.exp(low + step * np.arange(count))
    return np.asarray(len(z) * numbers[used], dtype=np.float64), values[used], sums[used]


def inner(numbers: Float, g: Float, sums: Float, *, rank: int) -> tuple[float, Float, Float]:
    """The best B (T, T) and D (T,) for the sums of the nodes.

    L and w enter linearly, or a weak map would be lost. D enters by its logarithm: beside a map with next to no noise,
    whose slope by D is a million times that by the rest, a descent would end tens of nats too high.
    """
    maps = sums.shape[1]
    total = float(numbers.sum())
    variance = np.maximum(np.einsum("bii->i", sums) / total, 1e-12)
    # The noise shows where the eigenvalues are smallest.
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
        # In the vectors that B and D share, D^-1/2 B D^-1/2 = U s U', all nodes are diagonal.
        root = np.sqrt(d)
        s, u = np.linalg.eigh((big_l @ big_l.T + np.diag(w)) / np.outer(root, root))
        there = u / root[:, None]
        h = 1.0 / (1.0 + np.outer(g, np.maximum(s, 0.0)))
        product = there.T @ sums @ there
        value = 0.5 * float(numbers @ (np.log(d).sum() - np.log(h).sum(axis=1)) + np.einsum("bii,bi->", product, h))
        gamma = -0.5 * (h[:, :, None] * h[:, None, :]) * product
        gamma[:, diagonal, diagonal] += 0.5 * numbers[:, None] * h
        by_b = there @ np.tensordot(g, gamma, axes=1) @ there.T
        by_d = np.diag(there @ gamma.sum(axis=0) @ there.T)
        return value, np.concatenate([(2 * by_b @ big_l).ravel(), np.diag(by_b), by_d * d])

    # No map has more noise than variance; a line search may ask for e^1000 of it.
    most = np.log(10.0 * np.maximum(variance, LEAST_NOISE))
    box = [(None, None)] * n_l + [(0.0, None)] * maps + [(np.log(LEAST_NOISE), float(top)) for top in most]
    value = loss(x)[0]
    for _ in range(STARTS):
        options = {"maxiter": 400, "ftol": 1e-3 / max(abs(value), 1.0), "gtol": 1e-6 * total, "maxcor": 20}
        found = minimize(loss, x, jac=True, method="L-BFGS-B", bounds=box, options=options)
        gain, value, x = value - float(found.fun), float(found.fun), found.x
        # What a descent has learned of the curvature on its way may hold it up at the end: begin anew from there.
        if gain < SETTLED:
            break
    big_l, w, d = x[:n_l].reshape(maps, rank), x[n_l : n_l + maps], np.exp(x[n_l + maps :])
    constant = 0.5 * total * maps * float(np.log(2 * np.pi))
    return value + constant, big_l @ big_l.T + np.diag(w), d
