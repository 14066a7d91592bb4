"""The head of the report: facts, status, the warnings of the fit, and one line on each component."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from scalehsi.cube import history_of
from scalehsi.physics.identify import Mark
from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.report.findings import component_line, masked_pixels, status_box, warning_boxes
from scalehsi.report.page import Cell, Paragraph, Part, Table
from scalehsi.schema import ABUNDANCES, COMPONENT


def headline(result: xr.Dataset, view: Digest, marks: Sequence[Sequence[Mark]]) -> list[Part]:
    """The parts of the page above the chapters; `marks` are the line labels of each component."""
    count = len(view.names)
    parent = fitted_before(result)
    facts = [
        f"{view.model} of the maps of {parent}" if parent else view.model,
        f"{count} component{'' if count == 1 else 's'}",
        f"{map_size(result)} pixels",
        energy_span(view),
        counts_per_pixel(view),
        view.source and f"source {view.source}",
    ]
    return [
        Paragraph(" · ".join(fact for fact in facts if fact), kind="facts"),
        status_box(view),
        *warning_boxes(view),
        *masked_pixels(view),
        Table((), [_component_row(view, number, row) for number, row in enumerate(marks)]),
    ]


def _component_row(view: Digest, number: int, marks: Sequence[Mark]) -> tuple[Cell, Cell]:
    """A bar for the share of a component, or a square of its colour, and its description."""
    name, share = view.names[number], float(view.shares[number])
    text = component_line(view, number, marks).removeprefix(name)
    bar = Cell(colour=style.colour(number), share=share if np.isfinite(share) else None)
    return bar, Cell(text, name=name)


def fitted_before(result: xr.Dataset) -> str:
    """The model whose maps this result continues, as a Gaussian process does; empty for a fit of a cube."""
    earlier, last = ["", "", *history_of(result.attrs)][-2:]
    return earlier.split()[1] if earlier.startswith("fit ") and last.startswith("fit ") else ""


def counts_per_pixel(view: Digest) -> str:
    """The mean counts of a pixel; empty for other intensities, and where it is not known."""
    if view.intensity_unit != "counts" or not np.isfinite(view.counts_per_pixel):
        return ""
    return f"{style.number_text(view.counts_per_pixel)} counts per pixel"


def map_size(result: xr.Dataset) -> str:
    """Sizes of the pixel dims: ``time 3 × y 60 × x 60``."""
    return " × ".join(f"{dim} {result.sizes[dim]}" for dim in result[ABUNDANCES].dims if dim != COMPONENT)


def energy_span(view: Digest) -> str:
    """Number of channels, and the first and last energy."""
    unit = "" if view.energy_unit == "channel" else f" {view.energy_unit}"
    step = abs(view.energy[-1] - view.energy[0]) / max(view.energy.size - 1, 1)
    return f"{view.energy.size} channels, {view.energy[0]:.5g} to {view.energy[-1]:.5g}{unit}, step {step:.3g}{unit}"
