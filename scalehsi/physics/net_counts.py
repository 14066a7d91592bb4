"""Net counts of the peaks of an EDX spectrum, with overlaps solved, by a weighted fit or by windows.

Both methods are linear in the spectrum once their weights are known, ``intensity = operator @ x``. The operator
propagates the counting errors to the intensities, and quantifies every pixel of a map by one matrix product.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float, NumpyArray
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.physics.line_choice import WINDOW_FWHM
from scalehsi.physics.line_templates import Columns, Templates

MAX_ITERATIONS: Final = 20
TOLERANCE: Final = 1e-6
"""Of the coefficients, relative to the largest: the reweighting ends below."""
MIN_EXPECTED: Final = 1e-4
"""Smallest expected counts of a channel, relative to the mean channel; it prevents a division by zero."""
SIDE_WINDOW_FWHM: Final = (0.8, 1.2)
"""Ends of the side windows in peak widths from the peak: near it, so that the continuum is straight."""
MIN_SEPARATION: Final = 0.02
"""Combinations of peaks with a smaller relative singular value cannot be separated; their counts are shared evenly."""


class PeakFit(NamedTuple):
    """The fit of one spectrum. n peaks, E channels.

    Attributes
    ----------
    intensity : array (n,)
        Net counts of each peak; below zero where there is less than background.
    operator : array (n, E)
        Intensities of a similar spectrum ``x`` are ``operator @ x``.
    expected : array (E,)
        Expected counts of each channel, the variances of the counting errors.
    model, background : array (E,)
        The fit and its part without lines; NaN in channels that are not fitted.
    parts : array (C, E)
        The counts of each shell in the fit.
    chi_square : float
        Pearson's, divided by the degrees of freedom: 1 for a perfect model and Poisson counts.
    """

    intensity: Float
    operator: Float
    expected: Float
    model: Float
    background: Float
    parts: Float
    chi_square: float

    @property
    def covariance(self) -> Float:
        """Covariance of the intensities [array, shape (n, n)] when channels have Poisson counts."""
        return (self.operator * self.expected) @ self.operator.T


def fit_spectrum(x: Float, templates: Templates, columns: Columns) -> PeakFit:
    """Fit all lines and the continuum at once, weighted by the expected counts.

    The intensity of a peak is the sum of its window after subtraction of everything else in the fit. So the peak need
    not have exactly the shape of its template: a resolution that is wrong by some per cent matters little.

    Parameters
    ----------
    x : array, shape (E,)
        Counts, or anything proportional to them.
    templates : Templates
    columns : Columns
        Of `Templates.columns`, for the composition of this spectrum.

    Returns
    -------
    PeakFit
    """
    rows, unit = _unit_rows(templates, columns)
    shells = len(columns.shells)
    found, expected = _reweighted(x, rows, templates.fitted)
    model, background = found @ rows, found[shells:] @ rows[shells:]
    keep = found > 0
    keep[templates.peak_shell] = True
    operator = _operator(rows, unit, keep, expected, templates, columns)
    in_template = found[templates.peak_shell] / unit[templates.peak_shell] * columns.content
    content = in_template + templates.windows @ (x - model)
    chi = _chi_square(x, model, expected, templates, int(keep.sum()))
    scale = columns.yields / columns.content
    hidden = np.where(templates.fitted, 0.0, np.nan)
    parts = found[:shells, None] * rows[:shells]
    return PeakFit(
        content * scale, operator * scale[:, None], expected, model + hidden, background + hidden, parts, chi
    )


class ShellFit(NamedTuple):
    """A fit without net counts. C shells, E channels.

    Attributes
    ----------
    parts : array (C, E)
        The counts of each shell; zero for those that are left out.
    background, expected : array (E,)
        Without lines, and with them.
    chi_square : float
        Pearson's, divided by the degrees of freedom.
    """

    parts: Float
    background: Float
    expected: Float
    chi_square: float


def fit_shells(x: Float, templates: Templates, columns: Columns, kept: NumpyArray | None = None) -> ShellFit:
    """Fit the continuum and some shells, for a spectrum that may hold other lines too.

    Parameters are those of `fit_spectrum`; `kept` (C,) marks the shells that are fitted, by default all.
    """
    rows, _ = _unit_rows(templates, columns)
    shells = len(columns.shells)
    used = np.ones(len(rows), dtype=bool)
    used[:shells] = True if kept is None else kept
    found = np.zeros(len(rows))
    found[used], expected = _reweighted(x, rows[used], templates.fitted)
    chi = _chi_square(x, found @ rows, expected, templates, int((found > 0).sum()))
    return ShellFit(found[:shells, None] * rows[:shells], found[shells:] @ rows[shells:], expected, chi)


def _unit_rows(templates: Templates, columns: Columns) -> tuple[Float, Float]:
    """All templates (C + B, E), each divided by its sum over the fitted channels, and these sums."""
    rows = np.concatenate([columns.shells, columns.continuum])
    unit = rows[:, templates.fitted].sum(axis=1)
    unit = np.where(unit > 0, unit, 1.0)
    return rows / unit[:, None], unit


def _chi_square(x: Float, model: Float, expected: Float, templates: Templates, parameters: int) -> float:
    """Pearson's chi-square of a model (E,) of the spectrum (E,), divided by the degrees of freedom."""
    inside = templates.fitted
    freedom = max(int(inside.sum()) - parameters, 1)
    return float((((x - model) ** 2) / expected)[inside].sum() / freedom)


def _reweighted(x: Float, rows: Float, inside: Any) -> tuple[Float, Float]:
    """Coefficients and expected counts by iteratively reweighted NNLS, which maximises the Poisson likelihood.

    `x` is a spectrum (E,), `rows` are the templates (C + B, E), `inside` marks the fitted channels.
    """
    floor = MIN_EXPECTED * float(x[inside].mean())
    expected = np.maximum(x, floor)
    # The first weights are smoothed: weights from single counts would bias the fit downwards.
    expected = np.maximum(np.convolve(expected, np.full(9, 1 / 9), mode="same"), floor)
    found = np.zeros(len(rows))
    for _ in range(MAX_ITERATIONS):
        weighted = rows[:, inside] / expected[inside]
        before, found = found, nnls(weighted @ rows[:, inside].T, (weighted @ x[inside])[None])[0]
        expected = np.maximum(found @ rows, floor)
        if float(np.abs(found - before).max()) <= TOLERANCE * float(found.max()):
            break
    return found, expected


def _operator(rows: Float, unit: Float, keep: Any, expected: Float, templates: Templates, columns: Columns) -> Float:
    """The matrix (n, E) from a spectrum to the counts in the windows of the peaks without all other columns.

    `rows` are the templates, each divided by its sum `unit`; `keep` marks those in the fit; `expected` are the expected
    counts of the channels.
    """
    part = rows[keep]
    weighted = np.where(templates.fitted, part / expected, 0.0)
    gram = weighted @ part.T
    # With columns of length one, combinations that cannot be separated have a small eigenvalue.
    length = np.sqrt(np.diag(gram))
    solve = np.linalg.pinv(gram / np.outer(length, length), rcond=1e-10, hermitian=True) @ (weighted / length[:, None])
    solve /= length[:, None]
    place = np.cumsum(keep)[templates.peak_shell] - 1
    windows = templates.windows.astype(np.float64)
    others = windows @ part.T
    others[np.arange(len(place)), place] -= columns.content / unit[templates.peak_shell]
    operator: Float = windows - others @ solve
    return operator


def fit_windows(x: Float, templates: Templates, columns: Columns) -> PeakFit:
    """Sum the counts in windows, subtract a background interpolated between side windows, and solve the overlaps.

    Each shell has a window about its main line and two side windows. The counts of each shell in all of them are known,
    so a linear system with one equation for each shell separates the lines from the straight background. It needs no
    shape of the continuum, and is wrong where the continuum bends.

    Parameters and returns as in `fit_spectrum`; the model is NaN outside the windows.
    """
    places = [_net_window(templates, number) for number in range(len(templates.shells))]
    shown = [number for number, place in enumerate(places) if place is not None]
    nets = np.stack([place[0] for place in places if place is not None])
    lines = [place[1] for place in places if place is not None]
    shells = columns.shells[shown]
    matrix = nets @ shells.T
    scale = np.diag(matrix).copy()
    scale = np.where(scale > 0, scale, 1.0)
    solve = np.linalg.pinv(matrix / scale, rcond=MIN_SEPARATION) @ nets / scale[:, None]
    peaks = np.array([shown.index(number) for number in templates.peak_shell])
    operator = solve[peaks] * columns.yields[:, None]
    found = solve @ x
    drawn = found @ shells
    model, background = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    for inside, draw in lines:
        background[inside] = draw(x - drawn)[inside]
        model[inside] = (drawn + background)[inside]
    seen = np.isfinite(model)
    expected = np.maximum(x, 0.0)
    wide = np.maximum(model[seen], MIN_EXPECTED * float(x.mean()))
    freedom = max(int(seen.sum()) - len(lines), 1)
    chi = float(((x[seen] - model[seen]) ** 2 / wide).sum() / freedom)
    parts = np.zeros_like(columns.shells)
    parts[shown] = found[:, None] * shells
    return PeakFit(operator @ x, operator, expected, model, background, parts, chi)


def _net_window(templates: Templates, number: int) -> Any:
    """Weights (E,) that sum a shell's counts above a straight background, its window, and a function for that line.

    None for a shell (by its number) whose window or side windows are not on the axis.
    """
    energies, centre = templates.energies, float(templates.centres[number])
    width = float(templates.width(centre))
    quantified = np.flatnonzero(templates.peak_shell == number)
    half = WINDOW_FWHM / 2 * width
    inside = templates.windows[quantified[0]] if quantified.size else np.abs(energies - centre) <= half
    sides = []
    for sign in (-1.0, 1.0):
        away = sign * (energies - centre) / width
        side = (away >= SIDE_WINDOW_FWHM[0]) & (away <= SIDE_WINDOW_FWHM[1])
        if side.any():
            sides.append((side / side.sum(), float(energies[side].mean())))
    if not inside.any() or not sides:
        return None
    if len(sides) == 1:
        sides *= 2
    (left, first), (right, last) = sides
    weight = (last - centre) / (last - first) if last > first else 0.5
    net = inside - inside.sum() * (weight * left + (1 - weight) * right)

    def draw(rest: Float) -> Float:
        """The straight line through the means of the side windows."""
        low, high = float(left @ rest), float(right @ rest)
        slope = (high - low) / (last - first) if last > first else 0.0
        return low + slope * (energies - first)

    return net, (inside, draw)
