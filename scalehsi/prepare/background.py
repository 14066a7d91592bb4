"""Subtract the background in front of an EELS edge: power law or exponential, extrapolated from a window."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_cube
from scalehsi.checks import choice
from scalehsi.cube import check_cube, with_history
from scalehsi.kernels.preparation import power_law as laws
from scalehsi.kernels.preparation.old_estimators import log_linear, two_area
from scalehsi.kernels.preparation.power_law import PowerTable
from scalehsi.prepare.edge_windows import LEAST_CHANNELS, Range, warn_onsets, window_channels, window_ends
from scalehsi.prepare.noise import estimate_noise, given_or_estimated, round_digits
from scalehsi.prepare.sums import logger, pixel_sums, used_pixels, with_map
from scalehsi.schema import ENERGY, InputError

MODELS: Final = ("power", "exponential", "lcpl", "two_area", "loglinear")
MOST_MISFIT: Final = 1.5
LEAST_COUNTS: Final = 3.0
"""Mean counts of a channel below which a misfit says nothing."""
PERCENTILES: Final = (5.0, 95.0)
LEAST_SPREAD: Final = 1.6
LEAST_LINE_SPREAD: Final = 2.3
"""From these ratios of the variance of the exponents to that of noise on, those of a box of 25 pixels differ, and those
of a line of 5: two standard deviations."""


class Law:
    """The background of every pixel, from one reading: height and exponent, and how well they fit.

    Attributes
    ----------
    l : array, shape (E,)
        Coordinate of each channel.
    table : PowerTable
    n, r, log_z : array, shape (..., y, x)
        Counts in the window, exponent, and ln of the sum of ``e^(-rl)``; NaN without counts.
    r_variance : array, shape (..., y, x)
        Of the exponents.
    sums : array, shape (..., y, x, 9)
        `scalehsi.kernels.preparation.power_law.SUMS`.
    """

    def __init__(
        self,
        energy: Float,
        channels: tuple[int, int],
        sums: Float,
        *,
        model: str = "power",
        share: int = 5,
        window_gain: float = 1.0,
    ) -> None:
        first, last = channels
        self.l = laws.axis_of(energy, first, last, law="exponential" if model == "exponential" else "power")
        self.window = self.l[first:last]
        self.table: PowerTable = laws.power_table(self.window)
        self.sums, self.channels = sums, last - first
        good = np.isfinite(sums[..., 0]) & (sums[..., 0] > 0)
        self.n = np.where(good, sums[..., 0], np.nan)
        self.r, self.r_variance = shared_exponents(
            self.table, np.where(good, sums[..., 0], 0.0), np.where(good, sums[..., 1], 0.0), share, window_gain
        )
        self.log_z = laws.log_normalisation(self.table, self.r)
        self.height = self.n * np.exp(-self.log_z)

    def misfit(self, gain: float) -> Float:
        """Deviance over degrees of freedom (..., y, x), 1 for counting noise; NaN below 3 counts a channel."""
        n, moment, entropy = self.sums[..., 0], self.sums[..., 1], self.sums[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            deviance = 2.0 * (entropy - n * (np.log(self.n) - self.log_z) + self.r * moment)
        enough = n / gain >= LEAST_COUNTS * self.channels
        return np.where(enough, deviance / (gain * (self.channels - 2)), np.nan)


def shared_exponents(table: PowerTable, n: Float, moment: Float, share: int, window_gain: float) -> tuple[Float, Float]:
    """Exponent and its variance (..., y, x), from the sums of boxes of ``share`` x ``share`` pixels.

    Where the exponents of a box differ by more than their noise, as across a boundary of phases, that of a line of
    ``share`` pixels takes its place, the one of four directions whose exponents differ least; and where these differ
    too, it goes back towards the pixel's own, as far as an empirical Bayes estimate says.

    n, moment (..., y, x): sum x and sum x l, both 0 without counts. window_gain: variance over mean of a sum.
    """
    own = laws.exponent_of(table, _ratio(moment, n))
    own_variance = _ratio(np.full(n.shape, window_gain), n * np.interp(own, table.r, table.v))
    if share == 1:
        return own, own_variance
    box = laws.share_over(n, box=share)
    r = np.where(n > 0, laws.exponent_of(table, _ratio(laws.share_over(moment, box=share), box)), np.nan)
    v = np.interp(np.nan_to_num(r), table.r, table.v)
    variance = window_gain / (np.where(box > 0, box, np.nan) * v)
    expected = _ratio(np.full(n.shape, window_gain), n * v)
    squares = np.where(n > 0, (own - r) ** 2 / expected, 0.0)
    members = laws.share_over((n > 0).astype(np.float64), box=share)
    uneven = laws.share_over(np.nan_to_num(squares), box=share) / np.maximum(members, 1.0) > LEAST_SPREAD
    line, line_variance, spread = _best_line(np.nan_to_num(own), np.where(n > 0, 1.0 / own_variance, 0.0), share)
    r, variance = np.where(uneven, line, r), np.where(uneven, line_variance, variance)
    real = np.where(uneven & (spread > LEAST_LINE_SPREAD), spread - 1.0, 0.0)
    own_share = real / (1.0 + real)
    variance = variance * (1.0 - own_share**2) + own_share**2 * expected + (1.0 - own_share) ** 2 * real * expected
    return np.where(n > 0, r + own_share * (own - r), np.nan), variance


def _best_line(r: Float, weight: Float, share: int) -> tuple[Float, Float, Float]:
    """Mean, its variance, and chi-square per degree of freedom, along the line that has the least of it.

    r, weight (..., y, x): exponents, and one over their variance, both 0 without counts. share: pixels of a line. With
    fewer than three of them a line does not count; where none does, the pixel is alone.
    """
    total, first, second, members = (
        laws.share_along(values, length=share) for values in (weight, weight * r, weight * r * r, 1.0 * (weight > 0))
    )
    mean = _ratio(first, total)
    enough = (members >= 3) & (total > 0)
    spread = np.where(enough, (second - total * np.nan_to_num(mean) ** 2) / np.maximum(members - 1.0, 1.0), np.inf)
    best = spread.argmin(axis=0)[None]
    rows = (np.take_along_axis(each, best, axis=0)[0] for each in (mean, _ratio(np.ones(total.shape), total), spread))
    line, variance, left = rows
    alone = ~np.isfinite(left)
    return (
        np.where(alone, r, line),
        np.where(alone, _ratio(np.ones(r.shape), weight), variance),
        np.where(alone, 0.0, left),
    )


def _ratio(top: Float, bottom: Float) -> Float:
    """top / bottom; NaN where bottom is not above 0."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def remove_background(
    cube: xr.DataArray,
    fit: Range,
    *,
    model: str = "power",
    share: int = 5,
    gain: float | None = None,
    window_gain: float | None = None,
) -> xr.DataArray:
    """Subtract a background that is fitted to a window of energy in front of an edge.

    The law is fitted by maximum likelihood, whose exponent follows from two sums of the window (one reading at the
    call); the result is lazy. The exponent is that of a pixel's neighbourhood, which takes most of the noise out of the
    net counts, and the height is the pixel's own.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    fit : (low, high)
        Window in the unit of the axis, both ends included, 10 channels or more, without an onset in it.
    model : {"power", "exponential", "lcpl", "two_area", "loglinear"}
        - "power": ``A E^-r``. 8 ns a channel of a pixel, window and subtraction together.
        - "exponential": ``A e^-E/s``, for low losses; on a power law it leaves 1.4 %.
        - "lcpl": two power laws with the 5th and 95th percentile of the pixels' exponents, a height each.
        - "two_area", "loglinear": what other programs use, to compare; biased, and their exponent is not shared.
    share : int, default 5
        The exponent is that of ``share`` x ``share`` pixels, an odd number; where these differ more than noise does,
        that of a line of them or the pixel's own. 1 for images of atomic columns, at twice the noise. Net maps of
        neighbours correlate by 0.06 to 0.11.
    gain : float, optional
        Variance over mean of a channel, for the misfit. Default: that of the cube, see
        `scalehsi.prepare.estimate_noise`.
    window_gain : float, optional
        The same of sums of channels, for the bias of single pixels (``share=1``). Default: that of the cube.

    Returns
    -------
    xarray.DataArray
        float32. Negative values stay, and ``attrs["negative_values"]`` is 1. Pixels without counts in the window stay
        as they are, and so do channels at or below 0 eV. Coordinates over the pixels: ``background_exponent``,
        ``background_counts`` (in the window), and for the first two models ``background_misfit``: the deviance over its
        degrees of freedom, 1 for counting noise.

    Raises
    ------
    InputError
        When the window is outside the axis, reversed, too short or not above 0, or a setting is unknown.

    Notes
    -----
    Warnings (of the logger ``scalehsi``): an edge of ``attrs["elements"]`` in the window, pixels without counts, a
    median misfit above 1.5. The likelihood of a power law through its moments: doi:10.1137/070710111. Sharing:
    P. Cueva et al., Microsc. Microanal. 18 (2012) 667. doi:10.1017/S1431927612000244

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> energy = np.arange(400.0, 500.0)
    >>> cube = make_cube(np.full((6, 6, 1), 1e10) * energy**-3, energy=energy, energy_units="eV")
    >>> net = remove_background(cube, (400, 450), gain=1.0, window_gain=1.0)
    >>> bool(abs(net).max() < 1e-5 * cube.min()), round(float(net.background_exponent.mean()), 3)
    (True, 3.0)
    """
    check_cube(cube)
    choice("background: model", model, MODELS)
    if isinstance(share, bool) or not float(share).is_integer() or share < 1 or int(share) % 2 == 0:
        raise InputError(f"background: share={share!r}; an odd whole number is expected, such as 5, or 1 for none")
    channels = window_channels(cube, "background", "fit", fit, LEAST_CHANNELS)
    fit = window_ends(cube, fit)
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    if model != "exponential" and not (energy[channels[0] : channels[1]] > 0).all():
        raise InputError(
            f"background: a power law needs energies above 0; fit={float(fit[0]):g}:{float(fit[1]):g} holds 0"
        )
    for line in warn_onsets(cube, "background", {"fit": (float(fit[0]), float(fit[1]))}):
        logger.warning("%s", line)
    share = int(share) if model in ("power", "exponential", "lcpl") else 1
    gain, window_gain = gains_of(cube, "background", gain, window_gain)
    sums = read_window(cube, channels, model=model)
    law = Law(energy, channels, sums, model=model, share=share, window_gain=window_gain)
    _warn_empty(cube, law)
    words = f"fit={float(fit[0]):.10g}:{float(fit[1]):.10g}, model={model}, share={share}"
    line = f"background({words}, gain={gain:g}, window_gain={window_gain:g})"
    if model == "lcpl":
        made = _subtract_two(cube, law, channels)
    else:
        height, r, curve = _heights(law, energy, channels, model=model, share=share)
        made = _subtract(cube, law, height, r, curve)
    exponent = law.r / (energy[slice(*channels)].mean() if model == "exponential" else 1.0)
    units = f"1/{cube[ENERGY].attrs.get('units', '')}" if model == "exponential" else ""
    if model in ("two_area", "loglinear"):
        exponent = r
    made = with_map(made, "background_exponent", exponent.astype(np.float32), "exponent of the background", units)
    made = with_map(made, "background_counts", law.n.astype(np.float32), "counts in the fit window")
    if model in ("power", "exponential"):
        misfit = law.misfit(gain)
        made = with_map(made, "background_misfit", misfit.astype(np.float32), "deviance over degrees of freedom")
        middle = float(np.nanmedian(misfit)) if np.isfinite(misfit).any() else 0.0
        if middle > MOST_MISFIT:
            logger.warning(
                "background: the misfit is %.2g (1 is counting noise): the window holds more than the background; "
                "shorten fit, or try model=exponential",
                middle,
            )
    made.attrs = {**made.attrs, "negative_values": 1}
    return with_history(made, line)


def read_window(cube: xr.DataArray, channels: tuple[int, int], *, model: str = "power") -> Float:
    """The sums (..., y, x, 9) of a window, from one reading; cube, channels and model as in `remove_background`."""
    first, last = channels
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    l = laws.axis_of(energy, first, last, law="exponential" if model == "exponential" else "power")  # noqa: E741
    shared = {"first": first, "last": last, "l": l[first:last], "logs": model == "loglinear"}
    return pixel_sums(cube, laws.window_sums, len(laws.SUMS), shared=shared, name="background-sums")


def gains_of(cube: xr.DataArray, step: str, gain: float | None, window_gain: float | None) -> tuple[float, float]:
    """Both gains, estimated where they are not given; 1 where there are too few pixels to estimate them.

    cube: to estimate them. step: begins the messages. gain, window_gain: as in `remove_background`.
    """
    for value in (gain, window_gain):
        given_or_estimated(cube, step, gain=value if value is not None else 1.0)
    if gain is not None and window_gain is not None:
        return float(gain), float(window_gain)
    try:
        found = estimate_noise(cube)
        estimates = found.gain, found.window_gain
    except InputError as error:
        logger.info("%s: gain=1 is taken; %s", step, error)
        estimates = 1.0, 1.0
    return float(estimates[0] if gain is None else gain), float(estimates[1] if window_gain is None else window_gain)


def _warn_empty(cube: xr.DataArray, law: Law) -> None:
    used = used_pixels(cube)
    empty = int((used & ~np.isfinite(law.n)).sum())
    if empty == used.sum():
        raise InputError("background: no pixel has counts in the fit window; choose another one")
    if empty:
        logger.warning(
            "background: %d of %d pixels have no counts in the fit window: left as they are", empty, used.sum()
        )


def _heights(
    law: Law, energy: Float, channels: tuple[int, int], *, model: str, share: int
) -> tuple[Float, Float, Float]:
    """Height and exponent (..., y, x) of ``height e^(-rl)``, and the correction of its bias (..., y, x, 2).

    law: from the sums. energy (E,), channels, model, share: as in `remove_background`.
    """
    curve = np.zeros((*law.n.shape, 2))
    if model in ("power", "exponential"):
        if share == 1:
            curve[..., 0] = law.r_variance
            curve[..., 1] = np.where(np.isfinite(law.n), law.sums[..., 1] / law.n, 0.0)
        return law.height, law.r, np.nan_to_num(curve)
    if model == "loglinear":
        height, r = log_linear(law.sums[..., 4:])
        return height, r, curve
    first, last = channels
    width = float(abs(energy[-1] - energy[0]) / max(energy.size - 1, 1))
    half = (last - first) // 2
    if (last - first) % 2:
        raise InputError(f"background: model=two_area needs an even number of channels; fit holds {last - first}")
    front = law.sums[..., 3] * width
    back = law.sums[..., 0] * width - front
    ends = (float(energy[first]), float(energy[first + half]), float(energy[last - 1] + width))
    amplitude, r = two_area(front, back, ends)
    centre = np.log(energy[first:last]).mean()
    return amplitude * np.exp(-r * centre), r, curve


def _subtract(cube: xr.DataArray, law: Law, height: Float, r: Float, curve: Float) -> xr.DataArray:
    """The cube minus the laws of its pixels; height, r (..., y, x), curve (..., y, x, 2): from `_heights`."""
    rows, low = laws.power_rows(law.l, r)
    shared = {"l": law.l, "rows": rows, "low": low}
    maps = (height, r, curve[..., 0], curve[..., 1])
    return map_cube(_subtract_block, cube, *maps, dtype=np.float32, shared=shared)


def _subtract_block(x: Any, height: Any, r: Any, spread: Any, u: Any, **shared: Any) -> Any:
    """`subtract_laws` of a block (..., y, x, E)."""
    curve = np.stack([spread.reshape(-1), u.reshape(-1)], axis=1)
    rows = x.reshape(-1, x.shape[-1])
    return laws.subtract_laws(rows, height.reshape(-1), r.reshape(-1), curve, **shared).reshape(x.shape)


def _subtract_two(cube: xr.DataArray, law: Law, channels: tuple[int, int]) -> xr.DataArray:
    """The cube minus two power laws with fixed exponents: weighted least squares in the window.

    law: from the sums; its exponents give the two. channels: of the window.
    """
    used = law.r[np.isfinite(law.r)]
    low, high = (round_digits(float(v)) for v in np.percentile(used, PERCENTILES))
    high = max(high, low + 0.1)
    finite = np.isfinite(law.l)
    basis = np.where(finite, np.exp(-np.outer((low, high), np.where(finite, law.l, 0.0))), 0.0)
    inside = basis[:, slice(*channels)]
    weights = 1.0 / inside.mean(axis=0)
    operator = np.linalg.solve((inside * weights) @ inside.T, inside * weights)
    shared = {"first": channels[0], "last": channels[1], "operator": operator, "basis": basis}
    return map_cube(_subtract_two_block, cube, law.n, dtype=np.float32, shared=shared)


def _subtract_two_block(x: Any, n: Any, *, first: int, last: int, operator: Any, basis: Any) -> Any:
    """x (..., y, x, E) minus its combination of the basis (2, E); n (..., y, x): NaN where nothing is subtracted."""
    window = np.asarray(x[..., first:last], dtype=np.float64)
    heights = np.einsum("...e,ke->...k", window, operator)
    heights = np.where(np.isfinite(n)[..., None], heights, 0.0)
    return np.asarray(x - (heights[..., :1] * basis[0] + heights[..., 1:] * basis[1]), dtype=np.float32)
