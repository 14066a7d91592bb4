"""Compute maps of sinusoids, hills, interfaces and atomic columns, and add noise: functions of seed and position.

As in `scalehsi.simulate.shapes.phase_layouts`, any window of a map can be computed alone and equals the same window of
the whole map bit for bit: functions of one coordinate are computed number by number, and pixels are computed from their
values by ``+ - * /`` and ``sqrt`` only.

Letters: K components, h and w points along y and x. Positions are in pixels: the centre of pixel i is at i + 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import CountedRandom
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window, fade, smooth_noise

NOISE_STREAM: Final = 2**32 + 2**16
MISSING_STREAM: Final = NOISE_STREAM + 1
NOISE_TILE_PIXELS: Final = 64
"""Side of the squares of pixels whose noise is drawn together; their positions are fixed."""
COLUMN_DISTANCE_PIXELS: Final = 6.0
"""Distance of atomic columns of one kind."""
COLUMN_WIDTH_PIXELS: Final = 1.0
"""Standard deviation of an atomic column; its intensity in a map is 1.3 times wider."""


def positions(start: int, stop: int, *, upsample: int = 1) -> Float:
    """Return the positions of the points ``start`` to ``stop``, with ``upsample`` evenly spaced points in a pixel.

    Examples
    --------
    >>> positions(0, 4, upsample=2).tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    return (np.arange(start, stop, dtype=np.float64) + 0.5) / upsample


def _table(function: Callable[[float], float], at: Float) -> Float:
    """Return the values of a function of one coordinate, computed one by one so that the window does not matter."""
    return np.array([function(v) for v in at.tolist()], dtype=np.float64)


def _sine(y: Float, x: Float) -> Float:
    """Return ``sin(y + x)`` for phases along both axes by the addition formula, shape (h, w)."""
    sin_y, cos_y, sin_x, cos_x = _table(math.sin, y), _table(math.cos, y), _table(math.sin, x), _table(math.cos, x)
    return np.asarray(sin_y[:, None] * cos_x + cos_y[:, None] * sin_x)


def sine_maps(y: Float, x: Float, *, components: int, period: float) -> Float:
    """Return maps of products of sinusoids between 0 and 1, with a standard deviation of 1/4.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Positions in pixels.
    components : int
        Number of maps. The first, third, fifth ... are equal; the others have twice the period along x.
    period : float
        Period in pixels.

    Returns
    -------
    array, shape (K, h, w)
    """
    frequency = 2 * math.pi / period

    def product(frequency_x: float) -> Float:
        rows = _table(lambda v: math.sin(frequency * v), y)
        columns = _table(lambda v: math.sin(frequency_x * v), x)
        return np.asarray(0.5 + 0.5 * rows[:, None] * columns)

    single, double = product(frequency), product(frequency / 2)
    return np.stack([double if k % 2 else single for k in range(components)])


def smooth_maps(y: Float, x: Float, *, components: int, feature: float, seed: int) -> Float:
    """Return smooth maps between 0 and 1: an oblique wave, round hills, a wavy interface, then clouds.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Positions in pixels.
    components : int
        Number of maps.
    feature : float
        Distance of the hills in pixels, to which all other lengths are proportional.
    seed : int
        Seed of the clouds; the first three maps do not depend on it.

    Returns
    -------
    array, shape (K, h, w)
    """
    v, u = y / feature, x / feature
    maps = []
    for k in range(components):
        if k == 0:
            maps.append(0.5 + 0.5 * _sine(1.44 * 2 * math.pi * v, 1.92 * 2 * math.pi * u))
        elif k == 1:
            maps.append(_hills(v)[:, None] * _hills(u))
        elif k == 2:
            maps.append(_interface(_sine(math.pi * (v - 0.5), 0.15 * math.pi * _table(_swing, u)) / math.pi, 0.45))
        else:
            maps.append(smooth_noise(4 * v, 4 * u, source=CountedRandom(seed, LAYOUT_STREAM), channel=k))
    return np.stack(maps)


def _swing(u: float) -> float:
    return math.sin(2 * math.pi * u)


def _hills(t: Float, width: float = 0.13) -> Float:
    """Return Gaussian hills at 1/2, 3/2, ... of height one and of standard deviation ``width``."""
    return _table(lambda v: math.exp(-0.5 * ((v - math.floor(v) - 0.5) / width) ** 2), t)


def _interface(distance: Float, width: float) -> Float:
    """Return a smooth step from 0 to 1 for distances from minus half to plus half of the width."""
    return fade(0.5 + distance / width)


def atom_maps(y: Float, x: Float, *, components: int, feature: float) -> Float:
    """Return maps like those of an atomically resolved EELS scan: an interface, and two kinds of atomic columns.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Positions in pixels.
    components : int, at most 6
        Number of maps, in this order: an interface with columns of the first kind; a softer interface with a broad band
        and weak columns of the second kind; a map similar to the first; columns of the second kind; the first map at
        0.12 of its intensity; a weak band with weak columns.
    feature : float
        Distance of the interfaces in pixels.

    Returns
    -------
    array, shape (K, h, w)
    """
    first, second = (_columns(y, s)[:, None] * _columns(x, s) for s in (0.0, COLUMN_DISTANCE_PIXELS / 2))
    v, u = y / feature, x / feature
    across = _sine(0.12 * math.pi * _table(_swing, v), math.pi * (u - 0.5)) / math.pi
    left, right = 1 - _interface(across, 0.15), _interface(across, 0.45)
    band = 0.5 + 0.5 * _sine(1.5 * 2 * math.pi * v, 1.2 * 2 * math.pi * u)
    interface = 0.7 * left * (0.6 + 0.4 * band) + 0.35 * first
    maps = [
        interface,
        0.8 * right + 0.4 * band + 0.2 * second,
        0.6 * left * (0.7 + 0.3 * band) + 0.4 * first,
        0.5 * second,
        0.12 * interface,
        0.08 * band + 0.05 * second,
    ]
    return np.stack(maps[:components])


def _columns(t: Float, shift: float) -> Float:
    """Return Gaussian columns along one axis, displaced by ``shift`` pixels."""

    def height(v: float) -> float:
        half = COLUMN_DISTANCE_PIXELS / 2
        distance = (v - shift + half) % COLUMN_DISTANCE_PIXELS - half
        return math.exp(-0.5 * (distance / (1.3 * COLUMN_WIDTH_PIXELS)) ** 2)

    return _table(height, t)


def add_noise(maps: Float, window: Window, *, noise: Float, missing: float, seed: int) -> Float:
    """Add normal noise to maps in a window, and set missing pixels to NaN.

    Parameters
    ----------
    maps : array, shape (K, h, w)
        Maps without noise.
    window : Window
        Absolute position of the maps.
    noise : array, shape (K,)
        Standard deviation of the noise of each map.
    missing : float, 0 to 1
        Share of missing pixels, which are the same in all maps.
    seed : int
        Seed of the noise and of the missing pixels.

    Returns
    -------
    array, shape (K, h, w)
    """
    out = np.empty_like(maps)
    rng, gone = CountedRandom(seed, NOISE_STREAM), CountedRandom(seed, MISSING_STREAM)
    side = (NOISE_TILE_PIXELS, NOISE_TILE_PIXELS)
    for i in range(window.y0 // NOISE_TILE_PIXELS, (window.y1 - 1) // NOISE_TILE_PIXELS + 1):
        for j in range(window.x0 // NOISE_TILE_PIXELS, (window.x1 - 1) // NOISE_TILE_PIXELS + 1):
            y, x = i * NOISE_TILE_PIXELS, j * NOISE_TILE_PIXELS
            rows = slice(max(y, window.y0), min(y + NOISE_TILE_PIXELS, window.y1))
            columns = slice(max(x, window.x0), min(x + NOISE_TILE_PIXELS, window.x1))
            here = (slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x))
            there = (
                slice(rows.start - window.y0, rows.stop - window.y0),
                slice(columns.start - window.x0, columns.stop - window.x0),
            )
            for k, sigma in enumerate(noise.tolist()):
                out[k][there] = maps[k][there] + sigma * rng.at(i, j, k).standard_normal(side)[here]
            if missing > 0:
                lost = gone.at(i, j).random(side)[here] < missing
                out[:, there[0], there[1]][:, lost] = np.nan
    return out
