"""Fusion of a spatial and a spectral acquisition of one region."""

from scalehsi.models.pansharpen.model import PanSharpen

__all__ = ["PanSharpen"]
