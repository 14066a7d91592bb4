"""Chapter on maps of EELS edges: net counts without any factorisation, from the cube itself."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.cube import history_of
from scalehsi.physics.line_names import split_symbols
from scalehsi.plots.digest import Digest
from scalehsi.plots.edge_maps import draw_edge_maps
from scalehsi.plots.style import number_text
from scalehsi.quantify.edge_counts import edge_maps
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Paragraph, Table
from scalehsi.schema import InputError

ORDER: Final = 35


def chapter(view: Digest, context: Context) -> Chapter | None:
    """Maps of the edges of the cube's elements; None without a cube with its background, or without good windows."""
    cube = context.cube
    if cube is None or cube.attrs.get("signal") != "EELS" or not split_symbols(cube.attrs.get("elements", ())):
        return None
    if any(line.startswith("background(") for line in history_of(cube.attrs)):
        return None
    try:
        found = edge_maps(cube)
    except InputError:
        # No element of the cube has an edge with good windows on this axis.
        return None
    drawing = Drawing(
        "edge_maps.png",
        partial(draw_edge_maps, found),
        f"Maps of the net counts of {', '.join(map(str, found['edge'].values))}.",
        "Counts in the window of each edge above a power law, which was fitted in front of it. No component enters.",
    )
    text = (
        "Net counts of the ionisation edges, straight from the data: what a map of a component shows should be seen "
        "here too, with more noise."
    )
    return Chapter("edge-maps", "Edge maps", [Paragraph(text), _table(found)], [drawing])


def _table(found: xr.Dataset) -> Table:
    """Windows, mean net counts and misfit of each edge."""
    units = str(found["signal_window"].attrs.get("units", ""))
    rows = []
    for name in found["edge"].values:
        one = found.sel(edge=name)
        windows = [
            f"{low:.4g} to {high:.4g} {units}" for low, high in (one["fit_window"].values, one["signal_window"].values)
        ]
        net, std = one["net"].values, one["net_std"].values
        good = np.isfinite(net)
        error = float(np.sqrt((std[good] ** 2).sum()) / max(good.sum(), 1))
        rows.append(
            [
                str(name),
                *windows,
                f"{number_text(float(net[good].mean()))} ± {number_text(error, 2)}",
                f"{float(one['misfit'].median()):.2f}",
            ]
        )
    return Table(["Edge", "Fitted", "Signal", "Mean net counts", "Misfit"], rows, numbers=(3, 4))
