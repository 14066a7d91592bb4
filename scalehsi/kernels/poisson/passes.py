"""Counts: the Poisson likelihood, ``sum c s - x log(c s)``, which is the generalised Kullback-Leibler divergence.

Only channels with counts are touched, because the sum of the model needs none: ``sum_e (c s)_e = c . t`` with
``t_k = sum_e s_ke``. A pass solves the abundances of each pixel to the optimum, by a few steps of expectation
maximisation and then Newton, and adds up what a Newton step of ``s`` needs: per channel a gradient and a K x K Hessian.
A Newton step that goes past the lowest point of its line is shortened, not damped by its decrement as is usual for
self-concordant functions: that bound depends on the unit of the data, and holds back most where counts are many.

Voxels that were not measured (NaN) take no part: see `scalehsi.kernels.poisson.missing_voxels`.

A block is dense or `Counts`; both go through the same loops, strip by strip, and give the same bits.
Reference for the Poisson factorisation: Lee and Seung 2001.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import cuda
from scalehsi.kernels.compiled import FAST, aligned_zeros, whole_rows
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import given_rows
from scalehsi.kernels.poisson.channel_loops import padded, shares_of, table_width
from scalehsi.kernels.poisson.known_maps import known_columns, solve_rows_known
from scalehsi.kernels.poisson.missing_voxels import add_missed, measured_parts, measuring
from scalehsi.kernels.poisson.pixel_solver import multiply_rows, solve_rows
from scalehsi.kernels.poisson.pixel_steps import quadratic, quadratic4, step_room
from scalehsi.schema import InputError

TINY: Final = 1e-12
"""Smallest value of an endmember relative to its mean: where a count meets no endmember."""
STRIP: Final = sparse_counts.STRIP
"""Pixels of a dense strip."""
FLOOR: Final = 0.02
"""A Newton step of an endmember value goes no lower than this fraction of its multiplicative update."""


def update(
    x: arrays.Array | Counts,
    given: Float | None = None,
    *,
    s: Float,
    tau: Float | None = None,
    ridge: Float | None = None,
    simplex: bool = False,
    known: Sequence[int] | None = None,
    missing: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        Counts, any real dtype, none negative. Cost is by the channels that hold counts, not by E, but for a quick
        search of a dense block for them. On a GPU (a CuPy array, or what `kernels.cuda.resident` made of one, which
        saves a sort at each pass) with ``s`` alone, up to 32 components; not run on one yet.
    given : array, shape (P, F), optional
        Abundances that are known, of the components ``known``; the others are solved beside them.
    s : array, shape (K, E)
    tau : array, shape (K,), optional
        Added to the objective is ``tau_k c_k``: sparsity, or one over the scale of an exponential prior. Not negative.
    ridge : array, shape (K,), optional
        Added to the objective is ``ridge_k c_k^2 / 2``: one over the square of the scale of a half-normal prior. Not
        negative.
    simplex : bool, default False
        The abundances of each pixel sum to one, and ``s`` carries the number of counts. Not with ``given``.
    known : sequence of int, shape (F,), optional
        The components of ``given``.
    missing : bool, default False
        NaN in a block of floats is what was not measured, and the likelihood runs over the rest. Not with ``given``.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (E, K) = sum_p c x / y, ``H`` (E, K (K + 1) / 2) = sum_p c c' x / y^2 (lower triangle),
        ``C`` (K,) = sum_p c, ``likelihood`` = sum x log y; with ``ridge`` also ``CC`` (K,) = sum_p c^2,
        with ``missing`` also ``missed`` (E, K) = sum of c over the pixels that miss the channel.

    Examples
    --------
    >>> x = np.array([[4, 0, 2], [0, 3, 3]], dtype="uint8")
    >>> pixels, sums = update(x, s=np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]))
    >>> sums["N"].shape, sums["H"].shape, round(float(sums["C"].sum()), 6)
    ((3, 2), (3, 3), 12.0)
    """
    if _on_gpu(x, s, plain=tau is None and ridge is None and given is None and not (simplex or missing)):
        return cuda.poisson_update(x, s=arrays.to_host(s))
    table, total = aligned_zeros(s.shape[1], table_width(len(s))), np.zeros(1 + 2 * len(s))
    missed = np.zeros((max(len(s), 2), s.shape[1] if missing else 0))
    beside: dict[str, Any] = {"given": given, "known": known, "missing": missing}
    for _, c, lost in _solved(x, s, tau, ridge, table, total, simplex=simplex, **beside):
        add_missed(lost, c, missed)
    big_h = table[:, : len(s) * (len(s) + 1) // 2].copy()
    del table
    sums = {"N": shares_of(big_h, _columns(s)), "H": big_h} | _sums(total, len(s), ridge)
    return {}, (sums | {"missed": np.ascontiguousarray(missed[: len(s)].T)} if missing else sums)


def abundances(
    x: arrays.Array | Counts,
    given: Float | None = None,
    *,
    s: Float,
    residual: bool = True,
    tau: Float | None = None,
    ridge: Float | None = None,
    simplex: bool = False,
    known: Sequence[int] | None = None,
    missing: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block: maximum-likelihood abundances, and what the model leaves.

    Parameters
    ----------
    x, given, s, tau, ridge, simplex, known, missing
        As in `update`.
    residual : bool, default True
        False leaves out the residuals and their cost, which is by all channels, 2 P E K flops.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels, the measured ones
        with ``missing``.
    sums : dict
        ``residual_spectrum`` (E,) sum of data minus model, ``likelihood``, ``C``; with ``ridge`` also ``CC``.
    """
    if _on_gpu(x, s, plain=tau is None and ridge is None and given is None and not (simplex or missing)):
        return cuda.poisson_abundances(x, s=arrays.to_host(s), residual=residual)
    ends = np.ascontiguousarray(_columns(s).T)
    found = np.empty((x.shape[0], len(s)), dtype=np.float32)
    rms, spectrum = np.empty(x.shape[0], dtype=np.float32), np.zeros(s.shape[1])
    total = np.zeros(1 + 2 * len(s))
    none = np.zeros((0, 8))
    beside: dict[str, Any] = {"given": given, "known": known, "missing": missing}
    for part, c, _ in _solved(x, s, tau, ridge, none, total, simplex=simplex, **beside):
        found[part] = c
        for start in range(part.start, part.stop if residual else 0, STRIP):
            some = slice(start, min(start + STRIP, part.stop))
            c_some = c[start - part.start : some.stop - part.start]
            _residual(_dense(x, some), ends, c_some, rms[some], spectrum, int(missing))
    pixels: dict[str, Any] = {"abundances": found}
    sums = _sums(total, len(s), ridge)
    return (pixels | {"residual": rms}, sums | {"residual_spectrum": spectrum}) if residual else (pixels, sums)


def update_from(
    x: arrays.Array | Counts, c: Float, *, s: Float, tau: Float | None = None, ridge: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One multiplicative update of abundances that are kept between passes: the reference, and many times slower.

    Parameters
    ----------
    x, s, tau, ridge
        As in `update`.
    c : array, shape (P, K)
        Abundances of the last pass.

    Returns
    -------
    pixels : dict
        ``c`` (P, K) float64, the next abundances.
    sums : dict
        ``N`` (E, K), ``C`` (K,) and ``likelihood`` at the next abundances; with ``ridge`` also ``CC``.

    References
    ----------
    Lee and Seung 2001, "Algorithms for non-negative matrix factorization", NIPS 13.
    """
    n = len(s)
    linear, squares = _terms(s, tau, ridge)
    st = _wide(np.asarray(s, dtype=np.float64).T)
    new = np.array(arrays.to_host(c), dtype=np.float64, order="C")
    table, total = aligned_zeros(len(st), whole_rows(n)), np.zeros(1 + 2 * n)
    for part, indptr, channel, value in sparse_counts.strips(x):
        multiply_rows(indptr, channel, value, st, linear, squares, new[part], table, total)
    return {"c": new}, {"N": table[:, :n].copy()} | _sums(total, n, ridge)


def objective(
    sums: dict[str, Float], s: Float, constant: float, *, tau: Float | None = None, ridge: Float | None = None
) -> float:
    """The Kullback-Leibler divergence at the point of the pass, and what the priors add to it.

    ``constant`` is ``sum x log x - x`` of the cube.
    """
    value = np.dot(sums["C"], s.sum(axis=1)) - sums["likelihood"] + constant
    if "missed" in sums:
        value -= np.sum(sums["missed"] * s.T)
    if tau is not None:
        value += np.dot(sums["C"], tau)
    if ridge is not None:
        value += 0.5 * np.dot(sums["CC"], ridge)
    return float(value)


def improve(sums: dict[str, Float], s: Float) -> tuple[Float, Float]:
    """From the sums of a pass at ``s``: two better endmember matrices.

    A channel that no pixel measured becomes zero; so does what only tells of components that are not there.

    Returns
    -------
    newton : array, shape (K, E)
        One Newton step channel by channel, bounded from below: several times faster than the other, not safe alone.
    multiplicative : array, shape (K, E)
        ``s N / C``: never worse than ``s``.
    """
    st, c = _columns(s), measuring(sums)
    if "missed" in sums:
        st[~(c > 0).any(axis=1)] = 0.0
    em = _multiplied(sums["N"], c, st)
    newton = em.copy()
    _newton_channels(st, em, sums["N"], sums["H"], c, newton)
    newton = np.where(c > 0, newton, st)
    return np.ascontiguousarray(newton.T), np.ascontiguousarray(em.T)


def improve_multiplicative(sums: dict[str, Float], s: Float) -> Float:
    """From the sums of `update_from` at ``s``: the next endmembers (K, E), ``s N / C``, which are never worse.

    Zeros stay zeros; an endmember that no pixel uses stays as it is.
    """
    st = np.asarray(s, dtype=np.float64).T
    return np.ascontiguousarray(_multiplied(sums["N"], sums["C"], st).T)


def _multiplied(big_n: Float, c: Float, st: Float) -> Float:
    used = c > 0
    return np.asarray(st * np.where(used, big_n / np.where(used, c, 1.0), 1.0))


def _on_gpu(x: Any, s: Any, *, plain: bool) -> bool:
    """Whether the kernels written for a GPU take this block; what they do not do runs on the host."""
    plain = plain and s.shape[0] <= cuda.MOST
    held = isinstance(x, cuda.Resident)
    if held and not plain:
        raise InputError(
            "counts that lie on the GPU are fitted without costs and constraints, and with at most "
            f"{cuda.MOST} components; fit with device='cpu'"
        )
    return held or (plain and arrays.is_cupy(x))


def _solved(
    x: arrays.Array | Counts,
    s: Float,
    tau: Float | None,
    ridge: Float | None,
    table: Float,
    total: Float,
    *,
    simplex: bool,
    missing: bool,
    given: Any = None,
    known: Sequence[int] | None = None,
) -> Iterator[tuple[slice, Float, Float]]:
    """Runs of pixels with their exact abundances and masks (overwritten by the next run's); the sums grow along."""
    if given is not None or known is not None:
        if missing:
            raise ValueError("abundances that are known do not go together with missing voxels")
        yield from _solved_beside(x, given, s, tau, ridge, table, total, known=known, simplex=simplex)
        return
    st = _columns(s)
    linear, squares = _terms(st.T, tau, ridge)
    wide, ends = _wide(st), np.ascontiguousarray(st.T) if missing else st.T
    c = np.empty((STRIP, len(s)))
    for (part, indptr, channel, value), lost in sparse_counts.measured_strips(x) if missing else _nothing_lost(x):
        rows = part.stop - part.start
        if rows > len(c):
            c = np.empty((rows, len(s)))
        costs = linear[None]
        if len(lost):
            costs = measured_parts(lost, ends, hide=not simplex)
            costs = costs if tau is None else costs + tau
        solve_rows(indptr, channel, value, wide, costs, squares, int(simplex), c[:rows], table, total)
        yield part, c[:rows], lost


def _nothing_lost(x: arrays.Array | Counts) -> Iterator[tuple[sparse_counts.Rows, Float]]:
    nothing = np.zeros((0, 0))
    for rows in sparse_counts.strips(x):
        yield rows, nothing


def _solved_beside(
    x: arrays.Array | Counts, given: Any, s: Float, tau: Any, ridge: Any, table: Float, total: Float, *, known: Any,
    simplex: bool,
) -> Iterator[tuple[slice, Float, Float]]:  # fmt: skip
    """`_solved` with abundances that are known."""
    if simplex:
        raise ValueError("on the simplex the abundances of all components are sought")
    maps, nothing = given_rows(given, known, x.shape[0]), np.zeros((0, 0))
    st = _columns(s)
    free, held, wide, ground = known_columns(st, known)
    linear, squares = (terms[free] for terms in _terms(st.T, tau, ridge))
    c = np.empty((STRIP, len(s)))
    for part, indptr, channel, value in sparse_counts.strips(x):
        rows = part.stop - part.start
        if rows > len(c):
            c = np.empty((rows, len(s)))
        there = maps[part]
        solve_rows_known(
            indptr, channel, value, wide, ground, free, held, linear, squares, there, c[:rows], table, total
        )
        yield part, c[:rows], nothing


def _terms(s: Float, tau: Float | None, ridge: Float | None) -> tuple[Float, Float]:
    """What multiplies c and c^2 / 2 in the objective, each (K,)."""
    linear = np.asarray(s, dtype=np.float64).sum(axis=1)
    if tau is not None:
        linear = linear + np.asarray(tau, dtype=np.float64)
    return linear, np.zeros(len(s)) if ridge is None else np.array(ridge, dtype=np.float64)


def _sums(total: Float, n: int, ridge: Float | None) -> dict[str, Any]:
    sums = {"C": total[1 : 1 + n].copy(), "likelihood": float(total[0])}
    return sums if ridge is None else sums | {"CC": total[1 + n :].copy()}


def _columns(s: Float) -> Float:
    """``s`` as (E, K) rows in memory, nowhere zero but for empty endmembers, so that no count meets a model of nothing.

    An empty endmember stays empty: raised to a flat one, however faint, it would be given all flat counts.
    """
    st: Float = np.ascontiguousarray(np.asarray(s, dtype=np.float64).T)
    return np.asarray(np.maximum(st, TINY * st.mean(axis=0)))


def _wide(st: Float) -> Float:
    """``st`` (E, K) with as many empty endmembers more as the loops want; itself where they want none."""
    if st.shape[1] == padded(st.shape[1]):
        return np.ascontiguousarray(st)
    wide = np.zeros((st.shape[0], padded(st.shape[1])))
    wide[:, : st.shape[1]] = st
    return wide


def _dense(x: arrays.Array | Counts, part: slice) -> Float:
    """Some rows as native, writable float64, whatever the file's byte order and however the block came here."""
    if isinstance(x, Counts):
        return x[part].to_dense(np.float64)
    return np.array(arrays.to_host(x)[part], dtype=np.float64, order="C")


@numba.njit(cache=True, nogil=True, fastmath=FAST)
def _residual(x: Any, s: Any, c: Any, rms: Any, spectrum: Any, missing: int) -> None:
    """What the model leaves of some rows, which are overwritten by it; without what is not finite if ``missing``."""
    channels = x.shape[1]
    for p in range(x.shape[0]):
        rest = x[p]
        for k in range(s.shape[0]):
            share, row = c[p, k], s[k]
            if share != 0.0:
                for e in range(channels):
                    rest[e] -= share * row[e]
        square, used = 0.0, channels
        for e in range(channels):
            left_out = missing != 0 and not abs(rest[e]) < np.inf
            rest[e] = 0.0 if left_out else rest[e]
            used -= left_out
            spectrum[e] += rest[e]
            square += rest[e] * rest[e]
        rms[p] = np.sqrt(square / max(used, 1))


@numba.njit(cache=True, nogil=True)
def _newton_channels(st: Any, em: Any, big_n: Any, big_h: Any, c: Any, new: Any) -> None:
    """One Newton step a channel: minimise the quadratic model over values of at least FLOOR of the multiplicative.

    ``c`` (E, K) multiplies the endmembers in the objective.
    """
    channels, n = st.shape
    step, linear = step_room(n, max(n, 4)), np.empty(n)
    value, hessian, right, gradient = step.now, step.hessian, step.right, step.gradient
    for e in range(channels):
        top = 0.0
        for k in range(n):
            top = max(top, big_h[e, k * (k + 3) // 2])
        if top <= 0.0:
            continue  # no counts here: the multiplicative value, zero, stands
        index = 0
        for k in range(n):
            linear[k], gradient[k] = c[e, k], big_n[e, k]
            value[k] = max(st[e, k] - FLOOR * em[e, k], 0.0)
            right[k] = 0.0
            for j in range(k + 1):
                hessian[k, j] = big_h[e, index]
                index += 1
            # Relative to itself: components need not have comparable units.
            hessian[k, k] += 1e-9 * (hessian[k, k] if hessian[k, k] > 0.0 else top)
        for k in range(n):
            right[k] += gradient[k] - linear[k] + hessian[k, k] * (st[e, k] - FLOOR * em[e, k])
            for j in range(k):
                right[k] += hessian[k, j] * (st[e, j] - FLOOR * em[e, j])
                right[j] += hessian[k, j] * (st[e, k] - FLOOR * em[e, k])
        if n <= 4:
            quadratic4(step, linear)
        else:
            quadratic(step, linear, 0)
        for k in range(n):
            new[e, k] = FLOOR * em[e, k] + value[k]
