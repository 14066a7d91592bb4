"""What voxels that were not measured change in the likelihood of counts: the sums of the model, and nothing else.

In ``sum c s - x log (c s)`` the logarithm runs over the filled channels, which were all measured. The sum of the model
needs, for the abundances of a pixel, the part of each endmember that the pixel measured, and for a channel of the
endmembers the abundances of the pixels that measured it. Both are all there is less what is missing: two products with
a mask, of the few pixels that are in cache, and none where nothing is missing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.tile_products import add_outer, dots

UNSEEN: Final = 1e-9
"""Part of an endmember below which a pixel did not see it: its abundance there would be what rounding left."""
ROUNDING: Final = 1e-12
"""A difference of two sums over all pixels is zero below this part of them."""


def measured_parts(lost: Float, s: Float, *, hide: bool) -> Float:
    """The sum of each endmember over the channels that each pixel measured, shape (P, K).

    Parameters
    ----------
    lost : array, shape (P, E)
        1 where nothing was measured, else 0; P is a multiple of 4.
    s : array, shape (K, E)
    hide : bool
        True gives an endmember of which a pixel saw nothing its whole sum: it costs there and explains nothing, so that
        its abundance is zero. False leaves it without cost, as is right on the simplex.

    Examples
    --------
    >>> lost = np.zeros((4, 3))
    >>> lost[1, 1:] = 1
    >>> measured_parts(lost, np.array([[0.25, 0.5, 0.25], [0.0, 0.5, 0.5]]), hide=True)[:2].tolist()
    [[1.0, 1.0], [0.25, 1.0]]
    """
    whole = s.sum(axis=1)
    wide = s if len(s) > 1 else np.concatenate([s, np.zeros_like(s)])  # the products need two rows
    gone = np.empty((len(lost), len(wide)))
    dots(lost, wide, gone)
    seen = whole - gone[:, : len(s)]
    return np.where(seen > UNSEEN * whole, seen, whole if hide else 0.0)


def add_missed(lost: Float, c: Float, missed: Float) -> None:
    """Add the abundances ``c`` (P, K) of the pixels that miss a channel to ``missed``, (max(K, 2), E)."""
    if len(lost):
        wide = np.zeros((len(lost), len(missed)))
        wide[: len(c), : c.shape[1]] = c
        add_outer(lost, wide, missed)


def measuring(sums: dict[str, Any]) -> Float:
    """From the sums of a pass: for each channel the abundances of the pixels that measured it, shape (E, K)."""
    c = sums["C"]
    if "missed" not in sums:
        return np.ascontiguousarray(np.broadcast_to(c, sums["N"].shape))
    found = c - sums["missed"]
    return np.where(found > ROUNDING * c, found, 0.0)
