"""Files of other programs, opened lazily through RosettaSciIO (optional: extra ``io``).

RosettaSciIO is imported when the first such file is opened. How a file is cut into blocks is decided here: some 16 MiB,
the energy axis whole, whatever its reader proposes.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import STORAGE_CHUNK_BYTES, work_chunks
from scalehsi.io.vendor_signal import UNKNOWN, Plan, image_axes, merge_mapping, plan_of, signal_of, to_cube, to_image
from scalehsi.schema import ENERGY, InputError

logger = logging.getLogger("scalehsi")

ZARR: Final = ".zarr"
_FIRST: Final = ("HSPY", "MRC", "JEOL", "EMPAD")
"""Readers to ask first where several know an extension: the common ones, which also say no quickly."""
_HINTS: Final = {
    ".npz": "type scalehsi.make_cube(numpy.load(path)['name'], energy=..., energy_units='keV')",
    ".mat": "type scalehsi.make_cube(scipy.io.loadmat(path)['name'], energy=..., energy_units='eV')",
    ".csv": "a table is no spectrum image; read it with numpy.loadtxt and wrap it with scalehsi.make_cube",
    ".txt": "a table is no spectrum image; read it with numpy.loadtxt and wrap it with scalehsi.make_cube",
}
_LISTED: Final = 20


def read_vendor(
    path: Path,
    *,
    signal: str | None = None,
    dataset: int | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a file of another program as a lazy cube.

    Parameters
    ----------
    path : Path
    signal : str, optional
        "EDS", "EELS" or another signal type to look for when the file holds several; also written into the cube where
        the file does not say.
    dataset : int or str, optional
        Number (from 0, in the order of the file) or title of the signal. Default: the spectrum image.
    options : mapping, optional
        Passed to the reader of RosettaSciIO, such as ``{"sum_frames": False}`` for Velox and JEOL files.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed, no reader knows the file, or no spectrum is in it.
    """
    path = _companion(path)
    name, api, found = _read(path, dict(options or {}))
    index, plan = _choose(found, path, signal=signal, dataset=dataset)
    chosen = dict(found[index])
    original = chosen["data"]
    chosen["data"] = _cut(api, path, dict(options or {}), found, index, plan)
    shape = " x ".join(map(str, original.shape))
    attrs: dict[str, Any] = {
        "source": path.name,
        "history": [f"open: {path.name}, {name} file, {shape} {original.dtype}"],
    }
    if signal and signal_of(merge_mapping(chosen)) != signal:
        attrs["signal"] = signal
    cube = to_cube(chosen, plan, attrs=attrs)
    stored = getattr(_source(original), "chunks", None) if isinstance(original, da.Array) else None
    if stored is not None and len(plan.spectral) == 1:
        plane = (1 if axis is None else stored[axis] for axis in (plan.y, plan.x))
        cube.encoding["chunks"] = (*(stored[a] for a in plan.leading), *plane, stored[plan.spectral[0]])
    if cube[ENERGY].attrs["units"] == UNKNOWN:
        logger.info("%s: no unit of energy in the file; type cube.energy.attrs['units'] = 'eV'", path.name)
    return cube


def read_image(path: Path, *, dataset: int | str | None = None) -> xr.DataArray:
    """Open an image, such as HAADF, of a file of another program; the largest where there are several.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed, no reader knows the file, or no image is in it.
    """
    name, _, found = _read(path, {})
    wanted = range(len(found)) if dataset is None else [_by_name(found, path, dataset)]
    fitting = [i for i in wanted if image_axes(found[i]) is not None]
    if not fitting:
        which = "" if dataset is None else f"dataset {dataset!r} of "
        raise InputError(f"{which}{path.name!r} is no image of two axes; {_contents(found)}")
    index = max(fitting, key=lambda i: int(found[i]["data"].size))
    order = image_axes(found[index])
    assert order is not None
    shape = " x ".join(map(str, found[index]["data"].shape))
    history = [f"open: {path.name}, {name} file, {shape} {found[index]['data'].dtype}"]
    return to_image(found[index], order, attrs={"source": path.name, "history": history})


def extensions() -> list[str]:
    """The extensions of all formats that can be opened, in lower case.

    Raises
    ------
    InputError
        When RosettaSciIO is not installed.
    """
    plugins = _rosetta().IO_PLUGINS
    return sorted({ZARR} | {f".{e.lower()}" for p in plugins for e in p["file_extensions"]})


# Reading -------------------------------------------------------------------------------------------------------------


def _rosetta() -> ModuleType:
    try:
        return importlib.import_module("rsciio")
    except ImportError as error:
        raise InputError(
            "files of other programs are read through RosettaSciIO, which is not installed; "
            'type pip install "scalehsi[io]"'
        ) from error


def _companion(path: Path) -> Path:
    """The header beside a bare .raw file."""
    if path.suffix.lower() != ".raw":
        return path
    for suffix in (".rpl", ".RPL"):
        if path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix)
    raise InputError(f"{path.name!r} is bare numbers; its header {path.with_suffix('.rpl').name!r} is not beside it")


def _read(path: Path, options: dict[str, Any]) -> tuple[str, ModuleType, list[dict[str, Any]]]:
    """Ask the readers that know the extension, one after the other, until one finds signals."""
    rosetta = _rosetta()
    suffix = path.suffix.lower()
    plugins = [p for p in rosetta.IO_PLUGINS if suffix[1:] in {e.lower() for e in p["file_extensions"]}]
    if not plugins:
        hint = _HINTS.get(suffix, f"known are {', '.join(extensions())}")
        raise InputError(f"no reader for {path.name!r} ({suffix or 'it has no extension'}); {hint}")
    plugins.sort(key=lambda p: p["name"] not in _FIRST)
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
        # A parser that is not ours, on bytes that may be damaged, raises anything.
        except Exception as error:
            refused.append(f"{plugin['name']}: {_reason(error, path)}")
            continue
        if found:
            return plugin["name"], api, found
        refused.append(f"{plugin['name']}: nothing found in it")
    hint = f"; {_HINTS[suffix]}" if suffix in _HINTS else ""
    raise InputError(f"{path.name!r} cannot be read ({'; '.join(refused)}){hint}")


def _signals(api: ModuleType, path: Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    with _told():
        try:
            found = api.file_reader(str(path), **{"lazy": True, **_read_only(api), **options})
        except (NotImplementedError, TypeError):
            # No lazy reader, or (images) one that fails: read whole. A TypeError of an option's comes again.
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
def _told() -> Iterator[None]:
    """Put what a foreign parser warns of into our log.

    Its warnings are about the file and its own code, and it would print its log on standard output, which belongs to
    the results of a command.
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


def _choose(
    found: Sequence[dict[str, Any]], path: Path, *, signal: str | None, dataset: int | str | None
) -> tuple[int, Plan]:
    plans = [plan_of(s) for s in found]
    if dataset is not None:
        index = _by_name(found, path, dataset)
        if (plan := plans[index]) is None:
            raise InputError(f"dataset {dataset!r} of {path.name!r} is no spectrum image; {_contents(found)}")
        return index, plan
    fitting = [(i, p) for i, p in enumerate(plans) if p is not None]
    if not fitting:
        raise InputError(f"{path.name!r} holds no spectrum image; {_contents(found)}")
    kinds = [signal_of(merge_mapping(s)) for s in found]

    def merit(candidate: tuple[int, Plan]) -> tuple[bool, bool, bool, int]:
        i, plan = candidate
        wanted = signal is not None and kinds[i] == signal
        spatial = plan.x is not None or plan.y is not None
        return wanted, kinds[i] in ("EDS", "EELS") and spatial, spatial, int(np.prod(found[i]["data"].shape))

    index, plan = max(fitting, key=merit)
    if len(fitting) > 1:
        logger.info("%s: opened dataset %d of %d; %s", path.name, index, len(found), _contents(found))
    return index, plan


def _by_name(found: Sequence[dict[str, Any]], path: Path, dataset: int | str) -> int:
    titles = [_title(s) for s in found]
    if isinstance(dataset, int):
        if 0 <= dataset < len(found):
            return dataset
    else:
        for wanted, given in ((dataset, titles), (dataset.lower(), [t.lower() for t in titles])):
            if wanted in given:
                return given.index(wanted)
    raise InputError(f"there is no dataset {dataset!r} in {path.name!r}; {_contents(found)}")


def _title(signal: Mapping[str, Any]) -> str:
    return str(signal.get("metadata", {}).get("General", {}).get("title") or "")


def _contents(found: Sequence[dict[str, Any]]) -> str:
    listed = [
        f"{i} {_title(s)!r} ({' x '.join(map(str, s['data'].shape))} {s['data'].dtype})"
        for i, s in enumerate(found[:_LISTED])
    ]
    if len(found) > _LISTED:
        listed.append(f"and {len(found) - _LISTED} more")
    return f"it holds {', '.join(listed)}" if listed else "it holds nothing that is an array"


# Cutting into blocks -------------------------------------------------------------------------------------------------


def _cut(
    api: ModuleType,
    path: Path,
    options: dict[str, Any],
    found: Sequence[dict[str, Any]],
    index: int,
    plan: Plan,
) -> Any:
    """The data in blocks of whole spectra, without a reading of what the blocks do not hold."""
    data = found[index]["data"]
    if not isinstance(data, da.Array):
        return da.from_array(np.asarray(data), chunks=_blocks(data, plan, None))
    source = _source(data)
    if source is not None:
        # One array on disk (HDF5) or a list of events: blocks are cut anew, whole multiples of the stored chunks.
        blocks = _blocks(data, plan, getattr(source, "chunks", None))
        empty = np.empty((0,) * data.ndim, data.dtype)
        return da.from_array(source, chunks=blocks, meta=empty).astype(data.dtype)
    if "chunks" in inspect.signature(api.file_reader).parameters and "chunks" not in options:
        # Memory maps: the reader is asked again, which costs a look at the header.
        wanted = dict(enumerate(_blocks(data, plan, None)))
        with contextlib.suppress(Exception):  # what it cannot do with these chunks, it did without them
            again = _signals(api, path, {**options, "chunks": wanted})
            if len(again) == len(found) and again[index]["data"].shape == data.shape:
                data = again[index]["data"]
        _check_end(data, path)
    return data.rechunk(dict.fromkeys(plan.spectral, -1))


def _blocks(data: Any, plan: Plan, stored: tuple[int, ...] | None) -> tuple[tuple[int, ...], ...]:
    """Chunks of about 16 MiB in the order of the array, spectra whole."""
    order = plan.order
    navigation = [a for a in order if a not in plan.spectral]
    channels = int(np.prod([data.shape[a] for a in plan.spectral]))
    shape = (*(data.shape[a] for a in navigation), channels) if navigation else (1, channels)
    tile = None if stored is None or not navigation else [stored[a] for a in navigation]
    cut = work_chunks(shape, data.dtype.itemsize, storage=tile, block_bytes=STORAGE_CHUNK_BYTES)
    sizes = dict(zip(navigation, cut, strict=False))
    return tuple(sizes.get(a, (data.shape[a],)) for a in range(data.ndim))


def _source(data: da.Array) -> Any:
    """The array on disk behind a dask array that is nothing but views of it, or None."""
    layers: Mapping[str, Any] = getattr(data.__dask_graph__(), "layers", {})
    names = [n for n in layers if not n.startswith("astype-")]
    originals = [n for n in names if n.startswith("original-")]
    if len(originals) != 1 or sorted(names) != sorted((originals[0], originals[0].removeprefix("original-"))):
        return None
    held = next(iter(dict(layers[originals[0]]).values()))
    held = getattr(held, "value", held)
    return held if getattr(held, "shape", None) == data.shape else None


def _check_end(data: da.Array, path: Path) -> None:
    """Look at the last value, which a file cut short does not have."""
    last = data[tuple(slice(-1, None) for _ in data.shape)]
    try:
        last.compute(scheduler="synchronous")
    except (ValueError, OSError) as error:
        raise InputError(f"{path.name!r} is truncated: its header promises more than it holds ({error})") from error
