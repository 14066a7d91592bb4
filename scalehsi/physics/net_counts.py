"""Net counts of the peaks of a spectrum: overlaps solved together, by a weighted fit or by windows.

Both ways are linear in the spectrum once their weights are known, ``intensity = operator @ x``. The operator carries
the errors of counting to the intensities, and does every pixel of a map at the cost of one matrix product.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.physics.line_templates import SIDES, Columns, Templates

ROUNDS: Final = 20
SETTLED: Final = 1e-6
FLOOR: Final = 1e-4
"""No channel is believed to expect less than this part of a mean channel; it only guards against division by zero."""
SMALLEST: Final = 0.02
"""Combinations of peaks that the windows tell apart worse than this are shared out evenly."""


class PeakFit(NamedTuple):
    """What a fit of one spectrum gives. n peaks, E channels.

    Attributes
    ----------
    intensity : array (n,)
        Net counts of each peak; below zero where there is less than background.
    operator : array (n, E)
        Intensities of a similar spectrum ``x`` are ``operator @ x``.
    expected : array (E,)
        Expected counts of each channel, to weigh errors with.
    model, background : array (E,)
        The fit and its part without lines; NaN in channels that are not fitted.
    chi_square : float
        Pearson's, divided by the degrees of freedom: 1 for a perfect model and Poisson counts.
    """

    intensity: Float
    operator: Float
    expected: Float
    model: Float
    background: Float
    chi_square: float

    @property
    def covariance(self) -> Float:
        """Covariance of the intensities [array, shape (n, n)], when the counts of the channels are Poisson's."""
        return (self.operator * self.expected) @ self.operator.T


def fit_spectrum(x: Float, templates: Templates, columns: Columns) -> PeakFit:
    """Fit all lines and the continuum at once, weighted by the expected counts.

    A peak's intensity is what is in its window when everything else of the fit is taken off. So it does not ask that
    the peak has quite the shape of its template: a resolution that is wrong by some per cent matters little.

    Parameters
    ----------
    x : array, shape (E,)
        Counts, or anything proportional to them.
    templates : Templates
    columns : Columns
        Of `Templates.columns`, for the composition at hand.

    Returns
    -------
    PeakFit
    """
    rows = np.concatenate([columns.shells, columns.continuum])
    inside = templates.used
    unit = rows[:, inside].sum(axis=1)
    unit = np.where(unit > 0, unit, 1.0)
    rows = rows / unit[:, None]
    found, expected = _reweighted(x, rows, inside)
    model, background = found @ rows, found[len(columns.shells) :] @ rows[len(columns.shells) :]
    keep = found > 0
    keep[templates.own] = True
    operator = _operator(rows, unit, keep, expected, templates, columns)
    own = found[templates.own] / unit[templates.own] * columns.content
    content = own + templates.windows @ (x - model)
    freedom = max(int(inside.sum()) - int(keep.sum()), 1)
    chi = float((((x - model) ** 2) / expected)[inside].sum() / freedom)
    scale = columns.yields / columns.content
    hidden = np.where(inside, 0.0, np.nan)
    return PeakFit(content * scale, operator * scale[:, None], expected, model + hidden, background + hidden, chi)


def _reweighted(x: Float, rows: Float, inside: Any) -> tuple[Float, Float]:
    """Non-negative least squares whose weights follow the model: at its end Poisson's likelihood is largest."""
    floor = FLOOR * float(x[inside].mean())
    expected = np.maximum(x, floor)
    # The first weights are smoothed: single counts would draw the fit down.
    expected = np.maximum(np.convolve(expected, np.full(9, 1 / 9), mode="same"), floor)
    found = np.zeros(len(rows))
    for _ in range(ROUNDS):
        weighted = rows[:, inside] / expected[inside]
        before, found = found, nnls(weighted @ rows[:, inside].T, (weighted @ x[inside])[None])[0]
        expected = np.maximum(found @ rows, floor)
        if float(np.abs(found - before).max()) <= SETTLED * float(found.max()):
            break
    return found, expected


def _operator(rows: Float, unit: Float, keep: Any, expected: Float, templates: Templates, columns: Columns) -> Float:
    """The linear way from a spectrum to what is in the windows of the peaks, everything else taken off (n, E)."""
    part = rows[keep]
    weighted = np.where(templates.used, part / expected, 0.0)
    gram = weighted @ part.T
    # In units in which every column has length one, so that what cannot be told apart shows as a small eigenvalue.
    length = np.sqrt(np.diag(gram))
    solve = np.linalg.pinv(gram / np.outer(length, length), rcond=1e-10, hermitian=True) @ (weighted / length[:, None])
    solve /= length[:, None]
    place = np.cumsum(keep)[templates.own] - 1
    windows = templates.windows.astype(np.float64)
    others = windows @ part.T
    others[np.arange(len(place)), place] -= columns.content / unit[templates.own]
    operator: Float = windows - others @ solve
    return operator


def fit_windows(x: Float, templates: Templates, columns: Columns) -> PeakFit:
    """Add up the counts in windows, take off what side windows say lies under them, and solve the overlaps.

    Each shell has a window about its main line and two side windows. What each shell sends into all of them is known,
    so a linear system of one equation a shell tells lines and straight background apart. It needs no shape of the
    continuum, and bends where the continuum does.

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
    solve = np.linalg.pinv(matrix / scale, rcond=SMALLEST) @ nets / scale[:, None]
    own = np.array([shown.index(number) for number in templates.own])
    operator = solve[own] * columns.yields[:, None]
    found = solve @ x
    drawn = found @ shells
    model, background = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    for inside, draw in lines:
        background[inside] = draw(x - drawn)[inside]
        model[inside] = (drawn + background)[inside]
    seen = np.isfinite(model)
    expected = np.maximum(x, 0.0)
    wide = np.maximum(model[seen], FLOOR * float(x.mean()))
    freedom = max(int(seen.sum()) - len(lines), 1)
    chi = float(((x[seen] - model[seen]) ** 2 / wide).sum() / freedom)
    return PeakFit(operator @ x, operator, expected, model, background, chi)


def _net_window(templates: Templates, number: int) -> Any:
    """The weights (E,) that give a shell's counts above a straight background, and how to draw that background.

    None for a shell whose window or sides are not on the axis.
    """
    energies, centre = templates.energies, float(templates.centres[number])
    width = float(templates.width(centre))
    quantified = np.flatnonzero(templates.own == number)
    inside = templates.windows[quantified[0]] if quantified.size else np.abs(energies - centre) <= 0.6 * width
    sides = []
    for sign in (-1.0, 1.0):
        away = sign * (energies - centre) / width
        side = (away >= SIDES[0]) & (away <= SIDES[1])
        if side.any():
            sides.append((side / side.sum(), float(energies[side].mean())))
    if not inside.any() or not sides:
        return None
    if len(sides) == 1:
        sides *= 2
    (left, first), (right, last) = sides
    share = (last - centre) / (last - first) if last > first else 0.5
    net = inside - inside.sum() * (share * left + (1 - share) * right)

    def draw(rest: Float) -> Float:
        """The straight line through the means of the sides."""
        low, high = float(left @ rest), float(right @ rest)
        slope = (high - low) / (last - first) if last > first else 0.0
        return low + slope * (energies - first)

    return net, (inside, draw)
