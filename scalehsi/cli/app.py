"""The command line: ``scalehsi COMMAND``. What the commands do is in `scalehsi.cli.commands`.

Importing this module loads neither xarray nor Dask, so that ``scalehsi --help`` answers at once.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import scalehsi
from scalehsi.cli.console import Console
from scalehsi.cli.runner import command, start

if TYPE_CHECKING:
    from scalehsi.cli.session import Session


def _run(name: str) -> Any:
    """What a command does; its module is loaded when the command runs."""
    return getattr(importlib.import_module(f"scalehsi.cli.commands.{name}"), name)


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = importlib.import_module("scalehsi.cli.session").settings_of(words)
    return settings


app = typer.Typer(
    name="scalehsi",
    help="Unmix spectrum images (STEM-EELS, STEM-EDX) of any size: a file in, spectra, maps and a report out.",
    epilog="First time here? Type: scalehsi demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Cube = Annotated[Path, typer.Argument(metavar="CUBE", help="A Zarr store, or a file of any known format.")]
Result = Annotated[Path, typer.Argument(metavar="RESULT", help="What scalehsi fit wrote.")]
Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="Which dataset of the file: its number or title.")]
Spectral = Annotated[
    Path | None, typer.Option(metavar="CUBE", help="Of pansharpen: the acquisition with large pixels and many counts.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
ModelName = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="nmf, psnmf, pansharpen or pca.")]
Components = Annotated[
    int | None, typer.Option("--components", "-k", metavar="K", help="How many spectra to look for.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the model, such as loss=poisson; may be repeated."),
]


def _version(wanted: bool) -> None:
    if wanted:
        Console().answer(f"scalehsi {scalehsi.__version__}")
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
@command
def demo(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make.")] = Path("scalehsi-demo"),
    size: Annotated[int, typer.Option(metavar="N", help="Pixels along y and x.")] = 180,
    counts: Annotated[float, typer.Option(metavar="N", help="Counts per pixel.")] = 147.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the layout, the counts and the fit.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
) -> dict[str, Any]:
    """Run the whole way once: cube, unmix, report.

    Simulates an EDX map of three mantle minerals, unmixes it by PSNMF and, to compare, by standard NMF and PCA, and
    says how near to the truth each came. The last line is the path of the report.
    """
    return _run("demo")(session, folder, pixels=size, counts=counts, seed=seed, overwrite=overwrite)


@app.command()
@command
def info(
    session: Session,
    cube: Cube,
    dataset: Dataset = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the values to count them.")] = False,
) -> dict[str, Any]:
    """Tell what a spectrum image or a result holds.

    Axes and units, counts per pixel, size, chunks, and what was done to it so far.
    """
    return _run("info")(session, cube, dataset=dataset, quick=quick)


@app.command()
@command
def convert(
    session: Session,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file of any known format, or a Zarr store.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The store to make, such as map.zarr.")],
    chunk_mb: Annotated[float, typer.Option(metavar="N", help="Size of a chunk in MiB.")] = 16.0,
    dataset: Dataset = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For the file's reader, such as sum_frames=false."),
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write any spectrum image as a chunked Zarr store.

    Counts become the smallest integers that hold them; memory stays bounded where the format can be read in parts.
    """
    return _run("convert")(
        session,
        source,
        destination,
        chunk_mb=chunk_mb,
        overwrite=overwrite,
        dataset=dataset,
        options=settings_of(options or []),
    )


@app.command()
@command
def simulate(
    session: Session,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="chequerboard (EELS or EDX), phases (EDX of minerals), acquisitions (two, EELS), maps or sines (no "
            "spectra).",
        ),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The store to make, such as scene.zarr.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the scene, such as shape=64,64; may be repeated."),
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Make a spectrum image, or maps of components, whose truth is known.

    The truth goes beside it: scene.zarr gets scene_truth.zarr. For example:

    \b
    scalehsi simulate chequerboard scene.zarr --set shape=64,64 --set n_channels=512

    A scene of two acquisitions is fine.zarr and fine_spectral.zarr, and fine_image.zarr with --set image_counts=100.
    """
    return _run("simulate")(session, kind, destination, settings=settings_of(settings or []), overwrite=overwrite)


@app.command()
@command
def prepare(
    session: Session,
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A Zarr store, or a file of any known format.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The store to make, such as map.zarr.")],
    steps: Annotated[
        list[str],
        typer.Option(
            "--step",
            metavar="STEP",
            help="What to do, such as crop:energy=0.5:10; may be repeated.",
        ),
    ],
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Crop, bin or mask a spectrum image.

    Steps are done in the order given, ranges are in the units of the axis:

    \b
    scalehsi prepare map.zarr small.zarr --step crop:energy=0.5:10 --step bin:y=2,x=2
    scalehsi prepare map.zarr used.zarr --step mask:min_counts=20
    """
    return _run("prepare")(session, source, destination, steps=steps, overwrite=overwrite, dataset=dataset)


@app.command()
@command
def plan(
    session: Session,
    cube: Cube,
    model: ModelName = "nmf",
    components: Components = None,
    settings: Settings = None,
    dataset: Dataset = None,
    spectral: Spectral = None,
) -> dict[str, Any]:
    """Tell what a fit will need, before it runs.

    Memory, and how often the data will be read. No values are read for it.
    """
    return _run("plan")(
        session,
        cube,
        model=model,
        components=components,
        settings=settings_of(settings or []),
        dataset=dataset,
        spectral=spectral,
    )


@app.command()
@command
def fit(
    session: Session,
    cube: Cube,
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="The store to make, such as result.zarr.")],
    model: ModelName = "nmf",
    components: Components = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same result.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the state of the fit here, to go on from it.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, metavar="N", help="Iterations between two states.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write a report.")] = None,
    dataset: Dataset = None,
    spectral: Spectral = None,
    image: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Of pansharpen: an image of the region, such as HAADF.")
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Unmix a spectrum image into spectra and their maps.

    For EDX counts, and for EELS with its background removed:

    \b
    scalehsi fit map.zarr result.zarr -k 3 --set loss=poisson
    scalehsi fit map.zarr result.zarr -k 3 --model psnmf
    scalehsi fit map.zarr result.zarr -k 4 --checkpoint run.ckpt
    scalehsi fit fine.zarr result.zarr -k 4 --model pansharpen --spectral coarse.zarr

    Settings of nmf: loss (frobenius or poisson), weighting (poisson), max_iter, tol. Settings of psnmf, for counts that
    are too few a pixel: bin_factor (auto, 12 or 12,8), loss, simplex, settings (paper), neighbours, smoothing. Settings
    of pca: weighting, centre, solver, power, oversample. Settings of pansharpen, for two acquisitions of one region,
    with fine and with coarse pixels: loss, prior (auto, 0, 0.1), registration (auto, None, or 1.5,-2 in nm), remix.
    """
    return _run("fit")(
        session,
        cube,
        result,
        model=model,
        components=components,
        settings=settings_of(settings or []),
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        overwrite=overwrite,
        report=report,
        dataset=dataset,
        spectral=spectral,
        image=image,
    )


@app.command()
@command
def project(
    session: Session,
    result: Result,
    cube: Cube,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The store to make, such as maps.zarr.")],
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Find the spectra of a result in another image.

    OUT is a result too, with the maps of the other image: report and reconstruct take it.
    """
    return _run("project")(session, result, cube, out, overwrite=overwrite, dataset=dataset)


@app.command()
@command
def reconstruct(
    session: Session,
    result: Result,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The store to make, such as denoised.zarr.")],
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write the denoised spectrum image: maps times spectra.

    As floats it is up to four times as large as the counts were.
    """
    return _run("reconstruct")(session, result, out, overwrite=overwrite)


@app.command()
@command
def quantify(
    session: Session,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A result, or a spectrum image.")],
    elements: Annotated[
        str | None, typer.Option("--elements", "-e", metavar="A,B,...", help="Of the sample, such as Mg,Si,O.")
    ] = None,
    extra: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="In the spectrum but not in the sample, such as Cu of the grid."),
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Every pixel, into the store of --out.")] = False,
    method: Annotated[str, typer.Option(metavar="fit|windows", help="How net counts are found.")] = "fit",
    k_factors: Annotated[
        list[str] | None,
        typer.Option(
            "--k-factor", metavar="LINE=VALUE", help="Such as Fe_Ka=1.32; one for each element. Else computed."
        ),
    ] = None,
    k_units: Annotated[str, typer.Option(metavar="weight|atomic", help="What the k-factors make.")] = "weight",
    counted: Annotated[
        str, typer.Option(metavar="window|family", help="What the k-factors were measured for.")
    ] = "window",
    lines: Annotated[
        list[str] | None, typer.Option("--line", metavar="LINE", help="A line to use, such as Pt_La; may be repeated.")
    ] = None,
    thickness: Annotated[float | None, typer.Option(metavar="NM", help="Of the foil, to correct absorption.")] = None,
    density: Annotated[float | None, typer.Option(metavar="G_CM3", help="Of the foil, to correct absorption.")] = None,
    takeoff: Annotated[float | None, typer.Option(metavar="DEG", help="Elevation of the detector; 35.")] = None,
    beam: Annotated[float | None, typer.Option(metavar="KEV", help="Beam energy; that of the file, else 200.")] = None,
    fwhm: Annotated[
        str | None, typer.Option(metavar="EV|estimate", help="Width of the peaks at Mn Ka, such as 130, or estimate.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it: a .csv table or a .zarr store.")] = None,
    figure: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the fitted spectra.")] = None,
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Give compositions of EDX spectra in atomic and mass per cent.

    Of the components of a result, of the sum of a spectrum image, or with --maps of every pixel:

    \b
    scalehsi quantify result.zarr --elements Mg,Si,Al,Ca,Fe,O --extra Cu
    scalehsi quantify result.zarr -e Mg,Si,O --thickness 100 --density 4.5 --out table.csv --figure fit.png
    scalehsi quantify map.zarr -e Fe,Pt --maps --out composition.zarr
    """
    return _run("quantify")(
        session,
        source,
        elements=elements,
        extra=extra,
        maps=maps,
        method=method,
        k_factors=settings_of(k_factors, option="--k-factor Fe_Ka=1.32") if k_factors else "computed",
        k_units=k_units,
        counted=counted,
        lines=tuple(lines or ()),
        thickness_nm=thickness,
        density=density,
        takeoff_deg=takeoff,
        beam_kev=beam,
        fwhm=float(fwhm) if fwhm and fwhm.replace(".", "", 1).isdigit() else fwhm,
        out=out,
        figure=figure,
        dataset=dataset,
        overwrite=overwrite,
    )


@app.command()
@command
def gp(
    session: Session,
    result: Result,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The store to make, such as smooth.zarr.")],
    upsample: Annotated[
        str, typer.Option(metavar="N", help="Points a pixel, such as 2 or 2.5, or along y and x, such as 2,3.")
    ] = "1",
    kernel: Annotated[
        str, typer.Option(metavar="NAME", help="matern12, matern32, matern52, rbf, periodic(P), or such as A*B+C.")
    ] = "matern52",
    lengthscale: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Interval for the length of the covariance, in pixels.")
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same result.")] = 0,
    scan: Annotated[bool, typer.Option("--scan", help="Also tell which lengths the maps show.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write a report.")] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Smooth the maps of a result by a Gaussian process, with their uncertainty.

    All maps together, at the pixels or between them; pixels that were not measured are filled:

    \b
    scalehsi gp result.zarr smooth.zarr
    scalehsi gp result.zarr fine.zarr --upsample 2 --lengthscale 2:5 --report fine_report

    Settings: isotropic, rank, engine (structured, iterative or dense), tile, halo, draws, nonnegative.
    """
    return _run("gp")(
        session,
        result,
        out,
        upsample=upsample,
        kernel=kernel,
        lengthscale=lengthscale,
        settings=settings_of(settings or []),
        seed=seed,
        scan=scan,
        report=report,
        overwrite=overwrite,
    )


@app.command()
@command
def compare(
    session: Session,
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="What scalehsi simulate wrote beside its cube.")],
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="One or more results.")],
) -> dict[str, Any]:
    """Hold results against a known truth.

    Spectra by their angle, maps by correlation and error.
    """
    return _run("compare")(session, truth, results)


@app.command()
@command
def report(
    session: Session,
    result: Result,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    truth: Annotated[
        Path | None, typer.Option(metavar="TRUTH", help="The truth of a simulation, to be set beside the result.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside", metavar="[NAME=]RESULT", help="A result of another method on the same cube; may be repeated."
        ),
    ] = None,
    cube: Annotated[
        Path | None, typer.Option(metavar="CUBE", help="What was fitted: a line's map as measured and as denoised.")
    ] = None,
    line: Annotated[
        str | None, typer.Option(metavar="LINE", help="Of that map, such as 'Nd La' or 5.1,5.3; the faintest if not.")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Heading of the page.")] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Write a page that shows a result.

    Spectra with their lines, maps with a scale bar, the quality of the fit, and where everything comes from. The page
    holds its pictures and can be sent by itself. Other methods may be set beside:

    \b
    scalehsi report psnmf.zarr page --cube map.zarr --line 'Nd La' --beside PCA=pca.zarr
    """
    return _run("report")(
        session,
        result,
        folder,
        truth=truth,
        beside=beside or [],
        cube=cube,
        line=line,
        overwrite=overwrite,
        title=title,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``scalehsi``; those of this process by default.

    Returns
    -------
    int
        0 done; 2 the user's input is wrong; 130 interrupted; 1 anything else.

    Examples
    --------
    >>> main(["--version"])
    scalehsi ...
    0
    """
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")  # what Python warns of is meant for programmers
    return start(typer.main.get_command(app), list(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
