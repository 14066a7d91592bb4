"""Read spectrum images that are lists of X-ray events, in bounded memory: one band of rows at a time."""

from __future__ import annotations

from pathlib import Path

from scalehsi.io.events.file import EventFile
from scalehsi.io.events.velox import open_velox


def event_file(path: Path, *, signal: str | None = None, dataset: int | str | None = None) -> EventFile | None:
    """The file, when it is a map of events in a known format; None otherwise.

    Parameters
    ----------
    path : Path
    signal, dataset
        As for `scalehsi.open_cube`.

    Raises
    ------
    InputError
        When the file is damaged, cut, or a variant that cannot be read.
    """
    if not path.is_file():
        return None
    if path.suffix.lower() == ".emd":
        return open_velox(path, signal=signal, dataset=dataset)
    return None
