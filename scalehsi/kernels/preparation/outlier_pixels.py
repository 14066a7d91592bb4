"""Find pixels whose total stands out from all around them: dead ones, hot ones, and blinks of the beam."""

from __future__ import annotations

import numpy as np

from scalehsi.arrays import Bool, Float

LEAST_NEIGHBOURS = 4


def outlier_pixels(totals: Float, used: Bool, limit: float) -> Bool:
    """True for pixels whose total differs from its neighbours' by ``limit`` times more than these differ.

    d is the logarithm of a total over the mean of the middle half of its neighbours (8; in a line of pixels 4 to each
    side). An outlier has \\|d\\| above ``limit`` times the larger of the map's spread of d (1.48 medians) and the
    logarithm of the second largest over the second smallest neighbour, which is large at edges of the specimen.

    totals, used (..., y, x): intensity of each pixel, and which are looked at and compared with. limit: above 0.

    Examples
    --------
    >>> totals = np.full((6, 6), 100.0) + np.arange(36).reshape(6, 6)
    >>> totals[2, 3] = 200.0
    >>> np.argwhere(outlier_pixels(totals, np.ones((6, 6), bool), 5.0)).tolist()
    [[2, 3]]
    """
    ny, nx = totals.shape[-2:]
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
    if min(ny, nx) == 1:
        steps = [(0, k) if ny == 1 else (k, 0) for k in (-4, -3, -2, -1, 1, 2, 3, 4)]
    values = np.where(used, totals, np.nan).astype(np.float64)
    near = np.stack([_moved(values, a, b) for a, b in steps], axis=-1)
    # NaN, where there is no neighbour, is sorted behind all others.
    near = np.sort(near, axis=-1)
    count = np.isfinite(near).sum(axis=-1)
    cut = count // 4
    place = np.arange(len(steps))
    middle = (place >= cut[..., None]) & (place < (count - cut)[..., None])
    centre = np.where(middle, near, 0.0).sum(axis=-1) / np.maximum(middle.sum(axis=-1), 1)
    second = [
        np.take_along_axis(near, np.maximum(k, 0)[..., None], axis=-1)[..., 0] for k in (count - 2, np.ones_like(count))
    ]
    looked_at = used & (count >= LEAST_NEIGHBOURS) & (centre > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.where(looked_at, np.log(np.maximum(values, 0.0) / centre), 0.0)
        local = np.where(second[1] > 0, np.log(second[0] / second[1]), np.inf)
    seen = np.abs(d[looked_at])
    spread = 1.48 * float(np.median(seen)) if seen.size else 0.0
    found: Bool = looked_at & (np.abs(d) > limit * np.maximum(spread, np.nan_to_num(local, posinf=np.inf)))
    return found


def _moved(values: Float, down: int, right: int) -> Float:
    """The values (..., y, x) of the neighbours ``down`` and ``right`` of each pixel; NaN where there are none."""
    out = np.full(values.shape, np.nan)
    ny, nx = values.shape[-2:]
    rows, columns = (slice(max(-k, 0), max(min(n - k, n), 0)) for k, n in ((down, ny), (right, nx)))
    from_rows, from_columns = (slice(max(k, 0), max(min(n + k, n), 0)) for k, n in ((down, ny), (right, nx)))
    out[..., rows, columns] = values[..., from_rows, from_columns]
    return out
