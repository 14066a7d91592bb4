"""Scale values: divide pixels by their intensity, or make the noise alike everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from scalehsi.blocks import map_cube
from scalehsi.cube import check_cube, with_history
from scalehsi.kernels.preparation import stabilise
from scalehsi.kernels.preparation.power_law import channel_sums
from scalehsi.prepare.edge_windows import window_channels, window_ends
from scalehsi.prepare.noise import given_or_estimated
from scalehsi.prepare.sums import logger, pixel_sums, used_pixels
from scalehsi.schema import ENERGY, InputError


def normalise(cube: xr.DataArray, by: str | tuple[float, float] = "total") -> xr.DataArray:
    """Divide each pixel by its total, or by its sum in a window. Poisson statistics are lost: prefer weights in a fit.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    by : "total" or (low, high)
        A window in the unit of the axis, both ends included.

    Returns
    -------
    xarray.DataArray
        float32, lazy after one reading at the call. Masked pixels, and those whose sum is not above 0, are unchanged.

    Raises
    ------
    InputError
        When the window is outside the axis, or no pixel has a sum above 0.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.full((2, 2, 4), 5, "u1"), energy=range(4), energy_units="eV")
    >>> float(normalise(cube)[0, 0, 0])
    0.25
    """
    check_cube(cube)
    if isinstance(by, str) and by != "total":
        raise InputError(f"normalise: by={by!r}; 'total' or a range (low, high) is expected")
    channels = (0, int(cube.sizes[ENERGY])) if isinstance(by, str) else window_channels(cube, "normalise", "by", by)
    sums = pixel_sums(cube, channel_sums, 1, shared={"windows": [channels]}, name="normalise")[..., 0]
    used = used_pixels(cube)
    good = used & (sums > 0)
    if not good.any():
        raise InputError("normalise: no pixel has a sum above 0; choose another window")
    if good.sum() < used.sum():
        logger.warning(
            "normalise: %d of %d pixels have no sum above 0: left as they are", used.sum() - good.sum(), used.sum()
        )
    made = map_cube(_scale_block, cube, np.where(good, 1.0 / np.where(good, sums, 1.0), 1.0), dtype=np.float32)
    made.attrs = {**made.attrs, "normalised": 1}
    words = by if isinstance(by, str) else "{:.10g}:{:.10g}".format(*window_ends(cube, by))
    return with_history(made, f"normalise(by={words})")


def anscombe(cube: xr.DataArray, gain: float | None = None, readout: float | None = None) -> xr.DataArray:
    """Make the noise of all values alike, variance 1, by the generalised Anscombe transform.

    For denoising and display. Mixtures become nonlinear, so it is no step before unmixing; the inverse of a mean is
    `scalehsi.kernels.preparation.stabilise.inverse_anscombe`, not the square.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    gain, readout : float, optional
        Noise of a channel, ``variance = gain mean + readout^2``. Default: `scalehsi.prepare.estimate_noise`.

    Returns
    -------
    xarray.DataArray
        float32, lazy. Values far below 0 become 0. Masked pixels are unchanged.

    Raises
    ------
    InputError
        When gain or readout is out of range, or the noise cannot be estimated.

    Notes
    -----
    doi:10.1093/biomet/35.3-4.246 and doi:10.1109/TIP.2012.2202675

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> counts = np.random.default_rng(0).poisson(30.0, (20, 20, 50))
    >>> flat = anscombe(make_cube(counts, energy=range(50), energy_units="eV"), gain=1, readout=0)
    >>> bool(abs(float(flat.var()) - 1) < 0.03)
    True
    """
    check_cube(cube)
    gain, readout = given_or_estimated(cube, "anscombe", gain=gain, readout=readout)
    made = map_cube(
        _stabilise_block, cube, used_pixels(cube), dtype=np.float32, shared={"gain": gain, "readout": readout}
    )
    made.attrs = {**made.attrs, "stabilised": 1}
    return with_history(made, f"anscombe(gain={gain:.10g}, readout={readout:.10g})")


def _scale_block(x: Any, factor: Any) -> Any:
    return (x * np.asarray(factor)[..., None]).astype(np.float32)


def _stabilise_block(x: Any, used: Any, **noise: Any) -> Any:
    made = stabilise.anscombe(x, **noise)
    return np.where(np.asarray(used)[..., None], made, x).astype(np.float32)
