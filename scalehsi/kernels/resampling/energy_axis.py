"""Rebin spectra from one energy axis to another so that the number of counts is conserved."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy

from scalehsi.arrays import Float

EDGE_TOLERANCE: Final = 0.05
"""A channel lies within an axis if it extends beyond the end by at most this fraction of its width."""


def edges(axis: Float) -> Float:
    """Limits (E + 1,) of the channels with the given centres (E,), in the order of the axis, rising or falling."""
    centres = np.asarray(axis, dtype=np.float64)
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def common_channels(axis: Float, other: Float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which channels (E,) of an axis lie within the range of another axis; both are centres of channels.

    Examples
    --------
    >>> common_channels(np.arange(6.0), np.arange(2.0, 9.0)).tolist()
    [False, False, True, True, True, True]
    """
    limits, beyond = edges(axis), edges(other)
    low, high = np.minimum(limits[:-1], limits[1:]), np.maximum(limits[:-1], limits[1:])
    slack = EDGE_TOLERANCE * (high - low)
    return np.asarray((low >= beyond.min() - slack) & (high <= beyond.max() + slack))


def rebin(spectra: Float, *, axis: Float, to: Float, smooth: bool = True) -> Float:
    """Rebin the counts of spectra into the channels of another axis.

    Parameters
    ----------
    spectra : array, shape (K, E)
        Counts in each channel.
    axis : array, shape (E,)
        Centres of the channels, rising or falling.
    to : array, shape (F,)
        Centres of the new channels, in the same unit.
    smooth : bool, default True
        True distributes the counts within a channel smoothly, by monotone interpolation of the running sum. Finer
        channels then show no steps, and spectra that are not negative stay so. False distributes them evenly. This is
        linear: the sum of rebinned spectra is the rebinned sum.

    Returns
    -------
    array, shape (K, F)
        The sum between limits that both axes share is unchanged. New channels beyond the old axis are zero.

    References
    ----------
    Fritsch and Butland 1984, doi:10.1137/0905021 (the interpolation).

    Examples
    --------
    >>> rebin(np.array([[1.0, 2.0, 3.0, 4.0]]), axis=np.arange(4.0), to=np.array([0.5, 2.5])).tolist()
    [[3.0, 7.0]]
    """
    limits, wanted = edges(axis), edges(to)
    values = np.asarray(spectra, dtype=np.float64)
    if limits[0] > limits[-1]:
        limits, values = limits[::-1], values[:, ::-1]
    running = np.concatenate([np.zeros((len(values), 1)), values.cumsum(axis=1)], axis=1)
    inside = np.clip(wanted, limits[0], limits[-1])
    if smooth:
        at = scipy.interpolate.PchipInterpolator(limits, running, axis=1)(inside)
    else:
        at = np.stack([np.interp(inside, limits, row) for row in running])
    found = np.diff(at, axis=1)
    return np.asarray(found if wanted[0] < wanted[-1] else -found)
