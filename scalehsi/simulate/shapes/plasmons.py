"""Compute abundances and low-loss EELS spectra of plasmon modes of square nanoparticles.

The modes are at corners, along edges and on faces, on the tail of the zero-loss peak. The scene has thin structures,
overlapping peaks, and no pixel with one mode only. Like all layouts it is a function of seed and position
(`scalehsi.simulate.shapes.phase_layouts`). The position may be any number, so that acquisitions with pixels of other
sizes can be simulated of the same region.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import CountedRandom
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window, blurred, fade

CELL_PIXELS: Final = 44.0
"""Side of the square cells with one particle each, in spatial pixels, as all lengths here."""
HALF_SIDE_PIXELS: Final = (7.0, 11.0)
"""Least and largest half side of a particle."""
CELL_MARGIN: Final = 0.36
"""Share of a cell on each side in which no centre lies."""
TAIL_LEVEL: Final = 0.72
"""Abundance of the tail beside the particles; 1 is a mean pixel."""
TAIL_RISE: Final = 0.6
"""Increase of the tail's abundance inside the particles."""
SIDE_WIDTH_PIXELS: Final = 4.0
"""Width of the smooth step at the side of a particle."""
MODE_REACH_PIXELS: Final = 14.0
"""Distance from the particle at which its modes are cut off."""
MODE_HEIGHTS: Final = (0.55, 0.5, 0.7)
"""Largest abundance of the modes at corners, along edges and on faces."""
CORNER_WIDTH_PIXELS: Final = 3.8
EDGE_WIDTH_PIXELS: Final = 2.6
"""Widths of modes at corners and edges. Widths of face modes and lengths of edge modes scale with the particle."""
COMPONENT_NAMES: Final = ("tail", "corner", "edge", "face")
RESONANCES: Final = ((), ((0.62, 0.055, 1.0),), ((0.80, 0.060, 1.0),), ((0.98, 0.085, 1.0), (1.52, 0.25, 0.13)))
"""Energy in eV, half width in eV and height of the resonances of each component."""


class Raster(NamedTuple):
    """Positions of the pixels of an acquisition in the scene: pixel i has its centre at ``(i + 0.5) pitch + offset``.

    Attributes
    ----------
    pitch : float
        Length of a pixel, in pixels of the scene.
    offset : (float, float)
        Displacement along y and x, in pixels of the scene.
    samples : int
        Number of points along each side of a pixel over which the scene is averaged.
    blur : float
        Standard deviation of the probe beyond the pixel, in pixels of the scene.
    """

    pitch: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    samples: int = 1
    blur: float = 0.0


def plasmon_modes(window: Window, *, seed: int, raster: Raster = Raster()) -> Float:  # noqa: B008
    """Return the abundances of the tail and of three plasmon modes in the pixels of an acquisition.

    Parameters
    ----------
    window : Window
        Pixels of the acquisition.
    seed : int
        Seed of the particles.
    raster : Raster
        Positions of the pixels in the scene.

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
        smoothed = blurred(field, raster.blur / step, halo)
        # The terms are added one by one, so that rounding does not depend on the window.
        total = np.zeros(out.shape[1:])
        for i in range(n):
            for j in range(n):
                total += smoothed[i::n, j::n]
        out[k] = total / n**2
    return out


def _modes(y: Float, x: Float, seed: int) -> Float:
    """Return the abundances at the grid points of two axes, shape (4, h, w)."""
    source, reach = CountedRandom(seed, LAYOUT_STREAM), HALF_SIDE_PIXELS[1] * math.sqrt(2.0) + MODE_REACH_PIXELS
    maps = np.zeros((4, y.size, x.size))
    maps[0] = TAIL_LEVEL
    for i in range(math.floor((y[0] - reach) / CELL_PIXELS), math.floor((y[-1] + reach) / CELL_PIXELS) + 1):
        for j in range(math.floor((x[0] - reach) / CELL_PIXELS), math.floor((x[-1] + reach) / CELL_PIXELS) + 1):
            u = source.at(i, j).random(4).tolist()
            centre = [(n + CELL_MARGIN + (1 - 2 * CELL_MARGIN) * v) * CELL_PIXELS for n, v in ((i, u[0]), (j, u[1]))]
            half, angle = HALF_SIDE_PIXELS[0] + u[2] * (HALF_SIDE_PIXELS[1] - HALF_SIDE_PIXELS[0]), math.pi / 2 * u[3]
            rows = slice(*np.searchsorted(y, (centre[0] - reach, centre[0] + reach)))
            columns = slice(*np.searchsorted(x, (centre[1] - reach, centre[1] + reach)))
            if rows.start < rows.stop and columns.start < columns.stop:
                v, h = y[rows, None] - centre[0], x[None, columns] - centre[1]
                cosine, sine = math.cos(angle), math.sin(angle)
                maps[:, rows, columns] += _particle(cosine * v + sine * h, cosine * h - sine * v, half)
    return maps


def _particle(v: Float, h: Float, half: float) -> Float:
    """Return the abundances of one particle of half side ``half``, shape (4, h, w).

    ``v`` and ``h``, shape (h, w), are the coordinates along its sides, from its centre.
    """
    a, b = np.abs(v), np.abs(h)
    beyond = np.maximum(a, b) - half
    inside = 1.0 - fade(beyond / SIDE_WIDTH_PIXELS + 0.5)
    # All modes are zero at their reach, so that only particles in nearby cells are computed.
    near = 1.0 - fade(np.maximum(beyond, 0.0) / MODE_REACH_PIXELS)
    corner = _peak((a - half) ** 2 + (b - half) ** 2, CORNER_WIDTH_PIXELS) * near
    edge = np.zeros(beyond.shape)
    for across, along in ((a, b), (b, a)):
        edge += _peak((across - half) ** 2, EDGE_WIDTH_PIXELS) * _peak(along * along, 0.5 * half)
    face = _peak(a * a + b * b, 1.1 * half) * inside
    at_corner, at_edge, on_face = MODE_HEIGHTS
    return np.stack([TAIL_RISE * inside, at_corner * corner, at_edge * edge * near, on_face * face])


def _peak(square: Float, width: float) -> Float:
    """Return a peak of the square of a distance: 1 at zero, a quarter at the width."""
    level = 1.0 / (1.0 + square / width**2)
    return level * level


def plasmon_spectra(energy_ev: Float) -> Float:
    """Return the spectra of the tail and of the three modes, each with unit sum over the channels.

    Parameters
    ----------
    energy_ev : array, shape (E,)
        Energies in eV, above zero.

    Returns
    -------
    array, shape (4, E)
    """
    energy = np.asarray(energy_ev, dtype=np.float64)
    spectra = [energy**-1.65]
    for peaks in RESONANCES[1:]:
        spectra.append(np.sum([h / (1.0 + ((energy - e) / w) ** 2) for e, w, h in peaks], axis=0))
    made = np.stack(spectra)
    return np.asarray(made / made.sum(axis=1, keepdims=True))
