"""Find the strong peaks that no named element explains, and fit their most likely elements along as extras.

An extra is fitted but not counted in the composition. Without it the counts of its peaks go to named elements nearby,
or to the continuum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.physics.identify import candidates_at
from scalehsi.physics.line_templates import Columns
from scalehsi.physics.lines import Line
from scalehsi.physics.net_counts import ShellFit, fit_shells, fit_spectrum
from scalehsi.physics.resolution import Width
from scalehsi.quantify.judge import BUMP_SIGMAS, Bump, judge_peaks, residual_bumps
from scalehsi.quantify.options import Options, Setup, make_setup
from scalehsi.schema import InputError

MAX_EXTRAS: Final = 8
MAX_SPECTRA: Final = 12
"""Peaks are looked for in the sum of all spectra and in this many of the strongest ones."""
MAX_CANDIDATES: Final = 6
TOLERANCE_FWHM: Final = 0.35
"""Largest distance of a line from its peak, in peak widths."""


class Extra(NamedTuple):
    """A peak that no named element explains, and the line that was fitted to it (None where none fits)."""

    bump: Bump
    line: Line | None


class _Axis(NamedTuple):
    """Energies (E,) in keV, peak width and shift of the axis of the data."""

    energies: Float
    width: Width | None
    shift_kev: float

    def setup(self, options: Options) -> Setup:
        return make_setup(options, self.energies, width=self.width, shift_kev=self.shift_kev)


def with_extras(options: Options, extras: Sequence[Extra]) -> Options:
    """The options with the elements that were found as further extras."""
    more = [extra.line.element for extra in extras if extra.line is not None]
    return dataclasses.replace(options, extra=tuple(dict.fromkeys([*options.extra, *more])))


def find_extras(
    rows: Float, units: Float, options: Options, energies: Float, *, width: Width | None = None, shift_kev: float = 0.0
) -> list[Extra]:
    """Look for the strongest unexplained peak, fit the best candidate, and look again.

    A candidate that does not lower the reduced chi-square by what a peak at the threshold does is left out again.

    Parameters
    ----------
    rows : array (S, E)
        Spectra, in counts or anything proportional to them.
    units : array (S,)
        Variance of their noise relative to the expected values.
    options : Options
    energies : array (E,), keV
        Rising.
    width, shift_kev
        As in `make_setup`.
    """
    axis = _Axis(energies, width, shift_kev)
    rows, units = _searched(rows, units)
    found: list[Extra] = []
    while len(found) < MAX_EXTRAS:
        setup = axis.setup(with_extras(options, found))
        fits = [_named_only(x, setup, float(unit)) for x, unit in zip(rows, units, strict=True)]
        known = [extra.bump.energy for extra in found]
        seen = [
            (bump.sigmas, number, bump)
            for number, (x, fit, unit) in enumerate(zip(rows, fits, units, strict=True))
            for bump in residual_bumps(x, fit.parts, fit.background, setup.templates, float(unit))
            if not bump.explained and not _is_near(bump.energy, known, setup)
        ]
        if not seen:
            break
        _, number, bump = max(seen)
        trial = _Trial(rows[number], float(units[number]), with_extras(options, found), axis)
        found.append(Extra(bump, trial.best(bump, fits[number].chi_square)))
    found = [extra for extra in found if extra.line is not None or not extra.bump.beside]
    return [extra for extra in found if extra.line is None or _is_needed(extra, found, rows, units, options, axis)]


def _searched(rows: Float, units: Float) -> tuple[Float, Float]:
    """The sum of all spectra (S, E), and the strongest of them, with the units of their noise."""
    if len(rows) == 1:
        return rows, units
    totals = rows.sum(axis=1)
    chosen = [number for number in np.argsort(-totals)[:MAX_SPECTRA] if totals[number] > 0]
    whole = rows.sum(axis=0)
    unit = float((units * totals).sum() / max(float(totals.sum()), 1e-300))
    return np.concatenate([whole[None], rows[chosen]]), np.concatenate([[unit], units[chosen]])


def _is_near(energy: float, known: Sequence[float], setup: Setup) -> bool:
    width = float(setup.templates.width(energy))
    return any(abs(energy - other) < width for other in known)


def _named_only(x: Float, setup: Setup, unit: float) -> ShellFit:
    """Fit a spectrum (E,) without the elements that were not found: their free shells would take others' counts."""
    kept = np.ones(len(setup.templates.shells), dtype=bool)
    if x[setup.templates.fitted].any():
        with one_blas_thread():
            verdict = judge_peaks(x, fit_spectrum(x, setup.templates, setup.thin), setup.templates, unit)
        absent = {peak.element for peak, shown in zip(setup.peaks, verdict.shown, strict=True) if not shown}
        kept = np.array([element not in absent for element, _ in setup.templates.shells])
        if not kept.any():
            kept[:] = True
    return _fit(x, setup, setup.thin, kept)


def _fit(x: Float, setup: Setup, columns: Columns, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> ShellFit:
    """Fit the kept shells (C,) to a spectrum (E,); an empty spectrum has an empty fit."""
    if not x[setup.templates.fitted].any():
        return ShellFit(columns.shells * 0.0, x * 0.0, x * 0.0, float("nan"))
    with one_blas_thread():
        return fit_shells(x, setup.templates, columns, kept)


class _Trial(NamedTuple):
    """A spectrum (E,) with the unit of its noise, and the options and axis of its fit."""

    x: Float
    unit: float
    options: Options
    axis: _Axis

    def best(self, bump: Bump, chi_square: float) -> Line | None:
        """The line of the candidate that lowers the reduced chi-square most, weighed by how usual its element is."""
        options = self.options
        width = float(self.axis.setup(options).templates.width(bump.energy))
        step = float(np.diff(self.axis.energies).max())
        listed = [*options.elements, *options.extra]
        near = candidates_at(
            bump.energy, TOLERANCE_FWHM * width + 0.5 * step, excluded=listed, beam_kev=options.foil.beam_kev
        )
        scored = [(each.prior * drop, each.line) for each, drop in self._drops(near[:MAX_CANDIDATES], chi_square)]
        return max(scored)[1] if scored else None

    def _drops(self, near: Sequence, chi_square: float) -> Iterator:
        for each in near:
            try:
                setup = self.axis.setup(
                    dataclasses.replace(self.options, extra=(*self.options.extra, each.line.element))
                )
            except InputError:
                continue
            drop = chi_square - _named_only(self.x, setup, self.unit).chi_square
            if drop > self.unit * BUMP_SIGMAS**2 / max(int(setup.templates.fitted.sum()), 1):
                yield each, drop


def _is_needed(extra: Extra, found: Sequence[Extra], rows: Float, units: Float, options: Options, axis: _Axis) -> bool:
    """Whether the fit of some spectrum (S, E) is worse without an extra, beside all that were found; other arguments
    as in `find_extras`."""
    if sum(other.line is not None for other in found) == 1:
        return True
    without = axis.setup(with_extras(options, [other for other in found if other is not extra]))
    everything = axis.setup(with_extras(options, found))
    for x, unit in zip(rows, units, strict=True):
        before, after = (_named_only(x, setup, float(unit)).chi_square for setup in (without, everything))
        if before - after > unit * BUMP_SIGMAS**2 / max(int(everything.templates.fitted.sum()), 1):
            return True
    return False
