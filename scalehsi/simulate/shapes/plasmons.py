"""Square nanoparticles with plasmons: modes at corners, along edges and on faces, on the tail of the zero-loss peak.

A scene in low-loss EELS for which two acquisitions are made: thin structures with peaks that overlap, and no pixel that
shows a mode alone. As all layouts it is a pure function of seed and position
(`scalehsi.simulate.shapes.phase_layouts`), here of any
position, so that rasters of other pixels can be laid over the same region.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import Counted
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window, blurred, fade

CELL: Final = 44.0
"""Side of the cells of the plane that hold one particle each, in spatial pixels."""
HALF: Final = (7.0, 11.0)
"""Half the side of a particle, least and most."""
MARGIN: Final = 0.36
"""Part of a cell on each side where no centre lies."""
BASE: Final = 0.72
"""Tail beside the particles, in units of a mean pixel; within them it is RISE more."""
RISE: Final = 0.6
SOFT: Final = 4.0
"""Width of the step at the rim of a particle."""
REACH: Final = 14.0
"""Modes have died down so far from their particle, and are cut off."""
HEIGHTS: Final = (0.55, 0.5, 0.7)
"""Of the modes at corners, along edges and on faces."""
CORNER: Final = 3.8
RIM: Final = 2.6
"""Widths of modes, in spatial pixels; those of faces, and lengths of those along edges, go with the particle."""
NAMES: Final = ("tail", "corner", "edge", "face")
PEAKS: Final = ((), ((0.62, 0.055, 1.0),), ((0.80, 0.060, 1.0),), ((0.98, 0.085, 1.0), (1.52, 0.25, 0.13)))
"""Energy in eV, half width and height of the resonances of each component."""


class Raster(NamedTuple):
    """Which positions the pixels of a raster have: their footprints' middles are at ``(i + 0.5) pitch + offset``.

    Attributes
    ----------
    pitch : float
        Pixels of the scene that one of the raster is long.
    offset : (float, float)
    samples : int
        Points along each side of a footprint over which is averaged.
    blur : float
        Standard deviation of the probe beyond that, in pixels of the scene.
    """

    pitch: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    samples: int = 1
    blur: float = 0.0


def plasmon_modes(window: Window, *, seed: int, raster: Raster = Raster()) -> Float:  # noqa: B008
    """Abundances of the tail and three modes of nanoparticles, seen by some raster.

    Parameters
    ----------
    window : Window
        Pixels of the raster.
    seed : int
    raster : Raster

    Returns
    -------
    array, shape (4, h, w)

    Examples
    --------
    >>> fine = plasmon_modes(Window(0, 60, 0, 60), seed=1)
    >>> coarse = plasmon_modes(Window(0, 10, 0, 10), seed=1, raster=Raster(pitch=6, samples=6))
    >>> bool(np.allclose(fine.reshape(4, 10, 6, 10, 6).mean(axis=(2, 4)), coarse))
    True
    """
    n, step = raster.samples, raster.pitch / raster.samples
    halo = math.ceil(3 * raster.blur / step)
    y, x = (
        (np.arange(n * low - halo, n * high + halo, dtype=np.float64) + 0.5) * step + move
        for low, high, move in ((window.y0, window.y1, raster.offset[0]), (window.x0, window.x1, raster.offset[1]))
    )
    fine = _modes(np.asarray(y), np.asarray(x), seed)
    out = np.empty((len(fine), window.y1 - window.y0, window.x1 - window.x0))
    for k, field in enumerate(fine):
        seen = blurred(field, raster.blur / step, halo)
        # Added up one after the other, so that rounding never depends on the window.
        total = np.zeros(out.shape[1:])
        for i in range(n):
            for j in range(n):
                total += seen[i::n, j::n]
        out[k] = total / n**2
    return out


def _modes(y: Float, x: Float, seed: int) -> Float:
    """The abundances at the crossings of two axes, (4, h, w)."""
    source, reach = Counted(seed, LAYOUT_STREAM), HALF[1] * math.sqrt(2.0) + REACH
    maps = np.zeros((4, y.size, x.size))
    maps[0] = BASE
    for i in range(math.floor((y[0] - reach) / CELL), math.floor((y[-1] + reach) / CELL) + 1):
        for j in range(math.floor((x[0] - reach) / CELL), math.floor((x[-1] + reach) / CELL) + 1):
            u = source.at(i, j).random(4).tolist()
            centre = [(n + MARGIN + (1 - 2 * MARGIN) * v) * CELL for n, v in ((i, u[0]), (j, u[1]))]
            half, angle = HALF[0] + u[2] * (HALF[1] - HALF[0]), math.pi / 2 * u[3]
            rows = slice(*np.searchsorted(y, (centre[0] - reach, centre[0] + reach)))
            columns = slice(*np.searchsorted(x, (centre[1] - reach, centre[1] + reach)))
            if rows.start < rows.stop and columns.start < columns.stop:
                v, h = y[rows, None] - centre[0], x[None, columns] - centre[1]
                cosine, sine = math.cos(angle), math.sin(angle)
                maps[:, rows, columns] += _particle(cosine * v + sine * h, cosine * h - sine * v, half)
    return maps


def _particle(v: Float, h: Float, half: float) -> Float:
    """What one particle adds, in coordinates along its sides, (4, h, w)."""
    a, b = np.abs(v), np.abs(h)
    beyond = np.maximum(a, b) - half
    inside = 1.0 - fade(beyond / SOFT + 0.5)
    # All modes are gone at the reach, so that a cell need not know of particles far away.
    near = 1.0 - fade(np.maximum(beyond, 0.0) / REACH)
    corner = _peak((a - half) ** 2 + (b - half) ** 2, CORNER) * near
    rim = np.zeros(beyond.shape)
    for across, along in ((a, b), (b, a)):
        rim += _peak((across - half) ** 2, RIM) * _peak(along * along, 0.5 * half)
    dome = _peak(a * a + b * b, 1.1 * half) * inside
    return np.stack([RISE * inside, HEIGHTS[0] * corner, HEIGHTS[1] * rim * near, HEIGHTS[2] * dome])


def _peak(square: Float, width: float) -> Float:
    """One at zero, a quarter at the width; of the square of a distance."""
    level = 1.0 / (1.0 + square / width**2)
    return level * level


def plasmon_spectra(energy_ev: Float) -> Float:
    """Spectra of the tail and of the three modes, each with unit sum over the channels, (4, E).

    Parameters
    ----------
    energy_ev : array, shape (E,)
        Above zero.
    """
    energy = np.asarray(energy_ev, dtype=np.float64)
    spectra = [energy**-1.65]
    for peaks in PEAKS[1:]:
        spectra.append(np.sum([h / (1.0 + ((energy - e) / w) ** 2) for e, w, h in peaks], axis=0))
    made = np.stack(spectra)
    return np.asarray(made / made.sum(axis=1, keepdims=True))
