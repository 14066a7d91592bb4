"""Figures of scans (bin sizes, numbers of components, length scales, noise ratios); each function returns a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from scalehsi.plots.bins import bin_scan_in, draw_bins
from scalehsi.plots.lengthscales import draw_noise_ratios, draw_scan
from scalehsi.plots.rank import draw_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def bins(scan: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Draw a scan of bin sizes: the score of each size, and the largest angle between spectra of both halves.

    The chosen size is shaded.

    Parameters
    ----------
    scan : xarray.Dataset
        The scan of `scalehsi.scan_bins`, or a result of `scalehsi.PSNMF` with ``bin_factor="auto"``.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the Dataset has no scores.
    """
    return draw_bins(bin_scan_in(scan), ax)


def lengthscales(scan: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Draw a scan of length scales: the length scale found for each upper limit, and the loss against length scale.

    Left, a plateau is a length scale that the component shows; the dotted line is the limit, which weak components
    follow. Right, triangles are minima, and each curve is scaled to its maximum. The recommended interval is shaded in
    both.

    Parameters
    ----------
    scan : xarray.Dataset
        The scan of `scalehsi.lengthscale_scan`.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the Dataset is no such scan.
    """
    return draw_scan(scan, ax)


def noise_ratios(table: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Draw the similarity of reconstructed maps to the truth against their noise, for several methods.

    Parameters
    ----------
    table : xarray.Dataset
        One variable of similarities (component, sigma0, alpha) for each method, under its name. ``sigma0`` is the noise
        and ``alpha`` the noise ratio of `scalehsi.simulate.sines`.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        One row for each method, one column for each component, one line for each noise ratio.

    Raises
    ------
    InputError
        When no variable has these dims.
    """
    return draw_noise_ratios(table, ax)


def rank(found: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Draw why a number of components was chosen: eigenvalues over the edge of noise, and the agreement of both halves.

    Left, a component above the dashed line is not noise. Right, dotted lines are the limits of what counts as the same,
    and the resolved number is shaded.

    Parameters
    ----------
    found : xarray.Dataset
        What `scalehsi.select_rank` gives.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide; about half of it without halves.

    Raises
    ------
    InputError
        When the Dataset holds no such choice.
    """
    return draw_rank(found, ax)
