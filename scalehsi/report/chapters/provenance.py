"""Last chapter of the report: origin of the result, settings, history, versions, and how to open and repeat it."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.cube import history_of
from scalehsi.plots.digest import Digest
from scalehsi.plots.style import length_text, number_text
from scalehsi.report.chapters import Context
from scalehsi.report.chapters.methods import changed_settings
from scalehsi.report.headline import energy_span, map_size
from scalehsi.report.page import Chapter, Code, Fold, Heading, Listing, Paragraph, Part, Table
from scalehsi.schema import COMPONENT, ENERGY, X, Y

ORDER: Final = 1000

MEANINGS: Final = {
    "endmembers": "the spectra of the components",
    "abundances": "the maps of the components",
    "endmembers_std": "standard deviation of the spectra",
    "abundances_std": "standard deviation of the maps",
    "objective": "value that the fit minimises, at each iteration",
    "residual": "RMS of data minus model in each pixel",
    "residual_spectrum": "mean over pixels of data minus model",
    "mean_spectrum": "mean spectrum of the used pixels",
    "eigenvalues": "variance along each principal axis",
    "explained_variance_ratio": "fraction of the variance along each principal axis",
    "malinowski_ind": "Malinowski's indicator against the number of components",
}

MAX_CHARACTERS: Final = 400
"""Longer values are cut off."""


def chapter(view: Digest, context: Context) -> Chapter:
    """The provenance of any result."""
    result = context.result
    parts: list[Part] = [
        Table((), _facts(result, view)),
        Heading("Settings of the model"),
        *_settings(result),
        Heading("History"),
        _history(result),
        Heading("Contents of the result"),
        Table(("Variable", "Dims", "Type", "Meaning"), _variables(result)),
        Heading("Open it, repeat it"),
        Code(_python_lines(result, view)),
        Heading("Versions"),
        _json_table(result.attrs.get("versions"), ("Package", "Version")),
    ]
    return Chapter("provenance", "Where it comes from", parts)


def _facts(result: xr.Dataset, view: Digest) -> list[tuple[str, str]]:
    """Name and value of each fact about the result."""
    attrs = result.attrs
    facts = [
        ("Source", view.source or "not recorded"),
        ("Model", view.model),
        ("Components", str(len(view.names))),
        ("Seed", str(attrs.get("seed", "not recorded"))),
        ("Status", f"{view.status or 'not recorded'}{f' ({_iterations(view)})' if view.objective is not None else ''}"),
        ("Signal", view.signal or "not recorded"),
        ("Beam energy", f"{attrs['beam_energy_keV']} keV" if "beam_energy_keV" in attrs else "not recorded"),
        ("Elements", ", ".join(view.elements) or "not given"),
        ("Map", map_size(result)),
        ("Pixel", _pixel(view)),
        ("Spectrum", energy_span(view)),
        ("Pixels used", f"{view.pixels_used:,} of {view.pixels_total:,}".replace(",", " ")),
    ]
    if np.isfinite(view.counts_per_pixel):
        facts.append(("Mean of a pixel", f"{number_text(view.counts_per_pixel, 4)} {view.intensity_unit}"))
    return facts


def _iterations(view: Digest) -> str:
    count = 0 if view.iteration is None else view.iteration.size
    return f"{count} iteration{'' if count == 1 else 's'}"


def _pixel(view: Digest) -> str:
    if view.pixel_nm is None:
        return "size not recorded"
    dy, dx = (length_text(step / view.block, 4) for step in view.pixel_nm)
    return dy if dy == dx else f"{dy} (y) × {dx} (x)"


def _settings(result: xr.Dataset) -> list[Part]:
    """The settings that differ from their defaults, and all of them in a fold."""
    everything = _json_table(result.attrs.get("settings"), ("Setting", "Value"))
    changed = changed_settings(result)
    if changed is None or not isinstance(everything, Table):
        return [everything]
    rows = [(name, _short(value)) for name, value in changed.items()]
    own: Part = Table(("Setting", "Value"), rows) if rows else Paragraph("All have their defaults.")
    return [own, Fold("All settings, with their defaults", [everything])]


def _json_table(text: Any, head: tuple[str, str]) -> Table | Paragraph:
    """A table with a head of two columns for a JSON object; other text is shown unchanged."""
    try:
        values = json.loads(str(text)) if text else {}
    except json.JSONDecodeError:
        return Paragraph(str(text)[:MAX_CHARACTERS])
    if not isinstance(values, dict) or not values:
        return Paragraph("Not recorded." if not values else str(values)[:MAX_CHARACTERS])
    return Table(head, [(str(key), _short(value)) for key, value in values.items()])


def _short(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."


def _history(result: xr.Dataset) -> Listing | Paragraph:
    """The preparation steps and fits behind the result."""
    lines = history_of(result.attrs)
    return Listing(lines) if lines else Paragraph("Not recorded.")


def _variables(result: xr.Dataset) -> list[tuple[str, str, str, str]]:
    """Name, dims, type and meaning of each variable."""
    rows = []
    for name, array in result.data_vars.items():
        dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
        meaning = MEANINGS.get(str(name), str(array.attrs.get("long_name", "")))
        unit = str(array.attrs.get("units", ""))
        rows.append(
            (str(name), f"({dims})", str(array.dtype), f"{meaning} ({unit})" if unit and meaning else meaning or unit)
        )
    return rows


def _python_lines(result: xr.Dataset, view: Digest) -> str:
    """Python code that opens the result, selects a component, and repeats the fit."""
    place = str(result.encoding.get("source") or "result.zarr")
    lines = [
        "import scalehsi as hsi",
        "",
        f"result = hsi.open_result({place!r})",
        f"spectrum = result.endmembers.isel({COMPONENT}=0)  # {view.names[0]}, against result.{ENERGY}",
        f"pixels = result.abundances.isel({COMPONENT}=0)    # its map, dims (..., {Y}, {X})",
    ]
    try:
        settings = json.loads(str(result.attrs.get("settings", "")))
    except json.JSONDecodeError:
        settings = None
    if isinstance(settings, dict) and view.model.isidentifier() and all(str(key).isidentifier() for key in settings):
        given = ", ".join(f"{key}={value!r}" for key, value in settings.items() if value is not None)
        lines += [
            "",
            "# the same fit again",
            f"cube = hsi.open_cube({(view.source or 'cube.zarr')!r})",
            f"result = hsi.fit(cube, hsi.{view.model}({given}), seed={result.attrs.get('seed', 0)})",
        ]
    return "\n".join(lines)
