"""Where a result comes from and how to get it back: the last section of the page."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.plots.digest import Digest
from scalehsi.plots.style import length_text
from scalehsi.report import page
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY, X, Y

MEANINGS: Final = {
    "endmembers": "the spectra of the components",
    "abundances": "the maps of the components",
    "endmembers_std": "standard deviation of the spectra",
    "abundances_std": "standard deviation of the maps",
    "objective": "what the fit minimises, at each iteration",
    "residual": "RMS of data minus model in each pixel",
    "residual_spectrum": "mean over pixels of data minus model",
    "mean_spectrum": "mean spectrum of the used pixels",
    "eigenvalues": "variance along each principal axis",
    "explained_variance_ratio": "part of the variance along each principal axis",
    "malinowski_ind": "Malinowski's indicator against the number of components",
}

LONGEST: Final = 400
"""Characters of a value that are shown."""


def provenance(result: xr.Dataset, view: Digest) -> page.Section:
    """Build the section on sizes, settings, versions, history, and how to open and repeat the result."""
    parts = [
        page.table(("", ""), _facts(result, view)),
        "<h3>Settings of the model</h3>",
        _json_table(result.attrs.get("settings"), ("Setting", "Value")),
        "<h3>History</h3>",
        _history(result),
        "<h3>What the result holds</h3>",
        page.table(("Variable", "Dims", "Type", "What it is"), _variables(result)),
        "<h3>Open it, repeat it</h3>",
        page.code(_how_to_open(result, view)),
        "<h3>Versions</h3>",
        _json_table(result.attrs.get("versions"), ("Package", "Version")),
    ]
    return page.Section("provenance", "Where it comes from", "\n".join(parts))


def _facts(result: xr.Dataset, view: Digest) -> list[tuple[str, str]]:
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
        facts.append(("Mean of a pixel", f"{view.counts_per_pixel:.5g} {view.intensity_unit}"))
    return facts


def map_size(result: xr.Dataset) -> str:
    """Sizes of the pixel dims: ``time 3 × y 60 × x 60``."""
    return " × ".join(f"{dim} {result.sizes[dim]}" for dim in result[ABUNDANCES].dims if dim != COMPONENT)


def energy_span(view: Digest) -> str:
    """Number of channels, and from where to where they reach."""
    unit = "" if view.energy_unit == "channel" else f" {view.energy_unit}"
    step = abs(view.energy[-1] - view.energy[0]) / max(view.energy.size - 1, 1)
    return f"{view.energy.size} channels, {view.energy[0]:.5g} to {view.energy[-1]:.5g}{unit}, step {step:.3g}{unit}"


def _iterations(view: Digest) -> str:
    count = 0 if view.iteration is None else view.iteration.size
    return f"{count} iteration{'' if count == 1 else 's'}"


def _pixel(view: Digest) -> str:
    if view.pixel_nm is None:
        return "size not recorded"
    dy, dx = (length_text(float(f"{step / view.block:.4g}")) for step in view.pixel_nm)
    return dy if dy == dx else f"{dy} (y) × {dx} (x)"


def _json_table(text: Any, head: tuple[str, str]) -> str:
    """A table of a JSON object; what is none is shown as it is."""
    try:
        values = json.loads(str(text)) if text else {}
    except json.JSONDecodeError:
        return page.paragraph(str(text)[:LONGEST])
    if not isinstance(values, dict) or not values:
        return page.paragraph("Not recorded." if not values else str(values)[:LONGEST])
    return page.table(head, [(str(key), _short(value)) for key, value in values.items()])


def _short(value: Any) -> str:
    text = "default" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _history(result: xr.Dataset) -> str:
    lines = result.attrs.get("history", [])
    lines = lines.splitlines() if isinstance(lines, str) else [str(line) for line in np.asarray(lines).ravel()]
    if not lines:
        return page.paragraph("Not recorded.")
    return "<ol>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ol>"


def _variables(result: xr.Dataset) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, array in result.data_vars.items():
        dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
        meaning = MEANINGS.get(str(name), str(array.attrs.get("long_name", "")))
        unit = str(array.attrs.get("units", ""))
        rows.append(
            (str(name), f"({dims})", str(array.dtype), f"{meaning} ({unit})" if unit and meaning else meaning or unit)
        )
    return rows


def _how_to_open(result: xr.Dataset, view: Digest) -> str:
    """Lines of Python that open the result, pick a component, and fit again."""
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
