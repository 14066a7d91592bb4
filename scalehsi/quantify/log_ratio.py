"""Thickness of the specimen in every pixel, from its low losses."""

from __future__ import annotations

import numbers
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.checks import is_number
from scalehsi.cube import check_cube, energy_factor, history_of, navigation_dims
from scalehsi.kernels.preparation.zero_loss_part import zero_loss_part
from scalehsi.prepare.background import gains_of
from scalehsi.prepare.shift_maps import zero_loss_settings
from scalehsi.prepare.sums import logger, pixel_sums, used_pixels
from scalehsi.schema import ENERGY, InputError

MINIMUM_EV: Final = (1.0, 10.0)
"""Behind the zero-loss peak: between them lies the minimum where it ends."""


def thickness(
    low_loss: xr.DataArray, *, mean_free_path: float | None = None, window_gain: float | None = None
) -> xr.Dataset:
    """Thickness in inelastic mean free paths, ``t / lambda = ln(I_t / I_0)``, of every pixel.

    I_0 is the intensity up to the minimum behind the pixel's own zero-loss peak, so the cube need not be aligned.

    Parameters
    ----------
    low_loss : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, a rising axis that begins below the zero-loss peak. Losses beyond its end
        are missing: 1.3 % at t / lambda 2 and 180 eV. Read twice at the call.
    mean_free_path : float, optional
        Inelastic mean free path in nm, for the thickness in nm.
    window_gain : float, optional
        Variance over mean of sums of channels, for the error. Default: `scalehsi.prepare.estimate_noise`.

    Returns
    -------
    xarray.Dataset
        Dims ``(..., y, x)``: ``t_over_lambda``, ``t_over_lambda_std``, ``zero_loss`` (position, in the unit of the
        axis); with a mean free path ``thickness`` and ``thickness_std`` in nm. NaN where a pixel is masked, has no peak
        or no intensity.

    Raises
    ------
    InputError
        When the axis has no zero loss, falls, or has no unit of energy.

    Notes
    -----
    Log-ratio method: T. Malis et al., J. Electron Microsc. Tech. 8 (1988) 193. doi:10.1002/jemt.1060080206

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> energy = np.arange(-10.0, 90.0, 0.5)
    >>> zero, loss = np.exp(-(energy**2)), 0.2 * np.exp(-(((energy - 20) / 5) ** 2))
    >>> cube = make_cube(1e4 * np.ones((3, 4, 1)) * (zero + loss), energy=energy, energy_units="eV")
    >>> round(float(thickness(cube, window_gain=1.0).t_over_lambda[0, 0]), 2)
    0.69
    """
    check_cube(low_loss)
    factor = energy_factor(str(low_loss[ENERGY].attrs.get("units", "")))
    if factor is None:
        raise InputError("thickness: the axis needs a unit of energy; type cube.energy.attrs['units'] = 'eV'")
    if low_loss.sizes[ENERGY] < 8 or not (np.diff(low_loss[ENERGY].values) > 0).all():
        raise InputError("thickness: a rising axis of 8 channels or more is needed; type cube.sortby('energy')")
    if mean_free_path is not None and (not is_number(mean_free_path, numbers.Real) or not mean_free_path > 0):
        raise InputError(f"thickness: mean_free_path={mean_free_path!r}; a length in nm above 0 is expected")
    energy, settings = zero_loss_settings(low_loss, "thickness")
    _, window_gain = gains_of(low_loss, "thickness", 1.0, window_gain)
    step = float(energy[-1] - energy[0]) / (energy.size - 1)
    nearest, furthest = (value / factor / step for value in MINIMUM_EV)
    shared = {"nearest": nearest, "furthest": furthest, **settings}
    place, zero, total = np.moveaxis(pixel_sums(low_loss, zero_loss_part, 3, shared=shared, name="thickness"), -1, 0)
    good = (zero > 0) & (total > 0)
    missing = int((used_pixels(low_loss) & ~good).sum())
    if missing:
        logger.warning("thickness: %d of %d pixels have no zero-loss peak: NaN", missing, good.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(good, np.log(total / zero), np.nan)
        error = np.sqrt(np.maximum(window_gain * (1.0 / zero - 1.0 / total), 0.0))
    maps = {"t_over_lambda": (ratio, ""), "t_over_lambda_std": (np.where(good, error, np.nan), "")}
    maps["zero_loss"] = (energy[0] + step * place, str(low_loss[ENERGY].attrs["units"]))
    if mean_free_path is not None:
        maps |= {name: (maps[of][0] * float(mean_free_path), "nm") for name, of in NM.items()}
    dims = navigation_dims(low_loss)
    data: dict[str, Any] = {
        name: (dims, values.astype(np.float32), {"units": units} if units else {})
        for name, (values, units) in maps.items()
    }
    coords = {d: low_loss[d] for d in dims if d in low_loss.coords}
    attrs = {k: v for k, v in low_loss.attrs.items() if isinstance(v, (str, int, float)) and k != "history"}
    words = "" if mean_free_path is None else f", mean_free_path={float(mean_free_path):g} nm"
    history = [*history_of(low_loss.attrs), f"thickness(window_gain={window_gain:g}{words})"]
    return xr.Dataset(data, coords, {**attrs, "history": "\n".join(history)})


NM: Final = {"thickness": "t_over_lambda", "thickness_std": "t_over_lambda_std"}
