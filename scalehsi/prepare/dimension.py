"""How many spectra a cube holds above its noise: HySime with the covariance of the detector's noise."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_fold
from scalehsi.cube import check_cube
from scalehsi.kernels.preparation.noise import second_differences, smooth_totals
from scalehsi.prepare.noise import estimate_noise
from scalehsi.prepare.sums import used_pixels
from scalehsi.schema import ENERGY, InputError

MOST_CHANNELS: Final = 2048
PIXELS_PER_CHANNEL: Final = 4
LEAST_SUMS: Final = 8
MOST_NOISE: Final = 1.5
"""Triples of neighbours whose differences are this many times noisier than the detector lie across a boundary."""


def signal_dimension(cube: xr.DataArray) -> int:
    """Number of spectra that a cube holds above its noise, by HySime with the covariance of neighbouring pixels.

    A direction counts when its power is more than twice that of the noise. With few pixels (below 4 a channel) it is
    counted in sums of channels. The noise covariance comes from second
    differences between pixels, so that channels that a detector correlates do not count as signal.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, at most 2048 channels and 5 pixels or more along x, after spikes and before
        any background. Read once, and pixels of every chunk for the gain; E x E numbers are added up.

    Returns
    -------
    int
        1 for one spectrum of varying intensity.

    Raises
    ------
    InputError
        When there are too many channels, or too few pixels to estimate the noise.

    References
    ----------
    J. Bioucas-Dias and J. Nascimento, IEEE Trans. Geosci. Remote Sens. 46 (2008) 2435. doi:10.1109/TGRS.2008.918089

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> mean = np.linspace(20, 200, 40) * np.ones((20, 20, 1))
    >>> counts = np.random.default_rng(0).poisson(mean)
    >>> signal_dimension(make_cube(counts, energy=range(40), energy_units="eV"))
    1
    """
    check_cube(cube)
    channels = int(cube.sizes[ENERGY])
    if channels > MOST_CHANNELS:
        raise InputError(f"dimension: {channels} channels are too many; bin:energy=2 or crop it to {MOST_CHANNELS}")
    found = estimate_noise(cube)
    # Fewer pixels than this have no covariance of all channels: sums of neighbouring channels then take their place.
    width = max(1, -(-PIXELS_PER_CHANNEL * channels // int(used_pixels(cube).sum())))
    shared = {"gain": found.gain, "readout": found.readout, "width": min(width, max(channels // LEAST_SUMS, 1))}
    _, sums = map_fold(_moments, cube, shared=shared, halo=1, tile=True, name="hysime")
    if not int(sums["triples"]):
        raise InputError("dimension: no three neighbours along x are used; give a mask with fewer holes")
    power, noise = sums["power"] / int(sums["n"]), sums["noise"] / int(sums["triples"])
    return dimension_of(power, noise)


def dimension_of(power: Float, noise: Float) -> int:
    """Number of directions with more than twice the power of the noise; power, noise: second moments (E, E)."""
    vectors = np.linalg.eigh(power - noise)[1]
    of_data = np.einsum("ek,ef,fk->k", vectors, power, vectors, optimize=True)
    of_noise = np.einsum("ek,ef,fk->k", vectors, noise, vectors, optimize=True)
    return int((of_data > 2.0 * of_noise).sum())


def _moments(x: Any, *, tile: Any, gain: float, readout: float, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Second moments of the spectra of a block, and of the differences of three neighbours along x around each.

    x (P, E): the tile with its halo. tile: its shape, and which pixels are the block's own. gain, readout: the
    noise. width: channels of a sum.
    """
    shape = (*tile.shape, x.shape[-1])
    frames = np.asarray(x, dtype=np.float64).reshape(-1, *shape[-2:])
    used, core = (np.asarray(v).reshape(-1, shape[-2]) for v in (tile.used, tile.core))
    own = frames[core]
    own = _sums_of_channels(own, width)
    sums: dict[str, Any] = {"power": own.T @ own, "n": len(own)}
    good = used[:, :-2] & used[:, 2:] & core[:, 1:-1] if shape[-2] >= 3 else np.zeros((len(used), 0), dtype=bool)
    a, c, b = (frames[:, k : k + good.shape[1]][good] for k in range(3))
    totals = np.stack([smooth_totals(part) for part in (a, c, b)])
    d, m = second_differences(a, c, b, totals=totals, scaled=(totals > 0).all(axis=0))
    expected = (gain * np.maximum(m, 0.0) + readout**2).sum(axis=1)
    quiet = (d**2).sum(axis=1) <= MOST_NOISE * expected
    d = _sums_of_channels(d[quiet], width)
    return {}, {**sums, "noise": d.T @ d, "triples": len(d)}


def _sums_of_channels(x: Float, width: int) -> Float:
    """Sums of this many neighbouring channels of x (n, E); an incomplete last one is left out."""
    number = x.shape[1] // width
    return x[:, : number * width].reshape(len(x), number, width).sum(axis=2)
