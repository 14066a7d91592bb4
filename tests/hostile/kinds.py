"""The registry of hostile kinds, and the tools that spoil a good store."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import zarr

Subject = Literal["cube", "result", "checkpoint"]


class Kind(NamedTuple):
    """A way to spoil what a command reads: a good copy of the subject is made, then ``spoil`` changes it."""

    subject: Subject
    spoil: Callable[[Path], None]


KINDS: dict[str, Kind] = {}


def kind(subject: Subject, name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a function that spoils a subject."""

    def add(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
        assert name not in KINDS, name
        KINDS[name] = Kind(subject, spoil)
        return spoil

    return add


def planted(name: str, good: Path, place: Path) -> Path:
    """Copy the good subject of a kind from a folder of `plant` into another folder, and spoil it."""
    subject, spoil = KINDS[name]
    path = place / {"cube": "map.zarr", "result": "result.zarr", "checkpoint": "run.ckpt"}[subject]
    shutil.copytree(good / path.name, path)
    spoil(path)
    return path


def plant(folder: Path) -> None:
    """Make the good cube, truth, result and checkpoint that the kinds start from, small ones of X-ray counts."""
    import scalehsi as hsi
    from scalehsi.io import save

    cube, truth = hsi.simulate.chequerboard((8, 8), n_channels=64, signal="EDS", seed=1)
    save(cube, folder / "map.zarr")
    save(truth, folder / "truth.zarr")
    save(hsi.fit(cube, hsi.NMF(2, max_iter=2)), folder / "result.zarr")
    hsi.fit(hsi.open_cube(folder / "map.zarr"), hsi.NMF(2, max_iter=2), checkpoint=folder / "run.ckpt")


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON document; what the change returns, if anything, takes its place."""
    document = json.loads(file.read_text())
    file.write_text(json.dumps(change(document) or document))


def edit_array(store: Path, name: str, **fields: Any) -> None:
    """Set fields of the metadata of an array; the store is then that of another program."""
    edit(store / name / "zarr.json", lambda d: d.update(fields))
    foreign(store)


def attrs(store: Path, name: str = "", **values: Any) -> None:
    """Set attributes of an array, or of the root."""
    edit(store / name / "zarr.json", lambda d: d["attributes"].update(values))


def foreign(store: Path) -> None:
    """Take away the mark of a complete store of ours, and the copies of metadata in the root."""

    def change(document: dict[str, Any]) -> None:
        document.pop("consolidated_metadata", None)
        document["attributes"].pop("scalehsi", None)

    edit(store / "zarr.json", change)


def shape(store: Path, name: str, size: list[Any], chunks: list[Any] | None = None, dtype: str | None = None) -> None:
    """Claim another shape of an array, without chunk files."""
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks or size}}
    more = {} if dtype is None else {"data_type": dtype}
    edit_array(store, name, shape=size, chunk_grid=grid, **more)
    shutil.rmtree(store / name / "c", ignore_errors=True)


def write(store: Path, name: str, values: Any, dims: list[str], **options: Any) -> None:
    """Replace a variable by other values."""
    shutil.rmtree(store / name, ignore_errors=True)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    group.create_array(name, data=np.asarray(values), dimension_names=dims, **options)
    foreign(store)


def chunk(store: Path, name: str) -> Path:
    """The first chunk file of a variable."""
    folder = store / name / "c"
    return next(p for p in sorted(folder.rglob("*")) if p.is_file()) if folder.is_dir() else folder


def replace_by_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replace_by_link(file: Path, target: str) -> None:
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink()
    file.symlink_to(target)


class Payload:
    """Runs code when it is unpickled: makes a file whose place is in the environment."""

    def __reduce__(self) -> Any:
        return os.system, ("touch $HOSTILE_MARK",)


for part in ("stores", "contents", "results", "checkpoints"):
    importlib.import_module(f"tests.hostile.{part}")
