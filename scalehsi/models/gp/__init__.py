"""Gaussian-process reconstruction of abundance maps, with standard deviations."""

from scalehsi.models.gp.lengthscale_scan import lengthscale_scan
from scalehsi.models.gp.model import ParallelGP

__all__ = ["ParallelGP", "lengthscale_scan"]
