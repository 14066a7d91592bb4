"""Figures of cubes and results; each function returns a matplotlib figure."""

from scalehsi.plots.public import (
    bins,
    comparison,
    composite,
    composition,
    denoised,
    lengthscales,
    maps,
    noise_ratios,
    objective,
    residual,
    scree,
    spectra,
)

__all__ = [
    "bins",
    "comparison",
    "composite",
    "composition",
    "denoised",
    "lengthscales",
    "maps",
    "noise_ratios",
    "objective",
    "residual",
    "scree",
    "spectra",
]
