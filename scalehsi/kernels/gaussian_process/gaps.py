"""Masks of measured pixels: ``(H, W)`` where all maps have the same gaps, ``(H, W, T)`` where they have their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scalehsi.arrays import Bool, array_namespace


def common_gaps(observed: Any) -> Any:
    """Reduce a mask (H, W, T) of any library to (H, W) where all maps have the same gaps; return others as they are.

    Examples
    --------
    >>> common_gaps(np.ones((4, 5, 3), dtype=bool)).shape
    (4, 5)
    """
    if observed.ndim == 2:
        return observed
    first = observed[..., 0]
    return first if bool(array_namespace(observed).all(observed == first[..., None])) else observed


def common_gaps_of(masks: Sequence[Bool]) -> list[Bool]:
    """Reduce masks (H, W, T) to (H, W) where in each of them all maps have the same gaps."""
    reduced = [common_gaps(mask) for mask in masks]
    return reduced if all(mask.ndim == 2 for mask in reduced) else list(masks)


def by_map(observed: Any) -> Any:
    """View a mask (H, W) or (H, W, T) so that it broadcasts with maps (H, W, T)."""
    return observed if observed.ndim == 3 else observed[..., None]


def choose_tiles(masks: Sequence[Bool], count: int) -> list[int]:
    """Indices of at most ``count`` tiles: the first ones, and for each map that none of them shows the best for it.

    ``masks`` are (H, W) or (H, W, T), of one shape, in the order in which tiles are preferred.
    """
    pixels = np.array([np.atleast_1d(mask.sum(axis=(0, 1))) for mask in masks])
    needed: list[int] = []
    for one in np.flatnonzero(pixels[:count].sum(axis=0) == 0):
        best = int(np.argmax(pixels[:, one]))
        needed += [best] if best not in needed else []
    others = [i for i in range(len(masks)) if i not in needed]
    return [*needed, *others][:count] if len(needed) < count else needed
