"""Figures of a network: its losses, and its latent space beside the map of labels and their mean spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.schema import ENDMEMBERS, ENERGY, OBJECTIVE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROW_INCHES: Final = 5.0
ERRORS_SHOWN: Final = 2.0
"""Standard errors in the band around a mean spectrum."""


def draw_losses(result: xr.Dataset) -> Figure:
    """Training and held-out loss against the epoch."""
    figure, axes = style.one_panel(NARROW_INCHES, 2.8, None)
    for name, label, line in ((OBJECTIVE, "training", "-"), ("held_out_loss", "held out", "--")):
        loss = np.asarray(result[name].values, dtype=float)
        axes.plot(np.arange(1, len(loss) + 1), loss, line, color=style.colour(0 if line == "-" else 1), label=label)
    axes.set_yscale("log")
    style.integer_ticks(axes)
    style.style_axes(axes, xlabel="Epoch", ylabel="Loss")
    axes.legend(fontsize=style.SMALL_POINTS, frameon=False, labelcolor=style.DARK)
    return figure


def draw_latent(view: Digest, result: xr.Dataset) -> Figure:
    """Two latent dimensions of sampled pixels, the map of labels, and the mean spectrum of each label."""
    from matplotlib.colors import ListedColormap

    number = result.sizes["component"]
    points, label = (np.asarray(result[name].values) for name in ("latent", "sample_label"))
    figure = style.new_figure(style.WIDTH_INCHES, 3.4)
    scatter, shown, spectra = figure.subplots(1, 3)
    second = min(1, points.shape[1] - 1)
    for k in range(number):
        of = points[label == k]
        scatter.plot(of[:, 0], of[:, second], ".", markersize=2, color=style.colour(k), alpha=0.5, label=str(k + 1))
    style.style_axes(scatter, xlabel="Latent axis 1", ylabel=f"Latent axis {second + 1}", title="Latent space")
    labels = result["labels"]
    labels = labels.isel({d: 0 for d in labels.dims if d not in ("y", "x")}).transpose("y", "x")
    values = np.ma.masked_less(np.asarray(labels.values)[:: view.block, :: view.block], 0)
    colours = ListedColormap([style.colour(k) for k in range(number)]).with_extremes(bad=style.NO_DATA_COLOUR)
    style.show_map(shown, values, view, cmap=colours, vmin=-0.5, vmax=number - 0.5, interpolation="nearest")
    style.set_title(shown, "Labels")
    energy = np.asarray(result[ENERGY].values, dtype=float)
    for k in range(number):
        mean = np.asarray(result[ENDMEMBERS].values[k], dtype=float)
        error = ERRORS_SHOWN * np.asarray(result["standard_error"].values[k], dtype=float)
        spectra.plot(energy, mean, color=style.colour(k), linewidth=1.0, label=f"label {k + 1}")
        spectra.fill_between(energy, mean - error, mean + error, color=style.colour(k), alpha=0.3, linewidth=0)
    unit = str(result[ENERGY].attrs.get("units", ""))
    style.style_axes(
        spectra, xlabel=f"Energy ({unit})" if unit else "Channel", ylabel="Mean", title="Unaltered spectra"
    )
    spectra.legend(fontsize=style.SMALL_POINTS, frameon=False, labelcolor=style.DARK)
    return figure
