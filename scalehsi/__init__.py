"""Dask-parallel unmixing and reconstruction of spectrum images (STEM-EELS, STEM-EDX) of any size.

>>> import scalehsi as hsi
>>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
>>> result = hsi.fit(cube, hsi.NMF(n_components=4, max_iter=20), seed=0)
>>> sorted(hsi.metrics.score(result, truth).data_vars)[-1]
'spectral_angle'

The names below are loaded when they are first used, so that ``import scalehsi`` stays quick.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalehsi import metrics, plots, prepare, quantify, simulate
    from scalehsi.cluster import connect
    from scalehsi.cube import check_cube, check_finite, make_cube
    from scalehsi.fitting.fit import fit
    from scalehsi.fitting.plan import plan
    from scalehsi.io import convert, open_cube, open_image, open_result, save
    from scalehsi.models.apply import project, reconstruct
    from scalehsi.models.gp import ParallelGP, lengthscale_scan
    from scalehsi.models.nmf import NMF
    from scalehsi.models.pansharpen import PanSharpen
    from scalehsi.models.pca import PCA
    from scalehsi.models.psnmf import PSNMF, scan_bins
    from scalehsi.report import report
    from scalehsi.schema import InputError, Interrupted

__all__ = [
    "NMF",
    "PCA",
    "PSNMF",
    "InputError",
    "Interrupted",
    "PanSharpen",
    "ParallelGP",
    "check_cube",
    "check_finite",
    "connect",
    "convert",
    "fit",
    "lengthscale_scan",
    "make_cube",
    "metrics",
    "open_cube",
    "open_image",
    "open_result",
    "plan",
    "plots",
    "prepare",
    "project",
    "quantify",
    "reconstruct",
    "report",
    "save",
    "scan_bins",
    "simulate",
]

_HOMES = {
    "NMF": "scalehsi.models.nmf",
    "PCA": "scalehsi.models.pca",
    "PSNMF": "scalehsi.models.psnmf",
    "PanSharpen": "scalehsi.models.pansharpen",
    "ParallelGP": "scalehsi.models.gp",
    "InputError": "scalehsi.schema",
    "Interrupted": "scalehsi.schema",
    "check_cube": "scalehsi.cube",
    "check_finite": "scalehsi.cube",
    "connect": "scalehsi.cluster",
    "convert": "scalehsi.io",
    "fit": "scalehsi.fitting.fit",
    "lengthscale_scan": "scalehsi.models.gp",
    "make_cube": "scalehsi.cube",
    "open_cube": "scalehsi.io",
    "open_image": "scalehsi.io",
    "open_result": "scalehsi.io",
    "plan": "scalehsi.fitting.plan",
    "project": "scalehsi.models.apply",
    "reconstruct": "scalehsi.models.apply",
    "report": "scalehsi.report",
    "save": "scalehsi.io",
    "scan_bins": "scalehsi.models.psnmf",
}

try:
    __version__ = version("scalehsi")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"scalehsi.{name}")
    else:
        raise AttributeError(f"module 'scalehsi' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
