"""Dask-parallel unmixing and reconstruction of spectrum images (STEM-EELS, STEM-EDX) of any size.

>>> import scalehsi as hsi
>>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
>>> result = hsi.fit(cube, hsi.NMF(n_components=4, max_iter=20), seed=0)
>>> sorted(hsi.metrics.score(result, truth).data_vars)[-1]
'spectral_angle'

The names below are loaded when they are first used, so that ``import scalehsi`` stays quick: it loads xarray alone, to
register ``cube.hsi``.
"""

from __future__ import annotations

from scalehsi.interrupt import is_command, own_process

if is_command():
    own_process()  # before the imports, which are most of a short command

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import lazy_loader

from scalehsi.models.catalogue import class_names
from scalehsi.schema import suggest

_public, _, _names = lazy_loader.attach_stub(__name__, __file__)

__all__ = sorted({*_names, *class_names()})

try:
    __version__ = version("scalehsi")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    methods = class_names()
    if name in methods:
        return getattr(importlib.import_module(methods[name].partition(":")[0]), name)
    if name in _names:
        return _public(name)
    raise AttributeError(f"module 'scalehsi' has no attribute {name!r}; {suggest(name, __dir__())}")


def __dir__() -> list[str]:
    return sorted({*_names, *class_names()})


if not is_command():
    importlib.import_module("scalehsi.accessor")  # ``cube.hsi``; it loads xarray, which a short command may not need
