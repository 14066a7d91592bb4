"""Read spectrum images that are lists of X-ray events, in bounded memory: one band of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from scalehsi.io.events.bruker import open_bruker
from scalehsi.io.events.file import EventFile
from scalehsi.io.events.jeol import open_jeol
from scalehsi.io.events.oxford import open_oxford
from scalehsi.io.events.velox import open_velox

_READERS: Final[dict[str, Callable[..., EventFile | None]]] = {
    ".emd": open_velox,
    ".bcf": open_bruker,
    ".pts": open_jeol,
    ".h5oina": open_oxford,
}


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
    reader = _READERS.get(path.suffix.lower())
    return None if reader is None else reader(path, signal=signal, dataset=dataset)
