"""Least squares: ``1/2 sum_p v_p sum_e w_e (x - c s)^2`` over non-negative ``c`` and ``s``.

``v`` and ``w`` are one, or the weights of Keenan and Kotula (2004, doi:10.1002/sia.1657) that make counting noise
uniform: one over the mean of the pixel, one over the mean of the channel.

An iteration is a function of ``s`` alone. The pass solves ``c`` exactly and adds up ``N = sum v c' x`` (K, E) and
``M = sum v c' c`` (K, K); from these come both the objective, without another pass, and the best ``s`` for that ``c``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import cuda
from scalehsi.kernels.least_squares import fused_pass
from scalehsi.kernels.least_squares.endmember_update import least_squares
from scalehsi.kernels.least_squares.pixel_problem import Parts, Problem, make_problem, parted, scaled
from scalehsi.kernels.pixel_rows.strips import given_rows, pixel_weight, strips
from scalehsi.kernels.quadratic.block_pivoting import FREE
from scalehsi.kernels.quadratic.nnls import nnls

GPU_COMPONENTS: Final = 32
SMALL: Final = 2**17
"""Values of a block up to which it is worked in float64: few pixels leave few roundings to average out."""
SLAB: Final = 1024
"""Pixels converted at a time where the compiled pass cannot read the data as they are."""


def update(
    x: arrays.Array,
    given: arrays.Array | None = None,
    *,
    s: Float,
    w: Float | None = None,
    weigh_pixels: bool = False,
    gram: Float | None = None,
    shift: Float | None = None,
    simplex: bool = False,
    known: Sequence[int] | None = None,
    norm: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E)
        Any real dtype.
    given : array, shape (P, F), optional
        Abundances that are known, of the components ``known``; the others are solved beside them.
    s : array, shape (K, E)
    w : array, shape (E,), optional
        Weight of each channel.
    weigh_pixels : bool
        Divide by the mean of each pixel.
    gram : array, shape (K, K), optional
        Matrix of the quadratic problem of a pixel, where it is not ``s w s'``: with a ridge on its diagonal, or with
        the pull of other components beside it (it need not be symmetric then).
    shift : array, shape (K,), optional
        Linear cost of the abundances, subtracted from ``x w s'``.
    simplex : bool
        Abundances of a pixel sum to one; not with ``given``.
    known : sequence of int, shape (F,), optional
        The components of ``given``.
    norm : bool
        False leaves out ``sum v w x^2``, which does not depend on ``s``.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (K, E) = sum v c' x, ``M`` (K, K) = sum v c' c, ``C`` (K,) = sum v c, ``norm`` = sum v w x^2.
    """
    if _on_gpu(x, s, special=simplex or known is not None):
        there = {"s": s, "w": w, "gram": gram, "shift": shift}
        return cuda.frobenius_update(x, **_hosted(there), weigh_pixels=weigh_pixels, norm=norm)
    problem = make_problem(s, w, gram, shift, simplex=simplex)
    if isinstance(x, np.ndarray):
        rows = given_rows(given, known, len(x))
        return {}, _update_here(x, rows, problem, known, w, weigh_pixels=weigh_pixels, norm=norm)
    xp = arrays.array_namespace(x)
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved(xp, x, given, problem, known, weigh_pixels=weigh_pixels):
        cv = c if v is None else c * v
        # The objective is a small difference of these: the small ones are added in float64.
        parts = {
            "N": xp.matrix_transpose(cv) @ strip,
            "M": xp.astype(xp.matrix_transpose(cv), xp.float64) @ xp.astype(c, xp.float64),
            "C": xp.sum(xp.astype(cv, xp.float64), axis=0),
        }
        if norm:
            square = strip * strip if v is None else strip * strip * v
            channels = xp.sum(square, axis=0, dtype=xp.float64)
            parts["norm"] = xp.sum(channels if w is None else channels * xp.asarray(w, dtype=xp.float64))
        for key, value in parts.items():
            host = arrays.to_host(value).astype(np.float64)
            total[key] = host if key not in total else total[key] + host
    return {}, total


def abundances(
    x: arrays.Array,
    given: arrays.Array | None = None,
    *,
    s: Float,
    w: Float | None = None,
    weigh_pixels: bool = False,
    gram: Float | None = None,
    shift: Float | None = None,
    simplex: bool = False,
    known: Sequence[int] | None = None,
    residual: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block: exact abundances, and what the model leaves.

    Parameters
    ----------
    x, given, s, w, weigh_pixels, gram, shift, simplex, known
        As in `update`. The weight of a whole pixel does not change its abundances.
    residual : bool
        False leaves out the residuals and their cost, 2 P E K flops.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        ``residual_spectrum`` (E,) sum of data minus model, ``objective``.
    """
    if _on_gpu(x, s, special=simplex or known is not None):
        there = {"s": s, "w": w, "gram": gram, "shift": shift}
        return cuda.frobenius_abundances(x, **_hosted(there), weigh_pixels=weigh_pixels, residual=residual)
    problem = make_problem(s, w, gram, shift, simplex=simplex)
    if isinstance(x, np.ndarray):
        rows = given_rows(given, known, len(x))
        return _abundances_here(x, rows, s, problem, known, w, weigh_pixels=weigh_pixels, residual=residual)
    xp = arrays.array_namespace(x)
    found, left = [], []
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved(xp, x, given, problem, known, weigh_pixels=weigh_pixels):
        found.append(xp.astype(c, xp.float32, copy=False))
        if not residual:
            continue
        rest = strip - xp.asarray(found[-1], dtype=strip.dtype) @ xp.asarray(s, dtype=strip.dtype)
        square = rest * rest
        left.append(xp.sqrt(xp.mean(square, axis=1)))
        weighted = square if w is None else square * xp.asarray(w, dtype=square.dtype)
        parts = {
            "residual_spectrum": xp.sum(rest, axis=0),
            "objective": 0.5 * xp.sum(weighted if v is None else weighted * v),
        }
        for key, value in parts.items():
            host = arrays.to_host(value).astype(np.float64)
            total[key] = host if key not in total else total[key] + host
    pixels = {"abundances": xp.concat(found, axis=0)}
    return (pixels | {"residual": xp.concat(left, axis=0)} if residual else pixels), total


def _on_gpu(x: arrays.Array, s: Any, *, special: bool) -> bool:
    """Whether the kernels written for a GPU take this block; what they do not do runs in any array library."""
    return arrays.is_cupy(x) and s.shape[0] <= GPU_COMPONENTS and not special


def _hosted(given: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else arrays.to_host(value) for name, value in given.items()}


def _slabs(x: np.ndarray[Any, Any]) -> Iterator[tuple[slice, np.ndarray[Any, Any]]]:
    """Slices of rows, and the rows as the compiled passes read them; one slice where nothing need be converted."""
    if x.size <= SMALL:
        yield slice(0, len(x)), np.ascontiguousarray(x, dtype=np.float64)
        return
    ready = x.dtype.isnative and x.dtype.str[1:] in fused_pass.READY and x.flags.c_contiguous
    step = len(x) if ready else SLAB
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        yield part, x[part] if ready else np.ascontiguousarray(x[part], dtype=np.float64 if x.dtype == "f8" else "f4")


def _arguments(x: np.ndarray[Any, Any], parts: Parts) -> tuple[Any, ...]:
    """What every compiled pass is told of the problem, its endmembers in the dtype that is worked in."""
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    _, weighted, gram, shift = parts.sought
    rows = weighted if len(weighted) > 1 else np.vstack([weighted, 0 * weighted])
    return np.ascontiguousarray(rows, dtype=dtype), parts.sought.kind, gram, shift, parts.pull


def _buffer(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The room for a tile."""
    return np.zeros((fused_pass.tile_rows(x.shape[1]), x.shape[1]), np.float64 if x.dtype == np.float64 else np.float32)


def _update_here(
    x: np.ndarray[Any, Any], given: Float, problem: Problem, known: Any, w: Float | None, *, weigh_pixels: bool,
    norm: bool,
) -> dict[str, Any]:  # fmt: skip
    even, unit = scaled(problem, known)
    parts = parted(even, known)
    n, channels = problem.weighted.shape
    big_n, big_m, used, power = np.zeros((n, channels)), np.zeros((n, n)), np.zeros(n), 0.0
    for part, slab in _slabs(x):
        buffer = _buffer(slab)
        rows, kind, gram, shift, pull = _arguments(slab, parts)
        run = fused_pass.update_pass_in_place if slab.dtype == buffer.dtype else fused_pass.update_pass
        run(slab, rows, kind, gram, shift, given[part], pull, int(weigh_pixels), buffer, big_n, big_m, used)
        if norm:
            power += fused_pass.norm_pass(slab, _channel_weights(w, channels), int(weigh_pixels))
    back = parts.back
    big_n, big_m, used = big_n[back], big_m[np.ix_(back, back)], used[back]
    sums = {"N": big_n / unit[:, None], "M": big_m / np.outer(unit, unit), "C": used / unit}
    return sums | {"norm": np.float64(power)} if norm else sums


def _abundances_here(
    x: np.ndarray[Any, Any], given: Float, s: Float, problem: Problem, known: Any, w: Float | None, *,
    weigh_pixels: bool, residual: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    even, unit = scaled(problem, known)
    parts = parted(even, known)
    n, channels = problem.weighted.shape
    c = np.empty((len(x), n))
    rms, spectrum, loss = np.empty(len(x), dtype=np.float32), np.zeros(channels), 0.0
    for part, slab in _slabs(x):
        rows, kind, gram, shift, pull = _arguments(slab, parts)
        fused_pass.abundances_pass(slab, rows, kind, gram, shift, given[part], pull, _buffer(slab), c[part])
        c[part] = c[part][:, parts.back] / unit
        if residual:
            ends = np.ascontiguousarray(s, dtype=np.float64)
            loss += fused_pass.residual_pass(
                slab, c[part], ends, _channel_weights(w, channels), int(weigh_pixels), rms[part], spectrum
            )
    pixels: dict[str, Any] = {"abundances": c.astype(np.float32)}
    if not residual:
        return pixels, {}
    return pixels | {"residual": rms}, {"residual_spectrum": spectrum, "objective": np.float64(loss)}


def _channel_weights(w: Float | None, channels: int) -> Float:
    return np.ones(channels) if w is None else np.ascontiguousarray(w, dtype=np.float64)


def _solved(
    xp: Any, x: arrays.Array, given: arrays.Array | None, problem: Problem, known: Any, *, weigh_pixels: bool
) -> Iterator[tuple[slice, Any, Any, Any]]:
    """Strips with their abundances (P, K) and the weights of their pixels, in any array library."""
    if problem.kind != FREE:
        raise NotImplementedError("the simplex and coupled components run on the CPU")
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    parts = parted(problem, known)
    sought = len(parts.sought.gram)
    weighted = arrays.to_device_like(parts.sought.weighted[:sought], x, dtype)
    gram, pull = (arrays.to_device_like(a, x, xp.float64) for a in (parts.sought.gram, parts.pull))
    for part, strip in strips(x):
        b = strip @ xp.matrix_transpose(weighted)
        if parts.sought.shift.any():
            b = b - arrays.to_device_like(parts.sought.shift, x, dtype)
        if given is None:
            c = xp.astype(nnls(gram, b), dtype, copy=False)
        else:
            there = xp.astype(given[part, :], xp.float64)
            c = nnls(gram, xp.astype(b, xp.float64) - there @ pull) if sought else there[:, :0]
            c = xp.astype(xp.concat([c, there], axis=1), dtype, copy=False)
            c = xp.stack([c[:, int(k)] for k in parts.back], axis=1)
        yield part, strip, c, pixel_weight(xp, strip) if weigh_pixels else None


def improve(sums: dict[str, Float], s: Float) -> Float:
    """From the sums of a pass at ``s``: the best ``s`` for the abundances it found.

    Channels are independent given the abundances, so channel weights do not enter.

    Parameters
    ----------
    sums : dict
        As `update` gives, added up over all blocks.
    s : array, shape (K, E)

    Returns
    -------
    array, shape (K, E)
        A component that no pixel uses keeps its spectrum.
    """
    return least_squares(sums["N"], sums["M"], s)


def objective(sums: dict[str, Float], s: Float, w: Float | None = None) -> float:
    """``1/2 (norm - 2 <N, s w> + <M, s w s'>)``: the loss at the point of the pass, from its sums alone."""
    weighted = s if w is None else s * w
    fit = float(np.sum(sums["N"] * weighted))
    return 0.5 * float(sums["norm"] - 2 * fit + np.sum(sums["M"] * (weighted @ s.T)))
