"""Measure a spectrum: fit its lines, judge its peaks, and convert those that are there to a composition."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float, NumpyArray
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.physics.cliff_lorimer import atomic_fractions, to_mass_fractions
from scalehsi.physics.net_counts import PeakFit, fit_spectrum, fit_windows
from scalehsi.physics.xray_spectra import foil_transmission
from scalehsi.quantify.judge import Verdict, judge_peaks
from scalehsi.quantify.options import Setup

MAX_ITERATIONS: Final = 20
TOLERANCE: Final = 1e-5
"""Composition and absorption are found in turns until no atomic fraction changes by more."""


class Measured(NamedTuple):
    """The quantification of one spectrum. n elements.

    Attributes
    ----------
    fit : PeakFit
    verdict : Verdict
        Which peaks are there.
    atomic : array (n,)
        Atomic fractions, which sum to one over the peaks that are there; zero for the others, NaN without any.
    transmission : array (n,)
        Fraction of the photons of each line that leave the foil.
    unit : float
        Variance of the noise relative to the expected value.
    """

    fit: PeakFit
    verdict: Verdict
    atomic: Float
    transmission: Float
    unit: float


def measure(x: Float, setup: Setup, unit: float) -> Measured:
    """Fit a spectrum and convert the peaks that are there to a composition, until absorption and composition agree.

    Parameters
    ----------
    x : array (E,)
        The spectrum.
    setup : Setup
    unit : float
        Variance of its noise relative to the expected value: 1 for counts.
    """
    count = len(setup.peaks)
    if not x[setup.templates.fitted].any():
        none, shells = np.zeros(count), np.zeros((len(setup.templates.shells), x.size))
        empty = PeakFit(none, np.zeros((count, x.size)), x, x * 0.0, x * 0.0, shells, float("nan"))
        return Measured(empty, Verdict(none, none, none, none, none), np.full(count, np.nan), np.ones(count), unit)
    shown = np.ones(count, dtype=bool)
    with one_blas_thread():  # on small products more threads cost much more than they save
        fit, atomic = _converged(x, setup, shown)
        verdict = judge_peaks(x, fit, setup.templates, unit)
        if not verdict.shown.all():
            shown = verdict.shown
            fit, atomic = _converged(x, setup, shown) if setup.mass_path > 0 else (fit, _atomic(fit, setup, shown))
    return Measured(fit, verdict, atomic, _transmission(atomic, setup), unit)


def _converged(x: Float, setup: Setup, shown: NumpyArray) -> tuple[PeakFit, Float]:
    """Fit and atomic fractions of a spectrum (E,), whose composition is that of the peaks that are `shown` (n,)."""
    method = fit_spectrum if setup.options.method == "fit" else fit_windows
    columns, atomic = setup.thin, np.full(len(shown), np.nan)
    for _ in range(MAX_ITERATIONS):
        before = atomic
        fit = method(x, setup.templates, columns)
        atomic = _atomic(fit, setup, shown)
        if setup.mass_path == 0 or not np.isfinite(atomic).all() or np.abs(atomic - before).max() < TOLERANCE:
            break
        columns = setup.templates.columns(dict(zip(setup.options.elements, atomic, strict=True)))
    return fit, atomic


def _atomic(fit: PeakFit, setup: Setup, shown: NumpyArray) -> Float:
    """Atomic fractions (n,) from the net counts of the peaks that are `shown` (n,)."""
    path = setup.mass_path
    table = setup.attenuation if path > 0 else None
    counts = np.where(shown, fit.intensity, 0.0)[None]
    found: Float = atomic_fractions(counts, setup.factors, masses=setup.masses, attenuation=table, mass_path=path)[0]
    return found


def _transmission(atomic: Float, setup: Setup) -> Float:
    """Fraction of the photons of each line that leave a foil of these atomic fractions."""
    if setup.mass_path == 0 or not np.isfinite(atomic).all():
        return np.ones(len(setup.peaks))
    return foil_transmission(setup.attenuation @ to_mass_fractions(atomic, setup.masses) * setup.mass_path)
