"""Textbook update rules of NMF (ALS, modified ALS, HALS, MU), which carry abundances from pass to pass.

They serve as references and for teaching. Muto and Shiga 2020 (doi:10.1093/jmicro/dfz036) describe alternating least
squares (eqs. 5, 6), a modification that keeps each step near the last (7, 8), and the hierarchical rule (11, 12); the
multiplicative rule is from Lee and Seung 1999 (doi:10.1038/44565). Each is one cheap step for ``c`` and one for ``s``;
the default of `scalehsi.NMF` solves ``c`` exactly instead and reads the data far fewer times. `penalised` solves ``c``
exactly with a quadratic penalty for each pixel, which couples a pixel to its neighbours.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import add_sums, strips
from scalehsi.kernels.quadratic.nnls import solve_one

RULES: Final = ("als", "mals", "hals", "mu")
MIN_RELATIVE_START: Final = 1e-12
"""Smallest start value for "mu" relative to the largest: a multiplicative rule cannot leave zero."""


def update(
    x: arrays.Array, c: arrays.Array | None = None, *, s: Float, rule: str, ridge: float = 0.0, norm: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Update the abundances by one step, and return the sums for a step of the endmembers.

    Parameters
    ----------
    x : array, shape (P, E)
    c : array, shape (P, K), optional
        Abundances of the last pass; without them the step is that of "als", clipped above zero for "mu".
    s : array, shape (K, E)
    rule : {"als", "mals", "hals", "mu"}
    ridge : float
        For "mals", the weight of the distance to the last step, in units of the mean diagonal of ``s s'``.
    norm : bool
        False skips ``sum x^2``.

    Returns
    -------
    pixels : dict
        ``c`` (P, K).
    sums : dict
        ``N`` (K, E), ``M`` (K, K), ``C`` (K,), ``norm``, and ``clipped``, the number of negative values set to zero.
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
        add_sums(total, parts)
    return {"c": xp.concat(found, axis=0)}, total


def _step(xp: Any, gram: Float, b: Any, last: Any, rule: str, ridge: float) -> tuple[Any, Any]:
    """Update the abundances (P, K) of a strip; also returns the number of clipped values.

    gram (K, K) is ``s s'``, b (P, K) is ``x s'``, last (P, K) the abundances of the last pass or None; xp is the array
    library of b; rule and ridge as in `update`.
    """
    n = len(gram)
    on_device = arrays.to_device_like(gram, b, xp.float64)
    if last is not None and rule == "hals":
        columns = [last[:, k] for k in range(n)]
        for k in range(n):
            if gram[k, k] > 0:
                step = b[:, k] - xp.stack(columns, axis=1) @ on_device[:, k]
                columns[k] = xp.clip(columns[k] + step / float(gram[k, k]), min=0.0)
        return xp.stack(columns, axis=1), xp.zeros(())
    if last is not None and rule == "mu":
        model = last @ on_device
        ratio = xp.where(model > 0, xp.clip(b, min=0.0) / xp.where(model > 0, model, xp.ones_like(model)), 0.0 * model)
        return last * ratio, xp.zeros(())
    unit = float(np.diag(gram).mean()) or 1.0
    damping = 0.0 if last is None or rule != "mals" else ridge * unit
    matrix = arrays.to_device_like(gram + (damping + 1e-12 * unit) * np.eye(n), b, xp.float64)
    right = b if last is None or not damping else b + damping * last
    raw = xp.matrix_transpose(xp.linalg.solve(matrix, xp.matrix_transpose(right)))
    new = xp.clip(raw, min=0.0)
    if rule == "mu":
        new = xp.clip(new, min=float(MIN_RELATIVE_START * xp.max(new)) or MIN_RELATIVE_START)
    return new, xp.sum(xp.astype(raw < 0, xp.int64))


def improve(sums: dict[str, Any], s: Float, *, rule: str, ridge: float = 0.0) -> tuple[Float, float]:
    """Update the endmembers by one step from the sums of `update`; also returns the fraction of clipped values.

    Parameters
    ----------
    sums : dict
        As returned by `update`, added over all blocks.
    s : array, shape (K, E)
    rule, ridge
        As in `update`; the ridge is in units of the mean diagonal of ``M``.
    """
    n, m = sums["N"], sums["M"]
    if rule == "hals":
        new = np.array(s)
        for k in range(len(s)):
            if m[k, k] > 0:
                new[k] = np.maximum(new[k] + (n[k] - m[k] @ new) / m[k, k], 0.0)
        return new, 0.0
    if rule == "mu":
        model = m @ s
        return s * np.divide(np.maximum(n, 0.0), model, out=np.zeros_like(s), where=model > 0), 0.0
    unit = float(np.diag(m).mean()) or 1.0
    damping = ridge * unit if rule == "mals" else 0.0
    raw = np.linalg.solve(m + (damping + 1e-12 * unit) * np.eye(len(m)), n + damping * s)
    return np.maximum(raw, 0.0), float((raw < 0).mean())


def penalised(
    x: np.ndarray[Any, Any], diagonal: Float, target: Float, *, s: Float, norm: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances exactly with a quadratic penalty for each pixel, and return the sums of a pass.

    Minimises ``1/2 |x - c s|^2 + sum_k (1/2 d_k c_k^2 - t_k c_k)`` over ``c >= 0``.

    Parameters
    ----------
    x : array, shape (P, E)
    diagonal, target : array, shape (P, K)
        ``d`` (not negative) and ``t``.
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
        _penalised_rows(gram, np.ascontiguousarray(diagonal[part], dtype=np.float64), b, c[part])
        here = c[part].astype(strip.dtype)
        parts = {"N": here.T @ strip, "M": here.T.astype(np.float64) @ here, "C": c[part].sum(axis=0)}
        if norm:
            parts["norm"] = np.sum(strip * strip, dtype=np.float64)
        add_sums(total, parts)
    return {"c": c}, total


@numba.njit(cache=True, nogil=True)
def _penalised_rows(gram: Any, diagonal: Any, b: Any, out: Any) -> None:
    """Solve each row of ``b`` (P, K) with ``gram`` (K, K) plus its ``diagonal`` (P, K) into ``out`` (P, K)."""
    rows, n = b.shape
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z, matrix = np.empty((n, n)), np.empty(n), np.empty((n, n))
    for p in range(rows):
        matrix[:] = gram
        for k in range(n):
            matrix[k, k] += diagonal[p, k] + 1e-12 * gram[k, k] + 1e-300
            out[p, k] = 0.0
        solve_one(matrix, b[p], out[p], passive, chol, z, order)
