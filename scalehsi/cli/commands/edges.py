"""Map the net counts of EELS edges or X-ray lines.

The background of each edge is extrapolated from a window in front of it; windows are proposed from the elements:

\b
scalehsi edges map.zarr --elements Cu,Zn
scalehsi edges map.zarr maps.zarr --edge "Cu L3=925:960" --background 880:920 --figure maps.png
scalehsi edges edx.zarr maps.zarr --elements Fe,Pt
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import xarray as xr
from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Cube, Dataset, Elements, Overwrite, dataset_of, elements_of
from scalehsi.cli.console import number, plain
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io.atomic import check_file, write_file
from scalehsi.plots.edge_maps import draw_edge_maps
from scalehsi.plots.style import to_png
from scalehsi.quantify.edge_counts import edge_maps
from scalehsi.schema import InputError

HEAD: Final = ("Edge", "Fit window", "Signal", "Mean net", "± mean", "Above 3 sd", "Misfit")


@command
def run(
    session: Session,
    cube: Cube,
    out: Annotated[Path | None, Argument(metavar="[OUT]", help="The store of the maps, such as maps.zarr.")] = None,
    *,
    elements: Elements = None,
    edges: Annotated[
        list[str] | None,
        Option("--edge", metavar="NAME[=LOW:HIGH]", help="An edge and its signal window; may be repeated."),
    ] = None,
    background: Annotated[
        str | None, Option(metavar="LOW:HIGH", help="Window of the fit, for all edges; else proposed.")
    ] = None,
    share: Annotated[int, Option(metavar="N", help="Exponents of N x N pixels; 1 for atomic columns.")] = 5,
    figure: Annotated[Path | None, Option(metavar="FILE.png", help="Draw the maps.")] = None,
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    target = None if out is None else session.destination(out, overwrite=overwrite, source=cube)
    if figure is not None:
        if figure.suffix.lower() != ".png":
            raise InputError(f"{str(figure)!r}: a figure of maps ends in .png")
        check_file(session.path(figure), overwrite=overwrite)
    opened = hsi.open_cube(session.path(cube), dataset=dataset_of(dataset))
    wanted = _edges(edges)
    fit = None if background is None else _range("--background", background)
    with session.connected(), session.computing(f"reading {cube.name}"):
        found = edge_maps(opened, wanted, background=fit, elements=elements_of(elements), share=share)
    _show(session, cube, found)
    if target is not None:
        hsi.save(found, target, overwrite=overwrite)
        session.console.say(f"written: {out}")
    if figure is not None:
        write_file(session.path(figure), to_png(draw_edge_maps(found)), overwrite=overwrite)
        session.console.say(f"figure: {figure}")
    rows = {str(name): _answer(found.sel(edge=name)) for name in found["edge"].values}
    return {
        "source": str(cube),
        "edges": rows,
        "written": None if out is None else str(out),
        "figure": None if figure is None else str(figure),
    }


def _edges(words: list[str] | None) -> dict[str, tuple[float, float]] | list[str] | None:
    """The edges as `edge_maps` takes them."""
    if not words:
        return None
    parts = [word.partition("=") for word in words]
    if not any(equals for _, equals, _ in parts):
        return [name.strip() for name, _, _ in parts]
    if not all(equals for _, equals, _ in parts):
        raise InputError("--edge: give all edges a window, as in --edge 'Cu L3=925:960', or none")
    return {name.strip(): _range("--edge", window) for name, _, window in parts}


def _range(option: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise InputError(f"{option} {text!r}: a range is expected, such as 880:920") from None


def _answer(one: xr.Dataset) -> dict[str, Any]:
    """The numbers of one edge, in plain values."""
    net, std = one["net"].values, one["net_std"].values
    good = np.isfinite(net)
    used = max(int(good.sum()), 1)
    values: dict[str, Any] = {
        "signal_window": one["signal_window"].values,
        "mean_net": float(net[good].sum() / used),
        "mean_net_std": float(np.sqrt((std[good] ** 2).sum()) / used),
        "pixels_above_3_sd": int((net[good] > 3 * std[good]).sum()),
        "pixels": int(good.sum()),
    }
    if "fit_window" in one:
        values |= {"fit_window": one["fit_window"].values, "misfit": float(one["misfit"].median())}
    found: dict[str, Any] = plain(values)
    return found


def _show(session: Session, path: Path, found: xr.Dataset) -> None:
    rows = []
    for name in found["edge"].values:
        one = _answer(found.sel(edge=name))
        units = str(found["signal_window"].attrs.get("units", ""))
        windows = [_words(one[key], units) if key in one else "beside it" for key in ("fit_window", "signal_window")]
        share = f"{one['pixels_above_3_sd']:,} of {one['pixels']:,}"
        misfit = one.get("misfit")
        numbers = [number(one["mean_net"]), number(one["mean_net_std"])]
        rows.append([str(name), *windows, *numbers, share, "" if misfit is None else f"{misfit:.2f}"])
    session.console.answer(f"{path.name}: net counts of {len(rows)} edge{'s' if len(rows) > 1 else ''} in every pixel")
    session.console.answer()
    session.console.table(HEAD, rows)


def _words(window: list[float], units: str) -> str:
    return f"{window[0]:g} to {window[1]:g} {units}".strip()
