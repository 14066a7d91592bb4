"""Scales that bring the sum of the maps of a factorisation close to one in every pixel.

NMF, ICA and networks trained on angles leave a factor between each spectrum and its map undetermined. Where fractions
are known to sum to one, least squares of the sums decides these K numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.nnls import nnls


def sum_to_one_scales(moment: Float, total: Float, *, signed: bool = False) -> Float:
    """Find the factors u of the maps that minimise ``|A u - 1|^2``.

    Parameters
    ----------
    moment : array, shape (K, K)
        ``A' A`` of the maps (P, K), added up over all pixels.
    total : array, shape (K,)
        ``A' 1``, the sum of each map.
    signed : bool, default False
        True allows negative factors, for methods whose signs are arbitrary (ICA).

    Returns
    -------
    array, shape (K,)
        Multiply the maps by it, and divide the spectra. Zero where a component is not needed for the sum: its scale
        stays unknown.

    Examples
    --------
    >>> maps = np.array([[0.5, 0.0], [0.25, 2.0], [0.0, 4.0]])
    >>> sum_to_one_scales(maps.T @ maps, maps.sum(axis=0)).round(6).tolist()
    [2.0, 0.25]
    """
    if signed:
        return np.asarray(np.linalg.lstsq(moment, total, rcond=None)[0])
    return np.asarray(nnls(np.asarray(moment, dtype=np.float64), np.asarray(total, dtype=np.float64)[None])[0])


def map_moments(c: Any) -> dict[str, Any]:
    """The sums that `sum_to_one_scales` takes, of a block of maps (P, K)."""
    wide = np.asarray(c, dtype=np.float64)
    return {"moment": wide.T @ wide, "total": wide.sum(axis=0)}
