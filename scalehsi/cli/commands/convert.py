"""Commands that make a store of a cube, of maps or of a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.disk import tell_written
from scalehsi.cli.session import Session, dataset_of


def convert(
    session: Session,
    source: Path,
    destination: Path,
    *,
    chunk_mb: float,
    overwrite: bool,
    dataset: str | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Write any spectrum image as a chunked cube."""
    target = session.destination(destination, overwrite=overwrite, source=source)
    with session.connected(), session.console.bar(f"converting {source.name}") as tell:
        hsi.convert(
            session.path(source),
            target,
            chunk_mb=chunk_mb,
            overwrite=overwrite,
            dataset=dataset_of(dataset),
            reader_options=options,
            progress=tell,
        )
    return tell_written(session, destination, hsi.open_cube(target))
