"""Open everything that a file holds together: its spectrum images and its images."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from scalehsi.io.events.velox import without_events
from scalehsi.io.open import PathLike, existing_path, open_cube
from scalehsi.io.rosettasciio import Entry, read_contents
from scalehsi.io.save import as_dataset
from scalehsi.schema import InputError

logger = logging.getLogger("scalehsi")


def open_tree(path: PathLike) -> xr.DataTree:
    """Open all spectrum images and images of a file lazily, such as a map with its HAADF and survey images.

    Parameters
    ----------
    path : path
        A file of any format that RosettaSciIO reads (Bruker .bcf, Velox .emd, JEOL .ASW, Gatan .dm4, ...).

    Returns
    -------
    xarray.DataTree
        A node for each signal of the file. A spectrum image is the variable ``counts`` as `open_cube` opens it, in a
        node named by its signal (``tree["eds"]["counts"]``), of several with one signal by its title. An image is the
        variable ``image`` (y, x) in a node named by its title (``tree["haadf"]["image"]``). ``attrs["title"]`` of a
        variable has the title as it is.

    Raises
    ------
    InputError
        When the path does not exist or is a Zarr store, the format is unknown, or the file holds neither a spectrum
        image nor an image.

    Notes
    -----
    The header is read once for the images and once for each spectrum image. Signals of other kinds, such as stacks of
    images, are left out; `scalehsi info` lists them.

    Examples
    --------
    >>> import tempfile, scalehsi as hsi
    >>> cube = hsi.simulate.chequerboard((6, 8), n_channels=64).cube
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     hsi.to_hyperspy(cube.compute()).save(folder + "/scan.hspy")
    ...     hsi.open_tree(folder + "/scan.hspy")["eels"]["counts"].shape
    (6, 8, 64)
    """
    source = existing_path(path)
    if not is_file_of_others(source):
        raise InputError(
            f"{str(path)!r} is a Zarr store; open its cube with scalehsi.open_cube, and all that it holds with "
            f"xarray.open_datatree({str(path)!r}, engine='zarr')"
        )
    entries, images = contents_of(source)
    nodes: dict[str, xr.Dataset] = {}
    for entry, name in zip(entries, _names(entries, source), strict=True):
        if not entry.kind:
            logger.info("%s: dataset %d %r %s is left out", source.name, entry.number, entry.title, entry.shape)
            continue
        opened = images[entry.number] if entry.kind == "image" else open_cube(source, dataset=entry.number)
        nodes[f"/{name}"] = with_close(opened)
    if not nodes:
        raise InputError(
            f"{source.name!r} holds neither a spectrum image nor an image; scalehsi info lists what it holds"
        )
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs["source"] = source.name
    return tree


def contents_of(path: Path) -> tuple[list[Entry], dict[int, xr.DataArray]]:
    """What a file of another program holds, and its images by number; see `read_contents`. Events are not read."""
    if path.suffix.lower() == ".pts":  # a map and nothing else
        cube = open_cube(path)
        title, signal = (str(cube.attrs.get(name, "")) for name in ("title", "signal"))
        return [Entry(0, title, "cube", signal, cube.shape, str(cube.dtype))], {}
    if path.suffix.lower() != ".emd":
        return read_contents(path)
    with without_events(path) as light:
        entries, images = read_contents(light)
        return entries, images if light == path else {number: image.compute() for number, image in images.items()}


def is_file_of_others(path: Path) -> bool:
    """Whether a path is a file (or a .zspy folder) of another program, and no store."""
    return path.suffix.lower() == ".zspy" or not path.is_dir()


def with_close(data: xr.DataArray) -> xr.Dataset:
    """A Dataset with the cube or image as its only variable, which closes its file."""
    dataset = as_dataset(data)
    dataset.set_close(data.close)
    return dataset


def _names(entries: Sequence[Entry], path: Path) -> list[str]:
    """A name for the node of each entry, each different. path: of the file."""
    own = [_word(e.title) if _word(e.title) != _word(path.stem) else "" for e in entries]
    cubes = Counter(e.signal for e in entries if e.kind == "cube")
    names = [
        e.signal.lower() if e.kind == "cube" and e.signal in ("EDS", "EELS") and cubes[e.signal] == 1 else word
        for e, word in zip(entries, own, strict=True)
    ]
    names = [name or {"image": "image"}.get(e.kind, "spectra") for e, name in zip(entries, names, strict=True)]
    counted = Counter(names)
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        if counted[name] > 1:
            seen[name] += 1
            names[i] = f"{name}_{seen[name]}"
    return names


def _word(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower()).strip("_")
