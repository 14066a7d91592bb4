"""Bins of neighbouring pixels, added up in one pass; they are aligned to the cube, not to its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi import arrays
from scalehsi.kernels.frobenius import strips


def bin_sums(
    x: arrays.Array, *, index: np.ndarray[Any, Any], shape: tuple[int, ...], sides: tuple[int, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: sums of the pixels of each bin that it touches. Combine with `merge_bins`.

    Parameters
    ----------
    x : array, shape (P, E)
        NaN counts as zero.
    index : array of int, shape (P,)
        Absolute pixel numbers: bins are aligned to these, not to blocks.
    shape, sides : tuple of int
        Pixels of the cube, and of a bin, along each navigation dim.

    Returns
    -------
    pixels : empty dict
    sums : dict
        Lists of one array each: ``number`` (B,) row-major numbers of bins, rising; ``bins`` (B, E) float32.
    """
    xp = arrays.array_namespace(x)
    counts = tuple(-(-n // side) for n, side in zip(shape, sides, strict=True))
    places = np.unravel_index(index, shape)
    owner = np.ravel_multi_index(tuple(p // side for p, side in zip(places, sides, strict=True)), counts)
    number, local = np.unique(owner, return_inverse=True)
    total = np.zeros((len(number), x.shape[1]))
    for part, strip in strips(x):
        # The product below would carry a missing value into every bin of the strip.
        known = xp.where(xp.isfinite(strip), strip, xp.zeros_like(strip))
        touched, position = np.unique(local[part], return_inverse=True)
        # A product with zeros and ones runs in every array library; a strip touches few bins.
        belongs = np.zeros((len(touched), strip.shape[0]))
        belongs[position, np.arange(strip.shape[0])] = 1.0
        total[touched] += arrays.to_host(arrays.to_device_like(belongs, strip, strip.dtype) @ known)
    return {}, {"number": [number], "bins": [total.astype(np.float32)]}


def merge_bins(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """The bins of two parts of a cube; those that both touch are added up."""
    (first,), (second,) = left["number"], right["number"]
    number = np.union1d(first, second)
    bins = np.zeros((len(number), left["bins"][0].shape[1]), dtype=np.float32)
    for part, own in ((left, first), (right, second)):
        bins[np.searchsorted(number, own)] += part["bins"][0]
    return {"number": [number], "bins": [bins]}
