"""Open files of other programs lazily through RosettaSciIO (optional: extra ``io``).

RosettaSciIO is imported when the first such file is opened. Files are read in blocks of about 16 MiB with the energy
axis whole, independent of the reader's own blocks.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import STORAGE_CHUNK_BYTES, work_chunks
from scalehsi.io.repairs import NOTHING, Repairs
from scalehsi.io.vendor_signal import (
    UNKNOWN_UNITS,
    AxisRoles,
    axes_of,
    axis_roles,
    image_axes,
    signal_type,
    to_cube,
    to_image,
)
from scalehsi.schema import ENERGY, InputError

logger = logging.getLogger("scalehsi")

_FIRST_READERS: Final = ("HSPY", "MRC", "JEOL", "EMPAD")
"""Readers to try first where several know an extension: they are common, and refuse a wrong file quickly."""
_HINTS: Final = {
    ".oip": "a project of AZtec is not published; export .h5oina from AZtec 6.2 or later, or raw with rpl",
    ".npz": "type scalehsi.make_cube(numpy.load(path)['name'], energy=..., energy_units='keV')",
    ".mat": "type scalehsi.make_cube(scipy.io.loadmat(path)['name'], energy=..., energy_units='eV')",
    ".csv": "a table is no spectrum image; read it with numpy.loadtxt and wrap it with scalehsi.make_cube",
    ".txt": "a table is no spectrum image; read it with numpy.loadtxt and wrap it with scalehsi.make_cube",
}
_MAX_LISTED_SIGNALS: Final = 20


def read_vendor(
    path: Path,
    *,
    signal: str | None = None,
    dataset: int | str | None = None,
    options: Mapping[str, Any] | None = None,
    repairs: Repairs = NOTHING,
) -> xr.DataArray:
    """Open a file of another program as a lazy cube.

    Parameters
    ----------
    path : Path
    signal : str, optional
        Signal type to choose ("EDS", "EELS" or another) when the file holds several; also written into the cube when
        the file does not name it.
    dataset : int or str, optional
        Number (from 0, in the order of the file) or title of the signal. Default: the spectrum image.
    options : mapping, optional
        Passed to the reader of RosettaSciIO, such as ``{"sum_frames": False}`` for Velox and JEOL files.
    repairs : Repairs, optional
        What the user says about its calibration.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed, no reader knows the file, or it holds no spectrum.
    """
    path = _header_of_raw(path)
    name, api, found = _read(path, dict(options or {}))
    index, roles = choose(found, path, signal=signal, dataset=dataset)
    chosen = dict(found[index])
    original = chosen["data"]
    chosen["data"] = _in_blocks(api, path, dict(options or {}), found, index, roles)
    shape = " x ".join(map(str, original.shape))
    attrs: dict[str, Any] = {
        "source": path.name,
        "history": [f"open: {path.name}, {name} file, {shape} {original.dtype}"],
    }
    if signal and signal_type(chosen) != signal:
        attrs["signal"] = signal
    cube = to_cube(chosen, roles, attrs=attrs, repairs=repairs)
    on_disk = _array_on_disk(original) if isinstance(original, da.Array) else None
    stored = getattr(on_disk, "chunks", None)
    if hasattr(on_disk, "file"):
        cube.set_close(on_disk.file.close)  # an HDF5 file that is open here cannot be written again
    if stored is not None and len(roles.spectral) == 1:
        plane = (1 if axis is None else stored[axis] for axis in (roles.y, roles.x))
        cube.encoding["chunks"] = (*(stored[a] for a in roles.leading), *plane, stored[roles.spectral[0]])
    if cube[ENERGY].attrs["units"] == UNKNOWN_UNITS:
        logger.info(
            "%s: no unit of energy in the file; scalehsi.open_cube and scalehsi.convert take it as energy='eV'",
            path.name,
        )
    return cube


def read_image(path: Path, *, dataset: int | str | None = None) -> xr.DataArray:
    """Open an image, such as HAADF, from a file of another program.

    Default: the largest. ``dataset`` is a number (from 0) or a title.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed, no reader knows the file, or it holds no image.
    """
    name, _, found = _read(path, {})
    wanted = range(len(found)) if dataset is None else _by_name(found, path, dataset)
    fitting = [i for i in wanted if image_axes(found[i]) is not None]
    if not fitting:
        which = "" if dataset is None else f"dataset {dataset!r} of "
        raise InputError(f"{which}{path.name!r} is no image of two axes; {_contents(found)}")
    index = max(fitting, key=lambda i: int(found[i]["data"].size))
    order = image_axes(found[index])
    assert order is not None
    return _image(found[index], order, path, name)


def _image(signal: Mapping[str, Any], order: tuple[int, int], path: Path, reader: str) -> xr.DataArray:
    """An image of a file, with its origin; ``order`` is from `image_axes`, ``reader`` the name of its format."""
    shape = " x ".join(map(str, signal["data"].shape))
    history = [f"open: {path.name}, {reader} file, {shape} {signal['data'].dtype}"]
    return to_image(signal, order, attrs={"source": path.name, "history": history})


class Entry(NamedTuple):
    """One signal of a file: its number (from 0), title, kind ("cube", "image" or ""), signal type, shape and dtype."""

    number: int
    title: str
    kind: str
    signal: str
    shape: tuple[int, ...]
    dtype: str


def read_contents(path: Path) -> tuple[list[Entry], dict[int, xr.DataArray]]:
    """What a file of another program holds, and its images by number. Spectra are not read.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed, or no reader knows the file.
    """
    path = _header_of_raw(path)
    name, _, found = _read(path, {})
    orders = {i: order for i, each in enumerate(found) if (order := image_axes(each)) is not None}
    kinds = ["image" if i in orders else "cube" if axis_roles(each) else "" for i, each in enumerate(found)]
    entries = [
        Entry(i, _title(each), kind, signal_type(each), tuple(each["data"].shape), str(each["data"].dtype))
        for i, (each, kind) in enumerate(zip(found, kinds, strict=True))
    ]
    return entries, {i: _image(found[i], order, path, name) for i, order in orders.items()}


def signals_of(path: Path, options: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """All signals of a file in the form of RosettaSciIO, lazy where its reader is: axes and metadata for other readers.

    ``options`` are for its reader.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed, or no reader knows the file.
    """
    return _read(path, dict(options or {}))[2]


def extensions() -> list[str]:
    """The extensions of all formats that can be opened, in lower case.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed.
    """
    plugins = _rosetta().IO_PLUGINS
    return sorted({".zarr"} | {f".{e.lower()}" for p in plugins for e in p["file_extensions"]})


# Reading -------------------------------------------------------------------------------------------------------------


def _rosetta() -> ModuleType:
    try:
        return importlib.import_module("rsciio")
    except ImportError as error:
        raise InputError(
            "files of other programs are read through RosettaSciIO, which is not installed; "
            'type pip install "scalehsi[io]"'
        ) from error


def _header_of_raw(path: Path) -> Path:
    """The header file (.rpl) beside a .raw file, which holds values only; any other path unchanged."""
    if path.suffix.lower() != ".raw":
        return path
    for suffix in (".rpl", ".RPL"):
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    header = path.with_suffix(".rpl").name
    raise InputError(f"{path.name!r} holds bare numbers; put its header {header!r} beside it")


def _read(path: Path, options: dict[str, Any]) -> tuple[str, ModuleType, list[dict[str, Any]]]:
    """Try the readers that know the extension, one after the other, until one finds signals.

    Returns the reader's name, its module and the signals; ``options`` go to the reader.
    """
    rosetta = _rosetta()
    suffix = path.suffix.lower()
    plugins = [p for p in rosetta.IO_PLUGINS if suffix[1:] in {e.lower() for e in p["file_extensions"]}]
    if not plugins:
        hint = _HINTS.get(suffix, f"known are {', '.join(extensions())}")
        raise InputError(f"no reader for {path.name!r} ({suffix or 'it has no extension'}); {hint}")
    plugins.sort(key=lambda p: p["name"] not in _FIRST_READERS)
    refused = []
    for plugin in plugins:
        try:
            api = importlib.import_module(plugin["api"])
            found = _signals(api, path, options)
        except MemoryError:
            raise
        except ImportError as error:
            missing = error.name or error
            refused.append(
                f'{plugin["name"]}: needs {missing}; type pip install "scalehsi[io]" or pip install {missing}'
            )
            continue
        # A parser of another project, on a file that may be damaged, may raise anything.
        except Exception as error:
            refused.append(f"{plugin['name']}: {_reason(error, path)}")
            continue
        if found:
            return plugin["name"], api, found
        refused.append(f"{plugin['name']}: nothing found in it")
    hint = f"; {_HINTS[suffix]}" if suffix in _HINTS else ""
    raise InputError(f"{path.name!r} cannot be read ({'; '.join(refused)}){hint}")


def _signals(api: ModuleType, path: Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    with _warnings_logged():
        try:
            found = api.file_reader(str(path), **{"lazy": True, **_read_only(api), **options})
        except (NotImplementedError, TypeError, ValueError):
            # No lazy reader, or one that fails (images, HDF5 without chunks): read whole. A wrong option raises its
            # TypeError again, and a damaged file its ValueError.
            found = api.file_reader(str(path), **options)
            total = sum(getattr(s.get("data"), "nbytes", 0) for s in found)
            logger.info("%s: its format has no lazy reader, %.1f MB were read into memory", path.name, total / 1e6)
    return [s for s in found if hasattr(s.get("data"), "shape")]


def _read_only(api: ModuleType) -> dict[str, str]:
    # The .zspy reader asks for write access when it is lazy.
    return {"mode": "r"} if api.__name__ == "rsciio.zspy" else {}


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError) and error.filename and Path(error.filename).name != path.name:
        return f"it refers to {Path(error.filename).name!r}, which is not beside it"
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.info("RosettaSciIO: %s", record.getMessage())


@contextlib.contextmanager
def _warnings_logged() -> Iterator[None]:
    """Send the warnings and the log of RosettaSciIO to our log.

    Its own log would go to standard output, which belongs to the results of a command.
    """
    theirs = logging.getLogger("rsciio")
    handlers, propagate = theirs.handlers[:], theirs.propagate
    theirs.handlers[:], theirs.propagate = [_Forward()], False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            logger.info("RosettaSciIO: %s", warning.message)
    finally:
        theirs.handlers[:], theirs.propagate = handlers, propagate


# Choosing ------------------------------------------------------------------------------------------------------------


def choose(
    found: Sequence[dict[str, Any]], path: Path, *, signal: str | None, dataset: int | str | None
) -> tuple[int, AxisRoles]:
    """Choose a signal among those ``found``, as `read_vendor` describes: its number, and the roles of its axes."""
    candidates = [axis_roles(s) for s in found]
    # Several signals of a file may have one title, such as a map and its sum.
    named = range(len(found)) if dataset is None else _by_name(found, path, dataset)
    fitting = [(i, roles) for i in named if (roles := candidates[i]) is not None]
    if not fitting and dataset is not None:
        raise InputError(f"dataset {dataset!r} of {path.name!r} is no spectrum image; {_contents(found)}")
    if not fitting:
        for each in found:
            axes_of(each)  # says what is wrong with axes that do not fit the data
        raise InputError(f"{path.name!r} holds no spectrum image; {_contents(found)}")
    kinds = [signal_type(s) for s in found]

    def preference(candidate: tuple[int, AxisRoles]) -> tuple[bool, bool, bool, int]:
        i, roles = candidate
        wanted = signal is not None and kinds[i] == signal
        spatial = roles.x is not None or roles.y is not None
        return wanted, kinds[i] in ("EDS", "EELS") and spatial, spatial, int(np.prod(found[i]["data"].shape))

    index, roles = max(fitting, key=preference)
    if len(fitting) > 1 and not isinstance(dataset, numbers.Integral):
        logger.info("%s: opened dataset %d of %d; %s", path.name, index, len(found), _contents(found))
    return index, roles


def _by_name(found: Sequence[dict[str, Any]], path: Path, dataset: int | str) -> list[int]:
    """The numbers of the signals with this number or title, among those found in the file."""
    titles = [_title(s) for s in found]
    if isinstance(dataset, numbers.Integral):
        if 0 <= dataset < len(found):
            return [int(dataset)]
    else:
        word = str(dataset)
        for wanted, given in ((word, titles), (word.lower(), [t.lower() for t in titles])):
            if wanted in given:
                return [i for i, title in enumerate(given) if title == wanted]
    raise InputError(f"there is no dataset {dataset!r} in {path.name!r}; {_contents(found)}")


def _title(signal: Mapping[str, Any]) -> str:
    return str(signal.get("metadata", {}).get("General", {}).get("title") or "")


def _contents(found: Sequence[dict[str, Any]]) -> str:
    listed = [
        f"{i} {_title(s)!r} ({' x '.join(map(str, s['data'].shape))} {s['data'].dtype})"
        for i, s in enumerate(found[:_MAX_LISTED_SIGNALS])
    ]
    if len(found) > _MAX_LISTED_SIGNALS:
        listed.append(f"and {len(found) - _MAX_LISTED_SIGNALS} more")
    return f"it holds {', '.join(listed)}" if listed else "it holds nothing that is an array"


# Cutting into blocks -------------------------------------------------------------------------------------------------


def _in_blocks(
    api: ModuleType,
    path: Path,
    options: dict[str, Any],
    found: Sequence[dict[str, Any]],
    index: int,
    roles: AxisRoles,
) -> Any:
    """Cut the data into blocks of whole spectra, each read from the file on its own where the reader allows it.

    Parameters
    ----------
    api, path, options
        The reader's module, the file, and the options of the user.
    found, index, roles
        The signals of the file, the number of the chosen one, and the roles of its axes.
    """
    data = found[index]["data"]
    if not isinstance(data, da.Array):
        return da.from_array(np.asarray(data), chunks=_blocks(data, roles, None))
    source = _array_on_disk(data)
    if source is not None:
        # One array on disk (HDF5) or a list of events: new blocks of whole stored chunks.
        blocks = _blocks(data, roles, getattr(source, "chunks", None))
        empty = np.empty((0,) * data.ndim, data.dtype)
        return da.from_array(source, chunks=blocks, meta=empty).astype(data.dtype)
    if "chunks" in inspect.signature(api.file_reader).parameters and "chunks" not in options:
        # Memory maps: the reader is called again, which costs one reading of the header.
        wanted = dict(enumerate(_blocks(data, roles, None)))
        with contextlib.suppress(Exception):  # a reader that fails with these chunks has read the file without them
            second = _signals(api, path, {**options, "chunks": wanted})
            if len(second) == len(found) and second[index]["data"].shape == data.shape:
                data = second[index]["data"]
        _check_last_value(data, path)
    return data.rechunk(dict.fromkeys(roles.spectral, -1))


def _blocks(data: Any, roles: AxisRoles, stored: tuple[int, ...] | None) -> tuple[tuple[int, ...], ...]:
    """Chunks of about 16 MiB along each axis of ``data``, spectra whole, in multiples of the ``stored`` chunks."""
    order = roles.order
    navigation = [a for a in order if a not in roles.spectral]
    channels = int(np.prod([data.shape[a] for a in roles.spectral]))
    shape = (*(data.shape[a] for a in navigation), channels) if navigation else (1, channels)
    tile = None if stored is None or not navigation else [stored[a] for a in navigation]
    cut = work_chunks(shape, data.dtype.itemsize, storage=tile, block_bytes=STORAGE_CHUNK_BYTES)
    sizes = dict(zip(navigation, cut, strict=False))
    return tuple(sizes.get(a, (data.shape[a],)) for a in range(data.ndim))


def _array_on_disk(data: da.Array) -> Any:
    """The array on disk when the dask array consists of views of one, or None."""
    layers: Mapping[str, Any] = getattr(data.__dask_graph__(), "layers", {})
    names = [n for n in layers if not n.startswith("astype-")]
    originals = [n for n in names if n.startswith("original-")]
    if len(originals) != 1 or sorted(names) != sorted((originals[0], originals[0].removeprefix("original-"))):
        return None
    array = next(iter(dict(layers[originals[0]]).values()))
    array = getattr(array, "value", array)
    return array if getattr(array, "shape", None) == data.shape else None


def _check_last_value(data: da.Array, path: Path) -> None:
    """Refuse a truncated file: read its last value."""
    last = data[tuple(slice(-1, None) for _ in data.shape)]
    try:
        last.compute(scheduler="synchronous")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path.name!r} is truncated: its header describes more than it holds ({error}); copy it again"
        ) from error
