"""Least squares: ``1/2 sum_p v_p sum_e w_e (x - c s)^2`` over non-negative ``c`` and ``s``.

``v`` and ``w`` are one, or the weights of Keenan and Kotula (2004, doi:10.1002/sia.1657) that make counting noise
uniform: one over the mean of the pixel, one over the mean of the channel.

An iteration is a function of ``s`` alone. The pass solves ``c`` exactly and adds up ``N = sum v c' x`` (K, E) and
``M = sum v c' c`` (K, K); from these come both the objective, without another pass, and the best ``s`` for that ``c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi import arrays
from scalehsi.kernels import cuda, fused
from scalehsi.kernels.endmembers import least_squares
from scalehsi.kernels.nnls import RIDGE, nnls
from scalehsi.kernels.pivoting import COUPLED, FREE, SIMPLEX

Float = np.ndarray[Any, np.dtype[np.float64]]

STRIP: Final = 256
"""Pixels a strip: its float32 copy stays in cache, and float32 partial sums are added to float64 before they round."""
GPU_COMPONENTS: Final = 32
SMALL: Final = 2**17
"""Values of a block up to which it is worked in float64: few pixels leave few roundings to average out."""
SLAB: Final = 1024
"""Pixels converted at a time where the compiled pass cannot read the data as they are."""


def strips(x: arrays.Array) -> Iterator[tuple[slice, arrays.Array]]:
    """Give slices of rows and the rows themselves as floats: counts stay integers until here."""
    xp = arrays.array_namespace(x)
    single = x.dtype != xp.float64
    for start in range(0, x.shape[0], STRIP):
        part = slice(start, min(start + STRIP, x.shape[0]))
        yield part, xp.astype(x[part, :], xp.float32, copy=False) if single else x[part, :]


def pixel_weight(xp: Any, strip: arrays.Array) -> arrays.Array:
    """One over the mean of each pixel, shape (P, 1); an empty pixel weighs nothing (its residual is zero anyway)."""
    mean = xp.mean(strip, axis=1, keepdims=True)
    return xp.where(mean > 0, 1 / xp.where(mean > 0, mean, xp.ones_like(mean)), xp.zeros_like(mean))


def update(
    x: arrays.Array,
    *,
    s: Float,
    w: Float | None = None,
    weigh_pixels: bool = False,
    gram: Float | None = None,
    shift: Float | None = None,
    simplex: bool = False,
    norm: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E)
        Any real dtype.
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
        Abundances of a pixel sum to one.
    norm : bool
        False leaves out ``sum v w x^2``, which does not depend on ``s``.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (K, E) = sum v c' x, ``M`` (K, K) = sum v c' c, ``C`` (K,) = sum v c, ``norm`` = sum v w x^2.
    """
    if _on_gpu(x, s, simplex=simplex):
        given = {"s": s, "w": w, "gram": gram, "shift": shift}
        return cuda.frobenius_update(x, **_hosted(given), weigh_pixels=weigh_pixels, norm=norm)
    problem = _problem(s, w, gram, shift, simplex=simplex)
    if isinstance(x, np.ndarray):
        return {}, _update_here(x, problem, w, weigh_pixels=weigh_pixels, norm=norm)
    xp = arrays.array_namespace(x)
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved(xp, x, problem, weigh_pixels=weigh_pixels):
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
    *,
    s: Float,
    w: Float | None = None,
    weigh_pixels: bool = False,
    gram: Float | None = None,
    shift: Float | None = None,
    simplex: bool = False,
    residual: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block: exact abundances, and what the model leaves.

    Parameters
    ----------
    x, s, w, weigh_pixels, gram, shift, simplex
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
    if _on_gpu(x, s, simplex=simplex):
        given = {"s": s, "w": w, "gram": gram, "shift": shift}
        return cuda.frobenius_abundances(x, **_hosted(given), weigh_pixels=weigh_pixels, residual=residual)
    problem = _problem(s, w, gram, shift, simplex=simplex)
    if isinstance(x, np.ndarray):
        return _abundances_here(x, s, problem, w, weigh_pixels=weigh_pixels, residual=residual)
    xp = arrays.array_namespace(x)
    found, left = [], []
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved(xp, x, problem, weigh_pixels=weigh_pixels):
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


def _on_gpu(x: arrays.Array, s: Any, *, simplex: bool) -> bool:
    """Whether the kernels written for a GPU take this block; what they do not do runs in any array library."""
    return arrays.is_cupy(x) and s.shape[0] <= GPU_COMPONENTS and not simplex


def _hosted(given: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else arrays.to_host(value) for name, value in given.items()}


class _Problem(NamedTuple):
    """The quadratic problem that every pixel of a pass shares: ``b = x weighted' - shift``."""

    kind: int
    weighted: Float
    gram: Float
    shift: Float


def _problem(s: Any, w: Any, gram: Any, shift: Any, *, simplex: bool) -> _Problem:
    # In float64: rounded to float32, the Gram matrix of similar spectra is no longer positive, and Cholesky makes NaN.
    ends = arrays.to_host(s).astype(np.float64)
    weighted = ends if w is None else ends * arrays.to_host(w)
    matrix = weighted @ ends.T if gram is None else arrays.to_host(gram).astype(np.float64)
    coupled = not np.allclose(matrix, matrix.T, rtol=1e-12, atol=0.0)
    if simplex and coupled:
        raise ValueError("a matrix that is not symmetric has no solution on the simplex")
    linear = np.zeros(len(ends)) if shift is None else arrays.to_host(shift).astype(np.float64)
    return _Problem(SIMPLEX if simplex else COUPLED if coupled else FREE, weighted, matrix, linear)


def _scaled(problem: _Problem) -> tuple[_Problem, Float]:
    """In units in which every component has length one, so that tolerances mean the same for all; and the lengths.

    On the simplex abundances have a unit of their own, so there it is the loss that is scaled.
    """
    length = np.sqrt(np.diag(problem.gram))
    unit = np.where(length > 0, length, 1.0)
    if problem.kind == SIMPLEX:
        unit = np.full_like(unit, length.max(initial=0.0) or 1.0)
    gram = problem.gram / np.outer(unit, unit)
    safe = gram + np.diag(np.where(np.diag(gram) > 0, RIDGE * np.diag(gram), 1.0))
    if problem.kind == SIMPLEX:
        one = float(unit[0])
        scaled = problem._replace(weighted=problem.weighted / one**2, gram=safe, shift=problem.shift / one**2)
        return scaled, np.ones_like(unit)
    return problem._replace(weighted=problem.weighted / unit[:, None], gram=safe, shift=problem.shift / unit), unit


def _slabs(x: np.ndarray[Any, Any]) -> Iterator[tuple[slice, np.ndarray[Any, Any]]]:
    """Slices of rows, and the rows as the compiled passes read them; one slice where nothing need be converted."""
    if x.size <= SMALL:
        yield slice(0, len(x)), np.ascontiguousarray(x, dtype=np.float64)
        return
    ready = x.dtype.isnative and x.dtype.str[1:] in fused.READY and x.flags.c_contiguous
    step = len(x) if ready else SLAB
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        yield part, x[part] if ready else np.ascontiguousarray(x[part], dtype=np.float64 if x.dtype == "f8" else "f4")


def _arguments(x: np.ndarray[Any, Any], problem: _Problem) -> tuple[Any, ...]:
    """What every compiled pass is given beside the data: endmembers, problem, and the room for a tile."""
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    rows = problem.weighted if len(problem.weighted) > 1 else np.vstack([problem.weighted, 0 * problem.weighted])
    buffer = np.zeros((fused.tile_rows(x.shape[1]), x.shape[1]), dtype)
    return np.ascontiguousarray(rows, dtype=dtype), problem.kind, problem.gram, problem.shift, buffer


def _update_here(
    x: np.ndarray[Any, Any], problem: _Problem, w: Float | None, *, weigh_pixels: bool, norm: bool
) -> dict[str, Any]:
    scaled, unit = _scaled(problem)
    n, channels = problem.weighted.shape
    big_n, big_m, used, power = np.zeros((n, channels)), np.zeros((n, n)), np.zeros(n), 0.0
    for _, slab in _slabs(x):
        rows, kind, gram, shift, buffer = _arguments(slab, scaled)
        run = fused.update_pass_in_place if slab.dtype == buffer.dtype else fused.update_pass
        run(slab, rows, kind, gram, shift, int(weigh_pixels), buffer, big_n, big_m, used)
        if norm:
            power += fused.norm_pass(slab, _channel_weights(w, channels), int(weigh_pixels))
    sums = {"N": big_n / unit[:, None], "M": big_m / np.outer(unit, unit), "C": used / unit}
    return sums | {"norm": np.float64(power)} if norm else sums


def _abundances_here(
    x: np.ndarray[Any, Any], s: Float, problem: _Problem, w: Float | None, *, weigh_pixels: bool, residual: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    scaled, unit = _scaled(problem)
    n, channels = problem.weighted.shape
    c = np.empty((len(x), n))
    rms, spectrum, loss = np.empty(len(x), dtype=np.float32), np.zeros(channels), 0.0
    for part, slab in _slabs(x):
        rows, kind, gram, shift, buffer = _arguments(slab, scaled)
        fused.abundances_pass(slab, rows, kind, gram, shift, buffer, c[part])
        c[part] /= unit
        if residual:
            ends = np.ascontiguousarray(s, dtype=np.float64)
            loss += fused.residual_pass(
                slab, c[part], ends, _channel_weights(w, channels), int(weigh_pixels), rms[part], spectrum
            )
    pixels: dict[str, Any] = {"abundances": c.astype(np.float32)}
    if not residual:
        return pixels, {}
    return pixels | {"residual": rms}, {"residual_spectrum": spectrum, "objective": np.float64(loss)}


def _channel_weights(w: Float | None, channels: int) -> Float:
    return np.ones(channels) if w is None else np.ascontiguousarray(w, dtype=np.float64)


def _solved(
    xp: Any, x: arrays.Array, problem: _Problem, *, weigh_pixels: bool
) -> Iterator[tuple[slice, Any, Any, Any]]:
    """Strips with their abundances (P, K) and the weights of their pixels, in any array library."""
    if problem.kind != FREE:
        raise NotImplementedError("the simplex and coupled components run on the CPU")
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    weighted = arrays.to_device_like(problem.weighted, x, dtype)
    for part, strip in strips(x):
        b = strip @ xp.matrix_transpose(weighted)
        if problem.shift.any():
            b = b - arrays.to_device_like(problem.shift, x, dtype)
        c = xp.astype(nnls(arrays.to_device_like(problem.gram, x, xp.float64), b), dtype, copy=False)
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
