"""The composition of some spectra, with errors, and what the fit looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar

from scalehsi.arrays import Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.physics.cliff_lorimer import atomic_shares, mass_shares, share_errors
from scalehsi.physics.line_templates import scaled_width
from scalehsi.physics.net_counts import PeakFit, fit_spectrum, fit_windows
from scalehsi.physics.xray_spectra import foil_transmission
from scalehsi.quantify.options import ESTIMATE, Options, Setup, make_setup
from scalehsi.quantify.sources import NO_COUNTS, Spectra
from scalehsi.schema import ENERGY, InputError

ELEMENT: Final = "element"
TURNS: Final = 20
SETTLED: Final = 1e-5
"""Composition and absorption are found in turn until no atomic fraction changes by more."""

WIDTHS: Final = (0.6, 1.8)
"""Bounds of an estimated peak width, in usual widths."""
SHIFT_KEV: Final = 0.04
"""Largest error of the energy axis that is looked for."""
_SEARCH: Final[dict[str, Any]] = {"method": "bounded", "options": {"xatol": 2e-4}}


class Measured(NamedTuple):
    """One spectrum quantified. n elements.

    Attributes
    ----------
    fit : PeakFit
    shares : array (n,)
        Atomic fractions; NaN where no peak is above its background.
    leaving : array (n,)
        Share of each line's photons that leave the foil.
    """

    fit: PeakFit
    shares: Float
    leaving: Float


def measure(x: Float, setup: Setup) -> Measured:
    """Fit a spectrum and turn its peaks into a composition, until absorption and composition agree."""
    method = fit_spectrum if setup.options.method == "fit" else fit_windows
    count = len(setup.peaks)
    if not x[setup.templates.used].any():
        empty = PeakFit(np.zeros(count), np.zeros((count, x.size)), x, x * 0.0, x * 0.0, float("nan"))
        return Measured(empty, np.full(count, np.nan), np.ones(count))
    columns, shares = setup.thin, np.full(count, np.nan)
    with one_blas_thread():  # on small products more threads cost much more than they save
        for _ in range(TURNS):
            before = shares
            fit = method(x, setup.templates, columns)
            shares = shares_of(fit.intensity[None], setup)[0]
            if setup.mass_path == 0 or not np.isfinite(shares).all() or np.abs(shares - before).max() < SETTLED:
                break
            columns = setup.templates.columns(dict(zip(setup.options.elements, shares, strict=True)))
    return Measured(fit, shares, leaving_foil(shares, setup))


def shares_of(intensity: Any, setup: Setup) -> Any:
    """Atomic fractions (P, n) of net counts (P, n)."""
    path = setup.mass_path
    table = setup.attenuation if path > 0 else None
    return atomic_shares(intensity, setup.factors, masses=setup.masses, attenuation=table, mass_path=path)


def leaving_foil(shares: Float, setup: Setup) -> Float:
    """Share of each line's photons that leave a foil of this composition."""
    if setup.mass_path == 0 or not np.isfinite(shares).all():
        return np.ones(len(setup.peaks))
    return foil_transmission(setup.attenuation @ mass_shares(shares, setup.masses) * setup.mass_path)


def errors_of(found: Measured, setup: Setup) -> tuple[Float, Float, Float]:
    """Standard errors of net counts, atomic and mass fractions, from the statistics of counting alone."""
    covariance = found.fit.covariance
    per_count = setup.factors / found.leaving
    atoms = np.maximum(found.fit.intensity, 0) * per_count
    grams = atoms * setup.masses
    total, mass = float(atoms.sum()) or np.nan, float(grams.sum()) or np.nan
    atomic = share_errors(atoms / total, per_count / total, covariance)
    weight = share_errors(grams / mass, per_count * setup.masses / mass, covariance)
    return np.sqrt(np.maximum(np.diag(covariance), 0.0)), atomic, weight


def prepare(spectra: Spectra, options: Options) -> Setup:
    """The setup for some spectra; what is to be estimated of the detector is estimated from their sum."""
    if options.fwhm != ESTIMATE:
        return make_setup(options, spectra.energies)
    whole = spectra.values.sum(axis=0)

    def made(factor: float, shift: float) -> Setup:
        return make_setup(options, spectra.energies, width=scaled_width(factor), shift_kev=shift)

    factor, shift = 1.0, 0.0
    # One after the other: a peak's middle hardly hangs on its width, so the second round changes little.
    for _ in range(2):
        found = minimize_scalar(lambda d: _misfit(whole, made(factor, d)), bounds=(-SHIFT_KEV, SHIFT_KEV), **_SEARCH)  # noqa: B023
        shift = float(found.x)
        found = minimize_scalar(lambda f: _misfit(whole, made(f, shift)), bounds=WIDTHS, **_SEARCH)  # noqa: B023
        factor = float(found.x)
    return made(factor, shift)


def _misfit(x: Float, setup: Setup) -> float:
    """How much less likely the data are under the fit than under themselves (half the Poisson deviance)."""
    with one_blas_thread():
        fit = fit_spectrum(x, setup.templates, setup.thin)
    inside = setup.templates.used
    data, model = x[inside], fit.expected[inside]
    ratio = np.where(data > 0, data / model, 1.0)
    return float((data * np.log(ratio) - data + model).sum())


def quantify_spectra(spectra: Spectra, options: Options) -> xr.Dataset:
    """The Dataset of `scalehsi.quantify` for spectra, components and regions."""
    setup = prepare(spectra, options)
    found = [measure(x, setup) for x in spectra.values]
    if not any(np.isfinite(one.shares).all() for one in found):
        raise InputError(
            f"no line of {', '.join(options.elements)} rises above the background; "
            "are these the elements of this sample?"
        )
    shares = np.stack([one.shares for one in found])
    values = {
        "atomic_percent": (100 * shares, "atomic per cent", "at%"),
        "weight_percent": (100 * mass_shares(shares, setup.masses), "mass per cent", "wt%"),
        "intensity": (np.stack([one.fit.intensity for one in found]), "net counts", "counts"),
        "absorption": (np.stack([one.leaving for one in found]), "share of photons that leave the foil", "1"),
    }
    nothing = np.full(len(setup.peaks), np.nan)
    errors = [errors_of(one, setup) if spectra.counted else (nothing,) * 3 for one in found]
    for position, name in enumerate(("intensity", "atomic_percent", "weight_percent")):
        scale = 1.0 if name == "intensity" else 100.0
        text = f"standard error of {values[name][1]}"
        values[f"{name}_std"] = (scale * np.stack([e[position] for e in errors]), text, values[name][2])
    out = xr.Dataset(coords={**spectra.template.coords, **element_coords(setup)})
    for name, (rows, text, units) in values.items():
        shaped = rows.reshape(*spectra.template.shape, -1)
        units = units if units != "counts" or spectra.counted else "intensity"
        out[name] = ((*spectra.template.dims, ELEMENT), shaped, {"long_name": text, "units": units})
    for name, drawn in (
        ("spectrum", spectra.values),
        ("model", np.stack([one.fit.model for one in found])),
        ("background", np.stack([one.fit.background for one in found])),
    ):
        out[name] = spectra.drawn(drawn)
        out[name].attrs = {"long_name": name, "units": "counts" if spectra.counted else "intensity"}
    out[ENERGY].attrs = dict(spectra.axis.attrs)
    chi = np.array([one.fit.chi_square if spectra.counted else np.nan for one in found])
    words = {"long_name": "reduced chi-square of the fit; 1 is what counting noise alone leaves"}
    out["reduced_chi_square"] = (spectra.template.dims, chi.reshape(spectra.template.shape), words)
    out.attrs = attributes(setup, spectra.attrs, counted=spectra.counted)
    return out


def element_coords(setup: Setup) -> dict[str, Any]:
    """The coordinates along ``element``: symbols, lines, their energies, and k-factors."""
    return {
        ELEMENT: (ELEMENT, list(setup.options.elements)),
        "line": (ELEMENT, [peak.name for peak in setup.peaks], {"long_name": "line family that was measured"}),
        "line_energy": (ELEMENT, [peak.energy_kev for peak in setup.peaks], {"units": "keV"}),
        "k_factor": (ELEMENT, setup.k_factors, {"long_name": "k-factor for mass fractions"}),
    }


def attributes(setup: Setup, known: Mapping[str, Any], *, counted: bool) -> dict[str, Any]:
    """What was done, so that the numbers can be checked and repeated."""
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
        "fwhm_MnKa_eV": round(1000 * float(setup.templates.width(5.8951)), 2),
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
