"""Energy windows of EELS edges: those that were given, checked, and proposals from the elements of the sample."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import energy_factor
from scalehsi.physics.line_names import split_symbols
from scalehsi.physics.onsets import Onset, edge_onsets
from scalehsi.schema import ENERGY, InputError

logger = logging.getLogger("scalehsi")

LEAST_CHANNELS: Final = 10
"""Of the window that a background is fitted to."""
MOST_NOISE: Final = 4.0
"""A window is proposed when the standard deviation of the net counts is at most this, in square roots of the
background's counts in the signal window; sums without extrapolation have 1."""
DELAY_EV: Final = 50.0
"""Behind an edge, the fit window of the next one begins this much higher: near-edge structure is no power law."""

Range = tuple[float, float]


class EdgeWindows(NamedTuple):
    """The windows of an edge, in the unit of the axis, and what to expect from them.

    Attributes
    ----------
    name : str
        Such as ``"Cu L3"``.
    fit, signal : (float, float)
    noise : float
        Bound of the net counts' standard deviation, in square roots of the background in the signal window.
    refusal : str
        Why the windows are not proposed; empty when they are.
    """

    name: str
    fit: Range
    signal: Range
    noise: float
    refusal: str = ""


def window_ends(cube: xr.DataArray, given: Any) -> tuple[float, float]:
    """A window that `window_channels` accepts as two numbers: None is the end of the axis."""
    low, high = given
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    return float(energy.min() if low is None else low), float(energy.max() if high is None else high)


def window_channels(cube: xr.DataArray, step: str, name: str, given: Any, least: int = 1) -> tuple[int, int]:
    """The first channel of a window, and the one behind its last.

    Parameters
    ----------
    cube : xarray.DataArray
    step : str
        Begins the messages, such as "background".
    name : str
        Of the argument, such as "fit".
    given : (low, high)
        In the unit of the axis, both ends included; None is the end of the axis.
    least : int
        Channels that it must hold.
    """
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    units = str(cube[ENERGY].attrs.get("units", ""))
    try:
        low, high = window_ends(cube, given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{step}: {name}={given!r}; a range (low, high) is expected, such as (780, 916)") from error
    text = f"{step}: {name}={low:g}:{high:g}"
    if not low < high:
        raise InputError(f"{text} is empty; the lower end comes first")
    ends = f"{energy.min():.10g} to {energy.max():.10g} {units}".strip()
    channel = float(np.abs(np.diff(energy)).max(initial=0.0))
    if high < energy.min() or low > energy.max():
        raise InputError(f"{text} is outside the axis, which runs from {ends}")
    if low < energy.min() - channel or high > energy.max() + channel:
        logger.warning("%s reaches beyond the axis, which runs from %s; the part on the axis is used", text, ends)
    slack = 1e-3 * float(np.abs(np.diff(energy)).min()) if energy.size > 1 else 0.0
    inside = np.flatnonzero((energy >= low - slack) & (energy <= high + slack))
    if inside.size < least:
        below = np.sort(energy[energy <= high + slack])[-least:]
        channels = f"{inside.size} channel{'' if inside.size == 1 else 's'}"
        more = f", so from {below[0]:.10g} {units}".rstrip() if below.size == least else ""
        raise InputError(f"{text} holds {channels}; {least} at least{more}")
    return int(inside[0]), int(inside[-1]) + 1


def propose_windows(cube: xr.DataArray, elements: Sequence[str], *, fwhm_ev: float = 1.0) -> dict[str, EdgeWindows]:
    """Propose windows for the edges of some elements on the axis of a cube, and refuse where there are no good ones.

    The fit window ends ``max(5 eV, 1 % of the onset, 3 FWHM, 2 channels)`` below the onset, and begins above the
    previous edge. Windows are good when they hold 10 channels and the extrapolation multiplies the noise by at most 4.

    Parameters
    ----------
    cube : xarray.DataArray
        EELS; its energy axis needs a unit.
    elements : sequence of str
        All elements of the sample: the edges of the others are what the windows avoid.
    fwhm_ev : float, default 1.0
        Energy resolution.

    Returns
    -------
    dict of str to EdgeWindows
        By edge, such as ``"Cu L3"``, by rising energy.

    Raises
    ------
    InputError
        When the axis has no unit of energy, or no edge of the elements is on it.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.ones((1, 1, 162), "u2"), energy=700 + 8.0 * np.arange(162), energy_units="eV")
    >>> found = propose_windows(cube, ["Cu", "Zn"])
    >>> found["Cu L3"].refusal, found["Zn L3"].refusal
    ('', 'Zn L3: only 22 eV between Cu and Zn; fit them together (BackgroundNMF) or unmix')
    """
    factor = energy_factor(str(cube[ENERGY].attrs.get("units", "")))
    if factor is None:
        raise InputError("edges need an energy axis in eV or keV; type cube.energy.attrs['units'] = 'eV'")
    energy = np.sort(np.asarray(cube[ENERGY].values, dtype=np.float64)) * factor
    onsets = edge_onsets(elements, (float(energy[0]), float(energy[-1])))
    if not onsets:
        raise InputError(
            f"no edge of {', '.join(elements)} lies from {energy[0]:g} to {energy[-1]:g} eV; give windows instead"
        )
    found = {}
    for number, onset in enumerate(onsets):
        before = onsets[number - 1] if number else None
        after = onsets[number + 1] if number + 1 < len(onsets) else None
        found[onset.name] = _propose(energy, before, onset, after, fwhm_ev=fwhm_ev, factor=factor)
    return found


def margin_ev(onset_ev: float, channel_ev: float, fwhm_ev: float = 1.0) -> float:
    """How far below an onset a fit window ends."""
    return max(5.0, 0.01 * onset_ev, 3.0 * fwhm_ev, 2.0 * channel_ev)


def _propose(
    energy: Float, before: Onset | None, onset: Onset, after: Onset | None, *, fwhm_ev: float, factor: float
) -> EdgeWindows:
    """Windows of one edge; energy (E,): rising, eV. before, after: its neighbours. factor: eV in a unit of the axis."""
    channel = float(np.diff(energy).mean()) if energy.size > 1 else 1.0
    o = onset.energy_ev
    margin = margin_ev(o, channel, fwhm_ev)
    starts = [energy[0] + 2 * channel, 0.8 * o]
    starts += [before.energy_ev + DELAY_EV] if before else []
    fit = (max(starts), o - margin)
    stop = min(o + max(30.0, 0.1 * o), float(energy[-1]))
    signal = (o - 2.0, min(stop, after.energy_ev - margin) if after else stop)
    inside = energy[(energy >= fit[0]) & (energy <= fit[1])]
    net = energy[(energy >= signal[0]) & (energy <= signal[1])]
    # Whole channels: the ends are those of the channels inside.
    noise = extrapolation_noise(inside, net) if inside.size >= 3 and net.size else math.inf
    refusal = ""
    if inside.size < LEAST_CHANNELS or noise > MOST_NOISE:
        where = f"between {before.element} and {onset.element}" if before else "in front of it on the axis"
        room = math.floor(max(fit[1] - fit[0], 0.0))
        refusal = f"{onset.name}: only {room} eV {where}; fit them together (BackgroundNMF) or unmix"
    scale = 1.0 / factor
    return EdgeWindows(
        onset.name, (fit[0] * scale, fit[1] * scale), (signal[0] * scale, signal[1] * scale), noise, refusal
    )


def extrapolation_noise(fit: Float, signal: Float, exponent: float = 3.0) -> float:
    """Bound of the standard deviation of net counts, in square roots of the background's counts in the signal window.

    fit, signal: energies of the channels. exponent: r of the background ``E^-r``.

    Examples
    --------
    >>> round(extrapolation_noise(np.arange(800.0, 990.0), np.arange(1000.0, 1100.0)), 1)
    1.9
    """
    centre = np.log(fit).mean()
    l, outer = np.log(fit) - centre, np.log(signal) - centre  # noqa: E741
    inside, outside = np.exp(-exponent * l), np.exp(-exponent * outer)
    n, b = inside.sum(), outside.sum()
    u, w = (inside * l).sum() / n, (outside * outer).sum() / b
    v = (inside * l**2).sum() / n - u**2
    q, slope = b / n, (b / n) * (u - w)
    return float(np.sqrt((b + q * q * n + (n * slope) ** 2 / (n * v)) / b))


def warn_onsets(cube: xr.DataArray, step: str, fit: Mapping[str, Range]) -> list[str]:
    """What is wrong with fit windows that hold an onset of the cube's elements; a sentence each.

    cube: its ``attrs["elements"]`` are used. step: begins the sentences. fit: windows by the name of the argument.
    """
    factor = energy_factor(str(cube[ENERGY].attrs.get("units", "")))
    elements = split_symbols(cube.attrs.get("elements", ()))
    if factor is None or not elements or cube.attrs.get("signal", "EELS") not in ("EELS", ""):
        return []
    words = []
    for name, (low, high) in fit.items():
        for onset in edge_onsets(elements, (low * factor, high * factor)):
            best = math.floor((onset.energy_ev - margin_ev(onset.energy_ev, 0.0)) / factor)
            unit = cube[ENERGY].attrs.get("units", "eV")
            words.append(
                f"{step}: {onset.name} ({onset.energy_ev / factor:.4g} {unit}) lies in {name}={low:g}:{high:g}; "
                f"end it at {best:g} or lower"
            )
    return words


def edge_energy(cube: xr.DataArray, name: str | None, given: Any) -> Any:
    """The onset of an edge such as ``"Mn L3"`` in the unit of the axis, ``given`` where the name is no edge.

    Without a name: ``given``, numbers in eV, in the unit of the axis.
    """
    factor = energy_factor(str(cube[ENERGY].attrs.get("units", ""))) or 1.0
    if name is None:
        return tuple(value / factor for value in given)
    ends = (0.0, math.inf)
    try:
        found = [o for o in edge_onsets([name.replace("_", " ").split(" ")[0]], ends) if o.name == name]
    except InputError:
        found = []
    return found[0].energy_ev / factor if found else given
