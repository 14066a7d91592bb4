"""What the last pass of a fit leaves for its judgement: small arrays on the host, the same for every chunking."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float, Int

SAMPLE_PIXELS: Final = 1024
"""Sampled pixels, and sampled bins of each width."""
BIN_WIDTHS: Final = (1, 2, 4, 8)
"""Pixels of a sampled bin along y and x."""
REGIONS: Final = 8
"""Regions along y and along x; a line scan has LINE_REGIONS along its line."""
LINE_REGIONS: Final = 25
OPTIMAL_PIXELS: Final = 512
"""Sampled pixels whose abundances are solved again."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Sampled bins of one width, spread over the whole map; only pixels in use count.

    Attributes
    ----------
    width : int
        Pixels of a bin along y and x; 1 for single pixels.
    index : array, shape (n,)
        Number of the first pixel of each bin.
    pixels : array, shape (n,)
        Pixels in use of each bin, at least one.
    data : array, shape (n, E)
        Sum of the data over these pixels.
    abundances : array, shape (n, K)
        Sum of their abundances.
    """

    width: int
    index: Int
    pixels: Int
    data: Float
    abundances: Float


class Regions(NamedTuple):
    """Sums over the used pixels of equal regions of the map (all leading dims, such as time, added up).

    Attributes
    ----------
    shape : (int, int)
        Regions along y and x; (1, 25) or (25, 1) for a line scan. Region r is row ``r // shape[1]``.
    pixels : array, shape (R,)
        0 where a region has no pixel in use.
    data : array, shape (R, E)
    abundances : array, shape (R, K)
    """

    shape: tuple[int, int]
    pixels: Int
    data: Float
    abundances: Float


@dataclass(frozen=True, slots=True, eq=False)
class Voxels:
    """The strongest candidates for spikes, strongest first: at most 100.

    Attributes
    ----------
    index, channel : array, shape (n,)
        Number of the pixel, and of the channel.
    value : array, shape (n,)
    expected : array, shape (n,)
        The largest of three predictions: same pixel, channels -7 to -4 and 4 to 7, scaled by the mean spectrum; the
        pixel's total times the mean spectrum; largest of the 4 neighbouring pixels in this channel.
    model : array, shape (n,)
        The fitted model of the voxel.
    component : array, shape (n,)
        The component with the largest part of it.
    number : int
        Candidates in all.
    """

    index: Int
    channel: Int
    value: Float
    expected: Float
    model: Float
    component: Int
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Bright:
    """Pixels that are much brighter than their neighbours, the most extreme first: at most 100.

    Attributes
    ----------
    index : array, shape (n,)
    total, neighbour : array, shape (n,)
        Sum of the pixel's spectrum, and the largest of that of its 4 neighbours.
    """

    index: Int
    total: Float
    neighbour: Float


class Extremes(NamedTuple):
    """Values at the ends of the range.

    Attributes
    ----------
    largest : float
        The largest value.
    at_largest : int
        Voxels that have it.
    below : int
        Voxels just below: in ``[largest - d, largest)``, d the larger of ``sqrt(phi largest) / 2`` and 2 phi.
    negative, voxels : int
        Voxels below zero, and all voxels.
    least : float
        The smallest value.
    steps : float
        Different values that this range can hold: its width over the least distance of values in it.
    """

    largest: float
    at_largest: int
    below: int
    negative: int
    voxels: int
    least: float
    steps: float = 1.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the detectors may look at. K components, E channels.

    Attributes
    ----------
    endmembers : array, shape (K, E)
    offset : array, shape (E,)
        Added to abundances times endmembers by the model; zero for most.
    energy : array, shape (E,)
        In ``energy_unit``: "eV", "keV" or "" where the axis has no unit.
    signal : str
        "EELS", "EDS", or free text.
    dtype : str
        Of the stored cube, for example "uint16".
    shape : tuple of int
        Sizes of the pixel dims.
    pixels : int
        Pixels in use.
    mean : array, shape (E,)
        Mean of the data over the pixels in use.
    variance_index : float
        phi, variance of the data divided by its mean: 1 for counts. NaN where it cannot be estimated.
    regions : Regions
    bins : tuple of Bins
        Of the widths of `BIN_WIDTHS` that fit into the map.
    outer : array, shape (W, K, K)
        For each of `BIN_WIDTHS`: ``sum_b c_b c_b' / t_b`` over bins b, where t_b is the relative total of the bin, from
        the sampled bins, scaled to all bins of the map.
    component_total : array, shape (2, K)
        ``sum_p c_pk x_p`` and ``sum_p c_pk y_p``, where x_p and y_p are totals of data and model of pixel p.
    total : (float, float)
        Of data and of model, over all pixels in use.
    peak_share : array, shape (K,)
        ``max_p c^2 / sum_p c^2`` of each component.
    peak_index : array, shape (K,)
        The pixel of that maximum.
    extremes : Extremes
    spikes : Voxels
    bright : Bright
    purity : array, shape (K,)
        99.5th percentile of the fraction ``c_k / sum c`` averaged over 2 x 2 pixels: over all of them, one pixel apart,
        or over sampled ones side by side where the maps are not in memory.
    signed : bool
        True where the components are directions (PCA) and not spectra.
    simplex : bool
        The abundances of a pixel sum to one.
    priors_on_maps : bool
        The abundances minimise more than the misfit.
    loss : str
        "poisson", "frobenius" or "".
    model : str
        Name of the model.
    coords : dict
        Of each pixel dim that has coordinates: (values, unit).
    dims : tuple of str
        Names of the pixel dims.
    settings : dict
        The settings of the model.
    source : str
        Name of the file of the cube; empty where it is not known.
    """

    endmembers: Float
    offset: Float
    energy: Float
    energy_unit: str
    signal: str
    dtype: str
    shape: tuple[int, ...]
    pixels: int
    mean: Float
    variance_index: float
    regions: Regions
    bins: tuple[Bins, ...]
    outer: Float
    component_total: Float
    total: tuple[float, float]
    peak_share: Float
    peak_index: Int
    extremes: Extremes
    spikes: Voxels
    bright: Bright
    purity: Float
    signed: bool = False
    simplex: bool = False
    priors_on_maps: bool = False
    loss: str = ""
    model: str = ""
    coords: dict[str, tuple[Float, str]] = field(default_factory=dict)
    dims: tuple[str, ...] = ("y", "x")
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def energy_ev(self) -> Float | None:
        """The energy axis in eV; None where its unit is not known."""
        factor = {"eV": 1.0, "keV": 1000.0}.get(self.energy_unit)
        return None if factor is None else self.energy * factor

    def place(self, index: int) -> str:
        """Where a pixel is, in the unit of the axes: ``x = 10.6 nm, y = 39 nm``."""
        words = []
        for dim, i in zip(self.dims, np.unravel_index(int(index), self.shape), strict=True):
            values, unit = self.coords.get(dim, (None, ""))
            value = int(i) if values is None else float(values[int(i)])
            words.append(f"{dim} = {value:.4g} {unit}".strip())
        return ", ".join(reversed(words))
