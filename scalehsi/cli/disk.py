"""Sizes on disk, and what a command says about a store that it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from scalehsi.cli.console import size
from scalehsi.cli.session import Session


def disk_bytes(path: Path) -> int:
    """Bytes that a file or a store takes on disk."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def tell_written(session: Session, path: Path, cube: xr.DataArray) -> dict[str, Any]:
    shape = " x ".join(f"{n:,}" for n in cube.shape)
    disk = disk_bytes(session.path(path))
    session.console.say(f"{path}: {shape} {cube.dtype}, {size(cube.nbytes)} in memory, {size(disk)} on disk")
    return {"written": str(path), "shape": list(cube.shape), "dtype": str(cube.dtype), "disk_bytes": disk}
