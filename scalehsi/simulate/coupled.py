"""Simulate EELS and EDX of one region, measured together: phases that differ little in one signal and more in both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import correlate1d

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.counted_random import CountedRandom
from scalehsi.physics.xray_spectra import channel_edges, detector_response
from scalehsi.schema import ENERGY, MASK, InputError, X, Y
from scalehsi.simulate.scene import make_scene, pair, real, whole
from scalehsi.simulate.shapes.phase_layouts import LAYOUT_STREAM, Window

EELS_EV: Final = 636.5 + 0.2 * np.arange(125)
EDX_KEV: Final = 0.1 + 0.02 * np.arange(496)
EDGES: Final = (((640.0, 1.0), (650.8, 0.5)), ((641.8, 1.0), (652.8, 0.55)), ((643.2, 1.0), (653.8, 0.5)))
"""Energy and height of the L3 and L2 lines of Mn2+, Mn3+ and Mn4+, in eV."""
WIDTHS_EV: Final = (1.0, 1.6)
STEP: Final = 0.15
"""Height of the continuum behind each line relative to the line."""
LINES: Final = {
    "Mn": ((5.895, 0.88), (6.490, 0.12), (0.637, 0.25)),
    "Ni": ((7.472, 0.88), (8.265, 0.12), (0.851, 0.25)),
    "Sr": ((1.806, 0.8), (1.872, 0.2)),
    "O": ((0.525, 1.0),),
}
"""Energies in keV and strengths of the lines of an element."""
PHASES: Final = ({"Mn": 1.0, "O": 0.4}, {"Mn": 0.75, "Ni": 0.3, "O": 0.55}, {"Mn": 0.5, "Sr": 0.5, "O": 0.6})
"""Strengths of the elements in the EDX spectra of the phases."""
NAMES: Final = ("Mn2+", "Mn3+", "Mn4+")
CONTINUUM: Final = 0.25
THICKNESS: Final = (0.6, 1.4)
SMOOTH_PIXELS: Final = 5.0
"""Standard deviation of the Gaussian that makes the maps smooth."""
RADIUS: Final = 4
"""The Gaussian is cut at this many standard deviations."""
BLOCK: Final = 64
"""Random numbers that are drawn at a time."""
LARGEST_FIELD: Final = 6.0
SITE_CONTRAST: Final = 0.6
"""Of the variation of EDX over a tilt series, what EELS has, which is less localised."""
SITE_VARIATION: Final = 0.35


class Coupled(NamedTuple):
    """Two signals of one region, and their truth.

    Parameters
    ----------
    cubes : dict of str to DataArray
        ``"eels"``, floats with a background taken off, and ``"edx"``, counts: what `scalehsi.fit` takes for
        `scalehsi.CoupledNMF`.
    truth : xarray.Dataset
        ``abundances`` (component, ..., y, x) and ``endmembers`` (component, energy) of EDX, ``abundances_eels`` and
        ``endmembers_eels`` (component, energy_eels) of EELS.
    """

    cubes: dict[str, xr.DataArray]
    truth: xr.Dataset

    @property
    def cube(self) -> xr.DataArray:
        """The EELS cube."""
        return self.cubes["eels"]


class _Layout(NamedTuple):
    """How the maps of one signal are made: size of its map, pixels of it in one of EDX, and the settings of the scene.

    deviation: of the maps from those of EDX, relative to the mean abundance. shift: along y and x in pixels of EDX.
    """

    shape: tuple[int, int]
    fine: int
    beta: float
    seed: int
    deviation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    average: int = 1


def coupled(
    shape: Sequence[int] = (48, 48),
    *,
    counts_eels: float = 2e4,
    counts_edx: float = 50.0,
    beta: float = 2.5,
    deviation: float = 0.0,
    shift: Sequence[float] = (0.0, 0.0),
    ratio: int = 1,
    missing: float = 0.0,
    tilts: int = 0,
    seed: int = 0,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Coupled:
    """Simulate manganese oxides by the Mn L edge in EELS and by EDX, pixel by pixel together.

    The three edges overlap strongly (Mn2+, Mn3+, Mn4+); EDX has lines of its own for two of the phases, and few counts.
    Where hardly a pixel is pure, neither signal alone has a unique factorisation.

    Parameters
    ----------
    shape : (int, int), default (48, 48)
        Pixels of EDX along y and x. Any size: the cubes are lazy.
    counts_eels, counts_edx : float, default 2e4 and 50
        Expected counts in the edges of a mean EELS pixel, and in a mean EDX pixel.
    beta : float, default 2.5
        Contrast of the maps: 1.2 has hardly a pure pixel, 5 mostly pure ones.
    deviation : float, default 0
        Standard deviation of EELS's maps from those of EDX, relative to the mean abundance.
    shift : (float, float), default (0, 0)
        Movement of the sample between the signals along y and x: EDX at a pixel shows what EELS has there plus this.
    ratio : int, default 1
        EELS pixels along a side of an EDX pixel.
    missing : float, 0 to below 1, default 0
        Share of the pixels of EDX without data; its cube then has a mask.
    tilts : int, default 0
        Not 0: a tilt series of this many points of two atomic sites instead of a map, dims (tilt, y, x, energy) with
        one pixel. Weights of the sites vary by 35 %, EELS has 0.6 of that variation; site 1 has no Ni.
    seed : int, default 0
        Of maps and counts.
    pixel_size_nm : float, default 1
        Size of an EDX pixel in nm.
    chunk : int or (int, int), optional
        EDX pixels of a chunk along y and x. It does not change the data.

    Returns
    -------
    Coupled
        The cubes and the truth.

    Raises
    ------
    InputError
        When a setting is outside its allowed values, and for a map's options together with ``tilts``.

    References
    ----------
    Muto and Shiga 2020, doi:10.1093/jmicro/dfz036 (coupled signals; tilt series).

    Examples
    --------
    >>> scene = coupled((16, 16), missing=0.3)
    >>> scene.cubes["eels"].shape, scene.cubes["edx"].shape, str(scene.cubes["eels"].dtype)
    ((16, 16, 125), (16, 16, 496), 'float32')
    """
    size, times = pair("shape", shape), whole("ratio", ratio, least=1)
    moved = (_signed(shift, 0), _signed(shift, 1))
    dose = {"eels": real("counts_eels", counts_eels), "edx": real("counts_edx", counts_edx)}
    settings: dict[str, Any] = {
        "shape": size,
        "counts_eels": dose["eels"],
        "counts_edx": dose["edx"],
        "beta": real("beta", beta),
        "deviation": real("deviation", deviation, closed=True),
        "shift": moved,
        "ratio": times,
        "missing": real("missing", missing, most=0.99, closed=True),
        "tilts": whole("tilts", tilts, least=0),
        "seed": whole("seed", seed, least=0),
        "pixel_size_nm": real("pixel_size_nm", pixel_size_nm),
    }
    plain = not (settings["deviation"] or any(moved) or times > 1 or settings["missing"])
    if tilts and not plain:
        raise InputError("a tilt series has no deviation, shift, ratio or missing pixels; leave them out")
    eels, edx, phases = _edges(), _xrays(), (0, 1, 2)
    if tilts:
        phases = (1, 0)
        maps = {name: partial(_sites, tilts=tilts, contrast=c) for name, c in (("eels", SITE_CONTRAST), ("edx", 1.0))}
        sizes = {"eels": (tilts, 1), "edx": (tilts, 1)}
    else:
        common = {"beta": settings["beta"], "seed": settings["seed"]}
        sizes = {"eels": (size[0] * times, size[1] * times), "edx": size}
        fine = _Layout(sizes["eels"], times, deviation=settings["deviation"], **common)
        maps = {
            "eels": partial(_abundances, layout=fine),
            "edx": partial(_abundances, layout=_Layout(size, times, shift=moved, average=times, **common)),
        }
    make = partial(_signal, settings=settings, chunk=chunk, phases=phases)
    first = make("eels", maps["eels"], eels[list(phases)] * dose["eels"], sizes["eels"], fine=times)
    second = make("edx", maps["edx"], edx[list(phases)] * dose["edx"], sizes["edx"])
    cubes = {"eels": first[0], "edx": second[0]}
    if settings["missing"]:
        cubes["edx"] = cubes["edx"].assign_coords({MASK: ((Y, X), _measured(size, settings))})
    of_eels = first[1].rename({ENERGY: "energy_eels", "abundances": "abundances_eels", "endmembers": "endmembers_eels"})
    if times > 1:
        of_eels = of_eels.rename({Y: "y_eels", X: "x_eels"})
    truth = second[1].assign({name: of_eels[name] for name in ("abundances_eels", "endmembers_eels")})
    truth = truth.assign_attrs(settings=second[1].attrs["settings"])
    if tilts:
        cubes = {name: _tilted(each) for name, each in cubes.items()}
        truth = _tilted(truth)
    return Coupled(cubes, truth)


def _signal(
    name: str,
    layout: Any,
    spectra: Float,
    size: tuple[int, int],
    *,
    settings: dict[str, Any],
    chunk: int | Sequence[int] | None,
    phases: Sequence[int],
    fine: int = 1,
) -> tuple[xr.DataArray, xr.Dataset]:
    """Cube and truth of one signal.

    name: of the signal. layout: its maps. spectra (K, E): in counts. size: its pixels. settings: of the scene. chunk:
    in pixels of EDX. phases: numbers of the components. fine: its pixels along a side of one of EDX.
    """
    eels = name == "eels"
    steps = None if chunk is None else pair("chunk", chunk if isinstance(chunk, Sequence) else (chunk, chunk))
    known = {
        "largest_abundance": THICKNESS[1] * (1 + settings["deviation"] * LARGEST_FIELD),
        "compositions": {NAMES[k]: PHASES[k] for k in phases},
        "energy": EELS_EV if eels else EDX_KEV,
        "energy_units": "eV" if eels else "keV",
        "signal": "EELS" if eels else "EDS",
        "title": f"Simulated manganese oxides, {'EELS' if eels else 'EDX'}",
        "settings": {
            **settings,
            "shape": size,
            "counts_per_pixel": settings[f"counts_{name}"],
            "pixel_size_nm": settings["pixel_size_nm"] / fine,
        },
        "chunk": None if steps is None else (steps[0] * fine, steps[1] * fine),
    }
    truth = make_scene("coupled", layout=layout, spectra=spectra, **known).truth
    truth.attrs["settings"] = json.dumps(settings)
    if not eels:
        return make_scene("coupled", layout=layout, spectra=spectra, stream=1, **known).cube, truth
    # The background is known and taken off; its noise stays.
    level = float(spectra.mean())
    rows = np.vstack([spectra, np.full((1, spectra.shape[1]), level)])
    known["compositions"] = {**known["compositions"], "background": {}}
    known["largest_abundance"] += 1.0
    cube = make_scene("coupled", layout=partial(_and_one, layout=layout), spectra=rows, **known).cube
    net = (cube.astype(np.float32) - np.float32(level)).assign_attrs(cube.attrs)
    # Coordinates of bins of these pixels are then those of EDX.
    offset = 0.5 * (fine - 1) / fine * settings["pixel_size_nm"]
    moved = {d: (d, net[d].values - offset, net[d].attrs) for d in (Y, X)}
    return net.assign_coords(moved), truth.assign_coords(moved)


def _signed(shift: Any, axis: int) -> float:
    values = list(shift) if isinstance(shift, (Sequence, np.ndarray)) and not isinstance(shift, str) else []
    good = len(values) == 2 and all(isinstance(v, (int, float, np.number)) and math.isfinite(v) for v in values)
    if not good:
        raise InputError(f"shift is two numbers along y and x in pixels, got {shift!r}; type shift=(1, 0)")
    return float(values[axis])


def _tilted(data: Any) -> Any:
    """A series along y as a series of tilts of one pixel."""
    if isinstance(data, xr.Dataset):
        made = {
            str(name): _tilted(v) if Y in v.dims else v.drop_vars([Y, X], errors="ignore") for name, v in data.items()
        }
        return xr.Dataset(made, attrs=data.attrs)
    series = data.rename({Y: "tilt"})
    tilts = np.arange(series.sizes["tilt"], dtype=float)
    series = series.assign_coords(tilt=("tilt", tilts, {"long_name": "tilt"})).expand_dims({Y: [0.0]})
    series[Y].attrs = dict(data[X].attrs)
    order = [d for d in series.dims if d not in ("tilt", Y, X, ENERGY)]
    return series.transpose(*order, "tilt", Y, X, *([ENERGY] if ENERGY in series.dims else []))


def _edges() -> Float:
    """Edges of unit sum (3, E): two Gaussian lines on arctangent steps."""
    found = []
    for lines in EDGES:
        row = np.zeros(len(EELS_EV))
        for (energy, height), width in zip(lines, WIDTHS_EV, strict=True):
            row += height * np.exp(-0.5 * ((EELS_EV - energy) / width) ** 2)
            row += STEP * height * (0.5 + np.arctan((EELS_EV - energy) / 0.5) / np.pi)
        row -= np.median(row[EELS_EV < 638.5])
        found.append(np.maximum(row, 0.0))
    rows = np.array(found)
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def _xrays() -> Float:
    """EDX spectra of unit sum (3, E), a quarter of them continuum."""
    limits, found = channel_edges(EDX_KEV), []
    continuum = np.exp(-EDX_KEV / 3.0) * (1 - np.exp(-EDX_KEV / 0.3))
    for phase in PHASES:
        lines = sorted((e, w * amount) for element, amount in phase.items() for e, w in LINES[element])
        energies, weights = np.array(lines).T
        row = detector_response(energies, weights, limits)
        found.append((1 - CONTINUUM) * row / row.sum() + CONTINUUM * continuum / continuum.sum())
    return np.array(found)


def _and_one(window: Window, *, layout: Any) -> Float:
    """Maps of a layout, and one of ones."""
    maps = layout(window)
    return np.concatenate([maps, np.ones((1, *maps.shape[1:]))])


def _sites(window: Window, *, tilts: int, contrast: float) -> Float:
    """Weights of two sites at the points of a tilt series, (2, h, 1). contrast: of their variation."""
    t = (np.arange(window.y0, window.y1) + 0.5) / tilts
    waves = [np.sin(2 * np.pi * 1.5 * t) * np.exp(-((2 * t - 1) ** 2)), np.cos(2 * np.pi * 2.2 * t + 0.6)]
    return np.asarray(0.5 * (1 + contrast * SITE_VARIATION * np.array(waves)))[:, :, None]


def _abundances(window: Window, *, layout: _Layout) -> Float:
    """Fractions of the phases times the thickness, (3, h, w)."""
    if layout.average > 1:
        n = layout.average
        inner = layout._replace(shape=(layout.shape[0] * n, layout.shape[1] * n), average=1)
        fine = _abundances(Window(*(n * v for v in window)), layout=inner)
        return fine.reshape(len(fine), fine.shape[1] // n, n, -1, n).mean(axis=(2, 4))
    moved = tuple(s * layout.fine for s in layout.shift)
    sigma = SMOOTH_PIXELS * layout.fine
    fields = np.array([_field(window, sigma, moved, layout.seed, k) for k in range(len(EDGES))])
    weights = np.exp(layout.beta * fields)
    x = (np.arange(window.x0, window.x1) + 0.5 + moved[1]) / layout.shape[1]
    thickness = THICKNESS[0] + (THICKNESS[1] - THICKNESS[0]) * x
    found = np.asarray(weights / weights.sum(axis=0) * thickness)
    if layout.deviation:
        more = np.array([_field(window, sigma, moved, layout.seed, 8 + k) for k in range(len(EDGES))])
        found = np.maximum(found + layout.deviation / len(EDGES) * more, 0.0)
    return found


def _field(window: Window, sigma: float, shift: tuple[float, ...], seed: int, channel: int) -> Float:
    """A smooth random field of unit variance, moved by ``shift`` pixels; (h, w)."""
    radius = math.ceil(RADIUS * sigma)
    whole_pixels = [math.floor(s) for s in shift]
    y0, x0 = window.y0 + whole_pixels[0] - radius, window.x0 + whole_pixels[1] - radius
    rows, columns = window.y1 - window.y0 + 2 * radius + 1, window.x1 - window.x0 + 2 * radius + 1
    source, first = CountedRandom(seed, LAYOUT_STREAM + channel), x0 // BLOCK
    blocks = (x0 + columns - 1) // BLOCK - first + 1
    noise = np.array(
        [
            np.concatenate([source.at(y0 + i, first + j).standard_normal(BLOCK) for j in range(blocks)])
            for i in range(rows)
        ]
    )[:, x0 - first * BLOCK : x0 - first * BLOCK + columns]
    for axis, (move, base) in enumerate(zip(shift, whole_pixels, strict=True)):
        # One more weight than without a shift: a field between two pixels.
        at = np.arange(-radius, radius + 2) - (move - base)
        kernel = np.exp(-0.5 * (at / sigma) ** 2)
        noise = correlate1d(noise, kernel / np.sqrt((kernel**2).sum()), axis=axis, mode="constant", origin=-1)
    return np.asarray(noise[radius : radius + window.y1 - window.y0, radius : radius + window.x1 - window.x0])


def _measured(size: tuple[int, int], settings: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pixels of EDX were measured."""
    source = CountedRandom(settings["seed"], LAYOUT_STREAM + 16)
    return np.array([[source.at(y, x).random() >= settings["missing"] for x in range(size[1])] for y in range(size[0])])
