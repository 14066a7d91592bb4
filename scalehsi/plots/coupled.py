"""Figure of signals that share their maps: what `scalehsi.CoupledNMF` finds, a row for each component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.digest import Digest, intensity_maps
from scalehsi.plots.maps import colour_limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES = 1.9


class SignalSpectra(NamedTuple):
    """Spectra of one signal: its name, energies (E,) with their unit, spectra (K, E), and the unit of intensities."""

    name: str
    energy: NumpyArray
    energy_unit: str
    spectra: NumpyArray
    intensity_unit: str


def draw_coupled(view: Digest, signals: Sequence[SignalSpectra], ax: Axes | None = None) -> Figure:
    """Draw the map of each component, and beside it its spectrum in each signal.

    Parameters
    ----------
    view : Digest
        Its first position along leading dims is drawn.
    signals : sequence of SignalSpectra
    ax : Axes, optional
        Where the panels are drawn; replaced by them.
    """
    count = len(view.names)
    figure = style.new_figure(style.WIDTH_INCHES, ROW_INCHES * count + 0.3, ax)
    ratios = [1.0, *(1.6 for _ in signals)]
    grid = figure.subplots(count, 1 + len(signals), squeeze=False, gridspec_kw={"width_ratios": ratios})
    maps = intensity_maps(view)
    for number in range(count):
        colour, axes = style.colour(number), grid[number, 0]
        low, high = colour_limits(maps[number], signed=False)
        style.show_map(axes, maps[number][0], view, cmap=style.colour_map(style.MAP_COLOURS), vmin=low, vmax=high)
        style.scale_bar(axes, view)
        style.set_title(axes, view.names[number], color=colour, fontweight="bold")
        for signal, panel in zip(signals, grid[number, 1:], strict=True):
            last = number == count - 1
            _draw_spectrum(panel, signal, np.asarray(signal.spectra[number]), colour=colour, labelled=last)
            if number == 0:
                style.set_title(panel, signal.name)
    return figure


def _draw_spectrum(axes: Any, signal: SignalSpectra, spectrum: NumpyArray, *, colour: str, labelled: bool) -> None:
    """Draw one spectrum. labelled: with the name of the energy axis."""
    axes.plot(signal.energy, spectrum, color=colour, linewidth=1.0)
    axes.fill_between(signal.energy, 0, spectrum, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlim(float(np.min(signal.energy)), float(np.max(signal.energy)))
    axes.set_ylim(0.0, 1.08 * (float(np.max(signal.spectra)) or 1.0))
    unit = f"Energy ({signal.energy_unit})" if signal.energy_unit else "Channel"
    quantity = f"{signal.intensity_unit.capitalize()} per channel" if signal.intensity_unit else ""
    style.style_axes(axes, xlabel=unit if labelled else "", ylabel=quantity)
    axes.yaxis.set_major_formatter(style.tick_format())
