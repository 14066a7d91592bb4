"""Counts divided at random into two independent halves: what one of them teaches, the other can test."""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.compiled import lean

STEP: Final = np.uint64(0x9E3779B97F4A7C15)
"""Of the counter of the generator (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195)."""


def thin(x: Any, number: Any, *, seed: int, fraction: float) -> np.ndarray[Any, Any]:
    """Keep each count with a given chance: binomial thinning.

    Thinned Poisson counts and those that are left over are Poisson counts too, and independent of each other.

    Parameters
    ----------
    x : array of unsigned integers, shape (..., E)
    number : array of int, shape (...)
        Absolute number of each pixel: with the seed and the channel it decides the random numbers.
    seed : int
    fraction : float, 0 to 1
        The chance.

    Returns
    -------
    array, shape (..., E)
        In the dtype of ``x``.

    Notes
    -----
    Costs a random number a count, some 2 ns.

    Examples
    --------
    >>> x = np.full((1, 1000), 10, dtype="uint8")
    >>> kept = thin(x, np.array([0]), seed=1, fraction=0.5)
    >>> kept.dtype, bool(abs(int(kept.sum()) - 5000) < 300)
    (dtype('uint8'), True)
    """
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    out = np.zeros_like(rows)
    if rows.size:
        limit = np.uint64(min(int(fraction * 2**64), 2**64 - 1))
        places = np.ascontiguousarray(number, dtype=np.int64).reshape(-1)
        _thin_rows(rows, places, np.uint64(seed % 2**64), limit, out)
    return out.reshape(x.shape)


@numba.njit(cache=True, nogil=True)
def _thin_rows(x: Any, number: Any, seed: Any, limit: Any, out: Any) -> None:
    channels = np.uint64(x.shape[1])
    key = _mixed(seed + STEP)
    for p in range(x.shape[0]):
        place = np.uint64(number[p]) * channels
        for e in range(x.shape[1]):
            if x[p, e] > 0:
                state = _mixed(key ^ _mixed((place + np.uint64(e)) * STEP + STEP))
                kept = 0
                for _ in range(x[p, e]):
                    state += STEP
                    kept += _mixed(state) < limit
                out[p, e] = kept


@lean
def _mixed(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
