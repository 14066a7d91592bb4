"""The update rules of the textbooks, which carry abundances from pass to pass: references, and teachers.

Muto and Shiga 2020 (doi:10.1093/jmicro/dfz036): alternating least squares (eqs. 5, 6), modified so that each step stays
near the last (7, 8), hierarchical (11, 12); and multiplicative (Lee and Seung 1999, doi:10.1038/44565). Each is one
cheap step for ``c`` and one for ``s``; the default of `scalehsi.NMF` solves ``c`` exactly instead and needs far fewer
readings of the data. One more rule here solves ``c`` exactly with a pull of its own for every pixel, which is how
neighbours hold together.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.quadratic.nnls import solve_one

RULES: Final = ("als", "mals", "hals", "mu")
TINY: Final = 1e-12
"""A multiplicative factor cannot leave zero, so nothing starts there: smallest value relative to the largest."""


def update(
    x: arrays.Array, c: arrays.Array | None = None, *, s: Float, rule: str, ridge: float = 0.0, norm: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One step of the abundances, and the sums for a step of the endmembers.

    Parameters
    ----------
    x : array, shape (P, E)
    c : array, shape (P, K), optional
        Abundances of the last pass; without them the step is that of "als", clipped well above zero for "mu".
    s : array, shape (K, E)
    rule : {"als", "mals", "hals", "mu"}
    ridge : float
        With "mals": how strongly a step is held near the last, in units of the mean diagonal of ``s s'``.
    norm : bool
        False leaves out ``sum x^2``.

    Returns
    -------
    pixels : dict
        ``c`` (P, K).
    sums : dict
        ``N`` (K, E), ``M`` (K, K), ``C`` (K,), ``norm``, and ``clipped``, the number of values that were negative.
    """
    xp = arrays.array_namespace(x)
    found, total = [], dict[str, Any]()
    gram = s @ s.T
    for part, strip in strips(x):
        b = xp.astype(strip @ arrays.to_device_like(s.T, x, strip.dtype), xp.float64)
        last = None if c is None else xp.astype(c[part, :], xp.float64)
        new, clipped = _step(xp, gram, b, last, rule, ridge)
        found.append(xp.astype(new, strip.dtype))
        wide = xp.astype(found[-1], xp.float64)
        parts = {
            "N": xp.matrix_transpose(found[-1]) @ strip,
            "M": xp.matrix_transpose(wide) @ wide,
            "C": xp.sum(wide, axis=0),
            "clipped": clipped,
        }
        if norm:
            parts["norm"] = xp.sum(strip * strip, dtype=xp.float64)
        for key, value in parts.items():
            host = arrays.to_host(value).astype(np.float64)
            total[key] = host if key not in total else total[key] + host
    return {"c": xp.concat(found, axis=0)}, total


def _step(xp: Any, gram: Float, b: Any, last: Any, rule: str, ridge: float) -> tuple[Any, Any]:
    n = len(gram)
    there = arrays.to_device_like(gram, b, xp.float64)
    if last is not None and rule == "hals":
        columns = [last[:, k] for k in range(n)]
        for k in range(n):
            if gram[k, k] > 0:
                pull = b[:, k] - xp.stack(columns, axis=1) @ there[:, k]
                columns[k] = xp.clip(columns[k] + pull / float(gram[k, k]), min=0.0)
        return xp.stack(columns, axis=1), xp.zeros(())
    if last is not None and rule == "mu":
        below = last @ there
        ratio = xp.where(below > 0, xp.clip(b, min=0.0) / xp.where(below > 0, below, xp.ones_like(below)), 0.0 * below)
        return last * ratio, xp.zeros(())
    unit = float(np.diag(gram).mean()) or 1.0
    held = 0.0 if last is None or rule != "mals" else ridge * unit
    matrix = arrays.to_device_like(gram + (held + 1e-12 * unit) * np.eye(n), b, xp.float64)
    right = b if last is None or not held else b + held * last
    raw = xp.matrix_transpose(xp.linalg.solve(matrix, xp.matrix_transpose(right)))
    new = xp.clip(raw, min=0.0)
    if rule == "mu":
        new = xp.clip(new, min=float(TINY * xp.max(new)) or TINY)
    return new, xp.sum(xp.astype(raw < 0, xp.int64))


def improve(sums: dict[str, Any], s: Float, *, rule: str, ridge: float = 0.0) -> tuple[Float, float]:
    """The step of the endmembers that goes with `update`, and the share of values that it clipped."""
    n, m = sums["N"], sums["M"]
    if rule == "hals":
        new = np.array(s)
        for k in range(len(s)):
            if m[k, k] > 0:
                new[k] = np.maximum(new[k] + (n[k] - m[k] @ new) / m[k, k], 0.0)
        return new, 0.0
    if rule == "mu":
        below = m @ s
        return s * np.divide(np.maximum(n, 0.0), below, out=np.zeros_like(s), where=below > 0), 0.0
    unit = float(np.diag(m).mean()) or 1.0
    held = ridge * unit if rule == "mals" else 0.0
    raw = np.linalg.solve(m + (held + 1e-12 * unit) * np.eye(len(m)), n + held * s)
    return np.maximum(raw, 0.0), float((raw < 0).mean())


def pulled(
    x: np.ndarray[Any, Any], diagonal: Float, target: Float, *, s: Float, norm: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Exact abundances with a quadratic pull of its own for every pixel, and the sums of a pass.

    Minimised is ``1/2 |x - c s|^2 + 1/2 sum_k d_k c_k^2 - t_k c_k`` over ``c >= 0``.

    Parameters
    ----------
    x : array, shape (P, E)
    diagonal, target : array, shape (P, K)
        ``d`` and ``t``.
    s : array, shape (K, E)
    norm : bool
        As in `update`.

    Returns
    -------
    pixels, sums
        As in `update`.
    """
    gram = s @ s.T
    c = np.empty((len(x), len(s)))
    total: dict[str, Any] = {}
    for part, strip in strips(x):
        b = (strip @ s.T.astype(strip.dtype)).astype(np.float64) + target[part]
        _pulled_rows(gram, np.ascontiguousarray(diagonal[part], dtype=np.float64), b, c[part])
        here = c[part].astype(strip.dtype)
        parts = {"N": here.T @ strip, "M": here.T.astype(np.float64) @ here, "C": c[part].sum(axis=0)}
        if norm:
            parts["norm"] = np.sum(strip * strip, dtype=np.float64)
        for key, value in parts.items():
            total[key] = np.float64(value) if key not in total else total[key] + value
    return {"c": c}, total


@numba.njit(cache=True, nogil=True)
def _pulled_rows(gram: Any, diagonal: Any, b: Any, out: Any) -> None:
    rows, n = b.shape
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z, matrix = np.empty((n, n)), np.empty(n), np.empty((n, n))
    for p in range(rows):
        matrix[:] = gram
        for k in range(n):
            matrix[k, k] += diagonal[p, k] + 1e-12 * gram[k, k] + 1e-300
            out[p, k] = 0.0
        solve_one(matrix, b[p], out[p], passive, chol, z, order)
