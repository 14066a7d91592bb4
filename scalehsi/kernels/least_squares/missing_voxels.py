"""Least squares with voxels that are missing (NaN): they have no weight, and nothing is put in their place.

A pixel loses from its Gram matrix what its missing channels would have added, and a channel of ``s`` loses from
``M`` what the pixels that miss it would have added. So a pass costs more by what is missing, not by all the data.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.quadratic.nnls import RIDGE, nnls, solve_one


def update(
    x: np.ndarray[Any, Any], *, s: Float, norm: bool = True, shift: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E)
        Float; NaN where nothing was measured.
    s : array, shape (K, E)
    norm : bool
        False leaves out ``sum x^2``.
    shift : array, shape (K,), optional
        Linear cost of the abundances.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (K, E), ``M`` (K, K) and ``C`` (K,) over all pixels, ``H`` (E, K, K) = sum of ``c c'`` over the pixels
        that miss the channel, ``norm``, and ``voxels``, the number of those measured.
    """
    n, channels = s.shape
    total = {"N": np.zeros((n, channels)), "M": np.zeros((n, n)), "C": np.zeros(n), "H": np.zeros((channels, n, n))}
    power, voxels = 0.0, 0.0
    for _, strip in strips(x):
        measured = np.isfinite(strip)
        clean = np.where(measured, strip, strip.dtype.type(0))
        c = _solve(clean, measured, s, shift, total["H"])
        total["N"] += c.astype(strip.dtype).T @ clean
        total["M"] += c.T @ c
        total["C"] += c.sum(axis=0)
        power += float(np.sum(clean * clean, dtype=np.float64)) if norm else 0.0
        voxels += float(measured.sum())
    sums: dict[str, Any] = {**total, "voxels": voxels}
    return {}, (sums | {"norm": power} if norm else sums)


def abundances(
    x: np.ndarray[Any, Any], *, s: Float, residual: bool = True, shift: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Abundances from the voxels that there are, and what the model leaves of them.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the measured channels.
    sums : dict
        ``residual_spectrum`` (E,).
    """
    n, channels = s.shape
    found, left, spectrum = [], [], np.zeros(channels)
    none = np.zeros((0, n, n))
    for _, strip in strips(x):
        measured = np.isfinite(strip)
        clean = np.where(measured, strip, strip.dtype.type(0))
        found.append(_solve(clean, measured, s, shift, none).astype(np.float32))
        if residual:
            rest = np.where(measured, clean - found[-1].astype(strip.dtype) @ s.astype(strip.dtype), 0.0)
            left.append(np.sqrt((rest**2).sum(axis=1) / np.maximum(measured.sum(axis=1), 1)).astype(np.float32))
            spectrum += rest.sum(axis=0)
    pixels: dict[str, Any] = {"abundances": np.concatenate(found)}
    return (pixels | {"residual": np.concatenate(left)}, {"residual_spectrum": spectrum}) if residual else (pixels, {})


def objective(sums: dict[str, Any], s: Float) -> float:
    """The loss at the point of the pass: over the measured voxels alone."""
    fit = float(np.sum(sums["N"] * s))
    model = float(np.sum(sums["M"] * (s @ s.T)) - np.einsum("ekl,ke,le->", sums["H"], s, s))
    return 0.5 * (float(sums["norm"]) - 2 * fit + model)


def improve(sums: dict[str, Any], s: Float) -> Float:
    """The best ``s`` for the abundances of the pass, channel by channel.

    Where no pixel that has a component measured a channel, the component keeps its value there.
    """
    new = np.array(s)
    for e in range(s.shape[1]):
        matrix = sums["M"] - sums["H"][e]
        # What rounding left of a component that no measuring pixel has is not a component.
        seen = np.diag(matrix) > 1e-10 * np.diag(sums["M"])
        if seen.any():
            new[seen, e] = nnls(matrix[np.ix_(seen, seen)], sums["N"][None, seen, e])[0]
    return new


def _solve(
    clean: np.ndarray[Any, Any], measured: np.ndarray[Any, Any], s: Float, shift: Float | None, big_h: Float
) -> Float:
    b = (clean @ s.T.astype(clean.dtype)).astype(np.float64)
    if shift is not None:
        b -= shift
    c = np.empty((len(clean), len(s)))
    _rows(np.ascontiguousarray(s), s @ s.T, b, measured, c, big_h)
    return c


@numba.njit(cache=True, nogil=True)
def _rows(s: Any, gram: Any, b: Any, measured: Any, c: Any, big_h: Any) -> None:
    rows, n = b.shape
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z, matrix = np.empty((n, n)), np.empty(n), np.empty((n, n))
    for p in range(rows):
        matrix[:] = gram
        for e in range(measured.shape[1]):
            if not measured[p, e]:
                for k in range(n):
                    for j in range(n):
                        matrix[k, j] -= s[k, e] * s[j, e]
        for k in range(n):
            # What rounding left of a component that the measured channels do not see is not a component.
            seen = matrix[k, k] > 1e-10 * gram[k, k]
            matrix[k, k] = matrix[k, k] * (1.0 + RIDGE) if seen else 1e300
            c[p, k] = 0.0
        solve_one(matrix, b[p], c[p], passive, chol, z, order)
        if big_h.shape[0] > 0:
            for e in range(measured.shape[1]):
                if not measured[p, e]:
                    for k in range(n):
                        for j in range(n):
                            big_h[e, k, j] += c[p, k] * c[p, j]
