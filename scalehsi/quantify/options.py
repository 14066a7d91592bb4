"""Options of a quantification: check them, and turn them into lines, templates and k-factors on an energy axis."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.checks import choice, is_number
from scalehsi.physics.line_choice import choose_line, choose_lines
from scalehsi.physics.line_names import split_name
from scalehsi.physics.line_templates import Columns, Foil, Templates, make_templates
from scalehsi.physics.lines import Line, atomic_weight
from scalehsi.physics.resolution import Width, detector_fwhm
from scalehsi.physics.xray_spectra import LOWEST_KEV
from scalehsi.schema import InputError, suggest

METHODS: Final = ("fit", "windows")
COUNTED: Final = ("window", "family")
UNITS: Final = ("weight", "atomic")
COMPUTED: Final = "computed"
ESTIMATE: Final = "estimate"
K_FACTOR_ERRORS: Final = {"K": 0.05, "L": 0.15, "M": 0.15}
"""Relative standard error of computed k-factors, by shell."""
MIN_CHANNELS: Final = 16


@dataclass(frozen=True)
class Options:
    """Arguments of `scalehsi.quantify`, with the checks that need no energy axis.

    The fields are its arguments; ``foil`` holds thickness, density, take-off angle and beam energy, ``left_out`` the
    elements of the data that have no line on their axis.
    """

    elements: tuple[str, ...]
    extra: tuple[str, ...] = ()
    lines: Sequence[str] | Mapping[str, str] = ()
    method: str = "fit"
    counted: str = "window"
    k_factors: str | Mapping[str, float] = COMPUTED
    k_units: str = "weight"
    reference: str | None = None
    foil: Foil = Foil()  # noqa: RUF009 - a NamedTuple cannot change
    fwhm: str | float | Width | None = None
    energy_range: tuple[float, float] | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.elements:
            raise InputError(
                "no elements are named, and the data name none; type elements=['Mg', 'Si', 'O'] "
                "(scalehsi.report names the peaks that it finds)"
            )
        for name, known in (("method", METHODS), ("counted", COUNTED), ("k_units", UNITS)):
            choice(name, getattr(self, name), known)
        both = set(self.elements) & set(self.extra)
        if both:
            raise InputError(f"{', '.join(sorted(both))} is named as an element of the sample and as extra; choose one")
        if self.reference is not None and self.reference not in self.elements:
            raise InputError(
                f"reference={self.reference!r} is none of the elements; {suggest(self.reference, self.elements)}"
            )
        if isinstance(self.fwhm, str) and self.fwhm != ESTIMATE:
            raise InputError(f"fwhm={self.fwhm!r}; give eV at Mn Ka such as 130, {ESTIMATE!r}, a function, or nothing")
        if isinstance(self.fwhm, numbers.Real) and not 20 <= float(self.fwhm) <= 500:
            raise InputError(f"fwhm={self.fwhm}; a resolution at Mn Ka from 20 to 500 eV is expected, such as 130")


def make_foil(
    *,
    thickness_nm: float | None = None,
    density: float | None = None,
    takeoff_deg: float | None = None,
    beam_kev: float | None = None,
) -> Foil:
    """Check the values and collect them; without a thickness nothing is absorbed, and None takes the default of `Foil`.

    Parameters
    ----------
    thickness_nm, density, takeoff_deg, beam_kev : float or None
        In nm, g/cm^3, degrees and keV.

    Raises
    ------
    InputError
        If a quantity is not positive, the elevation is above 90 degrees, or only one of thickness and density is given.
    """
    given = {"thickness_nm": thickness_nm, "density": density, "takeoff_deg": takeoff_deg, "beam_kev": beam_kev}
    for name, value in given.items():
        if value is not None and not (is_number(value, numbers.Real) and 0 < value < math.inf):
            raise InputError(f"{name}={value!r}; a number above 0 is expected")
    if takeoff_deg is not None and takeoff_deg > 90:
        raise InputError(f"takeoff_deg={takeoff_deg!r}; an elevation of at most 90 degrees is expected")
    if (thickness_nm is None) != (density is None):
        missing = (
            "density (g/cm^3), such as density=4.5" if density is None else "thickness_nm, such as thickness_nm=100"
        )
        raise InputError(f"absorption needs both thickness and density; add {missing}, or leave both out")
    return Foil(**{name: float(value) for name, value in given.items() if value is not None})


@dataclass(frozen=True, eq=False)
class Setup:
    """Options on an energy axis: lines, templates and factors. n elements.

    Attributes
    ----------
    factors : array (n,)
        Atoms for one count of each peak without absorption, up to a common scale.
    masses : array (n,), g/mol
    shift_kev : float
        Correction that was added to the energy axis.
    """

    options: Options
    templates: Templates
    factors: Float
    masses: Float
    shift_kev: float = 0.0

    @property
    def peaks(self) -> tuple[Line, ...]:
        """The line of each element."""
        return self.templates.peaks

    @cached_property
    def thin(self) -> Columns:
        """Templates without absorption."""
        return self.templates.columns()

    @cached_property
    def attenuation(self) -> Float:
        """Mass attenuation of each line in each element, cm^2/g (n, n)."""
        return self.templates.attenuation()

    @property
    def mass_path(self) -> float:
        """Mass path of `Foil` in g/cm^2, zero without absorption."""
        return self.options.foil.mass_path

    @property
    def k_factors(self) -> Float:
        """k-factors for mass fractions, relative to the reference (n,)."""
        factors: Float = self.factors * self.masses
        reference = self.options.reference
        if reference is None:
            reference = "Si" if "Si" in self.options.elements else self.options.elements[0]
        relative: Float = factors / factors[self.options.elements.index(reference)]
        return relative

    @property
    def k_errors(self) -> Float:
        """Relative standard errors of the k-factors (n,); NaN where these were given."""
        if not isinstance(self.options.k_factors, str):
            return np.full(len(self.peaks), np.nan)
        return np.array([K_FACTOR_ERRORS[peak.shell] for peak in self.peaks])


def split_by_axis(elements: Sequence[str], energies: Float, options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The elements with a line that can be quantified on an axis of these energies (E,) in keV, and the others.

    `options` are fields of `Options`: the foil, the fitted range, and the lines that were asked for.
    """
    asked = options["lines"]
    named = {split_name(line)[0] for line in ([asked] if isinstance(asked, str) else asked)}
    low, high = options["energy_range"] or (-math.inf, math.inf)
    on_axis = energies[(energies >= max(LOWEST_KEV, low)) & (energies <= high)]
    ends = (float(on_axis[0]), float(on_axis[-1])) if on_axis.size else (0.0, 0.0)
    beam = options["foil"].beam_kev
    usable = [e for e in elements if e in named or choose_line(e, ends, "quantify", beam_kev=beam) is not None]
    if elements and not usable:
        raise InputError(
            f"none of {', '.join(elements)} has a main line on the energy axis of {ends[0]:.3f} to {ends[1]:.3f} keV; "
            "type other elements, such as elements=['Fe']"
        )
    return usable, [e for e in elements if e not in usable]


def make_setup(options: Options, energies: Float, *, width: Width | None = None, shift_kev: float = 0.0) -> Setup:
    """Choose the lines, and compute templates and factors on an energy axis.

    Parameters
    ----------
    options : Options
    energies : array, shape (E,), keV
        Rising channel centres.
    width : callable, optional
        Peak width, instead of that of the options.
    shift_kev : float
        Added to the energies.

    Raises
    ------
    InputError
        If a line lies outside the axis, an element is unknown, a k-factor is missing, or the axis is too short.
    """
    energies = energies + shift_kev
    use = energies >= LOWEST_KEV
    if int(use.sum()) < MIN_CHANNELS:
        raise InputError(
            f"the energy axis ends at {energies[-1]:g} keV with {int(use.sum())} channels above {LOWEST_KEV} keV, too "
            "few for X-ray lines; is its unit right?"
        )
    start, end = _fitted_range(options, energies)
    peaks = choose_lines(
        options.elements,
        energy_range=(max(float(energies[use][0]), start), end),
        beam_kev=options.foil.beam_kev,
        lines=options.lines,
        others=options.extra,
    )
    templates = make_templates(
        peaks,
        energies,
        extra=options.extra,
        foil=options.foil,
        width=width or peak_width(options.fwhm),
        counted=options.counted,
        fitted_kev=options.energy_range,
    )
    masses = np.array([atomic_weight(element) for element in options.elements])
    made = Setup(options, templates, np.ones(len(masses)), masses, shift_kev)
    return replace(made, factors=_factors(made))


def peak_width(fwhm: str | float | Width | None) -> Width:
    """The peak width in keV as a function of energy in keV; an estimate starts from the usual width."""
    if isinstance(fwhm, numbers.Real):
        return partial(detector_fwhm, resolution_ev=float(fwhm))
    return fwhm if callable(fwhm) else detector_fwhm


def _fitted_range(options: Options, energies: Float) -> tuple[float, float]:
    """Ends in keV of the energies that may be fitted: those of the axis, or those that were given."""
    if options.energy_range is None:
        return float(energies[0]), float(energies[-1])
    low, high = map(float, options.energy_range)
    inside = int(((energies >= low) & (energies <= high)).sum())
    if not low < high or inside < MIN_CHANNELS:
        raise InputError(
            f"energy_range={options.energy_range} keeps {inside} channels of the axis from {energies[0]:g} to "
            f"{energies[-1]:g} keV; give (low, high) in keV"
        )
    return low, high


def _factors(setup: Setup) -> Float:
    """Atoms for one count of each peak: from cross sections and the detector, or from the given k-factors."""
    given = setup.options.k_factors
    if isinstance(given, str):
        if given != COMPUTED:
            raise InputError(f"k_factors={given!r}; give {COMPUTED!r}, or a mapping such as {{'Si_Ka': 1.0}}")
        # A line of which no channel of the axis has anything has no factor.
        seen = np.where(setup.thin.yields > 0, setup.thin.yields, np.nan)
        made: Float = seen[np.argmax(np.isfinite(seen))] / seen
        return made
    known = {" ".join(filter(None, split_name(str(name)))): value for name, value in given.items()}
    found: list[float] = []
    for peak in setup.peaks:
        value = known.get(peak.name, known.get(peak.element))
        if value is None:
            others = [name for name in known if split_name(name)[0] == peak.element]
            repair = (
                f"choose that line with lines=[{others[0].replace(' ', '_')!r}]"
                if others
                else f"add '{peak.element}_{peak.family}', leave {peak.element} out, or type k_factors='computed'"
            )
            has = f", only for {', '.join(others)}" if others else ""
            raise InputError(f"k_factors has no factor for {peak.name}{has}; {repair}")
        if not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
            raise InputError(f"the k-factor of {peak.name} is {value!r}; a number above 0 is expected")
        found.append(float(value))
    factors: Float = np.array(found)
    return factors / setup.masses if setup.options.k_units == "weight" else factors
