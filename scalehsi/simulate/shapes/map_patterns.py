"""Maps of known form, and noise on them: pure functions of (seed, absolute position).

As in `scalehsi.simulate.shapes.phase_layouts` any window of a map can be computed alone and equals the same window of
the whole, bit
for bit: functions of one coordinate are tabled number by number, and pixels are made of these by ``+ - * /`` and
``sqrt`` alone.

Letters: K components, h and w points along y and x. Positions are in pixels: the centre of pixel i lies at i + 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalehsi.kernels.statistics.counted_random import Counted
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window, fade, smooth_noise

Float = NDArray[np.float64]

NOISE_STREAM: Final = 2**32 + 2**16
MISSING_STREAM: Final = NOISE_STREAM + 1
NOISE_TILE: Final = 64
"""Side of the squares of pixels whose noise is drawn together; they lie at fixed places."""
COLUMNS: Final = 6.0
"""Distance of atomic columns of one kind, in pixels."""
COLUMN_WIDTH: Final = 1.0
"""Standard deviation of an atomic column, in pixels."""


def positions(start: int, stop: int, *, upsample: int = 1) -> Float:
    """Positions of a run of points, ``upsample`` a pixel, which divide each pixel evenly.

    Examples
    --------
    >>> positions(0, 4, upsample=2).tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    return (np.arange(start, stop, dtype=np.float64) + 0.5) / upsample


def _table(function: Callable[[float], float], at: Float) -> Float:
    """Values of a function of one coordinate: one by one, so that they never depend on the window."""
    return np.array([function(v) for v in at.tolist()], dtype=np.float64)


def _sine(y: Float, x: Float) -> Float:
    """``sin(y + x)`` for phases along both axes, by the sum formula; shape (h, w)."""
    sin_y, cos_y, sin_x, cos_x = _table(math.sin, y), _table(math.cos, y), _table(math.sin, x), _table(math.cos, x)
    return np.asarray(sin_y[:, None] * cos_x + cos_y[:, None] * sin_x)


def sine_maps(y: Float, x: Float, *, components: int, period: float) -> Float:
    """Products of sinusoids between 0 and 1, with a standard deviation of 1/4.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Positions in pixels.
    components : int
        The first, third, fifth ... are the same map; the others have twice the period along x.
    period : float
        In pixels.

    Returns
    -------
    array, shape (K, h, w)
    """
    turn = 2 * math.pi / period

    def product(along_x: float) -> Float:
        rows = _table(lambda v: math.sin(turn * v), y)
        columns = _table(lambda v: math.sin(along_x * v), x)
        return np.asarray(0.5 + 0.5 * rows[:, None] * columns)

    single, double = product(turn), product(turn / 2)
    return np.stack([double if k % 2 else single for k in range(components)])


def smooth_maps(y: Float, x: Float, *, components: int, feature: float, seed: int) -> Float:
    """Smooth maps between 0 and 1: an oblique wave, round hills, a wavy interface, and clouds from the fourth on.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Positions in pixels.
    components : int
    feature : float
        Pixels from hill to hill; all else is in proportion.
    seed : int
        Decides the clouds; the first three maps are always the same.

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
            maps.append(smooth_noise(4 * v, 4 * u, source=Counted(seed, LAYOUT_STREAM), channel=k))
    return np.stack(maps)


def _swing(u: float) -> float:
    return math.sin(2 * math.pi * u)


def _hills(t: Float, width: float = 0.13) -> Float:
    """Gaussian hills at 1/2, 3/2, ... with height one."""
    return _table(lambda v: math.exp(-0.5 * ((v - math.floor(v) - 0.5) / width) ** 2), t)


def _interface(distance: Float, width: float) -> Float:
    """A smooth step from 0 to 1 where a distance goes from minus to plus half of the width."""
    return fade(0.5 + distance / width)


def atom_maps(y: Float, x: Float, *, components: int, feature: float) -> Float:
    """Maps as those of an atomically resolved EELS scan: an interface, and columns of two kinds every 6 pixels.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Positions in pixels.
    components : int, at most 6
        An interface with columns; a softer one with a broad band and few columns; much as the first; the other kind of
        columns alone; the first again, far below its noise; a faint band.
    feature : float
        Distance of interfaces, in pixels: there is one in the middle of every ``feature``.

    Returns
    -------
    array, shape (K, h, w)
    """
    first, second = (_columns(y, s)[:, None] * _columns(x, s) for s in (0.0, COLUMNS / 2))
    v, u = y / feature, x / feature
    across = _sine(0.12 * math.pi * _table(_swing, v), math.pi * (u - 0.5)) / math.pi
    left, right = 1 - _interface(across, 0.15), _interface(across, 0.45)
    band = 0.5 + 0.5 * _sine(1.5 * 2 * math.pi * v, 1.2 * 2 * math.pi * u)
    rough = 0.7 * left * (0.6 + 0.4 * band) + 0.35 * first
    maps = [
        rough,
        0.8 * right + 0.4 * band + 0.2 * second,
        0.6 * left * (0.7 + 0.3 * band) + 0.4 * first,
        0.5 * second,
        0.12 * rough,
        0.08 * band + 0.05 * second,
    ]
    return np.stack(maps[:components])


def _columns(t: Float, shift: float) -> Float:
    """Gaussian columns along one axis, COLUMNS apart."""

    def height(v: float) -> float:
        d = (v - shift + COLUMNS / 2) % COLUMNS - COLUMNS / 2
        return math.exp(-0.5 * (d / (1.3 * COLUMN_WIDTH)) ** 2)

    return _table(height, t)


def add_noise(maps: Float, window: Window, *, noise: Float, missing: float, seed: int) -> Float:
    """Maps as they are measured in a window: with normal noise, and NaN where a pixel is missing.

    Parameters
    ----------
    maps : array, shape (K, h, w)
    window : Window
        Where they lie.
    noise : array, shape (K,)
        Standard deviations.
    missing : float, 0 to 1
        Share of pixels that have no value, the same in all maps.
    seed : int

    Returns
    -------
    array, shape (K, h, w)
    """
    out = np.empty_like(maps)
    rng, gone = Counted(seed, NOISE_STREAM), Counted(seed, MISSING_STREAM)
    side = (NOISE_TILE, NOISE_TILE)
    for i in range(window.y0 // NOISE_TILE, (window.y1 - 1) // NOISE_TILE + 1):
        for j in range(window.x0 // NOISE_TILE, (window.x1 - 1) // NOISE_TILE + 1):
            y, x = i * NOISE_TILE, j * NOISE_TILE
            rows = slice(max(y, window.y0), min(y + NOISE_TILE, window.y1))
            columns = slice(max(x, window.x0), min(x + NOISE_TILE, window.x1))
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
