"""The window in front of an edge, in which a background is fitted: its ends, and what makes it a poor one."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.checks import require
from scalehsi.result import ResultWarning
from scalehsi.schema import ENERGY, ENERGY_UNITS, InputError

BEFORE_RISE_EV: Final = 6.0
LEAST_CHANNELS: Final = 10
LEAST_WIDTH_EV: Final = 15.0
FAR_EV: Final = 10.0
"""From a window that ends farther in front of the rise the background is extrapolated too far."""
RISE_SHARE: Final = 0.1
"""A rise inside the window of this share of the intensity is another edge."""
TAKEN_OFF: Final = 0.02
"""Intensity in the window over the largest one below which there is no background."""


class Window(NamedTuple):
    """Where a background is fitted, and where the mean spectrum rises most, in eV."""

    start: float
    onset: float
    rise: float

    def warnings(self) -> list[ResultWarning]:
        """What makes the background uncertain."""
        found = []
        if self.rise - self.onset > FAR_EV:
            text = (
                f"The window of the background ends at {self.onset:.4g} eV, {self.rise - self.onset:.3g} eV in front "
                f"of the edge at {self.rise:.4g} eV: it is extrapolated far."
            )
            found.append(ResultWarning("background_window", text, f"onset={self.rise - BEFORE_RISE_EV:.4g}"))
        elif self.onset - self.start < LEAST_WIDTH_EV:
            text = (
                f"The window of the background is {self.onset - self.start:.3g} eV wide: its slope is uncertain "
                f"below {LEAST_WIDTH_EV:g} eV."
            )
            found.append(ResultWarning("background_window", text, "an energy axis that begins earlier"))
        return found


def axis_ev(cube: xr.DataArray) -> Float:
    """Energies in eV.

    Raises
    ------
    InputError
        Without a unit of energy, and for energies of zero or below.
    """
    axis = cube[ENERGY]
    unit = str(axis.attrs.get("units", ""))
    if unit not in ENERGY_UNITS:
        raise InputError(
            f"BackgroundNMF needs energies in eV or keV, the axis has the unit {unit!r}; "
            "type cube.energy.attrs['units'] = 'eV'"
        )
    energy = np.asarray(axis.values, dtype=np.float64) * ENERGY_UNITS[unit]
    require(
        float(energy.min()) > 0,
        f"power laws need energies above 0, the axis begins at {energy.min():.4g} eV; crop it to the core loss",
    )
    return energy


def find_window(energy: Float, mean: Float, start: float | None, onset: float | None) -> Window:
    """Choose or check the window in front of the edge.

    Parameters
    ----------
    energy : array, shape (E,)
        In eV.
    mean : array, shape (E,)
        Mean spectrum.
    start, onset : float, optional
        Ends of the window in eV; by default the start of the axis, and 6 eV below the steepest rise.

    Raises
    ------
    InputError
        Where the window is outside of the axis, too short, or holds another edge, and where there is no background.
    """
    low, high = float(energy[0]), float(energy[-1])
    for name, value in (("onset", onset), ("window_start", start)):
        require(
            value is None or low <= value <= high,
            f"{name}={value} is outside the axis, which runs from {low:.4g} to {high:.4g} eV",
        )
    rise = _steepest(energy, mean, low if onset is None else onset)
    end = rise - BEFORE_RISE_EV if onset is None else float(onset)
    begin = low if start is None else float(start)
    require(begin < end, f"the window of the background is empty: it begins at {begin:.4g} eV and ends at {end:.4g} eV")
    inside = (energy >= begin) & (energy < end)
    channels = int(inside.sum())
    require(
        channels >= LEAST_CHANNELS,
        f"{channels} channels lie in front of the edge, from {begin:.4g} to {end:.4g} eV; {LEAST_CHANNELS} at least, "
        "so take an axis that begins earlier, or a later onset=",
    )
    level = float(mean[inside].mean())
    require(
        level > TAKEN_OFF * float(mean.max()),
        f"the cube has no background ({level / float(mean.max()):.1%} of the largest intensity in front of the edge): "
        "nothing to model; use NMF",
    )
    other = _edge_inside(energy[inside], mean[inside])
    require(
        other is None,
        f"another edge lies in the window of the background, near {other or 0:.4g} eV; "
        f"type window_start={(other or 0) + 30:.4g} or crop the axis",
    )
    return Window(begin, end, rise)


def _steepest(energy: Float, mean: Float, start: float) -> float:
    """Energy of the steepest rise of a spectrum, relative to its fall, from ``start`` on."""
    smooth = np.convolve(np.pad(mean, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    slope = np.gradient(np.log(np.maximum(smooth, 1e-9 * smooth.max())), np.log(energy))
    slope = np.where(energy >= start, slope, -np.inf)
    slope[:2] = slope[-2:] = -np.inf
    return float(energy[int(np.argmax(slope))])


def _edge_inside(energy: Float, mean: Float) -> float | None:
    """Where the intensity rises above what it was, by more than a tenth of it; None where it falls throughout."""
    if len(mean) < 2 * LEAST_CHANNELS:
        return None
    width = max(3, len(mean) // 10)
    smooth = np.convolve(mean, np.ones(width) / width, mode="valid")
    lowest = np.minimum.accumulate(smooth)
    rise = smooth - lowest
    at = int(np.argmax(rise))
    if rise[at] < RISE_SHARE * lowest[at]:
        return None
    return float(energy[int(np.argmin(smooth[: at + 1])) + width // 2])
