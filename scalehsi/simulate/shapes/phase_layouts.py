"""Compute the layouts of phases, grains in a foil and a chequerboard, as abundance maps from seed and position.

Any window of a scene can be computed alone and equals the same window of the whole scene bit for bit. Two rules ensure
it. Random numbers belong to a cell or a lattice point and are counted on its indices. Values of pixels are computed by
``+ - * /`` and ``sqrt`` only, one element at a time, whose rounding does not depend on the size of the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import CountedRandom

FOIL_DEPTH: Final = 40.0
"""Depth of the foil, in units of the grains' size, which are pixels at scale one."""
N_SLICES: Final = 40
"""Number of slices of the foil in which the grains are computed."""
OUTLINE_SHIFT: Final = 4.0
"""Largest displacement of a grain's outline from an ellipse, in units of the grains' size."""
OUTLINE_SHIFT_SPACING: Final = 20.0
"""Length over which the displacement varies, in units of the grains' size."""
MAX_ASPECT: Final = 1.3
"""Largest ratio of a half axis of a grain to its mean radius."""
MAX_TILT: Final = 0.12
"""Largest displacement of a grain for each unit of depth."""
LAYOUT_STREAM: Final = 2**32
"""First stream of random numbers of layouts; the streams below are used for counts."""


class Window(NamedTuple):
    """A rectangle of pixels in absolute indices, ends excluded."""

    y0: int
    y1: int
    x0: int
    x1: int


class Grains(NamedTuple):
    """One population of grains: a jittered grid of cells with one distorted, tilted ellipsoid each.

    Attributes
    ----------
    component : int
        The phase of the grains. Where grains overlap, the later population is on top.
    cell : float
        Side of a cell.
    radius : (float, float)
        Least and largest mean half axis in the plane.
    half_depth : (float, float)
        Least and largest half axis along the beam.
    level : (float, float)
        Least and largest depth of the centre, as a share of the foil's depth.
    margin : float, 0 to 0.5
        Share of a cell on each side in which no centre lies.
    """

    component: int
    cell: float
    radius: tuple[float, float]
    half_depth: tuple[float, float]
    level: tuple[float, float]
    margin: float = 0.0

    @property
    def reach(self) -> float:
        """Largest distance of a grain's pixels from its centre, along y or x."""
        return self.radius[1] * MAX_ASPECT + MAX_TILT * self.half_depth[1] + OUTLINE_SHIFT


def smooth_noise(y: Float, x: Float, *, source: CountedRandom, channel: int = 0) -> Float:
    """Return smooth noise between 0 and 1: random values at whole numbers, interpolated in between.

    Parameters
    ----------
    y, x : array, shape (h,) and (w,)
        Coordinates, in units of the distance of the random values.
    source : CountedRandom
        Generator of the random values.
    channel : int
        Another channel is another realisation.

    Returns
    -------
    array, shape (h, w)
    """
    y0, x0 = math.floor(y[0]), math.floor(x[0])
    rows, cols = np.floor(y).astype(np.int64) - y0, np.floor(x).astype(np.int64) - x0
    lattice = np.array(
        [[source.at(y0 + i, x0 + j, channel).random() for j in range(cols[-1] + 2)] for i in range(rows[-1] + 2)]
    )
    fy, fx = fade(y - np.floor(y))[:, None], fade(x - np.floor(x))[None, :]
    upper = lattice[rows][:, cols] * (1 - fx) + lattice[rows][:, cols + 1] * fx
    lower = lattice[rows + 1][:, cols] * (1 - fx) + lattice[rows + 1][:, cols + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def _centres(start: int, stop: int) -> Float:
    """Return the centres of pixels, which are half a pixel from their edges."""
    return np.arange(start, stop, dtype=np.float64) + 0.5


def fade(t: Float) -> Float:
    """Return a smooth step from 0 at t = 0 to 1 at t = 1, constant outside."""
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * t * (t * (6 * t - 15) + 10))


def grain_fractions(
    window: Window, *, grains: Sequence[Grains], components: int, seed: int, scale: float = 1.0, blur: float = 1.0
) -> Float:
    """Return volume fractions of grains and their matrix in a foil, averaged along the beam and over the probe.

    Parameters
    ----------
    window : Window
        Pixels to compute.
    grains : sequence of Grains
        Populations; a later one is on top of an earlier one. Component 0 is the matrix.
    components : int
        Number of phases K, the matrix included.
    seed : int
        Seed of the layout.
    scale : float
        Pixels in a unit of length of the grains and of the foil's depth of 40.
    blur : float, pixels
        Standard deviation of the probe; 0 for none.

    Returns
    -------
    array, shape (K, h, w)
        Fractions between 0 and 1 that sum to one.

    Examples
    --------
    >>> round_grains = [Grains(1, cell=50, radius=(10, 10), half_depth=(60, 60), level=(0.5, 0.5))]
    >>> maps = grain_fractions(Window(0, 60, 0, 80), grains=round_grains, components=2, seed=0)
    >>> maps.shape, bool(abs(maps.sum(axis=0) - 1).max() < 1e-12)
    ((2, 60, 80), True)
    """
    halo = math.ceil(3 * blur)
    y, x = _centres(window.y0 - halo, window.y1 + halo) / scale, _centres(window.x0 - halo, window.x1 + halo) / scale
    source = CountedRandom(seed, LAYOUT_STREAM)
    shift_y, shift_x = (
        OUTLINE_SHIFT
        * (2 * smooth_noise(y / OUTLINE_SHIFT_SPACING, x / OUTLINE_SHIFT_SPACING, source=source, channel=c) - 1)
        for c in (0, 1)
    )
    labels = np.zeros((N_SLICES, y.size, x.size), dtype=np.uint8)
    for number, population in enumerate(grains):
        for grain in _grains_near(population, y, x, CountedRandom(seed, LAYOUT_STREAM + 1 + number)):
            rows = slice(*np.searchsorted(y, (grain.y - population.reach, grain.y + population.reach)))
            cols = slice(*np.searchsorted(x, (grain.x - population.reach, grain.x + population.reach)))
            if rows.start < rows.stop and cols.start < cols.stop:
                inside = _inside(grain, y[rows, None] + shift_y[rows, cols], x[None, cols] + shift_x[rows, cols])
                labels[:, rows, cols][inside] = population.component
    maps = np.empty((components, window.y1 - window.y0, window.x1 - window.x0))
    maps[0] = 1.0
    for k in range(1, components):
        maps[k] = np.minimum(blurred((labels == k).sum(axis=0) / N_SLICES, blur, halo), 1.0)
        maps[0] -= maps[k]
    np.maximum(maps[0], 0.0, out=maps[0])
    return maps


class _Grain(NamedTuple):
    """Centre, half axes a (along the direction cosine, sine) and b, half depth, tilts."""

    y: float
    x: float
    z: float
    a: float
    b: float
    half_depth: float
    cosine: float
    sine: float
    tilt_y: float
    tilt_x: float


def _grains_near(population: Grains, y: Float, x: Float, source: CountedRandom) -> Iterator[_Grain]:
    """Iterate over all grains of a population that may touch the rectangle spanned by the axes ``y`` and ``x``."""
    cell, reach, margin = population.cell, population.reach, population.margin
    for i in range(math.floor((y[0] - reach) / cell), math.floor((y[-1] + reach) / cell) + 1):
        for j in range(math.floor((x[0] - reach) / cell), math.floor((x[-1] + reach) / cell) + 1):
            u = source.at(i, j).random(9).tolist()
            radius = population.radius[0] + u[2] * (population.radius[1] - population.radius[0])
            aspect = 1 + u[3] * (MAX_ASPECT - 1)
            level = population.level[0] + u[5] * (population.level[1] - population.level[0])
            angle = 2 * math.pi * u[6]
            yield _Grain(
                y=(i + margin + (1 - 2 * margin) * u[0]) * cell,
                x=(j + margin + (1 - 2 * margin) * u[1]) * cell,
                z=level * FOIL_DEPTH,
                a=radius * aspect,
                b=radius / aspect,
                half_depth=population.half_depth[0] + u[4] * (population.half_depth[1] - population.half_depth[0]),
                cosine=math.cos(angle),
                sine=math.sin(angle),
                tilt_y=MAX_TILT * (2 * u[7] - 1),
                tilt_x=MAX_TILT * (2 * u[8] - 1),
            )


def _inside(grain: _Grain, y: Float, x: Float) -> NDArray[np.bool_]:
    """Return True for the slices of the foil inside the grain, for each pixel, shape (slices, h, w).

    A tilted ellipsoid is an upright one whose slices are shifted in proportion to their depth, so the depths where a
    ray enters and leaves it are the roots of a quadratic.
    """
    along = (grain.cosine * (y - grain.y) + grain.sine * (x - grain.x)) / grain.a
    across = (grain.cosine * (x - grain.x) - grain.sine * (y - grain.y)) / grain.b
    lean_along = (grain.cosine * grain.tilt_y + grain.sine * grain.tilt_x) / grain.a
    lean_across = (grain.cosine * grain.tilt_x - grain.sine * grain.tilt_y) / grain.b
    square = lean_along * lean_along + lean_across * lean_across + 1 / (grain.half_depth * grain.half_depth)
    linear = along * lean_along + across * lean_across
    discriminant = linear * linear - square * (along * along + across * across - 1)
    half = np.sqrt(np.maximum(discriminant, 0.0))
    levels = ((np.arange(N_SLICES) + 0.5) * (FOIL_DEPTH / N_SLICES) - grain.z)[:, None, None]
    return np.asarray((levels > (linear - half) / square) & (levels < (linear + half) / square))


def blurred(field: Float, sigma: float, halo: int) -> Float:
    """Convolve with a Gaussian of standard deviation ``sigma`` and cut off ``halo`` pixels on each side.

    The terms are added one by one, so that rounding does not depend on the window.
    """
    if halo == 0:
        return field
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-halo, halo + 1)]
    total = sum(weights)
    for axis in (0, 1):
        size = field.shape[axis] - 2 * halo
        moved = np.moveaxis(field, axis, 0)
        out = np.zeros((size, *moved.shape[1:]))
        for offset, weight in enumerate(weights):
            out += (weight / total) * moved[offset : offset + size]
        field = np.moveaxis(out, 0, axis)
    return field


def board_phase(row: int, column: int, *, squares: tuple[int, int], components: int) -> int:
    """Return the phase of a square of the board, at ``row`` and ``column``.

    Phases follow each other along a row, and each row starts ``step`` phases later. The step is the smallest one with
    which every phase has a square: two phases make a chequerboard, four phases on 2 x 2 squares have a corner each.

    Examples
    --------
    >>> [[board_phase(i, j, squares=(2, 2), components=4) for j in range(2)] for i in range(2)]
    [[0, 1], [2, 3]]
    >>> [[board_phase(i, j, squares=(2, 4), components=2) for j in range(4)] for i in range(2)]
    [[0, 1, 0, 1], [1, 0, 1, 0]]
    """
    rows, columns = squares
    for step in range(1, columns + 1):
        if len({(i * step + j) % components for i in range(rows) for j in range(columns)}) == components:
            break
    return (row * step + column) % components


def board_abundances(
    window: Window,
    *,
    shape: tuple[int, int],
    squares: tuple[int, int],
    components: int,
    mixing: float,
    border: float,
    wedge: float,
    seed: int,
) -> Float:
    """Return the abundances on a chequerboard, times the thickness of the foil.

    Parameters
    ----------
    window : Window
        Pixels to compute.
    shape : (int, int)
        Pixels of the whole board.
    squares : (int, int)
        Squares along y and x.
    components : int
        Number of phases K.
    mixing : float, 0 to 1
        Largest share of the other phases inside a square. It varies smoothly, and is 0 in some places.
    border : float, 0 to 1
        Width of the smooth border between squares, as a share of a square.
    wedge : float, 0 to 0.9
        Largest deviation of the thickness from one; the thickness varies smoothly.
    seed : int
        Seed of the mixing and of the thickness.

    Returns
    -------
    array, shape (K, h, w)
        Fractions times thickness; their sum over the components is the thickness.
    """
    y = _centres(window.y0, window.y1) / shape[0] * squares[0]
    x = _centres(window.x0, window.x1) / shape[1] * squares[1]
    by_row, by_column = _membership(y, squares[0], border), _membership(x, squares[1], border)
    source = CountedRandom(seed, LAYOUT_STREAM)

    def noise(channel: int, grain: float) -> Float:
        return smooth_noise(y / grain, x / grain, source=source, channel=channel)

    dominant = np.zeros((components, y.size, x.size))
    for i in range(squares[0]):
        for j in range(squares[1]):
            k = board_phase(i, j, squares=squares, components=components)
            dominant[k] += by_row[i][:, None] * by_column[j][None, :]
    share = mixing * np.clip(2.0 * noise(0, 0.4) - 0.8, 0.0, 1.0)
    weights = [noise(2 + k, 0.6) for k in range(components)]
    weights = [weight * weight + 1e-3 for weight in weights]
    total = sum(weights[1:], start=weights[0])
    thickness = 1 + wedge * (noise(1, 1.0) - 0.5) + wedge * (x[None, :] / squares[1] - 0.5)
    return np.stack([((1 - share) * dominant[k] + share * weights[k] / total) * thickness for k in range(components)])


def _membership(t: Float, squares: int, border: float) -> list[Float]:
    """Return the share of each row (or column) of squares at the coordinates ``t``, each (h,); they sum to one."""
    if border > 0:
        steps = [fade((t - i) / border + 0.5) for i in range(1, squares)]
    else:
        steps = [(t >= i).astype(np.float64) for i in range(1, squares)]
    steps = [np.ones_like(t), *steps, np.zeros_like(t)]
    return [steps[i] - steps[i + 1] for i in range(squares)]
