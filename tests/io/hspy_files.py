"""HyperSpy's files with several signals, which the tests of trees and of xarray's engine share."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

COUNTS = np.random.default_rng(0).integers(0, 900, (3, 4, 5, 6)).astype("u2")
EELS, EDS = {"signal_type": "EELS"}, {"signal_type": "EDS_TEM"}


def file_of(path: Path, *signals: tuple[str, np.ndarray[Any, Any], int, dict[str, str]]) -> Path:
    """An .hspy file of several signals: title, data, number of navigation axes, signal metadata."""
    import h5py

    for number, (title, data, navigation, kind) in enumerate(signals):
        entry = {
            "data": data,
            "axes": [
                {"name": name, "units": units, "scale": 0.5, "offset": 1.0, "size": n, "navigate": i < navigation}
                | {"index_in_array": i, "is_binned": False, "_type": "UniformDataAxis"}
                for i, (n, (name, units)) in enumerate(zip(data.shape, axes_of(data.ndim, kind), strict=True))
            ],
            "metadata": {"General": {"title": title}, "Signal": kind},
            **{name: {} for name in ("original_metadata", "tmp_parameters", "learning_results", "models")},
            "attributes": {"_lazy": False, "ragged": False},
            "package_info": {"package": "scalehsi tests", "package_version": "1"},
        }
        part = path.with_name(f"part_{number}.hspy")
        importlib.import_module("rsciio.hspy").file_writer(str(part), entry)
        with h5py.File(part) as source, h5py.File(path, "a") as whole:
            whole.attrs.update(source.attrs)
            (group,) = source["Experiments"].values()
            source.copy(group, whole.require_group("Experiments"), name=f"{number} {title}")
    return path


def axes_of(ndim: int, kind: dict[str, str]) -> list[tuple[str, str]]:
    last = [("Energy", "eV")] if kind else []
    return [("frame", "s"), ("y", "nm"), ("x", "nm")][3 - ndim + len(last) :] + last
