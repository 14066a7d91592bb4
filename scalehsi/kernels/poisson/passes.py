"""Fit counts by the Poisson likelihood: passes over a block of pixels, and updates of the endmembers from their sums.

The objective is ``sum c s - x log(c s)``, the generalised Kullback-Leibler divergence up to a constant. Only channels
with counts are visited, because the sum of the model needs no channels: ``sum_e (c s)_e = c . t`` with
``t_k = sum_e s_ke``. A pass solves the abundances of each pixel to the optimum, by a few steps of expectation
maximisation and then Newton's method, and accumulates the gradient and the K x K Hessian of each channel, which a
Newton step of ``s`` needs. A Newton step that passes the minimum along its line is shortened. The usual damping by the
decrement for self-concordant functions was rejected: that bound depends on the unit of the data, and shortens steps
most where counts are many.

Voxels that were not measured (NaN) are left out: see `scalehsi.kernels.poisson.missing_voxels`.

A block is dense or `Counts`. Both take the same loops, strip by strip, and return the same bits.
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
from scalehsi.kernels.compiled import FAST_SUMS, aligned_zeros, padded_width
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import given_rows
from scalehsi.kernels.poisson.channel_loops import gradient_sums, pad_columns, table_width
from scalehsi.kernels.poisson.known_maps import solve_rows_known, split_columns
from scalehsi.kernels.poisson.missing_voxels import add_missed, measured_abundance, measured_sums
from scalehsi.kernels.poisson.pixel_solver import multiply_rows, solve_rows
from scalehsi.kernels.poisson.pixel_steps import solve_quadratic, solve_quadratic4, step_workspace
from scalehsi.schema import InputError

MIN_ENDMEMBER: Final = 1e-12
"""Smallest value of an endmember relative to its mean, so that every count meets a model above zero."""
STRIP_PIXELS: Final = sparse_counts.PIXELS_PER_STRIP
"""Pixels of a dense block that are solved at a time."""
NEWTON_FLOOR: Final = 0.02
"""A Newton step lowers an endmember value to no less than this fraction of its multiplicative update."""


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
    """Solve the abundances of a block, and return the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        Counts, any real dtype, none negative. The cost grows with the number of channels that hold counts, not with E,
        apart from a quick search of a dense block. Runs on a GPU for up to 32 components if ``s`` is the only other
        argument (a CuPy array, or the result of `kernels.cuda.counts_to_device`, which saves a sort at each pass); this
        has not been run on a GPU yet.
    given : array, shape (P, F), optional
        Known abundances of the components ``known``; those of the other components are solved.
    s : array, shape (K, E)
        Endmembers.
    tau : array, shape (K,), optional
        Adds ``tau_k c_k`` to the objective: sparsity, or one over the scale of an exponential prior. Not negative.
    ridge : array, shape (K,), optional
        Adds ``ridge_k c_k^2 / 2`` to the objective: one over the squared scale of a half-normal prior. Not negative.
    simplex : bool, default False
        The abundances of each pixel sum to one, and ``s`` carries the number of counts. Not with ``given``.
    known : sequence of int, shape (F,), optional
        Numbers of the components of ``given``.
    missing : bool, default False
        NaN in a block of floats marks voxels that were not measured, and the likelihood leaves them out. Not with
        ``given``.

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
    for _, c, unmeasured in _solve_strips(x, s, tau, ridge, table, total, simplex=simplex, **beside):
        add_missed(unmeasured, c, missed)
    big_h = table[:, : len(s) * (len(s) + 1) // 2].copy()
    del table
    sums = {"N": gradient_sums(big_h, endmember_columns(s)), "H": big_h} | _named_sums(total, len(s), ridge)
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
    """Solve the maximum-likelihood abundances of a block, and the residuals of the model.

    Parameters
    ----------
    x, given, s, tau, ridge, simplex, known, missing
        As in `update`.
    residual : bool, default True
        False skips the residuals, which cost 2 P E K flops.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels, with ``missing`` over the
        measured ones, and NaN for a pixel without any.
    sums : dict
        ``residual_spectrum`` (E,) sum of data minus model, ``likelihood``, ``C``; with ``ridge`` also ``CC``.
    """
    if _on_gpu(x, s, plain=tau is None and ridge is None and given is None and not (simplex or missing)):
        return cuda.poisson_abundances(x, s=arrays.to_host(s), residual=residual)
    ends = np.ascontiguousarray(endmember_columns(s).T)
    found = np.empty((x.shape[0], len(s)), dtype=np.float32)
    rms, spectrum = np.empty(x.shape[0], dtype=np.float32), np.zeros(s.shape[1])
    total = np.zeros(1 + 2 * len(s))
    none = np.zeros((0, 8))
    beside: dict[str, Any] = {"given": given, "known": known, "missing": missing}
    for part, c, _ in _solve_strips(x, s, tau, ridge, none, total, simplex=simplex, **beside):
        found[part] = c
        for start in range(part.start, part.stop if residual else 0, STRIP_PIXELS):
            some = slice(start, min(start + STRIP_PIXELS, part.stop))
            c_some = c[start - part.start : some.stop - part.start]
            _residual(_dense(x, some), ends, c_some, rms[some], spectrum, int(missing))
        if missing and not isinstance(x, Counts):
            unknown = part.start + np.flatnonzero(~np.isfinite(x[part]).any(axis=1))
            found[unknown], rms[unknown] = np.nan, np.nan
    pixels: dict[str, Any] = {"abundances": found}
    sums = _named_sums(total, len(s), ridge)
    return (pixels | {"residual": rms}, sums | {"residual_spectrum": spectrum}) if residual else (pixels, sums)


def update_from(
    x: arrays.Array | Counts, c: Float, *, s: Float, tau: Float | None = None, ridge: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Update abundances that are kept between passes by one multiplicative step: the reference, and many times slower.

    Parameters
    ----------
    x, s, tau, ridge
        As in `update`.
    c : array, shape (P, K)
        Abundances of the last pass.

    Returns
    -------
    pixels : dict
        ``c`` (P, K) float64, the updated abundances.
    sums : dict
        ``N`` (E, K), ``C`` (K,) and ``likelihood`` at the updated abundances; with ``ridge`` also ``CC``.

    References
    ----------
    Lee and Seung 2001, "Algorithms for non-negative matrix factorization", NIPS 13.
    """
    n = len(s)
    linear, squares = _objective_terms(s, tau, ridge)
    st = pad_columns(np.asarray(s, dtype=np.float64).T, n)
    new = np.array(arrays.to_host(c), dtype=np.float64, order="C")
    table, total = aligned_zeros(len(st), padded_width(n)), np.zeros(1 + 2 * n)
    for part, indptr, channel, value in sparse_counts.strips(x):
        multiply_rows(indptr, channel, value, st, linear, squares, new[part], table, total)
    return {"c": new}, {"N": table[:, :n].copy()} | _named_sums(total, n, ridge)


def objective(
    sums: dict[str, Float], s: Float, constant: float, *, tau: Float | None = None, ridge: Float | None = None
) -> float:
    """Kullback-Leibler divergence at the endmembers of a pass, plus the terms of the priors.

    Parameters
    ----------
    sums : dict
        From `update`, `abundances` or `update_from` at ``s``.
    s : array, shape (K, E)
    constant : float
        ``sum x log x - x`` of the cube.
    tau, ridge
        As in `update`.
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
    """Return two updates of the endmembers ``s`` (K, E) from the sums of a pass at ``s``.

    A channel that no pixel measured becomes zero, and so does one measured only by pixels without abundances.

    Returns
    -------
    newton : array, shape (K, E)
        One Newton step per channel, bounded from below. It converges several times faster than the other update, but
        may raise the objective.
    multiplicative : array, shape (K, E)
        ``s N / C``, which never raises the objective.
    """
    st, c = endmember_columns(s), measured_abundance(sums)
    if "missed" in sums:
        st[~(c > 0).any(axis=1)] = 0.0
    em = _multiplicative_step(sums["N"], c, st)
    newton = em.copy()
    _newton_channels(st, em, sums["N"], sums["H"], c, newton)
    newton = np.where(c > 0, newton, st)
    return np.ascontiguousarray(newton.T), np.ascontiguousarray(em.T)


def improve_multiplicative(sums: dict[str, Float], s: Float) -> Float:
    """Return ``s N / C`` (K, E) from the sums of `update_from` at ``s``, which never raises the objective.

    Zeros stay zeros, and an endmember that no pixel uses stays unchanged.
    """
    st = np.asarray(s, dtype=np.float64).T
    return np.ascontiguousarray(_multiplicative_step(sums["N"], sums["C"], st).T)


def _multiplicative_step(big_n: Float, c: Float, st: Float) -> Float:
    """``st N / c`` for endmembers ``st`` (E, K), with N (E, K) and c broadcast to it; unchanged where c is zero."""
    used = c > 0
    return np.asarray(st * np.where(used, big_n / np.where(used, c, 1.0), 1.0))


def _on_gpu(x: Any, s: Any, *, plain: bool) -> bool:
    """Whether the GPU kernels take this block, given endmembers ``s`` (K, E); ``plain`` without other arguments."""
    plain = plain and s.shape[0] <= cuda.MAX_COMPONENTS
    resident = isinstance(x, cuda.DeviceCounts)
    if resident and not plain:
        raise InputError(
            "counts that lie on the GPU are fitted without costs and constraints, and with at most "
            f"{cuda.MAX_COMPONENTS} components; fit with device='cpu'"
        )
    return resident or (plain and arrays.is_cupy(x))


def _solve_strips(
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
    """Yield strips of pixels with their exact abundances and masks, and add to the table and the sums.

    The abundances (pixels, K) and the mask (pixels or 0, E) are overwritten by those of the next strip. table
    (E, `table_width`) or (0, width) and total (1 + 2 K,): see `pixel_solver.solve_rows`. The rest as in `update`.
    """
    if given is not None or known is not None:
        if missing:
            raise ValueError("known abundances cannot be combined with missing voxels")
        yield from _solve_strips_with_known(x, given, s, tau, ridge, table, total, known=known, simplex=simplex)
        return
    st = endmember_columns(s)
    linear, squares = _objective_terms(st.T, tau, ridge)
    wide, ends = pad_columns(st, len(s)), np.ascontiguousarray(st.T) if missing else st.T
    c = np.empty((STRIP_PIXELS, len(s)))
    strips = sparse_counts.measured_strips(x) if missing else _strips_without_mask(x)
    for (part, indptr, channel, value), unmeasured in strips:
        rows = part.stop - part.start
        if rows > len(c):
            c = np.empty((rows, len(s)))
        costs = linear[None]
        if len(unmeasured):
            costs = measured_sums(unmeasured, ends, charge_unseen=not simplex)
            costs = costs if tau is None else costs + tau
        solve_rows(indptr, channel, value, wide, costs, squares, int(simplex), c[:rows], table, total)
        yield part, c[:rows], unmeasured


def _strips_without_mask(x: arrays.Array | Counts) -> Iterator[tuple[sparse_counts.Rows, Float]]:
    """Yield the strips of a block without missing voxels, each with an empty mask."""
    no_mask = np.zeros((0, 0))
    for rows in sparse_counts.strips(x):
        yield rows, no_mask


def _solve_strips_with_known(
    x: arrays.Array | Counts, given: Any, s: Float, tau: Any, ridge: Any, table: Float, total: Float, *, known: Any,
    simplex: bool
) -> Iterator[tuple[slice, Float, Float]]:  # fmt: skip
    """`_solve_strips` with the known abundances ``given`` (P, F) of the components ``known``."""
    if simplex:
        raise ValueError("on the simplex the abundances of all components are solved; none can be known")
    maps, no_mask = given_rows(given, known, x.shape[0]), np.zeros((0, 0))
    st = endmember_columns(s)
    free, fixed, free_st, fixed_st = split_columns(st, known)
    linear, squares = (terms[free] for terms in _objective_terms(st.T, tau, ridge))
    c = np.empty((STRIP_PIXELS, len(s)))
    for part, indptr, channel, value in sparse_counts.strips(x):
        rows = part.stop - part.start
        if rows > len(c):
            c = np.empty((rows, len(s)))
        solve_rows_known(
            indptr, channel, value, free_st, fixed_st, free, fixed, linear, squares, maps[part], c[:rows], table, total
        )
        yield part, c[:rows], no_mask


def _objective_terms(s: Float, tau: Float | None, ridge: Float | None) -> tuple[Float, Float]:
    """Factors of c and of c^2 / 2 in the objective, each (K,); s (K, E), tau and ridge as in `update`."""
    linear = np.asarray(s, dtype=np.float64).sum(axis=1)
    if tau is not None:
        linear = linear + np.asarray(tau, dtype=np.float64)
    return linear, np.zeros(len(s)) if ridge is None else np.array(ridge, dtype=np.float64)


def _named_sums(total: Float, n: int, ridge: Float | None) -> dict[str, Any]:
    """The sums (1 + 2 n,) of the compiled loops under their names; those of c^2 only with ``ridge``."""
    sums = {"C": total[1 : 1 + n].copy(), "likelihood": float(total[0])}
    return sums if ridge is None else sums | {"CC": total[1 + n :].copy()}


def endmember_columns(s: Float) -> Float:
    """The endmembers as a contiguous (E, K) array, at least MIN_ENDMEMBER times their mean.

    An empty endmember stays empty: if it were raised to a flat one, however faint, it would take all flat counts.
    """
    st: Float = np.ascontiguousarray(np.asarray(s, dtype=np.float64).T)
    return np.asarray(np.maximum(st, MIN_ENDMEMBER * st.mean(axis=0)))


def _dense(x: arrays.Array | Counts, part: slice) -> Float:
    """Some rows as native, writable float64, for any byte order and kind of block."""
    if isinstance(x, Counts):
        return x[part].to_dense(np.float64)
    return np.array(arrays.to_host(x)[part], dtype=np.float64, order="C")


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _residual(x: Any, s: Any, c: Any, rms: Any, spectrum: Any, missing: int) -> None:
    """Write the residual of some rows: ``rms`` (P,), and its sum over the rows, added to ``spectrum`` (E,).

    x (P, E): data, overwritten by the residual. s (K, E), c (P, K): the model. missing: 1 skips values that are not
    finite, else 0.
    """
    channels = x.shape[1]
    for p in range(x.shape[0]):
        rest = x[p]
        for k in range(s.shape[0]):
            abundance, row = c[p, k], s[k]
            if abundance != 0.0:
                for e in range(channels):
                    rest[e] -= abundance * row[e]
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
    """Write one Newton step per channel into ``new`` (E, K): the minimum of the quadratic model above NEWTON_FLOOR.

    st, em (E, K): endmembers, and their multiplicative updates. big_n (E, K), big_h (E, K (K + 1) / 2): sums of a pass.
    c (E, K): factor of the endmembers in the objective, the sum of the abundances.
    """
    channels, n = st.shape
    step, linear = step_workspace(n, max(n, 4)), np.empty(n)
    value, hessian, right, gradient = step.now, step.hessian, step.right, step.gradient
    for e in range(channels):
        top = 0.0
        for k in range(n):
            top = max(top, big_h[e, k * (k + 3) // 2])
        if top <= 0.0:
            continue  # no counts in this channel: the multiplicative value, zero, stays
        index = 0
        for k in range(n):
            linear[k], gradient[k] = c[e, k], big_n[e, k]
            value[k] = max(st[e, k] - NEWTON_FLOOR * em[e, k], 0.0)
            right[k] = 0.0
            for j in range(k + 1):
                hessian[k, j] = big_h[e, index]
                index += 1
            # Relative to each diagonal element, because components need not have comparable units.
            hessian[k, k] += 1e-9 * (hessian[k, k] if hessian[k, k] > 0.0 else top)
        for k in range(n):
            right[k] += gradient[k] - linear[k] + hessian[k, k] * (st[e, k] - NEWTON_FLOOR * em[e, k])
            for j in range(k):
                right[k] += hessian[k, j] * (st[e, j] - NEWTON_FLOOR * em[e, j])
                right[j] += hessian[k, j] * (st[e, k] - NEWTON_FLOOR * em[e, k])
        if n <= 4:
            solve_quadratic4(step, linear)
        else:
            solve_quadratic(step, linear, 0)
        for k in range(n):
            new[e, k] = NEWTON_FLOOR * em[e, k] + value[k]
