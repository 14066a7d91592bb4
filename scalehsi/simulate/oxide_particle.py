"""Simulate EELS of an oxide particle in resin at the O K edge, with its background and plural scattering."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import CountedRandom
from scalehsi.schema import COMPONENT, ENERGY
from scalehsi.simulate.scene import Scene, make_scene, pair, real, whole
from scalehsi.simulate.shapes import near_edge
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window, fade, smooth_noise

ENERGY_EV: Final = np.arange(485.0, 575.0, 0.5)
STEP_EV: Final = 0.5
EXTENDED_EV: Final = 200.0
"""Energies below the axis from which electrons are scattered into it."""
ONSET_EV: Final = 529.0
EXPONENTS: Final = (2.9, 3.2, 3.9)
JUMP: Final = 0.5
"""Jump of the strongest edge over the background in front of it."""
PLASMON_EV: Final = 22.0
PLASMON_WIDTH_EV: Final = 9.0
ORDERS: Final = 6
"""Orders of plural scattering, none to five times."""
THICKNESS: Final = (0.4, 0.9)
"""Least and largest thickness in mean free paths."""
RADII: Final = (0.24, 0.40)
"""Of core and particle, in sides of the map."""
BORDER: Final = 0.025
WAVE: Final = 0.08
"""Displacement of the borders, in sides of the map."""
COMPOSITIONS: Final = {"pristine": {"O": 100.0}, "degraded": {"O": 100.0}, "resin": {"O": 100.0}}


def oxide_particle(
    shape: Sequence[int] = (48, 48),
    *,
    counts_per_pixel: float = 1e5,
    plural: bool = True,
    seed: int = 0,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Scene:
    """Simulate a particle with a degraded shell in resin: three oxygen edges on three backgrounds, none of them pure.

    Spectra with a background are positive everywhere and nearly parallel. A factorisation without further knowledge
    mixes them; `scalehsi.BackgroundNMF` is made for them.

    Parameters
    ----------
    shape : (int, int), default (48, 48)
        Pixels along y and x. Any size: the cube is lazy.
    counts_per_pixel : float, default 1e5
        Expected counts of a pixel of mean thickness, over all 180 channels (485 to 574.5 eV).
    plural : bool, default True
        Scatter background and edges by a plasmon of 22 eV, up to five times, as the thickness of 0.4 to 0.9 mean free
        paths asks; exponents then vary over the map, and the data are not exactly of rank three.
    seed : int, default 0
        Seed of the layout and of the counts.
    pixel_size_nm : float, default 1
        Size of a pixel in nm.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x. It does not change the data.

    Returns
    -------
    Scene
        ``truth["endmembers"]`` are the edges alone, ``truth["background"]`` (component, energy) the backgrounds, both
        as a pixel of mean thickness shows them; ``truth["abundances"]`` are fractions times the relative thickness.

    Raises
    ------
    InputError
        When a setting is outside its allowed values.

    Examples
    --------
    >>> cube, truth = oxide_particle((16, 16))
    >>> cube.sizes["energy"], truth.attrs["components"], float(truth["endmembers"].sel(energy=500).max())
    (180, ['pristine', 'degraded', 'resin'], 0.0)
    """
    size = pair("shape", shape)
    settings: dict[str, Any] = {
        "shape": size,
        "counts_per_pixel": real("counts_per_pixel", counts_per_pixel),
        "plural": bool(plural),
        "seed": whole("seed", seed, least=0),
        "pixel_size_nm": real("pixel_size_nm", pixel_size_nm),
    }
    edges, backgrounds = _parts()
    inside, edges, backgrounds = (_orders(part, plural=plural) for part in (edges + backgrounds, edges, backgrounds))
    # What a pixel of mean thickness shows.
    mean = _poisson_weights(np.asarray(np.mean(THICKNESS)))[: inside.shape[1]] if plural else np.ones(1)
    edges, backgrounds = (np.einsum("kne,n->ke", part, mean) for part in (edges, backgrounds))
    unit = counts_per_pixel / float((edges + backgrounds).sum(axis=1).mean())
    common: dict[str, Any] = {
        "largest_abundance": THICKNESS[1] / np.mean(THICKNESS),
        "energy": ENERGY_EV,
        "energy_units": "eV",
        "signal": "EELS",
        "title": "Simulated oxide particle in resin, O K",
        "settings": settings,
        "chunk": chunk,
    }
    layout = partial(_abundances, shape=size, orders=inside.shape[1], seed=int(seed))
    names = {f"{name} {n}": mixture for name, mixture in COMPOSITIONS.items() for n in range(inside.shape[1])}
    cube = make_scene(
        "oxide_particle",
        layout=layout,
        spectra=inside.reshape(-1, len(ENERGY_EV)) * unit,
        compositions=names,
        **common,
    ).cube
    truth = make_scene(
        "oxide_particle",
        layout=partial(_abundances, shape=size, orders=0, seed=int(seed)),
        spectra=edges * unit,
        compositions=COMPOSITIONS,
        **common,
    ).truth
    own = xr.DataArray(backgrounds * unit, dims=(COMPONENT, ENERGY), attrs={"units": "counts"})
    return Scene(cube, truth.assign(background=own))


def _parts() -> tuple[Float, Float]:
    """Edges and backgrounds of the three phases on the extended axis, (3, E) each."""
    low = ENERGY_EV[0] - EXTENDED_EV
    energy = np.arange(low, ENERGY_EV[-1] + STEP_EV / 2, STEP_EV)
    power = np.array([(energy / ONSET_EV) ** -r for r in EXPONENTS]) / JUMP

    bump = partial(near_edge.bump, energy, onset=ONSET_EV)
    step = partial(near_edge.step, energy)
    pristine = step(535, 2.0) + bump(530.5, 0.9, 0.9) + bump(540, 3.0, 0.7) + bump(557, 6.0, 0.15)
    degraded = step(534, 2.5) + bump(531.0, 1.1, 0.35) + bump(543.5, 4.0, 0.6) + bump(562, 6.0, 0.1)
    resin = 0.12 * (step(535, 3.0) + bump(532.5, 1.0, 0.4) + bump(538, 4.5, 0.8))
    edges = np.array([pristine, degraded, resin])
    return np.where(energy < ONSET_EV - 2, 0.0, edges), power


def _orders(spectra: Float, *, plural: bool) -> Float:
    """Spectra (K, E') that lost a plasmon 0 to 5 times, or never, on the axis of the cube; (K, orders, E)."""
    loss = np.arange(0.0, EXTENDED_EV, STEP_EV)
    kernel = np.exp(-0.5 * ((loss - PLASMON_EV) / (PLASMON_WIDTH_EV / 2.3548)) ** 2)
    kernel /= kernel.sum()
    found = [spectra]
    for _ in range(1, ORDERS if plural else 1):
        found.append(np.array([np.convolve(row, kernel)[: spectra.shape[1]] for row in found[-1]]))
    return np.stack(found, axis=1)[..., -len(ENERGY_EV) :]


def _abundances(window: Window, *, shape: tuple[int, int], orders: int, seed: int) -> Float:
    """Fractions of the phases times the relative thickness, for each order of scattering; (K * orders, h, w).

    window: pixels to compute. shape: of the whole map. orders: 0 for the fractions times thickness alone. seed: of the
    layout.
    """
    y = (np.arange(window.y0, window.y1) + 0.5) / shape[0]
    x = (np.arange(window.x0, window.x1) + 0.5) / shape[1]
    source = CountedRandom(seed, LAYOUT_STREAM)
    wave = WAVE * (smooth_noise(6 * y, 6 * x, source=source) - 0.5)
    radius = np.sqrt((y - 0.5)[:, None] ** 2 + (x - 0.5)[None, :] ** 2) + wave
    core, particle = (1 - fade((radius - r) / BORDER + 0.5) for r in RADII)
    fractions = np.stack([core, particle * (1 - core), (1 - particle) * (1 - core)])
    noise = smooth_noise(4 * y, 4 * x, source=source, channel=1)
    level = 0.5 * x[None, :] + 0.5 * noise
    thickness = THICKNESS[0] + (THICKNESS[1] - THICKNESS[0]) * level
    found = fractions * (thickness / (sum(THICKNESS) / 2))
    if not orders:
        return found
    weights = _poisson_weights(thickness)[:orders] if orders > 1 else np.ones((1, *thickness.shape))
    return np.asarray((found[:, None] * weights).reshape(-1, *thickness.shape))


def _poisson_weights(thickness: Float) -> Float:
    """Shares of electrons that lost 0 to 5 plasmons, (orders, ...), by products alone, which round alike everywhere."""
    inverse, term = np.ones_like(thickness), np.ones_like(thickness)
    for n in range(1, 16):  # the exponential series
        term = term * thickness / n
        inverse = inverse + term
    weights = [1 / inverse]
    for n in range(1, ORDERS):
        weights.append(weights[-1] * thickness / n)
    return np.array(weights)
