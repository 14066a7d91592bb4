"""Read the event stream of a Velox file (.emd): one stream for each segment of the detector, whose sum is the map.

A word below 65535 is an X-ray in that channel; 65535 ends a pixel. Pixels follow in raster order, frame after frame.
The size of the map is that of the images; how many frames Velox shows is ``endFramePosition``. Axes and metadata come
from RosettaSciIO, which reads a small copy of the file with one word in each stream.
"""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from scalehsi.io.events.file import PIECE_WORDS, EventFile, Read, Report, limit_of, without_values
from scalehsi.io.events.loops import END_OF_PIXEL, add_velox, index_velox
from scalehsi.io.rosettasciio import choose, signals_of
from scalehsi.schema import InputError

STREAMS: Final = "Data/SpectrumStream"
IMAGES: Final = "Data/SpectrumImage"
EELS: Final = "Data/EelsSpectrumImage"
LONGEST_TEXT: Final = 2**20
"""Bytes of a setting in the file."""


@dataclass
class VeloxFile(EventFile):
    """The streams of a Velox file."""

    kind: ClassVar[str] = "Velox"

    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    beyond: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """Of each detector, for each frame: the row at which it ends, and the words above the last channel."""

    @property
    def words(self) -> int:
        return sum(self.sizes)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        with _opened(self.path) as file:
            streams = [file[f"{STREAMS}/{name}/Data"] for name in self.names]
            if tuple(s.shape[0] for s in streams) != self.sizes:
                raise InputError(f"{self.path.name!r} changed while it was read; open it again")
            yield lambda detector, first, stop: streams[detector][first:stop, 0]

    def find_rows(self, read: Read, report: Report) -> None:
        starts, beyond = [], []
        for detector, size in enumerate(self.sizes):
            rows = np.zeros(size // self.columns + 2, np.int64)  # a row has as many words as columns, or more
            frames = np.zeros((rows.size // self.rows + 1, 2), np.int64)
            frames[:, 0] = self.rows * np.arange(1, len(frames) + 1)
            state = np.zeros(2, np.int64)
            for first in range(0, size, PIECE_WORDS):
                words = read(detector, first, min(size, first + PIECE_WORDS))
                index_velox(words, first, self.columns, self.channels, state, rows, frames)
                report(words.size)
            done, rest = map(int, state)
            # X-rays after the last marker are those of a pixel that is not over, unless a frame has just ended.
            ended = done + (rest > 0 or (int(rows[done]) < size and done % self.rows > 0))
            rows[ended] = size if ended > done else rows[done]
            self._check_pixels(done * self.columns + rest)
            starts.append(rows[: ended + 1].copy())
            beyond.append(frames[: -(-ended // self.rows)])
        self.starts, self.beyond = starts, beyond
        lost = sum(int(b[:, 1].sum()) for b in beyond)
        if lost:
            self.notes.append(f"{lost} words above the last channel, {self.channels - 1}, are left out")
        found = self.frames_found
        if found != self.frames:
            self.notes.append(f"the stream holds {found} frames, the file names {self.frames}")

    def _check_pixels(self, pixels: int) -> None:
        """Refuse a stream that has next to nothing of the map."""
        if 100 * pixels < self.rows * self.columns:
            raise InputError(
                f"{self.path.name!r} is truncated: its stream ends at pixel {pixels} of "
                f"{self.rows * self.columns} in the first frame; copy it again"
            )

    def counts_per_frame(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        self.index()
        counts = np.zeros(max(self.frames, self.frames_found), np.int64)
        with self.reading() as read:
            for detector, beyond in enumerate(self.beyond):
                for frame in range(len(beyond)):
                    first, stop = self._start(detector, frame, 0), self._start(detector, frame + 1, 0)
                    markers = self.rows * self.columns
                    if frame == len(beyond) - 1:  # its last pixels may be missing
                        parts = range(first, stop, PIECE_WORDS)
                        markers = sum(
                            int(np.count_nonzero(read(detector, a, min(stop, a + PIECE_WORDS)) == END_OF_PIXEL))
                            for a in parts
                        )
                    counts[frame] += stop - first - markers - int(beyond[frame, 1])
        return counts

    def add_words(self, words: Any, offsets: Any, place: Any, tables: tuple[Any, ...], out: Any) -> bool:
        return bool(add_velox(words, offsets, *tables, limit_of(out), out))


def open_velox(path: Path, *, signal: str | None, dataset: int | str | None) -> VeloxFile | None:
    """The event streams of a .emd file; None for one without, such as an EELS map of Velox or another program's .emd.

    Raises
    ------
    InputError
        For a file that Velox saved pruned, one that is cut, and one whose streams have another encoding.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise InputError(f"{path.name!r} is truncated ({_first_line(error)}); copy it again") from None
        return None
    with file:
        streams = _group(file, STREAMS)
        if not streams:
            if not _group(file, IMAGES) or _group(file, EELS) or dataset is not None:
                return None
            raise InputError(
                f"{path.name!r} holds no event stream, only Velox's own packed map (it was saved pruned); "
                "save it in Velox without pruning"
            )
        names = tuple(name for name in streams if isinstance(streams[name], h5py.Group) and "Data" in streams[name])
        if not names:
            raise InputError(f"{path.name!r} is damaged: its streams are empty; copy it again")
        channels, sizes = set(), []
        for name in names:
            data, settings = streams[name]["Data"], _json(streams[name].get("AcquisitionSettings"))
            encoding = str(settings.get("StreamEncoding", "uint16"))
            if encoding != "uint16" or data.dtype != np.uint16 or data.ndim != 2 or data.shape[1] != 1:
                raise InputError(
                    f"{path.name!r} has a stream of {data.dtype} {data.shape} in the encoding {encoding!r}, "
                    "one column of uint16 is known; export the map from Velox in another format"
                )
            channels.add(_number(settings.get("bincount"), 4096))
            sizes.append(int(data.shape[0]))
        stored = max(channels)
        shown = [_number(_json(g.get("SpectrumImageSettings")).get("endFramePosition"), 0) for g in _groups(file)]
        _check_claims(file, path, stored)
    found = _described(path, signal, dataset)
    if found is None:
        return None
    rows, columns, energies = found["data"].shape
    frames = max([n for n in shown if n > 0], default=0)
    made = VeloxFile(
        path,
        found,
        rows=int(rows),
        columns=int(columns),
        frames=max(1, frames),
        channels=int(energies),
        detectors=len(names),
        names=names,
        sizes=tuple(sizes),
    )
    if not frames:  # no word about it: all that there are
        made.index()
        made.frames = made.frames_found
        made.notes.clear()
    return made


def _check_claims(file: Any, path: Path, channels: int) -> None:
    """Refuse sizes that no scan has, before anybody makes an array of them."""
    shapes = [g["Data"].shape for g in _groups(file, "Data/Image") if "Data" in g]
    VeloxFile(
        path,
        {},
        rows=max((int(s[0]) for s in shapes), default=1),
        columns=max((int(s[1]) for s in shapes if len(s) > 1), default=1),
        frames=1,
        channels=channels,
    )


def _described(path: Path, signal: str | None, dataset: int | str | None) -> dict[str, Any] | None:
    """Axes and metadata of the map, from RosettaSciIO and a copy of the file without its streams and images.

    None when the user asks for another signal of the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        _write_copy(path, copy, images=False)
        found = signals_of(copy)
        if not any(_is_map(s) for s in found):
            raise InputError(f"{path.name!r} has an event stream, but no image that gives the size of its map")
        number, _ = choose(found, path, signal=signal, dataset=dataset)
        described = without_values(found[number]) if _is_map(found[number]) else None
    del found
    gc.collect()  # the reader holds itself, and so the files, which could not be written again
    return described


def _is_map(signal: Mapping[str, Any]) -> bool:
    kind = str(signal["metadata"].get("Signal", {}).get("signal_type", ""))
    return len(signal["data"].shape) == 3 and kind.startswith("EDS")


@contextlib.contextmanager
def without_events(path: Path) -> Iterator[Path]:
    """A small copy of a Velox file for a reader of all but its event streams, while the block lasts.

    Any other file as it is.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            streams = _group(file, STREAMS) is not None
    except OSError:  # the reader says what is wrong with it
        streams = False
    if not streams:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        _write_copy(path, copy, images=True)
        yield copy


def _write_copy(path: Path, copy: Path, *, images: bool) -> None:
    try:
        _write_without_data(path.absolute(), copy, images=images)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path.name!r} is damaged ({_first_line(error)}); copy it again") from error


def _write_without_data(path: Path, copy: Path, *, images: bool) -> None:
    """Write a file that refers to another one for all but its streams; images: also its images."""
    import h5py

    with h5py.File(path, "r") as file, h5py.File(copy, "w") as short:
        for name in file:
            if name != "Data":
                short[name] = h5py.ExternalLink(str(path), f"/{name}")
        for kind in file["Data"]:
            if kind != "SpectrumStream" and (images or kind != "Image"):
                short[f"Data/{kind}"] = h5py.ExternalLink(str(path), f"/Data/{kind}")
                continue
            for name, group in file[f"Data/{kind}"].items():
                made = short.create_group(f"Data/{kind}/{name}")
                for part in group:
                    if part != "Data":
                        made[part] = h5py.ExternalLink(str(path), f"{group.name}/{part}")
                if "Data" not in group:
                    continue
                if kind == "SpectrumStream":
                    made.create_dataset("Data", data=np.full((1, 1), END_OF_PIXEL, "u2"), chunks=(1, 1))
                else:  # never contiguous, which RosettaSciIO's lazy reader refuses; no values, so no bytes
                    shape = group["Data"].shape
                    made.create_dataset(
                        "Data", shape, group["Data"].dtype, chunks=(*shape[:2], *(1,) * (len(shape) - 2))
                    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError) as error:
        raise InputError(f"{path.name!r} cannot be read any more ({_first_line(error)}); copy it again") from error


def _group(file: Any, name: str) -> Any:
    import h5py

    found = file.get(name)
    return found if isinstance(found, h5py.Group) and len(found) else None


def _groups(file: Any, name: str = IMAGES) -> list[Any]:
    group = _group(file, name)
    return [] if group is None else [g for g in group.values() if hasattr(g, "keys")]


def _json(dataset: Any) -> dict[str, Any]:
    """The settings in a dataset of one text; empty where there are none."""
    if dataset is None or dataset.shape != (1,):
        return {}
    text = dataset[0]
    if not isinstance(text, bytes | str) or len(text) > LONGEST_TEXT:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(given: Any, otherwise: int) -> int:
    try:
        return int(given)
    except (TypeError, ValueError):
        return otherwise


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
