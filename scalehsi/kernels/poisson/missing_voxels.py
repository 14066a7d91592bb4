"""Correct the sums of the Poisson model for voxels that were not measured.

Missing voxels leave the logarithm in ``sum c s - x log (c s)`` alone, because it runs over the filled channels, which
were all measured. They change the sum of the model. The abundances of a pixel need the sum of each endmember over the
channels that this pixel measured. A channel of the endmembers needs the sum of the abundances over the pixels that
measured it. Both are the complete sum minus the missing part, which is a product with the mask. Strips without missing
voxels skip it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.tile_products import add_outer, dots

MIN_SEEN_FRACTION: Final = 1e-9
"""A pixel that measured less than this fraction of an endmember has not seen it: the difference is rounding."""
ROUNDING_FRACTION: Final = 1e-12
"""A difference of two sums over all pixels counts as zero below this fraction of the sums."""


def measured_sums(unmeasured: Float, s: Float, *, charge_unseen: bool) -> Float:
    """Sum each endmember over the channels that each pixel measured, shape (P, K).

    Parameters
    ----------
    unmeasured : array, shape (P, E)
        1 where nothing was measured, else 0; P is a multiple of 4.
    s : array, shape (K, E)
    charge_unseen : bool
        For an endmember that a pixel has not seen at all. True returns its complete sum, so that it costs without
        explaining any count and its abundance becomes zero. False returns zero, as the simplex requires.

    Examples
    --------
    >>> mask = np.zeros((4, 3))
    >>> mask[1, 1:] = 1
    >>> measured_sums(mask, np.array([[0.25, 0.5, 0.25], [0.0, 0.5, 0.5]]), charge_unseen=True)[:2].tolist()
    [[1.0, 1.0], [0.25, 1.0]]
    """
    whole = s.sum(axis=1)
    wide = s if len(s) > 1 else np.concatenate([s, np.zeros_like(s)])  # the products need two rows
    missing = np.empty((len(unmeasured), len(wide)))
    dots(unmeasured, wide, missing)
    seen = whole - missing[:, : len(s)]
    return np.where(seen > MIN_SEEN_FRACTION * whole, seen, whole if charge_unseen else 0.0)


def add_missed(unmeasured: Float, c: Float, missed: Float) -> None:
    """Add the abundances of the pixels that did not measure a channel to the sums of that channel.

    unmeasured (P or more, E): the mask of a strip, 1 where nothing was measured; without rows there is nothing to add.
    c (P, K): abundances. missed (max(K, 2), E): the sums.
    """
    if len(unmeasured):
        wide = np.zeros((len(unmeasured), len(missed)))
        wide[: len(c), : c.shape[1]] = c
        add_outer(unmeasured, wide, missed)


def measured_abundance(sums: dict[str, Any]) -> Float:
    """Sum of the abundances over the pixels that measured each channel, shape (E, K), from the sums of a pass."""
    c = sums["C"]
    if "missed" not in sums:
        return np.ascontiguousarray(np.broadcast_to(c, sums["N"].shape))
    found = c - sums["missed"]
    return np.where(found > ROUNDING_FRACTION * c, found, 0.0)
