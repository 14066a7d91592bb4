"""Prepare a cube before a fit: crop, bin, mask and thin. Every step is lazy and adds a line to the history."""

from scalehsi.prepare.crop_bin_mask import bin, crop, mask
from scalehsi.prepare.steps import STEPS, apply_step
from scalehsi.prepare.thin import thin, thinned

__all__ = ["STEPS", "apply_step", "bin", "crop", "mask", "thin", "thinned"]
