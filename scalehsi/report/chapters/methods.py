"""Chapter that compares a result with those of other methods on the same cube: scores, maps and spectra."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.models.catalogue import model_class
from scalehsi.plots.digest import Digest, digest
from scalehsi.plots.side_by_side import draw_maps, draw_spectra, matched, reference_names
from scalehsi.plots.truth import Match
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph, Table
from scalehsi.result import settings_of
from scalehsi.schema import InputError

ORDER: Final = 70


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The other methods beside this result; None without others that have spectra of phases.

    Results with negative values, as those of PCA, have none.

    Raises
    ------
    InputError
        When another result is not of the same cube.
    """
    others = {name: digest(other) for name, other in context.others.items()}
    _check_grids(view, others)
    methods = {name: other for name, other in others.items() if not other.signed}
    if view.signed or not methods:
        return None
    results = context.all_results(view)
    own = list(results)[-1]
    methods[own] = view
    truth = context.truth_view
    reference = truth or view
    names = reference_names(reference, truth=truth is not None)
    found = {name: matched(each, reference) for name, each in methods.items() if each is not reference}
    *first, last = methods
    together = f"{', '.join(first)} and {last}"
    calls = Table(("Method", "As typed"), [(name, call_of(results[name])) for name in methods])
    angles = "the truth in degrees" if truth else f"those of {own} in degrees, for components matched by their spectra"
    words = (
        f"The same cube by {together}. The table gives angles of the spectra to {angles}; 0 is the same shape. "
        "Settings that are not shown have their defaults."
    )
    drawings = [
        Drawing(
            "methods.png",
            partial(draw_maps, reference, methods, truth=truth),
            f"Maps of {', '.join(names)} by {together}.",
            "Share of each pixel's intensity, from 0 (dark) to 1 (bright): one row for each component, one column for "
            "each method.",
        ),
        Drawing(
            "methods-spectra.png",
            partial(draw_spectra, reference, methods, truth=truth),
            f"Spectra of {', '.join(names)} by {together}.",
            "Each spectrum is scaled to a sum of one; EDX spectra are smoothed by less than the detector's resolution, "
            "on a logarithmic scale. A line that one method "
            "has and another one lacks belongs to a phase that was mixed into the component, or is missing in it.",
        ),
    ]
    return Chapter(
        "methods", "Comparison with other methods", [Paragraph(words), calls, _table(names, found)], drawings
    )


def _check_grids(view: Digest, others: Mapping[str, Digest]) -> None:
    """Refuse results whose maps or spectra have other sizes.

    Raises
    ------
    InputError
        When a result is not of the same cube.
    """
    for name, other in others.items():
        if other.maps.shape[1:] != view.maps.shape[1:] or other.energy.size != view.energy.size:
            raise InputError(
                f"{name!r} has maps of {other.maps.shape[-2]} x {other.maps.shape[-1]} and {other.energy.size} "
                f"channels, the result {view.maps.shape[-2]} x {view.maps.shape[-1]} and {view.energy.size}; "
                "only fits of the same cube can be compared"
            )


def call_of(result: xr.Dataset) -> str:
    """The model as written in Python, with its loss and the settings that differ from their defaults.

    Examples
    --------
    >>> fitted = xr.Dataset(attrs={"model": "NMF", "settings": '{"n_components": 3, "loss": "poisson"}'})
    >>> call_of(fitted)
    "hsi.NMF(3, loss='poisson')"
    """
    model, settings, changed = str(result.attrs.get("model", "")), settings_of(result), changed_settings(result)
    if changed is None:
        return model
    if settings.get("loss") == "auto" and "loss" in result.attrs:
        settings["loss"] = result.attrs["loss"]
        settings["weighting"] = None if result.attrs["weighting"] == "none" else result.attrs["weighting"]
    count = [repr(settings["n_components"])] if "n_components" in settings else []
    shown = {
        name: settings[name] for name in settings if name != "n_components" and (name == "loss" or name in changed)
    }
    return f"hsi.{model}({', '.join([*count, *(f'{name}={value!r}' for name, value in shown.items())])})"


def changed_settings(result: xr.Dataset) -> dict[str, Any] | None:
    """The settings of a result that differ from the defaults of its model; None for an unknown model."""
    try:
        fields = dataclasses.fields(model_class(str(result.attrs.get("model", ""))))
    except InputError:
        return None
    # As JSON has them: a tuple is a list there.
    defaults = {field.name: json.loads(json.dumps(field.default, default=str)) for field in fields}
    return {name: value for name, value in settings_of(result).items() if defaults.get(name, ...) != value}


def _table(names: Sequence[str], found: Mapping[str, dict[int, Match]]) -> Table:
    """Angles of each method to each component of the reference, and their means."""
    rows = [
        (name, *(f"{row[k].angle:.2f}" if k in row else "not found" for row in found.values()))
        for k, name in enumerate(names)
    ]
    rows.append(("Mean", *(f"{np.mean([match.angle for match in row.values()]):.2f}" for row in found.values())))
    return Table(("Spectral angle (°)", *found), rows, numbers=range(1, len(found) + 1))
