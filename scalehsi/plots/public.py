"""Figures of a result for a notebook, a paper or the report; each function returns a matplotlib figure.

Each function takes the Dataset of `scalehsi.fit`, lazy or in memory, and reads its maps once. Maps that are larger than
a figure are averaged in blocks. Figures are not registered with pyplot. ``figure.savefig("maps.png")`` saves one; a
notebook shows it as the last value of a cell.

Examples
--------
>>> import numpy as np, xarray as xr
>>> energy = xr.DataArray(np.linspace(0.1, 10, 200), dims="energy", attrs={"units": "keV"})
>>> step = xr.DataArray(np.arange(8) * 2.0, dims="y", attrs={"units": "nm"})
>>> result = xr.Dataset(
...     {"endmembers": (("component", "energy"), np.ones((2, 200))),
...      "abundances": (("component", "y", "x"), np.ones((2, 8, 8)))},
...     coords={"energy": energy, "y": step, "x": step.rename(y="x")},
...     attrs={"model": "NMF", "signal": "EDS"},
... )
>>> len(maps(result).axes)
4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import xarray as xr

from scalehsi import metrics
from scalehsi.cube import check_cube
from scalehsi.plots.components import draw_components
from scalehsi.plots.composition import draw_fits, names_of_spectra
from scalehsi.plots.coordinates import numbers_of
from scalehsi.plots.denoised import draw_denoised, energy_window
from scalehsi.plots.digest import Digest, digest
from scalehsi.plots.maps import draw_composite, draw_map, draw_maps
from scalehsi.plots.quality import draw_objective, draw_residual, draw_scree
from scalehsi.plots.spectra import draw_spectra
from scalehsi.plots.truth import digest_truth, draw_comparison
from scalehsi.schema import InputError, suggest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def maps(result: xr.Dataset | Digest, *, ax: Axes | None = None) -> Figure:
    """Draw the map of each component, to scale, with scale bars and colour bars.

    A map shows the intensity per pixel, abundance times the sum of the spectrum, because the scale of an abundance
    alone is arbitrary. For PCA it shows the scores, on a scale symmetric about zero. Each component has its own scale,
    which ends at the 99.8th percentile. Up to four positions along leading dims (time, tilt ...) are shown.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `endmembers` (component, energy) and `abundances` (component, ..., y, x).
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide (5 for a single map, 7.6 for two columns of maps).

    Raises
    ------
    InputError
        When the result lacks a variable, or a variable has other dims.
    """
    return draw_maps(digest(result), ax)


def map(result: xr.Dataset | Digest, component: int | str = 1, *, ax: Axes | None = None) -> Figure:
    """Draw the map of one component, to scale, with a scale bar and a colour bar: ``hsi.plots.map(result, 1)``.

    It has the orientation of the report and of the microscope: the first row of the scan is on top. The plot of xarray
    itself, ``result["abundances"].sel(component=1).plot()``, shows the same map upside down, because y rises there, and
    in the arbitrary unit of abundances; ``.plot(yincrease=False)`` turns it.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`.
    component : int or str, default 1
        The number of the component, counted from 1 as in the result, or its name.
    ax : matplotlib.axes.Axes, optional
        Where to draw it; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        5 inches wide.

    Raises
    ------
    InputError
        When there is no such component, or the result lacks a variable.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> len(hsi.plots.map(truth, 2).axes)
    2
    """
    view = digest(result)
    return draw_map(view, *numbers_of(view.names, [component]), ax)


def components(
    result: xr.Dataset | Digest, *, chosen: Sequence[int | str] | None = None, ax: Axes | None = None
) -> Figure:
    """Draw components for a paper: a row each, its map with a scale bar, and its spectrum with lines or edges labelled.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`. Names come from `scalehsi.name_components`.
    chosen : sequence of int or str, optional
        Numbers of components, counted from 1 as in the result, or names; all by default.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide. ``scalehsi.export(result, "figure.pdf")`` writes it.

    Raises
    ------
    InputError
        When there is no such component, or the result lacks a variable.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> len(hsi.plots.components(truth, chosen=[1, 3]).axes)
    6
    """
    view = digest(result)
    return draw_components(view, numbers_of(view.names, chosen), ax)


def composite(result: xr.Dataset | Digest, *, ax: Axes | None = None) -> Figure:
    """Draw all components in one figure: colours mixed by their shares, and the strongest component of each pixel.

    The colours are those of the spectra. The regions are also numbered, for readers who do not see colours.

    Parameters
    ----------
    result : xarray.Dataset
        A result without negative values.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the result has negative values (PCA): shares of negative values are undefined.
    """
    view = digest(result)
    if view.signed:
        raise InputError(
            f"a composite needs abundances that are not negative, and this {view.model} result has negative values; "
            "draw scalehsi.plots.maps(result), or fit hsi.NMF"
        )
    return draw_composite(view, ax)


def composition(found: xr.Dataset, *, which: Sequence[int] | None = None, ax: Axes | None = None) -> Figure:
    """Draw the fit of a quantification: each spectrum with its lines, continuum and residual.

    Bold labels are the lines that were measured and found. Grey ones are further lines of these elements, and lines of
    elements that were not found.

    Parameters
    ----------
    found : xarray.Dataset
        Result of `scalehsi.quantify` for components, regions or spectra, with ``maps=False``.
    which : sequence of int, optional
        Spectra to draw, counted from 0; all by default.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide, 3.6 inches high for each spectrum.

    Raises
    ------
    InputError
        When the Dataset holds no fitted spectra, or `which` names a spectrum that does not exist.
    """
    missing = [name for name in ("spectrum", "model", "background", "line") if name not in found]
    if missing:
        raise InputError(f"this Dataset has no {missing[0]!r}; give what hsi.quantify(source) returns for spectra")
    _check_numbers(which, len(names_of_spectra(found)), "spectrum")
    return draw_fits(found, which=which, ax=ax)


def spectra(
    result: xr.Dataset | Digest,
    *,
    components: Sequence[int] | None = None,
    overview: bool = True,
    scale: Literal["auto", "linear", "log"] = "auto",
    ax: Axes | None = None,
) -> Figure:
    """Draw the spectra: all in one panel, then one panel each with its X-ray lines or EELS edges labelled.

    The panel of a component shows its spectrum times the sum of its map: intensity per channel of the whole map. For
    EDS the pale line is the spectrum, and the strong line is the spectrum smoothed by less than the detector's
    resolution. A line is labelled where a peak is above noise and continuum; elements in ``result.attrs["elements"]``
    are considered first.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`.
    components : sequence of int, optional
        Components that get a panel of their own, counted from 0; all by default.
    overview : bool, default True
        Whether the first panel shows all spectra, each scaled to its maximum.
    scale : {"auto", "linear", "log"}, default "auto"
        ``"linear"`` suits EELS; ``"log"`` shows weak lines and the continuum beside strong lines; ``"auto"`` is
        ``"log"`` for EDS and ``"linear"`` otherwise.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the scale is not known, a component does not exist, or the result lacks a variable.
    """
    if scale not in ("auto", "linear", "log"):
        raise InputError(f"scale {scale!r} is not known; {suggest(str(scale), ('auto', 'linear', 'log'))}")
    view = digest(result)
    _check_numbers(components, len(view.names), "component")
    return draw_spectra(view, components=components, overview=overview, scale=scale, ax=ax)


def objective(result: xr.Dataset | Digest, *, ax: Axes | None = None) -> Figure:
    """Draw the objective against the iteration, on a log scale above its minimum when it spans decades.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `objective` (iteration).
    ax : matplotlib.axes.Axes, optional
        Where to draw it; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        6.2 inches wide.

    Raises
    ------
    InputError
        When the result has no `objective`, such as that of a method without iterations.
    """
    view = digest(result)
    _require(view.objective, "objective", view, "methods without iterations, such as PCA, have none")
    return draw_objective(view, ax)


def residual(result: xr.Dataset | Digest, *, ax: Axes | None = None) -> Figure:
    """Draw the residual: its RMS in each pixel, and the mean spectrum of data minus model.

    Where nothing is negative the map is also drawn in units of counting noise, in which Poisson counts have residual 1.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `residual` (..., y, x) or `residual_spectrum` (energy).
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the result has neither `residual` nor `residual_spectrum`.
    """
    view = digest(result)
    either = view.residual if view.residual is not None else view.residual_spectrum
    _require(either, "residual", view, "fit the cube again to store it")
    return draw_residual(view, ax)


def scree(result: xr.Dataset | Digest, *, ax: Axes | None = None) -> Figure:
    """Draw the eigenvalues and Malinowski's indicator [1]_, which help to choose the number of components.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `eigenvalues`, such as that of `scalehsi.PCA`.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the result has no `eigenvalues`.

    References
    ----------
    .. [1] E. R. Malinowski, Anal. Chem. 49 (1977) 612. doi:10.1021/ac50012a027
    """
    view = digest(result)
    _require(view.eigenvalues, "eigenvalues", view, "fit hsi.PCA to the same cube")
    return draw_scree(view, ax)


def comparison(result: xr.Dataset | Digest, truth: xr.Dataset, *, ax: Axes | None = None) -> Figure:
    """Draw the result beside the truth of simulated data: matched spectra in one panel, maps side by side.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`.
    truth : xarray.Dataset
        `endmembers` and `abundances`, as `scalehsi.simulate` stores them.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the truth lacks a variable or has another number of channels.
    """
    view = digest(result)
    return draw_comparison(view, digest_truth(view, truth), ax)


def denoised(
    cube: xr.DataArray,
    results: Mapping[str, xr.Dataset],
    window: str | Sequence[float],
    truth: xr.Dataset | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Draw the map of a line as measured and as modelled by each result, on one colour scale.

    Parameters
    ----------
    cube : xarray.DataArray
        The cube that was fitted.
    results : mapping of str to xarray.Dataset
        Results of any model, by name.
    window : str or (low, high)
        An X-ray line such as ``"Nd La"``, an element, or two ends in the unit of the energy axis.
    truth : xarray.Dataset, optional
        Truth of simulated data. It is drawn first, and each title gives the correlation with it.
    ax : matplotlib.axes.Axes, optional
        Axes of ``plt.subplots()`` that the panels replace; by default a figure of its own.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When there is no result, grids or energy axes differ, or the window is not on the axis.
    """
    check_cube(cube)
    if not results:
        raise InputError("no result is given; type results={'PSNMF': result}")
    chosen = energy_window(cube, window)
    correlations: dict[str, float] = {}
    if truth is not None:
        ends = {chosen.name: (chosen.low, chosen.high)}
        judged = metrics.denoise_report(cube, results, windows=ends, truth=truth)
        values = judged["correlation"].values[:, 0].tolist()
        correlations = dict(zip(judged["method"].values.tolist(), values, strict=True))
    view = digest(next(iter(results.values())))
    return draw_denoised(cube, results, chosen, view, truth=truth, correlations=correlations, ax=ax)


def _check_numbers(wanted: Sequence[int] | None, count: int, kind: str) -> None:
    """Refuse numbers that are not in 0 to count - 1; `kind` is what they number."""
    wrong = [number for number in wanted or () if not 0 <= number < count]
    if wrong:
        raise InputError(f"there is no {kind} {wrong[0]}: there are {count}, counted from 0")


def _require(value: object, name: str, view: Digest, remedy: str) -> None:
    """Refuse when a variable of the result is missing; `remedy` says what to do."""
    if value is None:
        raise InputError(f"this {view.model} result has no {name!r}; {remedy}")
