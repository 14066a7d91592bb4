"""Figure and table of a quantification: the fit of each spectrum, and the composition with its errors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.cube import energy_kev
from scalehsi.physics.line_names import pretty_family
from scalehsi.physics.lines import line_table
from scalehsi.plots import style
from scalehsi.quantify.sources import spectrum_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

PANEL_HEIGHT_INCHES: Final = 3.6

LINE_DETECTION_SIGMAS: Final = 4.0
"""Lines that were not measured are labelled when they are this many standard deviations above the background."""
LINE_DETECTION_FRACTION: Final = 0.05
"""The same as a fraction of the highest peak, for spectra that are not in counts."""
MIN_LINE_INTENSITY: Final = 0.08
"""Lines weaker than this fraction of the element's strongest line are not labelled unless they were measured."""

LABEL_DISTANCE_KEV: Final = 0.06
"""Least distance of the label of an unmeasured line from other labels."""
SAME_LABEL_DISTANCE_KEV: Final = 0.4
"""Least distance between labels with the same text."""


class _Label(NamedTuple):
    energy: float
    text: str
    measured: bool


def spectrum_dim(found: xr.Dataset) -> str | None:
    """The dim along which a quantification has several spectra (component, region ...); None for a single one."""
    return next((str(d) for d in found["atomic_percent"].dims if d != "element"), None)


def names_of_spectra(found: xr.Dataset) -> list[str]:
    """Names of the spectra of a quantification."""
    return spectrum_names(found["atomic_percent"].isel(element=0), found.attrs)


def draw_fits(found: xr.Dataset, *, which: Sequence[int] | None = None, ax: Axes | None = None) -> Figure:
    """Draw spectra of a quantification: data, fit, continuum, line labels, and the residual.

    Parameters
    ----------
    found : xarray.Dataset
        Result of `scalehsi.quantify` without maps.
    which : sequence of int, optional
        Spectra to draw, counted from 0; all by default.
    ax : Axes, optional
        Replaced by the panels.

    Returns
    -------
    Figure
    """
    titles = names_of_spectra(found)
    chosen = range(len(titles)) if which is None else which
    dim = spectrum_dim(found)
    figure = style.new_figure(style.WIDTH_INCHES, PANEL_HEIGHT_INCHES * max(len(chosen), 1), ax)
    parts = figure.subfigures(max(len(chosen), 1), 1, squeeze=False)[:, 0]
    for part, number in zip(parts, chosen, strict=False):
        one = found if dim is None else found.isel({dim: number})
        _draw_fit(part, one, titles[number] if len(titles) > 1 else "", style.colour(number))
    return figure


def _draw_fit(part: SubFigure, one: xr.Dataset, title: str, colour: str) -> None:
    """Draw one spectrum with its fit in a part of the figure, and the residual below it."""
    energy = energy_kev(one)
    assert energy is not None
    order = np.argsort(energy)
    energy = energy[order]
    data, model, background = (
        np.asarray(one[name].values, dtype=np.float64)[order] for name in ("spectrum", "model", "background")
    )
    top, bottom = part.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_spectrum(top, energy, data, model, background, colour)
    counted = str(one["spectrum"].attrs.get("units", "")) == "counts"
    unit = np.sqrt(np.maximum(model, 1e-12)) if counted else float(np.nanmax(model, initial=1e-300))
    bottom.axhline(0.0, color=style.GREY, linewidth=0.6)
    bottom.plot(energy, (data - model) / unit, color=style.DARK, linewidth=0.7)
    style.style_axes(top, ylabel=f"{'Counts' if counted else 'Intensity'} per channel\n(log scale)")
    ylabel = f"Data - fit\n({'noise' if counted else 'max'} = 1)"
    style.style_axes(bottom, xlabel="Energy (keV)", ylabel=ylabel)
    labels = _line_labels(one, energy, model, background, counted=counted)
    fitted = energy[np.isfinite(model)]
    highest = max((label.energy for label in labels), default=float(fitted[-1]))
    bottom.set_xlim(float(fitted[0]) - 0.1, min(float(energy[-1]), 1.08 * highest + 0.3))
    _draw_labels(top, labels, colour)
    look = {"fontsize": style.TEXT_POINTS, "color": colour, "fontweight": "bold", "parse_math": False}
    top.text(0.99, 0.8, title, transform=top.transAxes, ha="right", va="top", **look)


def _draw_spectrum(
    axes: Axes, energy: NumpyArray, data: NumpyArray, model: NumpyArray, background: NumpyArray, colour: str
) -> None:
    """Draw data, fit and continuum (E,) on a logarithmic axis; `colour` is that of the fit."""
    axes.plot(energy, data, color=style.DARK, linewidth=0.6, drawstyle="steps-mid", label="data")
    axes.fill_between(energy, np.maximum(background, 1e-12), 1e-12, color="#d9d9d9", linewidth=0, label="continuum")
    axes.fill_between(energy, model, background, color=colour, alpha=0.25, linewidth=0, label="lines")
    axes.plot(energy, model, color=colour, linewidth=1.1, label="fit")
    inside = np.isfinite(model)
    top = float(np.nanmax(data[inside], initial=1.0e-12))
    low = float(np.nanpercentile(np.maximum(background[inside], top * 1e-6), 5))
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(0.4 * low, top * 1e-5), 2.0 * top)
    axes.legend(loc="upper right", fontsize=style.SMALL_POINTS, frameon=False, ncols=4)


def _line_labels(
    one: xr.Dataset, energy: NumpyArray, model: NumpyArray, background: NumpyArray, *, counted: bool
) -> list[_Label]:
    """Labels of the measured lines, and of further lines of the found elements where they are visible.

    `energy` (E,) in keV rises, with the fit (E,) and its continuum (E,); `counted` says whether they are in counts.
    """
    labels, elements = [], []
    for position, name in enumerate(map(str, one["line"].values)):
        element, family = name.split(" ")
        found = is_found(one, position)
        elements += [element] * found
        labels.append(_Label(float(one["line_energy"][position]), f"{element} {pretty_family(family)}", found))
    extra = json.loads(one.attrs.get("settings", "{}")).get("extra", [])
    measured = {str(line) for line in one["line"].values}
    ends = float(energy[0]), float(energy[-1])
    table = line_table([*elements, *extra], energy_range=ends, minimum=MIN_LINE_INTENSITY)
    for line in sorted(table, key=lambda line: -line.intensity):
        channel = int(np.argmin(np.abs(energy - line.energy_kev)))
        net, noise = model[channel] - background[channel], math.sqrt(max(background[channel], 1e-12))
        visible = net > (LINE_DETECTION_SIGMAS * noise if counted else LINE_DETECTION_FRACTION * np.nanmax(model))
        close = any(
            abs(other.energy - line.energy_kev)
            < (SAME_LABEL_DISTANCE_KEV if other.text == line.label else LABEL_DISTANCE_KEV)
            for other in labels
        )
        if line.name not in measured and visible and not close:
            labels.append(_Label(line.energy_kev, line.label, measured=False))
    return sorted(labels)


def is_found(one: xr.Dataset, position: int) -> bool:
    """Whether the element at a position has a number in one spectrum, and not only an upper limit."""
    return math.isfinite(float(one["atomic_percent"][position]))


def _draw_labels(axes: Axes, labels: list[_Label], colour: str) -> None:
    """Label lines above the axes; found elements are bold and in `colour`."""
    low, high = axes.get_xlim()
    shown = [label for label in labels if low < label.energy < high]
    for label in shown:
        axes.axvline(label.energy, color=style.GREY, linewidth=0.4, alpha=0.6, zorder=0)
    style.label_row(
        axes,
        [label.energy for label in shown],
        [label.text for label in shown],
        colours=[colour if label.measured else style.GREY for label in shown],
        bold=[label.measured for label in shown],
    )


def with_errors(value: float, *errors: float) -> tuple[str, ...]:
    """Write a value and its standard errors: each error with one digit (two if it begins with 1), the value with the
    digits of the larger error. Errors that are not known are omitted.

    Examples
    --------
    >>> with_errors(19.3127, 0.023, 0.93), with_errors(50.123, 0.36), with_errors(3.2, float("nan"))
    (('19.3', '0.02', '0.9'), ('50.1', '0.4'), ('3.20',))
    """
    known = [error for error in errors if math.isfinite(error) and error > 0]
    digits = _digits(max(known)) if known else 2
    return (f"{value:.{digits}f}", *(f"{error:.{_digits(error)}f}" for error in known))


def _digits(error: float) -> int:
    """Decimals for one digit of an error, or two if it begins with 1; at most 3."""
    shown = f"{error:.1e}"
    return min(max(-math.floor(math.log10(float(shown))) + (shown[0] == "1"), 0), 3)


def upper_limit(value: float) -> str:
    """Write an upper limit with one digit, or two if it begins with 1, rounded up.

    Examples
    --------
    >>> upper_limit(0.2531), upper_limit(0.0112), upper_limit(14.2), upper_limit(float("nan"))
    ('< 0.3', '< 0.012', '< 15', '-')
    """
    if not math.isfinite(value):
        return "-"
    digits = _digits(value)
    return f"< {math.ceil(round(value * 10**digits, 6)) / 10**digits:.{digits}f}"


def number_columns(one: xr.Dataset, quantity: str = "atomic_percent") -> list[tuple[str, str, str]]:
    """Value or upper limit, error of counting, and error of the k-factors, of each element of one spectrum."""
    names = (quantity, f"{quantity}_std", f"{quantity}_k_std", f"{quantity}_limit")
    rows = []
    for value, counting, factors, limit in zip(*(one[name].values.tolist() for name in names), strict=True):
        if not math.isfinite(value):
            rows.append((upper_limit(limit), "", ""))
            continue
        words = iter(with_errors(value, counting, factors))
        text = next(words)
        rows.append((text, *(next(words) if math.isfinite(e) and e > 0 else "" for e in (counting, factors))))
    return rows


def table_of(found: xr.Dataset, quantity: str = "atomic_percent") -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of compositions: one row for each element, one column for each spectrum.

    A cell holds the value, the error of counting and that of the k-factors, or an upper limit.
    """
    dim = spectrum_dim(found)
    parts = [found] if dim is None else [found.isel({dim: number}) for number in range(found.sizes[dim])]
    cells = [[" ± ".join(filter(None, words)) for words in number_columns(one, quantity)] for one in parts]
    lines = [pretty_family(str(line).split(" ")[1]) for line in found["line"].values]
    head = ["Element", "Line", *names_of_spectra(found)]
    return head, [list(map(str, row)) for row in zip(found["element"].values, lines, *cells, strict=True)]
