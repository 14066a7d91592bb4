"""Validity of the settings of NMF, each alone and in combination."""

from __future__ import annotations

import numbers
from typing import Final

from scalehsi.checks import check_components, check_weighting, choice, is_number, require
from scalehsi.fitting import binning
from scalehsi.kernels.least_squares import textbook_rules
from scalehsi.kernels.priors import relevance
from scalehsi.models.nmf import known_maps, known_spectra
from scalehsi.models.nmf.settings import AUTO, GIVEN, Settings
from scalehsi.models.nmf.starts import STARTS

LOSSES: Final = (AUTO, "frobenius", "poisson")
SOLVERS: Final = ("exact", *textbook_rules.RULES)
SMOOTHNESS_KINDS: Final = ("quadratic", "tv")


def check(model: Settings) -> None:
    """Refuse settings that are not valid, or that cannot be combined.

    Raises
    ------
    InputError
        When a setting is not valid; says what was got and what is allowed.
    """
    choice("loss", model.loss, LOSSES)
    _check_each(model)
    if model.loss == AUTO:
        for each in model.possible:  # which checks it
            assert each.loss in LOSSES
    else:
        _check_together(model)


def _check_each(model: Settings) -> None:
    check_components(model.n_components)
    check_weighting(model.weighting)
    squares = model.loss == "frobenius"
    require(
        model.loss != "poisson" or not model.weighting,
        "weighting='poisson' belongs to loss='frobenius'; loss='poisson' weighs counts by itself",
    )
    binning.check(model.bin_factor, squares=squares)
    choice("solver", model.solver, SOLVERS)
    require(model.compress in (True, False, "auto"), f"compress is True, False or 'auto', got {model.compress!r}")
    for name in ("simplex", "missing"):
        require(isinstance(getattr(model, name), bool), f"{name} is True or False, got {getattr(model, name)!r}")
    choice("smoothness_kind", model.smoothness_kind, SMOOTHNESS_KINDS)
    for name in ("orthogonality", "sparsity", "smoothness", "spectral_smoothness"):
        value = getattr(model, name)
        require(is_number(value, numbers.Real) and value >= 0, f"{name} is a number of at least 0, got {value!r}")
    require(model.orthogonality <= 1, f"orthogonality is a weight from 0 to 1, got {model.orthogonality!r}")
    priors = " or ".join(map(repr, relevance.PRIORS))
    require(model.ard in (None, *relevance.PRIORS), f"ard={model.ard!r} is not known; it is None, {priors}")
    shape = model.ard_shape
    require(is_number(shape, numbers.Real) and shape > 1, f"ard_shape is above 1, got {shape!r}")
    require(
        is_number(model.restarts, numbers.Integral) and model.restarts >= 1,
        f"restarts is a whole number of at least 1, got {model.restarts!r}",
    )
    if isinstance(model.start, str):
        choice("start", model.start, (*STARTS, GIVEN))
    known_spectra.check(model.fixed, model.n_components)
    known_maps.check(model.fixed, model.n_components)


def _check_together(model: Settings) -> None:
    squares = model.loss == "frobenius"
    for name in ("orthogonality", "smoothness"):
        require(squares or not getattr(model, name), f"{name} belongs to loss='frobenius'")
    plain = not (model.weighting or model.simplex or model.costly or model.spectral_smoothness)
    special = {"smoothness": model.smoothness, "missing": model.missing, "solver": model.textbook}
    for name, on in special.items():
        require(
            plain or not on or (name == "missing" and not squares),
            f"{name}={getattr(model, name)!r} needs plain least squares, without weighting, simplex, sparsity, ard, "
            "orthogonality and spectral_smoothness",
        )
    require(
        squares or not model.missing or model.bin_factor in ("auto", 1),
        "missing=True needs single pixels, because bins would have different numbers of them; leave bin_factor out",
    )
    if known_maps.maps_of(model.fixed) is not None:
        for name in ("simplex", "ard", "orthogonality", *special):
            require(
                not (special[name] if name in special else getattr(model, name)),
                f"{known_maps.NAME} does not go together with {name}={getattr(model, name)!r}; leave one of them out",
            )
    count = sum(map(bool, special.values()))
    require(count <= 1, "of smoothness, missing and a textbook solver take one")
    require(
        model.compress is not True or model.compressible,
        "compress=True needs loss='frobenius' without costs, smoothness, missing and textbook solvers; with fixed maps "
        "also without weighting and with at least one component whose map is not fixed",
    )
    require(squares or model.solver in ("exact", "mu"), f"solver={model.solver!r} belongs to loss='frobenius'")
    require(
        (squares and not model.weighting) or not model.spectral_smoothness,
        "spectral_smoothness belongs to loss='frobenius' without weighting",
    )
    require(
        not (model.spectral_smoothness and model.costly),
        "spectral_smoothness does not go together with sparsity, ard or orthogonality",
    )
    require(
        not (model.simplex and model.costly),
        "simplex=True fixes the sum of the abundances, so that sparsity, ard and orthogonality have no effect on it; "
        "leave one of them out",
    )
    require(
        not (model.simplex and model.weighting),
        "weighting='poisson' weighs whole pixels, which simplex=True forbids; use loss='poisson'",
    )
