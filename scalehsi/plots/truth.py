"""A result beside the truth that its data were simulated from: matched, scored and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from scalehsi import metrics
from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.digest import POSITION, Digest, check_shapes, digest, intensity_maps
from scalehsi.plots.spectra import energy_label
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Match(NamedTuple):
    """A component of the truth and the component of the result that belongs to it.

    Attributes
    ----------
    truth, estimate : int
        Positions of the components, from 0.
    angle : float
        Spectral angle in degrees.
    similarity : float
        Correlation of the two maps of shares; NaN when the maps cannot be compared.
    nmse : float
        Squared error of the map of shares relative to the squared truth; NaN likewise.
    """

    truth: int
    estimate: int
    angle: float
    similarity: float
    nmse: float


def digest_truth(view: Digest, truth: Any) -> Digest:
    """Give the digest of a truth that can be set beside a result.

    Raises
    ------
    InputError
        When it lacks spectra or maps, or has another number of channels.
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


def compare(view: Digest, known: Digest) -> list[Match]:
    """Match components to the truth and score them with `scalehsi.metrics.scores`, in the order of the truth.

    When the result has fewer components than the truth, those of the truth that nothing fits are left out.
    """
    result, truth = _as_dataset(view), _as_dataset(known)
    chosen = np.arange(len(known.names))
    if len(view.names) < len(known.names):
        chosen = np.sort(metrics.match(result[ENDMEMBERS], truth[ENDMEMBERS]))
    truth = truth.isel({COMPONENT: chosen})
    scores = metrics.score(result, truth if _comparable(view, known) else truth.drop_vars(ABUNDANCES))
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
    """The part of a digest that is scored, small whatever the result's size; components are counted from 0."""
    return xr.Dataset(
        {
            ENDMEMBERS: ((COMPONENT, ENERGY), view.endmembers),
            ABUNDANCES: ((COMPONENT, POSITION, Y, X), view.maps),
        },
        coords={COMPONENT: np.arange(len(view.names)), ENERGY: view.energy_kev},
        attrs={"model": view.model},
    )


def draw_comparison(view: Digest, known: Digest) -> Figure:
    """Draw truth and estimate side by side: spectra over each other, maps next to each other."""
    matches = compare(view, known)
    with_maps = _comparable(view, known)
    columns, widths = (3, (2.2, 1, 1)) if with_maps else (1, (1,))
    map_height = style.WIDTH / sum(widths) * style.panel_shape(view) + 0.4
    figure = style.new_figure(style.WIDTH, min(max(map_height, 2.0), 4.5) * max(len(matches), 1))
    grid = figure.subplots(max(len(matches), 1), columns, squeeze=False, width_ratios=widths)
    truth_shares, shares = shares_of(known), shares_of(view)
    for row, pair in zip(grid, matches, strict=False):
        axes, colour = row[0], style.colour(pair.estimate)
        axes.plot(view.energy, unit_sum(view.endmembers[pair.estimate]), color=colour, linewidth=1.6, label="estimate")
        truth_line = unit_sum(known.endmembers[pair.truth])
        axes.plot(view.energy, truth_line, color="black", linewidth=0.8, linestyle=(0, (3, 1.5)), label="truth")
        heading = f"{truth_name(known, pair.truth)} → {view.names[pair.estimate]}: {pair.angle:.2f}° apart"
        style.tidy(axes, xlabel=energy_label(view), ylabel="Part of the intensity", title=heading)
        axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
        axes.legend(frameon=False, fontsize=style.SMALL)
        if with_maps:
            titles = ("Truth", f"Estimate (correlation {pair.similarity:.3f})")
            drawn = (truth_shares[pair.truth, 0], shares[pair.estimate, 0])
            for axes, values, title in zip(row[1:], drawn, titles, strict=True):
                style.show_map(axes, values, view, cmap=style.colour_map(style.MAP_COLOURS), vmin=0.0, vmax=1.0)
                style.scale_bar(axes, view)
                axes.set_title(title, fontsize=style.TEXT, loc="left", color=style.INK)
    return figure


def _comparable(view: Digest, known: Digest) -> bool:
    """Whether the maps can be set against each other: one grid, and shares that mean something."""
    return known.maps.shape[1:] == view.maps.shape[1:] and not view.signed


def shares_of(view: Digest) -> NumpyArray:
    """Each component's share of each pixel's intensity, (K, N, ny, nx); NaN where there is none."""
    maps = intensity_maps(view)
    total = maps.sum(axis=0)
    shares: NumpyArray = np.where(total > 0, maps / np.where(total > 0, total, 1.0), np.nan)
    return shares


def truth_name(known: Digest, number: int) -> str:
    """Name of a component of the truth, told apart from the result's when both are only numbered."""
    own = known.names[number]
    return f"Truth {number + 1}" if own == f"Component {number + 1}" else own


def unit_sum(spectrum: NumpyArray) -> NumpyArray:
    """The spectrum over its sum; as it is where that is zero."""
    total = float(np.nansum(spectrum))
    return spectrum / total if total else spectrum
