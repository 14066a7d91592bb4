"""Read the EDX map of an Oxford file (.h5oina, format 7.0 and later), whose spectra are a plain array of HDF5.

It is no list of events, but is cut and joined on the way in like one. The layout is that of the published specification
of the format, https://github.com/oinanoanalysis/h5oina; RosettaSciIO has no reader for it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import dask.array as da
import numpy as np

from scalehsi.io.events.file import EventFile, Read, Report, limit_of
from scalehsi.schema import InputError


@dataclass
class OxfordFile(EventFile):
    """The spectra of an Oxford file."""

    kind: ClassVar[str] = "Oxford"
    has_frames: ClassVar[bool] = False

    names: tuple[str, ...] = ()
    """The dataset of each detector."""

    @property
    def words(self) -> int:
        return self.detectors * self.rows * self.columns * self.channels

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                yield lambda detector, first, stop: file[self.names[detector]][first:stop]
        except (OSError, KeyError) as error:
            raise InputError(f"{self.path.name!r} cannot be read any more ({error}); copy it again") from error

    def find_rows(self, read: Read, report: Report) -> None:
        rows = self.columns * np.arange(self.rows + 1)
        self.starts = [rows] * self.detectors

    def _gathered(self, read: Read, detector: int, frames: range, rows: range) -> tuple[Any, Any]:
        return read(detector, rows.start * self.columns, rows.stop * self.columns), None

    def _pieces(self, detector: int, frames: range, rows: range, bin_y: int) -> Iterator[tuple[range, range]]:
        for first in range(rows.start, rows.stop, bin_y):
            yield frames, range(first, min(rows.stop, first + bin_y))

    def add_words(self, words: Any, offsets: Any, place: Any, tables: tuple[Any, ...], out: Any) -> bool:
        _, bin_x, table = tables
        if words.size and int(words.min()) < 0:
            raise InputError(f"{self.path.name!r} is damaged: it has counts below zero")
        total = words.reshape(-1, self.columns, self.channels).sum(axis=0, dtype=np.int64)
        columns, channels = out.shape[2:]
        used = np.flatnonzero(table[: self.channels] >= 0)
        joined = total[: columns * bin_x, used].reshape(columns, bin_x, channels, -1).sum(axis=(1, 3)) + out[0, 0]
        out[0, 0] = joined
        return bool(joined.max() >= limit_of(out))


def open_oxford(path: Path, *, signal: str | None, dataset: int | str | None) -> OxfordFile:
    """The map of an .h5oina file; ``dataset`` is the number (from 0) or the name of one of several acquisitions.

    Raises
    ------
    InputError
        For a file without spectra, one that is cut, and one whose sizes do not agree.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path.name!r} is truncated or no HDF5 file ({error}); copy it again") from None
    with file:
        found = {name: _spectra(file[name]) for name in file if isinstance(file[name], h5py.Group)}
        found = {name: spectra for name, spectra in found.items() if spectra}
        if not found:
            raise InputError(
                f"{path.name!r} has no EDX spectra, which Oxford files have since format 7.0; export the map again "
                "from AZtec 6.2 or later, with its spectra"
            )
        listed = list(found)
        name = listed[dataset] if isinstance(dataset, int) and 0 <= dataset < len(listed) else dataset or listed[0]
        if name not in found:
            raise InputError(f"there is no dataset {dataset!r} in {path.name!r}; it holds {', '.join(listed)}")
        first, *_ = found[str(name)]
        header = first.parent.parent["Header"] if "Header" in first.parent.parent else {}
        rows, columns = (_number(header, key, path) for key in ("Y Cells", "X Cells"))
        shapes = {spectra.shape for spectra in found[str(name)]}
        channels = first.shape[-1] if first.ndim == 2 else 0
        if shapes != {(int(rows * columns), channels)} or first.dtype.kind not in "iu":
            raise InputError(
                f"{path.name!r} is damaged: its header says {rows:g} x {columns:g} pixels, its spectra are "
                f"{first.dtype} of {', '.join(map(str, shapes))}; export it again"
            )
        described = _described(header, path, (int(rows), int(columns), channels))
        names = tuple(spectra.name for spectra in found[str(name)])
    return OxfordFile(
        path,
        described,
        rows=int(rows),
        columns=int(columns),
        frames=1,
        channels=channels,
        detectors=len(names),
        names=names,
    )


def _spectra(group: Any) -> list[Any]:
    """The spectra of an acquisition, one dataset for each detector."""
    names = sorted(name for name in group if re.fullmatch(r"EDS\d*", name))
    found = [group[name].get("Data/Spectrum") for name in names if hasattr(group[name], "keys")]
    return [spectra for spectra in found if hasattr(spectra, "shape")]


def _described(header: Any, path: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Axes and metadata in the form of RosettaSciIO."""
    step = {dim: abs(_number(header, f"{dim} Step", path)) for dim in "YX"}
    axes = [
        {
            "name": dim.lower(),
            "size": size,
            "scale": step[dim] or 1.0,
            "units": "µm" if step[dim] else "",
            "navigate": True,
        }
        for dim, size in zip("YX", shape, strict=False)
    ]
    first, width = _number(header, "Start Channel", path), _number(header, "Channel Width", path)
    # In keV, as the other formats of X-ray maps.
    energy = {"name": "Energy", "size": shape[2], "offset": first / 1e3, "scale": width / 1e3, "units": "keV"}
    instrument = {
        "beam_energy": _optional(header, "Beam Voltage"),
        "magnification": _optional(header, "Magnification"),
        "Detector": {
            "EDS": {
                "elevation_angle": _degrees(_optional(header, "Detector Elevation")),
                "azimuth_angle": _degrees(_optional(header, "Detector Azimuth")),
            }
        },
    }
    date, _, time = str(_optional(header, "Acquisition Date") or "").partition("T")
    metadata = {
        "General": {"title": str(_optional(header, "Analysis Label") or ""), "date": date, "time": time},
        "Signal": {"signal_type": "EDS_SEM"},
        "Acquisition_instrument": {"SEM": instrument},
    }
    empty = da.zeros(shape, dtype=np.uint16, chunks=shape)
    return {"data": empty, "axes": [*axes, {**energy, "navigate": False}], "metadata": metadata}


def _degrees(angle: Any) -> float | None:
    return None if angle is None else float(np.degrees(angle))


def _optional(header: Any, name: str) -> Any:
    """A value of the header, or None."""
    value = header[name] if name in header else None
    if value is None or not hasattr(value, "shape") or value.size != 1:
        return None
    (found,) = np.ravel(value[()])
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def _number(header: Any, name: str, path: Path) -> float:
    value = _optional(header, name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InputError(f"{path.name!r} is damaged: its header has no {name!r}; export it again")
    return number
