"""Show what a spectrum image or a result holds.

Axes and units, counts per pixel, noise, the sum spectrum, size, chunks, and what was done to it so far. With elements
their edges are marked, and windows for the background of each are proposed:

\b
scalehsi info map.zarr --elements Cu,Zn --figure sum.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from dask.utils import format_bytes
from typer import Option

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.chunks import work_chunks
from scalehsi.cli.arguments import Cube, Dataset, Elements, Overwrite, dataset_of, elements_of
from scalehsi.cli.console import coordinate, number, plain, remedy_words, several
from scalehsi.cli.disk import disk_bytes
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.cli.signal_rows import signal_of, signal_rows, spectrum_rows
from scalehsi.cube import describe, describe_axes, history_of, navigation_dims
from scalehsi.io import open_dataset
from scalehsi.io.atomic import check_file, is_store, write_file
from scalehsi.io.open import existing_path
from scalehsi.io.rosettasciio import Entry
from scalehsi.io.tree import contents_of, is_file_of_others
from scalehsi.physics.line_names import split_symbols
from scalehsi.plots.style import to_png
from scalehsi.plots.sum_spectrum import draw_sum_spectrum, element_marks
from scalehsi.result import advice_alone, check_result, map_dims, names_of_components, result_warnings, settings_of
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, MASK, OBJECTIVE, InputError


@command
def run(
    session: Session,
    cube: Cube,
    *,
    dataset: Dataset = None,
    quick: Annotated[bool, Option("--quick", help="Do not read the values to count them.")] = False,
    elements: Elements = None,
    figure: Annotated[Path | None, Option(metavar="FILE.png", help="Draw the sum spectrum.")] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    place = session.path(cube)
    if figure is not None:
        if quick or figure.suffix.lower() != ".png":
            raise InputError(
                "--figure needs the values; leave --quick out" if quick else f"{str(figure)!r}: a figure ends in .png"
            )
        check_file(session.path(figure), overwrite=overwrite)
    if place.is_dir() and is_store(place) and dataset is None:
        data = open_dataset(place)
        if ENDMEMBERS in data and "model" in data.attrs:
            return _info_result(session, cube, check_result(data))
    contents = contents_of(existing_path(place))[0] if is_file_of_others(place) else []
    listed = [entry._asdict() for entry in contents]
    if dataset is None and contents and not any(entry.kind == "cube" for entry in contents):
        session.console.answer(f"{place.name}: no spectrum image")
        _show_contents(session, contents)
        return {"path": str(cube), "kind": "file", "contents": listed, "disk_bytes": disk_bytes(place)}
    opened = hsi.open_cube(place, dataset=dataset_of(dataset))
    found = {"path": str(cube), "kind": "cube", **describe(opened), "disk_bytes": disk_bytes(place), "contents": listed}
    if not quick:
        session.console.remark("reading all values once to count them (--quick leaves this out)")
        with session.connected(), session.computing(f"reading {cube.name}"):
            found["values"], total = values_of(opened)
            found["signal"] = signal_of(opened, elements_of(elements))
        found["spectrum"] = _spectrum(opened, total, elements_of(elements))
    _show_cube(session, cube, opened, found)
    if len(contents) > 1:
        _show_contents(session, contents)
    if figure is not None:
        one = found["spectrum"]
        drawn = draw_sum_spectrum(
            np.asarray(one["energy"]), np.asarray(one["sum"]), _marks(one), unit=one["units"], title=place.name
        )
        write_file(session.path(figure), to_png(drawn), overwrite=overwrite)
        session.console.say(f"figure: {figure}")
    return found


def _spectrum(cube: xr.DataArray, total: Float, elements: list[str] | None) -> dict[str, Any]:
    """The sum spectrum (E,) with the edges or lines of elements, in plain values; elements: None for the cube's."""
    energy, unit = np.asarray(cube[ENERGY].values, dtype=np.float64), str(cube[ENERGY].attrs.get("units", ""))
    known = split_symbols(cube.attrs.get("elements", ())) if elements is None else elements
    marks = element_marks(str(cube.attrs.get("signal", "")), known, energy, unit)
    return {
        "energy": energy.tolist(),
        "sum": np.asarray(total, dtype=np.float64).tolist(),
        "units": unit,
        "marks": [{"energy": place, "name": name} for place, name in marks],
    }


def _marks(spectrum: dict[str, Any]) -> list[tuple[float, str]]:
    return [(mark["energy"], mark["name"]) for mark in spectrum["marks"]]


def values_of(cube: xr.DataArray) -> tuple[dict[str, Any], Float]:
    """Statistics of a cube from one reading, of used pixels and finite values, and their sum in each channel (E,)."""
    if cube.chunks is not None:
        # Blocks of many small stored chunks, as every operation below has a task for each block.
        grid = work_chunks(cube.shape, cube.dtype.itemsize, storage=cube.chunks[:-1])
        cube = cube.chunk(dict(zip(cube.dims, (*grid, -1), strict=True)))
    whole = cube.dtype.kind in "ui"
    mask = cube[MASK] if MASK in cube.coords else None
    used = cube if mask is None else cube.where(mask, 0)
    finite = used if whole else used.where(np.isfinite(used), 0)
    wide = None if whole else np.float64
    total = finite.sum(ENERGY, skipna=False, dtype=wide)
    channels = finite.sum(navigation_dims(cube), skipna=False, dtype=wide)
    total = total if mask is None else total.where(mask)
    wanted: dict[str, Any] = {
        "pixels": total.notnull().sum(),
        "mean_per_pixel": total.mean(),
        "least_per_pixel": total.min(),
        "most_per_pixel": total.max(),
        "empty_pixels": (total == 0).sum(),
        "empty_channels": (channels == 0).sum(),
        "largest_value": finite.max(),
        "smallest_value": finite.min(),
        "not_finite": 0 if whole else (~np.isfinite(used)).sum(),
    }
    # As one Dataset they are computed together, in one reading.
    values = xr.Dataset({**wanted, "spectrum": channels}).compute()
    found: dict[str, Any] = plain({name: values[name].values for name in wanted})
    return found, values["spectrum"].values


def _show_cube(session: Session, path: Path, cube: xr.DataArray, found: dict[str, Any]) -> None:
    """Show the values that were found in the cube at a path, in words."""
    out, attrs = session.console, found["attrs"]
    kind = f"{attrs['signal']} spectrum image" if attrs.get("signal") else "spectrum image"
    out.answer(f"{path.name}: {kind}, {_sizes(cube.sizes)}")
    out.answer()
    _show_axes(session, found["axes"])
    out.answer()
    counts = cube.dtype.kind in "ui"
    chunk = found["chunks"]
    rows = [("Values", f"{cube.dtype}{', whole numbers (counts)' if counts else ''}")]
    if "values" in found:
        rows += _value_rows(found["values"], "counts" if counts else str(attrs.get("units", "intensity")))
        rows += signal_rows(found["signal"], str(found["axes"][ENERGY].get("units", "")))
        one = found["spectrum"]
        rows += spectrum_rows(np.asarray(one["energy"]), np.asarray(one["sum"]), _marks(one))
    rows += [
        ("Size", f"{format_bytes(found['bytes'])} in memory, {format_bytes(found['disk_bytes'])} on disk"),
        ("Chunks", "none, it is read whole" if chunk is None else _chunk_words(cube)),
        ("Mask", _mask_words(cube)),
    ]
    rows += _attribute_rows(attrs, path)
    out.facts(rows)
    _show_history(session, found["history"])


def _value_rows(values: dict[str, Any], unit: str) -> list[tuple[str, str]]:
    rows = []
    if values["not_finite"]:
        rows.append(("Not finite", f"{several(values['not_finite'], 'value is', 'values are')} NaN or Inf"))
    spread = f"from {number(values['least_per_pixel'])} to {number(values['most_per_pixel'])}"
    name = "Counts per pixel" if unit == "counts" else "Sum per pixel"
    rows.append((name, f"mean {number(values['mean_per_pixel'])}, {spread}"))
    rows.append(("Largest value", f"{number(values['largest_value'])} {unit} in one channel of one pixel"))
    if values["smallest_value"] < 0:
        rows.append(("Smallest value", f"{number(values['smallest_value'])} {unit}"))
    empty = [several(values["empty_pixels"], "pixel"), several(values["empty_channels"], "channel")]
    rows.append(("Empty", f"{empty[0]}, {empty[1]}"))
    return rows


def _mask_words(cube: xr.DataArray) -> str:
    if MASK not in cube.coords:
        return "none, all pixels are used"
    return f"{int(cube[MASK].sum()):,} of {cube[MASK].size:,} pixels are used"


def _chunk_words(cube: xr.DataArray) -> str:
    sizes = [max(c) for c in cube.chunks or ()]
    count = int(np.prod([len(c) for c in cube.chunks or ()]))
    largest = format_bytes(int(np.prod(sizes)) * cube.dtype.itemsize)
    return f"{several(count, 'block')} of up to {' x '.join(map(str, sizes))} ({largest})"


def _attribute_rows(attrs: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    names = {
        "title": "Title",
        "elements": "Elements",
        "beam_energy_keV": "Beam energy (keV)",
        "convergence_angle_mrad": "Convergence angle (mrad)",
        "collection_angle_mrad": "Collection angle (mrad)",
        "live_time_s": "Live time (s)",
        "source": "Source",
    }
    rows = []
    for key, name in names.items():
        value = attrs.get(key)
        if value not in (None, "", [], path.name):
            parts = value if isinstance(value, (list, tuple)) else [value]
            rows.append((name, ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in parts)))
    return rows


def _show_axes(session: Session, axes: dict[str, dict[str, Any]]) -> None:
    rows = []
    for name, axis in axes.items():
        if "first" not in axis:
            rows.append([name, f"{axis['size']:,}", "", "", "", ""])
            continue
        step = "" if "step" not in axis else "uneven" if axis["step"] is None else coordinate(axis["step"])
        ends = [coordinate(axis["first"]), coordinate(axis["last"])]
        rows.append([name, f"{axis['size']:,}", *ends, step, axis["units"]])
    session.console.table(["Axis", "Size", "From", "To", "Step", "Unit"], rows)


def _show_contents(session: Session, contents: Sequence[Entry]) -> None:
    """A table of all signals of a file."""
    kinds = {"cube": "spectra", "image": "image", "": "other"}
    session.console.answer()
    session.console.table(
        ["--dataset", "Title", "Kind", "Signal", "Shape", "Values"],
        [[str(e.number), e.title, kinds[e.kind], e.signal, " x ".join(map(str, e.shape)), e.dtype] for e in contents],
    )


def _show_history(session: Session, history: Sequence[str]) -> None:
    if history:
        session.console.answer()
        session.console.answer("What was done so far")
        for count, line in enumerate(history, start=1):
            session.console.answer(f"  {count}. {line}")


def _sizes(sizes: Any) -> str:
    """The sizes of a cube or of a result in words."""
    pixels = " x ".join(f"{n:,}" for d, n in sizes.items() if d not in (ENERGY, COMPONENT))
    return f"{pixels} pixels, {sizes[ENERGY]:,} channels"


def _info_result(session: Session, path: Path, data: xr.Dataset) -> dict[str, Any]:
    out = session.console
    dims = map_dims(data)
    truth = data.attrs["model"] == "truth"
    names = list(names_of_components(data.attrs)) or [str(v) for v in data[COMPONENT].values]
    found: dict[str, Any] = {
        "path": str(path),
        "kind": "truth" if truth else "result",
        "model": data.attrs["model"],
        "status": data.attrs.get("status"),
        "advice": data.attrs.get("advice"),
        "warnings": [each._asdict() for each in result_warnings(data)],
        "components": names,
        "iterations": data.sizes.get("iteration"),
        "objective": float(data[OBJECTIVE][-1]) if OBJECTIVE in data and data[OBJECTIVE].size else None,
        "settings": settings_of(data),
        "axes": describe_axes(data, (*dims, ENERGY)),
        "disk_bytes": disk_bytes(session.path(path)),
        "variables": {str(k): list(map(str, v.dims)) for k, v in data.data_vars.items()},
        "attrs": {k: v for k, v in data.attrs.items() if k not in ("history", "settings", "versions", "warnings")},
        "history": history_of(data.attrs),
    }
    what = "the truth of a simulation" if truth else f"a result of {data.attrs['model']}"
    sizes = {d: data.sizes[d] for d in (*dims, ENERGY)}
    out.answer(f"{path.name}: {what}, {several(len(names), 'component')}, {_sizes(sizes)}")
    out.answer()
    _show_axes(session, found["axes"])
    out.answer()
    rows = [("Components", ", ".join(names))]
    if not truth:
        rows += [
            ("Status", f"{found['status'] or 'unknown'}. {session.translate(advice_alone(data))}".strip()),
            *_warning_rows(session, data),
            ("Iterations", f"{found['iterations']}" if found["iterations"] else "none"),
        ]
    rows += [
        ("Settings", ", ".join(f"{k}={v}" for k, v in found["settings"].items()) or "none"),
        ("Variables", "; ".join(f"{k} ({', '.join(v)})" for k, v in found["variables"].items())),
        ("Size", f"{format_bytes(data.nbytes)} in memory, {format_bytes(found['disk_bytes'])} on disk"),
    ]
    out.facts(rows + _attribute_rows(data.attrs, path))
    _show_history(session, found["history"])
    return found


def _warning_rows(session: Session, data: xr.Dataset) -> list[tuple[str, str]]:
    """A row for each warning of a result, and one where there is none."""
    if "warnings" not in data.attrs:
        return [("Warnings", "not looked for: an earlier version wrote this result")]
    rows = [f"{code}: {text}{remedy_words(remedy, session.translate)}" for code, text, remedy in result_warnings(data)]
    return [("" if number else "Warnings", row) for number, row in enumerate(rows or ["none"])]
