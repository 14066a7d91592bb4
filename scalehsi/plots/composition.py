"""Drawings and words of a quantification: the fit under each spectrum, and compositions with their errors."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.cube import energy_kev
from scalehsi.physics.identify import pretty_family
from scalehsi.physics.line_choice import choose_peaks
from scalehsi.physics.line_templates import Foil
from scalehsi.physics.lines import line_table
from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.quantify import quantify, sources
from scalehsi.schema import COMPONENT, ENERGY, ENERGY_UNITS, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


FIT_HEIGHT: Final = 3.6
SEEN: Final = 4.0
"""A line beside those that are measured gets its name where it stands so many standard deviations above background."""
MINOR: Final = 0.08
ROW: Final = 1.05
LABEL_GAP: Final = 1.3 * style.SMALL / 72
DETECTED: Final = 3.0
"""An element counts as found when it is so many standard errors above zero."""
LEAST_PERCENT: Final = 0.05
"""The same in atomic per cent where no errors are known."""
TOGETHER: Final = 0.06
TWICE: Final = 0.4
"""keV within which a line gets no name beside another, and beside one of the same name."""


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


class Composition(NamedTuple):
    """What the report says of the composition: the quantification, and which elements it had to leave out."""

    found: xr.Dataset
    left_out: tuple[str, ...]


def composition_of(result: xr.Dataset, view: Digest) -> Composition | None:
    """Quantify the components of a result whose elements are known; None where that has no meaning.

    The maps are not read again: the digest has their sums.
    """
    if view.signal != "EDS" or view.signed or view.energy_unit not in ENERGY_UNITS or not view.elements:
        return None
    spectra = xr.DataArray(
        sources.raw_endmembers(result).values * _sums(view)[:, None],
        dims=(COMPONENT, ENERGY),
        coords={COMPONENT: list(view.names), ENERGY: (ENERGY, view.energy, {"units": view.energy_unit})},
        attrs={"signal": "EDS", "units": view.intensity_unit},
    )
    told = result.attrs.get("beam_energy_keV")
    beam = float(told) if isinstance(told, numbers.Real) and told > 0 else Foil().beam_kev
    ends = float(view.energy_kev.min()), float(view.energy_kev.max())
    usable = [element for element in view.elements if _has_line(element, ends, beam)]
    try:
        found = quantify(spectra, usable, beam_kev=beam, maps=False)
    except InputError:
        return None
    return Composition(found, tuple(element for element in view.elements if element not in usable))


def _sums(view: Digest) -> NumpyArray:
    """Sums of the abundances of each component."""
    strength = np.nansum(view.endmembers, axis=1)
    sums: NumpyArray = np.where(strength > 0, view.totals / np.where(strength > 0, strength, 1.0), 0.0)
    return sums


def _has_line(element: str, ends: tuple[float, float], beam_kev: float) -> bool:
    try:
        choose_peaks([element], energy_range=ends, beam_kev=beam_kev)
    except InputError:
        return False
    return True


def composition_words(composition: Composition) -> str:
    """How the table of the report came about, and how far to trust it."""
    words = (
        "Atomic per cent from the spectra above: overlapping lines solved together, continuum taken off, Cliff-Lorimer "
        "ratios with computed k-factors (trust them to some 5 % for K lines, 10 to 20 % for L and M lines). Absorption "
        "is not corrected, so soft lines (C, N, O, F, Na) read low in thick places; scalehsi quantify takes thickness, "
        "density and k-factors of your own. "
    )
    if np.isfinite(composition.found["intensity_std"].values).any():
        words += "Errors are those of counting alone, one standard error; a grey number is not clear of zero. "
    else:
        words += f"{composition.found.attrs['errors']} "
    words += "Elements of the grid or the holder (often Cu, C) count here like the others."
    if composition.left_out:
        words += f" Left out, as no line of theirs lies on the energy axis: {', '.join(composition.left_out)}."
    return words


def draw_fits(found: xr.Dataset, *, which: Sequence[int] | None = None, colours: Sequence[str] = ()) -> Figure:
    """Draw spectra of a quantification: data, fit, continuum, names of the lines, and what the fit leaves.

    Parameters
    ----------
    found : xarray.Dataset
        Of `scalehsi.quantify`, without maps.
    which : sequence of int, optional
        Which of its spectra, counted from 0; all by default.
    colours : sequence of str, optional
        One for each spectrum of ``found``; those of components by default.
    """
    titles = names_of_spectra(found)
    chosen = range(len(titles)) if which is None else which
    dim = spectrum_dim(found)
    figure = style.new_figure(style.WIDTH, FIT_HEIGHT * max(len(chosen), 1))
    parts = figure.subfigures(max(len(chosen), 1), 1, squeeze=False)[:, 0]
    for part, number in zip(parts, chosen, strict=False):
        one = found if dim is None else found.isel({dim: number})
        ink = colours[number] if number < len(colours) else style.colour(number)
        _draw_fit(part, one, titles[number] if len(titles) > 1 else "", ink)
    return figure


def _draw_fit(part: SubFigure, one: xr.Dataset, title: str, ink: str) -> None:
    energy = energy_kev(one)
    assert energy is not None
    order = np.argsort(energy)
    energy = energy[order]
    data, model, background = (
        np.asarray(one[name].values, dtype=np.float64)[order] for name in ("spectrum", "model", "background")
    )
    top, bottom = part.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _spectrum(top, energy, data, model, background, ink)
    counted = str(one["spectrum"].attrs.get("units", "")) == "counts"
    left = (data - model) / (np.sqrt(np.maximum(model, 1e-12)) if counted else float(np.nanmax(model, initial=1e-300)))
    bottom.axhline(0.0, color=style.FAINT, linewidth=0.6)
    bottom.plot(energy, left, color=style.INK, linewidth=0.7)
    style.tidy(top, ylabel=f"{'Counts' if counted else 'Intensity'} per channel\n(log scale)")
    unit = "noise = 1" if counted else "max = 1"
    style.tidy(bottom, xlabel="Energy (keV)", ylabel=f"Data - fit\n({unit})")
    names = _names(one, energy, model, background, counted=counted)
    fitted = energy[np.isfinite(model)]
    highest = max((name.energy for name in names), default=float(fitted[-1]))
    bottom.set_xlim(float(fitted[0]) - 0.1, min(float(energy[-1]), 1.08 * highest + 0.3))
    _label(top, names, ink)
    top.text(
        0.99,
        0.8,
        title,
        transform=top.transAxes,
        ha="right",
        va="top",
        fontsize=style.TEXT,
        color=ink,
        fontweight="bold",
        parse_math=False,
    )


def _spectrum(
    axes: Axes, energy: NumpyArray, data: NumpyArray, model: NumpyArray, background: NumpyArray, ink: str
) -> None:
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


def _names(
    one: xr.Dataset, energy: NumpyArray, model: NumpyArray, background: NumpyArray, *, counted: bool
) -> list[_Name]:
    """The measured lines, and further ones of the elements that were found where they show."""
    named, present = [], []
    for position, text in enumerate(map(str, one["line"].values)):
        element, family = text.split(" ")
        seen = is_found(one, position)
        present += [element] * seen
        named.append(_Name(float(one["line_energy"][position]), f"{element} {pretty_family(family)}", seen))
    extra = json.loads(one.attrs.get("settings", "{}")).get("extra", [])
    measured = {str(line) for line in one["line"].values}
    table = line_table([*present, *extra], energy_range=(float(energy[0]), float(energy[-1])), minimum=MINOR)
    for line in sorted(table, key=lambda line: -line.intensity):
        channel = int(np.argmin(np.abs(energy - line.energy_kev)))
        net, noise = model[channel] - background[channel], math.sqrt(max(background[channel], 1e-12))
        text = f"{line.element} {pretty_family(line.family)}"
        apart = [(abs(name.energy - line.energy_kev), name.text) for name in named]
        near = any(distance < (TWICE if other == text else TOGETHER) for distance, other in apart)
        shows = net > SEEN * noise if counted else net > 0.05 * np.nanmax(model)
        if line.name not in measured and shows and not near:
            named.append(_Name(line.energy_kev, text, measured=False))
    return sorted(named)


def is_found(one: xr.Dataset, position: int) -> bool:
    """Whether an element of one spectrum stands clear of zero."""
    share, error = float(one["atomic_percent"][position]), float(one["atomic_percent_std"][position])
    return share > (DETECTED * error if math.isfinite(error) else LEAST_PERCENT)


def _label(axes: Axes, names: list[_Name], ink: str) -> None:
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
    >>> with_error(18.432, 0.027), with_error(50.123, 0.36), with_error(3.2, float("nan")), with_error(0.001, 0.02)
    ('18.43 ± 0.03', '50.1 ± 0.4', '3.20', '0.00 ± 0.02')
    """
    if not math.isfinite(value):
        return "none"
    if not (math.isfinite(error) and error > 0):
        return f"{value:.2f}"
    # One digit of the error, two where the first is a one.
    shown = f"{error:.0e}"
    digits = min(max(-math.floor(math.log10(float(shown))) + (shown[0] == "1"), 0), 3)
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
