"""Divide counts at random into independent parts, so that a model fitted to one can be tested on the other."""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.compiled import lean

COUNTER_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
"""Increment of the counter in SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195)."""


def thin(x: Any, number: Any, *, seed: int, fraction: float) -> np.ndarray[Any, Any]:
    """Keep each count with a given probability (binomial thinning).

    The counts that are kept and the remaining ones are again Poisson counts, independent of each other.

    Parameters
    ----------
    x : array of unsigned integers, shape (..., E)
    number : array of int, shape (...)
        Absolute number of each pixel, which with the seed and the channel determines the random numbers.
    seed : int
    fraction : float, 0 to 1
        Probability of keeping a count.

    Returns
    -------
    array, shape (..., E)
        In the dtype of ``x``.

    Notes
    -----
    Draws one random number per count, which costs some 2 ns.

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
    """Write the thinned counts of rows x (P, E) into out; number (P,): pixels; limit: probability times 2^64."""
    channels = np.uint64(x.shape[1])
    key = _splitmix64(seed + COUNTER_STEP)
    for p in range(x.shape[0]):
        place = np.uint64(number[p]) * channels
        for e in range(x.shape[1]):
            if x[p, e] > 0:
                state = _splitmix64(key ^ _splitmix64((place + np.uint64(e)) * COUNTER_STEP + COUNTER_STEP))
                kept = 0
                for _ in range(x[p, e]):
                    state += COUNTER_STEP
                    kept += _splitmix64(state) < limit
                out[p, e] = kept


@lean
def _splitmix64(z: Any) -> Any:
    """The random number of a 64-bit counter."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
