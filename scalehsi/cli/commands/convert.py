"""Write any spectrum image as a chunked Zarr store.

Counts become the smallest integers that hold them; memory stays bounded where the format can be read in parts. Lists of
X-rays (event streams) can be cut and joined while they are read:

\b
scalehsi convert scan.emd --frames list
scalehsi convert scan.emd scan.zarr --frames 10:200 --energy 0.1:20 --bin y=2,x=2,energy=4
scalehsi convert scan.emd frames.zarr --keep-frames --detector 0 --detector 2
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Dataset, Overwrite, Source, dataset_of, settings_of
from scalehsi.cli.disk import show_written
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io.events import event_file
from scalehsi.io.open import existing_path
from scalehsi.schema import InputError


@command
def run(
    session: Session,
    source: Source,
    destination: Annotated[Path | None, Argument(metavar="DST", help="The store to make, such as map.zarr.")] = None,
    *,
    chunk_mb: Annotated[float, Option(metavar="N", help="Size of a chunk in MiB.")] = 16.0,
    dataset: Dataset = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="For the file's reader, such as sum_frames=false.")
    ] = None,
    axes: Annotated[
        str | None, Option(metavar="NAMES", help="Of a store without them, in its order, such as energy,y,x.")
    ] = None,
    energy: Annotated[
        str | None,
        Option(
            metavar="LOW:HIGH|UNIT|FIRST:STEP:UNIT",
            help="Of an event stream, the energies to keep, such as 0.1:20; of a file without it, such as eV or "
            "0:0.01:keV.",
        ),
    ] = None,
    pixel: Annotated[str | None, Option(metavar="STEP:UNIT", help="Size of a pixel, such as 0.5:nm.")] = None,
    mask: Annotated[str | None, Option(metavar="ignore|invert", help="What to do with the mask of the file.")] = None,
    frames: Annotated[
        str | None, Option(metavar="A:B|list", help="Of an event stream: the frames to add up, from 0; or show them.")
    ] = None,
    keep_frames: Annotated[bool, Option("--keep-frames", help="Of an event stream: do not add up the frames.")] = False,
    bins: Annotated[
        str | None, Option("--bin", metavar="DIM=N,...", help="Of an event stream: join, such as y=2,x=2,energy=4.")
    ] = None,
    detectors: Annotated[
        list[int] | None, Option("--detector", metavar="N", help="Of an event stream: add up these; may be repeated.")
    ] = None,
    keep_detectors: Annotated[
        bool, Option("--keep-detectors", help="Of an event stream: do not add up the detectors.")
    ] = False,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    options = settings_of(assignments)
    if frames == "list":
        return _show_frames(session, source, dataset)
    if destination is None:
        raise InputError("the store to make is missing; give it after the file, such as map.zarr")
    if detectors and keep_detectors:
        raise InputError("--detector adds detectors up, --keep-detectors keeps all of them; leave one out")
    kept: tuple[str, ...] = ("keep",) if keep_frames else ()
    how: dict[str, Any] = {
        "frames": (*kept, *_limits("--frames", frames, int)) if frames else "keep" if keep_frames else "sum",
        "energy": _limits("--energy", energy, float) if energy and energy.count(":") == 1 else energy,
        "bin": settings_of(bins.split(","), option="--bin y=2") if bins else None,
        "detectors": "keep" if keep_detectors else detectors or "sum",
    }
    target = session.destination(destination, overwrite=overwrite, source=source)
    drawn = session.console.drawing and not options
    events = event_file(session.path(source), dataset=dataset_of(dataset)) if drawn else None
    unit = "" if events is None else "words"
    with session.connected(), session.console.bar(f"converting {source.name}", unit=unit) as listener:
        how |= {"dataset": dataset_of(dataset), "reader_options": options, "progress": listener}
        how |= {"axes": axes, "pixel": pixel, "mask": mask}
        hsi.convert(session.path(source), target, chunk_mb=chunk_mb, overwrite=overwrite, **how)
    return show_written(session, destination, hsi.open_cube(target))


def _show_frames(session: Session, source: Path, dataset: str | None) -> dict[str, Any]:
    """Show the counts of each frame of an event stream."""
    path = existing_path(session.path(source))
    events = event_file(path, dataset=dataset_of(dataset))
    if events is None or not events.has_frames:
        raise InputError(f"{path.name!r} has no frames; --frames is for event streams of Velox and JEOL")
    with session.console.busy(f"reading {path.name}"):
        counts = events.counts_per_frame().tolist()
    rows = [
        (str(n), f"{count:,}", "" if n < events.frames else "not shown by the file") for n, count in enumerate(counts)
    ]
    session.console.table(("frame", "counts", ""), rows)
    for note in events.notes:
        session.console.remark(f"{path.name}: {note}")
    return {"frames": counts, "shown": events.frames, "notes": events.notes}


def _limits(option: str, text: str, kind: type) -> tuple[Any, ...]:
    """Two numbers with a colon between them."""
    try:
        first, last = map(kind, text.split(":"))
    except ValueError:
        raise InputError(f"{option} {text!r}: two numbers are expected, such as {option} 10:200") from None
    return first, last
