"""Drawings and words of a quantification: the fit under each spectrum, and compositions with their errors."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.cube import energy_kev
from scalehsi.kernels.lines import line_table
from scalehsi.reporting import style
from scalehsi.reporting.identify import pretty_family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

FIT_HEIGHT: Final = 3.6
SEEN: Final = 4.0
"""A line beside those that are measured gets its name where it stands so many standard deviations above background."""
MINOR: Final = 0.08
ROW: Final = 1.05
LABEL_GAP: Final = 1.3 * style.SMALL / 72
DETECTED: Final = 3.0
"""An element counts as found when it is so many standard errors above zero."""


class _Name(NamedTuple):
    energy: float
    text: str
    measured: bool


def spectrum_dim(found: xr.Dataset) -> str | None:
    """The dim that tells spectra apart (component, region ...), or None for a single spectrum."""
    return next((str(d) for d in found["atomic_percent"].dims if d != "element"), None)


def names_of_spectra(found: xr.Dataset) -> list[str]:
    """What each spectrum of a quantification is called."""
    dim = spectrum_dim(found)
    if dim is None:
        return ["Sum of all pixels"]
    labels = (
        [str(v) for v in found[dim].values] if dim in found.coords else [str(i + 1) for i in range(found.sizes[dim])]
    )
    given = [str(name) for name in found.attrs.get("components", ())]
    if dim == "component" and len(given) == len(labels):
        return given
    return [f"{dim.capitalize()} {label}" if label.isdigit() else label for label in labels]


def draw_fit(found: xr.Dataset, *, which: int = 0, colour: str | None = None) -> Figure:
    """Draw one spectrum of a quantification: data, model, continuum, the lines that were measured, and what is left."""
    dim = spectrum_dim(found)
    one = found if dim is None else found.isel({dim: which})
    energy = energy_kev(one)
    assert energy is not None
    order = np.argsort(energy)
    energy = energy[order]
    data, model, background = (
        np.asarray(one[name].values, dtype=np.float64)[order] for name in ("spectrum", "model", "background")
    )
    figure = style.new_figure(style.WIDTH, FIT_HEIGHT)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ink = colour or style.COLOURS[0]
    _spectrum(top, energy, data, model, background, ink)
    counted = str(one["spectrum"].attrs.get("units", "")) == "counts"
    left = (data - model) / (np.sqrt(np.maximum(model, 1e-12)) if counted else float(np.nanmax(model, initial=1e-300)))
    bottom.axhline(0.0, color=style.FAINT, linewidth=0.6)
    bottom.plot(energy, left, color=style.INK, linewidth=0.7)
    style.tidy(top, ylabel=f"{'Counts' if counted else 'Intensity'} per channel\n(log scale)")
    style.tidy(
        bottom, xlabel="Energy (keV)", ylabel="Data - model\n(noise = 1)" if counted else "Data - model\n(max = 1)"
    )
    names = _names(one, energy, model, background, counted=counted)
    fitted = energy[np.isfinite(model)]
    highest = max((name.energy for name in names), default=float(fitted[-1]))
    bottom.set_xlim(float(fitted[0]) - 0.1, min(float(energy[-1]), 1.08 * highest + 0.3))
    _label(top, names, data, ink)
    return figure


def _spectrum(axes: Axes, energy: Array, data: Array, model: Array, background: Array, ink: str) -> None:
    axes.plot(energy, data, color=style.INK, linewidth=0.6, drawstyle="steps-mid", label="data")
    axes.fill_between(energy, np.maximum(background, 1e-12), 1e-12, color="#d9d9d9", linewidth=0, label="continuum")
    axes.fill_between(energy, model, background, color=ink, alpha=0.25, linewidth=0, label="lines")
    axes.plot(energy, model, color=ink, linewidth=1.1, label="fit")
    inside = np.isfinite(model)
    top = float(np.nanmax(data[inside], initial=1.0e-12))
    low = float(np.nanpercentile(np.maximum(background[inside], top * 1e-6), 5))
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(max(0.4 * low, top * 1e-5), 2.0 * top)
    axes.legend(loc="upper right", fontsize=style.SMALL, frameon=False, ncols=4)


def _names(one: xr.Dataset, energy: Array, model: Array, background: Array, *, counted: bool) -> list[_Name]:
    """The measured lines, and further ones of the same elements that show."""
    found = []
    for text, at in zip(one["line"].values, one["line_energy"].values, strict=True):
        element, family = str(text).split(" ")
        found.append(_Name(float(at), f"{element} {pretty_family(family)}", measured=True))
    extra = json.loads(one.attrs.get("settings", "{}")).get("extra", [])
    table = line_table(
        [*map(str, one["element"].values), *extra], energy_range=(float(energy[0]), float(energy[-1])), minimum=MINOR
    )
    measured = {str(line) for line in one["line"].values}
    for line in table:
        channel = int(np.argmin(np.abs(energy - line.energy_kev)))
        net, noise = model[channel] - background[channel], math.sqrt(max(background[channel], 1e-12))
        near = any(abs(name.energy - line.energy_kev) < 0.06 for name in found)
        shows = net > SEEN * noise if counted else net > 0.05 * np.nanmax(model)
        if f"{line.element} {line.family}" not in measured and shows and not near:
            found.append(_Name(line.energy_kev, f"{line.element} {pretty_family(line.family)}", measured=False))
    return sorted(found)


def _label(axes: Axes, names: list[_Name], data: Array, ink: str) -> None:
    """Names upright in a row above the axes, each with a thin line down to its peak."""
    low, high = axes.get_xlim()
    shown = [name for name in names if low < name.energy < high]
    gap = LABEL_GAP * (high - low) / (0.86 * style.WIDTH)
    places = style.spread([name.energy for name in shown], gap, low, high)
    blended = axes.get_xaxis_transform()
    for name, place in zip(shown, places, strict=True):
        axes.axvline(name.energy, color=style.FAINT, linewidth=0.4, alpha=0.6, zorder=0)
        axes.plot(
            [name.energy, place],
            [1.0, ROW],
            color=style.FAINT,
            linewidth=0.5,
            transform=blended,
            clip_on=False,
            zorder=0,
        )
        axes.text(
            place,
            ROW + 0.01,
            name.text,
            transform=blended,
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
            color=ink if name.measured else style.FAINT,
            fontweight="bold" if name.measured else "normal",
            parse_math=False,
        )


def with_error(value: float, error: float) -> str:
    """A percentage with its standard error, to the digits that mean something.

    Examples
    --------
    >>> with_error(18.432, 0.027), with_error(50.123, 0.35), with_error(3.2, float("nan")), with_error(0.001, 0.02)
    ('18.43 ± 0.03', '50.1 ± 0.4', '3.20', '0.00 ± 0.02')
    """
    if not math.isfinite(value):
        return "none"
    if not (math.isfinite(error) and error > 0):
        return f"{value:.2f}"
    digits = min(max(-math.floor(math.log10(error)) + (f"{error:.0e}"[0] == "1"), 0), 3)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def table_of(found: xr.Dataset, quantity: str = "atomic_percent") -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of compositions: a row for each element, a column for each spectrum."""
    dim = spectrum_dim(found)
    values, errors = (
        np.asarray(found[name].transpose("element", *([dim] if dim else [])).values).reshape(found.sizes["element"], -1)
        for name in (quantity, f"{quantity}_std")
    )
    head = ["Element", "Line", *names_of_spectra(found)]
    rows = []
    for number, (element, line) in enumerate(zip(found["element"].values, found["line"].values, strict=True)):
        cells = [with_error(float(v), float(e)) for v, e in zip(values[number], errors[number], strict=True)]
        rows.append([str(element), pretty_family(str(line).split(" ")[1]), *cells])
    return head, rows
