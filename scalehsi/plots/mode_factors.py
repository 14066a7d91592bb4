"""Figure of the factors of a tensor: how strong each component is in each frame, tilt or focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.schema import COMPONENT, ENERGY, MODE_FACTORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 3.0


def factor_names(result: xr.Dataset) -> list[str]:
    """Names of the factors of all short modes but the energies."""
    own = f"{ENERGY}{MODE_FACTORS}"
    return [str(name) for name in result.data_vars if str(name).endswith(MODE_FACTORS) and name != own]


def draw_mode_factors(view: Digest, result: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Draw the factors of each short mode, one panel a mode.

    Parameters
    ----------
    view : Digest
        Of the result; its names and colours are used.
    result : Dataset
        With ``frame_factors`` (component, frame) or alike.
    ax : Axes, optional
        Where the panels are drawn; replaced by them.
    """
    names = factor_names(result)
    figure = style.new_figure(style.WIDTH_INCHES, PANEL_INCHES * len(names), ax)
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for name, axes in zip(names, panels, strict=True):
        factors = result[name]
        first, *dims = map(str, factors.dims)
        values = np.asarray(factors.values, dtype=np.float64).reshape(factors.sizes[first], -1)
        own = first == COMPONENT
        place, label = _axis(factors, dims)
        for number, course in enumerate(values):
            look = {
                "color": style.colour(number),
                "linestyle": style.line_style(number),
                "marker": "o",
                "markersize": 3,
            }
            axes.plot(place, course, label=view.names[number] if own else f"factor {number + 1}", linewidth=1.4, **look)
        if values.min() >= 0:
            axes.set_ylim(0, None)
        else:
            axes.axhline(0, color=style.GREY, linewidth=0.8)
        words = "Strength, mean 1" if own and values.min() >= 0 else "Factor"
        style.style_axes(axes, xlabel=label, ylabel=words)
        style.set_title(axes, f"{' and '.join(dims).capitalize()}")
        axes.legend(fontsize=style.SMALL_POINTS, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _axis(factors: xr.DataArray, dims: list[str]) -> tuple[np.ndarray, str]:
    """Positions along the mode and the label of the axis; numbers where the mode is a group of dims."""
    size = int(np.prod([factors.sizes[d] for d in dims]))
    coordinate = factors.coords.get(dims[0])
    if len(dims) > 1 or coordinate is None or coordinate.dtype.kind not in "uif":
        return np.arange(size), f"{', '.join(dims).capitalize()} (number)"
    unit = str(coordinate.attrs.get("units", ""))
    return np.asarray(coordinate.values, dtype=np.float64), f"{dims[0].capitalize()}{f' ({unit})' if unit else ''}"
