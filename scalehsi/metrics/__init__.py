"""Score spectra and maps against a known truth, and judge denoised cubes with or without one."""

from scalehsi.metrics.denoising import denoise_report
from scalehsi.metrics.scores import (
    coverage,
    match,
    mse,
    nmse,
    sad,
    score,
    signal_shares,
    similarities,
    similarity,
    spectral_angle,
)
from scalehsi.prepare.line_windows import line_windows

__all__ = [
    "coverage",
    "denoise_report",
    "line_windows",
    "match",
    "mse",
    "nmse",
    "sad",
    "score",
    "signal_shares",
    "similarities",
    "similarity",
    "spectral_angle",
]
