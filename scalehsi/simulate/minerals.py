"""Simulate an EDX map of three mantle minerals, one of them rare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.simulate.scene import Scene, make_scene, pair, real, whole
from scalehsi.simulate.shapes.phase_layouts import Grains, grain_fractions

MINERALS: Final[dict[str, dict[str, float]]] = {
    "Brg": {"Mg": 18.5, "Si": 18.2, "Al": 1.5, "Ca": 1.0, "Fe": 1.0, "Nd": 0.1, "Sm": 0.1, "O": 60.0},
    "Fp": {"Mg": 39.0, "Fe": 10.0, "O": 50.0, "Cu": 1.0},
    "CaPv": {"Si": 17.5, "Al": 2.5, "Ca": 16.2, "Fe": 1.0, "Nd": 1.0, "Sm": 1.0, "U": 1.0, "O": 60.0},
}
"""Composition in atomic per cent, as published (table 1 of the reference in `phases`)."""
RELATIVE_DENSITIES: Final = (1.0, 0.8, 1.2)
VOLUME_FRACTIONS: Final = (0.84, 0.13, 0.03)
GRAINS: Final = (
    Grains(1, cell=55, radius=(10, 16.5), half_depth=(18, 48), level=(0, 1)),
    Grains(2, cell=60, radius=(3.5, 5), half_depth=(4, 7), level=(0.1, 0.9)),
    Grains(2, cell=182, radius=(17, 19.5), half_depth=(45, 60), level=(0.35, 0.65), margin=0.2),
)
"""Grains that have these volume fractions over wide fields. Of 180 x 180 pixels a fifth is mixed, and one grain of CaPv
fills a square of 12 x 12 pixels for any position of the squares."""
FULL_SIZE_PIXELS: Final = 180
"""Grains have their full size in scenes with at least this many pixels along y and x, and are smaller in others."""
ENERGY_RANGE_KEV: Final = (0.2, 20.0)
STRAY_CONTINUUM: Final = 1.0
"""Continuum of the surroundings, in units of the continuum of the matrix."""


def phases(
    shape: Sequence[int] = (180, 180),
    *,
    counts_per_pixel: float = 147.0,
    seed: int = 0,
    pixel_size_nm: float = 10.0,
    grain_scale: float | None = None,
    n_channels: int = 1980,
    chunk: int | Sequence[int] | None = None,
) -> Scene:
    """Simulate an EDX map of a mantle mineral assemblage: grains of two phases in a matrix of a third.

    A matrix of bridgmanite (84 % by volume) has grains of ferropericlase (13 %) and Ca-perovskite (3 %), in a foil of
    100 nm at 200 kV, measured from 0.2 to 20 keV. Grains overlap along the beam, so about a fifth of the pixels are
    mixed. The scene has the compositions and counts of that of Chen et al. [1]_, but another layout.

    Parameters
    ----------
    shape : (int, int), default (180, 180)
        Pixels along y and x. Any size: the cube is lazy, and computing a pixel takes about 20 microseconds.
    counts_per_pixel : float, default 147
        Mean number of counts of a pixel over a wide field.
    seed : int, default 0
        Seed of the layout and of the counts.
    pixel_size_nm : float, default 10
        Size of a pixel in nm.
    grain_scale : float, optional
        Size of the grains; at 1 a grain of Ca-perovskite is about 35 pixels wide. The default is 1, and less for scenes
        with fewer than 180 pixels in a direction, so that these contain every phase too.
    n_channels : int, default 1980
        Channels of the energy axis.
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x; the energy axis is never cut. It does not change the data. By default a chunk
        has about 16 MB, or 64 MB for cubes beyond 16 GB.

    Returns
    -------
    Scene
        The abundances are volume fractions and sum to one; densities are in the endmembers.

    Raises
    ------
    InputError
        When a setting is outside its allowed values.

    References
    ----------
    .. [1] H. Chen, D. T. L. Alexander, C. Hebert, 2024. arXiv:2405.14649

    Examples
    --------
    >>> cube, truth = phases((60, 50), seed=1)
    >>> cube.sizes["energy"], cube.dtype, truth.attrs["components"]
    (1980, dtype('uint8'), ['Brg', 'Fp', 'CaPv'])
    >>> terabytes = phases((100_000, 20_000)).cube
    >>> tile = terabytes[70_000:70_002, 9_000:9_003].compute()  # makes one chunk
    >>> tile.shape
    (2, 3, 1980)
    """
    size = pair("shape", shape)
    scale = min(1.0, min(size) / FULL_SIZE_PIXELS) if grain_scale is None else real("grain_scale", grain_scale)
    settings = {
        "shape": size,
        "counts_per_pixel": real("counts_per_pixel", counts_per_pixel),
        "seed": whole("seed", seed, least=0),
        "pixel_size_nm": real("pixel_size_nm", pixel_size_nm),
        "grain_scale": scale,
        "n_channels": whole("n_channels", n_channels, least=2),
    }
    energy = np.linspace(*ENERGY_RANGE_KEV, n_channels)
    spectra = _spectra(energy)
    spectra *= np.array(RELATIVE_DENSITIES)[:, None] / spectra.sum(axis=1, keepdims=True)
    spectra *= counts_per_pixel / float(np.dot(RELATIVE_DENSITIES, VOLUME_FRACTIONS))
    return make_scene(
        "phases",
        layout=partial(grain_fractions, grains=GRAINS, components=3, seed=int(seed), scale=scale),
        spectra=spectra,
        largest_abundance=1.0,
        compositions=MINERALS,
        energy=energy,
        energy_units="keV",
        signal="EDS",
        title="Simulated mantle minerals: Brg, Fp, CaPv",
        settings=settings,
        chunk=chunk,
    )


def _spectra(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the spectra of the minerals for one dose and one thickness, shape (K, E).

    Electrons scattered in the foil make continuum in the surrounding matrix, the grid and the holder too. It hardly
    depends on the position of the probe, so the same part of the matrix's continuum is added to every phase.
    """
    matrix = next(iter(MINERALS.values()))
    stray = eds_spectrum(matrix, energy) - eds_spectrum(matrix, energy, continuum=0.0)
    return np.stack([eds_spectrum(mineral, energy) for mineral in MINERALS.values()]) + STRAY_CONTINUUM * stray
