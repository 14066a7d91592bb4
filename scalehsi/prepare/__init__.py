"""Prepare a cube before a fit. Every step returns a new, lazy cube whose history has one more line."""

from scalehsi.prepare.align import align
from scalehsi.prepare.background import remove_background
from scalehsi.prepare.crop_bin_mask import bin, crop, mask
from scalehsi.prepare.dimension import signal_dimension
from scalehsi.prepare.edge_windows import propose_windows
from scalehsi.prepare.gain import correct_gain, estimate_afterglow, subtract_dark
from scalehsi.prepare.noise import estimate_noise
from scalehsi.prepare.scaling import anscombe, normalise
from scalehsi.prepare.spikes import remove_spikes
from scalehsi.prepare.steps import STEPS, apply_step
from scalehsi.prepare.thin import thin, thinned

__all__ = [
    "STEPS",
    "align",
    "anscombe",
    "apply_step",
    "bin",
    "correct_gain",
    "crop",
    "estimate_afterglow",
    "estimate_noise",
    "mask",
    "normalise",
    "propose_windows",
    "remove_background",
    "remove_spikes",
    "signal_dimension",
    "subtract_dark",
    "thin",
    "thinned",
]
