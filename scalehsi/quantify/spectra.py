"""Composition of spectra with errors: fit, convert to atoms, and return the Dataset of `scalehsi.quantify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import scipy
import xarray as xr
from scipy.special import kl_div

from scalehsi.arrays import Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.physics.cliff_lorimer import fraction_errors, k_factor_errors
from scalehsi.physics.net_counts import fit_shells
from scalehsi.physics.resolution import MN_KA_KEV, Width, detector_fwhm
from scalehsi.quantify.extras import Extra, find_extras, with_extras
from scalehsi.quantify.measure import Measured, measure
from scalehsi.quantify.options import ESTIMATE, Options, Setup, make_setup
from scalehsi.quantify.sources import NO_COUNTS, Spectra
from scalehsi.quantify.warnings import composition_warnings
from scalehsi.result import plain_attrs, warnings_text
from scalehsi.schema import ENERGY, InputError

ELEMENT: Final = "element"
QUANTITIES: Final = {
    "atomic_percent": ("atomic per cent", "at%"),
    "weight_percent": ("mass per cent", "wt%"),
    "intensity": ("net counts", "counts"),
    "absorption": ("share of photons that leave the foil", "1"),
}
"""Long name and units of the variables."""
ENDINGS: Final = {
    "_k_std": "standard error of {} from the k-factors",
    "_std": "standard error of {} from counting",
    "_limit": "upper limit of {} of an element that was not found",
}
"""Endings of the names of errors and limits, and their long names."""

ERRORS: Final = "of counting statistics (_std); those {}; thickness and the model add theirs"
K_WORDS: Final = "of computed k-factors (_k_std) are 5 % for K and 15 % for L and M lines"

WIDTH_BOUNDS: Final = (0.6, 1.8)
"""Bounds of an estimated peak width, in usual widths."""
MAX_SHIFT_KEV: Final = 0.04
"""Largest error of the energy axis that is estimated."""
_SEARCH: Final[dict[str, Any]] = {"method": "bounded", "options": {"xatol": 2e-4}}


def _values(found: Measured, setup: Setup, variance: float) -> dict[str, Float]:
    """Net counts, atomic and mass per cent of the peaks that are there, with errors; upper limits of the others.

    `variance` is the variance of the spectrum's counts relative to their expected value; NaN for no counts.
    """
    shown = found.verdict.shown & np.isfinite(found.atomic)
    covariance = found.fit.covariance * variance
    counts = np.where(shown, np.maximum(found.fit.intensity, 0.0), 0.0)
    out = {"intensity": found.fit.intensity, "intensity_std": np.sqrt(np.maximum(np.diag(covariance), 0.0))}
    out["intensity_limit"] = found.verdict.limit
    for name, per_count in (
        ("atomic_percent", setup.factors / found.transmission),
        ("weight_percent", setup.factors / found.transmission * setup.masses),
    ):
        amounts, most = counts * per_count, found.verdict.limit * per_count
        total = float(amounts.sum()) or np.nan
        fractions = amounts / total
        out[name] = 100 * fractions
        out[f"{name}_std"] = 100 * fraction_errors(fractions, np.where(shown, per_count, 0.0) / total, covariance)
        out[f"{name}_k_std"] = 100 * k_factor_errors(fractions, setup.k_errors)
        out[f"{name}_limit"] = 100 * most / (total + most)
    return {name: np.where(shown != name.endswith("_limit"), each, np.nan) for name, each in out.items()}


class Prepared(NamedTuple):
    """The setup of a quantification, and the extras among its options that nobody named."""

    setup: Setup
    extras: tuple[Extra, ...]


def prepare(spectra: Spectra, options: Options) -> Prepared:
    """Make the setup for spectra: unexplained peaks are fitted as extras, ``fwhm="estimate"`` fits width and axis."""
    values, units, energies = spectra.values, spectra.noise_units, spectra.energies
    extras = find_extras(values, units, options, energies)
    named = with_extras(options, extras)
    if options.fwhm != ESTIMATE:
        return Prepared(make_setup(named, energies), tuple(extras))
    width, shift = _estimated_axis(values.sum(axis=0), named, energies)
    extras += find_extras(values, units, named, energies, width=width, shift_kev=shift)
    return Prepared(make_setup(with_extras(options, extras), energies, width=width, shift_kev=shift), tuple(extras))


def _estimated_axis(x: Float, options: Options, energies: Float) -> tuple[Width, float]:
    """Peak width, and shift in keV of the axis, that fit a spectrum (E,) on an axis of these energies (E,) best."""

    def misfit(factor: float, shift: float) -> float:
        """Half the Poisson deviance between the data and their fit."""
        setup = make_setup(options, energies, width=partial(detector_fwhm, scale=factor), shift_kev=shift)
        with one_blas_thread():
            expected = fit_shells(x, setup.templates, setup.thin).expected
        return float(kl_div(x, expected)[setup.templates.fitted].sum())

    factor, shift = 1.0, 0.0
    # One after the other: the centre of a peak hardly depends on its width, so the second round changes little.
    for _ in range(2):
        bounds = (-MAX_SHIFT_KEV, MAX_SHIFT_KEV)
        shift = float(scipy.optimize.minimize_scalar(partial(misfit, factor), bounds=bounds, **_SEARCH).x)
        factor = float(scipy.optimize.minimize_scalar(partial(misfit, shift=shift), bounds=WIDTH_BOUNDS, **_SEARCH).x)
    return partial(detector_fwhm, scale=factor), shift


def quantify_spectra(spectra: Spectra, options: Options) -> xr.Dataset:
    """Make the Dataset of `scalehsi.quantify` for spectra, components and regions."""
    setup, extras = prepare(spectra, options)
    found = measure_all(spectra, setup)
    variance = spectra.variance_index if spectra.counted else float("nan")
    rows = [_values(one, setup, variance) for one in found]
    values = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    values["absorption"] = np.stack([one.transmission for one in found])
    out = xr.Dataset(coords={**spectra.template.coords, **element_coords(setup)})
    for name, each in values.items():
        shaped = each.reshape(*spectra.template.shape, -1)
        out[name] = ((*spectra.template.dims, ELEMENT), shaped, labels(name, counted=spectra.counted))
    for name, each in (
        ("spectrum", spectra.values),
        ("model", np.stack([one.fit.model for one in found])),
        ("background", np.stack([one.fit.background for one in found])),
    ):
        out[name] = spectra.on_source_axis(each)
        out[name].attrs = {"long_name": name, "units": "counts" if spectra.counted else "intensity"}
    out[ENERGY].attrs = dict(spectra.axis.attrs)
    chi = np.array([one.fit.chi_square for one in found]) / variance
    words = {"long_name": "reduced chi-square of the fit; 1 is what counting noise alone leaves"}
    out["reduced_chi_square"] = (spectra.template.dims, chi.reshape(spectra.template.shape), words)
    out.attrs = attributes(setup, spectra, extras, found)
    return out


def measure_all(spectra: Spectra, setup: Setup) -> list[Measured]:
    """Measure every spectrum; refuse spectra in which none of the elements is found."""
    found = [measure(x, setup, float(unit)) for x, unit in zip(spectra.values, spectra.noise_units, strict=True)]
    if not any(one.verdict.shown.any() and np.isfinite(one.atomic).all() for one in found):
        wanted = ", ".join(setup.options.elements)
        raise InputError(f"no line of {wanted} rises above the background; are these the elements of this sample?")
    return found


def labels(name: str, *, counted: bool) -> dict[str, str]:
    """Attributes of a variable (``*_std`` for its standard error); `counted` says whether intensities are counts."""
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), "")
    text, units = QUANTITIES[name.removesuffix(ending)]
    units = units if units != "counts" or counted else "intensity"
    return {"long_name": ENDINGS.get(ending, "{}").format(text), "units": units}


def element_coords(setup: Setup) -> dict[str, Any]:
    """The coordinates along ``element``: symbols, lines, their energies, and k-factors."""
    return {
        ELEMENT: (ELEMENT, list(setup.options.elements)),
        "line": (ELEMENT, [peak.name for peak in setup.peaks], {"long_name": "line family that was measured"}),
        "line_energy": (ELEMENT, [peak.energy_kev for peak in setup.peaks], {"units": "keV"}),
        "k_factor": (ELEMENT, setup.k_factors, {"long_name": "k-factor for mass fractions"}),
    }


def attributes(setup: Setup, spectra: Spectra, extras: Sequence[Extra], found: Sequence[Measured]) -> dict[str, Any]:
    """Attributes of a composition: warnings, settings and history.

    Parameters
    ----------
    setup : Setup
    spectra : Spectra
    extras : sequence of Extra
        Those that nobody named.
    found : sequence of Measured
        One for each spectrum.
    """
    options, foil, known = setup.options, setup.options.foil, spectra.attrs
    computed = isinstance(options.k_factors, str)
    settings = {
        "elements": list(options.elements),
        "left_out": list(options.left_out),
        "extra": list(options.extra),
        "extra_found": [extra.line.element for extra in extras if extra.line is not None],
        "lines": [peak.name for peak in setup.peaks],
        "counted": options.counted,
        "k_factors": "computed" if computed else "given",
        "beam_kev": foil.beam_kev,
        "thickness_nm": foil.thickness_nm or None,
        "density": foil.density or None,
        "takeoff_deg": foil.takeoff_deg if foil.mass_path else None,
        "energy_shift_eV": round(1000 * setup.shift_kev, 2),
        "fwhm_MnKa_eV": round(1000 * float(setup.templates.width(MN_KA_KEV)), 2),
    }
    source = "xraylib's lines, yields and attenuation, Bethe cross sections fitted to distorted waves, and the detector"
    absorption = "corrected" if foil.mass_path else "not corrected"
    line = f"quantify {', '.join(options.elements)} by {options.method}, absorption {absorption}"
    made = {
        **{k: v for k, v in known.items() if k not in ("elements", "history")},
        "elements": list(options.elements),
        "method": options.method,
        "settings": json.dumps(settings),
        "k_factor_source": f"computed from {source}" if computed else "given",
        "errors": ERRORS.format(K_WORDS if computed else "of given k-factors are not known")
        if spectra.counted
        else NO_COUNTS,
        "warnings": warnings_text(composition_warnings(found, setup, extras, spectra, options.left_out)),
        "history": [*known.get("history", []), line],
    }
    return plain_attrs(made)
