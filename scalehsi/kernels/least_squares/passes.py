"""Passes of least-squares NMF over a block of pixels: minimise ``1/2 sum_p v_p sum_e w_e (x - c s)^2`` over c, s >= 0.

``v`` and ``w`` are one, or the weights of Keenan and Kotula (2004, doi:10.1002/sia.1657) that make counting noise
uniform: one over the mean of the pixel, one over the mean of the channel.

An iteration depends on ``s`` only. The pass solves ``c`` exactly and sums ``N = sum v c' x`` (K, E) and
``M = sum v c' c`` (K, K). The objective and the best ``s`` for this ``c`` follow from the sums without another pass.
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
from scalehsi.kernels.least_squares.pixel_problem import (
    Problem,
    SplitProblem,
    centred,
    make_problem,
    scaled,
    split_known,
)
from scalehsi.kernels.pixel_rows.strips import add_sums, given_rows, pixel_weight, strips
from scalehsi.kernels.quadratic.block_pivoting import NON_NEGATIVE, SIMPLEX
from scalehsi.kernels.quadratic.nnls import nnls

MAX_FLOAT64_VALUES: Final = 2**17
"""Blocks of up to this many values are processed in float64: in a few pixels, rounding errors do not average out."""
PIXELS_PER_SLAB: Final = 1024
"""Pixels converted at a time if the compiled pass cannot read the dtype of the data."""


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
    signed: bool = False,
    known: Sequence[int] | None = None,
    norm: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block, and return the sums for the objective and the next ``s``.

    Parameters
    ----------
    x : array, shape (P, E)
        Any real dtype.
    given : array, shape (P, F), optional
        Known abundances of the components ``known``; the others are solved together with them.
    s : array, shape (K, E)
    w : array, shape (E,), optional
        Weight of each channel.
    weigh_pixels : bool
        Divide by the mean of each pixel.
    gram : array, shape (K, K), optional
        Matrix of the quadratic problem of a pixel if it is not ``s w s'``: with a ridge on its diagonal, or with
        penalties between components (then it need not be symmetric).
    shift : array, shape (K,), optional
        Linear cost of the abundances, subtracted from ``x w s'``.
    simplex : bool
        True if the abundances of a pixel sum to one; not with ``given``.
    signed : bool
        True if abundances may be negative; runs on the CPU only.
    known : sequence of int, shape (F,), optional
        Numbers of the components of ``given``.
    norm : bool
        False skips ``sum v w x^2``, which does not depend on ``s``.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (K, E) = sum v c' x, ``M`` (K, K) = sum v c' c, ``C`` (K,) = sum v c, ``norm`` = sum v w x^2.
    """
    if _on_gpu(x, s, special=known is not None or signed):
        small = {"s": s, "w": w, "gram": gram, "shift": shift}
        return cuda.frobenius_update(x, **_to_host(small), weigh_pixels=weigh_pixels, simplex=simplex, norm=norm)
    problem = make_problem(s, w, gram, shift, simplex=simplex, signed=signed)
    if isinstance(x, np.ndarray):
        rows = given_rows(given, known, len(x))
        return {}, _update_on_cpu(x, rows, problem, known, w, weigh_pixels=weigh_pixels, norm=norm)
    xp = arrays.array_namespace(x)
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved_strips(xp, x, given, problem, known, weigh_pixels=weigh_pixels):
        cv = c if v is None else c * v
        # The objective is a small difference of these sums: M and C, which are small, are added in float64.
        parts = {
            "N": xp.matrix_transpose(cv) @ strip,
            "M": xp.astype(xp.matrix_transpose(cv), xp.float64) @ xp.astype(c, xp.float64),
            "C": xp.sum(xp.astype(cv, xp.float64), axis=0),
        }
        if norm:
            square = strip * strip if v is None else strip * strip * v
            channels = xp.sum(square, axis=0, dtype=xp.float64)
            parts["norm"] = xp.sum(channels if w is None else channels * xp.asarray(w, dtype=xp.float64))
        add_sums(total, parts)
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
    signed: bool = False,
    known: Sequence[int] | None = None,
    residual: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block exactly in the last pass, and return the residuals of the model.

    Parameters
    ----------
    x, given, s, w, weigh_pixels, gram, shift, simplex, signed, known
        As in `update`. The weight of a whole pixel does not change its abundances.
    residual : bool
        False skips the residuals and their cost, 2 P E K flops.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        ``residual_spectrum`` (E,) sum of data minus model, ``objective``.
    """
    if _on_gpu(x, s, special=known is not None or signed):
        small = {"s": s, "w": w, "gram": gram, "shift": shift}
        options: dict[str, Any] = {"weigh_pixels": weigh_pixels, "simplex": simplex, "residual": residual}
        return cuda.frobenius_abundances(x, **_to_host(small), **options)
    problem = make_problem(s, w, gram, shift, simplex=simplex, signed=signed)
    if isinstance(x, np.ndarray):
        rows = given_rows(given, known, len(x))
        return _abundances_on_cpu(x, rows, s, problem, known, w, weigh_pixels=weigh_pixels, residual=residual)
    xp = arrays.array_namespace(x)
    found, rms = [], []
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved_strips(xp, x, given, problem, known, weigh_pixels=weigh_pixels):
        found.append(xp.astype(c, xp.float32, copy=False))
        if not residual:
            continue
        residuals = strip - xp.asarray(found[-1], dtype=strip.dtype) @ xp.asarray(s, dtype=strip.dtype)
        square = residuals * residuals
        rms.append(xp.sqrt(xp.mean(square, axis=1)))
        weighted = square if w is None else square * xp.asarray(w, dtype=square.dtype)
        parts = {
            "residual_spectrum": xp.sum(residuals, axis=0),
            "objective": 0.5 * xp.sum(weighted if v is None else weighted * v),
        }
        add_sums(total, parts)
    pixels = {"abundances": xp.concat(found, axis=0)}
    return (pixels | {"residual": xp.concat(rms, axis=0)} if residual else pixels), total


def _on_gpu(x: arrays.Array, s: Any, *, special: bool) -> bool:
    """True if the CUDA kernels can process this block; the code for any array library processes all others.

    x is the block, s (K, E); special is True for options that the CUDA kernels do not have.
    """
    return arrays.is_cupy(x) and s.shape[0] <= cuda.MAX_COMPONENTS and not special


def _to_host(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else arrays.to_host(value) for name, value in values.items()}


def _slabs(x: np.ndarray[Any, Any]) -> Iterator[tuple[slice, np.ndarray[Any, Any]]]:
    """Slices of rows, and the rows in a dtype of the compiled passes; one slice if no conversion is needed."""
    if x.size <= MAX_FLOAT64_VALUES:
        yield slice(0, len(x)), np.ascontiguousarray(x, dtype=np.float64)
        return
    readable = x.dtype.isnative and x.dtype.str[1:] in fused_pass.READABLE_DTYPES
    ready = readable and x.flags.c_contiguous and x.flags.aligned
    step = len(x) if ready else PIXELS_PER_SLAB
    for start in range(0, len(x), step):
        part = slice(start, min(start + step, len(x)))
        yield part, x[part] if ready else np.ascontiguousarray(x[part], dtype=np.float64 if x.dtype == "f8" else "f4")


def _dtype(x: np.ndarray[Any, Any]) -> Any:
    """The dtype in which a pass multiplies the rows of ``x``."""
    return np.float64 if x.dtype == np.float64 else np.float32


def _arguments(parts: SplitProblem, dtype: Any) -> tuple[Any, ...]:
    """Problem as arguments of the compiled passes, with the endmembers in the dtype of the computation."""
    _, weighted, gram, shift = parts.unknown
    rows = weighted if len(weighted) > 1 else np.vstack([weighted, 0 * weighted])
    # Copies, as arrays that may not be written, or in another order, would be compiled for once more.
    plain = (np.array(a, order="C") for a in (gram, shift, parts.known_gram))
    return np.array(rows, dtype=dtype, order="C"), parts.unknown.kind, *plain


def _buffer(channels: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Buffer for a tile, in the dtype of the computation."""
    return np.zeros((fused_pass.tile_rows(channels), channels), dtype)


def _update_on_cpu(
    x: np.ndarray[Any, Any], given: Float, problem: Problem, known: Any, w: Float | None, *, weigh_pixels: bool,
    norm: bool,
) -> dict[str, Any]:  # fmt: skip
    """Run `update` on the CPU: x (P, E), given (P, F), the rest as in `update`."""
    unit_problem, unit = scaled(problem, known)
    parts = split_known(unit_problem, known)
    n, channels = problem.weighted.shape
    big_n, big_m, used, power = np.zeros((n, channels)), np.zeros((n, n)), np.zeros(n), 0.0
    for part, slab in _slabs(x):
        buffer = _buffer(channels, _dtype(slab))
        rows, kind, gram, shift, known_gram = _arguments(parts, _dtype(slab))
        fused_pass.update_pass(
            slab, rows, kind, gram, shift, given[part], known_gram, int(weigh_pixels), buffer, big_n, big_m, used
        )
        if norm:
            power += fused_pass.norm_pass(slab, _channel_weights(w, channels), int(weigh_pixels))
    order = parts.inverse_order
    big_n, big_m, used = big_n[order], big_m[np.ix_(order, order)], used[order]
    sums = {"N": big_n / unit[:, None], "M": big_m / np.outer(unit, unit), "C": used / unit}
    return sums | {"norm": np.float64(power)} if norm else sums


def _abundances_on_cpu(
    x: np.ndarray[Any, Any], given: Float, s: Float, problem: Problem, known: Any, w: Float | None, *,
    weigh_pixels: bool, residual: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Run `abundances` on the CPU: x (P, E), given (P, F), s (K, E), the rest as in `abundances`."""
    unit_problem, unit = scaled(problem, known)
    parts = split_known(unit_problem, known)
    n, channels = problem.weighted.shape
    c = np.empty((len(x), n))
    rms, spectrum, loss = np.empty(len(x), dtype=np.float32), np.zeros(channels), 0.0
    for part, slab in _slabs(x):
        dtype = _dtype(slab)
        rows, kind, gram, shift, known_gram = _arguments(parts, dtype)
        centre, mixing = np.zeros(0, dtype), np.zeros((0, n))
        if kind == SIMPLEX:
            centre, rows, mixing, shift = centred(parts.unknown, s, w, dtype)
        buffer = _buffer(channels, rows.dtype)
        fused_pass.abundances_pass(
            slab, rows, kind, gram, shift, given[part], known_gram, centre, mixing, buffer, c[part]
        )
        c[part] = c[part][:, parts.inverse_order] / unit
        if residual:
            ends = np.array(s, dtype=np.float64, order="C")
            loss += fused_pass.residual_pass(
                slab, c[part], ends, _channel_weights(w, channels), int(weigh_pixels), rms[part], spectrum
            )
    pixels: dict[str, Any] = {"abundances": c.astype(np.float32)}
    if not residual:
        return pixels, {}
    return pixels | {"residual": rms}, {"residual_spectrum": spectrum, "objective": np.float64(loss)}


def _channel_weights(w: Float | None, channels: int) -> Float:
    return np.ones(channels) if w is None else np.array(w, dtype=np.float64)


def _solved_strips(
    xp: Any, x: arrays.Array, given: arrays.Array | None, problem: Problem, known: Any, *, weigh_pixels: bool
) -> Iterator[tuple[slice, Any, Any, Any]]:
    """Yield the slice, rows, abundances (P, K) and pixel weights of each strip, in any array library ``xp``.

    x, given, known and weigh_pixels as in `update`; problem holds the endmembers and options.
    """
    if problem.kind != NON_NEGATIVE:
        raise NotImplementedError("the simplex, signed abundances and matrices that are not symmetric run on the CPU")
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    parts = split_known(problem, known)
    unknown = len(parts.unknown.gram)
    weighted = arrays.to_device_like(parts.unknown.weighted[:unknown], x, dtype)
    gram, known_gram = (arrays.to_device_like(a, x, xp.float64) for a in (parts.unknown.gram, parts.known_gram))
    for part, strip in strips(x):
        b = strip @ xp.matrix_transpose(weighted)
        if parts.unknown.shift.any():
            b = b - arrays.to_device_like(parts.unknown.shift, x, dtype)
        if given is None:
            c = xp.astype(nnls(gram, b), dtype, copy=False)
        else:
            rows = xp.astype(given[part, :], xp.float64)
            c = nnls(gram, xp.astype(b, xp.float64) - rows @ known_gram) if unknown else rows[:, :0]
            c = xp.astype(xp.concat([c, rows], axis=1), dtype, copy=False)
            c = xp.stack([c[:, int(k)] for k in parts.inverse_order], axis=1)
        yield part, strip, c, pixel_weight(xp, strip) if weigh_pixels else None


def improve(sums: dict[str, Float], s: Float) -> Float:
    """Compute the best ``s`` for the abundances of a pass at ``s``, from the sums of that pass.

    For fixed abundances the channels are independent, so the result does not depend on the channel weights.

    Parameters
    ----------
    sums : dict
        As returned by `update`, added over all blocks.
    s : array, shape (K, E)

    Returns
    -------
    array, shape (K, E)
        A component that no pixel uses keeps its spectrum.
    """
    return least_squares(sums["N"], sums["M"], s)


def objective(sums: dict[str, Float], s: Float, w: Float | None = None) -> float:
    """Compute the loss at the ``s`` of a pass from its sums, ``1/2 (norm - 2 <N, s w> + <M, s w s'>)``.

    Parameters
    ----------
    sums : dict
        As returned by `update` at ``s``, added over all blocks.
    s : array, shape (K, E)
    w : array, shape (E,), optional
        Weight of each channel.
    """
    weighted = s if w is None else s * w
    fit = float(np.sum(sums["N"] * weighted))
    return 0.5 * float(sums["norm"] - 2 * fit + np.sum(sums["M"] * (weighted @ s.T)))
