"""A result beside those of other methods on the same cube: matched, scored, and drawn side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from scalehsi.models.catalogue import model_class
from scalehsi.plots.digest import Digest
from scalehsi.plots.side_by_side import Found, draw_maps, draw_spectra, matched
from scalehsi.plots.truth import truth_name
from scalehsi.report.page import Chapter, Drawing, paragraph, table
from scalehsi.result import settings_of
from scalehsi.schema import InputError


def check_beside(view: Digest, others: Mapping[str, Digest]) -> None:
    """Refuse results that are not of the same cube.

    Raises
    ------
    InputError
    """
    for name, other in others.items():
        if other.maps.shape[1:] != view.maps.shape[1:] or other.energy.size != view.energy.size:
            raise InputError(
                f"{name!r} has maps of {other.maps.shape[-2]} x {other.maps.shape[-1]} and {other.energy.size} "
                f"channels, the result {view.maps.shape[-2]} x {view.maps.shape[-1]} and {view.energy.size}; "
                "only fits of the same cube are set side by side"
            )


def own_name(view: Digest, others: Mapping[str, Digest]) -> str:
    """What the result itself is called among the others."""
    return view.model if view.model not in others else f"{view.model} of this report"


def call_of(result: xr.Dataset) -> str:
    """The model as it is written in Python, with the loss and the settings that are not the plain ones.

    Examples
    --------
    >>> fitted = xr.Dataset(attrs={"model": "NMF", "settings": '{"n_components": 3, "loss": "poisson"}'})
    >>> call_of(fitted)
    "hsi.NMF(3, loss='poisson')"
    """
    model, settings = str(result.attrs.get("model", "")), settings_of(result)
    try:
        plain = {field.name: field.default for field in dataclasses.fields(model_class(model))}
    except InputError:
        return model
    count = [repr(settings["n_components"])] if "n_components" in settings else []
    said = [
        f"{name}={value!r}"
        for name, value in settings.items()
        if name != "n_components" and (name == "loss" or plain.get(name, value) != value)
    ]
    return f"hsi.{model}({', '.join([*count, *said])})"


def chapter(
    view: Digest, others: Mapping[str, Digest], known: Digest | None, *, calls: Mapping[str, str]
) -> Chapter | None:
    """The part of the page with other methods; None when none of them has spectra of phases (PCA has not).

    `calls` says how each was fitted, by name, as `call_of` writes it.
    """
    shown = {name: other for name, other in others.items() if not other.signed}
    if view.signed or not shown:
        return None
    own = own_name(view, others)
    methods = {**shown, own: view}
    reference = known or view
    found = {name: matched(digest, reference) for name, digest in methods.items()}
    names = [truth_name(reference, k) if known else reference.names[k] for k in range(len(reference.names))]
    beside = " and ".join(methods)
    if known is None:
        words = f"The same cube by {beside}: components are matched by their spectra. Angles are those to {own}."
        del found[own]
    else:
        words = f"The same cube by {beside}. Angles of the spectra to the truth in degrees, 0 for the true shape."
    told = [f"{name}: {calls[name]}" for name in methods if name in calls]
    if told:
        words += f" {'; '.join(told)}. Settings that are not named are the plain ones."
    drawings = [
        Drawing(
            "methods",
            "methods.png",
            draw_maps(reference, methods, known=known),
            f"Maps of {', '.join(names)} by {beside}.",
            "Share of each pixel's intensity, from 0 (dark) to 1 (bright). One row for each component, one column for "
            "each method.",
        ),
        Drawing(
            "methods",
            "methods-spectra.png",
            draw_spectra(reference, methods, known=known),
            f"Spectra of {', '.join(names)} by {beside}.",
            "Each spectrum scaled to a sum of one, on a logarithmic scale. A line that one of them has and the other "
            "lacks is a phase mixed into another one, or taken out of it.",
        ),
    ]
    return Chapter("methods", "Beside other methods", paragraph(words) + _table(names, found), drawings)


def _table(names: Sequence[str], found: Mapping[str, dict[int, Found]]) -> str:
    def cell(row: dict[int, Found], k: int) -> str:
        return f"{row[k].angle:.2f}" if k in row else "not found"

    rows = [(name, *(cell(row, k) for row in found.values())) for k, name in enumerate(names)]
    angles = [[each.angle for each in row.values()] for row in found.values()]
    rows.append(("Mean", *(f"{np.mean(each):.2f}" for each in angles)))
    return table(("Spectral angle (°)", *found), rows, numbers=range(1, len(found) + 1))
