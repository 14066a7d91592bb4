"""Say what a careful colleague would object to in a composition, as the warnings of its Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.physics.identify import FOREIGN, candidates_at
from scalehsi.physics.line_templates import Templates
from scalehsi.physics.lines import Line
from scalehsi.physics.peaks import peak_areas
from scalehsi.quantify.extras import TOLERANCE_FWHM, Extra
from scalehsi.quantify.judge import (
    MISFIT,
    REDUCED_CHI_SQUARE,
    WINDOW_FWHM,
    WING_FWHM,
    Bump,
    line_shift,
    residual_bumps,
    window_misfit,
)
from scalehsi.quantify.measure import Measured
from scalehsi.quantify.options import ESTIMATE, Setup
from scalehsi.quantify.sources import Spectra, spectrum_names
from scalehsi.result import ResultWarning

MIN_SHIFT_EV: Final = 1.0
SHIFT_SHARE: Final = 0.5
"""A misfit is called a shift when a shift explains this part of it, and is at least so large."""


def composition_warnings(
    found: Sequence[Measured], setup: Setup, extras: Sequence[Extra], spectra: Spectra, left_out: Sequence[str] = ()
) -> list[ResultWarning]:
    """The warnings about some measured spectra.

    Parameters
    ----------
    found : sequence of Measured
        One for each spectrum.
    setup : Setup
        Of their fit.
    extras : sequence of Extra
        Peaks that no named element explains.
    spectra : Spectra
    left_out : sequence of str
        Elements of the data that have no line on the axis.
    """
    names = spectrum_names(spectra.template, spectra.attrs) if len(found) > 1 else [""]
    every = [
        *_unexplained(extras, setup),
        *_not_found(found, names, setup, extras),
        *_left_out(left_out, setup),
        *_hidden(found, names, setup),
        *_shapes(found, names, setup, spectra.values),
    ]
    return every + (_chi_square(found, names, setup, spectra) if spectra.counted else [])


def _unexplained(extras: Sequence[Extra], setup: Setup) -> list[ResultWarning]:
    """Code `unexplained_peak`; threshold and rate in `scalehsi.quantify.judge.residual_bumps`."""
    if not extras:
        return []
    fitted = [extra.line.element for extra in extras if extra.line is not None]
    one = len(extras) == 1
    text = f"{'A peak' if one else 'Peaks'} at {_listed([_bump_words(extra) for extra in extras])}, "
    text += f"{'is' if one else 'are'} of no listed element"
    if fitted:
        named = "it" if one else "they" if len(fitted) == len(extras) else _listed(fitted)
        text += f"; {named} {'was' if len(fitted) == 1 else 'were'} fitted as extra, outside the composition"
    return [ResultWarning("unexplained_peak", f"{text}.", f"extra={list(setup.options.extra)!r}" if fitted else "")]


def _bump_words(extra: Extra) -> str:
    """Energy, candidate and size of a peak: "8.05 keV (Cu Ka? grid), 21 % of the strongest line"."""
    size = extra.bump.share
    share = f"{100 * size:.2g} %" if size < 0.995 else f"{size:.2g} times the counts"
    place = "" if extra.line is None else f" ({_guess(extra.line)})"
    return f"{extra.bump.energy:.2f} keV{place}, {share} of the strongest line"


def _guess(line: Line) -> str:
    """A line with a question mark, and where its element often comes from: "Cu Ka? grid"."""
    return f"{line.name}? {FOREIGN.get(line.element, '')}".strip()


def _not_found(
    found: Sequence[Measured], names: Sequence[str], setup: Setup, extras: Sequence[Extra]
) -> list[ResultWarning]:
    """Code `element_not_found`; threshold and rate in `scalehsi.quantify.judge.Verdict.missing`.

    An element without counts is named when no spectrum shows it; one with the counts of another line always.
    """
    made = []
    missing = np.array([one.verdict.missing for one in found])
    foreign = np.array([one.verdict.foreign for one in found])
    faint = []
    for position, peak in enumerate(setup.peaks):
        if foreign[:, position].any():
            which = int(np.argmax(foreign[:, position]))
            other = _neighbour(found[which], setup.templates, peak)
            flank = f"the flank of {other.name}" if other else "the flank of another line"
            where = _where(names, foreign[:, position])
            text = f"{peak.element} has no peak of its own{where}: {peak.energy_kev:.2f} keV is {flank}. No number."
            new = any(extra.line is not None for extra in extras)
            remedy = f"extra={list(setup.options.extra)!r}" if new else ""
            made.append(ResultWarning("element_not_found", text, remedy))
        elif missing[:, position].all():
            faint.append(position)
    if faint:
        limits = [_limit_words(found, setup, position) for position in faint]
        rest = [peak.element for number, peak in enumerate(setup.peaks) if number not in faint]
        text = f"{_listed(limits)}: no peak above the noise. No number."
        made.append(ResultWarning("element_not_found", text, f"elements={rest!r}" if rest else ""))
    return made


def _limit_words(found: Sequence[Measured], setup: Setup, position: int) -> str:
    """An element and its line: "Nd (La, 5.23 keV)"."""
    peak = setup.peaks[position]
    return f"{peak.element} ({peak.family}, {peak.energy_kev:.2f} keV)"


def _left_out(elements: Sequence[str], setup: Setup) -> list[ResultWarning]:
    """The elements of the data without a line on the axis, which are not in the composition."""
    if not elements:
        return []
    axis = setup.templates.energies
    has = "has" if len(elements) == 1 else "have"
    text = f"{_listed(elements)} {has} no main line from {axis[0]:.2f} to {axis[-1]:.2f} keV and cannot be measured"
    text += f": the composition is that of {_listed(setup.options.elements)} alone."
    return [ResultWarning("element_not_found", text, f"elements={list(setup.options.elements)!r}")]


def _hidden(found: Sequence[Measured], names: Sequence[str], setup: Setup) -> list[ResultWarning]:
    """Code `element_hidden`; threshold and rate in `scalehsi.quantify.judge.Verdict.hidden`."""
    made = []
    for position, peak in enumerate(setup.peaks):
        hidden = np.array([one.verdict.hidden[position] for one in found])
        if hidden.any():
            which = int(np.argmax(hidden))
            other = _neighbour(found[which], setup.templates, peak)
            under = other.name if other else "other lines"
            ratio = found[which].verdict.others[position]
            text = (
                f"{peak.name} at {peak.energy_kev:.2f} keV lies under {under}{_where(names, hidden)}, with {ratio:.2g} "
            )
            text += f"times its counts there: only an upper limit of {peak.element} is given."
            made.append(ResultWarning("element_hidden", text))
    return made


def _shapes(found: Sequence[Measured], names: Sequence[str], setup: Setup, rows: Float) -> list[ResultWarning]:
    """Code `peak_shape`: the residual of the spectra (S, E) holds a peak beside a fitted line.

    Threshold: that of `residual_bumps`, and a mean squared residual above 3 within 0.75 peak widths of the line.
    """
    templates = setup.templates
    worst: tuple[float, str] | None = None
    for one, x, name in zip(found, rows, names, strict=True):
        bumps = residual_bumps(x, one.fit.parts, _background(one), templates, one.unit) if one.fit.parts.any() else []
        for bump in bumps:
            line = _beside(one, templates, bump) if bump.explained or bump.beside else None
            if line is None:
                continue
            centre, half = line.energy_kev, WINDOW_FWHM * float(templates.width(line.energy_kev))
            misfit = float(
                window_misfit(x, one.fit, templates.energies, np.array([centre]), templates.width, one.unit)[0][0]
            )
            if misfit <= MISFIT or (worst is not None and misfit <= worst[0]):
                continue
            shift, share = line_shift(x, one.fit, templates.energies, centre, half)
            words = "Peaks have another width or shape than their lines"
            if share >= SHIFT_SHARE and abs(shift) * 1e3 >= MIN_SHIFT_EV:
                words = f"Peaks sit {1e3 * abs(shift):.2g} eV {'above' if shift > 0 else 'below'} their lines"
            worst = misfit, f"{words} ({line.name}: misfit {misfit:.2g}{', ' + name if name else ''})."
    if worst is None:
        return []
    return [ResultWarning("peak_shape", worst[1], "" if setup.options.fwhm == ESTIMATE else f"fwhm={ESTIMATE!r}")]


def _chi_square(found: Sequence[Measured], names: Sequence[str], setup: Setup, spectra: Spectra) -> list[ResultWarning]:
    """Code `chi_square`. Threshold: reduced chi-square of a spectrum above 3.

    Right fits of many counts have it too, so it decides about no number.
    """
    values = np.array([one.fit.chi_square for one in found]) / spectra.variance_index
    high = values > REDUCED_CHI_SQUARE
    if not high.any():
        return []
    worst = int(np.nanargmax(np.where(high, values, 0.0)))
    one, templates = found[worst], setup.templates
    off = np.where(templates.fitted, spectra.values[worst] - one.fit.model, np.nan)
    variance = one.unit * np.maximum(one.fit.expected, 1e-300)
    _, sigmas = peak_areas(templates.energies, off, variance, templates.width)
    sigmas = np.where(np.isfinite(off), sigmas, 0.0)
    channel = int(np.argmax(np.abs(sigmas)))
    at = float(templates.energies[channel])
    bumps = residual_bumps(spectra.values[worst], one.fit.parts, _background(one), templates, one.unit, least_share=0.0)
    guess = next((_candidate(setup, at) for bump in bumps if bump.energy == at and not bump.explained), None)
    text = f"The fit leaves more than counting noise{_where(names, high)}: reduced chi-square {values[worst]:.2g}, "
    text += f"largest at {at:.2f} keV{f' ({_guess(guess)})' if guess else ''}."
    remedy = "" if setup.options.fwhm == ESTIMATE else f"fwhm={ESTIMATE!r}"
    if guess:
        remedy = f"extra={[*setup.options.extra, guess.element]!r}"
    return [ResultWarning("chi_square", text, remedy)]


def _candidate(setup: Setup, energy: float) -> Line | None:
    """The most likely line of a peak at an energy in keV that no named element explains."""
    options = setup.options
    reach = TOLERANCE_FWHM * float(setup.templates.width(energy))
    listed = [*options.elements, *options.extra]
    found = candidates_at(energy, reach, excluded=listed, beam_kev=options.foil.beam_kev)
    return found[0].line if found else None


def _background(one: Measured) -> Float:
    return np.nan_to_num(one.fit.background)


def _beside(one: Measured, templates: Templates, bump: Bump) -> Line | None:
    """The strongest line within two peak widths of a bump."""
    reach = WING_FWHM * float(templates.width(bump.energy))
    near = [line for line in templates.fitted_lines(one.fit.parts) if abs(line.energy_kev - bump.energy) <= reach]
    return max(near, key=lambda line: line.intensity, default=None)


def _neighbour(one: Measured, templates: Templates, peak: Line) -> Line | None:
    """The strongest line of another element within two peak widths of a peak."""
    reach = WING_FWHM * float(templates.width(peak.energy_kev))
    near = [
        line
        for line in templates.fitted_lines(one.fit.parts)
        if line.element != peak.element and line.intensity > 0 and abs(line.energy_kev - peak.energy_kev) <= reach
    ]
    return max(near, key=lambda line: line.intensity, default=None)


def _where(names: Sequence[str], chosen: Sequence[bool]) -> str:
    """Words for the spectra that are meant; none when there is one spectrum, or all are meant."""
    meant = [name for name, wanted in zip(names, chosen, strict=True) if wanted]
    return "" if len(meant) == len(names) else f" in {_listed(meant)}"


def _listed(words: Sequence[str]) -> str:
    """Words with commas and an "and"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
