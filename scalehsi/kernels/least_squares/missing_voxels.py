"""Least-squares NMF with missing voxels (NaN): they get zero weight and are not filled in.

The terms of its missing channels are subtracted from the Gram matrix of a pixel, and the terms of the pixels that miss
a channel from the matrix ``M`` of that channel. The extra cost of a pass grows with the number of missing voxels.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.quadratic.nnls import RELATIVE_RIDGE, nnls, solve_one


def update(
    x: np.ndarray[Any, Any], *, s: Float, norm: bool = True, shift: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block, and return the sums for the objective and the next ``s``.

    Parameters
    ----------
    x : array, shape (P, E)
        Float; NaN for missing voxels.
    s : array, shape (K, E)
    norm : bool
        False skips ``sum x^2``.
    shift : array, shape (K,), optional
        Linear cost of the abundances.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (K, E), ``M`` (K, K) and ``C`` (K,) over all pixels, ``H`` (E, K, K) = sum of ``c c'`` over the pixels
        that miss the channel, ``norm``, and ``voxels``, the number of measured voxels.
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
    """Solve the abundances of a block from the measured voxels in the last pass, and return the residuals.

    Parameters
    ----------
    x, s, shift
        As in `update`.
    residual : bool
        False skips the residuals.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the measured channels; NaN for a pixel
        without any measured voxel.
    sums : dict
        ``residual_spectrum`` (E,).
    """
    n, channels = s.shape
    found, rms, spectrum = [], [], np.zeros(channels)
    no_sums = np.zeros((0, n, n))
    for _, strip in strips(x):
        measured = np.isfinite(strip)
        clean = np.where(measured, strip, strip.dtype.type(0))
        found.append(_solve(clean, measured, s, shift, no_sums).astype(np.float32))
        unknown = ~measured.any(axis=1)
        if residual:
            residuals = np.where(measured, clean - found[-1].astype(strip.dtype) @ s.astype(strip.dtype), 0.0)
            rms.append(np.sqrt((residuals**2).sum(axis=1) / np.maximum(measured.sum(axis=1), 1)).astype(np.float32))
            rms[-1][unknown] = np.nan
            spectrum += residuals.sum(axis=0)
        found[-1][unknown] = np.nan
    pixels: dict[str, Any] = {"abundances": np.concatenate(found)}
    return (pixels | {"residual": np.concatenate(rms)}, {"residual_spectrum": spectrum}) if residual else (pixels, {})


def objective(sums: dict[str, Any], s: Float) -> float:
    """Compute the loss over the measured voxels at the ``s`` (K, E) of a pass, from the sums of that pass."""
    fit = float(np.sum(sums["N"] * s))
    model = float(np.sum(sums["M"] * (s @ s.T)) - np.einsum("ekl,ke,le->", sums["H"], s, s))
    return 0.5 * (float(sums["norm"]) - 2 * fit + model)


def improve(sums: dict[str, Any], s: Float) -> Float:
    """Compute the best ``s`` (K, E) for the abundances of a pass from its sums, channel by channel.

    A component keeps its value in a channel that was measured in no pixel with this component.
    """
    new = np.array(s)
    for e in range(s.shape[1]):
        matrix = sums["M"] - sums["H"][e]
        # A diagonal this small is rounding: no pixel with this component measured the channel.
        seen = np.diag(matrix) > 1e-10 * np.diag(sums["M"])
        if seen.any():
            new[seen, e] = nnls(matrix[np.ix_(seen, seen)], sums["N"][None, seen, e])[0]
    return new


def _solve(
    clean: np.ndarray[Any, Any], measured: np.ndarray[Any, Any], s: Float, shift: Float | None, big_h: Float
) -> Float:
    """Solve the abundances (P, K) of a strip, and add ``c c'`` of missing channels to ``big_h``.

    clean (P, E) has zeros for missing voxels, measured (P, E) is True for the others; s (K, E); shift (K,) or None;
    big_h (E, K, K), or (0, K, K) to skip the sums.
    """
    b = (clean @ s.T.astype(clean.dtype)).astype(np.float64)
    if shift is not None:
        b -= shift
    c = np.empty((len(clean), len(s)))
    _solve_rows(np.ascontiguousarray(s), s @ s.T, b, measured, c, big_h)
    return c


@numba.njit(cache=True, nogil=True)
def _solve_rows(s: Any, gram: Any, b: Any, measured: Any, c: Any, big_h: Any) -> None:
    """Solve each row of ``b`` (P, K) into ``c`` (P, K): gram (K, K) is ``s s'``; the rest as in `_solve`."""
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
            # A diagonal this small is rounding: the component is zero in all measured channels.
            seen = matrix[k, k] > 1e-10 * gram[k, k]
            matrix[k, k] = matrix[k, k] * (1.0 + RELATIVE_RIDGE) if seen else 1e300
            c[p, k] = 0.0
        solve_one(matrix, b[p], c[p], passive, chol, z, order)
        if big_h.shape[0] > 0:
            for e in range(measured.shape[1]):
                if not measured[p, e]:
                    for k in range(n):
                        for j in range(n):
                            big_h[e, k, j] += c[p, k] * c[p, j]
