"""Simulate two EELS acquisitions of one region for pansharpening: small pixels with few counts, large ones with many.

The region has square nanoparticles with plasmon modes; the truth is known on the small pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.schema import ENERGY, InputError, X, Y
from scalehsi.simulate.scene import Scene, make_scene, pair, real, whole
from scalehsi.simulate.shapes import plasmons
from scalehsi.simulate.shapes.plasmons import Raster

ENERGY_EV: Final = (0.2, 2.0)
IMAGE_WEIGHTS: Final = (1.0, 0.0, 0.0, 0.0)
"""Contribution of each component to the image, which shows mass: plasmon modes have none."""


class Acquisitions(NamedTuple):
    """Simulated acquisitions of one region.

    Parameters
    ----------
    cubes : dict of str to DataArray
        ``"spatial"`` and ``"spectral"``, lazy counts (y, x, energy), and ``"image"`` (y, x) where it was requested: the
        data that `scalehsi.fit` takes for `scalehsi.PanSharpen`.
    truth : xarray.Dataset
        Truth of the spatial cube, as in `Scene`, on its energy axis.
    """

    cubes: dict[str, xr.DataArray]
    truth: xr.Dataset

    @property
    def cube(self) -> xr.DataArray:
        """The spatial cube."""
        return self.cubes["spatial"]


def acquisitions(
    shape: Sequence[int] = (96, 96),
    *,
    footprint: int = 6,
    counts_per_pixel: float = 500.0,
    dwell_ratio: float = 100.0,
    drift: Sequence[float] = (0.0, 0.0),
    point_spread: float = 0.0,
    n_channels: int = 360,
    spectral_channels: int | None = None,
    image_counts: float = 0.0,
    seed: int = 0,
    pixel_size_nm: float = 1.0,
    chunk: int | Sequence[int] | None = None,
) -> Acquisitions:
    """Simulate low-loss EELS maps of nanoparticles: one with small pixels and few counts, one with large and many.

    Square particles have plasmon modes at their corners, along their edges and on their faces, from 0.2 to 2 eV, on the
    tail of the zero-loss peak.

    Parameters
    ----------
    shape : (int, int), default (96, 96)
        Pixels of the spatial cube along y and x. Any size: the cube is lazy.
    footprint : int, default 6
        Spatial pixels along a side of a spectral pixel; an incomplete last one is left out.
    counts_per_pixel : float, default 500
        Approximate mean number of counts of a spatial pixel over a wide field.
    dwell_ratio : float, default 100
        Counts of a spectral pixel divided by those of a spatial pixel.
    drift : (float, float), default (0, 0)
        Movement of the sample before the spectral cube was acquired, in spatial pixels along y and x. The coordinates
        of the cubes do not include it.
    point_spread : float, default 0
        Standard deviation of the probe of the spectral cube beyond its footprint, in spatial pixels.
    n_channels : int, default 360
        Channels of the spatial cube, from 0.2 to 2 eV.
    spectral_channels : int, optional
        Channels of the spectral cube over the same range. By default ``n_channels``.
    image_counts : float, default 0
        Counts in a pixel of an additional image, whose pixels have half the size. 0 makes no image.
    seed : int, default 0
        Seed of the particles and of all counts.
    pixel_size_nm : float, default 1
        Size of a spatial pixel in nm.
    chunk : int or (int, int), optional
        Pixels of a chunk of the spatial cube along y and x. It does not change the data.

    Returns
    -------
    Acquisitions
        The cubes, the image where it was requested, and the truth of the spatial cube.

    Raises
    ------
    InputError
        When a setting is outside its allowed values.

    Examples
    --------
    >>> cubes, truth = acquisitions((48, 36), footprint=6, drift=(1.3, -0.9), seed=2)
    >>> cubes["spatial"].shape, cubes["spectral"].shape, float(cubes["spectral"].x[0])
    ((48, 36, 360), (8, 6, 360), 2.5)
    """
    size, factor = pair("shape", shape), whole("footprint", footprint, least=1)
    if factor > min(size):
        raise InputError(f"footprint={factor} is more than the {size[0]} x {size[1]} pixels of the map; take fewer")
    moved = [float(v) for v in drift]
    if len(moved) != 2 or not np.isfinite(moved).all():
        raise InputError(f"drift must be two numbers (y and x, in spatial pixels), got {drift!r}; type drift=(0, 0)")
    blur = real("point_spread", point_spread, closed=True)
    counts, ratio = real("counts_per_pixel", counts_per_pixel), real("dwell_ratio", dwell_ratio)
    image = real("image_counts", image_counts, closed=True)
    step = real("pixel_size_nm", pixel_size_nm)
    channels = whole("n_channels", n_channels, least=2)
    settings: dict[str, Any] = {
        "shape": size,
        "footprint": factor,
        "counts_per_pixel": counts,
        "dwell_ratio": ratio,
        "drift": (moved[0], moved[1]),
        "point_spread": blur,
        "n_channels": channels,
        "spectral_channels": whole("spectral_channels", spectral_channels or channels, least=2),
        "image_counts": image,
        "seed": whole("seed", seed, least=0),
        "pixel_size_nm": step,
    }
    scene = partial(_scene, settings=settings)
    spatial = scene("spatial", size, Raster(), counts, channels=channels, chunk=chunk)
    small = (size[0] // factor, size[1] // factor)
    raster = Raster(float(factor), (moved[0], moved[1]), factor, blur)
    spectral = scene("spectral", small, raster, counts * ratio, channels=settings["spectral_channels"], stream=1)
    cubes = {"spatial": spatial.cube, "spectral": _at(spectral.cube, factor, step)}
    if image:
        fine = (2 * size[0], 2 * size[1])
        counted = scene("image", fine, Raster(0.5), image, channels=1, stream=2).cube
        cubes["image"] = _at(counted.isel({ENERGY: 0}, drop=True).rename("image"), 0.5, step)
    return Acquisitions(cubes, spatial.truth)


def _scene(
    name: str,
    shape: tuple[int, int],
    raster: Raster,
    counts: float,
    *,
    settings: dict[str, Any],
    channels: int,
    stream: int = 0,
    chunk: int | Sequence[int] | None = None,
) -> Scene:
    """Simulate one acquisition with axes that begin at zero.

    ``name`` goes into its title, ``shape`` are its pixels along y and x, ``raster`` their positions in the region,
    ``counts`` the mean counts of a pixel, ``settings`` those of `acquisitions`, ``channels`` the number of channels (1
    for the image), ``stream`` the stream of random numbers, and ``chunk`` as in `acquisitions`.
    """
    low, high = ENERGY_EV
    energy = low + (high - low) * (np.arange(channels) + 0.5) / channels
    spectra: Float = (
        plasmons.plasmon_spectra(energy) * counts if channels > 1 else counts * np.array(IMAGE_WEIGHTS)[:, None]
    )
    return make_scene(
        "acquisitions",
        layout=partial(plasmons.plasmon_modes, seed=settings["seed"], raster=raster),
        spectra=spectra,
        largest_abundance=plasmons.TAIL_LEVEL + plasmons.TAIL_RISE + sum(plasmons.MODE_HEIGHTS),
        compositions={each: {} for each in plasmons.COMPONENT_NAMES},
        energy=energy,
        energy_units="eV",
        signal="EELS",
        title=f"Simulated nanoparticles, {name} acquisition",
        settings={**settings, "shape": shape, "counts_per_pixel": counts},
        chunk=chunk,
        stream=stream,
    )


def _at(data: xr.DataArray, pitch: float, step: float) -> xr.DataArray:
    """Return ``data`` with pixel coordinates in nm that agree with those of the spatial cube.

    ``pitch`` is the size of its pixels in spatial pixels, ``step`` the size of a spatial pixel in nm.
    """
    axes = {d: (d, (np.arange(data.sizes[d]) + 0.5) * pitch * step - 0.5 * step, data[d].attrs) for d in (Y, X)}
    return data.assign_coords(axes)
