"""Compare a result with the truth of simulated data: match components, score them, and draw both side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi import metrics
from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.digest import POSITION, Digest, check_shapes, digest, intensity_maps
from scalehsi.plots.spectra import energy_label
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SHARE: Final = "share of the intensity"
"""What maps of truth and estimate show, on their colour bars."""


class Match(NamedTuple):
    """A component of the truth, and the component of the result that matches it.

    Attributes
    ----------
    truth, estimate : int
        Numbers of the components, from 0.
    angle : float
        Spectral angle in degrees.
    similarity : float
        Correlation of the two maps of shares; NaN when the maps cannot be compared.
    nmse : float
        Squared error of the map of shares relative to the squared truth; NaN when the maps cannot be compared.
    """

    truth: int
    estimate: int
    angle: float
    similarity: float
    nmse: float


def digest_truth(view: Digest, truth: Any) -> Digest:
    """Digest a truth for comparison with the digest `view` of a result.

    Raises
    ------
    InputError
        When the truth has no spectra or maps, or another number of channels.
    """
    try:
        truth = check_shapes(truth)
    except InputError as error:
        raise InputError(
            f"truth: {error}; expected the Dataset that scalehsi.simulate stores beside its cube"
        ) from None
    if truth.sizes[ENERGY] != view.energy.size:
        raise InputError(
            f"the truth has {truth.sizes[ENERGY]} channels, the result {view.energy.size}; "
            "give the truth the same preparation as the cube (truth.isel(energy=slice(first, last)) for a crop)"
        )
    return digest(truth)


def match_components(view: Digest, truth: Digest) -> list[Match]:
    """Match the components of a result to those of the truth, and score them, in the order of the truth.

    When the result has fewer components, the truth's components without a match are left out.
    """
    result, reference = _as_dataset(view), _as_dataset(truth)
    chosen = np.arange(len(truth.names))
    if len(view.names) < len(truth.names):
        chosen = np.sort(metrics.match(result[ENDMEMBERS], reference[ENDMEMBERS]))
    reference = reference.isel({COMPONENT: chosen})
    scores = metrics.score(result, reference if _comparable(view, truth) else reference.drop_vars(ABUNDANCES))
    missing = xr.full_like(scores["spectral_angle"], np.nan)
    similarity, nmse = (scores.get(name, missing).values for name in ("map_similarity", "map_nmse"))
    return [
        Match(
            truth=int(chosen[row]),
            estimate=int(scores["matched"].values[row]),
            angle=float(np.degrees(scores["spectral_angle"].values[row])),
            similarity=float(similarity[row]),
            nmse=float(nmse[row]),
        )
        for row in range(chosen.size)
    ]


def _as_dataset(view: Digest) -> xr.Dataset:
    """Spectra and maps of a digest as a Dataset, with components numbered from 0."""
    return xr.Dataset(
        {
            ENDMEMBERS: ((COMPONENT, ENERGY), view.endmembers),
            ABUNDANCES: ((COMPONENT, POSITION, Y, X), view.maps),
        },
        coords={COMPONENT: np.arange(len(view.names)), ENERGY: view.energy_kev},
        attrs={"model": view.model},
    )


def draw_comparison(view: Digest, truth: Digest, ax: Axes | None = None) -> Figure:
    """Draw truth and estimate: spectra in one panel, maps side by side, one row for each matched component."""
    matches = match_components(view, truth)
    with_maps = _comparable(view, truth)
    columns, widths = (3, (2.2, 1, 1)) if with_maps else (1, (1,))
    map_height = style.WIDTH_INCHES / sum(widths) * style.panel_shape(view) + 0.4
    figure = style.new_figure(style.WIDTH_INCHES, min(max(map_height, 2.0), 4.5) * max(len(matches), 1), ax)
    grid = figure.subplots(max(len(matches), 1), columns, squeeze=False, width_ratios=widths)
    truth_shares, shares = shares_of(truth), shares_of(view)
    colours = style.colour_map(style.MAP_COLOURS)
    for row, pair in zip(grid, matches, strict=False):
        axes, colour = row[0], style.colour(pair.estimate)
        estimate = scaled_to_unit_sum(view.endmembers[pair.estimate])
        axes.plot(view.energy, estimate, color=colour, linewidth=1.6, label="estimate")
        draw_truth_line(axes, truth, pair.truth)
        heading = f"{truth_name(truth, pair.truth)} → {view.names[pair.estimate]}: {pair.angle:.2f}° apart"
        style.style_axes(axes, xlabel=energy_label(view), ylabel="Fraction of the intensity", title=heading)
        axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))
        if view.signal == "EDS" and not view.signed:
            style.log_spectrum(axes, scaled_to_unit_sum(truth.endmembers[pair.truth]))
        else:
            axes.yaxis.set_major_formatter(style.tick_format())
        axes.legend(frameon=False, fontsize=style.SMALL_POINTS)
        if with_maps:
            titles = ("Truth", f"Estimate (correlation {pair.similarity:.3f})")
            drawn = (truth_shares[pair.truth, 0], shares[pair.estimate, 0])
            for axes, values, title in zip(row[1:], drawn, titles, strict=True):
                image = style.show_map(axes, values, view, cmap=colours, vmin=0.0, vmax=1.0)
                style.scale_bar(axes, view)
                style.set_title(axes, title)
            style.colour_bar(figure, image, list(row[1:]), SHARE, extend="neither")
    return figure


def draw_truth_line(axes: Axes, truth: Digest, number: int) -> None:
    """Draw the spectrum of component `number` of the truth, scaled to a sum of one, as a dashed black line."""
    spectrum = scaled_to_unit_sum(truth.endmembers[number])
    axes.plot(truth.energy, spectrum, color="black", linewidth=0.8, linestyle=(0, (3, 1.5)), label="truth")


def _comparable(view: Digest, truth: Digest) -> bool:
    """Whether the maps can be compared: both have the same grid, and the result is not signed."""
    return truth.maps.shape[1:] == view.maps.shape[1:] and not view.signed


def shares_of(view: Digest) -> NumpyArray:
    """Each component's share of the intensity of each pixel, (K, N, ny, nx); NaN in pixels without intensity."""
    maps = intensity_maps(view)
    total = maps.sum(axis=0)
    shares: NumpyArray = np.where(total > 0, maps / np.where(total > 0, total, 1.0), np.nan)
    return shares


def truth_name(truth: Digest, number: int) -> str:
    """Name of a component of the truth, distinct from the result's when both are only numbered."""
    own = truth.names[number]
    return f"Truth {number + 1}" if own == f"Component {number + 1}" else own


def scaled_to_unit_sum(spectrum: NumpyArray) -> NumpyArray:
    """The spectrum divided by its sum; unchanged when the sum is zero."""
    total = float(np.nansum(spectrum))
    return spectrum / total if total else spectrum
