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
from scalehsi.plots.bins import bin_scan_in, draw_bins
from scalehsi.plots.composition import draw_fits, names_of_spectra
from scalehsi.plots.denoised import draw_denoised, energy_window
from scalehsi.plots.digest import Digest, digest
from scalehsi.plots.lengthscales import draw_noise_ratios, draw_scan
from scalehsi.plots.maps import draw_composite, draw_maps
from scalehsi.plots.quality import draw_objective, draw_residual, draw_scree
from scalehsi.plots.spectra import draw_spectra
from scalehsi.plots.truth import digest_truth, draw_comparison
from scalehsi.schema import InputError, suggest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def maps(result: xr.Dataset | Digest) -> Figure:
    """Draw the map of each component, to scale, with scale bars and colour bars.

    A map shows the intensity per pixel, abundance times the sum of the spectrum, because the scale of an abundance
    alone is arbitrary. For PCA it shows the scores, on a scale symmetric about zero. Each component has its own scale,
    which ends at the 99.8th percentile. Up to four positions along leading dims (time, tilt ...) are shown.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `endmembers` (component, energy) and `abundances` (component, ..., y, x).

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide (5 for a single map, 7.6 for two columns of maps).

    Raises
    ------
    InputError
        When the result lacks a variable, or a variable has other dims.
    """
    return draw_maps(digest(result))


def composite(result: xr.Dataset | Digest) -> Figure:
    """Draw all components in one figure: colours mixed by their shares, and the strongest component of each pixel.

    The colours are those of the spectra. The regions are also numbered, for readers who do not see colours.

    Parameters
    ----------
    result : xarray.Dataset
        A result without negative values.

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
    return draw_composite(view)


def composition(found: xr.Dataset, *, which: Sequence[int] | None = None) -> Figure:
    """Draw the fit of a quantification: each spectrum with its lines, continuum and residual.

    Bold labels are the lines that were measured and found. Grey ones are further lines of these elements, and lines of
    elements that were not found.

    Parameters
    ----------
    found : xarray.Dataset
        Result of `scalehsi.quantify` for components, regions or spectra, with ``maps=False``.
    which : sequence of int, optional
        Spectra to draw, counted from 0; all by default.

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
        raise InputError(
            f"this Dataset has no {missing[0]!r}; give what hsi.quantify(source, maps=False) returns for spectra"
        )
    _check_numbers(which, len(names_of_spectra(found)), "spectrum")
    return draw_fits(found, which=which)


def spectra(
    result: xr.Dataset | Digest,
    *,
    components: Sequence[int] | None = None,
    overview: bool = True,
    scale: Literal["auto", "linear", "log"] = "auto",
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
    return draw_spectra(view, components=components, overview=overview, scale=scale)


def objective(result: xr.Dataset | Digest) -> Figure:
    """Draw the objective against the iteration, on a log scale above its minimum when it spans decades.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `objective` (iteration).

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
    return draw_objective(view)


def residual(result: xr.Dataset | Digest) -> Figure:
    """Draw the residual: its RMS in each pixel, and the mean spectrum of data minus model.

    Where nothing is negative the map is also drawn in units of counting noise, in which Poisson counts have residual 1.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `residual` (..., y, x) or `residual_spectrum` (energy).

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
    return draw_residual(view)


def scree(result: xr.Dataset | Digest) -> Figure:
    """Draw the eigenvalues and Malinowski's indicator [1]_, which help to choose the number of components.

    Parameters
    ----------
    result : xarray.Dataset
        A result with `eigenvalues`, such as that of `scalehsi.PCA`.

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
    return draw_scree(view)


def comparison(result: xr.Dataset | Digest, truth: xr.Dataset) -> Figure:
    """Draw the result beside the truth of simulated data: matched spectra in one panel, maps side by side.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`.
    truth : xarray.Dataset
        `endmembers` and `abundances`, as `scalehsi.simulate` stores them.

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
    return draw_comparison(view, digest_truth(view, truth))


def bins(scan: xr.Dataset) -> Figure:
    """Draw a scan of bin sizes: the score of each size, and the largest angle between spectra of both halves.

    The chosen size is shaded.

    Parameters
    ----------
    scan : xarray.Dataset
        The scan of `scalehsi.scan_bins`, or a result of `scalehsi.PSNMF` with ``bin_factor="auto"``.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the Dataset has no scores.
    """
    return draw_bins(bin_scan_in(scan))


def denoised(
    cube: xr.DataArray,
    results: Mapping[str, xr.Dataset],
    window: str | Sequence[float],
    truth: xr.Dataset | None = None,
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
    return draw_denoised(cube, results, chosen, view, truth=truth, correlations=correlations)


def lengthscales(scan: xr.Dataset) -> Figure:
    """Draw a scan of length scales: the length scale found for each upper limit, and the loss against length scale.

    Left, a plateau is a length scale that the component shows; the dotted line is the limit, which weak components
    follow. Right, triangles are minima, and each curve is scaled to its maximum. The recommended interval is shaded in
    both.

    Parameters
    ----------
    scan : xarray.Dataset
        The scan of `scalehsi.lengthscale_scan`.

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide.

    Raises
    ------
    InputError
        When the Dataset is no such scan.
    """
    return draw_scan(scan)


def noise_ratios(table: xr.Dataset) -> Figure:
    """Draw the similarity of reconstructed maps to the truth against their noise, for several methods.

    Parameters
    ----------
    table : xarray.Dataset
        One variable of similarities (component, sigma0, alpha) for each method, under its name. ``sigma0`` is the noise
        and ``alpha`` the noise ratio of `scalehsi.simulate.sines`.

    Returns
    -------
    matplotlib.figure.Figure
        One row for each method, one column for each component, one line for each noise ratio.

    Raises
    ------
    InputError
        When no variable has these dims.
    """
    return draw_noise_ratios(table)


def _check_numbers(wanted: Sequence[int] | None, count: int, kind: str) -> None:
    """Refuse numbers that are not in 0 to count - 1; `kind` is what they number."""
    wrong = [number for number in wanted or () if not 0 <= number < count]
    if wrong:
        raise InputError(f"there is no {kind} {wrong[0]}: there are {count}, counted from 0")


def _require(value: object, name: str, view: Digest, remedy: str) -> None:
    """Refuse when a variable of the result is missing; `remedy` says what to do."""
    if value is None:
        raise InputError(f"this {view.model} result has no {name!r}; {remedy}")
