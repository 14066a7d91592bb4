"""Figures of cubes and results; each function returns a matplotlib figure."""

from scalehsi.plots.public import (
    comparison,
    components,
    composite,
    composition,
    denoised,
    map,
    maps,
    objective,
    residual,
    scree,
    spectra,
)
from scalehsi.plots.public_scans import bins, lengthscales, noise_ratios, rank

__all__ = [
    "bins",
    "comparison",
    "components",
    "composite",
    "composition",
    "denoised",
    "lengthscales",
    "map",
    "maps",
    "noise_ratios",
    "objective",
    "rank",
    "residual",
    "scree",
    "spectra",
]
