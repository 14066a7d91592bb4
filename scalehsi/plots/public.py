"""Figures of a result, for a notebook, a paper or the report: each function gives back a matplotlib figure.

Every function takes what `scalehsi.fit` returns, lazy or in memory, reads its maps once, and averages maps that are
larger than a picture can show. A figure belongs to the caller alone: nothing is registered with pyplot. Save one with
``figure.savefig("maps.png")``; a notebook shows it as the last value of a cell.

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
from scalehsi.plots.bins import draw_bins, scan_of
from scalehsi.plots.composition import draw_fits, names_of_spectra
from scalehsi.plots.denoised import band_of, draw_denoised
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

    Values are intensity per pixel (abundance times the sum of the spectrum), because the scale of an abundance alone is
    arbitrary; for PCA and ICA they are the scores, on a scale that is symmetric about zero. Each component has its own
    scale, which ends at the 99.8th percentile. Along leading dims (time, tilt ...) up to four positions are shown.

    Parameters
    ----------
    result : xarray.Dataset
        With `endmembers` (component, energy) and `abundances` (component, ..., y, x).

    Returns
    -------
    matplotlib.figure.Figure
        10 inches wide (6 for a single map).

    Raises
    ------
    InputError
        When the result lacks a variable or has other dims.
    """
    return draw_maps(digest(result))


def composite(result: xr.Dataset | Digest) -> Figure:
    """Draw all components in one picture: mixed by their shares, and the strongest component of each pixel.

    Colours are those of the spectra. Numbers are written into the regions, so that colour is never the only sign.

    Raises
    ------
    InputError
        When the result has negative values (PCA, ICA): shares of a negative amount mean nothing.
    """
    view = digest(result)
    if view.signed:
        raise InputError(
            f"a composite needs abundances that are not negative, and this {view.model} result has negative values; "
            "draw scalehsi.plots.maps(result), or fit hsi.NMF"
        )
    return draw_composite(view)


def composition(found: xr.Dataset, *, which: Sequence[int] | None = None) -> Figure:
    """Draw the fit behind a composition: each spectrum with its lines, continuum, and what the fit leaves.

    Bold names are the lines that were measured, grey ones further lines of the same elements that show.

    Parameters
    ----------
    found : xarray.Dataset
        Of `scalehsi.quantify`, for components, regions or spectra (maps hold no spectra).
    which : sequence of int, optional
        Which spectra, counted from 0; all by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        When the Dataset holds no fitted spectra, or there is no such spectrum.
    """
    missing = [name for name in ("spectrum", "model", "background", "line") if name not in found]
    if missing:
        raise InputError(
            f"this Dataset has no {missing[0]!r}; give what hsi.quantify(source, maps=False) returns for spectra"
        )
    count = len(names_of_spectra(found))
    wrong = [number for number in which or () if not 0 <= number < count]
    if wrong:
        raise InputError(f"there is no spectrum {wrong[0]}: there are {count}, counted from 0")
    return draw_fits(found, which=which)


def spectra(
    result: xr.Dataset | Digest,
    *,
    components: Sequence[int] | None = None,
    overview: bool = True,
    scale: Literal["auto", "linear", "log"] = "auto",
) -> Figure:
    """Draw the spectra: all together, then one panel each with its X-ray lines or EELS edges named.

    In the panels a spectrum is multiplied by the sum of its map: intensity per channel over the whole map. For EDS the
    pale line is the spectrum and the strong one the same smoothed by less than the detector's width; a line is named
    only where a peak stands above noise and continuum, from ``result.attrs["elements"]`` where they are known.

    Parameters
    ----------
    result : xarray.Dataset
    components : sequence of int, optional
        Which components get a panel, counted from 0; all by default.
    overview : bool, default True
        Whether the first panel shows all spectra, each scaled to its maximum.
    scale : {"auto", "linear", "log"}
        ``"linear"`` shows what is large and suits EELS; ``"log"`` shows weak lines and the continuum beside strong
        lines; ``"auto"`` takes ``"log"`` for EDS and ``"linear"`` otherwise.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if scale not in ("auto", "linear", "log"):
        raise InputError(f"scale {scale!r} is not known; {suggest(str(scale), ('auto', 'linear', 'log'))}")
    view = digest(result)
    wrong = [number for number in components or () if not 0 <= number < len(view.names)]
    if wrong:
        raise InputError(f"there is no component {wrong[0]}: the result has {len(view.names)}, counted from 0")
    return draw_spectra(view, components=components, overview=overview, scale=scale)


def objective(result: xr.Dataset | Digest) -> Figure:
    """Draw the objective against the iteration; on a log scale above its lowest value when it spans decades.

    Raises
    ------
    InputError
        When the result has no `objective`, as that of a method without iterations.
    """
    view = digest(result)
    _need(view.objective, "objective", view, "methods without iterations, such as PCA, have none")
    return draw_objective(view)


def residual(result: xr.Dataset | Digest) -> Figure:
    """Draw what the model leaves: the RMS residual of each pixel, and the mean of data minus model.

    Where nothing is negative the map is also drawn in units of counting noise (1 = what Poisson counts leave).

    Raises
    ------
    InputError
        When the result has neither `residual` nor `residual_spectrum`.
    """
    view = digest(result)
    either = view.residual if view.residual is not None else view.residual_spectrum
    _need(either, "residual", view, "fit the cube again to store it")
    return draw_residual(view)


def scree(result: xr.Dataset | Digest) -> Figure:
    """Draw the eigenvalues and Malinowski's indicator, which help to choose the number of components.

    Raises
    ------
    InputError
        When the result has no `eigenvalues`.

    References
    ----------
    .. [1] E. R. Malinowski, Anal. Chem. 49 (1977) 612. doi:10.1021/ac50012a027
    """
    view = digest(result)
    _need(view.eigenvalues, "eigenvalues", view, "fit hsi.PCA to the same cube")
    return draw_scree(view)


def comparison(result: xr.Dataset | Digest, truth: xr.Dataset) -> Figure:
    """Draw the result beside the known truth: matched spectra over each other, maps next to each other.

    Parameters
    ----------
    result : xarray.Dataset
    truth : xarray.Dataset
        With `endmembers` and `abundances`, as `scalehsi.simulate` stores it.

    Raises
    ------
    InputError
        When the truth lacks a variable or has another number of channels.
    """
    view = digest(result)
    return draw_comparison(view, digest_truth(view, truth))


def bins(scan: xr.Dataset) -> Figure:
    """Draw a scan of bins: the score of each size with error bars, and how far spectra of both halves lie apart.

    The size that was chosen is shaded.

    Parameters
    ----------
    scan : xarray.Dataset
        What `scalehsi.scan_bins` gives, or a result of `scalehsi.PSNMF` that chose its bins.

    Raises
    ------
    InputError
        When the Dataset has no scores.
    """
    return draw_bins(scan_of(scan))


def denoised(
    cube: xr.DataArray,
    results: Mapping[str, xr.Dataset],
    window: str | Sequence[float],
    truth: xr.Dataset | None = None,
) -> Figure:
    """Draw the map of a line as measured and as each result has it, on one colour scale.

    Parameters
    ----------
    cube : xarray.DataArray
        What was fitted.
    results : mapping of str to xarray.Dataset
        Results of any model, by name.
    window : str or (low, high)
        An X-ray line such as ``"Nd La"``, an element, or ends in the unit of the energy axis.
    truth : xarray.Dataset, optional
        Drawn first; the correlation of each map with it is written over the maps.

    Raises
    ------
    InputError
        When there is no result, or grids or energy axes differ.
    """
    check_cube(cube)
    if not results:
        raise InputError("no result is given; type results={'PSNMF': result}")
    band = band_of(cube, window)
    # Sizes are checked, and the cube is compared, in one reading.
    ends = {band.name: (band.low, band.high)}
    told: dict[str, float] = {}
    if truth is not None:
        judged = metrics.denoise_report(cube, results, windows=ends, truth=truth)
        told = dict(zip(judged["method"].values.tolist(), judged["correlation"].values[:, 0].tolist(), strict=True))
    view = digest(next(iter(results.values())))
    return draw_denoised(cube, results, band, view, truth=truth, correlations=told)


def lengthscales(scan: xr.Dataset) -> Figure:
    """Draw a scan of length scales: where each component ends for each limit, and the likelihood behind it.

    Left, a plateau is a length that a component shows; the dotted line is the limit itself, which weak components
    follow. Right, triangles are basins; each curve is scaled to its own largest value. The recommended interval is
    shaded in both.

    Parameters
    ----------
    scan : xarray.Dataset
        What `scalehsi.lengthscale_scan` gives.

    Raises
    ------
    InputError
        When the Dataset is no such scan.
    """
    return draw_scan(scan)


def noise_ratios(table: xr.Dataset) -> Figure:
    """Draw how similar maps are to the truth against their noise, for ways to reconstruct them beside each other.

    Parameters
    ----------
    table : xarray.Dataset
        A variable of similarities (component, sigma0, alpha) for each way, named as it shall be called; ``sigma0`` is
        the noise and ``alpha`` the ratio of `scalehsi.simulate.sines`.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each way, a column for each component, a line for each ratio.

    Raises
    ------
    InputError
        When no variable has these dims.
    """
    return draw_noise_ratios(table)


def _need(value: object, name: str, view: Digest, repair: str) -> None:
    """Refuse when the result lacks what is to be drawn."""
    if value is None:
        raise InputError(f"this {view.model} result has no {name!r}; {repair}")
