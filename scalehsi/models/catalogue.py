"""All models of the package by name, for the command line and for results read from disk."""

from __future__ import annotations

from typing import Final

from scalehsi.fitting.model import REGISTRY, Model
from scalehsi.models.gp import ParallelGP
from scalehsi.models.nmf import NMF
from scalehsi.models.pansharpen import PanSharpen
from scalehsi.models.pca import PCA
from scalehsi.models.psnmf import PSNMF
from scalehsi.schema import InputError, suggest

MODELS: Final[tuple[type[Model], ...]] = (NMF, PCA, PSNMF, PanSharpen, ParallelGP)
"""Importing them registers them; one of your own joins with `scalehsi.fitting.model.register`."""


def model_class(name: str) -> type[Model]:
    """Look a model up by name, in any case.

    Raises
    ------
    InputError
        With the nearest name.

    Examples
    --------
    >>> model_class("nmf").__name__
    'NMF'
    """
    if name.lower() not in REGISTRY:
        raise InputError(f"there is no model {name!r}; {suggest(name.lower(), REGISTRY)}")
    return REGISTRY[name.lower()]
