"""Compute compositions of EDX spectra in atomic and mass per cent.

Of the components of a result, of the sum of a spectrum image, or with --maps of every pixel:

\b
scalehsi quantify result.zarr --elements Mg,Si,Al,Ca,Fe,O --extra Cu
scalehsi quantify result.zarr -e Mg,Si,O --thickness 100 --density 4.5 --out table.csv --figure fit.png
scalehsi quantify map.zarr -e Fe,Pt --maps --out composition.zarr
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import xarray as xr
from typer import Argument, Option

import scalehsi as hsi
from scalehsi import plots
from scalehsi.cli.arguments import Dataset, Elements, Overwrite, dataset_of, elements_of, settings_of
from scalehsi.cli.console import number, plain
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io import open_dataset
from scalehsi.io.atomic import check_file, is_store, write_file
from scalehsi.physics.identify import name_peaks
from scalehsi.physics.line_names import pretty_family
from scalehsi.physics.peaks import find_peaks
from scalehsi.plots.composition import names_of_spectra, number_columns, spectrum_dim
from scalehsi.plots.style import to_png
from scalehsi.quantify import quantify as composition_of
from scalehsi.quantify.sources import Spectra, of_cube, of_result, of_spectra
from scalehsi.schema import ENDMEMBERS, InputError, X, Y

PERCENT_COLUMNS: Final = ("", "_std", "_k_std", "_limit")
COLUMNS: Final = (
    *(f"{quantity}{ending}" for quantity in ("atomic_percent", "weight_percent") for ending in PERCENT_COLUMNS),
    "intensity",
)
"""What is given of each element: values, errors of counting and of the k-factors, upper limits, and net counts."""
HEAD: Final = ("Element", "Line", "at%", "± counting", "± k-factors", "wt%", "± counting", "± k-factors")
K_FACTOR: Final = "--k-factor Fe_Ka=1.32"
TABLE: Final = ".csv"
STORES: Final = ("", ".zarr")
PICTURES: Final = (".png", ".svg", ".pdf")


@command
def run(
    session: Session,
    source: Annotated[Path, Argument(metavar="SOURCE", help="A result, or a spectrum image.")],
    *,
    elements: Elements = None,
    extra: Annotated[str | None, Option(metavar="A,B,...", help="Not of the sample, such as Cu of the grid.")] = None,
    maps: Annotated[bool, Option("--maps", help="Every pixel, into the store of --out.")] = False,
    method: Annotated[str, Option(metavar="fit|windows", help="How net counts are found.")] = "fit",
    k_factors: Annotated[
        list[str] | None,
        Option("--k-factor", metavar="LINE=VALUE", help="Such as Fe_Ka=1.32; one for each element. Else computed."),
    ] = None,
    k_units: Annotated[str, Option(metavar="weight|atomic", help="What the k-factors convert counts to.")] = "weight",
    counted: Annotated[str, Option(metavar="window|family", help="What the k-factors were measured for.")] = "window",
    lines: Annotated[
        list[str] | None, Option("--line", metavar="LINE", help="A line to use, such as Pt_La; may be repeated.")
    ] = None,
    thickness_nm: Annotated[
        float | None, Option("--thickness", metavar="NM", help="Of the foil, for absorption.")
    ] = None,
    density: Annotated[float | None, Option(metavar="G_CM3", help="Of the foil, for absorption.")] = None,
    takeoff_deg: Annotated[float | None, Option("--takeoff", metavar="DEG", help="Detector elevation; 35.")] = None,
    beam_kev: Annotated[
        float | None, Option("--beam", metavar="KEV", help="Beam energy; of the file, else 200.")
    ] = None,
    fwhm: Annotated[str | None, Option(metavar="EV|estimate", help="Peak width at Mn Ka, such as 130.")] = None,
    out: Annotated[Path | None, Option(metavar="FILE", help="Write it: a .csv table or a .zarr store.")] = None,
    figure: Annotated[Path | None, Option(metavar="FILE.png", help="Draw the fitted spectra.")] = None,
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "extra": elements_of(extra) or (),
        "method": method,
        "k_factors": "computed" if k_factors in (None, [], ["computed"]) else settings_of(k_factors, option=K_FACTOR),
        "k_units": k_units,
        "counted": counted,
        "lines": tuple(lines or ()),
        "thickness_nm": thickness_nm,
        "density": density,
        "takeoff_deg": takeoff_deg,
        "beam_kev": beam_kev,
        "fwhm": float(fwhm) if fwhm and fwhm.replace(".", "", 1).isdigit() else fwhm,
    }
    wanted = elements_of(elements)
    _check_outputs(session, source, out, figure, maps=maps, overwrite=overwrite)
    given = _open(session, source, dataset)
    with session.connected():
        if wanted is None and not given.attrs.get("elements"):
            with session.computing(f"reading {source.name}"):
                raise InputError(_suggestion(given))
        with session.computing(f"quantifying {source.name}"):
            found = composition_of(given, wanted, maps=maps, **options)
        if maps:
            return _maps(session, source, found, out, overwrite=overwrite)
    answer = _show(session, source, found)
    answer["warnings"] = session.console.show_warnings(found, session.translate)
    if out is not None:
        if out.suffix.lower() == TABLE:
            write_file(session.path(out), _csv(found), overwrite=overwrite)
        else:
            hsi.save(found, session.path(out), overwrite=overwrite)
        session.console.say(f"written: {out}")
    if figure is not None:
        with session.console.busy("drawing the fit"):
            write_file(session.path(figure), _picture(found, figure.suffix.lower()), overwrite=overwrite)
        session.console.say(f"figure: {figure}")
    return {**answer, "written": None if out is None else str(out), "figure": None if figure is None else str(figure)}


def _check_outputs(
    session: Session, source: Path, out: Path | None, figure: Path | None, *, maps: bool, overwrite: bool
) -> None:
    """Refuse destinations before anything is computed; the arguments are those of `run`."""
    ending = "" if out is None else out.suffix.lower()
    if out is not None and ending not in (TABLE, *STORES):
        raise InputError(
            f"--out writes a .csv table or a .zarr store, no {ending} file; type --out {out.with_suffix(TABLE)}"
        )
    if maps and (out is None or ending == TABLE):
        raise InputError("--maps gives maps of every pixel; name a store for them with --out composition.zarr")
    if maps and figure is not None:
        raise InputError("--figure draws fitted spectra, and --maps fits pixels; leave one of them out")
    if out is not None:
        if ending == TABLE:
            check_file(session.path(out), overwrite=overwrite)
        else:
            session.destination(out, overwrite=overwrite, source=source)
    if figure is not None:
        if figure.suffix.lower() not in PICTURES:
            raise InputError(f"{str(figure)!r}: a figure ends in {', '.join(PICTURES)}")
        check_file(session.path(figure), overwrite=overwrite)


def _open(session: Session, source: Path, dataset: str | None) -> Any:
    """A result, or a cube."""
    place = session.path(source)
    if place.is_dir() and is_store(place) and dataset is None:
        data = open_dataset(place)
        if ENDMEMBERS in data:
            return data
    return hsi.open_cube(place, dataset=dataset_of(dataset))


def _suggestion(given: Any) -> str:
    """The message where no elements are named: it suggests those whose lines explain the peaks."""
    spectra: Spectra
    if isinstance(given, xr.Dataset):
        spectra = of_result(given, None)
    elif {Y, X} <= set(given.dims):
        spectra = of_cube(given, None)
    else:
        spectra = of_spectra(given)
    marks = name_peaks(find_peaks(spectra.energies, spectra.values.sum(axis=0)), ())
    likely = dict.fromkeys(mark.label.split(" ")[0] for mark in marks)
    text = "no elements are named, neither here nor in the data"
    if not likely:
        return f"{text}; type --elements Mg,Si,O"
    return f"{text}; the peaks look like {', '.join(likely)}: check that, and type --elements {','.join(likely)}"


def _maps(session: Session, source: Path, found: xr.Dataset, out: Path | None, *, overwrite: bool) -> dict[str, Any]:
    """Store the maps that were found, and return their means; the arguments are those of `run`."""
    assert out is not None
    target = session.path(out)
    with session.computing(f"quantifying the pixels of {source.name}"):
        hsi.save(found, target, overwrite=overwrite)
    written = open_dataset(target)
    names = [str(e) for e in found["element"].values]
    means = written["atomic_percent"].mean([d for d in written["atomic_percent"].dims if d != "element"]).values
    session.console.say(f"{out}: maps of {', '.join(names)} in atomic and mass per cent")
    mean = {name: float(value) for name, value in zip(names, means, strict=True)}
    objections = session.console.show_warnings(found, session.translate)
    return {
        "source": str(source),
        "written": str(out),
        "elements": names,
        "mean_atomic_percent": mean,
        "warnings": objections,
    }


def _show(session: Session, source: Path, found: xr.Dataset) -> dict[str, Any]:
    """Show the composition that was found as tables, and return it in plain values."""
    out = session.console
    names = names_of_spectra(found)
    dim = spectrum_dim(found)
    parts = [found if dim is None else found.isel({dim: position}) for position in range(len(names))]
    for name, one in zip(names, parts, strict=True):
        out.answer(f"{source.name}: {name[0].lower()}{name[1:]}" if dim is None else f"{source.name}: {name}")
        out.answer()
        out.table(HEAD, _rows(one))
        out.answer()
    out.say(f"Per cent of {', '.join(map(str, found['element'].values))}; < is an upper limit, not in the sum.")
    settings = plain(found.attrs)
    out.say(f"Standard errors {found.attrs['errors']}." if _has_errors(found) else found.attrs["errors"])
    out.say(f"k-factors {found.attrs['k_factor_source']}.")
    chi = np.atleast_1d(found["reduced_chi_square"].values)
    if np.isfinite(chi).all():
        values = ", ".join(number(float(c)) for c in chi)
        out.say(f"Reduced chi-square of the fit: {values} (1: the residual is counting noise)")
    spectra = []
    for name, one in zip(names, parts, strict=True):
        row = {str(e): {c: one[c].values[i].item() for c in COLUMNS} for i, e in enumerate(one["element"].values)}
        spectra.append({"name": name, "reduced_chi_square": float(one["reduced_chi_square"]), "elements": row})
    lines = dict(zip(map(str, found["element"].values), map(str, found["line"].values), strict=True))
    factors = dict(zip(lines, map(float, found["k_factor"].values), strict=True))
    kept = {"method": settings["method"], "settings": settings["settings"], "errors": settings["errors"]}
    return {"source": str(source), "spectra": spectra, "lines": lines, "k_factors": factors, **kept}


def _rows(one: xr.Dataset) -> list[list[str]]:
    """The table of one spectrum: element, line, and per cent with both errors."""
    lines = [pretty_family(str(line).split(" ")[1]) for line in one["line"].values]
    atoms, weights = number_columns(one), number_columns(one, "weight_percent")
    return [
        [str(element), line, *at, *weight]
        for element, line, at, weight in zip(one["element"].values, lines, atoms, weights, strict=True)
    ]


def _has_errors(found: xr.Dataset) -> bool:
    return bool(np.isfinite(found["intensity_std"].values).any())


def _csv(found: xr.Dataset) -> bytes:
    """A row for each spectrum and element."""
    table = found.reset_coords()[["line", "k_factor", *COLUMNS, "intensity_std"]]
    dim = spectrum_dim(found) or "spectrum"
    table = (table if dim in table.dims else table.expand_dims(dim)).assign_coords({dim: names_of_spectra(found)})
    frame = table.to_dataframe(dim_order=[dim, "element"]).rename_axis(["spectrum", "element"])
    text: str = frame.to_csv(float_format="%.6g", na_rep="nan", lineterminator="\n")
    return text.encode("utf-8")


def _picture(found: xr.Dataset, suffix: str) -> bytes:
    drawn = plots.composition(found)
    if suffix == ".png":
        return to_png(drawn)
    target = io.BytesIO()
    drawn.savefig(target, format=suffix[1:], facecolor="white")
    return target.getvalue()
