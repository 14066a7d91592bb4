"""The scene of the mantle minerals: an EDX map of three phases, one of them rare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.simulate.scene import Scene, make_scene, pair, real, whole
from scalehsi.simulate.shapes.phase_layouts import Grains, grain_fractions

# Atomic per cent as published (table 1 of the reference below); densities relative to the matrix.
MINERALS: Final[dict[str, dict[str, float]]] = {
    "Brg": {"Mg": 18.5, "Si": 18.2, "Al": 1.5, "Ca": 1.0, "Fe": 1.0, "Nd": 0.1, "Sm": 0.1, "O": 60.0},
    "Fp": {"Mg": 39.0, "Fe": 10.0, "O": 50.0, "Cu": 1.0},
    "CaPv": {"Si": 17.5, "Al": 2.5, "Ca": 16.2, "Fe": 1.0, "Nd": 1.0, "Sm": 1.0, "U": 1.0, "O": 60.0},
}
DENSITIES: Final = (1.0, 0.8, 1.2)
FRACTIONS: Final = (0.84, 0.13, 0.03)

# Tuned so that these fractions come out over wide fields, and so that in 180 x 180 pixels a fifth is mixed and one
# grain of CaPv fills a square of 12 x 12 pixels wherever the squares fall.
GRAINS: Final = (
    Grains(1, cell=55, radius=(10, 16.5), half_depth=(18, 48), level=(0, 1)),
    Grains(2, cell=60, radius=(3.5, 5), half_depth=(4, 7), level=(0.1, 0.9)),
    Grains(2, cell=182, radius=(17, 19.5), half_depth=(45, 60), level=(0.35, 0.65), margin=0.2),
)
FULL_GRAINS: Final = 180  # a scene at least so wide and high has the grains in their own size
ENERGY_KEV: Final = (0.2, 20.0)
STRAY: Final = 1.0  # continuum of the surroundings, in units of what the matrix itself makes


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

    Bridgmanite (84 % by volume) holds grains of ferropericlase (13 %) and Ca-perovskite (3 %) in a foil of 100 nm at
    200 kV, seen from 0.2 to 20 keV. Grains overlap along the beam, so about a fifth of the pixels are mixed. The scene
    is equivalent to the one of Chen et al. [1]_: the same compositions and counts, another layout.

    Parameters
    ----------
    shape : (int, int), default (180, 180)
        Pixels along y and x. Any size: nothing is computed here, and later a pixel costs some 20 microseconds.
    counts_per_pixel : float, default 147
        Mean number of counts of a pixel over a wide field.
    seed : int, default 0
        Decides the layout and the counts.
    pixel_size_nm : float, default 10
    grain_scale : float, optional
        Size of the grains; 1 means a Ca-perovskite some 35 pixels wide. The default is 1, and less for scenes of fewer
        than 180 pixels in a direction, so that these too contain every phase.
    n_channels : int, default 1980
    chunk : int or (int, int), optional
        Pixels of a chunk along y and x; the energy axis is never cut. It changes no number. The default makes chunks of
        some 16 MB, or 64 MB for cubes beyond 16 GB.

    Returns
    -------
    Scene
        The abundances are volume fractions and sum to one; densities are in the endmembers.

    Raises
    ------
    InputError
        For a size, a number of counts or a seed that makes no scene.

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
    scale = min(1.0, min(size) / FULL_GRAINS) if grain_scale is None else real("grain_scale", grain_scale)
    settings = {
        "shape": size,
        "counts_per_pixel": real("counts_per_pixel", counts_per_pixel),
        "seed": whole("seed", seed, least=0),
        "pixel_size_nm": real("pixel_size_nm", pixel_size_nm),
        "grain_scale": scale,
        "n_channels": whole("n_channels", n_channels, least=2),
    }
    energy = np.linspace(*ENERGY_KEV, n_channels)
    spectra = _spectra(energy)
    spectra *= np.array(DENSITIES)[:, None] / spectra.sum(axis=1, keepdims=True)
    spectra *= counts_per_pixel / float(np.dot(DENSITIES, FRACTIONS))
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
    """Spectra of the minerals for one dose and one thickness [array, shape (K, E)].

    Electrons that were scattered in the foil make continuum in the matrix around, the grid and the holder too. Wherever
    the probe stands it is about the same, so every phase gets the same share of the matrix's continuum added.
    """
    matrix = next(iter(MINERALS.values()))
    stray = eds_spectrum(matrix, energy) - eds_spectrum(matrix, energy, continuum=0.0)
    return np.stack([eds_spectrum(mineral, energy) for mineral in MINERALS.values()]) + STRAY * stray
