"""Sizes on disk, and the line about a store that a command wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from dask.utils import format_bytes

from scalehsi.cli.session import Session


def disk_bytes(path: Path) -> int:
    """Bytes that a file or a store takes on disk."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def show_written(session: Session, path: Path, cube: xr.DataArray) -> dict[str, Any]:
    """Show shape and size of a cube that was written to a path, and return them for ``--json``."""
    shape = " x ".join(f"{n:,}" for n in cube.shape)
    disk = disk_bytes(session.path(path))
    sizes = f"{format_bytes(cube.nbytes)} in memory, {format_bytes(disk)} on disk"
    session.console.say(f"{path}: {shape} {cube.dtype}, {sizes}")
    return {"written": str(path), "shape": list(cube.shape), "dtype": str(cube.dtype), "disk_bytes": disk}
