"""Remarks on a result in plain words: its status, warnings, and one line on each component."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter

from scalehsi import metrics
from scalehsi.arrays import NumpyArray
from scalehsi.physics.identify import Mark
from scalehsi.physics.peaks import noise
from scalehsi.plots.digest import Digest
from scalehsi.plots.line_marks import strongest
from scalehsi.plots.maps import STRUCTURED_CORRELATION, neighbour_correlation
from scalehsi.plots.quality import indicator_minimum
from scalehsi.plots.spectra import share_text, share_unit

EMPTY_SHARE: Final = 0.01
"""A component with a smaller share of the intensity is nearly empty."""

EQUAL_DEGREES: Final = 5.0
"""Spectra with a smaller spectral angle are nearly the same."""

FEW_COUNTS_PER_PIXEL: Final = 20.0
"""With fewer counts in an EDS spectrum, single pixels are not reliable."""

RESIDUAL_SIGMAS: Final = 8.0
RESIDUAL_SHARE: Final = 1e-3
"""The mean residual has structure if this share of the intensity is more than RESIDUAL_SIGMAS from zero."""

RESIDUAL_MAP_CORRELATION: Final = 0.15
RESIDUAL_MAP_SPREAD: Final = 0.05
"""The residual map has structure if neighbours correlate more, and their common part varies more than this."""

RESIDUAL_TO_NOISE: Final = 1.3
"""A larger ratio of residual to counting noise is a warning."""

STATUS_WORDS: Final[dict[str, tuple[Literal["good", "warning", "bad"], str]]] = {
    "converged": ("good", "Converged"),
    "max_iter": ("warning", "Stopped at the iteration limit"),
    "stagnated": ("warning", "Stagnated before it converged"),
    "nonfinite": ("bad", "Failed: NaN or Inf appeared"),
    "interrupted": ("warning", "Interrupted before it converged"),
}


class Finding(NamedTuple):
    """One remark: a warning asks for a decision, a note is for information."""

    level: Literal["warning", "note"]
    text: str


def status_words(view: Digest) -> tuple[Literal["good", "warning", "bad"], str]:
    """The level of the status, and the status in words."""
    return STATUS_WORDS.get(view.status, ("warning", f"Status {view.status!r}" if view.status else "Status unknown"))


def find(view: Digest) -> list[Finding]:
    """Collect the remarks on a result, warnings first."""
    remarks = [
        *_empty_components(view),
        *_equal_components(view),
        *_residual_spectrum(view),
        *_residual_map(view),
        *_few_counts(view),
        *_masked(view),
        *_indicator(view),
    ]
    return sorted(remarks, key=lambda remark: remark.level != "warning")


def component_line(view: Digest, number: int, marks: Sequence[Mark]) -> str:
    """Describe one component: ``Component 1: 84 % of the counts, strongest lines Mg Kα, Si Kα``.

    `marks` are the line labels of component `number`.
    """
    share = share_text(view.shares[number], unit=share_unit(view)) or "share not known"
    names = strongest(marks)
    kind = "edges" if view.signal == "EELS" else "strongest lines" if len(names) > 1 else "strongest line"
    feature = f"{kind} {', '.join(names)}" if names else _maximum(view, number)
    return f"{view.names[number]}: {share}, {feature}"


def _maximum(view: Digest, number: int) -> str:
    """Where the spectrum of a component is largest."""
    row = np.nan_to_num(np.abs(view.endmembers[number]))
    if not row.any():
        return "no intensity"
    where = f"{view.energy[int(np.argmax(row))]:.4g} {view.energy_unit}".replace("channel", "(channel)")
    return f"largest {'magnitude' if view.signed else 'intensity'} at {where}"


def _empty_components(view: Digest) -> list[Finding]:
    """Components with hardly any intensity: a rare phase if the map has structure, else an unnecessary component."""
    if view.signed:
        return []
    found = []
    for name, share, maps in zip(view.names, view.shares, view.maps, strict=True):
        if not share < EMPTY_SHARE:
            continue
        opening = f"{name} is nearly empty: it has {share_text(share, unit=share_unit(view))}."
        if neighbour_correlation(maps) > STRUCTURED_CORRELATION:
            rest = "Its map has structure, so it may be a rare phase or a weak edge. Check it before you remove it."
        else:
            rest = f"Its map is noise. One component fewer may be enough (n_components={max(1, len(view.names) - 1)})."
        found.append(Finding("warning", f"{opening} {rest}"))
    return found


def _equal_components(view: Digest) -> list[Finding]:
    """Pairs of components with nearly the same spectrum."""
    if view.signed:
        return []
    found = []
    for a, b in itertools.combinations(range(len(view.names)), 2):
        angle = angle_degrees(view.endmembers[a], view.endmembers[b])
        if angle < EQUAL_DEGREES:
            found.append(
                Finding(
                    "warning",
                    f"{view.names[a]} and {view.names[b]} have nearly the same spectrum ({angle:.1f}° apart). "
                    f"One phase may be split into two components. Try n_components={len(view.names) - 1}.",
                )
            )
    return found


def angle_degrees(a: NumpyArray, b: NumpyArray) -> float:
    """Spectral angle in degrees; NaN when a spectrum is zero or not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all() and a.any() and b.any()):
        return math.nan
    return math.degrees(float(metrics.spectral_angle(a, b)))


def _residual_spectrum(view: Digest) -> list[Finding]:
    """Structure in the mean residual spectrum, smoothed by 1.5 channels, beyond its noise."""
    residual, mean = view.residual_spectrum, view.mean_spectrum
    if residual is None or mean is None or not (np.isfinite(residual).all() and np.isfinite(mean).all()):
        return []
    if residual.size < 16 or not mean.max() > 0:
        return []
    sigma = 1.5
    smoothed_noise = (2.0 * math.sqrt(math.pi) * sigma) ** -0.5
    spread = smoothed_noise * noise(view.energy_kev, residual, mean) + 1e-12 * float(mean.max())
    flat = gaussian_filter1d(np.asarray(residual, dtype=np.float64), sigma)
    high = np.abs(flat) / spread
    share = float(np.abs(flat[high > RESIDUAL_SIGMAS]).sum() / mean.sum())
    if share < RESIDUAL_SHARE:
        return []
    # The channel with the largest difference in intensity, not in noise.
    worst = int(np.argmax(np.where(high > RESIDUAL_SIGMAS, np.abs(flat), 0.0)))
    level = float(gaussian_filter1d(np.asarray(mean, dtype=np.float64), sigma)[worst])
    side = "more" if flat[worst] > 0 else "less"
    return [
        Finding(
            "warning",
            f"The residual spectrum has structure: data and model differ by {100 * share:.2g} % of the "
            f"{'counts' if view.intensity_unit == 'counts' else 'intensity'}. The largest difference is near "
            f"{view.energy[worst]:.4g} {view.energy_unit}, where the data have {100 * abs(flat[worst]) / level:.2g} % "
            f"{side} than the model. A component may be missing, or a peak may shift.",
        )
    ]


def _residual_map(view: Digest) -> list[Finding]:
    """A residual above counting noise, and structure in the residual map."""
    ratio = view.relative_residual
    if ratio is None or not np.isfinite(ratio).any():
        return []
    found = []
    level = float(np.nanmedian(ratio))
    if view.intensity_unit == "counts" and view.signal == "EDS" and level > RESIDUAL_TO_NOISE:
        found.append(
            Finding(
                "warning",
                f"The residual is {level:.2g} times the counting noise: the model does not explain all of the data.",
            )
        )
    common = neighbour_correlation(ratio)
    spread = math.sqrt(max(common, 0.0)) * float(np.nanstd(ratio)) / level if level > 0 else 0.0
    certain = common * math.sqrt(np.isfinite(ratio).sum()) > 5.0
    if common > RESIDUAL_MAP_CORRELATION and spread > RESIDUAL_MAP_SPREAD and certain:
        found.append(
            Finding(
                "warning",
                f"The residual map has structure: it is largest near {_place_of_maximum(view, ratio)}. "
                f"A phase may be missing there. Try one component more{_or_weighting(view)}.",
            )
        )
    return found


def _or_weighting(view: Digest) -> str:
    """Another remedy, for counts that were fitted as if all channels had the same noise."""
    return ", or loss='poisson'" if view.signal == "EDS" and view.loss not in ("", "poisson") else ""


def _place_of_maximum(view: Digest, maps: NumpyArray) -> str:
    """Where maps (N, ny, nx), averaged over 5 x 5 pixels, are largest."""
    filled = np.where(np.isfinite(maps), maps, np.nanmedian(maps))
    place, row, column = np.unravel_index(int(np.argmax(uniform_filter(filled, (1, 5, 5)))), maps.shape)
    dy, dx = view.pixel_nm or (view.block, view.block)
    unit = "nm" if view.pixel_nm else "px"
    where = f"x = {(column + 0.5) * dx:.3g} {unit}, y = {(row + 0.5) * dy:.3g} {unit} from the upper left corner"
    return f"{where} at {view.positions[place]}" if view.positions[place] else where


def _few_counts(view: Digest) -> list[Finding]:
    """Too few counts for single pixels."""
    if view.signal != "EDS" or view.intensity_unit != "counts" or not view.counts_per_pixel < FEW_COUNTS_PER_PIXEL:
        return []
    return [
        Finding(
            "warning",
            f"There are few counts, {view.counts_per_pixel:.2g} per pixel on average. Rely on regions, not on single "
            "pixels. Binning the map before the fit helps (scalehsi prepare --step bin).",
        )
    ]


def _masked(view: Digest) -> list[Finding]:
    """Masked pixels, and maps without any value."""
    left_out = view.pixels_total - view.pixels_used
    if not left_out:
        return []
    if not view.pixels_used:
        return [Finding("warning", "No pixel has a value: the maps are empty.")]
    percent = share_text(left_out / view.pixels_total, unit="pixels")
    return [Finding("note", f"{percent} are masked. They were not used, and are grey in the maps.")]


def _indicator(view: Digest) -> list[Finding]:
    """A number of components at the minimum of Malinowski's indicator that differs from that of the result."""
    best = indicator_minimum(view)
    if best is None or best == len(view.names):
        return []
    return [
        Finding("note", f"Malinowski's indicator is lowest at {best} components; this result has {len(view.names)}.")
    ]
