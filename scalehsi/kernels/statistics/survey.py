"""Survey of a block before any fit: sums, numbers of bad and negative values, and a random sample of pixels."""

from __future__ import annotations

import math
from typing import Any, Final

import array_api_compat
import numba
import numpy as np

from scalehsi import arrays
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.statistics.variance_index import pair_sums

TABLE_COUNTS: Final = 256
"""Logarithms of counts below this value are tabulated."""
SAMPLE_ITEM_BYTES: Final = 4
"""Largest size of a value of the sample: 64-bit numbers become float32, as in all passes."""


@np.errstate(over="ignore", invalid="ignore")  # the caller detects squares that are Inf in ``norm``
def survey(
    x: arrays.Array, *, index: np.ndarray[Any, Any], stride: int, seed: int, entropy: bool = True, width: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read every value of a block once.

    Parameters
    ----------
    x : array, shape (P, E)
    index : array, shape (P,)
        Absolute pixel numbers.
    stride : int
        One pixel in this many joins the sample, see `in_sample`.
    seed : int
        Seed of the sample.
    entropy : bool
        False skips the logarithms, which cost more than all other sums unless the data are counts; ``entropy`` is then
        zero.
    width : int
        Pixels of a row of the map. Not 0: also ``pair_squares`` and ``pair_means`` (E,), the sums of
        `variance_index.variance_index_of_sums` over the sampled pixels whose next one in the row is in the block.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``pixels``, ``spectrum`` (E,), ``negative`` (number of values), ``bad`` (number of NaN and Inf), ``measured``
        (E,) (number of finite values), ``filled`` (number of values that are not zero), ``norm`` = sum x^2, ``entropy``
        = sum x log x - x over positive values, ``empty`` (number of pixels of zeros), and the lists ``sample`` (rows)
        and ``sample_index``.
    """
    xp = arrays.array_namespace(x)
    names = ("spectrum", "negative", "bad", "measured", "filled", "norm", "entropy", "empty")
    sums: dict[str, Any] = {"pixels": x.shape[0], **dict.fromkeys(names, 0)}
    counted = isinstance(x, np.ndarray) and x.dtype.kind == "u"
    if counted:
        sums |= _of_counts(x, entropy=entropy)
    for _, strip in () if counted else strips(x):
        finite = xp.isfinite(strip)
        clean = xp.where(finite, strip, xp.zeros_like(strip))
        parts = {
            "spectrum": xp.sum(clean, axis=0),
            "negative": xp.sum(xp.astype(clean < 0, xp.int64)),
            "bad": xp.sum(xp.astype(~finite, xp.int64)),
            "measured": xp.sum(xp.astype(finite, xp.int64), axis=0),
            "filled": xp.sum(xp.astype(clean != 0, xp.int64)),
            "norm": xp.sum(clean * clean),
            "empty": xp.sum(xp.astype(~xp.any(clean != 0, axis=1), xp.int64)),
        }
        if entropy:
            parts["entropy"] = xp.sum(_entropy(xp, clean))
        for key, value in parts.items():
            host = arrays.to_host(value)
            sums[key] = sums[key] + (host.astype(np.float64) if host.dtype.kind == "f" else host)
    chosen = in_sample(index, stride=stride, seed=seed)
    rows = np.flatnonzero(chosen)
    sample = arrays.to_host(xp.take(x, xp.asarray(rows, device=array_api_compat.device(x)), axis=0))
    if sample.dtype.itemsize > SAMPLE_ITEM_BYTES:
        sample = sample.astype(np.float32)
    sums["sample"] = [sample] if rows.size else []
    sums["sample_index"] = [index[rows]] if rows.size else []
    if width:
        paired = rows[_has_next(index, rows, width)]
        squares, means = pair_sums(x, paired, paired + 1)
        sums |= {"pair_squares": squares, "pair_means": means}
    return {}, sums


def _has_next(index: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Whether the next pixel in the row of the map is the next one in the block.

    index (P,): numbers of the pixels. rows: of the block, those that are asked for. width: pixels of a row of the map.
    """
    there = index[np.minimum(rows + 1, len(index) - 1)] == index[rows] + 1
    return np.asarray(there & ((index[rows] + 1) % width != 0))


def _of_counts(x: np.ndarray[Any, Any], *, entropy: bool) -> dict[str, Any]:
    """Sums over counts (P, E), which are never negative or missing, from the values that are not zero."""
    pixels, channels = x.shape
    spectrum, totals = np.zeros(channels), np.zeros(4)
    steps = np.arange(1.0, TABLE_COUNTS)
    small = np.concatenate([[0.0], steps * np.log(steps) - steps]) if entropy else np.zeros(TABLE_COUNTS)
    for _, indptr, channel, value in sparse_counts.strips(x):
        _add_counts(indptr, channel, value, small, spectrum, totals)
    filled, norm, logarithms, empty = totals
    return {
        "spectrum": spectrum,
        "measured": np.full(channels, pixels, dtype=np.int64),
        "filled": int(filled),
        "norm": norm,
        "entropy": logarithms if entropy else 0.0,
        "empty": int(empty),
    }


@numba.njit(cache=True, nogil=True)
def _add_counts(indptr: Any, channel: Any, value: Any, small: Any, spectrum: Any, totals: Any) -> None:
    """Add the counts of a strip to the spectrum and the totals.

    indptr, channel, value: rows from `sparse_counts.strips`. small: table of ``x log x - x``. spectrum (E,). totals
    (4,): filled values, sum x^2, sum x log x - x, empty pixels.
    """
    norm = entropy = empty = 0.0
    for p in range(len(indptr) - 1):
        if indptr[p] == indptr[p + 1]:
            empty += 1.0
        for i in range(indptr[p], indptr[p + 1]):
            v = value[i]
            spectrum[channel[i]] += v
            norm += v * v
            entropy += small[int(v)] if v < len(small) else v * math.log(v) - v
    totals[0] += indptr[-1]
    totals[1] += norm
    totals[2] += entropy
    totals[3] += empty


def _entropy(xp: Any, clean: arrays.Array) -> arrays.Array:
    """``x log x - x`` of the positive values, zero elsewhere."""
    positive = clean > 0
    logarithm = xp.log(xp.where(positive, clean, xp.ones_like(clean)))
    return xp.where(positive, clean * logarithm - clean, xp.zeros_like(clean))


def in_sample(index: np.ndarray[Any, Any], *, stride: int, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which pixels join a random sample: one of every ``stride`` consecutive ones.

    A regular stride would coincide with lattices and scan lines. The choice depends on the seed and the absolute number
    ``index`` (P,) of the pixels alone, so that no chunking changes it.

    Examples
    --------
    >>> in_sample(np.arange(12), stride=4, seed=0).reshape(3, 4).sum(axis=1).tolist()
    [1, 1, 1]
    """
    group = index.astype(np.uint64) // np.uint64(stride)
    drawn = (splitmix64(group, seed) % np.uint64(stride)).astype(np.int64)
    return np.asarray(index - group.astype(np.int64) * stride == drawn)


def splitmix64(number: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Random 64-bit numbers from counters, by SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        z = number.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)
