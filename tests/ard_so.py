"""ARD-SO as it was published, in plain numpy and all in memory: what the engine is held to.

Equations: Shiga et al. 2016 (doi:10.1016/j.ultramic.2016.08.006), with spectra of unit length. The maps are updated
one after the other, each from the others as they are by then; then the spectra; then the scales of the priors and the
noise.
"""

from __future__ import annotations

import numpy as np

from scalehsi.arrays import Float

ALIKE = 0.99
"""Cosine from which on two spectra are one component."""


def pixels(x: Float, components: int, *, seed: int) -> Float:
    """A start as published: the spectra of some pixels, drawn anew until none is empty."""
    rng = np.random.default_rng(seed)
    filled = x[x.any(axis=1)]
    return np.array(filled[rng.choice(len(filled), components, replace=False)], dtype=float)


def fit(x: Float, s: Float, *, w: float, passes: int, tol: float = 1e-9) -> tuple[Float, Float, Float]:
    """The fixed point of the published updates from the spectra ``s`` (K, E).

    Components that the data do not need are taken out when their maps are empty, near copies are added up.

    Returns
    -------
    spectra (K', E) of unit length, maps (P, K'), scales (K',)
    """
    channels = x.shape[1]
    a, mean = 1.0 + 1e-15, float(x.mean())
    b = mean * (a - 1) * np.sqrt(channels) / len(s)
    s = s / np.linalg.norm(s, axis=1, keepdims=True)
    c = np.maximum(x @ np.linalg.pinv(s), 0.0) + 1e-3 * mean
    lam, sigma2 = scales(x, s, c, a, b)
    for number in range(passes):
        before = s.copy()
        for k in range(len(s)):
            others = np.arange(len(s)) != k
            rest = c[:, others].sum(axis=1)
            new = x @ s[k] - c[:, others] @ (s[others] @ s[k]) - sigma2 / lam[k]
            power = rest @ rest
            new -= w * (rest @ new) / (power if power > 0 else 1.0) * rest
            c[:, k] = np.maximum(new, 0.0)
        for k in range(len(s)):
            others = np.arange(len(s)) != k
            new = np.maximum(x.T @ c[:, k] - s[others].T @ (c[:, others].T @ c[:, k]), 0.0)
            length = np.linalg.norm(new)
            s[k] = new / length if length > 0 else s[k]
        if number > 3:
            s, c, before = merged(s, c, before)
        lam, sigma2 = scales(x, s, c, a, b)
        if np.abs(s - before).max() < tol:
            break
    return s, c, lam


def scales(x: Float, s: Float, c: Float, a: float, b: float) -> tuple[Float, float]:
    """The best scale of each prior, and the variance of the noise."""
    return (c.sum(axis=0) + b) / (len(x) + a + 1), float(((x - c @ s) ** 2).mean())


def merged(s: Float, c: Float, before: Float) -> tuple[Float, Float, Float]:
    """Without empty components; of near copies the first has the maps of both."""
    c = c.copy()
    for i in range(len(s)):
        for j in range(i + 1, len(s)):
            if s[i] @ s[j] >= ALIKE:
                c[:, i], c[:, j] = c[:, i] + c[:, j], 0.0
    keep = c.any(axis=0)
    return s[keep], c[:, keep], before[keep]
