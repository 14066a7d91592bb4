"""Figure of edges on their backgrounds: what `scalehsi.BackgroundNMF` finds, one panel a component."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.plots.spectra import energy_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 2.3


def draw_background(view: Digest, *, window: tuple[float, float], shares: Any, ax: Axes | None = None) -> Figure:
    """Draw the spectrum of each component as its background, and its edge on it.

    Parameters
    ----------
    view : Digest
        With ``background``.
    window : (float, float)
        Ends of the window in which the backgrounds were fitted, in the unit of the axis.
    shares : array (K,)
        Share of the edge in the signal above the onset.
    ax : Axes, optional
        Where the panels are drawn; replaced by them.
    """
    assert view.background is not None
    count = len(view.names)
    figure = style.new_figure(style.WIDTH_INCHES, PANEL_INCHES * count, ax)
    panels = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
    for number, axes in enumerate(panels):
        colour = style.colour(number)
        background = np.asarray(view.background[number])
        whole = background + view.endmembers[number]
        axes.plot(view.energy, whole, color=colour, linewidth=1.2, label="edge on its background")
        axes.plot(view.energy, background, color=style.GREY, linewidth=1.2, linestyle="--", label="background")
        axes.fill_between(view.energy, background, whole, color=colour, alpha=0.25, linewidth=0)
        axes.axvspan(*window, color=style.SHADE_COLOUR, zorder=0)
        low = float(min(whole.min(), background.min()))
        high = float(whole.max())
        axes.set_ylim(max(0.0, low - 0.2 * (high - low)), high + 0.1 * (high - low))
        axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))
        last = number == count - 1
        unit = f"{view.intensity_unit.capitalize()} per channel"
        style.style_axes(axes, xlabel=energy_label(view) if last else "", ylabel=unit)
        axes.yaxis.set_major_formatter(style.tick_format())
        style.set_title(axes, f"{view.names[number]}: edge {100 * float(shares[number]):.1f} % above the onset")
        if number == 0:
            axes.legend(fontsize=style.SMALL_POINTS, frameon=False, loc="upper right")
    return figure
