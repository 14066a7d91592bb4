"""Figures of what was prepared: maps that the steps left, spectra before and after alignment and background."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import history_of, navigation_dims
from scalehsi.kernels.preparation import power_law as laws
from scalehsi.kernels.preparation.energy_shifts import shift_fourier
from scalehsi.plots import style
from scalehsi.plots.edge_maps import draw_maps_of_pixels, first_position
from scalehsi.schema import ENERGY, MASK, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPS: Final = {
    "spikes": "Spikes replaced (channels)",
    "energy_shift": "Energy shift",
    "background_exponent": "Background exponent",
    "background_misfit": "Background misfit",
}
"""Coordinates over the pixels that steps leave, and their titles."""
SIGNED: Final = ("energy_shift",)
HARMLESS: Final = ("crop(y", "crop(x", "mask(")
"""Steps behind the background that change no value."""
MEAN_OF: Final = 256
"""Pixels whose mean spectrum is drawn."""


class Fits(NamedTuple):
    """Spectra before and after the background was removed.

    Attributes
    ----------
    titles : list of str
    energy : array, shape (E,)
    before, background : arrays, shape (n, E)
    fit : (float, float)
        Window of the fit.
    """

    titles: list[str]
    energy: Float
    before: Float
    background: Float
    fit: tuple[float, float]


def preparation_maps(data: xr.DataArray) -> dict[str, Float]:
    """The maps (ny, nx) that preparation left as coordinates of a cube, or of maps, by name."""
    found = {}
    for name in MAPS:
        if name in data.coords and {Y, X} <= set(data[name].dims):
            values = first_position(data[name])
            if np.isfinite(values).any():
                found[name] = values
    return found


def draw_preparation_maps(data: xr.DataArray) -> Figure:
    """Draw the maps of `preparation_maps`; the colours of shifts are neutral at 0."""
    maps = preparation_maps(data)
    titles = {}
    for name in maps:
        units = str(data[name].attrs.get("units", ""))
        titles[name] = f"{MAPS[name]} ({units})" if units else MAPS[name]
    return draw_maps_of_pixels(maps, titles, data, label="", signed=SIGNED)


def background_fits(cube: xr.DataArray) -> Fits | None:
    """The background of a dim, a middle and a bright pixel, and of the mean of 256; None where it is not known.

    It follows from the exponent and the counts in the fit window, which `remove_background` leaves as coordinates, as
    long as no later step changed the values.
    """
    lines = history_of(cube.attrs)
    last = next((n for n in range(len(lines) - 1, -1, -1) if lines[n].startswith("background(")), None)
    coordinates = {"background_exponent", "background_counts"} <= set(cube.coords)
    if (
        last is None
        or not coordinates
        or any(not line.startswith(("crop(y", "crop(x", "mask(")) for line in lines[last + 1 :])
    ):
        return None
    found = re.match(r"background\(fit=([^:]+):([^,]+), model=(power|exponential), ", lines[last])
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    if found is None:
        return None
    fit = (float(found[1]), float(found[2]))
    inside = np.flatnonzero((energy >= fit[0] - 1e-6) & (energy <= fit[1] + 1e-6))
    l = laws.axis_of(energy, int(inside[0]), int(inside[-1]) + 1, law=found[3])  # noqa: E741
    rate = 1.0 if found[3] == "power" else float(energy[inside].mean())
    dims = navigation_dims(cube)
    counts = np.asarray(cube["background_counts"].transpose(*dims).values, dtype=np.float64).ravel()
    exponents = np.asarray(cube["background_exponent"].transpose(*dims).values, dtype=np.float64).ravel() * rate
    good = np.flatnonzero(np.isfinite(counts) & np.isfinite(exponents) & (counts > 0))
    if not good.size:
        return None
    ranked = good[np.argsort(counts[good], kind="stable")]
    chosen = [int(ranked[int(share * (ranked.size - 1))]) for share in (0.05, 0.5, 0.95)]
    spread = ranked[np.unique(np.linspace(0, ranked.size - 1, min(MEAN_OF, ranked.size)).astype(int))]
    pixels = np.concatenate([chosen, spread])
    shape = tuple(cube.sizes[d] for d in dims)
    places = np.unravel_index(pixels, shape)
    index = {d: xr.DataArray(p, dims="pixel") for d, p in zip(dims, places, strict=True)}
    net = np.asarray(cube.isel(index).transpose("pixel", ENERGY).values, dtype=np.float64)
    finite = np.isfinite(l)
    terms = np.where(finite, np.exp(-exponents[pixels, None] * np.where(finite, l, 0.0)), 0.0)
    background = counts[pixels, None] * terms / terms[:, inside].sum(axis=1, keepdims=True)
    before = net + background
    names = []
    for word, place in zip(("Dim", "Middle", "Bright"), zip(*(p[:3] for p in places), strict=True), strict=True):
        names.append(f"{word} pixel ({', '.join(f'{d} {int(i)}' for d, i in zip(dims, place, strict=True))})")
    names.append(f"Mean of {len(spread)} pixels")
    rows = [np.vstack([each[:3], each[3:].mean(axis=0)]) for each in (before, background)]
    return Fits(names, energy, rows[0], rows[1], fit)


class Aligned(NamedTuple):
    """A mean spectrum before and after alignment.

    Attributes
    ----------
    energy, before, after : arrays, shape (E,)
    window : (float, float)
        Where the two differ most.
    pixels : int
        Of the mean.
    """

    energy: Float
    before: Float
    after: Float
    window: tuple[float, float]
    pixels: int


def alignment_spectra(cube: xr.DataArray) -> Aligned | None:
    """The mean of 256 pixels after alignment, and with their shifts put back; None for a cube that was not aligned."""
    aligned = any(line.startswith("align(") for line in history_of(cube.attrs))
    energy = np.asarray(cube[ENERGY].values, dtype=np.float64)
    if not aligned or "energy_shift" not in cube.coords or energy.size < 16:
        return None
    dims = navigation_dims(cube)
    shifts = np.asarray(cube["energy_shift"].transpose(*dims).values, dtype=np.float64).ravel()
    good = np.flatnonzero(
        np.isfinite(shifts) & (np.asarray(cube[MASK].values, dtype=bool).ravel() if MASK in cube.coords else True)
    )
    if not good.size or not np.ptp(shifts[good]) > 0:
        return None
    some = good[np.unique(np.linspace(0, good.size - 1, min(MEAN_OF, good.size)).astype(int))]
    places = np.unravel_index(some, tuple(cube.sizes[d] for d in dims))
    index = {d: xr.DataArray(p, dims="pixel") for d, p in zip(dims, places, strict=True)}
    rows = np.asarray(cube.isel(index).transpose("pixel", ENERGY).values, dtype=np.float64)
    fit = np.isfinite(rows).all(axis=1)
    channels = shifts[some[fit]] / float(np.diff(energy).mean())
    before, after = shift_fourier(rows[fit], -channels).mean(axis=0), rows[fit].mean(axis=0)
    # The ends of a shifted spectrum are guesses.
    edge = min(int(np.ceil(np.abs(channels).max())) + 2, energy.size // 4)
    change = np.abs(after - before) / np.sqrt(np.maximum(after, 1e-3 * max(float(after.max()), 1e-30)))
    change = np.convolve(change, np.ones(5) / 5, mode="same")
    middle = edge + int(np.argmax(change[edge : energy.size - edge]))
    half = max(int(4 * channels.std()), 12)
    low, high = max(middle - half, 0), min(middle + half, energy.size - 1)
    ends = slice(edge, energy.size - edge)
    return Aligned(energy[ends], before[ends], after[ends], (float(energy[low]), float(energy[high])), int(fit.sum()))


def draw_alignment(found: Aligned, unit: str = "") -> Figure:
    """Draw the mean spectrum before and after alignment, and where it changed most; unit: of the energy axis."""
    figure = style.new_figure(style.WIDTH_INCHES, 2.6)
    whole, part = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes in (whole, part):
        axes.plot(found.energy, found.before, color=style.GREY, linewidth=1.0, label="before")
        axes.plot(found.energy, found.after, color=style.colour(0), linewidth=1.0, label="aligned")
        style.style_axes(axes, xlabel=f"Energy ({unit})" if unit else "Energy")
        axes.yaxis.set_major_formatter(style.tick_format())
    whole.axvspan(*found.window, color="#dddddd", linewidth=0)
    style.set_title(whole, f"Mean of {found.pixels} pixels")
    style.set_title(part, "The part that changed most")
    inside = (found.energy >= found.window[0]) & (found.energy <= found.window[1])
    shown = np.r_[found.before[inside], found.after[inside]]
    margin = 0.05 * float(np.ptp(shown))
    part.set_xlim(*found.window)
    part.set_ylim(float(shown.min()) - margin, float(shown.max()) + margin)
    part.legend(fontsize=7, frameon=False)
    return figure


def draw_background_fits(fits: Fits, unit: str = "") -> Figure:
    """Draw spectra before, the background, and what remains; unit: of the energy axis."""
    figure = style.new_figure(style.WIDTH_INCHES, 4.6)
    grid = figure.subplots(2, 2, squeeze=False).ravel()
    for axes, title, before, background in zip(grid, fits.titles, fits.before, fits.background, strict=True):
        axes.axvspan(*fits.fit, color="#dddddd", linewidth=0)
        axes.plot(fits.energy, before, color=style.colour(0), linewidth=0.8, label="before")
        axes.plot(fits.energy, background, color="black", linewidth=1.0, linestyle="--", label="background")
        axes.plot(fits.energy, before - background, color=style.colour(1), linewidth=0.8, label="after")
        axes.axhline(0.0, color="grey", linewidth=0.5)
        shown = fits.energy >= min(fits.fit[0], fits.energy[-1])
        top = float(np.nanmax(np.r_[before[shown], background[shown]]))
        axes.set_ylim(min(float(np.nanmin((before - background)[shown])), 0.0) - 0.05 * top, 1.1 * top)
        style.style_axes(axes, xlabel=f"Energy ({unit})" if unit else "Energy", title=title)
    grid[0].legend(fontsize=7, frameon=False)
    return figure
