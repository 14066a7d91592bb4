"""Composition of spectra with errors: fit, convert to atoms, and return the Dataset of `scalehsi.quantify`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar
from scipy.special import kl_div

from scalehsi.arrays import Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.physics.cliff_lorimer import atomic_fractions, fraction_errors, to_mass_fractions
from scalehsi.physics.net_counts import PeakFit, fit_spectrum, fit_windows
from scalehsi.physics.resolution import MN_KA_KEV, detector_fwhm
from scalehsi.physics.xray_spectra import foil_transmission
from scalehsi.quantify.options import ESTIMATE, Options, Setup, make_setup
from scalehsi.quantify.sources import NO_COUNTS, Spectra
from scalehsi.schema import ENERGY, InputError

ELEMENT: Final = "element"
QUANTITIES: Final = {
    "atomic_percent": ("atomic per cent", "at%"),
    "weight_percent": ("mass per cent", "wt%"),
    "intensity": ("net counts", "counts"),
    "absorption": ("share of photons that leave the foil", "1"),
}
"""Long name and units of the variables."""

MAX_ITERATIONS: Final = 20
TOLERANCE: Final = 1e-5
"""Composition and absorption are found in turns until no atomic fraction changes by more."""

WIDTH_BOUNDS: Final = (0.6, 1.8)
"""Bounds of an estimated peak width, in usual widths."""
MAX_SHIFT_KEV: Final = 0.04
"""Largest error of the energy axis that is estimated."""
_SEARCH: Final[dict[str, Any]] = {"method": "bounded", "options": {"xatol": 2e-4}}


class Measured(NamedTuple):
    """The quantification of one spectrum. n elements.

    Attributes
    ----------
    fit : PeakFit
    atomic : array (n,)
        Atomic fractions; NaN where no peak is above its background.
    transmission : array (n,)
        Fraction of the photons of each line that leave the foil.
    """

    fit: PeakFit
    atomic: Float
    transmission: Float


def measure(x: Float, setup: Setup) -> Measured:
    """Fit a spectrum and convert its peaks to a composition, until absorption and composition agree."""
    method = fit_spectrum if setup.options.method == "fit" else fit_windows
    count = len(setup.peaks)
    if not x[setup.templates.fitted].any():
        empty = PeakFit(np.zeros(count), np.zeros((count, x.size)), x, x * 0.0, x * 0.0, float("nan"))
        return Measured(empty, np.full(count, np.nan), np.ones(count))
    columns, atomic = setup.thin, np.full(count, np.nan)
    with one_blas_thread():  # on small products more threads cost much more than they save
        for _ in range(MAX_ITERATIONS):
            before = atomic
            fit = method(x, setup.templates, columns)
            atomic = _atomic(fit.intensity[None], setup)[0]
            if setup.mass_path == 0 or not np.isfinite(atomic).all() or np.abs(atomic - before).max() < TOLERANCE:
                break
            columns = setup.templates.columns(dict(zip(setup.options.elements, atomic, strict=True)))
    return Measured(fit, atomic, _transmission(atomic, setup))


def _atomic(intensity: Any, setup: Setup) -> Any:
    """Atomic fractions (P, n) from net counts (P, n)."""
    path = setup.mass_path
    table = setup.attenuation if path > 0 else None
    return atomic_fractions(intensity, setup.factors, masses=setup.masses, attenuation=table, mass_path=path)


def _transmission(atomic: Float, setup: Setup) -> Float:
    """Fraction of the photons of each line that leave a foil of these atomic fractions."""
    if setup.mass_path == 0 or not np.isfinite(atomic).all():
        return np.ones(len(setup.peaks))
    return foil_transmission(setup.attenuation @ to_mass_fractions(atomic, setup.masses) * setup.mass_path)


def _errors(found: Measured, setup: Setup) -> dict[str, Float]:
    """Standard errors of net counts, atomic and mass fractions, from counting statistics alone."""
    covariance = found.fit.covariance
    per_count = setup.factors / found.transmission
    atoms = np.maximum(found.fit.intensity, 0) * per_count
    grams = atoms * setup.masses
    total, mass = float(atoms.sum()) or np.nan, float(grams.sum()) or np.nan
    return {
        "intensity": np.sqrt(np.maximum(np.diag(covariance), 0.0)),
        "atomic_percent": 100 * fraction_errors(atoms / total, per_count / total, covariance),
        "weight_percent": 100 * fraction_errors(grams / mass, per_count * setup.masses / mass, covariance),
    }


def prepare(spectra: Spectra, options: Options) -> Setup:
    """Make the setup for spectra; with ``fwhm="estimate"`` the peak width and the axis are fitted to their sum."""
    if options.fwhm != ESTIMATE:
        return make_setup(options, spectra.energies)
    whole = spectra.values.sum(axis=0)

    def made(factor: float, shift: float) -> Setup:
        return make_setup(options, spectra.energies, width=partial(detector_fwhm, scale=factor), shift_kev=shift)

    def misfit(factor: float, shift: float) -> float:
        """Half the Poisson deviance between the data and their fit."""
        setup = made(factor, shift)
        with one_blas_thread():
            expected = fit_spectrum(whole, setup.templates, setup.thin).expected
        return float(kl_div(whole, expected)[setup.templates.fitted].sum())

    factor, shift = 1.0, 0.0
    # One after the other: the centre of a peak hardly depends on its width, so the second round changes little.
    for _ in range(2):
        bounds = (-MAX_SHIFT_KEV, MAX_SHIFT_KEV)
        shift = float(minimize_scalar(partial(misfit, factor), bounds=bounds, **_SEARCH).x)
        factor = float(minimize_scalar(partial(misfit, shift=shift), bounds=WIDTH_BOUNDS, **_SEARCH).x)
    return made(factor, shift)


def quantify_spectra(spectra: Spectra, options: Options) -> xr.Dataset:
    """Make the Dataset of `scalehsi.quantify` for spectra, components and regions."""
    setup = prepare(spectra, options)
    found = [measure(x, setup) for x in spectra.values]
    if not any(np.isfinite(one.atomic).all() for one in found):
        wanted = ", ".join(options.elements)
        raise InputError(f"no line of {wanted} rises above the background; are these the elements of this sample?")
    atomic = np.stack([one.atomic for one in found])
    values = {
        "atomic_percent": 100 * atomic,
        "weight_percent": 100 * to_mass_fractions(atomic, setup.masses),
        "intensity": np.stack([one.fit.intensity for one in found]),
        "absorption": np.stack([one.transmission for one in found]),
    }
    unknown = dict.fromkeys(("intensity", "atomic_percent", "weight_percent"), np.full(len(setup.peaks), np.nan))
    errors = [_errors(one, setup) if spectra.counted else unknown for one in found]
    values |= {f"{name}_std": np.stack([each[name] for each in errors]) for name in unknown}
    out = xr.Dataset(coords={**spectra.template.coords, **element_coords(setup)})
    for name, rows in values.items():
        shaped = rows.reshape(*spectra.template.shape, -1)
        out[name] = ((*spectra.template.dims, ELEMENT), shaped, labels(name, counted=spectra.counted))
    for name, rows in (
        ("spectrum", spectra.values),
        ("model", np.stack([one.fit.model for one in found])),
        ("background", np.stack([one.fit.background for one in found])),
    ):
        out[name] = spectra.on_source_axis(rows)
        out[name].attrs = {"long_name": name, "units": "counts" if spectra.counted else "intensity"}
    out[ENERGY].attrs = dict(spectra.axis.attrs)
    chi = np.array([one.fit.chi_square if spectra.counted else np.nan for one in found])
    words = {"long_name": "reduced chi-square of the fit; 1 is what counting noise alone leaves"}
    out["reduced_chi_square"] = (spectra.template.dims, chi.reshape(spectra.template.shape), words)
    out.attrs = attributes(setup, spectra.attrs, counted=spectra.counted)
    return out


def labels(name: str, *, counted: bool) -> dict[str, str]:
    """Attributes of a variable (``*_std`` for its standard error); `counted` says whether intensities are counts."""
    text, units = QUANTITIES[name.removesuffix("_std")]
    units = units if units != "counts" or counted else "intensity"
    return {"long_name": f"standard error of {text}" if name.endswith("_std") else text, "units": units}


def element_coords(setup: Setup) -> dict[str, Any]:
    """The coordinates along ``element``: symbols, lines, their energies, and k-factors."""
    return {
        ELEMENT: (ELEMENT, list(setup.options.elements)),
        "line": (ELEMENT, [peak.name for peak in setup.peaks], {"long_name": "line family that was measured"}),
        "line_energy": (ELEMENT, [peak.energy_kev for peak in setup.peaks], {"units": "keV"}),
        "k_factor": (ELEMENT, setup.k_factors, {"long_name": "k-factor for mass fractions"}),
    }


def attributes(setup: Setup, known: Mapping[str, Any], *, counted: bool) -> dict[str, Any]:
    """Attributes of a composition: settings and history, from which the numbers can be checked and repeated.

    `known` are attributes of the source; `counted` says whether its values are counts.
    """
    options, foil = setup.options, setup.options.foil
    computed = isinstance(options.k_factors, str)
    settings = {
        "elements": list(options.elements),
        "extra": list(options.extra),
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
    return {
        **{k: v for k, v in known.items() if k not in ("elements", "history")},
        "elements": list(options.elements),
        "method": options.method,
        "settings": json.dumps(settings),
        "k_factor_source": f"computed from {source}" if computed else "given",
        "errors": "of counting statistics; k-factors, thickness and the model add theirs" if counted else NO_COUNTS,
        "history": [*known.get("history", []), line],
    }
